//! The fleet's settings.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Parser, ValueEnum};
use domain::chargers::{DEFAULT_CHARGER_SLOTS, MAX_CHARGER_SLOTS};
use domain::keys;
use service::program::Program;
use service::settings::{CommonArgs, SettingError, at_least_one, non_negative, percent, positive};
use service::traces::TraceArgs;

use crate::motion::{Flight, Model};
use crate::shard::{Part, Shard};

/// Port unless `LISTEN` says otherwise.
pub const DEFAULT_PORT: u16 = 8200;

/// Most drones of one fleet: bounds the scan of each tick.
pub const DRONE_POOL_LIMIT: u32 = 5_000;

/// Shortest and longest `DRONE_TICK_SEC`, seconds.
pub const TICK_RANGE_SEC: std::ops::RangeInclusive<f64> = 0.005..=60.0;

/// How drones move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Motion {
    /// At constant speed: `SPEED_BASE_KMH` scaled by the drone's type, `TIME_SCALE` times as fast as the clock
    Cruise,
    /// Each tick the fraction `speed` of the remaining way
    Fraction,
}

/// The simulated fleet: flies, spends battery, charges, and tells where everybody is.
#[derive(Debug, Clone, Parser)]
#[command(name = "drone-sim", version, about)]
pub struct Config {
    /// Address and port to listen on for /health, /ready and /metrics; port 0 takes a free one and prints it
    #[arg(long, env = "LISTEN", default_value_t = SocketAddr::from((Ipv4Addr::UNSPECIFIED, DEFAULT_PORT)), value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,

    /// kvfront's address, http://host:port; several are separated by commas
    #[arg(long, env = "KV_URL", default_value = kv_client::DEFAULT_URL, value_name = "URL")]
    pub kv_url: String,

    /// RabbitMQ's address, amqp://user:password@host:port/vhost
    #[arg(long, env = "RABBIT_URL", default_value = bus::DEFAULT_URL, value_name = "URL")]
    pub rabbit_url: String,

    /// Queue on which the dispatcher learns where drones are
    #[arg(long, env = "DRONE_UPDATES_QUEUE", default_value = keys::DRONE_UPDATES_QUEUE, value_parser = NonEmptyStringValueParser::new(), value_name = "NAME")]
    pub drone_updates_queue: String,

    /// Drones of the fleet, drone-1 to drone-N, at most 5000; records of further drones are kept and simulated too
    #[arg(long, env = "DRONE_POOL_MAX", default_value = "20", value_parser = pool, value_name = "N")]
    pub drone_pool_max: u32,

    /// Which part of the fleet this process flies, I/N: of N processes the I-th, N at most 64 and at most DRONE_POOL_MAX. Each of 1/N to N/N has to run, once, all with the same DRONE_POOL_MAX
    #[arg(long, env = "SHARD", default_value_t = Shard::WHOLE, value_name = "I/N")]
    pub shard: Shard,

    /// Seconds between two ticks, 0.005 to 60
    #[arg(long, env = "DRONE_TICK_SEC", default_value = "0.05", value_parser = tick, value_name = "SEC")]
    pub drone_tick_sec: f64,

    /// Battery gained per tick at a charge point, percent
    #[arg(long, env = "CHARGE_PER_TICK", default_value = "5", value_parser = percent, value_name = "PCT")]
    pub charge_per_tick: f64,

    /// Drones that can charge at once at the charge point of a zone, the others wait their turn; 0 is as many as there are
    #[arg(long, env = "CHARGER_SLOTS", default_value_t = DEFAULT_CHARGER_SLOTS, value_parser = clap::value_parser!(u32).range(..=i64::from(MAX_CHARGER_SLOTS)), value_name = "N")]
    pub charger_slots: u32,

    /// Battery spent per kilometre, percent
    #[arg(long, env = "BATTERY_PER_KM", default_value = "1.2", value_parser = non_negative, value_name = "PCT")]
    pub battery_per_km: f64,

    /// Cruising speed of a medium drone, km/h; light ones fly 1.2 times, heavy ones 0.8 times as fast
    #[arg(long, env = "SPEED_BASE_KMH", default_value = "120", value_parser = positive, value_name = "KMH")]
    pub speed_base_kmh: f64,

    /// Seconds of flight per second of clock (MOTION=cruise); with 28 an order across the city takes 10 to 40 s
    #[arg(long, env = "TIME_SCALE", default_value = "28", value_parser = positive, value_name = "FACTOR")]
    pub time_scale: f64,

    /// How drones move
    #[arg(long, env = "MOTION", default_value = "cruise", value_enum)]
    pub motion: Motion,

    /// Position events kept while the broker is slow or away, at least 1; beyond that the oldest are dropped
    #[arg(long, env = "EVENT_QUEUE_MAX", default_value = "2000", value_parser = at_least_one, value_name = "N")]
    pub event_queue_max: usize,

    /// Where traces go.
    #[command(flatten)]
    pub traces: TraceArgs,

    /// Settings every program has.
    #[command(flatten)]
    pub common: CommonArgs,
}

fn pool(text: &str) -> Result<u32, String> {
    match text.trim().parse() {
        Ok(drones) if (1..=DRONE_POOL_LIMIT).contains(&drones) => Ok(drones),
        _ => Err(format!("a whole number from 1 to {DRONE_POOL_LIMIT} is expected")),
    }
}

fn tick(text: &str) -> Result<f64, String> {
    positive(text).and_then(|sec| {
        if TICK_RANGE_SEC.contains(&sec) {
            Ok(sec)
        } else {
            Err(format!(
                "a number from {} to {} is expected",
                TICK_RANGE_SEC.start(),
                TICK_RANGE_SEC.end()
            ))
        }
    })
}

impl Config {
    /// The part of the fleet that is flown.
    #[must_use]
    pub fn part(&self) -> Part {
        Part::of(self.shard, self.drone_pool_max)
    }

    /// Time between two ticks.
    #[must_use]
    pub fn tick(&self) -> Duration {
        Duration::from_secs_f64(self.drone_tick_sec)
    }

    /// How a drone of this fleet flies and charges.
    #[must_use]
    pub fn flight(&self) -> Flight {
        let model = match self.motion {
            Motion::Cruise => Model::Cruise {
                base_km_per_sec: self.speed_base_kmh * self.time_scale / 3_600.0,
            },
            Motion::Fraction => Model::Fraction,
        };
        Flight {
            model,
            tick_sec: self.drone_tick_sec,
            battery_per_km: self.battery_per_km,
            charge_per_tick_pct: self.charge_per_tick,
            charger_slots: self.charger_slots,
        }
    }
}

impl Program for Config {
    const NAME: &'static str = "drone-sim";

    fn common(&self) -> &CommonArgs {
        &self.common
    }

    fn listen(&self) -> Option<SocketAddr> {
        Some(self.listen)
    }

    fn validate(&self) -> Result<(), SettingError> {
        self.traces.validate()?;
        if self.shard.count() > self.drone_pool_max {
            return Err(SettingError::new(
                "SHARD (--shard)",
                format!("{} with DRONE_POOL_MAX {}", self.shard, self.drone_pool_max),
                "at most as many shards as drones",
            ));
        }
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
    use service::settings::try_parse_from;

    use super::*;

    #[test]
    fn defaults_are_the_documented_ones() {
        let config: Config = try_parse_from(["drone-sim"]).unwrap();
        config.validate().unwrap();
        assert_eq!((config.drone_pool_max, config.event_queue_max), (20, 2_000));
        assert_eq!(config.flight().charger_slots, 0);
        assert_eq!((config.shard, config.part()), (Shard::WHOLE, Part::whole(20)));
        assert_eq!(config.tick(), Duration::from_millis(50));
        assert_eq!(config.listen.port(), DEFAULT_PORT);
        let Model::Cruise { base_km_per_sec } = config.flight().model else {
            panic!("cruise")
        };
        assert!(
            (base_km_per_sec - 0.9333).abs() < 0.001,
            "120 km/h, 28 times as fast: {base_km_per_sec}"
        );
    }

    #[test]
    fn bad_values_are_named() {
        for (flag, value, expected) in [
            ("--drone-pool-max", "0", "DRONE_POOL_MAX"),
            ("--shard", "3/2", "SHARD"),
            ("--drone-tick-sec", "0.001", "DRONE_TICK_SEC"),
            ("--charge-per-tick", "101", "CHARGE_PER_TICK"),
            ("--charger-slots", "10001", "CHARGER_SLOTS"),
            ("--charger-slots=-1", "", "CHARGER_SLOTS"),
            ("--battery-per-km=-1", "", "BATTERY_PER_KM"),
            ("--time-scale", "NaN", "TIME_SCALE"),
            ("--motion", "teleport", "MOTION"),
            ("--event-queue-max", "0", "EVENT_QUEUE_MAX"),
        ] {
            let args = ["drone-sim", flag, value].into_iter().filter(|arg| !arg.is_empty());
            let error = try_parse_from::<Config>(args).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let config: Config = try_parse_from(["drone-sim", "--shard", "1/4", "--drone-pool-max", "3"]).unwrap();
        let error = config.validate().unwrap_err().to_string();
        assert!(
            error.contains("SHARD") && error.contains("1/4 with DRONE_POOL_MAX 3"),
            "{error}"
        );
        let config: Config = try_parse_from(["drone-sim", "--kv-url", "https://x"]).unwrap();
        assert!(config.validate().unwrap_err().to_string().contains("KV_URL"));
    }
}
