//! `optimal`: all waiting orders at once, at the least total cost, over drones that are free and drones that soon will be.
//!
//! The deciding is done by [`dispatch_sim::Optimal`], the same code that `dronedispatch simulate` measures; docs/dispatch.md has the formulas.
//! Here the city is put into its terms: a plane in km, minutes of flight, and for each pair of order and drone whether it may be and what it
//! costs beside the flight ([`Costs`]).
//!
//! An order that is matched with a drone that flies or charges yet stays pending: nothing is written, and the next plan decides anew.
//! Drones are not sent anywhere without an order, and no order is taken from a drone again.

mod ahead;

use std::collections::HashMap;

use dispatch_sim::snapshot::Pairs;
use dispatch_sim::{Demand, Heading, MatchingSettings, Optimal, OptimalSettings, Point};
use domain::delivery::Delivery;
use domain::drone::DroneType;
use domain::energy::loaded_and_home_km;
use domain::geo::{Bounds, EARTH_RADIUS_KM};

use self::ahead::Ahead;
use super::{Assignment, Plan, Promise, Snapshot, Unfit, check, greedy};
use crate::rules::Rules;

/// What it costs, as km of flight, that a drone is one class heavier than it need be: the next order may be for nobody else.
pub const CLASS_STEP_KM: f64 = 2.0;

/// Which part of the way to the charge point is charged for a delivery after which the drone must go there.
pub const CHARGER_SHARE: f64 = 0.5;

/// Minutes by which a drone that is not free yet is believed less per minute that the order has waited. Guesses may be wrong for ever (a drone
/// that nobody moves), and an order must not wait for one beside a drone that is free.
pub const DISTRUST: f64 = 0.25;

/// Minutes by which an order may be farther per minute that it waited. More than is best for the mean: it halves the longest waits.
pub const AGEING: f64 = 0.1;

/// Drones that will be free within so many minutes of flight are counted in.
pub const LOOK_AHEAD_MIN: f64 = 60.0;

/// The deadline of a plan, in steps of [`Optimal::plan_within`]: some tenths of a second.
pub const WORK_MAX: u64 = 20_000_000;

/// The settings of the policy. What differs from those of the reference world: drones stay where they are until they get an order.
#[must_use]
pub fn settings() -> OptimalSettings {
    OptimalSettings {
        matching: MatchingSettings {
            look_ahead_min: LOOK_AHEAD_MIN,
            ..OptimalSettings::default().matching
        },
        coverage_rounds: 0,
        ageing: AGEING,
        ..OptimalSettings::default()
    }
}

/// The plan; that of `greedy` when there is too much to decide.
pub(super) fn plan<'a>(snapshot: &Snapshot<'a>, rules: &Rules) -> Plan<'a> {
    plan_within(snapshot, rules, WORK_MAX)
}

fn plan_within<'a>(snapshot: &Snapshot<'a>, rules: &Rules, limit: u64) -> Plan<'a> {
    if snapshot.pending.is_empty() {
        return Plan::default();
    }
    let city = City::new(snapshot, rules);
    let demand = Demand::unknown();
    let costs = Costs { city: &city, rules };
    let seen = dispatch_sim::Snapshot {
        now_min: 0.0,
        orders: &city.orders,
        drones: &city.drones,
        pairs: &costs,
        demand: &demand,
    };
    let policy = Optimal { settings: settings() };
    match policy.plan_within(&seen, limit) {
        Ok(decided) => city.translate(&decided, rules),
        Err(stopped) => Plan {
            fell_back: Some(stopped),
            ..greedy::plan(snapshot, rules)
        },
    }
}

/// A flat map of the city: km east and north. Off by less than a thousandth over some tens of km.
struct Plane {
    km_per_lat: f64,
    km_per_lon: f64,
}

impl Plane {
    fn new(bounds: &Bounds) -> Self {
        let km_per_lat = EARTH_RADIUS_KM.to_radians();
        Self {
            km_per_lat,
            km_per_lon: km_per_lat * bounds.center().lat.to_radians().cos(),
        }
    }

    fn point(&self, place: domain::geo::Point) -> Point {
        Point::new(place.lon * self.km_per_lon, place.lat * self.km_per_lat)
    }
}

/// A waiting order, and what is computed once about it.
struct Waiting<'a> {
    record: &'a Delivery,
    kind: DroneType,
    /// From the origin to the destination and on to the charge point nearest to it.
    loaded_and_home_km: f64,
    /// From the destination to that charge point.
    home_km: f64,
    waited_sec: f64,
}

/// The dispatcher's snapshot in the policy's terms. The ids of orders and drones there are indices here.
struct City<'a> {
    waiting: Vec<Waiting<'a>>,
    fleet: Vec<Ahead<'a>>,
    orders: Vec<dispatch_sim::Order>,
    drones: Vec<dispatch_sim::Drone>,
}

impl<'a> City<'a> {
    fn new(snapshot: &Snapshot<'a>, rules: &Rules) -> Self {
        let plane = Plane::new(&snapshot.zones.bounds);
        let mut looked_at: HashMap<DroneType, usize> = HashMap::new();
        let waiting: Vec<Waiting<'a>> = (snapshot.pending.iter())
            .filter(|order| {
                let seen = looked_at.entry(order.drone_type()).or_default();
                *seen += 1;
                *seen <= rules.pending_scan_limit
            })
            .map(|&record| {
                let loaded_and_home_km = loaded_and_home_km(record.origin, record.destination, snapshot.zones);
                Waiting {
                    record,
                    kind: record.drone_type(),
                    loaded_and_home_km,
                    home_km: loaded_and_home_km - record.origin.distance_km(record.destination),
                    waited_sec: (snapshot.now - record.timestamp).max(0.0),
                }
            })
            .collect();
        let fleet: Vec<Ahead<'a>> = (snapshot.drones.iter())
            .filter_map(|&drone| {
                let flight = snapshot.flights.get(drone.id.as_str()).copied();
                Ahead::new(drone, flight, snapshot, rules)
            })
            .collect();
        let orders = (0..)
            .zip(&waiting)
            .map(|(id, order)| dispatch_sim::Order {
                id,
                origin: plane.point(order.record.origin),
                destination: plane.point(order.record.destination),
                placed_min: -rules.pace.minutes(order.waited_sec),
            })
            .collect();
        let drones = (0..)
            .zip(&fleet)
            .map(|(id, drone)| dispatch_sim::Drone {
                id,
                at: plane.point(drone.at),
                ready_in_min: drone.free_in_min,
                km_per_min: rules.pace.km_per_min(drone.record.kind),
                heading: Heading::Nowhere,
            })
            .collect();
        Self {
            waiting,
            fleet,
            orders,
            drones,
        }
    }

    /// The plan in the dispatcher's terms.
    fn translate(&self, decided: &dispatch_sim::Plan, rules: &Rules) -> Plan<'a> {
        let mut plan = Plan::default();
        let pair = |order: usize, drone: usize| Assignment {
            delivery_id: self.waiting[order].record.id.clone(),
            drone_id: self.fleet[drone].record.id.clone(),
        };
        let mut is_served = vec![false; self.waiting.len()];
        let mut is_taken = vec![false; self.fleet.len()];
        // Both lists come in the order of the orders, which is by age.
        for &(order, drone) in &decided.pickups {
            (is_served[order], is_taken[drone]) = (true, true);
            if plan.assignments.len() < rules.max_assign_per_round {
                plan.assignments.push(pair(order, drone));
            }
        }
        for &(order, drone) in &decided.promised {
            is_served[order] = true;
            plan.promised.push(Promise {
                pair: pair(order, drone),
                free_in_sec: rules.pace.clock_sec(self.fleet[drone].free_in_min),
            });
        }
        let left = self.waiting.iter().zip(&is_served).filter(|(_, served)| !**served);
        plan.unserved = left.map(|(order, _)| order.record).collect();
        // Who stands by while orders of its class ask for more than it has.
        for (drone, _) in (self.fleet.iter().zip(&is_taken)).filter(|(drone, taken)| drone.is_free() && !**taken) {
            let missed: Vec<&str> = (self.waiting.iter())
                .filter(|order| order.kind == drone.record.kind && !drone.has_battery_for(order, rules))
                .map(|order| order.record.id.as_str())
                .collect();
            if !missed.is_empty() {
                plan.misses.insert(&drone.record.id, missed);
            }
        }
        plan
    }
}

/// Which drone may take which order, and at what cost in minutes beside the flight.
struct Costs<'a> {
    city: &'a City<'a>,
    rules: &'a Rules,
}

impl Costs<'_> {
    /// The cost of a pair beside the time until pick-up.
    ///
    /// # Errors
    /// [`Unfit`], the first reason why the pair may not be.
    fn extra_min(&self, order: &Waiting<'_>, drone: &Ahead<'_>) -> Result<f64, Unfit> {
        let rules = self.rules;
        let kind = drone.record.kind;
        if !rules.carries(kind, order.kind) {
            return Err(Unfit::Class);
        }
        let pickup_km = drone.at.distance_km(order.record.origin);
        check(
            drone.battery_pct,
            pickup_km,
            order.loaded_and_home_km,
            order.waited_sec,
            rules,
        )?;
        let km_per_min = rules.pace.km_per_min(kind);
        let class_min = class_steps(order.kind, kind) * CLASS_STEP_KM / km_per_min;
        let flown_km = pickup_km + order.loaded_and_home_km - order.home_km;
        let left_pct = drone.battery_pct - flown_km * rules.energy.battery_per_km;
        let charger_min = if left_pct <= rules.critical_battery_pct {
            CHARGER_SHARE * order.home_km / km_per_min
        } else {
            0.0
        };
        let distrust_min = if drone.is_free() {
            0.0
        } else {
            DISTRUST * rules.pace.minutes(order.waited_sec)
        };
        Ok(class_min + charger_min + distrust_min)
    }
}

impl Pairs for Costs<'_> {
    fn extra_min(&self, order: &dispatch_sim::Order, drone: &dispatch_sim::Drone) -> Option<f64> {
        let order = self.city.waiting.get(usize::try_from(order.id).ok()?)?;
        let drone = self.city.fleet.get(usize::try_from(drone.id).ok()?)?;
        Self::extra_min(self, order, drone).ok()
    }
}

/// How many classes `drone` is heavier than `parcel` needs.
fn class_steps(parcel: DroneType, drone: DroneType) -> f64 {
    let heavier = |kind: &&DroneType| **kind > parcel && **kind <= drone;
    DroneType::ALL.iter().filter(heavier).map(|_| 1.0).sum()
}

#[cfg(test)]
mod tests;
