//! Hand-over of hints: what spares keep for homes moves home once these are back.
//!
//! Every `HINT_FLUSH_SEC`, and at once when a node comes back, each node's hints are listed oldest first, page by page, and run through
//! `register`'s hand-over. A pass is bounded; the next one resumes where it ended.
//!
//! Several kvfronts may flush the same hints at the same time, without a lock: installing twice is installing once, a forget names the
//! ballot it may drop, and a settling change is an ordinary operation. Doing a hint twice costs a few messages; a lock per node would
//! cost as many on each pass, and a holder that dies would delay the flush by the lock's TTL. A random part in the pause keeps kvfronts
//! from flushing in step.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use register::errand::Ended;
use register::handover::HandOver;
use register::message::{List, PageRecord};
use register::{Ballot, Key, State};
use service::{Heartbeat, Shutdown};

use crate::errand;
use crate::front::Front;
use crate::ring::Preference;
use crate::transport::why_not_voting;
use crate::upkeep::Upkeep;

/// Hints that are handed over at a time.
const PARALLEL_HINTS: usize = 64;
/// Hints listed at a time.
const PAGE_RECORDS: u32 = 256;
/// Pages of one node in one pass; the next pass goes on behind them.
const PAGES_PER_PASS: usize = 64;
/// A hand-over that takes longer is left to the next pass.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(5);

/// How many hints each node held when last listed.
#[derive(Debug)]
pub(crate) struct HintsSeen(Mutex<Vec<Option<usize>>>);

impl HintsSeen {
    pub(crate) fn new(nodes: usize) -> Self {
        Self(Mutex::new(vec![None; nodes]))
    }

    /// By node; `None` before the first listing.
    pub(crate) fn snapshot(&self) -> Vec<Option<usize>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn set(&self, node: usize, waiting: usize) {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)[node] = Some(waiting);
    }
}

/// Where the next pass over a node begins, and what is left from the pages before.
#[derive(Debug, Clone, Copy, Default)]
struct Cursor {
    after_commit: u64,
    left_before: usize,
}

/// Flushes until the stop.
pub(crate) async fn run(front: Arc<Front>, upkeep: Arc<Upkeep>, every: Duration, beat: Heartbeat, stop: Shutdown) {
    let mut news = front.transport.news();
    let mut cursors = vec![Cursor::default(); front.transport.len()];
    loop {
        let pause = every.mul_f64(0.75 + 0.25 * rand::random::<f64>());
        tokio::select! {
            () = stop.stopped() => return,
            () = tokio::time::sleep(pause) => {}
            _ = news.changed() => {}
        }
        if !front.is_learnt() {
            beat.failed("waiting for the clocks of a quorum of nodes");
            continue;
        }
        let pass = async {
            let mut failed = Vec::new();
            for (node, cursor) in cursors.iter_mut().enumerate() {
                if let Err(error) = flush_node(&front, &upkeep.hints, node, cursor).await {
                    *cursor = Cursor::default();
                    failed.push(error);
                }
            }
            failed
        };
        tokio::select! {
            () = stop.stopped() => return,
            failed = pass => match failed.len() {
                // A node that is away has no hints to give; the others' went through.
                missing if missing <= front.ring.may_be_missing() => beat.ok(),
                _ => beat.failed(failed.join("; ")),
            },
        }
    }
}

async fn flush_node(front: &Arc<Front>, seen: &HintsSeen, node: usize, cursor: &mut Cursor) -> Result<(), String> {
    let backend = &front.ring.backends()[node];
    if front.transport.is_suspected(node) {
        return Err(format!("{backend}: suspected to be away"));
    }
    for _ in 0..PAGES_PER_PASS {
        let list = List::Hints {
            after_commit: cursor.after_commit,
        };
        let page = front
            .transport
            .page(node, list, PAGE_RECORDS)
            .await
            .map_err(|e| format!("{backend}: {}", e.reason))?;
        if let Some(why) = why_not_voting(page.standing) {
            // What such a node holds may be of a disk that went back in time.
            return Err(format!("{backend}: {why}"));
        }
        let last = page.records.iter().map(|record| record.commit).max();
        let handed_over: Vec<bool> = stream::iter(page.records)
            .map(|record| async move {
                tokio::time::timeout(HAND_OVER_TIMEOUT, hand_over(front, node, record))
                    .await
                    .unwrap_or(false)
            })
            .buffer_unordered(PARALLEL_HINTS)
            .collect()
            .await;
        let left = cursor.left_before + handed_over.iter().filter(|done| !**done).count();
        let end = page.end || last.is_none();
        // Before the end of the list, what is behind this page is not known: show at least what is.
        seen.set(node, left);
        front.metrics.hints_waiting(&backend.name, left);
        *cursor = match last {
            Some(after_commit) if !end => Cursor {
                after_commit,
                left_before: left,
            },
            _ => Cursor::default(),
        };
        if end {
            break;
        }
    }
    Ok(())
}

/// Moves one hint home; true when its spare has dropped it.
async fn hand_over(front: &Arc<Front>, node: usize, record: PageRecord) -> bool {
    let PageRecord { key, held, .. } = record;
    let preference = Arc::clone(front.ring.preference(&key));
    let (Some(rank), Some(state)) = (preference.rank_of(node), held.state) else {
        // The ring has changed since (another BACKENDS): such records are not hints any more, and reads still find them.
        tracing::debug!(?key, node, "a hint that does not belong to this ring");
        return false;
    };
    let homes_up = preference.nodes[..preference.homes]
        .iter()
        .all(|&home| !front.transport.is_suspected(home));
    if rank < preference.homes || !homes_up {
        return false;
    }
    hand_over_record(front, &key, &preference, rank, held.accepted, state).await
}

/// Moves the record of a spare (of this rank) home; true when the spare has dropped it.
pub(crate) async fn hand_over_record(
    front: &Front,
    key: &Key,
    preference: &Preference,
    rank: usize,
    accepted: Ballot,
    state: State,
) -> bool {
    let errand = HandOver::new(accepted, state, preference.homes, rank, preference.nodes.len());
    match errand::run(front, key, preference, errand).await {
        Ended::Settle => {
            // Whatever comes of it, the next pass sees the key anew.
            errand::settle(front, key).await;
            false
        }
        Ended::Done(forgotten) => {
            if forgotten {
                front.metrics.hint_handed_over();
            }
            forgotten
        }
    }
}
