//! Consuming a topic across any number of connections, and answering what was consumed.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use lapin::message::Delivery as Consumed;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Consumer};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{debug, error, warn};

use super::link::Link;
use super::{Shared, topology};
use crate::backoff::Backoff;
use crate::fate::{Fate, Role, retry_delay};
use crate::limits::{self, ANSWER_TIMEOUT, ATTACH_TIMEOUT, STABLE_AFTER};
use crate::{Acker, Delivery, Subscription, Topic};

/// The caller's end of a subscription. Its task ends with it.
pub(super) struct RabbitSubscription {
    arrived: mpsc::Receiver<Arrived>,
    shared: Arc<Shared>,
}

/// A message on its way from the task to the caller.
struct Arrived {
    body: Bytes,
    redelivered: bool,
    acker: RabbitAcker,
}

/// Starts a subscription. The receiver resolves when the first attempt to attach has ended, well or not.
pub(super) fn start(shared: &Arc<Shared>, topic: &Topic, prefetch: u16) -> (RabbitSubscription, oneshot::Receiver<()>) {
    // To the broker, 0 means "no bound".
    let prefetch = prefetch.max(1);
    let (sender, arrived) = mpsc::channel(usize::from(prefetch));
    let (attached, on_attached) = oneshot::channel();
    if let Some(reason) = limits::name_trouble(topic) {
        error!(%reason, "cannot subscribe; this subscription stays silent");
    } else {
        let consuming = Consuming {
            shared: Arc::clone(shared),
            topic: topic.clone(),
            prefetch,
            sender,
            attached: Some(attached),
            backoff: Backoff::new(shared.next_seed()),
        };
        shared.unfinished.spawn(consuming.run());
    }
    (
        RabbitSubscription {
            arrived,
            shared: Arc::clone(shared),
        },
        on_attached,
    )
}

#[async_trait]
impl Subscription for RabbitSubscription {
    async fn next(&mut self) -> Option<Delivery> {
        let arrived = tokio::select! {
            biased;
            () = self.shared.shutdown.cancelled() => return None,
            arrived = self.arrived.recv() => arrived,
        };
        let Some(Arrived {
            body,
            redelivered,
            mut acker,
        }) = arrived
        else {
            // The task never started or is gone: nothing will come.
            self.shared.shutdown.cancelled().await;
            return None;
        };
        acker.in_hand = Some(self.shared.unfinished.token());
        Some(Delivery::new(body, redelivered, Box::new(acker)))
    }
}

impl Drop for RabbitSubscription {
    fn drop(&mut self) {
        // Given back one by one: the channel, whose end would give back all at once, lives on while deliveries are in hand.
        self.arrived.close();
        while let Ok(arrived) = self.arrived.try_recv() {
            Box::new(arrived.acker).dropped();
        }
    }
}

/// The task behind a subscription.
struct Consuming {
    shared: Arc<Shared>,
    topic: Topic,
    prefetch: u16,
    sender: mpsc::Sender<Arrived>,
    attached: Option<oneshot::Sender<()>>,
    backoff: Backoff,
}

impl Consuming {
    async fn run(mut self) {
        let shutdown = self.shared.shutdown.clone();
        let sender = self.sender.clone();
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = sender.closed() => {}
            // Being dropped cancels the consumer, and closes the channel once no delivery of it is in hand.
            () = Box::pin(self.attach_for_ever()) => {}
        }
    }

    async fn attach_for_ever(&mut self) {
        let mut links = self.shared.link.subscribe();
        loop {
            let link = match links.wait_for(Result::is_ok).await.as_deref() {
                Ok(Ok(link)) => Arc::clone(link),
                // `wait_for` gives only what was asked for, and the sender lives in `shared`.
                Ok(Err(_)) | Err(_) => return,
            };
            let since = Instant::now();
            let attached = match timeout(ATTACH_TIMEOUT, attach(&link, &self.topic, self.prefetch)).await {
                Ok(attached) => attached,
                Err(_) => Err(format!(
                    "no answer from the broker within {} s",
                    ATTACH_TIMEOUT.as_secs()
                )),
            };
            if let Some(signal) = self.attached.take() {
                // Nobody waits for it any more: fine.
                let _ = signal.send(());
            }
            match attached {
                Ok((channel, consumer)) => {
                    debug!(topic = %self.topic, "consuming");
                    let ended = self.forward(&channel, consumer).await;
                    debug!(topic = %self.topic, reason = %ended, "consumer ended; attaching again");
                    if since.elapsed() >= STABLE_AFTER {
                        self.backoff.reset();
                    }
                }
                Err(reason) if link.is_up() => error!(topic = %self.topic, %reason, "cannot consume; trying again"),
                Err(reason) => debug!(topic = %self.topic, %reason, "connection lost while attaching"),
            }
            drop(link);
            tokio::time::sleep(self.backoff.next_delay()).await;
        }
    }

    /// Passes deliveries on until the consumer ends, and says why it did.
    async fn forward(&self, channel: &Channel, mut consumer: Consumer) -> String {
        let role = Role::of(&self.topic);
        loop {
            match consumer.next().await {
                Some(Ok(consumed)) => {
                    let arrived = self.arrived(consumed, role, channel);
                    // There is room: the broker sends no more than the prefetch, for which the queue was sized. Leftovers of an
                    // earlier connection may take it; then this waits.
                    if self.sender.send(arrived).await.is_err() {
                        return "the subscription was dropped".into();
                    }
                }
                Some(Err(error)) => return error.to_string(),
                None => return "cancelled by the broker (was the queue deleted?)".into(),
            }
        }
    }

    fn arrived(&self, consumed: Consumed, role: Role, channel: &Channel) -> Arrived {
        let deliveries = deliveries(&consumed);
        Arrived {
            redelivered: consumed.redelivered,
            body: Bytes::from(consumed.data),
            acker: RabbitAcker {
                acker: consumed.acker,
                deliveries,
                role,
                topic: self.topic.clone(),
                shutdown: self.shared.shutdown.clone(),
                runtime: Handle::current(),
                in_hand: None,
                _channel: channel.clone(),
            },
        }
    }
}

async fn attach(link: &Link, topic: &Topic, prefetch: u16) -> Result<(Channel, Consumer), String> {
    let channel = link.create_channel().await?;
    let queue = topology::declare_for_subscriber(&channel, topic).await?;
    channel
        .basic_qos(prefetch, BasicQosOptions::default())
        .await
        .map_err(|error| error.to_string())?;
    let consumer = channel
        .basic_consume(
            queue,
            ShortString::default(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await
        .map_err(|error| error.to_string())?;
    Ok((channel, consumer))
}

/// How often the message has been delivered, this time included. A quorum queue counts in a header (from the second delivery
/// on); of other queues only "before or not" is known.
fn deliveries(consumed: &Consumed) -> u32 {
    let counted = consumed.properties.headers().as_ref().and_then(|headers| {
        let count = match headers.inner().get("x-delivery-count")? {
            AMQPValue::LongLongInt(count) => *count,
            AMQPValue::LongInt(count) => i64::from(*count),
            AMQPValue::LongUInt(count) => i64::from(*count),
            AMQPValue::ShortInt(count) => i64::from(*count),
            AMQPValue::ShortShortInt(count) => i64::from(*count),
            AMQPValue::ShortShortUInt(count) => i64::from(*count),
            _ => return None,
        };
        u32::try_from(count).ok()
    });
    match counted {
        Some(before) => before.saturating_add(1),
        None => 1 + u32::from(consumed.redelivered),
    }
}

struct RabbitAcker {
    acker: lapin::Acker,
    deliveries: u32,
    role: Role,
    topic: Topic,
    shutdown: CancellationToken,
    runtime: Handle,
    /// Set once the caller has the delivery: from then on a shutdown waits for the answer.
    in_hand: Option<TaskTrackerToken>,
    /// Keeps the channel open until the answer is given, even if the subscription is gone.
    _channel: Channel,
}

impl RabbitAcker {
    async fn settle(self, fate: Fate) {
        if fate == Fate::DeadLetter {
            warn!(topic = %self.topic, deliveries = self.deliveries, "message moved to the dead-letter queue");
        }
        // Not requeued, the broker moves it to the dead-letter queue where there is one.
        let options = BasicNackOptions {
            multiple: false,
            requeue: fate == Fate::Requeue,
        };
        let answered = timeout(ANSWER_TIMEOUT, self.acker.nack(options)).await;
        report(&self.topic, answered);
    }
}

#[async_trait]
impl Acker for RabbitAcker {
    async fn ack(self: Box<Self>) {
        let answered = timeout(ANSWER_TIMEOUT, self.acker.ack(BasicAckOptions::default())).await;
        report(&self.topic, answered);
    }

    async fn reject(self: Box<Self>) {
        let fate = self.role.rejected();
        self.settle(fate).await;
    }

    async fn retry(self: Box<Self>) {
        let fate = self.role.failed(self.deliveries);
        if fate != Fate::Requeue {
            return self.settle(fate).await;
        }
        let delay = retry_delay(self.deliveries);
        self.runtime.clone().spawn(async move {
            tokio::select! {
                () = self.shutdown.cancelled() => {}
                () = tokio::time::sleep(delay) => {}
            }
            self.settle(Fate::Requeue).await;
        });
    }

    fn dropped(self: Box<Self>) {
        let fate = self.role.failed(self.deliveries);
        // Should the runtime be gone, so is the connection, and the broker delivers the message again without being asked.
        self.runtime.clone().spawn(async move { self.settle(fate).await });
    }
}

/// An answer that did not arrive costs one more delivery, which every consumer must cope with anyway.
fn report(topic: &Topic, answered: Result<lapin::Result<bool>, tokio::time::error::Elapsed>) {
    match answered {
        Ok(Ok(true)) => {}
        Ok(Ok(false)) => debug!(%topic, "the connection was lost before the answer; the message comes again"),
        Ok(Err(error)) => debug!(%topic, %error, "the answer was not sent; the message comes again"),
        Err(_) => warn!(%topic, "the answer was not sent in time; the message comes again"),
    }
}
