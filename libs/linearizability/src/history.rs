//! What the clients saw.

use std::fmt;

/// A moment, in any unit that only grows (simulated milliseconds, monotonic nanoseconds, …), the same for all clients.
pub type Time = u64;

/// Of an operation that never returned (or, as its call, that was never called).
pub const NEVER: Time = u64::MAX;

/// An interned value; `None` is absent. The search is fast when every write has a value of its own, and correct in any case.
pub type Value = Option<u32>;

/// What a client wanted, and what it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// A read, and what it saw.
    Read(Value),
    /// A blind write; of `None`, a delete.
    Write(Value),
    /// A compare-and-swap by value. One by version is the same when every write has a value of its own; a delete by version is one to
    /// `None`.
    Cas {
        /// What it expected.
        expected: Value,
        /// What it wanted to put there.
        new: Value,
        /// Whether it did; `None`: not known.
        swapped: Option<bool>,
    },
    /// A compare-and-swap that was told what is there instead. Prefer it to `Cas { swapped: Some(false), .. }`, which forgets what was
    /// found: that lets more errors pass, and makes long wrong histories much harder to prove wrong.
    CasMissed {
        /// What it expected.
        expected: Value,
        /// What it found.
        found: Value,
    },
    /// Takes a lock; the fence it got is the entry's.
    Acquire {
        /// Unique to this acquisition.
        token: u32,
        /// Whether the lock has an owner: then no release without token frees it.
        owned: bool,
        /// Whether it took the lock; `None`: not known.
        took: Option<bool>,
    },
    /// Frees a lock.
    Release {
        /// Whose; `None` frees whoever holds it, unless the lock is owned.
        token: Option<u32>,
        /// Whether the answer was that the lock is free now, or was already; false: somebody else holds it; `None`: not known.
        freed: Option<bool>,
    },
    /// Holds a lock for longer.
    Renew {
        /// Whose.
        token: u32,
        /// Whether it held the lock; `None`: not known.
        held: Option<bool>,
    },
    /// Nobody's operation: this value (or the lock with this token) ends by itself, at some moment from `called` on, or never if it is
    /// gone before. With a `returned`, it ends by then at the latest. A lock that is renewed may end from the first end on that it was
    /// ever given, unless each renewal is known to have come in time.
    End(u32),
}

impl Op {
    /// True for what is asked of a lock; an end can be either's.
    pub(crate) fn is_of_lock(&self) -> Option<bool> {
        match self {
            Self::Read(_) | Self::Write(_) | Self::Cas { .. } | Self::CasMissed { .. } => Some(false),
            Self::Acquire { .. } | Self::Release { .. } | Self::Renew { .. } => Some(true),
            Self::End(_) => None,
        }
    }
}

/// One operation of one client on one key.
///
/// An operation that is known to have had no effect at all (*unavailable*) is left out of the history; so is a read that was not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Whose it is; only for drawing.
    pub client: u32,
    /// What it is about. Keys do not interact, so each is checked alone.
    pub key: u32,
    /// When it was asked; one with [`NEVER`] is ignored.
    pub called: Time,
    /// When it was answered. [`NEVER`]: pending for ever, or its outcome is unknown: it may take effect once, at any time after `called`,
    /// or never. An entry whose `op` does not know its outcome counts as pending, whatever stands here.
    pub returned: Time,
    /// The fence a write came with, or the one an acquisition got.
    pub fence: Option<u64>,
    /// The highest fence the key had seen, for which this write or CAS was refused; then it changed nothing.
    pub refused_below: Option<u64>,
    /// What it was.
    pub op: Op,
}

impl Entry {
    /// An entry without fences.
    #[must_use]
    pub const fn new(client: u32, key: u32, called: Time, returned: Time, op: Op) -> Self {
        Self {
            client,
            key,
            called,
            returned,
            fence: None,
            refused_below: None,
            op,
        }
    }

    /// The same with a fence.
    #[must_use]
    pub const fn fenced(mut self, fence: u64) -> Self {
        self.fence = Some(fence);
        self
    }

    /// The same, refused because the key had seen `seen`.
    #[must_use]
    pub const fn refused(mut self, seen: u64) -> Self {
        self.refused_below = Some(seen);
        self
    }

    /// True when it must be part of every explanation: it has returned, and its outcome is known.
    pub(crate) fn is_certain(&self) -> bool {
        let told = !matches!(
            self.op,
            Op::Cas { swapped: None, .. }
                | Op::Acquire { took: None, .. }
                | Op::Release { freed: None, .. }
                | Op::Renew { held: None, .. }
        );
        self.returned != NEVER && (told || self.refused_below.is_some())
    }
}

/// Which specification a key is held to, as its operations tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ModelKind {
    /// A register with compare-and-swap, whose writes may carry fences.
    Register,
    /// A lock whose every acquisition gets a higher fence than all before.
    Lock,
}

impl ModelKind {
    /// The specification for the operations of one key; `None` when they mix both. A key with nothing but ends is a register.
    #[must_use]
    pub fn of(history: &[Entry]) -> Option<Self> {
        let mut asked = history.iter().filter_map(|entry| entry.op.is_of_lock());
        let lock = asked.next().unwrap_or(false);
        asked
            .all(|other| other == lock)
            .then_some(if lock { Self::Lock } else { Self::Register })
    }
}

/// `7`, or `∅` for absent.
pub(crate) fn shown(value: Value) -> String {
    value.map_or_else(|| "∅".to_owned(), |value| value.to_string())
}

impl fmt::Display for Op {
    /// What was asked, without the answer: `cas 3→7`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Read(_) => f.write_str("read"),
            Self::Write(None) => f.write_str("delete"),
            Self::Write(value) => write!(f, "write {}", shown(value)),
            Self::Cas { expected, new, .. } => write!(f, "cas {}→{}", shown(expected), shown(new)),
            Self::CasMissed { expected, .. } => write!(f, "cas {}→…", shown(expected)),
            Self::Acquire { token, owned, .. } => write!(f, "acquire {token}{}", if owned { " (owned)" } else { "" }),
            Self::Release { token: None, .. } => f.write_str("release"),
            Self::Release { token: Some(token), .. } => write!(f, "release {token}"),
            Self::Renew { token, .. } => write!(f, "renew {token}"),
            Self::End(value) => write!(f, "{value} ends"),
        }
    }
}

impl fmt::Display for Entry {
    /// What was asked, with the answer: `cas 3→7 fence 5 ok`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.op)?;
        if let Some(fence) = self.fence {
            write!(f, " fence {fence}")?;
        }
        if let Some(seen) = self.refused_below {
            return write!(f, " refused below {seen}");
        }
        let known = |yes: bool| if yes { " ok" } else { " failed" };
        match self.op {
            Op::End(_) => Ok(()),
            _ if !self.is_certain() => f.write_str(" ?"),
            Op::Read(value) => write!(f, " → {}", shown(value)),
            Op::CasMissed { found, .. } => write!(f, " found {}", shown(found)),
            Op::Write(_) => f.write_str(" ok"),
            Op::Cas { swapped: outcome, .. }
            | Op::Acquire { took: outcome, .. }
            | Op::Release { freed: outcome, .. }
            | Op::Renew { held: outcome, .. } => f.write_str(outcome.map_or(" ?", known)),
        }
    }
}
