//! What the policy is told: of the mirror's orders and drones those that something can be done with now.

use std::collections::HashSet;

use domain::drone::DroneStatus;

use super::Engine;
use crate::policy::{Snapshot, may_be_taken_back};

impl Engine {
    /// The snapshot of now. Left out are orders and drones that are left alone for a while; orders that a drone is busy with though they wait, an
    /// assignment that is half made, which reconciling finishes; and drones that an order is given to and that do not hold it: they go on with it, or
    /// charge for it, as reconciling decides.
    pub(super) fn snapshot(&self, now: f64, wants_swaps: bool) -> Snapshot<'_> {
        let (mirror, rules) = (&self.mirror, &self.parts.rules);
        let free_to_touch = |id: &str| !self.hold_off.contains_key(id);
        let claimed = mirror.claimed();
        let fleet = mirror.drones.values().map(|seen| &seen.record);
        let busy = fleet.clone().filter(|drone| drone.status == DroneStatus::Busy);
        let held: HashSet<&str> = busy.filter_map(|drone| drone.current_delivery.as_deref()).collect();
        let pending = mirror.pending();
        let flights = || mirror.flights().map(|(seen, drone)| (&seen.record, drone));
        let swappable = flights().filter(|(order, drone)| {
            wants_swaps
                && free_to_touch(&order.id)
                && free_to_touch(&drone.id)
                && may_be_taken_back(order, drone, now, rules)
        });
        Snapshot {
            now,
            zones: &self.zones,
            pending: pending
                .filter(|order| free_to_touch(&order.id) && !held.contains(order.id.as_str()))
                .collect(),
            drones: fleet
                .filter(|drone| free_to_touch(&drone.id) && !claimed.contains(drone.id.as_str()))
                .collect(),
            flights: flights().map(|(order, drone)| (drone.id.as_str(), order)).collect(),
            swappable: swappable.map(|(order, _)| order).collect(),
        }
    }
}
