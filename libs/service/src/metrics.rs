//! Prometheus metrics: one registry per service, so that several services in one process keep apart.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

pub use prometheus_client;

/// Bounds of latency histograms, in seconds: 100 µs to 10 s, about four per decade.
pub const LATENCY_BOUNDS_SEC: [f64; 16] = [
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
];

/// The media type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A service's metrics. Clones share the registry.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Mutex<Registry>>);

impl Metrics {
    /// An empty registry whose metric names all start with `<service>_`.
    #[must_use]
    pub fn new(service: &str) -> Self {
        Self(Arc::new(Mutex::new(Registry::with_prefix(service.replace('-', "_")))))
    }

    /// Registers a metric under `name` (without the service's prefix; counters get `_total` by themselves) and gives it back.
    pub fn register<M: Metric + Clone>(&self, name: &str, help: &str, metric: M) -> M {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .register(name, help, metric.clone());
        metric
    }

    /// Registers a latency histogram in seconds.
    pub fn latency(&self, name: &str, help: &str) -> Histogram {
        self.register(name, help, latency_histogram())
    }

    /// The OpenMetrics text.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing into a String cannot fail, so neither can encoding.
        let _ = encode(&mut text, &self.0.lock().unwrap_or_else(PoisonError::into_inner));
        text
    }
}

/// A histogram over [`LATENCY_BOUNDS_SEC`]; also the constructor for a `Family` of them.
#[must_use]
pub fn latency_histogram() -> Histogram {
    Histogram::new(LATENCY_BOUNDS_SEC)
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn renders_with_the_services_prefix() {
        let metrics = Metrics::new("drone-sim");
        let ticks = metrics.register("ticks", "Ticks done", Counter::<u64>::default());
        ticks.inc();
        assert!(
            metrics.render().contains("drone_sim_ticks_total 1"),
            "{}",
            metrics.render()
        );
    }
}
