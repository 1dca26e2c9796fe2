//! What a node keeps, durably: records of keys, its floor, its numbers.
//!
//! What it promises:
//! - An answer to a change is given after the fsync that covers it. SQLite in WAL mode with `synchronous=FULL`; one writer thread commits
//!   whatever has queued up as one transaction (group commit).
//! - A change is whole or not at all. When the disk is full or fails, the batch is answered with `Failed`, nothing has changed, and the
//!   node goes on.
//! - Readers see committed records only, and never an older one after a newer one.
//! - A restart, clean or not, finds everything that was answered: records, promises, floor, incarnation, commit number, standing, ring and
//!   peers; and the node's clock resumes above every ballot it knows.
//! - A coordinator is answered as the node's standing allows, and never with a record of one moment under the standing of another.
//!
//! Every record that is written or dropped gets a number of its own (`commit`), growing by one: a transaction takes as many as it changes
//! records, so that a page can end anywhere and be resumed by number alone.
//!
//! - [`open`]: what is refused at start. - `schema`: tables, migration. - `rows`, `node_row`: columns. - `writer`, `batch`: group commit.
//! - `node_job`: requests about the node itself. - `view`: what readers may see. - `cache`: the LRU. - `reader`: the read connections. - `pages`: lists.
//! - `tree`: the hash tree. - `feed`: the last changes.

mod batch;
mod cache;
mod feed;
mod health;
mod metrics;
mod node_job;
mod node_row;
mod open;
mod pages;
mod reader;
mod rows;
mod schema;
#[cfg(test)]
mod tests;
mod tree;
mod view;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use register::ballot::SkewError;
use register::change::{Answer, Command};
use register::membership::{NodeRequest, NodeStatus};
use register::message::{List, PageRecord, Reply, Request};
use register::{Ballot, Epoch, Key, RequestId, Standing, acceptor};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

pub use cache::CacheLimits;
pub use feed::Stretch;
pub use health::Trouble;
pub use metrics::StoreMetrics;
pub use open::OpenError;
pub use pages::MAX_PAGE_BYTES;
pub use rows::Stored;
pub use view::Progress;

use crate::clock::{NodeClock, WallClock};
use feed::Feed;
use health::Health;
use reader::Readers;
use tree::SharedTree;
use view::View;
use writer::{Job, Sender, Writer};

/// Jobs that may wait for the writer. Further ones wait at their senders.
const QUEUE_JOBS: usize = 1_024;

/// How long a job waits for a place in the queue. After that nothing was changed.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a queued job waits for its answer. After that the outcome is not known.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Most nodes remembered: far more than a cluster has.
pub const MAX_PEERS: usize = 256;

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
    /// Forget the ring the node belongs to, so that the next coordinator's is taken.
    pub adopt_ring: bool,
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
    /// The sender belongs to another ring. Nothing was changed.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// Two states under one ballot. Nothing was changed.
    #[error("corruption: two different states under ballot {ballot}")]
    Corrupt {
        /// The ballot.
        ballot: Ballot,
    },
}

/// The sender's ring is not the node's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "another ring: BACKENDS or RF of the sender (epoch {sender:016x}) are not those this node was set up with (epoch {own:016x}); give every \
     kvfront the same BACKENDS and RF, or, if all of them were changed on purpose, start every kvstore once with ADOPT_RING=1",
    sender = .sender.0,
    own = .own.0
)]
pub struct RingError {
    /// The node's ring.
    pub own: Epoch,
    /// The sender's.
    pub sender: Epoch,
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
    /// The node's incarnation in that snapshot.
    pub incarnation: u64,
    /// Whether the node voted in that snapshot.
    pub standing: Standing,
}

/// A record and the floor to tell when there is none.
type RecordResult = Result<(Option<Arc<Stored>>, Ballot), StoreError>;

/// The node's store. Clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    jobs: mpsc::Sender<Job>,
    view: Arc<View>,
    tree: Arc<SharedTree>,
    feed: Arc<Feed>,
    readers: Readers,
    clock: NodeClock,
    metrics: StoreMetrics,
    health: Arc<Health>,
    writer: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Store {
    /// Opens or creates the database at `path` and starts the writer. Blocks for as long as the integrity check takes (seconds at most), and
    /// a walk over all records (about a second for a million).
    ///
    /// # Errors
    /// [`OpenError`], which names the file and what to do.
    pub fn open(path: &Path, options: StoreOptions) -> Result<Self, OpenError> {
        let opened = open::open(path, options.new_incarnation, options.adopt_ring)?;
        let sqlite = |source| OpenError::Sqlite {
            path: path.to_owned(),
            source,
        };
        let readers = Readers::open(path).map_err(sqlite)?;
        let node = opened.node;
        let view = Arc::new(View::new(options.cache, writer::progress(&node)));
        let tree: Arc<SharedTree> = Arc::default();
        tree.rebuild(&opened.writer).map_err(sqlite)?;
        let feed = Arc::new(Feed::new(node.incarnation, node.commit));
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
            peers: opened.peers,
            view: Arc::clone(&view),
            tree: Arc::clone(&tree),
            feed: Arc::clone(&feed),
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
            tree,
            feed,
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

    /// What the node tells of itself, as of the last commit.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.view.progress()
    }

    /// What is wrong with the disk; `None` when the last commit succeeded and none hangs.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        self.health.trouble()
    }

    /// What a coordinator is told of keys, in their order: from the cache, else from one snapshot of the database, as the node's standing
    /// allows. Never waits for the writer. A record that cannot be read fails its key alone.
    pub async fn read(&self, keys: &[Key]) -> Vec<Reply> {
        let failed = |reason: String| Reply::Failed { reason };
        let (standing, records) = self.read_records(keys).await;
        let Some(standing) = standing else {
            let reason = "this node's standing changed while it was reading; ask again";
            return vec![failed(reason.to_owned()); keys.len()];
        };
        let reply = |found| match found {
            Ok((stored, floor)) => {
                let stored: Option<Arc<Stored>> = stored;
                let record = stored.as_deref().map(|stored| &stored.record);
                acceptor::decide_as(standing, record, floor, &Request::Read).reply
            }
            Err(error) => failed(StoreError::to_string(&error)),
        };
        records.into_iter().map(reply).collect()
    }

    /// The records of keys, in their order; with each the floor to tell when there is none (from a cached record nobody needs it). The
    /// standing is that of the moment they are from; none when it changed meanwhile.
    async fn read_records(&self, keys: &[Key]) -> (Option<Standing>, Vec<RecordResult>) {
        let looked = self.view.look_up(keys.iter());
        let found = looked.found;
        let missing: Vec<Key> = keys
            .iter()
            .zip(&found)
            .filter(|(_, found)| found.is_none())
            .map(|(key, _)| key.clone())
            .collect();
        self.metrics.cache_hits.inc_by((keys.len() - missing.len()) as u64);
        self.metrics.cache_misses.inc_by(missing.len() as u64);
        if missing.is_empty() {
            let records = found.into_iter().map(|found| Ok((found, Ballot::ZERO))).collect();
            return (Some(looked.standing), records);
        }
        let rows = match self.readers.records(missing).await {
            Ok(rows) => rows,
            Err(error) => {
                let record = |found: Option<_>| match found {
                    Some(stored) => Ok((Some(stored), Ballot::ZERO)),
                    None => Err(error.clone()),
                };
                return (Some(looked.standing), found.into_iter().map(record).collect());
            }
        };
        let to_fill = rows.iter().filter_map(|(key, row)| match row {
            Ok(Some(stored)) => Some((key.clone(), Arc::clone(stored))),
            _ => None,
        });
        let filled = self.view.fill(looked.ticket, to_fill);
        self.metrics.show_cache(self.view.cache_size());
        let mut rows = rows.into_iter().map(|(_, row)| row);
        let row_or_gone = |row: Option<Result<_, String>>| match row {
            Some(row) => row.map_err(|reason| StoreError::Failed { reason }),
            None => Err(StoreError::Failed {
                reason: "a row went missing".to_owned(),
            }),
        };
        let records = found
            .into_iter()
            .map(|found| match found {
                Some(stored) => Ok((Some(stored), Ballot::ZERO)),
                None => row_or_gone(rows.next()).map(|stored| (stored, filled.floor)),
            })
            .collect();
        (filled.same_standing.then_some(looked.standing), records)
    }

    /// The record of one key.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn record(&self, key: &Key) -> Result<Option<Arc<Stored>>, StoreError> {
        let (_, mut found) = self.read_records(std::slice::from_ref(key)).await;
        found
            .pop()
            .map_or(Err(StoreError::Closed), |found| found.map(|(stored, _)| stored))
    }

    /// Decides a coordinator's requests in order, as the node's standing allows, and answers once their changes are durable. `Read` is
    /// allowed, but [`Self::read`] does not wait.
    ///
    /// # Errors
    /// Only [`StoreError::Closed`], and [`StoreError::Unknown`] when it may or may not have taken effect. Everything that was certainly
    /// not stored is a [`Reply::Failed`].
    pub async fn decide(&self, requests: Vec<(Key, Request)>) -> Result<Vec<Reply>, StoreError> {
        self.decide_for(Sender::Coordinator, requests).await
    }

    /// As [`Self::decide`], for this node's own KV API, whatever its standing. Outside the cluster's guarantee.
    ///
    /// # Errors
    /// As [`Self::decide`].
    pub async fn decide_locally(&self, key: Key, request: Request) -> Result<Reply, StoreError> {
        let mut replies = self.decide_for(Sender::Local, vec![(key, request)]).await?;
        replies.pop().ok_or(StoreError::Closed)
    }

    async fn decide_for(&self, from: Sender, requests: Vec<(Key, Request)>) -> Result<Vec<Reply>, StoreError> {
        let count = requests.len();
        let result = self.ask(|answer| Job::Decide { requests, from, answer }).await;
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

    /// Decides a coordinator's request about the node itself; the node after it, as it is durable. False when the request did not fit.
    ///
    /// # Errors
    /// [`StoreError::Ring`] for a sender of another ring; [`StoreError::Unknown`] when it may or may not have taken effect; otherwise
    /// nothing was changed.
    pub async fn node(&self, request: NodeRequest, epoch: Epoch) -> Result<(bool, NodeStatus), StoreError> {
        self.ask(|answer| Job::Node { request, epoch, answer }).await
    }

    /// Whether a sender of this ring may be listened to.
    ///
    /// # Errors
    /// When the node belongs to another one.
    pub fn compare_ring(&self, sender: Epoch) -> Result<(), RingError> {
        match self.view.progress().epoch {
            Some(own) if own != sender => Err(RingError { own, sender }),
            _ => Ok(()),
        }
    }

    /// A node that counts but belongs to no ring takes this one, durably.
    ///
    /// # Errors
    /// [`StoreError::Ring`] when it has taken another one meanwhile, or what kept the node from taking it.
    pub async fn take_ring(&self, epoch: Epoch) -> Result<(), StoreError> {
        let progress = self.view.progress();
        if progress.epoch.is_none() && node_job::counts(progress.standing) {
            self.node(NodeRequest::Status, epoch).await?;
        }
        Ok(())
    }

    /// The root of every partition of the hash tree; or the leaves of some partitions, in their order.
    #[must_use]
    pub fn hashes(&self, partitions: Option<&[u16]>) -> Vec<u64> {
        self.tree.hashes(partitions)
    }

    /// What was accepted after `after_commit` of this incarnation, at most `limit` changes. Waits for something to tell for at most `wait`.
    pub async fn changes(&self, incarnation: u64, after_commit: u64, limit: usize, wait: Duration) -> Stretch {
        let deadline = tokio::time::Instant::now() + wait;
        let mut moved = self.feed.subscribe();
        let mut told = after_commit;
        loop {
            let stopping = *moved.borrow_and_update();
            let stretch = self.feed.stretch(incarnation, told, limit);
            if stopping || stretch.lost || !stretch.changes.is_empty() {
                return stretch;
            }
            told = stretch.commit;
            match tokio::time::timeout_at(deadline, moved.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return stretch,
            }
        }
    }

    /// Nobody waits for changes any more: the node is stopping.
    pub fn end_waits(&self) {
        self.feed.end_waits();
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
