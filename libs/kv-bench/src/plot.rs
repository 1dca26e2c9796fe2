//! The ratios to etcd as a picture: SVG, one bar per kind of work and system, with the spread over the rounds as a line.

use std::fmt::Write as _;

use crate::report::{Report, Series, Spread, Target, describe};

/// The axis is logarithmic: twice as fast is as far to the right as half as fast is to the left.
const LEAST: f64 = 0.1;
const MOST: f64 = 100.0;
const TICKS: [f64; 9] = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 50.0, 100.0];

/// Measures of the picture, pixels.
const LEFT: f64 = 150.0;
const PLOT_WIDTH: f64 = 600.0;
const WIDTH: f64 = 900.0;
const ROW: f64 = 18.0;
const HEADING: f64 = 34.0;
const BAR: f64 = 11.0;

impl Report {
    /// The ratios of operations a second to etcd's (of 99th percentiles where the loop is open), or nothing when there is no etcd to compare with.
    #[must_use]
    pub fn svg(&self) -> Option<String> {
        let mut body = String::new();
        let mut y = 16.0;
        for (load, group) in self.by_load() {
            let ratio = |series: &Series| match load.3 {
                None => series.ops_to_etcd,
                Some(_) => series.p99_to_etcd,
            };
            let bars: Vec<_> = group
                .into_iter()
                .filter(|series| series.target != Target::Etcd)
                .filter_map(|series| Some((series, ratio(series)?)))
                .collect();
            if bars.is_empty() {
                continue;
            }
            let figure = if load.3.is_none() {
                "ops/s"
            } else {
                "p99 (less is better)"
            };
            let title = format!("{figure} relative to etcd: {}", describe(load));
            text(&mut body, 8.0, y + 4.0, "start", &title);
            y += HEADING;
            let height = ROW * bars.len() as f64;
            axis(&mut body, y, height);
            for (series, spread) in bars {
                bar(&mut body, y, series, spread);
                y += ROW;
            }
            y += HEADING;
        }
        if body.is_empty() {
            return None;
        }
        Some(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {y}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n"
        ))
    }
}

/// Where a ratio lies.
fn x(ratio: f64) -> f64 {
    let along = (ratio.clamp(LEAST, MOST) / LEAST).ln() / (MOST / LEAST).ln();
    LEFT + PLOT_WIDTH * along
}

fn text(body: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let _ = writeln!(
        body,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
    );
}

fn axis(body: &mut String, top: f64, height: f64) {
    for tick in TICKS {
        let (at, bottom) = (x(tick), top + height);
        let colour = if (tick - 1.0).abs() < f64::EPSILON {
            "#333"
        } else {
            "#ddd"
        };
        let _ = writeln!(
            body,
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{top:.1}\" y2=\"{bottom:.1}\" stroke=\"{colour}\"/>"
        );
        text(body, at, top - 4.0, "middle", &tick.to_string());
    }
}

/// A bar from 1 to the median, and a line from the smallest to the largest ratio.
fn bar(body: &mut String, top: f64, series: &Series, Spread { median, min, max }: Spread) {
    let colour = if series.target == Target::Ours {
        "#2f7ed8"
    } else {
        "#c9a06b"
    };
    let (from, to) = (x(median.min(1.0)), x(median.max(1.0)));
    let y = top + (ROW - BAR) / 2.0;
    let middle = top + ROW / 2.0;
    let label = format!("{} {}", series.scenario.work, series.target.name());
    text(body, LEFT - 8.0, middle + 4.0, "end", &label);
    let _ = writeln!(
        body,
        "<rect x=\"{from:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{BAR}\" fill=\"{colour}\"/>\n\
         <line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\" stroke=\"black\"/>",
        to - from,
        x(min),
        x(max)
    );
    text(
        body,
        LEFT + PLOT_WIDTH + 8.0,
        middle + 4.0,
        "start",
        &format!("{median:.2} ({min:.2}–{max:.2})"),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    #[test]
    fn there_is_a_bar_for_everyone_but_etcd() {
        let svg = report().svg().unwrap();
        assert_eq!(svg.matches("fill=\"#2f7ed8\"").count(), 1);
        assert!(
            svg.contains(">put ours<") && svg.contains(">3.00 (2.00–4.00)<"),
            "{svg}"
        );
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
    }

    #[test]
    fn without_etcd_there_is_no_picture() {
        let mut report = report();
        report.series.iter_mut().for_each(|series| series.ops_to_etcd = None);
        assert_eq!(report.svg(), None);
    }

    #[test]
    fn the_axis_is_logarithmic_and_has_ends() {
        assert!((x(1.0) - x(0.5) - (x(2.0) - x(1.0))).abs() < 1e-9);
        assert!((x(1e9) - (LEFT + PLOT_WIDTH)).abs() < 1e-9);
    }
}
