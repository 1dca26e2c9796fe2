//! What a policy came to, for programs and for people.

use std::fmt::Write as _;

use dispatch_sim::{Reference, Report};
use serde::Serialize;

/// What a policy came to, minutes from placing on. The fields, in this order, are the JSON that `--json` prints.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Outcome {
    /// Name of the policy.
    pub policy: &'static str,
    /// Mean time until the delivery.
    pub mean_delivery_min: f64,
    /// 95 of 100 orders were delivered within this time.
    pub p95_delivery_min: f64,
    /// The longest time until a delivery.
    pub max_delivery_min: f64,
    /// Mean time until the pick-up.
    pub mean_pickup_min: f64,
    /// No policy can have a mean time until the delivery below this on these orders.
    pub lower_bound_min: f64,
    /// Whether the backlog did not grow ([`dispatch_sim::report::GROWTH_MAX`]). The means of a policy that is not stable depend on how long one
    /// looks, and say nothing.
    pub stable: bool,
}

impl Outcome {
    pub(crate) fn new(policy: &'static str, report: &Report, lower_bound_min: f64) -> Self {
        Self {
            policy,
            mean_delivery_min: report.to_deliver.mean,
            p95_delivery_min: report.to_deliver.p95,
            max_delivery_min: report.to_deliver.max,
            mean_pickup_min: report.to_pickup.mean,
            lower_bound_min,
            stable: report.is_stable,
        }
    }
}

/// The outcomes as a table for people, with the gap to the bound.
#[must_use]
pub fn table(reference: &Reference, outcomes: &[Outcome]) -> String {
    let Reference {
        square_km,
        speed_kmh,
        drones,
        utilisation,
        orders,
        seed,
    } = reference;
    let mut text = format!(
        "{drones} drones at {speed_kmh} km/h, {square_km} × {square_km} km, {orders} orders, utilisation {utilisation}, seed {seed}\n\
         Minutes from placing an order:\n\n\
         {:<10}{:>10}{:>10}{:>10}{:>10}{:>13}  backlog\n",
        "policy", "delivery", "p95", "longest", "pick-up", "above bound"
    );
    for outcome in outcomes {
        let gap_pct = (outcome.mean_delivery_min / outcome.lower_bound_min - 1.0) * 100.0;
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{:<10}{:>10.2}{:>10.2}{:>10.2}{:>10.2}{:>11.1} %  {}",
            outcome.policy,
            outcome.mean_delivery_min,
            outcome.p95_delivery_min,
            outcome.max_delivery_min,
            outcome.mean_pickup_min,
            gap_pct,
            if outcome.stable { "steady" } else { "grows" },
        );
    }
    if let Some(outcome) = outcomes.first() {
        let _ = writeln!(
            text,
            "{:<10}{:>10.2}  (no policy can do better)",
            "bound", outcome.lower_bound_min
        );
    }
    text
}
