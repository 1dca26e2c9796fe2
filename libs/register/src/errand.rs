//! Errands: what a coordinator does of its own accord about one key, in small state machines that speak alike ([`HandOver`], [`Collect`],
//! [`Refill`]).
//!
//! An errand asks nodes of the key's list, and goes on once each of them has answered or failed to. It may be cut off anywhere: whoever
//! comes next begins anew.
//!
//! [`HandOver`]: crate::handover::HandOver
//! [`Collect`]: crate::collect::Collect
//! [`Refill`]: crate::refill::Refill

use crate::message::{Reply, Request};
use crate::proposer::Event;

/// What an errand wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Send this to the node of this rank, once, and report its answer or failure with the same round.
    Send {
        /// Round to report with.
        round: u32,
        /// To whom.
        rank: usize,
        /// What.
        request: Request,
    },
    /// Nothing more: it has ended.
    End(Ended),
}

/// How an errand ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Run [`Operation::settle`](crate::proposer::Operation::settle) on the key; then the errand may be tried again.
    Settle,
    /// True when what it was for is done.
    Done(bool),
}

/// A state machine of upkeep.
pub trait Errand {
    /// Takes one event, gives what is to be done about it. After the end nothing more comes. It asks for no timers.
    fn handle(&mut self, event: Event) -> Vec<Action>;
}

/// What an errand has asked of whom, and what they said.
#[derive(Debug, Clone)]
pub(crate) struct Asking {
    /// Per rank, its answer in this round.
    pub(crate) answers: Vec<Option<Reply>>,
    round: u32,
    outstanding: usize,
}

impl Asking {
    /// Nothing was asked yet of the nodes of a list of `nodes`.
    pub(crate) fn new(nodes: usize) -> Self {
        Self {
            answers: vec![None; nodes],
            round: 0,
            outstanding: 0,
        }
    }

    /// Begins a round: asks the nodes of these ranks.
    pub(crate) fn send(&mut self, ranks: impl IntoIterator<Item = usize>, request: &Request) -> Vec<Action> {
        self.round += 1;
        self.answers.fill(None);
        let send = |rank| Action::Send {
            round: self.round,
            rank,
            request: request.clone(),
        };
        let sends: Vec<_> = ranks.into_iter().map(send).collect();
        self.outstanding = sends.len();
        sends
    }

    /// Takes note of an event; true when the errand is to go on: at its start, and with the last answer of a round. So an errand that
    /// asks nothing more has ended.
    pub(crate) fn goes_on(&mut self, event: Event) -> bool {
        let (round, rank, reply) = match event {
            Event::Start => return self.round == 0,
            Event::Reply { round, rank, reply } => (round, rank, Some(reply)),
            Event::Failed { round, rank, .. } => (round, rank, None),
            Event::Wake { .. } => return false,
        };
        let is_awaited = round == self.round && self.outstanding > 0;
        let Some(slot) = self.answers.get_mut(rank).filter(|_| is_awaited) else {
            return false;
        };
        *slot = reply;
        self.outstanding -= 1;
        self.outstanding == 0
    }
}

pub(crate) fn end(ended: Ended) -> Vec<Action> {
    vec![Action::End(ended)]
}

/// Runs an errand to its end, asking nodes by `ask`: `None` when one does not answer.
#[cfg(test)]
pub(crate) fn run(mut errand: impl Errand, mut ask: impl FnMut(usize, &Request) -> Option<Reply>) -> Ended {
    let mut events = vec![Event::Start];
    while !events.is_empty() {
        let mut next = Vec::new();
        for event in events {
            for action in errand.handle(event) {
                let (round, rank, request) = match action {
                    Action::Send { round, rank, request } => (round, rank, request),
                    Action::End(ended) => return ended,
                };
                next.push(match ask(rank, &request) {
                    Some(reply) => Event::Reply { round, rank, reply },
                    None => Event::Failed {
                        round,
                        rank,
                        delivered: true,
                        reason: String::new(),
                    },
                });
            }
        }
        events = next;
    }
    panic!("the errand stopped without an end")
}
