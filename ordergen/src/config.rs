//! Settings: where orders go, how many, how fast, how heavy.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use domain::no_fly::NoFlyArgs;
use reqwest::Url;
use service::program::Program;
use service::settings::{CommonArgs, SettingError, non_negative, positive, switch};

/// The highest rate of a phase, orders a second: the cycle is for demonstrations.
const PHASE_RATE_MAX_PER_SEC: f64 = 1_000.0;

/// The highest steady rate, orders a second.
const RATE_MAX_PER_SEC: f64 = 100_000.0;

/// Most orders under way at once.
const CONCURRENCY_MAX: usize = 10_000;

/// The order generator: synthetic orders in a cycle of four phases (low, peak, low, silent), at a steady rate, or from a file.
///
/// Every order carries an `Idempotency-Key` of its own and is sent again when the answer says so or does not come, so none is doubled.
/// With --rate or --replay, response times count from the moment an order was due, whether or not the system keeps up; the exit status is
/// 1 when an order was lost.
#[derive(Debug, Clone, Parser)]
#[command(name = "ordergen", version)]
pub struct Config {
    /// The load balancer
    #[arg(long, env = "LB_URL", default_value = "http://lb:8080", value_parser = base_url, value_name = "URL")]
    pub lb_url: Url,

    /// Accepted orders after which it ends; 0 = for ever
    #[arg(long, env = "TOTAL", default_value = "0", value_name = "N")]
    pub total: u64,

    /// Orders a second in both low phases
    #[arg(long, env = "LOW_RPS", default_value = "0.5", value_parser = rate, value_name = "PER_SEC")]
    pub low_rps: f64,

    /// Orders a second in the peak
    #[arg(long, env = "PEAK_RPS", default_value = "2", value_parser = rate, value_name = "PER_SEC")]
    pub peak_rps: f64,

    /// Length of the low phase before the peak, seconds
    #[arg(long, env = "LOW1_SEC", default_value = "30", value_parser = non_negative, value_name = "SEC")]
    pub low1_sec: f64,

    /// Length of the peak, seconds
    #[arg(long, env = "PEAK_SEC", default_value = "10", value_parser = non_negative, value_name = "SEC")]
    pub peak_sec: f64,

    /// Length of the low phase after the peak, seconds
    #[arg(long, env = "LOW2_SEC", default_value = "20", value_parser = non_negative, value_name = "SEC")]
    pub low2_sec: f64,

    /// Length of the phase without orders, seconds
    #[arg(long, env = "SILENT_SEC", default_value = "60", value_parser = non_negative, value_name = "SEC")]
    pub silent_sec: f64,

    /// Lightest parcel, kilograms
    #[arg(long, env = "WEIGHT_MIN", default_value = "0.2", value_parser = positive, value_name = "KG")]
    pub weight_min: f64,

    /// Heaviest parcel, kilograms
    #[arg(long, env = "WEIGHT_MAX", default_value = "10", value_parser = positive, value_name = "KG")]
    pub weight_max: f64,

    /// Zones from and to which no orders go
    #[command(flatten)]
    pub no_fly: NoFlyArgs,

    /// Makes the sequence of orders repeatable; by default every run has its own
    #[arg(long, env = "SEED", value_name = "N")]
    pub seed: Option<u64>,

    /// Orders a second, all the time, instead of the cycle
    #[arg(long, env = "RATE", value_parser = steady_rate, value_name = "PER_SEC")]
    pub rate: Option<f64>,

    /// Orders of a file instead of random ones: an order in JSON per line, each with "at_sec" (seconds after the first) or "timestamp",
    /// unless --rate says when they are due; "idempotency_key" is optional
    #[arg(long, env = "REPLAY", value_name = "FILE")]
    pub replay: Option<PathBuf>,

    /// Ends after this long, and when what was due by then is answered, seconds
    #[arg(long = "duration", visible_alias = "duration-sec", env = "DURATION_SEC", value_parser = positive, value_name = "SEC")]
    pub duration_sec: Option<f64>,

    /// Orders under way at once. With --rate or --replay further ones wait, and their waiting counts; in the cycle they are skipped
    #[arg(long, env = "CONCURRENCY", default_value = "256", value_parser = concurrency, value_name = "N")]
    pub concurrency: usize,

    /// Waits until the accepted orders have ended, and tells how long they took to be assigned and delivered
    #[arg(long, env = "TRACK", default_value = "0", default_missing_value = "1", num_args = 0..=1, require_equals = true, value_parser = switch, value_name = "0|1")]
    pub track: bool,

    /// How long --track waits at most after the last order, seconds
    #[arg(long, env = "TRACK_TIMEOUT_SEC", default_value = "600", value_parser = positive, value_name = "SEC")]
    pub track_timeout_sec: f64,

    /// Checks at the end that each accepted order exists exactly once
    #[arg(long, env = "VERIFY", default_value = "0", default_missing_value = "1", num_args = 0..=1, require_equals = true, value_parser = switch, value_name = "0|1")]
    pub verify: bool,

    /// The summary as JSON on standard output, instead of a table
    #[arg(long, env = "JSON", default_value = "0", default_missing_value = "1", num_args = 0..=1, require_equals = true, value_parser = switch, value_name = "0|1")]
    pub json: bool,

    /// Logging of the program itself.
    #[command(flatten)]
    pub common: CommonArgs,
}

impl Config {
    /// True when load is made and measured, false for the demonstration's cycle.
    #[must_use]
    pub fn is_measured(&self) -> bool {
        self.rate.is_some() || self.replay.is_some()
    }
}

impl Program for Config {
    const NAME: &'static str = "ordergen";

    fn common(&self) -> &CommonArgs {
        &self.common
    }

    fn listen(&self) -> Option<SocketAddr> {
        None
    }

    fn validate(&self) -> Result<(), SettingError> {
        if self.weight_min > self.weight_max {
            return Err(SettingError::new(
                "WEIGHT_MIN (--weight-min)",
                self.weight_min,
                format!("at most WEIGHT_MAX, which is {} kg", self.weight_max),
            ));
        }
        if self.is_measured() {
            return Ok(());
        }
        let orders_per_cycle = self.low_rps * (self.low1_sec + self.low2_sec) + self.peak_rps * self.peak_sec;
        if orders_per_cycle <= 0.0 {
            return Err(SettingError::new(
                "LOW_RPS, PEAK_RPS, LOW1_SEC, PEAK_SEC, LOW2_SEC",
                "a cycle without a single order",
                "a rate and a length above 0 in the low phases or in the peak",
            ));
        }
        Ok(())
    }
}

fn rate(text: &str) -> Result<f64, String> {
    non_negative(text).and_then(|rate| at_most(rate, PHASE_RATE_MAX_PER_SEC))
}

fn steady_rate(text: &str) -> Result<f64, String> {
    positive(text).and_then(|rate| at_most(rate, RATE_MAX_PER_SEC))
}

fn at_most(rate: f64, most: f64) -> Result<f64, String> {
    if rate <= most {
        Ok(rate)
    } else {
        Err(format!("a rate of at most {most} a second is expected"))
    }
}

fn concurrency(text: &str) -> Result<usize, String> {
    match text.trim().parse() {
        Ok(n) if (1..=CONCURRENCY_MAX).contains(&n) => Ok(n),
        _ => Err(format!("a whole number from 1 to {CONCURRENCY_MAX} is expected")),
    }
}

fn base_url(text: &str) -> Result<Url, String> {
    const EXPECTED: &str = "http://host:port is expected";
    let url = Url::parse(text.trim()).map_err(|error| format!("{EXPECTED} ({error})"))?;
    if url.scheme() == "http" && url.has_host() && url.query().is_none() {
        Ok(url)
    } else {
        Err(EXPECTED.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use service::settings::try_parse_from;

    use super::*;

    fn refused(flags: &[&str]) -> String {
        let config = try_parse_from::<Config>([&["ordergen"], flags].concat());
        config.and_then(|config| config.validate()).unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_are_the_documented_ones() {
        let config: Config = try_parse_from(["ordergen", "--lb-url", "http://127.0.0.1:8080"]).unwrap();
        config.validate().unwrap();
        let seconds = [config.low1_sec, config.peak_sec, config.low2_sec, config.silent_sec];
        assert_eq!(seconds.map(|sec| format!("{sec}")), ["30", "10", "20", "60"]);
        assert_eq!((config.total, config.seed), (0, None));
        assert!(!config.is_measured() && !config.track && !config.verify && !config.json);
        assert_eq!(
            (config.concurrency, config.track_timeout_sec.to_string().as_str()),
            (256, "600")
        );
    }

    #[test]
    fn switches_are_flags_and_values() {
        let flags = [
            "ordergen",
            "--rate",
            "50",
            "--duration",
            "3",
            "--track",
            "--verify=1",
            "--json",
        ];
        let config: Config = try_parse_from(flags).unwrap();
        assert!(config.is_measured() && config.track && config.verify && config.json);
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (flags, name) in [
            (["--weight-min", "5", "--weight-max", "4"].as_slice(), "WEIGHT_MIN"),
            (&["--weight-min", "0"], "WEIGHT_MIN"),
            (&["--low-rps", "-1"], "LOW_RPS"),
            (&["--peak-rps", "1e9"], "PEAK_RPS"),
            (&["--silent-sec", "NaN"], "SILENT_SEC"),
            (&["--lb-url", "lb:8080"], "LB_URL"),
            (&["--low1-sec", "0", "--peak-sec", "0", "--low2-sec", "0"], "LOW1_SEC"),
            (&["--low-rps", "0", "--peak-rps", "0"], "LOW_RPS"),
            (&["--rate", "0"], "RATE"),
            (&["--rate", "100001"], "RATE"),
            (&["--duration", "0"], "DURATION_SEC"),
            (&["--concurrency", "0"], "CONCURRENCY"),
            (&["--concurrency", "10001"], "CONCURRENCY"),
            (&["--track-timeout-sec", "0"], "TRACK_TIMEOUT_SEC"),
            (&["--verify", "maybe"], "VERIFY"),
        ] {
            // Equals signs keep negative numbers from looking like flags.
            let joined: Vec<String> = flags.chunks(2).map(|pair| pair.join("=")).collect();
            let flags: Vec<&str> = joined.iter().map(String::as_str).collect();
            let error = refused(&flags);
            assert!(error.contains(name), "{error:?} should name {name}");
        }
    }
}
