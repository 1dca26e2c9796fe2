//! A tombstone leaving everywhere, one small state machine per key.
//!
//! A tombstone that only some nodes have dropped would let an older copy come back. So it is collected in two steps: first every node of
//! the list holds exactly it, or refuses everything up to it for good ([`Request::Retire`]); a quorum must hold it, or it may never have
//! been chosen. Then each drops it, raising its floor ([`Request::Collect`]). Every step may be lost, repeated or cut off anywhere: a node
//! that has dropped it refuses what is older, and one that has not is visited again.

use crate::ballot::Ballot;
use crate::message::{Reply, Request, Retired};
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

/// What happens to a collection.
#[derive(Debug, Clone, PartialEq)]
pub enum CollectEvent {
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

/// What a collection wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum CollectAction {
    /// Send this to the node of this rank, once, and report its answer or failure with the same round.
    Send {
        /// Round to report with.
        round: u32,
        /// To whom.
        rank: usize,
        /// What.
        request: Request,
    },
    /// The tombstone is not held by a quorum (any more): run [`Operation::settle`](crate::proposer::Operation::settle) on the key. The
    /// collection has ended; the next one finds another tombstone.
    Settle,
    /// It has ended: true when every node has dropped the tombstone.
    Done(bool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Retiring,
    Giving,
    Collecting,
    Ended,
}

/// One tombstone on its way out.
#[derive(Debug, Clone)]
pub struct Collect {
    ballot: Ballot,
    state: State,
    nodes: usize,
    phase: Phase,
    round: u32,
    asks: u32,
    /// Per rank, the answer of this round.
    answers: Vec<Option<Reply>>,
    outstanding: usize,
}

impl Collect {
    /// A tombstone that some node of a list of `nodes` holds. See [`may_be_collected`].
    #[must_use]
    pub fn new(ballot: Ballot, state: State, nodes: usize) -> Self {
        Self {
            ballot,
            state,
            nodes,
            phase: Phase::Retiring,
            round: 0,
            asks: 0,
            answers: Vec::new(),
            outstanding: 0,
        }
    }

    /// Takes one event, gives what is to be done about it. After `Settle` or `Done` nothing more comes.
    pub fn handle(&mut self, event: CollectEvent) -> Vec<CollectAction> {
        match event {
            CollectEvent::Start if self.phase == Phase::Retiring && self.round == 0 => self.retire(),
            CollectEvent::Reply { round, rank, reply } if round == self.round => self.answer(rank, Some(reply)),
            CollectEvent::Failed { round, rank } if round == self.round => self.answer(rank, None),
            _ => Vec::new(),
        }
    }

    fn answer(&mut self, rank: usize, reply: Option<Reply>) -> Vec<CollectAction> {
        let Some(slot) = self.answers.get_mut(rank).filter(|_| self.phase != Phase::Ended) else {
            return Vec::new();
        };
        *slot = reply;
        self.outstanding = self.outstanding.saturating_sub(1);
        if self.outstanding > 0 {
            return Vec::new();
        }
        match self.phase {
            Phase::Retiring => self.judge(),
            Phase::Giving => self.retire(),
            Phase::Collecting => {
                let all = self.answers.iter().all(|answer| *answer == Some(Reply::Forgotten));
                self.end(CollectAction::Done(all))
            }
            Phase::Ended => Vec::new(),
        }
    }

    fn retire(&mut self) -> Vec<CollectAction> {
        self.asks += 1;
        self.phase = Phase::Retiring;
        let all: Vec<usize> = (0..self.nodes).collect();
        self.send(&all, &Request::Retire { ballot: self.ballot })
    }

    fn judge(&mut self) -> Vec<CollectAction> {
        let stands = |wanted: Retired| {
            let answers = self.answers.iter().enumerate();
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
            return self.end(CollectAction::Done(false));
        }
        if holds < quorum && !bites(Tooth::CollectedUnchosen) {
            return self.end(CollectAction::Settle);
        }
        if older.is_empty() || bites(Tooth::CollectedEarly) {
            self.phase = Phase::Collecting;
            let all: Vec<usize> = (0..self.nodes).collect();
            return self.send(&all, &Request::Collect { ballot: self.ballot });
        }
        if self.asks >= MAX_ASKS {
            // Given, and still not there: the node's own floor lies above it.
            return self.end(CollectAction::Settle);
        }
        self.phase = Phase::Giving;
        let request = Request::Install {
            ballot: self.ballot,
            state: self.state.clone(),
        };
        self.send(&older, &request)
    }

    fn send(&mut self, ranks: &[usize], request: &Request) -> Vec<CollectAction> {
        self.round += 1;
        self.answers = vec![None; self.nodes];
        self.outstanding = ranks.len();
        let send = |rank: &usize| CollectAction::Send {
            round: self.round,
            rank: *rank,
            request: request.clone(),
        };
        ranks.iter().map(send).collect()
    }

    fn end(&mut self, last: CollectAction) -> Vec<CollectAction> {
        self.phase = Phase::Ended;
        vec![last]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acceptor::{Change, decide};
    use crate::ballot::HlcTime;
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
    fn run(nodes: &mut [Node; 3], lost: impl Fn(usize, &Request) -> bool) -> CollectAction {
        let mut machine = Collect::new(ballot(5), state(5, None), 3);
        let mut actions = machine.handle(CollectEvent::Start);
        while !actions.is_empty() {
            let mut next = Vec::new();
            for action in actions {
                let CollectAction::Send { round, rank, request } = action else {
                    return action;
                };
                let event = if lost(rank, &request) {
                    CollectEvent::Failed { round, rank }
                } else {
                    let reply = ask(&mut nodes[rank], &request);
                    CollectEvent::Reply { round, rank, reply }
                };
                next.extend(machine.handle(event));
            }
            actions = next;
        }
        panic!("the collection stopped without an end")
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
        assert_eq!(run(&mut nodes, |_, _| false), CollectAction::Done(true));
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
        assert_eq!(run(&mut nodes, |_, _| false), CollectAction::Done(true));
        assert_eq!(nodes[1], (None, ballot(5)));
    }

    #[test]
    fn nothing_is_dropped_while_anybody_is_away_or_ahead() {
        let mut nodes = deleted();
        assert_eq!(run(&mut nodes, |rank, _| rank == 2), CollectAction::Done(false));
        assert!(nodes[0].0.is_some());
        ask(&mut nodes[1], &accept(7, Some("2")));
        assert_eq!(run(&mut nodes, |_, _| false), CollectAction::Done(false));
        assert!(nodes[0].0.is_some());
    }

    #[test]
    fn a_promise_does_not_let_an_install_pass_the_tombstone() {
        let mut nodes = deleted();
        ask(&mut nodes[2], &Request::Prepare { ballot: ballot(9) });
        assert_eq!(run(&mut nodes, |_, _| false), CollectAction::Done(true));
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
        assert_eq!(run(&mut nodes, cut_off), CollectAction::Done(false));
        assert!(nodes[0].0.is_some() && nodes[1].0.is_none());
        assert_eq!(run(&mut nodes, |_, _| false), CollectAction::Settle);
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
