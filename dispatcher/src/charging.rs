//! Which drones go to charge, and when they are done: pure functions over a snapshot and the policy's plan.
//!
//! Promises:
//! - An idle drone at or below `CRITICAL_BATTERY`, or with `EARLY_CHARGE_THRESHOLD` distinct orders it was infeasible for (and
//!   not full), goes to charge; a charging one is done at `FULL_AFTER`, a retiring one becomes inactive then.
//! - *Charging on demand*: an order that no drone could be given, while some drone that may carry it is idle with too little
//!   battery, gets a *helper*: the best suited of them goes to charge at once, at a charge point within its reach from which,
//!   full, it can fly the order. One that charges elsewhere goes on from there as soon as it has battery for the way, unless an older
//!   order was promised it where it charges: else two orders could call one drone back and forth for ever. A helper is done
//!   only when its battery is enough for that order, even beyond `FULL_AFTER`. So an order that a full drone could fly is flown at
//!   last, even with a single drone for it; and nobody is sent farther than its battery reaches.
//! - *With a parcel on board*: a drone that somebody took from its delivery under way, and whose battery no longer takes it to the destination,
//!   charges first, as long as it takes ([`with_parcels`]).
//! - *Topping up*: a drone below `TOP_UP_BELOW` that no order needs charges meanwhile, where a slot is free. For everything else here and in
//!   the policies it is as free as an idle one, and it lets drones that must charge go first.

use std::collections::{HashMap, HashSet};

use domain::delivery::Delivery;
use domain::drone::{Drone, DroneStatus, DroneType};
use domain::energy::{FULL_PCT, loaded_and_home_km, mission_km};
use domain::geo::Point;
use domain::zones::ZonesConfig;

use crate::chargers::{Chargers, reaches};
use crate::fleet::{Change, DroneChange};
use crate::policy::{Plan, Snapshot, Unfit, fitness};
use crate::rules::Rules;

/// Most unserved orders that are given a helper per round: as many as could be flown within minutes.
const HELPED_MAX: usize = 100;

/// What is to change about charging. A drone occurs at most once, and none that the plan assigns.
#[must_use]
pub fn plan(snapshot: &Snapshot<'_>, plan: &Plan<'_>, rules: &Rules) -> Vec<DroneChange> {
    let assigned: HashSet<&str> = plan.assignments.iter().map(|pair| pair.drone_id.as_str()).collect();
    let mut idle: Vec<&Drone> = Vec::new();
    let mut needy: Vec<(&Drone, &'static str)> = Vec::new();
    let mut charging: Vec<(&Drone, Point)> = Vec::new();
    let mut changes = Vec::new();
    for drone in &snapshot.drones {
        match drone.status {
            _ if assigned.contains(drone.id.as_str()) || !drone.is_consistent() => {}
            _ if drone.is_available() => match must_charge(drone, rules) {
                Some(why) => needy.push((drone, why)),
                None => idle.push(drone),
            },
            DroneStatus::Charging => charging.push((drone, drone.charge_target(snapshot.zones))),
            DroneStatus::Retiring if drone.is_charged(rules.full_after_pct) => {
                let retired = Change::Retired {
                    full_after_pct: rules.full_after_pct,
                };
                changes.push(change(drone, retired, "charged after retiring"));
            }
            _ => {}
        }
    }
    let mut free: Vec<&Drone> = idle
        .iter()
        .copied()
        .chain(needy.iter().map(|(drone, _)| *drone))
        .collect();
    let mut chargers = Chargers::new(&snapshot.drones, snapshot.zones, rules);
    let wanted_pct = find_helpers(
        snapshot,
        plan,
        rules,
        &mut chargers,
        &mut free,
        &mut charging,
        &mut changes,
    );
    // Those that must charge anyway and help nobody go where they have it soonest: to the nearest charge point, unless they would wait there.
    let helps: HashSet<String> = changes.iter().map(|change| change.drone_id.clone()).collect();
    let unhelpful: Vec<_> = needy
        .into_iter()
        .filter(|(drone, _)| !helps.contains(drone.id.as_str()))
        .collect();
    idle.retain(|drone| !helps.contains(drone.id.as_str()));
    for (drone, why) in unhelpful {
        let at = chargers.send(drone);
        changes.push(change(drone, Change::Charge { at }, why));
    }
    for (drone, _) in charging
        .iter()
        .filter(|(drone, _)| drone.status == DroneStatus::Charging && !helps.contains(drone.id.as_str()))
    {
        let wanted = wanted_pct.get(drone.id.as_str()).copied().unwrap_or(0.0);
        let full_after_pct = rules.full_after_pct.max(wanted).min(FULL_PCT);
        if drone.is_charged(full_after_pct) {
            changes.push(change(drone, Change::Charged { full_after_pct }, "charged"));
        }
    }
    for drone in idle {
        if drone.is_topping_up() {
            if drone.is_charged(rules.full_after_pct) {
                let full_after_pct = rules.full_after_pct;
                changes.push(change(drone, Change::Charged { full_after_pct }, "topped up"));
                continue;
            }
        } else if tops_up(drone, plan, rules) && chargers.spare(drone) {
            changes.push(change(drone, Change::TopUp, "no order needs it now"));
            continue;
        }
        if let Some(missed) = plan.misses.get(drone.id.as_str()) {
            // Ids already known make no write: `Change::apply` then answers that nothing changes.
            let fresh: Vec<String> = missed
                .iter()
                .map(|id| (*id).to_owned())
                .filter(|id| !drone.feas_miss_set.contains(id))
                .collect();
            if !fresh.is_empty() && drone.feas_miss < rules.early_charge_threshold {
                changes.push(change(
                    drone,
                    Change::Missed { delivery_ids: fresh },
                    "too little battery for orders",
                ));
            }
        }
    }
    changes
}

/// Whether `change` sends `drone`, as it now is, no farther than its battery reaches: it may have flown on since the change was planned.
#[must_use]
pub fn is_within_reach(change: &Change, drone: &Drone, zones: &ZonesConfig, rules: &Rules) -> bool {
    match change {
        Change::Charge { at: Some(at) } | Change::Divert { at } => reaches(drone, *at, zones, rules),
        Change::Resume { destination, .. } => can_carry_on(drone, *destination, zones, rules),
        _ => true,
    }
}

/// Whether `drone`, with a parcel for `destination` on board, has battery for the way there and on to a charge point.
#[must_use]
pub fn can_carry_on(drone: &Drone, destination: Point, zones: &ZonesConfig, rules: &Rules) -> bool {
    let km = loaded_and_home_km(drone.pos, destination, zones);
    rules.energy.feasible(drone.battery, km)
}

/// What is to change about drones that have a parcel on board but fly it no more: those whose battery is not enough to go on charge, at the nearest
/// charge point, until it is. They are in no other plan meanwhile.
#[must_use]
pub fn with_parcels(carriers: &[(&Drone, &Delivery)], zones: &ZonesConfig, rules: &Rules) -> Vec<DroneChange> {
    let low = carriers
        .iter()
        .filter(|(drone, order)| !can_carry_on(drone, order.destination, zones, rules));
    low.filter_map(|(drone, _)| {
        let why = "its parcel is on board, and its battery does not take it there";
        match drone.status {
            _ if drone.is_available() => Some(change(drone, Change::Charge { at: None }, why)),
            DroneStatus::Inactive => Some(change(drone, Change::Wake, why)),
            _ => None,
        }
    })
    .collect()
}

fn change(drone: &Drone, change: Change, why: &'static str) -> DroneChange {
    DroneChange {
        drone_id: drone.id.clone(),
        change,
        why,
    }
}

fn must_charge(drone: &Drone, rules: &Rules) -> Option<&'static str> {
    if drone.battery <= rules.critical_battery_pct {
        return Some("critical battery");
    }
    // A full drone gains nothing from charging where it is: helpers are sent elsewhere on demand.
    let threshold = rules.early_charge_threshold;
    (drone.feas_miss >= threshold && drone.battery < rules.full_after_pct).then_some("infeasible for many orders")
}

/// Whether an idle drone uses the time to top up: its battery is below the threshold, and no order waits that it may carry.
fn tops_up(drone: &Drone, plan: &Plan<'_>, rules: &Rules) -> bool {
    drone.battery < rules.top_up_below_pct
        && plan.assignments.len() < rules.max_assign_per_round
        && !(plan.unserved.iter()).any(|order| rules.carries(drone.kind, order.drone_type()))
}

/// Finds each unserved order a charging drone of its own, sending one where none is charging yet: rather one that must charge
/// anyway (under a steady load of short orders there is no other) than one that could still fly. Answers how much
/// battery each helper that stands at its charge point must have before it is done.
fn find_helpers<'a>(
    snapshot: &Snapshot<'a>,
    plan: &Plan<'a>,
    rules: &Rules,
    chargers: &mut Chargers<'_>,
    free: &mut Vec<&'a Drone>,
    charging: &mut Vec<(&'a Drone, Point)>,
    changes: &mut Vec<DroneChange>,
) -> HashMap<&'a str, f64> {
    let mut wanted_pct = HashMap::new();
    let promised =
        (plan.promised.iter()).map(|promise| (promise.pair.drone_id.as_str(), promise.pair.delivery_id.as_str()));
    let promised: HashMap<&str, &str> = promised.collect();
    for order in plan.unserved.iter().take(HELPED_MAX) {
        let can_from = |charge: Point| {
            rules
                .energy
                .can_fly_from(charge, order.origin, order.destination, snapshot.zones)
        };
        let kind = order.drone_type();
        let can_help = |&&(drone, target): &&(&Drone, Point)| {
            rules.carries(drone.kind, kind) && !wanted_pct.contains_key(drone.id.as_str()) && can_from(target)
        };
        // Its own class first: heavier ones may be wanted by heavier orders.
        let helper = charging.iter().filter(can_help).min_by_key(|(drone, _)| drone.kind);
        if let Some((drone, target)) = helper {
            // From where it stands once there: a drone may stand a few metres beside its charge point.
            let start = if drone.at_charge { drone.pos } else { *target };
            let km = mission_km(start, order.origin, order.destination, snapshot.zones);
            wanted_pct.insert(drone.id.as_str(), rules.energy.needed_pct(km));
            continue;
        }
        // Ids are in the order of age.
        let may_leave = |drone: &Drone| {
            let id = drone.id.as_str();
            !wanted_pct.contains_key(id) && promised.get(id).is_none_or(|older| *older > order.id.as_str())
        };
        if let Some((index, charge)) = divertible(snapshot, order, rules, charging, may_leave, can_from) {
            let (drone, target) = &mut charging[index];
            *target = charge;
            changes.push(change(
                drone,
                Change::Divert { at: charge },
                "an order waits for its battery",
            ));
            wanted_pct.insert(drone.id.as_str(), FULL_PCT);
            continue;
        }
        let Some((index, charge)) = best_suited(snapshot, order, rules, chargers, free, can_from) else {
            let is_under_way = charging.iter().any(|(drone, _)| rules.carries(drone.kind, kind));
            if let Some(index) = stopover(snapshot, order, rules, free).filter(|_| !is_under_way) {
                let drone = free.swap_remove(index);
                changes.push(change(
                    drone,
                    Change::Charge { at: None },
                    "to reach where an order needs it charged",
                ));
                charging.push((drone, drone.charge_target(snapshot.zones)));
            }
            continue;
        };
        let drone = free.swap_remove(index);
        let is_nearest = snapshot
            .zones
            .nearest_charge(drone.pos)
            .is_some_and(|(nearest, _)| nearest == charge);
        let at = (!is_nearest).then_some(charge);
        changes.push(change(drone, Change::Charge { at }, "an order waits for its battery"));
        wanted_pct.insert(drone.id.as_str(), FULL_PCT);
        chargers.add(drone, charge);
        charging.push((drone, charge));
    }
    wanted_pct
}

/// The free drone that, sent to charge, is ready for `order` with the least battery to gain, and where it should charge.
/// `None` when some free drone only is too far yet (it will be allowed soon), or when battery is not what is missing.
fn best_suited(
    snapshot: &Snapshot<'_>,
    order: &Delivery,
    rules: &Rules,
    chargers: &Chargers<'_>,
    free: &[&Drone],
    can_from: impl Fn(Point) -> bool,
) -> Option<(usize, Point)> {
    let mut best: Option<(DroneType, bool, f64, usize, Point)> = None;
    for (index, drone) in free.iter().enumerate() {
        match fitness(drone, order, snapshot.now, snapshot.zones, rules) {
            Err(Unfit::Infeasible | Unfit::Critical) => {}
            Err(Unfit::TooFar) => return None,
            _ => continue,
        }
        let could_fly_others = must_charge(drone, rules).is_none();
        for charge in snapshot
            .zones
            .zones
            .iter()
            .map(|zone| zone.charge)
            .filter(|charge| can_from(*charge) && reaches(drone, *charge, snapshot.zones, rules))
        {
            let flight_km = snapshot.zones.way_km(drone.pos, charge);
            let flight_pct = flight_km * rules.energy.battery_per_km;
            let km = mission_km(charge, order.origin, order.destination, snapshot.zones);
            let arrival_min = flight_km / rules.pace.km_per_min(drone.kind);
            // Battery to gain, and the flight counted once more because it also takes time, as waiting for a slot does.
            let waiting_pct = rules.pace.charged_pct(chargers.wait_min(charge, arrival_min));
            let cost = rules.energy.needed_pct(km) + 2.0 * flight_pct + waiting_pct - drone.battery;
            let suits = (drone.kind, could_fly_others, cost);
            if best.is_none_or(|(kind, others, least, ..)| suits < (kind, others, least)) {
                best = Some((drone.kind, could_fly_others, cost, index, charge));
            }
        }
    }
    best.map(|(_, _, _, index, charge)| (index, charge))
}

/// The drone that charges where it is of no use for `order`, and by now has battery for the way to a charge point from which it could fly it;
/// and that point. The lightest of the nearest, of those that may leave.
fn divertible(
    snapshot: &Snapshot<'_>,
    order: &Delivery,
    rules: &Rules,
    charging: &[(&Drone, Point)],
    may_leave: impl Fn(&Drone) -> bool,
    can_from: impl Fn(Point) -> bool,
) -> Option<(usize, Point)> {
    let mut best: Option<(DroneType, f64, usize, Point)> = None;
    for (index, (drone, _)) in charging.iter().enumerate() {
        let is_useful =
            drone.status == DroneStatus::Charging && rules.carries(drone.kind, order.drone_type()) && may_leave(drone);
        if !is_useful {
            continue;
        }
        let charges = snapshot.zones.zones.iter().map(|zone| zone.charge);
        for charge in charges.filter(|charge| can_from(*charge)) {
            let km = snapshot.zones.way_km(drone.pos, charge);
            let suits = (drone.kind, km);
            if rules.energy.feasible(drone.battery, km) && best.is_none_or(|(kind, least, ..)| suits < (kind, least)) {
                best = Some((drone.kind, km, index, charge));
            }
        }
    }
    best.map(|(_, _, index, charge)| (index, charge))
}

/// Nobody reaches a charge point from which `order` can be flown: the free drone that is to charge at the nearest one first, and go on from
/// there. The one that is there soonest.
fn stopover(snapshot: &Snapshot<'_>, order: &Delivery, rules: &Rules, free: &[&Drone]) -> Option<usize> {
    let unfit = |drone: &Drone| fitness(drone, order, snapshot.now, snapshot.zones, rules).err();
    // One that is only too far yet will be allowed soon.
    if free.iter().any(|drone| unfit(drone) == Some(Unfit::TooFar)) {
        return None;
    }
    let could = |drone: &Drone| {
        matches!(unfit(drone), Some(Unfit::Infeasible | Unfit::Critical)) && drone.battery < rules.full_after_pct
    };
    let km = |drone: &Drone| snapshot.zones.nearest_charge(drone.pos).map_or(0.0, |(_, km)| km);
    let candidates = free.iter().enumerate().filter(|(_, drone)| could(drone));
    candidates
        .min_by(|(_, a), (_, b)| a.kind.cmp(&b.kind).then(km(a).total_cmp(&km(b))))
        .map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use domain::delivery::Delivery;
    use domain::drone::Drone;
    use domain::geo::Point;

    use super::{is_within_reach, plan};
    use crate::fleet::{Change, DroneChange};
    use crate::policy::{Assignment, Plan, Policy, Promise};
    use crate::testing::{drone, order, rules, snapshot, zones};

    const CENTER: Point = Point::new(41.89, 12.485);

    fn planned(drones: &[Drone], orders: &[Delivery]) -> Vec<DroneChange> {
        let zones = zones();
        let snapshot = snapshot(&zones, orders, drones);
        let policy_plan = Policy::Greedy.plan(&snapshot, &rules());
        plan(&snapshot, &policy_plan, &rules())
    }

    fn across(id: &str, from: Point, to: Point) -> Delivery {
        let mut order = order(id, from, 1.0);
        order.destination = to;
        order
    }

    const NORTH_WEST: Point = Point::new(41.98, 12.37);
    const SOUTH_EAST: Point = Point::new(41.80, 12.60);

    #[test]
    fn critical_and_often_infeasible_drones_charge() {
        assert_eq!(planned(&[drone(1, CENTER, 31.0)], &[]), []);
        let critical = planned(&[drone(1, CENTER, 30.0)], &[]);
        assert_eq!(critical[0].change, Change::Charge { at: None });
        let often = drone(1, CENTER, 60.0).missed(["a", "b", "c", "d", "e"]).unwrap();
        assert_eq!(planned(&[often], &[])[0].why, "infeasible for many orders");
        let busy = drone(1, CENTER, 10.0).take("x").unwrap();
        assert_eq!(planned(&[busy], &[]), []);
    }

    #[test]
    fn drones_that_no_order_needs_top_up() {
        let zones = zones();
        let rules = crate::rules::Rules {
            top_up_below_pct: 80.0,
            ..rules()
        };
        let changes = |drones: &[Drone], orders: &[Delivery]| {
            let snapshot = snapshot(&zones, orders, drones);
            let policy_plan = Policy::Optimal.plan(&snapshot, &rules);
            let changes = plan(&snapshot, &policy_plan, &rules);
            let changes = changes.into_iter().map(|change| (change.drone_id, change.change));
            changes.collect::<Vec<_>>()
        };
        let fleet = [drone(1, CENTER, 79.0), drone(4, CENTER, 81.0)];
        assert_eq!(changes(&fleet, &[]), [("drone-1".to_owned(), Change::TopUp)]);
        // One flies the order, the other has time.
        let short = [order("a", CENTER, 1.0)];
        assert_eq!(
            changes(&[drone(1, CENTER, 79.0), drone(4, NORTH_WEST, 50.0)], &short).len(),
            1
        );
        // An order waits that it may carry: not now.
        let (charge, long) = (zones.zones[0].charge, across("a", NORTH_WEST, SOUTH_EAST));
        let both = [drone(1, charge, 60.0), drone(4, charge, 50.0)];
        let names: Vec<_> = changes(&both, std::slice::from_ref(&long))
            .into_iter()
            .map(|(_, change)| change.name())
            .collect();
        assert!(names.contains(&"charge") && !names.contains(&"top_up"), "{names:?}");
        // One that tops up is sent for it as an idle one is, and is done when it is full.
        let topping = drone(1, charge, 60.0).top_up().unwrap();
        let sent = changes(std::slice::from_ref(&topping), std::slice::from_ref(&long));
        assert_eq!(sent, [("drone-1".to_owned(), Change::Charge { at: None })]);
        assert_eq!(changes(std::slice::from_ref(&topping), &[]), []);
        let done = changes(&[topping.moved(charge, 95.0, true)], &[]);
        assert!(matches!(done[..], [(_, Change::Charged { .. })]), "{done:?}");
        let low = changes(&[topping.moved(CENTER, 29.0, false)], &[]);
        assert_eq!(low, [("drone-1".to_owned(), Change::Charge { at: None })]);
    }

    #[test]
    fn full_ones_are_done() {
        let charge = zones().zones[0].charge;
        let charging = drone(1, charge, 95.0).charge(None).unwrap();
        assert_eq!(planned(&[charging.moved(charge, 94.9, true)], &[]), []);
        assert_eq!(planned(&[charging.moved(CENTER, 95.0, false)], &[]), []);
        assert!(matches!(planned(&[charging], &[])[0].change, Change::Charged { .. }));
        let retiring = drone(1, charge, 95.0).retire().unwrap();
        assert!(matches!(planned(&[retiring], &[])[0].change, Change::Retired { .. }));
    }

    #[test]
    fn an_order_nobody_has_battery_for_sends_one_drone_at_once() {
        let order = across("a", NORTH_WEST, SOUTH_EAST);
        let zones = zones();
        let fleet = [
            drone(1, CENTER, 50.0),
            drone(4, zones.zones[0].charge, 55.0),
            drone(7, CENTER, 40.0),
        ];
        let changes = planned(&fleet, std::slice::from_ref(&order));
        let charges: Vec<_> = changes
            .iter()
            .filter(|change| matches!(change.change, Change::Charge { .. }))
            .collect();
        assert_eq!(charges.len(), 1, "{changes:?}");
        // drone-4 stands at the charge point nearest to the origin.
        assert_eq!(
            (charges[0].drone_id.as_str(), &charges[0].change),
            ("drone-4", &Change::Charge { at: None })
        );
        // The others remember the miss.
        assert_eq!(
            changes
                .iter()
                .filter(|change| matches!(change.change, Change::Missed { .. }))
                .count(),
            2
        );
        // While it charges, nobody else is sent for the same order, but somebody is for a second one.
        let fleet = [fleet[0].clone(), fleet[1].charge(None).unwrap(), fleet[2].clone()];
        let sent = |orders: &[Delivery]| {
            planned(&fleet, orders)
                .iter()
                .filter(|change| matches!(change.change, Change::Charge { .. }))
                .count()
        };
        assert_eq!(sent(std::slice::from_ref(&order)), 0);
        assert_eq!(sent(&[order, across("b", NORTH_WEST, SOUTH_EAST)]), 1);
    }

    #[test]
    fn a_full_drone_at_the_wrong_charge_point_is_sent_to_a_right_one() {
        let order = across("a", NORTH_WEST, SOUTH_EAST);
        let zones = zones();
        let changes = planned(&[drone(1, zones.zones[3].charge, 100.0)], std::slice::from_ref(&order));
        let Change::Charge { at: Some(charge) } = changes[0].change else {
            panic!("{changes:?}")
        };
        assert!(
            rules()
                .energy
                .can_fly_from(charge, order.origin, order.destination, &zones)
        );
        assert_ne!(charge, zones.zones[3].charge);
    }

    #[test]
    fn nobody_is_sent_to_a_charge_point_beyond_its_battery() {
        let order = across("a", NORTH_WEST, SOUTH_EAST);
        // Only from the north-west can it be flown, and from here that is 15 km at 2% each.
        let low = drone(1, Point::new(41.83, 12.55), 34.0);
        let changes = planned(std::slice::from_ref(&low), std::slice::from_ref(&order));
        assert_eq!(changes[0].change, Change::Charge { at: None }, "first to the nearest");
        // Once is enough.
        let fleet = [low.charge(None).unwrap(), drone(4, Point::new(41.83, 12.55), 34.0)];
        assert!(
            !planned(&fleet, std::slice::from_ref(&order))
                .iter()
                .any(|change| matches!(change.change, Change::Charge { .. }))
        );
        // As soon as it has battery for the way, it goes on.
        let there = Point::new(41.845, 12.5425);
        assert_eq!(zones().nearest_charge(low.pos).unwrap().0, there);
        let charging = |battery| low.moved(there, battery, true).charge(None).unwrap();
        let diverted = planned(&[charging(60.0)], std::slice::from_ref(&order));
        let [
            DroneChange {
                change: Change::Divert { at },
                ..
            },
        ] = &diverted[..]
        else {
            panic!("{diverted:?}")
        };
        assert!(
            rules()
                .energy
                .can_fly_from(*at, order.origin, order.destination, &zones())
        );
        assert_eq!(planned(&[charging(20.0)], std::slice::from_ref(&order)), []);
        let full = planned(&[charging(100.0)], std::slice::from_ref(&order));
        assert!(
            full.len() == 1 && full[0].change.name() == "divert",
            "only one change of a drone: {full:?}"
        );
        // With battery for the way it goes straight there.
        let changes = planned(&[drone(1, Point::new(41.83, 12.55), 50.0)], &[order]);
        assert!(
            matches!(changes[0].change, Change::Charge { at: Some(_) }),
            "{changes:?}"
        );
    }

    #[test]
    fn nobody_is_called_away_from_where_an_older_order_was_promised_it() {
        let (zones, rules) = (zones(), rules());
        let waits = across("b", NORTH_WEST, SOUTH_EAST);
        let there = zones.zones[1].charge;
        let charging = [drone(1, there, 60.0).charge(None).unwrap()];
        let snapshot = snapshot(&zones, std::slice::from_ref(&waits), &charging);
        let change = |promised_to: &str| {
            let pair = Assignment {
                delivery_id: promised_to.to_owned(),
                drone_id: charging[0].id.clone(),
            };
            let policy_plan = Plan {
                promised: vec![Promise { pair, free_in_sec: 2.0 }],
                unserved: vec![&waits],
                ..Plan::default()
            };
            let changes = plan(&snapshot, &policy_plan, &rules);
            changes.first().map(|change| change.change.name())
        };
        assert_eq!(change("a"), None);
        assert_eq!(change("c"), Some("divert"));
    }

    #[test]
    fn who_has_flown_on_is_not_sent_beyond_its_battery_after_all() {
        let (zones, rules) = (zones(), rules());
        let far = zones.zones[3].charge;
        let reached = |battery| {
            let drone = drone(1, NORTH_WEST, battery).charge(None).unwrap();
            let sent = [Change::Charge { at: Some(far) }, Change::Divert { at: far }];
            sent.map(|change| is_within_reach(&change, &drone, &zones, &rules))
        };
        let needed = rules.energy.needed_pct(NORTH_WEST.distance_km(far));
        assert_eq!(reached(needed + 0.1), [true; 2]);
        assert_eq!(reached(needed - 0.1), [false; 2]);
        let nearest = Change::Charge { at: None };
        assert!(is_within_reach(&nearest, &drone(1, NORTH_WEST, 1.0), &zones, &rules));
    }

    #[test]
    fn a_helper_stays_until_its_battery_is_enough() {
        let zones = zones();
        let mut order = across("a", NORTH_WEST, SOUTH_EAST);
        let charge = zones.zones[0].charge;
        let needed = |order: &Delivery| {
            rules().energy.needed_pct(domain::energy::mission_km(
                charge,
                order.origin,
                order.destination,
                &zones,
            ))
        };
        // Stretch the order until 95% is not enough, but 100% is.
        while needed(&order) < 97.0 {
            order.origin.lon -= 0.001;
        }
        let at = |battery| drone(1, charge, battery).charge(None).unwrap();
        assert_eq!(planned(&[at(96.0)], std::slice::from_ref(&order)), []);
        let done = planned(&[at(100.0)], std::slice::from_ref(&order));
        assert!(matches!(done[0].change, Change::Charged { .. }), "{done:?}");
        assert!(
            matches!(planned(&[at(96.0)], &[])[0].change, Change::Charged { .. }),
            "without the order"
        );
    }

    #[test]
    fn a_drone_that_is_only_too_far_yet_is_not_sent_to_charge() {
        let mut rules = rules();
        rules.max_pickup_km = 1.0;
        let zones = zones();
        let near_empty_and_far = [drone(1, CENTER, 40.0), drone(4, NORTH_WEST, 100.0)];
        let order = across("a", CENTER, SOUTH_EAST);
        let snapshot = snapshot(&zones, std::slice::from_ref(&order), &near_empty_and_far);
        let changes = plan(&snapshot, &Policy::Greedy.plan(&snapshot, &rules), &rules);
        assert!(
            !changes
                .iter()
                .any(|change| matches!(change.change, Change::Charge { .. })),
            "{changes:?}"
        );
    }
}
