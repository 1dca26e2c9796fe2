//! The gateway as its clients see it, over real HTTP, with an in-memory KV and the in-process bus.

mod cancelling;
mod orders;
mod reads;
mod world;
