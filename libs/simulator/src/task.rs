//! What coordinators do of their own accord, one key at a time: the state machines of hand-over, collection and refilling, which speak
//! alike.

use register::collect::{Collect, CollectAction, CollectEvent};
use register::handover::{HandOver, HandOverAction, HandOverEvent};
use register::refill::{Refill, RefillAction, RefillEvent};
use register::{Ballot, Reply, Request};

/// One of the three.
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

/// What happens to a task.
#[derive(Debug)]
pub(crate) enum TaskEvent {
    Start,
    Reply { round: u32, rank: usize, reply: Reply },
    Failed { round: u32, rank: usize },
}

/// What a task wants done.
#[derive(Debug)]
pub(crate) enum TaskAction {
    Send { round: u32, rank: usize, request: Request },
    Settle,
    Done(bool),
}

impl Task {
    pub(crate) fn handle(&mut self, event: TaskEvent) -> Vec<TaskAction> {
        match self {
            Self::HandOver(machine) => {
                let event = match event {
                    TaskEvent::Start => HandOverEvent::Start,
                    TaskEvent::Reply { round, rank, reply } => HandOverEvent::Reply { round, rank, reply },
                    TaskEvent::Failed { round, rank } => HandOverEvent::Failed { round, rank },
                };
                let translate = |action| match action {
                    HandOverAction::Send { round, rank, request } => TaskAction::Send { round, rank, request },
                    HandOverAction::Settle => TaskAction::Settle,
                    HandOverAction::Done(done) => TaskAction::Done(done),
                };
                machine.handle(event).into_iter().map(translate).collect()
            }
            Self::Collect(machine) => {
                let event = match event {
                    TaskEvent::Start => CollectEvent::Start,
                    TaskEvent::Reply { round, rank, reply } => CollectEvent::Reply { round, rank, reply },
                    TaskEvent::Failed { round, rank } => CollectEvent::Failed { round, rank },
                };
                let translate = |action| match action {
                    CollectAction::Send { round, rank, request } => TaskAction::Send { round, rank, request },
                    CollectAction::Settle => TaskAction::Settle,
                    CollectAction::Done(done) => TaskAction::Done(done),
                };
                machine.handle(event).into_iter().map(translate).collect()
            }
            Self::Refill { machine, .. } => {
                let event = match event {
                    TaskEvent::Start => RefillEvent::Start,
                    TaskEvent::Reply { round, rank, reply } => RefillEvent::Reply { round, rank, reply },
                    TaskEvent::Failed { round, rank } => RefillEvent::Failed { round, rank },
                };
                let translate = |action| match action {
                    RefillAction::Send { round, rank, request } => TaskAction::Send { round, rank, request },
                    RefillAction::Settle => TaskAction::Settle,
                    RefillAction::Done(done) => TaskAction::Done(done),
                };
                machine.handle(event).into_iter().map(translate).collect()
            }
            Self::DropPromise { ballot, rank } => vec![match event {
                TaskEvent::Start => TaskAction::Send {
                    round: 1,
                    rank: *rank,
                    request: Request::Collect { ballot: *ballot },
                },
                TaskEvent::Reply { reply, .. } => TaskAction::Done(reply == Reply::Forgotten),
                TaskEvent::Failed { .. } => TaskAction::Done(false),
            }],
        }
    }
}
