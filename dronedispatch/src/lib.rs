//! The one command. `dronedispatch` (or `dronedispatch up`) runs three kvstores, kvfront, the gateways, lb, dispatcher, the drones and the
//! order generator in one process, talking through loopback HTTP exactly as separate programs do, with the in-process bus or RabbitMQ.
//! `dronedispatch bench kv` measures the KV beside etcd and Redis (crate `kv-bench`), `dronedispatch simulate` compares dispatch policies under
//! a virtual clock (crate `dispatch-bench`). `doctor` looks for what is wrong, `kv` uses the KV, `slo` and `slo-watch` tell whether promises are
//! kept, `top` shows what happens (crate `tools`).
//!
//! - [`chaos`]: breaking services on purpose.
//! - [`cli`]: the settings.
//! - [`ports`]: who listens where, and the listeners themselves.
//! - [`system`]: starting every service, and stopping them in the order that loses nothing.
//! - [`status`]: the live line.

pub mod chaos;
pub mod cli;
pub mod ports;
pub mod status;
pub mod system;

use std::process::ExitCode;
use std::time::Duration;

use clap::CommandFactory as _;
#[cfg(test)]
use clap::FromArgMatches as _;
use service::Shutdown;
use service::settings::{CommonArgs, exit_with};

use crate::cli::{Bench, Cli, Command, UpArgs};

/// The program.
#[must_use]
pub fn main() -> ExitCode {
    let Cli { command, up } = service::settings::parse();
    let result = match command.unwrap_or(Command::Up(up)) {
        Command::Up(args) => run_up(&args),
        Command::Simulate(args) => dispatch_bench::main(&args),
        Command::Bench(Bench::Kv(args)) => kv_bench::main(&args),
        Command::Doctor(args) => return tools::doctor::main(&args),
        Command::Kv(args) => return tools::kv::main(&args),
        Command::Slo(args) => return tools::slo::main(&args),
        Command::SloWatch(args) => return tools::slo_watch::main(&args),
        Command::Top(args) => return tools::top::main(&args),
        Command::Completions { shell } => {
            let written = std::io::Write::write_all(&mut std::io::stdout(), &completions(shell));
            written.map_err(anyhow::Error::from)
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            status::say_error(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// What the shell reads.
fn completions(shell: clap_complete::Shell) -> Vec<u8> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "dronedispatch", &mut text);
    text
}

fn run_up(args: &UpArgs) -> anyhow::Result<()> {
    let common = CommonArgs {
        worker_threads: None,
        log: args.log.clone(),
        log_format: args.log_format,
        check_health: false,
    };
    if let Err(error) = service::logging::init_to(&common, status::log_writer) {
        exit_with(&error.to_string());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let shutdown = Shutdown::new();
        shutdown.on_signals()?;
        system::up(args, shutdown).await
    });
    runtime.shutdown_timeout(Duration::from_millis(300));
    result
}

/// Checks that the flags of the two spellings (`dronedispatch --x` and `dronedispatch up --x`) are the same.
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn up_is_what_runs_without_a_subcommand() {
        Cli::command().debug_assert();
        let parse = |args: &[&str]| Cli::from_arg_matches(&Cli::command().get_matches_from(args)).unwrap();
        let plain = parse(&["dronedispatch", "--drones", "7"]);
        assert!(plain.command.is_none());
        assert_eq!(plain.up.drones, 7);
        let Some(Command::Up(up)) = parse(&["dronedispatch", "up", "--drones", "7"]).command else {
            panic!("up")
        };
        assert_eq!(
            (up.drones, up.gateways, up.chaos),
            (7, 3, false),
            "nothing can be broken by default"
        );
        assert!(parse(&["dronedispatch", "--chaos"]).up.chaos && parse(&["dronedispatch", "--chaos=1"]).up.chaos);
        let bench = parse(&["dronedispatch", "bench", "kv", "--url", "http://127.0.0.1:9000"]).command;
        assert!(matches!(bench, Some(Command::Bench(Bench::Kv(args))) if args.url.is_some()));
        let simulate = parse(&["dronedispatch", "simulate", "--drones", "7", "--json"]).command;
        assert!(matches!(simulate, Some(Command::Simulate(args)) if args.drones == Some(7) && args.json));
        let shells = parse(&["dronedispatch", "completions", "zsh"]).command;
        assert!(matches!(shells, Some(Command::Completions { .. })));
        let slo = parse(&["dronedispatch", "slo", "-", "--follow", "--window", "15m"]).command;
        assert!(matches!(slo, Some(Command::Slo(args)) if args.follow && args.window == Some(900)));
    }

    #[test]
    fn completions_know_every_command() {
        for shell in [
            clap_complete::Shell::Bash,
            clap_complete::Shell::Zsh,
            clap_complete::Shell::Fish,
        ] {
            let text = String::from_utf8(completions(shell)).unwrap();
            for command in Cli::command().get_subcommands() {
                assert!(text.contains(command.get_name()), "{shell}: {}", command.get_name());
            }
        }
    }
}
