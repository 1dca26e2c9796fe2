//! What an operation makes of the answers to an accept, and how it learns what became of a change that only some nodes took.

use super::super::Consistency;
use super::judging::{known, nothing};
use super::{Basis, Context, Lost, Next, Operation, Phase, Purpose, Settled};
use crate::ballot::Ballot;
use crate::change::Answer;
use crate::message::Request;
use crate::state::{Descent, Lineage};
use crate::teeth::{Tooth, bites};

impl Operation {
    pub(super) fn judge_accept(&mut self, cx: &mut Context<'_>) {
        let Phase::Accept { ballot, purpose, basis } = &self.phase else {
            return;
        };
        let (ballot, purpose, basis) = (*ballot, purpose.clone(), *basis);
        let acks = self.round.acks();
        let needed = match purpose {
            // Only what a majority has passed by is dead for certain.
            Purpose::Bury { .. } => self.members.quorum(),
            _ => self.needed(),
        };
        if acks >= needed {
            // What fewer than a quorum took is not chosen, and the round of a burial is not the last one.
            if acks >= self.members.quorum() && !matches!(purpose, Purpose::Bury { .. }) {
                self.settled = Settled::Accepted;
            }
            return match purpose {
                Purpose::Change { answer } if self.asks_again() => self.ask_again(cx, answer, basis),
                Purpose::Change { answer } => {
                    self.remember(cx);
                    self.answered(cx, answer, acks);
                }
                Purpose::Confirm { answer } => self.answered(cx, answer, acks),
                Purpose::Adopt { lost } => {
                    self.remember(cx);
                    self.answered(cx, lost.answer, acks);
                }
                Purpose::Bury { .. } => {
                    self.seen = self.seen.max(ballot);
                    self.begin(cx, Next::Begin);
                }
            };
        }
        // With a refusal, waiting for more is worth it only while the acks can still suffice, or all may refuse a change: then there is
        // nothing to learn of it.
        let hopeless = acks + self.round.waiting() < needed;
        let all_may_refuse = matches!(purpose, Purpose::Change { .. }) && self.round.may_be_as_if_never_sent();
        // Nor for somebody who is silent while another refuses: the next round does without it.
        let in_vain = self.round.late && self.round.refusals() > 0;
        if self.round.waiting() > 0 && (!hopeless || all_may_refuse) && !in_vain {
            return;
        }
        if self.round.refusals() == 0 && self.has_unasked_spares() {
            return self.ask_spares(cx);
        }

        self.seen = self.seen.max(self.round.higher);
        if basis == Basis::Nothing && self.round.fenced {
            // Not blindly, then: a change reads the fence and keeps it.
            self.consistency = Consistency::Quorum;
            self.by_change = true;
        }
        match purpose {
            // Somebody has changed the key since: nobody to give way to, there is only nothing to remember any more.
            Purpose::Change { .. } if basis == Basis::Memory && self.round.as_if_never_sent() => {
                self.begin(cx, Next::Begin);
            }
            _ if self.round.as_if_never_sent() && !matches!(purpose, Purpose::Adopt { .. } | Purpose::Bury { .. }) => {
                self.pause(cx, Next::Begin);
            }
            Purpose::Confirm { .. } => self.pause(cx, Next::Change),
            Purpose::Change { .. } if bites(Tooth::SilentRetry) => self.pause(cx, Next::Begin),
            Purpose::Change { answer } => self.pause(cx, Next::Learn(Lost::new(ballot, basis, answer))),
            Purpose::Adopt { lost } | Purpose::Bury { lost } => self.pause(cx, Next::Learn(lost)),
        }
    }

    /// Only for a tooth: whether a reservation is still to be asked for.
    fn asks_again(&self) -> bool {
        let asked = matches!(self.round.request, Request::Accept { reserve: Some(_), .. });
        asked && bites(Tooth::ReservationByRepetition)
    }

    /// Only for a tooth: sends once more what was just chosen, for a reservation. Should it be refused by now, what became of it is learnt.
    fn ask_again(&mut self, cx: &mut Context<'_>, answer: Answer, basis: Basis) {
        if let Request::Accept { ballot, state, .. } = self.round.request.clone() {
            let lost = Lost::new(ballot, basis, answer);
            self.start_accept(cx, ballot, state, Purpose::Adopt { lost }, basis);
        }
    }

    /// Whether a lost blind write may be called done once a state is chosen that goes back to another blind write of this coordinator, at a later
    /// ballot. That one drew its ballot after this one had, so it takes effect while this one is under way, and it reads nothing: whether the
    /// lost one was chosen or not, nobody can deny that it took effect, right before that one at the latest. With a write of another
    /// coordinator it would not do, nor where the lost one's ballot had been reserved before: that write's ballot may be higher, and yet it
    /// may have been done before this one was asked for.
    fn is_overwritten(&self, lost: &Lost, lineage: &Lineage) -> bool {
        let root = lineage
            .blind_root()
            .filter(|_| self.command.is_blind() && lost.is_drawn);
        root.is_some_and(|root| root > lost.ballot && root.incarnation == lost.ballot.incarnation)
    }

    /// Some nodes took the change at `lost.ballot`, some did not, and this prepare at a higher ballot tells what became of it.
    pub(super) fn judge_learn(&mut self, cx: &mut Context<'_>, lost: &Lost, ballot: Ballot) {
        if self.round.refusals() > 0 {
            return self.pause(cx, Next::Learn(lost.clone()));
        }
        let Some(evidence) = self.evidence(cx, self.members.quorum()) else {
            if matches!(self.phase, Phase::Learn { .. }) && self.round.waiting() == 0 {
                self.pause(cx, Next::Learn(lost.clone()));
            }
            return;
        };
        if !evidence.doubt.is_empty() && !known(&evidence.doubt, &self.doubt) {
            // As in a prepare: what was handed over shows on the homes when they are asked after it.
            self.doubt = evidence.doubt;
            self.seen = self.seen.max(ballot);
            return self.begin_learn(cx, lost.clone());
        }
        // Chosen, then collected everywhere? Where something is held, its lineage tells; where nothing is, only the floors do.
        let dropped = evidence.floor >= lost.ballot && !bites(Tooth::LearnIgnoresDropped);
        if evidence.newest.is_zero() && dropped {
            return self.unknown(cx, "the key is gone, and a replica may have held the change before");
        }
        let newest = evidence.newest;
        let state = evidence.with_fence().unwrap_or_else(|| nothing(ballot, evidence.floor));
        let descent = match state.lineage.descent(lost.ballot) {
            // What was made before ours cannot be made of it.
            Descent::Unknown if newest < lost.ballot => Descent::NotPart,
            descent => descent,
        };
        let lost = lost.clone();
        match descent {
            // It is in the newest state (maybe with other changes on top): commit that, and it has taken effect.
            Descent::Part => self.start_accept(cx, ballot, state, Purpose::Adopt { lost }, Basis::Promises),
            // Had it been chosen, every later change made through a prepare would have met it and be made of it; blind writes, which
            // meet nothing, are excluded by the lineage. So it was not chosen. Once the newest state is committed above it, every quorum
            // has passed it by: it is dead for certain.
            Descent::NotPart => self.start_accept(cx, ballot, state, Purpose::Bury { lost }, Basis::Promises),
            Descent::Unknown if self.is_overwritten(&lost, &state.lineage) => {
                if evidence.holders.len() >= self.members.quorum() {
                    // Chosen already.
                    self.answered(cx, lost.answer, evidence.holders.len());
                } else {
                    self.start_accept(cx, ballot, state, Purpose::Adopt { lost }, Basis::Promises);
                }
            }
            Descent::Unknown => {
                self.unknown(
                    cx,
                    "another change was made meanwhile, and whether it replaced this one cannot be told",
                );
            }
        }
    }
}
