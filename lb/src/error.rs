//! Why a request got no answer from a gateway, and what its client is told.
//!
//! Each error knows where it comes from (client, this proxy, gateway) and so which status it is. The body is `{"detail": …}`, and
//! `"outcome":"unknown"` when a gateway may have acted on a request that must not be repeated.

use std::net::SocketAddr;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use crate::chunked::BadChunk;
use crate::limits::HEADERS_MAX;
use crate::rate_limit::{Refusal, Scope};

/// A client's body ended badly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("{0}")]
    Malformed(#[from] BadChunk),
    #[error("nothing came for {0:?}")]
    Idle(Duration),
    #[error("it is larger than {0} bytes")]
    TooLarge(u64),
    /// The client has gone: nobody is left to be told.
    #[error("it broke off")]
    Gone,
}

/// A request that ends here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyError {
    #[error("{0} is not supported by this load balancer")]
    Unsupported(&'static str),
    #[error("the request is malformed: {0}")]
    Malformed(&'static str),
    #[error("no expectation other than 100-continue is met here")]
    Expectation,
    #[error("the request's head did not come to its end within {0:?}")]
    SlowHead(Duration),
    #[error("the request has more than {HEADERS_MAX} headers")]
    TooManyHeaders,
    #[error("the request has {0} Host headers; exactly one is expected")]
    BadHost(usize),
    #[error("the path and query are longer than {0} bytes")]
    UriTooLong(usize),
    #[error("the request's headers have {bytes} bytes; at most {max_bytes} are taken")]
    HeadersTooLarge { bytes: usize, max_bytes: usize },
    #[error("{method} {path} is not served here; GET is")]
    MethodNotAllowed { method: String, path: &'static str },
    #[error("rate limit ({})", match .0.scope { Scope::Global => "global", Scope::Client => "client" })]
    RateLimited(Refusal),
    #[error("more than {0} requests are under way; try again soon")]
    Busy(usize),
    #[error("more than {0} connections from one client")]
    TooManyConnections(usize),
    #[error("no address of {0} is known yet")]
    NoBackend(String),
    #[error("the request's body could not be read: {0}")]
    RequestBody(BodyError),
    /// Nothing was sent to anybody: the request may safely be repeated.
    #[error("no gateway could be reached: {backend}: {reason}")]
    Unreachable { backend: SocketAddr, reason: String },
    /// The connection broke after the request had been sent.
    #[error("the gateway {backend} broke off: {reason}")]
    BrokenOff {
        backend: SocketAddr,
        reason: String,
        outcome_unknown: bool,
    },
    #[error("the gateway {backend} did not begin its answer within {waited_sec} s")]
    Timeout {
        backend: SocketAddr,
        waited_sec: f64,
        outcome_unknown: bool,
    },
}

impl ProxyError {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Unsupported(_) => StatusCode::NOT_IMPLEMENTED,
            Self::Malformed(_) | Self::BadHost(_) | Self::RequestBody(BodyError::Malformed(_) | BodyError::Gone) => {
                StatusCode::BAD_REQUEST
            }
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::SlowHead(_) | Self::RequestBody(BodyError::Idle(_)) => StatusCode::REQUEST_TIMEOUT,
            Self::RequestBody(BodyError::TooLarge(_)) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UriTooLong(_) => StatusCode::URI_TOO_LONG,
            Self::TooManyHeaders | Self::HeadersTooLarge { .. } => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::RateLimited(_) | Self::TooManyConnections(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Busy(_) | Self::NoBackend(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unreachable { .. } | Self::BrokenOff { .. } => StatusCode::BAD_GATEWAY,
            Self::Timeout { .. } => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// Headers that tell when trying again makes sense, where that is known: whole seconds, and the bucket that was empty
    /// (draft-ietf-httpapi-ratelimit-headers-03).
    pub(crate) fn headers(&self) -> Vec<(&'static str, u64)> {
        match self {
            Self::RateLimited(refusal) => vec![
                ("retry-after", refusal.retry_after_sec),
                ("ratelimit-limit", refusal.burst),
                ("ratelimit-remaining", 0),
                ("ratelimit-reset", refusal.full_after_sec),
            ],
            Self::Busy(_) | Self::NoBackend(_) | Self::TooManyConnections(_) => vec![("retry-after", 1)],
            _ => Vec::new(),
        }
    }

    pub(crate) fn body(&self) -> Value {
        let detail = self.to_string();
        match self {
            Self::BrokenOff {
                outcome_unknown: true, ..
            }
            | Self::Timeout {
                outcome_unknown: true, ..
            } => json!({ "detail": detail, "outcome": "unknown" }),
            _ => json!({ "detail": detail }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_limit_answers_are_the_documented_ones() {
        let error = |scope| {
            ProxyError::RateLimited(Refusal {
                scope,
                retry_after_sec: 3,
                burst: 10,
                full_after_sec: 12,
            })
        };
        assert_eq!(error(Scope::Global).body(), json!({"detail": "rate limit (global)"}));
        assert_eq!(error(Scope::Client).body(), json!({"detail": "rate limit (client)"}));
        assert_eq!(error(Scope::Client).status(), 429);
        let headers = [
            ("retry-after", 3),
            ("ratelimit-limit", 10),
            ("ratelimit-remaining", 0),
            ("ratelimit-reset", 12),
        ];
        assert_eq!(error(Scope::Client).headers(), headers);
    }

    #[test]
    fn an_unknown_outcome_is_said() {
        let error = ProxyError::Timeout {
            backend: "127.0.0.1:8000".parse().unwrap(),
            waited_sec: 30.0,
            outcome_unknown: true,
        };
        assert_eq!(error.status(), 504);
        assert_eq!(error.body()["outcome"], "unknown");
        assert!(error.to_string().contains("127.0.0.1:8000") && error.to_string().contains("30 s"));
    }
}
