//! What a key holds, and what an acceptor keeps of it.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ballot::Ballot;

/// How many request ids a state remembers, newest last: enough to settle the outcome of an operation whose answers were lost while
/// that many others passed it by.
pub const RECENT_REQUESTS_MAX: usize = 8;

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

/// Names one logical operation of one client, across the retries of its coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RequestId(pub u64);

/// The value of a register together with what must travel with it. Replicas that accepted one ballot hold equal states.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// JSON text; `None` is a tombstone: deleted, expired, or a lock nobody holds.
    pub value: Option<Arc<str>>,
    /// Ballot of the last change of the *value*: repairs and refused changes keep it. What users see as `version`.
    pub version: Ballot,
    /// The highest fencing number this key has seen (data), or handed out (lock).
    pub fence: u64,
    /// When the value ends, in Unix milliseconds. Expiry shows only once a tombstone is committed at or after it.
    pub expires_at_ms: Option<u64>,
    /// The last operations that changed this register, newest last, at most [`RECENT_REQUESTS_MAX`].
    pub recent: Vec<RequestId>,
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

    /// Notes that `request` made this state, dropping the oldest ids over the limit.
    pub fn remember(&mut self, request: RequestId) {
        self.recent.push(request);
        let over = self.recent.len().saturating_sub(RECENT_REQUESTS_MAX);
        self.recent.drain(..over);
    }

    /// Bytes this state takes in memory, for caches that count bytes. Exact for the variable parts.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        size_of::<Self>() + self.value.as_ref().map_or(0, |v| v.len()) + self.recent.len() * size_of::<RequestId>()
    }
}

/// What a node keeps of one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
