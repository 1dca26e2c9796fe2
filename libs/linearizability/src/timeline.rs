//! Pictures of a history.

use std::fmt::Write as _;

use crate::history::{Entry, NEVER};
use crate::violation::Violation;

/// The history as text.
#[must_use]
pub fn text(history: &[Entry]) -> String {
    let mut drawn = String::new();
    for entry in history.iter().filter(|entry| entry.called != NEVER) {
        // Writing to a string cannot fail.
        let _ = writeln!(
            drawn,
            "{:>8} client {} key {}: {entry}",
            entry.called, entry.client, entry.key
        );
    }
    drawn
}

/// The history as a self-contained SVG.
#[must_use]
pub fn svg(history: &[Entry]) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\"><text>{}</text></svg>",
        text(history).replace('&', "&amp;").replace('<', "&lt;")
    )
}

pub(crate) fn of_violation(violation: &Violation) -> String {
    text(&violation.history)
}
