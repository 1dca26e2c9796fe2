//! What coordinators and acceptors say to each other.
//!
//! Between kvfront and kvstore these travel as postcard (compact, schema in these types) in `POST /internal/exchange`, many at a time.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ballot::{Ballot, HlcTime};
use crate::membership::{Epoch, NodeRequest, NodeStatus, Standing};
use crate::state::{Key, State};

/// One question to an acceptor about one key. Each is answered from one durable transaction.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Request {
    /// What do you hold?
    Read,
    /// Promise to accept nothing below `ballot`.
    Prepare {
        /// The ballot to promise.
        ballot: Ballot,
    },
    /// Store `state` at `ballot`.
    Accept {
        /// The ballot to store it at.
        ballot: Ballot,
        /// What to store.
        state: State,
        /// Refuse it when the record has a higher fence than `state`. True for a blind write (put, delete without a read before), whose
        /// sender knows no fence, and for a copy of a state under its own ballot, which may be a blind write's. What follows a prepare
        /// carries the highest fence of its quorum and needs no asking.
        blind: bool,
        /// Ask for this ballot to be promised along with the accept (the coordinator's next change in one round trip).
        reserve: Option<Ballot>,
        /// The receiver is a spare and keeps this for that home.
        hint_for: Option<Arc<str>>,
    },
    /// Store a state known to be chosen, whatever is promised; the promise stays.
    Install {
        /// The ballot it was chosen at.
        ballot: Ballot,
        /// The chosen state.
        state: State,
    },
    /// A spare drops what it handed over: both homes hold `ballot` or newer.
    Forget {
        /// Nothing newer than this is dropped.
        ballot: Ballot,
    },
    /// First step of collecting the tombstone accepted at `ballot`: a node that holds nothing of the key refuses everything up to it from
    /// now on.
    Retire {
        /// The tombstone's ballot.
        ballot: Ballot,
    },
    /// Second step, once all nodes of the list hold the tombstone or refuse: it is dropped. Also drops a record that is nothing but a
    /// promise up to `ballot`, which needs no first step.
    Collect {
        /// The tombstone's ballot; nothing newer is dropped.
        ballot: Ballot,
    },
}

impl Request {
    /// The newest reading it carries: zero for a read.
    #[must_use]
    pub fn newest(&self) -> HlcTime {
        match self {
            Self::Read => HlcTime::ZERO,
            Self::Prepare { ballot }
            | Self::Install { ballot, .. }
            | Self::Forget { ballot }
            | Self::Retire { ballot }
            | Self::Collect { ballot } => ballot.time,
            Self::Accept { ballot, reserve, .. } => ballot.time.max(reserve.unwrap_or_default().time),
        }
    }
}

/// An acceptor's answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reply {
    /// To `Read`: what it holds.
    Holds(Held),
    /// To `Prepare`: promised, and what it holds.
    Promised(Held),
    /// To `Accept`: stored (now or by an earlier copy of the same message). `reserved` tells whether the reservation was granted.
    Accepted {
        /// The asked-for reservation stands.
        reserved: bool,
    },
    /// To `Install`: this or something newer is held, or must not be held any more.
    Installed,
    /// To `Forget` and `Collect`: nothing at or below the ballot is held any more.
    Forgotten,
    /// To `Retire`: where the node stands.
    Retired(Retired),
    /// To `Prepare` and `Accept`: `higher` stands in the way.
    Refused {
        /// Promised, accepted or floor, whichever refused it.
        higher: Ballot,
    },
    /// To a blind `Accept`: the key has seen this fence, which the writer did not know. Nothing was stored.
    Fenced {
        /// The fence seen.
        fence: u64,
    },
    /// The node could not serve this key durably (disk full, I/O error): nothing was changed, and it does not count.
    Failed {
        /// What happened, for the log and the 503.
        reason: String,
    },
    /// Two different states under one ballot: corruption. Nothing was changed.
    Corrupt {
        /// The ballot that names two states.
        ballot: Ballot,
    },
}

/// Where a node stands with a tombstone that is to be collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Retired {
    /// It holds exactly this tombstone.
    Holds,
    /// It holds nothing, and refuses everything up to the tombstone for good.
    Refuses,
    /// It holds something older: it has to be given the tombstone first.
    Older,
    /// It holds something newer: there is nothing to collect.
    Newer,
}

/// What a node holds of a key, as told to a coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Held {
    /// Ballot of the accepted state; zero when none.
    pub accepted: Ballot,
    /// The accepted state.
    pub state: Option<State>,
    /// The promise that stands.
    pub promised: Ballot,
    /// While nothing is accepted: the floor when the record was made, or the node's floor when there is no record. Zero otherwise.
    /// Above the newest ballot among other answers it says: I may once have held something newer and dropped it.
    pub floor: Ballot,
}

/// Many requests to one node, with the sender's clock.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Envelope {
    /// The sender's clock, merged by the receiver or refused as skewed.
    pub clock: HlcTime,
    /// Incarnation of the coordinator that asks; tells senders apart and nothing else.
    pub sender: u64,
    /// The sender's ring; another one than the receiver's is refused.
    pub epoch: Epoch,
    /// The questions, answered in this order.
    pub requests: Vec<(Key, Request)>,
}

/// The answer to an [`Envelope`]: one reply per request, in order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EnvelopeReply {
    /// The node's clock.
    pub clock: HlcTime,
    /// The node's incarnation: changes when its database is new.
    pub incarnation: u64,
    /// Number of the node's last commit.
    pub commit: u64,
    /// The node's floor.
    pub floor: Ballot,
    /// Whether the node votes.
    pub standing: Standing,
    /// One reply per request.
    pub replies: Vec<Reply>,
}

/// One page of a node's records in key order, or of its hints in the order they were taken: `POST /internal/page`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PageRequest {
    /// The sender's clock.
    pub clock: HlcTime,
    /// Incarnation of the coordinator that asks; tells senders apart and nothing else.
    pub sender: u64,
    /// The sender's ring.
    pub epoch: Epoch,
    /// What to list.
    pub list: List,
    /// At most this many records. The node has a limit of its own.
    pub limit: u32,
}

/// What a page lists.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum List {
    /// Records of keys whose text form starts with `prefix`, in key order (or reverse), strictly after `after`.
    Keys {
        /// Text form of the prefix, namespace letter included.
        prefix: String,
        /// Text form of the last key already seen.
        after: Option<String>,
        /// From the end.
        reverse: bool,
    },
    /// Records that are hints, in the order of the commits that made them, strictly after this commit number.
    Hints {
        /// Commit number of the last hint already seen.
        after_commit: u64,
    },
    /// Records without a live value: tombstones, mere promises, and values that end at or before `expired_at_ms`. In the order of the
    /// commits that made them, strictly after this commit number.
    Ended {
        /// Commit number of the last record already seen.
        after_commit: u64,
        /// Unix milliseconds.
        expired_at_ms: u64,
    },
    /// Records of keys in these leaves of the hash tree ([`crate::hashing`]), in key order, strictly after `after`. Their states are left
    /// out: the ballots say what differs.
    Leaves {
        /// Numbers of the leaves, ascending.
        leaves: Vec<u32>,
        /// Text form of the last key already seen.
        after: Option<String>,
    },
}

/// The answer to a [`PageRequest`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PageReply {
    /// The node's clock.
    pub clock: HlcTime,
    /// The node's floor: a page is asked again when it rose between pages of one scan.
    pub floor: Ballot,
    /// The node's incarnation.
    pub incarnation: u64,
    /// Whether the node votes: the records of one that does not are no evidence of anything.
    pub standing: Standing,
    /// The records, each with the number of the commit that last wrote it.
    pub records: Vec<PageRecord>,
    /// True when there is nothing after the last record.
    pub end: bool,
}

/// One record of a page.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PageRecord {
    /// The key.
    pub key: Key,
    /// Number of the commit that last wrote it.
    pub commit: u64,
    /// What is held.
    pub held: Held,
    /// For hints: the home it is kept for.
    pub hint_for: Option<Arc<str>>,
}

/// A question to a node about itself: `POST /internal/node`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeEnvelope {
    /// The sender's clock.
    pub clock: HlcTime,
    /// Incarnation of the coordinator that asks; tells senders apart and nothing else.
    pub sender: u64,
    /// The sender's ring.
    pub epoch: Epoch,
    /// The question.
    pub request: NodeRequest,
}

/// The answer to a [`NodeEnvelope`], given from what is durable.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeEnvelopeReply {
    /// The node's clock.
    pub clock: HlcTime,
    /// False when the request did not fit the node's standing or incarnation, and changed nothing.
    pub done: bool,
    /// The node after the request.
    pub status: NodeStatus,
}

/// Which hashes of a node's tree are asked for: `POST /internal/hashes`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HashRequest {
    /// The sender's clock.
    pub clock: HlcTime,
    /// Incarnation of the coordinator that asks; tells senders apart and nothing else.
    pub sender: u64,
    /// The sender's ring.
    pub epoch: Epoch,
    /// The partitions whose leaves are wanted; none: the root of every partition.
    pub partitions: Option<Vec<u16>>,
}

/// The answer to a [`HashRequest`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HashReply {
    /// The node's clock.
    pub clock: HlcTime,
    /// Whether the node votes.
    pub standing: Standing,
    /// One root per partition; or the leaves of the partitions asked for, in their order.
    pub hashes: Vec<u64>,
}

/// A stretch of a node's feed of changes: `POST /internal/changes`. Answered when there is something to tell, or after `wait_ms`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChangesRequest {
    /// The sender's clock.
    pub clock: HlcTime,
    /// Incarnation of the coordinator that asks; tells senders apart and nothing else.
    pub sender: u64,
    /// The sender's ring.
    pub epoch: Epoch,
    /// The incarnation that `after_commit` counts in; another one than the node's gets [`ChangesReply::lost`].
    pub incarnation: u64,
    /// Changes after this commit number are wanted.
    pub after_commit: u64,
    /// At most this many. The node has a limit of its own.
    pub limit: u32,
    /// How long to wait for a change, in milliseconds. The node has a limit of its own.
    pub wait_ms: u32,
}

/// The answer to a [`ChangesRequest`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChangesReply {
    /// The node's clock.
    pub clock: HlcTime,
    /// The node's incarnation.
    pub incarnation: u64,
    /// Whether the node votes.
    pub standing: Standing,
    /// Everything up to this commit number has been told, in this answer or before.
    pub commit: u64,
    /// True when the node no longer has all changes after the one asked for (or counts anew): what is there has to be listed.
    pub lost: bool,
    /// Accepted states in the order of their commits. Of what was dropped nothing is told.
    pub changes: Vec<AcceptedChange>,
}

/// One accepted state in a node's feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedChange {
    /// Number of the commit that made it durable.
    pub commit: u64,
    /// The key.
    pub key: Key,
    /// The ballot it was accepted at.
    pub accepted: Ballot,
    /// What was accepted.
    pub state: State,
}
