//! `dronedispatch slo`: are the promises kept?

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args as ClapArgs;
use service::Shutdown;
use service::clock::{WallClock, system_clock};
use service::settings::positive;
use slo::report::asks_for_orders;
use slo::{Report, Spec, Tracker};
use tokio::time::{MissedTickBehavior, interval};

use crate::gateway::Gateway;
use crate::pieces::{Pieces, Source, open};
use crate::{COULD_NOT_RUN, ended, run, screen};

/// Largest SLO file, bytes.
const SPEC_MAX_BYTES: u64 = 1 << 20;

/// Tell whether the promises made to customers are being kept, from lb's access log
///
/// Reads each of the log's formats, with or without the prefix of `docker compose logs`. Exit code: 0 kept, 1 at risk, 2 broken, 3 not enough data,
/// 4 it could not be told.
#[derive(Debug, Clone, ClapArgs)]
pub struct Args {
    /// The access log: a file, or - for standard input; without it what `docker compose logs lb` gives
    #[arg(value_name = "FILE")]
    pub file: Option<String>,

    /// Go on as the log grows, until Ctrl-C
    #[arg(long, short)]
    pub follow: bool,

    /// With --follow: seconds between two reports
    #[arg(long, default_value = "5", value_parser = positive, value_name = "SEC")]
    pub interval: f64,

    /// Only so much of the past counts, such as 90s, 15m, 6h or 7d; by default all that is read (of orders: the long window of the burn rate)
    #[arg(long, value_parser = window, value_name = "TIME")]
    pub window: Option<u64>,

    /// The objectives, a JSON file; without it the built-in ones hold
    #[arg(long, value_name = "FILE")]
    pub slo: Option<PathBuf>,

    /// Where to ask for orders: lb or a gateway, http://host:port; without it objectives about orders are left out
    #[arg(long, env = "LB_URL", value_name = "URL")]
    pub url: Option<String>,

    /// Print JSON: one object per report
    #[arg(long)]
    pub json: bool,

    /// Print the objectives that hold, as an SLO file, and end
    #[arg(long)]
    pub print_slo: bool,
}

/// The command.
#[must_use]
pub fn main(args: &Args) -> ExitCode {
    ended(run(|shutdown| watch(args, shutdown)), COULD_NOT_RUN)
}

/// Reads, counts and reports; the exit code is the last report's.
async fn watch(args: &Args, shutdown: Shutdown) -> anyhow::Result<u8> {
    let spec = args.slo.as_deref().map(read_spec).transpose()?.unwrap_or_default();
    if args.print_slo {
        screen::print(&format!("{}\n", serde_json::to_string_pretty(&spec)?))?;
        return Ok(0);
    }
    let gateway = match &args.url {
        Some(url) if asks_for_orders(&spec) => Some(Gateway::new(url)?),
        _ => None,
    };
    let pieces = open(&Source::of(args.file.as_deref()), args.follow)?;
    let tracker = Tracker::new(spec, args.window);
    let watcher = Watcher {
        args,
        tracker,
        gateway,
        clock: system_clock(),
    };
    if args.follow {
        watcher.follow(pieces, shutdown).await
    } else {
        watcher.once(pieces, shutdown).await
    }
}

struct Watcher<'a> {
    args: &'a Args,
    tracker: Tracker,
    gateway: Option<Gateway>,
    clock: WallClock,
}

impl Watcher<'_> {
    /// Reads to the end; windows end at the newest line.
    async fn once(mut self, mut pieces: Pieces, shutdown: Shutdown) -> anyhow::Result<u8> {
        loop {
            tokio::select! {
                piece = pieces.recv() => match piece {
                    Some(piece) => self.tracker.feed(&piece.context("the log cannot be read")?, None),
                    None => break,
                },
                () = shutdown.stopped() => break,
            }
        }
        self.tracker.finish(None);
        self.ask_for_orders().await?;
        let report = Report::new(&self.tracker, None);
        // A pipe that nobody reads any more is nobody's loss: the exit code says it as well.
        let _ = screen::print(&self.show(&report)?);
        Ok(report.exit_code)
    }

    /// Reads on and reports now and then; windows end now.
    async fn follow(mut self, mut pieces: Pieces, shutdown: Shutdown) -> anyhow::Result<u8> {
        let mut ticks = interval(Duration::from_secs_f64(self.args.interval));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await; // the first comes at once
        loop {
            tokio::select! {
                piece = pieces.recv() => match piece {
                    Some(piece) => {
                        let now_ms = (self.clock)();
                        self.tracker.feed(&piece.context("the log cannot be read")?, Some(now_ms));
                    }
                    None => break,
                },
                _ = ticks.tick() => {
                    if self.tell().await.is_err() {
                        break;
                    }
                }
                () = shutdown.stopped() => break,
            }
        }
        self.tracker.finish(Some((self.clock)()));
        let report = self.report().await;
        let _ = screen::redraw(&self.show(&report)?);
        Ok(report.exit_code)
    }

    async fn tell(&mut self) -> anyhow::Result<()> {
        let report = self.report().await;
        Ok(screen::redraw(&self.show(&report)?)?)
    }

    /// The report now. While the gateway does not answer, orders stay as they were; that is told.
    async fn report(&mut self) -> Report {
        if let Err(error) = self.ask_for_orders().await {
            screen::complain(&format!("slo: orders are not known: {error:#}"));
        }
        Report::new(&self.tracker, Some((self.clock)()))
    }

    async fn ask_for_orders(&mut self) -> anyhow::Result<()> {
        let Some(gateway) = &self.gateway else { return Ok(()) };
        let spec = self.tracker.spec();
        // An order counts when it is decided: those placed a little before the window may be decided within it.
        let longest_sec = spec
            .objectives
            .iter()
            .filter_map(|objective| objective.max_ms)
            .fold(0.0, f64::max)
            / 1_000.0;
        let window_sec = Duration::from_secs(self.args.window.unwrap_or(spec.long_sec)).as_secs_f64();
        let found = gateway.orders(|now_sec| now_sec - window_sec - longest_sec).await?;
        self.tracker.set_orders(&found.orders, found.now_sec, found.truncated);
        Ok(())
    }

    fn show(&self, report: &Report) -> anyhow::Result<String> {
        Ok(if self.args.json {
            format!("{}\n", serde_json::to_string(report)?)
        } else {
            report.table()
        })
    }
}

fn read_spec(path: &Path) -> anyhow::Result<Spec> {
    let name = path.display();
    let size = std::fs::metadata(path).with_context(|| format!("--slo {name}"))?.len();
    anyhow::ensure!(
        size <= SPEC_MAX_BYTES,
        "--slo {name}: got {size} bytes; at most {SPEC_MAX_BYTES} are expected"
    );
    let text = std::fs::read_to_string(path).with_context(|| format!("--slo {name}"))?;
    Spec::parse(&text).with_context(|| format!("--slo {name}"))
}

/// Longest window: a year.
const WINDOW_MAX_SEC: u64 = 366 * 86_400;

/// Value parser: `90s`, `15m`, `6h`, `7d`; a plain number is seconds.
fn window(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let (digits, unit_sec) = match text.char_indices().last() {
        Some((at, 's')) => (&text[..at], 1),
        Some((at, 'm')) => (&text[..at], 60),
        Some((at, 'h')) => (&text[..at], 3_600),
        Some((at, 'd')) => (&text[..at], 86_400),
        _ => (text, 1),
    };
    let seconds = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit_sec));
    seconds
        .filter(|sec| (1..=WINDOW_MAX_SEC).contains(sec))
        .ok_or_else(|| "a time such as 90s, 15m, 6h or 7d, at most 366d, is expected".to_owned())
}
