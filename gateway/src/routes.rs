//! What is served, and the translation between HTTP and the rest.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use bytes::Bytes;
use futures_util::StreamExt;
use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderValue, StatusCode};
use kv_api::RawValue;
use serde_json::{Value, json};
use service::http::{ApiError, Json, Path, Query, detached};
use tokio::time::timeout;

use crate::app::App;
use crate::listing::ListQuery;
use crate::order_body::parse_order;
use crate::submit::idempotency_key;
use crate::{cancel, feed, listing, openapi, page, stats, submit};

/// Largest order, in bytes; a real one has about 150.
pub(crate) const ORDER_MAX_BYTES: usize = 64 * 1024;
/// Of a body that is too large, this much is read and thrown away, so that the client gets the answer instead of a
/// broken connection.
const DISCARD_MAX_BYTES: usize = 8 << 20;
/// Longest time a client may take to send an order.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Events in the answer of `/stats`.
const RECENT_SHOWN: usize = 20;

type Shared = State<Arc<App>>;

/// The gateway's own routes.
pub(crate) fn routes(app: Arc<App>, home: page::Home) -> Router {
    let home = Arc::new(home);
    Router::new()
        .route("/", get(|| async { Redirect::temporary("/dashboard") }))
        .route(
            "/dashboard",
            get(move |headers: HeaderMap| async move { home.answer(&headers) }),
        )
        .route("/dashboard/", get(|| async { Redirect::permanent("/dashboard") }))
        .route(
            "/dashboard/{file}",
            get(|Path(file): Path<String>, headers: HeaderMap| async move { page::file(&file, &headers) }),
        )
        .route(
            "/dashboard/{version}/{file}",
            get(
                |Path((version, file)): Path<(String, String)>, headers: HeaderMap| async move {
                    page::versioned(&version, &file, &headers)
                },
            ),
        )
        .route("/health", get(|| async { Json(json!({"status": "ok"})) }))
        .route("/zones", get(zones))
        .route("/deliveries", get(list_deliveries).post(create_delivery))
        .route("/deliveries/{id}", get(get_delivery).delete(cancel_delivery))
        .route("/drones", get(list_drones))
        .route("/drones/{id}", get(get_drone))
        .route("/stats", get(show_stats))
        .route("/events", get(feed::events))
        .route("/openapi.json", get(openapi::openapi))
        .route("/docs", get(openapi::docs))
        .with_state(app)
}

async fn create_delivery(State(app): Shared, headers: HeaderMap, body: Body) -> Result<Response, ApiError> {
    let checked = async {
        let key = idempotency_key(&headers)?;
        let body = read_body(body).await?;
        Ok::<_, ApiError>((key, parse_order(&body)?))
    };
    let (key, order) = checked.await.inspect_err(|_| {
        app.counters.refused.inc();
    })?;
    let accepted = detached(async move { submit::submit(&app, &order, key).await }).await?;
    let status = if accepted.first {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let location = HeaderValue::try_from(format!("/deliveries/{}", accepted.record.id))
        .map_err(|_| ApiError::internal(format!("the stored id {:?} is not one of ours", accepted.record.id)))?;
    Ok((status, [(LOCATION, location)], Json(accepted.record)).into_response())
}

async fn read_body(body: Body) -> Result<Vec<u8>, ApiError> {
    timeout(BODY_TIMEOUT, async {
        let mut kept = Vec::new();
        let mut len = 0_usize;
        let mut chunks = body.into_data_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk =
                chunk.map_err(|error| ApiError::malformed(format!("the request body could not be read: {error}")))?;
            len = len.saturating_add(chunk.len());
            if len <= ORDER_MAX_BYTES {
                kept.extend_from_slice(&chunk);
            } else if len > DISCARD_MAX_BYTES {
                break;
            }
        }
        if len > ORDER_MAX_BYTES {
            let detail = format!("the request body is larger than {ORDER_MAX_BYTES} bytes, the most an order may have");
            return Err(ApiError::too_large(detail));
        }
        Ok(kept)
    })
    .await
    .unwrap_or_else(|_| {
        let detail = format!("the request body did not arrive within {} s", BODY_TIMEOUT.as_secs());
        Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, detail))
    })
}

async fn list_deliveries(State(app): Shared, Query(query): Query<ListQuery>) -> Result<Response, ApiError> {
    listing::deliveries(&app, query).await.map(ready_json)
}

async fn get_delivery(State(app): Shared, Path(id): Path<String>) -> Result<Json<Box<RawValue>>, ApiError> {
    listing::delivery(&app, &id).await.map(Json)
}

async fn cancel_delivery(State(app): Shared, Path(id): Path<String>) -> Result<Response, ApiError> {
    detached(async move { cancel::cancel(&app, &id).await })
        .await
        .map(|record| Json(record).into_response())
}

async fn list_drones(State(app): Shared) -> Result<Response, ApiError> {
    listing::drones(&app)
        .await
        .map(|drones| ready_json(drones.body.clone()))
}

async fn get_drone(State(app): Shared, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    listing::drone(&app, &id).await.map(Json)
}

async fn zones(State(app): Shared) -> Result<Response, ApiError> {
    detached(async move { app.zones.load().await.map_err(|error| crate::error::api_error(&error)) })
        .await
        .map(|zones| Json(&*zones).into_response())
}

async fn show_stats(State(app): Shared) -> Result<Json<Value>, ApiError> {
    let (counts, drones) = tokio::try_join!(stats::counts(&app), listing::drones(&app))?;
    let now = app.now();
    Ok(Json(json!({
        "now": now,
        "deliveries": counts,
        "latency": app.feed.latencies(now),
        "fleet": drones.by_status,
        "recent_events": app.recent.newest(RECENT_SHOWN),
    })))
}

/// An answer that already is JSON text.
fn ready_json(body: Bytes) -> Response {
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}
