//! Events as they go out: Server-Sent Events (WHATWG HTML, §9.2).

use std::fmt::Write;

use kv_api::{RawValue, Version, WatchChange, WatchGap};

use super::merger::Delivery;
use super::position::Position;

/// Adds a change to the text.
pub(super) fn change(out: &mut String, delivery: &Delivery, position: &Position) {
    let (key, state) = (&delivery.change.key, &delivery.change.state);
    // Line breaks would end the event's line; in JSON they only stand between tokens.
    let text = state.value.as_deref().unwrap_or("null").replace(['\n', '\r'], " ");
    let body = WatchChange {
        key: key.name().to_owned(),
        // Only JSON is ever stored.
        value: RawValue::from_string(text).unwrap_or_else(|_| RawValue::NULL.to_owned()),
        version: Version::from(state.version),
        deleted: state.is_tombstone(),
        conflated: delivery.conflated,
    };
    event(out, "change", &body, position);
}

/// Adds a notice that continuity is lost.
pub(super) fn gap(out: &mut String, reason: &str, position: &Position) {
    let body = WatchGap {
        reason: reason.to_owned(),
    };
    event(out, "gap", &body, position);
}

/// Adds a sign of life that says where the watcher stands.
pub(super) fn position(out: &mut String, position: &Position) {
    event(out, "position", &serde_json::Map::new(), position);
}

fn event(out: &mut String, kind: &str, body: &impl serde::Serialize, position: &Position) {
    let body = serde_json::to_string(body).unwrap_or_default();
    // Writing to a `String` cannot fail.
    let _ = write!(out, "id: {position}\nevent: {kind}\ndata: {body}\n\n");
}
