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
    /// How many orders.
    pub orders: usize,
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
        let mut random = StdRng::seed_from_u64(self.seed);
        let point = |random: &mut StdRng| {
            Point::new(
                random.random_range(0.0..self.square_km),
                random.random_range(0.0..self.square_km),
            )
        };
        let drones = (0..self.drones).map(|_| point(&mut random)).collect();
        let per_min = self.orders_per_min();
        let mut placed_min = 0.0;
        let orders = (0..)
            .take(self.orders)
            .map(|id| {
                // Gaps of a Poisson process: exponential, by inversion.
                placed_min -= (1.0 - random.random_range(0.0..1.0_f64)).ln() / per_min;
                Order {
                    id,
                    origin: point(&mut random),
                    destination: point(&mut random),
                    placed_min,
                }
            })
            .collect();
        (orders, drones)
    }
}
