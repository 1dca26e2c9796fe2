//! `greedy`: oldest order first, nearest idle drone.

use crate::snapshot::{Heading, Plan, Policy, Snapshot};

/// Oldest order first; each gets the nearest drone that has nothing to do (flight and extra minutes, then the index). A drone that is on its
/// way stays on it. What most people write first, and what breaks down at loads that [`Matching`](crate::Matching) takes easily: the oldest
/// order is mostly far from the drone that happens to be free.
#[derive(Debug, Clone, Copy, Default)]
pub struct Greedy;

impl Policy for Greedy {
    fn plan(&self, snapshot: &Snapshot<'_>) -> Plan {
        let mut plan = Plan::default();
        let mut idle = Vec::new();
        let mut is_taken = vec![false; snapshot.orders.len()];
        for (index, drone) in snapshot.drones.iter().enumerate().filter(|(_, drone)| drone.is_ready()) {
            if let Heading::Pickup(order) = drone.heading {
                plan.pickups.push((order, index));
                is_taken[order] = true;
            } else {
                idle.push(index);
            }
        }
        for (index, order) in snapshot.orders.iter().enumerate() {
            if idle.is_empty() {
                break;
            }
            if is_taken[index] {
                continue;
            }
            let nearest = idle
                .iter()
                .enumerate()
                .filter_map(|(place, &drone)| {
                    let drone = &snapshot.drones[drone];
                    let extra = snapshot.pairs.extra_min(order, drone)?;
                    Some((drone.minutes_to(order.origin) + extra, place))
                })
                .min_by(|a, b| a.0.total_cmp(&b.0).then(idle[a.1].cmp(&idle[b.1])));
            if let Some((_, place)) = nearest {
                plan.pickups.push((index, idle.swap_remove(place)));
            }
        }
        plan
    }
}
