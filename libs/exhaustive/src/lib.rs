//! Every execution of a small register within stated bounds: a model checker over the real state machines.
//!
//! One key, two homes and a spare, two or three coordinators, a few operations. [`explore`] visits every world that can be reached from a
//! [`Configuration`]'s start, breadth first, and stops at the first thing that must never be, by the shortest way there is.
//!
//! # What is real
//! The acceptor's `decide`, the proposer's `Operation` with its `Coordinator` (clock, ballots, reservations), `HandOver` and `Collect` are
//! the code of `libs/register`, compiled with its wrong variants. Nothing of the protocol is modelled again.
//!
//! # What may happen
//! - A message in flight may arrive at any moment, in any order, or never: that is loss, delay, partitions and crashed nodes alike, as a
//!   node's answers leave only when what they tell is durable. A crash so loses nothing but messages.
//! - Timers that are armed (spare, phase, pause) run out at any moment, in any order; wall clocks stand still, or jump (bounded).
//! - A client calls an operation at any moment at which its [`Planned::after`] lets it. Operations before it that still run reach their
//!   deadline then. A coordinator that dies is an operation that takes no further step: that is part of every prefix, and all prefixes are
//!   judged. What a dead coordinator forgets shows with an operation at another coordinator.
//! - Repeated requests and refused connections, each bounded in number.
//!
//! # What is judged
//! After every answer, that the history so far (with what is pending) is linearizable, by `libs/linearizability`; after every request, that
//! no promise, accepted ballot or floor of a node falls, that what is refused stays refused, and that one ballot names one state.
//!
//! # What makes it exhaustive
//! "Right" means: no execution of the configuration in which each operation begins at most [`Bounds::rounds`] rounds, in which at most
//! [`Bounds::timeouts`] spare and phase timers run out, at most [`Bounds::lost_answers`] answers to requests that changed a node are lost
//! where answers are prompt, and the other bounds hold, does anything wrong. [`Report::beyond`] counts what was cut off. Requests may be
//! lost without bound. Worlds are told apart by 128-bit fingerprints: that two of 10^8 share one has a chance below 10^-22.
//!
//! # What is left out, and why nothing is missed by it
//! - *Idle messages* ([`Configuration::drop_refused`]): answers that nobody waits for any more (a machine's rounds only grow, and it takes
//!   one answer per node and round), and requests that nobody waits for and the node refuses, as it then does for ever; that it does is
//!   itself judged.
//! - *Deadlines* run out just before the operation is called that waits for them. They send nothing, and tell the client nothing that has
//!   an order, so every other execution can be rearranged into one of these.
//! - *A last read* that comes after everything is called at once: its requests may be as late as they like.
//! - *Prompt answers* ([`Configuration::prompt_answers`]): an answer arrives at once or never. A late answer is noted in its round, which is
//!   a set: nobody sees it before the operation moves on. Take the answers that made it move, and let the others be lost: with these arriving
//!   at once it moves when the last of them was given, or earlier, sends the same, whose messages may be as late as before, and returns
//!   earlier, which only adds to what the history must explain. This is an argument about how rounds are judged today, and only for
//!   coordinators that do not serve two operations at a time; so a test compares the histories with and without, and one exploration goes
//!   without.
//!
//! # Repetition by the transport
//! The protocol counts on each request being delivered once before it is answered: a change refused by all that were asked is as if it had
//! never been sent, which is wrong when an earlier copy was taken and only the later one's answer is seen. [`Bounds::transport_repeats`]
//! finds that within a few steps; copies that arrive *after* the answered delivery are harmless ([`Bounds::duplicates`]).
//!
//! # Why not `stateright`
//! `stateright` 0.31 was weighed: 65 crates in its tree (an HTTP server and a browser interface among them), states hashed whole, field by
//! field, with 64-bit fingerprints, and a path kept with each waiting state. A world here is a row of some twenty numbers: its parts (a
//! node, an operation, a message) come in thousands of forms that are combined in millions of ways, so each form is kept once (the
//! "collapse compression" of SPIN, Holzmann 1997), and each step of a state machine is worked out once and looked up from then on. That takes
//! tens of bytes a state and needs nothing of the register's types but `Clone` and `Debug`.

mod configuration;
mod delivery;
mod engine;
mod fingerprint;
mod history;
mod message;
mod node;
mod process;
mod search;
mod start;
mod story;
mod world;

pub use configuration::{
    ANY, Bounds, Chore, Configuration, FIRST_VALUE, HOMES, JUMP_MS, MAX_COORDINATORS, MAX_MESSAGES, MAX_PROCESSES,
    NODES, Planned, SPARE, Start, TTL_MS, Verb,
};
pub use search::{Counterexample, Report, explore};
