//! A spare's record moving home: hinted handoff, one small state machine per record.
//!
//! The homes are asked what they hold. A home that lags is given the record: by `install` when a quorum is known to hold exactly it (it is
//! chosen, so no promise may stop it), by an ordinary `accept` when not. Once every home holds it or something newer, the spare may
//! forget it. Every step may be lost, repeated or cut off anywhere: the next flush begins anew.

use crate::ballot::Ballot;
use crate::errand::{Action, Asking, Ended, Errand, end};
use crate::message::{Reply, Request};
use crate::proposer::Event;
use crate::state::State;
use crate::teeth::{Tooth, bites};

/// How often the homes are asked: before and after they are given the record.
const MAX_ASKS: u32 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    New,
    Asking,
    Giving,
    Forgetting,
}

/// One record on its way home.
///
/// Done when the spare has dropped it. To be settled when a promise, a fence or a floor stands in the way, or a home does not know the
/// record's fence; the next flush finds the homes ahead.
#[derive(Debug, Clone)]
pub struct HandOver {
    ballot: Ballot,
    state: State,
    homes: usize,
    spare: usize,
    quorum: usize,
    phase: Phase,
    asks: u32,
    asking: Asking,
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
            phase: Phase::New,
            asks: 0,
            asking: Asking::new(nodes),
        }
    }

    fn ask_homes(&mut self) -> Vec<Action> {
        self.asks += 1;
        self.phase = Phase::Asking;
        self.asking.send(0..self.homes, &Request::Read)
    }

    fn judge_homes(&mut self) -> Vec<Action> {
        let (mut lagging, mut exact) = (Vec::new(), 1); // the spare itself holds it
        let (mut fence_known, mut fence_missing) = (false, false);
        for (rank, answer) in self.asking.answers.iter().take(self.homes).enumerate() {
            let Some(Reply::Holds(held)) = answer else {
                return end(Ended::Done(false));
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
            return end(Ended::Settle);
        }
        if lagging.len() <= usize::from(bites(Tooth::ForgetBeforeHome)) {
            self.phase = Phase::Forgetting;
            return self.asking.send([self.spare], &Request::Forget { ballot: self.ballot });
        }
        if self.asks >= MAX_ASKS {
            // Given, and still not there: the home's floor, raised by other keys, lies above it. A ballot of now passes.
            return end(Ended::Settle);
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
        self.asking.send(lagging, &request)
    }

    fn judge_gifts(&mut self) -> Vec<Action> {
        let is_refusal = |answer: &Option<Reply>| matches!(answer, Some(Reply::Refused { .. } | Reply::Fenced { .. }));
        if self.asking.answers.iter().any(is_refusal) {
            return end(Ended::Settle);
        }
        // An `Installed` may also mean "must not be held any more": ask again rather than believe it.
        self.ask_homes()
    }
}

impl Errand for HandOver {
    fn handle(&mut self, event: Event) -> Vec<Action> {
        if !self.asking.goes_on(event) {
            return Vec::new();
        }
        match self.phase {
            Phase::New => self.ask_homes(),
            Phase::Asking => self.judge_homes(),
            Phase::Giving => self.judge_gifts(),
            Phase::Forgetting => end(Ended::Done(self.asking.answers[self.spare] == Some(Reply::Forgotten))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::acceptor::{Change, decide};
    use crate::ballot::HlcTime;
    use crate::errand;
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
    fn run(nodes: &mut [Node; 3], dead: Option<usize>) -> Ended {
        let held = nodes[2].0.clone().unwrap();
        let machine = HandOver::new(held.accepted, held.state.unwrap(), 2, 2, 3);
        errand::run(machine, |rank, request| {
            (Some(rank) != dead).then(|| ask(&mut nodes[rank], request))
        })
    }

    #[test]
    fn a_chosen_record_passes_a_promise_and_leaves_the_spare() {
        let mut nodes: [Node; 3] = Default::default();
        ask(&mut nodes[0], &accept(5));
        ask(&mut nodes[1], &Request::Prepare { ballot: ballot(9) });
        ask(&mut nodes[2], &accept(5));
        assert_eq!(run(&mut nodes, None), Ended::Done(true));
        assert_eq!(nodes[1].0.as_ref().unwrap().accepted, ballot(5));
        assert_eq!(nodes[2], (None, ballot(5)));
    }

    #[test]
    fn nothing_is_forgotten_while_a_home_is_away() {
        let mut nodes: [Node; 3] = Default::default();
        ask(&mut nodes[0], &accept(5));
        ask(&mut nodes[2], &accept(5));
        assert_eq!(run(&mut nodes, Some(1)), Ended::Done(false));
        assert!(nodes[2].0.is_some());
    }

    #[test]
    fn a_promise_before_an_unchosen_record_asks_to_settle() {
        let mut nodes: [Node; 3] = Default::default();
        ask(&mut nodes[0], &Request::Prepare { ballot: ballot(9) });
        ask(&mut nodes[2], &accept(5));
        assert_eq!(run(&mut nodes, None), Ended::Settle);
        assert!(nodes[2].0.is_some());
    }

    #[test]
    fn a_home_whose_floor_is_above_the_record_asks_to_settle() {
        let mut nodes: [Node; 3] = Default::default();
        ask(&mut nodes[0], &accept(5));
        ask(&mut nodes[2], &accept(5));
        // It was away, and has since handed over what it held for others as their spare.
        nodes[1].1 = ballot(6);
        assert_eq!(run(&mut nodes, None), Ended::Settle);
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
        assert_eq!(run(&mut nodes, None), Ended::Settle);
        assert!(nodes[2].0.is_some());
        nodes[0] = nodes[1].clone();
        assert_eq!(
            run(&mut nodes, None),
            Ended::Done(true),
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
        assert_eq!(run(&mut nodes, None), Ended::Done(true));
        assert_eq!(nodes[0].0.as_ref().unwrap().accepted, ballot(7));
    }
}
