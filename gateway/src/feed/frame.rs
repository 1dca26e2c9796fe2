//! The text of events: Server-Sent Events (WHATWG HTML, §9.2).

use bytes::Bytes;
use serde::Serialize;

use super::mirror::{Mirror, News};

/// A comment, which readers pass over.
pub(super) const SIGN_OF_LIFE: Bytes = Bytes::from_static(b": alive\n\n");

/// How long a browser waits before it comes back, in milliseconds.
const RETRY_MS: u32 = 1_000;

#[derive(Serialize)]
struct Changed<'a, T> {
    at: f64,
    items: &'a [T],
}

#[derive(Serialize)]
struct Snapshot<D, O, C> {
    at: f64,
    drones: D,
    deliveries: O,
    cluster: C,
}

/// The events that tell of `news`, all with the id of their frame; `None` when there are none.
pub(super) fn of(news: &News, at: f64, id: &str) -> Option<Bytes> {
    let mut out = Vec::new();
    if !news.drones.is_empty() {
        let items = &news.drones;
        event(&mut out, "drones", id, &Changed { at, items });
    }
    if !news.deliveries.is_empty() {
        let items = &news.deliveries;
        event(&mut out, "deliveries", id, &Changed { at, items });
    }
    if let Some(cluster) = &news.cluster {
        event(&mut out, "cluster", id, cluster);
    }
    (!out.is_empty()).then(|| Bytes::from(out))
}

/// The event that tells everything.
pub(super) fn snapshot(mirror: &Mirror, at: f64, id: &str) -> Bytes {
    let mut out = format!("retry: {RETRY_MS}\n").into_bytes();
    let body = Snapshot {
        at,
        drones: mirror.drones(),
        deliveries: mirror.deliveries(),
        cluster: mirror.cluster(),
    };
    event(&mut out, "snapshot", id, &body);
    Bytes::from(out)
}

fn event(out: &mut Vec<u8>, kind: &str, id: &str, body: &impl Serialize) {
    out.extend_from_slice(format!("event: {kind}\nid: {id}\ndata: ").as_bytes());
    // Writing finite numbers, texts and stored JSON to memory cannot fail.
    let _ = serde_json::to_writer(&mut *out, body);
    out.extend_from_slice(b"\n\n");
}
