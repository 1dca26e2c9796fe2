//! Filling a node whose disk was lost: every key that any other node holds is committed again without it, and given to it.
//!
//! 1. Wait until our clock has passed the node's new floor, so that what we commit lies above it. (Before the next step, so that no floor
//!    of the others lies in the future, where it would stop new keys from being written.)
//! 2. All other nodes raise their floors to it: nothing that counted on answers of the lost disk can be chosen any more.
//! 3. Every key of every other node goes through [`Refill`]. A key that is being changed meanwhile is tried again; a pass counts only when
//!    none is left. Others that are being filled themselves are left out, as long as not more have lost their disks than may be missing.
//! 4. The others are told to remember the node, then it votes.
//!
//! Any failure: a new pass after a pause. The node keeps its floor and what it was given, so a second pass is quick. Several kvfronts may fill
//! one node at the same time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use register::membership::{NodeRequest, NodeStatus, Peer};
use register::message::List;
use register::refill::Refill;
use register::{Ballot, Key, Standing};
use serde::Serialize;
use service::{Heartbeat, Shutdown};

use crate::errand;
use crate::front::Front;
use crate::pace::Pace;
use crate::transport::why_not_voting;
use crate::upkeep::Upkeep;

/// How often it is looked for a node to fill, when nothing calls for it sooner.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Pause after a pass that failed.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// Keys under way at a time.
const PARALLEL_KEYS: usize = 64;
/// Records listed at a time.
const PAGE_RECORDS: u32 = 512;
/// A key is settled this often before it is left for later in the pass.
const SETTLES_PER_KEY: usize = 4;
/// Keys that failed and are tried again at the end of a pass; with more of them, something else is wrong.
const LEFT_OVER_MAX: usize = 1_024;
/// How often those are tried.
const LEFT_OVER_TRIES: usize = 4;

/// How far the filling of one node has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Progress {
    /// Complete or cut-off passes before this one.
    passes: u64,
    /// Visits to keys that went well in this pass; a key is visited once for each node that holds it.
    keys: u64,
    /// Those that did not, yet.
    failed: u64,
}

/// The nodes that this kvfront is filling.
#[derive(Debug)]
pub(crate) struct Fills(Mutex<Vec<Option<Progress>>>);

impl Fills {
    pub(crate) fn new(nodes: usize) -> Self {
        Self(Mutex::new(vec![None; nodes]))
    }

    /// By node.
    pub(crate) fn snapshot(&self) -> Vec<Option<Progress>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn update(&self, node: usize, change: impl FnOnce(&mut Option<Progress>)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner)[node]);
    }
}

/// Runs until the stop.
pub(crate) async fn run(front: Arc<Front>, upkeep: Arc<Upkeep>, pace: Arc<Pace>, beat: Heartbeat, stop: Shutdown) {
    let mut news = front.transport.news();
    loop {
        news.mark_unchanged();
        let failed = tokio::select! {
            () = stop.stopped() => return,
            failed = fill_all(&front, &upkeep, &pace, &beat) => failed,
        };
        // A node that cannot be filled yet is no failure of this kvfront; the line says what it waits for all the same.
        beat.ok();
        let pause = match failed {
            Some(failed) => {
                beat.failed(failed);
                RETRY_AFTER
            }
            None => LOOK_EVERY,
        };
        tokio::select! {
            () = stop.stopped() => return,
            () = tokio::time::sleep(pause) => {}
            _ = news.changed() => {}
        }
    }
}

/// One pass for each node that is to be filled; what went wrong with the last one that was not.
async fn fill_all(front: &Arc<Front>, upkeep: &Upkeep, pace: &Pace, beat: &Heartbeat) -> Option<String> {
    let mut failed = None;
    for node in 0..front.transport.len() {
        let standing = front.transport.status(node).0.standing;
        if !matches!(standing, Some(Standing::Filling { .. })) {
            upkeep.fills.update(node, |progress| *progress = None);
            continue;
        }
        let backend = &front.ring.backends()[node];
        let passes = upkeep.fills.snapshot()[node].map_or(0, |progress| progress.passes);
        if passes == 0 {
            tracing::info!(node = %backend, "filling a node from the others");
        }
        match fill(front, upkeep, pace, beat, node).await {
            Ok(true) => {
                let keys = upkeep.fills.snapshot()[node].map_or(0, |progress| progress.keys);
                tracing::info!(node = %backend, keys, passes, "the node is filled and votes again");
                upkeep.fills.update(node, |progress| *progress = None);
            }
            Ok(false) => {}
            Err(error) => {
                tracing::debug!(node = %backend, error, "the node is not filled yet");
                upkeep.fills.update(node, |progress| {
                    let progress = progress.get_or_insert_default();
                    progress.passes += 1;
                });
                failed = Some(format!("filling {backend}: {error}"));
            }
        }
    }
    failed
}

/// One pass for one node; false when it does not need it any more.
async fn fill(front: &Arc<Front>, upkeep: &Upkeep, pace: &Pace, beat: &Heartbeat, node: usize) -> Result<bool, String> {
    let ask = front.transport.ask_node(node, NodeRequest::Status).await;
    let status = ask.map_err(|e| e.reason)?.status;
    let Standing::Filling { above } = status.standing else {
        return Ok(false);
    };
    while front.clocks.now_unix_ms() <= above.time.unix_ms() {
        let left_ms = above.time.unix_ms().saturating_sub(front.clocks.now_unix_ms());
        beat.ok();
        tokio::time::sleep(Duration::from_millis(left_ms.clamp(1, 1_000))).await;
    }
    let others: Vec<usize> = (0..front.transport.len()).filter(|other| *other != node).collect();
    tell_all(front, &others, &NodeRequest::Raise { floor: above }).await?;
    upkeep.fills.update(node, |progress| {
        let progress = progress.get_or_insert_default();
        (progress.keys, progress.failed) = (0, 0);
    });
    let pass = Pass {
        front,
        upkeep,
        pace,
        beat,
        node,
        above,
    };
    let mut left_over = Vec::new();
    let mut lost = vec![front.ring.backends()[node].to_string()];
    for other in &others {
        for namespace in [Key::DATA, Key::LOCK] {
            if !pass.walk(*other, namespace, &mut left_over).await? {
                lost.push(front.ring.backends()[*other].to_string());
                break;
            }
        }
    }
    // (With one copy of each key they have nothing in common.)
    if front.ring.list_len() > 1 && lost.len() > front.ring.may_be_missing().max(1) {
        return Err(format!("too many have lost their disks: {}", lost.join(", ")));
    }
    pass.finish(left_over).await?;
    vote(front, node, &status, above, &others).await?;
    Ok(true)
}

/// Remembered first, so that the others know which incarnation votes before it does.
async fn vote(front: &Front, node: usize, status: &NodeStatus, above: Ballot, others: &[usize]) -> Result<(), String> {
    let peer = Peer {
        name: Arc::clone(&front.ring.backends()[node].name),
        generation: status.generation,
        incarnation: status.incarnation,
        commit: status.commit,
    };
    tell_all(front, others, &NodeRequest::Remember { peers: vec![peer] }).await?;
    let vote = NodeRequest::Vote {
        incarnation: status.incarnation,
        above,
    };
    match front.transport.ask_node(node, vote).await {
        Ok(answer) if answer.done => Ok(()),
        Ok(_) => Err("it has begun anew meanwhile".to_owned()),
        Err(error) => Err(error.reason),
    }
}

/// Tells each of these nodes the same; all of them have to do it.
async fn tell_all(front: &Front, nodes: &[usize], request: &NodeRequest) -> Result<(), String> {
    let told = nodes.iter().map(|&node| async move {
        let backend = &front.ring.backends()[node];
        match front.transport.ask_node(node, request.clone()).await {
            Ok(answer) if answer.done => Ok(()),
            Ok(_) => Err(format!("{backend} refuses: {request:?}")),
            Err(error) => Err(format!("{backend}: {}", error.reason)),
        }
    });
    join_all(told).await.into_iter().collect()
}

/// One way through all keys.
struct Pass<'a> {
    front: &'a Arc<Front>,
    upkeep: &'a Upkeep,
    pace: &'a Pace,
    beat: &'a Heartbeat,
    node: usize,
    above: Ballot,
}

impl Pass<'_> {
    /// Every key of one namespace that `other` holds. Those that failed are left over. False when `other` is being filled itself: what
    /// it had is gone, and while no more nodes lost theirs than may be missing, all that was chosen is on the rest.
    async fn walk(&self, other: usize, namespace: char, left_over: &mut Vec<Key>) -> Result<bool, String> {
        let backend = &self.front.ring.backends()[other];
        let mut after = None;
        loop {
            self.beat.ok();
            let list = List::Keys {
                prefix: namespace.to_string(),
                after,
                reverse: false,
            };
            let page = self.front.transport.page(other, list, PAGE_RECORDS).await;
            let page = page.map_err(|e| format!("{backend}: {}", e.reason))?;
            if matches!(page.standing, Standing::Filling { .. }) {
                return Ok(false);
            }
            if let Some(why) = why_not_voting(page.standing) {
                return Err(format!("{backend}: {why}"));
            }
            after = page.records.last().map(|record| record.key.as_text().to_owned());
            let held = page
                .records
                .into_iter()
                .filter(|record| !record.held.accepted.is_zero());
            self.fill_keys(held.map(|record| record.key), left_over).await;
            if left_over.len() > LEFT_OVER_MAX {
                return Err(format!("{} keys could not be filled", left_over.len()));
            }
            if page.end || after.is_none() {
                return Ok(true);
            }
        }
    }

    async fn fill_keys(&self, keys: impl Iterator<Item = Key>, left_over: &mut Vec<Key>) {
        let mut failed: Vec<Key> = stream::iter(keys)
            .map(|key| async move { (!self.fill_key(&key).await).then_some(key) })
            .buffer_unordered(PARALLEL_KEYS)
            .filter_map(std::future::ready)
            .collect()
            .await;
        left_over.append(&mut failed);
        let failed = u64::try_from(left_over.len()).unwrap_or(u64::MAX);
        let note = |progress: &mut Option<Progress>| progress.get_or_insert_default().failed = failed;
        self.upkeep.fills.update(self.node, note);
    }

    async fn fill_key(&self, key: &Key) -> bool {
        let preference = self.front.ring.preference(key);
        let Some(rank) = preference.rank_of(self.node) else {
            return true;
        };
        self.pace.turn().await;
        let refill = || Refill::new(self.above, preference.homes, preference.nodes.len(), rank);
        let filled = errand::run_settling(self.front, key, preference, SETTLES_PER_KEY, refill).await;
        if filled {
            self.front.metrics.key_filled();
            let note = |progress: &mut Option<Progress>| progress.get_or_insert_default().keys += 1;
            self.upkeep.fills.update(self.node, note);
        }
        filled
    }

    /// Tries what is left over until nothing is.
    async fn finish(&self, mut left_over: Vec<Key>) -> Result<(), String> {
        for _ in 0..LEFT_OVER_TRIES {
            if left_over.is_empty() {
                return Ok(());
            }
            self.beat.ok();
            let keys = std::mem::take(&mut left_over);
            self.fill_keys(keys.into_iter(), &mut left_over).await;
        }
        match left_over.first() {
            None => Ok(()),
            Some(key) => Err(format!(
                "{} keys could not be filled, among them {key:?}",
                left_over.len()
            )),
        }
    }
}
