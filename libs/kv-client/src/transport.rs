//! One HTTP exchange with one of several kvfronts, and what its failure means.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kv_api::{ErrorBody, REQUEST_ATTEMPT_HEADER, REQUEST_ID_HEADER, RequestName};
use reqwest::{Method, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use trace::{Context, Kind, Span};

use crate::{KvError, Options};

/// Connections idle for longer are closed: a kvfront that was replaced is not remembered for ever.
const IDLE_CONNECTION: Duration = Duration::from_secs(20);

/// A stream that brings nothing for this long is broken: its server sends a sign of life every 10 s.
const STREAM_SILENCE: Duration = Duration::from_secs(25);

/// Longest part of an error answer that is repeated in an error's text, in characters.
const MAX_DETAIL_CHARS: usize = 500;

/// What a request does: decides what a failure after sending means, and whether it may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Changes nothing: a failure leaves nothing unknown.
    Read,
    /// May change something: sent at most once, unless it is named.
    Write,
    /// A batch that may change something, of operations that are named one by one.
    NamedBatch,
}

/// What an attempt says of itself.
#[derive(Debug)]
struct Attempt {
    /// The name of a single change.
    name: Option<RequestName>,
    /// Counts from 1.
    number: u32,
    /// The trace that the call belongs to, if any.
    context: Context,
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
    /// For answers that never end.
    streams: reqwest::Client,
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
        let client = || {
            reqwest::Client::builder()
                // The KV is inside: a proxy named in the environment has no business with it.
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .retry(reqwest::retry::never())
                .connect_timeout(options.connect_timeout)
                .pool_max_idle_per_host(options.max_idle_connections)
                .pool_idle_timeout(IDLE_CONNECTION)
                .tcp_nodelay(true)
        };
        let cannot = |error| KvError::invalid(format!("the HTTP client cannot be built: {}", chain(&error)));
        let http = client().timeout(options.request_timeout).build().map_err(cannot)?;
        let streams = client().read_timeout(STREAM_SILENCE).build().map_err(cannot)?;
        Ok(Arc::new(Self {
            http,
            streams,
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
        let name = match effect {
            Effect::Write => self.new_name(),
            Effect::Read | Effect::NamedBatch => None,
        };
        let mut span = called(&method, path);
        let attempt = Attempt {
            name,
            number: 1,
            context: span.context().clone(),
        };
        let answer = self.with_retries(effect, attempt, &method, path, body, &what).await;
        let answer = answer.inspect_err(|error| span.failed(error))?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        serde_json::from_slice(&answer.body)
            .map(Some)
            .map_err(|error| KvError::decode(&what, error))
    }

    /// A name for a new change, if changes are repeated.
    pub(crate) fn new_name(&self) -> Option<RequestName> {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ms = u64::try_from(since_epoch.as_millis()).unwrap_or_default();
        (self.options.write_retries > 0).then(|| RequestName::new(now_ms, rand::random()))
    }

    async fn with_retries(
        &self,
        effect: Effect,
        mut attempt: Attempt,
        method: &Method,
        path: &str,
        body: Option<Vec<u8>>,
        what: &str,
    ) -> Result<Answer, KvError> {
        let started = Instant::now();
        let mut backoff = self.options.retry_backoff;
        let retries = match effect {
            Effect::Read => self.options.read_retries,
            Effect::Write | Effect::NamedBatch => self.options.write_retries,
        };
        let mut lost: Option<KvError> = None;
        loop {
            let error = match self.once(effect, &attempt, method, path, body.clone(), what).await {
                Err(error) if error.is_retryable() || error.is_outcome_unknown() => error,
                // What is refused now may have been done before.
                Err(error) => return Err(lost.unwrap_or(error)),
                Ok(answer) => return Ok(answer),
            };
            let wait = backoff.mul_f64(rand::random_range(0.5..1.5));
            if attempt.number > retries || started.elapsed() + wait >= self.options.request_timeout {
                // Once the outcome was unknown, it stays so until an attempt is answered.
                return Err(lost.filter(|_| !error.is_outcome_unknown()).unwrap_or(error));
            }
            tracing::debug!(%error, wait_ms = wait.as_millis(), "sending again");
            tokio::time::sleep(wait).await;
            if error.is_outcome_unknown() {
                lost = Some(error);
            }
            attempt.number += 1;
            backoff *= 2;
        }
    }

    /// Sends once; the next kvfront is tried only when no connection was made.
    async fn once(
        &self,
        effect: Effect,
        attempt: &Attempt,
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
            if let Some(name) = attempt.name {
                request = request.header(REQUEST_ID_HEADER, name.to_string());
            }
            if attempt.name.is_some() || effect == Effect::NamedBatch {
                request = request.header(REQUEST_ATTEMPT_HEADER, attempt.number);
            }
            if attempt.context.span.is_some() {
                for (name, value) in attempt.context.headers() {
                    request = request.header(name, value);
                }
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

    /// Opens `path` at one kvfront after the other until one answers, and gives its answer as it comes.
    pub(crate) async fn stream(&self, path: &str) -> Result<reqwest::Response, KvError> {
        let what = format!("GET {path}");
        let first = self.preferred.load(Ordering::Relaxed);
        let mut last = None;
        for step in 0..self.bases.len() {
            let base = &self.bases[(first + step) % self.bases.len()];
            let error = match self.streams.get(format!("{base}{path}")).send().await {
                Ok(response) if response.status().is_success() => return Ok(response),
                Ok(response) => match self.read(Effect::Read, response, &what).await {
                    // A kvfront that takes no more watchers, or is not ready; another one may.
                    Err(error) if error.is_retryable() => error,
                    Err(error) => return Err(error),
                    Ok(answer) => {
                        let status = answer.status.as_u16();
                        let detail = format!("{what}: the server does not know this call");
                        return Err(KvError::Rejected { status, detail });
                    }
                },
                Err(error) => lost(Effect::Read, &what, base, &error.without_url()),
            };
            last = Some(error);
        }
        Err(last.unwrap_or_else(|| KvError::invalid("no kvfront is known")))
    }

    /// The largest answer, or event of a stream, that is read.
    pub(crate) fn max_answer_bytes(&self) -> usize {
        self.options.max_answer_bytes
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

/// The span of a call, retries included, if whoever makes it is traced.
fn called(method: &Method, path: &str) -> Span {
    let span = trace::with_current(|scope| scope.span(Kind::Client, || format!("kv {method}")));
    let mut span = span.unwrap_or_else(|| Span::unrecorded(Context::default()));
    span.set_with("http.request.method", || method.to_string());
    span.set_with("url.path", || path.split('?').next().unwrap_or_default().to_owned());
    span
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
        Effect::Write | Effect::NamedBatch => KvError::Unknown { detail },
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
        (StatusCode::SERVICE_UNAVAILABLE, Effect::Write | Effect::NamedBatch) if said_unknown => {
            KvError::Unknown { detail }
        }
        (StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS, _) => KvError::Unavailable { detail },
        _ if status.is_client_error() => KvError::Rejected {
            status: status.as_u16(),
            detail,
        },
        // 500, 502, 504 and whatever else no kvfront says: something broke on the way.
        (_, Effect::Read) => KvError::Unavailable { detail },
        (_, Effect::Write | Effect::NamedBatch) => KvError::Unknown { detail },
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
