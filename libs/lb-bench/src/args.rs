//! The settings.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use serde::Serialize;

/// Measure lb beside nginx and HAProxy: the same requests through each in turn, several rounds
///
/// Starts a backend (nginx with constant answers) and each proxy with one worker, pinned to processors of its own. See docs/benchmarks.md.
#[derive(Debug, Clone, Parser, Serialize)]
#[command(name = "lb-bench", version)]
pub(crate) struct Args {
    /// Ways to the backend, comma-separated
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "direct,ours,nginx,haproxy",
        value_name = "WAYS"
    )]
    pub(crate) targets: Vec<Via>,

    /// Sizes of answers, bytes, comma-separated
    #[arg(long, value_delimiter = ',', default_value = "1024,65536", value_name = "BYTES",
          value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    pub(crate) sizes: Vec<u32>,

    /// Connections of the load generator
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) connections: u32,

    /// Rounds; in each, every way is measured once
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) rounds: u32,

    /// Length of one measured window, whole seconds
    #[arg(long, default_value_t = 5, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub(crate) seconds: u32,

    /// Processors for the proxy, as taskset writes them
    #[arg(long, default_value = "0", value_name = "LIST")]
    pub(crate) proxy_cpus: String,

    /// Processors for the load generator and the backend, as taskset writes them
    #[arg(long, default_value = "1", value_name = "LIST")]
    pub(crate) other_cpus: String,

    /// Folder for logs and configurations; removed in the end
    #[arg(long, default_value = ".", value_name = "FOLDER")]
    pub(crate) dir: PathBuf,

    /// The program lb [default: beside this program]
    #[arg(long, value_name = "FILE")]
    pub(crate) lb: Option<PathBuf>,

    /// A text that is kept with the figures, such as the commit they belong to
    #[arg(long, default_value = "", value_name = "TEXT")]
    pub(crate) label: String,

    /// Write everything that was measured to this file
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub(crate) json: Option<PathBuf>,
}

/// A way from the load generator to the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Via {
    /// No proxy: what load generator and backend can do at most.
    Direct,
    /// Our lb.
    Ours,
    /// nginx.
    Nginx,
    /// HAProxy.
    Haproxy,
}

impl Via {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Ours => "ours",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
        }
    }
}
