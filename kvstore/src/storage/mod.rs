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
//! - `open`: what is refused at start. - `schema`: tables, migration. - `rows`, `node_row`: columns. - `writer`, `batch`: group commit.
//! - `log`: where a commit goes first, and what the table of records does not have yet. - `checkpoint`: SQLite's own log, kept short.
//! - `node_job`: requests about the node itself. - `view`: what readers may see. - `cache`: the LRU. - `reader`: the read connections. - `pages`: lists.
//! - `tree`: the hash tree. - `feed`: the last changes.

mod batch;
mod cache;
mod checkpoint;
mod error;
mod feed;
mod health;
mod job;
mod log;
mod metrics;
mod node_job;
mod node_row;
mod open;
mod pages;
mod reader;
mod reading;
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

use register::change::{Answer, Command};
use register::membership::{NodeRequest, NodeStatus};
use register::message::{PageRecord, Reply, Request};
use register::{Ballot, Epoch, Key, RequestId, Standing};
use service::clock::WallClock;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

pub use cache::CacheLimits;
pub use error::{RingError, StoreError};
pub use feed::Stretch;
pub use health::Trouble;
pub use metrics::StoreMetrics;
pub use open::OpenError;
pub use pages::MAX_PAGE_BYTES;
pub use rows::Stored;
pub use view::Progress;

use crate::clock::NodeClock;
use checkpoint::Checkpoints;
use feed::Feed;
use health::Health;
use job::{Job, Origin};
use log::{CommitLog, Unapplied};
use reader::Readers;
use tree::SharedTree;
use view::View;
use writer::Writer;

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

/// One page of a scan, from one snapshot.
#[derive(Debug, Clone)]
pub struct ScanPage {
    /// The records ([`register::scan::ScanRecord`]) as they are sent, one behind the other.
    pub records: Vec<u8>,
    /// How many they are.
    pub count: u32,
    /// As in [`Page`].
    pub end: bool,
    /// As in [`Page`].
    pub floor: Ballot,
    /// As in [`Page`].
    pub incarnation: u64,
    /// As in [`Page`].
    pub standing: Standing,
}

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
    /// Opens or creates the database at `path` and starts the writer. Blocks for as long as the integrity check takes (half a second at
    /// most), and a walk over all records (about half a second for a million).
    ///
    /// # Errors
    /// [`OpenError`], which names the file and what to do.
    pub fn open(path: &Path, options: StoreOptions) -> Result<Self, OpenError> {
        let mut opened = open::open(path, options.new_incarnation, options.adopt_ring)?;
        let sqlite = |source| OpenError::of_sqlite(path, source);
        let readers = Readers::open(path).map_err(sqlite)?;
        let node = opened.node;
        let view = Arc::new(View::new(options.cache, Unapplied::none(node)));
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
        options.metrics.show_standing(node.standing);
        tracing::info!(
            standing = ?node.standing,
            generation = node.generation,
            incarnation = node.incarnation,
            commit = node.commit,
            epoch = ?node.epoch,
            "the database is open"
        );
        let health = Arc::default();
        let checkpoint_seconds = options.metrics.checkpoint_seconds.clone();
        let writer = Writer {
            checkpoints: Checkpoints::start(path, &mut opened.writer, checkpoint_seconds)?,
            connection: opened.writer,
            log: CommitLog::new(node.log_start),
            node,
            peers: opened.peers,
            view: Arc::clone(&view),
            tree: Arc::clone(&tree),
            feed: Arc::clone(&feed),
            clock: clock.clone(),
            metrics: options.metrics.clone(),
            health: Arc::clone(&health),
            lost_track: false,
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

    /// Decides a coordinator's requests in order, as the node's standing allows, and answers once their changes are durable. `Read` is
    /// allowed, but [`Self::read`] does not wait.
    ///
    /// # Errors
    /// Only [`StoreError::Closed`], and [`StoreError::Unknown`] when it may or may not have taken effect. Everything that was certainly
    /// not stored is a [`Reply::Failed`].
    pub async fn decide(&self, requests: Vec<(Key, Request)>) -> Result<Vec<Reply>, StoreError> {
        self.decide_for(Origin::Coordinator, requests).await
    }

    /// As [`Self::decide`], for this node's own KV API, whatever its standing. Outside the cluster's guarantee.
    ///
    /// # Errors
    /// As [`Self::decide`].
    pub async fn decide_locally(&self, key: Key, request: Request) -> Result<Reply, StoreError> {
        let mut replies = self.decide_for(Origin::Local, vec![(key, request)]).await?;
        replies.pop().ok_or(StoreError::Closed)
    }

    async fn decide_for(&self, from: Origin, requests: Vec<(Key, Request)>) -> Result<Vec<Reply>, StoreError> {
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

    /// Commits nothing, to learn whether commits work.
    ///
    /// # Errors
    /// Why they do not.
    pub async fn probe(&self) -> Result<(), StoreError> {
        self.ask(|answer| Job::Probe { answer }).await
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

    /// How many wait for changes.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.feed.waiting()
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
