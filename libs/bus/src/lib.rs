//! Publish and consume, over RabbitMQ or inside one process, behind one small trait.
//!
//! Everything sent over the bus is a *hint*: losing one, or the broker for an hour, may delay a delivery and must never lose it.
//! The KV holds the truth. So publishing fails fast while the broker is away, and a subscription simply waits until it is back.
//!
//! Both transports, [`InProcess`] and [`Rabbit`], promise the same and pass the same tests (`tests/contract/`):
//!
//! - A [`Fanout::Work`] topic keeps its messages until a subscriber has answered them, at most [`limits::WORK_QUEUE_MAX`]; beyond
//!   that, publishing is refused. Each message is delivered at least once, to one subscriber at a time. Once rejected, or retried
//!   or dropped [`limits::MAX_DELIVERIES`] times, it moves to the dead-letter queue, which is the work topic [`Topic::dead`].
//!   (Over RabbitMQ, deliveries lost with a connection or a killed process count as one, however many they were.)
//! - A [`Fanout::Broadcast`] topic reaches every subscriber that is there. A slow one loses its oldest messages beyond
//!   [`limits::BROADCAST_QUEUE_MAX`]. There is no dead-letter queue: what is rejected, or fails twice, is dropped and logged.
//! - What a message is published on behalf of ([`trace::Scope`]) goes along with it, in headers, and comes out as [`Delivery::context`].
//! - A dead-letter queue keeps the newest [`limits::DEAD_QUEUE_MAX`]. Looking at a dead letter without answering never loses it.

pub use in_process::InProcess;
pub use rabbit::{ConfigError, DEFAULT_URL, Rabbit, with_rabbit};

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;

mod backoff;
mod fate;
mod in_process;
pub mod limits;
mod rabbit;
#[cfg(feature = "testing")]
pub mod testing;

/// How the messages of a [`Topic`] reach its subscribers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fanout {
    /// Each message goes to one of the subscribers: a durable work queue with a dead-letter queue `<name>.dead`.
    Work,
    /// Each message goes to every subscriber that is there: an exchange, and a bounded queue of its own per subscriber.
    Broadcast,
}

/// A named stream of messages.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Topic {
    /// Queue name (or exchange name, for [`Fanout::Broadcast`]): 1 to [`limits::TOPIC_NAME_MAX_BYTES`] bytes, not starting with
    /// `amq.`, which brokers keep for themselves.
    pub name: String,
    /// Who gets a message.
    pub fanout: Fanout,
}

/// What the names of dead-letter queues end with.
pub(crate) const DEAD_SUFFIX: &str = ".dead";

impl Topic {
    /// The work queue `name`.
    pub fn work(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            fanout: Fanout::Work,
        }
    }

    /// The broadcast `name`.
    pub fn broadcast(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            fanout: Fanout::Broadcast,
        }
    }

    /// Where the dead letters of this topic can be read: the work queue `<name>.dead`. Of a dead-letter queue: itself.
    #[must_use]
    pub fn dead(&self) -> Self {
        if self.name.ends_with(DEAD_SUFFIX) {
            return self.clone();
        }
        Self::work(format!("{}{DEAD_SUFFIX}", self.name))
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Why a message was not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The broker is away; the bus reconnects by itself. The caller may go on: messages are hints.
    #[error("the broker is not reachable: {0}")]
    Unavailable(String),
    /// The broker (or a full in-process queue) refused the message, or did not confirm it in time.
    #[error("the message for {topic} was not confirmed: {reason}")]
    NotConfirmed {
        /// Topic it was meant for.
        topic: String,
        /// What the broker said.
        reason: String,
    },
    /// Larger than the bus's message limit, [`limits::MESSAGE_MAX_BYTES`].
    #[error("the message for {topic} has {size} bytes; at most {limit} are allowed")]
    TooLarge {
        /// Topic it was meant for.
        topic: String,
        /// Size of the message in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
}

/// The span of handing a message over, if whoever does that is traced. Its context goes along with the message.
pub(crate) fn sending(topic: &Topic, system: &'static str) -> trace::Span {
    let span = trace::with_current(|scope| scope.span(trace::Kind::Producer, || format!("send {topic}")));
    let mut span = span.unwrap_or_else(|| trace::Span::unrecorded(trace::Context::default()));
    span.set("messaging.system", system);
    span.set("messaging.operation.type", "send");
    span.set_with("messaging.destination.name", || topic.name.clone());
    span
}

/// The bus: what services hold, as an `Arc<dyn Bus>`.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// Publishes one JSON body. Returns once the broker has confirmed it (and, for work topics, stored it durably).
    ///
    /// Fails at once while the broker is away, and after [`limits::CONFIRM_TIMEOUT`] at the latest. After
    /// [`PublishError::NotConfirmed`] the message may have arrived all the same.
    async fn publish(&self, topic: &Topic, body: Bytes) -> Result<(), PublishError>;

    /// Subscribes. The subscription outlives broker restarts: while the broker is away [`Subscription::next`] waits.
    /// `prefetch` bounds how many unacknowledged messages the subscriber holds at once; 0 counts as 1.
    ///
    /// With the broker reachable, returns once the subscription receives messages, or after [`limits::ATTACH_TIMEOUT`].
    async fn subscribe(&self, topic: &Topic, prefetch: u16) -> Box<dyn Subscription>;

    /// True while the broker is reachable.
    fn connected(&self) -> bool;
}

/// A stream of deliveries. Dropping it gives back what was not yet taken from it; deliveries already taken stay answerable.
#[async_trait]
pub trait Subscription: Send {
    /// The next message; `None` only after the bus has been shut down. Cancel safe.
    async fn next(&mut self) -> Option<Delivery>;
}

/// One message to be answered with exactly one of `ack`, `reject` or `retry`. Dropped unanswered, it is delivered again.
///
/// Should the broker go away before the answer reaches it, the message is delivered again: whoever handles a message must cope
/// with seeing it twice.
#[derive(Debug)]
pub struct Delivery {
    /// The body as published.
    pub body: Bytes,
    /// True when it has been delivered before.
    pub redelivered: bool,
    /// What it was published on behalf of: its trace and the id of its request, if any.
    pub context: trace::Context,
    unanswered: Unanswered,
}

/// What a transport must do with the answer to a delivery. Each is called at most once.
#[async_trait]
pub(crate) trait Acker: Send + Sync {
    async fn ack(self: Box<Self>);
    async fn reject(self: Box<Self>);
    async fn retry(self: Box<Self>);
    /// The delivery was dropped without an answer. May be called outside any runtime.
    fn dropped(self: Box<Self>);
}

/// Notices a delivery that nobody answered. Apart from [`Delivery`], so that its body can be moved out.
struct Unanswered(Option<Box<dyn Acker>>);

impl fmt::Debug for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unanswered")
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(acker) = self.0.take() {
            acker.dropped();
        }
    }
}

impl Delivery {
    pub(crate) fn new(body: Bytes, redelivered: bool, context: trace::Context, acker: Box<dyn Acker>) -> Self {
        Self {
            body,
            redelivered,
            context,
            unanswered: Unanswered(Some(acker)),
        }
    }

    /// Done: the message is gone.
    pub async fn ack(mut self) {
        if let Some(acker) = self.unanswered.0.take() {
            acker.ack().await;
        }
    }

    /// Cannot be parsed or never will succeed: to the dead-letter queue.
    pub async fn reject(mut self) {
        if let Some(acker) = self.unanswered.0.take() {
            acker.reject().await;
        }
    }

    /// Failed this time: deliver again, and to the dead-letter queue after repeated failures ([`limits::MAX_DELIVERIES`]).
    ///
    /// Returns at once; the message comes back after [`limits::RETRY_DELAY_MIN`], doubling each time, and until then counts
    /// against the prefetch, so that a subscriber whose every message fails slows down instead of spinning.
    pub async fn retry(mut self) {
        if let Some(acker) = self.unanswered.0.take() {
            acker.retry().await;
        }
    }
}
