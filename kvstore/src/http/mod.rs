//! HTTP of a node: the `/internal` calls for coordinators, the KV API for everybody else.
//!
//! Domain errors are turned into answers here and nowhere else: what was certainly not done is 409 or 503, what may have been done is 503
//! with `"outcome":"unknown"`.

mod batch;
mod internal;
mod ops;
mod routes;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::Method;
use axum::routing::{get, post};
use service::Tasks;
use service::http::{ApiError, RequestMetrics, ShortCut, ShortCuts, with_measured_routes};
use service::metrics::Metrics;

use crate::node::Node;
use crate::storage::StoreError;

pub use internal::{
    MAX_CHANGES, MAX_CHANGES_WAIT, MAX_ENVELOPE_BYTES, MAX_ENVELOPE_REQUESTS, MAX_PAGE_RECORDS, MAX_PEER_NAME_BYTES,
    MAX_QUESTION_BYTES, MAX_REPLY_BYTES,
};

/// Bytes a body may have beside its values: key, envelope, braces.
const BODY_SLACK_BYTES: usize = 64 * 1024;

/// What coordinators send their messages to.
const EXCHANGE_ROUTE: &str = "/internal/exchange";

/// All routes of a node.
pub fn all_routes(node: Arc<Node>, tasks: Tasks, metrics: Metrics) -> ShortCuts {
    let requests = RequestMetrics::register(&metrics);
    // The same handler as below: nearly all that coordinators ask.
    let exchange = (Method::POST, EXCHANGE_ROUTE);
    let short_cuts = vec![ShortCut::to_whole(
        &node,
        MAX_ENVELOPE_BYTES,
        exchange,
        internal::exchange,
    )];
    // A CAS carries two values.
    let body_limit_bytes = 2 * node.max_value_bytes() + BODY_SLACK_BYTES;
    let exchange = Router::new()
        .route(EXCHANGE_ROUTE, post(internal::exchange))
        .layer(DefaultBodyLimit::max(MAX_ENVELOPE_BYTES));
    let questions = Router::new()
        .route("/internal/page", post(internal::page))
        .route("/internal/scan", post(internal::scan))
        .route("/internal/node", post(internal::node))
        .route("/internal/hashes", post(internal::hashes))
        .route("/internal/changes", post(internal::changes))
        .layer(DefaultBodyLimit::max(MAX_QUESTION_BYTES));
    let batch = Router::new()
        .route("/kv/batch", key_methods(post(batch::batch)))
        .layer(DefaultBodyLimit::max(MAX_ENVELOPE_BYTES));
    let router = Router::new()
        .route("/health", get(routes::health))
        .route("/kv", get(routes::scan))
        // Keys may be called "cas" or "batch": only POST is taken from them.
        .route("/kv/cas", key_methods(post(routes::cas)))
        .route("/kv/{*key}", key_methods(axum::routing::MethodRouter::new()))
        .route("/lock/acquire/{*key}", post(routes::acquire))
        .route("/lock/release/{*key}", post(routes::release))
        .route("/lock/renew/{*key}", post(routes::renew))
        .merge(exchange)
        .merge(questions)
        .merge(batch)
        .with_state(node);
    let router = with_measured_routes(router, tasks, metrics, requests.clone(), body_limit_bytes);
    ShortCuts::new(router, short_cuts, requests)
}

fn key_methods(methods: axum::routing::MethodRouter<Arc<Node>>) -> axum::routing::MethodRouter<Arc<Node>> {
    methods.get(routes::get).put(routes::put).delete(routes::delete)
}

/// A broken rule of the API: 400 when it cannot be read, 422 when it is readable but not allowed.
fn broken_rule(rule: &kv_api::ApiRuleError) -> ApiError {
    if rule.is_malformed() {
        ApiError::malformed(rule.to_string())
    } else {
        ApiError::invalid(rule.to_string())
    }
}

/// The answer to a call that the store did not serve.
fn not_served(error: &StoreError) -> ApiError {
    match error {
        StoreError::Closed | StoreError::Failed { .. } => ApiError::unavailable(error.to_string()),
        StoreError::Unknown { .. } => ApiError::outcome_unknown(error.to_string()),
        StoreError::Skew(skew) => ApiError::conflict(skew.to_string()),
        StoreError::Ring(ring) => ApiError::conflict(ring.to_string()).with("refused", "ring"),
        StoreError::Corrupt { .. } => {
            tracing::error!(%error, "corruption");
            ApiError::internal(error.to_string())
        }
    }
}
