//! Answers on their way to the client, and what is noted when one ends.
//!
//! Promises: pieces pass as they come, nothing is collected; a connection goes back to its pool when its answer has been read to the end
//! and is closed otherwise, so that a client that hangs up stops the gateway's work; each request is counted and logged exactly once,
//! when its answer has ended or its client has gone.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::access_log::{AccessLog, Entry};
use crate::backends::Lease;
use crate::metrics::LbMetrics;

/// Logged for a client that went away before there was an answer, as nginx does.
const CLIENT_GONE: u16 = 499;

/// An answer was cut off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnswerError {
    #[error("{0}")]
    Gateway(#[from] hyper::Error),
    #[error("the gateway sent nothing for {0:?}")]
    Idle(Duration),
    #[error("the load balancer is stopping")]
    Stopping,
}

/// The body of an answer.
#[derive(Debug)]
pub(crate) struct Answer {
    content: Content,
    /// Gone once the answer has ended.
    record: Option<Record>,
}

#[derive(Debug)]
enum Content {
    /// Our own words.
    Own(Option<Bytes>),
    /// A gateway's.
    Passed(Box<Passed>),
}

/// A gateway's answer while it is read.
#[derive(Debug)]
struct Passed {
    body: Incoming,
    lease: Option<Lease>,
    idle_timeout: Duration,
    idle: Option<Pin<Box<Sleep>>>,
    moved: bool,
    stop: Stop,
    stopped: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

/// What ends an answer that has not ended by itself when the load balancer stops.
#[derive(Debug)]
pub(crate) enum Stop {
    /// An event stream never ends by itself, so waiting is of no use: it ends properly with the stop signal, and its client comes back.
    EventStream(CancellationToken),
    /// Anything else has the grace to finish; then it is broken off, so that nobody takes a part for the whole.
    Cut(CancellationToken),
}

/// What is noted about a request: in flight until dropped, then counted and logged.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) metrics: Arc<LbMetrics>,
    pub(crate) log: AccessLog,
    /// None when nothing is logged.
    pub(crate) entry: Option<Box<Entry>>,
    pub(crate) status: Option<StatusCode>,
    /// A place among the requests that may be under way.
    pub(crate) _slot: Option<OwnedSemaphorePermit>,
}

impl Drop for Record {
    fn drop(&mut self) {
        self.metrics.in_flight.dec();
        if let Some(status) = self.status {
            self.metrics.answered(status);
        }
        if let Some(mut entry) = self.entry.take() {
            entry.status = self.status.map_or(CLIENT_GONE, |status| status.as_u16());
            self.log.write(entry);
        }
    }
}

impl Record {
    /// An event stream is marked: its length is no latency.
    pub(crate) fn is_event_stream(&mut self) {
        if let Some(entry) = &mut self.entry {
            entry.stream = true;
        }
    }
}

impl Answer {
    /// Our own words. Without a record nothing is noted.
    pub(crate) fn own(text: impl Into<Bytes>, record: Option<Record>) -> Self {
        let mut answer = Self {
            content: Content::Own(None),
            record,
        };
        let text = text.into();
        answer.sent(text.len());
        answer.content = Content::Own((!text.is_empty()).then_some(text));
        answer
    }

    /// A gateway's answer. `lease` is given back at its end.
    pub(crate) fn passed(body: Incoming, lease: Lease, idle_timeout: Duration, stop: Stop, record: Record) -> Self {
        let mut answer = Self {
            content: Content::Passed(Box::new(Passed {
                body,
                lease: Some(lease),
                idle_timeout,
                idle: None,
                moved: false,
                stop,
                stopped: None,
            })),
            record: Some(record),
        };
        if answer.is_end_stream() {
            answer.ended();
        }
        answer
    }

    fn sent(&mut self, bytes: usize) {
        if let Some(Record { entry: Some(entry), .. }) = &mut self.record {
            entry.bytes += u64::try_from(bytes).unwrap_or(u64::MAX);
        }
    }

    /// Read to the end.
    fn ended(&mut self) {
        if let Content::Passed(passed) = &mut self.content
            && let Some(lease) = passed.lease.take()
        {
            lease.give_back();
        }
        self.record = None;
    }

    /// Broken off: the connection is closed.
    fn broken(&mut self) {
        if let Content::Passed(passed) = &mut self.content {
            passed.lease = None;
        }
        self.record = None;
    }
}

impl Passed {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.moved = true;
            return Poll::Ready(frame.map(|frame| frame.map_err(AnswerError::Gateway)));
        }
        // Timers and signals are set up only now: most answers are there at the first look.
        let (Stop::EventStream(token) | Stop::Cut(token)) = &self.stop;
        let stopped = self
            .stopped
            .get_or_insert_with(|| Box::pin(token.clone().cancelled_owned()));
        if stopped.as_mut().poll(cx).is_ready() {
            return Poll::Ready(match self.stop {
                Stop::EventStream(_) => None,
                Stop::Cut(_) => Some(Err(AnswerError::Stopping)),
            });
        }
        let timeout = self.idle_timeout;
        let idle = self.idle.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        if std::mem::take(&mut self.moved) {
            idle.as_mut().reset(Instant::now() + timeout);
        }
        idle.as_mut().poll(cx).map(|()| Some(Err(AnswerError::Idle(timeout))))
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = AnswerError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        let this = self.get_mut();
        let frame = match &mut this.content {
            Content::Own(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Content::Passed(passed) => passed.poll(cx),
        };
        match &frame {
            Poll::Ready(Some(Ok(piece))) => {
                this.sent(match (&this.content, piece.data_ref()) {
                    (Content::Passed(_), Some(data)) => data.len(),
                    _ => 0,
                });
                // A body of known length is not asked again after its last piece.
                if this.is_end_stream() {
                    this.ended();
                }
            }
            Poll::Ready(Some(Err(error))) => {
                tracing::debug!(%error, "an answer was broken off");
                this.broken();
            }
            Poll::Ready(None) => {
                // An event stream that was ended by us has not been read to its end.
                let read_to_end = match &this.content {
                    Content::Own(_) => true,
                    Content::Passed(passed) => match &passed.stop {
                        Stop::EventStream(token) | Stop::Cut(token) => !token.is_cancelled(),
                    },
                };
                if read_to_end {
                    this.ended();
                } else {
                    this.broken();
                }
            }
            Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Own(text) => text.is_none(),
            Content::Passed(passed) => passed.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Own(text) => SizeHint::with_exact(
                text.as_ref()
                    .map_or(0, |text| u64::try_from(text.len()).unwrap_or(u64::MAX)),
            ),
            Content::Passed(passed) => passed.body.size_hint(),
        }
    }
}
