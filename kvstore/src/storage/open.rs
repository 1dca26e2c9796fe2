//! Opening the database file: what is refused, and why.
//!
//! Refused with the path and what to do: a missing or unwritable directory, a file another process uses, a file that is no SQLite database
//! or is damaged, a database that is somebody else's, and one written by newer code. Nothing is written to a file before all of that is
//! known.

#[cfg(test)]
mod tests;

use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use register::membership::Peer;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::log;
use super::node_row::{self, NodeRow};
use super::schema::{self, APPLICATION_ID, OLDEST_SCHEMA_VERSION, SCHEMA_VERSION};

/// How long the integrity check at start may take. A larger database is checked as far as that goes. The walk over all records that builds
/// the hash tree meets their keys and ballots besides; damage met later is an error of the request that meets it.
const CHECK_TIMEOUT: Duration = Duration::from_millis(500);

/// How long a connection waits for another one's lock. Within one process only checkpoints hold one for long.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Statements kept prepared per connection: more than there are.
const STATEMENT_CACHE: usize = 32;

/// Pages that a connection for quick reads keeps in memory, KiB: with a million records the inner ones of both trees, and a part of the keys'
/// leaves.
const QUICK_CACHE_KIB: i64 = 4 * 1024;

/// After a checkpoint the write-ahead log is cut back to this many bytes, so that one burst does not keep its disk for ever.
const WAL_KEEP_BYTES: i64 = 16 * 1024 * 1024;

/// The writer's cache of pages, in KiB (so the minus sign): every page of the trees' upper levels for millions of records.
const WRITER_CACHE: i64 = -12 * 1024;

/// A database that cannot be used. Each text names the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no such directory.
    #[error(
        "DB_FILE {path:?}: the directory {dir:?} does not exist; create it (or mount the volume there), or set DB_FILE to another place"
    )]
    NoDirectory {
        /// The database file.
        path: PathBuf,
        /// The missing directory.
        dir: PathBuf,
    },
    /// The directory or the file cannot be written.
    #[error(
        "DB_FILE {path:?}: cannot be written ({source}); give this user write permission on the file and its directory"
    )]
    NotWritable {
        /// The database file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another process has it.
    #[error("DB_FILE {path:?}: in use by another kvstore; stop that one, or give each its own DB_FILE")]
    InUse {
        /// The database file.
        path: PathBuf,
    },
    /// Not a kvstore's database.
    #[error("DB_FILE {path:?}: {what}; it was left untouched. Set DB_FILE to another file, or move this one away")]
    Foreign {
        /// The database file.
        path: PathBuf,
        /// What it is instead.
        what: String,
    },
    /// Written by newer code.
    #[error(
        "DB_FILE {path:?}: has schema version {found}, this program knows {SCHEMA_VERSION}; use the newer program that wrote it"
    )]
    TooNew {
        /// The database file.
        path: PathBuf,
        /// Its schema version.
        found: i32,
    },
    /// Damaged.
    #[error(
        "DB_FILE {path:?}: the database is damaged ({detail}); keep the file for inspection, move it and its -wal and -shm files away, \
         and restore a backup"
    )]
    Corrupt {
        /// The database file.
        path: PathBuf,
        /// What the check found.
        detail: String,
    },
    /// The writer's thread cannot be started.
    #[error("cannot start the storage writer: {source}")]
    Thread {
        /// What the system said.
        source: std::io::Error,
    },
    /// Anything else SQLite says.
    #[error("DB_FILE {path:?}: {source}")]
    Sqlite {
        /// The database file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
}

impl OpenError {
    /// What an error of SQLite says about the database.
    pub(crate) fn of_sqlite(path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Self::Corrupt {
                path,
                detail: source.to_string(),
            },
            _ => Self::Sqlite { path, source },
        }
    }
}

/// An opened database, with the lock that keeps other processes out.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) writer: Connection,
    pub(crate) node: NodeRow,
    pub(crate) peers: Vec<Peer>,
    pub(crate) lock: File,
}

/// Opens or creates the database at `path`, for a process that begins. `new_incarnation` is used when it is created; with `forget_ring` the
/// node belongs to no ring any more.
pub(crate) fn open(path: &Path, new_incarnation: u64, forget_ring: bool) -> Result<Opened, OpenError> {
    let lock = claim(path)?;
    look_at_header(path)?;
    let sqlite = |source: rusqlite::Error| OpenError::of_sqlite(path, source);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(sqlite)?;
    prepare_connection(&connection).map_err(sqlite)?;
    if connection.is_readonly("main").map_err(sqlite)? {
        // SQLite silently falls back to reading a file it may not write.
        return Err(OpenError::NotWritable {
            path: path.to_owned(),
            source: ErrorKind::PermissionDenied.into(),
        });
    }
    let fresh = recognise(&connection, path, sqlite)?;
    if fresh {
        schema::create(&mut connection, new_incarnation).map_err(sqlite)?;
        sync_directory(path).map_err(|source| OpenError::NotWritable {
            path: path.to_owned(),
            source,
        })?;
    } else {
        check_integrity(&connection, path, sqlite)?;
    }
    // FULL, not NORMAL: a promise or an ack must survive the power cut right after it.
    connection.pragma_update(None, "journal_mode", "WAL").map_err(sqlite)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(sqlite)?;
    connection
        .pragma_update(None, "journal_size_limit", WAL_KEEP_BYTES)
        .map_err(sqlite)?;
    connection
        .pragma_update(None, "cache_size", WRITER_CACHE)
        .map_err(sqlite)?;
    let node = |source: rusqlite::Error| match source {
        rusqlite::Error::QueryReturnedNoRows => OpenError::Corrupt {
            path: path.to_owned(),
            detail: "the node's own row is missing".to_owned(),
        },
        rusqlite::Error::FromSqlConversionFailure(_, _, what) => OpenError::Corrupt {
            path: path.to_owned(),
            detail: what.to_string(),
        },
        other => sqlite(other),
    };
    schema::migrate(&mut connection).map_err(node)?;
    let (node, peers) = begin(&mut connection, forget_ring).map_err(node)?;
    Ok(Opened {
        writer: connection,
        node,
        peers,
        lock,
    })
}

/// Brings the table of records up to the end of the commit log, takes the node up as one whose process has just begun, durably, and gives
/// what it is now.
fn begin(connection: &mut Connection, forget_ring: bool) -> rusqlite::Result<(NodeRow, Vec<Peer>)> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let replayed = log::replay(&transaction)?;
    let found = NodeRow::read(&transaction)?;
    let peers = node_row::read_peers(&transaction)?;
    let mut node = found;
    node.begin(&peers);
    if forget_ring {
        node.epoch = None;
    }
    if node != found {
        node.update_all(&transaction)?;
    }
    if replayed || node != found {
        transaction.commit()?;
    }
    Ok((node, peers))
}

/// A connection that only reads.
pub(crate) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    prepare_connection(&connection)?;
    Ok(connection)
}

/// A connection that only makes checkpoints. What it writes is synced as the writer's commits are.
pub(crate) fn open_checkpointer(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    prepare_connection(&connection)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}

/// A connection for reads that may not wait for anything but the disk.
pub(crate) fn open_quick_reader(path: &Path) -> rusqlite::Result<Connection> {
    let connection = open_reader(path)?;
    connection.busy_timeout(Duration::ZERO)?;
    connection.pragma_update(None, "cache_size", -QUICK_CACHE_KIB)?;
    Ok(connection)
}

fn prepare_connection(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
    Ok(())
}

/// Takes the lock file beside the database. The lock goes with the process, however it ends.
fn claim(path: &Path) -> Result<File, OpenError> {
    let dir = directory_of(path);
    if !dir.is_dir() {
        return Err(OpenError::NoDirectory {
            path: path.to_owned(),
            dir: dir.to_owned(),
        });
    }
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(lock_path)
        .map_err(|source| OpenError::NotWritable {
            path: path.to_owned(),
            source,
        })?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(OpenError::NotWritable {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Looks at the first bytes itself, so that SQLite does not touch what is none of its files.
fn look_at_header(path: &Path) -> Result<(), OpenError> {
    const MAGIC: &[u8] = b"SQLite format 3\0";
    let foreign = |what: &str| {
        Err(OpenError::Foreign {
            path: path.to_owned(),
            what: what.to_owned(),
        })
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(OpenError::NotWritable {
                path: path.to_owned(),
                source,
            });
        }
    };
    if path.is_dir() {
        return foreign("is a directory");
    }
    let mut head = Vec::with_capacity(MAGIC.len());
    let reading = file.take(MAGIC.len() as u64).read_to_end(&mut head);
    reading.map_err(|source| OpenError::NotWritable {
        path: path.to_owned(),
        source,
    })?;
    if head.is_empty() || head == MAGIC {
        Ok(())
    } else {
        foreign("is not a SQLite database")
    }
}

/// True for an empty database, false for one of ours; anything else is refused.
fn recognise(
    connection: &Connection,
    path: &Path,
    sqlite: impl Fn(rusqlite::Error) -> OpenError + Copy,
) -> Result<bool, OpenError> {
    let application: i32 = connection
        .pragma_query_value(None, "application_id", |row| row.get(0))
        .map_err(sqlite)?;
    let version: i32 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(sqlite)?;
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(sqlite)?;
    match (application, tables) {
        (0, 0) => Ok(true),
        (APPLICATION_ID, _) if version > SCHEMA_VERSION => Err(OpenError::TooNew {
            path: path.to_owned(),
            found: version,
        }),
        (APPLICATION_ID, 1..) if (OLDEST_SCHEMA_VERSION..=SCHEMA_VERSION).contains(&version) => Ok(false),
        (APPLICATION_ID, _) => {
            let detail = format!("schema version {version} with {tables} tables and indexes");
            Err(OpenError::Corrupt {
                path: path.to_owned(),
                detail,
            })
        }
        (other, tables) => {
            let what = format!(
                "is a SQLite database of another program (application id {other}, {tables} tables and indexes)"
            );
            Err(OpenError::Foreign {
                path: path.to_owned(),
                what,
            })
        }
    }
}

/// `PRAGMA quick_check`, interrupted after [`CHECK_TIMEOUT`].
fn check_integrity(
    connection: &Connection,
    path: &Path,
    sqlite: impl Fn(rusqlite::Error) -> OpenError,
) -> Result<(), OpenError> {
    let (done, waiting) = channel::<()>();
    let interrupt = connection.get_interrupt_handle();
    let timer = std::thread::spawn(move || {
        if matches!(waiting.recv_timeout(CHECK_TIMEOUT), Err(RecvTimeoutError::Timeout)) {
            interrupt.interrupt();
        }
    });
    let verdict = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    drop(done);
    // It only waits and interrupts; it cannot panic, and it must be over before the connection does its next work.
    let _ = timer.join();
    match verdict {
        Ok(verdict) if verdict == "ok" => Ok(()),
        Ok(detail) => Err(OpenError::Corrupt {
            path: path.to_owned(),
            detail,
        }),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
            tracing::info!(
                ?path,
                "the database is large: its integrity was checked for {CHECK_TIMEOUT:?} only"
            );
            Ok(())
        }
        Err(error) => Err(sqlite(error)),
    }
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// Makes the new file's name itself durable.
fn sync_directory(path: &Path) -> std::io::Result<()> {
    File::open(directory_of(path))?.sync_all()
}
