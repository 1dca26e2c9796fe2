//! The optimum over all pairs from a few candidates per row: column generation (as in Volgenant, *Linear and semi-assignment problems: a
//! core oriented approach*, 1996).
//!
//! A matching that is optimal for the listed candidates is so for all pairs if no pair that is not listed has cost and price below the
//! row's value: then values and prices prove it for all pairs (see [`certificate`](crate::certificate)). So: solve, ask for such pairs, add them,
//! solve again from where it was, until there are none. Each round adds at least one of finitely many pairs.

use crate::limit::Stopped;
use crate::slots::{ColumnId, RowId};
use crate::solver::{Error, Solver, Summary};

/// Most pairs added to a row in one round, the best ones. The others are mostly not so good any more once those are there.
const ADDED_PER_ROUND: usize = 8;

/// Why there is no optimum over all pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PricingError {
    /// The limit was reached.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// A pair that was told cannot be.
    #[error(transparent)]
    Refused(#[from] Error),
}

impl Solver {
    /// Finds the matching that is optimal over all pairs, also those not listed as candidates.
    ///
    /// `unlisted(solver, row, below, pairs)` is asked for each row, some rounds long. It must append to `pairs` every column that the row may
    /// take for a cost less than `below`, with the cost; more do no harm. Listed candidates may be left out. `below` is the row's value less
    /// the lowest price, so no others matter; `solver` tells all prices, for callers who can rule out more by them. Pairs that are needed
    /// become candidates.
    ///
    /// The limit is as in [`solve_within`](Solver::solve_within), over all rounds; what `unlisted` does is not counted.
    ///
    /// # Errors
    /// [`PricingError::Stopped`] at the limit, [`PricingError::Refused`] for a column or cost that cannot be.
    pub fn solve_with_pricing(
        &mut self,
        limit: u64,
        mut unlisted: impl FnMut(&Self, RowId, i64, &mut Vec<(ColumnId, i64)>),
    ) -> Result<Summary, PricingError> {
        let (mut work, mut searches) = (0, 0);
        let mut pairs = Vec::new();
        loop {
            let round = self
                .solve_within(limit.saturating_sub(work))
                .map_err(|stopped| Stopped {
                    work: stopped.work + work,
                    ..stopped
                })?;
            work += round.work;
            searches += round.searches;
            let mut added: Vec<(RowId, Vec<(ColumnId, i64)>)> = Vec::new();
            let lowest_price = self.columns().map(|column| self.price(column)).min().unwrap_or(0);
            for row in self.rows() {
                let value = self.value(row);
                pairs.clear();
                unlisted(self, row, value - lowest_price, &mut pairs);
                pairs.retain(|&(column, cost)| cost.saturating_add(self.price(column)) < value);
                if !pairs.is_empty() {
                    pairs.sort_unstable_by_key(|&(column, cost)| (cost.saturating_add(self.price(column)), column));
                    pairs.truncate(ADDED_PER_ROUND);
                    added.push((row, pairs.clone()));
                }
            }
            if added.is_empty() {
                return Ok(Summary {
                    work,
                    searches,
                    ..round
                });
            }
            for (row, pairs) in added {
                self.add_candidates(row, &pairs)?;
            }
        }
    }
}
