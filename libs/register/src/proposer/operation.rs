//! One operation, from start to outcome: what it knows, and the events it takes. How rounds begin is told in `rounds`, what answers
//! prove in `judging` and (of accepts, and of changes that were lost) in `settling`, how it ends in `ending`.

mod ending;
mod judging;
mod rounds;
mod settling;

use super::evidence::Doubt;
use super::memory::Remembered;
use super::retry::Retry;
use super::round::Round;
use super::{Action, Consistency, Coordinator, Event, Members, Outcome};
use crate::ballot::{Ballot, HlcTime};
use crate::change::{self, Answer, Command};
use crate::message::Request;
use crate::state::{Key, RequestId, State};

/// Larger values refute nobody.
const REFUTES_MAX_BYTES: usize = 2_048;

/// Replies to sends that nobody waits for carry this round.
const UNWATCHED: u32 = 0;

/// The timers an operation has at once; a timer's number says which it is and for which round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Timer {
    Deadline,
    /// A home has been silent for long: ask the spares, or stop waiting for it where no spare could help.
    Spare,
    /// Stop waiting for this round.
    Phase,
    /// Begin what was put off.
    Pause,
}

impl Timer {
    const KINDS: u32 = 4;

    fn number(self, round: u32) -> u32 {
        round * Self::KINDS + self as u32
    }

    fn of(number: u32) -> (Self, u32) {
        let kind = match number % Self::KINDS {
            0 => Self::Deadline,
            1 => Self::Spare,
            2 => Self::Phase,
            _ => Self::Pause,
        };
        (kind, number / Self::KINDS)
    }
}

/// A change that some nodes took and some did not.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Lost {
    /// The ballot it was sent at.
    ballot: Ballot,
    /// That ballot was drawn by this operation, and not reserved by one before.
    is_drawn: bool,
    /// What to say once it is known to have taken effect.
    answer: Answer,
}

impl Lost {
    fn new(ballot: Ballot, basis: Basis, answer: Answer) -> Self {
        Self {
            ballot,
            is_drawn: basis != Basis::Memory,
            answer,
        }
    }
}

/// What an accept round is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Purpose {
    /// The command's own change.
    Change { answer: Answer },
    /// No change of the command's: the state that a refusal, a read or the answer to a repeated request rests on is committed before it
    /// is told.
    Confirm { answer: Answer },
    /// Settling a lost change: it is part of what is being committed.
    Adopt { lost: Lost },
    /// Settling a lost change: an older state is committed above it, after which it is dead for certain.
    Bury { lost: Lost },
}

/// What the state of an accept was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Basis {
    /// Nothing: a blind write.
    Nothing,
    /// What is remembered of the last change.
    Memory,
    /// What a quorum told with its promises.
    Promises,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Phase {
    /// Not begun, or between rounds; the pause timer begins this.
    Paused(Next),
    Read,
    /// The command would be refused on what is remembered: the nodes are asked whether that still stands.
    Look {
        remembered: Remembered,
    },
    /// The newest state goes to those that lack it.
    WriteBack {
        answer: Answer,
    },
    Prepare {
        ballot: Ballot,
    },
    Accept {
        ballot: Ballot,
        purpose: Purpose,
        basis: Basis,
    },
    /// Prepare at a higher ballot, to see what became of a lost change.
    Learn {
        lost: Lost,
        ballot: Ballot,
    },
    Ended,
}

/// What a pause ends with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Next {
    Begin,
    Change,
    Learn(Lost),
}

/// One operation on one register. See the [module](super).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    key: Key,
    command: Command,
    retry: Retry,
    /// Another attempt may have been made from this time on, and the lineage must reach back to it before this one is made.
    other_attempts_from: Option<HlcTime>,
    /// Time of the first ballot used.
    first_ballot: Option<HlcTime>,
    consistency: Consistency,
    members: Members,
    read_repair: bool,
    /// Commit the newest state at a new ballot even if everybody agrees on it.
    settle: bool,
    /// Read the state before changing it, even for a blind command.
    by_change: bool,
    /// See [`Self::among_others`].
    among_others: bool,
    phase: Phase,
    round: Round,
    /// The highest ballot heard of in a refusal.
    seen: Ballot,
    /// The doubt that the last prepare ended in.
    doubt: Doubt,
    /// A home failed to answer once: from then on the spares are asked together with the homes.
    spares_at_once: bool,
    tries: u32,
    /// When it is given up, by the coordinator's clock, in Unix milliseconds.
    deadline_unix_ms: u64,
    settled: Settled,
}

/// A state that a quorum held at some moment of an operation: the one that its answer rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Settled {
    /// None, or it is not known.
    Nothing,
    /// That of the last round's accept.
    Accepted,
    /// This one, which was found.
    Found(State),
}

/// Many may be compared with it at a time.
fn is_quick_to_compare(state: &State) -> bool {
    let length = state.value.as_ref().map_or(0, |value| value.len());
    length <= REFUTES_MAX_BYTES
}

struct Context<'a> {
    coordinator: &'a mut Coordinator,
    now_unix_ms: u64,
    actions: Vec<Action>,
}

impl Operation {
    /// An operation on `key` that has not begun. `retry` names it across all attempts at it.
    #[must_use]
    pub fn new(
        key: Key,
        command: Command,
        retry: Retry,
        consistency: Consistency,
        members: Members,
        read_repair: bool,
    ) -> Self {
        let may_be_one = match command {
            Command::Get => true,
            // Whether one ack made a change cannot be told later, so what is to take effect once is a quorum's business.
            Command::Put { fence: None, .. } => !retry.is_clients(),
            _ => false,
        };
        let nodes = members.names.len();
        let suspected = members.suspected.iter().take(members.homes).any(|suspected| *suspected);
        Self {
            key,
            command,
            retry,
            other_attempts_from: retry.not_before(),
            first_ballot: None,
            consistency: if may_be_one { consistency } else { Consistency::Quorum },
            members,
            read_repair,
            settle: false,
            by_change: false,
            among_others: false,
            phase: Phase::Paused(Next::Begin),
            round: Round::new(UNWATCHED, Request::Read, nodes),
            seen: Ballot::ZERO,
            doubt: Doubt::new(),
            spares_at_once: suspected,
            tries: 0,
            deadline_unix_ms: u64::MAX,
            settled: Settled::Nothing,
        }
    }

    /// The identity change: commits whatever is newest at a new ballot, so that older promises and half-done writes stand in nobody's
    /// way any more. Answers what a get would.
    #[must_use]
    pub fn settle(key: Key, request: RequestId, members: Members) -> Self {
        let retry = Retry::Never(request);
        Self {
            settle: true,
            by_change: true,
            ..Self::new(key, Command::Get, retry, Consistency::Quorum, members, true)
        }
    }

    /// Others on the same key are under way at the same coordinator. Their ballots may be above what was reserved before, and above what this one
    /// could reserve: nothing is made of what is remembered, and nothing is remembered for the next.
    #[must_use]
    pub fn among_others(self) -> Self {
        Self {
            among_others: true,
            ..self
        }
    }

    fn request(&self) -> RequestId {
        self.retry.request()
    }

    /// What another change of the same key is refused with on the state that this operation's answer rests on; none when it is not, when
    /// that is not known, or when the value is so large that comparing it for everybody who waits would take long.
    ///
    /// A quorum held that state at some moment after this operation was started and before it ended. So the refusal holds for every change
    /// that was asked for before this one was started and is not answered yet, and for no other.
    #[must_use]
    pub fn refutes(&self, change: &Command, request: RequestId) -> Option<Answer> {
        let state = match &self.settled {
            Settled::Found(state) => Some(state),
            _ => self.wrote(),
        };
        change::timeless_refusal(change, state.filter(|state| is_quick_to_compare(state))?, request)
    }

    /// The state that its last round has brought to a quorum, if it is one that it [refutes](Self::refutes) others by.
    #[must_use]
    pub fn wrote(&self) -> Option<&State> {
        match (&self.settled, &self.round.request) {
            (Settled::Accepted, Request::Accept { state, .. }) => {
                Some(state).filter(|state| is_quick_to_compare(state))
            }
            _ => None,
        }
    }

    /// The register it is about.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Takes one event, gives what is to be done about it. After [`Action::Done`] nothing more comes.
    pub fn handle(&mut self, coordinator: &mut Coordinator, now_unix_ms: u64, event: Event) -> Vec<Action> {
        let mut cx = Context {
            coordinator,
            now_unix_ms,
            actions: Vec::new(),
        };
        if matches!(self.phase, Phase::Ended) {
            return cx.actions;
        }
        // One that was stopped (with its whole process, maybe) goes on from here: too late to send anything more.
        if now_unix_ms > self.deadline_unix_ms {
            self.give_up(&mut cx, "the deadline has passed");
            return cx.actions;
        }
        match event {
            Event::Start => {
                self.deadline_unix_ms = now_unix_ms.saturating_add(cx.coordinator.limits.deadline_ms);
                cx.wake(Timer::Deadline.number(0), cx.coordinator.limits.deadline_ms);
                self.begin(&mut cx, Next::Begin);
            }
            Event::Reply { round, rank, reply } if self.watches(round) => match self.round.answer(rank, reply) {
                Ok(()) => self.advance(&mut cx),
                Err(ballot) => self.end(&mut cx, Outcome::Corrupt { ballot }),
            },
            Event::Failed {
                round,
                rank,
                delivered,
                reason,
            } if self.watches(round) => {
                self.round.fail(rank, delivered, reason);
                self.advance(&mut cx);
            }
            Event::Wake { timer } => self.wake(&mut cx, timer),
            Event::Reply { .. } | Event::Failed { .. } => {}
        }
        cx.actions
    }

    fn watches(&self, round: u32) -> bool {
        round == self.round.number && !matches!(self.phase, Phase::Paused(_))
    }

    fn wake(&mut self, cx: &mut Context<'_>, timer: u32) {
        match Timer::of(timer) {
            (Timer::Deadline, _) => self.give_up(cx, "the deadline has passed"),
            (_, round) if round != self.round.number => {}
            (Timer::Pause, _) => {
                if let Phase::Paused(next) = &self.phase {
                    let next = next.clone();
                    self.begin(cx, next);
                }
            }
            (Timer::Spare, _) if !matches!(self.phase, Phase::Paused(_)) => {
                if self.round.waiting() > 0 {
                    // Whoever is silent now will be so in the next round: its time is better spent on the spares.
                    self.round.late = true;
                    self.spares_at_once = true;
                    if self.round.refusals() == 0 {
                        self.ask_spares(cx);
                    }
                    self.advance(cx);
                }
            }
            (Timer::Phase, _) if !matches!(self.phase, Phase::Paused(_)) => {
                self.round.give_up_waiting();
                self.spares_at_once = true;
                self.advance(cx);
            }
            (Timer::Spare | Timer::Phase, _) => {}
        }
    }
}

impl Context<'_> {
    fn wake(&mut self, timer: u32, after_ms: u64) {
        self.actions.push(Action::Wake { timer, after_ms });
    }
}
