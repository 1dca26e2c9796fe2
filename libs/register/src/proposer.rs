//! The coordinator's side of the protocol: one small state machine per operation.
//!
//! [`Operation::handle`] takes an [`Event`] (start, a reply, a failure, a timer) and gives [`Action`]s (send, set a timer, done). It
//! never waits, never reads a clock and never touches the network, so the code that serves HTTP is the code that is simulated.
//!
//! The protocol is CASPaxos (Rystsov 2018, §2.2) with six additions, each argued where it is taken:
//! - *Reads* ask for accepted states only, and write the newest back before they answer.
//! - *Blind writes* (put, delete) go straight to accept: last write wins needs no read.
//! - *One round trip* when the same coordinator changes a key again: its accept reserved the next ballot ([`memory`]).
//! - *Spares* stand in for a home that does not answer. A spare hands its record over and forgets it; the floor it then carries says that
//!   its "nothing" is not "never anything" ([`Doubt`](evidence::Doubt)).
//! - *Learning*: when some nodes took a change and some did not, a prepare at a higher ballot settles what became of it. Only when that
//!   cannot be told is the outcome unknown; it is never retried silently then.
//! - *Request ids* ([`Retry`]): a change that a client sends again takes effect once.

mod dice;
mod evidence;
pub mod memory;
mod operation;
mod preference;
mod retry;
mod round;
#[cfg(test)]
mod tests;
pub mod turns;

use std::sync::Arc;

use crate::ballot::{Ballot, Clock, HlcTime};
use crate::change::Answer;
use crate::message::{Reply, Request};
use crate::teeth::{Tooth, bites};

use dice::Dice;
use memory::{Memory, MemoryLimits};

pub use operation::Operation;
pub use retry::Retry;

/// How much longer a coordinator pauses when the one that stood in its way is preferred for the key.
pub const DEFERENCE: u64 = 4;

/// How often a pause is doubled at most.
const MAX_DOUBLINGS: u32 = 3;

/// How long things may take, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Limits {
    /// A whole operation; then it is given up.
    pub deadline_ms: u64,
    /// One round of messages; nodes that have not answered by then count as silent.
    pub phase_ms: u64,
    /// When a home has been silent that long, the spares are asked.
    pub spare_after_ms: u64,
    /// Longest pause before the second try of a round; it doubles with each further try, up to 8 times that (a few rounds' time; with more,
    /// those that wait behind one that pauses would feel it), and each pause is drawn at random below it, so that duelling proposers part. Whoever is not preferred for the key waits up to
    /// [`DEFERENCE`] times that. 0: no pauses, and no dice are thrown.
    pub backoff_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            deadline_ms: 2_000,
            phase_ms: 700,
            spare_after_ms: 100,
            backoff_ms: 4,
        }
    }
}

/// What all operations of one coordinator share: its clock, its limits, its memory and its dice.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Coordinator {
    /// The clock that draws ballots.
    pub clock: Clock,
    /// How long things may take.
    pub limits: Limits,
    memory: Memory,
    dice: Dice,
}

impl Coordinator {
    /// A coordinator of this incarnation (a random number drawn at each start, not 0). `seed` feeds the jitter of its pauses. It remembers
    /// as much as [`MemoryLimits::default`] allows.
    #[must_use]
    pub fn new(incarnation: u64, max_skew_ms: u64, limits: Limits, seed: u64) -> Self {
        Self {
            clock: Clock::new(incarnation, max_skew_ms, HlcTime::ZERO),
            limits,
            memory: Memory::new(MemoryLimits::default()),
            dice: Dice::new(seed),
        }
    }

    /// The same, with other limits for what it remembers; none at all with [`MemoryLimits::NONE`].
    #[must_use]
    pub fn with_memory(mut self, limits: MemoryLimits) -> Self {
        self.memory = Memory::new(limits);
        self
    }

    /// How many keys are remembered, and how many bytes that takes.
    #[must_use]
    pub fn remembered(&self) -> (usize, usize) {
        (self.memory.len(), self.memory.bytes())
    }

    /// A random pause for the given try (0 for the first repetition), in milliseconds, longer when giving way to a preferred coordinator.
    fn pause_ms(&mut self, tries: u32, give_way: bool) -> u64 {
        let longest = self.limits.backoff_ms << tries.min(MAX_DOUBLINGS);
        let longest = if give_way {
            longest.saturating_mul(DEFERENCE)
        } else {
            longest
        };
        if longest == 0 { 0 } else { self.dice.up_to(longest) }
    }
}

/// The preference list of one key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Members {
    /// The first so many are homes, the rest spares.
    pub homes: usize,
    /// Names (backend URLs) in order of preference; the index is the *rank*.
    pub names: Vec<Arc<str>>,
    /// Which of them are believed not to answer: with a home among them the spares are asked at once.
    pub suspected: Vec<bool>,
}

impl Members {
    /// A majority of the list.
    #[must_use]
    pub fn quorum(&self) -> usize {
        self.names.len() / 2 + usize::from(!bites(Tooth::SmallQuorum))
    }
}

/// How many replicas an operation waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Consistency {
    /// A majority: linearizable.
    Quorum,
    /// The first answer or ack. For get, and for an unfenced put without a client's request id; everything else is a quorum's business.
    One,
}

/// What happens to an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Begin. Given once.
    Start,
    /// A node answered.
    Reply {
        /// Round of the request it answers.
        round: u32,
        /// Who answered.
        rank: usize,
        /// What it said.
        reply: Reply,
    },
    /// A node did not answer.
    Failed {
        /// Round of the request.
        round: u32,
        /// Who did not answer.
        rank: usize,
        /// False only when the request certainly never reached the node.
        delivered: bool,
        /// What happened, for the error message.
        reason: String,
    },
    /// A timer that was asked for has run out.
    Wake {
        /// Which.
        timer: u32,
    },
}

/// What an operation wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send this to the node of this rank, once, and report its answer or failure with the same round.
    Send {
        /// Round to report with.
        round: u32,
        /// To whom.
        rank: usize,
        /// What.
        request: Request,
    },
    /// Give [`Event::Wake`] after so many milliseconds.
    Wake {
        /// Which.
        timer: u32,
        /// When.
        after_ms: u64,
    },
    /// The operation has ended. Sends that came before it are still to be delivered.
    Done(Outcome),
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It took effect (once, whichever attempt did it), or was refused on a committed state.
    Answered {
        /// What to tell the client.
        answer: Answer,
        /// Replicas known to hold the state that the answer rests on.
        copies: usize,
    },
    /// No quorum within the deadline; nothing was changed. Not said of a request that may be a repetition: there it is unknown.
    Unavailable {
        /// Replicas that answered the last round.
        answered: usize,
        /// Replicas needed.
        needed: usize,
        /// Replicas there are.
        of: usize,
        /// Ranks of those that did not answer.
        silent: Vec<usize>,
        /// Why it did not go on.
        reason: String,
    },
    /// It may or may not take effect.
    Unknown {
        /// Why that cannot be told.
        reason: String,
    },
    /// Two states under one ballot.
    Corrupt {
        /// The ballot.
        ballot: Ballot,
    },
}
