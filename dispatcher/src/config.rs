//! The dispatcher's settings, each an environment variable and a flag with its unit and default.

use std::net::SocketAddr;

use clap::Parser;
use clap::builder::NonEmptyStringValueParser;
use domain::chargers::{DEFAULT_CHARGER_SLOTS, MAX_CHARGER_SLOTS};
use domain::drone::FEAS_MISS_SET_MAX;
use domain::energy::EnergyModel;
use domain::keys;
use service::program::Program;
use service::settings::{CommonArgs, SettingError, at_least_one, non_negative, percent, positive, switch};
use service::traces::TraceArgs;

use crate::policy::Policy;
use crate::rules::{Autoscale, Pace, Rules};

/// `DRONE_LOST_SEC` is at least so many ticks of the fleet: a flying drone is heard of once per tick.
const LOST_TICKS_MIN: f64 = 3.0;

/// Assigns drones to deliveries, advances them, charges and sizes the fleet.
#[derive(Debug, Clone, Parser)]
#[command(name = "dispatcher", version)]
pub struct Config {
    /// Address to listen on for /health, /ready and /metrics
    #[arg(long, env = "LISTEN", default_value = "0.0.0.0:8100", value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,

    /// Where the KV is: the URL of kvfront
    #[arg(long, env = "KV_URL", default_value = kv_client::DEFAULT_URL, value_name = "URL")]
    pub kv_url: String,

    /// Where RabbitMQ is, an amqp:// URL
    #[arg(long, env = "RABBIT_URL", default_value = bus::DEFAULT_URL, value_name = "URL")]
    pub rabbit_url: String,

    /// Queue on which gateways announce orders
    #[arg(long, env = "DELIVERY_REQ_QUEUE", default_value = keys::DELIVERY_REQ_QUEUE, value_parser = NonEmptyStringValueParser::new(), value_name = "NAME")]
    pub delivery_req_queue: String,

    /// Queue on which the fleet reports its movements
    #[arg(long, env = "DRONE_UPDATES_QUEUE", default_value = keys::DRONE_UPDATES_QUEUE, value_parser = NonEmptyStringValueParser::new(), value_name = "NAME")]
    pub drone_updates_queue: String,

    /// Broadcast on which gateways learn what became of orders
    #[arg(long, env = "DELIVERY_STATUS_QUEUE", default_value = keys::DELIVERY_STATUS_QUEUE, value_parser = NonEmptyStringValueParser::new(), value_name = "NAME")]
    pub delivery_status_queue: String,

    /// How drones are chosen for orders
    #[arg(long, env = "POLICY", default_value = "optimal", value_enum)]
    pub policy: Policy,

    /// Milliseconds between two rounds of assigning, 10 to 60000; an event starts one at once
    #[arg(long, env = "ASSIGNER_TICK_MS", default_value = "200", value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub assigner_tick_ms: u64,

    /// Open orders read per sweep, oldest first, and orders of each weight class looked at per round, 1 to 1000
    #[arg(long, env = "PENDING_SCAN_LIMIT", default_value = "500", value_parser = at_least_one)]
    pub pending_scan_limit: usize,

    /// Most assignments per round
    #[arg(long, env = "MAX_ASSIGN_PER_ROUND", default_value = "100", value_parser = at_least_one)]
    pub max_assign_per_round: usize,

    /// Battery that flying costs, percent per km
    #[arg(long, env = "BATTERY_PER_KM", default_value = "2", value_parser = non_negative)]
    pub battery_per_km: f64,

    /// Battery that must be left after a mission, percent
    #[arg(long, env = "SAFETY_MARGIN_PCT", default_value = "5", value_parser = percent)]
    pub safety_margin_pct: f64,

    /// How often an order may go from a drone on its way to the pick-up to a better one (POLICY=optimal), 0 to 10; 0 turns swaps off
    #[arg(long, env = "SWAPS_MAX", default_value = "3", value_parser = clap::value_parser!(u32).range(0..=10), value_name = "N")]
    pub swaps_max: u32,

    /// Minutes of flight that such a swap must save, in all
    #[arg(long, env = "SWAP_GAIN_MIN", default_value = "0.5", value_parser = non_negative, value_name = "MIN")]
    pub swap_gain_min: f64,

    /// Drones whose distance to the pick-up differs by less than about this count as equally near, km
    #[arg(long, env = "NEAR_EPS_KM", default_value = "0.2", value_parser = positive)]
    pub near_eps_km: f64,

    /// Farthest way to a pick-up, km
    #[arg(long, env = "MAX_PICKUP_KM", default_value = "20", value_parser = non_negative)]
    pub max_pickup_km: f64,

    /// After an order has waited this long, seconds, MAX_PICKUP_KM no longer holds for it: it must not wait for ever
    #[arg(long, env = "PICKUP_GRACE_SEC", default_value = "30", value_parser = non_negative)]
    pub pickup_grace_sec: f64,

    /// A drone this near to a place has arrived there, km
    #[arg(long, env = "ARRIVE_EPS_KM", default_value = "0.02", value_parser = positive)]
    pub arrive_eps_km: f64,

    /// A drone with this much battery or less is sent to charge and gets no order, percent
    #[arg(long, env = "CRITICAL_BATTERY", default_value = "30", value_parser = percent)]
    pub critical_battery: f64,

    /// Drones that can charge at once at the charge point of a zone, as drone-sim has it; 0 is as many as there are
    #[arg(long, env = "CHARGER_SLOTS", default_value_t = DEFAULT_CHARGER_SLOTS, value_parser = clap::value_parser!(u32).range(..=i64::from(MAX_CHARGER_SLOTS)), value_name = "N")]
    pub charger_slots: u32,

    /// A charging drone with this much battery is ready again, percent; above CRITICAL_BATTERY
    #[arg(long, env = "FULL_AFTER", default_value = "95", value_parser = percent)]
    pub full_after: f64,

    /// A drone with less battery than this, percent, tops up while no order needs it, and leaves for the first that does (POLICY=optimal);
    /// 0 turns it off, at most FULL_AFTER counts
    #[arg(long, env = "TOP_UP_BELOW", default_value = "80", value_parser = percent, value_name = "PCT")]
    pub top_up_below: f64,

    /// An idle drone with too little battery for this many different orders is sent to charge, 1 to 64
    #[arg(long, env = "EARLY_CHARGE_THRESHOLD", default_value = "5", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub early_charge_threshold: u32,

    /// A drone of which nothing is heard for this long, seconds, while others are, is lost: its order waits again, or fails with the
    /// parcel on board; at least 3 DRONE_TICK_SEC
    #[arg(long, env = "DRONE_LOST_SEC", default_value = "30", value_parser = positive, value_name = "SEC")]
    pub drone_lost_sec: f64,

    /// Cruising speed of a medium drone, km/h, as drone-sim has it; POLICY=optimal guesses from it when drones will be free
    #[arg(long, env = "SPEED_BASE_KMH", default_value = "120", value_parser = positive, value_name = "KMH")]
    pub speed_base_kmh: f64,

    /// Seconds of flight per second of clock, as drone-sim has it; POLICY=optimal guesses with it
    #[arg(long, env = "TIME_SCALE", default_value = "28", value_parser = positive, value_name = "FACTOR")]
    pub time_scale: f64,

    /// Battery gained per tick at a charge point, percent, as drone-sim has it; POLICY=optimal guesses with it
    #[arg(long, env = "CHARGE_PER_TICK", default_value = "5", value_parser = percent, value_name = "PCT")]
    pub charge_per_tick: f64,

    /// Seconds between two ticks of drone-sim, for CHARGE_PER_TICK
    #[arg(long, env = "DRONE_TICK_SEC", default_value = "0.05", value_parser = positive, value_name = "SEC")]
    pub drone_tick_sec: f64,

    /// Most drones in the active fleet
    #[arg(long, env = "DRONE_POOL_MAX", default_value = "20", value_parser = at_least_one)]
    pub drone_pool_max: usize,

    /// Fewest drones in the active fleet (at most DRONE_POOL_MAX count)
    #[arg(long, env = "BASE_ACTIVE", default_value_t = 4)]
    pub base_active: usize,

    /// Active drones wanted per waiting order
    #[arg(long, env = "SCALE_RATIO", default_value = "0.8", value_parser = non_negative)]
    pub scale_ratio: f64,

    /// 1 leaves the size of the fleet alone
    #[arg(long, env = "AUTOSCALE_DISABLED", default_value = "0", value_parser = switch, action = clap::ArgAction::Set)]
    pub autoscale_disabled: bool,

    /// 1 logs every decision about charging
    #[arg(long, env = "DEBUG_CHARGE", default_value = "1", value_parser = switch, action = clap::ArgAction::Set)]
    pub debug_charge: bool,

    /// Where traces go.
    #[command(flatten)]
    pub traces: TraceArgs,

    /// Settings that every program has
    #[command(flatten)]
    pub common: CommonArgs,
}

impl Config {
    /// The rules of dispatching, without addresses and names.
    #[must_use]
    pub fn rules(&self) -> Rules {
        Rules {
            energy: EnergyModel {
                battery_per_km: self.battery_per_km,
                safety_margin_pct: self.safety_margin_pct,
            },
            pace: Pace {
                time_scale: self.time_scale,
                speed_base_kmh: self.speed_base_kmh,
                charge_pct_per_sec: self.charge_per_tick / self.drone_tick_sec,
            },
            pools_classes: self.policy.pools_classes(),
            swaps_max: if self.policy.swaps() { self.swaps_max } else { 0 },
            swap_gain_min: self.swap_gain_min,
            near_eps_km: self.near_eps_km,
            max_pickup_km: self.max_pickup_km,
            pickup_grace_sec: self.pickup_grace_sec,
            arrive_eps_km: self.arrive_eps_km,
            critical_battery_pct: self.critical_battery,
            charger_slots: self.charger_slots as usize,
            full_after_pct: self.full_after,
            top_up_below_pct: if self.policy.tops_up() {
                self.top_up_below.min(self.full_after)
            } else {
                0.0
            },
            early_charge_threshold: self.early_charge_threshold,
            drone_lost_sec: self.drone_lost_sec,
            pending_scan_limit: self.pending_scan_limit,
            max_assign_per_round: self.max_assign_per_round,
            autoscale: (!self.autoscale_disabled).then_some(Autoscale {
                base_active: self.base_active,
                pool_max: self.drone_pool_max,
                scale_ratio: self.scale_ratio,
            }),
            debug_charge: self.debug_charge,
        }
    }
}

impl Program for Config {
    const NAME: &'static str = "dispatcher";

    fn common(&self) -> &CommonArgs {
        &self.common
    }

    fn listen(&self) -> Option<SocketAddr> {
        Some(self.listen)
    }

    fn validate(&self) -> Result<(), SettingError> {
        self.traces.validate()?;
        if self.full_after <= self.critical_battery {
            let takes = format!("more than CRITICAL_BATTERY ({})", self.critical_battery);
            return Err(SettingError::new("FULL_AFTER (--full-after)", self.full_after, takes));
        }
        let least_sec = LOST_TICKS_MIN * self.drone_tick_sec;
        if self.drone_lost_sec < least_sec {
            let takes = format!("at least {least_sec}, {LOST_TICKS_MIN} times DRONE_TICK_SEC");
            return Err(SettingError::new(
                "DRONE_LOST_SEC (--drone-lost-sec)",
                self.drone_lost_sec,
                takes,
            ));
        }
        if self.pending_scan_limit > kv_api::MAX_SCAN_LIMIT {
            let takes = format!("1 to {}, what the KV returns at once", kv_api::MAX_SCAN_LIMIT);
            return Err(SettingError::new(
                "PENDING_SCAN_LIMIT (--pending-scan-limit)",
                self.pending_scan_limit,
                takes,
            ));
        }
        // The set that is counted must be able to hold that many.
        debug_assert!(self.early_charge_threshold as usize <= FEAS_MISS_SET_MAX);
        kv_client::check_url(&self.kv_url).map_err(|error| {
            SettingError::new(
                "KV_URL (--kv-url)",
                format!("{:?} ({error})", self.kv_url),
                "http://host:port",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use service::program::Program;
    use service::settings::try_parse_from;

    use super::{Config, Policy};

    #[test]
    fn defaults_are_the_documented_ones() {
        let config: Config = try_parse_from(["dispatcher"]).unwrap();
        config.validate().unwrap();
        assert_eq!(
            (
                config.assigner_tick_ms,
                config.pending_scan_limit,
                config.max_assign_per_round
            ),
            (200, 500, 100)
        );
        assert_eq!(
            (config.drone_pool_max, config.base_active, config.early_charge_threshold),
            (20, 4, 5)
        );
        assert!(!config.autoscale_disabled && config.debug_charge);
        assert_eq!(config.policy, Policy::Optimal);
        let rules = config.rules();
        assert!(rules.pools_classes && rules.charger_slots == 0 && rules.swaps_max == 3);
        let numbers = [
            (rules.pace.speed_base_kmh, 120.0),
            (rules.pace.time_scale, 28.0),
            (rules.pace.charge_pct_per_sec, 100.0),
            (rules.energy.battery_per_km, 2.0),
            (rules.energy.safety_margin_pct, 5.0),
            (rules.near_eps_km, 0.2),
            (rules.max_pickup_km, 20.0),
            (rules.arrive_eps_km, 0.02),
            (rules.critical_battery_pct, 30.0),
            (rules.full_after_pct, 95.0),
            (rules.drone_lost_sec, 30.0),
            (rules.top_up_below_pct, 80.0),
            (rules.swap_gain_min, 0.5),
            (rules.autoscale.unwrap().scale_ratio, 0.8),
        ];
        assert!(
            numbers.iter().all(|(got, wanted)| (got - wanted).abs() < 1e-12),
            "{numbers:?}"
        );
    }

    #[test]
    fn nothing_is_swapped_under_greedy_or_when_it_is_turned_off() {
        let swaps_max = |args: &[&str]| {
            let args = ["dispatcher"].iter().chain(args);
            try_parse_from::<Config>(args).unwrap().rules().swaps_max
        };
        assert_eq!(swaps_max(&["--policy", "greedy"]), 0);
        assert_eq!(
            (swaps_max(&["--swaps-max", "0"]), swaps_max(&["--swaps-max", "10"])),
            (0, 10)
        );
        let error = try_parse_from::<Config>(["dispatcher", "--swaps-max", "11"])
            .unwrap_err()
            .to_string();
        assert!(error.contains("SWAPS_MAX") && error.contains("11"), "{error}");
        let error = try_parse_from::<Config>(["dispatcher", "--swap-gain-min=-1"])
            .unwrap_err()
            .to_string();
        assert!(error.contains("SWAP_GAIN_MIN"), "{error}");
    }

    #[test]
    fn nobody_tops_up_under_greedy_or_beyond_what_counts_as_full() {
        let top_up = |args: &[&str]| {
            let args = ["dispatcher"].iter().chain(args);
            try_parse_from::<Config>(args).unwrap().rules().top_up_below_pct
        };
        assert!(top_up(&["--policy", "greedy"]).abs() < 1e-9);
        assert!(top_up(&["--top-up-below", "0"]).abs() < 1e-9);
        assert!((top_up(&["--full-after", "60"]) - 60.0).abs() < 1e-9);
    }

    #[test]
    fn contradictions_are_named() {
        let config: Config = try_parse_from(["dispatcher", "--full-after", "30"]).unwrap();
        let error = config.validate().unwrap_err().to_string();
        assert!(
            error.contains("FULL_AFTER") && error.contains("more than CRITICAL_BATTERY (30)"),
            "{error}"
        );
        let config: Config =
            try_parse_from(["dispatcher", "--drone-lost-sec", "1", "--drone-tick-sec", "0.375"]).unwrap();
        let error = config.validate().unwrap_err().to_string();
        assert!(
            error.contains("DRONE_LOST_SEC") && error.contains("at least 1.125"),
            "{error}"
        );
        let error = try_parse_from::<Config>(["dispatcher", "--charger-slots", "10001"])
            .unwrap_err()
            .to_string();
        assert!(error.contains("CHARGER_SLOTS"), "{error}");
        let error = try_parse_from::<Config>(["dispatcher", "--near-eps-km", "0"])
            .unwrap_err()
            .to_string();
        assert!(error.contains("NEAR_EPS_KM") && error.contains("above 0"), "{error}");
    }
}
