//! Processes: the real state machines of an operation, a hand-over or a collection, with the timers they have asked for.

use register::change::Command;
use register::collect::{Collect, may_be_collected};
use register::errand::{self, Ended, Errand};
use register::handover::HandOver;
use register::proposer::memory::MemoryLimits;
use register::proposer::{Action, Consistency, Coordinator, Event, Limits, Members, Operation, Outcome, Retry};
use register::{Ballot, Key, Reply, Request, RequestId, State};

use crate::configuration::{HOMES, NODES, SPARE};
use crate::fingerprint::Fingerprint;

/// An operation's timers are told apart by how long they are; none of them is ever waited for.
const LIMITS: Limits = Limits {
    deadline_ms: 10_000,
    phase_ms: 700,
    spare_after_ms: 100,
    backoff_ms: 0,
};
/// How far ahead of its own clock a coordinator follows another, in milliseconds.
const MAX_SKEW_MS: u64 = 500;

/// The one key.
pub(crate) fn key() -> Key {
    Key::data("k")
}

/// A coordinator of this number (from 0 on) that has done nothing yet.
pub(crate) fn coordinator(number: usize, reserve: bool) -> Coordinator {
    let memory = if reserve {
        MemoryLimits::default()
    } else {
        MemoryLimits::NONE
    };
    Coordinator::new(number as u64 + 1, MAX_SKEW_MS, LIMITS, 0).with_memory(memory)
}

/// The timers of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Timer {
    Deadline,
    Spare,
    Phase,
    Pause,
}

impl Timer {
    pub(crate) const ALL: [Self; 4] = [Self::Deadline, Self::Spare, Self::Phase, Self::Pause];

    fn of_length(after_ms: u64) -> Self {
        match after_ms {
            ms if ms == LIMITS.deadline_ms => Self::Deadline,
            ms if ms == LIMITS.phase_ms => Self::Phase,
            ms if ms == LIMITS.spare_after_ms => Self::Spare,
            _ => Self::Pause,
        }
    }
}

/// Where a process stands.
#[derive(Debug, Clone)]
pub(crate) enum Process {
    NotBegun,
    Running(Box<Running>),
    Ended,
}

#[derive(Debug, Clone)]
pub(crate) struct Running {
    machine: Machine,
    /// Which machine of this process it is, counted from 1.
    pub(crate) life: u8,
    /// The number of each timer that is armed.
    timers: [Option<u32>; Timer::ALL.len()],
    /// Rounds begun.
    rounds: u8,
    last_round: u32,
}

#[derive(Debug, Clone)]
enum Machine {
    Operation(Box<Operation>),
    HandOver(HandOver),
    Collect(Collect),
}

/// What happens to a process.
#[derive(Debug, Clone)]
pub(crate) enum Happening {
    Start,
    Reply { round: u32, rank: usize, reply: Reply },
    NotDelivered { round: u32, rank: usize },
    Timer(Timer),
}

/// What a process wants done.
#[derive(Debug, Default)]
pub(crate) struct Wants {
    /// Round, node, request.
    pub(crate) sends: Vec<(u32, usize, Request)>,
    pub(crate) outcome: Option<Outcome>,
    /// A chore ended; true when an operation is to settle the key.
    pub(crate) chore_over: Option<bool>,
    pub(crate) armed: bool,
    pub(crate) rounds: u8,
}

impl Wants {
    pub(crate) fn is_nothing(&self) -> bool {
        self.sends.is_empty() && self.outcome.is_none() && self.chore_over.is_none() && !self.armed
    }

    fn note_chore(&mut self, actions: Vec<errand::Action>) {
        for action in actions {
            match action {
                errand::Action::Send { round, rank, request } => self.sends.push((round, rank, request)),
                errand::Action::End(ended) => self.chore_over = Some(ended == Ended::Settle),
            }
        }
    }
}

impl Running {
    fn new(machine: Machine, life: u8) -> Self {
        Self {
            machine,
            life,
            timers: [None; Timer::ALL.len()],
            rounds: 0,
            last_round: 0,
        }
    }

    pub(crate) fn operation(command: Command, request: RequestId) -> Self {
        let retry = Retry::Never(request);
        let operation = Operation::new(key(), command, retry, Consistency::Quorum, members(), true);
        Self::new(Machine::Operation(Box::new(operation)), 1)
    }

    pub(crate) fn settle(request: RequestId) -> Self {
        let operation = Operation::settle(key(), request, members());
        Self::new(Machine::Operation(Box::new(operation)), 2)
    }

    /// The hand-over of what the spare holds.
    pub(crate) fn hand_over(ballot: Ballot, state: State) -> Self {
        Self::new(Machine::HandOver(HandOver::new(ballot, state, HOMES, SPARE, NODES)), 1)
    }

    /// The collection of a tombstone, if this is one that may be collected.
    pub(crate) fn collect(ballot: Ballot, state: State) -> Option<Self> {
        may_be_collected(&key(), ballot, &state)
            .then(|| Self::new(Machine::Collect(Collect::new(ballot, state, NODES)), 1))
    }

    /// Whether it is told of nodes that are down. For a chore that is the same as an answer that never comes: it ends without effect.
    pub(crate) fn is_told_of_failures(&self) -> bool {
        matches!(self.machine, Machine::Operation(_))
    }

    pub(crate) fn has_armed(&self, timer: Timer) -> bool {
        self.timers[timer as usize].is_some()
    }

    /// The same but for its timers.
    pub(crate) fn is_same_machine(&self, other: &Self) -> bool {
        Fingerprint::of_form(&self.machine) == Fingerprint::of_form(&other.machine)
    }

    pub(crate) fn handle(&mut self, coordinator: &mut Coordinator, now_ms: u64, happening: Happening) -> Wants {
        let mut wants = Wants::default();
        let event = match happening {
            Happening::Start => Event::Start,
            Happening::Reply { round, rank, reply } => Event::Reply { round, rank, reply },
            Happening::NotDelivered { .. } if !self.is_told_of_failures() => return wants,
            Happening::NotDelivered { round, rank } => Event::Failed {
                round,
                rank,
                delivered: false,
                reason: String::new(),
            },
            Happening::Timer(timer) => match self.timers[timer as usize].take() {
                Some(timer) => Event::Wake { timer },
                None => return wants,
            },
        };
        match &mut self.machine {
            Machine::Operation(operation) => {
                let actions = operation.handle(coordinator, now_ms, event);
                self.note_actions(actions, &mut wants);
            }
            Machine::HandOver(machine) => wants.note_chore(machine.handle(event)),
            Machine::Collect(machine) => wants.note_chore(machine.handle(event)),
        }
        wants.rounds = self.rounds;
        wants
    }

    fn note_actions(&mut self, actions: Vec<Action>, wants: &mut Wants) {
        for action in actions {
            match action {
                Action::Send { round, rank, request } => {
                    if round > self.last_round {
                        self.last_round = round;
                        self.rounds = self.rounds.saturating_add(1);
                    }
                    wants.sends.push((round, rank, request));
                }
                Action::Wake { timer, after_ms } => {
                    let kind = Timer::of_length(after_ms);
                    if kind != Timer::Deadline && !std::mem::replace(&mut wants.armed, true) {
                        // Timers are armed when a round or a pause begins, and those of the one before mean nothing any more.
                        let deadline = self.timers[Timer::Deadline as usize];
                        self.timers = [None; Timer::ALL.len()];
                        self.timers[Timer::Deadline as usize] = deadline;
                    }
                    self.timers[kind as usize] = Some(timer);
                }
                Action::Done(outcome) => wants.outcome = Some(outcome),
            }
        }
    }
}

pub(crate) fn members() -> Members {
    Members {
        homes: HOMES,
        names: (0..NODES).map(|rank| format!("n{rank}").into()).collect(),
        suspected: vec![false; NODES],
    }
}
