//! How rounds begin: which ballot, which state, who is asked.

use super::super::memory::{FRESH_MS, Remembered};
use super::super::preference::goes_before;
use super::super::round::Round;
use super::super::{Action, Consistency, Outcome};
use super::{Basis, Context, Lost, Next, Operation, Phase, Purpose, Timer};
use crate::ballot::{Ballot, SkewError};
use crate::change::{self, Answer, Applied, Command};
use crate::message::Request;
use crate::state::State;
use crate::teeth::{Tooth, bites};

impl Operation {
    pub(super) fn begin(&mut self, cx: &mut Context<'_>, next: Next) {
        match next {
            Next::Begin if self.command == Command::Get && !self.by_change => {
                self.start_round(cx, Phase::Read, Request::Read, self.spares_at_once);
            }
            Next::Begin => {
                if self.among_others || !self.propose_remembered(cx) {
                    self.begin_unremembered(cx);
                }
            }
            Next::Change => self.begin_change(cx),
            Next::Learn(lost) => self.begin_learn(cx, lost),
        }
    }

    /// Draws a ballot above `seen`. Whatever was reserved for this key lies below it, and is not worth remembering any more.
    fn draw_above(&mut self, cx: &mut Context<'_>, seen: Ballot) -> Result<Ballot, SkewError> {
        cx.coordinator.memory.take(&self.key);
        let ballot = cx.coordinator.clock.ballot_above(seen, cx.now_unix_ms)?;
        self.uses(ballot);
        Ok(ballot)
    }

    /// Draws a ballot above everything seen; ends the operation when what was seen lies beyond the skew bound.
    fn draw(&mut self, cx: &mut Context<'_>) -> Option<Ballot> {
        match self.draw_above(cx, self.seen) {
            Ok(ballot) => Some(ballot),
            Err(error) => {
                self.end(cx, self.unavailable(error.to_string()));
                None
            }
        }
    }

    /// A client's request that needs a second ballot starts over, and the client may have sent another attempt since the first.
    fn uses(&mut self, ballot: Ballot) {
        if self.retry.is_clients() {
            self.other_attempts_from = self.other_attempts_from.or(self.first_ballot);
            self.first_ballot = self.first_ballot.or(Some(ballot.time));
        }
    }

    /// Makes the change of what is remembered, at the reserved ballot; or, when the command would be refused there, which only nodes may
    /// say, asks them. False when it has to go the ordinary way: nothing (that may be used) is remembered.
    fn propose_remembered(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(remembered) = cx.coordinator.memory.take(&self.key) else {
            return false;
        };
        let (state, reserved) = (&remembered.state, remembered.reserved);
        // Time is the ballot's, and this one's is past: nothing that depends on time is made or judged at it.
        let timeless = self.command.is_timeless_change() && state.expires_at_ms.is_none();
        let fresh = reserved.time.unix_ms().saturating_add(FRESH_MS) >= cx.now_unix_ms;
        let made_before = self.other_attempts_from.is_some() || state.lineage.made_by(self.request()).is_some();
        if !timeless || !fresh || made_before || self.consistency == Consistency::One {
            return false;
        }
        let Applied { next, answer } = change::apply(&self.command, Some(state), reserved, self.request());
        match next {
            Some(next) if answer.tells_of_a_change() => {
                self.uses(reserved);
                self.start_accept(cx, reserved, next, Purpose::Change { answer }, Basis::Memory);
                true
            }
            _ if bites(Tooth::RefusalFromMemory) => {
                self.answered(cx, answer, self.members.quorum());
                true
            }
            // No prepare, which would take the reservation from the next one: reading is enough to refuse.
            _ if !self.retry.may_be_repetition() => {
                self.start_round(cx, Phase::Look { remembered }, Request::Read, self.spares_at_once);
                true
            }
            _ => false,
        }
    }

    fn begin_unremembered(&mut self, cx: &mut Context<'_>) {
        // A client's request may have been made by another attempt, which a blind write would not see.
        if self.command.is_blind() && !self.by_change && !self.retry.is_clients() {
            self.begin_blind(cx);
        } else {
            self.begin_change(cx);
        }
    }

    fn begin_blind(&mut self, cx: &mut Context<'_>) {
        let Some(ballot) = self.draw(cx) else { return };
        // Only blind commands come here, and each of those makes a state of nothing.
        let Some(state) = change::blind_state(&self.command, ballot, self.request()) else {
            return self.begin_change(cx);
        };
        let purpose = Purpose::Change {
            answer: Answer::Written { version: ballot },
        };
        self.start_accept(cx, ballot, state, purpose, Basis::Nothing);
    }

    pub(super) fn begin_change(&mut self, cx: &mut Context<'_>) {
        let Some(ballot) = self.draw(cx) else { return };
        self.start_round(
            cx,
            Phase::Prepare { ballot },
            Request::Prepare { ballot },
            self.spares_at_once,
        );
    }

    pub(super) fn begin_learn(&mut self, cx: &mut Context<'_>, lost: Lost) {
        match self.draw_above(cx, self.seen.max(lost.ballot)) {
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

    pub(super) fn start_accept(
        &mut self,
        cx: &mut Context<'_>,
        ballot: Ballot,
        state: State,
        purpose: Purpose,
        basis: Basis,
    ) {
        // Where a spare has just promised in a home's stead, it takes the accept in its stead too; otherwise no spare is given a copy.
        let spares = if basis == Basis::Promises {
            let homes_heard = self.round.held().filter(|(rank, _)| *rank < self.members.homes).count();
            homes_heard < self.members.homes
        } else {
            self.spares_at_once
        };
        let request = Request::Accept {
            ballot,
            reserve: self.reservation(cx, &state, &purpose),
            state,
            blind: basis == Basis::Nothing,
            hint_for: None,
        };
        self.start_round(cx, Phase::Accept { ballot, purpose, basis }, request, spares);
    }

    /// The ballot to ask for along with an accept: the next one, where the next change can make use of it.
    fn reservation(&self, cx: &mut Context<'_>, state: &State, purpose: &Purpose) -> Option<Ballot> {
        let asks_again = bites(Tooth::ReservationByRepetition) && matches!(purpose, Purpose::Adopt { .. });
        let useful = (asks_again || matches!(purpose, Purpose::Change { .. }))
            && self.consistency == Consistency::Quorum
            && !self.among_others
            && self.command.is_timeless_change()
            && state.expires_at_ms.is_none()
            && !cx.coordinator.memory.is_off();
        useful.then(|| cx.coordinator.clock.ballot(cx.now_unix_ms))
    }

    /// Keeps what was just chosen for the next change, if a quorum granted the ballot asked for.
    pub(super) fn remember(&self, cx: &mut Context<'_>) {
        if let Request::Accept {
            state,
            reserve: Some(reserved),
            ..
        } = &self.round.request
            && (self.round.reserved() >= self.members.quorum() || bites(Tooth::ReservationNotGranted))
        {
            let remembered = Remembered {
                state: state.clone(),
                reserved: *reserved,
            };
            cx.coordinator.memory.keep(&self.key, remembered);
        }
    }

    fn start_round(&mut self, cx: &mut Context<'_>, phase: Phase, request: Request, spares: bool) {
        self.round = Round::new(self.round.number + 1, request, self.members.names.len());
        self.phase = phase;
        for rank in 0..self.members.homes {
            self.ask(cx, rank);
        }
        if spares {
            self.ask_spares(cx);
        }
        cx.wake(
            Timer::Spare.number(self.round.number),
            cx.coordinator.limits.spare_after_ms,
        );
        cx.wake(Timer::Phase.number(self.round.number), cx.coordinator.limits.phase_ms);
    }

    pub(super) fn ask_spares(&mut self, cx: &mut Context<'_>) {
        for rank in self.members.homes..self.members.names.len() {
            if self.round.is_unasked(rank) {
                self.ask(cx, rank);
            }
        }
    }

    pub(super) fn ask(&mut self, cx: &mut Context<'_>, rank: usize) {
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

    /// Begins `next` after a random pause: a long one, when the coordinator that was in the way is preferred for this key.
    pub(super) fn pause(&mut self, cx: &mut Context<'_>, next: Next) {
        self.seen = self.seen.max(self.round.higher);
        let (other, own) = (self.round.higher.incarnation, cx.coordinator.clock.incarnation());
        let after_ms = cx.coordinator.pause_ms(self.tries, goes_before(&self.key, other, own));
        self.tries += 1;
        // A number of its own, so that answers and timers of the round before are ignored.
        self.round.number += 1;
        self.phase = Phase::Paused(next);
        cx.wake(Timer::Pause.number(self.round.number), after_ms);
    }
}
