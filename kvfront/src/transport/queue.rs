//! What waits to be sent to a node, and where its answer goes.
//!
//! Promise: each message that was queued gets exactly one event back, whatever happens to the lane that carries it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use register::proposer::Event;
use register::{Key, Reply, Request};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Messages of one kind that may wait for one node; more are turned away as not delivered.
pub(super) const QUEUE_MAX_REQUESTS: usize = 32_768;
/// Their bytes.
pub(super) const QUEUE_MAX_BYTES: usize = 64 << 20;
/// Messages that make another envelope worth its price while one is under way. An envelope costs both sides a few system calls and
/// switches of tasks, and the node an fsync, however few messages it carries; a node commits 64 changes at a tenth of the price of single ones.
pub(super) const PLENTY: usize = 64;
/// Requests in one envelope: what a kvstore accepts.
pub(super) const ENVELOPE_MAX_REQUESTS: usize = 4_096;
/// Bytes of one envelope, by [`cost_of`]: half of what a kvstore accepts, because the estimate is one.
pub(super) const ENVELOPE_MAX_BYTES: usize = 8 << 20;

/// Where the events of one operation wait until its task takes them. Holds at most one event per message that was sent.
#[derive(Debug, Default)]
pub struct Mailbox {
    events: Mutex<Vec<Event>>,
    arrived: Notify,
}

impl Mailbox {
    /// An empty one.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Adds an event and wakes the task.
    pub fn push(&self, event: Event) {
        lock(&self.events).push(event);
        self.arrived.notify_one();
    }

    /// Waits until there is something, then takes all of it. Cancel-safe; for one task at a time.
    pub async fn take(&self) -> Vec<Event> {
        loop {
            let events = std::mem::take(&mut *lock(&self.events));
            if !events.is_empty() {
                return events;
            }
            self.arrived.notified().await;
        }
    }
}

/// The right to answer one message, once. Dropped unanswered it says that the outcome is not known.
#[derive(Debug)]
pub(super) struct Ticket {
    mailbox: Option<Arc<Mailbox>>,
    round: u32,
    rank: usize,
}

impl Ticket {
    pub(super) fn new(mailbox: Arc<Mailbox>, round: u32, rank: usize) -> Self {
        Self {
            mailbox: Some(mailbox),
            round,
            rank,
        }
    }

    pub(super) fn reply(mut self, reply: Reply) {
        if let Some(mailbox) = self.mailbox.take() {
            mailbox.push(Event::Reply {
                round: self.round,
                rank: self.rank,
                reply,
            });
        }
    }

    pub(super) fn fail(mut self, delivered: bool, reason: String) {
        if let Some(mailbox) = self.mailbox.take() {
            mailbox.push(Event::Failed {
                round: self.round,
                rank: self.rank,
                delivered,
                reason,
            });
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(mailbox) = self.mailbox.take() {
            let (round, rank) = (self.round, self.rank);
            mailbox.push(Event::Failed {
                round,
                rank,
                delivered: true,
                reason: "kvfront is stopping".to_owned(),
            });
        }
    }
}

/// One queued message.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) key: Key,
    pub(super) request: Request,
    pub(super) give_up_at: Instant,
    pub(super) ticket: Ticket,
    cost: usize,
}

impl Pending {
    pub(super) fn new(key: Key, request: Request, give_up_at: Instant, ticket: Ticket) -> Self {
        let cost = cost_of(&key, &request);
        Self {
            key,
            request,
            give_up_at,
            ticket,
            cost,
        }
    }
}

/// About how many bytes a message takes on the wire: its texts, and a generous constant for the numbers.
fn cost_of(key: &Key, request: &Request) -> usize {
    const FIXED_BYTES: usize = 192;
    let state = match request {
        Request::Accept { state, .. } | Request::Install { state, .. } => state.value.as_ref().map_or(0, |v| v.len()),
        Request::Read
        | Request::Prepare { .. }
        | Request::Forget { .. }
        | Request::Retire { .. }
        | Request::Collect { .. } => 0,
    };
    FIXED_BYTES + key.as_text().len() + state
}

/// When a lane takes from a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// As soon as there is something.
    Always,
    /// Only while [`PLENTY`] messages wait: beside a lane that always takes, for an envelope worth its price.
    Plenty,
}

/// The bounded queue of a node.
#[derive(Debug, Default)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    arrived: Notify,
    plenty: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    waiting: VecDeque<Pending>,
    bytes: usize,
}

impl Queue {
    /// Queues a message; a full queue hands it back as certainly not delivered.
    pub(super) fn push(&self, pending: Pending) {
        {
            let mut inner = lock(&self.inner);
            if inner.waiting.len() < QUEUE_MAX_REQUESTS && inner.bytes + pending.cost <= QUEUE_MAX_BYTES {
                inner.bytes += pending.cost;
                inner.waiting.push_back(pending);
                let waiting = inner.waiting.len();
                drop(inner);
                self.wake(waiting);
                return;
            }
        }
        pending
            .ticket
            .fail(false, "too much is waiting for this node".to_owned());
    }

    fn wake(&self, waiting: usize) {
        self.arrived.notify_one();
        if waiting >= PLENTY {
            self.plenty.notify_one();
        }
    }

    /// Waits until it is this lane's turn and takes as much as fits one envelope, at most `max_requests`. Messages that have waited past
    /// their time are turned away as not delivered. Cancel-safe; any number of lanes may wait.
    pub(super) async fn take(&self, turn: Turn, max_requests: usize) -> Vec<Pending> {
        let (at_least, woken) = match turn {
            Turn::Always => (1, &self.arrived),
            Turn::Plenty => (PLENTY, &self.plenty),
        };
        loop {
            let max_requests = max_requests.clamp(1, ENVELOPE_MAX_REQUESTS);
            let (batch, late, left) = self.take_now(at_least, max_requests, Instant::now());
            for pending in late {
                pending
                    .ticket
                    .fail(false, "waited too long to be sent to this node".to_owned());
            }
            if batch.is_empty() {
                woken.notified().await;
            } else {
                if left > 0 {
                    self.wake(left);
                }
                return batch;
            }
        }
    }

    /// (what to send, what is too late, how many are left)
    fn take_now(&self, at_least: usize, max_requests: usize, now: Instant) -> (Vec<Pending>, Vec<Pending>, usize) {
        let (mut batch, mut late, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut inner = lock(&self.inner);
        if inner.waiting.len() < at_least {
            return (batch, late, 0);
        }
        while let Some(next) = inner.waiting.front() {
            let fits = batch.is_empty() || bytes + next.cost <= ENVELOPE_MAX_BYTES;
            if batch.len() >= max_requests || !fits {
                break;
            }
            let Some(next) = inner.waiting.pop_front() else { break };
            inner.bytes -= next.cost;
            if next.give_up_at <= now {
                late.push(next);
            } else {
                bytes += next.cost;
                batch.push(next);
            }
        }
        (batch, late, inner.waiting.len())
    }

    /// How many messages wait.
    pub(super) fn len(&self) -> usize {
        lock(&self.inner).waiting.len()
    }
}

/// The data behind these mutexes is whole after every statement, so a panic elsewhere does not spoil it.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
