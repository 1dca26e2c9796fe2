//! The settings.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;

use crate::report::Target;
use crate::work::{Access, BATCH_KEYS, SCAN_KEYS, Work, Works};

/// Most loaded keys: their names have eight digits.
const MAX_KEYS: u64 = 99_999_999;
/// Most clients: each is a connection, and a file descriptor here and there.
const MAX_CLIENTS: usize = 4_096;

/// Measure the KV beside etcd and Redis: the same work against each in turn, several rounds
///
/// Starts three kvstores and a kvfront (the programs beside this one), three etcds and a Redis, with their data in one folder that is removed afterwards.
/// See docs/benchmarks.md.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Systems to measure, comma-separated
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "ours,etcd,redis",
        value_name = "SYSTEMS"
    )]
    pub targets: Vec<Target>,

    /// Measure only the kvfront that runs at this URL, http://host:port; it is left with keys that begin with `bench-`
    #[arg(long, conflicts_with = "targets", value_name = "URL")]
    pub url: Option<String>,

    /// With --url: process numbers of the servers, comma-separated, to count their CPU time
    #[arg(long, requires = "url", value_delimiter = ',', value_name = "PIDS")]
    pub pids: Vec<u32>,

    /// Kinds of work, comma-separated: get, put, cas-create, cas-update, cas-hot, mix, batch, scan, lock; or all
    #[arg(long, default_value = "all", value_name = "KINDS")]
    pub work: Works,

    /// Clients at once, each with one connection; several numbers, comma-separated, are measured one after the other
    #[arg(long, value_delimiter = ',', default_value = "32", value_name = "NUMBERS")]
    pub clients: Vec<usize>,

    /// Keys that are loaded first, at least 1000 for scan and 100 for batch; several numbers likewise
    #[arg(long, value_delimiter = ',', default_value = "1000", value_name = "NUMBERS")]
    pub keys: Vec<u64>,

    /// How keys are chosen among the loaded ones; several ways likewise
    #[arg(long, value_enum, value_delimiter = ',', default_value = "even", value_name = "WAYS")]
    pub access: Vec<Access>,

    /// Operations a second that become due, whatever the servers do, of all clients together (open loop); 0: each client sends the next when the last was answered (closed loop); several numbers likewise
    #[arg(long, value_delimiter = ',', default_value = "0", value_name = "NUMBERS")]
    pub rate: Vec<f64>,

    /// Rounds; in each, every system is measured once
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub rounds: u32,

    /// Length of one measured window, seconds
    #[arg(long, default_value_t = 2.0, value_name = "SECONDS")]
    pub seconds: f64,

    /// Warm-up before each window, seconds
    #[arg(long, default_value_t = 0.5, value_name = "SECONDS")]
    pub warm_up_sec: f64,

    /// Threads of the load generator; it shares the machine with the servers
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub threads: u16,

    /// Folder for the servers' data; it should lie on a real disk
    #[arg(long, default_value = ".", value_name = "FOLDER")]
    pub dir: PathBuf,

    /// Folder of the programs kvstore and kvfront [default: where this program is]
    #[arg(long, value_name = "FOLDER")]
    pub bin_dir: Option<PathBuf>,

    /// Connect all clients of etcd to its leader, instead of spreading them over the members
    #[arg(long)]
    pub etcd_leader_only: bool,

    /// A text that is kept with the figures, such as the commit they belong to
    #[arg(long, default_value = "", value_name = "TEXT")]
    pub label: String,

    /// Write everything that was measured to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Draw the ratios to etcd into this file
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

impl Args {
    /// Checks what one value alone does not show.
    ///
    /// # Errors
    /// The first setting that cannot be used.
    pub fn validate(&self) -> anyhow::Result<()> {
        let seconds = |name: &str, value: f64, least: f64| {
            if (least..=3_600.0).contains(&value) {
                return Ok(());
            }
            bail!("--{name}: got {value}; it takes {least} to 3600 seconds")
        };
        seconds("seconds", self.seconds, 0.01)?;
        seconds("warm-up-sec", self.warm_up_sec, 0.0)?;
        if let Some(rate) = self.rate.iter().find(|rate| !(0.0..=1e6).contains(*rate)) {
            bail!("--rate: got {rate}; it takes 0 to 1000000 operations a second");
        }
        if let Some(clients) = self.clients.iter().find(|n| !(1..=MAX_CLIENTS).contains(*n)) {
            bail!("--clients: got {clients}; it takes 1 to {MAX_CLIENTS}");
        }
        let least = self.work.0.iter().map(|work| keys_needed(*work)).max().unwrap_or(1);
        if let Some(keys) = self.keys.iter().find(|n| !(least..=MAX_KEYS).contains(*n)) {
            bail!("--keys: got {keys}; this work takes {least} to {MAX_KEYS}");
        }
        Ok(())
    }

    /// Length of a window.
    pub(crate) fn length(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// Warm-up before it.
    pub(crate) fn warm_up(&self) -> Duration {
        Duration::from_secs_f64(self.warm_up_sec)
    }
}

fn keys_needed(work: Work) -> u64 {
    match work {
        Work::Scan => SCAN_KEYS as u64,
        Work::Batch => BATCH_KEYS as u64,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn parse(args: &[&str]) -> Args {
        Cli::try_parse_from(std::iter::once(&"bench").chain(args)).unwrap().args
    }

    #[test]
    fn the_defaults_can_be_used() {
        let args = parse(&[]);
        args.validate().unwrap();
        assert_eq!(args.targets, [Target::Ours, Target::Etcd, Target::Redis]);
        assert_eq!(
            (args.work.0.len(), args.clients.as_slice(), args.keys.as_slice()),
            (9, &[32][..], &[1_000][..])
        );
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        for bad in [
            &["--keys", "999"][..],
            &["--keys", "99", "--work", "batch"],
            &["--clients", "0"],
            &["--rate=-1"],
            &["--rate", "nan"],
            &["--seconds", "0"],
        ] {
            assert!(parse(bad).validate().is_err(), "{bad:?}");
        }
        parse(&["--keys", "1", "--work", "get", "--clients", "1,32,256"])
            .validate()
            .unwrap();
    }
}
