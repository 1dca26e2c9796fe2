//! What readers may see: the cache, and the numbers of the last commit.
//!
//! The promise: a reader never sees anything uncommitted, and the cache never gives an older version of a key after anybody saw a newer
//! one. The danger is the slow reader: it misses, reads the old row, and puts it into the cache after the writer has committed a newer
//! one (which may already be evicted again, so comparing with what is cached is not enough). So keys are hashed onto slots, each with the
//! generation of its last commit. A reader takes the generation when it looks the key up; what it read may only be filled in when the slot has
//! not been written since, and no commit on it is under way. Between the commit in SQLite and its publication here the cache may still hold the older version,
//! which is then read by everybody who finds it; nothing older can enter any more.
//!
//! What is committed and not yet in the table of records ([`Unapplied`]) is found here too, before the table is asked. A key that is not among
//! it has its last version in the table.
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
use super::log::{Later, Unapplied};
use super::node_row::NodeRow;
use super::reader::RowResult;
use super::rows::Stored;
use super::writer::progress;

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

/// What is known of a key without asking the table of records.
#[derive(Debug, Clone)]
pub(crate) enum Known {
    /// Its record.
    Record(Arc<Stored>),
    /// It has none, though the table may still say otherwise.
    Dropped,
    /// The table has its last version.
    AskTable,
}

/// What a reader finds.
#[derive(Debug)]
pub(crate) struct Looked {
    /// What is known, in the order of the keys.
    pub(crate) found: Vec<Known>,
    /// The floor to tell for keys that were dropped.
    pub(crate) floor: Ballot,
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
    /// Shared with those who read lists; copied when it changes while they do.
    unapplied: Arc<Unapplied>,
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
    pub(crate) fn new(limits: CacheLimits, unapplied: Unapplied) -> Self {
        let progress = progress(&unapplied.node);
        let inner = Inner {
            cache: Cache::new(limits),
            unapplied: Arc::new(unapplied),
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

    /// What is known of keys, what it is worth, and the ticket to fill in what is missing.
    pub(crate) fn look_up<'a>(&self, keys: impl Iterator<Item = &'a Key>) -> Looked {
        let mut inner = self.lock();
        Looked {
            found: keys.map(|key| inner.known(key)).collect(),
            floor: inner.reader_floor,
            standing: inner.reader_standing,
            ticket: Ticket {
                generation: inner.generation,
                standing_turn: inner.standing_turn,
            },
        }
    }

    /// What is known of a key, without a ticket: for the writer, which is the only one to change anything.
    pub(crate) fn known(&self, key: &Key) -> Known {
        self.lock().known(key)
    }

    /// What the table of records does not have yet.
    pub(crate) fn unapplied(&self) -> Arc<Unapplied> {
        Arc::clone(&self.lock().unapplied)
    }

    /// Offers rows read after `ticket` was taken. A row is replaced by what is known of its key by now: the row may come from a commit that
    /// is not shown yet, and everybody else is still told what was before it.
    pub(crate) fn fill(&self, ticket: Ticket, rows: &mut [RowResult]) -> Filled {
        let mut inner = self.lock();
        for (key, row) in rows {
            match (inner.known(key), &row) {
                (Known::Record(stored), _) => *row = Ok(Some(stored)),
                (Known::Dropped, _) => *row = Ok(None),
                (Known::AskTable, Ok(Some(stored))) => {
                    let slot = inner.slots[self.slot(key)];
                    if !slot.committing && slot.generation <= ticket.generation {
                        inner.cache.put(key.clone(), Arc::clone(stored));
                    }
                }
                (Known::AskTable, _) => {}
            }
        }
        Filled {
            floor: inner.reader_floor,
            same_standing: inner.standing_turn == ticket.standing_turn,
        }
    }

    /// Right before a commit that raises the floor to `floor`, and leaves alone what readers may find in the table of records.
    pub(crate) fn begin_logged(&self, floor: Ballot) {
        let mut inner = self.lock();
        inner.reader_floor = inner.reader_floor.max(floor);
    }

    /// After that commit, or after it failed: with what is not in the table now, and the records it changed (`None`: dropped).
    pub(crate) fn end_logged(
        &self,
        changed: impl Iterator<Item = (Key, Option<Arc<Stored>>)>,
        note: impl FnOnce(&mut Unapplied),
    ) {
        let mut inner = self.lock();
        inner.generation += 1;
        let generation = inner.generation;
        // Copied only while somebody reads a list.
        note(Arc::make_mut(&mut inner.unapplied));
        for (key, stored) in changed {
            inner.slots[self.slot(&key)].generation = generation;
            match stored {
                Some(stored) => inner.cache.put(key, stored),
                None => inner.cache.remove(&key),
            }
        }
        inner.progress = progress(&inner.unapplied.node);
        inner.reader_floor = inner.progress.floor;
    }

    /// Right before a commit that writes `keys` to the table of records and raises the floor to `floor`.
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

    /// After the commit: shows what it wrote (`None`: dropped). The table has everything now.
    pub(crate) fn publish(&self, rows: impl Iterator<Item = (Key, Option<Arc<Stored>>)>, node: NodeRow) {
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
        inner.table_is_complete(node);
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

    /// After that commit, with what the node is now and everything in the table; or after it failed.
    pub(crate) fn end_node(&self, changed: Option<NodeRow>) {
        let mut inner = self.lock();
        inner.generation += 1;
        let generation = inner.generation;
        inner.slots.fill(Slot {
            generation,
            committing: false,
        });
        if let Some(node) = changed {
            inner.table_is_complete(node);
        }
        inner.reader_floor = inner.progress.floor;
        let standing = inner.progress.standing;
        if inner.reader_standing != Some(standing) {
            inner.tell_standing(Some(standing));
        }
    }

    /// After the writer lost track (a panic): forgets everything cached and starts from what the database says.
    pub(crate) fn reset(&self, node: NodeRow) {
        let mut inner = self.lock();
        inner.generation += 1;
        let generation = inner.generation;
        inner.slots.fill(Slot {
            generation,
            committing: false,
        });
        inner.cache.clear();
        inner.table_is_complete(node);
        let standing = inner.progress.standing;
        inner.tell_standing(Some(standing));
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
    fn known(&mut self, key: &Key) -> Known {
        if let Some(stored) = self.cache.get(key) {
            return Known::Record(stored);
        }
        match self.unapplied.records().get(key) {
            Some(Later {
                stored: Some(stored), ..
            }) => Known::Record(Arc::clone(stored)),
            Some(Later { stored: None, .. }) => Known::Dropped,
            None => Known::AskTable,
        }
    }

    fn table_is_complete(&mut self, node: NodeRow) {
        self.unapplied = Arc::new(Unapplied::none(node));
        self.progress = progress(&node);
        self.reader_floor = self.progress.floor;
    }

    fn tell_standing(&mut self, standing: Option<Standing>) {
        self.reader_standing = standing;
        self.standing_turn += 1;
    }
}
