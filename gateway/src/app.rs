//! What all handlers and loops share.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use kv_client::Kv;
use service::metrics::Metrics;
use service::metrics::prometheus_client::metrics::counter::Counter;

use crate::feed::Feed;
use crate::hints::HintSender;
use crate::index::IndexQueue;
use crate::listing::Lists;
use crate::stats::Stats;
use crate::status::Recent;
use crate::zones::Zones;

/// The time, in Unix seconds; passed in so that tests can own it.
pub(crate) type Clock = Arc<dyn Fn() -> f64 + Send + Sync>;

/// The gateway's parts. Handlers hold it as an `Arc`.
pub(crate) struct App {
    pub(crate) kv: Kv,
    pub(crate) clock: Clock,
    pub(crate) zones: Zones,
    pub(crate) lists: Lists,
    pub(crate) stats: Stats,
    pub(crate) recent: Recent,
    pub(crate) feed: Arc<Feed>,
    pub(crate) hints: HintSender,
    pub(crate) index: IndexQueue,
    pub(crate) counters: OrderCounters,
}

/// What became of the orders, for `/metrics`.
#[derive(Debug, Clone)]
pub(crate) struct OrderCounters {
    pub(crate) created: Counter,
    pub(crate) repeated: Counter,
    pub(crate) refused: Counter,
    pub(crate) unavailable: Counter,
    pub(crate) unknown: Counter,
    pub(crate) cancelled: Counter,
}

impl OrderCounters {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let counter = |name, help| metrics.register(name, help, Counter::default());
        Self {
            created: counter("orders_created", "Orders answered with 201"),
            repeated: counter(
                "orders_repeated",
                "Orders with a known idempotency key, answered with 200",
            ),
            refused: counter("orders_refused", "Orders that were malformed, too large or not valid"),
            unavailable: counter(
                "orders_unavailable",
                "Orders not stored because the KV did not take them",
            ),
            unknown: counter(
                "orders_unknown",
                "Orders of which it is not known whether they were stored",
            ),
            cancelled: counter("orders_cancelled", "Orders cancelled through the API"),
        }
    }
}

impl App {
    /// Unix seconds.
    pub(crate) fn now(&self) -> f64 {
        (self.clock)()
    }
}

/// The machine's clock.
pub(crate) fn system_clock() -> Clock {
    Arc::new(|| {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0.0, |since| since.as_secs_f64())
    })
}
