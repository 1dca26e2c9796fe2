//! What coordinators do of their own accord, one key at a time.

use register::collect::Collect;
use register::errand::{Action, Ended, Errand};
use register::handover::HandOver;
use register::proposer::Event;
use register::refill::Refill;
use register::{Ballot, Reply, Request};

/// An errand.
#[derive(Debug)]
pub(crate) enum Task {
    HandOver(HandOver),
    Collect(Collect),
    /// A key of a node that is being filled.
    Refill {
        machine: Refill,
        filling: u32,
    },
    /// A lone promise is dropped.
    DropPromise {
        ballot: Ballot,
        rank: usize,
    },
}

impl Errand for Task {
    fn handle(&mut self, event: Event) -> Vec<Action> {
        match self {
            Self::HandOver(machine) => machine.handle(event),
            Self::Collect(machine) => machine.handle(event),
            Self::Refill { machine, .. } => machine.handle(event),
            Self::DropPromise { ballot, rank } => vec![match event {
                Event::Start => Action::Send {
                    round: 1,
                    rank: *rank,
                    request: Request::Collect { ballot: *ballot },
                },
                Event::Reply { reply, .. } => Action::End(Ended::Done(reply == Reply::Forgotten)),
                Event::Failed { .. } | Event::Wake { .. } => Action::End(Ended::Done(false)),
            }],
        }
    }
}
