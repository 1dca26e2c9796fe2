//! A spare's record moving home: hinted handoff, one small state machine per record.
//!
//! The homes are asked what they hold. A home that lags is given the record: by `install` when a quorum is known to hold exactly it (it is
//! chosen, so no promise may stop it), by an ordinary `accept` when not. Once every home holds it or something newer, the spare may
//! forget it. Every step may be lost, repeated or cut off anywhere: the next flush begins anew.

use crate::ballot::Ballot;
use crate::message::{Reply, Request};
use crate::state::State;
use crate::teeth::{Tooth, bites};

/// How often the homes are asked: before and after they are given the record.
const MAX_ASKS: u32 = 2;

/// What happens to a hand-over.
#[derive(Debug, Clone, PartialEq)]
pub enum HandOverEvent {
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

/// What a hand-over wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum HandOverAction {
    /// Send this to the node of this rank, once, and report its answer or failure with the same round.
    Send {
        /// Round to report with.
        round: u32,
        /// To whom.
        rank: usize,
        /// What.
        request: Request,
    },
    /// A promise, a fence or a floor stands in the way, or a home does not know the record's fence: run [`Operation::settle`](crate::proposer::Operation::settle) on the
    /// key. The hand-over has ended; the next flush finds the homes ahead.
    Settle,
    /// It has ended: true when the spare has dropped the record.
    Done(bool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Asking,
    Giving,
    Forgetting,
    Ended,
}

/// One record on its way home.
#[derive(Debug, Clone)]
pub struct HandOver {
    ballot: Ballot,
    state: State,
    homes: usize,
    spare: usize,
    quorum: usize,
    phase: Phase,
    round: u32,
    asks: u32,
    /// Per home, the answer of this round.
    answers: Vec<Option<Reply>>,
    outstanding: usize,
}

impl HandOver {
    /// A record that the spare of rank `spare` holds, on its way to the first `homes` of a list of `nodes`.
    #[must_use]
    pub fn new(ballot: Ballot, state: State, homes: usize, spare: usize, nodes: usize) -> Self {
        Self {
            ballot,
            state,
            homes,
            spare,
            quorum: nodes / 2 + 1,
            phase: Phase::Asking,
            round: 0,
            asks: 0,
            answers: Vec::new(),
            outstanding: 0,
        }
    }

    /// Takes one event, gives what is to be done about it. After `Settle` or `Done` nothing more comes.
    pub fn handle(&mut self, event: HandOverEvent) -> Vec<HandOverAction> {
        match event {
            HandOverEvent::Start if self.phase == Phase::Asking && self.round == 0 => self.ask_homes(),
            HandOverEvent::Reply { round, rank, reply } if round == self.round => self.answer(rank, Some(reply)),
            HandOverEvent::Failed { round, rank } if round == self.round => self.answer(rank, None),
            _ => Vec::new(),
        }
    }

    fn answer(&mut self, rank: usize, reply: Option<Reply>) -> Vec<HandOverAction> {
        match self.phase {
            Phase::Ended => return Vec::new(),
            Phase::Forgetting => return self.end(HandOverAction::Done(reply == Some(Reply::Forgotten))),
            Phase::Asking | Phase::Giving => {}
        }
        let Some(slot) = self.answers.get_mut(rank) else {
            return Vec::new();
        };
        *slot = reply;
        self.outstanding = self.outstanding.saturating_sub(1);
        if self.outstanding > 0 {
            return Vec::new();
        }
        if self.phase == Phase::Asking {
            self.judge_homes()
        } else {
            self.judge_gifts()
        }
    }

    fn ask_homes(&mut self) -> Vec<HandOverAction> {
        self.asks += 1;
        self.phase = Phase::Asking;
        let all = (0..self.homes).collect::<Vec<_>>();
        self.send(&all, &Request::Read)
    }

    fn send(&mut self, ranks: &[usize], request: &Request) -> Vec<HandOverAction> {
        self.round += 1;
        self.answers = vec![None; self.homes];
        self.outstanding = ranks.len();
        let send = |rank: &usize| HandOverAction::Send {
            round: self.round,
            rank: *rank,
            request: request.clone(),
        };
        ranks.iter().map(send).collect()
    }

    fn judge_homes(&mut self) -> Vec<HandOverAction> {
        let (mut lagging, mut exact) = (Vec::new(), 1); // the spare itself holds it
        let (mut fence_known, mut fence_missing) = (false, false);
        for (rank, answer) in self.answers.iter().enumerate() {
            let Some(Reply::Holds(held)) = answer else {
                return self.end(HandOverAction::Done(false));
            };
            if held.accepted < self.ballot {
                lagging.push(rank);
            }
            exact += usize::from(held.accepted == self.ballot);
            // A newer state without our fence is a blind write's, or made of one.
            let knows_fence = held.state.as_ref().is_some_and(|state| state.fence >= self.state.fence);
            fence_known |= held.accepted >= self.ballot && knows_fence;
            fence_missing |= held.accepted > self.ballot && !knows_fence;
        }
        // Without our copy, a quorum could lose sight of the fence. (When no home knows it, the record was never chosen: a quorum has a
        // home in it, which would have kept the fence. Then there is nothing to lose.)
        if fence_known && fence_missing {
            return self.end(HandOverAction::Settle);
        }
        if lagging.len() <= usize::from(bites(Tooth::ForgetBeforeHome)) {
            self.phase = Phase::Forgetting;
            return self.send(&[self.spare], &Request::Forget { ballot: self.ballot });
        }
        if self.asks >= MAX_ASKS {
            // Given, and still not there: the home's floor, raised by other keys, lies above it. A ballot of now passes.
            return self.end(HandOverAction::Settle);
        }
        self.phase = Phase::Giving;
        let (ballot, state) = (self.ballot, self.state.clone());
        let request = if exact >= self.quorum || bites(Tooth::HintOverNewer) {
            Request::Install { ballot, state }
        } else {
            Request::Accept {
                ballot,
                state,
                blind: true,
                reserve: None,
                hint_for: None,
            }
        };
        self.send(&lagging, &request)
    }

    fn judge_gifts(&mut self) -> Vec<HandOverAction> {
        if self
            .answers
            .iter()
            .any(|answer| matches!(answer, Some(Reply::Refused { .. } | Reply::Fenced { .. })))
        {
            return self.end(HandOverAction::Settle);
        }
        // An `Installed` may also mean "must not be held any more": ask again rather than believe it.
        self.ask_homes()
    }

    fn end(&mut self, last: HandOverAction) -> Vec<HandOverAction> {
        self.phase = Phase::Ended;
        vec![last]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::acceptor::{Change, decide};
    use crate::ballot::HlcTime;
    use crate::state::Record;

    fn ballot(time: u64) -> Ballot {
        Ballot {
            time: HlcTime::from_bits(time),
            incarnation: 1,
        }
    }

    fn state(time: u64) -> State {
        State {
            value: Some(Arc::from("1")),
            version: ballot(time),
            fence: 0,
            expires_at_ms: None,
            lineage: crate::state::Lineage::default(),
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

    fn accept(time: u64) -> Request {
        Request::Accept {
            ballot: ballot(time),
            state: state(time),
            blind: false,
            reserve: None,
            hint_for: None,
        }
    }

    /// Runs a hand-over from node 2 to nodes 0 and 1, of which `dead` does not answer.
    fn run(nodes: &mut [Node; 3], dead: Option<usize>) -> HandOverAction {
        let held = nodes[2].0.clone().unwrap();
        let mut machine = HandOver::new(held.accepted, held.state.unwrap(), 2, 2, 3);
        let mut actions = machine.handle(HandOverEvent::Start);
        while !actions.is_empty() {
            let mut next = Vec::new();
            for action in actions {
                let HandOverAction::Send { round, rank, request } = action else {
                    return action;
                };
                let event = if Some(rank) == dead {
                    HandOverEvent::Failed { round, rank }
                } else {
                    HandOverEvent::Reply {
                        round,
                        rank,
                        reply: ask(&mut nodes[rank], &request),
                    }
                };
                next.extend(machine.handle(event));
            }
            actions = next;
        }
        panic!("the hand-over stopped without an end")
    }

    #[test]
    fn a_chosen_record_passes_a_promise_and_leaves_the_spare() {
        let mut nodes: [Node; 3] = Default::default();
        ask(&mut nodes[0], &accept(5));
        ask(&mut nodes[1], &Request::Prepare { ballot: ballot(9) });
        ask(&mut nodes[2], &accept(5));
        assert_eq!(run(&mut nodes, None), HandOverAction::Done(true));
        assert_eq!(nodes[1].0.as_ref().unwrap().accepted, ballot(5));
        assert_eq!(nodes[2], (None, ballot(5)));
    }

    #[test]
    fn nothing_is_forgotten_while_a_home_is_away() {
        let mut nodes: [Node; 3] = Default::default();
        ask(&mut nodes[0], &accept(5));
        ask(&mut nodes[2], &accept(5));
        assert_eq!(run(&mut nodes, Some(1)), HandOverAction::Done(false));
        assert!(nodes[2].0.is_some());
    }

    #[test]
    fn a_promise_before_an_unchosen_record_asks_to_settle() {
        let mut nodes: [Node; 3] = Default::default();
        ask(&mut nodes[0], &Request::Prepare { ballot: ballot(9) });
        ask(&mut nodes[2], &accept(5));
        assert_eq!(run(&mut nodes, None), HandOverAction::Settle);
        assert!(nodes[2].0.is_some());
    }

    #[test]
    fn a_home_whose_floor_is_above_the_record_asks_to_settle() {
        let mut nodes: [Node; 3] = Default::default();
        ask(&mut nodes[0], &accept(5));
        ask(&mut nodes[2], &accept(5));
        // It was away, and has since handed over what it held for others as their spare.
        nodes[1].1 = ballot(6);
        assert_eq!(run(&mut nodes, None), HandOverAction::Settle);
        assert!(nodes[2].0.is_some());
    }

    #[test]
    fn a_fence_is_not_forgotten_before_every_home_knows_it() {
        let mut nodes: [Node; 3] = Default::default();
        let mut fenced = state(5);
        fenced.fence = 3;
        let accept_fenced = Request::Accept {
            ballot: ballot(5),
            state: fenced,
            blind: false,
            reserve: None,
            hint_for: None,
        };
        ask(&mut nodes[0], &accept_fenced);
        ask(&mut nodes[2], &accept_fenced);
        // It missed the fenced change, and took a blind write that the others refuse.
        ask(&mut nodes[1], &accept(7));
        assert_eq!(run(&mut nodes, None), HandOverAction::Settle);
        assert!(nodes[2].0.is_some());
        nodes[0] = nodes[1].clone();
        assert_eq!(
            run(&mut nodes, None),
            HandOverAction::Done(true),
            "no home knows it: never chosen"
        );
    }

    #[test]
    fn newer_homes_are_never_overwritten() {
        let mut nodes: [Node; 3] = Default::default();
        for home in [0, 1] {
            ask(&mut nodes[home], &accept(7));
        }
        ask(&mut nodes[2], &accept(5));
        assert_eq!(run(&mut nodes, None), HandOverAction::Done(true));
        assert_eq!(nodes[0].0.as_ref().unwrap().accepted, ballot(7));
    }
}
