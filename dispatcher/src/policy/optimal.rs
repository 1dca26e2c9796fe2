//! `optimal`: all waiting orders at once, at the least total cost, over drones that are free and drones that soon will be.
//!
//! The deciding is done by [`dispatch_sim::Optimal`], the same code that `dronedispatch simulate` measures; docs/dispatch.md has the formulas.
//! Here the city is put into its terms: a plane in km, minutes of flight, and for each pair of order and drone whether it may be and what it
//! costs beside the flight ([`Costs`]).
//!
//! An order that is matched with a drone that flies or charges yet stays pending: nothing is written, and the next plan decides anew.
//! An order whose drone flies to its pick-up takes part again until it is there, and so does the drone, from where it is: it keeps it unless
//! `SWAP_GAIN_MIN` is saved by giving the order to another one, or the drone another order (a swap). Drones are not sent anywhere without an order.

use std::collections::HashMap;

use dispatch_sim::snapshot::Pairs;
use dispatch_sim::{Charge, Demand, Heading, MatchingSettings, Optimal, OptimalSettings, Point, Stopped};
use domain::delivery::Delivery;
use domain::drone::DroneType;
use domain::energy::loaded_and_home_km;
use domain::geo::Bounds;
use domain::priority::Priority;
use domain::zones::ZonesConfig;

use super::ahead::Ahead;
use super::{Assignment, Plan, Promise, Snapshot, Unfit, check, greedy};
use crate::chargers::Chargers;
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

/// Weights of the minutes until the pick-up of orders that are low, normal, high and critical.
pub const PRIORITY_WEIGHTS: [f64; 4] = [0.5, 1.0, 2.0, 4.0];

/// Weight that an order gains as its deadline comes near.
pub const DEADLINE_WEIGHT: f64 = 2.0;

/// The deadline begins to count when what is left, less the loaded leg, is less than so many minutes of flight; the weight is full when nothing
/// is left, and stays so.
pub const DEADLINE_AHEAD_MIN: f64 = 60.0;

/// What it costs more, in minutes per weight above 1, to leave an order without a drone: more than pick-ups take, so that the weightier one is
/// served even if it is farther.
pub const HEAD_START_MIN: f64 = 100.0;

/// Drones that will be free within so many minutes of flight are counted in.
pub const LOOK_AHEAD_MIN: f64 = 60.0;

/// The deadline of a plan, in steps of [`Optimal::plan_within`]: some tenths of a second.
pub const WORK_MAX: u64 = 20_000_000;

/// The settings of the policy. What differs from those of the reference world: drones stay where they are until they get an order.
#[must_use]
pub fn settings(rules: &Rules) -> OptimalSettings {
    OptimalSettings {
        matching: MatchingSettings {
            look_ahead_min: LOOK_AHEAD_MIN,
            swap_gain_min: rules.swap_gain_min,
            ..OptimalSettings::default().matching
        },
        coverage_rounds: 0,
        ageing: AGEING,
        ..OptimalSettings::default()
    }
}

/// The plan; when there is too much to decide without swaps, and with more still that of `greedy`.
pub(super) fn plan<'a>(snapshot: &Snapshot<'a>, rules: &Rules) -> Plan<'a> {
    plan_within(snapshot, rules, WORK_MAX)
}

fn plan_within<'a>(snapshot: &Snapshot<'a>, rules: &Rules, limit: u64) -> Plan<'a> {
    let whole = decide(snapshot, &snapshot.swappable, rules, limit);
    let decided = match whole {
        Err(_) if !snapshot.swappable.is_empty() => decide(snapshot, &[], rules, limit),
        whole => whole,
    };
    decided.unwrap_or_else(|stopped| Plan {
        fell_back: Some(stopped),
        ..greedy::plan(snapshot, rules)
    })
}

fn decide<'a>(
    snapshot: &Snapshot<'a>,
    swappable: &[&'a Delivery],
    rules: &Rules,
    limit: u64,
) -> Result<Plan<'a>, Stopped> {
    if snapshot.pending.is_empty() && swappable.is_empty() {
        return Ok(Plan::default());
    }
    let city = City::new(snapshot, swappable, rules);
    let demand = Demand::unknown();
    let costs = Costs { city: &city, rules };
    let seen = dispatch_sim::Snapshot {
        now_min: 0.0,
        orders: &city.orders,
        drones: &city.drones,
        pairs: &costs,
        demand: &demand,
    };
    let policy = Optimal {
        settings: settings(rules),
    };
    let decided = policy.plan_within(&seen, limit)?;
    Ok(city.translate(&decided, rules))
}

/// The flat map of the city, in the policy's terms.
struct Plane(domain::geo::Plane);

impl Plane {
    fn new(bounds: &Bounds) -> Self {
        Self(domain::geo::Plane::at_latitude(bounds.center().lat))
    }

    fn point(&self, place: domain::geo::Point) -> Point {
        let (east_km, north_km) = self.0.km(place);
        Point::new(east_km, north_km)
    }
}

/// An order that nobody has picked up, and what is computed once about it.
struct Waiting<'a> {
    record: &'a Delivery,
    /// The drone that flies to it, an index in the fleet.
    keeper: Option<usize>,
    kind: DroneType,
    /// From the origin to the destination and on to the charge point nearest to it.
    loaded_and_home_km: f64,
    /// From the destination to that charge point.
    home_km: f64,
    waited_sec: f64,
    /// How much a minute until its pick-up counts.
    weight: f64,
}

/// The dispatcher's snapshot in the policy's terms. The ids of orders and drones there are indices here.
struct City<'a> {
    zones: &'a ZonesConfig,
    waiting: Vec<Waiting<'a>>,
    fleet: Vec<Ahead<'a>>,
    orders: Vec<dispatch_sim::Order>,
    drones: Vec<dispatch_sim::Drone>,
}

impl<'a> City<'a> {
    fn new(snapshot: &Snapshot<'a>, swappable: &[&'a Delivery], rules: &Rules) -> Self {
        let plane = Plane::new(&snapshot.zones.bounds);
        let chargers = Chargers::new(&snapshot.drones, snapshot.zones, rules);
        let mut fleet = Ahead::of_fleet(snapshot, &chargers, rules);
        let mut open: Vec<(&'a Delivery, f64, Option<usize>)> = looked_at(snapshot, rules)
            .into_iter()
            .map(|(record, weight)| (record, weight, None))
            .collect();
        if !swappable.is_empty() {
            open.extend(flown(swappable, snapshot, &mut fleet, rules));
            open.sort_by(|a, b| a.0.id.cmp(&b.0.id));
        }
        let waiting: Vec<Waiting<'a>> = open
            .into_iter()
            .map(|(record, weight, keeper)| {
                let loaded_and_home_km = loaded_and_home_km(record.origin, record.destination, snapshot.zones);
                Waiting {
                    record,
                    keeper,
                    kind: record.drone_type(),
                    loaded_and_home_km,
                    home_km: loaded_and_home_km - snapshot.zones.way_km(record.origin, record.destination),
                    waited_sec: (snapshot.now - record.timestamp).max(0.0),
                    weight,
                }
            })
            .collect();
        let mut headings = vec![Heading::Nowhere; fleet.len()];
        for (row, order) in waiting.iter().enumerate() {
            if let Some(drone) = order.keeper {
                headings[drone] = Heading::Pickup(row);
            }
        }
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
            .zip(fleet.iter().zip(headings))
            .map(|(id, (drone, heading))| dispatch_sim::Drone {
                id,
                at: plane.point(drone.at),
                ready_in_min: drone.free_in_min,
                km_per_min: rules.pace.km_per_min(drone.record.kind),
                heading,
            })
            .collect();
        Self {
            zones: snapshot.zones,
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
        // Who gets somebody else now; the others go on as they do.
        let (mut is_moved, mut is_redirected) = (is_served.clone(), is_taken.clone());
        // Both lists come in the order of the orders, which is by age.
        for &(order, drone) in &decided.pickups {
            (is_served[order], is_taken[drone]) = (true, true);
            let is_kept = self.waiting[order].keeper == Some(drone);
            if !is_kept && plan.assignments.len() < rules.max_assign_per_round {
                plan.assignments.push(pair(order, drone));
                (is_moved[order], is_redirected[drone]) = (true, true);
            }
        }
        for &(order, drone) in &decided.promised {
            is_served[order] = true;
            // An order under way that had better wait for another drone stays with its own as long as that has nothing better to do: guesses
            // need not come true.
            if self.waiting[order].keeper.is_none() {
                plan.promised.push(Promise {
                    pair: pair(order, drone),
                    free_in_sec: rules.pace.clock_sec(self.fleet[drone].free_in_min),
                });
            }
        }
        for (order, waiting) in self.waiting.iter().enumerate() {
            match waiting.keeper {
                Some(drone) if is_moved[order] || is_redirected[drone] => plan.taken_back.push(pair(order, drone)),
                None if !is_served[order] => plan.unserved.push(waiting.record),
                _ => {}
            }
        }
        // Who stands by while orders of its class ask for more than it has.
        let stands_by = |drone: &Ahead<'_>, taken: bool| drone.record.is_available() && drone.is_free() && !taken;
        let idle = self.fleet.iter().zip(&is_taken);
        for (drone, _) in idle.filter(|(drone, taken)| stands_by(drone, **taken)) {
            let missed: Vec<&str> = (self.waiting.iter())
                .filter(|order| {
                    order.keeper.is_none()
                        && order.kind == drone.record.kind
                        && !drone.has_battery_for(order.record.origin, order.loaded_and_home_km, self.zones, rules)
                })
                .map(|order| order.record.id.as_str())
                .collect();
            if !missed.is_empty() {
                plan.misses.insert(&drone.record.id, missed);
            }
        }
        plan
    }
}

/// The orders under way that may be taken back, with their weights and the drones that fly to them. Those take part from where they are.
fn flown<'a>(
    swappable: &[&'a Delivery],
    snapshot: &Snapshot<'a>,
    fleet: &mut [Ahead<'a>],
    rules: &Rules,
) -> Vec<(&'a Delivery, f64, Option<usize>)> {
    let places: HashMap<&str, usize> = (fleet.iter().enumerate())
        .map(|(place, ahead)| (ahead.record.id.as_str(), place))
        .collect();
    let mut found = Vec::new();
    for &order in swappable {
        let keeper = order.drone_id.as_deref().and_then(|id| places.get(id)).copied();
        if let Some(keeper) = keeper {
            fleet[keeper] = Ahead::now(fleet[keeper].record);
            found.push((order, weight(order, snapshot.now, snapshot.zones, rules), Some(keeper)));
        }
    }
    found
}

/// How much a minute until the pick-up of `order` counts, at `now` (Unix seconds).
fn weight(order: &Delivery, now: f64, zones: &ZonesConfig, rules: &Rules) -> f64 {
    let [low, normal, high, critical] = PRIORITY_WEIGHTS;
    let wished = match order.priority.unwrap_or_default() {
        Priority::Low => low,
        Priority::Normal => normal,
        Priority::High => high,
        Priority::Critical => critical,
    };
    let pressing = order.deadline.map_or(0.0, |deadline| {
        let loaded_km = zones.way_km(order.origin, order.destination);
        let slack_min = rules.pace.minutes(deadline - now) - loaded_km / rules.pace.km_per_min(order.drone_type());
        (1.0 - slack_min / DEADLINE_AHEAD_MIN).clamp(0.0, 1.0)
    });
    wished + DEADLINE_WEIGHT * pressing
}

/// The orders that take part, oldest first, with their weights: of each class `PENDING_SCAN_LIMIT`, the weightiest and then the oldest.
fn looked_at<'a>(snapshot: &Snapshot<'a>, rules: &Rules) -> Vec<(&'a Delivery, f64)> {
    let weighed = snapshot
        .pending
        .iter()
        .map(|&order| (order, weight(order, snapshot.now, snapshot.zones, rules)));
    let mut orders: Vec<(usize, (&Delivery, f64))> = weighed.enumerate().collect();
    // A stable sort: among equals the oldest stays first.
    orders.sort_by(|a, b| b.1.1.total_cmp(&a.1.1));
    let mut seen: HashMap<DroneType, usize> = HashMap::new();
    orders.retain(|(_, (order, _))| {
        let seen = seen.entry(order.drone_type()).or_default();
        *seen += 1;
        *seen <= rules.pending_scan_limit
    });
    orders.sort_by_key(|(age, _)| *age);
    orders.into_iter().map(|(_, order)| order).collect()
}

/// Which drone may take which order, and at what cost in minutes beside the flight.
struct Costs<'a> {
    city: &'a City<'a>,
    rules: &'a Rules,
}

impl Costs<'_> {
    /// What a pair is charged with beside the time until pick-up.
    ///
    /// # Errors
    /// [`Unfit`], the first reason why the pair may not be.
    fn charge(&self, order: &Waiting<'_>, drone: &Ahead<'_>, is_kept: bool) -> Result<Charge, Unfit> {
        let rules = self.rules;
        let kind = drone.record.kind;
        let pickup_km = self.city.zones.way_km(drone.at, order.record.origin);
        // Who flies to it was fit when it took it, and what is left of the way is not longer than what is left of its battery's.
        if !is_kept {
            if !rules.carries(kind, order.kind) {
                return Err(Unfit::Class);
            }
            check(
                drone.battery_pct,
                pickup_km,
                order.loaded_and_home_km,
                order.waited_sec,
                rules,
            )?;
        }
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
        let pickup_min = drone.free_in_min + pickup_km / km_per_min;
        let urgency_min = (order.weight - 1.0) * pickup_min;
        // The policy reckons with the straight way.
        let detour_km = pickup_km - drone.at.distance_km(order.record.origin);
        let detour_min = detour_km / km_per_min;
        Ok(Charge {
            extra_min: class_min + charger_min + distrust_min + urgency_min + detour_min,
            detour_km,
        })
    }
}

impl Pairs for Costs<'_> {
    fn extra_min(&self, order: &dispatch_sim::Order, drone: &dispatch_sim::Drone) -> Option<f64> {
        Pairs::charge(self, order, drone).map(|charge| charge.extra_min)
    }

    fn charge(&self, order: &dispatch_sim::Order, drone: &dispatch_sim::Drone) -> Option<Charge> {
        let order = self.city.waiting.get(usize::try_from(order.id).ok()?)?;
        let place = usize::try_from(drone.id).ok()?;
        let drone = self.city.fleet.get(place)?;
        Self::charge(self, order, drone, order.keeper == Some(place)).ok()
    }

    fn loaded_km(&self, order: &dispatch_sim::Order) -> f64 {
        let place = usize::try_from(order.id).ok();
        let waiting = place.and_then(|place| self.city.waiting.get(place));
        let detour_km = waiting.map_or(0.0, |waiting| {
            let straight_km = waiting.record.origin.distance_km(waiting.record.destination);
            waiting.loaded_and_home_km - waiting.home_km - straight_km
        });
        order.direct_km() + detour_km
    }

    fn patience_min(&self, order: &dispatch_sim::Order) -> f64 {
        let place = usize::try_from(order.id).ok();
        let order = place.and_then(|place| self.city.waiting.get(place));
        order.map_or(0.0, |order| HEAD_START_MIN * (order.weight - 1.0))
    }
}

/// How many classes `drone` is heavier than `parcel` needs.
fn class_steps(parcel: DroneType, drone: DroneType) -> f64 {
    let heavier = |kind: &&DroneType| **kind > parcel && **kind <= drone;
    DroneType::ALL.iter().filter(heavier).map(|_| 1.0).sum()
}

#[cfg(test)]
mod tests;
