//! Everything, for programs.

use std::fmt::Write as _;

use serde::Serialize;

use crate::report::{Spread, Summary};

/// The columns of [`csv`].
const COLUMNS: &str = "policy,seed,orders,stable,lower_bound_min,gap_pct,\
    assign_mean_min,assign_p50_min,assign_p95_min,assign_max_min,\
    pickup_mean_min,pickup_p50_min,pickup_p95_min,pickup_max_min,\
    deliver_mean_min,deliver_p50_min,deliver_p95_min,deliver_max_min,\
    charging_stays,charging_queued,charging_wait_mean_min,charging_wait_p50_min,charging_wait_p95_min,charging_wait_max_min,\
    loaded_km,empty_km,to_pickups_km,to_chargers_km,to_places_km,swaps,least_battery_pct";

/// One JSON document: `{"world","policies":[…]}`, per policy the fields of `--json` and those of [`Summary`].
///
/// # Errors
/// Never for numbers that are finite, as all of ours are.
pub fn json(about: &str, summaries: &[Summary]) -> serde_json::Result<String> {
    #[derive(Serialize)]
    struct Document<'a> {
        world: &'a str,
        policies: &'a [Summary],
    }
    let document = Document {
        world: about,
        policies: summaries,
    };
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

/// A header, and a line per policy and seed.
#[must_use]
pub fn csv(summaries: &[Summary]) -> String {
    let mut text = COLUMNS.to_owned();
    for run in summaries.iter().flat_map(|summary| &summary.runs) {
        let (report, flown, charging) = (&run.report, &run.report.flown, &run.report.charging);
        let gap = crate::report::gap_pct(report.to_deliver.mean, run.lower_bound_min);
        // Writing to a string cannot fail; likewise below.
        let _ = write!(
            text,
            "\n{},{},{},{},{},{gap}",
            run.policy, run.seed, run.orders, report.is_stable, run.lower_bound_min
        );
        for times in [report.to_assign, report.to_pickup, report.to_deliver] {
            let Spread { mean, p50, p95, max } = times.into();
            let _ = write!(text, ",{mean},{p50},{p95},{max}");
        }
        let Spread { mean, p50, p95, max } = charging.waits.into();
        let _ = write!(text, ",{},{},{mean},{p50},{p95},{max}", charging.stays, charging.queued);
        let _ = write!(
            text,
            ",{},{},{},{},{},{},{}",
            flown.loaded_km,
            flown.empty_km(),
            flown.to_pickups_km,
            flown.to_chargers_km,
            flown.to_places_km,
            flown.reassigned,
            charging.least_battery_pct
        );
    }
    text + "\n"
}
