//! The policies, each a pure function over a [`Snapshot`](crate::snapshot::Snapshot).

pub mod coverage;
pub mod greedy;
pub mod matching;
pub mod optimal;
