//! What the background loops tell each other, and `/cluster`.

use crate::hints::HintsSeen;
use crate::membership::Roster;

/// One per kvfront.
#[derive(Debug)]
pub(crate) struct Upkeep {
    /// What nodes say of themselves.
    pub(crate) roster: Roster,
    /// Hints per node.
    pub(crate) hints: HintsSeen,
}

impl Upkeep {
    /// For so many nodes, with nothing known yet.
    pub(crate) fn new(nodes: usize) -> Self {
        Self {
            roster: Roster::new(nodes),
            hints: HintsSeen::new(nodes),
        }
    }
}
