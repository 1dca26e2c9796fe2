//! The numbers behind every decision: settings without addresses, as the pure parts of the dispatcher take them.

use domain::energy::EnergyModel;

/// What the pure parts decide by.
#[derive(Debug, Clone)]
pub struct Rules {
    /// `BATTERY_PER_KM` and `SAFETY_MARGIN_PCT`.
    pub energy: EnergyModel,
    /// `NEAR_EPS_KM`: width of the rings of equal distance, above 0.
    pub near_eps_km: f64,
    /// `MAX_PICKUP_KM`.
    pub max_pickup_km: f64,
    /// `PICKUP_GRACE_SEC`: how long `max_pickup_km` holds for an order.
    pub pickup_grace_sec: f64,
    /// `ARRIVE_EPS_KM`.
    pub arrive_eps_km: f64,
    /// `CRITICAL_BATTERY`.
    pub critical_battery_pct: f64,
    /// `FULL_AFTER`.
    pub full_after_pct: f64,
    /// `EARLY_CHARGE_THRESHOLD`.
    pub early_charge_threshold: u32,
    /// `PENDING_SCAN_LIMIT`.
    pub pending_scan_limit: usize,
    /// `MAX_ASSIGN_PER_ROUND`.
    pub max_assign_per_round: usize,
    /// How the fleet is sized; `None` leaves it alone.
    pub autoscale: Option<Autoscale>,
    /// `DEBUG_CHARGE`: log decisions about charging.
    pub debug_charge: bool,
}

/// How the active fleet is sized.
#[derive(Debug, Clone, Copy)]
pub struct Autoscale {
    /// `BASE_ACTIVE`.
    pub base_active: usize,
    /// `DRONE_POOL_MAX`.
    pub pool_max: usize,
    /// `SCALE_RATIO`: active drones wanted per waiting order.
    pub scale_ratio: f64,
}
