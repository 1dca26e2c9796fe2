//! Messages to the nodes: natural batching, and an honest word about what became of each.
//!
//! Whatever is queued for a node while an envelope is under way goes out as the next one: few large messages under load, no added delay
//! when idle. Reads and changes are queued apart, as reads do not wait for the disk. A second envelope of reads is sent beside the first only
//! when it is worth it. Changes arrive in the order in which they were queued, as long as each envelope is answered: blind writes of one key
//! that overtook each other would cost more than a second envelope gains. Each message gets exactly one event back, in its operation's [`Mailbox`]: the reply, or a failure that says whether the
//! node can have received it. Nothing is ever sent twice.

mod calls;
pub(crate) mod changes;
mod connection;
mod health;
mod lane;
mod queue;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use register::{Epoch, Key, Request};
use service::Shutdown;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

pub use self::calls::CallError;
pub(crate) use self::calls::ScanPage;
pub use self::health::NodeStatus;
pub(crate) use self::health::why_not_voting;
pub(crate) use self::lane::SUSPECT_AFTER;
pub use self::queue::Mailbox;
pub(crate) use self::queue::Ticket;

use self::connection::{Connection, PostError};
use self::lane::{Kind, Node};
use self::queue::Pending;
use crate::clocks::Clocks;
use crate::metrics::FrontMetrics;
use crate::ring::Backend;

/// A message that could not be sent within this time is turned away as not delivered: its round is about to end anyway.
const QUEUE_WAIT_MAX: Duration = Duration::from_millis(600);
/// An envelope or a call that is not answered by then counts as lost.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the lanes may take to end at a stop.
const STOP_TIMEOUT: Duration = Duration::from_millis(500);

/// All nodes, as one sends messages to them.
#[derive(Debug)]
pub struct Transport {
    nodes: Vec<Arc<Node>>,
    epoch: Epoch,
    clocks: Arc<Clocks>,
    news: watch::Sender<()>,
    tracker: TaskTracker,
    stop: Shutdown,
}

impl Transport {
    /// Starts the lanes and the probe of each node of this ring. They run until [`Self::stop`].
    #[must_use]
    pub fn start(backends: &[Backend], epoch: Epoch, clocks: Arc<Clocks>, metrics: &Arc<FrontMetrics>) -> Arc<Self> {
        let (news, tracker, stop) = (watch::Sender::default(), TaskTracker::new(), Shutdown::new());
        let nodes: Vec<_> = backends
            .iter()
            .map(|backend| {
                let node = Node::new(
                    backend.clone(),
                    epoch,
                    Arc::clone(&clocks),
                    Arc::clone(metrics),
                    news.clone(),
                );
                Arc::new(node)
            })
            .collect();
        for node in &nodes {
            for kind in Kind::ALL {
                for &turn in kind.lanes() {
                    tracker.spawn(lane::run_lane(Arc::clone(node), kind, turn, stop.clone()));
                }
            }
            tracker.spawn(lane::run_probe(Arc::clone(node), stop.clone()));
        }
        Arc::new(Self {
            nodes,
            epoch,
            clocks,
            news,
            tracker,
            stop,
        })
    }

    /// Queues one message. Its reply or failure arrives in `mailbox`, exactly once.
    pub fn send(&self, node: usize, key: Key, request: Request, mailbox: &Arc<Mailbox>, round: u32, rank: usize) {
        let ticket = Ticket::new(Arc::clone(mailbox), 0, round, rank);
        let mut outbox = self.outbox();
        outbox.add(node, key, request, ticket, Instant::now());
        self.send_all(&mut outbox);
    }

    /// Where messages that are to be queued together are gathered.
    pub(crate) fn outbox(&self) -> Outbox {
        Outbox {
            queues: std::iter::repeat_with(Vec::new)
                .take(self.nodes.len() * Kind::ALL.len())
                .collect(),
        }
    }

    /// Queues messages, each as [`Self::send`] does; those for one node go out together. The outbox is left empty.
    pub(crate) fn send_all(&self, outbox: &mut Outbox) {
        for (place, pending) in outbox.queues.iter_mut().enumerate() {
            if !pending.is_empty() {
                let (node, kind) = (place / Kind::ALL.len(), Kind::ALL[place % Kind::ALL.len()]);
                self.nodes[node].queue(kind).push_all(pending);
            }
        }
    }

    /// The clock that stamps and checks what is exchanged.
    #[must_use]
    pub fn clocks(&self) -> &Arc<Clocks> {
        &self.clocks
    }

    /// True while a node is suspected to be away.
    #[must_use]
    pub fn is_suspected(&self, node: usize) -> bool {
        self.nodes[node].health.is_suspected()
    }

    /// True while messages to and from a node fail because the clocks are too far apart.
    #[must_use]
    pub fn is_skewed(&self, node: usize) -> bool {
        self.nodes[node].health.is_skewed()
    }

    /// True once a node has voted, and its clock has been learnt.
    #[must_use]
    pub fn is_learnt(&self, node: usize) -> bool {
        self.nodes[node].health.is_learnt()
    }

    /// How many nodes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// True when there are no nodes, which a ring does not allow.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// What is known of a node, and how many messages wait for it.
    #[must_use]
    pub fn status(&self, node: usize) -> (NodeStatus, usize) {
        let node = &self.nodes[node];
        (node.health.status(), node.waiting())
    }

    /// Changes when a suspected node answers again, and when a node's incarnation or standing is another than before.
    #[must_use]
    pub fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    /// The highest commit number that a node has shown under this incarnation while it voted, since this kvfront started.
    #[must_use]
    pub fn commit_shown(&self, node: usize, incarnation: u64) -> Option<u64> {
        self.nodes[node].health.commit_shown(incarnation)
    }

    /// Ends lanes and probes. What was under way is answered as not known.
    pub async fn stop(&self) {
        self.stop.stop();
        self.tracker.close();
        if timeout(STOP_TIMEOUT, self.tracker.wait()).await.is_err() {
            tracing::warn!("connections to the nodes did not end in time");
        }
    }
}

/// Messages that are to be queued together. Those that are still in it when it is dropped count as sent.
#[derive(Debug)]
pub(crate) struct Outbox {
    /// By node, and for each by kind.
    queues: Vec<Vec<Pending>>,
}

impl Outbox {
    pub(crate) fn add(&mut self, node: usize, key: Key, request: Request, ticket: Ticket, now: Instant) {
        let place = node * Kind::ALL.len() + Kind::of(&request) as usize;
        self.queues[place].push(Pending::new(key, request, now + QUEUE_WAIT_MAX, ticket));
    }
}

/// A connection that is open, made anew when the last one is gone.
async fn connected<'a>(slot: &'a mut Option<Connection>, authority: &str) -> Result<&'a mut Connection, PostError> {
    if slot.as_ref().is_none_or(Connection::is_closed) {
        *slot = None;
        *slot = Some(Connection::open(authority).await?);
    }
    slot.as_mut().ok_or_else(|| PostError::unsent("no connection"))
}
