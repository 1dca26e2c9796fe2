//! The live line: orders waiting, flying, delivered; the fleet by state. On a terminal it is rewritten in place, elsewhere it is a plain
//! line now and then. Log lines and the access log go through [`Above`], so that they do not land in the middle of it.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use service::Shutdown;

/// How often the line is renewed on a terminal.
const LIVE_EVERY: Duration = Duration::from_millis(500);
/// How often a plain line is written.
const PLAIN_EVERY: Duration = Duration::from_secs(5);
/// How long the figures may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// The live line on the terminal now; empty when there is none. Whoever writes above it holds the lock meanwhile.
static LIVE_LINE: Mutex<String> = Mutex::new(String::new());

/// Takes the live line off the terminal.
const CLEAR_LINE: &[u8] = b"\r\x1b[2K";

/// A stream that may share its terminal with the live line: what is written, whole lines at a time, appears above it.
#[derive(Debug)]
pub struct Above<W>(pub W);

impl<W: io::Write> io::Write for Above<W> {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let live = live_line();
        if live.is_empty() {
            return self.0.write(lines);
        }
        show_live(CLEAR_LINE);
        let written = self.0.write_all(lines).and_then(|()| self.0.flush());
        show_live(&in_place(&live));
        written.map(|()| lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Where log lines go: standard error, above the live line when both are on the terminal.
#[must_use]
pub fn log_writer() -> Above<io::Stderr> {
    Above(io::stderr())
}

/// Writes an error where people look for it.
pub fn say_error(message: &str) {
    // Nobody reads a broken terminal, so a failed write is nobody's loss; likewise below.
    let _ = writeln!(Above(io::stderr()), "error: {message}");
}

/// Writes a line for the user on standard output.
pub fn say(line: &str) {
    let _ = Above(io::stdout()).write_all(format!("{line}\n").as_bytes());
}

fn live_line() -> MutexGuard<'static, String> {
    // The line is whole at every point where a panic could happen, so a poisoned lock is still good.
    LIVE_LINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The bytes that put `line` into the terminal's current line. Wrapping is off meanwhile: of a line that is too long for the window the
/// end is lost, instead of a copy of its beginning left behind by each renewal.
fn in_place(line: &str) -> Vec<u8> {
    [CLEAR_LINE, b"\x1b[?7l", line.as_bytes(), b"\x1b[?7h"].concat()
}

fn show_live(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(bytes).and_then(|()| out.flush());
}

/// Renews the line until `shutdown`, from the figures at `stats_url`.
pub async fn show(client: reqwest::Client, stats_url: String, shutdown: Shutdown) {
    let is_live = io::stdout().is_terminal();
    let every = if is_live { LIVE_EVERY } else { PLAIN_EVERY };
    let mut last = String::new();
    while shutdown.sleep(every).await {
        let line = tokio::select! {
            () = shutdown.stopped() => break,
            stats = figures(&client, &stats_url) => match stats {
                Ok(stats) => describe(&stats),
                Err(error) => format!("no figures: {error}"),
            },
        };
        if is_live {
            let mut live = live_line();
            show_live(&in_place(&line));
            live.clone_from(&line);
        } else if line != last {
            say(&line);
        }
        last = line;
    }
    if is_live {
        let mut live = live_line();
        if !live.is_empty() {
            live.clear();
            show_live(b"\n");
        }
    }
}

async fn figures(client: &reqwest::Client, url: &str) -> reqwest::Result<Value> {
    client
        .get(url)
        .timeout(ASK_TIMEOUT)
        .send()
        .await?
        .error_for_status()?
        .json()
        .await
}

/// The line for one answer of `/stats`.
fn describe(stats: &Value) -> String {
    let count = |status: &str| stats["deliveries"][status].as_u64().unwrap_or(0);
    let mut line = format!(
        "orders: {} waiting, {} flying, {} delivered",
        count("pending"),
        count("assigned") + count("in_flight"),
        count("delivered")
    );
    for (status, word) in [("failed", "failed"), ("cancelled", "cancelled")] {
        if count(status) > 0 {
            let _ = write!(line, ", {} {word}", count(status));
        }
    }
    if let Some(fleet) = stats["fleet"].as_object() {
        let states: Vec<_> = fleet
            .iter()
            .map(|(state, drones)| format!("{drones} {state}"))
            .collect();
        if !states.is_empty() {
            let _ = write!(line, "  |  drones: {}", states.join(", "));
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lines_appear_whole_above_the_live_line() {
        let mut screen = Above(Vec::new());
        screen.write_all(b"before\n").unwrap();
        live_line().push_str("orders: 1 waiting");
        screen.write_all(b"WARN trouble\n").unwrap();
        live_line().clear();
        assert_eq!(screen.0, b"before\nWARN trouble\n");
        assert_eq!(in_place("orders"), b"\r\x1b[2K\x1b[?7lorders\x1b[?7h");
    }

    #[test]
    fn the_line_says_what_matters() {
        let stats = json!({
            "deliveries": {"pending": 2, "assigned": 1, "in_flight": 3, "delivered": 40, "failed": 1, "cancelled": 0},
            "fleet": {"busy": 4, "idle": 14},
        });
        assert_eq!(
            describe(&stats),
            "orders: 2 waiting, 4 flying, 40 delivered, 1 failed  |  drones: 4 busy, 14 idle"
        );
        assert_eq!(describe(&json!({})), "orders: 0 waiting, 0 flying, 0 delivered");
    }
}
