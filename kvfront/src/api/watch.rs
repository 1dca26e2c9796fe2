//! `GET /watch`: changes as Server-Sent Events.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use kv_api::WatchQuery;
use service::http::{ApiError, Query};

use super::errors::not_started;
use crate::watch::{Hub, MAX_WATCHERS, Position};

/// What clients of event streams send when they come back.
const LAST_EVENT_ID: &str = "last-event-id";
/// Seconds after which a watcher that is one too many may try again.
const RETRY_AFTER_SEC: u64 = 5;

pub(super) async fn watch(
    State(hub): State<Arc<Hub>>,
    headers: HeaderMap,
    Query(query): Query<WatchQuery>,
) -> Result<Response, ApiError> {
    if query.prefix.len() > kv_api::MAX_KEY_BYTES {
        let detail = format!("prefix: at most {} bytes are allowed", kv_api::MAX_KEY_BYTES);
        return Err(ApiError::invalid(detail).with("field", "prefix"));
    }
    // A client that comes back repeats its URL; what it got last is newer.
    let (field, after) = match headers.get(LAST_EVENT_ID) {
        Some(id) => ("Last-Event-ID", Some(id.to_str().unwrap_or_default().to_owned())),
        None => ("after", query.after),
    };
    let position = after
        .filter(|text| !text.is_empty())
        .map(|text| text.parse::<Position>())
        .transpose()
        .map_err(|e| ApiError::invalid(format!("{field}: {e}")).with("field", field))?;
    hub.ready().map_err(|e| not_started(&e))?;
    let events = hub.watch(query.prefix, position).ok_or_else(|| {
        ApiError::unavailable(format!(
            "{MAX_WATCHERS} clients are watching already; no more are served"
        ))
        .retry_after_sec(RETRY_AFTER_SEC)
    })?;
    let body = Body::from_stream(events.map(Ok::<_, Infallible>));
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    Ok((headers, body).into_response())
}
