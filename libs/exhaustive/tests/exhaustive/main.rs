//! The real protocol explored within bounds, and wrong ones that an exploration must find.

mod plans;
mod protocol;
mod reductions;
mod wrong;
