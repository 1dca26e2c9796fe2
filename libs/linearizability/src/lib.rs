//! Could one single register (or lock) have given these answers?
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
