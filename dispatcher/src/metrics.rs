//! What the dispatcher counts.

use std::collections::BTreeMap;

use domain::delivery::DeliveryStatus;
use domain::drone::DroneStatus;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use service::metrics::Metrics;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabel {
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

/// The dispatcher's metrics.
#[derive(Debug, Clone)]
pub struct DispatchMetrics {
    orders: Family<StatusLabel, Gauge>,
    drones: Family<StatusLabel, Gauge>,
    transitions: Family<KindLabel, Counter>,
    drone_changes: Family<KindLabel, Counter>,
    lost_races: Family<KindLabel, Counter>,
    repairs: Family<KindLabel, Counter>,
    /// Orders that lost their drone before pick-up and wait again.
    pub reassigned: Counter,
    /// Orders that went from a drone on its way to the pick-up to another one.
    pub swaps: Counter,
    /// Messages that could not be published.
    pub unpublished: Counter,
    /// Rounds that the policy gave up, and `greedy` decided.
    pub fallbacks: Counter,
    /// Seconds from acceptance to assignment.
    pub assign_seconds: Histogram,
    /// Seconds from acceptance to delivery.
    pub deliver_seconds: Histogram,
    /// Seconds a round takes.
    pub round_seconds: Histogram,
}

/// Bounds of [`DispatchMetrics::assign_seconds`] and [`DispatchMetrics::deliver_seconds`], in seconds.
const WAIT_BOUNDS_SEC: [f64; 14] = [
    0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 90.0, 180.0, 600.0, 3_600.0,
];

impl DispatchMetrics {
    /// Registers all of them.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            orders: metrics.register("orders", "Open orders by status", Family::default()),
            drones: metrics.register("drones", "Drones by status", Family::default()),
            transitions: metrics.register("transitions", "Transitions of deliveries made", Family::default()),
            drone_changes: metrics.register("drone_changes", "Changes of drones made", Family::default()),
            lost_races: metrics.register(
                "lost_races",
                "Changes refused because a record had moved on",
                Family::default(),
            ),
            repairs: metrics.register(
                "repairs",
                "Repairs of what a crash or somebody else left behind",
                Family::default(),
            ),
            reassigned: metrics.register(
                "reassigned",
                "Orders that lost their drone before pick-up and wait again",
                Counter::default(),
            ),
            swaps: metrics.register(
                "swaps",
                "Orders taken from a drone on its way to the pick-up and given to a better one",
                Counter::default(),
            ),
            unpublished: metrics.register("unpublished", "Status messages not published", Counter::default()),
            fallbacks: metrics.register(
                "policy_fallbacks",
                "Rounds in which there was too much to decide at once, so that greedy decided",
                Counter::default(),
            ),
            assign_seconds: metrics.register(
                "assign_seconds",
                "Seconds from acceptance to assignment",
                Histogram::new(WAIT_BOUNDS_SEC),
            ),
            deliver_seconds: metrics.register(
                "deliver_seconds",
                "Seconds from acceptance to delivery",
                Histogram::new(WAIT_BOUNDS_SEC),
            ),
            round_seconds: metrics.latency("round_seconds", "Seconds a round takes"),
        }
    }

    pub(crate) fn transition(&self, kind: &'static str) {
        self.transitions.get_or_create(&KindLabel { kind }).inc();
    }

    pub(crate) fn drone_change(&self, kind: &'static str) {
        self.drone_changes.get_or_create(&KindLabel { kind }).inc();
    }

    pub(crate) fn lost_race(&self, kind: &'static str) {
        self.lost_races.get_or_create(&KindLabel { kind }).inc();
    }

    pub(crate) fn repair(&self, kind: &'static str) {
        self.repairs.get_or_create(&KindLabel { kind }).inc();
    }

    pub(crate) fn set_orders(&self, counts: &BTreeMap<DeliveryStatus, usize>) {
        for status in DeliveryStatus::ALL.into_iter().filter(|status| status.is_open()) {
            let count = counts.get(&status).copied().unwrap_or(0);
            self.orders
                .get_or_create(&StatusLabel { status: status.name() })
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    pub(crate) fn set_drones(&self, counts: &BTreeMap<DroneStatus, usize>) {
        for status in DroneStatus::ALL {
            let count = counts.get(&status).copied().unwrap_or(0);
            self.drones
                .get_or_create(&StatusLabel { status: status.name() })
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}
