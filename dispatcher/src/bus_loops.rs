//! The loops that tie the dispatcher to the bus: two that listen for hints, one that tells what has happened.

use std::sync::Arc;

use bus::{Bus, Topic};
use bytes::Bytes;
use domain::events::{DeliveryRequest, DeliveryStatusChanged, DroneUpdates};
use serde::de::DeserializeOwned;
use service::{Heartbeat, Shutdown};
use tokio::sync::mpsc;
use trace::{Context, Kind, Scope, Tracer};

use crate::Config;
use crate::hints::Inbox;
use crate::limits::{BEAT_EVERY, PREFETCH};
use crate::metrics::DispatchMetrics;

/// Longest piece of an unreadable message that is logged, in bytes.
const SHOWN_BYTES: usize = 200;

/// The three topics.
pub(crate) struct Topics {
    pub(crate) orders: Topic,
    pub(crate) updates: Topic,
    pub(crate) status: Topic,
}

impl Topics {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            orders: Topic::work(&config.delivery_req_queue),
            updates: Topic::work(&config.drone_updates_queue),
            status: Topic::broadcast(&config.delivery_status_queue),
        }
    }
}

/// Where messages come from, and who records that they do.
pub(crate) struct Source {
    bus: Arc<dyn Bus>,
    topic: Topic,
    tracer: Tracer,
}

impl Source {
    pub(crate) fn new(bus: Arc<dyn Bus>, topic: Topic, tracer: Tracer) -> Self {
        Self { bus, topic, tracer }
    }

    /// Takes note of a message on behalf of whoever published it.
    fn on_behalf(&self, context: &Context, note: impl FnOnce()) {
        let scope = Scope::new(context.clone(), &self.tracer);
        let mut span = scope.span(Kind::Consumer, || format!("process {}", self.topic));
        span.set_with("messaging.destination.name", || self.topic.name.clone());
        span.set("messaging.operation.type", "process");
        Scope::new(span.context().clone(), &self.tracer).run(note);
    }
}

/// Notes announced orders.
pub(crate) async fn consume_orders(source: Source, inbox: Arc<Inbox>, beat: Heartbeat, shutdown: Shutdown) {
    consume(source, beat, shutdown, |request: DeliveryRequest| {
        inbox.order(&request.delivery_id)
    })
    .await;
}

/// Notes drones that have got somewhere.
pub(crate) async fn consume_updates(
    source: Source,
    inbox: Arc<Inbox>,
    arrive_eps_km: f64,
    beat: Heartbeat,
    shutdown: Shutdown,
) {
    consume(source, beat, shutdown, |DroneUpdates(updates)| {
        for update in &updates {
            inbox.moved(update, arrive_eps_km);
        }
    })
    .await;
}

/// Takes messages until told to stop. A broker that is away is no trouble: the loop is alive, and sweeps do without it.
async fn consume<T: DeserializeOwned>(source: Source, beat: Heartbeat, shutdown: Shutdown, mut note: impl FnMut(T)) {
    beat.ok();
    let mut subscription = tokio::select! {
        () = shutdown.stopped() => return,
        subscription = source.bus.subscribe(&source.topic, PREFETCH) => subscription,
    };
    loop {
        beat.ok();
        let message = tokio::select! {
            () = shutdown.stopped() => return,
            () = tokio::time::sleep(BEAT_EVERY) => continue,
            message = subscription.next() => message,
        };
        let Some(message) = message else {
            // The bus was shut down, which only happens at the end; sweeps still do without it.
            keep_beating(&beat, &shutdown).await;
            return;
        };
        match serde_json::from_slice::<T>(&message.body) {
            Ok(hint) => {
                if message.context.is_empty() {
                    note(hint);
                } else {
                    source.on_behalf(&message.context, || note(hint));
                }
                message.ack().await;
            }
            Err(error) => {
                let shown = String::from_utf8_lossy(&message.body[..message.body.len().min(SHOWN_BYTES)]).into_owned();
                tracing::warn!(topic = %source.topic, %error, body = shown, "a message cannot be read; moved to the dead letters");
                message.reject().await;
            }
        }
    }
}

/// Publishes what has happened. A message that cannot be published is logged and counted, never waited for: gateways look into
/// the KV anyway.
pub(crate) async fn publish_status(
    bus: Arc<dyn Bus>,
    topic: Topic,
    mut messages: mpsc::Receiver<DeliveryStatusChanged>,
    metrics: DispatchMetrics,
    beat: Heartbeat,
    shutdown: Shutdown,
) {
    let mut failing = false;
    loop {
        beat.ok();
        let message = tokio::select! {
            () = shutdown.stopped() => return,
            () = tokio::time::sleep(BEAT_EVERY) => continue,
            message = messages.recv() => message,
        };
        let Some(message) = message else {
            keep_beating(&beat, &shutdown).await;
            return;
        };
        let body = serde_json::to_vec(&message).expect("a message of strings is always JSON");
        match bus.publish(&topic, Bytes::from(body)).await {
            Ok(()) => {
                if std::mem::take(&mut failing) {
                    tracing::info!("status messages are published again");
                }
            }
            Err(error) => {
                metrics.unpublished.inc();
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, delivery = message.delivery_id, "status messages are not published");
                }
            }
        }
    }
}

async fn keep_beating(beat: &Heartbeat, shutdown: &Shutdown) {
    while shutdown.sleep(BEAT_EVERY).await {
        beat.ok();
    }
}
