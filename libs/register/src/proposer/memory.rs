//! What a coordinator remembers of the keys it changed last, for its next change of each in one round trip.
//!
//! An accept asks the nodes to promise the coordinator's next ballot as well. When a quorum took the accept and granted the reservation,
//! that quorum stands where a prepare at the reserved ballot would have left it: each of its nodes had exactly this state as its newest
//! when it promised, and takes nothing below. So the next change may be made of the remembered state and accepted at the reserved ballot
//! at once. Whoever has changed the key meanwhile did so above the reservation, and the nodes refuse ours.
//!
//! What is remembered may *propose*, it never *answers*: a refusal or a read from here could be older than what another coordinator
//! has committed since. Each entry is used once, so no ballot is proposed twice. Losing entries costs a round trip and nothing else.

use std::collections::BTreeMap;

use crate::ballot::Ballot;
use crate::state::{Key, State};

/// A reservation older than this, in milliseconds, is not used: a change's ballot says when it was made.
pub const FRESH_MS: u64 = 1_000;

/// How much a coordinator remembers. What was changed longest ago goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MemoryLimits {
    /// Keys. Default 10,000: with reservations fresh for a second, that many changes a second of different keys.
    pub entries: usize,
    /// Bytes of keys and states, [`ENTRY_BYTES`] for each entry included. Default 16 MiB.
    pub bytes: usize,
}

impl MemoryLimits {
    /// Nothing is remembered, and no reservation is asked for.
    pub const NONE: Self = Self { entries: 0, bytes: 0 };
}

impl Default for MemoryLimits {
    fn default() -> Self {
        Self {
            entries: 10_000,
            bytes: 16 << 20,
        }
    }
}

/// What is counted for an entry beside its key's text and its state: the key twice as a pointer and a length, the reserved ballot, the
/// number it is ordered by.
pub const ENTRY_BYTES: usize = 2 * size_of::<Key>() + size_of::<Ballot>() + 2 * size_of::<u64>();

/// What was last chosen of a key, and the ballot that a quorum reserved for the next change.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Remembered {
    /// The chosen state.
    pub(super) state: State,
    /// The ballot that a quorum promised together with accepting it.
    pub(super) reserved: Ballot,
}

/// The keys changed last, in the order of their changes. An entry is taken out to be used, so that is the order of use as well.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Memory {
    limits: MemoryLimits,
    entries: BTreeMap<Key, (u64, Remembered)>,
    /// The keys by the number of their entry: the first was remembered longest ago.
    order: BTreeMap<u64, Key>,
    bytes: usize,
}

impl Memory {
    pub(super) fn new(limits: MemoryLimits) -> Self {
        Self {
            limits,
            entries: BTreeMap::new(),
            order: BTreeMap::new(),
            bytes: 0,
        }
    }

    pub(super) fn is_off(&self) -> bool {
        self.limits.entries == 0
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keeps this for the next change of the key, in place of anything reserved before.
    pub(super) fn keep(&mut self, key: &Key, remembered: Remembered) {
        let newer = |(_, held): &(u64, Remembered)| held.reserved > remembered.reserved;
        let bytes = size_of_entry(key, &remembered);
        if bytes > self.limits.bytes || self.is_off() || self.entries.get(key).is_some_and(newer) {
            return;
        }
        self.take(key);
        // Counted from the last one: an empty memory starts anew, and memories that hold the same are equal more often.
        let number = self.order.last_key_value().map_or(0, |(last, _)| last + 1);
        self.order.insert(number, key.clone());
        self.entries.insert(key.clone(), (number, remembered));
        self.bytes += bytes;
        while self.entries.len() > self.limits.entries || self.bytes > self.limits.bytes {
            let Some((_, oldest)) = self.order.first_key_value() else {
                return;
            };
            let oldest = oldest.clone();
            self.take(&oldest);
        }
    }

    /// Takes out what is remembered of the key.
    pub(super) fn take(&mut self, key: &Key) -> Option<Remembered> {
        let (number, remembered) = self.entries.remove(key)?;
        self.order.remove(&number);
        self.bytes -= size_of_entry(key, &remembered);
        Some(remembered)
    }
}

fn size_of_entry(key: &Key, remembered: &Remembered) -> usize {
    ENTRY_BYTES + key.as_text().len() + remembered.state.size_bytes()
}
