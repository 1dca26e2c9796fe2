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
//! So repetitions cannot multiply load: each needs a broken connection or a frozen gateway, each request makes at most one, and all together
//! have a budget (`retry`).

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Instant;

use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::net::tcp::WriteHalf;

use crate::backends::Pick;
use crate::buffer::Buffer;
use crate::connection::Connection;
use crate::download::{End, NoHead, Sink};
use crate::error::{BodyError, ProxyError};
use crate::head::request::Request;
use crate::limits::MAX_ATTEMPTS;
use crate::transfer::race;
use crate::tunnel;
use crate::upload::{Progress, Rest, Source};
use crate::upstream::{Reuse, Upstream};
use crate::watch::{Elapsed, Side};

/// How an exchange ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Answered; whether the client's connection can carry on.
    Answered { keep_alive: bool },
    /// To be answered by ourselves.
    Refused(ProxyError),
    /// Nobody is left to be answered.
    Gone,
}

/// What came of sending a request over one connection.
enum Sent {
    Ended(Outcome),
    /// The connection was dead before it took the request.
    Untouched(io::Error),
    /// It may have arrived.
    Broken(String),
    /// The gateway answers nobody, another one might, and the retry budget allows it.
    Silent,
    TimedOut,
}

/// Addresses that were tried.
#[derive(Debug)]
struct Tried {
    addrs: [SocketAddr; MAX_ATTEMPTS],
    count: usize,
}

impl Tried {
    fn none() -> Self {
        Self {
            addrs: [SocketAddr::from(([0; 4], 0)); MAX_ATTEMPTS],
            count: 0,
        }
    }

    fn push(&mut self, addr: SocketAddr) {
        if let Some(place) = self.addrs.get_mut(self.count) {
            *place = addr;
            self.count += 1;
        }
    }

    fn addrs(&self) -> &[SocketAddr] {
        &self.addrs[..self.count]
    }
}

impl Connection {
    /// Sends the request, whose head and body so far are in `head` and `body`, to the gateways in turn until one has answered or it must not
    /// be sent again. `rest`: of the body, what has not been read.
    pub(crate) async fn exchange(&mut self, request: &Request, rest: &mut Rest) -> Outcome {
        let worker = std::rc::Rc::clone(&self.worker);
        let shared = &worker.shared;
        let repeatable = request.is_repeatable() && *rest == Rest::Nothing;
        let mut tried = Tried::none();
        let mut repeated = false;
        let mut again: Option<Pick> = None;
        let mut last_error = None;
        for _ in 0..MAX_ATTEMPTS {
            let now = Instant::now();
            let picked = shared.backends.pick(tried.addrs(), now);
            let (pick, mut reuse) = match (picked, again.take()) {
                (Some(pick), _) if repeatable => (pick, Reuse::Any),
                (Some(pick), _) => (pick, Reuse::Recent),
                // The only gateway closed an idle connection just then: a new one may do.
                (None, Some(pick)) => (pick, Reuse::Never),
                (None, None) => break,
            };
            let backend = pick.backend.addr;
            tried.push(backend);
            let broke_off = || {
                let failed_at = Instant::now();
                shared.backends.broke_off(&pick.backend, failed_at - now, failed_at);
            };
            let _under_way = shared.backends.begin(&pick.backend);
            // Twice at most: over a new connection when a pooled one turned out dead.
            loop {
                let upstream = match self.lease(&pick, reuse).await {
                    Ok(upstream) => upstream,
                    Err(error) => {
                        let failed_at = Instant::now();
                        shared.backends.failed(&pick.backend, failed_at - now, failed_at);
                        let reason = error.to_string();
                        last_error = Some(ProxyError::Unreachable { backend, reason });
                        break;
                    }
                };
                let reused = upstream.reused;
                let may_repeat = repeatable && !repeated;
                let (error, again_elsewhere) = match self.send_over(upstream, request, rest, may_repeat).await {
                    Sent::Ended(outcome) => return outcome,
                    Sent::Untouched(error) => {
                        let reason = error.to_string();
                        last_error = Some(ProxyError::Unreachable { backend, reason });
                        if reused {
                            reuse = Reuse::Never;
                            continue;
                        }
                        break;
                    }
                    Sent::TimedOut => {
                        broke_off();
                        return Outcome::Refused(self.timeout(backend, request));
                    }
                    Sent::Silent => {
                        broke_off();
                        (self.timeout(backend, request), true)
                    }
                    Sent::Broken(reason) => {
                        // A connection that had idled may have been closed for that alone.
                        if !reused {
                            broke_off();
                        }
                        again = reused.then(|| pick.clone());
                        let error = ProxyError::BrokenOff {
                            backend,
                            reason,
                            outcome_unknown: !request.is_harmless(),
                        };
                        let granted = may_repeat && shared.backends.may_repeat(Instant::now());
                        if may_repeat && !granted {
                            shared.metrics.retries_refused.inc();
                        }
                        (error, granted)
                    }
                };
                if !again_elsewhere {
                    return Outcome::Refused(error);
                }
                tracing::debug!(%error, "sending a request again on another gateway");
                last_error = Some(error);
                repeated = true;
                shared.metrics.retries.inc();
                break;
            }
        }
        Outcome::Refused(last_error.unwrap_or_else(|| ProxyError::NoBackend(shared.target.clone())))
    }

    fn timeout(&self, backend: SocketAddr, request: &Request) -> ProxyError {
        ProxyError::Timeout {
            backend,
            waited_sec: self.worker.shared.timeouts.response_head.as_secs_f64(),
            outcome_unknown: !request.is_harmless(),
        }
    }

    /// A connection to this gateway: an idle one that suits, else a new one. A failure counts against the gateway.
    async fn lease(&self, pick: &Pick, reuse: Reuse) -> io::Result<Upstream> {
        let (worker, addr) = (&self.worker, pick.backend.addr);
        if let Some(upstream) = worker.pool.take(addr, reuse, worker.clock.now_ms()) {
            return Ok(upstream);
        }
        worker.shared.metrics.connects.inc();
        let limit = worker.shared.timeouts.connect;
        let mut connecting = pin!(TcpStream::connect(addr));
        let connected = self.watch.within(Side::Down, limit, |cx| connecting.as_mut().poll(cx));
        let timed_out = |Elapsed| {
            Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no connection within {limit:?}"),
            ))
        };
        let connected = connected.await.unwrap_or_else(timed_out);
        match connected {
            Ok(stream) => {
                // Small requests must not wait for the gateway's delayed ACK.
                stream.set_nodelay(true)?;
                pick.backend.connected();
                Ok(Upstream {
                    stream,
                    backend: std::sync::Arc::clone(&pick.backend),
                    reused: false,
                })
            }
            Err(error) => {
                pick.unreachable(&error, &worker.shared.metrics);
                worker.pool.clear(addr);
                Err(error)
            }
        }
    }

    /// `may_leave`: the request can be sent to another gateway should this one have fallen silent.
    async fn send_over(&mut self, mut upstream: Upstream, request: &Request, rest: &mut Rest, may_leave: bool) -> Sent {
        let (worker, watch) = (&self.worker, &*self.watch);
        let shared = &worker.shared;
        let mut from_gateway = Buffer::new(&worker.memory);
        let started = Instant::now();
        let progress = Progress::new(worker.clock.now_ms());
        let backend = std::sync::Arc::clone(&upstream.backend);
        backend.asked();
        let (answer, end) = {
            let (mut client_reads, mut client_writes) = self.stream.split();
            let (mut gateway_reads, mut gateway_writes) = upstream.stream.split();
            // Nearly always takes everything, and tells at once whether the connection is still there.
            let sent = match write_now(&mut gateway_writes, &self.head, &self.body).await {
                Ok(sent) => sent,
                Err(error) => return Sent::Untouched(error),
            };
            let of_head = sent.min(self.head.len());
            let unsent = [&self.head[of_head..], &self.body[sent - of_head..]];
            progress.ended.set(unsent == [b"", b""] && *rest == Rest::Nothing);
            let mut source = Source {
                watch,
                timeouts: &shared.timeouts,
                limits: &shared.limits,
                from: &mut client_reads,
                input: &mut self.input,
            };
            let mut sink = Sink {
                watch,
                timeouts: &shared.timeouts,
                from: &mut gateway_reads,
                input: &mut from_gateway,
                to: &mut client_writes,
                out: &mut self.out,
            };
            let mut side = pin!(source.run(&mut gateway_writes, unsent, *rest, &progress));
            let silent = || {
                let now = Instant::now();
                may_leave && shared.backends.other_is_well(&backend, now) && shared.backends.may_repeat(now)
            };
            let answer = match race(sink.head(request, &progress, silent), side.as_mut()).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(NoHead::Broken(reason))) => return Sent::Broken(reason),
                Ok(Err(NoHead::Silent)) => return Sent::Silent,
                Ok(Err(NoHead::TimedOut)) => return Sent::TimedOut,
                Ok(Err(NoHead::Cut)) | Err(Err(BodyError::Gone)) => return Sent::Ended(Outcome::Gone),
                Err(Err(fault)) => return Sent::Ended(Outcome::Refused(ProxyError::RequestBody(fault))),
            };
            let now = Instant::now();
            let took = now - started;
            shared.metrics.upstream_seconds.observe(took.as_secs_f64());
            shared.backends.answered(&backend, answer.status, took, now);
            self.entry.upstream = Some((backend.addr, took));
            self.entry.status = answer.status;
            self.entry.stream = answer.is_event_stream || answer.status == 101;
            let end = race(sink.body(&answer, &mut self.entry), side.as_mut()).await;
            (answer, end.unwrap_or(End::Broken))
        };
        if answer.status == 101 && end == End::Whole {
            let gateway = (&mut upstream.stream, &mut from_gateway);
            let client = (&mut self.stream, &mut self.input);
            self.entry.bytes = tunnel::run(watch, &shared.timeouts, client, gateway).await;
            return Sent::Ended(Outcome::Answered { keep_alive: false });
        }
        let sent_all = progress.ended.get();
        if end == End::Whole && sent_all && answer.reusable && from_gateway.is_empty() {
            worker.pool.put(upstream, worker.clock.now_ms());
        }
        if end == End::Broken {
            return Sent::Ended(Outcome::Gone);
        }
        // What was not read of the request stands in the way of the next one.
        *rest = if sent_all { Rest::Nothing } else { *rest };
        Sent::Ended(Outcome::Answered {
            keep_alive: answer.keep_alive && sent_all,
        })
    }
}

/// Writes what the connection takes at once; nothing of it when it is not ready.
async fn write_now(to: &mut WriteHalf<'_>, head: &[u8], body: &[u8]) -> io::Result<usize> {
    poll_fn(|cx| {
        let written = if body.is_empty() {
            Pin::new(&mut *to).poll_write(cx, head)
        } else {
            Pin::new(&mut *to).poll_write_vectored(cx, &[IoSlice::new(head), IoSlice::new(body)])
        };
        match written {
            Poll::Pending => Poll::Ready(Ok(0)),
            ready => ready,
        }
    })
    .await
}
