//! Where and when a drone will be free, and with how much battery: a guess from its record and its order.

use domain::delivery::{Delivery, Leg};
use domain::drone::{Drone, DroneStatus};
use domain::geo::Point;

use super::Waiting;
use crate::policy::{Snapshot, is_free};
use crate::rules::Rules;

/// A drone as it is when it can next be sent to an order.
pub(super) struct Ahead<'a> {
    pub(super) record: &'a Drone,
    /// Where it is then.
    pub(super) at: Point,
    /// Minutes of flight until then; 0 for one that is free.
    pub(super) free_in_min: f64,
    /// Its battery then, percent.
    pub(super) battery_pct: f64,
}

impl<'a> Ahead<'a> {
    /// Nothing for a drone that is not there for orders: parked, retiring, about to be sent to charge, or in contradiction with its order
    /// (which is repaired first).
    pub(super) fn new(
        drone: &'a Drone,
        flight: Option<&Delivery>,
        snapshot: &Snapshot<'_>,
        rules: &Rules,
    ) -> Option<Self> {
        let mut ahead = Self {
            record: drone,
            at: drone.pos,
            free_in_min: 0.0,
            battery_pct: drone.battery,
        };
        match drone.status {
            DroneStatus::Idle => {
                return (is_free(drone) && drone.battery > rules.critical_battery_pct).then_some(ahead);
            }
            DroneStatus::Busy => {
                let flight = flight?;
                if flight.leg != Some(Leg::ToDestination) {
                    ahead.fly(flight.origin, rules);
                }
                ahead.fly(flight.destination, rules);
                if ahead.battery_pct <= rules.critical_battery_pct {
                    let (charge, _) = snapshot.zones.nearest_charge(ahead.at)?;
                    ahead.charge(charge, rules);
                }
            }
            DroneStatus::Charging => ahead.charge(drone.charge_target(snapshot.zones), rules),
            DroneStatus::Inactive | DroneStatus::Retiring => return None,
        }
        if let Some(until) = drone.freeze_until {
            ahead.free_in_min += rules.pace.minutes((until - snapshot.now).max(0.0));
        }
        // Not free even if it is due this very moment.
        ahead.free_in_min = ahead.free_in_min.max(f64::MIN_POSITIVE);
        ahead.free_in_min.is_finite().then_some(ahead)
    }

    pub(super) fn is_free(&self) -> bool {
        self.free_in_min <= 0.0
    }

    /// Whether its battery is enough for the order.
    pub(super) fn has_battery_for(&self, order: &Waiting<'_>, rules: &Rules) -> bool {
        let km = self.at.distance_km(order.record.origin) + order.loaded_and_home_km;
        rules.energy.feasible(self.battery_pct, km)
    }

    fn fly(&mut self, goal: Point, rules: &Rules) {
        let km = self.at.distance_km(goal);
        self.at = goal;
        self.free_in_min += km / rules.pace.km_per_min(self.record.kind);
        self.battery_pct = (self.battery_pct - km * rules.energy.battery_per_km).max(0.0);
    }

    fn charge(&mut self, at: Point, rules: &Rules) {
        // A drone stands a few metres beside the plug, and charges there.
        if !self.at.is_at_charge(at) {
            self.fly(at, rules);
        }
        self.free_in_min += rules.pace.charging_min(rules.full_after_pct - self.battery_pct);
        self.battery_pct = self.battery_pct.max(rules.full_after_pct);
    }
}
