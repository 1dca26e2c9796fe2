//! What happened, counted: one line per phase, one per new kind of error within a phase, a summary at the end.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What became of a run's orders.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Orders the system has, each counted once.
    pub accepted: u64,
    /// Of these, orders whose first answer was lost: a later attempt was answered 200.
    pub repeated: u64,
    /// Orders given up: refused, or out of attempts. A given-up order whose answer never came may exist all the same.
    pub failed: u64,
    /// Orders not even tried because too many were under way.
    pub skipped: u64,
    /// Orders still under way when the run was stopped; they may exist.
    pub unfinished: u64,
    /// Attempts beyond an order's first.
    pub retries: u64,
    /// Attempts answered with 429.
    pub limited: u64,
}

impl Summary {
    /// Orders that were sent.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.accepted + self.failed + self.unfinished
    }

    /// Orders answered with 201.
    #[must_use]
    pub fn created(&self) -> u64 {
        self.accepted - self.repeated
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} accepted, {} of them repeated, {} failed",
            self.accepted, self.repeated, self.failed
        )?;
        for (count, what) in [
            (self.skipped, "skipped"),
            (self.unfinished, "unfinished"),
            (self.retries, "retries"),
            (self.limited, "rate-limited"),
        ] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        Ok(())
    }
}

/// Errors of the present phase by class, shared by all orders under way.
#[derive(Debug, Default)]
pub(crate) struct Errors(Mutex<BTreeMap<String, u64>>);

impl Errors {
    /// Counts an error; the first of its class in a phase is also logged.
    pub(crate) fn note(&self, class: &str, detail: &str) {
        let mut classes = self.lock();
        let first = match classes.get_mut(class) {
            Some(count) => {
                *count += 1;
                false
            }
            None => classes.insert(class.to_owned(), 1).is_none(),
        };
        drop(classes);
        if first {
            tracing::warn!(class, detail, "an attempt failed; more of this kind are counted only");
        }
    }

    /// `, errors: 503 × 2, connect × 7`, or nothing; starts counting anew.
    pub(crate) fn take(&self) -> String {
        let classes = std::mem::take(&mut *self.lock());
        let list: Vec<String> = classes
            .iter()
            .map(|(class, count)| format!("{class} × {count}"))
            .collect();
        if list.is_empty() {
            String::new()
        } else {
            format!(", errors: {}", list.join(", "))
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        // Counting cannot leave the map half changed, so a poisoned lock is still good.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_counted_by_class_and_phase() {
        let errors = Errors::default();
        assert_eq!(errors.take(), "");
        errors.note("connect", "refused");
        errors.note("503", "no quorum");
        errors.note("connect", "refused");
        assert_eq!(errors.take(), ", errors: 503 × 1, connect × 2");
        assert_eq!(errors.take(), "");
    }

    #[test]
    fn the_summary_leaves_out_what_did_not_happen() {
        let mut summary = Summary {
            accepted: 20,
            repeated: 1,
            ..Summary::default()
        };
        assert_eq!(summary.to_string(), "20 accepted, 1 of them repeated, 0 failed");
        summary.retries = 3;
        assert_eq!(
            summary.to_string(),
            "20 accepted, 1 of them repeated, 0 failed, 3 retries"
        );
    }
}
