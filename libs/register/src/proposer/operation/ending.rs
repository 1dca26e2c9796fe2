//! How an operation ends, and what is known by then.

use super::super::{Action, Consistency, Outcome};
use super::{Context, Next, Operation, Phase, Purpose};
use crate::change::{Answer, Command};

impl Operation {
    pub(super) fn needed(&self) -> usize {
        match self.consistency {
            Consistency::Quorum => self.members.quorum(),
            Consistency::One => 1,
        }
    }

    pub(super) fn has_unasked_spares(&self) -> bool {
        (self.members.homes..self.members.names.len()).any(|rank| self.round.is_unasked(rank))
    }

    pub(super) fn answered(&mut self, cx: &mut Context<'_>, answer: Answer, copies: usize) {
        self.end(cx, Outcome::Answered { answer, copies });
    }

    pub(super) fn unknown(&mut self, cx: &mut Context<'_>, reason: &str) {
        self.end(
            cx,
            Outcome::Unknown {
                reason: reason.to_owned(),
            },
        );
    }

    /// This attempt changed nothing; an earlier one may have.
    pub(super) fn unavailable(&self, reason: String) -> Outcome {
        if self.retry.may_be_repetition() && self.command != Command::Get {
            return self.not_settled(&format!("an earlier attempt may have taken effect; {reason}"));
        }
        Outcome::Unavailable {
            answered: self.round.answered(),
            needed: self.needed(),
            of: self.members.names.len(),
            silent: self.round.silent(),
            reason,
        }
    }

    fn not_settled(&self, reason: &str) -> Outcome {
        let (answered, of, needed) = (self.round.answered(), self.members.names.len(), self.needed());
        let reason = format!("{answered} of {of} replicas answered, {needed} are needed: {reason}");
        Outcome::Unknown { reason }
    }

    /// The deadline: says what is known.
    pub(super) fn give_up(&mut self, cx: &mut Context<'_>, why: &str) {
        let reason = match &self.round.trouble {
            Some(trouble) => format!("{why}; the last trouble: {trouble}"),
            None => why.to_owned(),
        };
        let maybe_done = match &self.phase {
            // What is confirmed may be what an earlier attempt did.
            Phase::Accept {
                purpose: Purpose::Confirm { answer },
                ..
            } => answer.tells_of_a_change(),
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
            self.not_settled(&reason)
        } else {
            self.unavailable(reason)
        };
        self.end(cx, outcome);
    }

    pub(super) fn end(&mut self, cx: &mut Context<'_>, outcome: Outcome) {
        self.phase = Phase::Ended;
        if matches!(outcome, Outcome::Unknown { .. } | Outcome::Corrupt { .. }) {
            cx.coordinator.memory.take(&self.key);
        }
        cx.actions.push(Action::Done(outcome));
    }
}
