//! One client's connection: its requests, one after the other.

use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use http::StatusCode;
use service::metrics;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::access_log::Entry;
use crate::buffer::Buffer;
use crate::clients::{TooMany, Trust};
use crate::download::{own, refusal};
use crate::error::{BodyError, ProxyError};
use crate::exchange::Outcome;
use crate::head::request::{self, Method, Origin, Request};
use crate::limits::{LINGER, LINGER_MAX_BYTES};
use crate::traces;
use crate::transfer::{fill, write_all};
use crate::upload::{Rest, Source};
use crate::watch::{Side, Watch};
use crate::worker::{Shared, Worker};

/// Paths that no rate limit applies to: who watches the system must see it under load.
const NEVER_LIMITED: [&[u8]; 2] = [b"/health", b"/zones"];

/// Logged for a client that went away before there was an answer, as nginx does.
const CLIENT_GONE: u16 = 499;

/// Memory for heads that an idle connection keeps, bytes.
const KEPT_BYTES: usize = 1024;

/// A client's connection, with memory that its requests use one after the other.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) worker: Rc<Worker>,
    pub(crate) watch: Rc<Watch>,
    peer: IpAddr,
    /// What its forwarding headers are worth.
    trust: Trust,
    pub(crate) stream: TcpStream,
    /// Read and not yet used.
    pub(crate) input: Buffer,
    /// The head for the gateway.
    pub(crate) head: Vec<u8>,
    /// What has been read of the body, as it goes on.
    pub(crate) body: Vec<u8>,
    /// What goes to the client.
    pub(crate) out: Vec<u8>,
    pub(crate) entry: Entry,
}

/// A request that has not been answered, among those that may be.
struct InFlight<'a>(&'a Shared);

impl<'a> InFlight<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.metrics.in_flight.inc();
        Self(shared)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.metrics.in_flight.dec();
    }
}

/// A place among the requests that are forwarded at once.
struct Slot<'a>(&'a Shared);

impl<'a> Slot<'a> {
    fn take(shared: &'a Shared) -> Result<Self, ProxyError> {
        let slot = Self(shared);
        if shared.forwarding.fetch_add(1, Ordering::Relaxed) >= shared.limits.requests {
            return Err(ProxyError::Busy(shared.limits.requests));
        }
        Ok(slot)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.forwarding.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves a client until it or we close the connection; at once with a refusal, when it is `too_many`.
pub(crate) async fn serve(worker: Rc<Worker>, stream: TcpStream, peer: IpAddr, too_many: Option<TooMany>) {
    // Small answers must not wait for the client's delayed ACK.
    let _ = stream.set_nodelay(true);
    let mut connection = Connection {
        watch: Watch::new(&worker.clock).await,
        peer,
        trust: worker.shared.proxies.trust(peer),
        stream,
        input: Buffer::new(&worker.memory),
        head: Vec::new(),
        body: Vec::new(),
        out: Vec::new(),
        entry: Entry::new(peer),
        worker,
    };
    if let Some(TooMany(most)) = too_many {
        connection.refuse(&ProxyError::TooManyConnections(most), false).await;
        return;
    }
    while connection.serve_one().await {}
}

impl Connection {
    /// Reads a request and answers it. False when the connection is to be closed.
    async fn serve_one(&mut self) -> bool {
        let request = match self.read_head().await {
            Ok(Some(request)) => request,
            Ok(None) => return false,
            Err(error) => {
                self.note(Some(&error));
                self.refuse(&error, false).await;
                return false;
            }
        };
        if let Some(carry_on) = self.own(&request).await {
            return carry_on;
        }
        let worker = Rc::clone(&self.worker);
        let in_flight = InFlight::new(&worker.shared);
        let mut rest = Rest::of(request.framing);
        let outcome = match self.forward(&request, &mut rest).await {
            Ok(outcome) => outcome,
            Err(error) => Outcome::Refused(error),
        };
        let carry_on = match outcome {
            Outcome::Answered { keep_alive } => {
                self.note(None);
                keep_alive && !worker.clock.is_stopping()
            }
            Outcome::Refused(ProxyError::RequestBody(BodyError::Gone)) | Outcome::Gone => {
                self.note(None);
                return false;
            }
            Outcome::Refused(error) => {
                // What was not read of the body stands in the way of the next request.
                let keep_alive = request.keep_alive && rest == Rest::Nothing && !worker.clock.is_stopping();
                self.note(Some(&error));
                drop(in_flight);
                let answered = self.refuse(&error, keep_alive).await;
                return answered && keep_alive;
            }
        };
        drop(in_flight);
        if !carry_on {
            self.close(rest != Rest::Nothing).await;
        }
        carry_on
    }

    /// Waits for a request's head. None when the connection ends instead.
    async fn read_head(&mut self) -> Result<Option<Request>, ProxyError> {
        let worker = Rc::clone(&self.worker);
        let (clock, timeouts, limits) = (&worker.clock, &worker.shared.timeouts, &worker.shared.limits);
        let mut began_ms = clock.now_ms();
        let mut seen = 0;
        loop {
            if may_be_complete(self.input.data(), seen) {
                self.entry.begin(Instant::now());
                let origin = Origin {
                    peer: self.peer,
                    trust: self.trust,
                    proxies: &worker.shared.proxies,
                    new_id: &|| worker.new_id(),
                    tracer: &worker.shared.tracer,
                };
                if let Some((length, request)) =
                    request::read(self.input.data(), origin, limits, &mut self.head, &mut self.entry)?
                {
                    self.input.consume(length);
                    return Ok(Some(request));
                }
            }
            seen = self.input.len();
            if self.input.is_full() {
                return Err(ProxyError::HeadersTooLarge {
                    bytes: seen,
                    max_bytes: limits.head_bytes,
                });
            }
            let idle = self.input.is_empty();
            let limit = if idle {
                self.forget_memory();
                timeouts.keep_alive
            } else {
                // Of the whole head, so that a byte now and then does not prolong it.
                let spent = std::time::Duration::from_millis(clock.now_ms().saturating_sub(began_ms));
                timeouts.request_head.saturating_sub(spent)
            };
            let stop = || clock.is_cut() || (idle && clock.is_stopping());
            match fill(&self.watch, Side::Up, limit, &mut self.stream, &mut self.input, stop).await {
                Ok(0) => return Ok(None),
                Ok(_) if idle => began_ms = clock.now_ms(),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::TimedOut && !idle => {
                    return Err(ProxyError::SlowHead(timeouts.request_head));
                }
                Err(_) => return Ok(None),
            }
        }
    }

    /// An idle connection keeps little.
    fn forget_memory(&mut self) {
        for memory in [&mut self.head, &mut self.body, &mut self.out] {
            if memory.capacity() > KEPT_BYTES {
                memory.clear();
                memory.shrink_to(KEPT_BYTES);
            }
        }
    }

    /// `/ready` and `/metrics` describe the load balancer itself. They are neither counted nor logged: whoever watches latencies would
    /// otherwise mostly see health checks.
    async fn own(&mut self, request: &Request) -> Option<bool> {
        let shared = &self.worker.shared;
        let path = match &*self.entry.path {
            b"/ready" => "/ready",
            b"/metrics" => "/metrics",
            _ => return None,
        };
        let keep_alive = request.keep_alive && Rest::of(request.framing) == Rest::Nothing;
        if !matches!(request.method, Method::Get | Method::Head) {
            let method = String::from_utf8_lossy(&self.entry.method).into_owned();
            let error = ProxyError::MethodNotAllowed { method, path };
            return Some(self.refuse(&error, keep_alive).await && keep_alive);
        }
        let (status, kind, body) = if path == "/metrics" {
            (StatusCode::OK, metrics::CONTENT_TYPE, shared.registry.render())
        } else {
            let readiness = shared.tasks.readiness();
            let status = if readiness.is_ready() {
                StatusCode::OK
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            };
            (
                status,
                "application/json",
                serde_json::to_string(&readiness).unwrap_or_default(),
            )
        };
        own(&mut self.out, status, kind, body.as_bytes(), &[], keep_alive);
        if request.method == Method::Head {
            self.out.truncate(self.out.len() - body.len());
        }
        Some(self.flush(keep_alive).await && keep_alive)
    }

    async fn forward(&mut self, request: &Request, rest: &mut Rest) -> Result<Outcome, ProxyError> {
        let worker = Rc::clone(&self.worker);
        let shared = &worker.shared;
        if !NEVER_LIMITED.contains(&&*self.entry.path) {
            shared
                .limiter
                .check(self.entry.client, self.entry.started)
                .map_err(|refusal| {
                    shared.metrics.limited(refusal.scope);
                    ProxyError::RateLimited(refusal)
                })?;
        }
        rest.check(shared.limits.body_bytes).map_err(ProxyError::RequestBody)?;
        let _slot = Slot::take(shared)?;
        request.framing.finish(&mut self.head);
        self.body.clear();
        let mut reserved = None;
        if *rest != Rest::Nothing {
            if request.expects_continue && self.input.is_empty() {
                let leave = b"HTTP/1.1 100 Continue\r\n\r\n";
                let limit = shared.timeouts.write;
                let told = write_all(&self.watch, Side::Down, limit, &mut self.stream, leave, b"").await;
                if told.is_err() {
                    return Ok(Outcome::Gone);
                }
            }
            let mut source = Source {
                watch: &self.watch,
                timeouts: &shared.timeouts,
                limits: &shared.limits,
                from: &mut self.stream.split().0,
                input: &mut self.input,
            };
            let may_repeat = request.is_repeatable();
            let gathered = source.gather(rest, may_repeat, &shared.replay_memory, &mut self.body);
            reserved = gathered.await.map_err(ProxyError::RequestBody)?;
        }
        let outcome = self.exchange(request, rest).await;
        drop(reserved);
        Ok(outcome)
    }

    /// Counts and logs the request.
    fn note(&mut self, error: Option<&ProxyError>) {
        let worker = Rc::clone(&self.worker);
        if let Some(error) = error {
            tracing::debug!(status = error.status().as_u16(), %error, "answered with an error");
            self.entry.status = error.status().as_u16();
            self.entry.bytes = error.body().to_string().len() as u64;
        }
        match StatusCode::from_u16(self.entry.status) {
            Ok(status) => worker.shared.metrics.answered(status),
            Err(_) => self.entry.status = CLIENT_GONE,
        }
        let log = &worker.shared.log;
        log.write(&self.entry, Instant::now(), &mut worker.scratch.borrow_mut());
        if let Some(span) = self.entry.span.take() {
            traces::end(span, &self.entry, error);
        }
    }

    async fn refuse(&mut self, error: &ProxyError, keep_alive: bool) -> bool {
        refusal(&mut self.out, error, keep_alive);
        self.flush(keep_alive).await
    }

    /// Sends what is in `out`.
    async fn flush(&mut self, keep_alive: bool) -> bool {
        let limit = self.worker.shared.timeouts.write;
        let sent = write_all(&self.watch, Side::Down, limit, &mut self.stream, &self.out, b"")
            .await
            .is_ok();
        if sent && !keep_alive {
            self.close(true).await;
        }
        sent
    }

    /// Ends the connection. With `unread` bytes on it, the system would take the answer back from the client's system together with the
    /// connection (RFC 9112, 9.6): so they are read and dropped for a while.
    async fn close(&mut self, unread: bool) {
        let _ = self.stream.shutdown().await;
        let mut dropped = 0;
        while unread && dropped < LINGER_MAX_BYTES {
            self.input.consume(self.input.len());
            let stop = || self.worker.clock.is_cut();
            match fill(&self.watch, Side::Up, LINGER, &mut self.stream, &mut self.input, stop).await {
                Ok(1..) => dropped += self.input.len(),
                _ => return,
            }
        }
    }
}

/// Whether a head may have come to its end with the bytes after the first `seen`. Spares the parser a head that comes in drops.
fn may_be_complete(input: &[u8], seen: usize) -> bool {
    if seen == 0 {
        return !input.is_empty();
    }
    let fresh = &input[seen.saturating_sub(2)..];
    fresh.windows(2).any(|pair| pair == b"\n\n") || fresh.windows(3).any(|three| three == b"\n\r\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::ProptestConfig;
    use proptest::{prop_assert, proptest};

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// A head that has come to its end is parsed then, in whatever pieces it came, or its client would wait for ever.
        #[test]
        fn no_end_of_a_head_is_overlooked(text in "[\r\na]{0,12}", seen in 0_usize..12) {
            let seen = seen.min(text.len());
            let ends = |text: &str| text.contains("\n\n") || text.contains("\n\r\n");
            if seen < text.len() && ends(&text) && !ends(&text[..seen]) {
                prop_assert!(may_be_complete(text.as_bytes(), seen));
            }
        }
    }
}
