//! `dronedispatch slo-watch`: requests, errors and percentiles per interval, against plain thresholds. Flags, output and exit codes are those that
//! scripts know from `tests/slo_watch.sh`, which calls it.

use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args as ClapArgs;
use serde::Serialize;
use service::Shutdown;
use slo::intervals::{Intervals, PathFilter, Row, Thresholds};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::pieces::{Pieces, Source, open};
use crate::{ended, run, screen};

/// Exit code when a threshold is missed.
const MISSED: u8 = 1;
/// Exit code of a wrong call.
const WRONG_CALL: u8 = 2;
/// Shortest interval, seconds.
const INTERVAL_MIN_SEC: f64 = 0.01;
/// Longest interval or duration, seconds: ten years.
const TIME_MAX_SEC: f64 = 315_360_000.0;

/// Print requests, errors and latency percentiles of lb's access log, per interval and for the whole run
///
/// It sends no request itself. Understands each format of the log; event streams are left out, whose length is no latency. Refusals by the rate
/// limit (429) are counted on their own, not as errors.
#[derive(Debug, Clone, ClapArgs)]
pub struct Args {
    /// - reads standard input; else `docker compose logs -f lb` is followed from now on, until Ctrl-C
    #[arg(value_name = "-", value_parser = ["-"])]
    pub input: Option<String>,

    /// Length of an interval, seconds
    #[arg(long, default_value = "10", value_parser = number, value_name = "SEC")]
    pub interval: f64,

    /// Stop following after so many seconds; 0 = never
    #[arg(long, default_value = "0", value_parser = number, value_name = "SEC")]
    pub duration: f64,

    /// Only requests whose path matches, such as '^/deliveries'
    #[arg(long, value_parser = pattern, value_name = "REGEX")]
    pub path: Option<regex::bytes::Regex>,

    /// Exit with 1 when the whole run is over a threshold or saw too few requests
    #[arg(long)]
    pub assert: bool,

    /// Threshold of errors, which are answers of 500 and above, percent
    #[arg(long, default_value = "1", value_parser = number, value_name = "N")]
    pub max_error_percent: f64,

    /// Threshold of the 95th percentile, milliseconds
    #[arg(long, default_value = "300", value_parser = number, value_name = "N")]
    pub max_p95_ms: f64,

    /// Threshold of the 99th percentile, milliseconds
    #[arg(long, default_value = "1000", value_parser = number, value_name = "N")]
    pub max_p99_ms: f64,

    /// Fewer requests prove nothing
    #[arg(long, default_value = "1", value_parser = number, value_name = "N")]
    pub min_requests: f64,

    /// Print JSON: a line per interval, then one of the whole run
    #[arg(long)]
    pub json: bool,
}

/// The last line of `--json`.
#[derive(Serialize)]
struct Whole {
    total: Row,
    /// Lines that were no samples: event streams, other formats.
    others: u64,
    /// With `--assert`: thresholds that were missed.
    #[serde(skip_serializing_if = "Option::is_none")]
    missed: Option<Vec<String>>,
}

/// The command.
#[must_use]
pub fn main(args: &Args) -> ExitCode {
    ended(run(|shutdown| watch(args, shutdown)), WRONG_CALL)
}

async fn watch(args: &Args, shutdown: Shutdown) -> anyhow::Result<u8> {
    let is_input = args.input.is_some();
    let source = if is_input {
        Source::Input
    } else {
        Source::Compose { from_now: true }
    };
    let pieces = open(&source, true)?;
    let filter = args
        .path
        .clone()
        .map(|pattern| -> PathFilter { Box::new(move |path| pattern.is_match(path)) });
    let mut intervals = Intervals::new(filter);
    if !args.json {
        screen::print(&format!("{}\n", Intervals::header()))?;
    }
    let duration = Some(args.duration).filter(|sec| *sec > 0.0 && !is_input);
    count(args, &mut intervals, pieces, duration, &shutdown).await?;
    intervals.finish();
    let missed = args.assert.then(|| intervals.misses(&args.thresholds()));
    let code = if missed.as_ref().is_some_and(|missed| !missed.is_empty()) {
        MISSED
    } else {
        0
    };
    let text = if args.json {
        let whole = Whole {
            total: intervals.all(),
            others: intervals.others(),
            missed,
        };
        format!("{}\n", serde_json::to_string(&whole)?)
    } else {
        as_text(&intervals, missed.as_deref())
    };
    // A pipe that nobody reads any more is nobody's loss: the exit code says it as well.
    let _ = screen::print(&text);
    Ok(code)
}

/// The whole run, and what was missed of the thresholds, if that was asked for.
fn as_text(intervals: &Intervals, missed: Option<&[String]>) -> String {
    let mut text = format!("{}\n", intervals.total());
    for miss in missed.unwrap_or_default() {
        text.push_str(&format!("SLO missed: {miss}\n"));
    }
    if missed.is_some_and(<[String]>::is_empty) {
        text.push_str("SLO met\n");
    }
    text
}

/// Counts until the log ends, Ctrl-C, or the time is up.
async fn count(
    args: &Args,
    intervals: &mut Intervals,
    mut pieces: Pieces,
    duration_sec: Option<f64>,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    let mut ticks = interval(Duration::from_secs_f64(args.interval.max(INTERVAL_MIN_SEC)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await; // the first comes at once
    let end = Instant::now() + Duration::from_secs_f64(duration_sec.unwrap_or(TIME_MAX_SEC));
    loop {
        tokio::select! {
            piece = pieces.recv() => match piece {
                Some(piece) => intervals.feed(&piece.context("the log cannot be read")?),
                None => return Ok(()),
            },
            _ = ticks.tick() => {
                let row = intervals.tick(&local_time());
                let row = if args.json { serde_json::to_string(&row)? } else { row.to_string() };
                if screen::print(&format!("{row}\n")).is_err() {
                    return Ok(());
                }
            }
            () = sleep_until(end) => return Ok(()),
            () = shutdown.stopped() => return Ok(()),
        }
    }
}

impl Args {
    fn thresholds(&self) -> Thresholds {
        Thresholds {
            max_error_percent: self.max_error_percent,
            max_p95_ms: self.max_p95_ms,
            max_p99_ms: self.max_p99_ms,
            min_requests: self.min_requests,
        }
    }
}

/// The time of day where the reader is. What that is only the system's own `date` knows without a library of time zones.
fn local_time() -> String {
    let said = Command::new("date").arg("+%T").output().ok();
    let text = said
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .unwrap_or_default();
    if text.trim().is_empty() {
        "-".to_owned()
    } else {
        text.trim().to_owned()
    }
}

/// Value parser: digits, perhaps with decimals. Its words are those that scripts match.
fn number(text: &str) -> Result<f64, String> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        && text.starts_with(|c: char| c.is_ascii_digit());
    let parsed = text.parse::<f64>().ok().filter(|n| is_plain && *n <= TIME_MAX_SEC);
    parsed.ok_or_else(|| format!("expected a number, got '{text}'"))
}

/// Value parser: a regular expression over bytes.
fn pattern(text: &str) -> Result<regex::bytes::Regex, String> {
    let built = regex::bytes::RegexBuilder::new(text).unicode(false).build();
    built.map_err(|error| format!("a regular expression is expected: {error}"))
}
