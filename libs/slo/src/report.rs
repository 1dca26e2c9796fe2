//! The verdicts: for programs ([`Report`], as JSON) and for people ([`Report::table`]).

use std::fmt::Write as _;

use serde::Serialize;

use crate::spec::{Objective, Of, Spec, per_million};
use crate::time;
use crate::tracker::{Count, LineCounts, OpenOrders, Series, Tracker};

/// Whether a promise is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Yes.
    Kept,
    /// Too few events to tell.
    NotEnoughData,
    /// Yes, but the error budget goes fast, or is nearly gone.
    AtRisk,
    /// No: fewer than promised were good.
    Broken,
}

impl Verdict {
    /// The program's exit code: 0 kept, 1 at risk, 2 broken, 3 not enough data.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Kept => 0,
            Self::AtRisk => 1,
            Self::Broken => 2,
            Self::NotEnoughData => 3,
        }
    }

    /// For people.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::AtRisk => "at risk",
            Self::Broken => "broken",
            Self::NotEnoughData => "not enough data",
        }
    }

    fn of(spec: &Spec, objective: &Objective, counts: &Counts) -> Self {
        const MILLION: u128 = 1_000_000;
        let allowed = u128::from(objective.allowed_ppm());
        // Whole numbers throughout, so that each verdict flips at exactly one event.
        let spent = u128::from(counts.period.bad) * MILLION;
        let budget = u128::from(counts.period.events) * allowed;
        if counts.period.events < spec.min_events {
            return Self::NotEnoughData;
        }
        if spent > budget {
            return Self::Broken;
        }
        let is_nearly_spent = (budget - spent) * MILLION < budget * u128::from(per_million(spec.risk_budget_percent));
        let burns = |count: Count| {
            let limit = u128::from(per_million(spec.burn_limit)); // ten-thousandths
            count.bad > 0 && u128::from(count.bad) * MILLION * 10_000 >= limit * allowed * u128::from(count.events)
        };
        if is_nearly_spent || (burns(counts.long) && burns(counts.short)) {
            return Self::AtRisk;
        }
        Self::Kept
    }
}

struct Counts {
    period: Count,
    long: Count,
    short: Count,
}

/// One objective's figures. Percentages and milliseconds; `null` is "of nothing".
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// The objective.
    #[serde(flatten)]
    pub objective: Objective,
    /// Requests or orders that counted.
    pub events: u64,
    /// Of those, the good ones.
    pub good: u64,
    /// Half of them took at most this long.
    pub p50_ms: Option<f64>,
    /// 95 of 100 did.
    pub p95_ms: Option<f64>,
    /// 99 of 100 did.
    pub p99_ms: Option<f64>,
    /// Share of good ones.
    pub good_percent: Option<f64>,
    /// How much of what may be bad is left; below 0 when the promise is broken.
    pub budget_left_percent: Option<f64>,
    /// How many times as fast as it may the budget was spent in the long window.
    pub burn_long: Option<f64>,
    /// The same in the short window.
    pub burn_short: Option<f64>,
    /// Whether it is kept.
    pub verdict: Verdict,
}

/// All there is to say at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The worst of all: broken, at risk, not enough data, kept.
    pub verdict: Verdict,
    /// That as the program's exit code.
    pub exit_code: u8,
    /// Windows of requests end here, Unix seconds; `null` when nothing has a time, and all windows are the whole input.
    pub at: Option<u64>,
    /// Only so much of the past counts, seconds; `null`: everything that was read.
    pub window_sec: Option<u64>,
    /// The long window of the burn rate, seconds.
    pub long_sec: u64,
    /// The short one.
    pub short_sec: u64,
    /// Time of the first line, Unix seconds.
    pub from: Option<u64>,
    /// Time of the last line, Unix seconds.
    pub to: Option<u64>,
    /// Lines read.
    pub lines: LineCounts,
    /// Open orders, when they were asked for.
    pub orders: Option<OpenOrders>,
    /// One per objective.
    pub objectives: Vec<Line>,
}

impl Report {
    /// The report at `now_ms` (Unix milliseconds), or at the newest line's time.
    #[must_use]
    pub fn new(tracker: &Tracker, now_ms: Option<u64>) -> Self {
        let span = tracker.span_ms();
        let newest = span.map(|(_, to)| to);
        let at = now_ms.max(newest).map(|ms| ms / 1_000);
        let spec = tracker.spec();
        let objectives: Vec<Line> = tracker
            .series()
            .map(|(objective, series)| Line::new(spec, objective, series, tracker.now_of(objective, at)))
            .collect();
        let verdict = objectives
            .iter()
            .map(|line| line.verdict)
            .max()
            .unwrap_or(Verdict::NotEnoughData);
        Self {
            verdict,
            exit_code: verdict.exit_code(),
            at,
            window_sec: tracker.window_sec(),
            long_sec: spec.long_sec,
            short_sec: spec.short_sec,
            from: span.map(|(from, _)| from / 1_000),
            to: newest.map(|to| to / 1_000),
            lines: tracker.counts(),
            orders: tracker.open_orders().cloned(),
            objectives,
        }
    }

    /// The report for people: a line per objective, what was read, and the verdict last.
    #[must_use]
    pub fn table(&self) -> String {
        let burn = |sec: u64| format!("burn {}", span(sec));
        let mut text = format!(
            "{:<22} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9} {:>8} {:>9} {:>9}  verdict\n",
            "objective",
            "target %",
            "events",
            "p50",
            "p95",
            "p99",
            "good %",
            "budget %",
            burn(self.long_sec),
            burn(self.short_sec)
        );
        for line in &self.objectives {
            line.write(&mut text);
        }
        self.write_sources(&mut text);
        text
    }

    /// Writing to a string cannot fail, so results are dropped here.
    fn write_sources(&self, text: &mut String) {
        let LineCounts {
            lines,
            requests,
            limited,
            streams,
            other,
        } = self.lines;
        let _ = write!(
            text,
            "{lines} lines: {requests} requests ({limited} refused by a rate limit), {streams} event streams, {other} others"
        );
        if let (Some(from), Some(to)) = (self.from, self.to) {
            let _ = write!(
                text,
                "; from {} to {}",
                time::show(from * 1_000),
                time::show(to * 1_000)
            );
        } else if requests > 0 {
            text.push_str("; they have no times, so every window is the whole input");
        }
        if let Some(orders) = &self.orders {
            let _ = write!(text, "\n{} orders in flight", orders.open);
            for (status, count) in &orders.by_status {
                let _ = write!(text, ", {count} {status}");
            }
            if let (Some(sec), Some(id)) = (orders.oldest_sec, &orders.oldest_id) {
                let _ = write!(text, "; the oldest is {} old: {id}", duration(Some(sec * 1_000.0)));
            }
            if orders.truncated {
                text.push_str(" (there may be older ones that were not looked at)");
            }
        }
        let _ = writeln!(text, "\nverdict: {}", self.verdict.text());
    }
}

impl Line {
    fn new(spec: &Spec, objective: &Objective, series: &Series, now_sec: u64) -> Self {
        let (period, took) = series.period(now_sec);
        let (long, short) = (
            series.last(now_sec, spec.long_sec),
            series.last(now_sec, spec.short_sec),
        );
        let counts = Counts { period, long, short };
        Self {
            objective: objective.clone(),
            events: period.events,
            good: period.events - period.bad,
            p50_ms: took.percentile_ms(50),
            p95_ms: took.percentile_ms(95),
            p99_ms: took.percentile_ms(99),
            good_percent: share(period.events - period.bad, period.events).map(|share| share * 100.0),
            budget_left_percent: burn(objective, period).map(|burnt| (1.0 - burnt) * 100.0),
            burn_long: burn(objective, long),
            burn_short: burn(objective, short),
            verdict: Verdict::of(spec, objective, &counts),
        }
    }

    fn write(&self, text: &mut String) {
        let objective = &self.objective;
        let _ = writeln!(
            text,
            "{:<22} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9} {:>8} {:>9} {:>9}  {}",
            objective.name,
            objective.target_percent,
            self.events,
            duration(self.p50_ms),
            duration(self.p95_ms),
            duration(self.p99_ms),
            // Rounded down: what is not all is not shown as 100.
            decimals(
                self.good_percent.map(|percent| (percent * 1_000.0).floor() / 1_000.0),
                3
            ),
            decimals(self.budget_left_percent, 1),
            decimals(self.burn_long, 2),
            decimals(self.burn_short, 2),
            self.verdict.text(),
        );
    }
}

/// How many times as fast as it may the budget of `count` was spent: 1 spends all of it exactly.
fn burn(objective: &Objective, count: Count) -> Option<f64> {
    share(count.bad * 1_000_000, count.events * objective.allowed_ppm())
}

#[expect(
    clippy::cast_precision_loss,
    reason = "for display; verdicts are decided in whole numbers"
)]
fn share(part: u64, of: u64) -> Option<f64> {
    (of > 0).then(|| part as f64 / of as f64)
}

fn decimals(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

/// Milliseconds in the unit that suits them.
fn duration(ms: Option<f64>) -> String {
    match ms {
        None => "-".to_owned(),
        Some(ms) if ms < 10_000.0 => format!("{ms:.1} ms"),
        Some(ms) if ms < 600_000.0 => format!("{:.1} s", ms / 1_000.0),
        Some(ms) => format!("{:.1} min", ms / 60_000.0),
    }
}

/// Seconds as a short word: `1h`, `5m`, `90s`.
fn span(sec: u64) -> String {
    match sec {
        _ if sec.is_multiple_of(3_600) => format!("{}h", sec / 3_600),
        _ if sec.is_multiple_of(60) => format!("{}m", sec / 60),
        _ => format!("{sec}s"),
    }
}

/// Whether any objective is about orders: only then does asking for them make sense.
#[must_use]
pub fn asks_for_orders(spec: &Spec) -> bool {
    spec.objectives.iter().any(|objective| objective.of == Of::Orders)
}
