//! The settings of a kvfront. Each is an environment variable and a long flag.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use register::proposer::Consistency;
use service::program::Program;
use service::settings::{CommonArgs, SettingError, at_least_one, positive, switch};
use service::traces::TraceArgs;

use crate::ring::{Backend, Ring, RingError};

/// The largest `MAX_VALUE_BYTES`: a batch or page with a few such values still fits every limit on the way.
const MAX_VALUE_BYTES_MAX: usize = 4 << 20;
/// The largest `MAX_CLOCK_SKEW_MS`: beyond it, last-write-wins and TTLs mean nothing.
const MAX_CLOCK_SKEW_MS_MAX: u64 = 60_000;
/// The largest `HINT_FLUSH_SEC`.
const HINT_FLUSH_SEC_MAX: f64 = 3_600.0;
/// The largest `REPAIR_EVERY_SEC`, `COLLECT_EVERY_SEC` and `TOMBSTONE_KEEP_SEC`: a day.
const UPKEEP_SEC_MAX: f64 = 86_400.0;
/// The smallest pause between two passes of a loop, in seconds.
const PAUSE_SEC_MIN: f64 = 0.05;

/// How many replicas a get or put waits for when the call does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DefaultConsistency {
    /// A majority of the key's list: linearizable.
    Quorum,
    /// One answer or ack is enough; a get may be stale.
    One,
}

impl From<DefaultConsistency> for Consistency {
    fn from(consistency: DefaultConsistency) -> Self {
        match consistency {
            DefaultConsistency::Quorum => Self::Quorum,
            DefaultConsistency::One => Self::One,
        }
    }
}

/// The KV coordinator: stateless, any number may run side by side over the same kvstores.
#[derive(Debug, Clone, Parser)]
#[command(name = "kvfront", version)]
pub struct Config {
    /// Where traces go.
    #[command(flatten)]
    pub traces: TraceArgs,

    /// Settings of every program.
    #[command(flatten)]
    pub common: CommonArgs,

    /// Address to listen on (ADDRESS:PORT; port 0 takes a free one and prints it)
    #[arg(long, env = "LISTEN", default_value = "0.0.0.0:9000", value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,

    /// The kvstores, comma-separated: URLs like http://kvstore_a:9000, or NAME=URL for one that may move; the same names in every kvfront, in any order
    #[arg(long, env = "BACKENDS", value_name = "NODES")]
    pub backends: String,

    /// Copies of each key at rest (1 to the number of kvstores)
    #[arg(long, env = "RF", default_value = "2", value_name = "COPIES", value_parser = at_least_one)]
    pub rf: usize,

    /// 1: a get also brings a third, lagging copy up to date; 0: leave it (what a get answers is on a quorum either way)
    #[arg(long, env = "READ_REPAIR", default_value = "1", value_name = "0|1", value_parser = switch, action = clap::ArgAction::Set)]
    pub read_repair: bool,

    /// Seconds between two flushes of hints to homes that are back
    #[arg(long, env = "HINT_FLUSH_SEC", default_value = "2", value_name = "SECONDS", value_parser = positive)]
    pub hint_flush_sec: f64,

    /// Keys that upkeep (filling a node whose disk was lost, repairing what differs) goes through in a second
    #[arg(long, env = "REPAIR_KEYS_PER_SEC", default_value = "2000", value_name = "KEYS", value_parser = clap::value_parser!(u32).range(1..))]
    pub repair_keys_per_sec: u32,

    /// Seconds between two comparisons of replicas by their hashes
    #[arg(long, env = "REPAIR_EVERY_SEC", default_value = "60", value_name = "SECONDS", value_parser = positive)]
    pub repair_every_sec: f64,

    /// Seconds between two collections of tombstones, promises and values past their end
    #[arg(long, env = "COLLECT_EVERY_SEC", default_value = "5", value_name = "SECONDS", value_parser = positive)]
    pub collect_every_sec: f64,

    /// Seconds a tombstone is kept at least, so that operations and watchers learn of the delete
    #[arg(long, env = "TOMBSTONE_KEEP_SEC", default_value = "30", value_name = "SECONDS", value_parser = positive)]
    pub tombstone_keep_sec: f64,

    /// What get and put wait for when the call does not say `?consistency=`
    #[arg(
        long,
        env = "DEFAULT_CONSISTENCY",
        default_value = "quorum",
        value_enum,
        value_name = "CONSISTENCY"
    )]
    pub default_consistency: DefaultConsistency,

    /// Milliseconds another machine's clock may be ahead of this one's before its messages are refused (1 to 60000)
    #[arg(long, env = "MAX_CLOCK_SKEW_MS", default_value_t = 500, value_name = "MS")]
    pub max_clock_skew_ms: u64,

    /// Bytes of the largest value, as JSON text (1 to 4194304); larger ones are answered with 413
    #[arg(long, env = "MAX_VALUE_BYTES", default_value = "1048576", value_name = "BYTES", value_parser = at_least_one)]
    pub max_value_bytes: usize,

    /// Operations under way at once, each key of a batch counted, a scan as 128; more are answered with 503 and Retry-After
    #[arg(long, env = "MAX_CONCURRENT_OPS", default_value = "4096", value_name = "OPERATIONS", value_parser = at_least_one)]
    pub max_concurrent_ops: usize,
}

impl Config {
    /// The ring these settings describe.
    ///
    /// # Errors
    /// `BACKENDS` or `RF` cannot be used.
    pub fn ring(&self) -> Result<Ring, RingError> {
        Ring::new(Backend::parse_list(&self.backends)?, self.rf)
    }

    /// Pause between two hint flushes.
    #[must_use]
    pub fn hint_flush(&self) -> Duration {
        Duration::from_secs_f64(self.hint_flush_sec.clamp(PAUSE_SEC_MIN, HINT_FLUSH_SEC_MAX))
    }
}

impl Config {
    /// Pause between two comparisons of replicas.
    #[must_use]
    pub fn repair_every(&self) -> Duration {
        Duration::from_secs_f64(self.repair_every_sec.clamp(PAUSE_SEC_MIN, UPKEEP_SEC_MAX))
    }

    /// Pause between two collections.
    #[must_use]
    pub fn collect_every(&self) -> Duration {
        Duration::from_secs_f64(self.collect_every_sec.clamp(PAUSE_SEC_MIN, UPKEEP_SEC_MAX))
    }

    /// How long tombstones are kept.
    #[must_use]
    pub fn tombstone_keep(&self) -> Duration {
        Duration::from_secs_f64(self.tombstone_keep_sec.clamp(0.0, UPKEEP_SEC_MAX))
    }
}

impl Program for Config {
    const NAME: &'static str = "kvfront";

    fn common(&self) -> &CommonArgs {
        &self.common
    }

    fn listen(&self) -> Option<SocketAddr> {
        Some(self.listen)
    }

    /// One processor is left to the kernel, which has as much to do with the messages, and to who else is there.
    fn worker_threads(processors: usize) -> usize {
        processors.saturating_sub(1).max(1)
    }

    fn validate(&self) -> Result<(), SettingError> {
        self.traces.validate()?;
        if self.hint_flush_sec > HINT_FLUSH_SEC_MAX {
            let takes = format!("seconds above 0, at most {HINT_FLUSH_SEC_MAX}");
            return Err(SettingError::new("HINT_FLUSH_SEC", self.hint_flush_sec, takes));
        }
        for (setting, seconds) in [
            ("REPAIR_EVERY_SEC", self.repair_every_sec),
            ("COLLECT_EVERY_SEC", self.collect_every_sec),
            ("TOMBSTONE_KEEP_SEC", self.tombstone_keep_sec),
        ] {
            if seconds > UPKEEP_SEC_MAX {
                let takes = format!("seconds above 0, at most {UPKEEP_SEC_MAX}");
                return Err(SettingError::new(setting, seconds, takes));
            }
        }
        if !(1..=MAX_CLOCK_SKEW_MS_MAX).contains(&self.max_clock_skew_ms) {
            let takes = format!("milliseconds from 1 to {MAX_CLOCK_SKEW_MS_MAX}");
            return Err(SettingError::new("MAX_CLOCK_SKEW_MS", self.max_clock_skew_ms, takes));
        }
        if self.max_value_bytes > MAX_VALUE_BYTES_MAX {
            let takes = format!("bytes from 1 to {MAX_VALUE_BYTES_MAX}");
            return Err(SettingError::new("MAX_VALUE_BYTES", self.max_value_bytes, takes));
        }
        match self.ring() {
            Ok(_) => Ok(()),
            Err(RingError::BadRf { rf, nodes }) => {
                let takes = format!("a whole number from 1 to the number of nodes in BACKENDS, which is {nodes}");
                Err(SettingError::new("RF", rf, takes))
            }
            Err(error) => {
                let takes = format!(
                    "distinct nodes like http://kvstore_a:9000 or a=http://kvstore_a:9000, comma-separated ({error})"
                );
                Err(SettingError::new("BACKENDS", format!("{:?}", self.backends), takes))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use service::program::Program;
    use service::settings::try_parse_from;

    use super::Config;

    fn parse(args: &[&str]) -> Result<Config, String> {
        let args = ["kvfront"].iter().chain(args).copied();
        let config: Config = try_parse_from(args).map_err(|e| e.to_string())?;
        config.validate().map_err(|e| e.to_string())?;
        Ok(config)
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let config = parse(&["--backends", "http://a:1,http://b:1,http://c:1"]).unwrap();
        assert_eq!(
            (config.rf, config.read_repair, config.max_clock_skew_ms),
            (2, true, 500)
        );
        assert_eq!((config.max_value_bytes, config.listen.port()), (1 << 20, 9000));
        assert_eq!(config.hint_flush().as_millis(), 2_000);
        assert_eq!(
            (config.repair_every().as_secs(), config.repair_keys_per_sec),
            (60, 2_000)
        );
        assert_eq!(
            (config.collect_every().as_secs(), config.tombstone_keep().as_secs()),
            (5, 30)
        );
    }

    #[test]
    fn bad_values_name_setting_value_and_expectation() {
        let three = ["--backends", "http://a:1,http://b:1,http://c:1"];
        for (args, parts) in [
            (vec!["--backends", "ftp://a:1"], vec!["BACKENDS", "ftp"]),
            (vec![three[0], three[1], "--rf", "4"], vec!["RF", "4", "which is 3"]),
            (
                vec![three[0], three[1], "--max-clock-skew-ms", "0"],
                vec!["MAX_CLOCK_SKEW_MS", "60000"],
            ),
            (
                vec![three[0], three[1], "--max-value-bytes", "9999999"],
                vec!["MAX_VALUE_BYTES", "4194304"],
            ),
            (
                vec![three[0], three[1], "--read-repair", "maybe"],
                vec!["READ_REPAIR", "maybe"],
            ),
            (
                vec![three[0], three[1], "--hint-flush-sec", "0"],
                vec!["HINT_FLUSH_SEC", "above 0"],
            ),
            (
                vec![three[0], three[1], "--tombstone-keep-sec", "90000"],
                vec!["TOMBSTONE_KEEP_SEC", "86400"],
            ),
            (
                vec![three[0], three[1], "--repair-keys-per-sec", "0"],
                vec!["REPAIR_KEYS_PER_SEC"],
            ),
            (
                vec![three[0], three[1], "--default-consistency", "all"],
                vec!["DEFAULT_CONSISTENCY", "quorum"],
            ),
        ] {
            let error = parse(&args).unwrap_err();
            for part in parts {
                assert!(error.contains(part), "{error:?} should contain {part:?}");
            }
        }
    }
}
