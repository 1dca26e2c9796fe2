//! What is counted of requests, and what becomes of those whose handler panics.

use std::future::Future;
use std::hash::{Hash, Hasher};
use std::panic::AssertUnwindSafe;
use std::time::Instant;

use axum::extract::MatchedPath;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http::{HeaderMap, Method};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use super::error::ApiError;
use super::traced::{Answering, Traced};
use crate::metrics::{self, Metrics};

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
pub(super) enum Route {
    /// As the router found it.
    Matched(MatchedPath),
    /// Known without the router.
    Fixed(&'static str),
}

impl Route {
    /// That of a request the router has found one for, or has not.
    pub(super) fn of(matched: Option<&MatchedPath>) -> Self {
        matched.map_or(Self::Fixed("other"), |path| Self::Matched(path.clone()))
    }

    fn as_str(&self) -> &str {
        match self {
            Self::Matched(path) => path.as_str(),
            Self::Fixed(path) => path,
        }
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
pub(super) fn label_of(method: &Method) -> &'static str {
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

/// The metrics of a server's requests: `http_requests_total` and `http_request_seconds`. Clones share them.
#[derive(Debug, Clone)]
pub struct RequestMetrics {
    requests: Family<RequestLabels, Counter>,
    seconds: Family<RouteLabels, Histogram>,
    traced: Traced,
}

impl RequestMetrics {
    /// Registers them; once for a server.
    #[must_use]
    pub fn register(metrics: &Metrics) -> Self {
        Self {
            requests: metrics.register(
                "http_requests",
                "Requests answered",
                Family::<RequestLabels, Counter>::default(),
            ),
            seconds: metrics.register(
                "http_request_seconds",
                "Seconds until the answer's head",
                Family::<RouteLabels, Histogram>::new_with_constructor(metrics::latency_histogram),
            ),
            traced: Traced::No,
        }
    }

    /// The same, with requests that are parts of traces.
    #[must_use]
    pub fn traced(self, traced: Traced) -> Self {
        Self { traced, ..self }
    }

    /// What a request has to do with traces, to be handed to [`Self::measure`].
    pub(super) fn begin(&self, method: &'static str, route: &Route, headers: &HeaderMap) -> Option<Answering> {
        self.traced.begin(method, route.as_str(), headers)
    }

    /// Waits for the answer to a request, and counts it. A handler that panics gives an answer too: a panic would close the connection
    /// without a word and without being counted.
    pub(super) async fn measure(
        &self,
        method: &'static str,
        route: Route,
        answering: Option<Answering>,
        answer: impl Future<Output = Response>,
    ) -> Response {
        let started = Instant::now();
        let answer = async {
            AssertUnwindSafe(answer).catch_unwind().await.unwrap_or_else(|_| {
                tracing::error!(method, route = route.as_str(), "a request handler panicked");
                died().into_response()
            })
        };
        let response = match answering {
            None => answer.await,
            Some(answering) => {
                let response = trace::within(answering.scope.clone(), answer).await;
                answering.end(&response);
                response
            }
        };
        let status = response.status().as_u16();
        let labels = RouteLabels { route };
        let seconds = started.elapsed().as_secs_f64();
        self.seconds.get_or_create(&labels).observe(seconds);
        let RouteLabels { route } = labels;
        self.requests
            .get_or_create(&RequestLabels { method, route, status })
            .inc();
        response
    }
}

/// The answer when what was to make it panicked.
pub(super) fn died() -> ApiError {
    ApiError::internal("the server failed while handling this request; the outcome is not known")
        .with("outcome", "unknown")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_methods_have_one_label() {
        for known in ["GET", "PUT", "POST", "DELETE", "HEAD", "OPTIONS", "PATCH"] {
            assert_eq!(label_of(&known.parse().unwrap()), known);
        }
        assert_eq!(label_of(&"SPAM-1".parse().unwrap()), "other");
    }
}
