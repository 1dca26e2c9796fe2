//! What no policy can beat: lower bounds on the mean time from order to delivery.
//!
//! 1. *Direct flight*: each order takes at least its loaded leg.
//! 2. *One fast machine*: let one machine, as fast as all N drones together, do only the loaded legs, may it interrupt them at will. Whatever
//!    N drones do, it could do the same in shares of its time, so its best is a lower bound; and its best is *shortest remaining processing
//!    time first* (L. Schrage, *A proof of the optimality of the SRPT discipline*, Operations Research 16 (1968), 687–690). The relaxation to
//!    one machine: M. Goemans, M. Queyranne, A. Schulz, M. Skutella, Y. Wang, *Single machine scheduling with release dates*, SIAM J. Discrete
//!    Math. 15 (2002), 165–192, and the parallel-machine bounds built upon it.
//!
//! Both hold; so does the larger of them. Below overload the first is the larger, and it is far from what can be reached: it lets a drone
//! stand at every order's door.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::snapshot::Order;

/// Both bounds, in minutes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// Mean direct flight.
    pub direct_min: f64,
    /// Mean of one machine N times as fast.
    pub fast_machine_min: f64,
}

impl Bounds {
    /// The bounds for `drones` equally fast drones. `orders` are sorted by the time they were placed. 0 for no orders.
    #[must_use]
    pub fn new(orders: &[Order], drones: usize, km_per_min: f64) -> Self {
        let direct: Vec<f64> = orders.iter().map(|order| order.direct_km() / km_per_min).collect();
        Self {
            direct_min: mean(direct.iter().copied()),
            fast_machine_min: srpt_mean(orders, &direct, drones),
        }
    }

    /// The larger of the two.
    #[must_use]
    pub fn best_min(&self) -> f64 {
        self.direct_min.max(self.fast_machine_min)
    }
}

/// A time that sorts. Times are never NaN here; were they, `total_cmp` would still be an order.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Remaining(f64);

impl Eq for Remaining {}

impl Ord for Remaining {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Remaining {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn srpt_mean(orders: &[Order], direct_min: &[f64], drones: usize) -> f64 {
    let mut waiting: BinaryHeap<Reverse<(Remaining, usize)>> = BinaryHeap::new();
    let mut now = 0.0_f64;
    let mut next = 0;
    let mut flows = Vec::with_capacity(orders.len());
    while next < orders.len() || !waiting.is_empty() {
        let arrival = orders.get(next).map_or(f64::INFINITY, |order| order.placed_min);
        match waiting.pop() {
            Some(Reverse((Remaining(left), order))) if now + left <= arrival => {
                now += left;
                flows.push(now - orders[order].placed_min);
            }
            popped => {
                if let Some(Reverse((Remaining(left), order))) = popped {
                    waiting.push(Reverse((Remaining(left - (arrival - now)), order)));
                }
                now = arrival;
                waiting.push(Reverse((Remaining(direct_min[next] / drones as f64), next)));
                next += 1;
            }
        }
    }
    mean(flows.into_iter())
}

/// The mean; 0 of nothing.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub(crate) fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len();
    if count == 0 {
        0.0
    } else {
        values.sum::<f64>() / count as f64
    }
}
