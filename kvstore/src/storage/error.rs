//! Requests that were not served.

use register::ballot::SkewError;
use register::{Ballot, Epoch};

/// A request that was not served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store is stopping. Nothing was changed.
    #[error("the node is stopping")]
    Closed,
    /// Nothing was changed; trying again may help.
    #[error("{reason}")]
    Failed {
        /// What happened.
        reason: String,
    },
    /// It may or may not have taken effect.
    #[error("{reason}")]
    Unknown {
        /// What happened.
        reason: String,
    },
    /// What stands in the way lies too far in the future. Nothing was changed.
    #[error(transparent)]
    Skew(#[from] SkewError),
    /// The sender belongs to another ring. Nothing was changed.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// Two states under one ballot. Nothing was changed.
    #[error("corruption: two different states under ballot {ballot}")]
    Corrupt {
        /// The ballot.
        ballot: Ballot,
    },
}

/// The sender's ring is not the node's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "another ring: BACKENDS or RF of the sender (epoch {sender:016x}) are not those this node was set up with (epoch {own:016x}); give every \
     kvfront the same BACKENDS and RF, or, if all of them were changed on purpose, start every kvstore once with ADOPT_RING=1",
    sender = .sender.0,
    own = .own.0
)]
pub struct RingError {
    /// The node's ring.
    pub own: Epoch,
    /// The sender's.
    pub sender: Epoch,
}
