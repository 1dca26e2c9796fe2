//! Watching: every change of a quorum state, per key in order, as a stream that can be resumed.
//!
//! - `tail`: the feed of each node, asked for once for all watchers of this kvfront, and only while there are watchers.
//! - `merger`: from what single nodes accepted to what was chosen; argues why nothing is missed and nothing goes backwards.
//! - `watcher`: one stream. It takes from the tails at the pace of its reader; a reader that is slower than the nodes remember gets a
//!   gap instead of growing memory. `position`: where it stands. `event`: what goes out.
//!
//! kvfront keeps nothing: a position names what the nodes have to show again.

mod event;
mod merger;
mod position;
mod tail;
#[cfg(test)]
mod tests;
mod told;
mod track;
mod watcher;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use register::hashing::stable_hash;
use service::{Heartbeat, Shutdown, Tasks};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, timeout};

use crate::front::{Front, NotStarted};
use position::Cursor;
pub(crate) use position::Position;
use tail::Tail;
use watcher::Watcher;

/// Watchers at a time.
pub(crate) const MAX_WATCHERS: usize = 64;
/// Pieces of a stream that wait for their reader; each holds at most [`watcher::PIECE_BYTES`] and one event.
const PIECES: usize = 2;
/// How long the tails are kept after the last watcher has gone.
const LINGER: Duration = Duration::from_secs(30);
/// How often it is looked whether anybody watches.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// `/ready` turns to 503 when nobody looks for this long.
const MAX_SILENCE: Duration = Duration::from_secs(10);
/// How long a new watcher waits to hear of all nodes.
const FIRST_WORD_TIMEOUT: Duration = Duration::from_millis(500);

/// What all watchers share.
#[derive(Debug)]
pub(crate) struct Hub {
    front: Arc<Front>,
    tails: Vec<Tail>,
    /// Told of whenever a tail has grown.
    moved: watch::Sender<()>,
    slots: Arc<Semaphore>,
    /// Told of when somebody begins to watch.
    wanted: watch::Sender<()>,
    started: Instant,
    stop: Shutdown,
}

impl Hub {
    /// Over a started front; follows the nodes while there are watchers, until the stop of `tasks`.
    pub(crate) fn start(front: Arc<Front>, tasks: &Tasks) -> Arc<Self> {
        let hub = Arc::new(Self {
            tails: (0..front.transport.len()).map(|_| Tail::default()).collect(),
            front,
            moved: watch::Sender::new(()),
            slots: Arc::new(Semaphore::new(MAX_WATCHERS)),
            wanted: watch::Sender::new(()),
            started: Instant::now(),
            stop: Shutdown::new(),
        });
        let shared = Arc::clone(&hub);
        tasks.spawn("watch", MAX_SILENCE, move |beat, stop| async move {
            shared.run(&beat, &stop).await;
            shared.stop.stop();
        });
        hub
    }

    /// Whether keys can be read.
    ///
    /// # Errors
    /// [`NotStarted`]: the nodes' clocks are not known yet.
    pub(crate) fn ready(&self) -> Result<(), NotStarted> {
        self.front.admit(1).map(drop)
    }

    /// A stream of events about keys that start with `prefix`, from `position` on, or from now on. None when too many watch already.
    pub(crate) fn watch(
        self: &Arc<Self>,
        prefix: String,
        position: Option<Position>,
    ) -> Option<impl Stream<Item = Bytes> + Send + use<>> {
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
            self.front.metrics.watch_refused();
            return None;
        };
        self.wanted.send_replace(());
        let (pieces, reader) = mpsc::channel(PIECES);
        tokio::spawn(Arc::clone(self).serve(prefix, position, pieces, slot));
        Some(stream::unfold(reader, |mut reader| async {
            reader.recv().await.map(|piece| (piece, reader))
        }))
    }

    async fn serve(
        self: Arc<Self>,
        prefix: String,
        position: Option<Position>,
        pieces: mpsc::Sender<Bytes>,
        slot: OwnedSemaphorePermit,
    ) {
        self.front.metrics.watch_opened();
        let position = match position {
            Some(position) => position,
            None => self.here_and_now().await,
        };
        Watcher::new(Arc::clone(&self), prefix, &position, pieces).run().await;
        self.front.metrics.watch_closed();
        drop(slot);
    }

    /// Follows the nodes while somebody watches.
    async fn run(&self, beat: &Heartbeat, stop: &Shutdown) {
        let mut wanted = self.wanted.subscribe();
        loop {
            beat.ok();
            tokio::select! {
                () = stop.stopped() => return,
                _ = wanted.changed() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            if self.slots.available_permits() == MAX_WATCHERS {
                continue;
            }
            let tails_stop = stop.child();
            let follow = futures_util::future::join_all(
                (0..self.tails.len()).map(|node| self.tails[node].run(&self.front, node, &self.moved, &tails_stop)),
            );
            tokio::join!(follow, async {
                self.until_nobody_watches(beat, stop).await;
                tails_stop.stop();
            });
        }
    }

    async fn until_nobody_watches(&self, beat: &Heartbeat, stop: &Shutdown) {
        let mut last_seen = Instant::now();
        while last_seen.elapsed() < LINGER {
            beat.ok();
            if self.slots.available_permits() < MAX_WATCHERS {
                last_seen = Instant::now();
            }
            if !stop.sleep(LOOK_EVERY).await {
                return;
            }
        }
    }

    /// Where the nodes are now.
    async fn here_and_now(&self) -> Position {
        let newest = self.front.clocks.tick();
        let mut moved = self.moved.subscribe();
        let all_known = async {
            while self.tails.iter().any(|tail| tail.end().is_none()) {
                if moved.changed().await.is_err() {
                    return;
                }
            }
        };
        // A node that is away is taken up where it was last heard of.
        let _ = timeout(FIRST_WORD_TIMEOUT, all_known).await;
        let cursors = (0..self.tails.len()).filter_map(|node| self.end(node).map(|end| (self.name_hash(node), end)));
        Position {
            newest,
            cursors: cursors.collect(),
            ..Position::default()
        }
    }

    /// The last that is known of a node's feed.
    fn end(&self, node: usize) -> Option<Cursor> {
        self.tails[node].end().or_else(|| {
            let status = self.front.transport.status(node).0;
            let (incarnation, commit) = status.incarnation.zip(status.commit)?;
            Some(Cursor { incarnation, commit })
        })
    }

    fn name_hash(&self, node: usize) -> u64 {
        stable_hash(self.front.ring.backends()[node].name.as_bytes())
    }

    /// A clock for waits, in milliseconds.
    fn ms_of(&self, at: Instant) -> u64 {
        u64::try_from(at.duration_since(self.started).as_millis()).unwrap_or(u64::MAX)
    }
}
