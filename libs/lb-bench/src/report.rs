//! Medians over the rounds, and ratios taken within each round: what slows the machine for a while slows both sides of a ratio.

use std::fmt::Write as _;

use serde::Serialize;

use crate::args::{Args, Via};
use crate::load::Measured;

/// One window.
#[derive(Debug, Serialize)]
pub(crate) struct Window {
    pub(crate) via: Via,
    pub(crate) bytes: u32,
    pub(crate) round: u32,
    #[serde(flatten)]
    pub(crate) measured: Measured,
}

/// A median with the smallest and the largest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

/// One row: one way at one size.
#[derive(Debug, Serialize)]
struct Row {
    via: Via,
    bytes: u32,
    requests_per_sec: Option<Spread>,
    p50_ms: Option<Spread>,
    p99_ms: Option<Spread>,
    proxy_cpu_sec_per_1000: Option<Spread>,
    requests_per_sec_to_nginx: Option<Spread>,
    p99_to_nginx: Option<Spread>,
}

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report<'a> {
    args: &'a Args,
    versions: Vec<String>,
    rows: Vec<Row>,
    windows: Vec<Window>,
}

impl<'a> Report<'a> {
    pub(crate) fn new(args: &'a Args, versions: Vec<String>, windows: Vec<Window>) -> Self {
        let mut rows = Vec::new();
        for bytes in &args.sizes {
            for via in &args.targets {
                rows.push(row(&windows, *via, *bytes));
            }
        }
        Self {
            args,
            versions,
            rows,
            windows,
        }
    }

    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        for bytes in &self.args.sizes {
            // Writing into a String cannot fail.
            let _ = writeln!(
                text,
                "\n{bytes} bytes, {} connections, median (smallest-largest) of {} rounds of {} s\n\
                 {:<8} {:>24} {:>20} {:>20} {:>24} {:>18} {:>18}",
                self.args.connections,
                self.args.rounds,
                self.args.seconds,
                "way",
                "requests/s",
                "p50 ms",
                "p99 ms",
                "CPU s/1k",
                "req/s to nginx",
                "p99 to nginx"
            );
            for row in self.rows.iter().filter(|row| row.bytes == *bytes) {
                let _ = writeln!(
                    text,
                    "{:<8} {:>24} {:>20} {:>20} {:>24} {:>18} {:>18}",
                    row.via.name(),
                    show(row.requests_per_sec, 0),
                    show(row.p50_ms, 2),
                    show(row.p99_ms, 2),
                    show(row.proxy_cpu_sec_per_1000, 4),
                    show(row.requests_per_sec_to_nginx, 2),
                    show(row.p99_to_nginx, 2)
                );
            }
        }
        let _ = writeln!(text, "\n{}", self.versions.join("\n"));
        text
    }
}

fn row(windows: &[Window], via: Via, bytes: u32) -> Row {
    let of = |via: Via| {
        windows
            .iter()
            .filter(move |window| window.via == via && window.bytes == bytes)
    };
    let figures =
        |figure: fn(&Measured) -> Option<f64>| spread(of(via).filter_map(|window| figure(&window.measured)).collect());
    let ratio = |figure: fn(&Measured) -> f64| {
        let of_round = |window: &Window| {
            let nginx = of(Via::Nginx).find(|other| other.round == window.round)?;
            Some(figure(&window.measured) / figure(&nginx.measured))
        };
        spread(of(via).filter_map(of_round).collect())
    };
    Row {
        via,
        bytes,
        requests_per_sec: figures(|measured| Some(measured.requests_per_sec)),
        p50_ms: figures(|measured| Some(measured.p50_ms)),
        p99_ms: figures(|measured| Some(measured.p99_ms)),
        proxy_cpu_sec_per_1000: figures(|measured| measured.proxy_cpu_sec_per_1000),
        requests_per_sec_to_nginx: ratio(|measured| measured.requests_per_sec),
        p99_to_nginx: ratio(|measured| measured.p99_ms),
    }
}

fn spread(mut figures: Vec<f64>) -> Option<Spread> {
    figures.sort_by(f64::total_cmp);
    let (min, max) = (*figures.first()?, *figures.last()?);
    let middle = figures.len() / 2;
    let median = if figures.len() % 2 == 1 {
        figures[middle]
    } else {
        f64::midpoint(figures[middle - 1], figures[middle])
    };
    Some(Spread { median, min, max })
}

fn show(spread: Option<Spread>, digits: usize) -> String {
    spread.map_or_else(
        || "-".to_owned(),
        |Spread { median, min, max }| format!("{median:.digits$} ({min:.digits$}-{max:.digits$})"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(via: Via, round: u32, requests_per_sec: f64) -> Window {
        Window {
            via,
            bytes: 1024,
            round,
            measured: Measured {
                seconds: 1.0,
                requests: 1,
                requests_per_sec,
                p50_ms: 1.0,
                p99_ms: 2.0,
                max_ms: 3.0,
                proxy_cpu_sec_per_1000: (via != Via::Direct).then_some(0.01),
            },
        }
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The machine was half as fast in the second round, for both.
        let windows = [
            window(Via::Ours, 1, 80.0),
            window(Via::Nginx, 1, 100.0),
            window(Via::Ours, 2, 45.0),
            window(Via::Nginx, 2, 50.0),
            window(Via::Ours, 3, 100.0),
            window(Via::Nginx, 3, 100.0),
        ];
        let row = row(&windows, Via::Ours, 1024);
        assert_eq!(
            row.requests_per_sec_to_nginx,
            Some(Spread {
                median: 0.9,
                min: 0.8,
                max: 1.0
            })
        );
        assert_eq!(row.requests_per_sec.map(|spread| spread.median), Some(80.0));
    }

    #[test]
    fn what_was_not_measured_has_no_figure() {
        let row = row(&[window(Via::Direct, 1, 10.0)], Via::Direct, 1024);
        assert!(row.requests_per_sec_to_nginx.is_none() && row.proxy_cpu_sec_per_1000.is_none());
        assert_eq!(show(row.requests_per_sec, 0), "10 (10-10)");
        assert_eq!(show(None, 2), "-");
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(spread(vec![4.0, 1.0, 2.0, 3.0]).map(|spread| spread.median), Some(2.5));
        assert_eq!(spread(Vec::new()), None);
    }
}
