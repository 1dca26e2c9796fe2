//! Pages of scans: `POST /internal/scan`.
//!
//! A scan needs of every copy of a key what is held, and of one copy the value. So a node is told of which partitions it is to tell the
//! values; of the others it tells the ballot and a [digest](crate::hashing::Digest) of the state, which shows whether two copies are alike.
//! Records are read where they lie in the message: whoever merges a thousand of them copies nothing.

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ballot::{Ballot, HlcTime};
use crate::hashing::PARTITIONS;
use crate::membership::{Epoch, Standing};

/// A set of partitions, one bit for each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partitions(Vec<u8>);

impl Default for Partitions {
    /// None of them.
    fn default() -> Self {
        Self(vec![0; PARTITIONS / 8])
    }
}

impl Partitions {
    /// Adds a partition. One that is not below [`PARTITIONS`] is left out.
    pub fn insert(&mut self, partition: usize) {
        if let Some(byte) = self.0.get_mut(partition / 8) {
            *byte |= 1 << (partition % 8);
        }
    }

    /// Whether it is in the set.
    #[must_use]
    pub fn contains(&self, partition: usize) -> bool {
        let byte = self.0.get(partition / 8).copied().unwrap_or_default();
        byte & (1 << (partition % 8)) != 0
    }
}

/// One page of a node's data records in key order (or reverse).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ScanRequest {
    /// The sender's clock.
    pub clock: HlcTime,
    /// Incarnation of the coordinator that asks; tells senders apart and nothing else.
    pub sender: u64,
    /// The sender's ring.
    pub epoch: Epoch,
    /// What to list.
    pub range: ScanRange,
    /// At most this many records. The node has a limit of its own.
    pub limit: u32,
}

/// What a page of a scan lists.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ScanRange {
    /// Text form of the prefix, namespace letter included.
    pub prefix: String,
    /// Text form of the last key already seen.
    pub after: Option<String>,
    /// From the end.
    pub reverse: bool,
    /// Of which partitions the values are to be told.
    pub tell: Partitions,
}

/// How the answer to a [`ScanRequest`] begins. As many [`ScanRecord`]s follow as it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanHead {
    /// The node's clock.
    pub clock: HlcTime,
    /// The node's floor in the page's snapshot.
    pub floor: Ballot,
    /// The node's incarnation.
    pub incarnation: u64,
    /// Whether the node votes.
    pub standing: Standing,
    /// True when there is nothing after the last record.
    pub end: bool,
    /// How many records follow.
    pub records: u32,
}

/// One record of a page of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanRecord<'a> {
    /// Text form of the key.
    pub key: &'a str,
    /// Ballot of the accepted state; zero when none.
    #[serde(borrow)]
    pub accepted: BallotBytes<'a>,
    /// Digest of the accepted state.
    pub digest: u64,
    /// What is held, when it was to be told and there is something.
    pub told: Option<Told<'a>>,
}

/// What a scan shows of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told<'a> {
    /// JSON text; none for a tombstone.
    pub value: Option<&'a str>,
    /// Ballot of the last change of the value.
    #[serde(borrow)]
    pub version: BallotBytes<'a>,
    /// When the value ends, in Unix milliseconds.
    pub expires_at_ms: Option<u64>,
}

/// A ballot as [`Ballot::to_bytes`] gives it, or nothing for zero: ordered like ballots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BallotBytes<'a>(&'a [u8]);

impl<'a> BallotBytes<'a> {
    /// Zero.
    pub const ZERO: Self = Self(&[]);

    /// These bytes; none when they are no ballot.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        matches!(bytes.len(), 0 | 16).then_some(Self(bytes))
    }

    /// Those of a ballot above zero.
    #[must_use]
    pub fn of(bytes: &'a [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Themselves.
    #[must_use]
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// True for [`Ballot::ZERO`].
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.0.is_empty()
    }

    /// The ballot.
    #[must_use]
    pub fn ballot(self) -> Ballot {
        self.0.try_into().map_or(Ballot::ZERO, Ballot::from_bytes)
    }
}

impl Serialize for BallotBytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for BallotBytes<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl<'de> Visitor<'de> for Bytes {
            type Value = BallotBytes<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("0 or 16 bytes")
            }

            fn visit_borrowed_bytes<E: Error>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
                BallotBytes::new(bytes).ok_or_else(|| E::invalid_length(bytes.len(), &self))
            }
        }

        deserializer.deserialize_bytes(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in() {
        let mut some = Partitions::default();
        for partition in [0, 7, 8, PARTITIONS - 1, PARTITIONS] {
            some.insert(partition);
        }
        let held: Vec<usize> = (0..PARTITIONS + 9)
            .filter(|&partition| some.contains(partition))
            .collect();
        assert_eq!(held, [0, 7, 8, PARTITIONS - 1]);
    }

    #[test]
    fn ballots_as_bytes_order_like_ballots() {
        let ballot = |time, incarnation| Ballot {
            time: HlcTime::from_bits(time),
            incarnation,
        };
        let rising = [
            ballot(0, 1),
            ballot(1, 0),
            ballot(1, 256),
            ballot(256, 0),
            ballot(u64::MAX, u64::MAX),
        ];
        let bytes = rising.map(Ballot::to_bytes);
        let mut before = BallotBytes::ZERO;
        for (ballot, bytes) in rising.iter().zip(&bytes) {
            let now = BallotBytes::new(bytes).unwrap();
            assert!(before < now);
            assert_eq!(now.ballot(), *ballot);
            before = now;
        }
        assert_eq!(BallotBytes::ZERO.ballot(), Ballot::ZERO);
        assert_eq!(BallotBytes::new(&[1, 2]), None);
    }
}
