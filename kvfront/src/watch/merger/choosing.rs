//! Which version of a key is delivered next, and whether it certainly follows the last one.

use std::sync::Arc;

use register::{Ballot, HlcTime, Key};

use super::super::told::Last;
use super::super::track::{Fate, Settle, Show};
use super::{Delivery, HOLD_MS, MAX_TOLD, Merger, Recent, SETTLE_AFTER_MS, hash};

impl Merger {
    /// The next change to deliver. Once it is given out, [`Self::position`] is the one after it.
    pub(in crate::watch) fn next(&mut self, now_ms: u64) -> Option<Delivery> {
        self.end_holes(now_ms);
        while let Some(key) = self.ready.pop_front() {
            if let Some((version, follows)) = self.choose(now_ms, &key) {
                let last = self.last(&key);
                let was_deleted = last.is_some_and(|last| last.deleted);
                let last_time = last.map_or(HlcTime::ZERO, |last| last.version.time);
                // A version that was forgotten may have been chosen since.
                let follows = follows && last_time >= self.unsure_of(&key);
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
        let unsure = self.unsure_of(key);
        loop {
            let last = self.last(key);
            let track = self.open.get_mut(key)?;
            let (oldest, proven_ms, bar) = track.oldest_proven()?;
            if last.is_none() && self.told.may_be_old(oldest) {
                return self.choose_newest(now_ms, key);
            }
            let (&first, _) = track.versions.first_key_value()?;
            let last = last.map(|last| last.version);
            let feeds = &self.feeds;
            let is_whole = |node: usize| feeds[node].is_whole_after(last);
            let may_wait = now_ms < proven_ms + HOLD_MS;
            if first == oldest {
                let follows = track.follows(oldest, last, is_whole);
                // Nodes that were asked are ahead of their feeds, which soon show whether something is missing.
                if !follows && !track.skipped && may_wait {
                    return self.hold(key, proven_ms + HOLD_MS);
                }
                return Some((oldest, follows));
            }
            let is_past = |node| is_whole(node) && feeds[node].as_of_ms > Some(proven_ms);
            let fate = track.fate(first, bar, is_whole, is_past);
            // From before the resume: it may have been delivered then, and more after it; or have been shown only before.
            let is_old = last.is_none() && self.told.may_be_old(first);
            match fate {
                Fate::TookEffect if !is_old => {
                    let follows = track.follows(first, last, is_whole);
                    if !follows && !track.skipped && may_wait {
                        return self.hold(key, proven_ms + HOLD_MS);
                    }
                    return Some((first, follows));
                }
                Fate::Open if may_wait => return self.hold(key, proven_ms + HOLD_MS),
                Fate::Dead if first.time > unsure => {}
                _ => track.skipped = true,
            }
            self.drop_version(key, first);
        }
    }

    /// Looks at a key again when feeds go on, and at this time at the latest.
    fn hold(&mut self, key: &Key, until_ms: u64) -> Option<(Ballot, bool)> {
        self.held.insert(key.clone());
        self.wakes.insert((until_ms, key.clone()));
        None
    }

    /// Of a key of which it is not known what was delivered before the resume: the newest, once nodes agree that nothing newer was chosen.
    fn choose_newest(&mut self, now_ms: u64, key: &Key) -> Option<(Ballot, bool)> {
        let track = self.open.get_mut(key)?;
        let newest = track.newest_proven()?;
        if track.agreed.is_none_or(|agreed| newest < agreed) {
            // At once, the first time.
            let is_first = matches!(track.settle, Settle::Due(at_ms) if at_ms == track.opened_ms + SETTLE_AFTER_MS);
            if is_first && now_ms < track.opened_ms + SETTLE_AFTER_MS {
                track.settle = Settle::Due(now_ms);
                self.wakes.insert((now_ms, key.clone()));
            }
            return None;
        }
        let (oldest, proven_ms, _) = track.oldest_proven()?;
        let is_only = oldest == newest && track.versions.keys().all(|version| *version >= newest);
        let feeds = &self.feeds;
        let follows = is_only && track.follows(newest, None, |node| feeds[node].is_whole_after(None));
        if is_only && !follows && now_ms < proven_ms + HOLD_MS {
            return self.hold(key, proven_ms + HOLD_MS);
        }
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
        }
        self.close_if_empty(key);
        for unsure in [&mut self.idle_of, &mut self.unsure] {
            if !unsure.is_empty() && unsure.get(&hash(key)).is_some_and(|time| *time <= version.time) {
                unsure.remove(&hash(key));
            }
        }
        let deleted = change.state.is_tombstone();
        self.told.note(key, Last { version, deleted });
        self.newest = self.newest.max(version.time);
        self.recent.push_back(Recent {
            key: hash(key),
            version,
            shows,
        });
        if self.recent.len() > MAX_TOLD {
            self.recent.pop_front();
        }
        Some(Delivery {
            change,
            conflated: !follows,
        })
    }
}
