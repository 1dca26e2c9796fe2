//! Requests, errors and percentiles for every interval and for the whole run, against plain thresholds: what `tests/slo_watch.sh` prints.

use std::fmt;

use serde::Serialize;

use crate::histogram::Histogram;
use crate::line::{Line, Request, read};
use crate::lines::Lines;

/// Which requests count: all, or those whose path the function accepts.
pub type PathFilter = Box<dyn Fn(&[u8]) -> bool>;

/// What must not be exceeded over the whole run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// Answers of 500 and above, percent.
    pub max_error_percent: f64,
    /// 95th percentile, milliseconds.
    pub max_p95_ms: f64,
    /// 99th percentile, milliseconds.
    pub max_p99_ms: f64,
    /// Fewer requests prove nothing.
    pub min_requests: f64,
}

/// What is told of one interval, or of the whole run. As text: a row below [`Intervals::header`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// When the interval ended, or `total`.
    pub time: String,
    /// How many requests there were.
    pub requests: u64,
    /// Answers of 500 and above.
    pub errors: u64,
    /// Their share, percent; 0 of nothing.
    pub error_percent: f64,
    /// Refusals by the rate limit (429), which are no errors.
    pub limited: u64,
    /// Median, milliseconds; `None` of nothing.
    pub p50_ms: Option<f64>,
    /// 95th percentile, milliseconds.
    pub p95_ms: Option<f64>,
    /// 99th percentile, milliseconds.
    pub p99_ms: Option<f64>,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p95, p99] = [self.p50_ms, self.p95_ms, self.p99_ms].map(|ms| ms.unwrap_or(0.0));
        write!(
            f,
            "{:<9} {:>8} {:>8} {:>7.2} {:>8} {p50:>9.1} {p95:>9.1} {p99:>9.1}",
            self.time, self.requests, self.errors, self.error_percent, self.limited
        )
    }
}

/// The figures of one interval, or of the whole run.
#[derive(Debug, Default)]
struct Figures {
    count: u64,
    errors: u64,
    limited: u64,
    latencies: Histogram,
}

/// Counts, interval by interval.
#[derive(Default)]
pub struct Intervals {
    filter: Option<PathFilter>,
    lines: Lines,
    now: Figures,
    all: Figures,
    others: u64,
}

impl fmt::Debug for Intervals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Intervals")
            .field("now", &self.now)
            .field("all", &self.all)
            .finish_non_exhaustive()
    }
}

impl Intervals {
    /// Nothing counted yet.
    #[must_use]
    pub fn new(filter: Option<PathFilter>) -> Self {
        Self {
            filter,
            ..Self::default()
        }
    }

    /// The line above the figures.
    #[must_use]
    pub fn header() -> String {
        format!(
            "{:<9} {:>8} {:>8} {:>7} {:>8} {:>9} {:>9} {:>9}",
            "time", "requests", "errors", "error%", "limited", "p50 ms", "p95 ms", "p99 ms"
        )
    }

    /// Counts the lines of a piece of the log.
    pub fn feed(&mut self, piece: &[u8]) {
        let mut lines = std::mem::take(&mut self.lines);
        lines.push(piece, |line| self.line(line));
        self.lines = lines;
    }

    /// Counts the last line, should it have no line feed.
    pub fn finish(&mut self) {
        let mut lines = std::mem::take(&mut self.lines);
        lines.finish(|line| self.line(line));
    }

    fn line(&mut self, line: &[u8]) {
        match read(line) {
            Line::Request(request) => {
                if self.filter.as_ref().is_none_or(|accepts| accepts(request.path)) {
                    self.now.add(&request);
                    self.all.add(&request);
                }
            }
            Line::Stream => self.others += 1,
            // What other programs say, and lb itself, is nobody's sample; what claims to be one and cannot be read is told.
            Line::Other => self.others += u64::from(memchr::memmem::find(line, b"[access] ").is_some()),
        }
    }

    /// Ends an interval: its figures.
    pub fn tick(&mut self, name: &str) -> Row {
        std::mem::take(&mut self.now).row(name)
    }

    /// The figures of the whole run.
    #[must_use]
    pub fn all(&self) -> Row {
        self.all.row("total")
    }

    /// Lines that are no samples, though they claim to be: event streams, other formats.
    #[must_use]
    pub fn others(&self) -> u64 {
        self.others
    }

    /// The figures of the whole run, and what was left out, as text.
    #[must_use]
    pub fn total(&self) -> String {
        let mut text = self.all().to_string();
        if self.others > 0 {
            text.push_str(&format!(
                "\n{} lines were no samples (event streams, other formats)",
                self.others
            ));
        }
        text
    }

    /// Thresholds that were missed, a sentence each.
    #[must_use]
    pub fn misses(&self, thresholds: &Thresholds) -> Vec<String> {
        let (count, latencies) = (self.all.count, &self.all.latencies);
        let mut missed = Vec::new();
        if as_number(count) < thresholds.min_requests {
            missed.push(format!(
                "{count} requests seen, expected at least {}",
                thresholds.min_requests
            ));
        }
        let (percent, allowed) = (self.all.error_percent(), thresholds.max_error_percent);
        if percent > allowed {
            missed.push(format!("{percent:.2}% errors, allowed {allowed}%"));
        }
        for (name, percent, allowed) in [("p95", 95, thresholds.max_p95_ms), ("p99", 99, thresholds.max_p99_ms)] {
            let found = latencies.percentile_ms(percent).unwrap_or(0.0);
            if found > allowed {
                missed.push(format!("{name} {found:.1} ms, allowed {allowed} ms"));
            }
        }
        missed
    }
}

impl Figures {
    fn add(&mut self, request: &Request<'_>) {
        self.count += 1;
        self.errors += u64::from(request.status >= 500);
        self.limited += u64::from(request.status == 429);
        request.took.into_iter().for_each(|took| self.latencies.add(took));
    }

    fn error_percent(&self) -> f64 {
        if self.count == 0 {
            0.0
        } else {
            100.0 * as_number(self.errors) / as_number(self.count)
        }
    }

    fn row(&self, time: &str) -> Row {
        let [p50_ms, p95_ms, p99_ms] = [50, 95, 99].map(|percent| self.latencies.percentile_ms(percent));
        Row {
            time: time.to_owned(),
            requests: self.count,
            errors: self.errors,
            error_percent: self.error_percent(),
            limited: self.limited,
            p50_ms,
            p95_ms,
            p99_ms,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn as_number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::{Intervals, Thresholds};

    const LIMITS: Thresholds = Thresholds {
        max_error_percent: 1.0,
        max_p95_ms: 300.0,
        max_p99_ms: 1_000.0,
        min_requests: 1.0,
    };

    #[test]
    fn rows_are_those_that_scripts_read() {
        let mut intervals = Intervals::new(None);
        for ms in 1..=100 {
            intervals.feed(format!("lb_1  | [access] GET /deliveries/x 200 {ms}.0ms\n").as_bytes());
        }
        intervals.feed(b"lb-1  | [access] GET /events 200 51234.1ms stream\nlb_1  | starting\n[access] what");
        assert_eq!(
            Intervals::header(),
            "time      requests   errors  error%  limited    p50 ms    p95 ms    p99 ms"
        );
        let row = |name| format!("{name:<9}      100        0    0.00        0      50.0      95.0      99.0");
        assert_eq!(intervals.tick("12:00:00").to_string(), row("12:00:00"));
        let empty = intervals.tick("12:00:10");
        assert_eq!(
            serde_json::to_string(&empty).unwrap(),
            r#"{"time":"12:00:10","requests":0,"errors":0,"error_percent":0.0,"limited":0,"p50_ms":null,"p95_ms":null,"p99_ms":null}"#
        );
        assert_eq!(
            empty.to_string(),
            "12:00:10         0        0    0.00        0       0.0       0.0       0.0"
        );
        intervals.finish();
        let total = format!(
            "{}\n2 lines were no samples (event streams, other formats)",
            row("total")
        );
        assert_eq!(intervals.total(), total);
        let all = intervals.all();
        assert_eq!((all.requests, all.p95_ms, intervals.others()), (100, Some(95.0), 2));
        assert!(intervals.misses(&LIMITS).is_empty());
    }

    #[test]
    fn misses_say_what_and_how_much() {
        let mut intervals = Intervals::new(Some(Box::new(|path| path == b"/a")));
        assert_eq!(intervals.misses(&LIMITS), ["0 requests seen, expected at least 1"]);
        for (path, status, ms) in [("/a", 200, 400), ("/a", 503, 2_000), ("/a", 429, 1), ("/b", 500, 9_000)] {
            intervals.feed(format!("[access] GET {path} {status} {ms}.0ms\n").as_bytes());
        }
        assert_eq!(
            intervals.misses(&LIMITS),
            [
                "33.33% errors, allowed 1%",
                "p95 2000.1 ms, allowed 300 ms",
                "p99 2000.1 ms, allowed 1000 ms"
            ]
        );
    }
}
