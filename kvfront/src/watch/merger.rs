//! From what single nodes accepted to what a quorum chose: per key in order, nothing missed. Plain state, without sockets and clocks.
//!
//! - A state is *proven* when a quorum of its key's list has shown one ballot of it.
//! - A version that is not proven itself has taken effect when something proven is made of it ([`Lineage`](register::Lineage)). It is
//!   dead when something proven certainly is not, or when too few nodes can have accepted it in time.
//! - So a proven version is delivered once all older ones that were shown are judged. One that cannot be judged is waited for a moment
//!   ([`HOLD_MS`]), then left out; the next delivery says so (`conflated`).
//! - What was shown and neither proven nor judged for a while is *settled*: the key is read, which brings the newest to a quorum, and the
//!   nodes are asked what they hold. Whatever was shown before and is older is judged by that; what is newer was not chosen.
//! - A lost feed of fewer nodes than a quorum misses nothing: whatever was chosen was shown by another node, and is settled.
//! - The position goes back to before the oldest show that is still needed. What was delivered from beyond it is named in it, the newest
//!   few at least: the rest may be delivered again after a resume. An older version than delivered before never is: a version from before
//!   the resume is delivered only after settling, and only the newest.

mod choosing;
mod feed;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use register::hashing::stable_hash;
use register::message::{AcceptedChange, Held};
use register::{Ballot, HlcTime, Key};

use self::feed::Feed;
use super::position::{Cursor, Position};
use super::told::{Last, Told};
use super::track::{Seen, Settle, Show, Track};
use crate::ring::Preference;

/// How long a proven version waits for an older one that cannot be judged yet, in milliseconds.
pub(super) const HOLD_MS: u64 = 1_000;
/// What is not proven this long after it was shown is settled, in milliseconds.
pub(super) const SETTLE_AFTER_MS: u64 = 250;
/// Pause before a key is settled again that could not be, in milliseconds.
pub(super) const SETTLE_AGAIN_MS: u64 = 500;
/// How long the feed of a node is still taken for one with a hole after what it holds was listed, at least, in milliseconds.
pub(super) const HOLE_REST_MS: u64 = 5_000;
/// Most versions not delivered yet.
const MAX_OPEN: usize = 32_768;
/// Most bytes of states not delivered yet.
const MAX_OPEN_BYTES: usize = 16 << 20;
/// Most deliveries named in a position.
const MAX_TOLD: usize = 16;
/// Most versions remembered that were shown and not chosen so far.
const MAX_IDLE: usize = 1_024;

/// A change to deliver.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    /// Key, state and version.
    pub(super) change: Arc<AcceptedChange>,
    /// Other changes of the key may lie between this and the last one delivered.
    pub(super) conflated: bool,
}

/// What a position may have to name.
#[derive(Debug)]
struct Recent {
    /// Hash of the key.
    key: u64,
    version: Ballot,
    /// Nodes and commits at which feeds showed it; none when that is not known.
    shows: Vec<(usize, u64)>,
}

impl Recent {
    /// One that the position resumed at has named.
    fn before((key, version): &(u64, Ballot)) -> Self {
        Self {
            key: *key,
            version: *version,
            shows: Vec::new(),
        }
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Merger {
    feeds: Vec<Feed>,
    open: HashMap<Key, Track>,
    open_versions: usize,
    open_bytes: usize,
    told: Told,
    /// From the position resumed at.
    told_before: HashMap<u64, Ballot>,
    newest: HlcTime,
    /// Versions that are idle, oldest first. Some are not there any more.
    idle: VecDeque<(Key, Ballot)>,
    /// Of each key that has or had idle versions since its last delivery, by its hash: when the newest was made.
    idle_of: HashMap<u64, HlcTime>,
    /// The same, of versions that are forgotten: here, or before the resume.
    unsure: HashMap<u64, HlcTime>,
    /// The same, of keys that are not named.
    unsure_all: HlcTime,
    /// The last deliveries.
    recent: VecDeque<Recent>,
    /// Keys to look at.
    ready: VecDeque<Key>,
    /// Keys whose proven version waits for an older one to be judged.
    held: HashSet<Key>,
    /// When to look at keys again.
    wakes: BTreeSet<(u64, Key)>,
}

impl Merger {
    /// A merger that resumes at `position`, over nodes whose names have these hashes.
    pub(super) fn new(name_hashes: &[u64], position: &Position) -> Self {
        let cursor_of = |name: u64| {
            position
                .cursors
                .iter()
                .find(|(of, _)| *of == name)
                .map(|(_, cursor)| *cursor)
        };
        let feeds = name_hashes.iter().map(|&name_hash| Feed {
            name_hash,
            cursor: cursor_of(name_hash),
            as_of_ms: None,
            before_hole: None,
            filled_ms: None,
            hole_until: HlcTime::ZERO,
            needed: BTreeMap::new(),
        });
        Self {
            feeds: feeds.collect(),
            open: HashMap::new(),
            open_versions: 0,
            open_bytes: 0,
            told: Told::since(position.newest),
            told_before: position.told.iter().copied().collect(),
            newest: position.newest,
            idle: VecDeque::new(),
            idle_of: HashMap::new(),
            unsure: position.unsure.iter().copied().collect(),
            unsure_all: position.unsure_all,
            recent: position.told.iter().map(Recent::before).collect(),
            ready: VecDeque::new(),
            held: HashSet::new(),
            wakes: BTreeSet::new(),
        }
    }

    /// Up to where a node's feed was taken in.
    pub(super) fn cursor(&self, node: usize) -> Option<Cursor> {
        self.feeds[node].cursor
    }

    /// A node's feed shows that it accepted a state.
    pub(super) fn show(&mut self, now_ms: u64, node: usize, change: &Arc<AcceptedChange>, place: &Arc<Preference>) {
        let show = Show {
            ballot: change.accepted,
            node,
            commit: Some(change.commit),
            by_feed: true,
        };
        self.take(now_ms, show, change, place);
    }

    /// A node that was asked says what it holds. Says nothing of what it held before.
    pub(super) fn holds(&mut self, now_ms: u64, node: usize, change: &Arc<AcceptedChange>, place: &Arc<Preference>) {
        let show = Show {
            ballot: change.accepted,
            node,
            commit: None,
            by_feed: false,
        };
        self.take(now_ms, show, change, place);
    }

    fn take(&mut self, now_ms: u64, show: Show, change: &Arc<AcceptedChange>, place: &Arc<Preference>) {
        let (key, version) = (&change.key, change.state.version);
        if !key.is_data()
            || place.rank_of(show.node).is_none()
            || self.last(key).is_some_and(|last| version <= last.version)
        {
            return;
        }
        let due = now_ms + SETTLE_AFTER_MS;
        let track = self.open.entry(key.clone()).or_insert_with(|| {
            self.wakes.insert((due, key.clone()));
            Track::new(Arc::clone(place), now_ms, due)
        });
        let seen = track.versions.entry(version).or_insert_with(|| {
            self.open_versions += 1;
            self.open_bytes += change.state.size_bytes();
            Seen::new(Arc::clone(change), now_ms)
        });
        if seen.add(show, place.quorum(), now_ms) {
            if track.settle == Settle::Idle {
                track.settle = Settle::Due(due);
                self.wakes.insert((due, key.clone()));
            }
            if let Some(commit) = show.commit {
                *self.feeds[show.node].needed.entry(commit).or_default() += 1;
            }
            self.ready.push_back(key.clone());
        }
    }

    /// A node's feed was taken in up to this cursor; with `as_of_ms`, that is everything the node committed before this time.
    pub(super) fn reached(&mut self, node: usize, cursor: Cursor, as_of_ms: Option<u64>) {
        let feed = &mut self.feeds[node];
        feed.cursor = Some(cursor);
        feed.as_of_ms = feed.as_of_ms.max(as_of_ms);
        self.ready.extend(self.held.iter().cloned());
    }

    /// A node's feed goes on at `cursor`, and what is missing before it will not come; none of that was accepted at a ballot later than
    /// `until`. Gives how many feeds have holes now that are not filled.
    pub(super) fn lost(&mut self, node: usize, cursor: Cursor, until: HlcTime) -> usize {
        let feed = &mut self.feeds[node];
        feed.hole_until = feed.hole_until.max(until);
        if feed.before_hole.is_none() {
            feed.before_hole = Some(feed.cursor);
        }
        (feed.cursor, feed.as_of_ms, feed.filled_ms) = (Some(cursor), None, None);
        self.feeds.iter().filter(|feed| feed.has_open_hole()).count()
    }

    /// Whatever a node holds that it accepted in the hole of its feed was given to [`Self::holds`].
    pub(super) fn hole_filled(&mut self, node: usize, now_ms: u64) {
        self.feeds[node].filled_ms = Some(now_ms);
    }

    /// Ends holes of which nothing is open any more: only then a position may leave them out.
    fn end_holes(&mut self, now_ms: u64) {
        for feed in &mut self.feeds {
            let Some(filled_ms) = feed.filled_ms else { continue };
            let is_settled = |track: &Track| track.settle == Settle::Idle || track.opened_ms > filled_ms;
            if now_ms > filled_ms + HOLE_REST_MS && self.open.values().all(is_settled) {
                (feed.before_hole, feed.filled_ms, feed.hole_until) = (None, None, HlcTime::ZERO);
            }
        }
    }

    /// The cursor before a node's hole; none when there is no hole.
    pub(super) fn before_hole(&self, node: usize) -> Option<Option<Cursor>> {
        self.feeds[node].before_hole
    }

    /// Continuity is given up: what is open is forgotten, and the feeds go on at these cursors.
    pub(super) fn break_off(&mut self, cursors: &[Option<Cursor>]) {
        for (feed, cursor) in self.feeds.iter_mut().zip(cursors) {
            feed.cursor = *cursor;
            feed.as_of_ms = None;
            feed.before_hole = None;
            (feed.filled_ms, feed.hole_until) = (None, HlcTime::ZERO);
            feed.needed.clear();
        }
        self.idle.clear();
        self.idle_of.clear();
        self.unsure.clear();
        self.unsure_all = HlcTime::ZERO;
        self.open.clear();
        (self.open_versions, self.open_bytes) = (0, 0);
        self.ready.clear();
        self.held.clear();
        self.wakes.clear();
    }

    /// More is open than may be kept.
    pub(super) fn is_overfull(&self) -> bool {
        self.open_versions > MAX_OPEN || self.open_bytes > MAX_OPEN_BYTES
    }

    /// When to call [`Self::due`] again at the latest, in milliseconds.
    pub(super) fn next_wake_ms(&self) -> Option<u64> {
        self.wakes.first().map(|(at_ms, _)| *at_ms)
    }

    /// Keys that are to be settled now, `max` at most: read, and then the nodes asked what they hold.
    pub(super) fn due(&mut self, now_ms: u64, max: usize) -> Vec<(Key, Arc<Preference>)> {
        let mut keys = Vec::new();
        while keys.len() < max
            && let Some((at_ms, _)) = self.wakes.first()
            && *at_ms <= now_ms
            && let Some((_, key)) = self.wakes.pop_first()
        {
            let Some(track) = self.open.get_mut(&key) else { continue };
            if matches!(track.settle, Settle::Due(at_ms) if at_ms <= now_ms) {
                track.settle = Settle::Running;
                keys.push((key.clone(), Arc::clone(&track.place)));
            }
            self.ready.push_back(key);
        }
        keys
    }

    /// A key was settled, beginning at `begun_ms`: a read was answered (else `answers` is none), and these nodes said what they hold.
    pub(super) fn settled(&mut self, now_ms: u64, begun_ms: u64, key: &Key, answers: Option<&[(usize, Held)]>) {
        let Some(track) = self.open.get(key) else { return };
        let place = Arc::clone(&track.place);
        let answers = answers.unwrap_or_default();
        for (node, held) in answers {
            if let Some(state) = &held.state {
                let change = Arc::new(AcceptedChange {
                    commit: 0,
                    key: key.clone(),
                    accepted: held.accepted,
                    state: state.clone(),
                });
                self.holds(now_ms, *node, &change, &place);
            }
        }
        let agreed = agreed(answers, place.quorum());
        let Some(track) = self.open.get_mut(key) else { return };
        if let Some(agreed) = agreed {
            track.agreed = track.agreed.max(Some(agreed));
            // Shown before the read began and newer than what it found: not chosen so far. Should that change, a node will show it.
            let is_idle = |(version, seen): (&Ballot, &Seen)| {
                let waits = seen.proven.is_none() && !seen.idle;
                (waits && *version > agreed && seen.last_ms < begun_ms).then_some(*version)
            };
            let idle: Vec<Ballot> = track.versions.iter().filter_map(is_idle).collect();
            for version in idle {
                self.set_aside(key, version);
            }
        }
        let Some(track) = self.open.get_mut(key) else { return };
        if track.versions.values().all(|seen| seen.idle) {
            // Begun again by the next show.
            track.settle = Settle::Idle;
            return;
        }
        let due = now_ms
            + if agreed.is_some() {
                SETTLE_AFTER_MS
            } else {
                SETTLE_AGAIN_MS
            };
        track.settle = Settle::Due(due);
        self.wakes.insert((due, key.clone()));
        self.ready.push_back(key.clone());
    }

    /// Where a watcher stands that has got everything given out so far.
    pub(super) fn position(&self) -> Position {
        let cursors: Vec<Option<Cursor>> = self.feeds.iter().map(Feed::resume_at).collect();
        let is_beyond = |(node, commit): &(usize, u64)| cursors[*node].is_none_or(|cursor| *commit > cursor.commit);
        let may_come_again = |shows: &[(usize, u64)]| shows.is_empty() || shows.iter().any(is_beyond);
        let told = self.recent.iter().filter(|recent| may_come_again(&recent.shows));
        // Only the newest of a key says what must not come again.
        let newest_of = |told: &Recent| {
            let mut newest_first = self.recent.iter().rev();
            let newest = newest_first.find(|recent| recent.key == told.key)?;
            Some((newest.key, newest.version))
        };
        let told: BTreeMap<u64, Ballot> = told.filter_map(newest_of).collect();
        let (unsure, unsure_all) = self.unsure_now();
        Position {
            newest: self.newest,
            unsure,
            unsure_all,
            told: told.into_iter().collect(),
            cursors: self
                .feeds
                .iter()
                .zip(&cursors)
                .filter_map(|(feed, cursor)| cursor.map(|cursor| (feed.name_hash, cursor)))
                .collect(),
        }
    }

    /// What to say of undecided versions: by key, and of all keys.
    fn unsure_now(&self) -> (Vec<(u64, HlcTime)>, HlcTime) {
        let mut by_key: BTreeMap<u64, HlcTime> = BTreeMap::new();
        for (key, time) in self.idle_of.iter().chain(&self.unsure) {
            let unsure = by_key.entry(*key).or_default();
            *unsure = (*time).max(*unsure);
        }
        if by_key.len() <= MAX_TOLD {
            return (by_key.into_iter().collect(), self.unsure_all);
        }
        let newest = by_key.values().copied().max().unwrap_or_default();
        (Vec::new(), self.unsure_all.max(newest))
    }

    /// A version of the key up to this may have been chosen without having been shown since.
    fn unsure_of(&self, key: &Key) -> HlcTime {
        if self.unsure.is_empty() {
            return self.unsure_all;
        }
        self.unsure
            .get(&hash(key))
            .copied()
            .unwrap_or_default()
            .max(self.unsure_all)
    }

    fn last(&self, key: &Key) -> Option<Last> {
        self.told.last(key).or_else(|| {
            let before = || self.told_before.get(&hash(key));
            if self.told_before.is_empty() { None } else { before() }.map(|version| Last {
                version: *version,
                deleted: false,
            })
        })
    }

    /// Not chosen so far: not waited for any more, but not forgotten while there is room.
    fn set_aside(&mut self, key: &Key, version: Ballot) {
        let Some(seen) = self
            .open
            .get_mut(key)
            .and_then(|track| track.versions.get_mut(&version))
        else {
            return;
        };
        seen.idle = true;
        for show in &mut seen.shows {
            if let Some(commit) = show.commit.take() {
                self.feeds[show.node].no_longer_needs(commit);
            }
        }
        let idle = self.idle_of.entry(hash(key)).or_default();
        *idle = version.time.max(*idle);
        self.idle.push_back((key.clone(), version));
        if self.idle.len() > MAX_IDLE
            && let Some((key, version)) = self.idle.pop_front()
        {
            self.forget_idle(&key, version);
        }
    }

    fn close_if_empty(&mut self, key: &Key) {
        if self.open.get(key).is_some_and(|track| track.versions.is_empty()) {
            self.open.remove(key);
        }
    }

    fn forget_idle(&mut self, key: &Key, version: Ballot) {
        let Some(track) = self.open.get(key) else { return };
        if track.versions.get(&version).is_some_and(|seen| seen.idle) {
            let unsure = self.unsure.entry(hash(key)).or_default();
            *unsure = version.time.max(*unsure);
            if self.unsure.len() > MAX_IDLE {
                let newest = self.unsure.drain().map(|(_, time)| time).max();
                self.unsure_all = self.unsure_all.max(newest.unwrap_or_default());
            }
            self.drop_version(key, version);
            self.close_if_empty(key);
        }
    }

    fn drop_version(&mut self, key: &Key, version: Ballot) {
        let Some(seen) = self.open.get_mut(key).and_then(|track| track.versions.remove(&version)) else {
            return;
        };
        self.open_versions -= 1;
        self.open_bytes -= seen.change.state.size_bytes();
        for show in seen.shows {
            if let Some(commit) = show.commit {
                self.feeds[show.node].no_longer_needs(commit);
            }
        }
    }
}

/// The newest version that a quorum of the answers holds under one ballot; zero when a quorum holds nothing.
fn agreed(answers: &[(usize, Held)], quorum: usize) -> Option<Ballot> {
    let holders = |ballot: Ballot| answers.iter().filter(|(_, held)| held.accepted == ballot).count();
    let agreed = answers.iter().filter(|(_, held)| holders(held.accepted) >= quorum);
    let version = |held: &Held| held.state.as_ref().map_or(Ballot::ZERO, |state| state.version);
    agreed.map(|(_, held)| version(held)).max()
}

fn hash(key: &Key) -> u64 {
    stable_hash(key.as_text().as_bytes())
}
