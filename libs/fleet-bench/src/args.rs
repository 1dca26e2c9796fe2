//! The settings.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use clap::Parser;
use serde::Serialize;

/// Kilometres of a mission, about: between two random places in the area, with the way to the first.
const KM_PER_MISSION: f64 = 11.2;
/// Cruising speed of a medium drone, km/h, as drone-sim has it by default; and how much longer the three classes take in the mean.
const SPEED_KMH: f64 = 120.0;
const SLOWER: f64 = 1.028;
/// Which part of the fleet the orders keep busy; charging takes the rest.
const BUSY_SHARE: f64 = 0.9;
/// Longest window and warm-up, seconds.
const SECONDS_MAX: f64 = 3_600.0;

/// Measure a fleet under steady orders: whether it holds its ticks, and what each program uses
///
/// Starts three kvstores, a kvfront, a gateway, a dispatcher, drone-sim, lb and a RabbitMQ on free ports, places orders through lb, and reads the
/// programs' metrics. See docs/benchmarks.md.
#[derive(Debug, Clone, Parser, Serialize)]
#[command(name = "fleet-bench", version)]
pub(crate) struct Args {
    /// Drones of the fleet
    #[arg(long, default_value_t = 1_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=5_000))]
    pub(crate) drones: u32,

    /// Orders per second that become due, whatever the system does (open loop)
    #[arg(long, default_value_t = 20.0, value_name = "PER_SEC")]
    pub(crate) rate: f64,

    /// Seconds between two ticks of the fleet
    #[arg(long, default_value_t = 0.375, value_name = "SEC")]
    pub(crate) tick_sec: f64,

    /// Seconds of flight per second of clock [default: so that these orders keep about all drones in the air]
    #[arg(long, value_name = "FACTOR")]
    pub(crate) time_scale: Option<f64>,

    /// Seconds of orders before the measured window: missions must have begun and ended for it to be steady
    #[arg(long, default_value_t = 90.0, value_name = "SECONDS")]
    pub(crate) warm_up_sec: f64,

    /// Length of the measured window, seconds
    #[arg(long, default_value_t = 60.0, value_name = "SECONDS")]
    pub(crate) seconds: f64,

    /// Dispatchers at work
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=8))]
    pub(crate) dispatchers: u32,

    /// Processes that fly the fleet, each its part
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) shards: u32,

    /// Folder for the databases and logs; it should lie on a real disk; removed in the end
    #[arg(long, default_value = ".", value_name = "FOLDER")]
    pub(crate) dir: PathBuf,

    /// Folder of the programs [default: where this program is]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) bin_dir: Option<PathBuf>,

    /// Do without RabbitMQ: its absence costs nothing but hints
    #[arg(long)]
    pub(crate) no_broker: bool,

    /// Seed of the orders
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    pub(crate) seed: u64,

    /// A text that is kept with the figures, such as the commit they belong to
    #[arg(long, default_value = "", value_name = "TEXT")]
    pub(crate) label: String,

    /// Write everything that was measured to this file
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub(crate) json: Option<PathBuf>,
}

impl Args {
    /// Checks what clap does not.
    pub(crate) fn validate(&self) -> anyhow::Result<()> {
        let within = |name: &str, value: f64, least: f64, most: f64| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            bail!("--{name}: got {value}; it takes {least} to {most}")
        };
        if self.shards > self.drones {
            bail!(
                "--shards: got {}; at most as many as --drones, {}",
                self.shards,
                self.drones
            );
        }
        within("rate", self.rate, 0.1, 1_000.0)?;
        within("tick-sec", self.tick_sec, 0.005, 10.0)?;
        within("time-scale", self.time_scale(), 0.01, 10_000.0)?;
        within("warm-up-sec", self.warm_up_sec, 0.0, SECONDS_MAX)?;
        within("seconds", self.seconds, 1.0, SECONDS_MAX)
    }

    /// Seconds of flight per second of clock.
    pub(crate) fn time_scale(&self) -> f64 {
        let mission_sec = BUSY_SHARE * f64::from(self.drones) / self.rate;
        self.time_scale
            .unwrap_or(KM_PER_MISSION * SLOWER * 3_600.0 / SPEED_KMH / mission_sec)
    }

    /// Length of the window.
    pub(crate) fn length(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// Of a name, the program.
    pub(crate) fn program(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = match &self.bin_dir {
            Some(folder) => folder.join(name),
            None => std::env::current_exe()?.with_file_name(name),
        };
        if !path.is_file() {
            bail!("{} is not there: build it, or say --bin-dir", path.display());
        }
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::Args;

    #[test]
    fn defaults_can_be_used_and_bad_values_are_named() {
        let args = Args::parse_from(["fleet-bench"]);
        args.validate().unwrap();
        // A mission takes 45 s then, at 20 orders a second 900 drones.
        let mission_sec = 11.2 * 1.028 / (120.0 / 3_600.0 * args.time_scale());
        assert!((mission_sec - 45.0).abs() < 0.1, "{mission_sec}");
        for (flag, value) in [("--rate", "0"), ("--seconds", "NaN"), ("--tick-sec", "99")] {
            let args = Args::parse_from(["fleet-bench", flag, value]);
            let error = args.validate().unwrap_err().to_string();
            assert!(error.contains(flag), "{error}");
        }
        let args = Args::parse_from(["fleet-bench", "--drones", "3", "--shards", "4"]);
        assert!(args.validate().unwrap_err().to_string().contains("--shards"));
    }
}
