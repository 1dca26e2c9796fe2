//! Which drone flies which order: a pure function over a snapshot.
//!
//! Promises of every policy: each order and each drone occurs in at most one assignment, every assigned drone is fit for its
//! order ([`fitness`]), and the same snapshot gives the same plan. What could not be served comes back too, because charging
//! and fleet sizing decide from it.
//!
//! - [`optimal`]: everybody at once, at the least total cost, with drones that will be free soon counted in.
//! - [`greedy`]: the classic, oldest order first, nearest fit drone.

pub(crate) mod ahead;
pub mod greedy;
pub mod optimal;

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};

use clap::ValueEnum;
use dispatch_sim::Stopped;
use domain::delivery::{Delivery, Leg};
use domain::drone::Drone;
use domain::energy::loaded_and_home_km;
use domain::zones::{ZoneRank, ZonesConfig};

use crate::rules::Rules;

/// What is known when a plan is made.
#[derive(Debug)]
pub struct Snapshot<'a> {
    /// Unix seconds.
    pub now: f64,
    /// The grid.
    pub zones: &'a ZonesConfig,
    /// Waiting orders that could be flown, oldest first.
    pub pending: Vec<&'a Delivery>,
    /// The whole fleet.
    pub drones: Vec<&'a Drone>,
    /// Orders that a drone flies, by the drone's id.
    pub flights: HashMap<&'a str, &'a Delivery>,
    /// Of these, oldest first, the orders that may be given to another drone: [`may_be_taken_back`].
    pub swappable: Vec<&'a Delivery>,
}

/// One order for one drone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Which order.
    pub delivery_id: String,
    /// Which drone.
    pub drone_id: String,
}

/// What a policy decided.
#[derive(Debug, Default)]
pub struct Plan<'a> {
    /// Orders to be taken back from the drone that flies to their pick-up, with that drone, oldest first: before the assignments, in which the
    /// order or the drone occurs.
    pub taken_back: Vec<Assignment>,
    /// To be made true, oldest order first.
    pub assignments: Vec<Assignment>,
    /// Orders that wait for a drone that flies or charges yet, oldest first. Nothing is reserved by it: the next plan may decide otherwise.
    pub promised: Vec<Promise>,
    /// Orders that were looked at and got no drone, oldest first.
    pub unserved: Vec<&'a Delivery>,
    /// Per idle drone, the orders it has too little battery for.
    pub misses: BTreeMap<&'a str, Vec<&'a str>>,
    /// Why this is the plan of `greedy` though another one was asked for.
    pub fell_back: Option<Stopped>,
}

/// What an order waits for.
#[derive(Debug, Clone, PartialEq)]
pub struct Promise {
    /// Order and drone.
    pub pair: Assignment,
    /// When the drone will be free, seconds from now.
    pub free_in_sec: f64,
}

/// Why a drone cannot take an order now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// Not of a class that carries the parcel.
    Class,
    /// Neither idle nor topping up, or holding a delivery.
    NotIdle,
    /// At or below critical battery.
    Critical,
    /// Too little battery for the mission.
    Infeasible,
    /// Farther from the origin than allowed (yet).
    TooFar,
}

/// How well a fit drone suits an order: the least is the best.
#[derive(Debug, Clone, Copy)]
pub struct Score {
    ring: f64,
    rank: ZoneRank,
    battery_pct: f64,
    speed: f64,
}

impl Score {
    fn better_first(&self, other: &Self) -> Ordering {
        (self.ring.total_cmp(&other.ring))
            .then(self.rank.cmp(&other.rank))
            .then(self.battery_pct.total_cmp(&other.battery_pct))
            .then(other.speed.total_cmp(&self.speed))
    }
}

/// How drones are chosen for orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Policy {
    /// The least total cost over all orders and drones, those that will be free soon included
    Optimal,
    /// Oldest order first, nearest fit drone of its class
    Greedy,
}

impl Policy {
    /// Decides who flies what.
    #[must_use]
    pub fn plan<'a>(self, snapshot: &Snapshot<'a>, rules: &Rules) -> Plan<'a> {
        match self {
            Self::Optimal => optimal::plan(snapshot, rules),
            Self::Greedy => greedy::plan(snapshot, rules),
        }
    }

    /// Whether a drone may carry parcels of lighter classes than its own.
    #[must_use]
    pub const fn pools_classes(self) -> bool {
        matches!(self, Self::Optimal)
    }

    /// Whether orders are taken from drones on their way to the pick-up and given to better ones.
    #[must_use]
    pub const fn swaps(self) -> bool {
        matches!(self, Self::Optimal)
    }

    /// Whether drones that no order needs top up their batteries, ready to be taken for an order at any moment.
    #[must_use]
    pub const fn tops_up(self) -> bool {
        matches!(self, Self::Optimal)
    }
}

/// Whether `drone` can take `order` now, and how well it suits.
///
/// # Errors
/// [`Unfit`], the first reason that applies.
pub fn fitness(drone: &Drone, order: &Delivery, now: f64, zones: &ZonesConfig, rules: &Rules) -> Result<Score, Unfit> {
    if !rules.carries(drone.kind, order.drone_type()) {
        return Err(Unfit::Class);
    }
    if !is_free(drone) {
        return Err(Unfit::NotIdle);
    }
    let pickup_km = zones.way_km(drone.pos, order.origin);
    let loaded_km = loaded_and_home_km(order.origin, order.destination, zones);
    check(drone.battery, pickup_km, loaded_km, now - order.timestamp, rules)?;
    Ok(Score {
        ring: (pickup_km / rules.near_eps_km).floor(),
        rank: zones.rank(drone.pos, order.origin),
        battery_pct: drone.battery,
        speed: drone.speed,
    })
}

/// Whether `order` may be taken back from `drone`, which holds it: before the pick-up, not too often, and not from one that is there already or
/// that nobody moves.
#[must_use]
pub fn may_be_taken_back(order: &Delivery, drone: &Drone, now: f64, rules: &Rules) -> bool {
    order.swaps < rules.swaps_max
        && order.status.has_drone()
        && order.leg != Some(Leg::ToDestination)
        && !drone.is_frozen(now)
        && !is_at_pickup(drone, order, rules)
}

/// Whether `drone` is where `order` is picked up.
pub(crate) fn is_at_pickup(drone: &Drone, order: &Delivery, rules: &Rules) -> bool {
    drone.pos.distance_km(order.origin) <= rules.arrive_eps_km
}

/// What holds of every drone that takes an order, wherever it will be then.
pub(crate) fn check(
    battery_pct: f64,
    pickup_km: f64,
    loaded_and_home_km: f64,
    waited_sec: f64,
    rules: &Rules,
) -> Result<(), Unfit> {
    if battery_pct <= rules.critical_battery_pct {
        return Err(Unfit::Critical);
    }
    if !rules.energy.feasible(battery_pct, pickup_km + loaded_and_home_km) {
        return Err(Unfit::Infeasible);
    }
    if pickup_km > rules.max_pickup_km && waited_sec < rules.pickup_grace_sec {
        return Err(Unfit::TooFar);
    }
    Ok(())
}

fn is_free(drone: &Drone) -> bool {
    drone.is_available()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use domain::geo::Point;
    use proptest::prelude::{Strategy, prop, prop_assert, prop_assert_eq, proptest};

    use super::{Policy, Unfit, fitness};
    use crate::testing::{drone, order, rules, snapshot, zones};

    fn choose(drones: &[domain::drone::Drone], orders: &[domain::delivery::Delivery]) -> Vec<(String, String)> {
        let zones = zones();
        let snapshot = snapshot(&zones, orders, drones);
        let plan = Policy::Greedy.plan(&snapshot, &rules());
        plan.assignments
            .into_iter()
            .map(|pair| (pair.delivery_id, pair.drone_id))
            .collect()
    }

    fn pair(delivery: &str, drone: &str) -> (String, String) {
        (delivery.to_owned(), drone.to_owned())
    }

    const ORIGIN: Point = Point::new(41.90, 12.50);

    #[test]
    fn the_nearest_ring_wins_then_the_emptier_battery() {
        let near = drone(1, Point::new(41.901, 12.50), 60.0);
        let far = drone(4, Point::new(41.93, 12.50), 50.0);
        assert_eq!(
            choose(&[far.clone(), near.clone()], &[order("a", ORIGIN, 1.0)]),
            [pair("a", "drone-1")]
        );
        let same_ring = drone(7, Point::new(41.9011, 12.50), 55.0);
        assert_eq!(
            choose(&[near, far, same_ring], &[order("a", ORIGIN, 1.0)]),
            [pair("a", "drone-7")]
        );
    }

    #[test]
    fn zone_rank_comes_before_battery() {
        // ORIGIN is in zone 1, near its western edge at 12.485: equally far drones on both sides of it.
        let origin = Point::new(41.90, 12.4855);
        let west = drone(1, Point::new(41.90, 12.4845), 50.0);
        let east = drone(4, Point::new(41.90, 12.4865), 90.0);
        assert_eq!(
            choose(&[west, east], &[order("a", origin, 1.0)]),
            [pair("a", "drone-4")]
        );
    }

    #[test]
    fn only_the_class_and_oldest_first() {
        let orders = [
            order("a", ORIGIN, 1.0),
            order("b", ORIGIN, 5.0),
            order("c", ORIGIN, 1.0),
        ];
        let fleet = [drone(1, ORIGIN, 90.0), drone(3, ORIGIN, 90.0)];
        assert_eq!(choose(&fleet, &orders), [pair("a", "drone-1")]);
    }

    #[test]
    fn reasons_are_named() {
        let (zones, rules) = (zones(), rules());
        let fit = |drone: &domain::drone::Drone, now| {
            let mut order = order("a", ORIGIN, 1.0);
            order.destination = Point::new(41.95, 12.55);
            fitness(drone, &order, now, &zones, &rules).map(|_| ())
        };
        assert_eq!(fit(&drone(2, ORIGIN, 90.0), 0.0), Err(Unfit::Class));
        assert_eq!(
            fit(&drone(1, ORIGIN, 90.0).take("x").unwrap(), 0.0),
            Err(Unfit::NotIdle)
        );
        assert_eq!(fit(&drone(1, ORIGIN, 30.0), 0.0), Err(Unfit::Critical));
        assert_eq!(
            fit(&drone(1, Point::new(41.80, 12.37), 45.0), 0.0),
            Err(Unfit::Infeasible)
        );
        // 20 km and more away, but full: only after the grace.
        let far = drone(1, Point::new(41.74, 12.37), 100.0);
        assert_eq!(fit(&far, 29.0), Err(Unfit::TooFar));
        assert_eq!(fit(&far, 30.0), Ok(()));
    }

    fn place() -> impl Strategy<Value = Point> {
        (41.80..41.98_f64, 12.37..12.60_f64).prop_map(|(lat, lon)| Point::new(lat, lon))
    }

    proptest! {
        #[test]
        fn plans_are_valid_and_stable(
            fleet in prop::collection::vec((place(), 0.0..100.0_f64), 0..12),
            orders in prop::collection::vec((place(), 0.1..12.0_f64), 0..20),
        ) {
            let zones = zones();
            let drones: Vec<_> = (1..).zip(&fleet).map(|(number, (pos, battery))| drone(number, *pos, *battery)).collect();
            let orders: Vec<_> = (0..).zip(&orders).map(|(number, (origin, kg))| order(&format!("{number:03}"), *origin, *kg)).collect();
            let snapshot = snapshot(&zones, &orders, &drones);
            let rules = rules();
            let plan = Policy::Greedy.plan(&snapshot, &rules);
            let mut used = HashSet::new();
            for assignment in &plan.assignments {
                prop_assert!(used.insert(assignment.drone_id.clone()) && used.insert(assignment.delivery_id.clone()));
                let drone = drones.iter().find(|drone| drone.id == assignment.drone_id).unwrap();
                let order = orders.iter().find(|order| order.id == assignment.delivery_id).unwrap();
                prop_assert!(fitness(drone, order, 0.0, &zones, &rules).is_ok());
            }
            // Nobody who is fit stands by while an order waits.
            for order in &plan.unserved {
                for drone in drones.iter().filter(|drone| !used.contains(&drone.id)) {
                    prop_assert!(fitness(drone, order, 0.0, &zones, &rules).is_err());
                }
            }
            prop_assert_eq!(plan.assignments.len() + plan.unserved.len(), orders.len());
            let mut turned = snapshot;
            turned.drones.reverse();
            prop_assert_eq!(Policy::Greedy.plan(&turned, &rules).assignments, plan.assignments);
        }
    }
}
