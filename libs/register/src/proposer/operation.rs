//! One operation, from start to outcome.

use super::evidence::{Doubt, Evidence};
use super::round::Round;
use super::{Action, Consistency, Coordinator, Event, Members, Outcome};
use crate::ballot::{Ballot, SkewError};
use crate::change::{self, Answer, Command};
use crate::message::Request;
use crate::state::{Descent, Lineage, RequestId, State};

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

    // ---- judging rounds ----

    fn advance(&mut self, cx: &mut Context<'_>) {
        // A home that certainly does not answer: no need to wait for the timer.
        if self.round.home_failed(self.members.homes) {
            self.spares_at_once = true;
            self.ask_spares(cx);
        }
        match &self.phase {
            Phase::Read => self.judge_read(cx),
            Phase::WriteBack { .. } => self.judge_write_back(cx),
            Phase::Prepare { ballot } => {
                let ballot = *ballot;
                self.judge_prepare(cx, ballot);
            }
            Phase::Accept { .. } => self.judge_accept(cx),
            Phase::Learn { lost, ballot } => {
                let (lost, ballot) = (lost.clone(), *ballot);
                self.judge_learn(cx, &lost, ballot);
            }
            Phase::Paused(_) | Phase::Ended => {}
        }
    }

    /// Weighs the round's answers once there are enough; `None` while there are not, or when they ended the operation.
    fn evidence(&mut self, cx: &mut Context<'_>, needed: usize) -> Option<Evidence> {
        if self.round.held().count() < needed {
            return None;
        }
        match Evidence::weigh(self.round.held(), self.members.homes) {
            Ok(evidence) => Some(evidence),
            Err(ballot) => {
                self.end(cx, Outcome::Corrupt { ballot });
                None
            }
        }
    }

    fn judge_read(&mut self, cx: &mut Context<'_>) {
        let needed = self.needed();
        let Some(evidence) = self.evidence(cx, needed) else {
            if matches!(self.phase, Phase::Read) && self.round.waiting() == 0 {
                self.pause(cx, Next::Begin);
            }
            return;
        };
        let expired = evidence
            .state
            .as_ref()
            .is_some_and(|state| state.is_expired(cx.now_unix_ms));
        let answer = match evidence
            .state
            .as_ref()
            .and_then(|state| state.value.clone().map(|value| (value, state.version)))
        {
            Some((value, version)) if !expired => Answer::Value { value, version },
            _ => Answer::Absent,
        };
        let copies = evidence.holders.len();
        if self.consistency == Consistency::One {
            // A spare holds nothing of most keys: its word that there is nothing counts only when no home is left to say otherwise.
            let home_heard = self.round.held().any(|(rank, _)| rank < self.members.homes);
            if evidence.newest.is_zero() && !home_heard && self.round.waiting() > 0 {
                return;
            }
            return self.answered(cx, answer, copies);
        }
        // What a node dropped, what has ended, or a fence that is missing: only settled by a change.
        if expired || !evidence.doubt.is_empty() || evidence.forgets_a_fence() {
            return self.begin_change(cx);
        }
        if evidence.newest.is_zero() {
            return self.answered(cx, answer, copies);
        }
        let Some(state) = evidence.state else {
            return self.begin_change(cx);
        };
        if copies >= needed {
            // A quorum holds it, so it is chosen, and a lagging home may simply be given it.
            if self.read_repair {
                let behind = evidence.behind.into_iter().filter(|rank| *rank < self.members.homes);
                let request = Request::Install {
                    ballot: evidence.newest,
                    state,
                };
                for rank in behind {
                    cx.actions.push(Action::Send {
                        round: UNWATCHED,
                        rank,
                        request: request.clone(),
                    });
                }
            }
            return self.answered(cx, answer, copies);
        }
        self.write_back(cx, &evidence.holders, evidence.newest, state, answer);
    }

    /// Only some hold the newest state: it may not be told before a quorum does, or a later read could un-read it.
    fn write_back(&mut self, cx: &mut Context<'_>, holders: &[usize], ballot: Ballot, state: State, answer: Answer) {
        let request = Request::Accept {
            ballot,
            state,
            blind: true,
            reserve: None,
            hint_for: None,
        };
        // Where a home did not answer the read, the spare that did takes the write-back too.
        let spares = self.spares_at_once || self.round.held().any(|(rank, _)| rank >= self.members.homes);
        self.round = Round::new(self.round.number + 1, request, self.members.names.len());
        // Whoever holds it already counts, once, and is not asked.
        for rank in holders {
            self.round.holds_already(*rank);
        }
        self.phase = Phase::WriteBack { answer };
        for rank in 0..self.members.names.len() {
            if self.round.is_unasked(rank) && (rank < self.members.homes || spares) {
                self.ask(cx, rank);
            }
        }
        cx.wake(Timer::Phase.number(self.round.number), cx.coordinator.limits.phase_ms);
    }

    fn judge_write_back(&mut self, cx: &mut Context<'_>) {
        let Phase::WriteBack { answer } = &self.phase else {
            return;
        };
        let copies = self.round.acks();
        if copies >= self.members.quorum() {
            let answer = answer.clone();
            self.answered(cx, answer, copies);
        } else if self.round.waiting() == 0 {
            // A promise stands in the way, or somebody is silent: commit it at a ballot of our own.
            self.seen = self.seen.max(self.round.higher);
            self.begin_change(cx);
        }
    }

    fn judge_prepare(&mut self, cx: &mut Context<'_>, ballot: Ballot) {
        if self.round.refusals() > 0 {
            // Somebody is ahead of us: give way for a moment, then go above.
            return self.pause(cx, Next::Change);
        }
        let needed = self.members.quorum();
        let Some(evidence) = self.evidence(cx, needed) else {
            if matches!(self.phase, Phase::Prepare { .. }) && self.round.waiting() == 0 {
                self.pause(cx, Next::Change);
            }
            return;
        };
        if !evidence.doubt.is_empty() && !known(&evidence.doubt, &self.doubt) {
            // Ask again, after the dropping: what was dropped is on the homes by now, or it never was chosen.
            self.doubt = evidence.doubt;
            self.seen = self.seen.max(ballot);
            return self.begin_change(cx);
        }
        let copies = evidence.holders.len();
        let agreed = evidence.doubt.is_empty() && copies >= needed && !evidence.forgets_a_fence();
        let state = evidence.with_fence();
        let change::Applied { next, answer } = change::apply(&self.command, state.as_ref(), ballot, self.request);
        match next {
            Some(next) if answer.tells_of_a_change() => {
                self.start_accept(cx, ballot, next, Purpose::Change { answer }, false);
            }
            // A tombstone for what has ended: committing it again is committing it once.
            Some(next) => self.start_accept(cx, ballot, next, Purpose::Confirm { answer }, false),
            None if agreed && !self.settle => self.answered(cx, answer, copies),
            None => {
                let state = state.unwrap_or_else(|| nothing(ballot));
                self.start_accept(cx, ballot, state, Purpose::Confirm { answer }, false);
            }
        }
    }

    fn judge_accept(&mut self, cx: &mut Context<'_>) {
        let Phase::Accept { ballot, purpose, blind } = &self.phase else {
            return;
        };
        let (ballot, purpose, blind) = (*ballot, purpose.clone(), *blind);
        let acks = self.round.acks();
        let needed = match purpose {
            // Only what a majority has passed by is dead for certain.
            Purpose::Bury { .. } => self.members.quorum(),
            _ => self.needed(),
        };
        if acks >= needed {
            return match purpose {
                Purpose::Change { answer } | Purpose::Confirm { answer } => self.answered(cx, answer, acks),
                Purpose::Adopt { lost } => self.answered(cx, lost.answer, acks),
                Purpose::Bury { .. } => {
                    self.seen = self.seen.max(ballot);
                    self.begin(cx, Next::Begin)
                }
            };
        }
        // With a refusal, waiting for more is worth it only while the acks can still suffice.
        let hopeless = acks + self.round.waiting() < needed;
        if self.round.waiting() > 0 && !hopeless {
            return;
        }
        if self.round.refusals() == 0 && self.has_unasked_spares() {
            return self.ask_spares(cx);
        }

        self.seen = self.seen.max(self.round.higher);
        if blind && self.round.fenced {
            // Not blindly, then: a change reads the fence and keeps it.
            self.consistency = Consistency::Quorum;
            self.by_change = true;
        }
        match purpose {
            _ if self.round.as_if_never_sent() && !matches!(purpose, Purpose::Adopt { .. } | Purpose::Bury { .. }) => {
                self.pause(cx, Next::Begin);
            }
            Purpose::Confirm { .. } => self.pause(cx, Next::Change),
            Purpose::Change { answer } => self.pause(cx, Next::Learn(Lost { ballot, answer })),
            Purpose::Adopt { lost } | Purpose::Bury { lost } => self.pause(cx, Next::Learn(lost)),
        }
    }

    /// Some nodes took the change at `lost.ballot`, some did not, and this prepare at a higher ballot tells what became of it.
    fn judge_learn(&mut self, cx: &mut Context<'_>, lost: &Lost, ballot: Ballot) {
        if self.round.refusals() > 0 {
            return self.pause(cx, Next::Learn(lost.clone()));
        }
        let Some(evidence) = self.evidence(cx, self.members.quorum()) else {
            if matches!(self.phase, Phase::Learn { .. }) && self.round.waiting() == 0 {
                self.pause(cx, Next::Learn(lost.clone()));
            }
            return;
        };
        // Chosen, then dropped? A node whose floor reaches our ballot may have held it.
        if evidence.floor >= lost.ballot || !evidence.doubt.is_empty() {
            return self.unknown(cx, "a replica may have held the change and handed it over since");
        }
        let newest = evidence.newest;
        let state = evidence.with_fence().unwrap_or_else(|| nothing(ballot));
        let descent = match state.lineage.descent(lost.ballot) {
            // What was made before ours cannot be made of it.
            Descent::Unknown if newest < lost.ballot => Descent::NotPart,
            descent => descent,
        };
        let lost = lost.clone();
        match descent {
            // It is in the newest state (maybe with other changes on top): commit that, and it has taken effect.
            Descent::Part => self.start_accept(cx, ballot, state, Purpose::Adopt { lost }, false),
            // Had it been chosen, every later change made through a prepare would have met it and be made of it; blind writes, which
            // meet nothing, are excluded by the lineage. So it was not chosen. Once the newest state is committed above it, every quorum
            // has passed it by: it is dead for certain.
            Descent::NotPart => self.start_accept(cx, ballot, state, Purpose::Bury { lost }, false),
            Descent::Unknown => {
                self.unknown(
                    cx,
                    "another change was made meanwhile, and whether it replaced this one cannot be told",
                );
            }
        }
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

/// True when each doubtful floor is the very one that was seen before the last asking.
fn known(doubt: &Doubt, before: &Doubt) -> bool {
    doubt.iter().all(|(rank, floor)| before.get(rank) == Some(floor))
}

/// The committed form of "there is nothing".
fn nothing(ballot: Ballot) -> State {
    let lineage = Lineage {
        since: ballot,
        changes: Vec::new(),
    };
    State {
        value: None,
        version: ballot,
        fence: 0,
        expires_at_ms: None,
        lineage,
    }
}
