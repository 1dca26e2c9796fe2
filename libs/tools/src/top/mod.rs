//! `dronedispatch top`: the dashboard's essence in a terminal.

mod look;
mod picture;
#[cfg(test)]
mod tests;

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args as ClapArgs;
use service::Shutdown;
use service::settings::positive;
use tokio::time::Instant;

use self::look::{Looker, Seen};
use self::picture::Picture;
use crate::{COULD_NOT_RUN, ended, run, screen};

/// Watch orders, drones, the KV and the traffic in a terminal
///
/// On a terminal it is renewed in place until Ctrl-C. Elsewhere, and with --once or --json, it looks twice, for rates, prints once and ends.
#[derive(Debug, Clone, ClapArgs)]
pub struct Args {
    /// lb, http://host:port
    #[arg(long, env = "LB_URL", default_value = "http://127.0.0.1:8080", value_name = "URL")]
    pub url: String,

    /// kvfront, http://host:port
    #[arg(long, env = "KVFRONT_URL", default_value = kv_client::DEFAULT_URL, value_name = "URL")]
    pub kv_url: String,

    /// Seconds between two looks
    #[arg(long, default_value = "1", value_parser = positive, value_name = "SEC")]
    pub interval: f64,

    /// Orders listed
    #[arg(long, default_value = "10", value_parser = orders, value_name = "N")]
    pub orders: usize,

    /// Print once and end
    #[arg(long)]
    pub once: bool,

    /// Print JSON, once
    #[arg(long)]
    pub json: bool,
}

/// The command.
#[must_use]
pub fn main(args: &Args) -> ExitCode {
    ended(run(|shutdown| watch(args, shutdown)), COULD_NOT_RUN)
}

async fn watch(args: &Args, shutdown: Shutdown) -> anyhow::Result<u8> {
    let looker = Looker::new(&args.url, &args.kv_url)?;
    let interval = Duration::try_from_secs_f64(args.interval)?;
    let is_once = args.once || args.json || !std::io::stdout().is_terminal();
    let mut last: Option<(Instant, Seen)> = None;
    loop {
        let at = Instant::now();
        let seen = looker.look().await;
        let before = last
            .as_ref()
            .map(|(before, seen)| (seen, at.duration_since(*before).as_secs_f64()));
        let picture = Picture::new(&seen, before, args.orders);
        if is_once && before.is_some() {
            screen::print(&if args.json {
                format!("{}\n", serde_json::to_string(&picture)?)
            } else {
                picture.text()
            })?;
            return Ok(if picture.orders.is_some() { 0 } else { COULD_NOT_RUN });
        }
        if !is_once && screen::redraw(&picture.text()).is_err() {
            return Ok(0);
        }
        last = Some((at, seen));
        if !shutdown.sleep(interval).await {
            return Ok(0);
        }
    }
}

/// Most orders that are listed: as many as are read.
const ORDERS_MAX: usize = look::ORDERS_READ;

/// Value parser: how many orders.
fn orders(text: &str) -> Result<usize, String> {
    let number = text.trim().parse().ok().filter(|n| *n <= ORDERS_MAX);
    number.ok_or_else(|| format!("a whole number from 0 to {ORDERS_MAX} is expected"))
}
