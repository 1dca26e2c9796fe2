//! What the storage counts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use register::Standing;
use service::metrics::Metrics;

/// Bounds of the batch size histogram, in requests per transaction.
const BATCH_BOUNDS: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1_024.0, 4_096.0];

/// Counters of a store. Clones share them.
#[derive(Debug, Clone)]
pub struct StoreMetrics {
    /// Transactions committed.
    pub transactions: Counter,
    /// Transactions that failed.
    pub failures: Counter,
    /// Records written or dropped.
    pub changes: Counter,
    pub(crate) batch_requests: Histogram,
    pub(crate) commit_seconds: Histogram,
    pub(crate) checkpoint_seconds: Histogram,
    /// Reads answered from the cache.
    pub cache_hits: Counter,
    /// Reads that went to the database.
    pub cache_misses: Counter,
    pub(crate) cache_items: Gauge,
    pub(crate) cache_bytes: Gauge,
    /// Records held.
    pub records: Gauge,
    /// Records held for another node.
    pub hints: Gauge,
    pub(crate) voting: Gauge,
}

impl StoreMetrics {
    /// Registers the counters.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        let counter = |name, help| metrics.register(name, help, Counter::default());
        let gauge = |name, help| metrics.register(name, help, Gauge::default());
        Self {
            transactions: counter("commits", "Transactions committed, each covered by one fsync"),
            failures: counter("commit_failures", "Transactions that failed (disk full, I/O error)"),
            changes: counter("changes", "Records written or dropped"),
            batch_requests: metrics.register(
                "commit_batch_requests",
                "Requests per batch",
                Histogram::new(BATCH_BOUNDS),
            ),
            commit_seconds: metrics.latency("commit_seconds", "Seconds of the COMMIT, fsync included"),
            checkpoint_seconds: metrics.latency(
                "checkpoint_seconds",
                "Seconds of a checkpoint, which commits do not wait for",
            ),
            cache_hits: counter("cache_hits", "Reads answered from the cache"),
            cache_misses: counter("cache_misses", "Reads that went to the database"),
            cache_items: gauge("cache_items", "Records in the cache"),
            cache_bytes: gauge("cache_bytes", "Bytes in the cache"),
            records: gauge("records", "Records held, tombstones and promises included"),
            hints: gauge("hints", "Records held for another node"),
            voting: gauge("voting", "1 while the node counts for all its keys, else 0"),
        }
    }

    pub(crate) fn show_cache(&self, (items, bytes): (usize, usize)) {
        self.cache_items.set(saturating(items as u64));
        self.cache_bytes.set(saturating(bytes as u64));
    }

    pub(crate) fn show_standing(&self, standing: Standing) {
        self.voting.set((standing == Standing::Voting).into());
    }

    pub(crate) fn show_records(&self, records: u64, hints: u64) {
        self.records.set(saturating(records));
        self.hints.set(saturating(hints));
    }
}

fn saturating(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
