//! The fake's `GET /watch`.

use std::convert::Infallible;
use std::fmt::Write;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::Uri;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use kv_api::{RawValue, WatchChange, WatchGap, WatchQuery};
use serde::Serialize;
use tokio::sync::watch;

use super::store::{Logged, Reply, invalid};
use super::{Inner, lock, query};

/// One watcher. Ids are numbers of changes.
struct Feed {
    inner: Arc<Mutex<Inner>>,
    news: watch::Receiver<()>,
    prefix: String,
    /// How many changes it knows.
    at: usize,
    /// How often feeds had been cut when it began.
    cuts: u64,
    greeted: bool,
}

/// The answer to `GET /watch`.
pub(super) fn serve(inner: &Arc<Mutex<Inner>>, uri: &Uri) -> Result<Response, Reply> {
    let query: WatchQuery = query(uri)?;
    let feed = {
        let held = lock(inner);
        let at = match &query.after {
            Some(id) => id.parse().map_err(|error| invalid(&error))?,
            None => held.store.logged_len(),
        };
        Feed {
            inner: Arc::clone(inner),
            news: held.store.news(),
            prefix: query.prefix,
            at,
            cuts: held.store.cuts(),
            greeted: false,
        }
    };
    let events = futures_util::stream::unfold(feed, |mut feed| async {
        let text = feed.next().await?;
        Some((Ok::<_, Infallible>(text), feed))
    });
    Ok(([(CONTENT_TYPE, "text/event-stream")], Body::from_stream(events)).into_response())
}

impl Feed {
    /// The next events, or the end.
    async fn next(&mut self) -> Option<String> {
        loop {
            self.news.borrow_and_update();
            let text = self.events()?;
            if !text.is_empty() {
                return Some(text);
            }
            self.news.changed().await.ok()?;
        }
    }

    fn events(&mut self) -> Option<String> {
        let inner = lock(&self.inner);
        if inner.store.cuts() != self.cuts {
            return None;
        }
        let mut text = String::new();
        let len = inner.store.logged_len();
        match inner.store.logged(self.at) {
            None => {
                let reason = "made to forget by the test".to_owned();
                event(&mut text, "gap", len, &WatchGap { reason });
            }
            Some(news) => {
                if !self.greeted {
                    event(&mut text, "position", self.at, &serde_json::Map::new());
                }
                for (number, logged) in (self.at + 1..).zip(news) {
                    if logged.key.starts_with(&self.prefix) {
                        event(&mut text, "change", number, &change(logged));
                    }
                }
            }
        }
        self.greeted = true;
        self.at = len;
        Some(text)
    }
}

fn change(logged: &Logged) -> WatchChange {
    WatchChange {
        key: logged.key.clone(),
        value: logged.value.clone().unwrap_or_else(|| RawValue::NULL.to_owned()),
        version: logged.version.clone(),
        deleted: logged.value.is_none(),
        conflated: false,
    }
}

fn event(out: &mut String, kind: &str, id: usize, body: &impl Serialize) {
    let body = serde_json::to_string(body).unwrap_or_default();
    // Writing to a `String` cannot fail.
    let _ = write!(out, "id: {id}\nevent: {kind}\ndata: {body}\n\n");
}
