//! What the dispatcher tells every gateway: changes of deliveries, as they happen.
//!
//! Keeps the newest few and counts all. Hints, as everything on the bus: whoever needs the truth reads the KV.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bus::{Bus, Topic};
use domain::events::DeliveryStatusChanged;
use serde::Serialize;
use service::metrics::Metrics;
use service::metrics::prometheus_client::metrics::counter::Counter;
use service::metrics::prometheus_client::metrics::family::Family;
use service::{Heartbeat, Shutdown};

use crate::app::Clock;

/// Events kept.
const RECENT_MAX: usize = 256;
/// Unacknowledged events held at once.
const PREFETCH: u16 = 64;
/// Pause before subscribing again, should the bus have ended a subscription.
const RESUBSCRIBE_PAUSE: Duration = Duration::from_secs(1);

/// An event and when it arrived here.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Noted {
    /// Unix seconds.
    pub(crate) at: f64,
    /// What the dispatcher said.
    #[serde(flatten)]
    pub(crate) event: DeliveryStatusChanged,
}

/// The newest events. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Recent {
    events: Arc<Mutex<VecDeque<Noted>>>,
    counts: Family<Vec<(String, String)>, Counter>,
}

impl Recent {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let counts = metrics.register(
            "delivery_events",
            "Changes of deliveries heard of, by type",
            Family::default(),
        );
        Self {
            events: Arc::default(),
            counts,
        }
    }

    fn note(&self, noted: Noted) {
        let label = ("type".to_owned(), noted.event.kind.name().to_owned());
        self.counts.get_or_create(&vec![label]).inc();
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        if events.len() >= RECENT_MAX {
            events.pop_front();
        }
        events.push_back(noted);
    }

    /// The deliveries that the kept events speak of.
    pub(crate) fn delivery_ids(&self) -> Vec<String> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let ids: BTreeSet<&String> = events.iter().map(|noted| &noted.event.delivery_id).collect();
        ids.into_iter().cloned().collect()
    }

    /// The newest `limit` events, newest first.
    pub(crate) fn newest(&self, limit: usize) -> Vec<Noted> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.iter().rev().take(limit).cloned().collect()
    }
}

/// Listens until `shutdown`, or until the bus has ended.
pub(crate) async fn run(
    bus: Arc<dyn Bus>,
    topic: Topic,
    recent: Recent,
    clock: Clock,
    beat: Heartbeat,
    shutdown: Shutdown,
) {
    // Without a broker the gateway does its work all the same, so this line is well from the start.
    beat.ok();
    loop {
        let mut subscription = tokio::select! {
            subscription = bus.subscribe(&topic, PREFETCH) => subscription,
            () = shutdown.stopped() => return,
        };
        loop {
            let delivery = tokio::select! {
                delivery = subscription.next() => delivery,
                () = shutdown.stopped() => return,
            };
            let Some(delivery) = delivery else { break };
            match serde_json::from_slice(&delivery.body) {
                Ok(event) => {
                    recent.note(Noted { at: clock(), event });
                    beat.ok();
                    delivery.ack().await;
                }
                Err(error) => {
                    tracing::warn!(%error, %topic, "an event cannot be read");
                    delivery.reject().await;
                }
            }
        }
        if !shutdown.sleep(RESUBSCRIBE_PAUSE).await {
            return;
        }
    }
}
