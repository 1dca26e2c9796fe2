//! Reading the database beside the writer: a few connections, each used by one blocking task at a time.
//!
//! A read connection sees whole commits only, and a commit only after its fsync (SQLite shows frames of the write-ahead log to others after
//! syncing them), so nothing that is read can be lost again.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use register::Key;
use register::message::List;
use register::scan::ScanRange;
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::Semaphore;

use super::pages::{self, Walk, Whole};
use super::rows::{self, Stored};
use super::view::View;
use super::{Page, ScanPage, StoreError, open};

/// Read connections: enough to keep a few cores busy; further reads queue.
const CONNECTIONS: usize = 4;

/// Bytes of records read for one call, after which its further keys are refused. More than the largest message between coordinator and
/// node, so only values that have grown meanwhile get there.
const MAX_READ_BYTES: usize = 32 * 1024 * 1024;

/// How often a list looks for a moment at which the table of records and what it does not have yet belong together. The table shows a commit a
/// little before the writer tells of it; much before, when the commit ends with a checkpoint.
const SNAPSHOT_TRIES: u32 = 1_000;
/// Pause between two looks.
const SNAPSHOT_PAUSE: Duration = Duration::from_millis(1);

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
    }
}

/// A key with its row, or why the row cannot be read.
pub(crate) type RowResult = (Key, Result<Option<Arc<Stored>>, String>);

fn lock(idle: &Mutex<Vec<Connection>>) -> MutexGuard<'_, Vec<Connection>> {
    // Pushing and popping leave the list whole whatever happens.
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}
