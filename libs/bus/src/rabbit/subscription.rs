//! Consuming a topic across any number of connections, and answering what was consumed.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use lapin::message::Delivery as Consumed;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
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
use crate::limits::{self, ANSWER_TIMEOUT, ATTACH_TIMEOUT, CONFIRM_TIMEOUT, STABLE_AFTER};
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
    context: trace::Context,
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
            context,
            mut acker,
        }) = arrived
        else {
            // The task never started or is gone: nothing will come.
            self.shared.shutdown.cancelled().await;
            return None;
        };
        acker.in_hand = Some(self.shared.unfinished.token());
        Some(Delivery::new(body, redelivered, context, Box::new(acker)))
    }
}

impl Drop for RabbitSubscription {
    fn drop(&mut self) {
        // Given back one by one: the channel, whose end would give back all at once, lives on while deliveries are in hand.
        self.arrived.close();
        while let Ok(arrived) = self.arrived.try_recv() {
            let acker = arrived.acker;
            // Nobody has looked at it, so this delivery does not count against it.
            acker.runtime.clone().spawn(async move { acker.give_back(true).await });
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

/// Why a consumer ended.
enum Ended {
    /// The subscription was dropped, or the bus shut down.
    Stopped,
    /// The connection or the queue is gone.
    Lost(String),
}

impl Consuming {
    async fn run(mut self) {
        let stop = Stop {
            shutdown: self.shared.shutdown.clone(),
            sender: self.sender.clone(),
        };
        loop {
            let attached = tokio::select! {
                biased;
                () = stop.requested() => return,
                attached = Box::pin(self.attach_once()) => attached,
            };
            if let Some((channel, consumer)) = attached {
                let since = Instant::now();
                match self.forward(&channel, consumer, &stop).await {
                    Ended::Stopped => return,
                    Ended::Lost(reason) => debug!(topic = %self.topic, %reason, "consumer ended; attaching again"),
                }
                if since.elapsed() >= STABLE_AFTER {
                    self.backoff.reset();
                }
            }
            tokio::select! {
                biased;
                () = stop.requested() => return,
                () = tokio::time::sleep(self.backoff.next_delay()) => {}
            }
        }
    }

    /// Waits for a connection and tries to consume over it.
    async fn attach_once(&mut self) -> Option<(Channel, Consumer)> {
        let mut links = self.shared.link.subscribe();
        // Its sender lives in `shared`, and it waits for nothing but a link: there is one.
        let link = links.wait_for(Result::is_ok).await.ok()?.clone().ok()?;
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
            Ok(attached) => {
                debug!(topic = %self.topic, "consuming");
                return Some(attached);
            }
            Err(reason) if link.is_up() => error!(topic = %self.topic, %reason, "cannot consume; trying again"),
            Err(reason) => debug!(topic = %self.topic, %reason, "connection lost while attaching"),
        }
        None
    }

    /// Passes deliveries on until the consumer ends.
    async fn forward(&self, channel: &Channel, mut consumer: Consumer, stop: &Stop) -> Ended {
        loop {
            let consumed = tokio::select! {
                biased;
                () = stop.requested() => break,
                consumed = consumer.next() => consumed,
            };
            match consumed {
                Some(Ok(consumed)) => {
                    // There is room: the broker sends no more than the prefetch, for which the queue was sized. Leftovers of an
                    // earlier connection may take it; then this waits.
                    let arrived = self.arrived(consumed, channel);
                    if let Err(mpsc::error::SendError(arrived)) = self.sender.send(arrived).await {
                        arrived.acker.give_back(true).await;
                        break;
                    }
                }
                Some(Err(error)) => return Ended::Lost(error.to_string()),
                None => return Ended::Lost("cancelled by the broker (was the queue deleted?)".into()),
            }
        }
        // What the broker has sent before it hears of the end is given back one by one. The end of the channel would give back
        // all at once, but it comes only when the last delivery in hand has been answered.
        let give_back = async {
            let tag = consumer.tag();
            if channel.basic_cancel(tag, BasicCancelOptions::default()).await.is_ok() {
                while let Some(Ok(consumed)) = consumer.next().await {
                    self.arrived(consumed, channel).acker.give_back(true).await;
                }
            }
        };
        if timeout(ANSWER_TIMEOUT, give_back).await.is_err() {
            warn!(topic = %self.topic, "the broker did not confirm the end of a consumer in time");
        }
        Ended::Stopped
    }

    fn arrived(&self, consumed: Consumed, channel: &Channel) -> Arrived {
        let role = Role::of(&self.topic);
        // The header counts the failures that were answered. A delivery lost with its consumer shows in the flag alone, so such
        // losses count once however many they were: a restart of ours is not the message's fault.
        let failed = match role {
            Role::Work => topology::deliveries_from(consumed.properties.headers().as_ref()),
            // Dead letters still carry the count of their former life.
            Role::Dead | Role::Broadcast => 0,
        };
        let context = topology::context_from(consumed.properties.headers().as_ref());
        let body = Bytes::from(consumed.data);
        Arrived {
            context: context.clone(),
            redelivered: consumed.redelivered || failed > 0,
            body: body.clone(),
            acker: RabbitAcker {
                acker: consumed.acker,
                body,
                context,
                deliveries: failed.saturating_add(1 + u32::from(consumed.redelivered)),
                role,
                topic: self.topic.clone(),
                shared: Arc::clone(&self.shared),
                runtime: Handle::current(),
                in_hand: None,
                _channel: channel.clone(),
            },
        }
    }
}

/// When a subscription's task must end.
struct Stop {
    shutdown: CancellationToken,
    sender: mpsc::Sender<Arrived>,
}

impl Stop {
    async fn requested(&self) {
        tokio::select! {
            () = self.shutdown.cancelled() => {}
            () = self.sender.closed() => {}
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

struct RabbitAcker {
    acker: lapin::Acker,
    body: Bytes,
    context: trace::Context,
    /// How often it has been delivered, this time included.
    deliveries: u32,
    role: Role,
    topic: Topic,
    shared: Arc<Shared>,
    runtime: Handle,
    /// Set once the caller has the delivery: from then on a shutdown waits for the answer.
    in_hand: Option<TaskTrackerToken>,
    /// Keeps the channel open until the answer is given, even if the subscription is gone.
    _channel: Channel,
}

impl RabbitAcker {
    async fn settle(self, fate: Fate) {
        match fate {
            Fate::Requeue if self.role == Role::Work => {
                if self.publish_again().await {
                    self.acknowledge().await;
                } else {
                    // Uncounted, but not lost.
                    self.give_back(true).await;
                }
            }
            Fate::Requeue => self.give_back(true).await,
            Fate::DeadLetter => {
                warn!(topic = %self.topic, deliveries = self.deliveries, "message moved to the dead-letter queue");
                // By the broker, which was told so when the queue was declared.
                self.give_back(false).await;
            }
            Fate::Discard => {
                debug!(topic = %self.topic, deliveries = self.deliveries, "message discarded");
                self.give_back(false).await;
            }
        }
    }

    /// Puts a copy that counts this delivery into the queue; a classic queue cannot count by itself. Only then may the original be
    /// acknowledged: dying in between makes two of it, which consumers must cope with; the other order would make none.
    async fn publish_again(&self) -> bool {
        let link = self.shared.link.borrow().clone();
        let Ok(link) = link else { return false };
        let headers = topology::headers(self.deliveries, &self.context);
        match timeout(CONFIRM_TIMEOUT, link.publish(&self.topic, &self.body, headers)).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                debug!(topic = %self.topic, %error, "cannot count the retry of a message");
                false
            }
            Err(_) => false,
        }
    }

    async fn acknowledge(&self) {
        let answered = timeout(ANSWER_TIMEOUT, self.acker.ack(BasicAckOptions::default())).await;
        report(&self.topic, answered);
    }

    async fn give_back(&self, requeue: bool) {
        let options = BasicNackOptions {
            multiple: false,
            requeue,
        };
        let answered = timeout(ANSWER_TIMEOUT, self.acker.nack(options)).await;
        report(&self.topic, answered);
    }
}

#[async_trait]
impl Acker for RabbitAcker {
    async fn ack(self: Box<Self>) {
        self.acknowledge().await;
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
                () = self.shared.shutdown.cancelled() => {}
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
