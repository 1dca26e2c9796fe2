//! `dronedispatch kv watch`: changes as they happen, resumed after a break where they were left.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args as ClapArgs;
use kv_api::{WatchChange, WatchGap, encode_key};
use reqwest::StatusCode;
use serde_json::json;
use service::Shutdown;
use service::settings::at_least_one;

use super::sse::{Event, Events};
use crate::screen;

/// A kvfront gives a sign of life every 10 s: after so long without one it is gone.
const SILENCE_MAX: Duration = Duration::from_secs(25);
/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause before the next attempt.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// The settings of `kv watch`.
#[derive(Debug, Clone, ClapArgs)]
pub struct Args {
    /// Only keys that start with this
    #[arg(default_value = "")]
    pub prefix: String,
    /// Go on after this event's id (--json shows them); from now on without it
    #[arg(long, value_name = "ID")]
    pub after: Option<String>,
    /// End after so many changes
    #[arg(long, value_parser = at_least_one, value_name = "N")]
    pub count: Option<usize>,
}

/// How a stream ended.
enum Ended {
    /// All that was asked for was told, or nobody reads any more.
    Done,
    /// It broke off: another attempt may help.
    Broke(anyhow::Error),
    /// Trying again would not help.
    Refused(anyhow::Error),
}

struct Watcher<'a> {
    args: &'a Args,
    json: bool,
    after: Option<String>,
    left: usize,
}

/// Prints changes until Ctrl-C, or as many as were asked for.
pub(super) async fn main(urls: &str, args: &Args, json: bool, shutdown: Shutdown) -> anyhow::Result<u8> {
    let client = reqwest::Client::builder()
        .no_proxy()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(SILENCE_MAX)
        .build()?;
    let left = args.count.unwrap_or(usize::MAX);
    let mut watcher = Watcher {
        args,
        json,
        after: args.after.clone(),
        left,
    };
    // Any kvfront can go on where another one stopped.
    for base in urls.split(',').map(|url| url.trim().trim_end_matches('/')).cycle() {
        let ended = tokio::select! {
            ended = watcher.stream(&client, base) => ended,
            () = shutdown.stopped() => return Ok(0),
        };
        match ended {
            Ended::Done => return Ok(0),
            Ended::Refused(error) => return Err(error),
            Ended::Broke(error) => screen::complain(&format!("kv watch: {base}: {error:#}; trying again")),
        }
        if !shutdown.sleep(RETRY_PAUSE).await {
            break;
        }
    }
    Ok(0)
}

impl Watcher<'_> {
    /// One stream, until it ends.
    async fn stream(&mut self, client: &reqwest::Client, base: &str) -> Ended {
        let mut url = format!("{base}/watch?prefix={}", encode_key(&self.args.prefix));
        if let Some(after) = &self.after {
            url.push_str("&after=");
            url.push_str(&encode_key(after));
        }
        let mut answer = match client.get(url).send().await {
            Ok(answer) => answer,
            Err(error) => return Ended::Broke(error.without_url().into()),
        };
        let status = answer.status();
        if status != StatusCode::OK {
            let text = answer.text().await.unwrap_or_default();
            let error = anyhow::anyhow!("GET /watch was answered with {status}: {text}");
            return if status.is_client_error() {
                Ended::Refused(error)
            } else {
                Ended::Broke(error)
            };
        }
        let mut events = Events::default();
        loop {
            match answer.chunk().await {
                Ok(Some(piece)) => {
                    for event in events.push(&piece) {
                        match self.tell(&event) {
                            Ok(()) if self.left == 0 => return Ended::Done,
                            Ok(()) => {}
                            Err(error) if error.is::<std::io::Error>() => return Ended::Done,
                            Err(error) => return Ended::Refused(error),
                        }
                    }
                }
                Ok(None) => return Ended::Broke(anyhow::anyhow!("the stream has ended")),
                Err(error) => return Ended::Broke(error.without_url().into()),
            }
        }
    }

    fn tell(&mut self, event: &Event) -> anyhow::Result<()> {
        self.after = Some(event.id.clone());
        let read = || format!("the event {:?} cannot be read", event.kind);
        let line = match event.kind.as_str() {
            "change" => {
                let change: WatchChange = serde_json::from_str(&event.data).with_context(read)?;
                self.left = self.left.saturating_sub(1);
                if self.json {
                    self.as_json(event)?
                } else {
                    as_text(&change)
                }
            }
            "gap" if self.json => self.as_json(event)?,
            "gap" => {
                let gap: WatchGap = serde_json::from_str(&event.data).with_context(read)?;
                format!("gap\t{}", gap.reason)
            }
            _ => return Ok(()),
        };
        Ok(screen::print(&format!("{line}\n"))?)
    }

    fn as_json(&self, event: &Event) -> anyhow::Result<String> {
        // As it came, every digit of it: the data are one line of JSON.
        let (id, kind) = (json!(event.id), json!(event.kind));
        anyhow::ensure!(event.data.starts_with('{'), "the event {kind} carries no object");
        Ok(format!("{{\"id\":{id},\"event\":{kind},\"data\":{}}}", event.data))
    }
}

fn as_text(change: &WatchChange) -> String {
    let (key, version) = (&change.key, &change.version.0);
    if change.deleted {
        format!("deleted\t{key}\t{version}")
    } else {
        format!("changed\t{key}\t{version}\t{}", change.value.get())
    }
}
