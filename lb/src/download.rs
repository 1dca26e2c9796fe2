//! Answers on their way from a gateway to the client.
//!
//! Promises: pieces pass as they come, nothing is collected; no more is read from a gateway than the client takes; an answer that breaks
//! off is seen to be broken off, as the client's connection ends without the end of the body.

use std::io;

use tokio::net::tcp::{ReadHalf, WriteHalf};

use crate::access_log::Entry;
use crate::buffer::Buffer;
use crate::chunked::Chunked;
use crate::error::ProxyError;
use crate::head::{Framing, answer, answer::Answer, request::Request};
use crate::limits::{SILENCE_LOOK_EVERY, Timeouts};
use crate::transfer::{append, fill, recode, write_all};
use crate::upload::Progress;
use crate::watch::{Side, Watch};

/// From a gateway to a client.
#[derive(Debug)]
pub(crate) struct Sink<'a, 'b, 'c> {
    pub(crate) watch: &'a Watch,
    pub(crate) timeouts: &'a Timeouts,
    pub(crate) from: &'a mut ReadHalf<'b>,
    pub(crate) input: &'a mut Buffer,
    pub(crate) to: &'a mut WriteHalf<'c>,
    pub(crate) out: &'a mut Vec<u8>,
}

/// Why there is no head.
#[derive(Debug)]
pub(crate) enum NoHead {
    Broken(String),
    /// The gateway answers nobody, and another one might.
    Silent,
    TimedOut,
    /// The load balancer ends.
    Cut,
}

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Whole,
    /// A stream that never ends by itself was ended properly because the load balancer stops.
    Stopped,
    /// Its client sees that something is missing.
    Broken,
}

impl Sink<'_, '_, '_> {
    /// Waits for the head of the answer; leaves the one for the client in `out`. `may_leave` tells, now and then, whether the request had
    /// better go to another gateway.
    pub(crate) async fn head(
        &mut self,
        request: &Request,
        progress: &Progress,
        may_leave: impl Fn() -> bool,
    ) -> Result<Answer, NoHead> {
        let clock = &self.watch.clock;
        loop {
            // What is still being sent may never be read, and would stand in the way of the next request.
            let closing = clock.is_stopping() || !progress.ended.get();
            match answer::read(self.input.data(), request, closing, self.out) {
                Ok(Some((length, answer))) => {
                    self.input.consume(length);
                    match answer.status {
                        // Whoever waited for "100 Continue" got it from us.
                        100 | 102..=199 => continue,
                        101 if !request.upgrade => {
                            return Err(NoHead::Broken("it switches protocols unasked".to_owned()));
                        }
                        _ => return Ok(answer),
                    }
                }
                Ok(None) if self.input.is_full() => return Err(NoHead::Broken("its head is too long".to_owned())),
                Ok(None) => {}
                Err(fault) => return Err(NoHead::Broken(fault.to_owned())),
            }
            let timeout = self.timeouts.response_head;
            let look = timeout.min(SILENCE_LOOK_EVERY);
            match fill(self.watch, Side::Down, look, self.from, self.input, || clock.is_cut()).await {
                Ok(0) => return Err(NoHead::Broken("it closed the connection without an answer".to_owned())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(NoHead::Cut),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    // A body that still moves is not yet waiting for its answer.
                    let waited_ms = clock.now_ms().saturating_sub(progress.last_ms.get());
                    if u128::from(waited_ms) >= timeout.as_millis() {
                        return Err(NoHead::TimedOut);
                    }
                    if may_leave() {
                        return Err(NoHead::Silent);
                    }
                }
                Err(error) => return Err(NoHead::Broken(error.to_string())),
            }
        }
    }

    /// Passes the answer on: the head that is in `out`, and the body.
    pub(crate) async fn body(&mut self, answer: &Answer, entry: &mut Entry) -> End {
        let passed = match answer.framing {
            Framing::None => self.write(0).await.map(|()| End::Whole),
            Framing::Length(bytes) => self.sized(bytes, answer.is_event_stream, entry).await,
            Framing::Chunked | Framing::UntilClose => self.unsized_body(answer, entry).await,
        };
        passed.unwrap_or_else(|error| {
            tracing::debug!(%error, "an answer was broken off");
            End::Broken
        })
    }

    /// A body of known length passes without being copied.
    async fn sized(&mut self, mut left: u64, is_event_stream: bool, entry: &mut Entry) -> io::Result<End> {
        loop {
            let ready = usize::try_from(left).unwrap_or(usize::MAX).min(self.input.len());
            self.write(ready).await?;
            entry.bytes += ready as u64;
            left -= ready as u64;
            if left == 0 {
                return Ok(End::Whole);
            }
            if self.read(is_event_stream).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn unsized_body(&mut self, answer: &Answer, entry: &mut Entry) -> io::Result<End> {
        let chunked = answer.onward == Framing::Chunked;
        let mut decoder = Chunked::new();
        loop {
            let ended = if answer.framing == Framing::Chunked {
                let recoded = recode(&mut decoder, self.input, chunked, self.out);
                if let Err(error) = recoded {
                    // Its client sees an answer that breaks off, not none.
                    self.write(0).await?;
                    return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                }
                let (bytes, ended) = recoded.unwrap_or_default();
                entry.bytes += bytes as u64;
                ended
            } else {
                append(self.out, self.input.data(), chunked);
                entry.bytes += self.input.len() as u64;
                self.input.consume(self.input.len());
                false
            };
            self.write(0).await?;
            if ended {
                return Ok(End::Whole);
            }
            let end = match self.read(answer.is_event_stream).await {
                Ok(1..) => continue,
                Ok(0) if answer.framing == Framing::UntilClose => End::Whole,
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted && answer.is_event_stream => End::Stopped,
                Err(error) => return Err(error),
            };
            if chunked {
                self.out.extend_from_slice(b"0\r\n\r\n");
                self.write(0).await?;
            }
            return Ok(end);
        }
    }

    /// Writes what is in `out` and then so many bytes of what was read.
    async fn write(&mut self, bytes: usize) -> io::Result<()> {
        let body = &self.input.data()[..bytes];
        write_all(self.watch, Side::Down, self.timeouts.write, self.to, self.out, body).await?;
        self.out.clear();
        self.input.consume(bytes);
        Ok(())
    }

    /// An event stream never ends by itself, so waiting is of no use: it ends with the stop signal, and its client comes back. Anything else
    /// has the grace to finish.
    async fn read(&mut self, is_event_stream: bool) -> io::Result<usize> {
        let clock = &self.watch.clock;
        let stop = || clock.is_cut() || (is_event_stream && clock.is_stopping());
        fill(
            self.watch,
            Side::Down,
            self.timeouts.response_idle,
            self.from,
            self.input,
            stop,
        )
        .await
    }
}

/// Our own answer to a request that ends here.
pub(crate) fn refusal(out: &mut Vec<u8>, error: &ProxyError, keep_alive: bool) {
    own(
        out,
        error.status(),
        "application/json",
        error.body().to_string().as_bytes(),
        &error.headers(),
        keep_alive,
    );
}

/// An answer of our own, with `headers` besides those that every answer has.
pub(crate) fn own(
    out: &mut Vec<u8>,
    status: http::StatusCode,
    content_type: &str,
    body: &[u8],
    headers: &[(&str, u64)],
    keep_alive: bool,
) {
    use std::io::Write as _;
    out.clear();
    // Writing into memory cannot fail.
    let _ = write!(
        out,
        "HTTP/1.1 {} {}\r\ncontent-type: {content_type}\r\n",
        status.as_u16(),
        status.canonical_reason().unwrap_or_default()
    );
    for (name, number) in headers {
        let _ = write!(out, "{name}: {number}\r\n");
    }
    if !keep_alive {
        out.extend_from_slice(b"connection: close\r\n");
    }
    if status == http::StatusCode::METHOD_NOT_ALLOWED {
        // What our own pages take; a 405 has to say it (RFC 9110, section 15.5.6).
        out.extend_from_slice(b"allow: GET, HEAD\r\n");
    }
    Framing::Length(body.len() as u64).finish(out);
    out.extend_from_slice(body);
}
