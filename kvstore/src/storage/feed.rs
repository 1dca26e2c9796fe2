//! The last changes, in the order of their commits, for those who watch.
//!
//! In memory only: after a restart it begins with the commit found in the database, and who wants changes from before is told that they
//! are lost. The same when a watcher is slower than the ring is long.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use register::Key;
use register::message::AcceptedChange;
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use super::rows::Stored;

/// Most changes kept: some ten seconds of full load, so that a watcher may be restarted meanwhile.
pub(crate) const MAX_FEED_CHANGES: usize = 65_536;
/// Most bytes kept. States are shared with the cache, so they often take no further memory.
pub(crate) const MAX_FEED_BYTES: usize = 32 * 1024 * 1024;
/// Bytes of states after which an answer ends early.
const MAX_STRETCH_BYTES: usize = 4 * 1024 * 1024;
/// Most who may wait for a change at once: each of them is woken by every commit.
pub(crate) const MAX_WAITING: usize = 64;
/// Bytes an entry takes beside key and record.
const ENTRY_OVERHEAD_BYTES: usize = 48;

/// A stretch of the feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// The node's incarnation: commit numbers count in it.
    pub incarnation: u64,
    /// Everything up to this commit is told, here or before.
    pub commit: u64,
    /// What came after the commit asked for is not there any more, or never was.
    pub lost: bool,
    /// Accepted states in the order of their commits.
    pub changes: Vec<AcceptedChange>,
}

/// The feed. Its mutex is held for memory operations only.
#[derive(Debug)]
pub(crate) struct Feed {
    ring: Mutex<Ring>,
    /// Moves with every append; true when nobody shall wait any more.
    moved: watch::Sender<bool>,
    places: Semaphore,
}

#[derive(Debug)]
struct Ring {
    entries: VecDeque<(Key, Arc<Stored>)>,
    bytes: usize,
    max_changes: usize,
    max_bytes: usize,
    incarnation: u64,
    /// Every change after this commit is in `entries`.
    complete_after: u64,
    /// The last commit.
    commit: u64,
}

impl Feed {
    /// A feed that begins after `commit`.
    pub(crate) fn new(incarnation: u64, commit: u64) -> Self {
        Self::with_limits(incarnation, commit, MAX_FEED_CHANGES, MAX_FEED_BYTES)
    }

    fn with_limits(incarnation: u64, commit: u64, max_changes: usize, max_bytes: usize) -> Self {
        let ring = Ring {
            entries: VecDeque::new(),
            bytes: 0,
            max_changes,
            max_bytes,
            incarnation,
            complete_after: commit,
            commit,
        };
        Self {
            ring: Mutex::new(ring),
            moved: watch::Sender::new(false),
            places: Semaphore::new(MAX_WAITING),
        }
    }

    /// Adds what was accepted up to `commit`, which is durable and shown.
    pub(crate) fn append(&self, accepted: Vec<(Key, Arc<Stored>)>, commit: u64) {
        let mut ring = self.lock();
        for entry in accepted {
            ring.bytes += weight(&entry);
            ring.entries.push_back(entry);
        }
        while ring.entries.len() > ring.max_changes || ring.bytes > ring.max_bytes {
            let Some(oldest) = ring.entries.pop_front() else { break };
            ring.bytes -= weight(&oldest);
            ring.complete_after = oldest.1.commit;
        }
        ring.commit = commit;
        drop(ring);
        self.moved.send_modify(|_| ());
    }

    /// Begins anew after `commit` of this incarnation.
    pub(crate) fn reset(&self, incarnation: u64, commit: u64) {
        let mut ring = self.lock();
        ring.entries.clear();
        ring.bytes = 0;
        (ring.incarnation, ring.complete_after, ring.commit) = (incarnation, commit, commit);
        drop(ring);
        self.moved.send_modify(|_| ());
    }

    /// What was accepted after `after_commit` of this incarnation, at most `limit` changes.
    pub(crate) fn stretch(&self, incarnation: u64, after_commit: u64, limit: usize) -> Stretch {
        let ring = self.lock();
        let lost = incarnation != ring.incarnation || after_commit < ring.complete_after || after_commit > ring.commit;
        let mut stretch = Stretch {
            incarnation: ring.incarnation,
            commit: ring.commit,
            lost,
            changes: Vec::new(),
        };
        if lost {
            return stretch;
        }
        let first = ring
            .entries
            .partition_point(|(_, stored)| stored.commit <= after_commit);
        let mut bytes = 0;
        for (key, stored) in ring.entries.range(first..) {
            if stretch.changes.len() >= limit || bytes >= MAX_STRETCH_BYTES {
                stretch.commit = stretch.changes.last().map_or(after_commit, |change| change.commit);
                break;
            }
            bytes += stored.record.size_bytes();
            // Only accepted states are appended.
            if let Some(state) = &stored.record.state {
                stretch.changes.push(AcceptedChange {
                    commit: stored.commit,
                    key: key.clone(),
                    accepted: stored.record.accepted,
                    state: state.clone(),
                });
            }
        }
        stretch
    }

    /// A place among those who wait, while there is one.
    pub(crate) fn place_to_wait(&self) -> Option<SemaphorePermit<'_>> {
        self.places.try_acquire().ok()
    }

    /// How many wait.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        MAX_WAITING - self.places.available_permits()
    }

    /// Is told of every append from now on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<bool> {
        self.moved.subscribe()
    }

    /// Nobody shall wait any more: the node is stopping.
    pub(crate) fn end_waits(&self) {
        self.moved.send_replace(true);
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        // Only running out of memory can panic under it, and a panicking writer begins the feed anew.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn weight((key, stored): &(Key, Arc<Stored>)) -> usize {
    ENTRY_OVERHEAD_BYTES + key.as_text().len() + stored.record.size_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use register::{Ballot, HlcTime, Lineage, Record, State};

    use super::*;

    fn entry(commit: u64, value_bytes: usize) -> (Key, Arc<Stored>) {
        let ballot = Ballot {
            time: HlcTime::from_bits(commit),
            incarnation: 1,
        };
        let state = State {
            value: Some("x".repeat(value_bytes).into()),
            version: ballot,
            fence: 0,
            expires_at_ms: None,
            lineage: Lineage::default(),
        };
        let mut record = Record::empty(Ballot::ZERO);
        (record.accepted, record.state) = (ballot, Some(state));
        (Key::data(&commit.to_string()), Arc::new(Stored { record, commit }))
    }

    proptest! {
        /// Whatever is appended and however little is kept: a watcher that resumes where it was told it is gets every change once and in
        /// order, or is told that some are lost.
        #[test]
        fn nothing_is_missed_without_saying_so(
            appends in proptest::collection::vec((0u64..4, 0u64..3, 0usize..400), 1..60),
            asks in proptest::collection::vec((any::<bool>(), 1usize..5), 60),
            max_changes in 1usize..20,
            max_bytes in 500usize..6_000,
        ) {
            let feed = Feed::with_limits(1, 0, max_changes, max_bytes);
            let (mut commit, mut all) = (0, Vec::new());
            let (mut after, mut told) = (0, Vec::new());
            for ((accepted, promised, value_bytes), (ask, limit)) in appends.into_iter().zip(asks) {
                let entries: Vec<_> = (1..=accepted).map(|n| entry(commit + n, value_bytes)).collect();
                all.extend(entries.iter().map(|(_, stored)| stored.commit));
                commit += accepted + promised;
                feed.append(entries, commit);
                let ring = feed.lock();
                let bytes: usize = ring.entries.iter().map(weight).sum();
                prop_assert_eq!(ring.bytes, bytes);
                prop_assert!(bytes <= max_bytes && ring.entries.len() <= max_changes);
                drop(ring);
                if !ask {
                    continue;
                }
                let stretch = feed.stretch(1, after, limit);
                prop_assert!(stretch.changes.len() <= limit);
                if stretch.lost {
                    let missed = all.iter().filter(|commit| **commit > after).count();
                    prop_assert!(missed > 0 && stretch.changes.is_empty());
                    told = all.clone();
                } else {
                    told.extend(stretch.changes.iter().map(|change| change.commit));
                }
                after = stretch.commit;
                let expected: Vec<u64> = all.iter().copied().filter(|commit| *commit <= after).collect();
                prop_assert_eq!(&told, &expected);
            }
        }
    }

    #[test]
    fn an_answer_ends_early_when_states_are_large() {
        let feed = Feed::new(1, 0);
        feed.append((1..=8).map(|commit| entry(commit, 1 << 20)).collect(), 9);
        let stretch = feed.stretch(1, 0, 100);
        assert_eq!((stretch.changes.len(), stretch.commit), (4, 4));
        assert_eq!(feed.stretch(1, 4, 100).commit, 9);
    }
}
