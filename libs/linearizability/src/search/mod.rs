//! The search for an order of the operations that explains every answer.

mod explain;
mod explore;
mod fences;
mod fingerprint;
mod steps;
mod values;

use explore::{Explorer, Found};
use steps::Steps;

use crate::history::{Entry, ModelKind, NEVER};
use crate::violation::{Violation, ViolationKind};

/// Operations tried per key after which a search gives up: some seconds' worth.
pub const DEFAULT_BUDGET_STEPS: u64 = 10_000_000;

/// What a check that found nothing wrong has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Keys judged.
    pub keys: usize,
    /// Operations judged.
    pub operations: usize,
    /// Operations tried in the search; equal to those placed when it never had to turn back.
    pub steps: u64,
}

/// Checks `history` with the default budget. See [`Checker::check`].
///
/// # Errors
///
/// As [`Checker::check`].
pub fn check(history: &[Entry]) -> Result<Stats, Box<Violation>> {
    Checker::new().check(history)
}

/// A checker that keeps its memory from one history to the next, for those who check many.
#[derive(Debug)]
pub struct Checker {
    budget_steps: u64,
    /// The history in the order of keys and calls.
    sorted: Vec<Entry>,
    steps: Steps,
    explorer: Explorer,
}

impl Default for Checker {
    fn default() -> Self {
        Self::new()
    }
}

impl Checker {
    /// A checker with [`DEFAULT_BUDGET_STEPS`].
    #[must_use]
    pub fn new() -> Self {
        Self::with_budget(DEFAULT_BUDGET_STEPS)
    }

    /// A checker that gives up on a key after trying so many operations.
    #[must_use]
    pub fn with_budget(budget_steps: u64) -> Self {
        Self {
            budget_steps,
            sorted: Vec::new(),
            steps: Steps::default(),
            explorer: Explorer::default(),
        }
    }

    /// Judges every key of `history`, whose entries may stand in any order.
    ///
    /// # Errors
    ///
    /// The first key whose history is not linearizable, or could not be decided within the budget, or is none.
    pub fn check(&mut self, history: &[Entry]) -> Result<Stats, Box<Violation>> {
        let mut sorted = std::mem::take(&mut self.sorted);
        sorted.clear();
        sorted.extend(history.iter().filter(|entry| entry.called != NEVER));
        let place = |entry: &Entry| (entry.key, entry.called);
        if !sorted.is_sorted_by_key(place) {
            sorted.sort_by_key(place);
        }
        let result = self.check_sorted(&sorted);
        self.sorted = sorted;
        result
    }

    fn check_sorted(&mut self, sorted: &[Entry]) -> Result<Stats, Box<Violation>> {
        let mut stats = Stats::default();
        for of_key in sorted.chunk_by(|a, b| a.key == b.key) {
            let Some(model) = ModelKind::of(of_key).filter(|_| of_key.iter().all(|e| e.called <= e.returned)) else {
                return Err(Box::new(explain::malformed(of_key)));
            };
            let found = self.search(of_key, model);
            stats.keys += 1;
            stats.operations += of_key.len();
            stats.steps += self.explorer.steps;
            match found {
                Found::Order => {}
                Found::Nothing => return Err(Box::new(self.explain(of_key, model))),
                Found::NoEnd => return Err(Box::new(self.undecided(of_key, model))),
            }
        }
        Ok(stats)
    }

    /// Searches an order for the history of one key, sorted by call.
    fn search(&mut self, history: &[Entry], model: ModelKind) -> Found {
        self.steps.load(history, model);
        self.explorer.run(&mut self.steps, self.budget_steps)
    }

    fn undecided(&self, history: &[Entry], model: ModelKind) -> Violation {
        Violation {
            key: explain::key_of(history),
            kind: ViolationKind::Undecided,
            model: Some(model),
            history: history.to_vec(),
            order: self.explorer.order(&self.steps, Found::NoEnd),
            stuck: Vec::new(),
            explanation: format!(
                "no order found and none excluded after trying {} operations",
                self.explorer.steps
            ),
        }
    }
}
