//! Routes every server has, and what wraps every route.

use std::future::Future;
use std::hash::{Hash, Hasher};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::FutureExt;
use http::header::CONTENT_TYPE;
use http::{Method, StatusCode};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use tokio::runtime::Handle;

use super::error::ApiError;
use crate::metrics::{self, Metrics};
use crate::tasks::Tasks;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: Route,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: Route,
}

/// A route, not a path: a label per key would grow without bound.
#[derive(Debug, Clone)]
struct Route(Option<MatchedPath>);

impl Route {
    fn as_str(&self) -> &str {
        self.0.as_ref().map_or("other", MatchedPath::as_str)
    }
}

impl PartialEq for Route {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Route {}

impl Hash for Route {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl EncodeLabelValue for Route {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        self.as_str().encode(encoder)
    }
}

/// A method as a label. Clients may make up others, without bound.
fn label_of(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "PUT" => "PUT",
        "POST" => "POST",
        "DELETE" => "DELETE",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        "PATCH" => "PATCH",
        _ => "other",
    }
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
    let method = label_of(request.method());
    let route = Route(request.extensions().get::<MatchedPath>().cloned());
    // A panic would close the connection without a word and without being counted.
    let response = AssertUnwindSafe(next.run(request))
        .catch_unwind()
        .await
        .unwrap_or_else(|_| {
            tracing::error!(method, route = route.as_str(), "a request handler panicked");
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
/// It is run right here, and becomes a task of its own only when nobody waits for it any more.
///
/// # Errors
/// 500 when the work panicked; otherwise what the work answers.
pub async fn detached<T, F>(work: F) -> Result<T, ApiError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, ApiError>> + Send + 'static,
{
    let work = AssertUnwindSafe(work).catch_unwind();
    Detached(Some(Box::pin(work))).await.unwrap_or_else(|_| {
        tracing::error!("a request handler panicked");
        Err(died())
    })
}

/// A future that goes on as a task when it is dropped before its end.
struct Detached<F>(Option<Pin<Box<F>>>)
where
    F: Future<Output: Send> + Send + 'static;

impl<F: Future<Output: Send> + Send> Future for Detached<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(work) = &mut self.0 else {
            // Asked again after its end, which nothing that awaits does.
            return Poll::Pending;
        };
        let output = std::task::ready!(work.as_mut().poll(cx));
        self.0 = None;
        Poll::Ready(output)
    }
}

impl<F: Future<Output: Send> + Send> Drop for Detached<F> {
    fn drop(&mut self) {
        if let Some(work) = self.0.take()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(work);
        }
    }
}

fn died() -> ApiError {
    ApiError::internal("the server failed while handling this request; the outcome is not known")
        .with("outcome", "unknown")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_is_done_all_the_same() {
        let (go_on, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let work = {
            let (go_on, done) = (Arc::clone(&go_on), Arc::clone(&done));
            async move {
                go_on.notified().await;
                done.notify_one();
                Ok(7)
            }
        };
        let mut running = Box::pin(detached(work));
        assert!(running.as_mut().now_or_never().is_none());
        drop(running);
        go_on.notify_one();
        let ended = tokio::time::timeout(Duration::from_secs(10), done.notified());
        ended.await.expect("it went on");
        assert_eq!(detached(async { Ok(8) }).await.unwrap(), 8);
    }

    #[test]
    fn made_up_methods_have_one_label() {
        for known in ["GET", "PUT", "POST", "DELETE", "HEAD", "OPTIONS", "PATCH"] {
            assert_eq!(label_of(&known.parse().unwrap()), known);
        }
        assert_eq!(label_of(&"SPAM-1".parse().unwrap()), "other");
    }
}
