//! Pictures of histories, for people: as text for a terminal, and as an SVG.
//!
//! Both show one lane per client. An operation lasts from its call to its answer; one that was never answered stays open. Time is shown
//! by the order of calls and answers, not to scale, as the mistakes are where things are close together. A number such as `#3` is an
//! operation's place in an order that explains all answers until the first that no order explains; that one is marked.

mod lanes;
mod svg;
mod text;

use crate::history::{Entry, NEVER};
use crate::search::Checker;
use crate::violation::{Violation, ViolationKind};

/// Operations tried to find out what to mark: a picture is worth no more.
const MARK_BUDGET_STEPS: u64 = 1_000_000;

/// Rows shown of a violation: some screens.
const VIOLATION_ROWS: usize = 150;

/// The history as text of at most 120 columns, time flowing down; one picture per key.
#[must_use]
pub fn text(history: &[Entry]) -> String {
    pictures(history)
        .iter()
        .map(|picture| text::draw(picture, None))
        .collect()
}

/// The history as a self-contained SVG, time flowing to the right, for light and dark surroundings; the keys below each other.
#[must_use]
pub fn svg(history: &[Entry]) -> String {
    svg::draw(&pictures(history))
}

/// Around what is wrong.
pub(crate) fn of_violation(violation: &Violation) -> String {
    text::draw(&Picture::of_violation(violation), Some(VIOLATION_ROWS))
}

/// What is drawn of one key.
struct Picture {
    key: u32,
    /// Sorted by call.
    history: Vec<Entry>,
    /// By entry: its place in the order, from 1.
    places: Vec<Option<usize>>,
    /// By entry: it is what went wrong.
    wrong: Vec<bool>,
    /// Below the picture.
    remark: Option<String>,
}

impl Picture {
    fn of_violation(violation: &Violation) -> Self {
        let mut picture = Self::plain(violation.key, violation.history.clone());
        for (number, &place) in violation.order.iter().enumerate() {
            picture.places[place] = Some(number + 1);
        }
        for &place in &violation.stuck {
            picture.wrong[place] = true;
        }
        picture
    }

    fn plain(key: u32, history: Vec<Entry>) -> Self {
        Self {
            key,
            places: vec![None; history.len()],
            wrong: vec![false; history.len()],
            history,
            remark: None,
        }
    }

    fn of_key(history: &[Entry]) -> Self {
        match Checker::with_budget(MARK_BUDGET_STEPS).check(history) {
            Err(violation) => {
                let mut picture = Self::of_violation(&violation);
                let what = match violation.kind {
                    ViolationKind::Undecided => "not decided",
                    _ => "wrong",
                };
                picture.remark = Some(format!("{what}: {}", violation.explanation));
                picture
            }
            Ok(_) => Self::plain(history.first().map_or(0, |entry| entry.key), history.to_vec()),
        }
    }

    /// What stands beside an operation: what was asked, the answer, its place.
    fn label(&self, entry: usize) -> String {
        let place = self.places[entry]
            .map(|place| format!("  #{place}"))
            .unwrap_or_default();
        let wrong = if self.wrong[entry] { "  ✗" } else { "" };
        format!("{}{place}{wrong}", self.history[entry])
    }
}

fn pictures(history: &[Entry]) -> Vec<Picture> {
    let mut sorted: Vec<Entry> = history.iter().filter(|entry| entry.called != NEVER).copied().collect();
    sorted.sort_by_key(|entry| (entry.key, entry.called));
    sorted.chunk_by(|a, b| a.key == b.key).map(Picture::of_key).collect()
}
