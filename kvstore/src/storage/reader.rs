//! Reading the database beside the writer: a few connections, each used by one blocking task at a time.
//!
//! A read connection sees whole commits only, and a commit only after its fsync (SQLite shows frames of the write-ahead log to others after
//! syncing them), so nothing that is read can be lost again.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use register::message::{List, PageRecord};
use register::{Ballot, Key};
use rusqlite::{Connection, TransactionBehavior, params};
use tokio::sync::Semaphore;

use super::node_row::NodeRow;
use super::rows::{self, Stored, columns};
use super::{Page, StoreError, open};

/// Read connections: enough to keep a few cores busy; further reads queue.
const CONNECTIONS: usize = 4;

/// Bytes of values after which a page ends early, so that no answer grows without bound.
pub const MAX_PAGE_BYTES: usize = 4 * 1024 * 1024;

/// Bytes of records read for one call, after which its further keys are refused. More than the largest message between coordinator and
/// node, so only values that have grown meanwhile get there.
const MAX_READ_BYTES: usize = 32 * 1024 * 1024;

/// The pool.
#[derive(Debug, Clone)]
pub(crate) struct Readers {
    idle: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
}

impl Readers {
    pub(crate) fn open(path: &Path) -> rusqlite::Result<Self> {
        let connections: Vec<_> = (0..CONNECTIONS)
            .map(|_| open::open_reader(path))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            idle: Arc::new(Mutex::new(connections)),
            permits: Arc::new(Semaphore::new(CONNECTIONS)),
        })
    }

    /// Runs `read` on a connection, in one snapshot.
    async fn run<T, F>(&self, read: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let permit = Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .map_err(|_| StoreError::Closed)?;
        let idle = Arc::clone(&self.idle);
        let task = tokio::task::spawn_blocking(move || {
            let Some(mut connection) = lock(&idle).pop() else {
                return Err(StoreError::Closed);
            };
            let result = connection
                .transaction_with_behavior(TransactionBehavior::Deferred)
                // Dropping the transaction ends the snapshot.
                .and_then(|snapshot| read(&snapshot));
            lock(&idle).push(connection);
            drop(permit);
            result.map_err(|error| StoreError::Failed {
                reason: format!("cannot read the database: {error}"),
            })
        });
        task.await.unwrap_or_else(|error| {
            Err(StoreError::Failed {
                reason: format!("a read died: {error}"),
            })
        })
    }

    /// The rows of keys. A row that cannot be read is an error of its key alone.
    pub(crate) async fn records(&self, keys: Vec<Key>) -> Result<Vec<RowResult>, StoreError> {
        self.run(move |snapshot| {
            let mut bytes = 0;
            let read = |key: Key| {
                if bytes >= MAX_READ_BYTES {
                    let reason = format!("more than {MAX_READ_BYTES} bytes asked for at once; ask for fewer keys");
                    return (key, Err(reason));
                }
                let row = rows::read_record(snapshot, &key);
                let row = row.map_err(|error| format!("cannot read the record of {key:?}: {error}"));
                let row = row.map(|row| row.map(Arc::new));
                bytes += row
                    .as_ref()
                    .ok()
                    .and_then(Option::as_ref)
                    .map_or(0, |row| row.record.size_bytes());
                (key, row)
            };
            Ok(keys.into_iter().map(read).collect())
        })
        .await
    }

    /// A page; see [`List`].
    pub(crate) async fn page(&self, list: List, limit: usize) -> Result<Page, StoreError> {
        self.run(move |snapshot| read_page(snapshot, &list, limit)).await
    }

    /// Closes the connections. Reads under way end first.
    pub(crate) async fn close(&self) {
        let all = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
        if let Ok(permits) = self.permits.acquire_many(all).await {
            permits.forget();
        }
        self.permits.close();
        lock(&self.idle).clear();
    }
}

/// A key with its row, or why the row cannot be read.
pub(crate) type RowResult = (Key, Result<Option<Arc<Stored>>, String>);

fn read_page(snapshot: &Connection, list: &List, limit: usize) -> rusqlite::Result<Page> {
    // The floor of the very snapshot: a floor from later would hide a dropping between two pages.
    let node = NodeRow::read(snapshot)?;
    // One more than asked for tells whether the page is the last.
    let sql_limit = i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX);
    let (records, end) = match list {
        List::Keys { prefix, after, reverse } => {
            let after = after.as_deref();
            // Text is compared byte by byte, which for UTF-8 is code point by code point.
            let (mut low, mut high) = (Some(prefix.as_str()), successor(prefix));
            let mut low_is_seen = false;
            match (after, reverse) {
                (Some(after), false) if after >= prefix.as_str() => (low, low_is_seen) = (Some(after), true),
                (Some(after), true) if high.as_deref().is_none_or(|high| after < high) => high = Some(after.to_owned()),
                _ => {}
            }
            let low = low.take().unwrap_or_default();
            // Each bound has its own statement, so that SQLite walks the tree from it instead of testing every row.
            let sql = match (low_is_seen, high.is_some(), reverse) {
                (false, false, false) => concat!(
                    "SELECT ",
                    columns!(),
                    " FROM records WHERE key >= ?1 AND ?2 IS NULL ORDER BY key LIMIT ?3"
                ),
                (false, false, true) => concat!(
                    "SELECT ",
                    columns!(),
                    " FROM records WHERE key >= ?1 AND ?2 IS NULL ORDER BY key DESC LIMIT ?3"
                ),
                (false, true, false) => concat!(
                    "SELECT ",
                    columns!(),
                    " FROM records WHERE key >= ?1 AND key < ?2 ORDER BY key LIMIT ?3"
                ),
                (false, true, true) => concat!(
                    "SELECT ",
                    columns!(),
                    " FROM records WHERE key >= ?1 AND key < ?2 ORDER BY key DESC LIMIT ?3"
                ),
                (true, false, _) => concat!(
                    "SELECT ",
                    columns!(),
                    " FROM records WHERE key > ?1 AND ?2 IS NULL ORDER BY key LIMIT ?3"
                ),
                (true, true, _) => concat!(
                    "SELECT ",
                    columns!(),
                    " FROM records WHERE key > ?1 AND key < ?2 ORDER BY key LIMIT ?3"
                ),
            };
            collect(snapshot, sql, params![low, high, sql_limit], limit)?
        }
        List::Hints { after_commit } => {
            let sql = concat!(
                "SELECT ",
                columns!(),
                " FROM records WHERE hint_for IS NOT NULL AND commit_number > ?1 ORDER BY commit_number LIMIT ?2"
            );
            collect(snapshot, sql, params![after_commit.cast_signed(), sql_limit], limit)?
        }
        List::Ended { .. } | List::Leaves { .. } => return Err(rusqlite::Error::InvalidQuery),
    };
    Ok(Page {
        records,
        end,
        floor: node.floor,
        commit: node.commit,
        incarnation: node.incarnation,
        standing: node.standing,
    })
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
        // The node's floor only matters for keys without a record.
        let held = register::acceptor::held(Some(&stored.record), Ballot::ZERO);
        let key = rows::key_from_row(row)?;
        records.push(PageRecord {
            key,
            commit: stored.commit,
            held,
            hint_for: stored.record.hint_for,
        });
    }
    Ok((records, true))
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

fn lock(idle: &Mutex<Vec<Connection>>) -> MutexGuard<'_, Vec<Connection>> {
    // Pushing and popping leave the list whole whatever happens.
    idle.lock().unwrap_or_else(PoisonError::into_inner)
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
