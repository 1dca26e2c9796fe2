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

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use register::hashing::stable_hash;
use register::message::{AcceptedChange, Held};
use register::{Ballot, HlcTime, Key};

use super::position::{Cursor, Position};
use super::told::{Last, Told};
use super::track::{Fate, Seen, Settle, Show, Track};
use crate::ring::Preference;

/// How long a proven version waits for an older one that cannot be judged yet, in milliseconds.
pub(super) const HOLD_MS: u64 = 1_000;
/// What is not proven this long after it was shown is settled, in milliseconds.
pub(super) const SETTLE_AFTER_MS: u64 = 250;
/// Pause before a key is settled again that could not be, in milliseconds.
pub(super) const SETTLE_AGAIN_MS: u64 = 500;
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

/// One node's feed.
#[derive(Debug)]
struct Feed {
    name_hash: u64,
    /// Everything up to it was taken in.
    cursor: Option<Cursor>,
    /// Everything the node committed before this time was taken in, in milliseconds.
    as_of_ms: Option<u64>,
    /// While the feed has a hole that is not filled: the cursor before it.
    before_hole: Option<Option<Cursor>>,
    /// Commits whose shows are still needed, and how many each.
    needed: BTreeMap<u64, u32>,
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
    /// Shown, settled and not chosen so far, by hash of the key and version. Should another node show it, these count.
    idle: HashMap<(u64, Ballot), Vec<Show>>,
    /// The last deliveries: hash of the key, version, and where feeds showed it; nowhere when that is not known.
    recent: VecDeque<(u64, Ballot, Vec<(usize, u64)>)>,
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
            idle: HashMap::new(),
            recent: position
                .told
                .iter()
                .map(|(key, version)| (*key, *version, Vec::new()))
                .collect(),
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
        let whole = self.feeds[node].before_hole.is_none();
        let show = Show {
            ballot: change.accepted,
            node,
            commit: Some(change.commit),
            whole,
        };
        self.take(now_ms, show, change, place);
    }

    /// A node that was asked says what it holds. Says nothing of what it held before.
    pub(super) fn holds(&mut self, now_ms: u64, node: usize, change: &Arc<AcceptedChange>, place: &Arc<Preference>) {
        let show = Show {
            ballot: change.accepted,
            node,
            commit: None,
            whole: false,
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
            Track::new(Arc::clone(place), Settle::Due(due))
        });
        let seen = track.versions.entry(version).or_insert_with(|| {
            self.open_versions += 1;
            self.open_bytes += change.state.size_bytes();
            let mut seen = Seen::new(Arc::clone(change), now_ms);
            if !self.idle.is_empty() {
                seen.shows = self.idle.remove(&(hash(key), version)).unwrap_or_default();
            }
            seen
        });
        if seen.add(show, place.quorum(), now_ms) {
            if let Some(commit) = show.commit {
                *self.feeds[show.node].needed.entry(commit).or_default() += 1;
            }
            self.ready.push_back(key.clone());
        }
    }

    /// A node's feed was taken in up to this cursor; the node was asked at `as_of_ms`.
    pub(super) fn reached(&mut self, node: usize, cursor: Cursor, as_of_ms: u64) {
        let feed = &mut self.feeds[node];
        feed.cursor = Some(cursor);
        feed.as_of_ms = feed.as_of_ms.max(Some(as_of_ms));
        self.ready.extend(self.held.iter().cloned());
    }

    /// A node's feed goes on at `cursor`, and what is missing before it will not come. Gives how many feeds have holes now.
    pub(super) fn lost(&mut self, node: usize, cursor: Cursor) -> usize {
        let feed = &mut self.feeds[node];
        if feed.before_hole.is_none() {
            feed.before_hole = Some(feed.cursor);
        }
        feed.cursor = Some(cursor);
        feed.as_of_ms = None;
        self.feeds.iter().filter(|feed| feed.before_hole.is_some()).count()
    }

    /// Whatever a node holds that it accepted in the hole of its feed was given to [`Self::holds`].
    pub(super) fn hole_filled(&mut self, node: usize) {
        self.feeds[node].before_hole = None;
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
            feed.needed.clear();
        }
        self.idle.clear();
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
                (*version > agreed && seen.last_ms < begun_ms && seen.proven_ms.is_none()).then_some(*version)
            };
            let idle: Vec<Ballot> = track.versions.iter().filter_map(is_idle).collect();
            for version in idle {
                self.set_aside(key, version);
            }
        }
        let Some(track) = self.open.get_mut(key) else { return };
        if track.versions.is_empty() {
            self.open.remove(key);
            self.held.remove(key);
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

    /// The next change to deliver. Once it is given out, [`Self::position`] is the one after it.
    pub(super) fn next(&mut self, now_ms: u64) -> Option<Delivery> {
        while let Some(key) = self.ready.pop_front() {
            if let Some((version, follows)) = self.choose(now_ms, &key) {
                let was_deleted = self.last(&key).is_some_and(|last| last.deleted);
                let delivery = self.deliver(&key, version, follows);
                self.ready.push_front(key);
                // Gone and still gone is no change.
                if let Some(delivery) = delivery
                    && !(was_deleted && delivery.change.state.is_tombstone() && !delivery.conflated)
                {
                    return Some(delivery);
                }
            }
        }
        None
    }

    /// The version of a key to deliver next, and whether it certainly follows the last one.
    fn choose(&mut self, now_ms: u64, key: &Key) -> Option<(Ballot, bool)> {
        self.held.remove(key);
        loop {
            let last = self.last(key);
            let track = self.open.get_mut(key)?;
            let (oldest, proven_ms) = track.oldest_proven()?;
            if last.is_none() && self.told.may_be_old(oldest) {
                return self.choose_newest(now_ms, key);
            }
            let Some((&first, _)) = track.versions.first_key_value() else {
                return None;
            };
            let last = last.map(|last| last.version);
            if first == oldest {
                let follows = track.follows(oldest, last);
                return Some((oldest, follows));
            }
            let feeds = &self.feeds;
            let fate = track.fate(first, |node| feeds[node].is_whole_after(proven_ms));
            // From before the resume: it may have been delivered then, and more after it; or have been shown only before.
            let is_old = last.is_none() && self.told.may_be_old(first);
            match fate {
                Fate::TookEffect if !is_old => {
                    let follows = track.follows(first, last);
                    return Some((first, follows));
                }
                Fate::Open if now_ms < proven_ms + HOLD_MS => {
                    self.held.insert(key.clone());
                    self.wakes.insert((proven_ms + HOLD_MS, key.clone()));
                    return None;
                }
                Fate::Dead if !is_old => {}
                _ => track.skipped = true,
            }
            self.drop_version(key, first);
        }
    }

    /// Of a key of which it is not known what was delivered before the resume: the newest, once nodes agree that nothing newer was chosen.
    fn choose_newest(&mut self, now_ms: u64, key: &Key) -> Option<(Ballot, bool)> {
        let track = self.open.get_mut(key)?;
        let newest = track.newest_proven()?;
        if track.agreed.is_none_or(|agreed| newest < agreed) {
            if matches!(track.settle, Settle::Due(at_ms) if at_ms > now_ms) && track.agreed.is_none() {
                track.settle = Settle::Due(now_ms);
                self.wakes.insert((now_ms, key.clone()));
            }
            return None;
        }
        let is_only = track
            .versions
            .first_key_value()
            .is_some_and(|(first, _)| *first == newest);
        let follows = is_only && track.follows(newest, None);
        Some((newest, follows))
    }

    fn deliver(&mut self, key: &Key, version: Ballot, follows: bool) -> Option<Delivery> {
        let track = self.open.get(key)?;
        let seen = track.versions.get(&version)?;
        let change = Arc::clone(&seen.change);
        let by_feed = |show: &Show| show.commit.map(|commit| (show.node, commit));
        let shows = seen.shows.iter().filter_map(by_feed).collect();
        let passed: Vec<Ballot> = track.versions.range(..=version).map(|(version, _)| *version).collect();
        for version in passed {
            self.drop_version(key, version);
        }
        if let Some(track) = self.open.get_mut(key) {
            track.skipped = false;
            if track.versions.is_empty() {
                self.open.remove(key);
            }
        }
        let deleted = change.state.is_tombstone();
        self.told.note(key, Last { version, deleted });
        self.newest = self.newest.max(version.time);
        self.recent.push_back((hash(key), version, shows));
        if self.recent.len() > MAX_TOLD {
            self.recent.pop_front();
        }
        Some(Delivery {
            change,
            conflated: !follows,
        })
    }

    /// Where a watcher stands that has got everything given out so far.
    pub(super) fn position(&self) -> Position {
        let cursors: Vec<Option<Cursor>> = self.feeds.iter().map(Feed::resume_at).collect();
        let is_beyond = |(node, commit): &(usize, u64)| cursors[*node].is_none_or(|cursor| *commit > cursor.commit);
        let may_come_again = |shows: &[(usize, u64)]| shows.is_empty() || shows.iter().any(is_beyond);
        let told = self.recent.iter().filter(|(_, _, shows)| may_come_again(shows));
        Position {
            newest: self.newest,
            told: told.map(|(key, version, _)| (*key, *version)).collect(),
            cursors: self
                .feeds
                .iter()
                .zip(&cursors)
                .filter_map(|(feed, cursor)| cursor.map(|cursor| (feed.name_hash, cursor)))
                .collect(),
        }
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

    /// Not chosen so far: not waited for any more, but not forgotten.
    fn set_aside(&mut self, key: &Key, version: Ballot) {
        let seen = self.open.get(key).and_then(|track| track.versions.get(&version));
        let shows = seen.map(|seen| seen.shows.iter().map(|show| Show { commit: None, ..*show }).collect());
        self.drop_version(key, version);
        if self.idle.len() >= MAX_IDLE {
            self.idle.clear();
        }
        self.idle.insert((hash(key), version), shows.unwrap_or_default());
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

impl Feed {
    /// What the node accepted up to this time was taken in without a hole.
    fn is_whole_after(&self, at_ms: u64) -> bool {
        self.before_hole.is_none() && self.as_of_ms.is_some_and(|as_of_ms| as_of_ms > at_ms)
    }

    /// From where on a watcher that resumes has to be shown this feed again.
    fn resume_at(&self) -> Option<Cursor> {
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

    fn no_longer_needs(&mut self, commit: u64) {
        if let Some(count) = self.needed.get_mut(&commit) {
            *count -= 1;
            if *count == 0 {
                self.needed.remove(&commit);
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
