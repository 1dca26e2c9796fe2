//! The writer: one thread, group commit.
//!
//! It takes whatever has queued up, decides each request in order against what the batch has changed so far, writes what changed in one
//! transaction, and answers only after the fsync that covers it. Nothing is half applied: either all changes of a batch are durable, or the
//! batch is answered with `Failed` and database, cache and numbers are what they were.

use std::collections::HashMap;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use register::change::{self, Answer, Command};
use register::message::{Reply, Request};
use register::{HlcTime, Key, RequestId, acceptor};
use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::StoreError;
use super::health::Health;
use super::metrics::StoreMetrics;
use super::rows::{self, NodeRow, Stored};
use super::view::{Progress, View};
use crate::clock::NodeClock;

/// Requests after which a batch takes no further job. Measured on SQLite: groups of 64 are five to thirty times faster than single rows,
/// larger ones gain little; this leaves room for slow disks. A single job may be larger.
pub(crate) const MAX_BATCH_REQUESTS: usize = 256;

/// Ballots a local change may draw: once more after a refusal told it what stands in the way, and once more for good measure. The writer
/// is alone, so the second cannot be refused for a reason the first did not tell.
const MAX_LOCAL_TRIES: usize = 3;

/// What the writer is asked to do.
#[derive(Debug)]
pub(crate) enum Job {
    /// Decide protocol requests in order.
    Decide {
        requests: Vec<(Key, Request)>,
        answer: oneshot::Sender<Result<Vec<Reply>, StoreError>>,
    },
    /// Change a key with a ballot of the node's own.
    Change {
        key: Key,
        command: Command,
        request: RequestId,
        answer: oneshot::Sender<Result<Answer, StoreError>>,
    },
    /// Try a commit, to see whether the disk is well again.
    Probe {
        answer: oneshot::Sender<Result<(), StoreError>>,
    },
    /// Take no further jobs, finish what is queued, and end.
    Stop,
    /// Statements of a test.
    #[cfg(test)]
    Sql {
        sql: &'static str,
        answer: oneshot::Sender<Result<(), StoreError>>,
    },
    /// A bug of a test.
    #[cfg(test)]
    Panic {
        answer: oneshot::Sender<Result<(), StoreError>>,
    },
}

impl Job {
    fn weight(&self) -> usize {
        match self {
            Self::Decide { requests, .. } => requests.len(),
            _ => 1,
        }
    }
}

/// Why a commit did not happen.
enum CommitError {
    /// Nothing was changed, for certain.
    Nothing(String),
    /// The changes may be found after a crash.
    Unknown(String),
}

impl CommitError {
    fn reason(&self) -> &str {
        let (Self::Nothing(reason) | Self::Unknown(reason)) = self;
        reason
    }
}

/// An answer that waits for the commit.
enum Waiting {
    Decide(Vec<Reply>, oneshot::Sender<Result<Vec<Reply>, StoreError>>),
    Change(Result<Answer, StoreError>, oneshot::Sender<Result<Answer, StoreError>>),
}

impl Waiting {
    fn send(self) {
        // A client that hung up does not want its answer; the change stands all the same.
        match self {
            Self::Decide(replies, answer) => drop(answer.send(Ok(replies))),
            Self::Change(result, answer) => drop(answer.send(result)),
        }
    }

    fn fail(self, error: &CommitError) {
        match (self, error) {
            (Self::Decide(replies, answer), CommitError::Nothing(reason)) => {
                let failed = replies
                    .iter()
                    .map(|_| Reply::Failed { reason: reason.clone() })
                    .collect();
                drop(answer.send(Ok(failed)));
            }
            (Self::Decide(_, answer), CommitError::Unknown(reason)) => {
                drop(answer.send(Err(StoreError::Unknown { reason: reason.clone() })));
            }
            (Self::Change(_, answer), CommitError::Nothing(reason)) => {
                drop(answer.send(Err(StoreError::Failed { reason: reason.clone() })));
            }
            (Self::Change(_, answer), CommitError::Unknown(reason)) => {
                drop(answer.send(Err(StoreError::Unknown { reason: reason.clone() })));
            }
        }
    }
}

/// What a batch knows of a key.
struct Slot {
    existed: bool,
    was_hint: bool,
    now: Option<Arc<Stored>>,
    changed: bool,
}

/// The thread's state.
pub(crate) struct Writer {
    pub(crate) connection: Connection,
    /// The node's row as it is committed.
    pub(crate) node: NodeRow,
    pub(crate) view: Arc<View>,
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

    fn process(&mut self, jobs: &mut Vec<Job>, weight: usize) {
        let mut batch = Batch {
            node: self.node,
            keys: HashMap::new(),
            connection: &self.connection,
            view: &self.view,
        };
        let mut waiting = Vec::with_capacity(jobs.len());
        let mut probes = Vec::new();
        for job in jobs.drain(..) {
            match job {
                Job::Decide { requests, answer } => {
                    let replies = requests
                        .iter()
                        .map(|(key, request)| batch.decide(key, request))
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
                Job::Stop => {}
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
        let (node, keys) = (batch.node, batch.keys);
        let changes: Vec<_> = keys.into_iter().filter(|(_, slot)| slot.changed).collect();
        let mut result = Ok(());
        if !changes.is_empty() {
            #[expect(clippy::cast_precision_loss, reason = "a metric")]
            self.metrics.batch_requests.observe(weight as f64);
            let health = Arc::clone(&self.health);
            result = health.commit(&self.metrics.clone(), CommitError::reason, || {
                self.commit(node, changes)
            });
        } else if !probes.is_empty() {
            let health = Arc::clone(&self.health);
            result = health.commit(&self.metrics.clone(), CommitError::reason, || self.fence());
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

    /// Writes changes and the node's row in one transaction, then shows them.
    fn commit(&mut self, mut node: NodeRow, changes: Vec<(Key, Slot)>) -> Result<(), CommitError> {
        node.clock = node.clock.max(self.clock.last()).max(node.floor.time);
        for (_, slot) in &changes {
            node.records = node.records - u64::from(slot.existed) + u64::from(slot.now.is_some());
            node.hints = node.hints - u64::from(slot.was_hint) + u64::from(is_hint(slot.now.as_deref()));
            node.clock = node.clock.max(newest(slot.now.as_deref()));
        }
        let progress = Progress {
            commit: node.commit,
            floor: node.floor,
        };
        self.view.begin(changes.iter().map(|(key, _)| key), node.floor);
        if let Err(error) = self.write(&node, &changes) {
            self.view.abort(changes.iter().map(|(key, _)| key));
            return Err(error);
        }
        self.node = node;
        self.metrics.changes.inc_by(changes.len() as u64);
        self.metrics.show_records(node.records, node.hints);
        self.view
            .publish(changes.into_iter().map(|(key, slot)| (key, slot.now)), progress);
        self.metrics.show_cache(self.view.cache_size());
        Ok(())
    }

    fn write(&mut self, node: &NodeRow, changes: &[(Key, Slot)]) -> Result<(), CommitError> {
        let nothing = |error: rusqlite::Error| CommitError::Nothing(format!("cannot write the database: {error}"));
        // Dropping the transaction rolls it back.
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(nothing)?;
        for (key, slot) in changes {
            match &slot.now {
                Some(stored) => rows::write_record(&transaction, key, stored),
                None => rows::delete_record(&transaction, key),
            }
            .map_err(nothing)?;
        }
        node.update(&transaction).map_err(nothing)?;
        let started = Instant::now();
        let committed = transaction.commit();
        self.metrics.commit_seconds.observe(started.elapsed().as_secs_f64());
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
        match NodeRow::read(&self.connection) {
            Ok(node) => self.node = node,
            Err(error) => tracing::error!(%error, "cannot read the node's row after a panic"),
        }
        self.view.reset(Progress {
            commit: self.node.commit,
            floor: self.node.floor,
        });
        self.metrics.show_cache(self.view.cache_size());
    }
}

/// Decisions of one batch, on top of what is committed.
struct Batch<'a> {
    /// The node's row as it will be when the batch is committed.
    node: NodeRow,
    keys: HashMap<Key, Slot>,
    connection: &'a Connection,
    view: &'a View,
}

impl Batch<'_> {
    fn decide(&mut self, key: &Key, request: &Request) -> Reply {
        let slot = match slot(&mut self.keys, self.view, self.connection, key) {
            Ok(slot) => slot,
            Err(reason) => return Reply::Failed { reason },
        };
        let decision = acceptor::decide(slot.now.as_ref().map(|stored| &stored.record), self.node.floor, request);
        match decision.change {
            acceptor::Change::Nothing => {}
            acceptor::Change::Put(record) => {
                self.node.commit += 1;
                slot.now = Some(Arc::new(Stored {
                    record,
                    commit: self.node.commit,
                }));
                slot.changed = true;
            }
            acceptor::Change::Remove { floor } => {
                self.node.commit += 1;
                self.node.floor = self.node.floor.max(floor);
                slot.now = None;
                slot.changed = true;
            }
        }
        decision.reply
    }

    /// A change with a ballot of the node's own: what prepare and accept do, in one go.
    fn change(
        &mut self,
        clock: &NodeClock,
        key: &Key,
        command: &Command,
        request: RequestId,
    ) -> Result<Answer, StoreError> {
        let mut ballot = clock.ballot();
        for _ in 0..MAX_LOCAL_TRIES {
            let slot = slot(&mut self.keys, self.view, self.connection, key)
                .map_err(|reason| StoreError::Failed { reason })?;
            let state = slot.now.as_ref().and_then(|stored| stored.record.state.as_ref());
            let applied = change::apply(command, state, ballot, request);
            let Some(state) = applied.next else {
                return Ok(applied.answer);
            };
            let accept = Request::Accept {
                ballot,
                state,
                blind: false,
                reserve: None,
                hint_for: None,
            };
            match self.decide(key, &accept) {
                Reply::Accepted { .. } => return Ok(applied.answer),
                Reply::Refused { higher } => ballot = clock.ballot_above(higher)?,
                Reply::Fenced { fence } => return Ok(Answer::FenceTooLow { seen: fence }),
                Reply::Corrupt { ballot } => return Err(StoreError::Corrupt { ballot }),
                Reply::Failed { reason } => return Err(StoreError::Failed { reason }),
                other => {
                    let reason = format!("the acceptor answered an accept with {other:?}");
                    return Err(StoreError::Failed { reason });
                }
            }
        }
        Err(StoreError::Failed {
            reason: "no ballot was high enough".to_owned(),
        })
    }
}

/// What is known of a key: from the batch, the cache, or the database.
fn slot<'a>(
    keys: &'a mut HashMap<Key, Slot>,
    view: &View,
    connection: &Connection,
    key: &Key,
) -> Result<&'a mut Slot, String> {
    if !keys.contains_key(key) {
        let now = match view.cached(key) {
            Some(stored) => Some(stored),
            None => rows::read_record(connection, key)
                .map_err(|error| format!("cannot read the record of {key:?}: {error}"))?
                .map(Arc::new),
        };
        let slot = Slot {
            existed: now.is_some(),
            was_hint: is_hint(now.as_deref()),
            now,
            changed: false,
        };
        keys.insert(key.clone(), slot);
    }
    keys.get_mut(key).ok_or_else(|| "the batch lost a key".to_owned())
}

fn is_hint(stored: Option<&Stored>) -> bool {
    stored.is_some_and(|stored| stored.record.hint_for.is_some())
}

/// The newest reading in a record.
fn newest(stored: Option<&Stored>) -> HlcTime {
    stored.map_or(HlcTime::ZERO, |stored| {
        stored.record.accepted.time.max(stored.record.promised.time)
    })
}
