//! Drones, deliveries, zones and energy: pure types and functions, without I/O, async, clock or randomness.
//!
//! This crate is where the rules of the house live, each exactly once: the JSON shapes of the records kept in the KV, which
//! change of a record is allowed from which state, how far and how costly a flight is, what a valid order looks like, and
//! how keys, queues and message bodies are called. Times come in as Unix seconds (`f64`, the `now` parameters); whoever
//! calls owns the clock.
//!
//! A *transition* is a function from a record to the next record. It never changes its input, so the caller can make it
//! true with a compare-and-swap from exactly the state it looked at, and a repeated or late event ends in a typed error.

pub mod chargers;
mod class;
pub mod delivery;
pub mod drone;
pub mod energy;
pub mod events;
pub mod geo;
pub mod keys;
pub mod no_fly;
pub mod order;
pub mod priority;
pub mod way;
pub mod zones;
