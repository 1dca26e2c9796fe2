//! What fences tell about the order of operations.

use crate::history::{Entry, ModelKind, Op};

/// Why a certain operation cannot be placed once the key's fence has grown past its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ladder {
    /// It raised the fence (or kept it at its own).
    Raised,
    /// It was refused for this very fence.
    Refused,
}

impl Ladder {
    /// The ladder of an operation, and the fence it stands at.
    pub(super) fn of(entry: &Entry) -> Option<(Self, u64)> {
        if !entry.is_certain() {
            return None;
        }
        if let Some(seen) = entry.refused_below {
            return Some((Self::Refused, seen));
        }
        let raises = matches!(
            entry.op,
            Op::Write(_)
                | Op::Cas {
                    swapped: Some(true),
                    ..
                }
                | Op::Acquire { took: Some(true), .. }
        );
        entry.fence.filter(|_| raises).map(|fence| (Self::Raised, fence))
    }
}

/// The fences of one key's certain operations.
///
/// A key's fence never falls. So on each ladder operations are placed in the order of their fences, and the lowest fence still to come
/// is the one at the number of those that are placed.
#[derive(Debug, Default)]
pub(super) struct Fences {
    /// By ladder: the fences, sorted.
    rungs: [Vec<u64>; 2],
    /// By ladder: how many are placed.
    climbed: [usize; 2],
    /// How much higher than the last the next that is raised must be: 1 for a lock.
    rise: u64,
}

impl Fences {
    pub(super) fn load(&mut self, history: &[Entry], model: ModelKind) {
        self.rise = u64::from(model == ModelKind::Lock);
        self.climbed = [0; 2];
        self.rungs.iter_mut().for_each(Vec::clear);
        for (ladder, fence) in history.iter().filter_map(Ladder::of) {
            self.rungs[ladder as usize].push(fence);
        }
        self.rungs.iter_mut().for_each(|rungs| rungs.sort_unstable());
    }

    pub(super) fn place(&mut self, ladder: Ladder) {
        self.climbed[ladder as usize] += 1;
    }

    pub(super) fn put_back(&mut self, ladder: Ladder) {
        self.climbed[ladder as usize] -= 1;
    }

    /// True when the key's fence would be too high for an operation still to come, with the next one (on ladder `next`) placed.
    pub(super) fn are_passed(&self, next: Option<Ladder>, fence: u64) -> bool {
        let passed = |ladder: Ladder, rise: u64| {
            let placed = self.climbed[ladder as usize] + usize::from(next == Some(ladder));
            let lowest = self.rungs[ladder as usize].get(placed);
            lowest.is_some_and(|&lowest| fence.saturating_add(rise) > lowest)
        };
        passed(Ladder::Raised, self.rise) || passed(Ladder::Refused, 0)
    }

    /// True when somebody certainly was refused for this very fence.
    pub(super) fn refused_somebody(&self, fence: u64) -> bool {
        self.rungs[Ladder::Refused as usize].binary_search(&fence).is_ok()
    }
}
