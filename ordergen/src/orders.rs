//! Random orders: both ends anywhere in the served area but in no-fly zones, any weight between the bounds.

use domain::geo::Point;
use domain::no_fly::NoFly;
use domain::order::NewOrder;
use domain::zones::ROME;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// How often a place is drawn until it lies outside the no-fly zones.
const DRAWS_MAX: u32 = 10_000;

/// Makes orders. Two generators of the same build with the same seed make the same orders.
#[derive(Debug)]
pub(crate) struct Orders {
    rng: StdRng,
    weight_min_kg: f64,
    weight_max_kg: f64,
    no_fly: NoFly,
}

impl Orders {
    /// Without a seed every run has its own sequence.
    pub(crate) fn new(seed: Option<u64>, weight_min_kg: f64, weight_max_kg: f64) -> Self {
        Self {
            rng: seed.map_or_else(rand::make_rng, StdRng::seed_from_u64),
            weight_min_kg,
            weight_max_kg,
            no_fly: NoFly::default(),
        }
    }

    /// The same, from and to places outside these zones.
    pub(crate) fn outside(self, no_fly: NoFly) -> Self {
        Self { no_fly, ..self }
    }

    fn place(&mut self) -> Point {
        let mut draw = || {
            Point::new(
                self.rng.random_range(ROME.lat_min..=ROME.lat_max),
                self.rng.random_range(ROME.lon_min..=ROME.lon_max),
            )
        };
        let outside = (0..DRAWS_MAX)
            .map(|_| draw())
            .find(|at| self.no_fly.zone_of(*at).is_none());
        // Hardly a place is left: the gateway refuses this one.
        outside.unwrap_or(ROME.center())
    }

    pub(crate) fn order(&mut self) -> NewOrder {
        let (origin, destination) = (self.place(), self.place());
        let weight_kg = self.rng.random_range(self.weight_min_kg..=self.weight_max_kg);
        // Grams are noise on a map; rounding must not leave the bounds.
        let weight = ((weight_kg * 100.0).round() / 100.0).clamp(self.weight_min_kg, self.weight_max_kg);
        NewOrder {
            origin,
            destination,
            weight,
            priority: None,
            deadline: None,
        }
    }
}

/// A key that no other order has, in this run or another. Never from the seed: a second run with the same seed is a second set of orders.
pub(crate) fn idempotency_key() -> String {
    format!("ordergen-{:032x}", rand::random::<u128>())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::{ProptestConfig, any};
    use proptest::{prop_assert, prop_assert_eq, proptest};

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn orders_are_valid_inside_the_area_and_repeatable(seed in any::<u64>(), min in 0.001_f64..20.0, more in 0.0_f64..20.0) {
            let (mut first, mut second) = (Orders::new(Some(seed), min, min + more), Orders::new(Some(seed), min, min + more));
            for _ in 0..20 {
                let order = first.order();
                prop_assert!(order.check().is_ok());
                prop_assert!(ROME.contains(order.origin) && ROME.contains(order.destination));
                prop_assert!((min..=min + more).contains(&order.weight));
                prop_assert_eq!(order, second.order());
            }
        }
    }

    #[test]
    fn no_order_is_from_or_to_a_no_fly_zone() {
        // Half of the area.
        let no_fly: NoFly = "41.79,12.36 41.79,12.48 41.99,12.48 41.99,12.36".parse().unwrap();
        let mut orders = Orders::new(Some(7), 1.0, 2.0).outside(no_fly.clone());
        assert!((0..500).all(|_| orders.order().check_no_fly(&no_fly).is_ok()));
        let everywhere: NoFly = "41.79,12.36 41.79,12.61 41.99,12.61 41.99,12.36".parse().unwrap();
        let mut orders = Orders::new(Some(7), 1.0, 2.0).outside(everywhere);
        assert_eq!(orders.order().origin, ROME.center());
    }

    #[test]
    fn runs_without_a_seed_differ_and_keys_always_do() {
        assert_ne!(Orders::new(None, 1.0, 2.0).order(), Orders::new(None, 1.0, 2.0).order());
        let keys: HashSet<String> = (0..1000).map(|_| idempotency_key()).collect();
        assert_eq!(keys.len(), 1000);
    }
}
