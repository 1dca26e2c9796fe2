//! One round: the same question to several nodes, and who has answered what.

use crate::ballot::Ballot;
use crate::message::{Held, Reply, Request};
use crate::teeth::{Tooth, bites};

/// Where one node stands in a round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Slot {
    /// Not asked.
    Unasked,
    /// Asked, no answer yet.
    Waiting,
    /// It said what it holds (a read or a promise).
    Held(Held),
    /// It took the accept; `reserved`: and promised the ballot asked for along with it.
    Acked { reserved: bool },
    /// It refused: nothing was changed there.
    Refused,
    /// No answer will come. `delivered` false: the question certainly never arrived.
    Failed { delivered: bool },
}

/// One round of messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Round {
    pub(super) number: u32,
    pub(super) request: Request,
    slots: Vec<Slot>,
    /// The highest ballot that a refusal told.
    pub(super) higher: Ballot,
    /// A node refused it for having seen a higher fence.
    pub(super) fenced: bool,
    /// The last failure, for the error message.
    pub(super) trouble: Option<String>,
    /// Somebody who was asked has been silent for long.
    pub(super) late: bool,
}

impl Round {
    pub(super) fn new(number: u32, request: Request, nodes: usize) -> Self {
        Self {
            number,
            request,
            slots: vec![Slot::Unasked; nodes],
            higher: Ballot::ZERO,
            fenced: false,
            trouble: None,
            late: false,
        }
    }

    pub(super) fn ask(&mut self, rank: usize) {
        self.slots[rank] = Slot::Waiting;
    }

    /// This node is known to hold what the round is about.
    pub(super) fn holds_already(&mut self, rank: usize) {
        self.slots[rank] = Slot::Acked { reserved: false };
    }

    pub(super) fn is_unasked(&self, rank: usize) -> bool {
        self.slots[rank] == Slot::Unasked
    }

    /// Notes an answer; the ballot of a corruption, if that is what it is. A second answer to one question is ignored.
    pub(super) fn answer(&mut self, rank: usize, reply: Reply) -> Result<(), Ballot> {
        if self.slots.get(rank) != Some(&Slot::Waiting) {
            return Ok(());
        }
        self.slots[rank] = match reply {
            Reply::Holds(held) | Reply::Promised(held) => Slot::Held(held),
            Reply::Accepted { reserved } => Slot::Acked { reserved },
            Reply::Installed | Reply::Forgotten | Reply::Retired(_) => Slot::Acked { reserved: false },
            Reply::Refused { higher } => {
                self.higher = self.higher.max(higher);
                Slot::Refused
            }
            Reply::Fenced { .. } => {
                self.fenced = true;
                Slot::Refused
            }
            Reply::Failed { reason } => {
                self.trouble = Some(reason);
                // It says that nothing was changed; still, its transaction may have reached the disk, so it counts as delivered.
                Slot::Failed { delivered: true }
            }
            Reply::Corrupt { ballot } => return Err(ballot),
        };
        Ok(())
    }

    pub(super) fn fail(&mut self, rank: usize, delivered: bool, reason: String) {
        if self.slots.get(rank) == Some(&Slot::Waiting) {
            self.slots[rank] = Slot::Failed { delivered };
            self.trouble = Some(reason);
        }
    }

    /// Nodes that have not answered by now count as silent.
    pub(super) fn give_up_waiting(&mut self) {
        for slot in &mut self.slots {
            if *slot == Slot::Waiting {
                *slot = Slot::Failed { delivered: true };
            }
        }
    }

    pub(super) fn held(&self) -> impl Iterator<Item = (usize, &Held)> + Clone {
        self.slots.iter().enumerate().filter_map(|(rank, slot)| match slot {
            Slot::Held(held) => Some((rank, held)),
            _ => None,
        })
    }

    pub(super) fn count(&self, wanted: impl Fn(&Slot) -> bool) -> usize {
        self.slots.iter().filter(|slot| wanted(slot)).count()
    }

    pub(super) fn acks(&self) -> usize {
        self.count(|slot| matches!(slot, Slot::Acked { .. }))
    }

    /// Nodes that took it and granted the reservation.
    pub(super) fn reserved(&self) -> usize {
        self.count(|slot| *slot == Slot::Acked { reserved: true })
    }

    pub(super) fn refusals(&self) -> usize {
        self.count(|slot| *slot == Slot::Refused)
    }

    pub(super) fn waiting(&self) -> usize {
        self.count(|slot| *slot == Slot::Waiting)
    }

    /// Nodes that said anything at all.
    pub(super) fn answered(&self) -> usize {
        self.count(|slot| matches!(slot, Slot::Held(_) | Slot::Acked { .. } | Slot::Refused))
    }

    /// True when a node failed among the first `homes`.
    pub(super) fn home_failed(&self, homes: usize) -> bool {
        self.slots[..homes]
            .iter()
            .any(|slot| matches!(slot, Slot::Failed { .. }))
    }

    /// The first home that has not given what was asked: the one a spare's record is kept for.
    pub(super) fn missing_home(&self, homes: usize) -> usize {
        self.slots[..homes]
            .iter()
            .position(|slot| !matches!(slot, Slot::Acked { .. } | Slot::Held(_)))
            .unwrap_or(0)
    }

    /// Ranks that were asked and did not answer.
    pub(super) fn silent(&self) -> Vec<usize> {
        let silent = |slot: &Slot| matches!(slot, Slot::Waiting | Slot::Failed { .. });
        self.slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| silent(slot))
            .map(|(rank, _)| rank)
            .collect()
    }

    /// True when nobody took it and nobody ever will: every node asked refused it or never got it.
    pub(super) fn as_if_never_sent(&self) -> bool {
        self.slots.iter().all(Slot::is_harmless)
    }

    /// True while it may still turn out so: nobody is known to have taken it, or to have kept silent about it.
    pub(super) fn may_be_as_if_never_sent(&self) -> bool {
        let harmless = |slot: &Slot| slot.is_harmless() || *slot == Slot::Waiting;
        self.slots.iter().all(harmless)
    }
}

impl Slot {
    /// True when this node has not taken it and never will.
    fn is_harmless(&self) -> bool {
        match self {
            Self::Unasked | Self::Refused => true,
            Self::Failed { delivered } => !delivered || bites(Tooth::SilenceIsNever),
            Self::Waiting | Self::Held(_) | Self::Acked { .. } => false,
        }
    }
}
