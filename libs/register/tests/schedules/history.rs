//! What the clients saw, and whether any single register could have answered so.

use std::collections::HashSet;

pub(crate) type Value = Option<u32>;

/// Of an operation that never returned, or was never called.
pub(crate) const NEVER: u64 = u64::MAX;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Op {
    Read(Value),
    Write(Value),
    /// Expected, new, and whether it swapped (`None`: not known).
    Cas(Value, Value, Option<bool>),
    /// The token, and whether it took the lock.
    Acquire(u32, Option<bool>),
    /// The token, and whether the lock is free for its sake.
    Release(u32, Option<bool>),
    /// The token, and whether it held the lock.
    Renew(u32, Option<bool>),
    /// This value ends by itself: nobody's operation, at any time from `called` on, or never if it is overwritten before.
    End(u32),
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) called: u64,
    pub(crate) returned: u64,
    /// The fence it came with, or got with its lock.
    pub(crate) fence: Option<u64>,
    /// The fence seen that it was refused for.
    pub(crate) refused_below: Option<u64>,
    pub(crate) op: Op,
}

impl Entry {
    fn happened(&self) -> bool {
        self.called != NEVER && self.refused_below.is_none()
    }

    fn returned_before(&self, other: &Self) -> bool {
        self.returned < other.called
    }

    fn changed_something(&self) -> bool {
        let changed = matches!(
            self.op,
            Op::Write(_) | Op::Cas(_, _, Some(true)) | Op::Acquire(_, Some(true))
        );
        changed && self.happened() && self.returned != NEVER
    }
}

/// What an operation makes of a value; `None` when it cannot have answered so.
fn after(op: &Op, value: Value) -> Option<Value> {
    match *op {
        Op::Read(seen) => (seen == value).then_some(value),
        Op::Write(new) => Some(new),
        Op::Cas(old, new, None) => (old == value).then_some(new),
        Op::Cas(old, new, Some(swapped)) => ((old == value) == swapped).then_some(if swapped { new } else { value }),
        Op::Acquire(token, None | Some(true)) => value.is_none().then_some(Some(token)),
        Op::Acquire(_, Some(false)) => value.is_some().then_some(value),
        Op::Release(token, None) => (value == Some(token)).then_some(None),
        Op::Release(token, Some(true)) => (value.is_none() || value == Some(token)).then_some(None),
        Op::Release(token, Some(false)) => (value.is_some() && value != Some(token)).then_some(value),
        Op::End(ending) => (value == Some(ending)).then_some(None),
        Op::Renew(_, None) => None,
        Op::Renew(token, Some(held)) => ((value == Some(token)) == held).then_some(value),
    }
}

/// Wing & Gong (1993) with memoisation over (operations done, value): is there an order that explains every answer?
pub(crate) fn linearizable(history: &[Entry]) -> bool {
    let mut entries: Vec<&Entry> = history.iter().filter(|entry| entry.happened()).collect();
    entries.sort_by_key(|entry| entry.called);
    assert!(entries.len() <= 64, "the bit set holds 64 operations");
    let must = entries
        .iter()
        .enumerate()
        .filter(|(_, e)| e.returned != NEVER)
        .fold(0_u64, |bits, (i, _)| bits | 1 << i);
    let (mut stack, mut tried) = (vec![(0_u64, None::<u32>)], HashSet::new());
    while let Some((done, value)) = stack.pop() {
        if done & must == must {
            return true;
        }
        if !tried.insert((done, value)) {
            continue;
        }
        let open = || entries.iter().enumerate().filter(|(i, _)| done >> i & 1 == 0);
        let first_return = open().map(|(_, entry)| entry.returned).min().unwrap_or(NEVER);
        for (i, entry) in open().take_while(|(_, entry)| entry.called <= first_return) {
            if let Some(next) = after(&entry.op, value) {
                stack.push((done | 1 << i, next));
            }
        }
    }
    false
}

/// Nothing succeeds with a lower fence than one that had succeeded before, and a refusal names a fence somebody used.
pub(crate) fn fences_hold(history: &[Entry]) -> bool {
    let never_passed_by_a_lower_one = history.iter().filter(|e| e.changed_something()).all(|first| {
        let second = history
            .iter()
            .filter(|e| e.changed_something() && first.returned_before(e));
        second
            .into_iter()
            .all(|e| first.fence.is_none() || e.fence.is_none() || e.fence >= first.fence)
    });
    let refusals_are_true = history.iter().all(|refused| {
        refused.refused_below.is_none_or(|seen| {
            let used = |e: &Entry| e.fence == Some(seen) && (e.called == NEVER || e.called <= refused.returned);
            refused.fence < Some(seen) && history.iter().any(used)
        })
    });
    never_passed_by_a_lower_one && refusals_are_true
}

/// Each acquisition has a higher fence than those before it.
pub(crate) fn lock_fences_grow(history: &[Entry]) -> bool {
    let taken = || history.iter().filter(|entry| entry.changed_something());
    taken().all(|first| {
        taken().all(|second| {
            std::ptr::eq(first, second)
                || first.fence != second.fence && (!first.returned_before(second) || first.fence < second.fence)
        })
    })
}

/// No two hold the lock at once, as far as that can be promised: each from its answer until `certain_ms` after it asked.
pub(crate) fn one_holder(history: &[Entry], certain_ms: u64) -> bool {
    let held = |entry: &Entry| (entry.returned, entry.called + certain_ms);
    let taken: Vec<_> = history.iter().filter(|e| e.changed_something()).map(held).collect();
    let overlap = |a: &(u64, u64), b: &(u64, u64)| a.0.max(b.0) < a.1.min(b.1);
    taken
        .iter()
        .enumerate()
        .all(|(i, a)| taken[i + 1..].iter().all(|b| !overlap(a, b)))
}
