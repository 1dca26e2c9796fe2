//! Numbers for rows and columns: small, dense, used again, and never mistaken for those of an earlier owner.

use std::fmt;

use crate::graph::VERTICES_MAX;

macro_rules! id {
    ($name:ident, $what:literal) => {
        #[doc = concat!("A ", $what, " of a [`Solver`](crate::Solver), valid from its addition to its removal.")]
        ///
        /// Slots are used again, ids are not: an id of something removed is refused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name {
            slot: u32,
            generation: u32,
        }

        impl $name {
            pub(crate) fn new(slot: u32, generation: u32) -> Self {
                Self { slot, generation }
            }

            #[doc = concat!("The ", $what, "'s place, for tables of the caller: below the largest number of ", $what, "s there ever were at once,")]
            /// and nobody else's as long as this one is there.
            #[must_use]
            pub fn slot(self) -> usize {
                self.slot as usize
            }

            pub(crate) fn vertex(self) -> u32 {
                self.slot
            }

            pub(crate) fn generation(self) -> u32 {
                self.generation
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, concat!($what, " {}.{}"), self.slot, self.generation)
            }
        }
    };
}

id!(RowId, "row");
id!(ColumnId, "column");

/// Which slots are taken, and how often each was.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slots {
    /// Odd while taken.
    generations: Vec<u32>,
    vacant: Vec<u32>,
}

impl Slots {
    /// Slot and generation for a newcomer; nothing when [`VERTICES_MAX`] are taken.
    pub(crate) fn take(&mut self) -> Option<(u32, u32)> {
        let slot = match self.vacant.pop() {
            Some(slot) => slot,
            None if self.generations.len() < VERTICES_MAX => {
                self.generations.push(0);
                u32::try_from(self.generations.len() - 1).ok()?
            }
            None => return None,
        };
        let generation = &mut self.generations[slot as usize];
        *generation = generation.wrapping_add(1);
        Some((slot, *generation))
    }

    pub(crate) fn give_back(&mut self, slot: u32) {
        let generation = &mut self.generations[slot as usize];
        *generation = generation.wrapping_add(1);
        self.vacant.push(slot);
    }

    pub(crate) fn holds(&self, slot: u32, generation: u32) -> bool {
        self.generations.get(slot as usize) == Some(&generation)
    }

    /// The generation of a slot, if it is taken.
    pub(crate) fn generation(&self, slot: u32) -> Option<u32> {
        (self.generations.get(slot as usize).copied()).filter(|generation| generation % 2 == 1)
    }

    pub(crate) fn taken(&self) -> usize {
        self.generations.len() - self.vacant.len()
    }
}
