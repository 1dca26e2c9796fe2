//! Who takes what at the least total cost: exact minimum-cost bipartite matching that stays warm while the problem changes.
//!
//! # The problem
//!
//! *Rows* (orders) are to be matched with *columns* (drones). Each row has *candidates*: columns it may take, and what each costs. Each
//! column is taken by at most one row, each row takes at most one column, or none for its own *unserved cost*. Wanted is the matching for
//! which all costs together are the least. Costs are integers within ±[`COST_MAX`], so there is no rounding anywhere; a row's unserved
//! cost says how much it is worth to serve it: a candidate that costs more is never taken.
//!
//! ```
//! use assignment::Solver;
//!
//! let mut solver = Solver::new();
//! let (near, far) = (solver.add_column()?, solver.add_column()?);
//! let first = solver.add_row(600, &[(near, 10), (far, 20)])?;
//! let second = solver.add_row(600, &[(near, 15), (far, 90)])?;
//! // First come, first served would cost 10 + 90.
//! assert_eq!(solver.solve().cost, 20 + 15);
//! assert_eq!(solver.column_of(first), Some(far));
//!
//! // The next tick: a drone is gone, an order waits for longer. Only what this changes is computed anew.
//! solver.remove_column(far)?;
//! solver.set_unserved(first, 700)?;
//! let summary = solver.solve_within(1_000_000)?;
//! assert_eq!((summary.cost, summary.matched), (10 + 600, 1));
//! assert_eq!((solver.column_of(first), solver.column_of(second)), (Some(near), None));
//! solver.verify()?; // the proof that no matching costs less
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How it works
//!
//! Imagine a market. Each column has a *price*, from 0 up, and each row wants the candidate with the least cost + price; that sum, or the
//! unserved cost if it is less, is the row's *value*. If prices are such that everybody gets what it wants, nobody wants the same, and what
//! nobody takes is free, then the matching is optimal ([`certificate`] shows why, and checks it). So the solver looks for prices. Between any
//! two steps its state is *proper*:
//!
//! - cost + price − value, the *reduced cost*, is negative for no candidate, and 0 for every match;
//! - no price is below 0, no value above the unserved cost.
//!
//! All that can still be wrong are unmatched rows whose value is below their unserved cost, and unmatched columns with a price. They are
//! *active*, and each step makes one less of them. Seen with minus the values, rows and columns play the very same part: each has a
//! *potential* and a *floor* (minus the unserved cost, or 0) on which it must lie while unmatched. So all steps are written once, for a
//! *near* and a *far* side:
//!
//! 1. `repair` makes the state proper after changes, and spoils as few matches as it can.
//! 2. `scaling`, only if nothing is known yet: auctions with ever smaller ε find prices that are nearly right.
//! 3. `bidding`: active vertices bid for their best partners, which settles most of them cheaply.
//! 4. `search`: from each active vertex left, the shortest augmenting path by Dijkstra's algorithm on reduced costs, as in R. Jonker and
//!    A. Volgenant, *A shortest augmenting path algorithm for dense and sparse linear assignment problems*, Computing 38 (1987), 325–340. After
//!    at most as many searches as there are rows and columns nobody is active, whatever the steps before have left.
//!
//! First rows are near, then columns. In an auction from nothing the smaller side bids, so 10,000 orders do not outbid each other for
//! 2,000 drones. Steps 1 to 3 are there for speed only; the proof of the result needs none of them.
//!
//! # Staying warm
//!
//! Matching and potentials stay between calls. After a change only vertices near to it become active, and each costs at most one search. The
//! cost is the same as from cold; the matching may be another one that costs the same. Rows and columns have ids ([`RowId`], [`ColumnId`])
//! that are never used twice; their [slots](RowId::slot) are, and index tables of the caller.
//!
//! # Ties
//!
//! The result is a function of the calls made, in their order, and of nothing else: no hashing, no clock, no randomness. Vertices are taken by
//! their slots; of edges that are equally good the one with the lower cost, then the lower slot is looked at first; of paths
//! equally long the one that was finished first; and who can be matched or not for the same cost is mostly left as it is.
//!
//! # Limits
//!
//! Work is counted in scanned edges, not in time ([`Solver::solve_within`]). Memory: 16 bytes per candidate, about 100 per row or column,
//! and what vectors keep in reserve.
//!
//! # Which candidates?
//!
//! [`grid`] finds the nearest points in exact order. The optimum over these candidates may not be the one over all pairs;
//! [`Solver::solve_with_pricing`] adds those that are needed until it is.

mod bidding;
pub mod certificate;
mod graph;
pub mod grid;
mod limit;
mod pricing;
mod queue;
mod repair;
mod scaling;
mod search;
mod slots;
mod solver;

pub use certificate::{Flaw, Instance, InstanceRow, Solution};
pub use graph::{COST_MAX, VERTICES_MAX};
pub use grid::Grid;
pub use limit::Stopped;
pub use pricing::PricingError;
pub use slots::{ColumnId, RowId};
pub use solver::{Error, Solver, Summary};
