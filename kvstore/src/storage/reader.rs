//! Reading the database beside the writer: on a few connections.
//!
//! A record whose pages the system has in memory takes ten microseconds: less than handing the call to a thread that may block, and its
//! result back. So records are read on the spot, in the task that asks. A disk that is waited for may not hold up a thread that others need:
//! after two slow records the rest of a call goes to a thread that may block, as lists always do; after two in a row, all calls of the next
//! second do. (A single slow one may just have lost its processor to another thread for a while.)
//!
//! A read connection sees whole commits only, and a commit only after its fsync (SQLite shows frames of the write-ahead log to others after
//! syncing them), so nothing that is read can be lost again.

use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use register::Key;
use register::message::List;
use register::scan::ScanRange;
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::Semaphore;

use super::pages::{self, Walk, Whole};
use super::rows::{RecordQuery, Stored};
use super::view::View;
use super::{Page, ScanPage, StoreError, open};

/// Connections for blocking tasks: lists, and records that are not in memory. Further reads queue.
const CONNECTIONS: usize = 4;

/// Connections for reads on the spot: as many as threads may serve requests at a time on a machine of sixteen processors. The one that was
/// used last is used first, so that no more of them get their caches filled than are needed.
const QUICK_CONNECTIONS: usize = 8;

/// Keys of one call that are read on the spot: about half a millisecond, out of memory.
const MAX_KEYS_HERE: usize = 64;

/// How long one call reads on the spot, however quick each record is.
const MAX_TIME_HERE: Duration = SLOW_READ.saturating_mul(4);

/// A record that took longer probably came from the disk, and not out of the system's memory.
const SLOW_READ: Duration = if cfg!(test) {
    // So that no test depends on how busy the machine is.
    Duration::from_mins(1)
} else {
    Duration::from_millis(1)
};

/// Slow records in a row after which the disk is not waited for on the spot.
const MAX_SLOW_READS: u32 = 2;

/// How long nothing is read on the spot then.
const SLOW_PAUSE: Duration = Duration::from_secs(1);

/// Bytes of records read for one call, after which its further keys are refused. More than the largest message between coordinator and
/// node, so only values that have grown meanwhile get there.
const MAX_READ_BYTES: usize = 32 * 1024 * 1024;

/// How often a list looks for a moment at which the table of records and what it does not have yet belong together. The table shows a commit a
/// little before the writer tells of it.
const SNAPSHOT_TRIES: u32 = 1_000;
/// Pause between two looks.
const SNAPSHOT_PAUSE: Duration = Duration::from_millis(1);

/// The pool.
#[derive(Debug, Clone)]
pub(crate) struct Readers {
    quick: Arc<Quick>,
    idle: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
}

impl Readers {
    pub(crate) fn open(path: &Path) -> rusqlite::Result<Self> {
        let connections: Vec<_> = (0..CONNECTIONS)
            .map(|_| open::open_reader(path))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            quick: Arc::new(Quick::open(path)?),
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
        self.run_on(|connection| {
            let snapshot = connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
            // Dropping the transaction ends the snapshot.
            read(&snapshot)
        })
        .await
    }

    async fn run_on<T, F>(&self, read: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
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
            let result = read(&mut connection);
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
        let mut keys = keys.into_iter();
        let mut rows = self.read_here(&mut keys);
        if keys.len() > 0 {
            let read = move |snapshot: &Connection| {
                let mut query = RecordQuery::new(snapshot)?;
                let mut bytes = 0;
                Ok(keys.map(|key| read_row(&mut query, key, &mut bytes)).collect())
            };
            let rest: Vec<_> = self.run(read).await?;
            rows.extend(rest);
        }
        Ok(rows)
    }

    /// Reads what can be read on the spot: no more than a few keys, and none after the disk was slow. What it leaves in
    /// `keys` is to be read in a thread that may block.
    fn read_here(&self, keys: &mut std::vec::IntoIter<Key>) -> Vec<RowResult> {
        if keys.len() > MAX_KEYS_HERE || !self.quick.is_allowed() {
            return Vec::new();
        }
        let Some(connection) = self.quick.take() else {
            return Vec::new();
        };
        let rows = self.quick.read(&connection, keys);
        self.quick.give_back(connection);
        // Why not is found out again by who may wait, and told.
        rows.unwrap_or_default()
    }

    /// From now on nothing is read on the spot; or what can be.
    #[cfg(test)]
    pub(crate) fn only_in_threads(&self, only: bool) {
        let until_ms = if only { u64::MAX } else { 0 };
        self.quick.paused_until_ms.store(until_ms, Ordering::Relaxed);
    }

    /// Runs `read` on a connection, in one snapshot, with what the table of records did not have yet in that snapshot.
    async fn run_whole<T, F>(&self, view: &Arc<View>, read: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Whole<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let view = Arc::clone(view);
        self.run_on(move |connection| {
            for again in 0..SNAPSHOT_TRIES {
                if again > 0 {
                    // This thread may block.
                    std::thread::sleep(SNAPSHOT_PAUSE);
                }
                let unapplied = view.unapplied();
                let snapshot = connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
                if let Some(whole) = Whole::new(&snapshot, unapplied)? {
                    return read(&whole).map(Ok);
                }
            }
            Ok(Err("the table of records changed whenever it was looked at; ask again"))
        })
        .await?
        .map_err(|reason| StoreError::Failed {
            reason: reason.to_owned(),
        })
    }

    /// A page; see [`List`]. Lists that pass over most of what they visit do so in several snapshots, between which others are served,
    /// until something is found or the end is reached.
    pub(crate) async fn page(&self, view: &Arc<View>, list: List, limit: usize) -> Result<Page, StoreError> {
        let mut walk = match Walk::new(list) {
            Ok(walk) => walk,
            Err(list) => {
                return self
                    .run_whole(view, move |whole| pages::read_page(whole, &list, limit))
                    .await;
            }
        };
        let mut before: Option<Page> = None;
        loop {
            let (mut page, ahead) = self
                .run_whole(view, move |whole| {
                    let mut walk = walk;
                    let page = walk.step(whole, limit)?;
                    Ok((page, walk))
                })
                .await?;
            if let Some(before) = before {
                if (before.incarnation, before.standing) != (page.incarnation, page.standing) {
                    let reason = "the node's standing changed while it was listing; ask again".to_owned();
                    return Err(StoreError::Failed { reason });
                }
                // The floor from before the walk: one that rises on the way is seen on the next page.
                page.floor = before.floor;
            }
            if page.end || !page.records.is_empty() {
                return Ok(page);
            }
            (walk, before) = (ahead, Some(page));
            tokio::task::yield_now().await;
        }
    }

    /// A page of a scan.
    pub(crate) async fn scan(&self, view: &Arc<View>, range: ScanRange, limit: usize) -> Result<ScanPage, StoreError> {
        self.run_whole(view, move |whole| pages::read_scan(whole, &range, limit))
            .await
    }

    /// Closes the connections. Reads under way end first.
    pub(crate) async fn close(&self) {
        let all = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
        if let Ok(permits) = self.permits.acquire_many(all).await {
            permits.forget();
        }
        self.permits.close();
        lock(&self.idle).clear();
        self.quick.close();
    }
}

/// Reads on the spot.
#[derive(Debug)]
struct Quick {
    /// None any more when it is closed.
    idle: Mutex<Option<Vec<Connection>>>,
    slow_in_a_row: AtomicU32,
    epoch: Instant,
    /// Milliseconds since `epoch` until which nothing is read on the spot.
    paused_until_ms: AtomicU64,
}

impl Quick {
    fn open(path: &Path) -> rusqlite::Result<Self> {
        let connections = (0..QUICK_CONNECTIONS).map(|_| open::open_quick_reader(path));
        Ok(Self {
            idle: Mutex::new(Some(connections.collect::<Result<_, _>>()?)),
            slow_in_a_row: AtomicU32::new(0),
            epoch: Instant::now(),
            paused_until_ms: AtomicU64::new(0),
        })
    }

    fn is_allowed(&self) -> bool {
        self.paused_until_ms.load(Ordering::Relaxed) <= self.now_ms()
    }

    /// Hears how long a record took. True when no more are to be read on the spot.
    fn is_too_slow(&self, took: Duration) -> bool {
        if took <= SLOW_READ {
            self.slow_in_a_row.store(0, Ordering::Relaxed);
            return false;
        }
        let slow = self.slow_in_a_row.fetch_add(1, Ordering::Relaxed) + 1;
        if slow >= MAX_SLOW_READS {
            let until_ms = self.now_ms() + millis(SLOW_PAUSE);
            self.paused_until_ms.store(until_ms, Ordering::Relaxed);
        }
        slow >= MAX_SLOW_READS
    }

    fn now_ms(&self) -> u64 {
        millis(self.epoch.elapsed())
    }

    /// The rows of keys, until one is slow.
    fn read(&self, connection: &Connection, keys: &mut std::vec::IntoIter<Key>) -> rusqlite::Result<Vec<RowResult>> {
        let began = Instant::now();
        let mut before = began;
        let snapshot = Snapshot::begin(connection)?;
        let mut query = RecordQuery::new(snapshot.0)?;
        let mut bytes = 0;
        let (mut rows, mut slow) = (Vec::with_capacity(keys.len()), 0);
        for key in keys {
            rows.push(read_row(&mut query, key, &mut bytes));
            let now = Instant::now();
            // Others that find what they read in memory say nothing about this call.
            slow += u32::from(now - before > SLOW_READ);
            if self.is_too_slow(now - before) || slow >= MAX_SLOW_READS || now - began > MAX_TIME_HERE {
                break;
            }
            before = now;
        }
        Ok(rows)
    }

    fn take(&self) -> Option<Connection> {
        lock(&self.idle).as_mut().and_then(Vec::pop)
    }

    fn give_back(&self, connection: Connection) {
        // Closed meanwhile, it is dropped.
        if let Some(idle) = lock(&self.idle).as_mut() {
            idle.push(connection);
        }
    }

    fn close(&self) {
        *lock(&self.idle) = None;
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A snapshot; dropped, it ends. Its statements stay prepared, which those of rusqlite's transactions do not.
struct Snapshot<'a>(&'a Connection);

impl<'a> Snapshot<'a> {
    fn begin(connection: &'a Connection) -> rusqlite::Result<Self> {
        connection.prepare_cached("BEGIN DEFERRED")?.execute([])?;
        Ok(Self(connection))
    }
}

impl Drop for Snapshot<'_> {
    fn drop(&mut self) {
        let ended = self.0.prepare_cached("ROLLBACK").and_then(|mut end| end.execute([]));
        if let Err(error) = ended {
            tracing::error!(%error, "a snapshot did not end");
        }
    }
}

/// Reads a key's row, unless the call has read more than enough already.
fn read_row(query: &mut RecordQuery<'_>, key: Key, bytes: &mut usize) -> RowResult {
    if *bytes >= MAX_READ_BYTES {
        let reason = format!("more than {MAX_READ_BYTES} bytes asked for at once; ask for fewer keys");
        return (key, Err(reason));
    }
    match query.read(&key) {
        Ok(row) => {
            *bytes += row.as_ref().map_or(0, |row| row.record.size_bytes());
            (key, Ok(row.map(Arc::new)))
        }
        Err(error) => {
            let reason = format!("cannot read the record of {key:?}: {error}");
            (key, Err(reason))
        }
    }
}

/// A key with its row, or why the row cannot be read.
pub(crate) type RowResult = (Key, Result<Option<Arc<Stored>>, String>);

fn lock<T>(idle: &Mutex<T>) -> MutexGuard<'_, T> {
    // Pushing and popping leave the list whole whatever happens.
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use register::{Ballot, HlcTime, Record};

    use super::super::rows;
    use super::*;

    /// A database with the records `a0` to `a199`, of which `a7` cannot be read.
    fn readers(dir: &Path) -> Readers {
        let path = dir.join("kv.db");
        let writer = open::open(&path, 1, false).unwrap().writer;
        for number in 0..200 {
            let record = Record {
                accepted: Ballot::ZERO,
                state: None,
                promised: Ballot {
                    time: HlcTime::from_bits(number + 1),
                    incarnation: 1,
                },
                floor: Ballot::ZERO,
                hint_for: None,
            };
            let stored = Stored { record, commit: number };
            rows::write_record(&writer, &key(number), &stored, false).unwrap();
        }
        let sql = "UPDATE records SET promised = x'01' WHERE key = 'da7'";
        assert_eq!(writer.execute(sql, []).unwrap(), 1);
        Readers::open(&path).unwrap()
    }

    fn key(number: u64) -> Key {
        Key::data(&format!("a{number}"))
    }

    /// The commit number of each row; none for no row.
    fn commits(rows: Vec<RowResult>) -> Vec<Result<Option<u64>, String>> {
        rows.into_iter()
            .map(|(_, row)| row.map(|row| row.map(|stored| stored.commit)))
            .collect()
    }

    #[tokio::test]
    async fn on_the_spot_and_in_threads_the_same_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let readers = readers(dir.path());
        // More than are read on the spot, as many, fewer; the last has no record.
        for count in [201, MAX_KEYS_HERE as u64, 9] {
            let keys = || (0..count - 1).chain([999]).map(key).collect::<Vec<_>>();
            readers.only_in_threads(true);
            let in_threads = readers.records(keys()).await.unwrap();
            readers.only_in_threads(false);
            let mut left = keys().into_iter();
            let here = readers.read_here(&mut left);
            let read_here = if count > MAX_KEYS_HERE as u64 { 0 } else { keys().len() };
            assert_eq!((here.len(), left.len()), (read_here, keys().len() - read_here));
            let rows = readers.records(keys()).await.unwrap();
            assert!(rows.iter().map(|(key, _)| key).eq(&keys()), "in their order");
            let rows = commits(rows);
            assert_eq!(rows, commits(in_threads));
            assert!(rows[7].as_ref().unwrap_err().contains("16 bytes"));
            let expected = (0..count - 1).map(Some).chain([None]);
            let others = rows.iter().zip(expected).enumerate().filter(|(at, _)| *at != 7);
            for (_, (row, expected)) in others {
                assert_eq!(*row, Ok(expected));
            }
        }
        readers.close().await;
        assert!(readers.records(vec![key(1)]).await.is_err(), "closed");
    }

    #[tokio::test]
    async fn a_disk_that_is_waited_for_is_waited_for_in_threads() {
        let dir = tempfile::tempdir().unwrap();
        let readers = readers(dir.path());
        let quick = &readers.quick;
        let (slow, fast) = (SLOW_READ * 2, SLOW_READ / 2);
        assert!(!quick.is_too_slow(slow) && !quick.is_too_slow(fast) && !quick.is_too_slow(slow));
        assert!(quick.is_allowed(), "never two in a row");
        assert!(quick.is_too_slow(slow) && !quick.is_allowed());
        let mut keys = vec![key(1)].into_iter();
        assert!(readers.read_here(&mut keys).is_empty() && keys.len() == 1);
        assert_eq!(commits(readers.records(vec![key(1)]).await.unwrap()), [Ok(Some(1))]);
        // Later it is tried again.
        readers.only_in_threads(false);
        assert_eq!(readers.read_here(&mut keys).len(), 1);
        assert!(quick.is_allowed());
    }

    #[tokio::test]
    async fn every_read_sees_what_was_committed_before() {
        let dir = tempfile::tempdir().unwrap();
        let readers = readers(dir.path());
        let writer = Connection::open(dir.path().join("kv.db")).unwrap();
        for commit in 1_000_i64..1_100 {
            let sql = "UPDATE records SET commit_number = ? WHERE key = 'da1'";
            writer.execute(sql, [commit]).unwrap();
            readers.only_in_threads(commit % 3 == 0);
            let rows = readers.records(vec![key(1)]).await.unwrap();
            assert_eq!(commits(rows), [Ok(Some(commit.unsigned_abs()))]);
        }
    }
}
