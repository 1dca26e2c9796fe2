//! What a watcher knows of one key beyond what it has delivered: which versions the nodes have shown, and what became of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use register::Ballot;
use register::message::AcceptedChange;
use register::state::Descent;

use crate::ring::Preference;

/// One node's word that it accepted a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Show {
    /// The ballot it was accepted at.
    pub(super) ballot: Ballot,
    /// The node.
    pub(super) node: usize,
    /// Where it stands in the node's feed; none when the node was asked.
    pub(super) commit: Option<u64>,
    /// It came from a feed without holes: whatever the node accepted of the key before it was shown before it.
    pub(super) whole: bool,
}

/// A version that was shown, and by whom.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) change: Arc<AcceptedChange>,
    pub(super) shows: Vec<Show>,
    /// When it was last shown, in milliseconds.
    pub(super) last_ms: u64,
    /// When it was proven: a quorum had shown one ballot of it.
    pub(super) proven_ms: Option<u64>,
    /// It was proven by feeds without holes.
    pub(super) whole: bool,
}

/// Whether asking about a key is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settle {
    /// To be begun at this time, in milliseconds.
    Due(u64),
    /// Begun.
    Running,
}

/// A key of which something is not delivered yet.
#[derive(Debug)]
pub(super) struct Track {
    pub(super) place: Arc<Preference>,
    /// All newer than what was delivered.
    pub(super) versions: BTreeMap<Ballot, Seen>,
    /// Something that may have been chosen was left out since the last delivery.
    pub(super) skipped: bool,
    pub(super) settle: Settle,
    /// A quorum that was asked agreed on this version; nothing older is news.
    pub(super) agreed: Option<Ballot>,
}

/// What became of a version that was not proven itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is part of something chosen.
    TookEffect,
    /// No read can have seen it, and none will.
    Dead,
    /// Not known yet, or never.
    Open,
}

impl Track {
    pub(super) fn new(place: Arc<Preference>, settle: Settle) -> Self {
        Self {
            place,
            versions: BTreeMap::new(),
            skipped: false,
            settle,
            agreed: None,
        }
    }

    /// The oldest version that is proven, and when it was.
    pub(super) fn oldest_proven(&self) -> Option<(Ballot, u64)> {
        let mut proven = self.versions.iter();
        proven.find_map(|(version, seen)| seen.proven_ms.map(|at_ms| (*version, at_ms)))
    }

    /// The newest version that is proven.
    pub(super) fn newest_proven(&self) -> Option<Ballot> {
        let mut newest_first = self.versions.iter().rev();
        newest_first.find_map(|(version, seen)| seen.proven_ms.map(|_| *version))
    }

    /// What became of `version`, which is older than something proven. `will_not_show(node, ballot)` says that a node's feed has passed the
    /// point up to which it could show the ballot in time.
    pub(super) fn fate(&self, version: Ballot, will_not_show: impl Fn(usize) -> bool) -> Fate {
        let Some(seen) = self.versions.get(&version) else {
            return Fate::Dead;
        };
        let later = self.versions.range(version..).skip(1);
        for (_, proven) in later.filter(|(_, seen)| seen.proven_ms.is_some()) {
            match proven.change.state.lineage.descent(version) {
                Descent::Part => return Fate::TookEffect,
                // Had it been chosen first, what was chosen later through a prepare would be made of it; a blind write, which is made
                // of nothing, would make it unknown.
                Descent::NotPart => return Fate::Dead,
                Descent::Unknown => {}
            }
        }
        let is_out = |node: &usize| {
            let passed = |show: &Show| show.node == *node && show.whole && show.ballot > version;
            will_not_show(*node) || self.versions.values().flat_map(|seen| &seen.shows).any(passed)
        };
        let has_it = |node: &usize| seen.shows.iter().any(|show| show.node == *node);
        let may_have_it = self.place.nodes.iter().filter(|node| has_it(node) || !is_out(node));
        if may_have_it.count() < self.place.quorum() {
            Fate::Dead
        } else {
            Fate::Open
        }
    }

    /// True when it is certain that nothing was chosen between `last` and `version` without being delivered.
    pub(super) fn follows(&self, version: Ballot, last: Option<Ballot>) -> bool {
        let Some(seen) = self.versions.get(&version) else {
            return false;
        };
        if self.skipped {
            return false;
        }
        // What was chosen before it was accepted by a node of its quorum before it, and was shown by that node before it.
        if seen.whole {
            return true;
        }
        let lineage = &seen.change.state.lineage;
        last.is_some_and(|last| {
            let unseen = |(made, _): &(Ballot, _)| last < *made && *made < version;
            lineage.since <= last && !lineage.changes.iter().any(unseen)
        })
    }
}

impl Seen {
    pub(super) fn new(change: Arc<AcceptedChange>, now_ms: u64) -> Self {
        Self {
            change,
            shows: Vec::new(),
            last_ms: now_ms,
            proven_ms: None,
            whole: false,
        }
    }

    /// Takes a node's word; false when it was known.
    pub(super) fn add(&mut self, show: Show, quorum: usize, now_ms: u64) -> bool {
        let same = |known: &&Show| known.node == show.node && known.ballot == show.ballot;
        if self.shows.iter().any(|known| same(&known)) {
            return false;
        }
        self.shows.push(show);
        self.last_ms = now_ms;
        let of_ballot = || self.shows.iter().filter(|known| known.ballot == show.ballot);
        if of_ballot().count() >= quorum {
            self.proven_ms.get_or_insert(now_ms);
        }
        self.whole |= of_ballot().filter(|known| known.whole).count() >= quorum;
        true
    }
}
