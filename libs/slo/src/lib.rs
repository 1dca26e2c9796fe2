//! Are the promises kept? Lines of lb's access log and records of orders go in, a verdict per objective comes out.
//!
//! Promises: no network, no clock (the caller passes the time where it matters), memory that depends on the windows and not on the length
//! of the log. Counting is in whole numbers, so a verdict flips at exactly the line at which it has to.
//!
//! - [`line`]: one line of the log, in each of its formats.
//! - [`time`]: the times that stand in logs.
//! - [`lines`]: whole lines out of pieces of any size.
//! - [`histogram`]: latencies; [`window`]: what happened in the last so many seconds.
//! - [`spec`]: the objectives, read from a file or the built-in ones.
//! - [`tracker`]: counts what comes; [`orders`]: what orders say about themselves.
//! - [`report`]: the verdicts, for people and for programs.
//! - [`intervals`]: requests, errors and percentiles per interval.

pub mod histogram;
pub mod intervals;
pub mod line;
pub mod lines;
pub mod orders;
pub mod report;
pub mod spec;
pub mod time;
pub mod tracker;
pub mod window;

pub use orders::Order;
pub use report::{Report, Verdict};
pub use spec::{Spec, SpecError};
pub use tracker::Tracker;
