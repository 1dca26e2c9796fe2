//! Pages: what is listed of the records, and in which order.

use std::collections::HashSet;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use register::message::{List, PageRecord};
use register::scan::ScanRange;
use register::{Ballot, Key, Record, State, hashing};
use rusqlite::{Connection, Params, Row, params};

use super::log::Unapplied;
use super::node_row::NodeRow;
use super::rows::{self, Stored, columns, scan_columns};
use super::{Page, ScanPage};

/// Bytes of values after which a page ends early, so that no answer grows without bound.
pub const MAX_PAGE_BYTES: usize = 4 * 1024 * 1024;

/// Rows that a walk visits in one snapshot, found or not: a few milliseconds.
const MAX_VISITED_ROWS: usize = 4_096;

/// The keys a list goes through.
struct KeyRange<'a> {
    low: &'a str,
    /// `low` itself is not wanted.
    low_is_seen: bool,
    /// The first that is not wanted any more; none: to the end.
    high: Option<String>,
    reverse: bool,
}

impl<'a> KeyRange<'a> {
    fn new(prefix: &'a str, after: Option<&'a str>, reverse: bool) -> Self {
        // Text is compared byte by byte, which for UTF-8 is code point by code point.
        let (mut low, mut high, mut low_is_seen) = (prefix, successor(prefix), false);
        match after {
            Some(after) if !reverse && after >= prefix => (low, low_is_seen) = (after, true),
            Some(after) if reverse && high.as_deref().is_none_or(|high| after < high) => high = Some(after.to_owned()),
            _ => {}
        }
        Self {
            low,
            low_is_seen,
            high,
            reverse,
        }
    }
}

/// The statement for a [`KeyRange`], its parameters the bounds. Each bound has its own statement, so that SQLite walks the tree from it instead
/// of testing every row.
macro_rules! key_range_sql {
    ($range:expr, $($columns:tt)+) => {
        match ($range.low_is_seen, $range.high.is_some(), $range.reverse) {
            (false, false, false) => concat!("SELECT ", $($columns)+, " FROM records WHERE key >= ?1 AND ?2 IS NULL ORDER BY key"),
            (false, false, true) => concat!("SELECT ", $($columns)+, " FROM records WHERE key >= ?1 AND ?2 IS NULL ORDER BY key DESC"),
            (false, true, false) => concat!("SELECT ", $($columns)+, " FROM records WHERE key >= ?1 AND key < ?2 ORDER BY key"),
            (false, true, true) => concat!("SELECT ", $($columns)+, " FROM records WHERE key >= ?1 AND key < ?2 ORDER BY key DESC"),
            (true, false, _) => concat!("SELECT ", $($columns)+, " FROM records WHERE key > ?1 AND ?2 IS NULL ORDER BY key"),
            (true, true, _) => concat!("SELECT ", $($columns)+, " FROM records WHERE key > ?1 AND key < ?2 ORDER BY key"),
        }
    };
}

/// All records as of one moment: a snapshot of the table, and over it what the table does not have yet.
pub(crate) struct Whole<'a> {
    table: &'a Connection,
    unapplied: Arc<Unapplied>,
    node: NodeRow,
}

/// The order of a list.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Key,
    KeyReverse,
    Commit,
}

/// A record of a list, as it is found.
enum Found<'a> {
    Row(&'a Row<'a>),
    Later(&'a Key, &'a Stored),
}

impl Found<'_> {
    fn key(&self) -> rusqlite::Result<Key> {
        match self {
            Self::Row(row) => rows::key_from_row(row),
            Self::Later(key, _) => Ok((*key).clone()),
        }
    }

    fn commit(&self) -> rusqlite::Result<u64> {
        match self {
            Self::Row(row) => rows::commit_from_row(row),
            Self::Later(_, stored) => Ok(stored.commit),
        }
    }

    /// Whether it has a value that goes on after `time_ms`.
    fn ends_after(&self, time_ms: u64) -> rusqlite::Result<bool> {
        match self {
            Self::Row(row) => rows::ends_after(row, time_ms),
            Self::Later(_, stored) => Ok(stored
                .record
                .state
                .as_ref()
                .is_some_and(|state| state.value.is_some() && state.expires_at_ms.is_some_and(|at| at > time_ms))),
        }
    }

    fn page_record(&self) -> rusqlite::Result<PageRecord> {
        let key = self.key()?;
        match self {
            Self::Row(row) => Ok(page_record(key, &rows::stored_from_row(row)?)),
            Self::Later(_, stored) => Ok(page_record(key, stored)),
        }
    }
}

/// A statement for records, and which of its columns is the key.
#[derive(Clone, Copy)]
struct Select {
    sql: &'static str,
    key: usize,
}

impl Select {
    /// One for whole records.
    fn records(sql: &'static str) -> Self {
        Self {
            sql,
            key: rows::KEY_COLUMN,
        }
    }
}

/// Records the table does not have yet, in the order of a list.
type LaterOnes<'a> = Box<dyn Iterator<Item = (&'a Key, Option<&'a Stored>)> + 'a>;

impl<'a> Whole<'a> {
    /// Puts a snapshot together with what the table did not have shortly before it was taken. Nothing when the table may have got records
    /// since that are newer than all of those: then take both again.
    pub(crate) fn new(table: &'a Connection, unapplied: Arc<Unapplied>) -> rusqlite::Result<Option<Self>> {
        // The floor of the very snapshot: a floor from later would hide a dropping between two pages.
        let found = NodeRow::read(table)?;
        // Only a generation that begins can bring such records, and moves this on. The table may have got some of those that are in
        // `unapplied` since; they are the same.
        if found.log_fresh != unapplied.node.log_fresh {
            return Ok(None);
        }
        let node = if unapplied.records().is_empty() {
            found
        } else {
            unapplied.node
        };
        Ok(Some(Self { table, unapplied, node }))
    }

    /// Shows `each` the records of a list in its order, until it breaks. True when it has seen all.
    fn list(
        &self,
        select: Select,
        parameters: impl Params,
        later: LaterOnes<'_>,
        order: Order,
        mut each: impl FnMut(&Found<'_>) -> rusqlite::Result<ControlFlow<()>>,
    ) -> rusqlite::Result<bool> {
        let mut statement = self.table.prepare_cached(select.sql)?;
        let mut rows = statement.query(parameters)?;
        let mut later = later.peekable();
        while let Some(row) = rows.next()? {
            let mut is_replaced = false;
            if later.peek().is_some() {
                let key = row.get_ref(select.key)?.as_str()?;
                let commit = match order {
                    Order::Commit => rows::commit_from_row(row)?,
                    Order::Key | Order::KeyReverse => 0,
                };
                let comes_before = |(other, stored): &(&Key, Option<&Stored>)| match order {
                    Order::Key => other.as_text() < key,
                    Order::KeyReverse => other.as_text() > key,
                    Order::Commit => stored.is_some_and(|stored| stored.commit < commit),
                };
                while let Some((key, stored)) = later.next_if(comes_before) {
                    if let Some(stored) = stored
                        && each(&Found::Later(key, stored))?.is_break()
                    {
                        return Ok(false);
                    }
                }
                is_replaced = order != Order::Commit && later.peek().is_some_and(|(other, _)| other.as_text() == key);
            }
            if order == Order::Commit {
                let key = row.get_ref(select.key)?.as_str()?;
                is_replaced = self.unapplied.records().contains_key(key);
            }
            if !is_replaced && each(&Found::Row(row))?.is_break() {
                return Ok(false);
            }
        }
        for (key, stored) in later {
            if let Some(stored) = stored
                && each(&Found::Later(key, stored))?.is_break()
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// [`Self::list`] of the keys in a range.
    fn list_keys(
        &self,
        select: Select,
        keys: &KeyRange<'_>,
        each: impl FnMut(&Found<'_>) -> rusqlite::Result<ControlFlow<()>>,
    ) -> rusqlite::Result<bool> {
        let (order, high) = (
            if keys.reverse { Order::KeyReverse } else { Order::Key },
            keys.high.as_deref(),
        );
        let low = if keys.low_is_seen {
            Bound::Excluded(keys.low)
        } else {
            Bound::Included(keys.low)
        };
        self.list(
            select,
            params![keys.low, high],
            self.later_in(low, high, order),
            order,
            each,
        )
    }

    /// Those the table does not have yet, dropped ones among them, with keys in a range.
    fn later_in(&self, low: Bound<&str>, high: Option<&str>, order: Order) -> LaterOnes<'_> {
        let high = high.map(str::to_owned);
        let from = self.unapplied.from(low);
        let range = from
            .take_while(move |(key, _)| high.as_deref().is_none_or(|high| key.as_text() < high))
            .map(|(key, later)| (key, later.stored.as_deref()));
        if order == Order::KeyReverse {
            let mut range: Vec<_> = range.collect();
            range.reverse();
            return Box::new(range.into_iter());
        }
        Box::new(range)
    }

    /// Those the table does not have yet and that `wanted` wants, with higher commit numbers than this, in the order of commits.
    fn later_after(&self, commit: u64, wanted: impl Fn(&Record) -> bool) -> LaterOnes<'_> {
        let records = self.unapplied.records().iter();
        let stored = records.filter_map(|(key, later)| Some((key, later.stored.as_deref()?)));
        let mut found: Vec<_> = stored
            .filter(|(_, stored)| stored.commit > commit && wanted(&stored.record))
            .collect();
        found.sort_unstable_by_key(|(_, stored)| stored.commit);
        Box::new(found.into_iter().map(|(key, stored)| (key, Some(stored))))
    }

    fn page(&self, records: Vec<PageRecord>, end: bool) -> Page {
        Page {
            records,
            end,
            floor: self.node.floor,
            commit: self.node.commit,
            incarnation: self.node.incarnation,
            standing: self.node.standing,
        }
    }
}

/// About how many bytes a record of a scan has besides its key and value.
const SCAN_RECORD_BYTES: usize = 64;

/// A page of a scan: its records as they are sent, one behind the other.
pub(crate) fn read_scan(whole: &Whole<'_>, range: &ScanRange, limit: usize) -> rusqlite::Result<ScanPage> {
    let keys = KeyRange::new(&range.prefix, range.after.as_deref(), range.reverse);
    let (mut records, mut count) = (Vec::with_capacity(limit * SCAN_RECORD_BYTES), 0);
    let collect = |found: &Found<'_>| {
        if count >= limit || records.len() >= MAX_PAGE_BYTES {
            return Ok(ControlFlow::Break(()));
        }
        let before = std::mem::take(&mut records);
        let written = match found {
            Found::Row(row) => postcard::to_extend(&rows::scan_record_from_row(row, &range.tell)?, before),
            Found::Later(key, stored) => {
                rows::with_scan_record(key, stored, &range.tell, |record| postcard::to_extend(record, before))
            }
        };
        records = written.map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
        count += 1;
        Ok(ControlFlow::Continue(()))
    };
    let select = Select {
        sql: key_range_sql!(keys, scan_columns!()),
        key: rows::SCAN_KEY_COLUMN,
    };
    let end = whole.list_keys(select, &keys, collect)?;
    Ok(ScanPage {
        records,
        count: u32::try_from(count).unwrap_or(u32::MAX),
        end,
        floor: whole.node.floor,
        incarnation: whole.node.incarnation,
        standing: whole.node.standing,
    })
}

/// A page of a list whose index finds just what is listed.
pub(crate) fn read_page(whole: &Whole<'_>, list: &List, limit: usize) -> rusqlite::Result<Page> {
    let (mut records, mut bytes) = (Vec::new(), 0);
    let collect = |found: &Found<'_>| {
        if records.len() >= limit || bytes >= MAX_PAGE_BYTES {
            return Ok(ControlFlow::Break(()));
        }
        let record = found.page_record()?;
        bytes += size_of::<Stored>() + record.held.state.as_ref().map_or(0, State::size_bytes);
        records.push(record);
        Ok(ControlFlow::Continue(()))
    };
    let end = match list {
        List::Keys { prefix, after, reverse } => {
            let keys = KeyRange::new(prefix, after.as_deref(), *reverse);
            whole.list_keys(Select::records(key_range_sql!(keys, columns!())), &keys, collect)?
        }
        List::Hints { after_commit } => {
            let sql = concat!(
                "SELECT ",
                columns!(),
                " FROM records WHERE hint_for IS NOT NULL AND commit_number > ?1 ORDER BY commit_number"
            );
            let later = whole.later_after(*after_commit, |record| record.hint_for.is_some());
            let after_commit = [after_commit.cast_signed()];
            whole.list(Select::records(sql), after_commit, later, Order::Commit, collect)?
        }
        // Those are walked.
        List::Ended { .. } | List::Leaves { .. } => return Err(rusqlite::Error::InvalidQuery),
    };
    Ok(whole.page(records, end))
}

fn page_record(key: Key, stored: &Stored) -> PageRecord {
    PageRecord {
        key,
        commit: stored.commit,
        // The node's floor only matters for keys without a record.
        held: register::acceptor::held(Some(&stored.record), Ballot::ZERO),
        hint_for: stored.record.hint_for.clone(),
    }
}

/// A list that visits more than it finds, and how far it has come.
#[derive(Debug)]
pub(crate) enum Walk {
    /// The index of records without a lasting value, in commit order.
    Ended { after_commit: u64, expired_at_ms: u64 },
    /// All records in key order.
    Leaves { leaves: HashSet<usize>, after: String },
}

impl Walk {
    /// The walk for a list; the list itself when it needs none.
    pub(crate) fn new(list: List) -> Result<Self, List> {
        match list {
            List::Ended {
                after_commit,
                expired_at_ms,
            } => Ok(Self::Ended {
                after_commit,
                expired_at_ms,
            }),
            List::Leaves { leaves, after } => Ok(Self::Leaves {
                leaves: leaves
                    .into_iter()
                    .filter_map(|leaf| usize::try_from(leaf).ok())
                    .collect(),
                // Every key's text form is above the empty text.
                after: after.unwrap_or_default(),
            }),
            other => Err(other),
        }
    }

    /// What is found among the next [`MAX_VISITED_ROWS`] records.
    pub(crate) fn step(&mut self, whole: &Whole<'_>, limit: usize) -> rusqlite::Result<Page> {
        let (mut visited, mut records, mut bytes) = (0, Vec::new(), 0);
        let (after_commit, after_key) = match self {
            Self::Ended { after_commit, .. } => (*after_commit, String::new()),
            Self::Leaves { after, .. } => (0, after.clone()),
        };
        let is_ended_list = matches!(self, Self::Ended { .. });
        let visit = |found: &Found<'_>| {
            if visited >= MAX_VISITED_ROWS || records.len() >= limit || bytes >= MAX_PAGE_BYTES {
                return Ok(ControlFlow::Break(()));
            }
            visited += 1;
            match self.visit(found) {
                Ok(None) => {}
                Ok(Some(record)) => {
                    let record: PageRecord = record;
                    bytes += record.held.state.as_ref().map_or(0, State::size_bytes) + record.key.as_text().len();
                    records.push(record);
                }
                // Upkeep of all others must not end at one key that cannot be read.
                Err(error) => tracing::warn!(%error, "a damaged record is left out of a list"),
            }
            Ok(ControlFlow::Continue(()))
        };
        let end = if is_ended_list {
            let sql = concat!(
                "SELECT ",
                columns!(),
                " FROM records WHERE (value IS NULL OR expires_at_ms IS NOT NULL) AND commit_number > ?1 ORDER BY commit_number"
            );
            // The condition of the index.
            let may_end = |record: &Record| {
                let state = record.state.as_ref();
                state.is_none_or(|state| state.value.is_none() || state.expires_at_ms.is_some())
            };
            let later = whole.later_after(after_commit, may_end);
            whole.list(
                Select::records(sql),
                [after_commit.cast_signed()],
                later,
                Order::Commit,
                visit,
            )?
        } else {
            let sql = concat!("SELECT ", columns!(), " FROM records WHERE key > ?1 ORDER BY key");
            let later = whole.later_in(Bound::Excluded(&after_key), None, Order::Key);
            whole.list(Select::records(sql), [after_key.as_str()], later, Order::Key, visit)?
        };
        Ok(whole.page(records, end))
    }

    /// The record, if it is wanted.
    fn visit(&mut self, found: &Found<'_>) -> rusqlite::Result<Option<PageRecord>> {
        match self {
            Self::Ended {
                after_commit,
                expired_at_ms,
            } => {
                *after_commit = found.commit()?;
                if found.ends_after(*expired_at_ms)? {
                    return Ok(None);
                }
                found.page_record().map(Some)
            }
            Self::Leaves { leaves, after } => {
                let key = found.key()?;
                key.as_text().clone_into(after);
                if !leaves.contains(&hashing::leaf_of(&key)) {
                    return Ok(None);
                }
                let mut record = found.page_record()?;
                record.held.state = None;
                Ok(Some(record))
            }
        }
    }
}

/// The least text above every text that starts with `prefix`; none when there is no such text.
fn successor(prefix: &str) -> Option<String> {
    let mut text = prefix.to_owned();
    while let Some(last) = text.pop() {
        // The characters after a surrogate gap are found by trying.
        let next = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32);
        if let Some(next) = next {
            text.push(next);
            return Some(text);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn successors() {
        assert_eq!(successor("da"), Some("db".to_owned()));
        assert_eq!(successor("d\u{D7FF}"), Some("d\u{E000}".to_owned()));
        assert_eq!(successor("d\u{10FFFF}"), Some("e".to_owned()));
        assert_eq!(successor("\u{10FFFF}"), None);
        assert_eq!(successor(""), None);
    }

    proptest! {
        #[test]
        fn the_successor_parts_texts_with_the_prefix_from_those_above(prefix in ".{0,3}", rest in ".{0,3}", other in ".{0,4}") {
            if let Some(successor) = successor(&prefix) {
                let with_prefix = format!("{prefix}{rest}");
                prop_assert!(with_prefix < successor);
                prop_assert!(other.starts_with(&prefix) || other < prefix || other >= successor);
            }
        }
    }
}
