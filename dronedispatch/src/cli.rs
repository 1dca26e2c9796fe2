//! The settings of the one command.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use service::settings::{LogFormat, at_least_one, switch};

/// The drone-delivery platform: with one command the whole system, to watch and to break.
///
/// Every setting of every service can be given through its environment variable (`kvstore --help`, `dispatcher --help`, … list them).
#[derive(Debug, Parser)]
#[command(name = "dronedispatch", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; `up` when nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The settings of `up`.
    #[command(flatten)]
    pub up: UpArgs,
}

/// What the command can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the whole system in this process (what happens when no command is given)
    Up(UpArgs),
    #[expect(missing_docs, reason = "the settings' own docs are what --help shows")]
    Simulate(Box<dispatch_bench::Args>),
    /// Measure how fast it is
    #[command(subcommand)]
    Bench(Bench),
    #[expect(missing_docs, reason = "the settings' own docs are what --help shows")]
    Doctor(Box<tools::doctor::Args>),
    #[expect(missing_docs, reason = "the settings' own docs are what --help shows")]
    Kv(Box<tools::kv::Args>),
    #[expect(missing_docs, reason = "the settings' own docs are what --help shows")]
    Slo(Box<tools::slo::Args>),
    #[expect(missing_docs, reason = "the settings' own docs are what --help shows")]
    SloWatch(Box<tools::slo_watch::Args>),
    #[expect(missing_docs, reason = "the settings' own docs are what --help shows")]
    Top(Box<tools::top::Args>),
    /// Print the completions of a shell, for it to read at its start
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// What can be measured.
#[derive(Debug, Subcommand)]
pub enum Bench {
    #[expect(missing_docs, reason = "the settings' own docs are what --help shows")]
    Kv(Box<kv_bench::Args>),
}

/// Who makes orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Orders {
    /// Waves of synthetic orders: calm, peak, calm, silence.
    Bursty,
    /// Nobody: send your own.
    None,
}

/// The settings of `up`.
#[derive(Debug, Clone, Args)]
pub struct UpArgs {
    /// Folder for everything that is kept; it survives restarts
    #[arg(long, env = "DATA_DIR", default_value = "./data", value_name = "FOLDER")]
    pub data_dir: PathBuf,

    /// Synthetic orders
    #[arg(long, env = "ORDERS", default_value = "bursty", value_enum, value_name = "KIND")]
    pub orders: Orders,

    /// Drones in the fleet
    #[arg(long, env = "DRONE_POOL_MAX", default_value = "18", value_parser = at_least_one, value_name = "N")]
    pub drones: usize,

    /// Gateways behind the load balancer
    #[arg(long, env = "GATEWAYS", default_value = "3", value_parser = gateways, value_name = "N")]
    pub gateways: usize,

    /// A RabbitMQ to use instead of the in-process bus, amqp://user:password@host:port/vhost
    #[arg(long, env = "RABBIT_URL", value_name = "URL")]
    pub rabbit_url: Option<String>,

    /// Moves every port: gateways at N, lb at N+80, dispatcher at N+100, drones at N+200, kvfront at N+1000, kvstores after it;
    /// 0 takes free ports
    #[arg(long, env = "PORT_BASE", default_value_t = 8_000, value_name = "N", value_parser = clap::value_parser!(u16).range(..=64_000))]
    pub port_base: u16,

    /// Address to listen on; 0.0.0.0 opens every service to the network
    #[arg(long, env = "BIND_ADDR", default_value = "127.0.0.1", value_name = "ADDRESS")]
    pub bind: IpAddr,

    /// Lets the dashboard stop, pause, isolate, slow and wipe services, to see what the others do about it; for demonstrations (1 or 0)
    #[arg(long, env = "CHAOS", default_value = "0", default_missing_value = "1", num_args = 0..=1, require_equals = true, action = ArgAction::Set, value_parser = switch, value_name = "1|0")]
    pub chaos: bool,

    /// What is logged: a level (error, warn, info, debug, trace) or a filter such as `warn,kvfront=debug`
    #[arg(long, env = "LOG", default_value = "warn", value_name = "FILTER")]
    pub log: String,

    /// How log lines look
    #[arg(long, env = "LOG_FORMAT", default_value = "text", value_enum, value_name = "FORMAT")]
    pub log_format: LogFormat,
}

/// Most gateways in one process: their ports end before the load balancer's.
const MAX_GATEWAYS: usize = 80;

fn gateways(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..=MAX_GATEWAYS) => Ok(n),
        _ => Err(format!("a whole number from 1 to {MAX_GATEWAYS} is expected")),
    }
}
