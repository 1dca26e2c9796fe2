//! The share of orders delivered within a time, per policy, as a picture.

use std::fmt::Write as _;

use crate::report::Summary;

/// Size of the picture, and of the margins around the curves.
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 60.0;
const BOTTOM: f64 = 60.0;

/// Colours that are told apart by most eyes (M. Okabe, K. Ito), and dashes for all others.
const STYLES: [(&str, &str); 5] = [
    ("#d55e00", "none"),
    ("#0072b2", "8 3"),
    ("#009e73", "none"),
    ("#cc79a7", "2 3"),
    ("#56b4e9", "8 3 2 3"),
];

/// The picture reaches this far beyond what 95 of 100 orders took.
const BEYOND_P95: f64 = 1.5;

/// The picture: time to deliver across, share of orders upwards, a curve per policy (over several seeds, of all together), and the bound.
#[must_use]
pub fn draw(about: &str, summaries: &[Summary]) -> String {
    let end = end_min(summaries);
    let x = |min: f64| LEFT + (min / end).clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT);
    let y = |share: f64| HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <title>Orders delivered within a time, per policy</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"24\" font-size=\"16\">Orders delivered within a time</text>\n\
         <text x=\"{LEFT}\" y=\"44\" fill=\"#555\">{}</text>\n",
        escape(about)
    );
    for part in 0..=4 {
        let share = f64::from(part) / 4.0;
        // Writing to a string cannot fail; likewise below.
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {0:.1}H{1}\" stroke=\"#ddd\"/><text x=\"{2}\" y=\"{3:.1}\" text-anchor=\"end\">{4} %</text>",
            y(share),
            WIDTH - RIGHT,
            LEFT - 6.0,
            y(share) + 4.0,
            part * 25
        );
    }
    let step = step_min(end);
    let ticks = (0..=20)
        .map(|tick| f64::from(tick) * step)
        .take_while(|min| *min <= end);
    for min in ticks {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{min}</text>",
            x(min),
            HEIGHT - BOTTOM + 18.0
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">minutes from placing an order to its delivery</text>",
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 18.0
    );
    if let Some(bound) = summaries.first().map(|summary| summary.outcome.lower_bound_min) {
        let _ = writeln!(
            svg,
            "<path d=\"M{0:.1} {1:.1}V{2:.1}\" stroke=\"#888\" stroke-dasharray=\"4 4\"/>\
             <text x=\"{3:.1}\" y=\"{4:.1}\" fill=\"#555\">no mean below {bound:.2}</text>",
            x(bound),
            y(0.0),
            y(1.0),
            x(bound) + 5.0,
            y(0.0) - 8.0
        );
    }
    for (index, summary) in summaries.iter().enumerate() {
        let (colour, dashes) = STYLES[index % STYLES.len()];
        let name = escape(summary.outcome.policy);
        let mut points = format!("{:.1},{:.1}", x(0.0), y(0.0));
        for (min, share) in curve(summary).into_iter().take_while(|(min, _)| *min <= end) {
            let _ = write!(points, " {:.1},{:.1}", x(min), y(share));
        }
        let line = y(0.4) + 20.0 * f64::from(u32::try_from(index).unwrap_or(0));
        let (from, to) = (WIDTH - 330.0, WIDTH - 295.0);
        let _ = writeln!(
            svg,
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dashes}\"/>\n\
             <path d=\"M{from} {line:.1}H{to}\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dashes}\"/>\
             <text x=\"{0}\" y=\"{1:.1}\">{name}: mean {2:.2}, p95 {3:.1}{4}</text>",
            to + 6.0,
            line + 4.0,
            summary.outcome.mean_delivery_min,
            summary.outcome.p95_delivery_min,
            if summary.outcome.stable { "" } else { ", grows" }
        );
    }
    svg + "</svg>\n"
}

/// Where the picture ends: beyond the p95 of the slowest policy that is stable, or of the fastest one if none is.
fn end_min(summaries: &[Summary]) -> f64 {
    let p95 = |summary: &&Summary| summary.outcome.p95_delivery_min;
    let stable = summaries.iter().filter(|summary| summary.outcome.stable);
    let end = stable.map(|summary| p95(&summary)).fold(0.0, f64::max);
    let fastest = summaries
        .iter()
        .map(|summary| p95(&summary))
        .fold(f64::INFINITY, f64::min);
    let end = if end > 0.0 { end } else { fastest };
    if end.is_finite() && end > 0.0 {
        end * BEYOND_P95
    } else {
        1.0
    }
}

/// A round step that makes at most ten of it.
fn step_min(end: f64) -> f64 {
    let mut step = 1.0;
    for factor in [2.0, 2.5, 2.0].into_iter().cycle() {
        if end / step <= 10.0 {
            break;
        }
        step *= factor;
    }
    step
}

/// (minutes, share delivered), ascending, over all seeds.
#[expect(clippy::cast_precision_loss, reason = "some thousand points")]
fn curve(summary: &Summary) -> Vec<(f64, f64)> {
    let mut minutes: Vec<f64> = summary
        .runs
        .iter()
        .flat_map(|run| run.quantiles_min.iter().copied())
        .collect();
    minutes.sort_unstable_by(f64::total_cmp);
    let all = minutes.len().max(1) as f64;
    // Some hundred points are smooth enough.
    let step = minutes.len().div_ceil(400).max(1);
    (minutes.iter().enumerate())
        .filter(|(index, _)| (index + 1) % step == 0)
        .map(|(index, &min)| (min, (index + 1) as f64 / all))
        .collect()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
