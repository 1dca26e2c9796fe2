//! How far a node's feed was taken in, what it hides, and what of it is still needed.

use std::collections::BTreeMap;

use register::{Ballot, HlcTime};

use super::super::position::Cursor;

/// One node's feed.
#[derive(Debug, Default)]
pub(super) struct Feed {
    pub(super) name_hash: u64,
    /// Everything up to it was taken in.
    pub(super) cursor: Option<Cursor>,
    /// Everything the node committed before this time was taken in, in milliseconds.
    pub(super) as_of_ms: Option<u64>,
    /// While the feed has a hole: the cursor before it.
    pub(super) before_hole: Option<Option<Cursor>>,
    /// When the hole was filled, in milliseconds. It is over once what came of it is settled.
    pub(super) filled_ms: Option<u64>,
    /// Nothing in the holes it has had is newer.
    pub(super) hole_until: HlcTime,
    /// Commits whose shows are still needed, and how many each.
    pub(super) needed: BTreeMap<u64, u32>,
}

impl Feed {
    pub(super) fn has_open_hole(&self) -> bool {
        self.before_hole.is_some() && self.filled_ms.is_none()
    }

    /// True when no hole hides a version newer than this.
    pub(super) fn is_whole_after(&self, last: Option<Ballot>) -> bool {
        !self.has_open_hole() && last.unwrap_or_default().time >= self.hole_until
    }

    /// From where on a watcher that resumes has to be shown this feed again.
    pub(super) fn resume_at(&self) -> Option<Cursor> {
        let cursor = self.before_hole.unwrap_or(self.cursor)?;
        let before_needed = self
            .needed
            .first_key_value()
            .map_or(u64::MAX, |(commit, _)| commit.saturating_sub(1));
        Some(Cursor {
            commit: cursor.commit.min(before_needed),
            ..cursor
        })
    }

    pub(super) fn no_longer_needs(&mut self, commit: u64) {
        if let Some(count) = self.needed.get_mut(&commit) {
            *count -= 1;
            if *count == 0 {
                self.needed.remove(&commit);
            }
        }
    }
}
