//! What is explored: who does what, what may go wrong, and how far.

use std::fmt;
use std::sync::Arc;

use register::change::{Command, Expect};

/// Nodes on the key's preference list.
pub const NODES: usize = 3;
/// The first so many of them are homes, the last one is the spare.
pub const HOMES: usize = 2;
/// The rank of the spare.
pub const SPARE: usize = 2;
/// Most coordinators in a configuration.
pub const MAX_COORDINATORS: usize = 4;
/// Most operations, hand-overs and collections together in a configuration.
pub const MAX_PROCESSES: usize = 6;
/// The value that [`Start::Holding`] begins with.
pub const FIRST_VALUE: u32 = 1;
/// Time to live of [`Verb::PutEnding`], in milliseconds.
pub const TTL_MS: u64 = 100;
/// How far [`Bounds::clock_jumps`] moves a clock, in milliseconds: past the end of what was put with [`TTL_MS`], and within the skew that
/// coordinators bear.
pub const JUMP_MS: u64 = 200;

/// What an operation does. Writes are told apart by their values, so each configuration gives every write one of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Read.
    Get,
    /// Set to this, blindly.
    Put(u32),
    /// Set to this, blindly, for [`TTL_MS`].
    PutEnding(u32),
    /// Remove, blindly.
    Delete,
    /// Set to the second if it is the first (`None`: if there is nothing).
    Cas(Option<u32>, u32),
}

impl Verb {
    /// What the register is told.
    #[must_use]
    pub fn command(self) -> Command {
        let text = |value: u32| Arc::from(value.to_string());
        match self {
            Self::Get => Command::Get,
            Self::Put(value) | Self::PutEnding(value) => Command::Put {
                value: text(value),
                ttl_ms: matches!(self, Self::PutEnding(_)).then_some(TTL_MS),
                fence: None,
            },
            Self::Delete => Command::Delete {
                version: None,
                fence: None,
            },
            Self::Cas(expected, new) => Command::Cas {
                expect: expected.map_or(Expect::Version(None), |value| Expect::Value(value.into())),
                new: text(new),
                fence: None,
            },
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Get => f.write_str("get"),
            Self::Put(value) => write!(f, "put {value}"),
            Self::PutEnding(value) => write!(f, "put {value} for {TTL_MS} ms"),
            Self::Delete => f.write_str("delete"),
            Self::Cas(None, new) => write!(f, "cas ∅→{new}"),
            Self::Cas(Some(expected), new) => write!(f, "cas {expected}→{new}"),
        }
    }
}

/// An operation of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// What it does.
    pub verb: Verb,
    /// The coordinator it is asked of.
    pub coordinator: usize,
    /// It may be called, at any moment, once these operations (places in [`Configuration::operations`], lower than its own) have ended:
    /// answered, or given up by their deadline.
    pub after: Vec<usize>,
}

/// What runs beside the operations, begun once at any moment at which there is work for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chore {
    /// The spare's record moves home.
    HandOver,
    /// A tombstone is collected.
    Collect,
}

/// What the nodes hold at the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Nothing, and nothing ever.
    Empty,
    /// [`FIRST_VALUE`] (or a tombstone) that was written to these two nodes at the homes' and spare's ranks, while the third did not
    /// answer.
    Holding {
        /// A tombstone instead of the value.
        tombstone: bool,
        /// The node that did not answer; its message was lost.
        without: usize,
    },
}

/// How far it is explored: all executions within these are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Rounds of messages an operation begins. What it does beyond is as if it had stopped there for ever.
    pub rounds: u8,
    /// Timers that run out while an operation waits for nodes, over all operations: it asks the spare, or goes on without those that have
    /// not answered. (Deadlines and pauses are not counted.) [`ANY`]: without bound.
    pub timeouts: u8,
    /// Answers that are lost after their request has changed a node; only where answers are prompt, otherwise an answer is lost by never
    /// arriving. [`ANY`]: without bound.
    pub lost_answers: u8,
    /// Requests that reach their node once more after they were answered.
    pub duplicates: u8,
    /// Requests that reach their node once more *before* the delivery that is answered: what a transport does that sends a request again by
    /// itself. The protocol does not bear that (see the [crate](crate)); it is here to show it.
    pub transport_repeats: u8,
    /// Requests that a node refuses to take (it is down), of which the sender is told.
    pub refused_connections: u8,
    /// Coordinators whose clock jumps ahead by [`JUMP_MS`], each once.
    pub clock_jumps: u8,
    /// Messages in flight that can still change something. A world that would have more is not explored.
    pub messages: usize,
}

impl Bounds {
    /// The same with at most so many timeouts and lost answers.
    #[must_use]
    pub const fn faults(mut self, timeouts: u8, lost_answers: u8) -> Self {
        self.timeouts = timeouts;
        self.lost_answers = lost_answers;
        self
    }

    /// Nothing is repeated, nobody is known to be down, clocks stand still: messages are still reordered, delayed and lost, timers fire
    /// whenever they like, and operations end in doubt.
    #[must_use]
    pub const fn rounds(rounds: u8) -> Self {
        Self {
            rounds,
            timeouts: ANY,
            lost_answers: ANY,
            duplicates: 0,
            transport_repeats: 0,
            refused_connections: 0,
            clock_jumps: 0,
            messages: MAX_MESSAGES,
        }
    }
}

/// A bound that is none.
pub const ANY: u8 = u8::MAX;

/// Most messages in flight in any world.
pub const MAX_MESSAGES: usize = 28;

/// A small world and what may happen in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    /// What the nodes hold at the beginning.
    pub start: Start,
    /// The clients' operations.
    pub operations: Vec<Planned>,
    /// Hand-overs and collections.
    pub chores: Vec<Chore>,
    /// How far ahead of the first coordinator's clock each coordinator's is, in milliseconds. As many as there are coordinators; the last
    /// one does the chores.
    pub clocks_ahead_ms: Vec<u64>,
    /// Whether coordinators reserve the next ballot.
    pub reserve: bool,
    /// How far it is explored.
    pub bounds: Bounds,
    /// Whether what each node does is judged too, and not only what clients see: no ballot and no floor falls, and one ballot names one
    /// state. For wrong protocols one may want to see the client's view.
    pub judge_nodes: bool,
    /// Whether requests are dropped that nobody waits for and their node refuses. What an acceptor refuses it refuses for ever, so nothing
    /// is lost by it; a wrong protocol, whose acceptor forgets what it refused, needs them.
    pub drop_refused: bool,
    /// Whether answers arrive at once or never. See the [crate](crate) for why no wrong history is missed by that.
    pub prompt_answers: bool,
}

impl Configuration {
    /// These operations, each at a coordinator of its own and concurrent to all others, on an empty key.
    #[must_use]
    pub fn concurrent(verbs: &[Verb], bounds: Bounds) -> Self {
        let planned = |(coordinator, verb): (usize, &Verb)| Planned {
            verb: *verb,
            coordinator,
            after: Vec::new(),
        };
        Self {
            start: Start::Empty,
            operations: verbs.iter().enumerate().map(planned).collect(),
            chores: Vec::new(),
            clocks_ahead_ms: vec![0; verbs.len()],
            reserve: false,
            bounds,
            judge_nodes: true,
            drop_refused: true,
            prompt_answers: false,
        }
    }

    /// One more operation, called when all before it have ended.
    #[must_use]
    pub fn then(mut self, verb: Verb, coordinator: usize) -> Self {
        let after = (0..self.operations.len()).collect();
        self.operations.push(Planned {
            verb,
            coordinator,
            after,
        });
        self.clocks_ahead_ms
            .resize(self.clocks_ahead_ms.len().max(coordinator + 1), 0);
        self
    }

    /// The same on a key that holds something.
    #[must_use]
    pub fn starting(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// The same with a chore, done by a coordinator that no operation of a client is asked of.
    #[must_use]
    pub fn with(mut self, chore: Chore) -> Self {
        self.chores.push(chore);
        let coordinators = self.operations.iter().map(|planned| planned.coordinator + 1);
        let own = coordinators.max().unwrap_or(0) + 1;
        self.clocks_ahead_ms.resize(own, 0);
        self
    }

    /// The same with reserved ballots.
    #[must_use]
    pub fn reserving(mut self) -> Self {
        self.reserve = true;
        self
    }

    /// The same, judged by what clients see alone, and with every message kept that could matter to an acceptor that forgets.
    #[must_use]
    pub fn as_clients_see(mut self) -> Self {
        self.judge_nodes = false;
        self.drop_refused = false;
        self
    }

    /// The same with answers that arrive at once or never.
    #[must_use]
    pub fn promptly(mut self) -> Self {
        self.prompt_answers = true;
        self
    }

    /// What does not fit together, if anything.
    ///
    /// # Errors
    /// Says it.
    pub fn validate(&self) -> Result<(), String> {
        let (operations, coordinators) = (self.operations.len(), self.clocks_ahead_ms.len());
        if operations + self.chores.len() > MAX_PROCESSES || coordinators > MAX_COORDINATORS {
            return Err(format!(
                "at most {MAX_PROCESSES} operations and chores and {MAX_COORDINATORS} coordinators"
            ));
        }
        if self.bounds.messages > MAX_MESSAGES {
            return Err(format!("at most {MAX_MESSAGES} messages"));
        }
        for (place, planned) in self.operations.iter().enumerate() {
            if planned.coordinator >= coordinators || planned.after.iter().any(|before| *before >= place) {
                return Err(format!(
                    "operation {place} is at no coordinator, or after a later operation"
                ));
            }
        }
        Ok(())
    }
}

/// `{put 10 ∥ get}; get from {0,2} with hand-over`.
impl fmt::Display for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.start {
            Start::Empty => {}
            Start::Holding { tombstone, without } => {
                let what = if tombstone { "∅" } else { "1" };
                write!(f, "[{what} without n{without}] ")?;
            }
        }
        for (place, planned) in self.operations.iter().enumerate() {
            if place > 0 {
                let joint = if planned.after.is_empty() { " ∥ " } else { "; " };
                f.write_str(joint)?;
            }
            write!(f, "{}", planned.verb)?;
            if planned.coordinator != place {
                write!(f, "@{}", planned.coordinator + 1)?;
            }
        }
        for chore in &self.chores {
            f.write_str(match chore {
                Chore::HandOver => " + hand-over",
                Chore::Collect => " + collection",
            })?;
        }
        if self.reserve {
            f.write_str(", reserving")?;
        }
        let bounds = &self.bounds;
        write!(f, ", {} rounds", bounds.rounds)?;
        for (count, what) in [
            (bounds.timeouts, "timeouts"),
            (bounds.lost_answers, "answers lost"),
            (bounds.duplicates, "repeated"),
            (bounds.transport_repeats, "repeated by the transport"),
            (bounds.refused_connections, "refused"),
            (bounds.clock_jumps, "clock jumps"),
        ] {
            if count > 0 && count != ANY {
                write!(f, ", {count} {what}")?;
            }
        }
        if self.prompt_answers {
            f.write_str(", prompt answers")?;
        }
        Ok(())
    }
}
