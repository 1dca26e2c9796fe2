//! One key of a node whose disk was lost, one small state machine per key.
//!
//! The other nodes of the key's list are asked. Once a quorum of them holds exactly one state that was accepted above the node's new floor
//! it is chosen, and was chosen without the node; a home is then given it. Before that, the key is to be settled (which the others can do
//! alone, as they are a quorum): what was chosen with the help of the lost disk is on at least one of them, and whatever the lost disk had
//! promised or taken below its floor is overtaken.

use crate::ballot::Ballot;
use crate::errand::{Action, Asking, Ended, Errand, end};
use crate::message::{Reply, Request};
use crate::proposer::Event;
use crate::state::State;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    New,
    Asking,
    Giving,
    Checking,
}

/// One key on its way back to a node.
///
/// Done when the node may vote as far as this key is concerned. To be settled at a ballot above the node's floor, and begun anew, when that
/// cannot be told yet.
#[derive(Debug, Clone)]
pub struct Refill {
    above: Ballot,
    homes: usize,
    nodes: usize,
    /// Rank of the node that is being filled.
    target: usize,
    phase: Phase,
    given: Ballot,
    asking: Asking,
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
            phase: Phase::New,
            given: Ballot::ZERO,
            asking: Asking::new(nodes),
        }
    }

    /// The ballot a node said to hold; none when it said nothing.
    fn accepted(&self, rank: usize) -> Option<Ballot> {
        match &self.asking.answers[rank] {
            Some(Reply::Holds(held)) => Some(held.accepted),
            _ => None,
        }
    }

    fn judge(&mut self) -> Vec<Action> {
        if self.accepted(self.target).is_some_and(|accepted| accepted > self.above) {
            return end(Ended::Done(true));
        }
        let others = || (0..self.nodes).filter(|rank| *rank != self.target);
        let quorum = self.nodes / 2 + 1;
        if others().filter(|rank| self.accepted(*rank).is_some()).count() < quorum.min(self.nodes - 1) {
            return end(Ended::Done(false));
        }
        let newest = others()
            .filter_map(|rank| self.accepted(rank))
            .max()
            .unwrap_or_default();
        let exact = others().filter(|rank| self.accepted(*rank) == Some(newest)).count();
        if newest.is_zero() {
            // Dropped by all since it was listed; what the node may have held of it lies below everybody's floor.
            return end(Ended::Done(true));
        }
        if newest <= self.above || exact < quorum {
            return end(Ended::Settle);
        }
        if self.target >= self.homes {
            // At rest a spare holds nothing of the key.
            return end(Ended::Done(true));
        }
        let Some(state) = others().find_map(|rank| self.state_at(rank, newest)) else {
            return end(Ended::Done(false));
        };
        self.phase = Phase::Giving;
        self.given = newest;
        let install = Request::Install { ballot: newest, state };
        self.asking.send([self.target], &install)
    }

    fn judge_gift(&mut self) -> Vec<Action> {
        let filled = self
            .accepted(self.target)
            .is_some_and(|accepted| accepted >= self.given);
        let ended = match &self.asking.answers[self.target] {
            Some(_) if filled => Ended::Done(true),
            None => Ended::Done(false),
            // Its floor was raised meanwhile, by keys that were there already and have been dropped again. A ballot of now passes.
            Some(_) => Ended::Settle,
        };
        end(ended)
    }

    fn state_at(&self, rank: usize, ballot: Ballot) -> Option<State> {
        match &self.asking.answers[rank] {
            Some(Reply::Holds(held)) if held.accepted == ballot => held.state.clone(),
            _ => None,
        }
    }
}

impl Errand for Refill {
    fn handle(&mut self, event: Event) -> Vec<Action> {
        if !self.asking.goes_on(event) {
            return Vec::new();
        }
        match self.phase {
            Phase::New => {
                self.phase = Phase::Asking;
                self.asking.send(0..self.nodes, &Request::Read)
            }
            Phase::Asking => self.judge(),
            Phase::Giving => {
                // An `Installed` may also mean "must not be held any more": look.
                self.phase = Phase::Checking;
                self.asking.send([self.target], &Request::Read)
            }
            Phase::Checking => self.judge_gift(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acceptor::{Change, decide_as};
    use crate::ballot::HlcTime;
    use crate::errand;
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

    fn run(nodes: &mut [Node], target: usize, dead: Option<usize>) -> Ended {
        let machine = Refill::new(ballot(10), 2, 3, target);
        errand::run(machine, |rank, request| {
            (dead != Some(rank)).then(|| nodes[rank].ask(request))
        })
    }

    #[test]
    fn a_home_is_given_what_the_others_chose_without_it() {
        let mut nodes = nodes(0);
        assert!(matches!(nodes[0].ask(&Request::Read), Reply::Failed { .. }));
        assert!(matches!(nodes[0].ask(&accept(12)), Reply::Failed { .. }));
        for other in [1, 2] {
            nodes[other].ask(&accept(11));
        }
        assert_eq!(run(&mut nodes, 0, None), Ended::Done(true));
        let record = nodes[0].record.as_ref().unwrap();
        assert_eq!((record.accepted, record.floor), (ballot(11), ballot(10)));
        assert_eq!(
            nodes[0].ask(&accept(12)),
            Reply::Accepted { reserved: false },
            "it counts for this key now"
        );
        assert_eq!(run(&mut nodes, 0, None), Ended::Done(true), "already there");
    }

    #[test]
    fn what_is_not_chosen_above_the_floor_is_settled_first() {
        let mut nodes = nodes(0);
        nodes[1].floor = Ballot::ZERO;
        nodes[1].ask(&accept(9));
        assert_eq!(
            run(&mut nodes, 0, None),
            Ended::Settle,
            "chosen with the lost disk, perhaps"
        );
        nodes[1].ask(&accept(11));
        assert_eq!(run(&mut nodes, 0, None), Ended::Settle, "only one holds it");
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
        assert_eq!(run(&mut nodes, 0, None), Ended::Settle);
        for other in [1, 2] {
            nodes[other].ask(&accept(13));
        }
        assert_eq!(run(&mut nodes, 0, None), Ended::Done(true));
    }

    #[test]
    fn both_others_are_needed() {
        let mut nodes = nodes(0);
        for other in [1, 2] {
            nodes[other].ask(&accept(11));
        }
        assert_eq!(run(&mut nodes, 0, Some(2)), Ended::Done(false));
        assert_eq!(
            run(&mut nodes, 0, Some(0)),
            Ended::Done(false),
            "it was given, but did it arrive?"
        );
    }

    #[test]
    fn a_spare_needs_nothing() {
        let mut nodes = nodes(2);
        for other in [0, 1] {
            nodes[other].ask(&accept(11));
        }
        assert_eq!(run(&mut nodes, 2, None), Ended::Done(true));
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
        assert_eq!(run(&mut nodes, 0, None), Ended::Done(true));
        let record = nodes[0].record.as_ref().unwrap();
        assert_eq!((record.accepted, record.promised), (ballot(11), Ballot::ZERO));
    }
}
