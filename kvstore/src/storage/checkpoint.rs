//! Checkpoints beside the writer: bringing what SQLite's write-ahead log has into the database file, so that the log can begin again.
//!
//! Left to itself SQLite does it inside the COMMIT that makes the log long, which takes a hundred times as long as others; all who wait for
//! that commit wait for the checkpoint too. Here a thread of its own does it, over a connection of its own, while the writer goes on. It never
//! gets to the end of a log that grows; so when it is done, the writer itself does the little that is left, between two batches, and the next
//! commit finds a log that it may begin again. Readers that look at the log just then prevent that; it is tried again after as much has been
//! written once more.
//!
//! A checkpoint that fails loses nothing: the log keeps what it has.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

use prometheus_client::metrics::histogram::Histogram;
use rusqlite::Connection;

use super::open;

/// Frames (pages of 4 KiB) of the log after which it is worth a checkpoint.
const FRAMES: u32 = 1_000;
/// Frames written meanwhile that the writer does itself; with more of them the thread goes on.
const LITTLE_FRAMES: u32 = 200;
/// How often the thread goes on for the same checkpoint. A writer that is faster has to do the rest, however much it is.
const ROUNDS: u32 = 4;

/// The writer's side.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    /// Frames in the log after the last commit.
    frames: Arc<AtomicU32>,
    /// The log is worth a checkpoint from so many frames on.
    due_at: u32,
    /// Frames that were there when a commit was last looked at.
    seen: u32,
    /// What the thread has been asked for.
    round: Option<Round>,
    thread: Option<Thread>,
    seconds: Histogram,
}

#[derive(Debug, Clone, Copy)]
struct Round {
    number: u32,
    /// Frames that were there when it began.
    frames: u32,
}

#[derive(Debug)]
struct Thread {
    ask: SyncSender<()>,
    busy: Arc<AtomicBool>,
    handle: JoinHandle<()>,
}

impl Checkpoints {
    /// Takes the checkpoints of the database at `path` away from `writer`, and starts the thread.
    ///
    /// # Errors
    /// What SQLite or the system says.
    pub(crate) fn start(path: &Path, writer: &mut Connection, seconds: Histogram) -> Result<Self, open::OpenError> {
        let sqlite = |source| open::OpenError::Sqlite {
            path: path.to_owned(),
            source,
        };
        let frames = Arc::new(AtomicU32::new(0));
        let told = Arc::clone(&frames);
        // In the place of SQLite's own hook, which would make a checkpoint.
        let hook = move |_: &mut _, pages| {
            told.store(u32::try_from(pages).unwrap_or_default(), Ordering::Relaxed);
            Ok(())
        };
        writer.wal_hook(Some(hook)).map_err(sqlite)?;
        let connection = open::open_checkpointer(path).map_err(sqlite)?;
        let (ask, asked) = sync_channel(1);
        let busy = Arc::new(AtomicBool::new(false));
        let (busy_too, seconds_too) = (Arc::clone(&busy), seconds.clone());
        let handle = std::thread::Builder::new()
            .name("kv-checkpoint".to_owned())
            .spawn(move || work(&connection, &asked, &busy_too, &seconds_too))
            .map_err(|source| open::OpenError::Thread { source })?;
        Ok(Self {
            frames,
            due_at: FRAMES,
            seen: 0,
            round: None,
            thread: Some(Thread { ask, busy, handle }),
            seconds,
        })
    }

    /// To be called by the writer between two batches: sees to it that the log does not grow for ever.
    pub(crate) fn look(&mut self, writer: &Connection) {
        let frames = self.frames.load(Ordering::Relaxed);
        if frames < self.seen {
            // It has begun again.
            self.due_at = FRAMES;
        }
        self.seen = frames;
        match self.round {
            None if frames < self.due_at => {}
            None => self.ask(1, frames),
            Some(_) if self.is_busy() => {}
            Some(round) if frames.saturating_sub(round.frames) > LITTLE_FRAMES && round.number < ROUNDS => {
                self.ask(round.number + 1, frames);
            }
            Some(_) => {
                checkpoint(writer, &self.seconds);
                self.round = None;
                self.due_at = frames.saturating_add(FRAMES);
            }
        }
    }

    /// Ends the thread; a checkpoint under way is finished first.
    pub(crate) fn end(&mut self) {
        if let Some(Thread { ask, handle, .. }) = self.thread.take() {
            drop(ask);
            // A panic was logged by the panic hook, and there is nothing of it to clear up.
            let _ = handle.join();
        }
    }

    fn ask(&mut self, number: u32, frames: u32) {
        self.round = Some(Round { number, frames });
        if let Some(thread) = &self.thread {
            thread.busy.store(true, Ordering::Release);
            if thread.ask.try_send(()).is_err() {
                // It has died; the writer does without it.
                thread.busy.store(false, Ordering::Release);
            }
        }
    }

    fn is_busy(&self) -> bool {
        let busy = |thread: &Thread| thread.busy.load(Ordering::Acquire) && !thread.handle.is_finished();
        self.thread.as_ref().is_some_and(busy)
    }
}

fn work(connection: &Connection, asked: &Receiver<()>, busy: &AtomicBool, seconds: &Histogram) {
    while asked.recv().is_ok() {
        checkpoint(connection, seconds);
        busy.store(false, Ordering::Release);
    }
}

/// Brings into the database file what no reader prevents, waiting for nobody.
fn checkpoint(connection: &Connection, seconds: &Histogram) {
    let started = Instant::now();
    let done = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
    seconds.observe(started.elapsed().as_secs_f64());
    if let Err(error) = done {
        tracing::warn!(%error, "a checkpoint failed; the write-ahead log keeps what it has");
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    /// A database with one table, and checkpoints for its only connection.
    struct Bench {
        writer: Connection,
        checkpoints: Checkpoints,
        dir: TempDir,
    }

    impl Bench {
        fn new() -> Self {
            let dir = TempDir::new().unwrap();
            let path = dir.path().join("kv.db");
            let mut writer = Connection::open(&path).unwrap();
            writer
                .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (n INTEGER PRIMARY KEY, bytes BLOB)")
                .unwrap();
            let seconds = service::metrics::Metrics::new("test").latency("checkpoint_seconds", "…");
            let checkpoints = Checkpoints::start(&path, &mut writer, seconds).unwrap();
            Self {
                writer,
                checkpoints,
                dir,
            }
        }

        /// One commit of a page or two.
        fn commit(&self, number: u32) {
            self.writer
                .execute("REPLACE INTO t VALUES (?, zeroblob(3000))", [number % 50])
                .unwrap();
        }

        fn frames(&self) -> u32 {
            self.checkpoints.frames.load(Ordering::Relaxed)
        }

        fn database_bytes(&self) -> u64 {
            std::fs::metadata(self.dir.path().join("kv.db")).unwrap().len()
        }
    }

    #[test]
    fn the_log_begins_again_and_again_however_much_is_written() {
        let mut bench = Bench::new();
        let (mut most, mut again) = (0, 0);
        for number in 0..20 * FRAMES {
            let before = bench.frames();
            bench.commit(number);
            again += u32::from(bench.frames() < before);
            most = most.max(bench.frames());
            bench.checkpoints.look(&bench.writer);
        }
        assert!(again >= 2, "{again} times in {} commits", 20 * FRAMES);
        assert!(most < 10 * FRAMES, "the log had {most} frames");
        bench.checkpoints.end();
    }

    #[test]
    fn a_reader_delays_it_and_nothing_is_lost() {
        let mut bench = Bench::new();
        let reader = Connection::open(bench.dir.path().join("kv.db")).unwrap();
        bench.commit(0);
        reader.execute_batch("BEGIN").unwrap();
        let count = |connection: &Connection| -> i64 {
            connection
                .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
                .unwrap()
        };
        assert_eq!(count(&reader), 1);
        for number in 1..3 * FRAMES {
            bench.commit(number);
            bench.checkpoints.look(&bench.writer);
        }
        assert_eq!(count(&reader), 1, "its snapshot stays");
        assert!(bench.frames() > 3 * FRAMES, "it could not begin again");
        let before = bench.database_bytes();
        reader.execute_batch("COMMIT").unwrap();
        let enough = (0..10 * FRAMES).any(|number| {
            let before = bench.frames();
            bench.commit(number);
            bench.checkpoints.look(&bench.writer);
            bench.frames() < before
        });
        assert!(enough, "it has begun again once the reader had gone");
        assert_eq!(count(&reader), 50);
        assert!(bench.database_bytes() > before, "what was written has arrived");
        bench.checkpoints.end();
    }

    #[test]
    fn without_its_thread_the_writer_does_it_all() {
        let mut bench = Bench::new();
        bench.checkpoints.end();
        let mut again = false;
        for number in 0..3 * FRAMES {
            let before = bench.frames();
            bench.commit(number);
            again |= bench.frames() < before;
            bench.checkpoints.look(&bench.writer);
        }
        assert!(again);
    }
}
