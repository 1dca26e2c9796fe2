//! How an operation is named, and what is known of other attempts at the same thing.

use crate::ballot::HlcTime;
use crate::state::RequestId;

use super::memory::FRESH_MS;

/// The name of an operation, and which other attempts carry the same name.
///
/// A state remembers the ids of the changes it was made by ([`Lineage`](crate::state::Lineage)), so an attempt that finds its id there
/// tells what came of it instead of doing it again. So together they take effect at most once, whatever overlaps.
///
/// Refusals leave no trace. One told to a repetition says nothing of an attempt that is still under way, which may yet find what it
/// expects: whoever wants a refusal to be the last word sends a request again only when the attempt before has ended. An operation
/// sends nothing after its deadline, so that is known even where no answer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Retry {
    /// The id was drawn for this operation alone: there is no other attempt, now or later.
    Never(RequestId),
    /// The client's first attempt; it may send others under the same id, even while this one is under way. Never blind: a blind write
    /// that is late could not see that another attempt has long been made. Not told apart from a repetition: a first attempt that lay
    /// somewhere for long before it was begun; whoever knows that it did calls it [`Retry::Repeated`].
    First(RequestId),
    /// There may have been other attempts, none of them at a ballot before this time. What is older than that need not be known.
    Repeated {
        /// The id that all attempts carry.
        request: RequestId,
        /// Before all ballots of all attempts; see [`Retry::repeated`].
        not_before: HlcTime,
    },
}

impl Retry {
    /// A repetition of a request whose first attempt was made at `first_attempt_unix_ms` or later, by the clock of somebody who is at most
    /// `max_skew_ms` off: coordinators may be off by as much the other way, and may have used a ballot reserved a little before.
    #[must_use]
    pub fn repeated(request: RequestId, first_attempt_unix_ms: u64, max_skew_ms: u64) -> Self {
        let slack_ms = max_skew_ms.saturating_mul(2).saturating_add(FRESH_MS);
        Self::Repeated {
            request,
            not_before: HlcTime::from_unix_ms(first_attempt_unix_ms.saturating_sub(slack_ms)),
        }
    }

    /// The id.
    #[must_use]
    pub const fn request(&self) -> RequestId {
        match self {
            Self::Never(request) | Self::First(request) | Self::Repeated { request, .. } => *request,
        }
    }

    /// True when a client chose the id, and so may use it again.
    pub(super) const fn is_clients(&self) -> bool {
        !matches!(self, Self::Never(_))
    }

    /// True when an earlier attempt may already have taken effect.
    #[must_use]
    pub const fn may_be_repetition(&self) -> bool {
        matches!(self, Self::Repeated { .. })
    }

    /// From when on other attempts may have been made, as far as it is known beforehand.
    pub(super) const fn not_before(&self) -> Option<HlcTime> {
        match self {
            Self::Never(_) | Self::First(_) => None,
            Self::Repeated { not_before, .. } => Some(*not_before),
        }
    }
}
