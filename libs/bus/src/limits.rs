//! Every bound and timeout of the bus, in one place.

use std::time::Duration;

use crate::{PublishError, Topic};

/// Largest body, in bytes. Hints are a few hundred; with [`WORK_QUEUE_MAX`] it bounds a queue to 640 MB at worst.
pub const MESSAGE_MAX_BYTES: usize = 64 * 1024;

/// Longest topic name, in bytes: what AMQP allows (255) less what dead-letter names append.
pub const TOPIC_NAME_MAX_BYTES: usize = 240;

/// Messages a work queue keeps; publishing beyond is refused, which tells the publisher that nobody keeps up.
pub const WORK_QUEUE_MAX: usize = 10_000;

/// Dead letters kept per queue; the oldest make way.
pub const DEAD_QUEUE_MAX: usize = 10_000;

/// Messages waiting for one subscriber of a broadcast; the oldest make way, as newer ones supersede them.
pub const BROADCAST_QUEUE_MAX: usize = 1_000;

/// How often a work message is delivered before it counts as poison and becomes a dead letter.
pub const MAX_DELIVERIES: u32 = 5;

/// How often a broadcast message is delivered to one subscriber. One retry only: it is news, and stale soon.
pub const BROADCAST_MAX_DELIVERIES: u32 = 2;

/// Pause before the first redelivery of a message its subscriber wants retried; doubles with each.
pub const RETRY_DELAY_MIN: Duration = Duration::from_millis(100);

/// Longest pause before a redelivery.
pub const RETRY_DELAY_MAX: Duration = Duration::from_secs(2);

/// From publishing to the broker's confirmation. A broker that takes longer is as good as away.
pub const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);

/// Messages on their way to the broker at once, per process; further publishers queue up within [`CONFIRM_TIMEOUT`].
pub const PUBLISH_CONCURRENCY: usize = 32;

/// Looking up the broker's address and opening the TCP connection.
pub const TCP_CONNECT_TIMEOUT: Duration = Duration::from_secs(4);

/// All of connecting: TCP, login, tuning.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);

/// Declaring a topic and starting to consume from it. Leaves a broker that has just started time to recover its queues.
pub const ATTACH_TIMEOUT: Duration = Duration::from_secs(10);

/// Sending an answer (ack, reject, retry) to the broker. Missing it means one more delivery.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// AMQP heartbeat in seconds unless the URL has its own `heartbeat=`. A broker silent for twice as long is away.
pub const HEARTBEAT_SEC: u16 = 5;

/// First pause between attempts to reach the broker or to declare a topic; doubles with each, up to [`RECONNECT_DELAY_MAX`].
pub const RECONNECT_DELAY_MIN: Duration = Duration::from_millis(200);

/// Longest pause between attempts; bounds how long after the broker's return the system notices.
pub const RECONNECT_DELAY_MAX: Duration = Duration::from_secs(5);

/// While the broker is away, how often the log recalls it.
pub const OUTAGE_REMINDER_EVERY: Duration = Duration::from_secs(60);

/// A connection that held this long was a good one: the next reconnect starts from the shortest pause again.
pub const STABLE_AFTER: Duration = Duration::from_secs(10);

/// How long a failed declaration is remembered, so that each publish does not ask the broker the same thing again.
pub const DECLARE_RETRY_AFTER: Duration = Duration::from_secs(5);

/// At shutdown, how long deliveries in hand may still be answered and publishes still be confirmed.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the end of a program waits for its connection to be closed properly.
pub const CLOSED_TIMEOUT: Duration = Duration::from_secs(3);

/// Closing the connection politely; after that it is cut.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What keeps `topic` from being used, if anything.
pub(crate) fn name_trouble(topic: &Topic) -> Option<String> {
    let name = &topic.name;
    if name.is_empty() {
        return Some("the topic name is empty; expected a queue name".into());
    }
    if name.len() > TOPIC_NAME_MAX_BYTES {
        return Some(format!(
            "the topic name {name:?} has {} bytes; at most {TOPIC_NAME_MAX_BYTES} are allowed",
            name.len()
        ));
    }
    if name.starts_with("amq.") {
        return Some(format!(
            "the topic name {name:?} starts with \"amq.\", which brokers keep for themselves"
        ));
    }
    None
}

/// Checks what can be known before a broker is asked.
pub(crate) fn check(topic: &Topic, size: usize) -> Result<(), PublishError> {
    if size > MESSAGE_MAX_BYTES {
        return Err(PublishError::TooLarge {
            topic: topic.name.clone(),
            size,
            limit: MESSAGE_MAX_BYTES,
        });
    }
    match name_trouble(topic) {
        Some(reason) => Err(PublishError::NotConfirmed {
            topic: topic.name.clone(),
            reason,
        }),
        None => Ok(()),
    }
}
