//! Pages: what is listed of the records, and in which order.

use std::collections::HashSet;

use register::message::{List, PageRecord};
use register::scan::ScanRange;
use register::{Ballot, Key, State, hashing};
use rusqlite::{Connection, Row, params};

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

/// The statement for a [`KeyRange`], its parameters the bounds and the limit. Each bound has its own statement, so that SQLite walks the
/// tree from it instead of testing every row.
macro_rules! key_range_sql {
    ($range:expr, $($columns:tt)+) => {
        match ($range.low_is_seen, $range.high.is_some(), $range.reverse) {
            (false, false, false) => concat!(
                "SELECT ",
                $($columns)+,
                " FROM records WHERE key >= ?1 AND ?2 IS NULL ORDER BY key LIMIT ?3"
            ),
            (false, false, true) => concat!(
                "SELECT ",
                $($columns)+,
                " FROM records WHERE key >= ?1 AND ?2 IS NULL ORDER BY key DESC LIMIT ?3"
            ),
            (false, true, false) => concat!(
                "SELECT ",
                $($columns)+,
                " FROM records WHERE key >= ?1 AND key < ?2 ORDER BY key LIMIT ?3"
            ),
            (false, true, true) => concat!(
                "SELECT ",
                $($columns)+,
                " FROM records WHERE key >= ?1 AND key < ?2 ORDER BY key DESC LIMIT ?3"
            ),
            (true, false, _) => concat!(
                "SELECT ",
                $($columns)+,
                " FROM records WHERE key > ?1 AND ?2 IS NULL ORDER BY key LIMIT ?3"
            ),
            (true, true, _) => concat!(
                "SELECT ",
                $($columns)+,
                " FROM records WHERE key > ?1 AND key < ?2 ORDER BY key LIMIT ?3"
            ),
        }
    };
}

/// About how many bytes a record of a scan has besides its key and value.
const SCAN_RECORD_BYTES: usize = 64;

/// A page of a scan: its records as they are sent, one behind the other.
pub(crate) fn read_scan(snapshot: &Connection, range: &ScanRange, limit: usize) -> rusqlite::Result<ScanPage> {
    // As in `read_page`.
    let node = NodeRow::read(snapshot)?;
    let keys = KeyRange::new(&range.prefix, range.after.as_deref(), range.reverse);
    let sql = key_range_sql!(keys, scan_columns!());
    let sql_limit = i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX);
    let mut statement = snapshot.prepare_cached(sql)?;
    let mut rows = statement.query(params![keys.low, keys.high, sql_limit])?;
    let (mut records, mut count, mut end) = (Vec::with_capacity(limit * SCAN_RECORD_BYTES), 0, true);
    while let Some(row) = rows.next()? {
        if count >= limit || records.len() >= MAX_PAGE_BYTES {
            end = false;
            break;
        }
        let record = rows::scan_record_from_row(row, &range.tell)?;
        records = postcard::to_extend(&record, records)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
        count += 1;
    }
    Ok(ScanPage {
        records,
        count: u32::try_from(count).unwrap_or(u32::MAX),
        end,
        floor: node.floor,
        incarnation: node.incarnation,
        standing: node.standing,
    })
}

/// A page of a list whose index finds just what is listed.
pub(crate) fn read_page(snapshot: &Connection, list: &List, limit: usize) -> rusqlite::Result<Page> {
    // The floor of the very snapshot: a floor from later would hide a dropping between two pages.
    let node = NodeRow::read(snapshot)?;
    // One more than asked for tells whether the page is the last.
    let sql_limit = i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX);
    let (records, end) = match list {
        List::Keys { prefix, after, reverse } => {
            let keys = KeyRange::new(prefix, after.as_deref(), *reverse);
            let sql = key_range_sql!(keys, columns!());
            collect(snapshot, sql, params![keys.low, keys.high, sql_limit], limit)?
        }
        List::Hints { after_commit } => {
            let sql = concat!(
                "SELECT ",
                columns!(),
                " FROM records WHERE hint_for IS NOT NULL AND commit_number > ?1 ORDER BY commit_number LIMIT ?2"
            );
            collect(snapshot, sql, params![after_commit.cast_signed(), sql_limit], limit)?
        }
        // Those are walked.
        List::Ended { .. } | List::Leaves { .. } => return Err(rusqlite::Error::InvalidQuery),
    };
    Ok(page(&node, records, end))
}

fn page(node: &NodeRow, records: Vec<PageRecord>, end: bool) -> Page {
    Page {
        records,
        end,
        floor: node.floor,
        commit: node.commit,
        incarnation: node.incarnation,
        standing: node.standing,
    }
}

fn collect(
    snapshot: &Connection,
    sql: &str,
    parameters: impl rusqlite::Params,
    limit: usize,
) -> rusqlite::Result<(Vec<PageRecord>, bool)> {
    let mut statement = snapshot.prepare_cached(sql)?;
    let mut rows = statement.query(parameters)?;
    let (mut records, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        if records.len() >= limit || bytes >= MAX_PAGE_BYTES {
            return Ok((records, false));
        }
        let stored = rows::stored_from_row(row)?;
        bytes += stored.record.size_bytes();
        records.push(page_record(rows::key_from_row(row)?, stored));
    }
    Ok((records, true))
}

fn page_record(key: Key, stored: Stored) -> PageRecord {
    PageRecord {
        key,
        commit: stored.commit,
        // The node's floor only matters for keys without a record.
        held: register::acceptor::held(Some(&stored.record), Ballot::ZERO),
        hint_for: stored.record.hint_for,
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

    /// What is found among the next [`MAX_VISITED_ROWS`] rows.
    pub(crate) fn step(&mut self, snapshot: &Connection, limit: usize) -> rusqlite::Result<Page> {
        let node = NodeRow::read(snapshot)?;
        let sql = match self {
            Self::Ended { .. } => concat!(
                "SELECT ",
                columns!(),
                " FROM records WHERE (value IS NULL OR expires_at_ms IS NOT NULL) AND commit_number > ?1 ORDER BY commit_number"
            ),
            Self::Leaves { .. } => concat!("SELECT ", columns!(), " FROM records WHERE key > ?1 ORDER BY key"),
        };
        let mut statement = snapshot.prepare_cached(sql)?;
        let mut rows = match self {
            Self::Ended { after_commit, .. } => statement.query([after_commit.cast_signed()])?,
            Self::Leaves { after, .. } => statement.query([after.as_str()])?,
        };
        let (mut records, mut bytes) = (Vec::new(), 0);
        for visited in 0.. {
            let Some(row) = rows.next()? else {
                return Ok(page(&node, records, true));
            };
            if visited >= MAX_VISITED_ROWS || records.len() >= limit || bytes >= MAX_PAGE_BYTES {
                break;
            }
            match self.visit(row) {
                Ok(None) => {}
                Ok(Some(record)) => {
                    bytes += record.held.state.as_ref().map_or(0, State::size_bytes) + record.key.as_text().len();
                    records.push(record);
                }
                // Upkeep of all others must not end at one key that cannot be read.
                Err(error) => tracing::warn!(%error, "a damaged record is left out of a list"),
            }
        }
        Ok(page(&node, records, false))
    }

    /// The row's record, if it is wanted.
    fn visit(&mut self, row: &Row<'_>) -> rusqlite::Result<Option<PageRecord>> {
        match self {
            Self::Ended {
                after_commit,
                expired_at_ms,
            } => {
                *after_commit = rows::commit_from_row(row)?;
                if rows::ends_after(row, *expired_at_ms)? {
                    return Ok(None);
                }
                let stored = rows::stored_from_row(row)?;
                Ok(Some(page_record(rows::key_from_row(row)?, stored)))
            }
            Self::Leaves { leaves, after } => {
                let key = rows::key_from_row(row)?;
                key.as_text().clone_into(after);
                if !leaves.contains(&hashing::leaf_of(&key)) {
                    return Ok(None);
                }
                let mut record = page_record(key, rows::stored_from_row(row)?);
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
