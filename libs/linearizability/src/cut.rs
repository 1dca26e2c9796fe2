//! Histories as they were known at a moment.

use crate::history::{Entry, NEVER, Op, Time};
use crate::model::changes_nothing;

/// What was known of `history` at `time`, with places: later calls are gone, and what had not returned by then is pending.
///
/// When the whole history is linearizable, so is this: cut the order that explains the whole after the last operation that had returned
/// by `time`. It has all that had, and nothing that was called later, for that would stand before something that had returned before it
/// was called. So if this one is not linearizable, the whole is not either.
pub(crate) fn known_at(history: &[Entry], time: Time) -> impl Iterator<Item = (usize, Entry)> {
    let called = history
        .iter()
        .enumerate()
        .filter(move |(_, entry)| entry.called <= time);
    called.filter_map(move |(place, entry)| {
        if entry.returned <= time {
            Some((place, *entry))
        } else {
            forgotten(*entry).map(|entry| (place, entry))
        }
    })
}

/// An operation whose answer is forgotten; `None` when the answer says that it changed nothing.
fn forgotten(mut entry: Entry) -> Option<Entry> {
    if changes_nothing(&entry) {
        return None;
    }
    entry.returned = NEVER;
    match &mut entry.op {
        Op::Cas { swapped: outcome, .. } | Op::Acquire { took: outcome, .. } | Op::Release { freed: outcome, .. } => {
            *outcome = None;
        }
        Op::Read(_) | Op::Write(_) | Op::CasMissed { .. } | Op::Renew { .. } | Op::End(_) => {}
    }
    Some(entry)
}
