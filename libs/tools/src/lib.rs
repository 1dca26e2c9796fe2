//! What operators run beside the system. Each tool is settings (`Args`, for clap) and a `main` that gives the exit code.
//!
//! - [`doctor`]: what is wrong here, and what to do about it.
//! - [`kv`]: the KV from the command line.
//! - [`slo`]: are the promises kept? [`slo_watch`]: requests, errors and percentiles per interval.
//! - [`top`]: the dashboard's essence in a terminal.
//! - [`compose`]: how Compose is called here. [`gateway`]: what the tools ask a gateway. [`screen`]: what people see.

pub mod compose;
pub mod doctor;
pub mod gateway;
pub mod kv;
mod pieces;
pub mod screen;
pub mod slo;
pub mod slo_watch;
pub mod top;

use std::future::Future;
use std::process::ExitCode;

use service::Shutdown;

/// Exit code of a tool that could not do its work, where the smaller ones have a meaning.
pub const COULD_NOT_RUN: u8 = 4;

/// Runs a tool until it ends by itself; it is told of Ctrl-C.
///
/// # Errors
/// The tool's own, or when the process cannot have a runtime.
pub fn run<Fut>(tool: impl FnOnce(Shutdown) -> Fut) -> anyhow::Result<u8>
where
    Fut: Future<Output = anyhow::Result<u8>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let shutdown = Shutdown::new();
        shutdown.on_signals()?;
        tool(shutdown).await
    });
    // A thread that waits for standard input would otherwise be waited for.
    runtime.shutdown_background();
    result
}

/// The exit code of a tool: its own, or `failed` with the error on standard error.
#[must_use]
pub fn ended(result: anyhow::Result<u8>, failed: u8) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            screen::complain(&format!("error: {error:#}"));
            ExitCode::from(failed)
        }
    }
}
