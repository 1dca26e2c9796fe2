//! What a watcher has delivered last of each key, as far as it remembers.

use std::collections::HashMap;

use register::{Ballot, HlcTime, Key};

/// Most keys remembered, in each of two generations.
const MAX_KEYS: usize = 8_192;

/// The last delivery of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Last {
    pub(super) version: Ballot,
    /// The key was gone with it.
    pub(super) deleted: bool,
}

/// The last delivery of the keys that changed last: two generations, of which the older one is forgotten when the younger is full.
#[derive(Debug, Default)]
pub(super) struct Told {
    young: HashMap<Key, Last>,
    old: HashMap<Key, Last>,
    /// Of keys that are not remembered, nothing newer than this was delivered.
    forgotten_up_to: HlcTime,
}

impl Told {
    /// Of a watcher before which nothing newer than this was delivered.
    pub(super) fn since(forgotten_up_to: HlcTime) -> Self {
        Self {
            forgotten_up_to,
            ..Self::default()
        }
    }

    pub(super) fn last(&self, key: &Key) -> Option<Last> {
        self.young.get(key).or_else(|| self.old.get(key)).copied()
    }

    /// Whether a version of a key that is not remembered may have been delivered before.
    pub(super) fn may_be_old(&self, version: Ballot) -> bool {
        version.time <= self.forgotten_up_to
    }

    pub(super) fn note(&mut self, key: &Key, last: Last) {
        if self.young.len() >= MAX_KEYS {
            let forgotten = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
            let newest = forgotten.values().map(|last| last.version.time).max();
            self.forgotten_up_to = self.forgotten_up_to.max(newest.unwrap_or_default());
        }
        self.young.insert(key.clone(), last);
    }
}
