//! A flight from one place to another: straight, or with bends where something is in the way.

use crate::geo::Point;

/// The way from one place to another. Its pieces are flown as [`Point::move_towards`] has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Way {
    from: Point,
    bends: Vec<Point>,
    to: Point,
    km: f64,
}

impl Way {
    /// The straight way. Costs nothing but the distance.
    #[must_use]
    pub fn straight(from: Point, to: Point) -> Self {
        Self::through(from, Vec::new(), to)
    }

    /// The way over `bends`, in their order.
    #[must_use]
    pub fn through(from: Point, bends: Vec<Point>, to: Point) -> Self {
        let mut way = Self {
            from,
            bends,
            to,
            km: 0.0,
        };
        way.km = way.pieces().map(|(from, to)| from.distance_km(to)).sum();
        way
    }

    /// Its length, kilometres.
    #[must_use]
    pub fn km(&self) -> f64 {
        self.km
    }

    /// Where it turns, in the order in which it is flown.
    #[must_use]
    pub fn bends(&self) -> &[Point] {
        &self.bends
    }

    /// Its straight pieces, from place to place.
    pub fn pieces(&self) -> impl Iterator<Item = (Point, Point)> + '_ {
        let starts = std::iter::once(self.from).chain(self.bends.iter().copied());
        let ends = self.bends.iter().copied().chain(std::iter::once(self.to));
        starts.zip(ends)
    }

    /// Where one is after at most `step_km` of it, and how many km that were. Never beyond the end, which is met exactly; a step that is not
    /// positive goes nowhere.
    #[must_use]
    pub fn after(&self, step_km: f64) -> (Point, f64) {
        let (mut left_km, mut flown_km) = (step_km, 0.0);
        for (from, to) in self.pieces() {
            let piece_km = from.distance_km(to);
            // A step that is no number ends here too.
            if left_km.is_nan() || piece_km > left_km {
                let at = from.move_towards(to, left_km);
                return (at, flown_km + from.distance_km(at));
            }
            left_km -= piece_km;
            flown_km += piece_km;
        }
        (self.to, flown_km)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, prop, prop_assert, prop_assert_eq, proptest};

    use super::Way;
    use crate::geo::Point;

    fn place() -> impl Strategy<Value = Point> {
        (41.80..41.98_f64, 12.37..12.60_f64).prop_map(|(lat, lon)| Point::new(lat, lon))
    }

    #[test]
    fn no_step_goes_nowhere() {
        let (a, b) = (Point::new(41.9, 12.5), Point::new(41.95, 12.5));
        for step_km in [0.0, -1.0, f64::NAN] {
            assert_eq!(Way::straight(a, b).after(step_km), (a, 0.0));
        }
        assert_eq!(Way::straight(a, a).after(1.0), (a, 0.0));
    }

    proptest! {
        #[test]
        fn a_straight_way_is_flown_as_it_always_was(a in place(), b in place(), step_km in 0.0..30.0_f64) {
            let way = Way::straight(a, b);
            prop_assert_eq!(way.km().to_bits(), a.distance_km(b).to_bits());
            let (at, km) = way.after(step_km);
            prop_assert_eq!(at, a.move_towards(b, step_km));
            prop_assert_eq!(km.to_bits(), a.distance_km(at).to_bits());
        }

        #[test]
        fn steps_add_up(a in place(), bends in prop::collection::vec(place(), 0..5), b in place(), share in 0.0..1.2_f64) {
            let way = Way::through(a, bends.clone(), b);
            let step_km = way.km() * share;
            let (at, km) = way.after(step_km);
            prop_assert!((km - step_km.min(way.km())).abs() < way.km() * 2e-3 + 1e-9, "{km} of {step_km}");
            prop_assert!(share < 1.0 || at == b);
            let left = way.pieces().map(|(from, to)| from.distance_km(to)).sum::<f64>();
            prop_assert!((left - way.km()).abs() < 1e-12);
            prop_assert_eq!(way.bends(), bends);
        }
    }
}
