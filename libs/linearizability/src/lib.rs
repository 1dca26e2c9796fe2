//! Could one single register (or lock) have given these answers?
//!
//! # What is judged
//!
//! Clients ask a store for things and are answered. Each operation lasts from its call to its answer, and may overlap others. The
//! history is *linearizable* when one can choose a moment for each operation, between its call and its answer, so that a single register
//! doing the operations one by one at those moments gives exactly those answers. In other words: however many nodes there are and
//! whatever fails, nobody can tell the store from one that does one thing after the other. Histories of different keys can be judged
//! apart: if each is linearizable, all of them together are.
//!
//! An operation whose outcome nobody knows has [`NEVER`] as its answer: it may happen once at any time after its call, or not at all. One
//! that certainly did nothing is not part of the history.
//!
//! There are two specifications ([`ModelKind`]), told apart by the operations of a key:
//!
//! - a *register* with reads, writes, deletes and compare-and-swap. Its state is a value, and the highest fence a change came with: a
//!   change with a lower one must be refused with that very number, one with no fence passes and leaves it as it is;
//! - a *lock*. Its state is the holder's token, whether it is owned, and the last fence: each acquisition finds it free and gets a higher
//!   fence than all before; it is freed by its token, without one if it has no owner, or by an [`Op::End`].
//!
//! Values and locks that end by themselves have an [`Op::End`], nobody's operation. Who may believe to hold such a lock at a given time
//! is another question, for [`one_holder`].
//!
//! ```
//! use linearizability::{Entry, Op, check};
//!
//! let mut history = vec![
//!     Entry::new(0, 1, 0, 5, Op::Write(Some(3))), // client 0, key 1, from 0 to 5
//!     Entry::new(1, 1, 2, 9, Op::Cas { expected: Some(3), new: Some(7), swapped: Some(true) }),
//!     Entry::new(2, 1, 4, 12, Op::Read(Some(3))),
//! ];
//! assert!(check(&history).is_ok());
//!
//! history[2].called = 10; // after the CAS had been answered: 3 was gone
//! let violation = check(&history).unwrap_err();
//! assert_eq!(violation.history[violation.stuck[0]].op, Op::Read(Some(3)));
//! ```
//!
//! # How to read a timeline
//!
//! A [`Violation`] shows itself as a [`timeline`]; [`shrink`] it first. The one of the history above:
//!
//! ```text
//! time  c0  c1  c2
//!    0  ┬            c0 ▸ write 3
//!    2  │   ┬        c1 ▸ cas 3→7
//!    5  ┴   │        c0 ◂ write 3 ok  #1
//!    9      ┴        c1 ◂ cas 3→7 ok  #2
//!   10          ┬    c2 ▸ read
//!   12          ┴    c2 ◂ read → 3  ✗
//! ```
//!
//! One lane per client, from call (`┬`) to answer (`┴`); time flows down, not to scale. `✗` is the first answer with which the history
//! cannot be explained any more. Up to there it could: the numbers `#1`, `#2` are an order that does so (there may be others), and
//! operations without number need not have happened. So ask: which answer before it contradicts the marked one? Here the CAS: it had
//! been answered before the read was asked, so no reader may see 3 again. `?` stands for what was never answered, `∅` for absent, and the
//! lane `·` for values that may end from then on.
//!
//! # How it is judged
//!
//! By Wing & Gong's search (1993) with Lowe's memory of configurations (2017), see `search/explore.rs`. The problem is hard in general,
//! so there is a budget, and a history that is not decided within it is a [`ViolationKind::Undecided`], never a pass. What keeps
//! thousands of operations on one key within it is that nearly every write has a value of its own.

mod cut;
mod history;
mod holder;
mod model;
mod search;
mod shrink;
pub mod timeline;
mod violation;

pub use history::{Entry, ModelKind, NEVER, Op, Time, Value};
pub use holder::one_holder;
pub use search::{Checker, DEFAULT_BUDGET_STEPS, Stats, check};
pub use shrink::shrink;
pub use violation::{Violation, ViolationKind};
