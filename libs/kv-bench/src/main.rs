//! The program behind `scripts/bench kv`: what `dronedispatch bench kv` is too, without the rest of the system to build.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;

#[derive(Debug, Parser)]
#[command(name = "kv-bench", version)]
struct Cli {
    #[command(flatten)]
    args: kv_bench::Args,
}

fn main() -> ExitCode {
    match kv_bench::main(&Cli::parse().args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
