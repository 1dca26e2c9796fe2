//! Shorter histories that are wrong for the same reason.
//!
//! Leaving out any operation will not do: without the write of 7, a read of 7 is wrong for a reason that was never there. Each step here
//! is such that a linearizable history stays one; so when what is left is wrong, the whole is.

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::ops::Range;

use crate::cut::known_at;
use crate::history::{Entry, ModelKind, NEVER, Op, Time};
use crate::model::changes_nothing;
use crate::search::Checker;
use crate::violation::ViolationKind;

/// Operations tried per attempt: one that takes longer is not worth it.
const ATTEMPT_BUDGET_STEPS: u64 = 1_000_000;

/// A short history of one key that is wrong as well, and whose being wrong proves the whole one wrong.
///
/// It holds operations of `history`, some with less of an answer than they had: one whose answer came after the mistake is pending, and a
/// CAS may have become a mere write of its new value. A history that is not wrong, or that no search could decide, comes back as it is.
#[must_use]
pub fn shrink(history: &[Entry]) -> Vec<Entry> {
    let mut checker = Checker::with_budget(ATTEMPT_BUDGET_STEPS);
    let violation = match checker.check(history) {
        Err(violation) if violation.kind == ViolationKind::NotLinearizable => violation,
        _ => return history.to_vec(),
    };
    let model = violation.model.unwrap_or(ModelKind::Register);
    let mistake = violation
        .stuck
        .iter()
        .map(|&place| violation.history[place].returned)
        .max();
    let mut shrinking = Shrinking {
        checker,
        model,
        shortest: violation.history,
    };
    shrinking.try_instead(
        known_at(&shrinking.shortest, mistake.unwrap_or(NEVER))
            .map(|(_, entry)| entry)
            .collect(),
    );
    loop {
        let before = shrinking.shortest.len();
        shrinking.leave_out();
        shrinking.relax();
        if shrinking.shortest.len() == before {
            return shrinking.shortest;
        }
    }
}

struct Shrinking {
    checker: Checker,
    model: ModelKind,
    /// Wrong, for all we know since the beginning.
    shortest: Vec<Entry>,
}

impl Shrinking {
    fn is_wrong(&mut self, history: &[Entry]) -> bool {
        let verdict = self.checker.check(history);
        verdict.is_err_and(|violation| violation.kind == ViolationKind::NotLinearizable)
    }

    fn try_instead(&mut self, other: Vec<Entry>) -> bool {
        let wrong = self.is_wrong(&other);
        if wrong {
            self.shortest = other;
        }
        wrong
    }

    /// Leaves out as much as may be, in ever smaller pieces.
    fn leave_out(&mut self) {
        let mut piece = self.shortest.len();
        while piece > 0 {
            let mut end = self.shortest.len();
            while end > 0 {
                let start = end.saturating_sub(piece);
                let shorter = without(&self.shortest, start..end, self.model);
                if shorter.len() < self.shortest.len() {
                    self.try_instead(shorter);
                }
                end = start.min(self.shortest.len());
            }
            piece /= 2;
        }
    }

    /// Makes of swaps mere writes: a register that swapped has written. What they expected need not be there then, and can be left out.
    fn relax(&mut self) {
        for place in 0..self.shortest.len() {
            if let Op::Cas {
                new,
                swapped: Some(true),
                ..
            } = self.shortest[place].op
            {
                let mut other = self.shortest.clone();
                other[place].op = Op::Write(new);
                self.try_instead(other);
            }
        }
    }
}

/// The history without those operations of `range` that it may be left without.
///
/// What changes nothing can always go. Then goes what made a value that nobody names any more: nobody can have noticed, see
/// `Steps::drop_useless_options`, unless he saw a mere difference while the value was there. Of a lock, all goes that names a token: to
/// everybody else the lock is free where it was held, which is noticed only by one who was refused it then.
fn without(history: &[Entry], range: Range<usize>, model: ModelKind) -> Vec<Entry> {
    let mut left: Vec<(usize, Entry)> = history.iter().copied().enumerate().collect();
    left.retain(|(place, entry)| !(range.contains(place) && changes_nothing(entry)));
    loop {
        let before = left.len();
        match model {
            ModelKind::Register => leave_out_unnamed(&mut left, &range),
            ModelKind::Lock => leave_out_tokens(&mut left, &range),
        }
        if left.len() == before {
            return left.into_iter().map(|(_, entry)| entry).collect();
        }
    }
}

fn leave_out_unnamed(left: &mut Vec<(usize, Entry)>, range: &Range<usize>) {
    let (mut names, mut makers, mut refusals) = (HashSet::new(), HashSet::new(), HashSet::new());
    for (_, entry) in left.iter() {
        if let Some(seen) = entry.refused_below {
            refusals.insert(seen);
            continue;
        }
        if let Op::Read(named) | Op::CasMissed { found: named, .. } | Op::Cas { expected: named, .. } = entry.op {
            names.insert(named);
        }
        if let Op::End(named) = entry.op {
            names.insert(Some(named));
        }
        if let Op::Write(made) | Op::Cas { new: made, .. } = entry.op {
            makers.insert(made);
        }
    }
    let seers = seers(left);
    let blind: Vec<Entry> = left.iter().map(|(_, entry)| *entry).filter(overwrites).collect();
    let goes = |entry: &Entry| match entry.op {
        _ if entry.fence.is_some_and(|fence| refusals.contains(&fence)) => false,
        Op::Write(made) | Op::Cas { new: made, .. } => {
            !names.contains(&made) && !is_seen(entry.called, gone_by(entry, &blind), &seers)
        }
        // Nothing made what would end, or nobody looked whether anything is there.
        Op::End(value) => {
            let looked = names.contains(&None) || is_seen(entry.called, NEVER, &seers);
            !makers.contains(&Some(value)) || !looked
        }
        _ => false,
    };
    // One at a time: another that goes with it might be what ended its reign.
    if let Some(place) = left
        .iter()
        .position(|(place, entry)| range.contains(place) && goes(entry))
    {
        if seers.is_empty() {
            left.retain(|(place, entry)| !(range.contains(place) && goes(entry)));
        } else {
            left.remove(place);
        }
    }
}

fn overwrites(entry: &Entry) -> bool {
    matches!(entry.op, Op::Write(_)) && entry.refused_below.is_none() && entry.is_certain()
}

/// When the value that `entry` made was certainly gone.
fn gone_by(entry: &Entry, blind: &[Entry]) -> Time {
    let later = blind.iter().filter(|later| later.called > entry.returned);
    later.map(|later| later.returned).min().unwrap_or(NEVER)
}

/// The times of those who saw a mere difference.
fn seers(left: &[(usize, Entry)]) -> Vec<(Time, Time)> {
    let sees = |entry: &Entry| {
        entry.refused_below.is_none()
            && matches!(
                entry.op,
                Op::Cas {
                    swapped: Some(false),
                    ..
                } | Op::Acquire { took: Some(false), .. }
                    | Op::Release { freed: Some(false), .. }
            )
    };
    let seers = left.iter().filter(|(_, entry)| entry.is_certain() && sees(entry));
    seers.map(|(_, entry)| (entry.called, entry.returned)).collect()
}

fn is_seen(from: Time, until: Time, seers: &[(Time, Time)]) -> bool {
    seers
        .iter()
        .any(|&(called, returned)| called <= until && from <= returned)
}

fn leave_out_tokens(left: &mut Vec<(usize, Entry)>, range: &Range<usize>) {
    let seers = seers(left);
    let mut goes: Vec<u32> = Vec::new();
    for (_, entry) in left.iter().filter(|(place, _)| range.contains(place)) {
        if let Some(token) = token_of(entry)
            && !goes.contains(&token)
        {
            let (from, until) = held(left, token);
            if !is_seen(from, until, &seers) {
                goes.push(token);
            }
        }
    }
    left.retain(|(_, entry)| token_of(entry).is_none_or(|token| !goes.contains(&token)));
}

fn token_of(entry: &Entry) -> Option<u32> {
    match entry.op {
        Op::Acquire { token, .. } | Op::Renew { token, .. } | Op::End(token) => Some(token),
        Op::Release { token, .. } => token,
        _ => None,
    }
}

/// From when until when `token` may have held the lock.
fn held(left: &[(usize, Entry)], token: u32) -> (Time, Time) {
    let of_token = || {
        left.iter()
            .map(|(_, entry)| entry)
            .filter(|entry| token_of(entry) == Some(token))
    };
    let acquires = || of_token().filter(|entry| matches!(entry.op, Op::Acquire { .. }));
    let from = acquires().map(|entry| entry.called).min().unwrap_or(NEVER);
    let taken = acquires().map(|entry| entry.returned).max().unwrap_or(0);
    let released =
        of_token().filter(|entry| matches!(entry.op, Op::Release { freed: Some(true), .. }) && entry.called > taken);
    (from, released.map(|entry| entry.returned).min().unwrap_or(NEVER))
}
