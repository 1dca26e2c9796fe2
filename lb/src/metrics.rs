//! What the load balancer counts. Counters used on every request are looked up once, at start.

use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use service::metrics::Metrics;

use crate::rate_limit::Scope;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClassLabels {
    class: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BackendLabels {
    backend: String,
}

impl BackendLabels {
    fn of(backend: SocketAddr) -> Self {
        Self {
            backend: backend.to_string(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ScopeLabels {
    scope: &'static str,
}

const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "other"];

/// Seconds that add up.
type Seconds = Counter<f64, AtomicU64>;

/// The counters of one gateway address.
#[derive(Debug)]
pub(crate) struct BackendCounters {
    /// Requests given to it.
    pub(crate) picks: Counter,
    answers: Counter,
    answer_seconds: Seconds,
}

impl BackendCounters {
    /// The head of its answer has come, so long after the request was sent.
    pub(crate) fn answered(&self, took: Duration) {
        self.answers.inc();
        self.answer_seconds.inc_by(took.as_secs_f64());
    }
}

#[derive(Debug)]
pub(crate) struct LbMetrics {
    classes: [Counter; CLASSES.len()],
    picks: Family<BackendLabels, Counter>,
    answers: Family<BackendLabels, Counter>,
    answer_seconds: Family<BackendLabels, Seconds>,
    limited: Family<ScopeLabels, Counter>,
    /// Requests sent a second time after they had reached a gateway that then broke off.
    pub(crate) retries: Counter,
    /// Requests not sent a second time because the retry budget was used up.
    pub(crate) retries_refused: Counter,
    pub(crate) ejections: Counter,
    /// Requests whose answer has not ended.
    pub(crate) in_flight: Gauge,
    pub(crate) backends: Gauge,
    pub(crate) connects: Counter,
    /// Seconds from sending a request to the head of its answer.
    pub(crate) upstream_seconds: Histogram,
    pub(crate) access_dropped: Counter,
    /// Connections above those that one client may have.
    pub(crate) connections_refused: Counter,
}

impl LbMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let requests = metrics.register(
            "requests",
            "Requests answered, by class of status",
            Family::<ClassLabels, Counter>::default(),
        );
        Self {
            classes: CLASSES.map(|class| requests.get_or_create(&ClassLabels { class }).clone()),
            picks: metrics.register(
                "backend_picks",
                "Requests given to each gateway address",
                Family::default(),
            ),
            answers: metrics.register(
                "backend_answers",
                "Answers of each gateway address whose heads came",
                Family::default(),
            ),
            answer_seconds: metrics.register(
                "backend_answer_seconds",
                "Seconds until those heads, added up",
                Family::default(),
            ),
            limited: metrics.register("rate_limited", "Requests refused by a rate limit", Family::default()),
            retries: metrics.register(
                "retries",
                "Requests sent again after a gateway broke off",
                Counter::default(),
            ),
            retries_refused: metrics.register(
                "retries_refused",
                "Requests not sent again because too many others had been",
                Counter::default(),
            ),
            ejections: metrics.register(
                "ejections",
                "Times a gateway was skipped: it took no connection, answered nothing, or nothing but errors",
                Counter::default(),
            ),
            in_flight: metrics.register("in_flight", "Requests whose answer has not ended", Gauge::default()),
            backends: metrics.register("backends", "Gateway addresses known", Gauge::default()),
            connects: metrics.register(
                "upstream_connects",
                "Connections opened to gateways",
                Counter::default(),
            ),
            upstream_seconds: metrics.latency("upstream_seconds", "Seconds until the head of a gateway's answer"),
            connections_refused: metrics.register(
                "connections_refused",
                "Connections refused because their client had as many as it may",
                Counter::default(),
            ),
            access_dropped: metrics.register(
                "access_log_dropped",
                "Access log lines dropped because their reader was too slow",
                Counter::default(),
            ),
        }
    }

    pub(crate) fn answered(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100);
        self.classes[if (1..=5).contains(&class) { class - 1 } else { 5 }].inc();
    }

    pub(crate) fn limited(&self, scope: Scope) {
        let scope = match scope {
            Scope::Global => "global",
            Scope::Client => "client",
        };
        self.limited.get_or_create(&ScopeLabels { scope }).inc();
    }

    /// The counters of one gateway address.
    pub(crate) fn backend(&self, backend: SocketAddr) -> BackendCounters {
        let labels = BackendLabels::of(backend);
        BackendCounters {
            picks: self.picks.get_or_create(&labels).clone(),
            answers: self.answers.get_or_create(&labels).clone(),
            answer_seconds: self.answer_seconds.get_or_create(&labels).clone(),
        }
    }

    /// Forgets an address that is gone, so that addresses that come and go do not add up.
    pub(crate) fn forget(&self, backend: SocketAddr) {
        let labels = BackendLabels::of(backend);
        self.picks.remove(&labels);
        self.answers.remove(&labels);
        self.answer_seconds.remove(&labels);
    }
}
