//! The writer: one thread, group commit.
//!
//! It takes whatever has queued up, decides each request in order against what the batch has changed so far, writes what changed in one
//! transaction, and answers only after the fsync that covers it. Nothing is half applied: either all changes of a batch are durable, or the
//! batch is answered with `Failed` and database, cache and numbers are what they were.
//!
//! What changed goes into the commit log, and the same transaction brings some of what the log had before into the table of records
//! ([`super::log`]). What is too large for the log goes into the table at once, after everything the log holds.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use register::membership::Peer;
use register::{HlcTime, Key};
use rusqlite::{Connection, ErrorCode};
use tokio::sync::mpsc;

use super::StoreError;
use super::batch::{Batch, Changes, Slot, is_hint};
use super::checkpoint::Checkpoints;
use super::feed::Feed;
use super::health::Health;
use super::job::{CommitError, Job, Waiting};
use super::log::{self, CommitLog, Later};
use super::metrics::StoreMetrics;
use super::node_row::{self, NodeRow};
use super::rows::{self, Stored};
use super::tree::SharedTree;
use super::view::{Progress, View};
use crate::clock::NodeClock;

/// Requests after which a batch takes no further job. Measured on SQLite: groups of 64 are five to thirty times faster than single rows,
/// larger ones gain little; this leaves room for slow disks. A single job may be larger.
pub(crate) const MAX_BATCH_REQUESTS: usize = 256;

/// The thread's state.
pub(crate) struct Writer {
    pub(crate) connection: Connection,
    pub(crate) checkpoints: Checkpoints,
    /// The end of the commit log.
    pub(crate) log: CommitLog,
    /// The node's row as it is committed.
    pub(crate) node: NodeRow,
    /// Whom the node remembers, as it is committed.
    pub(crate) peers: Vec<Peer>,
    pub(crate) view: Arc<View>,
    pub(crate) tree: Arc<SharedTree>,
    pub(crate) feed: Arc<Feed>,
    pub(crate) clock: NodeClock,
    pub(crate) metrics: StoreMetrics,
    /// Told of every commit.
    pub(crate) health: Arc<Health>,
    /// It panicked, and what it knows may not be what the database holds.
    pub(crate) lost_track: bool,
    /// Keeps other processes out for as long as the thread may write.
    pub(crate) _lock: File,
}

impl Writer {
    /// Works until told to stop, or until every sender is gone.
    pub(crate) fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut batch = Vec::new();
        while let Some(first) = jobs.blocking_recv() {
            let mut weight = first.weight();
            batch.push(first);
            while weight < MAX_BATCH_REQUESTS
                && let Ok(job) = jobs.try_recv()
            {
                weight += job.weight();
                batch.push(job);
            }
            if batch.iter().any(|job| matches!(job, Job::Stop)) {
                // Senders are refused from here on; what is already queued is still done.
                jobs.close();
            }
            let work = catch_unwind(AssertUnwindSafe(|| {
                if !self.lost_track {
                    self.process(&mut batch, weight);
                }
            }));
            if work.is_err() {
                tracing::error!("the storage writer panicked; its batch is answered as unknown");
                self.lost_track = true;
            }
            // Answers that are dropped say "unknown" to those who wait.
            batch.clear();
            if self.lost_track {
                self.start_again();
            }
            self.checkpoints.look(&self.connection);
        }
        self.checkpoints.end();
        // Leaves one file behind instead of three, and nothing in the commit log; the logs would do as well.
        let emptied = self
            .begin()
            .and_then(|()| self.empty_log())
            .and_then(|()| self.end("COMMIT"));
        let cut = emptied.and_then(|()| self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)"));
        if let Err(error) = cut {
            tracing::debug!(%error, "no checkpoint at the end");
        }
    }

    /// Requests about the node itself are decided on what is durable, so a batch ends before one and begins after it.
    fn process(&mut self, jobs: &mut Vec<Job>, weight: usize) {
        #[expect(clippy::cast_precision_loss, reason = "a metric")]
        let weight = weight as f64;
        let mut of_keys = Vec::with_capacity(jobs.len());
        for job in jobs.drain(..) {
            match job {
                Job::Node { request, epoch, answer } => {
                    self.process_keys(&mut of_keys, weight);
                    drop(answer.send(self.decide_node(&request, epoch)));
                }
                #[cfg(test)]
                Job::Sql { sql, answer } => {
                    self.process_keys(&mut of_keys, weight);
                    let result = self.connection.execute_batch(sql);
                    drop(answer.send(result.map_err(|error| StoreError::Failed {
                        reason: error.to_string(),
                    })));
                }
                #[cfg(test)]
                Job::Panic { answer } => panic!("on purpose, {answer:?} dropped"),
                other => of_keys.push(other),
            }
        }
        self.process_keys(&mut of_keys, weight);
    }

    fn process_keys(&mut self, jobs: &mut Vec<Job>, weight: f64) {
        if jobs.is_empty() {
            return;
        }
        let began = self.begin();
        let mut batch = Batch::new(self.node, &self.connection, &self.view);
        let mut waiting = Vec::with_capacity(jobs.len());
        let mut probes = Vec::new();
        for job in jobs.drain(..) {
            match job {
                Job::Decide { requests, from, answer } => {
                    let replies = requests
                        .iter()
                        .map(|(key, request)| batch.decide(from, key, request))
                        .collect();
                    waiting.push(Waiting::Decide(replies, answer));
                }
                Job::Change {
                    key,
                    command,
                    request,
                    answer,
                } => {
                    let result = batch.change(&self.clock, &key, &command, request);
                    waiting.push(Waiting::Change(result, answer));
                }
                Job::Probe { answer } => probes.push(answer),
                // The others are done before, the last by the loop.
                _ => {}
            }
        }
        let (node, changes) = batch.into_changes();
        let mut result = Ok(());
        if !changes.slots.is_empty() {
            self.metrics.batch_requests.observe(weight);
            result = self.watched(|writer| {
                began.map_err(not_written)?;
                writer.commit(node, changes)
            });
        } else if !probes.is_empty() {
            result = self.watched(Self::fence);
        }
        self.roll_back();
        for answer in probes {
            let failed = |error: &CommitError| StoreError::Failed {
                reason: error.reason().to_owned(),
            };
            let outcome = result.as_ref().map_err(failed).copied();
            drop(answer.send(outcome));
        }
        for answer in waiting {
            match &result {
                Ok(()) => answer.send(),
                Err(error) => answer.fail(error),
            }
        }
    }

    /// Runs a commit that the node's health hears of.
    pub(super) fn watched<T>(
        &mut self,
        commit: impl FnOnce(&mut Self) -> Result<T, CommitError>,
    ) -> Result<T, CommitError> {
        let (health, metrics) = (Arc::clone(&self.health), self.metrics.clone());
        health.commit(&metrics, CommitError::reason, || commit(self))
    }

    /// Makes changes durable, then shows them. The transaction is open.
    fn commit(&mut self, mut node: NodeRow, changes: Changes) -> Result<(), CommitError> {
        let Changes { slots, accepted } = changes;
        node.clock = self.clock_mark(&node);
        for (_, slot) in &slots {
            node.records = node.records - u64::from(slot.existed) + u64::from(slot.now.is_some());
            node.hints = node.hints - u64::from(slot.was_hint) + u64::from(is_hint(slot.now.as_deref()));
            node.clock = node.clock.max(newest(slot.now.as_deref()));
        }
        let fits = self.log.encode(&node, &slots);
        match fits.map_err(|error| CommitError::Nothing(format!("cannot take up a commit: {error}")))? {
            Some(log_slots) => self.commit_to_log(node, &slots, log_slots)?,
            None => self.commit_to_table(node, &slots)?,
        }
        self.metrics.changes.inc_by(slots.len() as u64);
        self.metrics.show_records(node.records, node.hints);
        self.tree.change(slots.iter().map(|(key, slot)| {
            let accepted = slot.now.as_ref().map(|now| now.record.accepted);
            (key, slot.was_accepted, accepted.unwrap_or_default())
        }));
        // After the view: who hears of a change and reads the key finds it.
        self.feed.append(accepted, self.node.commit);
        self.metrics.show_cache(self.view.cache_size());
        Ok(())
    }

    /// Writes the entry that the log has taken up, and a share of those before into the table.
    fn commit_to_log(&mut self, mut node: NodeRow, slots: &[(Key, Slot)], log_slots: u64) -> Result<(), CommitError> {
        let unapplied = self.view.unapplied();
        let pace = self.log.pace(node.log_fresh, unapplied.left(), log_slots);
        let share = unapplied.share(pace.apply, slots);
        drop(unapplied);
        if pace.begins {
            (node.log_start, node.log_fresh) = (node.log_fresh, self.log.next());
        }
        self.view.begin_logged(node.floor);
        let written = self.write_to_log(&node, pace.begins, &share);
        let end = match written.map_err(not_written) {
            Ok(end) => self.commit_open().map(|()| end),
            Err(error) => Err(error),
        };
        let end = end.inspect_err(|_| self.view.abort(std::iter::empty()))?;
        self.log.written(end);
        self.node = node;
        let changed = slots.iter().map(|(key, slot)| (key.clone(), slot.now.clone()));
        self.view.end_logged(changed, |unapplied| {
            let changes = slots
                .iter()
                .map(|(key, slot)| (key.clone(), slot.now.clone(), slot.existed));
            unapplied.committed(node, pace.begins, &share, changes);
        });
        Ok(())
    }

    fn write_to_log(&mut self, node: &NodeRow, begins: bool, share: &[(Key, Later)]) -> rusqlite::Result<u64> {
        self.apply(share)?;
        if begins {
            node.update(&self.connection)?;
        }
        self.log.write(&self.connection)
    }

    /// Writes everything into the table, what the log holds first.
    fn commit_to_table(&mut self, mut node: NodeRow, slots: &[(Key, Slot)]) -> Result<(), CommitError> {
        (node.log_start, node.log_fresh) = (self.log.next(), self.log.next());
        self.view.begin(slots.iter().map(|(key, _)| key), node.floor);
        let written = self.write_to_table(&node, slots);
        let committed = written.map_err(not_written).and_then(|()| self.commit_open());
        if let Err(error) = committed {
            self.view.abort(slots.iter().map(|(key, _)| key));
            return Err(error);
        }
        self.node = node;
        let changed = slots.iter().map(|(key, slot)| (key.clone(), slot.now.clone()));
        self.view.publish(changed, node);
        Ok(())
    }

    fn write_to_table(&self, node: &NodeRow, slots: &[(Key, Slot)]) -> rusqlite::Result<()> {
        let unapplied = self.view.unapplied();
        self.apply(&unapplied.all(slots))?;
        for (key, slot) in slots {
            let before = unapplied.records().get(key);
            let later = Later::over(before, slot.now.clone(), slot.existed);
            self.apply(&[(key.clone(), later)])?;
        }
        node.update(&self.connection)
    }

    /// Brings the table of records up to the last commit and says so in the node's row, in the transaction that is open.
    pub(super) fn empty_log(&mut self) -> rusqlite::Result<()> {
        self.apply(&self.view.unapplied().all(&[]))?;
        let mut node = self.node;
        (node.log_start, node.log_fresh) = (self.log.next(), self.log.next());
        node.update(&self.connection)
    }

    fn apply(&self, records: &[(Key, Later)]) -> rusqlite::Result<()> {
        for (key, later) in records {
            match &later.stored {
                Some(stored) => rows::write_record(&self.connection, key, stored, later.in_table)?,
                None => rows::delete_record(&self.connection, key)?,
            }
        }
        Ok(())
    }

    /// No ballot that is stored, or that the node has drawn or heard of, is above this.
    pub(super) fn clock_mark(&self, node: &NodeRow) -> HlcTime {
        node.clock.max(self.clock.last()).max(node.floor.time)
    }

    /// Begins a transaction. It takes no lock before it reads, and none against others before it writes.
    pub(super) fn begin(&self) -> rusqlite::Result<()> {
        self.end("BEGIN")
    }

    /// Ends the transaction that is open, if there is one, without its changes.
    pub(super) fn roll_back(&self) {
        if !self.connection.is_autocommit()
            && let Err(error) = self.end("ROLLBACK")
        {
            tracing::error!(%error, "cannot roll back");
        }
    }

    fn end(&self, statement: &'static str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(statement)?.execute([]).map(drop)
    }

    /// Commits the transaction that is open.
    pub(super) fn commit_open(&mut self) -> Result<(), CommitError> {
        let started = Instant::now();
        let committed = self.end("COMMIT");
        self.metrics.commit_seconds.observe(started.elapsed().as_secs_f64());
        self.settle(committed)
    }

    /// What a COMMIT that gave this has come to.
    fn settle(&mut self, committed: rusqlite::Result<()>) -> Result<(), CommitError> {
        let Err(error) = committed else { return Ok(()) };
        self.roll_back();
        let reason = format!("cannot commit to the database: {error}");
        if matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy)
        ) {
            // The frame that makes the commit valid comes last and was not written.
            return Err(CommitError::Nothing(reason));
        }
        // The frames may be on the disk though their fsync failed; a crash now would bring the commit to life. Another commit
        // overwrites them, after which they are gone for certain.
        match self.fence() {
            Ok(()) => Err(CommitError::Nothing(reason)),
            Err(_) => Err(CommitError::Unknown(reason)),
        }
    }

    /// A commit that changes nothing but the clock's mark.
    fn fence(&mut self) -> Result<(), CommitError> {
        let mut node = self.node;
        node.clock = node.clock.max(self.clock.last());
        self.roll_back();
        let done = self
            .begin()
            .and_then(|()| node.update(&self.connection))
            .and_then(|()| self.end("COMMIT"));
        if let Err(error) = done {
            self.roll_back();
            return Err(CommitError::Unknown(format!("cannot commit to the database: {error}")));
        }
        self.node = node;
        Ok(())
    }

    /// After a panic: begins again with what the database holds, as soon as that can be read.
    fn start_again(&mut self) {
        self.health.reset();
        self.roll_back();
        let (node, peers) = match self.read_again() {
            Ok(found) => found,
            Err(error) => {
                self.roll_back();
                tracing::error!(%error, "the database cannot be read after a panic; nothing is written before it can be");
                return;
            }
        };
        self.lost_track = false;
        (self.node, self.peers) = (node, peers);
        self.log = CommitLog::new(node.log_start);
        self.clock.set_incarnation(node.incarnation);
        self.view.reset(node);
        self.feed.reset(node.incarnation, node.commit);
        self.metrics.show_cache(self.view.cache_size());
    }

    fn read_again(&self) -> rusqlite::Result<(NodeRow, Vec<Peer>)> {
        self.begin()?;
        log::replay(&self.connection)?;
        self.end("COMMIT")?;
        self.tree.rebuild(&self.connection)?;
        Ok((
            NodeRow::read(&self.connection)?,
            node_row::read_peers(&self.connection)?,
        ))
    }
}

/// What the node tells of itself.
pub(super) fn progress(node: &NodeRow) -> Progress {
    Progress {
        commit: node.told_commit(),
        floor: node.floor,
        incarnation: node.incarnation,
        standing: node.standing,
        epoch: node.epoch,
    }
}

/// An error before the COMMIT.
#[expect(clippy::needless_pass_by_value, reason = "the shape `map_err` takes")]
pub(super) fn not_written(error: rusqlite::Error) -> CommitError {
    CommitError::Nothing(format!("cannot write the database: {error}"))
}

/// The newest reading in a record.
fn newest(stored: Option<&Stored>) -> HlcTime {
    stored.map_or(HlcTime::ZERO, |stored| {
        stored.record.accepted.time.max(stored.record.promised.time)
    })
}
