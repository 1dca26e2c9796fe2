//! Policies and the world, from outside.

mod plans;
mod worlds;
