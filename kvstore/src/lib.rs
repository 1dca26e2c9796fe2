//! One node of the KV cluster: a thin shell of SQLite, LRU and HTTP around the acceptor of [`register`].
//!
//! A node knows no peers. It answers what coordinators (kvfront) ask, durably and in order, and it shows what it holds itself to
//! whoever wants to look. What is promised to coordinators is said in [`storage`]; the protocol is [`register::acceptor`]'s.
//!
//! - [`config`]: settings. - [`storage`]: the durable part. - [`clock`]: the node's hybrid logical clock. - [`clock_watch`]: whether it is wrong.
//! - [`http`]: the calls under `/internal` for coordinators, the KV API over the node's own data for everybody else.
//!
//! A node counts for nothing in the cluster until a coordinator has admitted it: after its first start, after every restart, and after its
//! disk was lost ([`register::membership`]). Its own KV API works all the same.
//!
//! **Outside the guarantee:** everything under `/kv` and `/lock` acts on this node alone. A put, CAS or lock taken here is one replica's
//! opinion, visible through the cluster only as far as last-write-wins carries it. Programs talk to kvfront.

pub mod clock;
pub mod clock_watch;
pub mod config;
pub mod http;
mod node;
pub mod storage;

pub use config::Config;
pub use node::{Node, run, run_with_clock};
