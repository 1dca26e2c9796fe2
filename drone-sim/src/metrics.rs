//! What the fleet counts.

use std::sync::atomic::AtomicU64;

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
struct StateLabel {
    state: &'static str,
}

/// Bounds of [`FleetMetrics::charge_wait_seconds`], in seconds.
const CHARGE_WAIT_BOUNDS_SEC: [f64; 10] = [0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 180.0, 600.0];

/// The fleet's metrics. Clones share the counts.
#[derive(Debug, Clone)]
pub struct FleetMetrics {
    /// Seconds per tick.
    pub tick_seconds: Histogram,
    /// Seconds by which a tick started late.
    pub tick_lag_seconds: Histogram,
    /// Ticks that did not run because the one before took too long.
    pub ticks_skipped: Counter,
    /// Ticks that failed as a whole.
    pub ticks_failed: Counter,
    /// Drone records written.
    pub writes: Counter,
    /// Writes refused because somebody else had changed the record; merged and tried again.
    pub conflicts: Counter,
    /// Writes given up in their tick: refused too often, failed, or of unknown outcome.
    pub writes_lost: Counter,
    /// Events confirmed by the bus.
    pub events_published: Counter,
    /// Events dropped: queue full, or refused by the bus.
    pub events_dropped: Counter,
    /// Events waiting.
    pub events_waiting: Gauge,
    /// 1 while the bus is connected.
    pub bus_connected: Gauge,
    /// Percent of battery, mean over the fleet.
    pub battery_mean_pct: Gauge<f64, AtomicU64>,
    /// Batteries that ran out in the air: none, as long as the dispatcher reckons with this fleet's `BATTERY_PER_KM`.
    pub empty_in_air: Counter,
    /// Seconds between arrival at a charge point and getting a slot there.
    pub charge_wait_seconds: Histogram,
    chargers: Family<StateLabel, Gauge>,
    drones: Family<StatusLabel, Gauge>,
}

impl FleetMetrics {
    /// Registers all of them.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            tick_seconds: metrics.latency("tick_seconds", "Seconds per tick"),
            tick_lag_seconds: metrics.latency("tick_lag_seconds", "Seconds by which a tick started late"),
            ticks_skipped: metrics.register(
                "ticks_skipped",
                "Ticks that fell out because the one before was slow",
                Counter::default(),
            ),
            ticks_failed: metrics.register("ticks_failed", "Ticks that failed as a whole", Counter::default()),
            writes: metrics.register("writes", "Drone records written", Counter::default()),
            conflicts: metrics.register(
                "conflicts",
                "Writes refused because the record had changed, then merged",
                Counter::default(),
            ),
            writes_lost: metrics.register("writes_lost", "Writes given up in their tick", Counter::default()),
            events_published: metrics.register("events_published", "Events confirmed by the bus", Counter::default()),
            events_dropped: metrics.register(
                "events_dropped",
                "Events dropped: queue full or refused",
                Counter::default(),
            ),
            events_waiting: metrics.register("events_waiting", "Events waiting to be published", Gauge::default()),
            bus_connected: metrics.register("bus_connected", "1 while the bus is connected", Gauge::default()),
            battery_mean_pct: metrics.register(
                "battery_mean_pct",
                "Mean battery of the fleet, percent",
                Gauge::default(),
            ),
            empty_in_air: metrics.register("empty_in_air", "Batteries that ran out in the air", Counter::default()),
            charge_wait_seconds: metrics.register(
                "charge_wait_seconds",
                "Seconds between arrival at a charge point and getting a slot there",
                Histogram::new(CHARGE_WAIT_BOUNDS_SEC),
            ),
            chargers: metrics.register(
                "chargers",
                "Drones that charge, wait for a slot, or are on their way to a charge point",
                Family::default(),
            ),
            drones: metrics.register("drones", "Drones by status", Family::default()),
        }
    }

    /// Sets how many drones charge, wait for a slot, and are on their way to a charge point.
    pub fn set_chargers(&self, charging: i64, waiting: i64, coming: i64) {
        for (state, count) in [("charging", charging), ("waiting", waiting), ("coming", coming)] {
            self.chargers.get_or_create(&StateLabel { state }).set(count);
        }
    }

    /// Sets how many drones there are of each status.
    pub fn set_drones(&self, statuses: impl Iterator<Item = DroneStatus>) {
        let mut counts = DroneStatus::ALL.map(|status| (status, 0));
        for status in statuses {
            counts
                .iter_mut()
                .filter(|(other, _)| *other == status)
                .for_each(|(_, count)| *count += 1);
        }
        for (status, count) in counts {
            let label = StatusLabel { status: status.name() };
            self.drones.get_or_create(&label).set(count);
        }
    }
}
