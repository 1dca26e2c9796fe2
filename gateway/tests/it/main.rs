//! The gateway as its clients see it, over real HTTP, with an in-memory KV and the in-process bus.

#![expect(
    clippy::unwrap_used,
    reason = "a panic in a test's helpers is the report, as it is in the tests"
)]

mod cancelling;
mod cluster;
mod events;
mod orders;
mod reads;
mod world;
