//! One operation, from start to outcome: its rounds and its timers. What answers prove is told in `judging`.

mod judging;

use super::evidence::Doubt;
use super::round::Round;
use super::{Action, Consistency, Coordinator, Event, Members, Outcome};
use crate::ballot::{Ballot, SkewError};
use crate::change::{self, Answer, Command};
use crate::message::Request;
use crate::state::{RequestId, State};

/// Replies to sends that nobody waits for carry this round.
const UNWATCHED: u32 = 0;

/// The timers an operation has at once; a timer's number says which it is and for which round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Timer {
    Deadline,
    /// Ask the spares.
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
#[derive(Debug, Clone)]
struct Lost {
    /// The ballot it was sent at.
    ballot: Ballot,
    /// What to say once it is known to have taken effect.
    answer: Answer,
}

/// What an accept round is for.
#[derive(Debug, Clone)]
enum Purpose {
    /// The command's own change.
    Change { answer: Answer },
    /// No change of the command's: the state that a refusal or a read rests on is committed before it is told.
    Confirm { answer: Answer },
    /// Settling a lost change: it is part of what is being committed.
    Adopt { lost: Lost },
    /// Settling a lost change: an older state is committed above it, after which it is dead for certain.
    Bury { lost: Lost },
}

#[derive(Debug)]
enum Phase {
    /// Not begun, or between rounds; the pause timer begins this.
    Paused(Next),
    Read,
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
        blind: bool,
    },
    /// Prepare at a higher ballot, to see what became of a lost change.
    Learn {
        lost: Lost,
        ballot: Ballot,
    },
    Ended,
}

/// What a pause ends with.
#[derive(Debug, Clone)]
enum Next {
    Begin,
    Change,
    Learn(Lost),
}

/// One operation on one register. See the [module](super).
#[derive(Debug)]
pub struct Operation {
    command: Command,
    request: RequestId,
    consistency: Consistency,
    members: Members,
    read_repair: bool,
    /// Commit the newest state at a new ballot even if everybody agrees on it.
    settle: bool,
    /// Read the state before changing it, even for a blind command.
    by_change: bool,
    phase: Phase,
    round: Round,
    /// The highest ballot heard of in a refusal.
    seen: Ballot,
    /// The doubt that the last prepare ended in.
    doubt: Doubt,
    /// A home failed to answer once: from then on the spares are asked together with the homes.
    spares_at_once: bool,
    tries: u32,
}

struct Context<'a> {
    coordinator: &'a mut Coordinator,
    now_unix_ms: u64,
    actions: Vec<Action>,
}

impl Operation {
    /// An operation that has not begun. `request` names it across its retries.
    #[must_use]
    pub fn new(
        command: Command,
        request: RequestId,
        consistency: Consistency,
        members: Members,
        read_repair: bool,
    ) -> Self {
        let one = consistency == Consistency::One && matches!(command, Command::Get | Command::Put { fence: None, .. });
        let nodes = members.names.len();
        let suspected = members.suspected.iter().take(members.homes).any(|suspected| *suspected);
        Self {
            command,
            request,
            consistency: if one { Consistency::One } else { Consistency::Quorum },
            members,
            read_repair,
            settle: false,
            by_change: false,
            phase: Phase::Paused(Next::Begin),
            round: Round::new(UNWATCHED, Request::Read, nodes),
            seen: Ballot::ZERO,
            doubt: Doubt::new(),
            spares_at_once: suspected,
            tries: 0,
        }
    }

    /// The identity change: commits whatever is newest at a new ballot, so that older promises and half-done writes stand in nobody's
    /// way any more. Answers what a get would.
    #[must_use]
    pub fn settle(request: RequestId, members: Members) -> Self {
        Self {
            settle: true,
            by_change: true,
            ..Self::new(Command::Get, request, Consistency::Quorum, members, true)
        }
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
        match event {
            Event::Start => {
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
                    self.ask_spares(cx);
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

    // ---- beginning rounds ----

    fn begin(&mut self, cx: &mut Context<'_>, next: Next) {
        match next {
            Next::Begin if self.by_change => self.begin_change(cx),
            Next::Begin if self.command == Command::Get => {
                self.start_round(cx, Phase::Read, Request::Read, self.spares_at_once);
            }
            Next::Begin if self.command.is_blind() => self.begin_blind(cx),
            Next::Begin | Next::Change => self.begin_change(cx),
            Next::Learn(lost) => self.begin_learn(cx, lost),
        }
    }

    /// Draws a ballot above everything seen; ends the operation when what was seen lies beyond the skew bound.
    fn draw(&mut self, cx: &mut Context<'_>) -> Option<Ballot> {
        match cx.coordinator.clock.ballot_above(self.seen, cx.now_unix_ms) {
            Ok(ballot) => Some(ballot),
            Err(error) => {
                self.skewed(cx, error);
                None
            }
        }
    }

    fn begin_blind(&mut self, cx: &mut Context<'_>) {
        let Some(ballot) = self.draw(cx) else { return };
        // Only blind commands come here, and each of those makes a state of nothing.
        let Some(state) = change::blind_state(&self.command, ballot, self.request) else {
            return self.begin_change(cx);
        };
        let purpose = Purpose::Change {
            answer: Answer::Written { version: ballot },
        };
        self.start_accept(cx, ballot, state, purpose, true);
    }

    fn begin_change(&mut self, cx: &mut Context<'_>) {
        let Some(ballot) = self.draw(cx) else { return };
        self.start_round(
            cx,
            Phase::Prepare { ballot },
            Request::Prepare { ballot },
            self.spares_at_once,
        );
    }

    fn begin_learn(&mut self, cx: &mut Context<'_>, lost: Lost) {
        let drawn = cx
            .coordinator
            .clock
            .ballot_above(self.seen.max(lost.ballot), cx.now_unix_ms);
        match drawn {
            Ok(ballot) => {
                let phase = Phase::Learn { lost, ballot };
                self.start_round(cx, phase, Request::Prepare { ballot }, self.spares_at_once);
            }
            Err(error) => self.end(
                cx,
                Outcome::Unknown {
                    reason: error.to_string(),
                },
            ),
        }
    }

    fn start_accept(&mut self, cx: &mut Context<'_>, ballot: Ballot, state: State, purpose: Purpose, blind: bool) {
        // Where a spare has just promised in a home's stead, it takes the accept in its stead too; otherwise no spare is given a copy.
        let homes_heard = self.round.held().filter(|(rank, _)| *rank < self.members.homes).count();
        let spares = if blind {
            self.spares_at_once
        } else {
            homes_heard < self.members.homes
        };
        let request = Request::Accept {
            ballot,
            state,
            blind,
            reserve: None,
            hint_for: None,
        };
        self.start_round(cx, Phase::Accept { ballot, purpose, blind }, request, spares);
    }

    fn start_round(&mut self, cx: &mut Context<'_>, phase: Phase, request: Request, spares: bool) {
        self.round = Round::new(self.round.number + 1, request, self.members.names.len());
        self.phase = phase;
        for rank in 0..self.members.homes {
            self.ask(cx, rank);
        }
        if spares {
            self.ask_spares(cx);
        } else if self.members.homes < self.members.names.len() {
            cx.wake(
                Timer::Spare.number(self.round.number),
                cx.coordinator.limits.spare_after_ms,
            );
        }
        cx.wake(Timer::Phase.number(self.round.number), cx.coordinator.limits.phase_ms);
    }

    fn ask_spares(&mut self, cx: &mut Context<'_>) {
        for rank in self.members.homes..self.members.names.len() {
            if self.round.is_unasked(rank) {
                self.ask(cx, rank);
            }
        }
    }

    fn ask(&mut self, cx: &mut Context<'_>, rank: usize) {
        let mut request = self.round.request.clone();
        if let Request::Accept { hint_for, .. } = &mut request
            && rank >= self.members.homes
        {
            let home = self.hinted_home();
            *hint_for = Some(self.members.names[home].clone());
        }
        self.round.ask(rank);
        cx.actions.push(Action::Send {
            round: self.round.number,
            rank,
            request,
        });
    }

    /// The home whose place a spare takes: one believed gone, else the first that has not answered.
    fn hinted_home(&self) -> usize {
        let suspected = self
            .members
            .suspected
            .iter()
            .take(self.members.homes)
            .position(|suspected| *suspected);
        suspected.unwrap_or_else(|| self.round.missing_home(self.members.homes))
    }

    /// Begins `next` after a random pause.
    fn pause(&mut self, cx: &mut Context<'_>, next: Next) {
        self.seen = self.seen.max(self.round.higher);
        let after_ms = cx.coordinator.pause_ms(self.tries);
        self.tries += 1;
        // A number of its own, so that answers and timers of the round before are ignored.
        self.round.number += 1;
        self.phase = Phase::Paused(next);
        cx.wake(Timer::Pause.number(self.round.number), after_ms);
    }

    // ---- ending ----

    fn needed(&self) -> usize {
        match self.consistency {
            Consistency::Quorum => self.members.quorum(),
            Consistency::One => 1,
        }
    }

    fn has_unasked_spares(&self) -> bool {
        (self.members.homes..self.members.names.len()).any(|rank| self.round.is_unasked(rank))
    }

    fn answered(&mut self, cx: &mut Context<'_>, answer: Answer, copies: usize) {
        self.end(cx, Outcome::Answered { answer, copies });
    }

    fn unknown(&mut self, cx: &mut Context<'_>, reason: &str) {
        self.end(
            cx,
            Outcome::Unknown {
                reason: reason.to_owned(),
            },
        );
    }

    fn skewed(&mut self, cx: &mut Context<'_>, error: SkewError) {
        self.end(cx, self.unavailable(error.to_string()));
    }

    fn unavailable(&self, reason: String) -> Outcome {
        Outcome::Unavailable {
            answered: self.round.answered(),
            needed: self.needed(),
            of: self.members.names.len(),
            silent: self.round.silent(),
            reason,
        }
    }

    /// The deadline: says what is known.
    fn give_up(&mut self, cx: &mut Context<'_>, why: &str) {
        let reason = match &self.round.trouble {
            Some(trouble) => format!("{why}; the last trouble: {trouble}"),
            None => why.to_owned(),
        };
        let maybe_done = match &self.phase {
            Phase::Accept {
                purpose: Purpose::Confirm { .. },
                ..
            } => false,
            Phase::Accept {
                purpose: Purpose::Change { .. },
                ..
            } => !self.round.as_if_never_sent(),
            // Settling a lost change.
            Phase::Accept { .. } => true,
            Phase::Learn { .. } | Phase::Paused(Next::Learn(_)) => true,
            _ => false,
        };
        let outcome = if maybe_done {
            let (answered, of, needed) = (self.round.answered(), self.members.names.len(), self.needed());
            let reason = format!("{answered} of {of} replicas answered, {needed} are needed: {reason}");
            Outcome::Unknown { reason }
        } else {
            self.unavailable(reason)
        };
        self.end(cx, outcome);
    }

    fn end(&mut self, cx: &mut Context<'_>, outcome: Outcome) {
        self.phase = Phase::Ended;
        cx.actions.push(Action::Done(outcome));
    }
}

impl Context<'_> {
    fn wake(&mut self, timer: u32, after_ms: u64) {
        self.actions.push(Action::Wake { timer, after_ms });
    }
}
