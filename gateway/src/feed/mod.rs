//! `GET /events`: what happens to drones and deliveries, for any number of viewers.
//!
//! One mirror per gateway follows the KV's change feed ([`follow`]). Every so often what has changed becomes a *frame*: the text of its
//! events, made once and shared by all viewers. The newest frames are kept in a ring, and a viewer is nothing but a place in it. So
//! a viewer costs no more than its connection, and one that comes back with the id of the last event it saw is told what it missed.
//!
//! Who reads too slowly to keep up, or was away for too long, gets a snapshot in place of the frames in between: it loses the way
//! there, never the present state. Who takes nothing at all is cut off by the server's write timeout.

mod follow;
mod frame;
mod gap;
mod latency;
mod mirror;
mod ring;
mod viewer;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use kv_client::Change;
use serde_json::{Map, Value};
use service::metrics::Metrics;
use service::metrics::prometheus_client::metrics::counter::Counter;
use service::metrics::prometheus_client::metrics::gauge::Gauge;
use service::{Heartbeat, Shutdown};
use tokio::sync::watch;

use crate::app::Clock;

pub(crate) use follow::{follow_cluster, follow_deliveries, follow_drones};
pub(crate) use latency::Summary;
pub(crate) use viewer::events;

use mirror::{ClusterNews, Mirror, Record};
use ring::Ring;

/// How many frames a connected viewer may be behind before it gets a snapshot instead.
const LAG_MAX_FRAMES: u64 = 50;
/// No more frames come: the gateway stops.
const CLOSED: u64 = u64::MAX;

/// The mirror, the newest frames, and who looks at them.
#[derive(Debug)]
pub(crate) struct Feed {
    inner: Mutex<Inner>,
    /// Number of the newest frame, or [`CLOSED`]; wakes viewers.
    head: watch::Sender<u64>,
    viewers_max: usize,
    metrics: FeedMetrics,
}

#[derive(Debug)]
struct Inner {
    mirror: Mirror,
    ring: Ring,
}

#[derive(Debug)]
struct FeedMetrics {
    viewers: Gauge,
    refused: Counter,
    snapshots: Counter,
    overtaken: Counter,
}

/// What a viewer is to be sent next, and where it stands then.
#[derive(Debug)]
struct Batch {
    frames: Vec<Bytes>,
    at: u64,
}

impl Feed {
    /// Nothing known yet. `window` is how far back the figures of [`Feed::latencies`] reach, `km_per_min` a medium drone's speed by the clock.
    pub(crate) fn new(viewers_max: usize, window: Duration, km_per_min: f64, metrics: &Metrics) -> Self {
        Self {
            inner: Mutex::new(Inner {
                mirror: Mirror::new(window, km_per_min),
                ring: Ring::new(rand::random()),
            }),
            head: watch::Sender::new(0),
            viewers_max,
            metrics: FeedMetrics::new(metrics),
        }
    }

    /// How long deliveries that got on within the window, up to `now` (Unix seconds), took.
    pub(crate) fn latencies(&self, now: f64) -> Summary {
        self.lock().mirror.latencies(now)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Whole after every operation, so a poisoned lock is still good.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change_drone(&self, change: &Change, zoned: impl FnOnce(Map<String, Value>) -> Map<String, Value>) {
        let record = change.value.as_deref().map(|raw| serde_json::from_str(raw.get()));
        let record = match record.transpose() {
            Ok(record) => record.map(zoned),
            Err(error) => return tracing::debug!(key = change.key, %error, "a drone's record cannot be read"),
        };
        if let Some(id) = domain::keys::drone_id(&change.key) {
            self.lock().mirror.put_drone(id, &change.version, record);
        }
    }

    fn change_delivery(&self, change: Change) {
        if let Some(id) = domain::keys::delivery_id(&change.key) {
            self.lock()
                .mirror
                .put_delivery(id, &change.version, change.value.map(Record::new));
        }
    }

    fn change_cluster(&self, news: ClusterNews) {
        self.lock().mirror.put_cluster(news);
    }

    fn has_viewers(&self) -> bool {
        self.metrics.viewers.get() > 0
    }

    /// Everything anew: `load` puts what there is. Viewers that were told something else before get a snapshot.
    fn reload(&self, load: impl FnOnce(&mut Mirror)) {
        let mut inner = self.lock();
        let was_whole = inner.mirror.is_whole();
        load(&mut inner.mirror);
        if was_whole {
            inner.ring.forget();
            // Wakes viewers, who find that they cannot go on from where they are.
            inner.ring.push(frame::SIGN_OF_LIFE);
            self.head.send_replace(inner.ring.head());
        }
    }

    /// Makes a frame of what has changed; with `sign_of_life` also when nothing has. False when there was none to make.
    fn flush(&self, now: f64, sign_of_life: bool) -> bool {
        let mut inner = self.lock();
        let inner = &mut *inner;
        if !inner.mirror.is_whole() {
            return false;
        }
        let news = inner.mirror.take_news();
        let number = inner.ring.next();
        let frame = match frame::of(&news, now, &inner.ring.id(number)) {
            Some(frame) => frame,
            None if sign_of_life => frame::SIGN_OF_LIFE,
            None => return false,
        };
        inner.ring.push(frame);
        self.head.send_replace(number);
        true
    }

    /// What follows the event `after` (the id of an event), or a snapshot. `None` while the mirror is not whole.
    fn begin(&self, after: Option<&str>, now: f64) -> Option<Batch> {
        let mut inner = self.lock();
        if !inner.mirror.is_whole() {
            return None;
        }
        let place = after.and_then(|id| inner.ring.place_of(id));
        let missed = place.and_then(|place| inner.ring.after(place));
        Some(match missed {
            Some(frames) => Batch {
                frames,
                at: inner.ring.head(),
            },
            None => self.snapshot(&mut inner, now),
        })
    }

    /// What follows frame `place`, or a snapshot when that is too far behind.
    fn next(&self, place: u64, now: f64) -> Batch {
        let mut inner = self.lock();
        let at = inner.ring.head();
        if at.saturating_sub(place) <= LAG_MAX_FRAMES
            && let Some(frames) = inner.ring.after(place)
        {
            return Batch { frames, at };
        }
        self.metrics.overtaken.inc();
        self.snapshot(&mut inner, now)
    }

    /// Made once for all who need one before the next frame.
    fn snapshot(&self, inner: &mut Inner, now: f64) -> Batch {
        self.metrics.snapshots.inc();
        let at = inner.ring.head();
        let id = inner.ring.id(at);
        let mirror = &inner.mirror;
        let text = inner.ring.snapshot(|| frame::snapshot(mirror, now, &id));
        Batch { frames: vec![text], at }
    }
}

impl FeedMetrics {
    fn new(metrics: &Metrics) -> Self {
        let counter = |name, help| metrics.register(name, help, Counter::default());
        Self {
            viewers: metrics.register("event_viewers", "Clients of GET /events", Gauge::default()),
            refused: counter("event_viewers_refused", "Clients of GET /events that were one too many"),
            snapshots: counter("event_snapshots", "Snapshots sent to clients of GET /events"),
            overtaken: counter(
                "event_viewers_overtaken",
                "Clients of GET /events that were too slow, or told anew, and got a snapshot in place of what they missed",
            ),
        }
    }
}

/// When frames are made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FrameTimes {
    /// Time between frames.
    pub(crate) interval: Duration,
    /// After this long without one, one that says nothing.
    pub(crate) sign_of_life: Duration,
}

/// Makes frames until `shutdown`.
pub(crate) async fn make_frames(feed: Arc<Feed>, clock: Clock, times: FrameTimes, beat: Heartbeat, shutdown: Shutdown) {
    let mut last = tokio::time::Instant::now();
    while shutdown.sleep(times.interval).await {
        if feed.flush(clock(), last.elapsed() >= times.sign_of_life) {
            last = tokio::time::Instant::now();
        }
        beat.ok();
    }
    feed.head.send_replace(CLOSED);
}

#[cfg(test)]
mod tests;
