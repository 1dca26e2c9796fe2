//! Anti-entropy: replicas are compared by their hash trees, and keys that differ are repaired.
//!
//! Every `REPAIR_EVERY_SEC`, and soon after a node came back or was filled, the roots of all partitions are asked of every node. The homes of a
//! partition should agree, all other nodes should hold nothing. What differs in two looks a moment apart is no change under way; its leaves
//! are compared, then the keys of the leaves that differ:
//! - homes that hold different ballots: a linearizable get, which writes the newest back;
//! - a spare that holds a record: it is handed over like a hint;
//! - a node that is not in the key's list, as after a change of the ring: it drops its copy once every home holds that or something newer. What no
//!   home has is kept and reported: it may be all that is left of a key.
//!
//! Only nodes that vote are compared, and only keys whose whole list answers. `REPAIR_KEYS_PER_SEC` limits it. Several kvfronts may do it at the
//! same time.

mod compare;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use register::change::Command;
use register::hashing::{LEAVES_PER_PARTITION, PARTITIONS};
use register::message::{Held, List, PageReply, Reply};
use register::proposer::{Consistency, Outcome};
use register::{Ballot, Key, Request, Standing};
use serde::Serialize;
use service::{Heartbeat, Shutdown};

use self::compare::{Finding, differs, judge};
use crate::errand;
use crate::front::Front;
use crate::hints::hand_over_record;
use crate::pace::Pace;
use crate::ring::Preference;
use crate::upkeep::Upkeep;

/// Between the two looks: far longer than a change is under way.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// A node that has just come back is given hints first.
const HINTS_FIRST: Duration = Duration::from_secs(1);
/// Partitions whose leaves are asked for at a time.
const LEAVES_OF_PARTITIONS: usize = 256;
/// Records listed at a time.
const PAGE_RECORDS: u32 = 1_024;
/// Keys under way at a time.
const PARALLEL_KEYS: usize = 32;

/// The last comparison, for `/cluster`.
#[derive(Debug, Default)]
pub(crate) struct RepairReport(Mutex<RepairCounts>);

/// What came of a comparison.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct RepairCounts {
    /// Comparisons that came to an end since this kvfront started.
    passes: u64,
    /// Partitions whose whole list answered in the last one.
    partitions_compared: usize,
    /// Those that differed in both looks.
    partitions_differing: usize,
    /// Keys repaired in the last one.
    keys_repaired: usize,
    /// Keys that could not be repaired.
    keys_failed: usize,
    /// Records on nodes that are not in their key's list, and that those in it do not all have.
    strays: usize,
}

impl RepairReport {
    pub(crate) fn snapshot(&self) -> RepairCounts {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, counts: RepairCounts) {
        let mut report = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let passes = report.passes + 1;
        *report = RepairCounts { passes, ..counts };
    }
}

/// Runs until the stop.
pub(crate) async fn run(
    front: Arc<Front>,
    upkeep: Arc<Upkeep>,
    pace: Arc<Pace>,
    every: Duration,
    beat: Heartbeat,
    stop: Shutdown,
) {
    let mut news = front.transport.news();
    loop {
        beat.ok();
        let pause = every.mul_f64(0.75 + 0.25 * rand::random::<f64>());
        tokio::select! {
            () = stop.stopped() => return,
            () = tokio::time::sleep(pause) => {}
            _ = news.changed() => if !stop.sleep(HINTS_FIRST.min(every)).await { return },
        }
        news.mark_unchanged();
        if !front.is_learnt() {
            continue;
        }
        let pass = Pass {
            front: &front,
            pace: &pace,
            beat: &beat,
        };
        let counts = tokio::select! {
            () = stop.stopped() => return,
            counts = pass.run() => counts,
        };
        front.metrics.compared(counts.partitions_differing, counts.strays);
        if counts.keys_repaired + counts.keys_failed + counts.strays > 0 {
            tracing::info!(?counts, "replicas differed");
        }
        upkeep.repaired.set(counts);
    }
}

/// One comparison.
struct Pass<'a> {
    front: &'a Arc<Front>,
    pace: &'a Pace,
    beat: &'a Heartbeat,
}

impl Pass<'_> {
    async fn run(&self) -> RepairCounts {
        let mut counts = RepairCounts::default();
        let first = self.differing_partitions(&mut counts).await;
        if first.is_empty() {
            return counts;
        }
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        let mut partitions = self.differing_partitions(&mut counts).await;
        partitions.retain(|partition| first.contains(partition));
        counts.partitions_differing = partitions.len();
        let leaves = self.differing_leaves(&partitions).await;
        if !leaves.is_empty() {
            self.repair_leaves(leaves, &mut counts).await;
        }
        counts
    }

    /// The partitions whose roots are not as they should be, ascending.
    async fn differing_partitions(&self, counts: &mut RepairCounts) -> Vec<u16> {
        let roots = self.hashes(None, PARTITIONS).await;
        let mut differing = Vec::new();
        counts.partitions_compared = 0;
        for partition in 0..PARTITIONS {
            let Some(preference) = self.front.ring.preference_of_partition(partition) else {
                break;
            };
            let sums: Vec<Option<u64>> = roots
                .iter()
                .map(|roots| roots.as_ref()?.get(partition).copied())
                .collect();
            let differs = differs(preference, &sums);
            counts.partitions_compared += usize::from(differs.is_some());
            if differs == Some(true) {
                differing.extend(u16::try_from(partition));
            }
        }
        differing
    }

    /// The leaves of these partitions that are not as they should be, ascending.
    async fn differing_leaves(&self, partitions: &[u16]) -> Vec<u32> {
        let mut differing = Vec::new();
        for chunk in partitions.chunks(LEAVES_OF_PARTITIONS) {
            let trees = self
                .hashes(Some(chunk.to_vec()), chunk.len() * LEAVES_PER_PARTITION)
                .await;
            for (place, partition) in chunk.iter().map(|partition| usize::from(*partition)).enumerate() {
                let Some(preference) = self.front.ring.preference_of_partition(partition) else {
                    continue;
                };
                for leaf in 0..LEAVES_PER_PARTITION {
                    let at = place * LEAVES_PER_PARTITION + leaf;
                    let sums: Vec<Option<u64>> = trees.iter().map(|tree| tree.as_ref()?.get(at).copied()).collect();
                    if differs(preference, &sums) == Some(true) {
                        differing.extend(u32::try_from(partition * LEAVES_PER_PARTITION + leaf));
                    }
                }
            }
        }
        differing
    }

    /// Hashes by node; `None` for nodes that do not answer, or do not vote.
    async fn hashes(&self, partitions: Option<Vec<u16>>, expected: usize) -> Vec<Option<Vec<u64>>> {
        self.beat.ok();
        let (front, partitions) = (self.front, &partitions);
        join_all((0..front.transport.len()).map(|node| async move {
            if front.transport.is_suspected(node) {
                return None;
            }
            let reply = front.transport.hashes(node, partitions.clone()).await.ok()?;
            (reply.standing == Standing::Voting && reply.hashes.len() == expected).then_some(reply.hashes)
        }))
        .await
    }

    /// Compares the keys of these leaves, page by page in key order, and repairs those that differ.
    async fn repair_leaves(&self, leaves: Vec<u32>, counts: &mut RepairCounts) {
        let mut after: Option<String> = None;
        loop {
            let pages = self.pages(&leaves, after.as_deref()).await;
            // A page says nothing about keys behind its last record.
            let open = pages.iter().flatten().filter(|page| !page.end);
            let bound = open
                .filter_map(|page| page.records.last())
                .map(|record| record.key.clone())
                .min();
            let answered: Vec<bool> = pages.iter().map(Option::is_some).collect();
            let copies = copies(pages, bound.as_ref());
            let repairs: Vec<(bool, usize)> = stream::iter(copies)
                .map(|(key, accepted)| self.repair(key, accepted, &answered))
                .buffer_unordered(PARALLEL_KEYS)
                .filter_map(std::future::ready)
                .collect()
                .await;
            for (repaired, strays) in repairs {
                counts.keys_repaired += usize::from(repaired);
                counts.keys_failed += usize::from(!repaired);
                counts.strays += strays;
            }
            match bound {
                Some(bound) => after = Some(bound.as_text().to_owned()),
                None => return,
            }
        }
    }

    async fn pages(&self, leaves: &[u32], after: Option<&str>) -> Vec<Option<PageReply>> {
        self.beat.ok();
        let front = self.front;
        join_all((0..front.transport.len()).map(|node| async move {
            if front.transport.is_suspected(node) {
                return None;
            }
            let list = List::Leaves {
                leaves: leaves.to_vec(),
                after: after.map(str::to_owned),
            };
            let page = front.transport.page(node, list, PAGE_RECORDS).await.ok()?;
            (page.standing == Standing::Voting).then_some(page)
        }))
        .await
    }

    /// Repairs one key; `None` when there is nothing to repair, else whether that went well, and how many strays are left.
    async fn repair(&self, key: Key, listed: Vec<Ballot>, answered: &[bool]) -> Option<(bool, usize)> {
        let preference = Arc::clone(self.front.ring.preference(&key));
        if !preference.nodes.iter().all(|node| answered[*node]) {
            return None;
        }
        let Finding {
            homes_differ,
            spares,
            strays,
        } = judge(&preference, &listed);
        if !homes_differ && spares.is_empty() && strays.is_empty() {
            return None;
        }
        self.pace.turn().await;
        // The lists are not of one moment: what has moved since is a change under way, and no business of ours.
        let held = self.read(&key, &preference).await?;
        let moved = |(node, held): (&usize, &Held)| held.accepted != listed[*node];
        if preference.nodes.iter().zip(&held).any(moved) {
            return None;
        }
        let mut well = true;
        if homes_differ {
            let outcome = self.front.run(&key, Command::Get, Consistency::Quorum).await;
            well &= matches!(outcome, Outcome::Answered { .. });
        }
        for rank in spares {
            let Held { accepted, state, .. } = &held[rank];
            well &= match state {
                Some(state) => hand_over_record(self.front, &key, &preference, rank, *accepted, state.clone()).await,
                None => false,
            };
        }
        let mut left = 0;
        for node in strays {
            left += usize::from(!self.drop_stray(&key, &preference, node).await);
        }
        if well && left == 0 {
            self.front.metrics.key_repaired();
        }
        Some((well, left))
    }

    /// Has a node that is not in the key's list drop its copy, if every home holds that or something newer; true when it is gone.
    async fn drop_stray(&self, key: &Key, preference: &Preference, node: usize) -> bool {
        let Some(Reply::Holds(stray)) = errand::ask(self.front, node, key, Request::Read).await else {
            return false;
        };
        let Some(held) = self.read(key, preference).await else {
            return false;
        };
        let fence = |held: &Held| held.state.as_ref().map_or(0, |state| state.fence);
        let homes = &held[..preference.homes];
        if !homes
            .iter()
            .all(|home| home.accepted >= stray.accepted && fence(home) >= fence(&stray))
        {
            return false;
        }
        let ballot = stray.accepted;
        errand::ask(self.front, node, key, Request::Forget { ballot }).await == Some(Reply::Forgotten)
    }

    /// What each node of a list holds of a key, by rank; `None` when one does not answer.
    async fn read(&self, key: &Key, preference: &Preference) -> Option<Vec<Held>> {
        let reads = preference.nodes.iter().map(|node| async {
            match errand::ask(self.front, *node, key, Request::Read).await {
                Some(Reply::Holds(held)) => Some(held),
                _ => None,
            }
        });
        join_all(reads).await.into_iter().collect()
    }
}

/// What each node holds of each key up to the bound: the accepted ballot, zero for nothing.
fn copies(pages: Vec<Option<PageReply>>, bound: Option<&Key>) -> BTreeMap<Key, Vec<Ballot>> {
    let nodes = pages.len();
    let mut copies: BTreeMap<Key, Vec<Ballot>> = BTreeMap::new();
    for (node, page) in pages.into_iter().enumerate() {
        for record in page.into_iter().flat_map(|page| page.records) {
            if bound.is_none_or(|bound| record.key <= *bound) {
                let by_node = copies.entry(record.key).or_insert_with(|| vec![Ballot::ZERO; nodes]);
                by_node[node] = record.held.accepted;
            }
        }
    }
    copies
}
