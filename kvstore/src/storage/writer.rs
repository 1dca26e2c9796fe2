//! The writer: one thread, group commit.
//!
//! It takes whatever has queued up, decides each request in order against what the batch has changed so far, writes what changed in one
//! transaction, and answers only after the fsync that covers it. Nothing is half applied: either all changes of a batch are durable, or the
//! batch is answered with `Failed` and database, cache and numbers are what they were.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use register::membership::Peer;
use register::{HlcTime, Key};
use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use tokio::sync::mpsc;

use super::StoreError;
use super::batch::{Batch, Changes, Slot, is_hint};
use super::feed::Feed;
use super::health::Health;
use super::job::{CommitError, Job, Waiting};
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
            let work = catch_unwind(AssertUnwindSafe(|| self.process(&mut batch, weight)));
            if work.is_err() {
                // Answers of that batch were dropped, which says "unknown" to those who wait.
                batch.clear();
                self.recover_from_panic();
            }
        }
        // Leaves one file behind instead of three; the log would do as well.
        if let Err(error) = self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)") {
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
                other => of_keys.push(other),
            }
        }
        self.process_keys(&mut of_keys, weight);
    }

    fn process_keys(&mut self, jobs: &mut Vec<Job>, weight: f64) {
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
                // The first is done before, the second by the loop.
                Job::Node { .. } | Job::Stop => {}
                #[cfg(test)]
                Job::Sql { sql, answer } => {
                    let result = self.connection.execute_batch(sql);
                    drop(answer.send(result.map_err(|error| StoreError::Failed {
                        reason: error.to_string(),
                    })));
                }
                #[cfg(test)]
                Job::Panic { answer } => panic!("on purpose, {answer:?} dropped"),
            }
        }
        let (node, changes) = batch.into_changes();
        let mut result = Ok(());
        if !changes.slots.is_empty() {
            self.metrics.batch_requests.observe(weight);
            result = self.watched(|writer| writer.commit(node, changes));
        } else if !probes.is_empty() {
            result = self.watched(Self::fence);
        }
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

    /// Writes changes and the node's row in one transaction, then shows them.
    fn commit(&mut self, mut node: NodeRow, changes: Changes) -> Result<(), CommitError> {
        let Changes { slots, accepted } = changes;
        node.clock = self.clock_mark(&node);
        for (_, slot) in &slots {
            node.records = node.records - u64::from(slot.existed) + u64::from(slot.now.is_some());
            node.hints = node.hints - u64::from(slot.was_hint) + u64::from(is_hint(slot.now.as_deref()));
            node.clock = node.clock.max(newest(slot.now.as_deref()));
        }
        self.view.begin(slots.iter().map(|(key, _)| key), node.floor);
        if let Err(error) = self.write(&node, &slots) {
            self.view.abort(slots.iter().map(|(key, _)| key));
            return Err(error);
        }
        self.node = node;
        self.metrics.changes.inc_by(slots.len() as u64);
        self.metrics.show_records(node.records, node.hints);
        self.tree.change(slots.iter().map(|(key, slot)| {
            let accepted = slot.now.as_ref().map(|now| now.record.accepted);
            (key, slot.was_accepted, accepted.unwrap_or_default())
        }));
        self.view
            .publish(slots.into_iter().map(|(key, slot)| (key, slot.now)), progress(&node));
        // After the view: who hears of a change and reads the key finds it.
        self.feed.append(accepted, node.commit);
        self.metrics.show_cache(self.view.cache_size());
        Ok(())
    }

    /// No ballot that is stored, or that the node has drawn or heard of, is above this.
    pub(super) fn clock_mark(&self, node: &NodeRow) -> HlcTime {
        node.clock.max(self.clock.last()).max(node.floor.time)
    }

    fn write(&mut self, node: &NodeRow, slots: &[(Key, Slot)]) -> Result<(), CommitError> {
        // Dropping the transaction rolls it back.
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(not_written)?;
        for (key, slot) in slots {
            match &slot.now {
                Some(stored) => rows::write_record(&transaction, key, stored, slot.existed),
                None => rows::delete_record(&transaction, key),
            }
            .map_err(not_written)?;
        }
        node.update(&transaction).map_err(not_written)?;
        let started = Instant::now();
        let committed = transaction.commit();
        self.metrics.commit_seconds.observe(started.elapsed().as_secs_f64());
        self.settle(committed)
    }

    /// What a COMMIT that gave this has come to.
    pub(super) fn settle(&mut self, committed: rusqlite::Result<()>) -> Result<(), CommitError> {
        let Err(error) = committed else { return Ok(()) };
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
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate);
        let done = transaction.and_then(|transaction| {
            node.update(&transaction)?;
            transaction.commit()
        });
        done.map_err(|error| CommitError::Unknown(format!("cannot commit to the database: {error}")))?;
        self.node = node;
        Ok(())
    }

    /// Starts again from what the database holds.
    fn recover_from_panic(&mut self) {
        tracing::error!("the storage writer panicked; its batch is answered as unknown");
        self.health.reset();
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "cannot roll back after a panic");
        }
        let found = NodeRow::read(&self.connection)
            .and_then(|node| Ok((node, node_row::read_peers(&self.connection)?)))
            .and_then(|(node, peers)| {
                self.tree.rebuild(&self.connection)?;
                Ok((node, peers))
            });
        match found {
            Ok((node, peers)) => (self.node, self.peers) = (node, peers),
            Err(error) => tracing::error!(%error, "cannot read the database after a panic"),
        }
        self.clock.set_incarnation(self.node.incarnation);
        self.view.reset(progress(&self.node));
        self.feed.reset(self.node.incarnation, self.node.commit);
        self.metrics.show_cache(self.view.cache_size());
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
