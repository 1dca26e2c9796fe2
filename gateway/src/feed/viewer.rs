//! One client of `GET /events`.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName};
use serde::Deserialize;
use service::http::{ApiError, Query};
use tokio::sync::watch;

use super::{Batch, CLOSED, Feed};
use crate::app::App;

/// What clients of event streams send when they come back.
const LAST_EVENT_ID: &str = "last-event-id";
/// Tells nginx, should one stand in front, not to hold events back.
const NO_BUFFERING: (HeaderName, &str) = (HeaderName::from_static("x-accel-buffering"), "no");
/// Seconds after which a viewer that is one too many, or too early, may try again.
const RETRY_AFTER_SEC: u64 = 2;

/// Query of `GET /events`.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct EventsQuery {
    /// As the header `Last-Event-ID`, for those who cannot send one.
    after: Option<String>,
}

/// A place in the ring. Counted while it lives.
struct Viewer {
    app: Arc<App>,
    head: watch::Receiver<u64>,
    at: u64,
    /// Taken from the ring, not yet sent.
    waiting: VecDeque<Bytes>,
}

/// `GET /events`.
///
/// # Errors
/// 503 with too many viewers, and until drones and deliveries have been read for the first time.
pub(crate) async fn events(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Query(query): Query<EventsQuery>,
) -> Result<Response, ApiError> {
    // A client that comes back repeats its URL; what it got last is newer.
    let last = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok());
    let viewer = Viewer::new(app, last.or(query.after.as_deref()))?;
    let frames = futures_util::stream::unfold(viewer, |mut viewer| async {
        let frame = viewer.next().await?;
        Some((Ok::<_, Infallible>(frame), viewer))
    });
    let headers = [
        (CONTENT_TYPE, "text/event-stream"),
        (CACHE_CONTROL, "no-store"),
        NO_BUFFERING,
    ];
    Ok((headers, Body::from_stream(frames)).into_response())
}

impl Viewer {
    fn new(app: Arc<App>, after: Option<&str>) -> Result<Self, ApiError> {
        let feed = &app.feed;
        // Before the first frames are taken, so that none between is missed.
        let mut head = feed.head.subscribe();
        if !feed.enter() {
            let max = feed.viewers_max;
            let detail = format!("{max} clients are looking at events already; no more are served");
            return Err(ApiError::unavailable(detail).retry_after_sec(RETRY_AFTER_SEC));
        }
        head.borrow_and_update();
        let Some(Batch { frames, at }) = feed.begin(after, app.now()) else {
            feed.leave();
            let detail = "drones and deliveries have not been read from the KV yet";
            return Err(ApiError::unavailable(detail).retry_after_sec(RETRY_AFTER_SEC));
        };
        Ok(Self {
            head,
            at,
            waiting: frames.into(),
            app,
        })
    }

    /// The next frame, when there is one; `None` when the gateway stops.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.waiting.pop_front() {
                return Some(frame);
            }
            // Also when that was before it came.
            if *self.head.borrow() == CLOSED {
                return None;
            }
            self.head.changed().await.ok()?;
            if *self.head.borrow_and_update() == CLOSED {
                return None;
            }
            let Batch { frames, at } = self.app.feed.next(self.at, self.app.now());
            self.waiting.extend(frames);
            self.at = at;
        }
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.app.feed.leave();
    }
}

impl Feed {
    /// Counts a viewer; false when it is one too many.
    fn enter(&self) -> bool {
        let max = i64::try_from(self.viewers_max).unwrap_or(i64::MAX);
        if self.metrics.viewers.inc() < max {
            return true;
        }
        self.metrics.viewers.dec();
        self.metrics.refused.inc();
        false
    }

    fn leave(&self) {
        self.metrics.viewers.dec();
    }
}
