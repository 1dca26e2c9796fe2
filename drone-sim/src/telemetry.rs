//! Events on their way to the bus: a bounded queue, and the loop that empties it.
//!
//! Promises: adding an event never waits; beyond the limit the oldest goes first, and is counted; events leave in the order
//! they came, as long as the bus takes them. They are hints: the records in the KV hold the truth.
//!
//! As long as few wait, each is a message of its own. What a tick of a larger fleet adds travels in few messages: arrays of events, in which
//! only those go alone that are part of somebody's trace.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bus::{Bus, PublishError, Topic};
use bytes::Bytes;
use domain::events::DroneUpdate;
use futures_util::future::join_all;
use rand::RngExt;
use rand::rngs::StdRng;
use service::{Heartbeat, Shutdown};
use tokio::sync::Notify;
use trace::Scope;

use crate::metrics::FleetMetrics;

/// Messages handed to the bus at once; the next follow when all of them are confirmed.
const BATCH_MAX: usize = 64;

/// When more events wait than this, several go in one message.
const SINGLY_MAX: usize = 64;

/// Most events of one message.
const MESSAGE_MAX: usize = 128;

/// Bytes of events after which a message takes no more: half of what the bus takes, as a single event is smaller than the other half.
const MESSAGE_BYTES: usize = 32 * 1024;

/// First wait after the bus refused events; doubles up to [`BACKOFF_MAX`], each with ±50 % of jitter.
const BACKOFF_MIN: Duration = Duration::from_millis(100);

/// Longest wait (before jitter) after the bus refused events.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// How often the loop looks around when there is nothing to publish, for its health line.
const IDLE_ROUND: Duration = Duration::from_secs(1);

/// The loop counts as stuck when it has not come round for this long.
pub const MAX_SILENCE: Duration = Duration::from_secs(30);

/// An event, and on whose behalf it is, if it is on somebody's.
type Event = (Bytes, Option<Scope>);

/// Events that travel together.
#[derive(Debug)]
struct Message {
    bodies: Vec<Bytes>,
    scope: Option<Scope>,
}

impl Message {
    fn of((body, scope): Event) -> Self {
        let bodies = vec![body];
        Self { bodies, scope }
    }

    /// Takes up one more event; gives it back when it has to travel otherwise.
    fn add(&mut self, event: Event) -> Result<(), Event> {
        let bytes: usize = self.bodies.iter().map(Bytes::len).sum();
        let is_full = self.bodies.len() >= MESSAGE_MAX || bytes >= MESSAGE_BYTES;
        if self.scope.is_some() || event.1.is_some() || is_full {
            return Err(event);
        }
        self.bodies.push(event.0);
        Ok(())
    }

    /// A single event as it is, several as an array.
    fn body(&self) -> Bytes {
        match self.bodies.as_slice() {
            [one] => one.clone(),
            many => [b"[", many.join(&b',').as_slice(), b"]"].concat().into(),
        }
    }
}

/// The queue.
#[derive(Debug)]
pub struct Telemetry {
    queue: Mutex<VecDeque<Event>>,
    max: usize,
    added: Notify,
    metrics: FleetMetrics,
}

impl Telemetry {
    /// An empty queue of at most `max` events.
    #[must_use]
    pub fn new(max: usize, metrics: FleetMetrics) -> Arc<Self> {
        Arc::new(Self {
            queue: Mutex::default(),
            max,
            added: Notify::new(),
            metrics,
        })
    }

    /// Adds an event; drops the oldest when there are too many.
    pub fn push(&self, update: &DroneUpdate) {
        let body = match serde_json::to_vec(update) {
            Ok(body) => Bytes::from(body),
            Err(error) => {
                // Numbers that are no JSON cannot come out of a record that was JSON.
                tracing::error!(drone = update.drone_id, %error, "an event cannot be written");
                return;
            }
        };
        let mut queue = self.queue();
        queue.push_back((body, trace::current()));
        self.trim(&mut queue);
        drop(queue);
        self.added.notify_one();
    }

    /// How many events wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue().len()
    }

    /// True when no event waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Publishes what comes, until `shutdown`.
    pub async fn publish(
        self: Arc<Self>,
        bus: Arc<dyn Bus>,
        topic: Topic,
        mut rng: StdRng,
        beat: Heartbeat,
        shutdown: Shutdown,
    ) {
        let mut backoff = BACKOFF_MIN;
        while !shutdown.is_stopping() {
            // The broker being away is not this service's illness: it shows in `bus_connected`, not in /ready.
            beat.ok();
            self.metrics.bus_connected.set(i64::from(bus.connected()));
            let batch = self.take();
            if batch.is_empty() {
                tokio::select! {
                    () = self.added.notified() => {}
                    () = tokio::time::sleep(IDLE_ROUND) => {}
                    () = shutdown.stopped() => {}
                }
                continue;
            }
            let (bus, topic) = (&bus, &topic);
            let sent = batch.iter().map(|message| async move {
                let publish = bus.publish(topic, message.body());
                match &message.scope {
                    Some(scope) => trace::within(scope.clone(), publish).await,
                    None => publish.await,
                }
            });
            let sent = join_all(sent);
            let outcomes = tokio::select! {
                outcomes = sent => outcomes,
                () = shutdown.stopped() => return,
            };
            let mut again = Vec::new();
            for (message, outcome) in batch.into_iter().zip(outcomes) {
                let events = message.bodies.len() as u64;
                match outcome {
                    Ok(()) => {
                        self.metrics.events_published.inc_by(events);
                    }
                    Err(PublishError::Unavailable(_)) => {
                        let Message { bodies, scope } = message;
                        again.extend(bodies.into_iter().map(|body| (body, scope.clone())));
                    }
                    // Perhaps it arrived; a newer one follows in any case.
                    Err(error @ (PublishError::NotConfirmed { .. } | PublishError::TooLarge { .. })) => {
                        tracing::debug!(%error, events, "events were dropped");
                        self.metrics.events_dropped.inc_by(events);
                    }
                }
            }
            if again.is_empty() {
                backoff = BACKOFF_MIN;
                continue;
            }
            if backoff == BACKOFF_MIN {
                tracing::warn!(
                    waiting = self.len() + again.len(),
                    "the bus takes no events; trying again"
                );
            }
            self.give_back(again);
            shutdown.sleep(backoff.mul_f64(rng.random_range(0.5..1.5))).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    fn take(&self) -> Vec<Message> {
        let mut queue = self.queue();
        let singly = queue.len() <= SINGLY_MAX;
        let mut batch: Vec<Message> = Vec::new();
        while let Some(event) = queue.pop_front() {
            let added = match batch.last_mut() {
                Some(last) if !singly => last.add(event),
                _ => Err(event),
            };
            let Err(event) = added else { continue };
            if batch.len() == BATCH_MAX {
                queue.push_front(event);
                break;
            }
            batch.push(Message::of(event));
        }
        self.show(&queue);
        batch
    }

    fn give_back(&self, events: Vec<Event>) {
        let mut queue = self.queue();
        for event in events.into_iter().rev() {
            queue.push_front(event);
        }
        self.trim(&mut queue);
    }

    fn trim(&self, queue: &mut VecDeque<Event>) {
        let surplus = queue.len().saturating_sub(self.max);
        queue.drain(..surplus);
        self.metrics.events_dropped.inc_by(surplus as u64);
        self.show(queue);
    }

    fn show(&self, queue: &VecDeque<Event>) {
        self.metrics
            .events_waiting
            .set(i64::try_from(queue.len()).unwrap_or(i64::MAX));
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<Event>> {
        // The queue is whole at every point where a panic could happen, so a poisoned lock is still good.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Instant;

    use async_trait::async_trait;
    use bus::{InProcess, Subscription};
    use domain::drone::Drone;
    use domain::events::DroneUpdates;
    use domain::zones::ZonesConfig;
    use rand::SeedableRng;
    use service::Tasks;
    use service::metrics::Metrics;

    use super::*;

    /// A bus whose broker is away until `up`.
    struct Flaky {
        bus: Arc<InProcess>,
        up: AtomicBool,
    }

    #[async_trait]
    impl Bus for Flaky {
        async fn publish(&self, topic: &Topic, body: Bytes) -> Result<(), PublishError> {
            if !self.up.load(Ordering::SeqCst) {
                return Err(PublishError::Unavailable("away".to_owned()));
            }
            self.bus.publish(topic, body).await
        }

        async fn subscribe(&self, topic: &Topic, prefetch: u16) -> Box<dyn Subscription> {
            self.bus.subscribe(topic, prefetch).await
        }

        fn connected(&self) -> bool {
            self.up.load(Ordering::SeqCst)
        }
    }

    fn update(number: u32) -> DroneUpdate {
        DroneUpdate::of(&Drone::new(number, &ZonesConfig::rome(2, 2).unwrap()))
    }

    #[test]
    fn many_events_travel_in_few_messages_in_their_order() {
        let telemetry = Telemetry::new(10_000, FleetMetrics::new(&Metrics::new("test")));
        let scope = Scope::new(trace::Context::default(), &trace::Tracer::off());
        let add = |numbers: std::ops::RangeInclusive<u32>| numbers.for_each(|number| telemetry.push(&update(number)));
        let sizes = |messages: &[Message]| messages.iter().map(|message| message.bodies.len()).collect::<Vec<_>>();
        add(1..=64);
        assert_eq!(sizes(&telemetry.take()), [1; 64], "few go alone");
        add(1..=200);
        scope.clone().run(|| telemetry.push(&update(201)));
        add(202..=300);
        let messages = telemetry.take();
        assert_eq!(sizes(&messages), [128, 72, 1, 99]);
        assert!(messages[2].scope.is_some());
        let numbers: Vec<String> = messages
            .iter()
            .flat_map(|message| serde_json::from_slice::<DroneUpdates>(&message.body()).unwrap().0)
            .map(|update| update.drone_id)
            .collect();
        let expected: Vec<String> = (1..=300).map(|number| format!("drone-{number}")).collect();
        assert_eq!(numbers, expected);
        assert!(telemetry.is_empty());
        // More than all messages of a batch can take.
        (1..=100).for_each(|number| scope.clone().run(|| telemetry.push(&update(number))));
        assert_eq!((telemetry.take().len(), telemetry.len()), (BATCH_MAX, 36));
    }

    #[tokio::test]
    async fn the_newest_events_survive_an_outage_in_order() {
        let metrics = FleetMetrics::new(&Metrics::new("test"));
        let telemetry = Telemetry::new(3, metrics.clone());
        let bus = Arc::new(Flaky {
            bus: InProcess::new(),
            up: AtomicBool::new(false),
        });
        let topic = Topic::work("updates");
        let mut subscription = bus.subscribe(&topic, 10).await;
        let shutdown = Shutdown::new();
        let tasks = Tasks::new(shutdown.clone());
        let publisher = tokio::spawn(Arc::clone(&telemetry).publish(
            bus.clone(),
            topic,
            StdRng::seed_from_u64(1),
            tasks.check("events", MAX_SILENCE),
            shutdown.clone(),
        ));
        for number in 1..=5 {
            telemetry.push(&update(number));
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while metrics.events_dropped.get() < 2 {
            assert!(Instant::now() < deadline, "the two oldest go");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        bus.up.store(true, Ordering::SeqCst);
        for number in 3..=5 {
            let delivery = tokio::time::timeout(Duration::from_secs(10), subscription.next())
                .await
                .unwrap()
                .unwrap();
            let body: DroneUpdate = serde_json::from_slice(&delivery.body).unwrap();
            assert_eq!(body, update(number));
            delivery.ack().await;
        }
        while metrics.events_published.get() < 3 {
            assert!(Instant::now() < deadline + Duration::from_secs(10), "all are counted");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(telemetry.is_empty());
        shutdown.stop();
        tokio::time::timeout(Duration::from_secs(5), publisher)
            .await
            .unwrap()
            .unwrap();
    }
}
