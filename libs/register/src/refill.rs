//! One key of a node whose disk was lost, one small state machine per key.
//!
//! The other nodes of the key's list are asked. Once a quorum of them holds exactly one state that was accepted above the node's new floor
//! it is chosen, and was chosen without the node; a home is then given it. Before that, the key is to be settled (which the others can do
//! alone, as they are a quorum): what was chosen with the help of the lost disk is on at least one of them, and whatever the lost disk had
//! promised or taken below its floor is overtaken.

use crate::ballot::Ballot;
use crate::message::{Reply, Request};
use crate::state::State;

/// What happens to a refill.
#[derive(Debug, Clone, PartialEq)]
pub enum RefillEvent {
    /// Begin. Given once.
    Start,
    /// A node answered.
    Reply {
        /// Round of the request it answers.
        round: u32,
        /// Who answered.
        rank: usize,
        /// What it said.
        reply: Reply,
    },
    /// A node did not answer.
    Failed {
        /// Round of the request.
        round: u32,
        /// Who did not answer.
        rank: usize,
    },
}

/// What a refill wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum RefillAction {
    /// Send this to the node of this rank, once, and report its answer or failure with the same round.
    Send {
        /// Round to report with.
        round: u32,
        /// To whom.
        rank: usize,
        /// What.
        request: Request,
    },
    /// Run [`Operation::settle`](crate::proposer::Operation::settle) on the key, at a ballot above the node's floor, and begin anew.
    Settle,
    /// It has ended: true when the node may vote as far as this key is concerned.
    Done(bool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Asking,
    Giving,
    Checking,
    Ended,
}

/// One key on its way back to a node.
#[derive(Debug, Clone)]
pub struct Refill {
    above: Ballot,
    homes: usize,
    nodes: usize,
    /// Rank of the node that is being filled.
    target: usize,
    phase: Phase,
    round: u32,
    given: Ballot,
    answers: Vec<Option<Reply>>,
    outstanding: usize,
}

impl Refill {
    /// A key with a list of `nodes`, the first `homes` of which are homes; the node of rank `target` is being filled above `above`.
    #[must_use]
    pub fn new(above: Ballot, homes: usize, nodes: usize, target: usize) -> Self {
        Self {
            above,
            homes,
            nodes,
            target,
            phase: Phase::Asking,
            round: 0,
            given: Ballot::ZERO,
            answers: Vec::new(),
            outstanding: 0,
        }
    }

    /// Takes one event, gives what is to be done about it. After `Settle` or `Done` nothing more comes.
    pub fn handle(&mut self, event: RefillEvent) -> Vec<RefillAction> {
        match event {
            RefillEvent::Start if self.phase == Phase::Asking && self.round == 0 => {
                let all: Vec<usize> = (0..self.nodes).collect();
                self.send(&all, &Request::Read)
            }
            RefillEvent::Reply { round, rank, reply } if round == self.round => self.answer(rank, Some(reply)),
            RefillEvent::Failed { round, rank } if round == self.round => self.answer(rank, None),
            _ => Vec::new(),
        }
    }

    fn answer(&mut self, rank: usize, reply: Option<Reply>) -> Vec<RefillAction> {
        let Some(slot) = self.answers.get_mut(rank).filter(|_| self.phase != Phase::Ended) else {
            return Vec::new();
        };
        *slot = reply;
        self.outstanding = self.outstanding.saturating_sub(1);
        if self.outstanding > 0 {
            return Vec::new();
        }
        match self.phase {
            Phase::Asking => self.judge(),
            Phase::Giving => {
                // An `Installed` may also mean "must not be held any more": look.
                self.phase = Phase::Checking;
                self.send(&[self.target], &Request::Read)
            }
            Phase::Checking => self.judge_gift(),
            Phase::Ended => Vec::new(),
        }
    }

    /// The ballot a node said to hold; none when it said nothing.
    fn accepted(&self, rank: usize) -> Option<Ballot> {
        match &self.answers[rank] {
            Some(Reply::Holds(held)) => Some(held.accepted),
            _ => None,
        }
    }

    fn judge(&mut self) -> Vec<RefillAction> {
        if self.accepted(self.target).is_some_and(|accepted| accepted > self.above) {
            return self.end(RefillAction::Done(true));
        }
        let others = || (0..self.nodes).filter(|rank| *rank != self.target);
        let quorum = self.nodes / 2 + 1;
        if others().filter(|rank| self.accepted(*rank).is_some()).count() < quorum.min(self.nodes - 1) {
            return self.end(RefillAction::Done(false));
        }
        let newest = others()
            .filter_map(|rank| self.accepted(rank))
            .max()
            .unwrap_or_default();
        let exact = others().filter(|rank| self.accepted(*rank) == Some(newest)).count();
        if newest.is_zero() {
            // Dropped by all since it was listed; what the node may have held of it lies below everybody's floor.
            return self.end(RefillAction::Done(true));
        }
        if newest <= self.above || exact < quorum {
            return self.end(RefillAction::Settle);
        }
        if self.target >= self.homes {
            // At rest a spare holds nothing of the key.
            return self.end(RefillAction::Done(true));
        }
        let Some(state) = others().find_map(|rank| self.state_at(rank, newest)) else {
            return self.end(RefillAction::Done(false));
        };
        self.phase = Phase::Giving;
        self.given = newest;
        let install = Request::Install { ballot: newest, state };
        self.send(&[self.target], &install)
    }

    fn judge_gift(&mut self) -> Vec<RefillAction> {
        let filled = self
            .accepted(self.target)
            .is_some_and(|accepted| accepted >= self.given);
        let end = match &self.answers[self.target] {
            Some(_) if filled => RefillAction::Done(true),
            None => RefillAction::Done(false),
            // Its floor was raised meanwhile, by keys that were there already and have been dropped again. A ballot of now passes.
            Some(_) => RefillAction::Settle,
        };
        self.end(end)
    }

    fn state_at(&self, rank: usize, ballot: Ballot) -> Option<State> {
        match &self.answers[rank] {
            Some(Reply::Holds(held)) if held.accepted == ballot => held.state.clone(),
            _ => None,
        }
    }

    fn send(&mut self, ranks: &[usize], request: &Request) -> Vec<RefillAction> {
        self.round += 1;
        self.answers = vec![None; self.nodes];
        self.outstanding = ranks.len();
        let send = |rank: &usize| RefillAction::Send {
            round: self.round,
            rank: *rank,
            request: request.clone(),
        };
        ranks.iter().map(send).collect()
    }

    fn end(&mut self, last: RefillAction) -> Vec<RefillAction> {
        self.phase = Phase::Ended;
        vec![last]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acceptor::{Change, decide_as};
    use crate::ballot::HlcTime;
    use crate::membership::Standing;
    use crate::state::{Lineage, Record};

    fn ballot(time: u64) -> Ballot {
        Ballot {
            time: HlcTime::from_bits(time),
            incarnation: 1,
        }
    }

    fn accept(time: u64) -> Request {
        let state = State {
            value: Some("1".into()),
            version: ballot(time),
            fence: 0,
            expires_at_ms: None,
            lineage: Lineage::default(),
        };
        Request::Accept {
            ballot: ballot(time),
            state,
            blind: false,
            reserve: None,
            hint_for: None,
        }
    }

    struct Node {
        standing: Standing,
        record: Option<Record>,
        floor: Ballot,
    }

    impl Node {
        fn ask(&mut self, request: &Request) -> Reply {
            let decision = decide_as(self.standing, self.record.as_ref(), self.floor, request);
            match decision.change {
                Change::Nothing => {}
                Change::Put(record) => self.record = Some(record),
                Change::Remove { floor } => (self.record, self.floor) = (None, floor),
            }
            decision.reply
        }
    }

    /// Two voting nodes, and node `target` being filled above ballot 10.
    fn nodes(target: usize) -> Vec<Node> {
        let node = |rank| Node {
            standing: if rank == target {
                Standing::Filling { above: ballot(10) }
            } else {
                Standing::Voting
            },
            record: None,
            floor: ballot(10),
        };
        (0..3).map(node).collect()
    }

    fn run(nodes: &mut [Node], target: usize, dead: Option<usize>) -> RefillAction {
        let mut machine = Refill::new(ballot(10), 2, 3, target);
        let mut actions = machine.handle(RefillEvent::Start);
        while !actions.is_empty() {
            let mut next = Vec::new();
            for action in actions {
                let RefillAction::Send { round, rank, request } = action else {
                    return action;
                };
                let event = if dead == Some(rank) {
                    RefillEvent::Failed { round, rank }
                } else {
                    let reply = nodes[rank].ask(&request);
                    RefillEvent::Reply { round, rank, reply }
                };
                next.extend(machine.handle(event));
            }
            actions = next;
        }
        panic!("the refill stopped without an end")
    }

    #[test]
    fn a_home_is_given_what_the_others_chose_without_it() {
        let mut nodes = nodes(0);
        assert!(matches!(nodes[0].ask(&Request::Read), Reply::Failed { .. }));
        assert!(matches!(nodes[0].ask(&accept(12)), Reply::Failed { .. }));
        for other in [1, 2] {
            nodes[other].ask(&accept(11));
        }
        assert_eq!(run(&mut nodes, 0, None), RefillAction::Done(true));
        let record = nodes[0].record.as_ref().unwrap();
        assert_eq!((record.accepted, record.floor), (ballot(11), ballot(10)));
        assert_eq!(
            nodes[0].ask(&accept(12)),
            Reply::Accepted { reserved: false },
            "it counts for this key now"
        );
        assert_eq!(run(&mut nodes, 0, None), RefillAction::Done(true), "already there");
    }

    #[test]
    fn what_is_not_chosen_above_the_floor_is_settled_first() {
        let mut nodes = nodes(0);
        nodes[1].floor = Ballot::ZERO;
        nodes[1].ask(&accept(9));
        assert_eq!(
            run(&mut nodes, 0, None),
            RefillAction::Settle,
            "chosen with the lost disk, perhaps"
        );
        nodes[1].ask(&accept(11));
        assert_eq!(run(&mut nodes, 0, None), RefillAction::Settle, "only one holds it");
        assert_eq!(nodes[0].record, None);
    }

    #[test]
    fn a_floor_that_was_raised_while_filling_is_passed_by_settling_once_more() {
        let mut nodes = nodes(0);
        for other in [1, 2] {
            nodes[other].ask(&accept(11));
        }
        // Another key was given, deleted, and collected.
        nodes[0].floor = ballot(12);
        assert_eq!(run(&mut nodes, 0, None), RefillAction::Settle);
        for other in [1, 2] {
            nodes[other].ask(&accept(13));
        }
        assert_eq!(run(&mut nodes, 0, None), RefillAction::Done(true));
    }

    #[test]
    fn both_others_are_needed() {
        let mut nodes = nodes(0);
        for other in [1, 2] {
            nodes[other].ask(&accept(11));
        }
        assert_eq!(run(&mut nodes, 0, Some(2)), RefillAction::Done(false));
        assert_eq!(
            run(&mut nodes, 0, Some(0)),
            RefillAction::Done(false),
            "it was given, but did it arrive?"
        );
    }

    #[test]
    fn a_spare_needs_nothing() {
        let mut nodes = nodes(2);
        for other in [0, 1] {
            nodes[other].ask(&accept(11));
        }
        assert_eq!(run(&mut nodes, 2, None), RefillAction::Done(true));
        assert_eq!(nodes[2].record, None);
    }

    #[test]
    fn an_old_record_of_a_disk_that_went_back_is_replaced_and_its_promise_forgotten() {
        let mut nodes = nodes(0);
        let mut old = Record::empty(Ballot::ZERO);
        (old.promised, old.accepted) = (ballot(8), ballot(7));
        nodes[0].record = Some(old);
        for other in [1, 2] {
            nodes[other].ask(&accept(11));
        }
        assert_eq!(run(&mut nodes, 0, None), RefillAction::Done(true));
        let record = nodes[0].record.as_ref().unwrap();
        assert_eq!((record.accepted, record.promised), (ballot(11), Ballot::ZERO));
    }
}
