//! A tombstone leaving everywhere, one small state machine per key.
//!
//! A tombstone that only some nodes have dropped would let an older copy come back. So it is collected in two steps: first every node of
//! the list holds exactly it, or refuses everything up to it for good ([`Request::Retire`]); a quorum must hold it, or it may never have
//! been chosen. Then each drops it, raising its floor ([`Request::Collect`]). Every step may be lost, repeated or cut off anywhere: a node
//! that has dropped it refuses what is older, and one that has not is visited again.

use crate::ballot::Ballot;
use crate::errand::{Action, Asking, Ended, Errand, end};
use crate::message::{Reply, Request, Retired};
use crate::proposer::Event;
use crate::state::{Key, State};
use crate::teeth::{Tooth, bites};

/// How often the nodes are asked: before and after those that lag were given the tombstone.
const MAX_ASKS: u32 = 2;

/// Whether a state accepted at `accepted` may be collected: a tombstone whose fence nobody has to remember.
///
/// A lock's fences grow with the clock (never below the milliseconds of the acquisition's ballot), and every later ballot is above the
/// tombstone's, so a lock's fence may be forgotten once the tombstone's ballot is past it. Fences of data are the clients' own numbers:
/// a tombstone that knows one is kept.
#[must_use]
pub fn may_be_collected(key: &Key, accepted: Ballot, state: &State) -> bool {
    let fence_forgettable = state.fence == 0 || !key.is_data() && state.fence < accepted.time.unix_ms();
    state.is_tombstone() && fence_forgettable
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    New,
    Retiring,
    Giving,
    Collecting,
}

/// One tombstone on its way out.
///
/// Done when every node has dropped it. To be settled when it is not held by a quorum (any more); the next collection finds another one.
#[derive(Debug, Clone)]
pub struct Collect {
    ballot: Ballot,
    state: State,
    nodes: usize,
    phase: Phase,
    asks: u32,
    asking: Asking,
}

impl Collect {
    /// A tombstone that some node of a list of `nodes` holds. See [`may_be_collected`].
    #[must_use]
    pub fn new(ballot: Ballot, state: State, nodes: usize) -> Self {
        Self {
            ballot,
            state,
            nodes,
            phase: Phase::New,
            asks: 0,
            asking: Asking::new(nodes),
        }
    }

    fn retire(&mut self) -> Vec<Action> {
        self.asks += 1;
        self.phase = Phase::Retiring;
        self.asking
            .send(0..self.nodes, &Request::Retire { ballot: self.ballot })
    }

    fn judge(&mut self) -> Vec<Action> {
        let stands = |wanted: Retired| {
            let answers = self.asking.answers.iter().enumerate();
            let ranks = answers.filter(move |(_, answer)| **answer == Some(Reply::Retired(wanted)));
            ranks.map(|(rank, _)| rank).collect::<Vec<_>>()
        };
        let (holds, refuses, older) = (
            stands(Retired::Holds).len(),
            stands(Retired::Refuses).len(),
            stands(Retired::Older),
        );
        let quorum = self.nodes / 2 + 1;
        let enough = if bites(Tooth::CollectedEarly) {
            quorum
        } else {
            self.nodes
        };
        if holds + refuses + older.len() < enough || !stands(Retired::Newer).is_empty() {
            // Somebody is away, or there is something newer.
            return end(Ended::Done(false));
        }
        if holds < quorum && !bites(Tooth::CollectedUnchosen) {
            return end(Ended::Settle);
        }
        if older.is_empty() || bites(Tooth::CollectedEarly) {
            self.phase = Phase::Collecting;
            let collect = Request::Collect { ballot: self.ballot };
            return self.asking.send(0..self.nodes, &collect);
        }
        if self.asks >= MAX_ASKS {
            // Given, and still not there: the node's own floor lies above it.
            return end(Ended::Settle);
        }
        self.phase = Phase::Giving;
        let request = Request::Install {
            ballot: self.ballot,
            state: self.state.clone(),
        };
        self.asking.send(older, &request)
    }
}

impl Errand for Collect {
    fn handle(&mut self, event: Event) -> Vec<Action> {
        if !self.asking.goes_on(event) {
            return Vec::new();
        }
        match self.phase {
            Phase::New | Phase::Giving => self.retire(),
            Phase::Retiring => self.judge(),
            Phase::Collecting => {
                let is_gone = |answer: &Option<Reply>| *answer == Some(Reply::Forgotten);
                end(Ended::Done(self.asking.answers.iter().all(is_gone)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acceptor::{Change, decide};
    use crate::ballot::HlcTime;
    use crate::errand;
    use crate::state::{Lineage, Record};

    fn ballot(time: u64) -> Ballot {
        Ballot {
            time: HlcTime::from_bits(time),
            incarnation: 1,
        }
    }

    fn state(time: u64, value: Option<&str>) -> State {
        State {
            value: value.map(Into::into),
            version: ballot(time),
            fence: 0,
            expires_at_ms: None,
            lineage: Lineage::default(),
        }
    }

    fn accept(time: u64, value: Option<&str>) -> Request {
        Request::Accept {
            ballot: ballot(time),
            state: state(time, value),
            blind: false,
            reserve: None,
            hint_for: None,
        }
    }

    type Node = (Option<Record>, Ballot);

    fn ask(node: &mut Node, request: &Request) -> Reply {
        let decision = decide(node.0.as_ref(), node.1, request);
        match decision.change {
            Change::Nothing => {}
            Change::Put(record) => node.0 = Some(record),
            Change::Remove { floor } => *node = (None, floor),
        }
        decision.reply
    }

    /// Collects the tombstone of ballot 5; the requests that `lost` says are lost.
    fn run(nodes: &mut [Node; 3], lost: impl Fn(usize, &Request) -> bool) -> Ended {
        let machine = Collect::new(ballot(5), state(5, None), 3);
        errand::run(machine, |rank, request| {
            (!lost(rank, request)).then(|| ask(&mut nodes[rank], request))
        })
    }

    fn deleted() -> [Node; 3] {
        let mut nodes: [Node; 3] = Default::default();
        for home in [0, 1] {
            ask(&mut nodes[home], &accept(3, Some("1")));
            ask(&mut nodes[home], &accept(5, None));
        }
        nodes
    }

    #[test]
    fn a_tombstone_leaves_all_nodes_and_nothing_older_comes_back() {
        let mut nodes = deleted();
        assert_eq!(run(&mut nodes, |_, _| false), Ended::Done(true));
        for node in &mut nodes {
            assert_eq!(*node, (None, ballot(5)));
            assert_eq!(ask(node, &accept(4, Some("2"))), Reply::Refused { higher: ballot(5) });
            ask(
                node,
                &Request::Install {
                    ballot: ballot(5),
                    state: state(5, Some("2")),
                },
            );
            assert_eq!(node.0, None);
        }
    }

    #[test]
    fn one_that_lags_is_given_the_tombstone_first() {
        let mut nodes = deleted();
        ask(&mut nodes[2], &accept(5, None));
        nodes[1] = Default::default();
        ask(&mut nodes[1], &accept(3, Some("1")));
        assert_eq!(run(&mut nodes, |_, _| false), Ended::Done(true));
        assert_eq!(nodes[1], (None, ballot(5)));
    }

    #[test]
    fn nothing_is_dropped_while_anybody_is_away_or_ahead() {
        let mut nodes = deleted();
        assert_eq!(run(&mut nodes, |rank, _| rank == 2), Ended::Done(false));
        assert!(nodes[0].0.is_some());
        ask(&mut nodes[1], &accept(7, Some("2")));
        assert_eq!(run(&mut nodes, |_, _| false), Ended::Done(false));
        assert!(nodes[0].0.is_some());
    }

    #[test]
    fn a_promise_does_not_let_an_install_pass_the_tombstone() {
        let mut nodes = deleted();
        ask(&mut nodes[2], &Request::Prepare { ballot: ballot(9) });
        assert_eq!(run(&mut nodes, |_, _| false), Ended::Done(true));
        let late = Request::Install {
            ballot: ballot(3),
            state: state(3, Some("1")),
        };
        ask(&mut nodes[2], &late);
        let record = nodes[2].0.clone().unwrap();
        assert_eq!(
            (record.accepted, record.promised, record.floor),
            (Ballot::ZERO, ballot(9), ballot(5))
        );
    }

    #[test]
    fn what_a_cut_off_collection_left_is_settled() {
        let mut nodes = deleted();
        let cut_off = |rank: usize, request: &Request| rank == 0 && matches!(request, Request::Collect { .. });
        assert_eq!(run(&mut nodes, cut_off), Ended::Done(false));
        assert!(nodes[0].0.is_some() && nodes[1].0.is_none());
        assert_eq!(run(&mut nodes, |_, _| false), Ended::Settle);
        assert!(nodes[0].0.is_some(), "a lone tombstone may never have been chosen");
    }

    #[test]
    fn mere_promises_are_dropped_alone() {
        let mut node: Node = Default::default();
        ask(&mut node, &Request::Prepare { ballot: ballot(4) });
        ask(&mut node, &Request::Collect { ballot: ballot(3) });
        assert!(node.0.is_some());
        ask(&mut node, &Request::Collect { ballot: ballot(4) });
        assert_eq!(node, (None, ballot(4)));
    }

    #[test]
    fn fences_that_must_be_remembered_keep_their_tombstone() {
        let at = |ms| Ballot {
            time: HlcTime::from_unix_ms(ms),
            incarnation: 1,
        };
        let (data, lock) = (Key::data("a"), Key::lock("a"));
        let fenced = |fence| State {
            fence,
            ..state(5, None)
        };
        assert!(may_be_collected(&data, at(100), &fenced(0)));
        assert!(!may_be_collected(&data, at(100), &fenced(1)));
        assert!(may_be_collected(&lock, at(100), &fenced(99)));
        assert!(!may_be_collected(&lock, at(100), &fenced(100)));
        assert!(!may_be_collected(&data, at(100), &state(5, Some("1"))));
    }
}
