//! Policies and the world, from outside.

mod benchmarks;
mod fleets;
mod plans;
mod worlds;
