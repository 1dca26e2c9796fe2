//! What the background loops tell each other, and `/cluster`.

use crate::collect::CollectReport;
use crate::hints::HintsSeen;
use crate::membership::Roster;
use crate::refill::Fills;
use crate::repair::RepairReport;

/// One per kvfront.
#[derive(Debug)]
pub(crate) struct Upkeep {
    /// What nodes say of themselves.
    pub(crate) roster: Roster,
    /// Hints per node.
    pub(crate) hints: HintsSeen,
    /// Nodes that are being filled.
    pub(crate) fills: Fills,
    /// What has ended and was dropped.
    pub(crate) collected: CollectReport,
    /// How alike replicas are.
    pub(crate) repaired: RepairReport,
}

impl Upkeep {
    /// For so many nodes, with nothing known yet.
    pub(crate) fn new(nodes: usize) -> Self {
        Self {
            roster: Roster::new(nodes),
            hints: HintsSeen::new(nodes),
            fills: Fills::new(nodes),
            collected: CollectReport::default(),
            repaired: RepairReport::default(),
        }
    }
}
