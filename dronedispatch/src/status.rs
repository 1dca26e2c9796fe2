//! The live line: orders waiting, flying, delivered; the fleet by state. On a terminal it is rewritten in place, elsewhere it is a plain
//! line now and then.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::time::Duration;

use serde_json::Value;
use service::Shutdown;

/// How often the line is renewed on a terminal.
const LIVE_EVERY: Duration = Duration::from_millis(500);
/// How often a plain line is written.
const PLAIN_EVERY: Duration = Duration::from_secs(5);
/// How long the figures may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// Writes an error where people look for it.
#[expect(clippy::print_stderr, reason = "the program's last word")]
pub fn say_error(message: &str) {
    eprintln!("error: {message}");
}

/// Writes a line for the user on standard output.
#[expect(clippy::print_stdout, reason = "standard output is this program's face")]
pub fn say(line: &str) {
    println!("{line}");
}

/// Renews the line until `shutdown`, from the figures at `stats_url`.
pub async fn show(client: reqwest::Client, stats_url: String, shutdown: Shutdown) {
    let live = std::io::stdout().is_terminal();
    let every = if live { LIVE_EVERY } else { PLAIN_EVERY };
    let mut last = String::new();
    while shutdown.sleep(every).await {
        let line = match figures(&client, &stats_url).await {
            Ok(stats) => describe(&stats),
            Err(error) => format!("no figures: {error}"),
        };
        if live {
            let mut out = std::io::stdout().lock();
            // Nobody reads a broken terminal, so a failed write is nobody's loss.
            let _ = write!(out, "\r\x1b[2K{line}").and_then(|()| out.flush());
        } else if line != last {
            say(&line);
        }
        last = line;
    }
    if live && !last.is_empty() {
        say("");
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
