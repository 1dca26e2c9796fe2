//! Small numbers for the values of a history, so that what is counted by value stands in a list.

use crate::history::{Entry, Op, Value};

/// Stands for no particular value.
pub(super) const NO_VALUE: u32 = u32::MAX;
/// The number of the absent value; the others follow in their order.
pub(super) const ABSENT: u32 = 0;

/// The values (or tokens) that one key's operations name.
#[derive(Debug, Default)]
pub(super) struct Values {
    /// Sorted; the number of a value is its place plus one.
    sorted: Vec<u32>,
}

impl Values {
    /// Numbers the values of `history`; how many numbers there are.
    pub(super) fn load(&mut self, history: &[Entry]) -> usize {
        self.sorted.clear();
        for entry in history {
            let (one, other) = match entry.op {
                Op::Read(value) | Op::Write(value) | Op::Release { token: value, .. } => (value, None),
                Op::Cas { expected, new, .. } => (expected, new),
                Op::CasMissed { found, .. } => (found, None),
                Op::End(value) | Op::Acquire { token: value, .. } | Op::Renew { token: value, .. } => {
                    (Some(value), None)
                }
            };
            self.sorted.extend(one.into_iter().chain(other));
        }
        self.sorted.sort_unstable();
        self.sorted.dedup();
        self.sorted.len() + 1
    }

    /// The number of a value of the history; [`NO_VALUE`] for any other.
    pub(super) fn number_of(&self, value: Value) -> u32 {
        let Some(value) = value else { return ABSENT };
        let place = self.sorted.binary_search(&value).map_or(usize::MAX, |place| place + 1);
        u32::try_from(place).unwrap_or(NO_VALUE)
    }
}
