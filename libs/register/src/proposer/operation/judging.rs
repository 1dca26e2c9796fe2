//! What an operation makes of the answers of a round: more asking, a next round, or an outcome.

use super::super::evidence::{Doubt, Evidence};
use super::super::round::Round;
use super::super::{Action, Consistency, Outcome};
use super::{Context, Lost, Next, Operation, Phase, Purpose, Timer, UNWATCHED};
use crate::ballot::Ballot;
use crate::change::{self, Answer};
use crate::message::Request;
use crate::state::{Descent, Lineage, State};

impl Operation {
    pub(super) fn advance(&mut self, cx: &mut Context<'_>) {
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
        let next = next.map(|mut next| {
            if state.is_none() {
                // Made of nothing, as `nothing` is.
                next.lineage.since = next.lineage.since.max(evidence.floor);
            }
            next
        });
        match next {
            Some(next) if answer.tells_of_a_change() => {
                self.start_accept(cx, ballot, next, Purpose::Change { answer }, false);
            }
            // A tombstone for what has ended: committing it again is committing it once.
            Some(next) => self.start_accept(cx, ballot, next, Purpose::Confirm { answer }, false),
            None if agreed && !self.settle => self.answered(cx, answer, copies),
            None => {
                let state = state.unwrap_or_else(|| nothing(ballot, evidence.floor));
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
        if !evidence.doubt.is_empty() && !known(&evidence.doubt, &self.doubt) {
            // As in a prepare: what was handed over shows on the homes when they are asked after it.
            self.doubt = evidence.doubt;
            self.seen = self.seen.max(ballot);
            return self.begin_learn(cx, lost.clone());
        }
        // Chosen, then collected everywhere? Where something is held, its lineage tells; where nothing is, only the floors do.
        if evidence.newest.is_zero() && evidence.floor >= lost.ballot {
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
}

/// True when each doubtful floor is the very one that was seen before the last asking.
fn known(doubt: &Doubt, before: &Doubt) -> bool {
    doubt.iter().all(|(rank, floor)| before.get(rank) == Some(floor))
}

/// The committed form of "there is nothing". What was there up to the floors may have been dropped, and is not known; nothing after them
/// is part of it.
fn nothing(ballot: Ballot, floor: Ballot) -> State {
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
