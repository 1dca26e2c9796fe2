//! The gateway's settings.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;

use clap::Parser;
use clap::builder::NonEmptyStringValueParser;
use domain::keys;
use domain::no_fly::NoFlyArgs;
use domain::zones::{DEFAULT_GRID_COLS, DEFAULT_GRID_ROWS, MAX_GRID_SIDE, ZonesConfig};
use service::program::Program;
use service::settings::{CommonArgs, SettingError, at_least_one, positive};
use service::traces::TraceArgs;

use crate::tiles::Tiles;

/// Port of the gateway unless `LISTEN` says otherwise.
const DEFAULT_PORT: u16 = 8000;

/// Longest text about who made the tiles, bytes.
const ATTRIBUTION_MAX: usize = 200;

/// Shortest and longest time between two events of a stream, milliseconds.
const EVENTS_INTERVAL_MS: RangeInclusive<u64> = 10..=10_000;

/// The public REST API and the dashboard.
#[derive(Debug, Clone, Parser)]
#[command(name = "gateway", version, about)]
pub struct Config {
    /// Address and port to listen on; port 0 takes a free one and prints it
    #[arg(long, env = "LISTEN", default_value_t = SocketAddr::from((Ipv4Addr::UNSPECIFIED, DEFAULT_PORT)), value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,

    /// kvfront's address, http://host:port; several are separated by commas
    #[arg(long, env = "KV_URL", default_value = kv_client::DEFAULT_URL, value_name = "URL")]
    pub kv_url: String,

    /// RabbitMQ's address, amqp://user:password@host:port/vhost
    #[arg(long, env = "RABBIT_URL", default_value = bus::DEFAULT_URL, value_name = "URL")]
    pub rabbit_url: String,

    /// Rows of the zone grid, 1 to 32; counts only until the grid is stored in the KV
    #[arg(long, env = "GRID_ROWS", default_value_t = DEFAULT_GRID_ROWS, value_parser = grid_side, value_name = "N")]
    pub grid_rows: u32,

    /// Columns of the zone grid, 1 to 32; counts only until the grid is stored in the KV
    #[arg(long, env = "GRID_COLS", default_value_t = DEFAULT_GRID_COLS, value_parser = grid_side, value_name = "N")]
    pub grid_cols: u32,

    /// Zones that nobody flies over
    #[command(flatten)]
    pub no_fly: NoFlyArgs,

    /// Queue that announces accepted orders to the dispatcher
    #[arg(long, env = "DELIVERY_REQ_QUEUE", default_value = keys::DELIVERY_REQ_QUEUE, value_parser = NonEmptyStringValueParser::new(), value_name = "NAME")]
    pub delivery_req_queue: String,

    /// Name under which the dispatcher announces changes of deliveries to every gateway
    #[arg(long, env = "DELIVERY_STATUS_QUEUE", default_value = keys::DELIVERY_STATUS_QUEUE, value_parser = NonEmptyStringValueParser::new(), value_name = "NAME")]
    pub delivery_status_queue: String,

    /// Time between two events of a GET /events stream, 10 to 10000; what changes meanwhile is told together, milliseconds
    #[arg(long, env = "EVENTS_INTERVAL_MS", default_value = "100", value_parser = events_interval_ms, value_name = "MS")]
    pub events_interval_ms: u64,

    /// A GET /events stream without news carries a sign of life this often, seconds
    #[arg(long, env = "EVENTS_HEARTBEAT_SEC", default_value = "10", value_parser = positive, value_name = "SEC")]
    pub events_heartbeat_sec: f64,

    /// Clients of GET /events served at once; further ones are answered 503
    #[arg(long, env = "EVENTS_VIEWERS_MAX", default_value = "4000", value_parser = at_least_one, value_name = "N")]
    pub events_viewers_max: usize,

    /// How far back the times in GET /stats reach, seconds
    #[arg(long, env = "STATS_WINDOW_SEC", default_value = "900", value_parser = positive, value_name = "SEC")]
    pub stats_window_sec: f64,

    /// Cruising speed of a medium drone, km/h, as drone-sim has it; GET /stats tells with it how far deliveries are from the best possible
    #[arg(long, env = "SPEED_BASE_KMH", default_value = "120", value_parser = positive, value_name = "KMH")]
    pub speed_base_kmh: f64,

    /// Seconds of flight per second of clock, as drone-sim has it; for the same
    #[arg(long, env = "TIME_SCALE", default_value = "28", value_parser = positive, value_name = "FACTOR")]
    pub time_scale: f64,

    /// lb's address, http://host:port, for its figures in GET /cluster; none are shown when it is empty
    #[arg(long, env = "LB_STATUS_URL", value_name = "URL")]
    pub lb_status_url: Option<String>,

    /// RabbitMQ's management API, http://user:password@host:15672, for its queues in GET /cluster; none are shown when it is empty
    #[arg(long, env = "RABBIT_MANAGEMENT_URL", value_name = "URL")]
    pub rabbit_management_url: Option<String>,

    /// Where the demo takes orders to break its own services (`CHAOS=1 dronedispatch`); empty: nobody can
    #[arg(long, env = "CHAOS_URL", value_name = "URL")]
    pub chaos_url: Option<String>,

    /// Raster tiles below the dashboard's map, for example `https://HOST/{z}/{x}/{y}.png`; empty: the map's own sketch alone
    #[arg(long, env = "TILE_URL", value_name = "URL")]
    pub tile_url: Option<String>,

    /// Who made the tiles, as their terms want it told on the map; at most 200 bytes
    #[arg(long, env = "TILE_ATTRIBUTION", value_name = "TEXT")]
    pub tile_attribution: Option<String>,

    /// Where traces go.
    #[command(flatten)]
    pub traces: TraceArgs,

    /// Settings every program has.
    #[command(flatten)]
    pub common: CommonArgs,
}

fn grid_side(text: &str) -> Result<u32, String> {
    match text.trim().parse() {
        Ok(side) if (1..=MAX_GRID_SIDE).contains(&side) => Ok(side),
        _ => Err(format!("a whole number from 1 to {MAX_GRID_SIDE} is expected")),
    }
}

fn events_interval_ms(text: &str) -> Result<u64, String> {
    let (least, most) = EVENTS_INTERVAL_MS.into_inner();
    match text.trim().parse() {
        Ok(ms) if (least..=most).contains(&ms) => Ok(ms),
        _ => Err(format!("a whole number from {least} to {most} is expected")),
    }
}

/// Empty, or a plain URL of another server.
fn check_optional_url(setting: &str, url: &str) -> Result<(), SettingError> {
    let url = url.trim();
    let is_plain = |uri: http::Uri| uri.scheme_str() == Some("http") && uri.host().is_some_and(|host| !host.is_empty());
    if url.is_empty() || url.parse().is_ok_and(is_plain) {
        return Ok(());
    }
    // What is in it may be a password.
    Err(SettingError::new(
        setting,
        "what is no such URL",
        "http://host:port, or nothing",
    ))
}

impl Config {
    /// The grid and the no-fly zones that the settings describe.
    pub(crate) fn zones(&self) -> Result<ZonesConfig, SettingError> {
        let grid = ZonesConfig::rome(self.grid_rows, self.grid_cols);
        let zones = grid.and_then(|grid| grid.with_no_fly(self.no_fly.no_fly_zones.clone()));
        zones.map_err(|error| {
            SettingError::new(
                "NO_FLY_ZONES (--no-fly-zones), GRID_ROWS (--grid-rows) or GRID_COLS (--grid-cols)",
                error.to_string(),
                "a grid whose charge points lie outside the no-fly zones",
            )
        })
    }

    /// Where the page gets tiles from.
    pub(crate) fn tiles(&self) -> Result<Option<Tiles>, SettingError> {
        let url = self.tile_url.as_deref().unwrap_or_default();
        Tiles::parse(url).map_err(|expected| SettingError::new("TILE_URL (--tile-url)", format!("{url:?}"), expected))
    }
}

impl Program for Config {
    const NAME: &'static str = "gateway";

    fn common(&self) -> &CommonArgs {
        &self.common
    }

    fn listen(&self) -> Option<SocketAddr> {
        Some(self.listen)
    }

    fn validate(&self) -> Result<(), SettingError> {
        self.traces.validate()?;
        for (setting, url) in [
            ("LB_STATUS_URL (--lb-status-url)", &self.lb_status_url),
            (
                "RABBIT_MANAGEMENT_URL (--rabbit-management-url)",
                &self.rabbit_management_url,
            ),
            ("CHAOS_URL (--chaos-url)", &self.chaos_url),
        ] {
            check_optional_url(setting, url.as_deref().unwrap_or_default())?;
        }
        self.tiles()?;
        self.zones()?;
        let attribution = self.tile_attribution.as_deref().unwrap_or_default();
        if attribution.len() > ATTRIBUTION_MAX {
            return Err(SettingError::new(
                "TILE_ATTRIBUTION (--tile-attribution)",
                format!("{} bytes", attribution.len()),
                format!("at most {ATTRIBUTION_MAX} bytes"),
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
    fn defaults_and_bad_values() {
        let config: Config = try_parse_from(["gateway"]).unwrap();
        assert_eq!((config.grid_rows, config.grid_cols, config.listen.port()), (2, 2, 8000));
        config.validate().unwrap();
        let error = try_parse_from::<Config>(["gateway", "--grid-rows", "0"])
            .unwrap_err()
            .to_string();
        assert!(error.contains("GRID_ROWS") && error.contains("1 to 32"), "{error}");
        assert!(config.no_fly.no_fly_zones.is_empty());
        let parsed = |zones: &str| try_parse_from::<Config>(["gateway", "--no-fly-zones", zones]);
        let config_with = parsed("41.88,12.47 41.88,12.49 41.90,12.48").unwrap();
        config_with.validate().unwrap();
        assert_eq!(config_with.zones().unwrap().no_fly.zones()[0].vertices.len(), 3);
        let error = parsed("41.88,12.47 41.88").unwrap_err().to_string();
        assert!(
            error.contains("NO_FLY_ZONES") && error.contains("no_fly[0].vertices[1] is \"41.88\""),
            "{error}"
        );
        let error = parsed("41.8,12.4 41.8,12.6 41.95,12.6")
            .unwrap()
            .validate()
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("NO_FLY_ZONES") && error.contains("the charge point of zone 3"),
            "{error}"
        );
        let events = (config.events_interval_ms, config.events_viewers_max);
        assert_eq!(events, (100, 4_000));
        assert_eq!(
            (
                config.events_heartbeat_sec.to_string(),
                config.stats_window_sec.to_string()
            ),
            ("10".to_owned(), "900".to_owned())
        );
        assert_eq!((config.speed_base_kmh, config.time_scale), (120.0, 28.0));
        for (flag, value, variable) in [
            ("--events-interval-ms", "9", "EVENTS_INTERVAL_MS"),
            ("--events-heartbeat-sec", "0", "EVENTS_HEARTBEAT_SEC"),
            ("--events-viewers-max", "0", "EVENTS_VIEWERS_MAX"),
            ("--stats-window-sec", "-1", "STATS_WINDOW_SEC"),
            ("--speed-base-kmh", "0", "SPEED_BASE_KMH"),
            ("--time-scale", "-28", "TIME_SCALE"),
        ] {
            let flag = format!("{flag}={value}");
            let error = try_parse_from::<Config>(["gateway", &flag]).unwrap_err().to_string();
            assert!(error.contains(variable), "{error}");
        }
        for (flag, variable) in [
            ("--lb-status-url", "LB_STATUS_URL"),
            ("--rabbit-management-url", "RABBIT_MANAGEMENT_URL"),
            ("--chaos-url", "CHAOS_URL"),
        ] {
            let with = |url: &str| try_parse_from::<Config>(["gateway", flag, url]).unwrap().validate();
            assert!(with("").is_ok() && with("http://user:secret@host:1").is_ok(), "{flag}");
            let error = with("user:secret@host").unwrap_err().to_string();
            assert!(error.contains(variable) && !error.contains("secret"), "{error}");
        }
        for (flag, value, variable) in [
            ("--tile-url", "https://tiles.example/{z}/{x}.png".to_owned(), "TILE_URL"),
            ("--tile-attribution", "a".repeat(201), "TILE_ATTRIBUTION"),
        ] {
            let config: Config = try_parse_from(["gateway", flag, &value]).unwrap();
            let error = config.validate().unwrap_err().to_string();
            assert!(error.contains(variable), "{error}");
        }
        assert!(config.tiles().unwrap().is_none());
        let config: Config = try_parse_from(["gateway", "--kv-url", "ftp://x"]).unwrap();
        assert!(config.validate().unwrap_err().to_string().contains("KV_URL"));
    }
}
