//! Points on the globe, distances and straight movement.
//!
//! Promises: distances are great-circle kilometres, symmetric and never negative; movement never overshoots its target and
//! always ends on it when the way left is at most the step. Meant for a city: movement interpolates latitude and longitude
//! linearly, which over some tens of kilometres is indistinguishable from the great circle.

use serde::{Deserialize, Serialize};

/// Mean radius of the Earth in kilometres, as every script around the system uses it.
pub const EARTH_RADIUS_KM: f64 = 6371.0;

/// Half the side, in degrees, of the square around a charge point inside which a drone counts as being there.
pub const AT_CHARGE_DEG: f64 = 0.0005;

/// A place, in degrees (WGS 84).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Latitude in degrees, north positive, [-90, 90].
    pub lat: f64,
    /// Longitude in degrees, east positive, [-180, 180].
    pub lon: f64,
}

impl Point {
    /// A point from degrees. Ranges are not checked here; orders are checked by [`crate::order`].
    #[must_use]
    pub const fn new(lat: f64, lon: f64) -> Self {
        Self { lat, lon }
    }

    /// Great-circle distance to `other` in kilometres (haversine, radius [`EARTH_RADIUS_KM`]).
    #[must_use]
    pub fn distance_km(self, other: Self) -> f64 {
        let (lat_a, lat_b) = (self.lat.to_radians(), other.lat.to_radians());
        let half_dlat = (lat_b - lat_a) / 2.0;
        let half_dlon = (other.lon - self.lon).to_radians() / 2.0;
        let h = half_dlat.sin().powi(2) + lat_a.cos() * lat_b.cos() * half_dlon.sin().powi(2);
        // Rounding may lift `h` a hair above 1 for antipodes, where asin would answer NaN.
        2.0 * EARTH_RADIUS_KM * h.clamp(0.0, 1.0).sqrt().asin()
    }

    /// The point reached after flying at most `step_km` from here straight towards `target`.
    /// Answers `target` itself when it is within the step, and stays when `step_km` is not positive.
    #[must_use]
    pub fn move_towards(self, target: Self, step_km: f64) -> Self {
        let way_km = self.distance_km(target);
        if way_km <= step_km {
            return target;
        }
        self.move_fraction(target, step_km / way_km)
    }

    /// The point after covering `fraction` (clamped to [0, 1]) of the way to `target`.
    #[must_use]
    pub fn move_fraction(self, target: Self, fraction: f64) -> Self {
        // A NaN fraction (0 km of 0 km) moves nothing.
        if fraction.is_nan() || fraction <= 0.0 {
            return self;
        }
        if fraction >= 1.0 {
            return target;
        }
        Self {
            lat: self.lat + (target.lat - self.lat) * fraction,
            lon: self.lon + (target.lon - self.lon) * fraction,
        }
    }

    /// True when both coordinates are within `tolerance_deg` degrees of `other`'s.
    #[must_use]
    pub fn within_deg(self, other: Self, tolerance_deg: f64) -> bool {
        (self.lat - other.lat).abs() <= tolerance_deg && (self.lon - other.lon).abs() <= tolerance_deg
    }

    /// True when a drone at this point counts as being at the charge point `charge` ([`AT_CHARGE_DEG`]).
    #[must_use]
    pub fn is_at_charge(self, charge: Self) -> bool {
        self.within_deg(charge, AT_CHARGE_DEG)
    }

    /// True when both coordinates are finite and within the globe's ranges.
    #[must_use]
    pub fn is_on_globe(self) -> bool {
        (-90.0..=90.0).contains(&self.lat) && (-180.0..=180.0).contains(&self.lon)
    }
}

/// A flat map of a city: km east and north of where latitude and longitude are 0, as seen from one latitude. Straight lines stay straight;
/// lengths are off by less than a thousandth over some tens of km.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plane {
    km_per_lat: f64,
    km_per_lon: f64,
}

impl Plane {
    /// The map that is true to scale at the latitude `lat_deg`.
    #[must_use]
    pub fn at_latitude(lat_deg: f64) -> Self {
        let km_per_lat = EARTH_RADIUS_KM.to_radians();
        Self {
            km_per_lat,
            km_per_lon: km_per_lat * lat_deg.to_radians().cos(),
        }
    }

    /// Where `point` is on the map: km east, km north.
    #[must_use]
    pub fn km(&self, point: Point) -> (f64, f64) {
        (point.lon * self.km_per_lon, point.lat * self.km_per_lat)
    }

    /// The place that is so many km east and north.
    #[must_use]
    pub fn point(&self, (east_km, north_km): (f64, f64)) -> Point {
        Point::new(north_km / self.km_per_lat, east_km / self.km_per_lon)
    }
}

/// A rectangle of latitudes and longitudes, edges included.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bounds {
    /// Southern edge, degrees.
    pub lat_min: f64,
    /// Northern edge, degrees.
    pub lat_max: f64,
    /// Western edge, degrees.
    pub lon_min: f64,
    /// Eastern edge, degrees.
    pub lon_max: f64,
}

impl Bounds {
    /// True when `point` lies inside or on an edge.
    #[must_use]
    pub fn contains(&self, point: Point) -> bool {
        (self.lat_min..=self.lat_max).contains(&point.lat) && (self.lon_min..=self.lon_max).contains(&point.lon)
    }

    /// The centre.
    #[must_use]
    pub fn center(&self) -> Point {
        Point::new(
            f64::midpoint(self.lat_min, self.lat_max),
            f64::midpoint(self.lon_min, self.lon_max),
        )
    }

    /// True when all edges are finite and the rectangle has an area.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        [self.lat_min, self.lat_max, self.lon_min, self.lon_max]
            .iter()
            .all(|edge| edge.is_finite())
            && self.lat_min < self.lat_max
            && self.lon_min < self.lon_max
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, prop_assert, proptest};

    use super::Point;

    fn in_rome() -> impl Strategy<Value = Point> {
        (41.80..41.98_f64, 12.37..12.60_f64).prop_map(|(lat, lon)| Point::new(lat, lon))
    }

    fn on_globe() -> impl Strategy<Value = Point> {
        (-90.0..=90.0_f64, -180.0..=180.0_f64).prop_map(|(lat, lon)| Point::new(lat, lon))
    }

    #[test]
    fn known_distances() {
        // One degree of latitude is R·π/180.
        assert!((Point::new(41.0, 12.0).distance_km(Point::new(42.0, 12.0)) - 111.194_926).abs() < 1e-5);
        // Rome – Paris, about 1,105 km.
        let km = Point::new(41.9028, 12.4964).distance_km(Point::new(48.8566, 2.3522));
        assert!((1_100.0..1_112.0).contains(&km), "{km}");
        // Antipodes: half the circumference, not NaN.
        let half = Point::new(0.0, 0.0).distance_km(Point::new(0.0, 180.0));
        assert!((half - 20_015.087).abs() < 0.01, "{half}");
    }

    #[test]
    fn no_step_no_move() {
        let here = Point::new(41.9, 12.5);
        assert_eq!(here.move_towards(Point::new(41.95, 12.5), 0.0), here);
        assert_eq!(here.move_towards(Point::new(41.95, 12.5), f64::NAN), here);
        assert_eq!(here.move_towards(here, 0.0), here);
        assert_eq!(here.move_fraction(Point::new(41.95, 12.5), -0.5), here);
    }

    proptest! {
        #[test]
        fn distance_is_a_metric(a in on_globe(), b in on_globe(), c in on_globe()) {
            let ab = a.distance_km(b);
            prop_assert!(ab >= 0.0 && ab.is_finite());
            prop_assert!((ab - b.distance_km(a)).abs() < 1e-6);
            prop_assert!(a.distance_km(a) < 1e-9);
            prop_assert!(ab <= a.distance_km(c) + c.distance_km(b) + 1e-6);
        }

        #[test]
        fn movement_approaches_and_never_overshoots(a in in_rome(), b in in_rome(), step_km in 0.0..30.0_f64) {
            let way_km = a.distance_km(b);
            let reached = a.move_towards(b, step_km);
            let left_km = reached.distance_km(b);
            prop_assert!((left_km - (way_km - step_km).max(0.0)).abs() < 0.02, "{way_km} - {step_km} left {left_km}");
            prop_assert!(a.distance_km(reached) <= step_km.min(way_km) * 1.001 + 1e-9);
        }

        #[test]
        fn enough_steps_arrive_exactly(a in in_rome(), b in in_rome(), step_km in 0.5..5.0_f64) {
            let mut at = a;
            for _ in 0..200 { at = at.move_towards(b, step_km); }
            prop_assert!(at == b);
        }

        #[test]
        fn fractions_stay_between(a in in_rome(), b in in_rome(), fraction in -1.0..2.0_f64) {
            let at = a.move_fraction(b, fraction);
            prop_assert!((a.lat.min(b.lat)..=a.lat.max(b.lat)).contains(&at.lat));
            prop_assert!((a.lon.min(b.lon)..=a.lon.max(b.lon)).contains(&at.lon));
        }
    }
}
