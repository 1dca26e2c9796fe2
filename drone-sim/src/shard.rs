//! Which part of the fleet a process flies, when several fly it together.
//!
//! Promises: the parts of all shards, 1/N to N/N, with one pool hold every key there can be, each exactly once: drones of the pool,
//! drones beyond it, and what is no drone. A part is a stretch of the keys in their order, so its drones are read by one scan that passes
//! over the others. The pool's drones are divided as evenly as can be: no part has two more than another.

use std::fmt;
use std::str::FromStr;

use domain::keys;
use kv_client::KeyRange;

/// Most shards of one fleet.
pub const SHARDS_MAX: u32 = 64;

/// One of several processes that fly the fleet together: `I/N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    index: u32,
    count: u32,
}

impl Shard {
    /// The only one: it flies everybody.
    pub const WHOLE: Self = Self { index: 1, count: 1 };

    /// How many there are.
    #[must_use]
    pub const fn count(self) -> u32 {
        self.count
    }
}

impl Default for Shard {
    fn default() -> Self {
        Self::WHOLE
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (index, count) = text.trim().split_once('/').unwrap_or_default();
        match (index.parse(), count.parse()) {
            (Ok(index), Ok(count)) if (1..=SHARDS_MAX).contains(&count) && (1..=count).contains(&index) => {
                Ok(Self { index, count })
            }
            _ => Err(format!("I/N is expected, I from 1 to N and N from 1 to {SHARDS_MAX}")),
        }
    }
}

/// The part of the fleet that a shard flies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    numbers: Vec<u32>,
    range: KeyRange,
    is_whole: bool,
}

impl Part {
    /// The part of `shard` in a fleet of `pool` drones.
    #[must_use]
    pub fn of(shard: Shard, pool: u32) -> Self {
        let mut keys: Vec<(String, u32)> = (1..=pool)
            .map(|number| (keys::drone(&format!("drone-{number}")), number))
            .collect();
        // As the KV orders them: by their bytes.
        keys.sort_unstable();
        let cut = |index: u32| keys.len() * index as usize / shard.count as usize;
        let (begin, end) = (cut(shard.index - 1), cut(shard.index));
        // Each part ends with a drone of the pool, and the next begins behind it; what lies before the first drone is the first part's,
        // what lies behind the last drone is the last part's.
        let last_before = |cut: usize| keys[..cut].last().map(|(key, _)| key.clone());
        let mut numbers: Vec<u32> = keys[begin..end].iter().map(|(_, number)| *number).collect();
        numbers.sort_unstable();
        Self {
            numbers,
            range: KeyRange {
                after: last_before(begin).filter(|_| shard.index > 1),
                through: last_before(end).filter(|_| shard.index < shard.count),
            },
            is_whole: shard.count == 1,
        }
    }

    /// The whole of a fleet of `pool` drones.
    #[must_use]
    pub fn whole(pool: u32) -> Self {
        Self::of(Shard::WHOLE, pool)
    }

    /// The numbers of its drones of the pool, ascending.
    #[must_use]
    pub fn numbers(&self) -> &[u32] {
        &self.numbers
    }

    /// Its keys, among those of drones.
    #[must_use]
    pub fn range(&self) -> &KeyRange {
        &self.range
    }

    /// Whether it is the whole fleet, so that nobody else flies.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Whether the drone `id` belongs to it.
    #[must_use]
    pub fn holds(&self, id: &str) -> bool {
        self.range.contains(&keys::drone(id))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::{prop, prop_assert, prop_assert_eq, prop_oneof, proptest};

    use super::*;

    fn parts(count: u32, pool: u32) -> Vec<Part> {
        (1..=count)
            .map(|index| Part::of(Shard { index, count }, pool))
            .collect()
    }

    #[test]
    fn a_shard_is_written_as_a_fraction() {
        for text in ["1/1", "1/2", "2/2", "64/64", " 3/5 "] {
            let shard: Shard = text.parse().unwrap();
            assert_eq!(shard.to_string(), text.trim());
        }
        for text in [
            "",
            "1",
            "/",
            "0/1",
            "2/1",
            "1/0",
            "1/65",
            "-1/2",
            "1/2/3",
            "a/b",
            "1 / 2",
            "1/4294967297",
        ] {
            let error = text.parse::<Shard>().unwrap_err();
            assert!(error.contains("I/N is expected"), "{text:?}: {error}");
        }
        assert_eq!(Shard::default(), "1/1".parse().unwrap());
    }

    #[test]
    fn one_shard_flies_everybody() {
        let part = Part::whole(20);
        assert!(part.is_whole() && part.holds("") && part.holds("x") && part.holds("drone-99999"));
        assert_eq!((part.numbers().len(), part.range()), (20, &KeyRange::default()));
    }

    #[test]
    fn parts_are_stretches_of_the_keys_in_their_order() {
        let [first, second] = &parts(2, 11)[..] else {
            panic!("two")
        };
        // drone-1, -10, -11, -2, -3 | -4 … -9
        assert_eq!(first.numbers(), [1, 2, 3, 10, 11]);
        assert_eq!(first.range().through.as_deref(), Some("drone:drone-3"));
        assert_eq!(second.range().after.as_deref(), Some("drone:drone-3"));
        assert!(second.holds("drone-30") && second.holds("x") && first.holds("drone-100") && first.holds("drone-"));
        assert!(!first.is_whole());
    }

    proptest! {
        #[test]
        fn parts_hold_every_key_exactly_once_and_are_equally_large(
            count in 1..=SHARDS_MAX, more in prop_oneof![0..40_u32, 0..300_u32],
            ids in prop::collection::vec("(drone-)?[0-9a-z~é/:-]{0,6}", 1..40), bytes in prop::collection::vec(".*", 0..5),
        ) {
            let pool = count + more;
            let parts = parts(count, pool);
            let of_pool = (1..=pool).map(|number| format!("drone-{number}"));
            for id in of_pool.chain(ids).chain(bytes).chain([String::new()]) {
                let holders = parts.iter().filter(|part| part.holds(&id)).count();
                prop_assert_eq!(holders, 1, "{:?}", id);
            }
            let sizes: BTreeSet<usize> = parts.iter().map(|part| part.numbers().len()).collect();
            let (least, most) = (sizes.first().unwrap(), sizes.last().unwrap());
            prop_assert!(*least >= 1 && most - least <= 1, "{sizes:?}");
            let all: BTreeSet<u32> = parts.iter().flat_map(|part| part.numbers().iter().copied()).collect();
            prop_assert_eq!(all.len(), pool as usize);
            let is_flown = |part: &Part| part.numbers().iter().all(|number| part.holds(&format!("drone-{number}")));
            prop_assert!(parts.iter().all(is_flown));
        }
    }
}
