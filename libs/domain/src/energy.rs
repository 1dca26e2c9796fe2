//! What a mission costs, and whether a battery is enough for it.
//!
//! A *mission* is: from where the drone is, to the order's origin, to its destination, to the charge point nearest to that.
//! It needs `km × BATTERY_PER_KM + SAFETY_MARGIN_PCT` percent of battery. A drone with less is infeasible for the order.

use crate::geo::Point;
use crate::zones::ZonesConfig;

/// A full battery, percent. Batteries stay in [0, 100].
pub const FULL_PCT: f64 = 100.0;

/// Kilometres added to a mission that is planned from a charge point: a drone counts as being there within
/// [`crate::geo::AT_CHARGE_DEG`] on both axes, so it may start that much farther away. No-fly zones keep off that square.
pub const START_SLACK_KM: f64 = 0.08;

/// What flying costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EnergyModel {
    /// `BATTERY_PER_KM`: percent of battery spent per kilometre.
    pub battery_per_km: f64,
    /// `SAFETY_MARGIN_PCT`: percent that must be left after the mission.
    pub safety_margin_pct: f64,
}

/// Kilometres of the mission `pos` → `origin` → `destination` → charge point nearest to `destination`.
/// All legs go round no-fly zones ([`ZonesConfig::way_km`]). A grid without zones has no way home; the last leg then counts nothing.
#[must_use]
pub fn mission_km(pos: Point, origin: Point, destination: Point, zones: &ZonesConfig) -> f64 {
    zones.way_km(pos, origin) + loaded_and_home_km(origin, destination, zones)
}

/// Kilometres of the part of a mission that does not depend on the drone: `origin` → `destination` → charge point.
#[must_use]
pub fn loaded_and_home_km(origin: Point, destination: Point, zones: &ZonesConfig) -> f64 {
    zones.way_km(origin, destination) + zones.nearest_charge(destination).map_or(0.0, |(_, km)| km)
}

impl EnergyModel {
    /// Percent of battery that a mission of `km` kilometres asks for, safety margin included.
    #[must_use]
    pub fn needed_pct(&self, km: f64) -> f64 {
        km * self.battery_per_km + self.safety_margin_pct
    }

    /// True when `battery_pct` is enough for a mission of `km` kilometres.
    #[must_use]
    pub fn feasible(&self, battery_pct: f64, km: f64) -> bool {
        battery_pct >= self.needed_pct(km)
    }

    /// True when a drone that starts full from the charge point `charge` can fly the order.
    #[must_use]
    pub fn can_fly_from(&self, charge: Point, origin: Point, destination: Point, zones: &ZonesConfig) -> bool {
        self.feasible(
            FULL_PCT,
            START_SLACK_KM + mission_km(charge, origin, destination, zones),
        )
    }

    /// True when a drone that starts full from the charge point nearest to `origin` can fly the order. When it cannot,
    /// nobody ever can: full drones are at charge points, and that one is the nearest. Such an order is `out_of_range`.
    #[must_use]
    pub fn could_ever_fly(&self, origin: Point, destination: Point, zones: &ZonesConfig) -> bool {
        let start = zones.nearest_charge(origin).map_or(origin, |(charge, _)| charge);
        self.can_fly_from(start, origin, destination, zones)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::{EnergyModel, FULL_PCT, mission_km};
    use crate::geo::{AT_CHARGE_DEG, Point};
    use crate::zones::ZonesConfig;

    const MODEL: EnergyModel = EnergyModel {
        battery_per_km: 2.0,
        safety_margin_pct: 5.0,
    };

    #[test]
    fn the_sum_of_three_legs() {
        let zones = ZonesConfig::rome(2, 2).unwrap();
        let (a, b, c) = (
            Point::new(41.90, 12.45),
            Point::new(41.91, 12.50),
            Point::new(41.94, 12.55),
        );
        let home = zones.nearest_charge(c).unwrap().1;
        let km = mission_km(a, b, c, &zones);
        assert!((km - (a.distance_km(b) + b.distance_km(c) + home)).abs() < 1e-12);
        assert!((MODEL.needed_pct(10.0) - 25.0).abs() < 1e-12);
        assert!(MODEL.feasible(25.0, 10.0) && !MODEL.feasible(24.99, 10.0));
    }

    #[test]
    fn across_the_city_yes_to_paris_no() {
        let zones = ZonesConfig::rome(2, 2).unwrap();
        assert!(MODEL.could_ever_fly(Point::new(41.80, 12.37), Point::new(41.98, 12.60), &zones));
        assert!(!MODEL.could_ever_fly(Point::new(41.9, 12.5), Point::new(48.85, 2.35), &zones));
        let thirsty = EnergyModel {
            battery_per_km: 4.0,
            safety_margin_pct: 5.0,
        };
        assert!(!thirsty.could_ever_fly(Point::new(41.80, 12.37), Point::new(41.98, 12.60), &zones));
    }

    proptest! {
        #[test]
        fn more_way_never_costs_less(km in 0.0..100.0_f64, more in 0.0..100.0_f64, battery in 0.0..100.0_f64) {
            prop_assert!(MODEL.needed_pct(km + more) >= MODEL.needed_pct(km));
            if MODEL.feasible(battery, km + more) { prop_assert!(MODEL.feasible(battery, km)); }
        }

        #[test]
        fn full_anywhere_at_a_charge_point_is_enough(
            a in (41.80..41.98_f64, 12.37..12.60_f64), b in (41.80..41.98_f64, 12.37..12.60_f64),
            off in (-1.0..=1.0_f64, -1.0..=1.0_f64), per_km in 0.5..8.0_f64,
        ) {
            let zones = ZonesConfig::rome(2, 2).unwrap();
            let model = EnergyModel { battery_per_km: per_km, safety_margin_pct: 5.0 };
            let (origin, destination) = (Point::new(a.0, a.1), Point::new(b.0, b.1));
            let charge = zones.zones[0].charge;
            let start = Point::new(charge.lat + off.0 * AT_CHARGE_DEG, charge.lon + off.1 * AT_CHARGE_DEG);
            if model.can_fly_from(charge, origin, destination, &zones) {
                prop_assert!(model.feasible(FULL_PCT, mission_km(start, origin, destination, &zones)));
            }
        }

        #[test]
        fn never_means_from_no_charge_point(
            a in (41.80..41.98_f64, 12.37..12.60_f64), b in (41.80..41.98_f64, 12.37..12.60_f64),
            per_km in 0.5..8.0_f64, rows in 1..4_u32, cols in 1..4_u32,
        ) {
            let zones = ZonesConfig::rome(rows, cols).unwrap();
            let model = EnergyModel { battery_per_km: per_km, safety_margin_pct: 5.0 };
            let (origin, destination) = (Point::new(a.0, a.1), Point::new(b.0, b.1));
            let from_some = zones.zones.iter()
                .any(|zone| model.can_fly_from(zone.charge, origin, destination, &zones));
            prop_assert_eq!(model.could_ever_fly(origin, destination, &zones), from_some);
        }
    }
}
