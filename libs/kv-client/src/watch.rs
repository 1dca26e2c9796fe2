//! Watching keys: the feed of `GET /watch`, which goes on by itself after breaks.

use std::sync::Arc;
use std::time::Duration;

use kv_api::{RawValue, Version, WatchChange, WatchGap, encode_key};
use reqwest::Response;
use tokio::time::{Instant, sleep_until};

use crate::transport::Transport;
use crate::{Kv, KvError};

/// Middle of the first pause before a broken feed is opened again; doubles each time, with ±50 % of jitter.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Longest pause between attempts.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// What a [`Watch`] tells.
#[derive(Debug, Clone)]
pub enum WatchEvent {
    /// A key has another value now.
    Change(Change),
    /// The feed is alive. The first event of a watch is one: whatever changes after it is told.
    Alive,
    /// Changes of any key may have been missed. List again what is needed; the feed goes on from now.
    Gap {
        /// Why.
        reason: String,
    },
}

/// A change of a key.
#[derive(Debug, Clone)]
pub struct Change {
    /// The key.
    pub key: String,
    /// Its value now; `None` when it is gone.
    pub value: Option<Box<RawValue>>,
    /// Its version. Of one key, versions as text grow; the last one may come a second time after a break.
    pub version: Version,
}

/// A feed of the changes of all keys with one prefix.
///
/// Promises what the KV promises (see `GET /watch` in the API): of each key nothing is missed without a [`WatchEvent::Gap`], and nothing
/// goes backwards. A break costs nothing: the feed goes on where it stopped, at whichever kvfront answers.
#[derive(Debug)]
pub struct Watch {
    transport: Arc<Transport>,
    prefix: String,
    /// Id of the last event.
    after: Option<String>,
    feed: Option<(Response, Lines)>,
    pause: Duration,
    /// No attempt to open it before this.
    not_before: Option<Instant>,
}

impl Kv {
    /// Watches the keys that start with `prefix`, from the first event on. Nothing is connected before [`Watch::next`].
    #[must_use]
    pub fn watch(&self, prefix: &str) -> Watch {
        Watch {
            transport: Arc::clone(&self.transport),
            prefix: prefix.to_owned(),
            after: None,
            feed: None,
            pause: FIRST_PAUSE,
            not_before: None,
        }
    }
}

impl Watch {
    /// The next event, however long that takes. Cancel safe.
    ///
    /// # Errors
    /// Why the feed broke or cannot be opened. That is not its end: the next call, after a pause, goes on where it stopped.
    pub async fn next(&mut self) -> Result<WatchEvent, KvError> {
        let event = self.try_next().await;
        match &event {
            Ok(_) => self.pause = FIRST_PAUSE,
            Err(_) => self.broken(),
        }
        event
    }

    async fn try_next(&mut self) -> Result<WatchEvent, KvError> {
        let Some((response, lines)) = &mut self.feed else {
            return self.open().await;
        };
        loop {
            if let Some(event) = lines.take() {
                return read(&event, &mut self.after);
            }
            match response.chunk().await {
                Ok(Some(piece)) => lines.add(&piece, self.transport.max_answer_bytes())?,
                Ok(None) => return Err(unavailable("it ended")),
                Err(error) => return Err(unavailable(&error.without_url().to_string())),
            }
        }
    }

    /// Opens the feed and gives its first event.
    async fn open(&mut self) -> Result<WatchEvent, KvError> {
        if let Some(at) = self.not_before {
            sleep_until(at).await;
        }
        let mut path = format!("/watch?prefix={}", encode_key(&self.prefix));
        if let Some(after) = &self.after {
            path.push_str("&after=");
            path.push_str(&encode_key(after));
        }
        match self.transport.stream(&path).await {
            Ok(response) => {
                self.feed = Some((response, Lines::default()));
                Box::pin(self.try_next()).await
            }
            // A place that no kvfront knows any more: begin anew, and say so.
            Err(KvError::Rejected { detail, .. }) if self.after.is_some() => {
                self.after = None;
                Ok(WatchEvent::Gap { reason: detail })
            }
            Err(error) => Err(error),
        }
    }

    fn broken(&mut self) {
        self.feed = None;
        self.not_before = Some(Instant::now() + self.pause.mul_f64(rand::random_range(0.5..1.5)));
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }
}

fn unavailable(why: &str) -> KvError {
    KvError::Unavailable {
        detail: format!("GET /watch: {why}"),
    }
}

/// The event in `text`; `after` becomes its id.
fn read(text: &str, after: &mut Option<String>) -> Result<WatchEvent, KvError> {
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or_default()
    };
    let bad = |error: serde_json::Error| KvError::decode("GET /watch", error);
    let event = match field("event: ") {
        "change" => {
            let change: WatchChange = serde_json::from_str(field("data: ")).map_err(bad)?;
            WatchEvent::Change(Change {
                value: (!change.deleted).then_some(change.value),
                key: change.key,
                version: change.version,
            })
        }
        "gap" => WatchEvent::Gap {
            reason: serde_json::from_str::<WatchGap>(field("data: ")).map_err(bad)?.reason,
        },
        _ => WatchEvent::Alive,
    };
    let id = field("id: ");
    if !id.is_empty() {
        *after = Some(id.to_owned());
    }
    Ok(event)
}

/// Cuts a stream of bytes into events: what stands between empty lines.
#[derive(Debug, Default)]
struct Lines {
    bytes: Vec<u8>,
    /// Up to here they have been taken.
    taken: usize,
    /// Up to here there is no end of an event.
    searched: usize,
}

impl Lines {
    fn add(&mut self, piece: &[u8], max_bytes: usize) -> Result<(), KvError> {
        // Everything complete has been taken by now, so what is moved is the beginning of one event.
        self.bytes.drain(..self.taken);
        self.searched -= self.taken;
        self.taken = 0;
        if self.bytes.len() + piece.len() > max_bytes {
            return Err(KvError::decode(
                "GET /watch",
                format_args!("an event is longer than {max_bytes} bytes"),
            ));
        }
        self.bytes.extend_from_slice(piece);
        Ok(())
    }

    fn take(&mut self) -> Option<String> {
        let from = self.searched.saturating_sub(1).max(self.taken);
        let Some(at) = self.bytes[from..].windows(2).position(|pair| pair == b"\n\n") else {
            self.searched = self.bytes.len();
            return None;
        };
        let end = from + at;
        let event = String::from_utf8_lossy(&self.bytes[self.taken..end]).into_owned();
        self.taken = end + 2;
        self.searched = self.taken;
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::*;

    proptest! {
        #[test]
        fn events_are_whole_however_their_bytes_come(events in proptest::collection::vec("[a-zü{}: ]{1,30}(\n[a-z]{1,9}){0,2}", 1..8), cut in any::<[u8; 8]>()) {
            let text = events.iter().map(|event| format!("{event}\n\n")).collect::<String>();
            let (mut lines, mut got, mut rest) = (Lines::default(), Vec::new(), text.as_bytes());
            for len in cut.iter().cycle() {
                let (piece, after) = rest.split_at(rest.len().min(1 + usize::from(*len) % 40));
                lines.add(piece, 10_000).unwrap();
                while let Some(event) = lines.take() {
                    got.push(event);
                }
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(got, events);
        }
    }

    #[test]
    fn an_event_without_end_is_refused() {
        let mut lines = Lines::default();
        lines.add(&[b'x'; 60], 100).unwrap();
        assert!(lines.take().is_none());
        assert!(lines.add(&[b'x'; 60], 100).is_err());
    }
}
