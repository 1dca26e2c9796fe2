//! What is shown: figures out of one look and the one before, for programs (JSON) and for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;
use slo::histogram::Histogram;

use super::look::{Cluster, Drone, Order, Seen, Stats, Traffic};

/// Width of the fleet's bar, characters.
const BAR_WIDTH: usize = 40;
const STATUSES: [&str; 6] = ["pending", "assigned", "in_flight", "delivered", "failed", "cancelled"];
/// Letters of the bar, by status of the drones.
const FLEET: [(&str, char); 5] = [
    ("busy", '#'),
    ("charging", '+'),
    ("idle", '.'),
    ("retiring", '-'),
    ("inactive", ' '),
];

/// Everything that is shown. What could not be asked is `null`.
#[derive(Debug, Serialize)]
pub(super) struct Picture {
    /// The gateway's clock, Unix seconds.
    now: Option<f64>,
    pub(super) orders: Option<Orders>,
    fleet: Fleet,
    cluster: Option<Cluster>,
    traffic: Option<Rates>,
    newest: Vec<Shown>,
    /// Who did not answer.
    errors: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Orders {
    by_status: BTreeMap<String, u64>,
    /// Since the look before.
    placed_per_min: Option<f64>,
    delivered_per_min: Option<f64>,
    /// Of the newest 200 orders.
    assign_p50_ms: Option<f64>,
    assign_p95_ms: Option<f64>,
    deliver_p50_ms: Option<f64>,
    deliver_p95_ms: Option<f64>,
    /// Age of the oldest open one of the newest 200, seconds.
    oldest_open_sec: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Fleet {
    by_status: BTreeMap<String, u64>,
    battery_mean_pct: Option<f64>,
    battery_min_pct: Option<f64>,
    battery_min_drone: Option<String>,
}

/// Requests through lb.
#[derive(Debug, Serialize)]
struct Rates {
    requests_per_sec: Option<f64>,
    errors_per_sec: Option<f64>,
    in_flight: f64,
    backends: f64,
}

#[derive(Debug, Serialize)]
struct Shown {
    id: String,
    status: String,
    drone_id: Option<String>,
    age_sec: f64,
}

impl Picture {
    /// `before`: the look before, and how many seconds ago it was.
    pub(super) fn new(seen: &Seen, before: Option<(&Seen, f64)>, orders: usize) -> Self {
        let now = seen.stats.as_ref().map(|stats| stats.now);
        let shown = |order: &Order| Shown {
            id: order.order.id.clone(),
            status: order.order.status.clone(),
            drone_id: order.drone_id.clone(),
            age_sec: now.map_or(0.0, |now| (now - order.order.timestamp).max(0.0)),
        };
        Self {
            now,
            orders: seen
                .stats
                .as_ref()
                .map(|stats| Orders::new(stats, &seen.newest, before)),
            fleet: Fleet::new(&seen.drones),
            cluster: seen.cluster.clone(),
            traffic: seen.traffic.map(|traffic| Rates::new(traffic, before)),
            newest: seen.newest.iter().take(orders).map(shown).collect(),
            errors: seen.errors.clone(),
        }
    }

    /// Writing to a string cannot fail, so results are dropped here and below.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        if let Some(orders) = &self.orders {
            orders.write(&mut text);
        }
        self.fleet.write(&mut text);
        if let Some(cluster) = &self.cluster {
            write_cluster(cluster, &mut text);
        }
        if let Some(Rates {
            requests_per_sec,
            errors_per_sec,
            in_flight,
            backends,
        }) = &self.traffic
        {
            let (requests, errors) = (number(*requests_per_sec, 1), number(*errors_per_sec, 1));
            let _ = writeln!(
                text,
                "traffic  {requests} requests/s, {errors} errors/s, {in_flight} under way, {backends} gateways"
            );
        }
        if !self.newest.is_empty() {
            let _ = writeln!(
                text,
                "\n{:<38} {:<10} {:<10} {:>8}",
                "order", "status", "drone", "age s"
            );
        }
        for Shown {
            id,
            status,
            drone_id,
            age_sec,
        } in &self.newest
        {
            let _ = writeln!(
                text,
                "{id:<38} {status:<10} {:<10} {age_sec:>8.0}",
                drone_id.as_deref().unwrap_or("-")
            );
        }
        for error in &self.errors {
            let _ = writeln!(text, "! {error}");
        }
        text
    }
}

impl Orders {
    fn new(stats: &Stats, newest: &[Order], before: Option<(&Seen, f64)>) -> Self {
        let count = |stats: &Stats, name: &str| {
            stats
                .deliveries
                .get(name)
                .and_then(serde_json::Value::as_u64)
                .unwrap_or(0)
        };
        let per_min = |name: &str| {
            let (seen, sec) = before?;
            let grown = count(stats, name).saturating_sub(count(seen.stats.as_ref()?, name));
            rate(as_number(grown), sec).map(|per_sec| per_sec * 60.0)
        };
        let (mut assign, mut deliver) = (Histogram::default(), Histogram::default());
        let took = |histogram: &mut Histogram, from: f64, to: Option<f64>| {
            to.into_iter()
                .for_each(|to| histogram.add(tenths((to - from).max(0.0))));
        };
        for Order { order, .. } in newest {
            took(&mut assign, order.timestamp, order.assigned_at);
            took(&mut deliver, order.timestamp, order.delivered_at);
        }
        let open = newest.iter().filter(|order| order.order.is_open());
        Self {
            by_status: STATUSES
                .iter()
                .map(|name| ((*name).to_owned(), count(stats, name)))
                .collect(),
            placed_per_min: per_min("total"),
            delivered_per_min: per_min("delivered"),
            assign_p50_ms: assign.percentile_ms(50),
            assign_p95_ms: assign.percentile_ms(95),
            deliver_p50_ms: deliver.percentile_ms(50),
            deliver_p95_ms: deliver.percentile_ms(95),
            oldest_open_sec: open
                .map(|order| stats.now - order.order.timestamp)
                .max_by(f64::total_cmp),
        }
    }

    fn write(&self, text: &mut String) {
        let counts: Vec<_> = STATUSES
            .iter()
            .map(|name| format!("{} {name}", self.by_status.get(*name).unwrap_or(&0)))
            .collect();
        let _ = writeln!(text, "orders   {}", counts.join(", "));
        let oldest = self
            .oldest_open_sec
            .map_or_else(|| "none open".to_owned(), |sec| format!("oldest open {sec:.0} s"));
        let _ = writeln!(
            text,
            "         {} placed/min, {} delivered/min, {oldest}",
            number(self.placed_per_min, 1),
            number(self.delivered_per_min, 1)
        );
        let sec = |ms: Option<f64>| number(ms.map(|ms| ms / 1_000.0), 1);
        let _ = writeln!(
            text,
            "         assigned in {} s (p95 {}), delivered in {} s (p95 {})",
            sec(self.assign_p50_ms),
            sec(self.assign_p95_ms),
            sec(self.deliver_p50_ms),
            sec(self.deliver_p95_ms)
        );
    }
}

impl Fleet {
    fn new(drones: &[Drone]) -> Self {
        let mut by_status: BTreeMap<String, u64> = BTreeMap::new();
        drones
            .iter()
            .for_each(|drone| *by_status.entry(drone.status.clone()).or_default() += 1);
        let least = drones.iter().min_by(|a, b| a.battery.total_cmp(&b.battery));
        let sum: f64 = drones.iter().map(|drone| drone.battery).sum();
        Self {
            by_status,
            battery_mean_pct: (!drones.is_empty()).then(|| sum / as_number(drones.len() as u64)),
            battery_min_pct: least.map(|drone| drone.battery),
            battery_min_drone: least.map(|drone| drone.id.clone()),
        }
    }

    fn write(&self, text: &mut String) {
        let all: u64 = self.by_status.values().sum();
        if all == 0 {
            return;
        }
        let mut bar = String::new();
        for (status, letter) in FLEET {
            let share = self
                .by_status
                .get(status)
                .map_or(0, |count| (*count * BAR_WIDTH as u64).div_ceil(all));
            bar.extend((0..share).map(|_| letter));
        }
        let bar: String = bar.chars().take(BAR_WIDTH).collect();
        let counts: Vec<_> = self
            .by_status
            .iter()
            .map(|(status, count)| format!("{count} {status}"))
            .collect();
        let _ = writeln!(text, "fleet    [{bar:<BAR_WIDTH$}] {}", counts.join(", "));
        let least = self.battery_min_drone.as_deref().unwrap_or("-");
        let _ = writeln!(
            text,
            "         battery {} % on average, least {} % ({least})",
            number(self.battery_mean_pct, 0),
            number(self.battery_min_pct, 0)
        );
    }
}

impl Rates {
    fn new(traffic: Traffic, before: Option<(&Seen, f64)>) -> Self {
        let per_sec = |value: fn(&Traffic) -> f64| {
            let (seen, sec) = before?;
            // An lb that was started anew counts from 0.
            rate((value(&traffic) - value(seen.traffic.as_ref()?)).max(0.0), sec)
        };
        Self {
            requests_per_sec: per_sec(|traffic| traffic.requests),
            errors_per_sec: per_sec(|traffic| traffic.errors),
            in_flight: traffic.in_flight,
            backends: traffic.backends,
        }
    }
}

fn write_cluster(cluster: &Cluster, text: &mut String) {
    let _ = writeln!(
        text,
        "KV       {} of {} nodes up, {} hints waiting",
        cluster.up, cluster.backends, cluster.hints_waiting
    );
    for node in &cluster.nodes {
        let (up, standing) = (
            if node.up { "up" } else { "DOWN" },
            node.standing.as_deref().unwrap_or("-"),
        );
        let hints = node.hints_waiting.unwrap_or(0);
        let ahead = node
            .clock_ahead_ms
            .map_or_else(|| "-".to_owned(), |ms| format!("{ms:+} ms"));
        let _ = writeln!(
            text,
            "         {:<12} {up:<5} {standing:<9} keeps {hints} hints, clock {ahead}",
            node.name
        );
    }
}

fn rate(grown: f64, sec: f64) -> Option<f64> {
    (sec > 0.0).then(|| grown / sec)
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn as_number(count: u64) -> f64 {
    count as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "seconds of at least 0, and `as` saturates"
)]
fn tenths(sec: f64) -> u32 {
    (sec * 10_000.0).round() as u32
}
