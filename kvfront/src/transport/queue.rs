//! What waits to be sent to a node, and where its answer goes.
//!
//! Promise: each message that was queued gets exactly one event back, whatever happens to the lane that carries it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use register::proposer::Event;
use register::{Key, Reply, Request};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::make_way::make_way;

/// Messages of one kind that may wait for one node; more are turned away as not delivered.
pub(super) const QUEUE_MAX_REQUESTS: usize = 32_768;
/// Their bytes.
pub(super) const QUEUE_MAX_BYTES: usize = 64 << 20;
/// Messages that make another envelope worth its price while one is under way. An envelope costs both sides a few system calls and
/// switches of tasks, however few messages it carries.
pub(super) const PLENTY: usize = 64;
/// Requests in one envelope: what a kvstore accepts.
pub(super) const ENVELOPE_MAX_REQUESTS: usize = 4_096;
/// Bytes of one envelope, by [`cost_of`]: half of what a kvstore accepts, because the estimate is one.
pub(super) const ENVELOPE_MAX_BYTES: usize = 8 << 20;

/// Where the events of one operation, or of several that one task drives, wait until the task takes them. Holds at most one event per
/// message that was sent.
#[derive(Debug, Default)]
pub struct Mailbox {
    events: Mutex<Vec<(u32, Event)>>,
    arrived: Notify,
}

impl Mailbox {
    /// An empty one.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Adds an event of operation `of`, and wakes the task.
    fn push(&self, of: u32, event: Event) {
        self.add(of, event);
        self.wake();
    }

    fn add(&self, of: u32, event: Event) {
        lock(&self.events).push((of, event));
    }

    fn wake(&self) {
        self.arrived.notify_one();
    }

    /// Waits until there is something, then takes all of it. Cancel-safe; for one task at a time, which has one operation.
    pub async fn take(&self) -> Vec<Event> {
        let mut events = Vec::new();
        self.take_into(&mut events).await;
        events.into_iter().map(|(_, event)| event).collect()
    }

    /// Waits until there is something, then puts all of it into `events`, which is empty: each event with the number of its operation.
    /// Cancel-safe; for one task at a time.
    pub(crate) async fn take_into(&self, events: &mut Vec<(u32, Event)>) {
        loop {
            std::mem::swap(&mut *lock(&self.events), events);
            if !events.is_empty() {
                return;
            }
            self.arrived.notified().await;
        }
    }
}

/// The right to answer one message, once. Dropped unanswered it says that the outcome is not known.
#[derive(Debug)]
pub(crate) struct Ticket {
    mailbox: Option<Arc<Mailbox>>,
    of: u32,
    round: u32,
    rank: usize,
}

impl Ticket {
    /// For a message of operation `of`, whose events go to `mailbox`.
    pub(crate) fn new(mailbox: Arc<Mailbox>, of: u32, round: u32, rank: usize) -> Self {
        Self {
            mailbox: Some(mailbox),
            of,
            round,
            rank,
        }
    }

    /// Answers the messages of one envelope, in its order. A task that has several of them is woken once.
    pub(super) fn reply_all(tickets: impl Iterator<Item = (Self, Reply)>) {
        let mut told: Option<Arc<Mailbox>> = None;
        for (mut ticket, reply) in tickets {
            let Some(mailbox) = ticket.mailbox.take() else {
                continue;
            };
            let event = Event::Reply {
                round: ticket.round,
                rank: ticket.rank,
                reply,
            };
            mailbox.add(ticket.of, event);
            if let Some(before) = told.replace(mailbox)
                && told.as_ref().is_some_and(|now| !Arc::ptr_eq(now, &before))
            {
                before.wake();
            }
        }
        if let Some(last) = told {
            last.wake();
        }
    }

    pub(super) fn fail(mut self, delivered: bool, reason: String) {
        self.failed(delivered, reason);
    }

    fn failed(&mut self, delivered: bool, reason: String) {
        if let Some(mailbox) = self.mailbox.take() {
            let event = Event::Failed {
                round: self.round,
                rank: self.rank,
                delivered,
                reason,
            };
            mailbox.push(self.of, event);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.mailbox.is_some() {
            self.failed(true, "kvfront is stopping".to_owned());
        }
    }
}

/// One queued message.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(super) key: Key,
    pub(super) request: Request,
    pub(super) give_up_at: Instant,
    pub(super) ticket: Ticket,
    /// About how many bytes it takes on the wire.
    pub(super) cost: usize,
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
    /// A lane that always takes has found nothing, and has not been woken since.
    is_idle: bool,
}

impl Queue {
    /// Queues messages, which are left taken out of `pending`; those that a full queue has no room for fail as certainly not delivered.
    pub(super) fn push_all(&self, pending: &mut Vec<Pending>) {
        let mut turned_away = Vec::new();
        let (waiting, was_idle) = {
            let mut inner = lock(&self.inner);
            for pending in pending.drain(..) {
                if inner.waiting.len() < QUEUE_MAX_REQUESTS && inner.bytes + pending.cost <= QUEUE_MAX_BYTES {
                    inner.bytes += pending.cost;
                    inner.waiting.push_back(pending);
                } else {
                    turned_away.push(pending);
                }
            }
            (inner.waiting.len(), std::mem::take(&mut inner.is_idle))
        };
        for pending in turned_away {
            pending
                .ticket
                .fail(false, "too much is waiting for this node".to_owned());
        }
        if was_idle {
            // It takes all there is; nothing is under way beside which another envelope would have to be worth its price.
            self.arrived.notify_one();
        } else {
            self.wake(waiting);
        }
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
            // Whoever is about to ask something of the node still gets into this envelope. On two busy cores a put costs a tenth less, a mix
            // of reads and writes goes a sixth faster.
            make_way().await;
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
        let mut inner = lock(&self.inner);
        if inner.waiting.len() < at_least {
            inner.is_idle |= at_least == 1;
            return (Vec::new(), Vec::new(), 0);
        }
        let (mut batch, mut late, mut bytes) =
            (Vec::with_capacity(max_requests.min(inner.waiting.len())), Vec::new(), 0);
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
        inner.is_idle |= at_least == 1 && batch.is_empty();
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
