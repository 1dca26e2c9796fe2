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
    /// The node's feed shows it: whatever the node accepted of the key before was shown before, but for what a hole hides.
    pub(super) by_feed: bool,
}

/// A version that was shown, and by whom.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) change: Arc<AcceptedChange>,
    pub(super) shows: Vec<Show>,
    /// When it was last shown, in milliseconds.
    pub(super) last_ms: u64,
    /// When it was proven, in milliseconds, and the ballot of it that a quorum had shown then.
    pub(super) proven: Option<(u64, Ballot)>,
    /// Settled, and not chosen so far: no longer waited for, but it may still be chosen, until something newer is.
    pub(super) idle: bool,
}

/// Whether asking about a key is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settle {
    /// To be begun at this time, in milliseconds.
    Due(u64),
    /// Begun.
    Running,
    /// Done, until something more is shown.
    Idle,
}

/// A key of which something is not delivered yet.
#[derive(Debug)]
pub(super) struct Track {
    pub(super) place: Arc<Preference>,
    /// When it began, in milliseconds.
    pub(super) opened_ms: u64,
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
    /// Opened now, and to be settled at `due_ms`.
    pub(super) fn new(place: Arc<Preference>, now_ms: u64, due_ms: u64) -> Self {
        Self {
            place,
            opened_ms: now_ms,
            versions: BTreeMap::new(),
            skipped: false,
            settle: Settle::Due(due_ms),
            agreed: None,
        }
    }

    /// The oldest version that is proven, when it was, and its ballot.
    pub(super) fn oldest_proven(&self) -> Option<(Ballot, u64, Ballot)> {
        let mut proven = self.versions.iter();
        proven.find_map(|(version, seen)| seen.proven.map(|(at_ms, ballot)| (*version, at_ms, ballot)))
    }

    /// The newest version that is proven.
    pub(super) fn newest_proven(&self) -> Option<Ballot> {
        let mut newest_first = self.versions.iter().rev();
        newest_first.find_map(|(version, seen)| seen.proven.map(|_| *version))
    }

    /// What became of `version`, which is older than something proven at ballot `bar`. `is_whole` says that a node's feed has no hole that
    /// could hide it, `is_past` that such a feed has also passed the time of the proof.
    pub(super) fn fate(
        &self,
        version: Ballot,
        bar: Ballot,
        is_whole: impl Fn(usize) -> bool,
        is_past: impl Fn(usize) -> bool,
    ) -> Fate {
        let Some(seen) = self.versions.get(&version) else {
            return Fate::Dead;
        };
        let later = self.versions.range(version..).skip(1);
        for (_, proven) in later.filter(|(_, seen)| seen.proven.is_some()) {
            match proven.change.state.lineage.descent(version) {
                Descent::Part => return Fate::TookEffect,
                // Had it been chosen first, what was chosen later through a prepare would be made of it; a blind write, which is made
                // of nothing, would make it unknown.
                Descent::NotPart => return Fate::Dead,
                Descent::Unknown => {}
            }
        }
        // A node that has accepted the proven ballot, or more, accepts nothing older any more.
        let passed = |show: &Show| show.by_feed && show.ballot >= bar && is_whole(show.node);
        let shows = || self.versions.values().flat_map(|seen| &seen.shows);
        let is_out = |node: &usize| is_past(*node) || shows().any(|show| show.node == *node && passed(show));
        let has_it = |node: &usize| seen.shows.iter().any(|show| show.node == *node);
        let may_have_it = self.place.nodes.iter().filter(|node| has_it(node) || !is_out(node));
        if may_have_it.count() < self.place.quorum() {
            Fate::Dead
        } else {
            Fate::Open
        }
    }

    /// True when it is certain that nothing was chosen between `last` and `version` without being delivered.
    pub(super) fn follows(&self, version: Ballot, last: Option<Ballot>, is_whole: impl Fn(usize) -> bool) -> bool {
        let Some(seen) = self.versions.get(&version) else {
            return false;
        };
        if self.skipped {
            return false;
        }
        // What was visible before this, or before something newer, was accepted by a node of the newer one's quorum before it, and shown by
        // that node before it.
        let quorum = self.place.quorum();
        if self
            .versions
            .range(version..)
            .any(|(_, seen)| seen.is_whole(quorum, &is_whole))
        {
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
            proven: None,
            idle: false,
        }
    }

    /// Takes a node's word; false when it was known.
    pub(super) fn add(&mut self, show: Show, quorum: usize, now_ms: u64) -> bool {
        let same = |known: &&mut Show| known.node == show.node && known.ballot == show.ballot;
        match self.shows.iter_mut().find(same) {
            // A node that was asked was ahead of its feed, which catches up.
            Some(known) if show.by_feed && !known.by_feed => *known = show,
            Some(_) => return false,
            None => self.shows.push(show),
        }
        self.idle = false;
        self.last_ms = now_ms;
        if self.shows.iter().filter(|known| known.ballot == show.ballot).count() >= quorum {
            self.proven.get_or_insert((now_ms, show.ballot));
        }
        true
    }

    /// True when it is proven by feeds without holes.
    fn is_whole(&self, quorum: usize, is_whole: impl Fn(usize) -> bool) -> bool {
        let shown_at = |ballot: Ballot| {
            let of_ballot = self.shows.iter().filter(|show| show.ballot == ballot);
            of_ballot.filter(|show| show.by_feed && is_whole(show.node)).count()
        };
        self.shows.iter().any(|show| shown_at(show.ballot) >= quorum)
    }
}
