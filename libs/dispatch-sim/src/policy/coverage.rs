//! Where idle drones should wait: a k-median of the orders to come.
//!
//! Guards g (drones) cover points z of demand with weights w: z is served by the guard for which reach(g, z) = delay + distance is least. Wanted
//! are places that make Σ w · reach the least. That is the k-median problem (S. Hakimi, *Optimum locations of switching centers*, Operations
//! Research 12 (1964), 450–459). We go downhill from where the drones are (or already fly to), by the alternation of L. Cooper (*Location-allocation
//! problems*, Operations Research 11 (1963), 331–343): give each point to its nearest guard, then move each guard towards the median
//! of its points by a step of E. Weiszfeld (1937). The next plan goes on from there, so one or two rounds per plan are enough.
//!
//! Drones that will be ready soon cover too, from where they will be, with the time until then as delay; they are not moved.

use crate::geometry::Point;
use crate::snapshot::Demand;

/// Distances in Weiszfeld's step are at least this: it divides by them. A part of what matters to a drone.
const NEAR_KM: f64 = 0.2;

/// A drone that covers demand.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guard {
    /// Where it waits, or will be.
    pub at: Point,
    /// What is added to every distance from it: the flight that the time until it is ready would be worth.
    pub delay_km: f64,
    /// Whether it can be sent elsewhere.
    pub is_movable: bool,
}

/// The guard with the least reach, and the reach.
fn nearest(guards: &[Guard], point: Point) -> Option<(usize, f64)> {
    guards
        .iter()
        .map(|guard| guard.delay_km + guard.at.km_to(point))
        .enumerate()
        .min_by(|a, b| a.1.total_cmp(&b.1))
}

/// Mean reach of the demand, in km: what [`relax`] makes smaller. Nothing without guards or demand.
#[must_use]
pub fn mean_reach_km(guards: &[Guard], demand: &Demand) -> Option<f64> {
    let mut sum = 0.0;
    let mut weights = 0.0;
    for &(point, weight) in &demand.points {
        sum += weight * nearest(guards, point)?.1;
        weights += weight;
    }
    (weights > 0.0).then(|| sum / weights)
}

/// Moves guards that can be moved towards a better cover, `rounds` times.
pub fn relax(guards: &mut [Guard], demand: &Demand, rounds: usize) {
    if !guards.iter().any(|guard| guard.is_movable) {
        return;
    }
    // Per guard: Σ w/d, Σ w·x/d, Σ w·y/d of its points.
    let mut pulls = vec![(0.0, 0.0, 0.0); guards.len()];
    for _ in 0..rounds {
        pulls.fill((0.0, 0.0, 0.0));
        for &(point, weight) in &demand.points {
            let Some((index, _)) = nearest(guards, point) else {
                continue;
            };
            let share = weight / guards[index].at.km_to(point).max(NEAR_KM);
            let pull = &mut pulls[index];
            pull.0 += share;
            pull.1 += share * point.x;
            pull.2 += share * point.y;
        }
        for (guard, pull) in guards.iter_mut().zip(&pulls) {
            if guard.is_movable && pull.0 > 0.0 {
                guard.at = Point::new(pull.1 / pull.0, pull.2 / pull.0);
            }
        }
    }
}
