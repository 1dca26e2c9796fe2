//! Locks that end by themselves: who may believe to hold them.

use crate::history::{Entry, NEVER, Op, Time};
use crate::violation::{Violation, ViolationKind};

/// Checks that no two hold a lock at once, as far as that can be promised to them: from the answer that they have it (or hold it for
/// longer) until `certain` after they asked, or until somebody asks to release it for them.
///
/// `certain` is the time to live less what clocks may be apart, in the history's unit.
///
/// # Errors
///
/// The history of the first lock found that had two holders.
pub fn one_holder(history: &[Entry], certain: Time) -> Result<(), Box<Violation>> {
    let mut holds: Vec<Hold> = history
        .iter()
        .filter_map(|entry| Hold::of(entry, history, certain))
        .collect();
    holds.sort_unstable_by_key(|hold| (hold.key, hold.from, hold.token));
    // The one of a key's holds that lasts longest of those before.
    let mut longest: Option<Hold> = None;
    for hold in holds {
        if let Some(before) = longest.filter(|before| before.key == hold.key) {
            if before.token != hold.token && hold.from < before.until {
                return Err(Box::new(violation(history, before, hold)));
            }
            if before.until >= hold.until {
                continue;
            }
        }
        longest = Some(hold);
    }
    Ok(())
}

#[derive(Clone, Copy)]
struct Hold {
    key: u32,
    token: u32,
    from: Time,
    until: Time,
}

impl Hold {
    fn of(entry: &Entry, history: &[Entry], certain: Time) -> Option<Self> {
        let (token, owned) = match entry.op {
            Op::Acquire {
                token,
                owned,
                took: Some(true),
            } => (token, owned),
            Op::Renew {
                token,
                held: Some(true),
            } => (token, is_owned(history, entry.key, token)),
            _ => return None,
        };
        if entry.called == NEVER || entry.returned == NEVER {
            return None;
        }
        let released = history
            .iter()
            .filter(|other| other.key == entry.key && other.returned >= entry.called && frees(other, token, owned))
            .map(|other| other.called)
            .min()
            .unwrap_or(NEVER);
        let until = entry.called.saturating_add(certain).min(released);
        (entry.returned < until).then_some(Self {
            key: entry.key,
            token,
            from: entry.returned,
            until,
        })
    }
}

fn is_owned(history: &[Entry], key: u32, wanted: u32) -> bool {
    let acquired = |entry: &Entry| matches!(entry.op, Op::Acquire { token, owned: true, .. } if token == wanted);
    history.iter().any(|entry| entry.key == key && acquired(entry))
}

/// True for what may free the lock of `token`, whoever asked for it.
fn frees(entry: &Entry, token: u32, owned: bool) -> bool {
    match entry.op {
        Op::Release { freed: Some(false), .. } => false,
        Op::Release { token: Some(freed), .. } => freed == token,
        Op::Release { token: None, .. } => !owned,
        _ => false,
    }
}

fn violation(history: &[Entry], first: Hold, second: Hold) -> Violation {
    let mut history: Vec<Entry> = history
        .iter()
        .filter(|entry| entry.key == first.key && entry.called != NEVER)
        .copied()
        .collect();
    history.sort_by_key(|entry| entry.called);
    let names = |entry: &Entry, hold: Hold| {
        matches!(entry.op, Op::Acquire { token, .. } | Op::Renew { token, .. } if token == hold.token)
            && entry.returned == hold.from
    };
    let stuck = history
        .iter()
        .enumerate()
        .filter(|(_, entry)| names(entry, first) || names(entry, second))
        .map(|(place, _)| place)
        .collect();
    let explanation = format!(
        "token {} holds it for certain from {} until {}, and token {} from {} until {}",
        first.token, first.from, first.until, second.token, second.from, second.until
    );
    Violation {
        key: first.key,
        kind: ViolationKind::TwoHolders,
        model: crate::ModelKind::of(&history),
        history,
        order: Vec::new(),
        stuck,
        explanation,
    }
}
