//! Who votes: the cluster's first start, nodes that come back, lost disks, and what nodes remember of each other.
//!
//! `register::membership` decides; this loop asks every node how it is, says what the plan says, and does so again until the plan is empty.
//! Every kvfront does it; each request may be made by several of them, late or twice.
//!
//! On top of what the nodes remember, this kvfront knows the highest commit that each incarnation has shown it. A node that shows less
//! under the same incarnation was given an old copy of its disk, though no other node was told of the commits in between.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use register::membership::{NodeRequest, NodeStatus, Peer, Seen, plan};
use register::{Ballot, HlcTime, Standing};
use service::{Heartbeat, Shutdown};
use tokio::time::Instant;

use crate::front::Front;
use crate::transport::why_not_voting;
use crate::upkeep::Upkeep;

/// How often every node is asked how it is, when nothing calls for it sooner.
const MEMBERSHIP_EVERY: Duration = Duration::from_secs(1);
/// A node is told no more often that another one has merely got on: each time is a durable write there.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);
/// Plans of one round; a first start needs three.
const PLANS_MAX: usize = 16;

/// What the nodes last said of themselves, for whoever needs to know who votes.
#[derive(Debug)]
pub(crate) struct Roster(Mutex<Vec<Option<NodeStatus>>>);

impl Roster {
    pub(crate) fn new(nodes: usize) -> Self {
        Self(Mutex::new(vec![None; nodes]))
    }

    /// By node; `None` for those that did not answer when last asked.
    pub(crate) fn snapshot(&self) -> Vec<Option<NodeStatus>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, seen: &[Seen]) {
        let statuses = seen.iter().map(|seen| seen.status.clone()).collect();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = statuses;
    }
}

/// Above any ballot that can have been drawn by now, by whatever clock.
pub(crate) fn above_all(front: &Front) -> Ballot {
    // Another kvfront may be that far ahead of a node, and the node that far ahead of us. By the hybrid clock, as the wall clock may have
    // been set back since the nodes were asked.
    let latest_ms = front
        .clocks
        .tick()
        .unix_ms()
        .saturating_add(front.clocks.max_skew_ms().saturating_mul(2));
    Ballot {
        time: HlcTime::from_unix_ms(latest_ms),
        incarnation: u64::MAX,
    }
}

/// Runs until the stop.
pub(crate) async fn run(front: Arc<Front>, upkeep: Arc<Upkeep>, beat: Heartbeat, stop: Shutdown) {
    let mut news = front.transport.news();
    let roster = &upkeep.roster;
    let mut told = Told::default();
    loop {
        news.mark_unchanged();
        tokio::select! {
            () = stop.stopped() => return,
            () = round(&front, roster, &mut told) => {}
        }
        match missing_votes(&front, &roster.snapshot()) {
            None => beat.ok(),
            Some(missing) => beat.failed(missing),
        }
        tokio::select! {
            () = stop.stopped() => return,
            () = tokio::time::sleep(MEMBERSHIP_EVERY) => {}
            _ = news.changed() => {}
        }
    }
}

/// Says who does not vote, when those who do are too few.
fn missing_votes(front: &Front, statuses: &[Option<NodeStatus>]) -> Option<String> {
    let why = |(node, status): (usize, &Option<NodeStatus>)| {
        let why = match status {
            Some(status) => why_not_voting(status.standing)?,
            None => "no answer",
        };
        Some(format!("{}: {why}", front.ring.backends()[node]))
    };
    let missing: Vec<_> = statuses.iter().enumerate().filter_map(why).collect();
    let too_many = missing.len() > front.ring.may_be_missing();
    too_many.then(|| format!("too few nodes vote; {}", missing.join("; ")))
}

/// Asks every node how it is.
async fn ask_all(front: &Front) -> Vec<Seen> {
    join_all((0..front.transport.len()).map(|node| async move {
        let answer = front.transport.ask_node(node, NodeRequest::Status).await;
        Seen {
            name: Arc::clone(&front.ring.backends()[node].name),
            status: answer.ok().map(|answer| answer.status),
        }
    }))
    .await
}

/// Whom an admission is for: the node, the incarnation and the commit number it showed.
fn admission((node, request): &(usize, NodeRequest)) -> Option<(usize, (u64, u64))> {
    match request {
        NodeRequest::Admit { incarnation, commit } => Some((*node, (*incarnation, *commit))),
        _ => None,
    }
}

/// Asks all, then plans and says until there is nothing left to say, or nothing gets on.
async fn round(front: &Front, roster: &Roster, told: &mut Told) {
    let mut seen = ask_all(front).await;
    // As what a node to be admitted was seen, before the others were asked last.
    let mut compared: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
    for _ in 0..PLANS_MAX {
        roster.set(&seen);
        let above = above_all(front);
        let mut planned = plan(&seen, front.ring.may_be_missing(), above);
        catch_old_copies(&mut planned, &seen, above, |node, incarnation| {
            front.transport.commit_shown(node, incarnation)
        });
        if front.ring.list_len() == 1 {
            keep_what_nobody_else_has(&mut planned, &seen);
        }
        let admitted: Vec<_> = planned.iter().filter_map(admission).collect();
        if admitted.iter().any(|(node, shown)| compared.get(node) != Some(shown)) {
            // What the others remembered when they were asked may be older than the end of the node's last run: ask once more.
            compared.extend(admitted);
            seen = ask_all(front).await;
            continue;
        }
        let planned = told.worth_saying(planned, &seen, Instant::now());
        if planned.is_empty() {
            return;
        }
        let got_on = join_all(planned.into_iter().map(|(node, requests)| say(front, node, requests))).await;
        let mut any = false;
        for (node, statuses) in got_on {
            for status in statuses {
                any |= seen[node].status.as_ref() != Some(&status);
                seen[node].status = Some(status);
            }
        }
        if !any {
            return;
        }
    }
    roster.set(&seen);
}

/// Says these to one node, one after the other; what it answered, as far as it did.
async fn say(front: &Front, node: usize, requests: Vec<NodeRequest>) -> (usize, Vec<NodeStatus>) {
    let backend = &front.ring.backends()[node];
    let mut statuses = Vec::new();
    for request in requests {
        match front.transport.ask_node(node, request.clone()).await {
            Ok(answer) => {
                match &request {
                    NodeRequest::Admit { .. } if answer.done => {
                        tracing::info!(node = %backend, "node admitted: it votes")
                    }
                    NodeRequest::Refill { generation, .. } if answer.done => {
                        tracing::warn!(node = %backend, generation, "the node's disk was lost or is an old copy; it will be filled");
                    }
                    _ => {}
                }
                statuses.push(answer.status);
            }
            Err(error) => {
                tracing::debug!(node = %backend, %error, ?request, "not said");
                // In their order or not at all: a node that votes before it remembers who was to begin with it would, with the third node
                // away, leave that one waiting.
                break;
            }
        }
    }
    (node, statuses)
}

/// Replaces what is planned for nodes that show fewer commits than they have shown us before, under the same incarnation.
fn catch_old_copies(
    planned: &mut Vec<(usize, NodeRequest)>,
    seen: &[Seen],
    above: Ballot,
    commit_shown: impl Fn(usize, u64) -> Option<u64>,
) {
    for (node, status) in seen.iter().enumerate() {
        let Some(status) = &status.status else { continue };
        let counts = !matches!(status.standing, Standing::Filling { .. });
        let Some(shown) = commit_shown(node, status.incarnation).filter(|shown| counts && *shown > status.commit)
        else {
            continue;
        };
        let is_refill = |request: &NodeRequest| matches!(request, NodeRequest::Refill { .. });
        if planned.iter().any(|(to, request)| *to == node && is_refill(request)) {
            continue;
        }
        let remembered = seen.iter().filter_map(|other| other.status.as_ref());
        let remembered = remembered.flat_map(|other| &other.peers);
        let generations = remembered
            .filter(|peer| peer.name == seen[node].name)
            .map(|peer| peer.generation);
        planned.retain(|(to, _)| *to != node);
        planned.push((
            node,
            NodeRequest::Refill {
                incarnation: status.incarnation,
                if_commit_below: Some(shown),
                generation: generations.fold(status.generation, u64::max) + 1,
                above,
            },
        ));
    }
}

/// Where every key is on one node only, a disk that went back in time cannot be filled from anywhere: at the end of the filling, what it still
/// holds would be dropped. Such a node counts as it is; what was lost is lost.
fn keep_what_nobody_else_has(planned: &mut Vec<(usize, NodeRequest)>, seen: &[Seen]) {
    planned.retain_mut(|(node, request)| {
        let (NodeRequest::Refill { incarnation, .. }, Some(status)) = (&*request, &seen[*node].status) else {
            return true;
        };
        match status.standing {
            Standing::Returned => {
                tracing::warn!(node = %seen[*node].name, "the node's disk is an old copy, and nobody else has its keys: they are as they were then");
                *request = NodeRequest::Admit {
                    incarnation: *incarnation,
                    commit: status.commit,
                };
                true
            }
            Standing::Voting => false,
            // Nothing that anybody has counted on.
            Standing::Blank | Standing::Filling { .. } => true,
        }
    });
}

/// When each node was last told that another has got on.
#[derive(Debug, Default)]
struct Told(BTreeMap<(usize, Arc<str>), Instant>);

impl Told {
    /// By node what is to be said now, memories of several nodes in one request.
    fn worth_saying(
        &mut self,
        planned: Vec<(usize, NodeRequest)>,
        seen: &[Seen],
        now: Instant,
    ) -> Vec<(usize, Vec<NodeRequest>)> {
        let mut by_node: BTreeMap<usize, (Vec<Peer>, Vec<NodeRequest>)> = BTreeMap::new();
        for (node, request) in planned {
            let (memories, others) = by_node.entry(node).or_default();
            match request {
                NodeRequest::Remember { peers } => {
                    let known = seen[node].status.as_ref().map_or(&[][..], |status| &status.peers);
                    memories.extend(peers.into_iter().filter(|peer| self.is_due(node, peer, known, now)));
                }
                request => others.push(request),
            }
        }
        let requests = by_node.into_iter().map(|(node, (peers, mut requests))| {
            if !peers.is_empty() {
                requests.insert(0, NodeRequest::Remember { peers });
            }
            (node, requests)
        });
        requests.filter(|(_, requests)| !requests.is_empty()).collect()
    }

    fn is_due(&mut self, node: usize, peer: &Peer, known: &[Peer], now: Instant) -> bool {
        let is_progress = known.iter().any(|old| {
            old.name == peer.name && old.generation == peer.generation && old.incarnation == peer.incarnation
        });
        let last = self.0.entry((node, Arc::clone(&peer.name)));
        match last {
            std::collections::btree_map::Entry::Occupied(last)
                if is_progress && now.duration_since(*last.get()) < PROGRESS_EVERY =>
            {
                false
            }
            last => {
                last.insert_entry(now);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(incarnation: u64, commit: u64, standing: Standing) -> NodeStatus {
        NodeStatus {
            generation: 1,
            incarnation,
            standing,
            commit,
            ..NodeStatus::default()
        }
    }

    fn seen(statuses: Vec<Option<NodeStatus>>) -> Vec<Seen> {
        let named = |(place, status)| Seen {
            name: format!("n{place}").into(),
            status,
        };
        statuses.into_iter().enumerate().map(named).collect()
    }

    fn peer(place: usize, incarnation: u64, commit: u64) -> Peer {
        Peer {
            name: format!("n{place}").into(),
            generation: 1,
            incarnation,
            commit,
        }
    }

    #[test]
    fn a_node_that_shows_less_than_it_showed_us_is_filled() {
        let above = Ballot {
            time: HlcTime::from_unix_ms(9),
            incarnation: u64::MAX,
        };
        let standings = [Standing::Blank, Standing::Voting, Standing::Returned];
        for standing in standings.into_iter().chain([Standing::Filling { above }]) {
            let mut known = status(20, 8, Standing::Voting);
            known.peers = vec![Peer {
                generation: 4,
                ..peer(0, 10, 3)
            }];
            let seen = seen(vec![Some(status(10, 5, standing)), Some(known), None]);
            let admit = (
                0,
                NodeRequest::Admit {
                    incarnation: 10,
                    commit: 5,
                },
            );
            let remember = (
                1,
                NodeRequest::Remember {
                    peers: vec![peer(0, 10, 5)],
                },
            );
            let mut planned = vec![admit.clone(), remember.clone()];
            catch_old_copies(&mut planned, &seen, above, |_, incarnation| {
                (incarnation == 10).then_some(6)
            });
            if standing == (Standing::Filling { above }) {
                assert_eq!(planned, [admit, remember], "what it held does not count any more");
                continue;
            }
            let refill = NodeRequest::Refill {
                incarnation: 10,
                if_commit_below: Some(6),
                generation: 5,
                above,
            };
            assert_eq!(planned, [remember, (0, refill)]);
        }
    }

    #[test]
    fn a_node_that_has_got_on_is_left_alone() {
        let seen = seen(vec![Some(status(10, 5, Standing::Voting))]);
        let mut planned = Vec::new();
        catch_old_copies(&mut planned, &seen, Ballot::ZERO, |_, _| Some(5));
        assert!(planned.is_empty());
    }

    #[test]
    fn news_is_told_at_once_and_progress_now_and_then() {
        let mut other = status(20, 8, Standing::Voting);
        other.peers = vec![peer(0, 10, 3)];
        let seen = seen(vec![Some(status(10, 5, Standing::Voting)), Some(other)]);
        let say = |told: &mut Told, peer: Peer, now| {
            let planned = vec![(1, NodeRequest::Remember { peers: vec![peer] })];
            !told.worth_saying(planned, &seen, now).is_empty()
        };
        let (mut told, start) = (Told::default(), Instant::now());
        assert!(say(&mut told, peer(0, 10, 5), start));
        assert!(!say(&mut told, peer(0, 10, 6), start + PROGRESS_EVERY / 2));
        assert!(
            say(&mut told, peer(0, 11, 1), start + PROGRESS_EVERY / 2),
            "another incarnation"
        );
        assert!(say(&mut told, peer(0, 10, 6), start + PROGRESS_EVERY * 2));
    }

    #[test]
    fn memories_of_several_nodes_go_in_one_request() {
        let seen = seen(vec![None, None, Some(status(1, 1, Standing::Blank))]);
        let remember = |place| {
            (
                2,
                NodeRequest::Remember {
                    peers: vec![peer(place, 7, 1)],
                },
            )
        };
        let admit = NodeRequest::Admit {
            incarnation: 1,
            commit: 0,
        };
        let planned = vec![remember(0), (2, admit.clone()), remember(1)];
        let said = Told::default().worth_saying(planned, &seen, Instant::now());
        let both = NodeRequest::Remember {
            peers: vec![peer(0, 7, 1), peer(1, 7, 1)],
        };
        assert_eq!(said, [(2, vec![both, admit])]);
    }
}
