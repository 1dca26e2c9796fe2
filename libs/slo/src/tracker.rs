//! Counts what comes, per objective: over everything (or the last `--window`), and in the two windows of the burn rate.

use std::collections::BTreeMap;

use crate::histogram::{Histogram, Sparse};
use crate::line::{Line, Request, Tenths, read};
use crate::lines::Lines;
use crate::orders::{Order, judge, unix_ms};
use crate::spec::{Objective, Of, Spec};
use crate::window::Slots;

/// A window is counted in so many slots, each at least a second wide: it moves in steps of one.
const WINDOW_SLOTS: u64 = 360;

/// Lines by what they turned out to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct LineCounts {
    /// All.
    pub lines: u64,
    /// Answered requests.
    pub requests: u64,
    /// Of those, refusals by a rate limit (429): neither good nor bad.
    pub limited: u64,
    /// Event streams that ended.
    pub streams: u64,
    /// Lines that are none of lb's.
    pub other: u64,
}

/// Good and bad.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// All.
    pub events: u64,
    /// Those that were not good.
    pub bad: u64,
}

/// An event of an objective.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// When, Unix milliseconds; `None` counts in every window.
    pub at_ms: Option<u64>,
    /// How long it took, if that is known.
    pub took: Option<Tenths>,
    /// As promised.
    pub good: bool,
}

/// Counts of everything that objectives ask for.
#[derive(Debug)]
pub struct Tracker {
    spec: Spec,
    window_sec: Option<u64>,
    matchers: Vec<Matcher>,
    series: Vec<Series>,
    lines: Lines,
    counts: LineCounts,
    /// Oldest and newest time of a line, Unix milliseconds.
    span_ms: Option<(u64, u64)>,
    /// The open orders, once orders were looked at.
    orders: Option<OpenOrders>,
    /// When that was, by the gateway's clock, Unix seconds.
    orders_at_sec: u64,
}

/// Orders that have not ended.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct OpenOrders {
    /// By status.
    pub by_status: BTreeMap<String, u64>,
    /// All of them.
    pub open: u64,
    /// Age of the oldest, seconds.
    pub oldest_sec: Option<f64>,
    /// Its id.
    pub oldest_id: Option<String>,
    /// True when there may be older ones that were not looked at.
    pub truncated: bool,
}

impl Tracker {
    /// Nothing counted yet. `window_sec`: only so much of the past counts; else all of it.
    #[must_use]
    pub fn new(spec: Spec, window_sec: Option<u64>) -> Self {
        let matchers = spec.objectives.iter().map(Matcher::new).collect();
        let series = spec.objectives.iter().map(|_| Series::new(&spec, window_sec)).collect();
        Self {
            spec,
            window_sec,
            matchers,
            series,
            lines: Lines::default(),
            counts: LineCounts::default(),
            span_ms: None,
            orders: None,
            orders_at_sec: 0,
        }
    }

    /// The objectives.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Counts the lines of a piece of the log. Requests without a time of their own get `arrived_ms`, if that is given.
    pub fn feed(&mut self, piece: &[u8], arrived_ms: Option<u64>) {
        let mut lines = std::mem::take(&mut self.lines);
        lines.push(piece, |line| self.line(line, arrived_ms));
        self.lines = lines;
    }

    /// Counts the last line, should it have no line feed.
    pub fn finish(&mut self, arrived_ms: Option<u64>) {
        let mut lines = std::mem::take(&mut self.lines);
        lines.finish(|line| self.line(line, arrived_ms));
    }

    fn line(&mut self, line: &[u8], arrived_ms: Option<u64>) {
        self.counts.lines += 1;
        match read(line) {
            Line::Request(request) => {
                let at_ms = request.at_ms.or(arrived_ms);
                self.request(&Request { at_ms, ..request });
            }
            Line::Stream => self.counts.streams += 1,
            Line::Other => self.counts.other += 1,
        }
    }

    fn request(&mut self, request: &Request<'_>) {
        const TOO_MANY_REQUESTS: u16 = 429;
        self.counts.requests += 1;
        if let Some(at_ms) = request.at_ms {
            let (from, to) = self.span_ms.unwrap_or((at_ms, at_ms));
            self.span_ms = Some((from.min(at_ms), to.max(at_ms)));
        }
        if request.status == TOO_MANY_REQUESTS {
            self.counts.limited += 1;
            return;
        }
        for (matcher, series) in self.matchers.iter().zip(&mut self.series) {
            if let Some(good) = matcher.judge(request) {
                series.add(Event {
                    at_ms: request.at_ms,
                    took: request.took,
                    good,
                });
            }
        }
    }

    /// Counts orders anew: they change, so all that matter are given each time. `truncated`: there may be older ones.
    pub fn set_orders(&mut self, orders: &[Order], now_sec: f64, truncated: bool) {
        for (at, objective) in self.spec.objectives.iter().enumerate() {
            if objective.of != Of::Orders {
                continue;
            }
            let mut series = Series::new(&self.spec, self.window_sec);
            orders
                .iter()
                .filter_map(|order| judge(objective, order, now_sec))
                .for_each(|event| series.add(event));
            self.series[at] = series;
        }
        self.orders_at_sec = unix_ms(now_sec).unwrap_or(0) / 1_000;
        self.orders = Some(OpenOrders::of(orders, now_sec, truncated));
    }

    /// Lines so far.
    #[must_use]
    pub fn counts(&self) -> LineCounts {
        self.counts
    }

    /// Oldest and newest time of a line, Unix milliseconds.
    #[must_use]
    pub fn span_ms(&self) -> Option<(u64, u64)> {
        self.span_ms
    }

    /// Open orders, when orders were looked at.
    #[must_use]
    pub fn open_orders(&self) -> Option<&OpenOrders> {
        self.orders.as_ref()
    }

    /// The window, when only that much of the past counts.
    #[must_use]
    pub fn window_sec(&self) -> Option<u64> {
        self.window_sec
    }

    /// Where the windows of an objective end when lines are at `now_sec`: orders have a time of their own, an old log may be read beside them.
    pub(crate) fn now_of(&self, objective: &Objective, now_sec: Option<u64>) -> u64 {
        match objective.of {
            Of::Requests => now_sec.unwrap_or(0),
            Of::Orders => self.orders_at_sec,
        }
    }

    /// Objectives with what was counted; those about orders only when orders were looked at.
    pub(crate) fn series(&self) -> impl Iterator<Item = (&Objective, &Series)> {
        let has_orders = self.orders.is_some();
        let all = self.spec.objectives.iter().zip(&self.series);
        all.filter(move |(objective, _)| objective.of == Of::Requests || has_orders)
    }
}

impl OpenOrders {
    fn of(orders: &[Order], now_sec: f64, truncated: bool) -> Self {
        let mut found = Self {
            truncated,
            ..Self::default()
        };
        let mut oldest: Option<&Order> = None;
        for order in orders.iter().filter(|order| order.is_open()) {
            found.open += 1;
            *found.by_status.entry(order.status.clone()).or_default() += 1;
            if oldest.is_none_or(|oldest| order.timestamp < oldest.timestamp) {
                oldest = Some(order);
            }
        }
        found.oldest_sec = oldest.map(|order| (now_sec - order.timestamp).max(0.0));
        found.oldest_id = oldest.map(|order| order.id.clone());
        found
    }
}

/// Which requests an objective is about, and which of them are good.
#[derive(Debug)]
struct Matcher {
    is_of_requests: bool,
    method: Option<Vec<u8>>,
    path: Option<PathRule>,
    max: Option<f64>,
}

#[derive(Debug)]
enum PathRule {
    Is(Vec<u8>),
    BeginsWith(Vec<u8>),
}

impl Matcher {
    fn new(objective: &Objective) -> Self {
        let rule = |path: &String| match path.strip_suffix('*') {
            Some(start) => PathRule::BeginsWith(start.into()),
            None => PathRule::Is(path.as_bytes().into()),
        };
        Self {
            is_of_requests: objective.of == Of::Requests,
            method: objective.method.as_ref().map(|method| method.as_bytes().into()),
            path: objective.path.as_ref().map(rule),
            max: objective.max_ms.map(|ms| ms * 10.0),
        }
    }

    /// Whether the request is good; `None` when the objective is not about it, or when it cannot be told.
    fn judge(&self, request: &Request<'_>) -> Option<bool> {
        const SERVER_ERRORS_FROM: u16 = 500;
        let is_path = match &self.path {
            None => true,
            Some(PathRule::Is(path)) => request.path == path,
            Some(PathRule::BeginsWith(start)) => request.path.starts_with(start),
        };
        let is_method = self.method.as_ref().is_none_or(|method| request.method == method);
        if !self.is_of_requests || !is_path || !is_method {
            return None;
        }
        let in_time = match (self.max, request.took) {
            (None, _) => true,
            (Some(max), Some(took)) => f64::from(took) <= max,
            (Some(_), None) => return None,
        };
        Some(in_time && request.status < SERVER_ERRORS_FROM)
    }
}

/// What was counted for one objective.
#[derive(Debug)]
pub(crate) struct Series {
    /// Everything; with a window only what has no time.
    whole: (Count, Histogram),
    /// What has no time.
    untimed: Count,
    /// The window, if there is one.
    window: Option<Window>,
    /// Per second, for the burn rate.
    seconds: Slots<Count>,
}

#[derive(Debug)]
struct Window {
    slot_sec: u64,
    len: u64,
    slots: Slots<(Count, Sparse)>,
}

impl Series {
    fn new(spec: &Spec, window_sec: Option<u64>) -> Self {
        let window = |sec: u64| {
            let slot_sec = (sec / WINDOW_SLOTS).max(1);
            let len = sec.div_ceil(slot_sec);
            Window {
                slot_sec,
                len,
                slots: Slots::new(usize::try_from(len).unwrap_or(usize::MAX)),
            }
        };
        Self {
            whole: Default::default(),
            untimed: Count::default(),
            window: window_sec.map(window),
            seconds: Slots::new(usize::try_from(spec.long_sec).unwrap_or(usize::MAX)),
        }
    }

    fn add(&mut self, event: Event) {
        let at_sec = event.at_ms.map(|ms| ms / 1_000);
        match at_sec {
            None => self.untimed.add(event.good),
            Some(at_sec) => self
                .seconds
                .at(at_sec)
                .into_iter()
                .for_each(|count| count.add(event.good)),
        }
        if let (Some(window), Some(at_sec)) = (&mut self.window, at_sec) {
            if let Some((count, few)) = window.slots.at(at_sec / window.slot_sec) {
                count.add(event.good);
                event.took.into_iter().for_each(|took| few.add(took));
            }
        } else {
            self.whole.0.add(event.good);
            event.took.into_iter().for_each(|took| self.whole.1.add(took));
        }
    }

    /// What counts at `now_sec`, and how long it took.
    pub(crate) fn period(&self, now_sec: u64) -> (Count, std::borrow::Cow<'_, Histogram>) {
        let (mut count, mut all) = (self.whole.0, std::borrow::Cow::Borrowed(&self.whole.1));
        if let Some(window) = &self.window {
            for (slot, few) in window.slots.last(now_sec / window.slot_sec, window.len) {
                count = count.and(*slot);
                all.to_mut().merge(few);
            }
        }
        (count, all)
    }

    /// What happened in the last `sec` seconds. What has no time counts as if it had happened just now.
    pub(crate) fn last(&self, now_sec: u64, sec: u64) -> Count {
        let timed = self
            .seconds
            .last(now_sec, sec)
            .fold(Count::default(), |sum, slot| sum.and(*slot));
        timed.and(self.untimed)
    }
}

impl Count {
    fn add(&mut self, good: bool) {
        self.events += 1;
        self.bad += u64::from(!good);
    }

    fn and(self, other: Self) -> Self {
        Self {
            events: self.events + other.events,
            bad: self.bad + other.bad,
        }
    }
}
