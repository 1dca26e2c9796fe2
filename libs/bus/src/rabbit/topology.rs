//! Which queues and exchanges stand for a topic, and how to tell people when the broker has others.
//!
//! - Work: a durable classic queue that refuses when full. Its messages carry the count of their deliveries in a header, kept by
//!   the consumer. Quorum queues would count on the broker, and were tried: one declared moments before its broker was killed
//!   did not come up again (RabbitMQ 3.10), and declaring it hung for as long as we watched. A lost classic queue is merely
//!   declared again, which suits messages that are hints.
//! - Dead letters: a durable classic queue, which never drops a message for having been looked at too often.
//! - Broadcast: a durable fan-out exchange, and for each subscriber a classic queue that goes with its connection.
//!
//! Changing any argument here makes existing queues undeclarable (406): that needs a note in the changelog.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::{AMQPValue, FieldTable, LongLongInt, LongString, ShortString};
use lapin::{Channel, ErrorKind, ExchangeKind};

use crate::fate::Role;
use crate::limits::{BROADCAST_QUEUE_MAX, DEAD_QUEUE_MAX, WORK_QUEUE_MAX};
use crate::{Fanout, Topic};

/// Declares what publishing to `topic` needs. On refusal the broker closes `channel`; the error says what to do.
pub(super) async fn declare(channel: &Channel, topic: &Topic) -> Result<(), String> {
    match Role::of(topic) {
        Role::Work => {
            declare_dead(channel, &topic.dead()).await?;
            let arguments = table([
                ("x-queue-type", text("classic")),
                ("x-max-length", number(WORK_QUEUE_MAX)),
                ("x-overflow", text("reject-publish")),
                ("x-dead-letter-exchange", text("")),
                ("x-dead-letter-routing-key", text(&topic.dead().name)),
            ]);
            declare_durable(channel, &topic.name, arguments).await
        }
        Role::Dead => declare_dead(channel, topic).await,
        Role::Broadcast => channel
            .exchange_declare(
                short(&topic.name),
                ExchangeKind::Fanout,
                ExchangeDeclareOptions {
                    durable: true,
                    ..ExchangeDeclareOptions::default()
                },
                FieldTable::default(),
            )
            .await
            .map_err(|error| explain("exchange", &topic.name, &error)),
    }
}

/// Declares what consuming from `topic` needs, and returns the name of the queue to consume from.
pub(super) async fn declare_for_subscriber(channel: &Channel, topic: &Topic) -> Result<ShortString, String> {
    declare(channel, topic).await?;
    if topic.fanout == Fanout::Work {
        return Ok(short(&topic.name));
    }
    let arguments = table([
        ("x-queue-type", text("classic")),
        ("x-max-length", number(BROADCAST_QUEUE_MAX)),
        ("x-overflow", text("drop-head")),
    ]);
    let options = QueueDeclareOptions {
        exclusive: true,
        auto_delete: true,
        ..QueueDeclareOptions::default()
    };
    // Without a name: the broker makes one up, so that no two subscribers share a queue.
    let queue = channel
        .queue_declare(ShortString::default(), options, arguments)
        .await
        .map_err(|error| explain("a subscriber's queue of", &topic.name, &error))?;
    channel
        .queue_bind(
            queue.name().clone(),
            short(&topic.name),
            ShortString::default(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await
        .map_err(|error| explain("a subscriber's queue of", &topic.name, &error))?;
    Ok(queue.name().clone())
}

async fn declare_dead(channel: &Channel, dead: &Topic) -> Result<(), String> {
    let arguments = table([
        ("x-queue-type", text("classic")),
        ("x-max-length", number(DEAD_QUEUE_MAX)),
        ("x-overflow", text("drop-head")),
    ]);
    declare_durable(channel, &dead.name, arguments).await
}

async fn declare_durable(channel: &Channel, name: &str, arguments: FieldTable) -> Result<(), String> {
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    match channel.queue_declare(short(name), options, arguments).await {
        Ok(_) => Ok(()),
        Err(error) => Err(explain("queue", name, &error)),
    }
}

/// What the broker's refusal means and what to do about it.
fn explain(what: &str, name: &str, error: &lapin::Error) -> String {
    let soft = match error.kind() {
        ErrorKind::ProtocolError(error) => match error.kind() {
            AMQPErrorKind::Soft(soft) => Some(soft),
            AMQPErrorKind::Hard(_) => None,
        },
        _ => None,
    };
    match soft {
        Some(AMQPSoftError::PRECONDITIONFAILED) => format!(
            "{what} {name:?} exists on the broker with other arguments than this program declares ({error}); \
             delete it once it is empty (for a queue: rabbitmqctl delete_queue {name}) or configure another name; \
             trying again until then"
        ),
        Some(AMQPSoftError::ACCESSREFUSED) => {
            format!(
                "the broker's user may not declare {what} {name:?} ({error}); grant it configure, write and read permission"
            )
        }
        Some(AMQPSoftError::RESOURCELOCKED) => {
            format!("{what} {name:?} belongs to another connection alone ({error}); configure another name")
        }
        _ => format!("declaring {what} {name:?} failed: {error}"),
    }
}

/// The header of a message that has been delivered before and failed.
const DELIVERIES_HEADER: &str = "x-deliveries";

/// The headers of a message: how often it has been delivered already (0 unless it is being retried), and what it is published on behalf
/// of. None when there is nothing to say.
pub(super) fn headers(deliveries: u32, context: &trace::Context) -> Option<FieldTable> {
    let mut table = FieldTable::default();
    if deliveries > 0 {
        table.insert(
            short(DELIVERIES_HEADER),
            AMQPValue::LongLongInt(LongLongInt::from(deliveries)),
        );
    }
    for (name, value) in context.headers() {
        table.insert(short(name), AMQPValue::LongString(value.into()));
    }
    (!table.inner().is_empty()).then_some(table)
}

/// What a message was published on behalf of; what breaks the rules is left out.
pub(super) fn context_from(headers: Option<&FieldTable>) -> trace::Context {
    let text = |name: &str| match headers?.inner().get(name)? {
        AMQPValue::LongString(text) => Some(text.as_bytes()),
        AMQPValue::ShortString(text) => Some(text.as_str().as_bytes()),
        _ => None,
    };
    let utf8 = |name| text(name).and_then(|text| std::str::from_utf8(text).ok());
    trace::Context::read(
        text(trace::TRACEPARENT),
        utf8(trace::TRACESTATE),
        utf8(trace::REQUEST_ID),
    )
}

/// How often a message has been delivered, by its [`headers`]; 0 for a message without it, or with something else in its place.
pub(super) fn deliveries_from(headers: Option<&FieldTable>) -> u32 {
    let value = headers.and_then(|headers| headers.inner().get(DELIVERIES_HEADER));
    value
        .and_then(AMQPValue::as_long_long_int)
        .and_then(|count| u32::try_from(count).ok())
        .unwrap_or(0)
}

fn table<const N: usize>(entries: [(&str, AMQPValue); N]) -> FieldTable {
    let mut table = FieldTable::default();
    for (key, value) in entries {
        table.insert(short(key), value);
    }
    table
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(value))
}

fn number(value: usize) -> AMQPValue {
    AMQPValue::LongLongInt(LongLongInt::try_from(value).expect("queue limits are far below 2^63"))
}

/// Topic names were checked against a limit below AMQP's 255 bytes before they came here.
fn short(value: &str) -> ShortString {
    ShortString::from(value)
}
