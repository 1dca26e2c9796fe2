//! Which nodes vote: what coordinators ask of nodes about themselves, and the filling of a node whose disk was lost, as kvfront does it.

use register::membership::{NodeRequest, NodeStatus, Peer, Seen, decide, plan};
use register::refill::Refill;
use register::{Ballot, Epoch, HlcTime, Standing};

use crate::front::small_key;
use crate::task::Task;
use crate::world::{MAX_SKEW_MS, US_PER_MS, What, World, small};

/// There is one ring in every world.
const EPOCH: Epoch = Epoch(1);
/// How long a coordinator collects what nodes say of themselves before it makes something of it, in microseconds.
const LISTEN_US: u64 = 100 * US_PER_MS;
/// A coordinator that is told of a node's start looks at it within this time, in microseconds.
const LOOK_WITHIN_US: u64 = 200 * US_PER_MS;

/// A node that is filled again.
#[derive(Debug)]
pub(crate) struct Filling {
    /// Its tasks carry this, so that those of an earlier one are told apart.
    number: u32,
    node: usize,
    incarnation: u64,
    above: Ballot,
    /// Nodes that have raised their floors, as bits.
    raised: u32,
    /// Keys that are under way; none while they have not been listed.
    under_way: Option<usize>,
    /// One of them has to be gone through again.
    again: bool,
}

impl World<'_> {
    /// At the beginning all nodes vote and know each other, or nobody knows anybody.
    pub(crate) fn acquaint(&mut self) {
        if self.kind.first_start {
            self.look_at_nodes_soon();
            return;
        }
        let names = |world: &mut Self, node: usize| world.arena.text(u32::from(small(node)));
        for node in 0..self.nodes.len() {
            let mut peers = Vec::new();
            for other in (0..self.nodes.len()).filter(|other| *other != node) {
                peers.push(Peer {
                    name: names(self, other),
                    generation: 1,
                    incarnation: self.nodes[other].disk.status.incarnation,
                    commit: 0,
                });
            }
            let status = &mut self.nodes[node].disk.status;
            status.generation = 1;
            status.standing = Standing::Voting;
            status.epoch = Some(EPOCH);
            status.peers = peers;
        }
        if self.plan.watches_nodes {
            for front in 0..self.fronts.len() {
                self.node_pass_soon(front, self.plan.membership_us);
            }
        }
    }

    /// A node has started: coordinators notice.
    pub(crate) fn look_at_nodes_soon(&mut self) {
        for front in 0..self.fronts.len() {
            self.node_pass_soon(front, LOOK_WITHIN_US);
        }
    }

    pub(crate) fn node_pass_soon(&mut self, front: usize, within_us: u64) {
        if std::mem::replace(&mut self.fronts[front].asks_again, true) {
            self.fronts[front].and_again = true;
            return;
        }
        let after = self.rng.range(US_PER_MS, within_us);
        let (front, start) = (small(front), self.fronts[front].start);
        self.after(after, What::NodePass { front, start });
    }

    /// A coordinator asks every node how it is.
    pub(crate) fn node_pass(&mut self, front: u8, start: u32) {
        let index = usize::from(front);
        if self.fronts[index].start != start {
            return;
        }
        let nodes = self.nodes.len();
        self.fronts[index].pass += 1;
        self.fronts[index].seen = vec![None; nodes];
        for node in 0..nodes {
            self.ask_node(index, node, NodeRequest::Status);
        }
        self.after(LISTEN_US, What::NodePlan { front, start });
    }

    fn ask_node(&mut self, front: usize, node: usize, request: NodeRequest) {
        let wall_ms = self.wall_ms(self.fronts[front].offset_ms);
        let what = What::NodeAsk {
            front: small(front),
            start: self.fronts[front].start,
            pass: self.fronts[front].pass,
            node: small(node),
            clock: self.fronts[front].clock().tick(wall_ms),
            request: Box::new(request),
        };
        if !self.chance(self.plan.loss_per_mille) {
            let after = self.delay_us();
            self.after(after, what);
        }
    }

    pub(crate) fn node_ask(
        &mut self,
        front: u8,
        (start, pass): (u32, u32),
        node: u8,
        clock: HlcTime,
        request: &NodeRequest,
    ) {
        let (index, from) = (usize::from(node), usize::from(front));
        if !self.nodes[index].up || self.fronts[from].requests_cut >> index & 1 == 1 {
            return;
        }
        let wall_ms = self.wall_ms(self.nodes[index].offset_ms);
        if self.nodes[index].observe_clock(clock, wall_ms).is_err() {
            return;
        }
        let fresh = self.new_incarnation();
        let shell = &mut self.nodes[index];
        let decision = decide(&shell.disk.status, request, fresh, EPOCH);
        if shell.full && decision.status.is_some() {
            return;
        }
        shell.keep(decision.status, decision.drop);
        let raised = match request {
            NodeRequest::Raise { floor } if decision.done => Some(*floor),
            _ => None,
        };
        let what = What::NodeTold {
            front,
            start,
            pass,
            node,
            clock: shell.reading(wall_ms),
            raised,
            status: Box::new(shell.disk.status.clone()),
        };
        let cut = self.fronts[from].answers_cut >> index & 1 == 1;
        if !cut && !self.chance(self.plan.loss_per_mille) {
            let after = self.delay_us();
            self.after(after, what);
        }
    }

    pub(crate) fn node_told(
        &mut self,
        front: u8,
        (start, pass): (u32, u32),
        node: u8,
        clock: HlcTime,
        raised: Option<Ballot>,
        status: NodeStatus,
    ) {
        let wall_ms = self.wall_ms(self.fronts[usize::from(front)].offset_ms);
        let shell = &mut self.fronts[usize::from(front)];
        if shell.start != start || shell.clock().observe(clock, wall_ms).is_err() {
            return;
        }
        if let (Some(floor), Some(filling)) = (raised, &mut shell.filling)
            && floor == filling.above
        {
            filling.raised |= 1 << node;
        }
        // An answer to what was asked before says nothing of now, and an admission may rest on it.
        if shell.pass == pass
            && let Some(seen) = shell.seen.get_mut(usize::from(node))
        {
            *seen = Some(status);
        }
    }

    /// What is said to whom, after what was heard.
    pub(crate) fn node_plan(&mut self, front: u8, start: u32) {
        let index = usize::from(front);
        if self.fronts[index].start != start {
            return;
        }
        self.fronts[index].asks_again = false;
        let and_again = std::mem::take(&mut self.fronts[index].and_again);
        let seen: Vec<Seen> = std::mem::take(&mut self.fronts[index].seen)
            .into_iter()
            .enumerate()
            .map(|(node, status)| Seen {
                name: self.arena.text(u32::from(small(node))),
                status,
            })
            .collect();
        let wall_ms = self.wall_ms(self.fronts[index].offset_ms);
        // Nobody's ballot is further ahead than two machines can be apart: of its hybrid clock, as its wall clock may just have jumped back.
        let now_ms = wall_ms.max(self.fronts[index].clock().last().unix_ms());
        let above = Ballot {
            time: HlcTime::from_unix_ms(now_ms + 2 * MAX_SKEW_MS),
            incarnation: 0,
        };
        let may_be_missing = usize::from(self.kind.list - (self.kind.list / 2 + 1));
        let said = plan(&seen, may_be_missing, above);
        let all_vote = seen.iter().all(|seen| {
            seen.status
                .as_ref()
                .is_some_and(|status| status.standing == Standing::Voting)
        });
        for (node, request) in said {
            self.ask_node(index, node, request);
        }
        self.fill(index, &seen);
        if !all_vote || and_again {
            self.node_pass_soon(index, 2 * LOOK_WITHIN_US);
        } else if self.plan.watches_nodes && !self.calm {
            self.node_pass_soon(index, self.plan.membership_us);
        }
    }

    /// Goes on with the filling of a node whose disk was lost.
    fn fill(&mut self, front: usize, seen: &[Seen]) {
        let target = seen.iter().enumerate().find_map(|(node, seen)| match &seen.status {
            Some(status) => match status.standing {
                Standing::Filling { above } => Some((node, status.incarnation, above)),
                _ => None,
            },
            None => None,
        });
        let Some((node, incarnation, above)) = target else {
            return;
        };
        let is_same =
            |filling: &Filling| (filling.node, filling.incarnation, filling.above) == (node, incarnation, above);
        if !self.fronts[front].filling.as_ref().is_some_and(is_same) {
            let number = self.new_number();
            self.fronts[front].filling = Some(Filling {
                number,
                node,
                incarnation,
                above,
                raised: 1 << node,
                under_way: None,
                again: false,
            });
        }
        let Some(filling) = &self.fronts[front].filling else {
            return;
        };
        let everybody = (1_u32 << self.nodes.len()) - 1;
        if filling.raised != everybody {
            let lacking = everybody & !filling.raised;
            for other in (0..self.nodes.len()).filter(|other| lacking >> other & 1 == 1) {
                self.ask_node(front, other, NodeRequest::Raise { floor: above });
            }
            return;
        }
        if filling.under_way.is_none() {
            self.refill_keys(front, node, above);
        }
    }

    /// Lists what the others hold of the node's keys, and goes through it.
    fn refill_keys(&mut self, front: usize, target: usize, above: Ballot) {
        let cut = self.fronts[front].requests_cut | self.fronts[front].answers_cut;
        let reachable = |node: usize| self.nodes[node].votes() && !self.nodes[node].paused && cut >> node & 1 == 0;
        if !(0..self.nodes.len()).all(|node| node == target || reachable(node)) {
            return;
        }
        let (homes, list) = (usize::from(self.kind.homes), usize::from(self.kind.list));
        let mut keys = Vec::new();
        for (key, place) in self.places.iter().enumerate() {
            let Some(rank) = place.nodes.iter().position(|node| usize::from(*node) == target) else {
                continue;
            };
            let held = |node: &u8| {
                let record = self.nodes[usize::from(*node)].disk.records[key].as_ref();
                usize::from(*node) != target && record.is_some_and(|record| record.state.is_some())
            };
            if place.nodes.iter().any(held) {
                keys.push((key, rank));
            }
        }
        let Some(filling) = &mut self.fronts[front].filling else {
            return;
        };
        filling.under_way = Some(keys.len());
        filling.again = false;
        let filling = filling.number;
        for (key, rank) in &keys {
            let machine = Refill::new(above, homes, list, *rank);
            self.begin_soon(front, small_key(*key), Task::Refill { machine, filling });
        }
        if keys.is_empty() {
            self.filled(front);
        }
    }

    /// A task of a coordinator has ended.
    pub(crate) fn task_ended(&mut self, front: usize, task: &Task, done: bool) {
        let Task::Refill { filling: number, .. } = task else {
            return;
        };
        let Some(filling) = &mut self.fronts[front].filling else {
            return;
        };
        if filling.number != *number {
            return;
        }
        filling.again |= !done;
        if let Some(under_way) = &mut filling.under_way {
            *under_way = under_way.saturating_sub(1);
            if *under_way == 0 {
                self.filled(front);
            }
        }
    }

    fn filled(&mut self, front: usize) {
        let Some(filling) = &mut self.fronts[front].filling else {
            return;
        };
        let (again, node) = (filling.again, filling.node);
        let vote = NodeRequest::Vote {
            incarnation: filling.incarnation,
            above: filling.above,
        };
        filling.under_way = None;
        if !again {
            self.ask_node(front, node, vote);
        }
        self.node_pass_soon(front, LOOK_WITHIN_US);
    }

    /// Whether every other node remembers more of a node than its backup holds: only then is an old copy known for what it is.
    pub(crate) fn is_remembered_beyond_backup(&mut self, node: usize) -> bool {
        let name = self.arena.text(u32::from(small(node)));
        let Some(backup) = &self.nodes[node].backup else {
            return false;
        };
        let (generation, incarnation, commit) = (
            backup.status.generation,
            backup.status.incarnation,
            backup.status.commit,
        );
        let beyond = |peer: &Peer| {
            peer.name == name
                && (peer.generation > generation || peer.incarnation == incarnation && peer.commit > commit)
        };
        let others = self.nodes.iter().enumerate().filter(|(other, _)| *other != node);
        others
            .into_iter()
            .all(|(_, other)| other.disk.status.peers.iter().any(beyond))
    }
}
