//! Orders under way that go to better drones.

use std::collections::HashSet;

use domain::delivery::Delivery;
use domain::drone::DroneStatus;
use domain::geo::Point;
use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};

use super::{Case, ORIGIN, north, pair, place};
use crate::policy::{Plan, Policy, fitness};
use crate::testing::{drone, order, zones};

#[test]
fn a_drone_that_is_free_nearer_by_gets_the_order() {
    let a = order("a", ORIGIN, 1.0);
    let with = |km| {
        let fleet = vec![drone(1, north(6.0), 90.0), drone(4, north(km), 90.0)];
        Case::new(fleet, Vec::new()).fetches(0, &a)
    };
    // Light drones fly 2.4 km a minute.
    let far = with(-1.0).swapping();
    assert_eq!(far.taken_back(), [pair("a", "drone-1")]);
    assert_eq!(far.pairs(), [pair("a", "drone-4")]);
    // For less than half a minute nobody turns round.
    let (near, nearer) = (with(-4.9).swapping(), with(-4.7).swapping());
    assert_eq!((near.taken_back(), near.pairs()), (vec![], vec![]));
    assert_eq!(nearer.taken_back(), [pair("a", "drone-1")]);
    assert_eq!(with(-1.0).taken_back(), [], "not without swaps");
}

#[test]
fn what_is_on_board_or_nearly_or_was_swapped_often_enough_or_stands_still_stays_with_its_drone() {
    let mut case = Case::new(
        vec![drone(1, north(6.0), 90.0), drone(4, north(-1.0), 90.0)],
        Vec::new(),
    )
    .fetches(0, &order("a", ORIGIN, 1.0))
    .swapping();
    let taken = |case: &Case| case.taken_back().len();
    case.flown[0].swaps = 2;
    assert_eq!(taken(&case), 1);
    case.flown[0].swaps = 3;
    assert_eq!(taken(&case), 0);
    case.flown[0].swaps = 0;
    case.fleet[0].freeze_until = Some(10.0);
    assert_eq!(taken(&case), 0);
    case.fleet[0].freeze_until = None;
    case.flown[0] = case.flown[0].first_movement(0.0).unwrap();
    assert_eq!(taken(&case), 1);
    case.flown[0] = case.flown[0].at_origin(0.0).unwrap();
    assert_eq!(taken(&case), 0);
}

#[test]
fn with_too_much_to_decide_swaps_are_what_is_left_out_first() {
    let under_way: Vec<Delivery> = (0..6)
        .map(|number| order(&number.to_string(), north(5.0), 1.0))
        .collect();
    let fleet = (0..9)
        .map(|number| drone(1 + 3 * number, north(f64::from(number) - 9.0), 90.0))
        .collect();
    let case = (0..6).zip(&under_way).fold(
        Case::new(fleet, vec![order("x", ORIGIN, 1.0)]),
        |case, (number, order)| case.fetches(number, order),
    );
    let case = case.swapping();
    let rules = case.rules();
    case.ask(|snapshot| {
        let plans = (1..).map(|limit| super::plan_within(snapshot, &rules, limit));
        let first = plans.take(10_000).find(|plan| plan.fell_back.is_none()).unwrap();
        assert_eq!(
            (first.taken_back.len(), first.assignments.len() + first.promised.len()),
            (0, 1)
        );
        assert!(!super::plan_within(snapshot, &rules, 10_000).taken_back.is_empty());
    });
}

#[test]
fn two_drones_that_would_cross_exchange_their_orders() {
    let (a, b) = (order("a", north(5.0), 1.0), order("b", north(-5.0), 1.0));
    let fleet = vec![drone(1, north(-3.0), 90.0), drone(4, north(3.0), 90.0)];
    let case = Case::new(fleet, Vec::new()).fetches(0, &a).fetches(1, &b).swapping();
    assert_eq!(case.taken_back(), [pair("a", "drone-1"), pair("b", "drone-4")]);
    assert_eq!(case.pairs(), [pair("a", "drone-4"), pair("b", "drone-1")]);
}

#[test]
fn a_new_order_next_to_a_drone_under_way_gets_it_if_another_can_take_over() {
    let a = order("a", north(8.0), 1.0);
    let fleet = |number| vec![drone(1, ORIGIN, 90.0), drone(number, north(6.0), 90.0)];
    let new = || vec![order("b", north(0.5), 1.0)];
    let case = Case::new(fleet(4), new()).fetches(0, &a).swapping();
    assert_eq!(case.taken_back(), [pair("a", "drone-1")]);
    assert_eq!(case.pairs(), [pair("a", "drone-4"), pair("b", "drone-1")]);
}

#[test]
fn an_urgent_order_takes_the_only_drone_and_one_that_is_not_more_urgent_does_not() {
    let a = order("a", north(8.0), 1.0);
    let mut b = order("b", north(4.0), 1.0);
    let case = |b: &Delivery| {
        Case::new(vec![drone(1, ORIGIN, 90.0)], vec![b.clone()])
            .fetches(0, &a)
            .swapping()
    };
    b.priority = Some(domain::priority::Priority::Critical);
    assert_eq!(case(&b).taken_back(), [pair("a", "drone-1")]);
    assert_eq!(case(&b).pairs(), [pair("b", "drone-1")]);
}

#[test]
fn a_drone_keeps_its_order_when_its_battery_is_too_low_for_any_other() {
    let fleet = vec![drone(1, north(2.0), 29.0), drone(4, north(-8.0), 90.0)];
    let case = Case::new(fleet, Vec::new())
        .fetches(0, &order("a", ORIGIN, 1.0))
        .swapping();
    assert_eq!((case.taken_back(), case.pairs()), (vec![], vec![]));
}

#[test]
fn an_order_under_way_is_not_left_waiting_for_a_drone_that_may_be_free_sooner() {
    let a = order("a", ORIGIN, 1.0);
    let fleet = vec![drone(1, north(10.0), 90.0), drone(4, north(0.2), 90.0)];
    let mut case = Case::new(fleet, Vec::new())
        .fetches(0, &a)
        .flies(1, north(0.1))
        .swapping();
    case.flown[1] = case.flown[1].first_movement(0.0).unwrap().at_origin(0.0).unwrap();
    assert_eq!(
        (case.taken_back(), case.pairs(), case.promises()),
        (vec![], vec![], vec![])
    );
    // With something better to do for its drone it is.
    case.orders = vec![order("b", north(9.0), 1.0)];
    assert_eq!(case.taken_back(), [pair("a", "drone-1")]);
    assert_eq!(case.pairs(), [pair("b", "drone-1")]);
}

/// What the plan says is done.
fn carry_out(case: &mut Case, taken_back: &[(String, String)], pairs: &[(String, String)]) {
    for (id, drone_id) in taken_back {
        let place = case.flown.iter().position(|order| order.id == *id).unwrap();
        let order = case.flown.swap_remove(place).take_back(case.now).unwrap();
        case.orders.push(order);
        let drone = case.fleet.iter_mut().find(|drone| drone.id == *drone_id).unwrap();
        *drone = drone.release(id).unwrap();
    }
    for (id, drone_id) in pairs {
        let place = case.orders.iter().position(|order| order.id == *id).unwrap();
        let order = case.orders.swap_remove(place);
        let number = case.fleet.iter().position(|drone| drone.id == *drone_id).unwrap();
        case.fleet[number] = case.fleet[number].take(id).unwrap();
        case.flown.push(order.assign(drone_id, case.now).unwrap());
    }
    case.orders.sort_by(|a, b| a.id.cmp(&b.id));
    case.flown.sort_by(|a, b| a.id.cmp(&b.id));
}

/// Those under way fly for so many minutes; false when one of them arrives.
fn fly(case: &mut Case, minutes: f64) -> bool {
    let rules = case.rules();
    case.now += rules.pace.clock_sec(minutes);
    for order in &case.flown {
        let holder = case
            .fleet
            .iter_mut()
            .find(|drone| order.drone_id.as_ref() == Some(&drone.id));
        let drone = holder.unwrap();
        let km = minutes * rules.pace.km_per_min(drone.kind);
        if drone.pos.distance_km(order.origin) <= km + 0.1 {
            return false;
        }
        let battery = drone.battery - km * rules.energy.battery_per_km;
        *drone = drone.moved(drone.pos.move_towards(order.origin, km), battery, false);
    }
    true
}

/// Orders that wait, orders under way, and drones for them and beside: places and weights.
fn made(fleet: &[(Point, f64)], orders: &[(Point, Point, f64)], under_way: usize) -> Case {
    let drones = (1..)
        .zip(fleet)
        .map(|(number, (pos, battery))| drone(number, *pos, *battery));
    let mut records = (0..).zip(orders).map(|(number, (origin, destination, kg))| {
        let mut record = order(&format!("{number:03}"), *origin, *kg);
        record.destination = *destination;
        record
    });
    let mut case = Case::new(drones.collect(), Vec::new()).swapping();
    for number in 0..under_way.min(fleet.len()) {
        let Some(record) = records.next() else { break };
        case = case.fetches(number, &record);
    }
    case.orders = records.collect();
    case
}

proptest! {
    /// Nobody turns round twice: as long as nothing happens but that drones fly on, what was planned stays the plan.
    #[test]
    fn without_news_nothing_is_swapped(
        fleet in prop::collection::vec((place(), 40.0..100.0_f64), 1..9),
        orders in prop::collection::vec((place(), place(), 0.1..12.0_f64), 1..9),
        under_way in 0..6_usize,
        minutes in 0.02..1.0_f64,
    ) {
        let mut case = made(&fleet, &orders, under_way);
        // All have waited for long enough: a drone that comes within MAX_PICKUP_KM of an order would be news.
        case.now = case.rules().pickup_grace_sec;
        let (taken_back, pairs) = (case.taken_back(), case.pairs());
        carry_out(&mut case, &taken_back, &pairs);
        for _ in 0..20 {
            if !fly(&mut case, minutes) {
                break;
            }
            // Those farther than allowed may come after a while: that is news.
            let waiting: HashSet<String> = case.orders.iter().map(|order| order.id.clone()).collect();
            let now = case.pairs();
            if now.iter().any(|(id, _)| waiting.contains(id)) {
                break;
            }
            prop_assert_eq!((case.taken_back(), now), (vec![], vec![]));
        }
    }

    /// What is taken back is provided for, or its drone is; and what is given can be taken.
    #[test]
    fn plans_with_swaps_are_valid(
        fleet in prop::collection::vec((place(), 20.0..100.0_f64), 1..12),
        orders in prop::collection::vec((place(), place(), 0.1..12.0_f64), 0..16),
        under_way in 0..10_usize,
    ) {
        let case = made(&fleet, &orders, under_way);
        let rules = case.rules();
        case.ask(|snapshot| {
            let plan: Plan<'_> = Policy::Optimal.plan(snapshot, &rules);
            let mut used = HashSet::new();
            for pair in &plan.assignments {
                prop_assert!(used.insert(&pair.drone_id) && used.insert(&pair.delivery_id));
                let order = case.orders.iter().chain(&case.flown).find(|order| order.id == pair.delivery_id).unwrap();
                let drone = case.fleet.iter().find(|drone| drone.id == pair.drone_id).unwrap();
                let free = drone.current_delivery.as_ref().map_or_else(|| drone.clone(), |id| drone.release(id).unwrap());
                prop_assert!(fitness(&free, order, 0.0, &zones(), &rules).is_ok());
                let taken = |id: &str, drone_id: &str| plan.taken_back.iter().any(|pair| pair.delivery_id == id && pair.drone_id == drone_id);
                prop_assert!(order.drone_id.as_ref().is_none_or(|holder| taken(&order.id, holder)));
                prop_assert!(drone.current_delivery.as_ref().is_none_or(|held| taken(held, &drone.id)));
            }
            let mut taken = HashSet::new();
            for pair in &plan.taken_back {
                prop_assert!(taken.insert(&pair.drone_id) && taken.insert(&pair.delivery_id));
                prop_assert!(used.contains(&pair.drone_id) || used.contains(&pair.delivery_id));
                prop_assert!(!used.contains(&pair.drone_id) || !plan.assignments.contains(pair), "back to where it was");
                prop_assert!(case.flown.iter().any(|order| order.id == pair.delivery_id && order.drone_id.as_ref() == Some(&pair.drone_id)));
            }
            for order in &plan.unserved {
                prop_assert!(case.orders.iter().any(|other| other.id == order.id));
            }
            for id in plan.misses.keys() {
                let drone = case.fleet.iter().find(|drone| drone.id == **id).unwrap();
                prop_assert_eq!(drone.status, DroneStatus::Idle);
            }
            Ok(())
        })?;
    }
}
