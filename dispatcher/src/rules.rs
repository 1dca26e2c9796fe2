//! The numbers behind every decision: settings without addresses, as the pure parts of the dispatcher take them.

use domain::drone::DroneType;
use domain::energy::EnergyModel;

/// What the pure parts decide by.
#[derive(Debug, Clone)]
pub struct Rules {
    /// `BATTERY_PER_KM` and `SAFETY_MARGIN_PCT`.
    pub energy: EnergyModel,
    /// How fast the fleet flies and charges, as far as the future is guessed from it.
    pub pace: Pace,
    /// Whether a drone may carry parcels of lighter classes than its own: decided by the policy.
    pub pools_classes: bool,
    /// `SWAPS_MAX`: how often an order may be taken back from a drone on its way to the pick-up; 0 if the policy never does that.
    pub swaps_max: u32,
    /// `SWAP_GAIN_MIN`: minutes of flight that this must save.
    pub swap_gain_min: f64,
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
    /// `CHARGER_SLOTS`: drones that charge at once at a charge point; 0 is as many as there are.
    pub charger_slots: usize,
    /// `FULL_AFTER`.
    pub full_after_pct: f64,
    /// `TOP_UP_BELOW`: below it a drone that no order needs tops up; 0 if none does, at most `full_after_pct`.
    pub top_up_below_pct: f64,
    /// `EARLY_CHARGE_THRESHOLD`.
    pub early_charge_threshold: u32,
    /// `DRONE_LOST_SEC`.
    pub drone_lost_sec: f64,
    /// `PENDING_SCAN_LIMIT`.
    pub pending_scan_limit: usize,
    /// `MAX_ASSIGN_PER_ROUND`.
    pub max_assign_per_round: usize,
    /// How the fleet is sized; `None` leaves it alone.
    pub autoscale: Option<Autoscale>,
    /// `DEBUG_CHARGE`: log decisions about charging.
    pub debug_charge: bool,
}

impl Rules {
    /// Whether a drone of class `drone` may carry a parcel of class `parcel`.
    #[must_use]
    pub fn carries(&self, drone: DroneType, parcel: DroneType) -> bool {
        drone == parcel || (self.pools_classes && drone > parcel)
    }
}

/// How fast the fleet flies and charges. All minutes are minutes of flight, of which several may pass per minute of clock.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// `TIME_SCALE`: seconds of flight per second of clock, above 0.
    pub time_scale: f64,
    /// `SPEED_BASE_KMH`, above 0.
    pub speed_base_kmh: f64,
    /// `CHARGE_PER_TICK` over `DRONE_TICK_SEC`: percent of battery gained per second of clock.
    pub charge_pct_per_sec: f64,
}

impl Pace {
    /// Minutes of flight in so many seconds of clock.
    #[must_use]
    pub fn minutes(&self, clock_sec: f64) -> f64 {
        clock_sec * self.time_scale / 60.0
    }

    /// Seconds of clock in so many minutes of flight.
    #[must_use]
    pub fn clock_sec(&self, minutes: f64) -> f64 {
        minutes * 60.0 / self.time_scale
    }

    /// Speed of a class, km per minute of flight.
    #[must_use]
    pub fn km_per_min(&self, kind: DroneType) -> f64 {
        self.speed_base_kmh * kind.cruise_scale() / 60.0
    }

    /// Minutes of flight that pass while `pct` percent are charged. Infinite for a fleet that does not charge.
    #[must_use]
    pub fn charging_min(&self, pct: f64) -> f64 {
        if pct <= 0.0 {
            0.0
        } else {
            self.minutes(pct / self.charge_pct_per_sec)
        }
    }

    /// Percent that are charged in so many minutes of flight.
    #[must_use]
    pub fn charged_pct(&self, minutes: f64) -> f64 {
        self.clock_sec(minutes) * self.charge_pct_per_sec
    }
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
