//! What has ended leaves all nodes: values past their end, tombstones, and promises without a state.
//!
//! Every `COLLECT_EVERY_SEC`, each node's list of such records is gone through, page by page, in bounded passes that go on where the last one
//! ended. A value past its end is settled, which commits its tombstone. A tombstone is kept for `TOMBSTONE_KEEP_SEC`, so that operations
//! under way learn what became of them; then it goes through [`Collect`], which needs every node of the key's list: while one is away, its
//! keys' tombstones wait. A mere promise concerns no other node.
//!
//! Several kvfronts may collect the same keys at the same time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use register::collect::{Collect, may_be_collected};
use register::errand::Ended;
use register::message::{List, PageRecord, Reply};
use register::{Request, Standing};
use serde::Serialize;
use service::{Heartbeat, Shutdown};

use crate::errand;
use crate::front::Front;
use crate::transport::why_not_voting;
use crate::upkeep::Upkeep;

/// Records under way at a time.
const PARALLEL_RECORDS: usize = 64;
/// Records listed at a time.
const PAGE_RECORDS: u32 = 512;
/// Pages of one node in one pass; the next pass goes on behind them.
const PAGES_PER_PASS: usize = 64;

/// How often and how late to collect.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CollectSettings {
    /// Between two passes.
    pub(crate) every: Duration,
    /// How long tombstones and promises are kept.
    pub(crate) keep: Duration,
}

/// What became of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Visit {
    /// The value was past its end: there is a tombstone now.
    Expired,
    /// The tombstone has left all nodes.
    Tombstone,
    /// The promise has been dropped.
    Promise,
    /// It is to be kept: too young, or its fence must be remembered.
    Kept,
    /// It waits for a node that is away or does not vote.
    Waiting,
    /// Something else is in the way; the next pass sees it again.
    Failed,
}

impl Visit {
    /// The label in metrics, of what has gone.
    fn label(self) -> Option<&'static str> {
        match self {
            Self::Expired => Some("expired"),
            Self::Tombstone => Some("tombstone"),
            Self::Promise => Some("promise"),
            Self::Kept | Self::Waiting | Self::Failed => None,
        }
    }
}

/// The last pass, for `/cluster`.
#[derive(Debug, Default)]
pub(crate) struct CollectReport(Mutex<CollectCounts>);

/// Counts of one pass; a record counts once for each node that holds it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct CollectCounts {
    /// Records that have gone, or ended.
    collected: usize,
    /// Records that wait for a node that is away.
    waiting: usize,
}

impl CollectReport {
    pub(crate) fn snapshot(&self) -> CollectCounts {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, counts: CollectCounts) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = counts;
    }
}

/// Runs until the stop.
pub(crate) async fn run(
    front: Arc<Front>,
    upkeep: Arc<Upkeep>,
    settings: CollectSettings,
    beat: Heartbeat,
    stop: Shutdown,
) {
    let mut after_commits = vec![0; front.transport.len()];
    beat.ok();
    loop {
        // A random part keeps kvfronts from doing the same at the same time.
        if !stop
            .sleep(settings.every.mul_f64(0.75 + 0.25 * rand::random::<f64>()))
            .await
        {
            return;
        }
        if !front.is_learnt() {
            beat.failed("waiting for a quorum of nodes");
            continue;
        }
        let pass = async {
            let (mut failed, mut counts) = (Vec::new(), CollectCounts::default());
            for (node, after_commit) in after_commits.iter_mut().enumerate() {
                beat.ok();
                if let Err(error) = collect_from(&front, settings, node, after_commit, &mut counts).await {
                    failed.push(format!("{}: {error}", front.ring.backends()[node]));
                }
            }
            (failed, counts)
        };
        let (failed, counts) = tokio::select! {
            () = stop.stopped() => return,
            pass = pass => pass,
        };
        upkeep.collected.set(counts);
        front.metrics.collection_waits(counts.waiting);
        if failed.len() > front.ring.may_be_missing() {
            beat.failed(failed.join("; "));
        } else {
            beat.ok();
        }
    }
}

async fn collect_from(
    front: &Arc<Front>,
    settings: CollectSettings,
    node: usize,
    after_commit: &mut u64,
    counts: &mut CollectCounts,
) -> Result<(), String> {
    if front.transport.is_suspected(node) {
        return Err("suspected to be away".to_owned());
    }
    for _ in 0..PAGES_PER_PASS {
        let list = List::Ended {
            after_commit: *after_commit,
            expired_at_ms: front.clocks.now_unix_ms(),
        };
        let page = front.transport.page(node, list, PAGE_RECORDS).await;
        let page = page.map_err(|error| error.reason)?;
        if let Some(why) = why_not_voting(page.standing) {
            return Err(why.to_owned());
        }
        let last = page.records.iter().map(|record| record.commit).max();
        let visits: Vec<Visit> = stream::iter(page.records)
            .map(|record| visit(front, settings, node, record))
            .buffer_unordered(PARALLEL_RECORDS)
            .collect()
            .await;
        for label in visits.iter().filter_map(|visit| visit.label()) {
            counts.collected += 1;
            front.metrics.collected(label);
        }
        counts.waiting += visits.iter().filter(|visit| **visit == Visit::Waiting).count();
        match last {
            Some(last) if !page.end => *after_commit = last,
            _ => {
                *after_commit = 0;
                return Ok(());
            }
        }
    }
    Ok(())
}

async fn visit(front: &Arc<Front>, settings: CollectSettings, node: usize, record: PageRecord) -> Visit {
    let PageRecord { key, held, .. } = record;
    let now_ms = front.clocks.now_unix_ms();
    let keep_ms = u64::try_from(settings.keep.as_millis()).unwrap_or(u64::MAX);
    let is_young = |made: register::Ballot| made.time.unix_ms().saturating_add(keep_ms) > now_ms;
    let preference = Arc::clone(front.ring.preference(&key));
    let Some(state) = held.state else {
        if is_young(held.promised) {
            return Visit::Kept;
        }
        let collect = Request::Collect { ballot: held.promised };
        return match errand::ask(front, node, &key, collect).await {
            Some(Reply::Forgotten) => Visit::Promise,
            _ => Visit::Failed,
        };
    };
    if state.is_expired(now_ms) {
        return if errand::settle(front, &key).await {
            Visit::Expired
        } else {
            Visit::Failed
        };
    }
    if is_young(held.accepted) || !may_be_collected(&key, held.accepted, &state) {
        return Visit::Kept;
    }
    let is_there = |node: &usize| {
        let status = front.transport.status(*node).0;
        !status.suspected && status.standing == Some(Standing::Voting)
    };
    if !preference.nodes.iter().all(is_there) {
        return Visit::Waiting;
    }
    match errand::run(
        front,
        &key,
        &preference,
        Collect::new(held.accepted, state, preference.nodes.len()),
    )
    .await
    {
        Ended::Done(true) => Visit::Tombstone,
        Ended::Done(false) => Visit::Failed,
        // The tombstone that is made now is collected when it is old enough.
        Ended::Settle => {
            errand::settle(front, &key).await;
            Visit::Failed
        }
    }
}
