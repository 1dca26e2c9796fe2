//! Single decisions.

use dispatch_sim::policy::coverage::{Guard, mean_reach_km, relax};
use dispatch_sim::{
    AllFit, Charge, Demand, Drone, Greedy, Heading, Matching, MatchingSettings, Optimal, Order, Pairs, Plan, Point,
    Policy, Snapshot,
};
use proptest::prelude::{ProptestConfig, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};

fn order(id: u64, origin: Point, placed_min: f64) -> Order {
    Order {
        id,
        origin,
        destination: Point::new(10.0, 10.0),
        placed_min,
    }
}

fn drone(id: u64, at: Point, ready_in_min: f64) -> Drone {
    Drone {
        id,
        at,
        ready_in_min,
        km_per_min: 1.0,
        heading: Heading::Nowhere,
    }
}

fn plan(policy: &dyn Policy, orders: &[Order], drones: &[Drone], demand: &Demand) -> Plan {
    let snapshot = Snapshot {
        now_min: 100.0,
        orders,
        drones,
        pairs: &AllFit,
        demand,
    };
    let plan = policy.plan(&snapshot);
    assert_eq!(plan.check(&snapshot), Ok(()));
    plan
}

/// Cost of the best way to match the orders from `from` on with drones not in `used`, by trying all. Minutes.
fn try_all(cost: &[Vec<Option<f64>>], unserved: f64, from: usize, used: u32) -> f64 {
    let Some(row) = cost.get(from) else {
        return 0.0;
    };
    let mut best = unserved + try_all(cost, unserved, from + 1, used);
    for (drone, cost_here) in row.iter().enumerate() {
        if let (Some(minutes), 0) = (cost_here, used >> drone & 1) {
            best = best.min(minutes + try_all(cost, unserved, from + 1, used | 1 << drone));
        }
    }
    best
}

fn place() -> impl Strategy<Value = Point> {
    (0.0..20.0_f64, 0.0..20.0_f64).prop_map(|(x, y)| Point::new(x, y))
}

proptest! {
    /// Matching is the best of all ways, look-ahead, forbidden pairs and the gain for keeping on included.
    #[test]
    fn matching_is_the_best_of_all(
        origins in prop::collection::vec(place(), 0..6),
        fleet in prop::collection::vec((place(), prop::option::of(0.1..80.0_f64), 0..8_usize), 0..6),
        forbidden in any::<u64>(),
    ) {
        let orders: Vec<Order> = (0..).zip(&origins).map(|(id, &origin)| order(id, origin, 0.0)).collect();
        let mut taken = [false; 8];
        let drones: Vec<Drone> = (0..).zip(&fleet).map(|(id, &(at, ready, heads_for))| {
            let mut drone = drone(id, at, ready.unwrap_or(0.0));
            if drone.is_ready() && heads_for < orders.len() && !std::mem::replace(&mut taken[heads_for], true) {
                drone.heading = Heading::Pickup(heads_for);
            }
            drone
        }).collect();
        let pairs = |order: &Order, drone: &Drone| (forbidden >> (order.id * 8 + drone.id) & 1 == 0).then_some(0.5);
        let snapshot = Snapshot { now_min: 0.0, orders: &orders, drones: &drones, pairs: &pairs, demand: &Demand::unknown() };
        let MatchingSettings { look_ahead_min, swap_gain_min, unserved_min, .. } = MatchingSettings::default();
        let cost: Vec<Vec<Option<f64>>> = (0..).zip(&orders).map(|(index, order)| drones.iter().map(|drone| {
            let kept = if drone.heading == Heading::Pickup(index) { swap_gain_min } else { 0.0 };
            let extra = pairs(order, drone).filter(|_| drone.ready_in_min <= look_ahead_min)?;
            Some(drone.minutes_to(order.origin) + extra - kept)
        }).collect()).collect();
        let plan = Matching::default().plan(&snapshot);
        prop_assert_eq!(plan.check(&snapshot), Ok(()));
        let matched: Vec<(usize, usize)> = plan.pickups.iter().chain(&plan.promised).copied().collect();
        let served: f64 = matched.iter().map(|&(order, drone)| cost[order][drone].unwrap()).sum();
        #[expect(clippy::cast_precision_loss, reason = "a handful")]
        let left = (orders.len() - matched.len()) as f64;
        // Costs are rounded to milliseconds.
        prop_assert!((served + left * unserved_min - try_all(&cost, unserved_min, 0, 0)).abs() < 1e-3);
    }

    #[test]
    fn covering_never_gets_worse(
        fleet in prop::collection::vec((place(), 0.0..5.0_f64, any::<bool>()), 1..8),
        weights in prop::collection::vec(0.0..1.0_f64, 36),
    ) {
        let mut demand = Demand::uniform(20.0, 6, 1.0);
        for (point, weight) in demand.points.iter_mut().zip(&weights) {
            point.1 = *weight;
        }
        let mut guards: Vec<Guard> = fleet.iter().map(|&(at, delay_km, is_movable)| Guard { at, delay_km, is_movable }).collect();
        let before = mean_reach_km(&guards, &demand).unwrap();
        relax(&mut guards, &demand, 3);
        // Weiszfeld's step with distances cut off below 0.2 km can lose at most about that.
        prop_assert!(mean_reach_km(&guards, &demand).unwrap() <= before + 0.2);
        for (guard, &(at, _, is_movable)) in guards.iter().zip(&fleet) {
            prop_assert!(is_movable || guard.at == at);
        }
    }
}

#[test]
fn greedy_takes_the_oldest_first_and_the_nearest() {
    let orders = [order(0, Point::new(5.0, 0.0), 1.0), order(1, Point::new(1.0, 0.0), 2.0)];
    let drones = [drone(0, Point::default(), 0.0)];
    assert_eq!(plan(&Greedy, &orders, &drones, &Demand::unknown()).pickups, [(0, 0)]);
    let drones = [drone(0, Point::default(), 0.0), drone(1, Point::new(4.0, 0.0), 0.0)];
    assert_eq!(
        plan(&Greedy, &orders, &drones, &Demand::unknown()).pickups,
        [(0, 1), (1, 0)]
    );
}

/// One that is free in a minute next door is waited for.
#[test]
fn matching_waits_for_who_is_sooner() {
    let orders = [order(0, Point::new(10.0, 0.0), 99.0)];
    let drones = [drone(0, Point::default(), 0.0), drone(1, Point::new(10.0, 1.0), 1.0)];
    let plan = plan(&Matching::default(), &orders, &drones, &Demand::unknown());
    assert_eq!((plan.pickups, plan.promised), (vec![], vec![(0, 1)]));
}

#[test]
fn a_swap_must_be_worth_it() {
    let orders = [order(0, Point::new(5.0, 0.0), 99.0)];
    let swapped = |other_km: f64| {
        let mut drones = [
            drone(0, Point::default(), 0.0),
            drone(1, Point::new(5.0, other_km), 0.0),
        ];
        drones[0].heading = Heading::Pickup(0);
        plan(&Matching::default(), &orders, &drones, &Demand::unknown()).pickups == [(0, 1)]
    };
    assert!(swapped(4.8) && !swapped(4.95));
}

/// In a large fleet only the nearest are listed; that they suffice shows against all of them.
#[test]
fn large_fleets_are_matched_as_well_from_the_nearest() {
    let spread =
        |index: u32, step: f64| Point::new((f64::from(index) * step) % 20.0, (f64::from(index) * step * 1.7) % 20.0);
    let orders: Vec<Order> = (0..100)
        .map(|index| order(index.into(), spread(index, 3.77), 0.0))
        .collect();
    let drones: Vec<Drone> = (0..400)
        .map(|index| drone(index.into(), spread(index, 2.39), f64::from(index % 3) * 2.0))
        .collect();
    let cost = |candidates| {
        let settings = MatchingSettings {
            candidates,
            ..MatchingSettings::default()
        };
        let plan = plan(&Matching { settings }, &orders, &drones, &Demand::unknown());
        let pairs = plan.pickups.iter().chain(&plan.promised);
        assert_eq!(plan.pickups.len() + plan.promised.len(), orders.len());
        pairs
            .map(|&(order, by)| drones[by].minutes_to(orders[order].origin))
            .sum::<f64>()
    };
    assert!((cost(32) - cost(400)).abs() < 0.01, "{} {}", cost(32), cost(400));
}

/// A wall along x = 10 from y = 0 to 19: who is on the other side flies round its end.
struct Walled;

impl Walled {
    fn detour_km(from: Point, to: Point) -> f64 {
        let end = Point::new(10.0, 19.0);
        let share = (10.0 - from.x) / (to.x - from.x);
        let crossing = from.y + (to.y - from.y) * share;
        if (from.x < 10.0) != (to.x < 10.0) && crossing < 19.0 {
            from.km_to(end) + end.km_to(to) - from.km_to(to)
        } else {
            0.0
        }
    }
}

impl Pairs for Walled {
    fn extra_min(&self, order: &Order, drone: &Drone) -> Option<f64> {
        self.charge(order, drone).map(|charge| charge.extra_min)
    }

    fn charge(&self, order: &Order, drone: &Drone) -> Option<Charge> {
        let detour_km = Self::detour_km(drone.at, order.origin);
        Some(Charge {
            extra_min: detour_km / drone.km_per_min,
            detour_km,
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// With no more orders than candidates each, nobody better is left out: of an order's nearest drones by the way at least one is free.
    #[test]
    fn large_fleets_are_matched_as_well_from_the_nearest_where_a_wall_is_in_the_way(
        origins in prop::collection::vec((9.0..11.0_f64, 0.0..12.0_f64), 1..32),
        fleet in prop::collection::vec((prop_oneof![3 => 0.0..9.9_f64, 1 => 10.1..20.0_f64], 0.0..20.0_f64), 300..500),
    ) {
        let orders: Vec<Order> = (0..).zip(origins).map(|(id, (x, y))| order(id, Point::new(x, y), 0.0)).collect();
        let drones: Vec<Drone> = (0..).zip(fleet).map(|(id, (x, y))| drone(id, Point::new(x, y), 0.0)).collect();
        let demand = Demand::unknown();
        let snapshot = Snapshot { now_min: 0.0, orders: &orders, drones: &drones, pairs: &Walled, demand: &demand };
        let cost = |candidates| {
            let settings = MatchingSettings { candidates, ..MatchingSettings::default() };
            let plan = Matching { settings }.plan(&snapshot);
            assert_eq!(plan.pickups.len(), orders.len());
            let minutes = plan.pickups.iter().map(|&(order, by)| {
                let (order, drone) = (&orders[order], &drones[by]);
                drone.minutes_to(order.origin) + Walled.extra_min(order, drone).unwrap()
            });
            minutes.sum::<f64>()
        };
        // Costs are rounded to milliseconds.
        prop_assert!((cost(32) - cost(drones.len())).abs() < 0.01, "{} {}", cost(32), cost(drones.len()));
    }
}

#[test]
fn optimal_spreads_who_has_nothing_to_do() {
    let drones: Vec<Drone> = (0..4)
        .map(|id| drone(id, Point::new(9.0 + f64::from(u32::try_from(id).unwrap()), 10.0), 0.0))
        .collect();
    let demand = Demand::uniform(20.0, 20, 1.0);
    let moves = plan(&Optimal::default(), &[], &drones, &demand).moves;
    assert_eq!(moves.len(), 4);
    let reach = |places: Vec<Point>| {
        let guards: Vec<Guard> = places
            .into_iter()
            .map(|at| Guard {
                at,
                delay_km: 0.0,
                is_movable: true,
            })
            .collect();
        mean_reach_km(&guards, &demand).unwrap()
    };
    let before = reach(drones.iter().map(|drone| drone.at).collect());
    let after = reach(moves.into_iter().map(|(_, place)| place).collect());
    assert!(after < 0.9 * before, "{before} to {after}");
    assert_eq!(plan(&Optimal::default(), &[], &drones, &Demand::unknown()).moves, []);
}

/// Two orders for one drone: a tie is decided by age, and so are a few minutes of distance after hours.
#[test]
fn optimal_lets_nobody_wait_for_ever() {
    let near = order(0, Point::new(2.0, 0.0), 99.0);
    let old = |placed_min| order(1, Point::new(0.0, 6.0), placed_min);
    let drones = [drone(0, Point::default(), 0.0)];
    let taken = |orders: &[Order]| plan(&Optimal::default(), orders, &drones, &Demand::unknown()).pickups[0].0;
    assert_eq!(taken(&[old(98.0), near]), 1);
    assert_eq!(taken(&[old(-200.0), near]), 0);
}
