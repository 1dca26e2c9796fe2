//! The LRU over records: exact in items and in bytes.
//!
//! `lru` counts entries only, so the sum of bytes is kept here. An entry's weight never changes while it is in the cache (records are
//! immutable behind their `Arc`), which is what makes the sum exact.

use std::sync::Arc;

use lru::LruCache;
use register::Key;

use super::rows::Stored;

/// Bytes an entry takes beside key text and record: the list node, its two links, the table's slot and the `Arc` counters. An estimate
/// on the large side, so that the limit in bytes is not a fiction for many small records.
pub(crate) const ENTRY_OVERHEAD_BYTES: usize = 128;

/// Limits of the cache. Zero in either turns it off.
#[derive(Debug, Clone, Copy)]
pub struct CacheLimits {
    /// Most records kept.
    pub items: usize,
    /// Most bytes kept, keys and bookkeeping included.
    pub bytes: usize,
}

/// The cache itself. Not synchronised; see [`super::view::View`].
#[derive(Debug)]
pub(crate) struct Cache {
    entries: LruCache<Key, Arc<Stored>>,
    bytes: usize,
    limits: CacheLimits,
}

impl Cache {
    pub(crate) fn new(limits: CacheLimits) -> Self {
        Self {
            entries: LruCache::unbounded(),
            bytes: 0,
            limits,
        }
    }

    /// The record, which becomes the most recently used.
    pub(crate) fn get(&mut self, key: &Key) -> Option<Arc<Stored>> {
        self.entries.get(key).cloned()
    }

    /// True when the key is cached; does not count as a use.
    #[cfg(test)]
    fn contains(&self, key: &Key) -> bool {
        self.entries.contains(key)
    }

    /// Puts or replaces a record and drops the least recently used ones over the limits. A record larger than the whole cache is not
    /// kept, and an older one of its key goes.
    pub(crate) fn put(&mut self, key: Key, stored: Arc<Stored>) {
        let weight = weight(&key, &stored);
        if weight > self.limits.bytes || self.limits.items == 0 {
            self.remove(&key);
            return;
        }
        let old_weight = self.entries.peek(&key).map_or(0, |old| self::weight(&key, old));
        self.entries.put(key, stored);
        self.bytes = self.bytes - old_weight + weight;
        while self.entries.len() > self.limits.items || self.bytes > self.limits.bytes {
            let Some((key, evicted)) = self.entries.pop_lru() else {
                break;
            };
            self.bytes -= self::weight(&key, &evicted);
        }
    }

    /// Drops a record.
    pub(crate) fn remove(&mut self, key: &Key) {
        if let Some(old) = self.entries.pop(key) {
            self.bytes -= weight(key, &old);
        }
    }

    /// Keeps only what `keep` says.
    pub(crate) fn retain(&mut self, keep: impl Fn(&Stored) -> bool) {
        let entries = self.entries.iter();
        let dropped: Vec<Key> = entries
            .filter(|(_, stored)| !keep(stored))
            .map(|(key, _)| key.clone())
            .collect();
        for key in &dropped {
            self.remove(key);
        }
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }

    /// Records kept.
    pub(crate) fn items(&self) -> usize {
        self.entries.len()
    }

    /// Bytes kept.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

fn weight(key: &Key, stored: &Stored) -> usize {
    ENTRY_OVERHEAD_BYTES + key.as_text().len() + stored.record.size_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use register::{Ballot, HlcTime, Record, State};

    use super::*;

    fn stored(value_bytes: usize) -> Arc<Stored> {
        let ballot = Ballot {
            time: HlcTime::from_unix_ms(1),
            incarnation: 1,
        };
        let value = Some("x".repeat(value_bytes).into());
        let state = State {
            value,
            version: ballot,
            fence: 0,
            expires_at_ms: None,
            lineage: register::Lineage::default(),
        };
        let record = Record {
            accepted: ballot,
            state: Some(state),
            promised: Ballot::ZERO,
            floor: Ballot::ZERO,
            hint_for: None,
        };
        Arc::new(Stored { record, commit: 1 })
    }

    #[derive(Debug, Clone)]
    enum Step {
        Put(u8, usize),
        Get(u8),
        Remove(u8),
        Retain(usize),
        Clear,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => (any::<u8>(), 0usize..3_000).prop_map(|(key, bytes)| Step::Put(key % 40, bytes)),
            3 => any::<u8>().prop_map(|key| Step::Get(key % 40)),
            2 => any::<u8>().prop_map(|key| Step::Remove(key % 40)),
            1 => (0usize..3_000).prop_map(Step::Retain),
            1 => Just(Step::Clear),
        ];
        proptest::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn the_sum_is_exact_and_the_limits_hold(steps in steps(), items in 0usize..20, bytes in 0usize..20_000) {
            let mut cache = Cache::new(CacheLimits { items, bytes });
            for step in steps {
                match step {
                    Step::Put(key, size) => cache.put(Key::data(&key.to_string()), stored(size)),
                    Step::Get(key) => { cache.get(&Key::data(&key.to_string())); }
                    Step::Remove(key) => cache.remove(&Key::data(&key.to_string())),
                    Step::Retain(size) => {
                        let small = |stored: &Stored| stored.record.size_bytes() <= size;
                        cache.retain(small);
                        prop_assert!(cache.entries.iter().all(|(_, stored)| small(stored)));
                    }
                    Step::Clear => cache.clear(),
                }
                let sum: usize = cache.entries.iter().map(|(key, stored)| weight(key, stored)).sum();
                prop_assert_eq!(cache.bytes(), sum);
                prop_assert!(cache.bytes() <= bytes && cache.items() <= items);
            }
        }
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut cache = Cache::new(CacheLimits {
            items: 2,
            bytes: usize::MAX,
        });
        let key = |name| Key::data(name);
        cache.put(key("a"), stored(1));
        cache.put(key("b"), stored(1));
        cache.get(&key("a"));
        cache.put(key("c"), stored(1));
        assert!(cache.contains(&key("a")) && !cache.contains(&key("b")) && cache.contains(&key("c")));
    }

    #[test]
    fn a_record_larger_than_the_cache_leaves_no_older_version_behind() {
        let mut cache = Cache::new(CacheLimits {
            items: 10,
            bytes: 2_000,
        });
        let key = Key::data("a");
        cache.put(key.clone(), stored(10));
        cache.put(key.clone(), stored(5_000));
        assert!(!cache.contains(&key));
        assert_eq!(cache.bytes(), 0);
    }
}
