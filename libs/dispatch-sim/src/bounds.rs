//! What no policy can beat: lower bounds on the mean time from order to delivery.
//!
//! 1. *Direct flight*: each order takes at least its loaded leg.
//! 2. *One fast machine*: let one machine, as fast as all N drones together, do only the loaded legs, may it interrupt them at will. Whatever
//!    N drones do, it could do the same in shares of its time, so its best is a lower bound; and its best is *shortest remaining processing
//!    time first* (L. Schrage, *A proof of the optimality of the SRPT discipline*, Operations Research 16 (1968), 687–690). The relaxation to
//!    one machine: M. Goemans, M. Queyranne, A. Schulz, M. Skutella, Y. Wang, *Single machine scheduling with release dates*, SIAM J. Discrete
//!    Math. 15 (2002), 165–192, and the parallel-machine bounds built upon it.
//!
//! With several classes the first takes each order's fastest fitting drone, the second the sum of all speeds. Times at the doors lengthen the
//! first only. Batteries can only make it longer.
//!
//! Both hold; so does the larger of them. Below overload the first is the larger, and it is far from what can be reached: it lets a drone
//! stand at every order's door.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::fleet::Doors;
use crate::snapshot::Order;
use crate::world::Settings;

/// Both bounds, in minutes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// Mean direct flight.
    pub direct_min: f64,
    /// Mean of one machine N times as fast.
    pub fast_machine_min: f64,
}

/// What the bounds have to know of an order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Work {
    /// When it was placed, minutes.
    pub placed_min: f64,
    /// From its origin straight to its destination, km.
    pub direct_km: f64,
    /// The fastest drone that may carry it, km/min; above 0.
    pub fastest_km_per_min: f64,
}

impl Bounds {
    /// The bounds for `drones` equally fast drones. `orders` are sorted by the time they were placed. 0 for no orders.
    #[must_use]
    pub fn new(orders: &[Order], drones: usize, km_per_min: f64) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "fleets are far below 2^52")]
        let fleet = km_per_min * drones as f64;
        Self::of(orders, |_| km_per_min, fleet, &[])
    }

    /// The bounds for the orders and the fleet of a world: `drones` of them.
    #[must_use]
    pub fn of_world(orders: &[Order], drones: usize, settings: &Settings<'_>) -> Self {
        let Some(classes) = settings.classes else {
            #[expect(clippy::cast_precision_loss, reason = "fleets are far below 2^52")]
            let fleet = settings.km_per_min * drones as f64;
            return Self::of(orders, |_| settings.km_per_min, fleet, settings.doors);
        };
        let speeds = classes.drones.iter().map(|&rank| classes.km_per_min[usize::from(rank)]);
        let fleet = speeds.sum();
        Self::of(orders, |order| classes.fastest_km_per_min(order), fleet, settings.doors)
    }

    fn of(orders: &[Order], fastest: impl Fn(&Order) -> f64, fleet_km_per_min: f64, doors: &[Doors]) -> Self {
        let direct = orders.iter().enumerate().map(|(index, order)| {
            let doors = doors.get(index).copied().unwrap_or_default();
            let arrival = order.placed_min + doors.pickup_service_min + order.direct_km() / fastest(order);
            arrival.max(doors.open_from_min) + doors.delivery_service_min - order.placed_min
        });
        let shares = orders
            .iter()
            .map(|order| (order.placed_min, order.direct_km() / fleet_km_per_min));
        Self {
            direct_min: mean(direct),
            fast_machine_min: srpt_mean(&shares.collect::<Vec<_>>()),
        }
    }

    /// The bounds for orders that were flown somewhere else than in a world of ours, by drones whose speeds add up to `fleet_km_per_min`. `work` is
    /// sorted by the time they were placed. Of a fleet without speed only the first bound is told; 0 for no orders.
    #[must_use]
    pub fn of_work(work: &[Work], fleet_km_per_min: f64) -> Self {
        let direct = work.iter().map(|order| order.direct_km / order.fastest_km_per_min);
        let fast_machine_min = if fleet_km_per_min > 0.0 {
            let shares = work
                .iter()
                .map(|order| (order.placed_min, order.direct_km / fleet_km_per_min));
            srpt_mean(&shares.collect::<Vec<_>>())
        } else {
            0.0
        };
        Self {
            direct_min: mean(direct),
            fast_machine_min,
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

/// Of each order: when it was placed, in that order, and the minutes that it takes the fast machine.
fn srpt_mean(orders: &[(f64, f64)]) -> f64 {
    let mut waiting: BinaryHeap<Reverse<(Remaining, usize)>> = BinaryHeap::new();
    let mut now = 0.0_f64;
    let mut next = 0;
    let mut flows = Vec::with_capacity(orders.len());
    while next < orders.len() || !waiting.is_empty() {
        let arrival = orders.get(next).map_or(f64::INFINITY, |&(placed, _)| placed);
        match waiting.pop() {
            Some(Reverse((Remaining(left), order))) if now + left <= arrival => {
                now += left;
                flows.push(now - orders[order].0);
            }
            popped => {
                if let Some(Reverse((Remaining(left), order))) = popped {
                    waiting.push(Reverse((Remaining(left - (arrival - now)), order)));
                }
                now = arrival;
                waiting.push(Reverse((Remaining(orders[next].1), next)));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn work(placed_min: f64, direct_km: f64) -> Work {
        Work {
            placed_min,
            direct_km,
            fastest_km_per_min: 1.0,
        }
    }

    #[test]
    fn bounds_of_work_by_hand() {
        // One drone of 1 km/min: 10 km at 0; 2 km at 1, which goes before the rest of the first. 1 → 3, 0 → 12.
        let two = [work(0.0, 10.0), work(1.0, 2.0)];
        let bounds = Bounds::of_work(&two, 1.0);
        assert_eq!(
            (bounds.direct_min, bounds.fast_machine_min),
            (6.0, f64::midpoint(12.0, 2.0))
        );
        // Four drones, or one four times as fast: the second goes before again, 1 → 1.5; 0 → 3.
        let four = Bounds::of_work(&two, 4.0);
        assert_eq!((four.direct_min, four.fast_machine_min), (6.0, f64::midpoint(3.0, 0.5)));
        assert!((four.best_min() - 6.0).abs() < 1e-12);
        let (none, empty) = (Bounds::of_work(&two, 0.0), Bounds::of_work(&[], 1.0));
        assert_eq!((none.fast_machine_min, empty.best_min()), (0.0, 0.0));
    }
}
