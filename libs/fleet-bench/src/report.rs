//! What was measured, as a table and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::args::Args;

/// Everything about one window.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) args: Args,
    pub(crate) time_scale: f64,
    /// Length of the window, seconds.
    pub(crate) seconds: f64,
    pub(crate) ticks: Ticks,
    pub(crate) drones: Drones,
    pub(crate) orders: Orders,
    /// Calls of the KV per tick of the whole fleet, by method and route.
    pub(crate) kv_calls_per_tick: BTreeMap<String, f64>,
    /// Drone records written per tick of the whole fleet.
    pub(crate) writes_per_tick: f64,
    /// Cores that each program kept busy, by name; several of one name together.
    pub(crate) cores: BTreeMap<String, f64>,
    /// Cores of RabbitMQ, and of this program.
    pub(crate) cores_of_others: BTreeMap<String, f64>,
    /// Rounds of the dispatchers.
    pub(crate) rounds: Rounds,
}

/// The ticks of all drone-sims.
#[derive(Debug, Serialize)]
pub(crate) struct Ticks {
    pub(crate) done: f64,
    /// Fell out because the one before took too long: each counts as late by more than a tick.
    pub(crate) skipped: f64,
    pub(crate) failed: f64,
    /// Seconds by which they began late; null beyond a tick's skipping.
    pub(crate) late_p50_sec: f64,
    pub(crate) late_p99_sec: f64,
    /// Seconds they took.
    pub(crate) took_p50_sec: f64,
    pub(crate) took_p99_sec: f64,
}

/// Drones by what they did, in the mean.
#[derive(Debug, Serialize)]
pub(crate) struct Drones {
    /// With an order, in the air.
    pub(crate) busy: f64,
    /// On the way to a charge point, in the air.
    pub(crate) to_charger: f64,
    pub(crate) charging: f64,
    pub(crate) idle: f64,
}

/// Orders in the window.
#[derive(Debug, Serialize)]
pub(crate) struct Orders {
    pub(crate) accepted: f64,
    /// Not accepted, for whatever reason.
    pub(crate) refused: f64,
    pub(crate) assigned: f64,
    pub(crate) delivered: f64,
    /// Waiting for a drone in the end.
    pub(crate) pending: f64,
    pub(crate) to_assign_p50_sec: f64,
    pub(crate) to_assign_p99_sec: f64,
}

/// Rounds of the dispatchers.
#[derive(Debug, Serialize)]
pub(crate) struct Rounds {
    pub(crate) per_sec: f64,
    pub(crate) p50_sec: f64,
    pub(crate) p99_sec: f64,
    /// In which greedy decided, because there was too much to decide.
    pub(crate) fallbacks: f64,
}

impl Report {
    /// The table.
    pub(crate) fn table(&self) -> String {
        let (args, ticks, drones, orders) = (&self.args, &self.ticks, &self.drones, &self.orders);
        let mut text = String::new();
        let mut line = |what: &str, figures: String| {
            // Into a String, which cannot fail.
            let _ = writeln!(text, "{what:<12} {figures}");
        };
        line(
            "fleet",
            format!(
                "{} drones, {} drone-sims, {} orders/s, ticks of {} ms, flight {:.1} times as fast as the clock, {:.0} s measured  {}",
                args.drones,
                args.shards,
                args.rate,
                args.tick_sec * 1e3,
                self.time_scale,
                self.seconds,
                args.label
            ),
        );
        line(
            "ticks",
            format!(
                "{:.0} done, {:.0} skipped, {:.0} failed",
                ticks.done, ticks.skipped, ticks.failed
            ),
        );
        line(
            "  late",
            format!("p50 {}, p99 {}", ms(ticks.late_p50_sec), ms(ticks.late_p99_sec)),
        );
        line(
            "  took",
            format!("p50 {}, p99 {}", ms(ticks.took_p50_sec), ms(ticks.took_p99_sec)),
        );
        line(
            "drones",
            format!(
                "in the air {:.0} ({:.0} with an order, {:.0} to a charge point), charging {:.0}, idle {:.0}",
                drones.busy + drones.to_charger,
                drones.busy,
                drones.to_charger,
                drones.charging,
                drones.idle
            ),
        );
        line(
            "orders",
            format!(
                "{:.0} accepted, {:.0} refused, {:.0} assigned, {:.0} delivered, {:.0} waiting in the end",
                orders.accepted, orders.refused, orders.assigned, orders.delivered, orders.pending
            ),
        );
        line(
            "  to assign",
            format!(
                "p50 {}, p99 {}",
                ms(orders.to_assign_p50_sec),
                ms(orders.to_assign_p99_sec)
            ),
        );
        line(
            "rounds",
            format!(
                "{:.1} a second, p50 {}, p99 {}, {:.0} by greedy",
                self.rounds.per_sec,
                ms(self.rounds.p50_sec),
                ms(self.rounds.p99_sec),
                self.rounds.fallbacks
            ),
        );
        let calls: f64 = self.kv_calls_per_tick.values().sum();
        line(
            "KV calls",
            format!("{calls:.1} per tick: {}", listed(&self.kv_calls_per_tick, 1)),
        );
        line("written", format!("{:.0} drone records per tick", self.writes_per_tick));
        let cores: f64 = self.cores.values().sum();
        line("cores", format!("{cores:.2}: {}", listed(&self.cores, 2)));
        line("  beside", listed(&self.cores_of_others, 2));
        let verdict = if ticks.late_p99_sec < args.tick_sec {
            "held"
        } else {
            "NOT held"
        };
        line(
            "verdict",
            format!("ticks {verdict} (p99 lateness under one tick), servers use {cores:.2} cores"),
        );
        text
    }
}

/// The largest first.
fn listed(figures: &BTreeMap<String, f64>, digits: usize) -> String {
    let mut figures: Vec<_> = figures.iter().collect();
    figures.sort_by(|a, b| b.1.total_cmp(a.1));
    let figures: Vec<_> = figures
        .iter()
        .map(|(what, figure)| format!("{what} {figure:.digits$}"))
        .collect();
    figures.join(", ")
}

fn ms(seconds: f64) -> String {
    if seconds.is_nan() {
        "none".to_owned()
    } else if seconds.is_infinite() {
        "beyond all bounds".to_owned()
    } else {
        format!("{:.0} ms", seconds * 1e3)
    }
}
