//! One node of the KV cluster: a thin shell of SQLite, LRU and HTTP around the acceptor of [`register`].
//!
//! A node knows no peers. It answers what coordinators (kvfront) ask, durably and in order, and it shows what it holds itself to
//! whoever wants to look. What is promised to coordinators is said in [`storage`]; the protocol is [`register::acceptor`]'s.
//!
//! - [`config`]: settings. - [`storage`]: the durable part. - [`clock`]: the node's hybrid logical clock.
//! - [`http`]: `/internal/exchange` and `/internal/page` for coordinators, the KV API over the node's own data for everybody else.
//!
//! **Outside the guarantee:** everything under `/kv` and `/lock` acts on this node alone. A put, CAS or lock taken here is one replica's
//! opinion, visible through the cluster only as far as last-write-wins carries it. Programs talk to kvfront.

pub mod clock;
pub mod config;
pub mod http;
mod node;
pub mod storage;

pub use config::Config;
pub use node::{Node, run, run_with_clock};
