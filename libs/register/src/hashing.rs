//! Where keys belong, and the hash tree that compares replicas.
//!
//! [`stable_hash`] is spelled out here and pinned by golden tests: coordinators and nodes of all versions must agree on it. The first bits
//! of a key's hash choose its *partition* (every key of one partition has the same preference list), the next ones its *leaf*.
//!
//! The tree is three levels deep (Merkle 1987 in its purpose; sums instead of hashes of hashes, so that one change costs one addition):
//! the root of a partition is the sum of its leaves, a leaf the sum of its records' hashes. Two homes of a partition whose roots are equal
//! hold the same ballots of the same keys, but for a chance of about 2^-64 per comparison.

use crate::ballot::Ballot;
use crate::state::Key;

/// Bits of a key's hash that choose its partition.
pub const PARTITION_BITS: u32 = 12;
/// Partitions of the key space.
pub const PARTITIONS: usize = 1 << PARTITION_BITS;
/// Further bits that choose its leaf.
const LEAF_BITS: u32 = 4;
/// Leaves of one partition.
pub const LEAVES_PER_PARTITION: usize = 1 << LEAF_BITS;
/// Leaves of the whole tree.
pub const LEAVES: usize = PARTITIONS * LEAVES_PER_PARTITION;

/// FNV-1a over the bytes, then the finaliser of MurmurHash3 (Appleby) for even high bits. Part of the contract between all versions.
#[must_use]
pub fn stable_hash(bytes: &[u8]) -> u64 {
    const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;
    let fnv = bytes.iter().fold(FNV_OFFSET, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME)
    });
    finalise(fnv)
}

fn finalise(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// The partition of a key, below [`PARTITIONS`].
#[must_use]
pub fn partition_of(key: &Key) -> usize {
    partition_of_text(key.as_text())
}

/// The partition of the key of this text form.
#[must_use]
pub fn partition_of_text(key: &str) -> usize {
    high_bits(stable_hash(key.as_bytes()), PARTITION_BITS)
}

/// The leaf of a key, below [`LEAVES`]; those of partition `p` are `p * LEAVES_PER_PARTITION` and the next ones.
#[must_use]
pub fn leaf_of(key: &Key) -> usize {
    high_bits(stable_hash(key.as_text().as_bytes()), PARTITION_BITS + LEAF_BITS)
}

#[expect(clippy::cast_possible_truncation, reason = "16 bits fit any usize")]
fn high_bits(hash: u64, bits: u32) -> usize {
    (hash >> (u64::BITS - bits)) as usize
}

/// The hash of one record: its key and the ballot of what it holds.
#[must_use]
pub fn record_hash(key: &Key, accepted: Ballot) -> u64 {
    record_hash_of(stable_hash(key.as_text().as_bytes()), accepted)
}

fn record_hash_of(key_hash: u64, accepted: Ballot) -> u64 {
    let time = finalise(key_hash ^ accepted.time.to_bits());
    finalise(time.rotate_left(32) ^ accepted.incarnation)
}

/// Tells states under one ballot apart: equal parts in equal order give equal digests, others do not but for a chance of about 2^-64. It
/// is there to notice corruption, not an adversary. Compared between nodes, but never kept.
///
/// Eight bytes at a time: xor, multiplication by an odd number, rotation. Each step is a bijection of the digest so far, so two inputs that
/// differ in a single word never meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    /// Adds a number.
    #[must_use]
    pub fn number(self, number: u64) -> Self {
        Self((self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29))
    }

    /// Adds bytes, as many as they are.
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<8>();
        let digest = words.iter().fold(self.number(bytes.len() as u64), |digest, word| {
            digest.number(u64::from_le_bytes(*word))
        });
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        digest.number(u64::from_le_bytes(last))
    }

    /// Adds bytes, or that there are none.
    #[must_use]
    pub fn maybe(self, bytes: Option<&[u8]>) -> Self {
        match bytes {
            Some(bytes) => self.number(1).bytes(bytes),
            None => self.number(0),
        }
    }

    /// The digest of what was added.
    #[must_use]
    pub fn finish(self) -> u64 {
        finalise(self.0)
    }
}

/// A node's hash tree, kept up with every change of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashTree(Vec<u64>);

impl Default for HashTree {
    fn default() -> Self {
        Self(vec![0; LEAVES])
    }
}

impl HashTree {
    /// Notes that a key's accepted ballot was `before` and is `after`; zero for nothing accepted.
    pub fn change(&mut self, key: &Key, before: Ballot, after: Ballot) {
        if before == after {
            return;
        }
        // Once for all: a node that starts does this for each of its records.
        let hash = stable_hash(key.as_text().as_bytes());
        let leaf = &mut self.0[high_bits(hash, PARTITION_BITS + LEAF_BITS)];
        if !before.is_zero() {
            *leaf = leaf.wrapping_sub(record_hash_of(hash, before));
        }
        if !after.is_zero() {
            *leaf = leaf.wrapping_add(record_hash_of(hash, after));
        }
    }

    /// The root of every partition.
    #[must_use]
    pub fn roots(&self) -> Vec<u64> {
        let sum = |leaves: &[u64]| leaves.iter().fold(0_u64, |sum, leaf| sum.wrapping_add(*leaf));
        self.0.chunks(LEAVES_PER_PARTITION).map(sum).collect()
    }

    /// The leaves of one partition; nothing when there is no such partition.
    #[must_use]
    pub fn leaves(&self, partition: usize) -> &[u64] {
        let start = partition.saturating_mul(LEAVES_PER_PARTITION);
        self.0.get(start..start + LEAVES_PER_PARTITION).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ballot::HlcTime;

    fn ballot(n: u64) -> Ballot {
        Ballot {
            time: HlcTime::from_bits(n),
            incarnation: n % 3,
        }
    }

    #[test]
    fn the_hash_is_the_same_in_every_version() {
        assert_eq!(stable_hash(b""), 0xefd0_1f60_ba99_2926);
        let key = Key::data("order:1");
        assert_eq!(leaf_of(&key) / LEAVES_PER_PARTITION, partition_of(&key));
    }

    proptest! {
        /// Whatever the order of changes, the tree only depends on what is held in the end.
        #[test]
        fn the_tree_depends_on_what_is_held_only(changes in proptest::collection::vec((0u8..20, 0u64..6), 0..80)) {
            let name = |key: u8| Key::data(&key.to_string());
            let mut tree = HashTree::default();
            let mut held = std::collections::BTreeMap::new();
            for (key, accepted) in changes {
                let before = held.insert(key, ballot(accepted)).unwrap_or_default();
                tree.change(&name(key), before, ballot(accepted));
            }
            let mut fresh = HashTree::default();
            for (key, accepted) in &held {
                fresh.change(&name(*key), Ballot::ZERO, *accepted);
            }
            prop_assert_eq!(&tree, &fresh);
            let partition = partition_of(&name(0));
            let sum = tree.leaves(partition).iter().fold(0_u64, |sum, leaf| sum.wrapping_add(*leaf));
            prop_assert_eq!(tree.roots()[partition], sum);
        }
    }

    #[test]
    fn another_ballot_is_another_hash() {
        let (a, b) = (Key::data("a"), Key::data("b"));
        let mut tree = HashTree::default();
        tree.change(&a, Ballot::ZERO, ballot(1));
        let one = tree.clone();
        tree.change(&a, ballot(1), ballot(2));
        assert_ne!(tree, one);
        tree.change(&a, ballot(2), Ballot::ZERO);
        assert_eq!(tree, HashTree::default());
        assert_ne!(record_hash(&a, ballot(1)), record_hash(&b, ballot(1)));
        assert!(tree.leaves(PARTITIONS).is_empty());
    }
}
