//! What kvfront counts. Names are prefixed with `kvfront_` in `/metrics`.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use service::metrics::{Metrics, latency_histogram};

/// Bounds of the envelope size histogram, in messages.
const ENVELOPE_BOUNDS: [f64; 13] = [
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0,
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OpLabels {
    op: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    op: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NodeErrorLabels {
    node: String,
    call: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CollectedLabels {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WatchEventLabels {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WatchGapLabels {
    cause: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NodeLabels {
    node: String,
}

/// The counters, gauges and histograms of one kvfront.
#[derive(Debug)]
pub struct FrontMetrics {
    ops: Family<OpLabels, Counter>,
    op_seconds: Family<KindLabels, Histogram>,
    ops_running: Gauge,
    ops_refuted: Counter,
    cas_conflicts: Counter,
    read_repairs: Counter,
    envelope_requests: Histogram,
    node_errors: Family<NodeErrorLabels, Counter>,
    node_suspected: Family<NodeLabels, Gauge>,
    node_voting: Family<NodeLabels, Gauge>,
    clock_refusals: Family<NodeLabels, Counter>,
    hints_waiting: Family<NodeLabels, Gauge>,
    hints_handed_over: Counter,
    scan_doubts: Counter,
    keys_filled: Counter,
    collected: Family<CollectedLabels, Counter>,
    collection_waits: Gauge,
    partitions_differing: Gauge,
    keys_repaired: Counter,
    strays: Gauge,
    watchers: Gauge,
    watchers_refused: Counter,
    watchers_dropped: Counter,
    watch_events: Family<WatchEventLabels, Counter>,
    watch_gaps: Family<WatchGapLabels, Counter>,
    watch_waits: Counter,
}

/// Counters since this kvfront started: whoever wants rates takes differences.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub(crate) struct Totals {
    cas_conflicts: u64,
    read_repairs: u64,
    keys_repaired: u64,
    keys_filled: u64,
    hints_handed_over: u64,
}

impl FrontMetrics {
    /// Registers them all.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            ops: metrics.register("ops", "Register operations by kind and outcome", Family::default()),
            op_seconds: metrics.register(
                "op_seconds",
                "Seconds a register operation took",
                Family::new_with_constructor(latency_histogram as fn() -> Histogram),
            ),
            ops_running: metrics.register("ops_running", "Register operations under way", Gauge::default()),
            ops_refuted: metrics.register(
                "ops_refuted",
                "Changes refused by what a change of the same key before them ended on",
                Counter::default(),
            ),
            cas_conflicts: metrics.register(
                "cas_conflicts",
                "CAS refused because something else was there",
                Counter::default(),
            ),
            read_repairs: metrics.register(
                "read_repairs",
                "Copies that reads found behind and sent the newest to",
                Counter::default(),
            ),
            envelope_requests: metrics.register(
                "envelope_requests",
                "Messages in one envelope to a node",
                Histogram::new(ENVELOPE_BOUNDS),
            ),
            node_errors: metrics.register("node_errors", "Failed calls to a node", Family::default()),
            node_suspected: metrics.register(
                "node_suspected",
                "1 while a node is suspected to be away",
                Family::default(),
            ),
            node_voting: metrics.register(
                "node_voting",
                "1 while a node votes: not before it was admitted, nor while it is being filled",
                Family::default(),
            ),
            clock_refusals: metrics.register(
                "clock_refusals",
                "Messages refused, by the node or by us, because the clocks were further apart than MAX_CLOCK_SKEW_MS",
                Family::default(),
            ),
            hints_waiting: metrics.register("hints_waiting", "Hints a node held when last listed", Family::default()),
            hints_handed_over: metrics.register(
                "hints_handed_over",
                "Hints handed over to their homes",
                Counter::default(),
            ),
            scan_doubts: metrics.register(
                "scan_doubts",
                "Keys of scans that needed a read of their own",
                Counter::default(),
            ),
            keys_filled: metrics.register(
                "keys_filled",
                "Visits to keys of a node whose disk was lost that went well",
                Counter::default(),
            ),
            collected: metrics.register(
                "collected",
                "Records that have ended: values past their end, tombstones and mere promises dropped",
                Family::default(),
            ),
            collection_waits: metrics.register(
                "collection_waits",
                "Tombstones that could not be collected in the last pass because a node of their list is away",
                Gauge::default(),
            ),
            partitions_differing: metrics.register(
                "partitions_differing",
                "Partitions whose replicas differed in the last comparison",
                Gauge::default(),
            ),
            keys_repaired: metrics.register(
                "keys_repaired",
                "Keys repaired because their replicas differed",
                Counter::default(),
            ),
            strays: metrics.register(
                "strays",
                "Records found in the last comparison on nodes that are not in their key's list",
                Gauge::default(),
            ),
            watchers: metrics.register("watchers", "Streams of GET /watch that are open", Gauge::default()),
            watchers_refused: metrics.register(
                "watchers_refused",
                "Calls of GET /watch refused because too many were open",
                Counter::default(),
            ),
            watchers_dropped: metrics.register(
                "watchers_dropped",
                "Streams that ended while they waited for a slow reader: cut off, or gone by itself",
                Counter::default(),
            ),
            watch_events: metrics.register("watch_events", "Events given to watchers", Family::default()),
            watch_gaps: metrics.register(
                "watch_gaps",
                "Gaps told to watchers: the nodes no longer had the changes, or too many were undecided",
                Family::default(),
            ),
            watch_waits: metrics.register(
                "watch_waits",
                "Times a stream waited because its reader was slow",
                Counter::default(),
            ),
        }
    }

    /// What `/cluster` shows of the counters.
    pub(crate) fn totals(&self) -> Totals {
        Totals {
            cas_conflicts: self.cas_conflicts.get(),
            read_repairs: self.read_repairs.get(),
            keys_repaired: self.keys_repaired.get(),
            keys_filled: self.keys_filled.get(),
            hints_handed_over: self.hints_handed_over.get(),
        }
    }

    pub(crate) fn cas_conflict(&self) {
        self.cas_conflicts.inc();
    }

    pub(crate) fn read_repair(&self) {
        self.read_repairs.inc();
    }

    pub(crate) fn op_started(&self) {
        self.ops_running.inc();
    }

    /// A change that was refused by what another one learnt.
    pub(crate) fn op_refuted(&self, op: &'static str, took: Duration) {
        self.op_started();
        self.op_done(op, "answered", took);
        self.ops_refuted.inc();
    }

    pub(crate) fn op_done(&self, op: &'static str, outcome: &'static str, took: Duration) {
        self.ops_running.dec();
        self.ops.get_or_create(&OpLabels { op, outcome }).inc();
        self.op_seconds
            .get_or_create(&KindLabels { op })
            .observe(took.as_secs_f64());
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "an envelope holds thousands of messages at most"
    )]
    pub(crate) fn envelope(&self, requests: usize) {
        self.envelope_requests.observe(requests as f64);
    }

    pub(crate) fn node_error(&self, node: &str, call: &'static str) {
        self.node_errors
            .get_or_create(&NodeErrorLabels {
                node: node.to_owned(),
                call,
            })
            .inc();
    }

    pub(crate) fn suspected(&self, node: &str, suspected: bool) {
        self.node_suspected
            .get_or_create(&NodeLabels { node: node.to_owned() })
            .set(i64::from(suspected));
    }

    pub(crate) fn voting(&self, node: &str, voting: bool) {
        self.node_voting
            .get_or_create(&NodeLabels { node: node.to_owned() })
            .set(i64::from(voting));
    }

    pub(crate) fn clock_refusal(&self, node: &str) {
        self.clock_refusals
            .get_or_create(&NodeLabels { node: node.to_owned() })
            .inc();
    }

    pub(crate) fn hints_waiting(&self, node: &str, waiting: usize) {
        let waiting = i64::try_from(waiting).unwrap_or(i64::MAX);
        self.hints_waiting
            .get_or_create(&NodeLabels { node: node.to_owned() })
            .set(waiting);
    }

    pub(crate) fn hint_handed_over(&self) {
        self.hints_handed_over.inc();
    }

    pub(crate) fn key_filled(&self) {
        self.keys_filled.inc();
    }

    pub(crate) fn collected(&self, kind: &'static str) {
        self.collected.get_or_create(&CollectedLabels { kind }).inc();
    }

    pub(crate) fn collection_waits(&self, records: usize) {
        self.collection_waits.set(i64::try_from(records).unwrap_or(i64::MAX));
    }

    pub(crate) fn compared(&self, partitions_differing: usize, strays: usize) {
        self.partitions_differing
            .set(i64::try_from(partitions_differing).unwrap_or(i64::MAX));
        self.strays.set(i64::try_from(strays).unwrap_or(i64::MAX));
    }

    pub(crate) fn key_repaired(&self) {
        self.keys_repaired.inc();
    }

    pub(crate) fn watch_opened(&self) {
        self.watchers.inc();
    }

    pub(crate) fn watch_closed(&self) {
        self.watchers.dec();
    }

    pub(crate) fn watch_refused(&self) {
        self.watchers_refused.inc();
    }

    pub(crate) fn watcher_dropped(&self) {
        self.watchers_dropped.inc();
    }

    pub(crate) fn watch_event(&self, kind: &'static str) {
        self.watch_events.get_or_create(&WatchEventLabels { kind }).inc();
    }

    pub(crate) fn watch_gap(&self, cause: &'static str) {
        self.watch_gaps.get_or_create(&WatchGapLabels { cause }).inc();
    }

    pub(crate) fn watch_waits(&self) {
        self.watch_waits.inc();
    }

    pub(crate) fn scan_doubt(&self) {
        self.scan_doubts.inc();
    }
}
