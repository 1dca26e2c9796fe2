//! What a set of answers proves.

use std::collections::BTreeMap;

use crate::ballot::Ballot;
use crate::message::Held;
use crate::state::State;

/// Floors above everything that was heard of, by rank: those nodes dropped something that may have been newer.
///
/// A spare held something once, both homes hold it now; but a home asked *before* the hand-over and the spare asked *after* it can
/// together know nothing of it. Their silence proves nothing until the homes have been asked after the dropping.
pub(super) type Doubt = BTreeMap<usize, Ballot>;

/// What the answers of one round say of a key.
#[derive(Debug)]
pub(super) struct Evidence {
    /// Ballot of the newest accepted state; zero when nobody holds anything.
    pub(super) newest: Ballot,
    /// The newest accepted state.
    pub(super) state: Option<State>,
    /// Ranks that hold exactly that.
    pub(super) holders: Vec<usize>,
    /// Ranks that answered and hold something older (or nothing).
    pub(super) behind: Vec<usize>,
    /// See [`Doubt`]; empty when the answers stand as they are.
    pub(super) doubt: Doubt,
    /// The highest floor told.
    pub(super) floor: Ballot,
    /// The highest fence among all states, the newest or not. A blind write knows no fence: where it reached a node that had missed a
    /// fenced change, the newest state is its own and the fence is on an older one.
    fence: u64,
}

impl Evidence {
    /// Weighs answers. `homes` is how many of the ranks are homes.
    ///
    /// # Errors
    /// The ballot under which two nodes hold different states.
    pub(super) fn weigh<'a>(
        answers: impl Iterator<Item = (usize, &'a Held)> + Clone,
        homes: usize,
    ) -> Result<Self, Ballot> {
        let newest = answers.clone().map(|(_, held)| held.accepted).max().unwrap_or_default();
        let mut evidence = Self {
            newest,
            state: None,
            holders: Vec::new(),
            behind: Vec::new(),
            doubt: Doubt::new(),
            floor: Ballot::ZERO,
            fence: 0,
        };
        let mut homes_heard = 0;
        for (rank, held) in answers {
            homes_heard += usize::from(rank < homes);
            evidence.floor = evidence.floor.max(held.floor);
            evidence.fence = evidence.fence.max(held.state.as_ref().map_or(0, |state| state.fence));
            if held.floor > newest {
                evidence.doubt.insert(rank, held.floor);
            }
            if held.accepted < newest {
                evidence.behind.push(rank);
                continue;
            }
            evidence.holders.push(rank);
            match &evidence.state {
                None => evidence.state.clone_from(&held.state),
                Some(state) if held.state.as_ref() != Some(state) => return Err(newest),
                Some(_) => {}
            }
        }
        // All homes that know nothing are proof enough: whatever was chosen before they were asked is on at least one of them.
        if newest.is_zero() && homes_heard == homes {
            evidence.doubt.clear();
        }
        Ok(evidence)
    }

    /// True when the newest state does not know of a fence that an older one has: it must not be spread as it is.
    pub(super) fn forgets_a_fence(&self) -> bool {
        self.state.as_ref().is_some_and(|state| state.fence < self.fence)
    }

    /// The newest state with the highest fence: what a change is made of, at a ballot of its own.
    pub(super) fn with_fence(&self) -> Option<State> {
        let mut state = self.state.clone()?;
        state.fence = state.fence.max(self.fence);
        Some(state)
    }
}
