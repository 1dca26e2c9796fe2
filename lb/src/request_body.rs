//! Request bodies on their way to a gateway: kept for a repetition when small, streamed otherwise.
//!
//! A request that may be repeated is read before it is sent, as long as it has at most [`REPLAY_BODY_MAX_BYTES`] and the memory for
//! such bodies ([`REPLAY_TOTAL_MAX_BYTES`]) is not used up; this also keeps slow clients from occupying a gateway. Everything else
//! streams and is sent once. A client that falls silent in the middle is given up after a while. Trailers of requests that are kept
//! are dropped, as RFC 9110 (6.5.1) allows; those of streams pass.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::limits::{REPLAY_BODY_MAX_BYTES, REPLAY_TOTAL_MAX_BYTES};

/// The client's body ended badly.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("{0}")]
    Client(#[from] hyper::Error),
    #[error("nothing came for {0:?}")]
    Idle(Duration),
}

/// What is sent to a gateway.
#[derive(Debug)]
pub(crate) enum RequestBody {
    Empty,
    /// Whole, in memory; taken when sent.
    Kept(Option<Bytes>),
    Stream(Box<Streaming>),
}

#[derive(Debug)]
pub(crate) struct Streaming {
    /// Read already, before it turned out to be too much to keep.
    first: VecDeque<Bytes>,
    rest: Incoming,
    idle_timeout: Duration,
    idle: Option<Pin<Box<Sleep>>>,
    progress: Arc<Progress>,
}

/// How far a streaming body is: the wait for an answer begins, and the connection may be used again, when all has been sent.
#[derive(Debug)]
pub(crate) struct Progress {
    start: Instant,
    last_ms: AtomicU64,
    ended: AtomicBool,
}

impl Progress {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            last_ms: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        })
    }

    fn moved(&self) {
        let ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(ms, Ordering::Relaxed);
    }

    /// When it moved last.
    pub(crate) fn last(&self) -> Instant {
        self.start + Duration::from_millis(self.last_ms.load(Ordering::Relaxed))
    }

    /// All of it has been handed to the connection.
    pub(crate) fn ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}

/// Memory for kept bodies.
#[derive(Debug, Default)]
pub(crate) struct ReplayMemory(AtomicUsize);

/// Part of that memory, given back when dropped.
#[derive(Debug)]
pub(crate) struct Reserved {
    memory: Arc<ReplayMemory>,
    bytes: usize,
}

impl ReplayMemory {
    fn reserve(self: &Arc<Self>, bytes: usize) -> Option<Reserved> {
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|used| *used <= REPLAY_TOTAL_MAX_BYTES)
            })
            .ok()?;
        Some(Reserved {
            memory: Arc::clone(self),
            bytes,
        })
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.memory.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl RequestBody {
    /// Readies a client's body for sending; keeps it when the request is `repeatable` and the body small enough. The reservation must
    /// live as long as the body may be repeated.
    pub(crate) async fn gather(
        body: Incoming,
        repeatable: bool,
        memory: &Arc<ReplayMemory>,
        idle_timeout: Duration,
    ) -> Result<(Self, Option<Reserved>), BodyError> {
        if body.is_end_stream() {
            return Ok((Self::Empty, None));
        }
        // A body of unknown length may grow up to the most that is kept.
        let expected = body
            .size_hint()
            .exact()
            .map_or(Some(REPLAY_BODY_MAX_BYTES), |bytes| usize::try_from(bytes).ok());
        let reserved = expected
            .filter(|bytes| repeatable && *bytes <= REPLAY_BODY_MAX_BYTES)
            .and_then(|bytes| memory.reserve(bytes));
        let Some(reserved) = reserved else {
            return Ok((Self::stream(VecDeque::new(), body, idle_timeout), None));
        };
        let (mut body, mut first, mut bytes) = (body, VecDeque::new(), 0);
        loop {
            let frame = tokio::time::timeout(idle_timeout, body.frame())
                .await
                .map_err(|_| BodyError::Idle(idle_timeout))?;
            let Some(frame) = frame else { break };
            if let Ok(data) = frame?.into_data() {
                bytes += data.len();
                first.push_back(data);
            }
            if bytes > REPLAY_BODY_MAX_BYTES {
                return Ok((Self::stream(first, body, idle_timeout), None));
            }
            if body.is_end_stream() {
                break;
            }
        }
        Ok((Self::Kept(Some(join(first, bytes))), Some(reserved)))
    }

    fn stream(first: VecDeque<Bytes>, rest: Incoming, idle_timeout: Duration) -> Self {
        Self::Stream(Box::new(Streaming {
            first,
            rest,
            idle_timeout,
            idle: None,
            progress: Progress::new(),
        }))
    }

    /// The same body once more; none for a stream.
    pub(crate) fn copy(&self) -> Option<Self> {
        match self {
            Self::Empty => Some(Self::Empty),
            Self::Kept(bytes) => Some(Self::Kept(bytes.clone())),
            Self::Stream(_) => None,
        }
    }

    pub(crate) fn progress(&self) -> Option<Arc<Progress>> {
        match self {
            Self::Stream(streaming) => Some(Arc::clone(&streaming.progress)),
            Self::Empty | Self::Kept(_) => None,
        }
    }
}

/// One piece of memory; most bodies come in one piece and are not copied.
fn join(mut pieces: VecDeque<Bytes>, bytes: usize) -> Bytes {
    if pieces.len() == 1 {
        return pieces.pop_front().unwrap_or_default();
    }
    let mut whole = BytesMut::with_capacity(bytes);
    for piece in pieces {
        whole.extend_from_slice(&piece);
    }
    whole.freeze()
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Kept(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(streaming) => streaming.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Kept(bytes) => bytes.is_none(),
            Self::Stream(streaming) => streaming.first.is_empty() && streaming.rest.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let len = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Kept(bytes) => SizeHint::with_exact(len(bytes.as_ref().map_or(0, Bytes::len))),
            Self::Stream(streaming) => {
                let first = len(streaming.first.iter().map(Bytes::len).sum());
                let rest = streaming.rest.size_hint();
                let mut hint = SizeHint::new();
                hint.set_lower(rest.lower().saturating_add(first));
                if let Some(upper) = rest.upper() {
                    hint.set_upper(upper.saturating_add(first));
                }
                hint
            }
        }
    }
}

impl Streaming {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.progress.moved();
        if let Some(piece) = self.first.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match Pin::new(&mut self.rest).poll_frame(cx) {
            Poll::Ready(frame) => {
                self.idle = None;
                // A body of known length is not asked again after its last piece.
                if frame.is_none() || self.rest.is_end_stream() {
                    self.progress.ended.store(true, Ordering::Release);
                }
                Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Client)))
            }
            Poll::Pending => {
                let timeout = self.idle_timeout;
                let idle = self.idle.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
                ready!(idle.as_mut().poll(cx));
                Poll::Ready(Some(Err(BodyError::Idle(timeout))))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_for_repetitions_is_bounded_and_given_back() {
        let memory = Arc::new(ReplayMemory::default());
        let held: Vec<_> = std::iter::from_fn(|| memory.reserve(REPLAY_BODY_MAX_BYTES)).collect();
        assert_eq!(held.len(), REPLAY_TOTAL_MAX_BYTES / REPLAY_BODY_MAX_BYTES);
        assert!(memory.reserve(1).is_none());
        drop(held);
        assert!(memory.reserve(REPLAY_TOTAL_MAX_BYTES).is_some());
        assert_eq!(memory.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_kept_body_can_be_sent_again() {
        let mut body = RequestBody::Kept(Some(Bytes::from_static(b"order")));
        let copy = body.copy().unwrap();
        assert_eq!(body.size_hint().exact(), Some(5));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(matches!(
            Pin::new(&mut body).poll_frame(&mut cx),
            Poll::Ready(Some(Ok(_)))
        ));
        assert!(body.is_end_stream());
        assert_eq!(copy.size_hint().exact(), Some(5));
    }

    #[test]
    fn pieces_are_joined_in_order() {
        let pieces = VecDeque::from(["a", "", "bc"].map(Bytes::from));
        assert_eq!(join(pieces, 3), "abc");
    }
}
