//! The bus inside one process, for the one-command run and for tests: the promises of the crate, without a broker.
//!
//! Messages live in memory only. That is enough: they are hints, and a process that is gone took publisher and subscriber with it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::fate::{Fate, Role, retry_delay};
use crate::limits::{self, BROADCAST_QUEUE_MAX, DEAD_QUEUE_MAX, WORK_QUEUE_MAX};
use crate::{Acker, Bus, Delivery, Fanout, PublishError, Subscription, Topic};

/// A bus without a broker. Clone the `Arc` to share it; queues exist as long as the bus does.
#[derive(Debug)]
pub struct InProcess {
    queues: Arc<Queues>,
    shutdown: CancellationToken,
}

impl InProcess {
    /// A bus that works until [`InProcess::shut_down`] is called.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Self::with_shutdown(CancellationToken::new())
    }

    /// A bus that works until `shutdown` is cancelled.
    #[must_use]
    pub fn with_shutdown(shutdown: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            queues: Arc::default(),
            shutdown,
        })
    }

    /// Ends all subscriptions and refuses further messages. Cancels the token the bus was made with.
    pub fn shut_down(&self) {
        self.shutdown.cancel();
    }
}

#[async_trait]
impl Bus for InProcess {
    async fn publish(&self, topic: &Topic, body: Bytes) -> Result<(), PublishError> {
        limits::check(topic, body.len())?;
        if self.shutdown.is_cancelled() {
            return Err(PublishError::Unavailable("the bus has been shut down".into()));
        }
        let mut span = crate::sending(topic, "in_process");
        let message = Message {
            body,
            context: span.context().clone(),
            deliveries: 0,
        };
        match topic.fanout {
            Fanout::Work => self
                .queues
                .work(topic)
                .push(message)
                .map_err(|Full { limit }| PublishError::NotConfirmed {
                    topic: topic.name.clone(),
                    reason: format!("the queue is full: {limit} messages wait"),
                })
                .inspect_err(|error| span.failed(error)),
            Fanout::Broadcast => {
                for queue in self.queues.subscribers(topic) {
                    // Makes way at its head, so it is never full.
                    let _ = queue.push(message.clone());
                }
                Ok(())
            }
        }
    }

    async fn subscribe(&self, topic: &Topic, prefetch: u16) -> Box<dyn Subscription> {
        let queue = match topic.fanout {
            Fanout::Work => self.queues.work(topic),
            Fanout::Broadcast => self.queues.add_subscriber(topic),
        };
        Box::new(InProcessSubscription {
            queue,
            queues: Arc::clone(&self.queues),
            slots: Arc::new(Semaphore::new(usize::from(prefetch.max(1)))),
            shutdown: self.shutdown.clone(),
        })
    }

    fn connected(&self) -> bool {
        !self.shutdown.is_cancelled()
    }
}

/// All queues by topic name. The names come from settings, so there are few and none is ever removed.
#[derive(Debug, Default)]
struct Queues {
    work: Mutex<HashMap<String, Arc<Queue>>>,
    broadcast: Mutex<HashMap<String, Vec<Weak<Queue>>>>,
}

impl Queues {
    fn work(&self, topic: &Topic) -> Arc<Queue> {
        let mut work = lock(&self.work);
        if let Some(queue) = work.get(&topic.name) {
            return Arc::clone(queue);
        }
        let queue = Arc::new(Queue::new(topic));
        work.insert(topic.name.clone(), Arc::clone(&queue));
        queue
    }

    fn subscribers(&self, topic: &Topic) -> Vec<Arc<Queue>> {
        let mut broadcast = lock(&self.broadcast);
        let Some(queues) = broadcast.get_mut(&topic.name) else {
            return Vec::new();
        };
        queues.retain(|queue| queue.strong_count() > 0);
        queues.iter().filter_map(Weak::upgrade).collect()
    }

    fn add_subscriber(&self, topic: &Topic) -> Arc<Queue> {
        let queue = Arc::new(Queue::new(topic));
        let mut broadcast = lock(&self.broadcast);
        let queues = broadcast.entry(topic.name.clone()).or_default();
        // Subscribers come and go even where nobody publishes.
        queues.retain(|queue| queue.strong_count() > 0);
        queues.push(Arc::downgrade(&queue));
        queue
    }
}

#[derive(Debug, Clone)]
struct Message {
    body: Bytes,
    context: trace::Context,
    /// How often it has been handed to a subscriber.
    deliveries: u32,
}

#[derive(Debug)]
struct Full {
    limit: usize,
}

/// One bounded queue.
///
/// `ready` has one permit for each message that no one is about to take. The semaphore, not the list, is what subscribers wait
/// for: it serves them in turn, and a wait given up returns its permit, which makes `next` cancel safe.
#[derive(Debug)]
struct Queue {
    topic: Topic,
    role: Role,
    limit: usize,
    messages: Mutex<VecDeque<Message>>,
    ready: Semaphore,
}

impl Queue {
    fn new(topic: &Topic) -> Self {
        let role = Role::of(topic);
        let limit = match role {
            Role::Work => WORK_QUEUE_MAX,
            Role::Dead => DEAD_QUEUE_MAX,
            Role::Broadcast => BROADCAST_QUEUE_MAX,
        };
        Self {
            topic: topic.clone(),
            role,
            limit,
            messages: Mutex::default(),
            ready: Semaphore::new(0),
        }
    }

    /// Appends. A full work queue refuses; the others drop their oldest message.
    fn push(&self, message: Message) -> Result<(), Full> {
        let mut messages = lock(&self.messages);
        if messages.len() >= self.limit {
            if self.role == Role::Work {
                return Err(Full { limit: self.limit });
            }
            // Without a permit to take back, each message is already promised to a subscriber and about to leave.
            if let Ok(permit) = self.ready.try_acquire() {
                permit.forget();
                messages.pop_front();
            }
        }
        messages.push_back(message);
        self.ready.add_permits(1);
        Ok(())
    }

    /// Puts a message back where it came from. Not refused by a full queue: it holds no more than the sum of the prefetches
    /// beyond its limit.
    fn put_back(&self, message: Message) {
        lock(&self.messages).push_front(message);
        self.ready.add_permits(1);
    }

    /// Waits for a message. Cancel safe: nothing is awaited once the permit is held.
    async fn pop(&self) -> Message {
        let permit = self
            .ready
            .acquire()
            .await
            .expect("the semaphore of a queue is never closed");
        permit.forget();
        let mut message = lock(&self.messages)
            .pop_front()
            .expect("there is a message for every permit");
        message.deliveries = message.deliveries.saturating_add(1);
        message
    }
}

struct InProcessSubscription {
    queue: Arc<Queue>,
    queues: Arc<Queues>,
    slots: Arc<Semaphore>,
    shutdown: CancellationToken,
}

impl InProcessSubscription {
    async fn take(&self) -> Delivery {
        let slot = Arc::clone(&self.slots)
            .acquire_owned()
            .await
            .expect("the semaphore of a subscription is never closed");
        let message = self.queue.pop().await;
        let (body, redelivered) = (message.body.clone(), message.deliveries > 1);
        let context = message.context.clone();
        let acker = InProcessAcker {
            message,
            queue: Arc::clone(&self.queue),
            queues: Arc::clone(&self.queues),
            shutdown: self.shutdown.clone(),
            slot,
        };
        Delivery::new(body, redelivered, context, Box::new(acker))
    }
}

#[async_trait]
impl Subscription for InProcessSubscription {
    async fn next(&mut self) -> Option<Delivery> {
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => None,
            delivery = self.take() => Some(delivery),
        }
    }
}

struct InProcessAcker {
    message: Message,
    queue: Arc<Queue>,
    queues: Arc<Queues>,
    shutdown: CancellationToken,
    /// The place among the subscriber's prefetched messages; free again once this is dropped.
    slot: OwnedSemaphorePermit,
}

impl InProcessAcker {
    fn settle(self, fate: Fate) {
        let topic = &self.queue.topic;
        match fate {
            Fate::Requeue => self.queue.put_back(self.message),
            Fate::DeadLetter => {
                warn!(%topic, deliveries = self.message.deliveries, "message moved to the dead-letter queue");
                // It starts a new life there: its deliveries are counted afresh. That queue drops its oldest, so it takes it.
                let _ = self.queues.work(&topic.dead()).push(Message {
                    body: self.message.body,
                    context: self.message.context,
                    deliveries: 0,
                });
            }
            Fate::Discard => debug!(%topic, deliveries = self.message.deliveries, "message discarded"),
        }
        drop(self.slot);
    }
}

#[async_trait]
impl Acker for InProcessAcker {
    async fn ack(self: Box<Self>) {}

    async fn reject(self: Box<Self>) {
        let fate = self.queue.role.rejected();
        self.settle(fate);
    }

    async fn retry(self: Box<Self>) {
        let fate = self.queue.role.failed(self.message.deliveries);
        if fate != Fate::Requeue {
            return self.settle(fate);
        }
        let delay = retry_delay(self.message.deliveries);
        tokio::spawn(async move {
            tokio::select! {
                () = self.shutdown.cancelled() => {}
                () = tokio::time::sleep(delay) => {}
            }
            self.settle(Fate::Requeue);
        });
    }

    fn dropped(self: Box<Self>) {
        let fate = self.queue.role.failed(self.message.deliveries);
        self.settle(fate);
    }
}

/// A panic while holding one of these locks leaves nothing half done, so a poisoned lock is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
