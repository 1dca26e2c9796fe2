//! The commit log: what is durable and not yet in the table of records.
//!
//! A record that changes dirties a page of the table, and SQLite writes whole pages: ten times what has changed. So a commit writes what it
//! changed, one record after the other, into the next pages of table `log`, and the table of records gets them later: many commits at once,
//! in key order, a record that was changed ten times written once. (A redo log before a B-tree in place; Gray & Reuter, Transaction
//! Processing, 1992, chapter 11. SQLite's own log below it is what makes each transaction whole.)
//!
//! - **A slot** is a row of `log` that just fills a page. A commit takes as many as it needs and never shares one, so no page is written
//!   twice for two commits. SQLite overwrites a row of the same size in place. Every slot begins with its *position*, which is counted on
//!   and on; position modulo [`SLOTS`] is its row.
//! - **A generation** is what is written while the one before is being applied. When it has filled half of the slots, the one before must
//!   be done: its slots are free, and the generation itself is next. Each commit applies its share ([`Pace`]), so that no commit has to
//!   wait for much.
//! - **The node's row** says from where on the log counts: `log_start`, where the generation that is being applied begins, and `log_fresh`,
//!   where the one that is being written begins. They move with the first commit of a generation.
//! - **After a restart** [`replay`] goes through the log from `log_start` to its end, keeps the last of each key, and writes those into
//!   the table. Some may be there already; they are the same, or older.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use register::{Ballot, HlcTime, Key, Record};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension};
use serde::ser::SerializeTuple;
use serde::{Deserialize, Serialize, Serializer};

use super::batch::Slot;
use super::node_row::NodeRow;
use super::rows::{self, Stored, unreadable};

/// Rows of the log: 4 MiB. A generation then has some thousand small records, of which the busy ones come more than once. Few in tests, which
/// so see every turn of it.
const SLOTS: u64 = if cfg!(test) { 16 } else { 1_024 };
/// Slots of a generation.
const GENERATION_SLOTS: u64 = SLOTS / 2;
/// Bytes of a slot: with its row's header, what SQLite keeps on a page of 4,096 bytes without another one.
const SLOT_BYTES: usize = 4_048;
/// Bytes of a position.
const POSITION_BYTES: usize = 8;
/// Bytes of an entry's length, in front of it.
const LENGTH_BYTES: usize = 4;
/// What a slot holds of an entry.
const PAYLOAD_BYTES: usize = SLOT_BYTES - POSITION_BYTES;
/// Slots of the largest entry: 128 KiB. What is larger goes into the table of records at once.
const MAX_ENTRY_SLOTS: u64 = if cfg!(test) { 4 } else { 32 };
/// What they hold.
#[expect(clippy::cast_possible_truncation, reason = "a small constant")]
const MAX_ENTRY_BYTES: usize = MAX_ENTRY_SLOTS as usize * PAYLOAD_BYTES;
/// The form of an entry, its first byte. Another form gets another number, so that no log is ever misread.
const FORM: u8 = 1;

/// What a commit does for the generation before its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Records to apply before it: the rest of the generation before, when `begins` is set.
    pub(crate) apply: usize,
    /// It is the first of its generation.
    pub(crate) begins: bool,
}

/// Where the writer is in the log, and the buffer for the next entry.
#[derive(Debug)]
pub(crate) struct CommitLog {
    /// Position of the next slot.
    next: u64,
    buffer: Vec<u8>,
}

impl CommitLog {
    /// A log whose next slot has this position.
    pub(crate) fn new(next: u64) -> Self {
        Self {
            next,
            buffer: Vec::new(),
        }
    }

    /// Position of the next slot.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Takes up a commit; gives the slots it needs, or nothing when it is too large for the log.
    pub(crate) fn encode(&mut self, node: &NodeRow, changes: &[(Key, Slot)]) -> Result<Option<u64>, postcard::Error> {
        let values = changes
            .iter()
            .filter_map(|(_, slot)| slot.now.as_ref()?.record.state.as_ref()?.value.as_ref());
        if values.map(|value| value.len()).sum::<usize>() > MAX_ENTRY_BYTES {
            return Ok(None);
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        buffer.extend([0; LENGTH_BYTES]);
        buffer.push(FORM);
        let entry = (Numbers::of(node), Changes(changes));
        self.buffer = postcard::to_extend(&entry, buffer)?;
        let bytes = self.buffer.len();
        let Ok(length) = u32::try_from(bytes - LENGTH_BYTES) else {
            return Ok(None);
        };
        self.buffer[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
        let slots = slots_of(bytes);
        Ok((slots <= MAX_ENTRY_SLOTS).then_some(slots))
    }

    /// What a commit of so many slots has to do first, when its generation began at `fresh` and `left` records of the one before are still
    /// to be applied.
    pub(crate) fn pace(&self, fresh: u64, left: usize, slots: u64) -> Pace {
        let room = GENERATION_SLOTS.saturating_sub(self.next - fresh);
        if slots > room {
            return Pace {
                apply: left,
                begins: true,
            };
        }
        // Its share, such that nothing is left when the generation is full.
        let share = (left as u64).saturating_mul(slots).div_ceil(room);
        Pace {
            apply: usize::try_from(share).unwrap_or(left).min(left),
            begins: false,
        }
    }

    /// Writes the entry taken up last; gives the position after it, to be handed to [`Self::written`] once it is committed.
    pub(crate) fn write(&mut self, connection: &Connection) -> rusqlite::Result<u64> {
        let mut position = self.next;
        let mut slot = [0; SLOT_BYTES];
        for chunk in self.buffer.chunks(PAYLOAD_BYTES) {
            slot[..POSITION_BYTES].copy_from_slice(&position.to_le_bytes());
            slot[POSITION_BYTES..][..chunk.len()].copy_from_slice(chunk);
            // The rest keeps whatever it was: the length tells what counts.
            let sql = if position < SLOTS {
                "INSERT INTO log (bytes, slot) VALUES (?1, ?2)"
            } else {
                "UPDATE log SET bytes = ?1 WHERE slot = ?2"
            };
            let row = (position % SLOTS).cast_signed();
            let written = connection.prepare_cached(sql)?.execute((&slot[..], row))?;
            if written != 1 {
                return Err(rusqlite::Error::StatementChangedRows(written));
            }
            position += 1;
        }
        Ok(position)
    }

    /// The log now ends here.
    pub(crate) fn written(&mut self, end: u64) {
        self.next = end;
    }
}

fn slots_of(bytes: usize) -> u64 {
    bytes.div_ceil(PAYLOAD_BYTES) as u64
}

/// What each commit changes of the node's row.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Numbers {
    floor: Ballot,
    commit: u64,
    clock: HlcTime,
    records: u64,
    hints: u64,
}

impl Numbers {
    fn of(node: &NodeRow) -> Self {
        Self {
            floor: node.floor,
            commit: node.commit,
            clock: node.clock,
            records: node.records,
            hints: node.hints,
        }
    }
}

/// The records of a commit, in the form [`Change`] is read in.
struct Changes<'a>(&'a [(Key, Slot)]);

impl Serialize for Changes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|(key, slot)| ChangeRef(key, slot)))
    }
}

struct ChangeRef<'a>(&'a Key, &'a Slot);

impl Serialize for ChangeRef<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut change = serializer.serialize_tuple(2)?;
        change.serialize_element(self.0)?;
        let stored = self.1.now.as_deref();
        change.serialize_element(&stored.map(|stored| (stored.commit, &stored.record)))?;
        change.end()
    }
}

/// A key and its record after the commit; none when it was dropped.
type Change = (Key, Option<(u64, Record)>);

/// Writes everything the log holds into the table of records and the node's row, in the transaction that is open. True when there was
/// something.
pub(crate) fn replay(connection: &Connection) -> rusqlite::Result<bool> {
    let mut node = NodeRow::read(connection)?;
    let mut last: BTreeMap<Key, Option<Stored>> = BTreeMap::new();
    let mut position = node.log_start;
    while let Some(entry) = entry_at(connection, position)? {
        position += slots_of(LENGTH_BYTES + entry.len());
        let (numbers, changes) = decode(&entry)?;
        (node.commit, node.records, node.hints) = (numbers.commit, numbers.records, numbers.hints);
        node.floor = node.floor.max(numbers.floor);
        // A commit that changed nothing else may have moved it on in the node's row.
        node.clock = node.clock.max(numbers.clock);
        for (key, change) in changes {
            last.insert(key, change.map(|(commit, record)| Stored { record, commit }));
        }
    }
    if node.log_start != node.log_fresh && position <= node.log_fresh {
        let written = node.log_fresh;
        return Err(broken(&format!(
            "it ends before slot {position}, and slot {written} was written"
        )));
    }
    if position == node.log_start {
        return Ok(false);
    }
    for (key, stored) in &last {
        match stored {
            Some(stored) => {
                let exists = rows::has_record(connection, key)?;
                rows::write_record(connection, key, stored, exists)?;
            }
            None => rows::delete_record(connection, key)?,
        }
    }
    tracing::info!(
        slots = position - node.log_start,
        records = last.len(),
        "the commit log was applied"
    );
    node.log_start = position;
    node.log_fresh = position;
    node.update(connection)?;
    Ok(true)
}

/// The entry that begins at this position; none when the log ends before it.
fn entry_at(connection: &Connection, position: u64) -> rusqlite::Result<Option<Vec<u8>>> {
    let Some(first) = slot_at(connection, position)? else {
        return Ok(None);
    };
    let Some((length, rest)) = first.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(broken(&format!("slot {position} is too short")));
    };
    let length = u32::from_le_bytes(*length) as usize;
    let slots = slots_of(LENGTH_BYTES + length);
    if slots > MAX_ENTRY_SLOTS {
        return Err(broken(&format!("the entry at slot {position} has {length} bytes")));
    }
    let mut entry = rest.to_vec();
    for position in position + 1..position + slots {
        let Some(more) = slot_at(connection, position)? else {
            return Err(broken(&format!("slot {position} is missing")));
        };
        entry.extend(more);
    }
    entry.truncate(length);
    Ok(Some(entry))
}

/// What the slot at this position holds; none when it was not written, or is an older one's.
fn slot_at(connection: &Connection, position: u64) -> rusqlite::Result<Option<Vec<u8>>> {
    let mut statement = connection.prepare_cached("SELECT bytes FROM log WHERE slot = ?")?;
    let found = statement.query_row([(position % SLOTS).cast_signed()], |row| {
        let bytes = row.get_ref(0)?.as_blob()?;
        let Some((found, payload)) = bytes.split_first_chunk::<POSITION_BYTES>() else {
            return Err(broken(&format!("slot {position} is too short")));
        };
        Ok((u64::from_le_bytes(*found) == position).then(|| payload.to_vec()))
    });
    found.optional().map(Option::flatten)
}

fn decode(entry: &[u8]) -> rusqlite::Result<(Numbers, Vec<Change>)> {
    match entry.split_first() {
        Some((&FORM, entry)) => postcard::from_bytes(entry).map_err(|error| broken(&error.to_string())),
        Some((form, _)) => Err(broken(&format!(
            "an entry has form {form}, {FORM} is known; start the program that wrote it once more and stop it with SIGTERM"
        ))),
        None => Err(broken("an entry is empty")),
    }
}

fn broken(what: &str) -> rusqlite::Error {
    unreadable(0, Type::Blob, format!("the commit log: {what}"))
}

/// A record that the table does not have yet.
#[derive(Debug, Clone)]
pub(crate) struct Later {
    /// What it will have; none when the record was dropped.
    pub(crate) stored: Option<Arc<Stored>>,
    /// It has another one now.
    pub(crate) in_table: bool,
    generation: u64,
}

impl Later {
    /// What a key has after a change: `before` is what the table did not have yet, `existed` whether there was a record.
    pub(crate) fn over(before: Option<&Self>, stored: Option<Arc<Stored>>, existed: bool) -> Self {
        Self {
            stored,
            in_table: before.map_or(existed, |before| before.in_table),
            generation: 0,
        }
    }
}

/// The last record of each key in the log, by key. What they and the table hold together is the node's state.
#[derive(Debug, Clone)]
pub(crate) struct Unapplied {
    records: BTreeMap<Key, Later>,
    /// The node's row at the last commit.
    pub(crate) node: NodeRow,
    /// Counts generations.
    generation: u64,
    /// Records of the generation before.
    left: usize,
    /// Where the next share of them begins: none of them is below.
    resume: Option<Key>,
}

impl Unapplied {
    /// Nothing: the table is complete.
    pub(crate) fn none(node: NodeRow) -> Self {
        Self {
            records: BTreeMap::new(),
            node,
            generation: 1,
            left: 0,
            resume: None,
        }
    }

    /// The records, in key order.
    pub(crate) fn records(&self) -> &BTreeMap<Key, Later> {
        &self.records
    }

    /// The records from this text form of a key on, in key order.
    pub(crate) fn from<'a>(&'a self, low: Bound<&str>) -> impl Iterator<Item = (&'a Key, &'a Later)> + use<'a> {
        // A text that is no key's, as a prefix may be, still has its place among keys.
        let text = match low {
            Bound::Included(text) | Bound::Excluded(text) => text,
            Bound::Unbounded => "",
        };
        let excluded = matches!(low, Bound::Excluded(_)).then(|| text.to_owned());
        self.records
            .range::<str, _>((Bound::Included(text), Bound::Unbounded))
            .filter(move |(key, _)| excluded.as_deref() != Some(key.as_text()))
    }

    /// Records of the generation before that are still to be applied.
    pub(crate) fn left(&self) -> usize {
        self.left
    }

    /// The next so many of those, in key order, without those that a commit replaces (sorted by key).
    pub(crate) fn share(&self, count: usize, replaced: &[(Key, Slot)]) -> Vec<(Key, Later)> {
        if count == 0 {
            return Vec::new();
        }
        let from = self.resume.as_ref().map_or(self.records.range::<Key, _>(..), |key| {
            self.records.range::<Key, _>(key..)
        });
        from.filter(|(key, later)| later.generation < self.generation && !is_among(replaced, key))
            .take(count)
            .map(|(key, later)| (key.clone(), later.clone()))
            .collect()
    }

    /// All of them, without those that a commit replaces.
    pub(crate) fn all(&self, replaced: &[(Key, Slot)]) -> Vec<(Key, Later)> {
        let records = self.records.iter().filter(|(key, _)| !is_among(replaced, key));
        records.map(|(key, later)| (key.clone(), later.clone())).collect()
    }

    /// After a commit that applied this share, the whole rest when it begins a generation, and logged these changes.
    pub(crate) fn committed(
        &mut self,
        node: NodeRow,
        begins: bool,
        share: &[(Key, Later)],
        changes: impl Iterator<Item = (Key, Option<Arc<Stored>>, bool)>,
    ) {
        self.node = node;
        for (key, _) in share {
            self.records.remove(key);
        }
        self.left -= share.len();
        if let Some((key, _)) = share.last() {
            self.resume = Some(key.clone());
        }
        for (key, stored, existed) in changes {
            let before = self.records.get(&key);
            self.left -= usize::from(before.is_some_and(|before| before.generation < self.generation));
            let mut later = Later::over(before, stored, existed);
            later.generation = self.generation + u64::from(begins);
            self.records.insert(key, later);
        }
        if begins {
            debug_assert_eq!(self.left, 0, "the generation before is done");
            self.generation += 1;
            self.left = self
                .records
                .values()
                .filter(|later| later.generation < self.generation)
                .count();
            self.resume = None;
        }
    }
}

fn is_among(changes: &[(Key, Slot)], key: &Key) -> bool {
    changes.binary_search_by(|(changed, _)| changed.cmp(key)).is_ok()
}
