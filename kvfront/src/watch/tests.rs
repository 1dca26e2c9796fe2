//! The merger against a model: real acceptors, random schedules, and the sequence of states that a quorum read could have seen.
//!
//! A watcher takes from the nodes' feeds when it likes, is cut off and resumes at any `id` it got, and nodes forget their feeds. Whatever
//! was visible must be delivered, in order; where something is left out, the next delivery has to say so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use register::acceptor::{Change, decide, held};
use register::ballot::Clock;
use register::change::{self, Command};
use register::message::{AcceptedChange, Held, Request};
use register::{Ballot, HlcTime, Key, Record, Reply, RequestId, State};

use super::merger::{HOLE_REST_MS, Merger};
use super::position::{Cursor, Position};
use crate::ring::Preference;

const NODES: usize = 3;
const KEYS: [&str; 2] = ["a", "b"];
const INCARNATION: u64 = 7;

#[derive(Debug, Default)]
struct Node {
    records: BTreeMap<Key, Record>,
    /// When each record was last written.
    commits: BTreeMap<Key, u64>,
    feed: Vec<AcceptedChange>,
    commit: u64,
    /// The feed begins after this commit.
    begins_after: u64,
}

#[derive(Debug, Clone)]
struct Message {
    to: usize,
    key: Key,
    request: Request,
}

/// What really happened to a key.
#[derive(Debug, Default)]
struct Truth {
    /// Who ever accepted what.
    accepted: BTreeMap<Ballot, (BTreeSet<usize>, State)>,
    /// Versions a quorum read could have seen, in order; a deletion after a deletion is no change.
    visible: Vec<(Ballot, bool)>,
    /// Versions that took effect, visible or not.
    effective: BTreeSet<Ballot>,
}

impl Truth {
    fn accept(&mut self, node: usize, ballot: Ballot, state: &State) {
        let entry = self
            .accepted
            .entry(ballot)
            .or_insert_with(|| (BTreeSet::new(), state.clone()));
        entry.0.insert(node);
        if entry.0.len() < 2 {
            return;
        }
        self.effective.insert(state.version);
        self.effective
            .extend(state.lineage.changes.iter().map(|(made, _)| *made));
        let newest = self.accepted.iter().rev().find(|(_, (nodes, _))| nodes.len() >= 2);
        let (_, (_, newest)) = newest.unwrap();
        let last = self.visible.last();
        if last.is_none_or(|(version, deleted)| *version < newest.version && !(*deleted && newest.is_tombstone())) {
            self.visible.push((newest.version, newest.is_tombstone()));
        }
    }
}

struct World {
    dice: StdRng,
    now_ms: u64,
    clocks: Vec<Clock>,
    nodes: Vec<Node>,
    messages: Vec<Message>,
    truth: BTreeMap<Key, Truth>,
    requests: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let clock = |incarnation| Clock::new(incarnation, 10_000_000, HlcTime::ZERO);
        Self {
            dice: StdRng::seed_from_u64(seed),
            now_ms: 1_000_000,
            clocks: vec![clock(1), clock(2)],
            nodes: (0..NODES).map(|_| Node::default()).collect(),
            messages: Vec::new(),
            truth: BTreeMap::new(),
            requests: 0,
        }
    }

    fn ballot(&mut self) -> Ballot {
        let clock = self.dice.random_range(0..self.clocks.len());
        let seen = self.clocks.iter().map(Clock::last).max().unwrap();
        // Sometimes behind what the other has drawn, as clocks are.
        let seen = if self.dice.random_bool(0.7) {
            seen
        } else {
            HlcTime::ZERO
        };
        let now_ms = self.now_ms;
        let seen = Ballot {
            time: seen,
            incarnation: 0,
        };
        self.clocks[clock].ballot_above(seen, now_ms).unwrap()
    }

    fn ask(&mut self, to: usize, key: &Key, request: &Request) -> Reply {
        let node = &mut self.nodes[to];
        let decision = decide(node.records.get(key), Ballot::ZERO, request);
        if let Change::Put(record) = decision.change {
            node.commit += 1;
            let before = node.records.get(key).map_or(Ballot::ZERO, |record| record.accepted);
            if record.accepted > before {
                let state = record.state.clone().unwrap();
                self.truth
                    .entry(key.clone())
                    .or_default()
                    .accept(to, record.accepted, &state);
                node.feed.push(AcceptedChange {
                    commit: node.commit,
                    key: key.clone(),
                    accepted: record.accepted,
                    state,
                });
            }
            node.commits.insert(key.clone(), node.commit);
            node.records.insert(key.clone(), record);
        }
        decision.reply
    }

    fn some_nodes(&mut self, at_least: usize) -> Vec<usize> {
        let mut nodes: Vec<usize> = (0..NODES).collect();
        nodes.shuffle(&mut self.dice);
        nodes.truncate(self.dice.random_range(at_least..=NODES));
        nodes
    }

    /// The newest state of a quorum that promised, or nothing when somebody refused.
    fn prepare(&mut self, key: &Key, ballot: Ballot) -> Option<(Ballot, Option<State>)> {
        let mut newest: (Ballot, Option<State>) = (Ballot::ZERO, None);
        for node in self.some_nodes(2) {
            match self.ask(node, key, &Request::Prepare { ballot }) {
                Reply::Promised(held) if held.accepted >= newest.0 => newest = (held.accepted, held.state),
                Reply::Promised(_) => {}
                _ => return None,
            }
        }
        Some(newest)
    }

    fn send(&mut self, key: &Key, ballot: Ballot, state: &State, blind: bool) {
        for to in self.some_nodes(1) {
            let request = Request::Accept {
                ballot,
                state: state.clone(),
                blind,
                reserve: None,
                hint_for: None,
            };
            self.messages.push(Message {
                to,
                key: key.clone(),
                request,
            });
        }
    }

    /// A client does something.
    fn operate(&mut self) {
        let key = Key::data(KEYS.choose(&mut self.dice).unwrap());
        let ballot = self.ballot();
        self.requests += 1;
        let request = RequestId(self.requests);
        let command = if self.dice.random_bool(0.2) {
            Command::Delete {
                version: None,
                fence: None,
            }
        } else {
            Command::Put {
                value: self.requests.to_string().into(),
                ttl_ms: None,
                fence: None,
            }
        };
        match self.dice.random_range(0..10) {
            0..4 => {
                let state = change::blind_state(&command, ballot, request).unwrap();
                self.send(&key, ballot, &state, true);
            }
            4..8 => {
                if let Some((_, state)) = self.prepare(&key, ballot)
                    && let Some(next) = change::apply(&command, state.as_ref(), ballot, request).next
                {
                    self.send(&key, ballot, &next, false);
                }
            }
            // A read that writes back.
            8 => {
                let held = |node: &Node| node.records.get(&key).map(|r| (r.accepted, r.state.clone()));
                let newest = self
                    .some_nodes(2)
                    .into_iter()
                    .filter_map(|n| held(&self.nodes[n]))
                    .max_by_key(|h| h.0);
                if let Some((ballot, Some(state))) = newest {
                    self.send(&key, ballot, &state, true);
                }
            }
            // An identity change.
            _ => {
                if let Some((_, Some(state))) = self.prepare(&key, ballot) {
                    self.send(&key, ballot, &state, false);
                }
            }
        }
    }

    fn deliver_one(&mut self) {
        if self.messages.is_empty() {
            return;
        }
        let at = self.dice.random_range(0..self.messages.len());
        let message = if self.dice.random_bool(0.05) {
            self.messages[at].clone()
        } else {
            self.messages.swap_remove(at)
        };
        if !self.dice.random_bool(0.1) {
            self.ask(message.to, &message.key, &message.request);
        }
    }

    /// A linearizable read, all at once, and what the nodes hold then.
    fn settle(&mut self, key: &Key) -> Vec<(usize, Held)> {
        loop {
            let ballot = self.ballot();
            if let Some((_, state)) = self.prepare(key, ballot) {
                if let Some(state) = state {
                    for to in self.some_nodes(2) {
                        let request = Request::Accept {
                            ballot,
                            state: state.clone(),
                            blind: false,
                            reserve: None,
                            hint_for: None,
                        };
                        self.ask(to, key, &request);
                    }
                }
                break;
            }
        }
        let nodes = self.some_nodes(2);
        nodes
            .into_iter()
            .map(|n| (n, held(self.nodes[n].records.get(key), Ballot::ZERO)))
            .collect()
    }
}

/// One delivery as the client got it.
#[derive(Debug, Clone)]
struct Got {
    key: Key,
    version: Ballot,
    deleted: bool,
    conflated: bool,
    id: String,
}

struct Watch {
    merger: Merger,
    got: Vec<Got>,
    start: Position,
    place: Arc<Preference>,
    /// Nodes whose hole is to be filled.
    holes: BTreeSet<usize>,
    gaps: usize,
    /// Ids from before a gap are of before everything after it.
    first_id: usize,
}

impl Watch {
    fn new() -> Self {
        let cursor = Cursor {
            incarnation: INCARNATION,
            commit: 0,
        };
        let start = Position {
            newest: HlcTime::ZERO,
            cursors: (0..NODES as u64).map(|node| (node, cursor)).collect(),
            ..Position::default()
        };
        Self {
            merger: Merger::new(&[0, 1, 2], &start),
            start,
            got: Vec::new(),
            place: Arc::new(Preference {
                nodes: vec![0, 1, 2],
                names: ["x", "y", "z"].map(Arc::from).to_vec(),
                homes: 2,
            }),
            holes: BTreeSet::new(),
            gaps: 0,
            first_id: 0,
        }
    }

    fn take_from(&mut self, world: &World, node: usize, most: usize) {
        let of = &world.nodes[node];
        let cursor = self.merger.cursor(node).unwrap();
        let end = Cursor {
            commit: of.commit,
            ..cursor
        };
        if cursor.commit < of.begins_after {
            if self
                .merger
                .lost(node, end, world.clocks.iter().map(Clock::last).max().unwrap())
                >= 2
            {
                return self.gap(world);
            }
            self.holes.insert(node);
            return;
        }
        let after: Vec<_> = of
            .feed
            .iter()
            .filter(|change| change.commit > cursor.commit)
            .take(most)
            .collect();
        for change in &after {
            self.merger
                .show(world.now_ms, node, &Arc::new((*change).clone()), &self.place);
        }
        let (commit, as_of_ms) = match after.last() {
            Some(last) if after.len() == most => (last.commit, None),
            _ => (of.commit, Some(world.now_ms)),
        };
        self.merger.reached(node, Cursor { commit, ..cursor }, as_of_ms);
    }

    /// No node has forgotten anything that the watcher has not taken, or made up for.
    fn is_whole(&self, world: &World) -> bool {
        let has_all = |node: usize| self.merger.cursor(node).unwrap().commit >= world.nodes[node].begins_after;
        self.holes.is_empty() && (0..NODES).all(has_all)
    }

    fn gap(&mut self, world: &World) {
        let cursor = |node: &Node| Cursor {
            incarnation: INCARNATION,
            commit: node.commit,
        };
        let cursors: Vec<_> = world.nodes.iter().map(|node| Some(cursor(node))).collect();
        self.merger.break_off(&cursors);
        self.holes.clear();
        self.gaps += 1;
        self.start = self.merger.position();
        self.first_id = self.got.len();
    }

    fn fill(&mut self, world: &World, node: usize) {
        if !self.holes.remove(&node) {
            return;
        }
        let of = &world.nodes[node];
        let from = self.merger.before_hole(node).flatten().unwrap();
        for (key, record) in &of.records {
            if of.commits[key] > from.commit
                && let Some(state) = &record.state
            {
                let change = AcceptedChange {
                    commit: of.commits[key],
                    key: key.clone(),
                    accepted: record.accepted,
                    state: state.clone(),
                };
                self.merger.holds(world.now_ms, node, &Arc::new(change), &self.place);
            }
        }
        self.merger.hole_filled(node, world.now_ms);
    }

    fn go_on(&mut self, world: &mut World) {
        for (key, _) in self.merger.due(world.now_ms, 8) {
            let begun_ms = world.now_ms;
            let answers = world.settle(&key);
            world.now_ms += 1;
            self.merger.settled(world.now_ms, begun_ms, &key, Some(&answers));
        }
        while let Some(delivery) = self.merger.next(world.now_ms) {
            self.got.push(Got {
                key: delivery.change.key.clone(),
                version: delivery.change.state.version,
                deleted: delivery.change.state.is_tombstone(),
                conflated: delivery.conflated,
                id: self.merger.position().to_string(),
            });
        }
    }

    /// Cut off after some event, the last few of which were never read, and back with its id.
    fn resume(&mut self, world: &mut World) {
        let unread = world.dice.random_range(0..4).min(self.got.len() - self.first_id);
        self.got.truncate(self.got.len() - unread);
        let position = match self.got.last() {
            Some(last) if self.got.len() > self.first_id => last.id.parse().unwrap(),
            _ => self.start.clone(),
        };
        self.merger = Merger::new(&[0, 1, 2], &position);
        self.holes.clear();
    }
}

/// What a run is to show.
#[derive(Debug, Clone, Copy)]
struct Plan {
    /// Chance per step of taking from a node's feed.
    taking: f64,
    resuming: f64,
    losing: f64,
    /// A node forgets its feed only while the watcher has a hole in no other's.
    one_at_a_time: bool,
}

fn run(seed: u64, plan: Plan) -> (World, Watch) {
    let (mut world, mut watch) = (World::new(seed), Watch::new());
    for _ in 0..300 {
        world.now_ms += world.dice.random_range(0..20);
        match world.dice.random_range(0..3) {
            0 => world.operate(),
            _ => world.deliver_one(),
        }
        for node in 0..NODES {
            if world.dice.random_bool(plan.taking) {
                let most = world.dice.random_range(1..8);
                watch.take_from(&world, node, most);
            }
        }
        if world.dice.random_bool(plan.losing) && (!plan.one_at_a_time || watch.is_whole(&world)) {
            let node = world.dice.random_range(0..NODES);
            world.nodes[node].begins_after = world.nodes[node].commit;
        }
        if let Some(node) = watch.holes.first().copied().filter(|_| world.dice.random_bool(0.2)) {
            watch.fill(&world, node);
        }
        watch.go_on(&mut world);
        if world.dice.random_bool(plan.resuming) {
            watch.resume(&mut world);
        }
    }
    // Everything arrives, and everything is settled.
    world.messages.clear();
    for _ in 0..60 {
        world.now_ms += HOLE_REST_MS / 20;
        for node in 0..NODES {
            watch.take_from(&world, node, usize::MAX);
            watch.fill(&world, node);
        }
        watch.go_on(&mut world);
    }
    (world, watch)
}

fn history(truth: &Truth, got: &[&Got]) -> String {
    let mut lines = Vec::new();
    for (ballot, (nodes, state)) in &truth.accepted {
        lines.push(format!(
            "{ballot} of {nodes:?}: version {} value {:?}, made of {:?}",
            state.version,
            state.value,
            state
                .lineage
                .changes
                .iter()
                .map(|(made, _)| made.to_string())
                .collect::<Vec<_>>()
        ));
    }
    for (version, deleted) in &truth.visible {
        lines.push(format!("visible {version} {deleted}"));
    }
    for got in got {
        lines.push(format!("got {} {}", got.version, got.conflated));
    }
    lines.join("\n")
}

fn judge(seed: u64, world: &World, watch: &Watch, may_repeat: bool) {
    for (key, truth) in &world.truth {
        let got: Vec<&Got> = watch.got.iter().filter(|got| got.key == *key).collect();
        for pair in got.windows(2) {
            let forwards = pair[0].version < pair[1].version || may_repeat && pair[0].version == pair[1].version;
            assert!(forwards, "seed {seed}: {key:?} goes backwards: {pair:?}");
        }
        for got in &got {
            assert!(
                truth.effective.contains(&got.version),
                "seed {seed}: {key:?}: never took effect: {got:?}"
            );
        }
        if watch.gaps > 0 {
            continue;
        }
        for (version, deleted) in &truth.visible {
            let next = got.iter().find(|got| got.version >= *version);
            let exactly = next.is_some_and(|next| next.version == *version || next.conflated);
            // Gone already.
            let before = got.iter().rev().find(|got| got.version < *version);
            let told = exactly || *deleted && before.is_some_and(|before| before.deleted);
            assert!(
                told,
                "seed {seed}: {key:?}: {version} was visible; next {next:?}\n{}",
                history(truth, &got)
            );
        }
        let last = truth.visible.iter().rev().find(|(_, deleted)| !deleted);
        assert!(last.is_none_or(|(version, _)| got.iter().any(|got| got.version >= *version)));
    }
    let open = watch.merger.position();
    for (node, cursor) in &open.cursors {
        let node = usize::try_from(*node).unwrap();
        assert_eq!(
            cursor.commit, world.nodes[node].commit,
            "seed {seed}: something is held for ever"
        );
    }
}

#[test]
fn every_visible_state_is_delivered_in_order() {
    let plan = Plan {
        taking: 0.5,
        resuming: 0.0,
        losing: 0.0,
        one_at_a_time: false,
    };
    let (mut delivered, mut conflated) = (0, 0);
    for seed in 0..600 {
        let (world, watch) = run(seed, plan);
        judge(seed, &world, &watch, false);
        assert_eq!(watch.gaps, 0);
        delivered += watch.got.len();
        conflated += watch.got.iter().filter(|got| got.conflated).count();
    }
    assert!(delivered > 10_000, "{delivered}");
    assert!(
        conflated * 100 < delivered,
        "{conflated} of {delivered} say that something may be missing"
    );
}

#[test]
fn feeds_that_lag_may_conflate_and_say_so() {
    let plan = Plan {
        taking: 0.02,
        resuming: 0.0,
        losing: 0.0,
        one_at_a_time: false,
    };
    for seed in 0..600 {
        let (world, watch) = run(seed, plan);
        judge(seed, &world, &watch, false);
    }
}

#[test]
fn resuming_from_any_id_misses_nothing_and_never_goes_backwards() {
    for seed in 0..1_000 {
        let plan = Plan {
            taking: [0.05, 0.3, 0.9][usize::try_from(seed % 3).unwrap()],
            resuming: 0.05,
            losing: 0.0,
            one_at_a_time: false,
        };
        let (world, watch) = run(seed, plan);
        judge(seed, &world, &watch, true);
        assert_eq!(watch.gaps, 0);
    }
}

#[test]
fn nodes_that_forget_their_feeds_one_at_a_time_cost_nothing() {
    let plan = Plan {
        taking: 0.5,
        resuming: 0.0,
        losing: 0.02,
        one_at_a_time: true,
    };
    for seed in 0..600 {
        let (world, watch) = run(seed, plan);
        judge(seed, &world, &watch, false);
        assert_eq!(watch.gaps, 0, "seed {seed}");
    }
}

#[test]
fn what_cannot_be_made_up_for_is_a_gap_and_nothing_goes_backwards() {
    let mut gaps = 0;
    for seed in 0..600 {
        let plan = Plan {
            taking: 0.5,
            resuming: 0.02,
            losing: 0.02,
            one_at_a_time: false,
        };
        let (world, watch) = run(seed, plan);
        judge(seed, &world, &watch, true);
        gaps += watch.gaps;
    }
    assert!(gaps > 0, "the schedules are too tame");
}
