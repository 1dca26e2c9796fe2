//! Settings of a node: each an environment variable and a flag.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use service::program::Program;
use service::settings::{CommonArgs, SettingError, switch};

/// Largest value that can be allowed: several must fit into one message between kvfront and kvstore.
pub const MAX_VALUE_BYTES_LIMIT: usize = 8 * 1024 * 1024;

/// Largest clock skew that can be allowed, in milliseconds: with more, a lock could be held twice for longer than anybody would accept.
pub const MAX_CLOCK_SKEW_LIMIT_MS: u64 = 60_000;

/// One node of the KV cluster: SQLite with group commit and an LRU cache behind HTTP
#[derive(Debug, Clone, Parser)]
#[command(name = "kvstore", version)]
pub struct Config {
    /// The database file; its directory must exist
    #[arg(long, env = "DB_FILE", default_value = "/data/kv_store.db", value_name = "PATH")]
    pub db_file: PathBuf,

    /// Most records kept in the cache; 0 turns it off
    #[arg(long, env = "MAX_CACHE_ITEMS", default_value_t = 10_000, value_name = "N")]
    pub max_cache_items: usize,

    /// Most bytes kept in the cache, keys and bookkeeping included; 0 turns it off
    #[arg(
        long,
        env = "MAX_CACHE_SIZE_BYTES",
        default_value_t = 33_554_432,
        value_name = "BYTES"
    )]
    pub max_cache_size_bytes: usize,

    /// Address to bind; port 0 takes a free one and prints it
    #[arg(long, env = "LISTEN", default_value = "0.0.0.0:9000", value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,

    /// Largest value, bytes of JSON text (at most 8388608)
    #[arg(long, env = "MAX_VALUE_BYTES", default_value_t = kv_api::MAX_VALUE_BYTES, value_name = "BYTES")]
    pub max_value_bytes: usize,

    /// How far ahead of this machine's clock a sender's may be, milliseconds (at most 60000); what is further ahead is refused
    #[arg(long, env = "MAX_CLOCK_SKEW_MS", default_value_t = 500, value_name = "MS")]
    pub max_clock_skew_ms: u64,

    /// 1: forget at start which ring (BACKENDS and RF of the kvfronts) this node belongs to, and take the next kvfront's; only for a start
    /// after these were changed on purpose everywhere
    #[arg(
        long,
        env = "ADOPT_RING",
        default_value = "0",
        value_name = "0|1",
        value_parser = switch,
        action = clap::ArgAction::Set
    )]
    pub adopt_ring: bool,

    /// What every program has.
    #[command(flatten)]
    pub common: CommonArgs,
}

impl Program for Config {
    const NAME: &'static str = "kvstore";

    fn common(&self) -> &CommonArgs {
        &self.common
    }

    fn listen(&self) -> Option<SocketAddr> {
        Some(self.listen)
    }

    /// The writer's thread has the other half: requests come in few large messages.
    fn worker_threads(processors: usize) -> usize {
        processors.div_ceil(2)
    }

    fn validate(&self) -> Result<(), SettingError> {
        if self.max_value_bytes == 0 || self.max_value_bytes > MAX_VALUE_BYTES_LIMIT {
            let takes = format!("1 to {MAX_VALUE_BYTES_LIMIT} bytes");
            return Err(SettingError::new(
                "MAX_VALUE_BYTES (--max-value-bytes)",
                self.max_value_bytes,
                takes,
            ));
        }
        if self.max_clock_skew_ms > MAX_CLOCK_SKEW_LIMIT_MS {
            let takes = format!("0 to {MAX_CLOCK_SKEW_LIMIT_MS} milliseconds");
            return Err(SettingError::new(
                "MAX_CLOCK_SKEW_MS (--max-clock-skew-ms)",
                self.max_clock_skew_ms,
                takes,
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use service::settings::try_parse_from;

    use super::*;

    #[test]
    fn defaults_are_the_documented_ones() {
        let config: Config = try_parse_from(["kvstore"]).unwrap();
        assert_eq!(config.db_file, PathBuf::from("/data/kv_store.db"));
        assert_eq!(
            (config.max_cache_items, config.max_cache_size_bytes),
            (10_000, 33_554_432)
        );
        assert_eq!((config.max_value_bytes, config.max_clock_skew_ms), (1_048_576, 500));
        assert_eq!(config.listen.to_string(), "0.0.0.0:9000");
        assert!(!config.adopt_ring);
        config.validate().unwrap();
    }

    #[test]
    fn values_out_of_range_are_named() {
        let refuse = |args: [&str; 2]| {
            let config: Config = try_parse_from(["kvstore", args[0], args[1]]).unwrap();
            config.validate().unwrap_err().to_string()
        };
        assert!(refuse(["--max-value-bytes", "0"]).contains("MAX_VALUE_BYTES"));
        assert!(refuse(["--max-clock-skew-ms", "60001"]).contains("MAX_CLOCK_SKEW_MS"));
        let adopt: Config = try_parse_from(["kvstore", "--adopt-ring", "1"]).unwrap();
        assert!(adopt.adopt_ring);
        let error = try_parse_from::<Config>(["kvstore", "--adopt-ring", "maybe"])
            .unwrap_err()
            .to_string();
        assert!(error.contains("ADOPT_RING"), "{error}");
        let empty = try_parse_from::<Config>(["kvstore", "--db-file", ""])
            .unwrap_err()
            .to_string();
        assert!(empty.contains("DB_FILE"), "{empty}");
    }
}
