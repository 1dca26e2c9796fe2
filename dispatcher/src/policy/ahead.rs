//! Where and when a drone will be free, and with how much battery: a guess from its record and its order.

use domain::delivery::{Delivery, Leg};
use domain::drone::{Drone, DroneStatus};
use domain::geo::Point;
use domain::zones::ZonesConfig;

use super::{Snapshot, is_free};
use crate::chargers::Chargers;
use crate::rules::Rules;

/// A drone as it is when it can next be sent to an order.
#[derive(Debug, Clone)]
pub(crate) struct Ahead<'a> {
    pub(crate) record: &'a Drone,
    /// Where it is then.
    pub(crate) at: Point,
    /// Minutes of flight until then; 0 for one that is free.
    pub(crate) free_in_min: f64,
    /// Its battery then, percent.
    pub(crate) battery_pct: f64,
}

impl<'a> Ahead<'a> {
    /// Those of a fleet that are there for orders.
    pub(crate) fn of_fleet(snapshot: &Snapshot<'a>, chargers: &Chargers<'_>, rules: &Rules) -> Vec<Self> {
        let ahead = |&drone: &&'a Drone| {
            let flight = snapshot.flights.get(drone.id.as_str()).copied();
            Self::new(drone, flight, snapshot, chargers, rules)
        };
        snapshot.drones.iter().filter_map(ahead).collect()
    }

    /// The drone as it is.
    pub(crate) const fn now(drone: &'a Drone) -> Self {
        Self {
            record: drone,
            at: drone.pos,
            free_in_min: 0.0,
            battery_pct: drone.battery,
        }
    }

    /// Nothing for a drone that is not there for orders: parked, retiring, lost, about to be sent to charge, or in contradiction with its order
    /// (which is repaired first).
    fn new(
        drone: &'a Drone,
        flight: Option<&Delivery>,
        snapshot: &Snapshot<'_>,
        chargers: &Chargers<'_>,
        rules: &Rules,
    ) -> Option<Self> {
        let mut ahead = Self::now(drone);
        match drone.status {
            DroneStatus::Idle => {
                return (is_free(drone) && drone.battery > rules.critical_battery_pct).then_some(ahead);
            }
            DroneStatus::Busy => {
                let flight = flight?;
                if flight.leg != Some(Leg::ToDestination) {
                    ahead.fly(flight.origin, snapshot.zones, rules);
                }
                ahead.fly(flight.destination, snapshot.zones, rules);
                if ahead.battery_pct <= rules.critical_battery_pct {
                    let (charge, km) = snapshot.zones.nearest_charge(ahead.at)?;
                    let arrival_min = ahead.free_in_min + km / rules.pace.km_per_min(drone.kind);
                    ahead.free_in_min += chargers.wait_min(charge, arrival_min);
                    ahead.charge(charge, snapshot.zones, rules);
                }
            }
            // It may be given an order now, as an idle one.
            DroneStatus::Charging if is_free(drone) && drone.battery > rules.critical_battery_pct => {
                return Some(ahead);
            }
            DroneStatus::Charging => {
                ahead.free_in_min += chargers.waits_min(drone);
                ahead.charge(drone.charge_target(snapshot.zones), snapshot.zones, rules);
            }
            DroneStatus::Inactive | DroneStatus::Retiring | DroneStatus::Lost => return None,
        }
        if let Some(until) = drone.freeze_until {
            ahead.free_in_min += rules.pace.minutes((until - snapshot.now).max(0.0));
        }
        // Not free even if it is due this very moment.
        ahead.free_in_min = ahead.free_in_min.max(f64::MIN_POSITIVE);
        ahead.free_in_min.is_finite().then_some(ahead)
    }

    pub(crate) fn is_free(&self) -> bool {
        self.free_in_min <= 0.0
    }

    /// Whether its battery is enough to fly to `origin` and from there `loaded_and_home_km` on.
    pub(crate) fn has_battery_for(
        &self,
        origin: Point,
        loaded_and_home_km: f64,
        zones: &ZonesConfig,
        rules: &Rules,
    ) -> bool {
        let km = zones.way_km(self.at, origin) + loaded_and_home_km;
        rules.energy.feasible(self.battery_pct, km)
    }

    pub(crate) fn fly(&mut self, goal: Point, zones: &ZonesConfig, rules: &Rules) {
        let km = zones.way_km(self.at, goal);
        self.at = goal;
        self.free_in_min += km / rules.pace.km_per_min(self.record.kind);
        self.battery_pct = (self.battery_pct - km * rules.energy.battery_per_km).max(0.0);
    }

    pub(crate) fn charge(&mut self, at: Point, zones: &ZonesConfig, rules: &Rules) {
        // A drone stands a few metres beside the plug, and charges there.
        if !self.at.is_at_charge(at) {
            self.fly(at, zones, rules);
        }
        self.free_in_min += rules.pace.charging_min(rules.full_after_pct - self.battery_pct);
        self.battery_pct = self.battery_pct.max(rules.full_after_pct);
    }
}
