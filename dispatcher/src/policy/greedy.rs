//! `greedy`, the classic: oldest order first; among the fit drones of its class the least of (⌊distance ÷ `NEAR_EPS_KM`⌋, zone rank, battery,
//! −speed), the id breaking ties.

use std::collections::HashMap;

use domain::drone::{Drone, DroneType};
use domain::energy::loaded_and_home_km;

use super::{Assignment, Plan, Score, Snapshot, fitness, is_free};
use crate::rules::Rules;

/// The plan.
pub(super) fn plan<'a>(snapshot: &Snapshot<'a>, rules: &Rules) -> Plan<'a> {
    let mut plan = Plan::default();
    let mut free: HashMap<DroneType, Vec<&'a Drone>> = HashMap::new();
    for drone in snapshot
        .drones
        .iter()
        .filter(|drone| is_free(drone) && drone.battery > rules.critical_battery_pct)
    {
        free.entry(drone.kind).or_default().push(drone);
    }
    let mut looked_at: HashMap<DroneType, usize> = HashMap::new();
    for order in &snapshot.pending {
        if plan.assignments.len() >= rules.max_assign_per_round {
            break;
        }
        let kind = order.drone_type();
        let seen = looked_at.entry(kind).or_default();
        if *seen >= rules.pending_scan_limit {
            continue;
        }
        *seen += 1;
        let candidates = free.entry(kind).or_default();
        let mut best: Option<(Score, usize)> = None;
        // What does not depend on the drone is computed once; most drones then cost one distance.
        let loaded_km = loaded_and_home_km(order.origin, order.destination, snapshot.zones);
        for (index, drone) in candidates.iter().enumerate() {
            if !rules.energy.feasible(
                drone.battery,
                snapshot.zones.way_km(drone.pos, order.origin) + loaded_km,
            ) {
                plan.misses.entry(&drone.id).or_default().push(&order.id);
                continue;
            }
            let Ok(score) = fitness(drone, order, snapshot.now, snapshot.zones, rules) else {
                continue;
            };
            let better = best.is_none_or(|(leader, leader_index)| {
                score
                    .better_first(&leader)
                    .then_with(|| drone.id.cmp(&candidates[leader_index].id))
                    .is_lt()
            });
            if better {
                best = Some((score, index));
            }
        }
        match best {
            Some((_, index)) => {
                let drone = candidates.swap_remove(index);
                plan.assignments.push(Assignment {
                    delivery_id: order.id.clone(),
                    drone_id: drone.id.clone(),
                });
            }
            None => plan.unserved.push(order),
        }
    }
    plan
}
