//! Tells the dispatcher about new orders, in the background.
//!
//! A hint may be lost: the record in the KV is the outbox, and the dispatcher's sweep finds it. So nothing here waits,
//! retries or fails an order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bus::{Bus, Topic};
use bytes::Bytes;
use domain::events::DeliveryRequest;
use futures_util::StreamExt;
use futures_util::stream::poll_fn;
use service::metrics::Metrics;
use service::metrics::prometheus_client::metrics::counter::Counter;
use service::{Heartbeat, Shutdown};
use tokio::sync::mpsc;
use tokio::time::timeout;
use trace::Scope;

/// Hints waiting at most; further ones are dropped.
const QUEUE_MAX: usize = 1_024;
/// Hints on their way to the broker at once.
const CONCURRENCY: usize = 16;
/// Longest wait for one hint's confirmation.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);

/// What is to be told, and on whose behalf.
pub(crate) type Hint = (DeliveryRequest, Option<Scope>);

/// Where handlers leave hints.
#[derive(Debug, Clone)]
pub(crate) struct HintSender {
    queue: mpsc::Sender<Hint>,
    dropped: Counter,
}

impl HintSender {
    /// The queue's two ends.
    pub(crate) fn new(metrics: &Metrics) -> (Self, mpsc::Receiver<Hint>) {
        let (queue, receiver) = mpsc::channel(QUEUE_MAX);
        let dropped = metrics.register(
            "hints_dropped",
            "Hints given up because too many waited or the broker was away",
            Counter::default(),
        );
        (Self { queue, dropped }, receiver)
    }

    /// Never waits.
    pub(crate) fn send(&self, hint: DeliveryRequest) {
        if self.queue.try_send((hint, trace::current())).is_err() {
            self.dropped.inc();
        }
    }
}

/// Publishes hints until `shutdown`.
pub(crate) async fn run(
    bus: Arc<dyn Bus>,
    topic: Topic,
    sender: HintSender,
    mut hints: mpsc::Receiver<Hint>,
    beat: Heartbeat,
    shutdown: Shutdown,
) {
    // A broker that is away shows on the health line, and does not make the gateway unready: orders are accepted all
    // the same.
    beat.ok();
    // One line of the log when it goes away, and one when it is back.
    let failing = AtomicBool::new(false);
    poll_fn(|cx| hints.poll_recv(cx))
        .take_until(async move { shutdown.stopped().await })
        .for_each_concurrent(CONCURRENCY, |(hint, scope)| {
            let (bus, topic, dropped, beat, failing) = (&bus, &topic, &sender.dropped, &beat, &failing);
            async move {
                let body = serde_json::to_vec(&hint).expect("a struct of strings and finite numbers is always JSON");
                let publish = trace::within(scope.unwrap_or_default(), bus.publish(topic, Bytes::from(body)));
                let failure = match timeout(PUBLISH_TIMEOUT, publish).await {
                    Ok(Ok(())) => {
                        if failing.swap(false, Ordering::Relaxed) {
                            tracing::info!("order hints reach the broker again");
                        }
                        return beat.ok();
                    }
                    Ok(Err(error)) => error.to_string(),
                    Err(_) => format!("no confirmation within {} s", PUBLISH_TIMEOUT.as_secs()),
                };
                dropped.inc();
                beat.failed(&failure);
                if !failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        error = failure,
                        "order hints do not reach the broker; the dispatcher's sweep finds the orders"
                    );
                }
            }
        })
        .await;
}
