//! The replicated register: what keeps reads, CAS, deletes and locks of one key linearizable on any two of three nodes.
//!
//! Sans-I/O: messages go in, messages come out, time is passed in. There are no sockets, no disk, no `async` and no clock here, so the
//! very same code runs behind HTTP and SQLite and under a seeded simulator.
//!
//! - [`ballot`]: hybrid logical clock readings that are LWW timestamp and Paxos ballot in one.
//! - [`state`]: what a key holds, and what an acceptor keeps of it.
//! - [`message`]: what coordinator and acceptor say to each other.
//! - [`acceptor`]: the node's side, a pure decision per request.
//! - [`proposer`]: the coordinator's side, one small state machine per operation.
//! - [`errand`]: what coordinators do of their own accord: [`handover`], a spare's record moving home; [`collect`], a tombstone leaving
//!   everywhere; [`refill`], one key of a node whose disk was lost.
//! - [`membership`]: which nodes vote; a node whose disk was lost.
//! - [`hashing`]: where keys belong, and the hash tree that compares replicas.
//! - [`scan`]: pages of scans.
//! - [`teeth`]: deliberately wrong protocols, for the simulator only.
//! - [`change`]: how a command turns one state into the next (CAS, locks, TTL), shared by proposer and the node-local API.
//!
//! The protocol is CASPaxos (Rystsov 2018, arXiv 1802.07000) over two homes and a spare, with blind writes, hand-over and forgetting.

pub mod acceptor;
pub mod ballot;
pub mod change;
pub mod collect;
pub mod errand;
pub mod handover;
pub mod hashing;
pub mod membership;
pub mod message;
pub mod proposer;
pub mod refill;
pub mod scan;
pub mod state;
pub mod teeth;

pub use ballot::{Ballot, HlcTime};
pub use membership::{Epoch, Standing};
pub use message::{Envelope, EnvelopeReply, Reply, Request};
pub use state::{Key, Lineage, Record, RequestId, State};
