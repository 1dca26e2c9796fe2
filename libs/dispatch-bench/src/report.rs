//! What policies came to, for programs and for people.

use std::fmt::Write as _;

use dispatch_sim::world::Trip;
use dispatch_sim::{Report, Times};
use serde::Serialize;

use crate::args::{Args, Battery, Classes, Orders};
use crate::scenario::Scenario;

/// Points of the curve of delivery times that are kept, for drawing.
const QUANTILES: usize = 400;

/// One policy with one seed.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Name of the policy.
    pub policy: &'static str,
    /// The seed.
    pub seed: u64,
    /// How many orders.
    pub orders: usize,
    /// What it came to.
    pub report: Report,
    /// No policy can have a mean time until the delivery below this on these orders.
    pub lower_bound_min: f64,
    /// Times until the delivery, ascending: 400 equally likely ones.
    pub quantiles_min: Vec<f64>,
}

impl Run {
    pub(crate) fn new(policy: &'static str, seed: u64, report: Report, trips: &[Trip], lower_bound_min: f64) -> Self {
        let mut delays: Vec<f64> = trips.iter().map(|trip| trip.delivered_min - trip.placed_min).collect();
        delays.sort_unstable_by(f64::total_cmp);
        let rank = |part: usize| (delays.len() * part).div_ceil(QUANTILES).saturating_sub(1);
        let quantiles_min = (1..=QUANTILES)
            .filter_map(|part| delays.get(rank(part)).copied())
            .collect();
        Self {
            policy,
            seed,
            orders: trips.len(),
            report,
            lower_bound_min,
            quantiles_min,
        }
    }
}

/// What a policy came to, minutes from placing on: means over the seeds, of the longest the longest. The fields, in this order, are the JSON that
/// `--json` prints.
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
    /// Whether the backlog did not grow ([`dispatch_sim::report::GROWTH_MAX`]), with any seed. The means of a policy that is not stable depend on
    /// how long one looks, and say nothing.
    pub stable: bool,
}

/// Mean, percentiles and longest of something; over several seeds the means of theirs, and the longest of all.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// Half took no longer.
    pub p50: f64,
    /// 95 of 100 took no longer.
    pub p95: f64,
    /// The longest.
    pub max: f64,
}

impl From<Times> for Spread {
    fn from(times: Times) -> Self {
        let Times { mean, p50, p95, max } = times;
        Self { mean, p50, p95, max }
    }
}

/// All that a policy came to, over all seeds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// What `--json` prints.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// How far the mean is above the bound, percent.
    pub gap_pct: f64,
    /// Half the difference between the best and the worst seed's mean time until the delivery.
    pub spread_min: f64,
    /// Minutes until a drone was first sent.
    pub to_assign_min: Spread,
    /// Minutes until the pick-up.
    pub to_pickup_min: Spread,
    /// Minutes until the delivery.
    pub to_deliver_min: Spread,
    /// Minutes that drones waited for a slot of a charger, per stay.
    pub charging_wait_min: Spread,
    /// Stays at chargers, mean of the seeds.
    pub charging_stays: f64,
    /// Stays that began with waiting, mean of the seeds.
    pub charging_queued: f64,
    /// The least that any battery ever had.
    pub least_battery_pct: f64,
    /// Flown without a parcel: to pick-ups, to chargers, to places to wait at; per order.
    pub empty_km_per_order: f64,
    /// Of it, to places to wait at.
    pub moves_km_per_order: f64,
    /// Of it, to chargers.
    pub charging_km_per_order: f64,
    /// Flown with a parcel, per order.
    pub loaded_km_per_order: f64,
    /// How often an order went to another drone before the pick-up, per order.
    pub swaps_per_order: f64,
    /// With each seed.
    #[serde(skip)]
    pub runs: Vec<Run>,
}

/// Sums up the runs of each policy, in the order in which they come.
#[must_use]
pub fn summaries(runs: &[Run]) -> Vec<Summary> {
    runs.chunk_by(|a, b| a.policy == b.policy).map(Summary::new).collect()
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
impl Summary {
    /// `runs` are of one policy, and at least one.
    fn new(runs: &[Run]) -> Self {
        let mean = |of: &dyn Fn(&Run) -> f64| runs.iter().map(of).sum::<f64>() / runs.len() as f64;
        let most = |of: &dyn Fn(&Run) -> f64| runs.iter().map(of).fold(f64::NEG_INFINITY, f64::max);
        let spread = |of: &dyn Fn(&Run) -> Times| Spread {
            mean: mean(&|run| of(run).mean),
            p50: mean(&|run| of(run).p50),
            p95: mean(&|run| of(run).p95),
            max: most(&|run| of(run).max),
        };
        let per_order = |of: &dyn Fn(&Run) -> f64| mean(&|run| of(run) / run.orders.max(1) as f64);
        let to_deliver_min = spread(&|run| run.report.to_deliver);
        let to_pickup_min = spread(&|run| run.report.to_pickup);
        let lower_bound_min = mean(&|run| run.lower_bound_min);
        let best = -most(&|run| -run.report.to_deliver.mean);
        Self {
            outcome: Outcome {
                policy: runs[0].policy,
                mean_delivery_min: to_deliver_min.mean,
                p95_delivery_min: to_deliver_min.p95,
                max_delivery_min: to_deliver_min.max,
                mean_pickup_min: to_pickup_min.mean,
                lower_bound_min,
                stable: runs.iter().all(|run| run.report.is_stable),
            },
            gap_pct: gap_pct(to_deliver_min.mean, lower_bound_min),
            spread_min: (most(&|run| run.report.to_deliver.mean) - best) / 2.0,
            to_assign_min: spread(&|run| run.report.to_assign),
            to_pickup_min,
            to_deliver_min,
            charging_wait_min: spread(&|run| run.report.charging.waits),
            charging_stays: mean(&|run| run.report.charging.stays as f64),
            charging_queued: mean(&|run| run.report.charging.queued as f64),
            least_battery_pct: -most(&|run| -run.report.charging.least_battery_pct),
            empty_km_per_order: per_order(&|run| run.report.flown.empty_km()),
            moves_km_per_order: per_order(&|run| run.report.flown.to_places_km),
            charging_km_per_order: per_order(&|run| run.report.flown.to_chargers_km),
            loaded_km_per_order: per_order(&|run| run.report.flown.loaded_km),
            swaps_per_order: per_order(&|run| run.report.flown.reassigned as f64),
            runs: runs.to_vec(),
        }
    }
}

/// How far `mean` is above `bound`, percent; 0 if the bound says nothing.
pub(crate) fn gap_pct(mean: f64, bound: f64) -> f64 {
    if bound > 0.0 { (mean / bound - 1.0) * 100.0 } else { 0.0 }
}

/// One line about the world.
pub(crate) fn about(args: &Args, scenario: &Scenario) -> String {
    let reference = args.reference(args.seed);
    let mut text = format!("{} drones at {} km/h, ", scenario.starts.len(), reference.speed_kmh);
    // Writing to a string cannot fail; likewise below.
    let _ = match &args.orders {
        Orders::Random(..) => write!(text, "{0} × {0} km", args.square_km),
        Orders::File(path) => write!(text, "{}", path.display()),
    };
    let _ = write!(
        text,
        ", {} orders, utilisation {:.4}",
        scenario.orders.len(),
        scenario.utilisation
    );
    // As it was given: no zeros behind it.
    while text.ends_with('0') {
        text.pop();
    }
    if text.ends_with('.') {
        text.push('0');
    }
    if args.classes == Classes::Three {
        text.push_str(", three classes");
    }
    if args.battery == Battery::On {
        let _ = write!(text, ", batteries, chargers of {} slots", args.charger_slots);
    }
    let zones = scenario.no_fly_zones();
    if zones > 0 {
        let _ = write!(text, ", {zones} no-fly zone{}", if zones == 1 { "" } else { "s" });
    }
    let last = args.seed.wrapping_add(args.seeds - 1);
    let _ = if args.seeds == 1 {
        write!(text, ", seed {}", args.seed)
    } else {
        write!(text, ", seeds {} to {last}", args.seed)
    };
    text
}

/// The summaries as a table for people, with the gap to the bound.
#[must_use]
pub fn table(about: &str, summaries: &[Summary]) -> String {
    let mut text = format!(
        "{about}\nMinutes from placing an order:\n\n{:<10}{:<10}{:>10}{:>10}{:>10}{:>10}\n",
        "policy", "until", "mean", "p50", "p95", "longest"
    );
    let row = |text: &mut String, first: &str, second: &str, times: Spread| {
        let Spread { mean, p50, p95, max } = times;
        let _ = writeln!(
            text,
            "{first:<10}{second:<10}{mean:>10.2}{p50:>10.2}{p95:>10.2}{max:>10.2}"
        );
    };
    for summary in summaries {
        row(&mut text, summary.outcome.policy, "assigned", summary.to_assign_min);
        row(&mut text, "", "pick-up", summary.to_pickup_min);
        row(&mut text, "", "delivery", summary.to_deliver_min);
    }
    if let Some(summary) = summaries.first() {
        let bound = summary.outcome.lower_bound_min;
        let _ = writeln!(
            text,
            "{:<10}{:<10}{bound:>10.2}  (no policy can do better)",
            "bound", "delivery"
        );
    }
    let _ = writeln!(
        text,
        "\n{:<10}{:>13}{:>10}{:>14}{:>14}{:>11}  backlog",
        "policy", "above bound", "± min", "empty km", "loaded km", "swaps"
    );
    let _ = writeln!(
        text,
        "{:<33}{:>14}{:>14}{:>9}",
        "", "per order", "per order", "per order"
    );
    for summary in summaries {
        let _ = writeln!(
            text,
            "{:<10}{:>11.1} %{:>10.2}{:>14.2}{:>14.2}{:>11.2}  {}",
            summary.outcome.policy,
            summary.gap_pct,
            summary.spread_min,
            summary.empty_km_per_order,
            summary.loaded_km_per_order,
            summary.swaps_per_order,
            if summary.outcome.stable { "steady" } else { "grows" },
        );
    }
    if summaries.iter().any(|summary| summary.charging_stays > 0.0) {
        let _ = writeln!(
            text,
            "\nMinutes that drones waited for a charger, per stay:\n\n{:<10}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}{:>16}",
            "policy", "stays", "waited", "mean", "p50", "p95", "longest", "least battery"
        );
        for summary in summaries {
            let Spread { mean, p50, p95, max } = summary.charging_wait_min;
            let _ = writeln!(
                text,
                "{:<10}{:>10.0}{:>10.0}{mean:>10.2}{p50:>10.2}{p95:>10.2}{max:>10.2}{:>14.1} %",
                summary.outcome.policy, summary.charging_stays, summary.charging_queued, summary.least_battery_pct
            );
        }
    }
    text
}
