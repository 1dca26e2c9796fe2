//! What a node keeps, durably: records of keys, its floor, its numbers.
//!
//! What it promises:
//! - An answer to a change is given after the fsync that covers it. SQLite in WAL mode with `synchronous=FULL`; one writer thread commits
//!   whatever has queued up as one transaction (group commit).
//! - A change is whole or not at all. When the disk is full or fails, the batch is answered with `Failed`, nothing has changed, and the
//!   node goes on.
//! - Readers see committed records only, and never an older one after a newer one.
//! - A restart, clean or not, finds everything that was answered: records, promises, floor, incarnation, commit number; and the node's clock
//!   resumes above every ballot it knows.
//!
//! Every record that is written or dropped gets a number of its own (`commit`), growing by one: a transaction takes as many as it changes
//! records, so that a page can end anywhere and be resumed by number alone.
//!
//! - [`open`]: what is refused at start. - `rows`: schema and columns. - `writer`: group commit. - `view`: what readers may see, the cache.
//! - `reader`: the read connections, pages. - `cache`: the LRU.

mod cache;
mod health;
mod metrics;
mod open;
mod reader;
mod rows;
#[cfg(test)]
mod tests;
mod view;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use register::ballot::SkewError;
use register::change::{Answer, Command};
use register::message::{Held, List, PageRecord, Reply, Request};
use register::{Ballot, Key, RequestId, acceptor};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

pub use cache::CacheLimits;
pub use health::Trouble;
pub use metrics::StoreMetrics;
pub use open::OpenError;
pub use reader::MAX_PAGE_BYTES;
pub use rows::Stored;
pub use view::Progress;

use crate::clock::{NodeClock, WallClock};
use health::Health;
use reader::Readers;
use view::View;
use writer::{Job, Writer};

/// Jobs that may wait for the writer. Further ones wait at their senders.
const QUEUE_JOBS: usize = 1_024;

/// How long a job waits for a place in the queue. After that nothing was changed.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a queued job waits for its answer. After that the outcome is not known.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// How a store is opened.
#[derive(Clone)]
pub struct StoreOptions {
    /// Limits of the cache.
    pub cache: CacheLimits,
    /// How far ahead of the wall clock another clock may be, in milliseconds.
    pub max_clock_skew_ms: u64,
    /// The wall clock.
    pub wall: WallClock,
    /// The incarnation to take when the database is new: random, never used before.
    pub new_incarnation: u64,
    /// Where to count.
    pub metrics: StoreMetrics,
}

impl std::fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreOptions")
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}

/// A request that was not served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store is stopping. Nothing was changed.
    #[error("the node is stopping")]
    Closed,
    /// Nothing was changed; trying again may help.
    #[error("{reason}")]
    Failed {
        /// What happened.
        reason: String,
    },
    /// It may or may not have taken effect.
    #[error("{reason}")]
    Unknown {
        /// What happened.
        reason: String,
    },
    /// What stands in the way lies too far in the future. Nothing was changed.
    #[error(transparent)]
    Skew(#[from] SkewError),
    /// Two states under one ballot. Nothing was changed.
    #[error("corruption: two different states under ballot {ballot}")]
    Corrupt {
        /// The ballot.
        ballot: Ballot,
    },
}

/// One page of records, from one snapshot.
#[derive(Debug, Clone)]
pub struct Page {
    /// The records.
    pub records: Vec<PageRecord>,
    /// True when there is nothing after the last record.
    pub end: bool,
    /// The node's floor in that snapshot.
    pub floor: Ballot,
    /// The number of the last change in that snapshot.
    pub commit: u64,
}

/// The node's store. Clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    jobs: mpsc::Sender<Job>,
    view: Arc<View>,
    readers: Readers,
    clock: NodeClock,
    metrics: StoreMetrics,
    health: Arc<Health>,
    writer: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Store {
    /// Opens or creates the database at `path` and starts the writer. Blocks for as long as the integrity check takes (seconds at most).
    ///
    /// # Errors
    /// [`OpenError`], which names the file and what to do.
    pub fn open(path: &Path, options: StoreOptions) -> Result<Self, OpenError> {
        let opened = open::open(path, options.new_incarnation)?;
        let sqlite = |source| OpenError::Sqlite {
            path: path.to_owned(),
            source,
        };
        let readers = Readers::open(path).map_err(sqlite)?;
        let node = opened.node;
        let progress = Progress {
            commit: node.commit,
            floor: node.floor,
        };
        let view = Arc::new(View::new(options.cache, progress));
        let clock = NodeClock::new(node.incarnation, options.max_clock_skew_ms, node.clock, options.wall);
        let ahead_ms = node.clock.unix_ms().saturating_sub(clock.now_unix_ms());
        if ahead_ms > options.max_clock_skew_ms {
            tracing::warn!(
                ahead_ms,
                "this machine's clock is behind what this node has stored; writes may be refused as skewed"
            );
        }
        options.metrics.show_records(node.records, node.hints);
        let health = Arc::default();
        let writer = Writer {
            connection: opened.writer,
            node,
            view: Arc::clone(&view),
            clock: clock.clone(),
            metrics: options.metrics.clone(),
            health: Arc::clone(&health),
            _lock: opened.lock,
        };
        let (jobs, queue) = mpsc::channel(QUEUE_JOBS);
        let thread = std::thread::Builder::new()
            .name("kv-writer".to_owned())
            .spawn(move || writer.run(queue));
        let thread = thread.map_err(|source| OpenError::Thread { source })?;
        let writer = Arc::new(Mutex::new(Some(thread)));
        Ok(Self {
            jobs,
            view,
            readers,
            clock,
            metrics: options.metrics,
            health,
            writer,
        })
    }

    /// The node's clock.
    #[must_use]
    pub fn clock(&self) -> &NodeClock {
        &self.clock
    }

    /// The node's incarnation: drawn when its database was created.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.clock.incarnation()
    }

    /// Number and floor of the last commit.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.view.progress()
    }

    /// What is wrong with the disk; `None` when the last commit succeeded and none hangs.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        self.health.trouble()
    }

    /// What the node holds of keys, in their order: from the cache, else from one snapshot of the database. Never waits for the writer.
    /// A record that cannot be read is an error of its key alone.
    pub async fn read(&self, keys: &[Key]) -> Vec<Result<Held, StoreError>> {
        let held = |(stored, floor): (Option<Arc<Stored>>, Ballot)| {
            acceptor::held(stored.as_deref().map(|stored| &stored.record), floor)
        };
        self.read_records(keys)
            .await
            .into_iter()
            .map(|found| found.map(held))
            .collect()
    }

    /// The records of keys, in their order; with each the floor to tell when there is none (from a cached record nobody needs it).
    async fn read_records(&self, keys: &[Key]) -> Vec<Result<(Option<Arc<Stored>>, Ballot), StoreError>> {
        let (found, ticket) = self.view.look_up(keys.iter());
        let missing: Vec<Key> = keys
            .iter()
            .zip(&found)
            .filter(|(_, found)| found.is_none())
            .map(|(key, _)| key.clone())
            .collect();
        self.metrics.cache_hits.inc_by((keys.len() - missing.len()) as u64);
        self.metrics.cache_misses.inc_by(missing.len() as u64);
        if missing.is_empty() {
            return found.into_iter().map(|found| Ok((found, Ballot::ZERO))).collect();
        }
        let rows = match self.readers.records(missing).await {
            Ok(rows) => rows,
            Err(error) => {
                return found
                    .into_iter()
                    .map(|found| match found {
                        Some(stored) => Ok((Some(stored), Ballot::ZERO)),
                        None => Err(error.clone()),
                    })
                    .collect();
            }
        };
        let to_fill = rows.iter().filter_map(|(key, row)| match row {
            Ok(Some(stored)) => Some((key.clone(), Arc::clone(stored))),
            _ => None,
        });
        let floor = self.view.fill(ticket, to_fill);
        self.metrics.show_cache(self.view.cache_size());
        let mut rows = rows.into_iter().map(|(_, row)| row);
        let row_or_gone = |row: Option<Result<_, String>>| match row {
            Some(row) => row.map_err(|reason| StoreError::Failed { reason }),
            None => Err(StoreError::Failed {
                reason: "a row went missing".to_owned(),
            }),
        };
        found
            .into_iter()
            .map(|found| match found {
                Some(stored) => Ok((Some(stored), Ballot::ZERO)),
                None => row_or_gone(rows.next()).map(|stored| (stored, floor)),
            })
            .collect()
    }

    /// The record of one key.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn record(&self, key: &Key) -> Result<Option<Arc<Stored>>, StoreError> {
        let mut found = self.read_records(std::slice::from_ref(key)).await;
        found
            .pop()
            .map_or(Err(StoreError::Closed), |found| found.map(|(stored, _)| stored))
    }

    /// Decides requests in order and answers once their changes are durable. `Read` is allowed, but [`Self::read`] does not wait.
    ///
    /// # Errors
    /// Only [`StoreError::Closed`], and [`StoreError::Unknown`] when it may or may not have taken effect. Everything that was certainly
    /// not stored is a [`Reply::Failed`].
    pub async fn decide(&self, requests: Vec<(Key, Request)>) -> Result<Vec<Reply>, StoreError> {
        let count = requests.len();
        let result = self.ask(|answer| Job::Decide { requests, answer }).await;
        match result {
            Err(StoreError::Failed { reason }) => Ok(vec![Reply::Failed { reason }; count]),
            other => other,
        }
    }

    /// Changes a key on this node alone, with a ballot of its own: prepare and accept in one. Outside the cluster's guarantee.
    ///
    /// # Errors
    /// [`StoreError`]; only [`StoreError::Unknown`] may have taken effect.
    pub async fn change(&self, key: Key, command: Command, request: RequestId) -> Result<Answer, StoreError> {
        self.ask(|answer| Job::Change {
            key,
            command,
            request,
            answer,
        })
        .await
    }

    /// Commits nothing, to learn whether commits work.
    ///
    /// # Errors
    /// Why they do not.
    pub async fn probe(&self) -> Result<(), StoreError> {
        self.ask(|answer| Job::Probe { answer }).await
    }

    /// A page of at most `limit` records, ending early when its values grow over [`MAX_PAGE_BYTES`].
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn page(&self, list: List, limit: usize) -> Result<Page, StoreError> {
        self.readers.page(list, limit).await
    }

    /// Finishes what is queued, ends the writer and closes the database. Calls after this are refused.
    pub async fn close(&self) {
        // Refused only when the writer has already ended.
        let _ = self.jobs.send(Job::Stop).await;
        self.readers.close().await;
        let thread = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // Joining blocks; a panic in the thread was logged by the panic hook.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }

    /// Runs statements on the writer's connection: how tests break a disk.
    #[cfg(test)]
    pub(crate) async fn sql(&self, sql: &'static str) {
        self.ask(|answer| Job::Sql { sql, answer }).await.unwrap();
    }

    async fn ask<T>(&self, job: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Job) -> Result<T, StoreError> {
        let (answer, receiver) = oneshot::channel();
        match timeout(QUEUE_TIMEOUT, self.jobs.reserve()).await {
            Ok(Ok(place)) => place.send(job(answer)),
            Ok(Err(_)) => return Err(StoreError::Closed),
            Err(_) => {
                let reason = format!("the disk does not keep up: no place in the queue for {QUEUE_TIMEOUT:?}");
                return Err(StoreError::Failed { reason });
            }
        }
        match timeout(ANSWER_TIMEOUT, receiver).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(StoreError::Unknown {
                reason: "the storage writer gave up on it".to_owned(),
            }),
            Err(_) => Err(StoreError::Unknown {
                reason: format!("no answer from the disk for {ANSWER_TIMEOUT:?}"),
            }),
        }
    }
}
