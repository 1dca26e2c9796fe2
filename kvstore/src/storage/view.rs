//! What readers may see: the cache, and the numbers of the last commit.
//!
//! The promise: a reader never sees anything uncommitted, and the cache never gives an older version of a key after anybody saw a newer
//! one. The danger is the slow reader: it misses, reads the old row, and puts it into the cache after the writer has committed a newer
//! one (which may already be evicted again, so comparing with what is cached is not enough). So keys are hashed onto slots, each with the
//! generation of its last commit. A reader takes the generation when it looks the key up; what it read may only be filled in when the slot has
//! not been written since, and no commit on it is under way. Between the commit in SQLite and its publication here the cache may still hold the older version,
//! which is then read by everybody who finds it; nothing older can enter any more.
//!
//! The floor that readers tell is raised *before* the commit that raises it. A row that is gone must never be seen together with a floor
//! from before it was dropped (the coordinator would take "dropped" for "never had"); too high a floor only costs a second asking.
//!
//! The node's standing says what its records are worth, so no record may be told under a standing that is not of the same moment. While
//! the standing changes nothing is told at all, from before the commit until after it; and a reader who looked up before a change and read
//! its rows meanwhile is told so, and answers nothing.

#[cfg(test)]
mod tests;

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use register::membership::DropRecords;
use register::{Ballot, Epoch, Key, Standing};

use super::cache::{Cache, CacheLimits};
use super::rows::Stored;

/// Slots that keys are hashed onto. Two keys in one slot only cost a fill now and then.
const SLOTS: usize = 4_096;

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    /// The generation of the last commit on this slot, or of the one under way.
    generation: u64,
    /// A commit on this slot is under way.
    committing: bool,
}

/// Proof of when a reader looked a key up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticket {
    generation: u64,
    standing_turn: u64,
}

/// What a reader finds.
#[derive(Debug)]
pub(crate) struct Looked {
    /// The cached records, in the order of the keys.
    pub(crate) found: Vec<Option<Arc<Stored>>>,
    /// What they are worth; none while that changes.
    pub(crate) standing: Option<Standing>,
    /// To fill in those that are missing.
    pub(crate) ticket: Ticket,
}

/// What a reader who filled in rows may say of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Filled {
    /// The floor to tell for keys that had no row.
    pub(crate) floor: Ballot,
    /// The standing has not changed since the reader looked up.
    pub(crate) same_standing: bool,
}

/// What the node tells of itself with every answer, as of its last commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Number of the last committed change; of a node that has just come back, the one it was found with.
    pub commit: u64,
    /// The node's floor.
    pub floor: Ballot,
    /// The node's incarnation.
    pub incarnation: u64,
    /// Whether the node votes.
    pub standing: Standing,
    /// The ring it belongs to.
    pub epoch: Option<Epoch>,
}

/// The shared view. Its mutex is held for memory operations only.
#[derive(Debug)]
pub(crate) struct View {
    hasher: RandomState,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    cache: Cache,
    slots: Box<[Slot]>,
    generation: u64,
    progress: Progress,
    /// At least the floor of every row set a reader can see.
    reader_floor: Ballot,
    /// What readers are told their records are worth; none while that changes.
    reader_standing: Option<Standing>,
    /// Grows whenever `reader_standing` changes.
    standing_turn: u64,
}

impl View {
    pub(crate) fn new(limits: CacheLimits, progress: Progress) -> Self {
        let inner = Inner {
            cache: Cache::new(limits),
            slots: vec![Slot::default(); SLOTS].into(),
            generation: 0,
            progress,
            reader_floor: progress.floor,
            reader_standing: Some(progress.standing),
            standing_turn: 0,
        };
        Self {
            hasher: RandomState::new(),
            inner: Mutex::new(inner),
        }
    }

    /// The cached records of keys, what they are worth, and the ticket to fill in those that are missing.
    pub(crate) fn look_up<'a>(&self, keys: impl Iterator<Item = &'a Key>) -> Looked {
        let mut inner = self.lock();
        Looked {
            found: keys.map(|key| inner.cache.get(key)).collect(),
            standing: inner.reader_standing,
            ticket: Ticket {
                generation: inner.generation,
                standing_turn: inner.standing_turn,
            },
        }
    }

    /// The cached record of a key, without a ticket: for the writer, which is the only one to change anything.
    pub(crate) fn cached(&self, key: &Key) -> Option<Arc<Stored>> {
        self.lock().cache.get(key)
    }

    /// Offers rows read after `ticket` was taken.
    pub(crate) fn fill(&self, ticket: Ticket, rows: impl Iterator<Item = (Key, Arc<Stored>)>) -> Filled {
        let mut inner = self.lock();
        for (key, stored) in rows {
            let slot = inner.slots[self.slot(&key)];
            if !slot.committing && slot.generation <= ticket.generation && !inner.cache.contains(&key) {
                inner.cache.put(key, stored);
            }
        }
        Filled {
            floor: inner.reader_floor,
            same_standing: inner.standing_turn == ticket.standing_turn,
        }
    }

    /// Right before a commit that writes `keys` and raises the floor to `floor`.
    pub(crate) fn begin<'a>(&self, keys: impl Iterator<Item = &'a Key>, floor: Ballot) {
        let mut inner = self.lock();
        inner.generation += 1;
        let generation = inner.generation;
        for key in keys {
            inner.slots[self.slot(key)] = Slot {
                generation,
                committing: true,
            };
            inner.cache.remove(key);
        }
        inner.reader_floor = inner.reader_floor.max(floor);
    }

    /// After the commit: shows what it wrote (`None`: dropped).
    pub(crate) fn publish(&self, rows: impl Iterator<Item = (Key, Option<Arc<Stored>>)>, progress: Progress) {
        let mut inner = self.lock();
        inner.generation += 1;
        let generation = inner.generation;
        for (key, stored) in rows {
            inner.slots[self.slot(&key)] = Slot {
                generation,
                committing: false,
            };
            match stored {
                Some(stored) => inner.cache.put(key, stored),
                None => inner.cache.remove(&key),
            }
        }
        inner.progress = progress;
        inner.reader_floor = progress.floor;
    }

    /// After a commit that failed: the rows are what they were, and may be cached again when they are next read.
    pub(crate) fn abort<'a>(&self, keys: impl Iterator<Item = &'a Key>) {
        let mut inner = self.lock();
        inner.generation += 1;
        let generation = inner.generation;
        for key in keys {
            inner.slots[self.slot(key)] = Slot {
                generation,
                committing: false,
            };
        }
        inner.reader_floor = inner.progress.floor;
    }

    /// Right before a commit that changes the node itself: its standing to `next.standing`, its floor to `next.floor`, and that drops some
    /// records.
    pub(crate) fn begin_node(&self, next: &Progress, drop: DropRecords) {
        let mut inner = self.lock();
        inner.generation += 1;
        let generation = inner.generation;
        if inner.progress.standing != next.standing {
            inner.tell_standing(None);
        }
        if drop != DropRecords::None {
            // Which keys they have is not known yet, so no row at all is cached until it is done.
            inner.slots.fill(Slot {
                generation,
                committing: true,
            });
            let dropped = |stored: &Stored| drop.drops(stored.record.accepted, stored.record.promised);
            inner.cache.retain(|stored| !dropped(stored));
        }
        inner.reader_floor = inner.reader_floor.max(next.floor);
    }

    /// After that commit, or after it failed (then with what the node still is).
    pub(crate) fn end_node(&self, progress: Progress) {
        let mut inner = self.lock();
        inner.generation += 1;
        let generation = inner.generation;
        inner.slots.fill(Slot {
            generation,
            committing: false,
        });
        inner.progress = progress;
        inner.reader_floor = progress.floor;
        if inner.reader_standing != Some(progress.standing) {
            inner.tell_standing(Some(progress.standing));
        }
    }

    /// After the writer lost track (a panic): forgets everything cached and starts from what the database says.
    pub(crate) fn reset(&self, progress: Progress) {
        let mut inner = self.lock();
        inner.generation += 1;
        let generation = inner.generation;
        inner.slots.fill(Slot {
            generation,
            committing: false,
        });
        inner.cache.clear();
        inner.progress = progress;
        inner.reader_floor = progress.floor;
        inner.tell_standing(Some(progress.standing));
    }

    /// The last commit.
    pub(crate) fn progress(&self) -> Progress {
        self.lock().progress
    }

    /// Items and bytes in the cache.
    pub(crate) fn cache_size(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.cache.items(), inner.cache.bytes())
    }

    #[expect(clippy::cast_possible_truncation, reason = "a remainder below SLOTS fits any usize")]
    fn slot(&self, key: &Key) -> usize {
        (self.hasher.hash_one(key) % SLOTS as u64) as usize
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while it was held can only come from running out of memory; the sums are then rebuilt by `reset`.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn tell_standing(&mut self, standing: Option<Standing>) {
        self.reader_standing = standing;
        self.standing_turn += 1;
    }
}
