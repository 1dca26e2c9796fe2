//! A lane carries one envelope at a time to its node, over a connection of its own; a probe asks a quiet or suspected node how it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use register::{Envelope, EnvelopeReply, Epoch, Request};
use service::Shutdown;
use std::sync::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::calls::{CALLS_PER_NODE, LONG_CALLS_PER_NODE, UPKEEP_CALLS_PER_NODE};
use super::connection::{Connection, PostError};
use super::health::{Health, News, Sign, clock_refusal_ms};
use super::queue::{ENVELOPE_MAX_REQUESTS, Pending, Queue, Ticket, Turn};
use super::{REQUEST_TIMEOUT, connected};
use crate::clocks::Clocks;
use crate::metrics::FrontMetrics;
use crate::ring::Backend;

/// A node that leaves an envelope unanswered this long is suspected, so that spares are asked at once; the answer may still come.
pub(crate) const SUSPECT_AFTER: Duration = Duration::from_millis(250);
/// How often a suspected node is asked whether it is back.
const PROBE_SUSPECTED_EVERY: Duration = Duration::from_millis(250);
/// At first nothing is known of a node; asking often makes the start quick.
const PROBE_UNKNOWN_EVERY: Duration = Duration::from_millis(50);
/// A node that had nothing to answer this long is asked how it is.
const PROBE_QUIET_AFTER: Duration = Duration::from_secs(2);
/// The path envelopes go to.
const EXCHANGE_PATH: &str = "/internal/exchange";

/// How long an answer is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// The node is suspected after this long a silence; never, when that is as long as all of it.
    suspect_after: Duration,
    /// The answer counts as lost.
    pub(super) total: Duration,
}

impl Patience {
    /// For what is answered at once.
    pub(super) const SHORT: Self = Self {
        suspect_after: SUSPECT_AFTER,
        total: REQUEST_TIMEOUT,
    };

    /// For what the node may take its time with: silence is no sign of anything.
    pub(super) const fn long(total: Duration) -> Self {
        Self {
            suspect_after: total,
            total,
        }
    }

    pub(super) fn is_long(self) -> bool {
        self.suspect_after >= self.total
    }
}

/// What a lane carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Answered from memory or a read of the disk.
    Read,
    /// Answered after a commit.
    Change,
}

impl Kind {
    /// Each at the place of its number.
    pub(super) const ALL: [Self; 2] = [Self::Read, Self::Change];

    /// The lanes that carry it to a node.
    pub(super) const fn lanes(self) -> &'static [Turn] {
        match self {
            Self::Read => &[Turn::Always, Turn::Plenty],
            Self::Change => &[Turn::Always],
        }
    }

    pub(super) fn of(request: &Request) -> Self {
        match request {
            Request::Read => Self::Read,
            _ => Self::Change,
        }
    }
}

/// One node as this process knows it.
#[derive(Debug)]
pub(super) struct Node {
    backend: Backend,
    reads: Queue,
    changes: Queue,
    pub(super) health: Health,
    clocks: Arc<Clocks>,
    metrics: Arc<FrontMetrics>,
    epoch: Epoch,
    news: watch::Sender<()>,
    /// Requests per envelope: halved when a reply was too large to read, grown again by good replies.
    batch_max: AtomicUsize,
    pub(super) calls: Semaphore,
    pub(super) upkeep_calls: Semaphore,
    pub(super) long_calls: Semaphore,
    pub(super) idle_connections: Mutex<Vec<Connection>>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connection")
    }
}

impl Node {
    pub(super) fn new(
        backend: Backend,
        epoch: Epoch,
        clocks: Arc<Clocks>,
        metrics: Arc<FrontMetrics>,
        news: watch::Sender<()>,
    ) -> Self {
        Self {
            backend,
            reads: Queue::default(),
            changes: Queue::default(),
            health: Health::new(),
            clocks,
            metrics,
            epoch,
            news,
            batch_max: AtomicUsize::new(ENVELOPE_MAX_REQUESTS),
            calls: Semaphore::new(CALLS_PER_NODE),
            upkeep_calls: Semaphore::new(UPKEEP_CALLS_PER_NODE),
            long_calls: Semaphore::new(LONG_CALLS_PER_NODE),
            idle_connections: Mutex::default(),
        }
    }

    pub(super) fn queue(&self, kind: Kind) -> &Queue {
        match kind {
            Kind::Read => &self.reads,
            Kind::Change => &self.changes,
        }
    }

    /// How many messages wait.
    pub(super) fn waiting(&self) -> usize {
        self.reads.len() + self.changes.len()
    }

    /// Sends one envelope and answers every ticket of it.
    async fn exchange(&self, slot: &mut Option<Connection>, batch: Vec<Pending>) {
        self.metrics.envelope(batch.len());
        let bytes = batch.iter().map(|pending| pending.cost).sum();
        let (requests, tickets): (Vec<_>, Vec<_>) = batch.into_iter().map(|p| ((p.key, p.request), p.ticket)).unzip();
        let sent = requests.len();
        match self.ask(slot, requests, bytes).await {
            Ok(reply) => {
                self.grow_batches();
                Ticket::reply_all(tickets.into_iter().zip(reply.replies));
            }
            Err(error) => {
                if error.too_large {
                    self.batch_max.store((sent / 2).max(1), Ordering::Relaxed);
                }
                fail_all(tickets, &error);
            }
        }
    }

    /// One envelope of about so many bytes there, one reply back, checked; the node's health is noted either way.
    async fn ask(
        &self,
        slot: &mut Option<Connection>,
        requests: Vec<(register::Key, register::Request)>,
        bytes: usize,
    ) -> Result<EnvelopeReply, PostError> {
        let expected = requests.len();
        let result = self.ask_inner(slot, requests, bytes).await.and_then(|reply| {
            if reply.replies.len() == expected {
                Ok(reply)
            } else {
                Err(PostError::sent(format!(
                    "the node gave {} answers to {expected} questions",
                    reply.replies.len()
                )))
            }
        });
        match &result {
            Ok(reply) => self.answered(Sign {
                clock: reply.clock,
                incarnation: reply.incarnation,
                commit: reply.commit,
                floor: reply.floor,
                standing: reply.standing,
            }),
            Err(error) => {
                *slot = None;
                if !error.too_large {
                    self.failed("exchange", &error.reason);
                }
            }
        }
        result
    }

    async fn ask_inner(
        &self,
        slot: &mut Option<Connection>,
        requests: Vec<(register::Key, register::Request)>,
        bytes: usize,
    ) -> Result<EnvelopeReply, PostError> {
        let envelope = Envelope {
            clock: self.clocks.tick(),
            sender: self.clocks.incarnation(),
            epoch: self.epoch,
            requests,
        };
        let body = encode_sized(&envelope, bytes)?;
        drop(envelope);
        let (status, body) = self.post(slot, EXCHANGE_PATH, body, Patience::SHORT).await?;
        self.check_status(status, &body)?;
        let reply: EnvelopeReply = postcard::from_bytes(&body).map_err(unreadable)?;
        self.observe(reply.clock)?;
        Ok(reply)
    }

    /// Posts over the connection in `slot`, opening one when there is none. A kept-alive connection that turns out to be closed before
    /// anything was written is replaced once: that is not sending twice.
    pub(super) async fn post(
        &self,
        slot: &mut Option<Connection>,
        path: &str,
        body: Bytes,
        patience: Patience,
    ) -> Result<(StatusCode, Bytes), PostError> {
        let kept_alive = slot.is_some();
        match self.post_once(slot, path, body.clone(), patience).await {
            Err(error) if kept_alive && !error.delivered => {
                *slot = None;
                self.post_once(slot, path, body, patience).await
            }
            result => result,
        }
    }

    async fn post_once(
        &self,
        slot: &mut Option<Connection>,
        path: &str,
        body: Bytes,
        patience: Patience,
    ) -> Result<(StatusCode, Bytes), PostError> {
        if slot.is_none()
            && let Some(reason) = self.health.why_down()
        {
            return Err(PostError::unsent(reason));
        }
        let connection = match connected(slot, &self.backend.authority).await {
            Ok(connection) => connection,
            Err(error) => {
                self.health.pause_connecting();
                return Err(error);
            }
        };
        let mut post = std::pin::pin!(connection.post(&self.backend.authority, path, body));
        if let Ok(result) = timeout(patience.suspect_after, &mut post).await {
            return result;
        }
        if !patience.is_long() {
            self.suspect(&format!("no answer for {} ms", patience.suspect_after.as_millis()));
        }
        timeout(patience.total.saturating_sub(patience.suspect_after), post)
            .await
            .unwrap_or_else(|_| {
                Err(PostError::sent(format!(
                    "no answer within {} ms",
                    patience.total.as_millis()
                )))
            })
    }

    /// What the node said was wrong, for any status but 200.
    pub(super) fn check_status(&self, status: StatusCode, body: &[u8]) -> Result<(), PostError> {
        if status == StatusCode::OK {
            return Ok(());
        }
        let Refusal { detail, refused } = serde_json::from_slice(body).unwrap_or_default();
        Err(match status {
            // Refused as a whole, before any request in it was looked at: as if never sent. It is our clock or our ring.
            StatusCode::CONFLICT => {
                if refused.as_deref() == Some(REFUSED_CLOCK) {
                    self.clock_refused(clock_refusal_ms(&detail).map(|ours_ahead_ms| -ours_ahead_ms));
                }
                PostError::refused(format!("the node refuses us: {detail}"))
            }
            StatusCode::BAD_REQUEST
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::NOT_FOUND
            | StatusCode::METHOD_NOT_ALLOWED => PostError::refused(format!("the node refused with {status}: {detail}")),
            // Refused as a whole too, but by a node that is about to go.
            StatusCode::SERVICE_UNAVAILABLE if refused.is_some() => {
                PostError::unsent(format!("the node answered {status}: {detail}"))
            }
            _ => PostError::sent(format!("the node answered {status}: {detail}")),
        })
    }

    pub(super) fn observe(&self, clock: register::HlcTime) -> Result<(), PostError> {
        self.clocks.observe(clock).map_err(|error| {
            let ahead_ms = clock.unix_ms().cast_signed();
            self.clock_refused(Some(ahead_ms.wrapping_sub(self.clocks.now_unix_ms().cast_signed())));
            PostError::sent(error.to_string())
        })
    }

    /// The node's clock and ours are further apart than is allowed: the node's is ahead by that much (negative: behind).
    fn clock_refused(&self, ahead_ms: Option<i64>) {
        self.metrics.clock_refusal(&self.backend.name);
        self.health.skewed(ahead_ms);
    }

    fn answered(&self, sign: Sign) {
        let news = self.health.answered(sign, self.clocks.now_unix_ms());
        if news.came_back {
            tracing::info!(node = %self.backend, "node answers");
        }
        self.tell(news);
    }

    /// What a node said about itself, which does not clear it of a suspicion that its envelopes have raised.
    pub(super) fn told(&self, sign: Sign) {
        let news = self.health.told(sign, self.clocks.now_unix_ms());
        self.tell(news);
    }

    fn tell(&self, news: News) {
        if news.came_back || news.changed {
            self.news.send_replace(());
        }
    }

    /// Notes a refusal that says nothing about the node's health.
    pub(super) fn noted_refusal(&self, call: &'static str, reason: &str) {
        self.metrics.node_error(&self.backend.name, call);
        tracing::debug!(node = %self.backend, call, reason, "the node refuses");
    }

    /// Notes a failure in health and metrics.
    pub(super) fn failed(&self, call: &'static str, reason: &str) {
        self.metrics.node_error(&self.backend.name, call);
        self.suspect(reason);
    }

    fn suspect(&self, reason: &str) {
        if self.health.suspect(reason) {
            tracing::warn!(node = %self.backend, reason, "node suspected");
        }
    }

    fn grow_batches(&self) {
        let now = self.batch_max.load(Ordering::Relaxed);
        if now < ENVELOPE_MAX_REQUESTS {
            // Two lanes may overwrite each other's step; the limit only steers.
            self.batch_max
                .store((now + now / 8 + 1).min(ENVELOPE_MAX_REQUESTS), Ordering::Relaxed);
        }
    }
}

/// [`Refusal::refused`] when it is the clock.
const REFUSED_CLOCK: &str = "clock";

/// The body of a node's refusal.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Refusal {
    detail: String,
    /// Why nothing of the message was done; missing where something may have been.
    refused: Option<String>,
}

/// An answer that is none.
#[expect(clippy::needless_pass_by_value, reason = "the shape `map_err` takes")]
pub(super) fn unreadable(error: postcard::Error) -> PostError {
    PostError::sent(format!("the answer cannot be read: {error}"))
}

pub(super) fn encode<T: serde::Serialize>(message: &T) -> Result<Bytes, PostError> {
    encode_sized(message, 0)
}

/// With room for so many bytes at once.
fn encode_sized<T: serde::Serialize>(message: &T, bytes: usize) -> Result<Bytes, PostError> {
    postcard::to_extend(message, Vec::with_capacity(bytes))
        .map(Bytes::from)
        .map_err(|e| PostError::unsent(format!("cannot be encoded: {e}")))
}

fn fail_all(tickets: Vec<Ticket>, error: &PostError) {
    for ticket in tickets {
        ticket.fail(error.delivered, error.reason.clone());
    }
}

/// Carries envelopes of one kind until the stop.
pub(super) async fn run_lane(node: Arc<Node>, kind: Kind, turn: Turn, stop: Shutdown) {
    let mut slot = None;
    let work = async {
        loop {
            let batch_max = node.batch_max.load(Ordering::Relaxed);
            let batch = node.queue(kind).take(turn, batch_max).await;
            node.exchange(&mut slot, batch).await;
        }
    };
    tokio::select! {
        () = stop.stopped() => {}
        () = work => {}
    }
}

/// Asks a suspected or quiet node how it is, until the stop: learns its clock, and finds out when it is back.
pub(super) async fn run_probe(node: Arc<Node>, stop: Shutdown) {
    let mut slot = None;
    loop {
        let in_doubt = node.health.is_suspected() || node.health.is_skewed();
        if in_doubt || node.health.silent_for(PROBE_QUIET_AFTER) {
            tokio::select! {
                () = stop.stopped() => return,
                _ = node.ask(&mut slot, Vec::new(), 0) => {}
            }
        }
        let pause = if !node.health.is_learnt() {
            PROBE_UNKNOWN_EVERY
        } else {
            PROBE_SUSPECTED_EVERY
        };
        if !stop.sleep(pause).await {
            return;
        }
    }
}
