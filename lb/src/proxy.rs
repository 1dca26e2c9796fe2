//! From a client's request to a gateway's answer.
//!
//! What may be sent twice, and when:
//! - Nothing was sent yet (no connection, or a pooled one that had died before it took the request): any request goes on to the next
//!   gateway, up to [`MAX_ATTEMPTS`].
//! - The connection broke after the request had been sent: one repetition on another gateway, for GET, HEAD, OPTIONS, PUT, DELETE, and
//!   POST with an `Idempotency-Key`, as long as the body was kept.
//! - The gateway has fallen silent, answering nobody, while another is well: likewise one repetition of such requests.
//! - No answer in time otherwise, or any answer at all, errors included: never. A slow system is not helped by more requests, and what a gateway
//!   answers is the answer.
//!
//! So repetitions cannot multiply load: each needs a broken connection or a frozen gateway, and each request makes at most one.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, REFERER, RETRY_AFTER, USER_AGENT};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use service::Tasks;
use service::metrics::{self, Metrics};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::access_log::{AccessLog, Entry, Visitor};
use crate::answer::{Answer, Record, Stop};
use crate::backends::{Backends, Lease, Reuse};
use crate::config::AccessFormat;
use crate::error::ProxyError;
use crate::headers;
use crate::limits::{MAX_ATTEMPTS, SILENCE_LOOK_EVERY, Timeouts};
use crate::metrics::LbMetrics;
use crate::rate_limit::RateLimiter;
use crate::request_body::{BodyError, ReplayMemory, RequestBody};

/// Paths that no rate limit applies to: who watches the system must see it under load.
const NEVER_LIMITED: [&str; 2] = ["/health", "/zones"];

/// The proxy; all connections share one.
pub(crate) struct Proxy {
    pub(crate) backends: Arc<Backends>,
    /// The targets as the user wrote them, for messages.
    pub(crate) target: String,
    pub(crate) limiter: RateLimiter,
    pub(crate) timeouts: Timeouts,
    pub(crate) max_requests: usize,
    pub(crate) slots: Arc<Semaphore>,
    pub(crate) replay_memory: Arc<ReplayMemory>,
    pub(crate) log: AccessLog,
    pub(crate) metrics: Arc<LbMetrics>,
    pub(crate) registry: Metrics,
    pub(crate) tasks: Tasks,
    /// The stop signal: event streams end.
    pub(crate) stopping: CancellationToken,
    /// The end of the grace: everything ends.
    pub(crate) cut: CancellationToken,
}

/// What came of sending a request over one connection.
enum Sent {
    Answered(Response<Incoming>),
    /// The connection was dead before it took the request: here it is again.
    Untouched(Box<Request<RequestBody>>, hyper::Error),
    /// It may have arrived.
    Broken(hyper::Error),
    /// The gateway answers nobody, and another one might.
    Silent,
    TimedOut,
}

impl Proxy {
    /// Answers one request.
    pub(crate) async fn answer(&self, request: Request<Incoming>, client: SocketAddr) -> Response<Answer> {
        if let Some(answer) = self.own(&request) {
            return answer;
        }
        let mut record = self.record(&request, client.ip());
        match self.forward(request, client.ip(), &mut record).await {
            Ok((answer, lease)) => self.pass(answer, lease, record),
            Err(error) => refuse(&error, Some(record)),
        }
    }

    /// `/ready` and `/metrics` describe the load balancer itself. They are neither counted nor logged: whoever watches latencies would
    /// otherwise mostly see health checks.
    fn own(&self, request: &Request<Incoming>) -> Option<Response<Answer>> {
        let path = match request.uri().path() {
            "/ready" => "/ready",
            "/metrics" => "/metrics",
            _ => return None,
        };
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let method = request.method().to_string();
            return Some(refuse(&ProxyError::MethodNotAllowed { method, path }, None));
        }
        if path == "/metrics" {
            return Some(own(StatusCode::OK, metrics::CONTENT_TYPE, self.registry.render(), None));
        }
        let readiness = self.tasks.readiness();
        let status = if readiness.is_ready() {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        let body = serde_json::to_string(&readiness).unwrap_or_default();
        Some(own(status, "application/json", body, None))
    }

    fn record(&self, request: &Request<Incoming>, client: IpAddr) -> Record {
        self.metrics.in_flight.inc();
        let entry = (self.log.format() != AccessFormat::Off).then(|| {
            let header = |name| request.headers().get(name).cloned();
            Box::new(Entry {
                method: request.method().clone(),
                uri: request.uri().clone(),
                version: request.version(),
                client,
                started: Instant::now(),
                status: 0,
                bytes: 0,
                stream: false,
                visitor: (self.log.format() == AccessFormat::Combined).then(|| Visitor {
                    referer: header(REFERER),
                    user_agent: header(USER_AGENT),
                }),
            })
        });
        Record {
            metrics: Arc::clone(&self.metrics),
            log: self.log.clone(),
            entry,
            status: None,
            _slot: None,
        }
    }

    async fn forward(
        &self,
        request: Request<Incoming>,
        client: IpAddr,
        record: &mut Record,
    ) -> Result<(Response<Incoming>, Lease), ProxyError> {
        if !NEVER_LIMITED.contains(&request.uri().path()) {
            self.limiter.check(client, Instant::now()).map_err(|refusal| {
                self.metrics.limited(refusal.scope);
                ProxyError::RateLimited(refusal)
            })?;
        }
        let slot = Arc::clone(&self.slots).try_acquire_owned();
        record._slot = Some(slot.map_err(|_| ProxyError::Busy(self.max_requests))?);

        let (mut head, body) = request.into_parts();
        headers::prepare_request(&mut head, client)?;
        let repeatable = headers::is_repeatable(&head);
        let (body, _reserved) = RequestBody::gather(body, repeatable, &self.replay_memory, self.timeouts.request_idle)
            .await
            .map_err(ProxyError::RequestBody)?;
        let mut request = Request::new(body);
        *request.method_mut() = head.method;
        *request.uri_mut() = head.uri;
        *request.headers_mut() = head.headers;
        self.send(request, repeatable).await
    }

    /// Sends a request to the gateways in turn until one has answered or it must not be sent again.
    async fn send(
        &self,
        mut request: Request<RequestBody>,
        repeatable: bool,
    ) -> Result<(Response<Incoming>, Lease), ProxyError> {
        let harmless = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        let mut tried: Vec<SocketAddr> = Vec::new();
        let mut repeated = false;
        let mut again = None;
        let mut last_error = None;
        for _ in 0..MAX_ATTEMPTS {
            let (pick, mut reuse) = match (self.backends.pick(&tried, Instant::now()), again.take()) {
                (Some(pick), _) if repeatable => (pick, Reuse::Any),
                (Some(pick), _) => (pick, Reuse::Recent),
                // The only gateway closed an idle connection just then: a new one may do.
                (None, Some(pick)) => (pick, Reuse::Never),
                (None, None) => break,
            };
            let backend = pick.backend.addr;
            tried.push(backend);
            // Twice at most: over a new connection when a pooled one turned out dead.
            loop {
                let mut lease = match pick.lease(reuse, self.timeouts.connect, &self.metrics).await {
                    Ok(lease) => lease,
                    Err(error) => {
                        let reason = error.to_string();
                        last_error = Some(ProxyError::Unreachable { backend, reason });
                        break;
                    }
                };
                let copy = if repeatable && !repeated { copy(&request) } else { None };
                match self.send_over(&mut lease, request, copy.is_some()).await {
                    Sent::Answered(answer) => {
                        lease.backend.succeeded();
                        return Ok((answer, lease));
                    }
                    Sent::Untouched(returned, error) => {
                        request = *returned;
                        let reason = error.to_string();
                        last_error = Some(ProxyError::Unreachable { backend, reason });
                        if lease.reused {
                            reuse = Reuse::Never;
                            continue;
                        }
                        break;
                    }
                    Sent::Broken(error) => {
                        if let Some(error) = clients_fault(&error) {
                            return Err(error);
                        }
                        let broken = ProxyError::BrokenOff {
                            backend,
                            reason: describe(&error),
                            outcome_unknown: !harmless,
                        };
                        let Some(copy) = copy else { return Err(broken) };
                        tracing::debug!(%backend, %error, "sending a request again on another gateway");
                        last_error = Some(broken);
                        request = copy;
                        repeated = true;
                        self.metrics.retries.inc();
                        again = lease.reused.then_some(pick);
                        break;
                    }
                    Sent::Silent => {
                        tracing::debug!(%backend, "sending a request again, as its gateway answers nothing");
                        last_error = Some(self.timeout(backend, harmless));
                        let Some(copy) = copy else {
                            return Err(self.timeout(backend, harmless));
                        };
                        request = copy;
                        repeated = true;
                        self.metrics.retries.inc();
                        break;
                    }
                    Sent::TimedOut => return Err(self.timeout(backend, harmless)),
                }
            }
        }
        Err(last_error.unwrap_or_else(|| ProxyError::NoBackend(self.target.clone())))
    }

    fn timeout(&self, backend: SocketAddr, harmless: bool) -> ProxyError {
        ProxyError::Timeout {
            backend,
            waited_sec: self.timeouts.response_head.as_secs_f64(),
            outcome_unknown: !harmless,
        }
    }

    /// `may_leave`: the request can be sent to another gateway should this one have fallen silent.
    async fn send_over(&self, lease: &mut Lease, request: Request<RequestBody>, may_leave: bool) -> Sent {
        let started = tokio::time::Instant::now();
        let timeout = self.timeouts.response_head;
        lease.upload = request.body().progress();
        let progress = lease.upload.clone();
        lease.backend.asked();
        let sending = lease.sender.try_send_request(request);
        tokio::pin!(sending);
        let mut deadline = started + timeout;
        loop {
            let look = if may_leave {
                deadline.min(tokio::time::Instant::now() + SILENCE_LOOK_EVERY)
            } else {
                deadline
            };
            match tokio::time::timeout_at(look, &mut sending).await {
                Ok(Ok(answer)) => {
                    self.metrics.upstream_seconds.observe(started.elapsed().as_secs_f64());
                    return Sent::Answered(answer);
                }
                Ok(Err(mut error)) => {
                    return match error.take_message() {
                        Some(request) => Sent::Untouched(Box::new(request), error.into_error()),
                        None => Sent::Broken(error.into_error()),
                    };
                }
                Err(_elapsed) if look < deadline => {
                    if self.backends.other_is_well(&lease.backend, Instant::now()) {
                        return Sent::Silent;
                    }
                }
                Err(_elapsed) => {
                    // A body that still moves is not yet waiting for its answer.
                    let moved = progress.as_ref().map(|progress| progress.last() + timeout);
                    match moved.filter(|later| *later > deadline) {
                        Some(later) => deadline = later,
                        None => return Sent::TimedOut,
                    }
                }
            }
        }
    }

    fn pass(&self, answer: Response<Incoming>, lease: Lease, mut record: Record) -> Response<Answer> {
        let (mut head, body) = answer.into_parts();
        headers::drop_hop_by_hop(&mut head.headers);
        record.status = Some(head.status);
        let is_event_stream = head.headers.get(CONTENT_TYPE).is_some_and(|kind| {
            kind.as_bytes()
                .get(..17)
                .is_some_and(|kind| kind.eq_ignore_ascii_case(b"text/event-stream"))
        });
        let stop = if is_event_stream {
            record.is_event_stream();
            Stop::EventStream(self.stopping.clone())
        } else {
            Stop::Cut(self.cut.clone())
        };
        let mut response = Response::new(Answer::passed(body, lease, self.timeouts.response_idle, stop, record));
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        response
    }
}

/// A request to send once more; none when its body is a stream.
fn copy(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    let mut copy = Request::new(request.body().copy()?);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

/// When it was the client's own body that ended badly, the gateway is not to blame.
fn clients_fault(error: &hyper::Error) -> Option<ProxyError> {
    let source = std::error::Error::source(error)?.downcast_ref::<BodyError>()?;
    Some(match source {
        BodyError::Idle(after) => ProxyError::RequestBody(BodyError::Idle(*after)),
        BodyError::Client(error) => ProxyError::ClientBrokeOff(error.to_string()),
    })
}

/// An error with its cause: hyper's own words stop short of "connection reset by peer".
fn describe(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

fn refuse(error: &ProxyError, record: Option<Record>) -> Response<Answer> {
    tracing::debug!(status = error.status().as_u16(), %error, "answered with an error");
    let mut response = own(error.status(), "application/json", error.body().to_string(), record);
    if let Some(seconds) = error.retry_after_sec() {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn own(status: StatusCode, content_type: &'static str, body: String, mut record: Option<Record>) -> Response<Answer> {
    if let Some(record) = &mut record {
        record.status = Some(status);
    }
    let length = body.len();
    let mut response = Response::new(Answer::own(body, record));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    response
}
