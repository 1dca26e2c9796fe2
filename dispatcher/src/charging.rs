//! Which drones go to charge, and when they are done: pure functions over a snapshot and the policy's plan.
//!
//! Promises:
//! - An idle drone at or below `CRITICAL_BATTERY`, or with `EARLY_CHARGE_THRESHOLD` distinct orders it was infeasible for (and
//!   not full), goes to charge; a charging one is done at `FULL_AFTER`, a retiring one becomes inactive then.
//! - *Charging on demand*: an order that no drone could be given, while some drone that may carry it is idle with too little
//!   battery, gets a *helper*: the best suited of them goes to charge at once, at a charge point from which, full, it can
//!   fly the order. A helper is done only when its battery is enough for that order, even beyond `FULL_AFTER`. So an order
//!   that a full drone could fly is flown at last, even with a single drone for it.

use std::collections::{HashMap, HashSet};

use domain::delivery::Delivery;
use domain::drone::{Drone, DroneStatus, DroneType};
use domain::energy::{FULL_PCT, mission_km};
use domain::geo::Point;

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
            DroneStatus::Idle if assigned.contains(drone.id.as_str()) || !drone.is_consistent() => {}
            DroneStatus::Idle => match must_charge(drone, rules) {
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
    let wanted_pct = find_helpers(snapshot, plan, rules, &mut free, &mut charging, &mut changes);
    // Those that must charge anyway and help nobody go to the nearest charge point.
    let helps: HashSet<&str> = changes.iter().map(|change| change.drone_id.as_str()).collect();
    let unhelpful: Vec<_> = needy
        .into_iter()
        .filter(|(drone, _)| !helps.contains(drone.id.as_str()))
        .collect();
    idle.retain(|drone| !helps.contains(drone.id.as_str()));
    changes.extend(
        unhelpful
            .into_iter()
            .map(|(drone, why)| change(drone, Change::Charge { at: None }, why)),
    );
    for (drone, _) in charging
        .iter()
        .filter(|(drone, _)| drone.status == DroneStatus::Charging)
    {
        let wanted = wanted_pct.get(drone.id.as_str()).copied().unwrap_or(0.0);
        let full_after_pct = rules.full_after_pct.max(wanted).min(FULL_PCT);
        if drone.is_charged(full_after_pct) {
            changes.push(change(drone, Change::Charged { full_after_pct }, "charged"));
        }
    }
    for drone in idle {
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

/// Finds each unserved order a charging drone of its own, sending one where none is charging yet: rather one that must charge
/// anyway (under a steady load of short orders there is no other) than one that could still fly. Answers how much
/// battery each helper that stands at its charge point must have before it is done.
fn find_helpers<'a>(
    snapshot: &Snapshot<'a>,
    plan: &Plan<'a>,
    rules: &Rules,
    free: &mut Vec<&'a Drone>,
    charging: &mut Vec<(&'a Drone, Point)>,
    changes: &mut Vec<DroneChange>,
) -> HashMap<&'a str, f64> {
    let mut wanted_pct = HashMap::new();
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
        let Some((index, charge)) = best_suited(snapshot, order, rules, free, can_from) else {
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
            .filter(|charge| can_from(*charge))
        {
            let flight_pct = drone.pos.distance_km(charge) * rules.energy.battery_per_km;
            let km = mission_km(charge, order.origin, order.destination, snapshot.zones);
            // Battery to gain, and the flight counted once more because it also takes time.
            let cost = rules.energy.needed_pct(km) + 2.0 * flight_pct - drone.battery;
            let suits = (drone.kind, could_fly_others, cost);
            if best.is_none_or(|(kind, others, least, ..)| suits < (kind, others, least)) {
                best = Some((drone.kind, could_fly_others, cost, index, charge));
            }
        }
    }
    best.map(|(_, _, _, index, charge)| (index, charge))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use domain::delivery::Delivery;
    use domain::drone::Drone;
    use domain::geo::Point;

    use super::plan;
    use crate::fleet::{Change, DroneChange};
    use crate::policy::{Policy, Snapshot};
    use crate::testing::{drone, order, rules, zones};

    const CENTER: Point = Point::new(41.89, 12.485);

    fn planned(drones: &[Drone], orders: &[Delivery]) -> Vec<DroneChange> {
        let zones = zones();
        let snapshot = Snapshot {
            now: 0.0,
            zones: &zones,
            pending: orders.iter().collect(),
            drones: drones.iter().collect(),
            flights: HashMap::new(),
        };
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
        let (near_empty, far) = (drone(1, CENTER, 40.0), drone(4, NORTH_WEST, 100.0));
        let order = across("a", CENTER, SOUTH_EAST);
        let pending = vec![&order];
        let snapshot = Snapshot {
            now: 0.0,
            zones: &zones,
            pending,
            drones: vec![&near_empty, &far],
            flights: HashMap::new(),
        };
        let changes = plan(&snapshot, &Policy::Greedy.plan(&snapshot, &rules), &rules);
        assert!(
            !changes
                .iter()
                .any(|change| matches!(change.change, Change::Charge { .. })),
            "{changes:?}"
        );
    }
}
