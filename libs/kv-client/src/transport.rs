//! One HTTP exchange with one of several kvfronts, and what its failure means.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kv_api::ErrorBody;
use reqwest::{Method, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{KvError, Options};

/// Connections idle for longer are closed: a kvfront that was replaced is not remembered for ever.
const IDLE_CONNECTION: Duration = Duration::from_secs(20);

/// Longest part of an error answer that is repeated in an error's text, in characters.
const MAX_DETAIL_CHARS: usize = 500;

/// What a request does: decides what a failure after sending means, and whether it may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Changes nothing: a failure leaves nothing unknown.
    Read,
    /// May change something: sent at most once.
    Write,
}

/// An answer whose status is not a failure of the exchange: 2xx or 404.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Transport {
    http: reqwest::Client,
    /// Without trailing slash.
    bases: Vec<String>,
    /// Index of the kvfront that took the last connection.
    preferred: AtomicUsize,
    options: Options,
}

impl Transport {
    /// `base_urls`: one or more `http://host:port`, separated by commas.
    pub(crate) fn new(base_urls: &str, options: Options) -> Result<Arc<Self>, KvError> {
        let bases = base_urls
            .split(',')
            .map(str::trim)
            .filter(|text| !text.is_empty())
            .map(check_base)
            .collect::<Result<Vec<_>, _>>()?;
        if bases.is_empty() {
            return Err(KvError::invalid(format!(
                "KV URL {base_urls:?} is empty; one or more http://host:port, separated by commas, are expected"
            )));
        }
        let http = reqwest::Client::builder()
            // The KV is inside: a proxy named in the environment has no business with it.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(options.connect_timeout)
            .timeout(options.request_timeout)
            .pool_max_idle_per_host(options.max_idle_connections)
            .pool_idle_timeout(IDLE_CONNECTION)
            .tcp_nodelay(true)
            .build()
            .map_err(|error| KvError::invalid(format!("the HTTP client cannot be built: {}", chain(&error))))?;
        Ok(Arc::new(Self {
            http,
            bases,
            preferred: AtomicUsize::new(0),
            options,
        }))
    }

    /// Sends `path` (with query) and gives the parsed 2xx answer, or `None` for 404.
    pub(crate) async fn call<A: DeserializeOwned>(
        &self,
        effect: Effect,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Option<A>, KvError> {
        let what = format!("{method} {path}");
        let body = body
            .map(serde_json::to_vec)
            .transpose()
            .map_err(|error| KvError::invalid(format!("{what}: the value is no JSON: {error}")))?;
        let answer = match effect {
            Effect::Read => self.with_retries(&method, path, body, &what).await?,
            Effect::Write => self.once(Effect::Write, &method, path, body, &what).await?,
        };
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        serde_json::from_slice(&answer.body)
            .map(Some)
            .map_err(|error| KvError::decode(&what, error))
    }

    async fn with_retries(
        &self,
        method: &Method,
        path: &str,
        body: Option<Vec<u8>>,
        what: &str,
    ) -> Result<Answer, KvError> {
        let started = Instant::now();
        let mut backoff = self.options.retry_backoff;
        let mut left = self.options.read_retries;
        loop {
            let error = match self.once(Effect::Read, method, path, body.clone(), what).await {
                Err(error) if error.is_retryable() && left > 0 => error,
                outcome => return outcome,
            };
            let wait = backoff.mul_f64(rand::random_range(0.5..1.5));
            if started.elapsed() + wait >= self.options.request_timeout {
                return Err(error);
            }
            tracing::debug!(%error, wait_ms = wait.as_millis(), "reading again");
            tokio::time::sleep(wait).await;
            left -= 1;
            backoff *= 2;
        }
    }

    /// Sends once; the next kvfront is tried only when no connection was made.
    async fn once(
        &self,
        effect: Effect,
        method: &Method,
        path: &str,
        body: Option<Vec<u8>>,
        what: &str,
    ) -> Result<Answer, KvError> {
        let body = body.map(bytes::Bytes::from);
        let first = self.preferred.load(Ordering::Relaxed);
        let mut unreachable = Vec::new();
        for step in 0..self.bases.len() {
            let index = (first + step) % self.bases.len();
            let base = &self.bases[index];
            let mut request = self.http.request(method.clone(), format!("{base}{path}"));
            if let Some(body) = &body {
                request = request
                    .header(reqwest::header::CONTENT_TYPE, "application/json")
                    .body(body.clone());
            }
            match request.send().await {
                Ok(response) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return self.read(effect, response, what).await;
                }
                Err(error) if error.is_connect() => {
                    unreachable.push(format!("{base}: {}", chain(&error.without_url())));
                }
                Err(error) if error.is_builder() => {
                    return Err(KvError::invalid(format!("{what}: {}", chain(&error))));
                }
                Err(error) => return Err(lost(effect, what, base, &error.without_url())),
            }
        }
        Err(KvError::Unreachable {
            detail: format!("{what}: {}", unreachable.join("; ")),
        })
    }

    async fn read(&self, effect: Effect, mut response: reqwest::Response, what: &str) -> Result<Answer, KvError> {
        let status = response.status();
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() <= self.options.max_answer_bytes => {
                    body.extend_from_slice(&chunk);
                }
                Ok(Some(_)) => {
                    let limit = self.options.max_answer_bytes;
                    return Err(KvError::decode(
                        what,
                        format_args!("the answer is longer than {limit} bytes"),
                    ));
                }
                Ok(None) => break,
                Err(error) => return Err(lost(effect, what, "while the answer was coming", &error.without_url())),
            }
        }
        if status.is_success() || status == StatusCode::NOT_FOUND {
            return Ok(Answer { status, body });
        }
        Err(failure(effect, what, status, &body))
    }
}

fn check_base(text: &str) -> Result<String, KvError> {
    let bad = |why: &str| KvError::invalid(format!("KV URL {text:?}: {why}; http://host:port is expected"));
    let url = Url::parse(text).map_err(|error| bad(&error.to_string()))?;
    if url.scheme() != "http" {
        return Err(bad("its scheme is not http"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(bad("it has no host"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad("it has a query or fragment"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("it has a user or password"));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// The connection failed after the request may have been sent.
fn lost(effect: Effect, what: &str, place: &str, error: &reqwest::Error) -> KvError {
    let why = if error.is_timeout() {
        "no answer in time".to_owned()
    } else {
        chain(error)
    };
    let detail = format!("{what} ({place}): {why}");
    match effect {
        Effect::Read => KvError::Unavailable { detail },
        Effect::Write => KvError::Unknown { detail },
    }
}

/// What an error status means. The same mapping serves the single results of a batch.
pub(crate) fn failure(effect: Effect, what: &str, status: StatusCode, body: &[u8]) -> KvError {
    let parsed: Option<ErrorBody> = serde_json::from_slice(body).ok();
    let said_unknown = parsed.as_ref().and_then(|body| body.outcome.as_deref()) == Some("unknown");
    let text = parsed.map_or_else(|| String::from_utf8_lossy(body).into_owned(), |body| body.detail);
    let text: String = text.chars().take(MAX_DETAIL_CHARS).collect();
    let detail = format!("{what}: {} {text}", status.as_u16());
    match (status, effect) {
        (StatusCode::SERVICE_UNAVAILABLE, Effect::Write) if said_unknown => KvError::Unknown { detail },
        (StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS, _) => KvError::Unavailable { detail },
        _ if status.is_client_error() => KvError::Rejected {
            status: status.as_u16(),
            detail,
        },
        // 500, 502, 504 and whatever else no kvfront says: something broke on the way.
        (_, Effect::Read) => KvError::Unavailable { detail },
        (_, Effect::Write) => KvError::Unknown { detail },
    }
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let line = next.to_string();
        // Wrappers often repeat their cause.
        if !text.ends_with(&line) {
            text.push_str(": ");
            text.push_str(&line);
        }
        cause = next.source();
    }
    text
}
