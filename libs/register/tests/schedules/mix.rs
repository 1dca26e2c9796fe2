//! What the clients do.

use std::sync::Arc;

use rand::RngExt;
use rand::rngs::StdRng;
use register::change::{Command, Expect};
use register::proposer::Consistency;

use crate::history::{Op, Value};

/// No lock of the mix `Locks` ends by itself.
const LONG_TTL_MS: u64 = 3_600_000;
/// Locks and values of the mixes `EndingLocks` and `EndingValues` do.
pub(crate) const SHORT_TTL_MS: u64 = 3_000;
/// What the clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mix {
    /// Get, put, delete, CAS.
    Plain,
    /// The same, and many values end by themselves.
    EndingValues,
    /// Put and CAS, many with a fence.
    Fences,
    /// Acquire, renew and release locks that do not end by themselves.
    Locks,
    /// Acquire locks that end by themselves.
    EndingLocks,
    /// Get, put and delete, each with or without a quorum.
    One,
}

type Chosen = (Op, Command, Consistency);

impl Mix {
    /// A client's next operation. `fresh` is a value nobody has used, `seen` what the client saw last (or the lock it took).
    pub(crate) fn choose(self, rng: &mut StdRng, now: u64, fresh: u32, seen: Value) -> Chosen {
        match self {
            Self::Plain => plain(rng, fresh, seen),
            Self::EndingValues => ending(rng, fresh, seen),
            Self::One => one(rng, fresh),
            Self::Fences => fenced(rng, now, fresh, seen),
            Self::Locks => lock(rng, fresh, seen),
            Self::EndingLocks => (
                Op::Acquire(fresh, None),
                acquire(fresh, SHORT_TTL_MS),
                Consistency::Quorum,
            ),
        }
    }
}

fn plain(rng: &mut StdRng, fresh: u32, seen: Value) -> Chosen {
    let (op, command) = match rng.random_range(0..100) {
        0..35 => (Op::Read(None), Command::Get),
        35..45 => (Op::Write(None), DELETE),
        45..60 => (Op::Write(Some(fresh)), put(fresh, None)),
        _ => (Op::Cas(seen, Some(fresh), None), cas(seen, fresh, None)),
    };
    (op, command, Consistency::Quorum)
}

fn ending(rng: &mut StdRng, fresh: u32, seen: Value) -> Chosen {
    let mut chosen = plain(rng, fresh, seen);
    if let (_, Command::Put { ttl_ms, .. }, _) = &mut chosen {
        *ttl_ms = Some(SHORT_TTL_MS);
    }
    chosen
}

fn one(rng: &mut StdRng, fresh: u32) -> Chosen {
    let (op, command) = match rng.random_range(0..100) {
        0..40 => (Op::Read(None), Command::Get),
        40..50 => (Op::Write(None), DELETE),
        _ => (Op::Write(Some(fresh)), put(fresh, None)),
    };
    let one = rng.random_bool(0.7);
    (op, command, if one { Consistency::One } else { Consistency::Quorum })
}

fn fenced(rng: &mut StdRng, now: u64, fresh: u32, seen: Value) -> Chosen {
    let fence = rng.random_bool(0.7).then(|| 1 + now / 2_000 + rng.random_range(0..3));
    let (op, command) = match rng.random_range(0..100) {
        0..25 => (Op::Read(None), Command::Get),
        25..65 => (Op::Write(Some(fresh)), put(fresh, fence)),
        _ => (Op::Cas(seen, Some(fresh), None), cas(seen, fresh, fence)),
    };
    (op, command, Consistency::Quorum)
}

fn lock(rng: &mut StdRng, fresh: u32, seen: Value) -> Chosen {
    let token = |token: u32| Arc::from(token.to_string());
    let (op, command) = match (rng.random_range(0..100), seen) {
        (0..25, Some(mine)) => (
            Op::Release(mine, None),
            Command::Release {
                token: Some(token(mine)),
            },
        ),
        (25..45, Some(mine)) => {
            let renew = Command::Renew {
                token: token(mine),
                ttl_ms: LONG_TTL_MS,
            };
            (Op::Renew(mine, None), renew)
        }
        _ => (Op::Acquire(fresh, None), acquire(fresh, LONG_TTL_MS)),
    };
    (op, command, Consistency::Quorum)
}

const DELETE: Command = Command::Delete {
    version: None,
    fence: None,
};

fn put(value: u32, fence: Option<u64>) -> Command {
    Command::Put {
        value: Arc::from(value.to_string()),
        ttl_ms: None,
        fence,
    }
}

fn cas(old: Value, new: u32, fence: Option<u64>) -> Command {
    Command::Cas {
        expect: Expect::Value(old.map_or(serde_json::Value::Null, Into::into)),
        new: Arc::from(new.to_string()),
        fence,
    }
}

fn acquire(token: u32, ttl_ms: u64) -> Command {
    Command::Acquire {
        token: Arc::from(token.to_string()),
        owner: None,
        ttl_ms,
    }
}

/// How long the value that a command writes lasts.
pub(crate) fn ttl_of(command: &Command) -> Option<u64> {
    match command {
        Command::Put { ttl_ms, .. } => *ttl_ms,
        _ => None,
    }
}

/// The fence a command comes with.
pub(crate) fn fence_of(command: &Command) -> Option<u64> {
    match command {
        Command::Put { fence, .. } | Command::Cas { fence, .. } => *fence,
        _ => None,
    }
}
