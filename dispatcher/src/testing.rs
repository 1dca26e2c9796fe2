//! Small builders for the unit tests of this crate.

use std::collections::HashMap;

use domain::delivery::Delivery;
use domain::drone::Drone;
use domain::energy::EnergyModel;
use domain::geo::Point;
use domain::order::NewOrder;
use domain::zones::ZonesConfig;

use crate::policy::Snapshot;
use crate::rules::{Autoscale, Pace, Rules};

pub(crate) fn zones() -> ZonesConfig {
    ZonesConfig::rome(2, 2).unwrap()
}

pub(crate) fn rules() -> Rules {
    Rules {
        energy: EnergyModel {
            battery_per_km: 2.0,
            safety_margin_pct: 5.0,
        },
        pace: Pace {
            time_scale: 28.0,
            speed_base_kmh: 120.0,
            charge_pct_per_sec: 5.0 / 0.375,
        },
        pools_classes: false,
        swaps_max: 0,
        swap_gain_min: 0.3,
        near_eps_km: 0.2,
        max_pickup_km: 20.0,
        pickup_grace_sec: 30.0,
        arrive_eps_km: 0.02,
        critical_battery_pct: 30.0,
        charger_slots: 0,
        full_after_pct: 95.0,
        top_up_below_pct: 0.0,
        early_charge_threshold: 5,
        drone_lost_sec: 30.0,
        pending_scan_limit: 500,
        max_assign_per_round: 100,
        autoscale: Some(Autoscale {
            base_active: 4,
            pool_max: 20,
            scale_ratio: 0.8,
        }),
        debug_charge: true,
    }
}

/// Drone `number` of the usual fleet (1, 4, 7 light; 2, 5, 8 medium; 3, 6, 9 heavy), idle at `pos`.
pub(crate) fn drone(number: u32, pos: Point, battery: f64) -> Drone {
    let zones = zones();
    let at_charge = zones
        .nearest_charge(pos)
        .is_some_and(|(charge, _)| pos.is_at_charge(charge));
    Drone::new(number, &zones).moved(pos, battery, at_charge)
}

/// A pending order of time 0 with a short way to go.
pub(crate) fn order(id: &str, origin: Point, weight: f64) -> Delivery {
    let destination = Point::new(origin.lat + 0.005, origin.lon);
    let order = NewOrder {
        origin,
        destination,
        weight,
        priority: None,
        deadline: None,
    };
    Delivery::new(id.to_owned(), &order, &zones(), 0.0)
}

/// At second 0, nobody flying.
pub(crate) fn snapshot<'a>(zones: &'a ZonesConfig, orders: &'a [Delivery], drones: &'a [Drone]) -> Snapshot<'a> {
    Snapshot {
        now: 0.0,
        zones,
        pending: orders.iter().collect(),
        drones: drones.iter().collect(),
        flights: HashMap::new(),
        swappable: Vec::new(),
    }
}
