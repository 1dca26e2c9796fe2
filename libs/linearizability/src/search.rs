//! The search for an order of the operations that explains every answer.

use std::collections::HashSet;

use crate::history::{Entry, ModelKind, NEVER};
use crate::model::{State, after, changes_nothing};
use crate::violation::{Violation, ViolationKind};

/// Steps (operations tried) per key after which a search gives up.
pub const DEFAULT_BUDGET_STEPS: u64 = 20_000_000;

/// What a check that found nothing wrong has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Keys judged.
    pub keys: usize,
    /// Operations in the history.
    pub operations: usize,
    /// Operations tried in the search.
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

/// A checker that keeps its memory from one history to the next.
#[derive(Debug)]
pub struct Checker {
    budget_steps: u64,
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

    /// A checker that gives up on a key after so many steps.
    #[must_use]
    pub fn with_budget(budget_steps: u64) -> Self {
        Self { budget_steps }
    }

    /// Judges every key of `history`, in any order of entries.
    ///
    /// # Errors
    ///
    /// The first key whose history is not linearizable, or could not be decided within the budget, or is none.
    pub fn check(&mut self, history: &[Entry]) -> Result<Stats, Box<Violation>> {
        let mut stats = Stats::default();
        let mut entries: Vec<Entry> = history.iter().filter(|entry| entry.called != NEVER).copied().collect();
        entries.sort_by_key(|entry| (entry.key, entry.called));
        for of_key in entries.chunk_by(|a, b| a.key == b.key) {
            stats.keys += 1;
            stats.operations += of_key.len();
            stats.steps += self.check_key(of_key)?;
        }
        Ok(stats)
    }

    fn check_key(&mut self, history: &[Entry]) -> Result<u64, Box<Violation>> {
        let model = ModelKind::of(history);
        let mut best: Vec<usize> = Vec::new();
        let (mut steps, mut kind) = (0, ViolationKind::NotLinearizable);
        let mut stack: Vec<(Vec<usize>, State)> = vec![(Vec::new(), State::default())];
        let mut tried = HashSet::new();
        if model.is_none() {
            kind = ViolationKind::Malformed;
            stack.clear();
        }
        while let Some((order, state)) = stack.pop() {
            let mut done = vec![false; history.len()];
            order.iter().for_each(|&i| done[i] = true);
            let open = || history.iter().enumerate().filter(|(i, _)| !done[*i]);
            if open().all(|(_, entry)| !entry.is_certain()) {
                return Ok(steps);
            }
            if order.len() > best.len() {
                best.clone_from(&order);
            }
            steps += 1;
            if steps > self.budget_steps {
                kind = ViolationKind::Undecided;
                break;
            }
            let first_return = open().filter(|(_, e)| e.is_certain()).map(|(_, e)| e.returned).min();
            for (i, entry) in open().filter(|(_, e)| Some(e.called) <= first_return) {
                if let Some(next) = after(entry, state)
                    && (entry.is_certain() || !changes_nothing(entry))
                {
                    let mut order = order.clone();
                    order.push(i);
                    let mut done = done.clone();
                    done[i] = true;
                    if tried.insert((done, next)) {
                        stack.push((order, next));
                    }
                }
            }
        }
        let key = history.first().map_or(0, |entry| entry.key);
        Err(Box::new(Violation {
            key,
            kind,
            model,
            history: history.to_vec(),
            order: best,
            stuck: Vec::new(),
            explanation: "no order of the operations explains every answer".to_owned(),
        }))
    }
}
