//! The orders of the reference world.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::geometry::Point;
use crate::snapshot::Order;

/// Mean distance of two points drawn uniformly from the unit square: (2 + √2 + 5 ln(1 + √2)) / 15. (*Square line picking*; L. Santaló, *Integral
/// Geometry and Geometric Probability*, 1976.)
pub const MEAN_DISTANCE_IN_UNIT_SQUARE: f64 = 0.521_405_433_164_720_7;

/// What of a drone's time an order takes beside its loaded leg, as the definition of utilisation has it: a quarter.
pub const EMPTY_FLIGHT_FACTOR: f64 = 1.25;

/// How often a place is drawn until it is free: with a tenth of all places free, in vain once in 10^45 times.
pub const TRIES: usize = 1_000;

/// When orders are placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Arrivals {
    /// At random at a steady rate.
    #[default]
    Poisson,
    /// At random at a rate that goes through [`CYCLE`] again and again; the same number per hour on the average.
    Bursty,
    /// All of them at the beginning.
    Burst,
}

/// The cycle of [`Arrivals::Bursty`], which is that of the order generator as 28 times accelerated drones see it: minutes, and the rate as a
/// multiple of the mean. Calm, peak, calm, silence.
pub const CYCLE: [(f64, f64); 4] = [
    (14.0, 4.0 / 3.0),
    (14.0 / 3.0, 16.0 / 3.0),
    (28.0 / 3.0, 4.0 / 3.0),
    (28.0, 0.0),
];

/// The world that policies are compared in: a square, one class of drones, no batteries, orders at random.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reference {
    /// Side of the square, km.
    pub square_km: f64,
    /// Speed of all drones, km/h.
    pub speed_kmh: f64,
    /// How many drones.
    pub drones: usize,
    /// Arrival rate × mean direct time × [`EMPTY_FLIGHT_FACTOR`] ÷ drones.
    pub utilisation: f64,
    /// How many orders, at most.
    pub orders: usize,
    /// Until when orders are placed; infinite until there are [`Reference::orders`].
    pub until_min: f64,
    /// When they are placed.
    pub arrivals: Arrivals,
    /// Decides orders and where drones are in the beginning.
    pub seed: u64,
}

impl Reference {
    /// 20 km, 60 km/h, 12,000 orders.
    #[must_use]
    pub const fn new(drones: usize, utilisation: f64, seed: u64) -> Self {
        Self {
            square_km: 20.0,
            speed_kmh: 60.0,
            drones,
            utilisation,
            orders: 12_000,
            until_min: f64::INFINITY,
            arrivals: Arrivals::Poisson,
            seed,
        }
    }

    /// Speed in km per minute.
    #[must_use]
    pub fn km_per_min(&self) -> f64 {
        self.speed_kmh / 60.0
    }

    /// Orders per minute: utilisation · drones ÷ (mean direct minutes · [`EMPTY_FLIGHT_FACTOR`]).
    #[must_use]
    pub fn orders_per_min(&self) -> f64 {
        let mean_direct_min = MEAN_DISTANCE_IN_UNIT_SQUARE * self.square_km / self.km_per_min();
        #[expect(clippy::cast_precision_loss, reason = "fleets are far below 2^52")]
        let drones = self.drones as f64;
        self.utilisation * drones / (mean_direct_min * EMPTY_FLIGHT_FACTOR)
    }

    /// The orders, oldest first, with ids from 0 up, and where the drones are in the beginning. Poisson arrivals; origins, destinations and
    /// drones uniform.
    #[must_use]
    pub fn draw(&self) -> (Vec<Order>, Vec<Point>) {
        self.draw_where(|_| true)
            .expect("the first place that is drawn is free")
    }

    /// The same with all places where `is_free`; nothing if too few are. A place that is not free is drawn again.
    #[must_use]
    pub fn draw_where(&self, is_free: impl Fn(Point) -> bool) -> Option<(Vec<Order>, Vec<Point>)> {
        let mut random = StdRng::seed_from_u64(self.seed);
        let point = |random: &mut StdRng| {
            let mut places = std::iter::repeat_with(|| {
                Point::new(
                    random.random_range(0.0..self.square_km),
                    random.random_range(0.0..self.square_km),
                )
            });
            places.by_ref().take(TRIES).find(|place| is_free(*place))
        };
        let drones = (0..self.drones)
            .map(|_| point(&mut random))
            .collect::<Option<Vec<_>>>()?;
        let per_min = self.orders_per_min();
        let mut placed_min = 0.0;
        let orders = (0..)
            .take(self.count())
            .map(|id| {
                // Gaps of a Poisson process: exponential, by inversion.
                let gap_min = -(1.0 - random.random_range(0.0..1.0_f64)).ln() / per_min;
                placed_min = match self.arrivals {
                    Arrivals::Poisson => placed_min + gap_min,
                    Arrivals::Bursty => through_the_cycle(placed_min, gap_min),
                    Arrivals::Burst => 0.0,
                };
                Some(Order {
                    id,
                    origin: point(&mut random)?,
                    destination: point(&mut random)?,
                    placed_min,
                })
            })
            .take_while(|order| order.is_none_or(|order| order.placed_min <= self.until_min))
            .collect::<Option<Vec<_>>>()?;
        Some((orders, drones))
    }

    /// At most so many orders are drawn: in a burst as many as would be placed until the end.
    fn count(&self) -> usize {
        if self.arrivals != Arrivals::Burst || self.until_min.is_infinite() {
            return self.orders;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "`as` saturates, and it is cut off at the number of orders"
        )]
        let expected = (self.orders_per_min() * self.until_min).round() as usize;
        expected.clamp(1, self.orders)
    }
}

/// When `work` minutes at the mean rate have passed since `now_min`, by the rates of [`CYCLE`] (the time change of an inhomogeneous Poisson
/// process: E. Çinlar, *Introduction to Stochastic Processes*, 1975).
fn through_the_cycle(now_min: f64, mut work: f64) -> f64 {
    let length: f64 = CYCLE.iter().map(|(min, _)| min).sum();
    let mut begin = (now_min / length).floor() * length;
    let mut now = now_min;
    loop {
        for (min, rate) in CYCLE {
            let end = begin + min;
            let left = (end - now).max(0.0) * rate;
            if work < left {
                return now + work / rate;
            }
            work -= left;
            now = now.max(end);
            begin = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Arrivals, CYCLE, Reference, through_the_cycle};

    #[test]
    fn the_cycle_keeps_the_mean_rate() {
        let (length, work) = CYCLE.iter().fold((0.0, 0.0), |(length, work), (min, rate)| {
            (length + min, work + min * rate)
        });
        assert!(
            (length - 56.0_f64).abs() < 1e-9 && (work - length).abs() < 1e-9,
            "{length} {work}"
        );
        // Half the calm phase; then its other half and 1 minute of peak; then what is left until the silence, and a minute of the next calm.
        assert!((through_the_cycle(0.0, 7.0 * 4.0 / 3.0) - 7.0).abs() < 1e-9);
        assert!((through_the_cycle(7.0, 7.0 * 4.0 / 3.0 + 16.0 / 3.0) - 15.0).abs() < 1e-9);
        assert!((through_the_cycle(30.0, 4.0 / 3.0) - 57.0).abs() < 1e-9);
        assert!((through_the_cycle(0.0, 56.0 * 3.0 + 4.0 / 3.0) - 169.0).abs() < 1e-9);
    }

    #[test]
    fn bursty_orders_come_in_waves_and_as_many_as_steady_ones() {
        let until_min = 56.0 * 40.0;
        let reference = Reference {
            until_min,
            orders: 100_000,
            arrivals: Arrivals::Bursty,
            ..Reference::new(18, 0.7, 5)
        };
        let (orders, _) = reference.draw();
        #[expect(clippy::cast_precision_loss, reason = "a few thousand orders")]
        let share = orders.len() as f64 / (reference.orders_per_min() * until_min);
        // About 2,160 orders: a standard error of 2 %.
        assert!((share - 1.0).abs() < 0.1, "{share}");
        let silent = orders.iter().filter(|order| order.placed_min % 56.0 > 28.001).count();
        assert_eq!(silent, 0);
        let peak = orders
            .iter()
            .filter(|order| (14.0..14.0 + 14.0 / 3.0).contains(&(order.placed_min % 56.0)))
            .count();
        assert!(
            peak * 3 > orders.len() && peak * 2 < orders.len(),
            "{peak} of {}",
            orders.len()
        );
        assert!(orders.is_sorted_by(|a, b| a.placed_min <= b.placed_min));
    }

    #[test]
    fn a_burst_is_all_at_once_and_hours_end_the_orders() {
        let reference = Reference {
            until_min: 60.0,
            arrivals: Arrivals::Burst,
            ..Reference::new(18, 0.7, 5)
        };
        let (orders, _) = reference.draw();
        // 0.7 · 18 / (10.428 · 1.25) = 0.967 per minute.
        assert_eq!(orders.len(), 58);
        assert!(orders.iter().all(|order| order.placed_min <= 0.0));
        let steady = Reference {
            arrivals: Arrivals::Poisson,
            ..reference
        };
        assert!(steady.draw().0.last().unwrap().placed_min <= 60.0);
    }
}
