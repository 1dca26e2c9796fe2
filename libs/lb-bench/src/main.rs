//! The program behind `scripts/bench lb`: the same requests to a backend directly, through our lb, through nginx and through HAProxy, in
//! turn, several rounds, and one table of medians. docs/benchmarks.md says how to read it.
//!
//! - `args`: settings.
//! - `servers`: the proxies and the backend as child processes, with their configurations.
//! - `load`: one window of load (wrk) with the CPU time that the proxy used meanwhile.
//! - `report`: medians, ratios and their spread.

mod args;
mod load;
mod report;
mod servers;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;

use crate::args::{Args, Via};
use crate::report::{Report, Window};
use crate::servers::{Backend, Proxy};

fn main() -> ExitCode {
    let args = Args::parse();
    match measure(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &Args) -> anyhow::Result<()> {
    let folder = tempfile::Builder::new()
        .prefix("lb-bench-")
        .tempdir_in(&args.dir)
        .with_context(|| format!("--dir: cannot make a folder in {}", args.dir.display()))?;
    let backend = Backend::start(args, folder.path())?;
    let proxies: Vec<(Via, Option<Proxy>)> = args
        .targets
        .iter()
        .map(|via| Ok((*via, Proxy::start(*via, args, &backend, folder.path())?)))
        .collect::<anyhow::Result<_>>()?;
    let mut windows = Vec::new();
    for bytes in &args.sizes {
        for round in 1..=args.rounds {
            for (via, proxy) in &proxies {
                let addr = proxy.as_ref().map_or(backend.addr, |proxy| proxy.addr);
                let pid = proxy.as_ref().map(Proxy::pid);
                let url = format!("http://{addr}/{bytes}");
                let measured =
                    load::window(args, &url, pid, *bytes).with_context(|| format!("{} round {round}", via.name()))?;
                let _ = writeln!(
                    std::io::stderr(),
                    "{bytes} bytes, round {round}/{}, {}: {:.0}/s",
                    args.rounds,
                    via.name(),
                    measured.requests_per_sec
                );
                windows.push(Window {
                    via: *via,
                    bytes: *bytes,
                    round,
                    measured,
                });
            }
        }
    }
    let report = Report::new(args, servers::versions(args), windows);
    std::io::stdout().write_all(report.table().as_bytes())?;
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(path, text + "\n").with_context(|| format!("--json: cannot write {}", path.display()))?;
    }
    Ok(())
}
