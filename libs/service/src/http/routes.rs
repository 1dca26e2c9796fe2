//! Routes every server has, and what wraps every route.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Instant;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::FutureExt;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use super::error::ApiError;
use crate::metrics::{self, Metrics};
use crate::tasks::Tasks;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: String,
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: String,
}

/// Adds `/ready`, `/metrics`, JSON answers for unknown paths and methods, a body limit in bytes, and request metrics
/// (`http_requests_total`, `http_request_seconds`) to a service's routes, and answers for handlers that panic. `/health` stays the service's own.
pub fn with_common_routes(router: Router, tasks: Tasks, metrics: Metrics, body_limit_bytes: usize) -> Router {
    let requests = metrics.register(
        "http_requests",
        "Requests answered",
        Family::<RequestLabels, Counter>::default(),
    );
    let seconds = metrics.register(
        "http_request_seconds",
        "Seconds until the answer's head",
        Family::<RouteLabels, Histogram>::new_with_constructor(metrics::latency_histogram),
    );
    let ready = move || async move {
        let readiness = tasks.readiness();
        let status = if readiness.is_ready() {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        (status, axum::Json(readiness))
    };
    let render = move || async move { ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics.render()) };
    router
        .route("/ready", get(ready))
        .route("/metrics", get(render))
        .fallback(|| async { ApiError::not_found("Not Found") })
        .method_not_allowed_fallback(|| async { ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed") })
        .layer(DefaultBodyLimit::max(body_limit_bytes))
        .layer(middleware::from_fn(move |request, next| {
            measure(requests.clone(), seconds.clone(), request, next)
        }))
}

async fn measure(
    requests: Family<RequestLabels, Counter>,
    seconds: Family<RouteLabels, Histogram>,
    request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let method = request.method().as_str().to_owned();
    // Routes, not paths: a label per key would grow without bound.
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("other", MatchedPath::as_str)
        .to_owned();
    // A panic would close the connection without a word and without being counted.
    let response = AssertUnwindSafe(next.run(request))
        .catch_unwind()
        .await
        .unwrap_or_else(|_| {
            tracing::error!(%method, route, "a request handler panicked");
            died().into_response()
        });
    seconds
        .get_or_create(&RouteLabels { route: route.clone() })
        .observe(started.elapsed().as_secs_f64());
    requests
        .get_or_create(&RequestLabels {
            method,
            route,
            status: response.status().as_u16(),
        })
        .inc();
    response
}

/// Runs `work` to its end even when the client hangs up meanwhile: a half-done write is worse than an unread answer.
///
/// # Errors
/// 500 when the work panicked; otherwise what the work answers.
pub async fn detached<T, F>(work: F) -> Result<T, ApiError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, ApiError>> + Send + 'static,
{
    tokio::spawn(work).await.unwrap_or_else(|error| {
        tracing::error!(%error, "a request handler died");
        Err(died())
    })
}

fn died() -> ApiError {
    ApiError::internal("the server failed while handling this request; the outcome is not known")
        .with("outcome", "unknown")
}
