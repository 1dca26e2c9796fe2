//! What an operation makes of the answers to a read or a prepare: more asking, a next round, or an outcome.

use super::super::evidence::{Doubt, Evidence};
use super::super::round::Round;
use super::super::{Action, Consistency, Outcome};
use super::{Basis, Context, Next, Operation, Phase, Purpose, Settled, Timer, UNWATCHED};
use crate::ballot::Ballot;
use crate::change::{self, Answer, Applied, Command};
use crate::message::Request;
use crate::state::{Lineage, State};
use crate::teeth::{Tooth, bites};

/// What the newest state says of other attempts at the same request.
enum Earlier {
    /// None is part of it.
    NotMade,
    /// One is, made at this ballot.
    Made(Ballot),
    /// It does not reach back far enough to tell.
    CannotTell,
}

impl Operation {
    pub(super) fn advance(&mut self, cx: &mut Context<'_>) {
        // A home that certainly does not answer: no need to wait for the timer.
        if self.round.home_failed(self.members.homes) {
            self.spares_at_once = true;
            self.ask_spares(cx);
        }
        match &self.phase {
            Phase::Read => self.judge_read(cx),
            Phase::Look { .. } => self.judge_look(cx),
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
    pub(super) fn evidence(&mut self, cx: &mut Context<'_>, needed: usize) -> Option<Evidence> {
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
        let ended = expired && !bites(Tooth::ExpiryByOwnClock);
        let doubtful = !evidence.doubt.is_empty() && !bites(Tooth::ForgottenWitnessInRead);
        if ended || doubtful || evidence.forgets_a_fence() {
            return self.begin_change(cx);
        }
        if evidence.newest.is_zero() {
            return self.answered(cx, answer, copies);
        }
        let Some(state) = evidence.state else {
            return self.begin_change(cx);
        };
        if copies >= needed || bites(Tooth::NoWriteBack) {
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

    /// Refuses the command on what a quorum holds; should it not be refused any more, or should that not be certain, it goes the ordinary
    /// way.
    fn judge_look(&mut self, cx: &mut Context<'_>) {
        let needed = self.members.quorum();
        let Some(evidence) = self.evidence(cx, needed) else {
            if matches!(self.phase, Phase::Look { .. }) && self.round.waiting() == 0 {
                self.pause(cx, Next::Change);
            }
            return;
        };
        let copies = evidence.holders.len();
        let certain = evidence.doubt.is_empty() && copies >= needed && !evidence.forgets_a_fence();
        let found = evidence.state.filter(|_| certain).and_then(|state| {
            let refusal = change::timeless_refusal(&self.command, &state, self.request())?;
            Some((state, refusal))
        });
        let Some((state, refusal)) = found else {
            return self.begin_change(cx);
        };
        if let Phase::Look { remembered } = &self.phase
            && remembered.state == state
        {
            // Nobody has used it, and nobody stands above it as far as is known.
            cx.coordinator.memory.keep(&self.key, remembered.clone());
        }
        self.settled = Settled::Found(state);
        self.answered(cx, refusal, copies);
    }

    /// Only some hold the newest state: it may not be told before a quorum does, or a later read could un-read it.
    fn write_back(&mut self, cx: &mut Context<'_>, holders: &[usize], ballot: Ballot, state: State, answer: Answer) {
        let request = Request::Accept {
            ballot,
            state,
            blind: !bites(Tooth::BlindOverFence),
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
        cx.wake(
            Timer::Spare.number(self.round.number),
            cx.coordinator.limits.spare_after_ms,
        );
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
        } else if self.round.waiting() == 0 || self.round.late && self.round.refusals() > 0 {
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
        let doubtful = !evidence.doubt.is_empty() && !bites(Tooth::ForgottenWitnessInPrepare);
        if doubtful && !known(&evidence.doubt, &self.doubt) {
            // Ask again, after the dropping: what was dropped is on the homes by now, or it never was chosen.
            self.doubt = evidence.doubt;
            self.seen = self.seen.max(ballot);
            return self.begin_change(cx);
        }
        let copies = evidence.holders.len();
        let agreed = !doubtful && copies >= needed && !evidence.forgets_a_fence();
        let state = evidence.with_fence();
        let earlier = self.earlier_attempt(state.as_ref(), evidence.floor);
        let Applied { next, answer } = match (&earlier, &state) {
            (Earlier::CannotTell, _) => {
                return self.unknown(
                    cx,
                    "an earlier attempt may have taken effect: what the key remembers does not reach back to it",
                );
            }
            (Earlier::Made(made), Some(state)) => change::repeated(&self.command, state, *made, ballot),
            _ => change::apply(&self.command, state.as_ref(), ballot, self.request()),
        };
        let is_new = matches!(earlier, Earlier::NotMade) && answer.tells_of_a_change();
        // Some minority may have taken an earlier attempt, which could still come through. Nothing is told before it is dead.
        let may_come_through =
            self.retry.may_be_repetition() && self.command != Command::Get && !matches!(earlier, Earlier::Made(_));
        let next = next.map(|mut next| {
            if state.is_none() {
                // Made of nothing, as `nothing` is.
                next.lineage.since = next.lineage.since.max(evidence.floor);
            }
            next
        });
        match next {
            Some(next) if is_new => self.start_accept(cx, ballot, next, Purpose::Change { answer }, Basis::Promises),
            // A tombstone for what has ended: committing it again is committing it once.
            Some(next) => self.start_accept(cx, ballot, next, Purpose::Confirm { answer }, Basis::Promises),
            None if agreed && !self.settle && !may_come_through => {
                self.settled = state.map_or(Settled::Nothing, Settled::Found);
                self.answered(cx, answer, copies);
            }
            None => {
                let state = state.unwrap_or_else(|| nothing(ballot, evidence.floor));
                self.start_accept(cx, ballot, state, Purpose::Confirm { answer }, Basis::Promises);
            }
        }
    }

    /// Looks for other attempts at this request: in `state`, or where there is none, in how much may have been dropped up to `floor`.
    ///
    /// An attempt made at a ballot below this prepare's that is not in the newest state was never chosen, and never will be: the quorum
    /// that promised takes it no more. One made above will ask this quorum, and find ours. Only blind writes replace states without
    /// looking, and lineages are only so long; `since` tells of both.
    fn earlier_attempt(&self, state: Option<&State>, floor: Ballot) -> Earlier {
        if self.command == Command::Get || bites(Tooth::RetryTwice) || bites(Tooth::SilentRetry) {
            return Earlier::NotMade;
        }
        if let Some(made) = state.and_then(|state| state.lineage.made_by(self.request())) {
            return Earlier::Made(made);
        }
        let since = state.map_or(floor, |state| state.lineage.since);
        match self.other_attempts_from {
            Some(from) if since.time >= from => Earlier::CannotTell,
            _ => Earlier::NotMade,
        }
    }
}

/// True when each doubtful floor is the very one that was seen before the last asking.
pub(super) fn known(doubt: &Doubt, before: &Doubt) -> bool {
    doubt.iter().all(|(rank, floor)| before.get(rank) == Some(floor))
}

/// The committed form of "there is nothing". What was there up to the floors may have been dropped, and is not known; nothing after them
/// is part of it.
pub(super) fn nothing(ballot: Ballot, floor: Ballot) -> State {
    let lineage = Lineage {
        since: floor,
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
