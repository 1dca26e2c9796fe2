//! What a key holds, and what an acceptor keeps of it.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ballot::Ballot;

/// How long a state remembers a change, in milliseconds before its newest one: an operation's deadline, and the skew of clocks. The last
/// one is remembered however old it is. So a request that is repeated later than this may find that others have changed the key since
/// and that it cannot be told any more whether it took effect.
pub const LINEAGE_KEEP_MS: u64 = 3_000;

/// Most changes a state remembers, however young: that many may pass by an operation whose answers were lost, and its outcome is still
/// known.
pub const LINEAGE_MAX: usize = 32;

/// The name of a register: a user's key or a lock, in namespaces that cannot reach each other.
///
/// Its text form, used on the wire and in the database, is one letter for the namespace and then the name: `d` data, `l` lock.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key(Arc<str>);

impl Key {
    /// First letter of data keys.
    pub const DATA: char = 'd';
    /// First letter of lock keys.
    pub const LOCK: char = 'l';

    /// The register of a user's key.
    #[must_use]
    pub fn data(name: &str) -> Self {
        Self(format!("{}{name}", Self::DATA).into())
    }

    /// The register of a lock.
    #[must_use]
    pub fn lock(name: &str) -> Self {
        Self(format!("{}{name}", Self::LOCK).into())
    }

    /// A key from its text form; `None` when the namespace is unknown.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        text.starts_with([Self::DATA, Self::LOCK]).then(|| Self(text.into()))
    }

    /// The text form, namespace included.
    #[must_use]
    pub fn as_text(&self) -> &str {
        &self.0
    }

    /// The user's name, without the namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.get(1..).unwrap_or_default()
    }

    /// True for a register that `/kv` may show.
    #[must_use]
    pub fn is_data(&self) -> bool {
        self.0.starts_with(Self::DATA)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names one logical operation of one client, across all attempts at it. Random, so that two never meet in one lineage; not
/// [`RequestId::NOBODY`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RequestId(pub u64);

impl RequestId {
    /// In a lineage: a change that nobody asked for, the end of a value whose time had come. No request may be called so.
    pub const NOBODY: Self = Self(0);
}

/// The value of a register together with what must travel with it. Replicas that accepted one ballot hold equal states.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct State {
    /// JSON text; `None` is a tombstone: deleted, expired, or a lock nobody holds.
    pub value: Option<Arc<str>>,
    /// Ballot of the last change of the *value*: repairs and refused changes keep it. What users see as `version`.
    pub version: Ballot,
    /// The highest fencing number this key has seen (data), or handed out (lock).
    pub fence: u64,
    /// When the value ends, in Unix milliseconds. Expiry shows only once a tombstone is committed at or after it.
    pub expires_at_ms: Option<u64>,
    /// The changes this state was made by.
    pub lineage: Lineage,
}

/// The last changes a state was made by: tells whether a change whose answers were lost is part of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Lineage {
    /// Every change after this ballot that is part of the state is in `changes`; of those up to it nothing is known. A blind write, which
    /// knows nothing of what it replaces, sets it to its own ballot; a change that is dropped from the list, to that one's.
    pub since: Ballot,
    /// Oldest first, at most [`LINEAGE_MAX`] and none older than [`LINEAGE_KEEP_MS`] when the newest was made.
    pub changes: Vec<(Ballot, RequestId)>,
}

/// What a lineage says of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Descent {
    /// It is part of the state.
    Part,
    /// It certainly is not.
    NotPart,
    /// Too long ago to tell.
    Unknown,
}

impl Lineage {
    /// The lineage of a state made at `ballot` in ignorance of what was before.
    #[must_use]
    pub fn blind(ballot: Ballot, request: RequestId) -> Self {
        Self {
            since: ballot,
            changes: vec![(ballot, request)],
        }
    }

    /// Adds the newest change, dropping those that are too old or too many.
    pub fn push(&mut self, ballot: Ballot, request: RequestId) {
        self.changes.push((ballot, request));
        let oldest_ms = ballot.time.unix_ms().saturating_sub(LINEAGE_KEEP_MS);
        let too_old = self
            .changes
            .iter()
            .take_while(|(made, _)| made.time.unix_ms() < oldest_ms)
            .count();
        let dropped = too_old.max(self.changes.len().saturating_sub(LINEAGE_MAX));
        for (made, _) in self.changes.drain(..dropped) {
            self.since = self.since.max(made);
        }
    }

    /// The ballot at which this request's change was made, if it is among those remembered.
    #[must_use]
    pub fn made_by(&self, request: RequestId) -> Option<Ballot> {
        let changes = self.changes.iter().rev();
        let mut its = changes.filter(|(_, by)| *by == request && *by != RequestId::NOBODY);
        its.next().map(|(made, _)| *made)
    }

    /// Whether the change made at `ballot` is part of the state.
    #[must_use]
    pub fn descent(&self, ballot: Ballot) -> Descent {
        if self.changes.iter().any(|(made, _)| *made == ballot) {
            Descent::Part
        } else if self.since < ballot {
            Descent::NotPart
        } else {
            Descent::Unknown
        }
    }
}

impl State {
    /// True when there is no value.
    #[must_use]
    pub fn is_tombstone(&self) -> bool {
        self.value.is_none()
    }

    /// True when the value has an end and `now_unix_ms` is at or past it.
    #[must_use]
    pub fn is_expired(&self, now_unix_ms: u64) -> bool {
        self.value.is_some() && self.expires_at_ms.is_some_and(|at| at <= now_unix_ms)
    }

    /// Bytes this state takes in memory, for caches that count bytes. Exact for the variable parts.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        size_of::<Self>()
            + self.value.as_ref().map_or(0, |v| v.len())
            + self.lineage.changes.len() * size_of::<(Ballot, RequestId)>()
    }
}

/// What a node keeps of one key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Record {
    /// Ballot at which `state` was accepted; zero when nothing was.
    pub accepted: Ballot,
    /// The accepted state; `None` exactly when `accepted` is zero.
    pub state: Option<State>,
    /// No ballot below this one is accepted any more.
    pub promised: Ballot,
    /// The node's floor when this record was made: what may have been dropped before it.
    pub floor: Ballot,
    /// On a spare: the home (its backend URL) this record is kept for until it is handed over.
    pub hint_for: Option<Arc<str>>,
}

impl Record {
    /// A record that holds nothing yet, made on a node whose floor is `floor`.
    #[must_use]
    pub fn empty(floor: Ballot) -> Self {
        Self {
            accepted: Ballot::ZERO,
            state: None,
            promised: Ballot::ZERO,
            floor,
            hint_for: None,
        }
    }

    /// Bytes this record takes in memory, for caches that count bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        size_of::<Self>()
            + self.hint_for.as_ref().map_or(0, |h| h.len())
            + self.state.as_ref().map_or(0, |s| s.size_bytes() - size_of::<State>())
    }
}
