//! Request bodies on their way to a gateway: kept for a repetition when small, streamed otherwise.
//!
//! A request that may be repeated is read before it is sent, as long as it has at most `LB_REPLAY_BODY_BYTES` and the memory for
//! such bodies (`LB_REPLAY_MEMORY_BYTES`) is not used up; this also keeps slow clients from occupying a gateway. So is what has come with
//! the head already. Everything else streams, no faster than the gateway takes it, and is sent once. A client that falls silent in the
//! middle is given up after a while.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::tcp::{ReadHalf, WriteHalf};

use crate::buffer::Buffer;
use crate::chunked::Chunked;
use crate::error::BodyError;
use crate::head::Framing;
use crate::limits::{Limits, Timeouts};
use crate::transfer::{fill, recode, write_all};
use crate::watch::{Side, Watch};

/// Memory for kept bodies.
#[derive(Debug)]
pub(crate) struct ReplayMemory {
    used: AtomicUsize,
    total_bytes: usize,
}

/// Part of that memory, given back when dropped.
#[derive(Debug)]
pub(crate) struct Reserved {
    memory: Arc<ReplayMemory>,
    bytes: usize,
}

impl ReplayMemory {
    pub(crate) fn new(total_bytes: usize) -> Self {
        Self {
            used: AtomicUsize::new(0),
            total_bytes,
        }
    }

    fn reserve(self: &Arc<Self>, bytes: usize) -> Option<Reserved> {
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|used| *used <= self.total_bytes)
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
        self.memory.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What of a body has not been read from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    Nothing,
    Bytes(u64),
    /// In chunks, with so many bytes of data so far.
    Chunks(Chunked, u64),
}

impl Rest {
    pub(crate) fn of(framing: Framing) -> Self {
        match framing {
            Framing::None | Framing::UntilClose | Framing::Length(0) => Self::Nothing,
            Framing::Length(bytes) => Self::Bytes(bytes),
            Framing::Chunked => Self::Chunks(Chunked::new(), 0),
        }
    }

    /// Refuses a body that says by itself that it is too large.
    pub(crate) fn check(&self, max_bytes: u64) -> Result<(), BodyError> {
        match self {
            Self::Bytes(bytes) if *bytes > max_bytes => Err(BodyError::TooLarge(max_bytes)),
            _ => Ok(()),
        }
    }

    /// Takes what is there and appends it to `out` as it goes on. A body that grows above `max_bytes` is an error.
    fn take(&mut self, input: &mut Buffer, out: &mut Vec<u8>, max_bytes: u64) -> Result<(), BodyError> {
        match self {
            Self::Nothing => {}
            Self::Bytes(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                out.extend_from_slice(&input.data()[..taken]);
                input.consume(taken);
                *left -= taken as u64;
                if *left == 0 {
                    *self = Self::Nothing;
                }
            }
            Self::Chunks(decoder, taken) => {
                let (bytes, ended) = recode(decoder, input, true, out)?;
                *taken += bytes as u64;
                if *taken > max_bytes {
                    return Err(BodyError::TooLarge(max_bytes));
                }
                if ended {
                    *self = Self::Nothing;
                }
            }
        }
        Ok(())
    }
}

/// The client's side of a connection, as far as it is read.
#[derive(Debug)]
pub(crate) struct Source<'a, 'b> {
    pub(crate) watch: &'a Watch,
    pub(crate) timeouts: &'a Timeouts,
    pub(crate) limits: &'a Limits,
    pub(crate) from: &'a mut ReadHalf<'b>,
    pub(crate) input: &'a mut Buffer,
}

impl Source<'_, '_> {
    async fn read(&mut self) -> Result<(), BodyError> {
        let limit = self.timeouts.request_idle;
        let stop = || self.watch.clock.is_cut();
        match fill(self.watch, Side::Up, limit, self.from, self.input, stop).await {
            Ok(0) => Err(BodyError::Gone),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(BodyError::Idle(limit)),
            Err(_) => Err(BodyError::Gone),
        }
    }

    /// Reads a body into `body`, as it will be sent: all of it when it may be repeated and is small enough, and what is there otherwise. The
    /// reservation must live as long as the body may be repeated.
    pub(crate) async fn gather(
        &mut self,
        rest: &mut Rest,
        may_repeat: bool,
        memory: &Arc<ReplayMemory>,
        body: &mut Vec<u8>,
    ) -> Result<Option<Reserved>, BodyError> {
        let (kept_bytes, max_bytes) = (self.limits.replay_body_bytes, self.limits.body_bytes);
        rest.take(self.input, body, max_bytes)?;
        let more = match rest {
            Rest::Nothing => return Ok(None),
            // A body of unknown length may grow up to the most that is kept.
            Rest::Chunks(..) => Some(kept_bytes),
            Rest::Bytes(left) => usize::try_from(*left).ok(),
        };
        let reserved = more
            .filter(|bytes| may_repeat && *bytes <= kept_bytes)
            .and_then(|bytes| memory.reserve(bytes));
        if reserved.is_some() {
            while *rest != Rest::Nothing && body.len() <= kept_bytes {
                self.read().await?;
                rest.take(self.input, body, max_bytes)?;
            }
        }
        Ok(reserved)
    }

    /// Sends `unsent` and then the rest of the body; after that only waits for the client to go, and keeps what else it sends. Returns when
    /// it has gone or cannot be understood. A gateway that takes no more is no reason: it may have answered.
    pub(crate) async fn run(
        &mut self,
        to: &mut WriteHalf<'_>,
        unsent: [&[u8]; 2],
        mut rest: Rest,
        progress: &Progress,
    ) -> Result<Infallible, BodyError> {
        let limit = self.timeouts.write;
        let [first, second] = unsent;
        if write_all(self.watch, Side::Up, limit, to, first, second).await.is_err() {
            return pending().await;
        }
        let mut out = Vec::new();
        while rest != Rest::Nothing {
            progress.last_ms.set(self.watch.clock.now_ms());
            self.read().await?;
            out.clear();
            rest.take(self.input, &mut out, self.limits.body_bytes)?;
            if write_all(self.watch, Side::Up, limit, to, &out, b"").await.is_err() {
                return pending().await;
            }
        }
        progress.last_ms.set(self.watch.clock.now_ms());
        progress.ended.set(true);
        loop {
            if self.input.is_full() {
                return pending().await;
            }
            if !matches!(poll_fn(|cx| self.input.poll_fill(self.from, cx)).await, Ok(1..)) {
                return Err(BodyError::Gone);
            }
        }
    }
}

/// How far a request is: the wait for an answer begins, and the connection may be used again, when all has been sent.
#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) last_ms: Cell<u64>,
    pub(crate) ended: Cell<bool>,
}

impl Progress {
    pub(crate) fn new(now_ms: u64) -> Self {
        Self {
            last_ms: Cell::new(now_ms),
            ended: Cell::new(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_for_repetitions_is_bounded_and_given_back() {
        let memory = Arc::new(ReplayMemory::new(64));
        let held: Vec<_> = std::iter::from_fn(|| memory.reserve(16)).collect();
        assert_eq!(held.len(), 4);
        assert!(memory.reserve(1).is_none());
        drop(held);
        assert!(memory.reserve(64).is_some());
        assert_eq!(memory.used.load(Ordering::Relaxed), 0);
    }
}
