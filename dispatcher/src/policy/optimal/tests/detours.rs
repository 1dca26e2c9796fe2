//! Large fleets with no-fly zones in the way.

use dispatch_sim::{Demand, Matching, MatchingSettings, Pairs, Policy as _};
use proptest::prelude::{ProptestConfig, prop, prop_assert, prop_oneof, proptest};

use super::{City, Costs, pooling, settings};
use crate::rules::Rules;
use crate::testing::{drone, order, snapshot, zones};
use domain::energy::EnergyModel;
use domain::geo::Point;

/// A wall from the south to nearly the northern edge, between the charge points.
const WALL: &str = "41.79,12.480 41.79,12.485 41.97,12.485 41.97,12.480";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    /// In a fleet of more than 256 drones an order lists some. Where they are its nearest by the way, and no fewer than there are orders, the
    /// plan costs no more than one over all of them: one of those is always left for it.
    #[test]
    fn who_is_behind_a_wall_is_no_nearest_drone(
        origins in prop::collection::vec((41.82..41.90_f64, prop_oneof![12.475..12.479_f64, 12.486..12.490_f64]), 1..24),
        fleet in prop::collection::vec((41.80..41.97_f64, prop_oneof![9 => 12.40..12.479_f64, 1 => 12.486..12.57_f64]), 280..360),
    ) {
        let zones = zones().with_no_fly(WALL.parse().unwrap()).unwrap();
        let orders: Vec<_> = (0..).zip(origins).map(|(id, (lat, lon))| order(&format!("{id:03}"), Point::new(lat, lon), 1.0)).collect();
        // Light ones: every third of the usual fleet.
        let drones: Vec<_> = (0..).zip(fleet).map(|(third, (lat, lon))| drone(1 + 3 * third, Point::new(lat, lon), 100.0)).collect();
        // Nobody is too far away: else they are passed over anyhow.
        let rules = Rules {
            max_pickup_km: 100.0,
            energy: EnergyModel { battery_per_km: 0.5, ..pooling().energy },
            ..pooling()
        };
        let asked = snapshot(&zones, &orders, &drones);
        let city = City::new(&asked, &[], &rules);
        let (costs, demand) = (Costs { city: &city, rules: &rules }, Demand::unknown());
        let seen = dispatch_sim::Snapshot { now_min: 0.0, orders: &city.orders, drones: &city.drones, pairs: &costs, demand: &demand };
        let cost_min = |candidates: usize| {
            let settings = MatchingSettings { candidates, ..settings(&rules).matching };
            let pairs = Matching { settings }.plan(&seen).pickups;
            assert_eq!(pairs.len(), orders.len());
            let minutes = pairs.iter().map(|&(order, drone)| {
                let (order, drone) = (&city.orders[order], &city.drones[drone]);
                drone.minutes_to(order.origin) + costs.extra_min(order, drone).unwrap()
            });
            minutes.sum::<f64>()
        };
        let (some, all) = (cost_min(settings(&rules).matching.candidates), cost_min(drones.len()));
        // Costs are rounded to milliseconds, and the map is flat where they are sorted by it.
        prop_assert!(some - all < 0.01, "{some} min from the nearest, {all} min from all");
    }
}
