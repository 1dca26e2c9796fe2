//! Routes every server has, and what wraps every route.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get;
use futures_util::FutureExt;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use tokio::runtime::Handle;

use super::error::ApiError;
use super::measured::{RequestMetrics, Route, died, label_of};
use crate::metrics::{self, Metrics};
use crate::tasks::Tasks;

/// Adds `/ready`, `/metrics`, JSON answers for unknown paths and methods, a body limit in bytes, and request metrics
/// ([`RequestMetrics`]) to a service's routes, and answers for handlers that panic. `/health` stays the service's own.
pub fn with_common_routes(router: Router, tasks: Tasks, metrics: Metrics, body_limit_bytes: usize) -> Router {
    let requests = RequestMetrics::register(&metrics);
    with_measured_routes(router, tasks, metrics, requests, body_limit_bytes)
}

/// As [`with_common_routes`], with request metrics that the router shares with its [short cuts](super::ShortCuts).
pub fn with_measured_routes(
    router: Router,
    tasks: Tasks,
    metrics: Metrics,
    requests: RequestMetrics,
    body_limit_bytes: usize,
) -> Router {
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
            measure(requests.clone(), request, next)
        }))
}

async fn measure(requests: RequestMetrics, request: Request, next: Next) -> Response {
    let method = label_of(request.method());
    let route = Route::of(request.extensions().get::<MatchedPath>());
    let answering = requests.begin(method, &route, request.headers());
    requests.measure(method, route, answering, next.run(request)).await
}

/// Runs `work` to its end even when the client hangs up meanwhile: a half-done write is worse than an unread answer.
///
/// It is run right here, and becomes a task of its own only when nobody waits for it any more; what it works on behalf of
/// ([`trace::Scope`]) stays the same.
///
/// # Errors
/// 500 when the work panicked; otherwise what the work answers.
pub async fn detached<T, F>(work: F) -> Result<T, ApiError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, ApiError>> + Send + 'static,
{
    let work = AssertUnwindSafe(trace::carried(work)).catch_unwind();
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
}
