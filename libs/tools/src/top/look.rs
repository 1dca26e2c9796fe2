//! One look at the system: what its services say at one moment. Who does not answer is named, and the rest shown.

use std::collections::BTreeMap;

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::Value;

use crate::gateway::Gateway;

/// Orders that are read: the newest.
pub(super) const ORDERS_READ: usize = 200;

/// Asks everybody.
#[derive(Debug)]
pub(super) struct Looker {
    lb: Gateway,
    kvfront: Gateway,
}

/// What they said.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    pub(super) stats: Option<Stats>,
    pub(super) drones: Vec<Drone>,
    pub(super) newest: Vec<Order>,
    pub(super) cluster: Option<Cluster>,
    pub(super) traffic: Option<Traffic>,
    /// Who did not answer, and why.
    pub(super) errors: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Stats {
    pub(super) now: f64,
    pub(super) deliveries: BTreeMap<String, Value>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Drone {
    pub(super) id: String,
    pub(super) status: String,
    pub(super) battery: f64,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Order {
    pub(super) drone_id: Option<String>,
    #[serde(flatten)]
    pub(super) order: slo::Order,
}

#[derive(Debug, Clone, Deserialize, serde::Serialize)]
pub(super) struct Cluster {
    pub(super) up: u64,
    pub(super) backends: u64,
    pub(super) hints_waiting: u64,
    pub(super) nodes: Vec<Node>,
}

#[derive(Debug, Clone, Deserialize, serde::Serialize)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) up: bool,
    pub(super) standing: Option<String>,
    pub(super) hints_waiting: Option<u64>,
    pub(super) clock_ahead_ms: Option<i64>,
}

/// lb's counters.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Traffic {
    pub(super) requests: f64,
    pub(super) errors: f64,
    pub(super) in_flight: f64,
    pub(super) backends: f64,
}

#[derive(Deserialize)]
struct Items<T> {
    items: Vec<T>,
}

impl Looker {
    pub(super) fn new(lb: &str, kvfront: &str) -> anyhow::Result<Self> {
        let kvfront = kvfront.split(',').next().unwrap_or_default().trim();
        Ok(Self {
            lb: Gateway::new(lb)?,
            kvfront: Gateway::new(kvfront)?,
        })
    }

    /// What everybody says now.
    pub(super) async fn look(&self) -> Seen {
        let newest = format!("/deliveries?limit={ORDERS_READ}");
        let (stats, drones, orders, cluster, traffic) = tokio::join!(
            self.lb.get::<Stats>("/stats"),
            self.lb.get::<Items<Drone>>("/drones"),
            self.lb.get::<Items<Order>>(&newest),
            self.kvfront.get::<Cluster>("/cluster"),
            self.traffic(),
        );
        let mut errors = Vec::new();
        let mut note = |error: anyhow::Error| errors.push(format!("{error:#}"));
        let mut seen = Seen {
            stats: stats.map_err(&mut note).ok(),
            drones: drones.map_err(&mut note).map(|list| list.items).unwrap_or_default(),
            newest: orders.map_err(&mut note).map(|list| list.items).unwrap_or_default(),
            cluster: cluster.map_err(&mut note).ok(),
            traffic: traffic.map_err(&mut note).ok(),
            errors: Vec::new(),
        };
        // One that is away has the same to say to every question.
        errors.dedup();
        seen.errors = errors;
        seen
    }

    async fn traffic(&self) -> anyhow::Result<Traffic> {
        let text = self.lb.text("/metrics").await?;
        Traffic::of(&text).context("/metrics at --url has no lb_requests_total: it is no lb")
    }
}

impl Traffic {
    /// Reads what lb counts out of its metrics; `None` when they are not lb's.
    pub(super) fn of(metrics: &str) -> Option<Self> {
        let sum = |start: &str| {
            let mut values = metrics
                .lines()
                .filter_map(|line| line.strip_prefix(start)?.split_whitespace().last()?.parse::<f64>().ok())
                .peekable();
            values.peek().is_some().then(|| values.sum::<f64>())
        };
        Some(Self {
            requests: sum("lb_requests_total{")?,
            errors: sum("lb_requests_total{class=\"5xx\"")?,
            in_flight: sum("lb_in_flight ")?,
            backends: sum("lb_backends ")?,
        })
    }
}
