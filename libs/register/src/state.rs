//! What a key holds, and what an acceptor keeps of it.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::de::{self, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ballot::{Ballot, HlcTime};

/// How long a state remembers a change, in milliseconds before its newest one: an operation's deadline, and the skew of clocks. The last
/// one is remembered however old it is. So a request that is repeated later than this may find that others have changed the key since
/// and that it cannot be told any more whether it took effect.
pub const LINEAGE_KEEP_MS: u64 = 3_000;

/// Most changes a state remembers, however young: that many may pass by an operation whose answers were lost, and its outcome is still
/// known.
pub const LINEAGE_MAX: usize = 32;

/// The name of a register: a user's key or a lock, in namespaces that cannot reach each other.
///
/// Its text form, used on the wire and in the database, is one letter for the namespace and then the name: `d` data, `l` lock.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key(Arc<str>);

impl Key {
    /// First letter of data keys.
    pub const DATA: char = 'd';
    /// First letter of lock keys.
    pub const LOCK: char = 'l';

    /// The register of a user's key.
    #[must_use]
    pub fn data(name: &str) -> Self {
        Self(format!("{}{name}", Self::DATA).into())
    }

    /// The register of a lock.
    #[must_use]
    pub fn lock(name: &str) -> Self {
        Self(format!("{}{name}", Self::LOCK).into())
    }

    /// A key from its text form; `None` when the namespace is unknown.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        text.starts_with([Self::DATA, Self::LOCK]).then(|| Self(text.into()))
    }

    /// The text form, namespace included.
    #[must_use]
    pub fn as_text(&self) -> &str {
        &self.0
    }

    /// The user's name, without the namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.get(1..).unwrap_or_default()
    }

    /// True for a register that `/kv` may show.
    #[must_use]
    pub fn is_data(&self) -> bool {
        self.0.starts_with(Self::DATA)
    }
}

/// Keys compare and hash like their text forms.
impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names one logical operation of one client, across all attempts at it. Random, so that two never meet in one lineage; not
/// [`RequestId::NOBODY`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RequestId(pub u64);

impl RequestId {
    /// In a lineage: a change that nobody asked for, the end of a value whose time had come. No request may be called so.
    pub const NOBODY: Self = Self(0);
}

/// The value of a register together with what must travel with it. Replicas that accepted one ballot hold equal states.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct State {
    /// JSON text; `None` is a tombstone: deleted, expired, or a lock nobody holds.
    pub value: Option<Arc<str>>,
    /// Ballot of the last change of the *value*: repairs and refused changes keep it. What users see as `version`.
    pub version: Ballot,
    /// The highest fencing number this key has seen (data), or handed out (lock).
    pub fence: u64,
    /// When the value ends, in Unix milliseconds. Expiry shows only once a tombstone is committed at or after it.
    pub expires_at_ms: Option<u64>,
    /// The changes this state was made by.
    pub lineage: Lineage,
}

/// The last changes a state was made by: tells whether a change whose answers were lost is part of it.
///
/// Written as bytes ([`Lineage::to_bytes`]), on the wire and on disk: a busy key's takes more than its value otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Lineage {
    /// Every change after this ballot that is part of the state is in `changes`; of those up to it nothing is known. A blind write, which
    /// knows nothing of what it replaces, sets it to its own ballot; a change that is dropped from the list, to that one's.
    pub since: Ballot,
    /// Oldest first, at most [`LINEAGE_MAX`] and none older than [`LINEAGE_KEEP_MS`] when the newest was made.
    pub changes: Vec<(Ballot, RequestId)>,
}

/// What a lineage says of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Descent {
    /// It is part of the state.
    Part,
    /// It certainly is not.
    NotPart,
    /// Too long ago to tell.
    Unknown,
}

impl Lineage {
    /// The lineage of a state made at `ballot` in ignorance of what was before.
    #[must_use]
    pub fn blind(ballot: Ballot, request: RequestId) -> Self {
        Self {
            since: ballot,
            changes: vec![(ballot, request)],
        }
    }

    /// Adds the newest change, dropping those that are too old or too many.
    pub fn push(&mut self, ballot: Ballot, request: RequestId) {
        self.changes.push((ballot, request));
        let oldest_ms = ballot.time.unix_ms().saturating_sub(LINEAGE_KEEP_MS);
        let too_old = self
            .changes
            .iter()
            .take_while(|(made, _)| made.time.unix_ms() < oldest_ms)
            .count();
        let dropped = too_old.max(self.changes.len().saturating_sub(LINEAGE_MAX));
        for (made, _) in self.changes.drain(..dropped) {
            self.since = self.since.max(made);
        }
    }

    /// The ballot at which this request's change was made, if it is among those remembered.
    #[must_use]
    pub fn made_by(&self, request: RequestId) -> Option<Ballot> {
        let changes = self.changes.iter().rev();
        let mut its = changes.filter(|(_, by)| *by == request && *by != RequestId::NOBODY);
        its.next().map(|(made, _)| *made)
    }

    /// The blind write that the state goes back to, where no change since has been dropped.
    #[must_use]
    pub fn blind_root(&self) -> Option<Ballot> {
        let (oldest, _) = self.changes.first()?;
        (*oldest == self.since).then_some(self.since)
    }

    /// Whether the change made at `ballot` is part of the state.
    #[must_use]
    pub fn descent(&self, ballot: Ballot) -> Descent {
        if self.changes.iter().any(|(made, _)| *made == ballot) {
            Descent::Part
        } else if self.since < ballot {
            Descent::NotPart
        } else {
            Descent::Unknown
        }
    }
}

/// First byte of a lineage's compact form. The form before began with the time of a ballot, which gets there in the year 10,889.
const COMPACT: u8 = 0xFF;
/// Bytes of a ballot as a number.
const BALLOT_BYTES: usize = 16;
/// Bytes of a request id.
const REQUEST_BYTES: usize = 8;
/// A change's time is told by what has passed since the change before, shifted by this: the bit says whether its incarnation is another.
const OTHER_INCARNATION_BITS: u32 = 1;

/// The compact form: a mark, `since`, and for each change the time since the ballot before (a varint, with a bit that says whether its
/// incarnation is another one, which then follows) and the request's id. Changes that follow each other closely, as those of a busy key
/// do, take about 12 bytes instead of 24. Nothing at all for an empty lineage.
impl Lineage {
    /// The bytes of the compact form.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        if *self == Self::default() {
            return Vec::new();
        }
        let mut bytes = Vec::with_capacity(1 + BALLOT_BYTES + self.changes.len() * (REQUEST_BYTES + 5));
        bytes.push(COMPACT);
        bytes.extend(ballot_to_bytes(self.since));
        let mut before = self.since;
        for (ballot, request) in &self.changes {
            let other = ballot.incarnation != before.incarnation;
            let passed = u128::from(ballot.time.to_bits().wrapping_sub(before.time.to_bits()));
            push_varint(&mut bytes, passed << OTHER_INCARNATION_BITS | u128::from(other));
            if other {
                bytes.extend(ballot.incarnation.to_be_bytes());
            }
            bytes.extend(request.0.to_be_bytes());
            before = *ballot;
        }
        bytes
    }

    /// The lineage of these bytes, in the compact form or the one before it (`since`, then 24 bytes for each change); nothing when they
    /// are of no lineage.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        match bytes.split_first() {
            None => Some(Self::default()),
            Some((&COMPACT, compact)) => Self::from_compact(compact),
            Some(_) => Self::from_plain(bytes),
        }
    }

    fn from_compact(bytes: &[u8]) -> Option<Self> {
        let (since, mut rest) = bytes.split_first_chunk::<BALLOT_BYTES>()?;
        let since = ballot_from_bytes(*since);
        let mut changes = Vec::with_capacity(rest.len() / REQUEST_BYTES);
        let mut before = since;
        while !rest.is_empty() {
            let passed = take_varint(&mut rest)?;
            let mut incarnation = before.incarnation;
            if passed & 1 == 1 {
                incarnation = u64::from_be_bytes(take(&mut rest)?);
            }
            let passed = u64::try_from(passed >> OTHER_INCARNATION_BITS).ok()?;
            let time = HlcTime::from_bits(before.time.to_bits().wrapping_add(passed));
            before = Ballot { time, incarnation };
            changes.push((before, RequestId(u64::from_be_bytes(take(&mut rest)?))));
        }
        Some(Self { since, changes })
    }

    fn from_plain(bytes: &[u8]) -> Option<Self> {
        let (since, rest) = bytes.split_first_chunk::<BALLOT_BYTES>()?;
        let (changes, rest) = rest.as_chunks::<{ BALLOT_BYTES + REQUEST_BYTES }>();
        if !rest.is_empty() {
            return None;
        }
        let change = |mut bytes: &[u8]| {
            let ballot = ballot_from_bytes(take(&mut bytes)?);
            Some((ballot, RequestId(u64::from_be_bytes(take(&mut bytes)?))))
        };
        Some(Self {
            since: ballot_from_bytes(*since),
            changes: changes.iter().map(|bytes| change(bytes)).collect::<Option<_>>()?,
        })
    }
}

impl Serialize for Lineage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.to_bytes())
    }
}

impl<'de> Deserialize<'de> for Lineage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Lineage;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the bytes of a lineage")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Lineage, E> {
                Lineage::from_bytes(bytes).ok_or_else(|| E::invalid_value(Unexpected::Bytes(bytes), &self))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

fn ballot_to_bytes(ballot: Ballot) -> [u8; BALLOT_BYTES] {
    ((u128::from(ballot.time.to_bits()) << 64) | u128::from(ballot.incarnation)).to_be_bytes()
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half of 128 bits is meant")]
fn ballot_from_bytes(bytes: [u8; BALLOT_BYTES]) -> Ballot {
    let bits = u128::from_be_bytes(bytes);
    Ballot {
        time: HlcTime::from_bits((bits >> 64) as u64),
        incarnation: bits as u64,
    }
}

/// LEB128: seven bits a byte, the lowest first, all but the last marked.
#[expect(clippy::cast_possible_truncation, reason = "seven bits are meant")]
fn push_varint(bytes: &mut Vec<u8>, mut number: u128) {
    while number >= 0x80 {
        bytes.push(0x80 | (number & 0x7F) as u8);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u128> {
    let mut number = 0;
    for shift in (0..u128::BITS - 7).step_by(7) {
        let [byte] = take(bytes)?;
        number |= u128::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

impl State {
    /// True when there is no value.
    #[must_use]
    pub fn is_tombstone(&self) -> bool {
        self.value.is_none()
    }

    /// True when the value has an end and `now_unix_ms` is at or past it.
    #[must_use]
    pub fn is_expired(&self, now_unix_ms: u64) -> bool {
        self.value.is_some() && self.expires_at_ms.is_some_and(|at| at <= now_unix_ms)
    }

    /// Bytes this state takes in memory, for caches that count bytes. Exact for the variable parts.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        size_of::<Self>()
            + self.value.as_ref().map_or(0, |v| v.len())
            + self.lineage.changes.len() * size_of::<(Ballot, RequestId)>()
    }
}

/// What a node keeps of one key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Record {
    /// Ballot at which `state` was accepted; zero when nothing was.
    pub accepted: Ballot,
    /// The accepted state; `None` exactly when `accepted` is zero.
    pub state: Option<State>,
    /// No ballot below this one is accepted any more.
    pub promised: Ballot,
    /// The node's floor when this record was made: what may have been dropped before it.
    pub floor: Ballot,
    /// On a spare: the home (its backend URL) this record is kept for until it is handed over.
    pub hint_for: Option<Arc<str>>,
}

impl Record {
    /// A record that holds nothing yet, made on a node whose floor is `floor`.
    #[must_use]
    pub fn empty(floor: Ballot) -> Self {
        Self {
            accepted: Ballot::ZERO,
            state: None,
            promised: Ballot::ZERO,
            floor,
            hint_for: None,
        }
    }

    /// Bytes this record takes in memory, for caches that count bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        size_of::<Self>()
            + self.hint_for.as_ref().map_or(0, |h| h.len())
            + self.state.as_ref().map_or(0, |s| s.size_bytes() - size_of::<State>())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ballots() -> impl Strategy<Value = Ballot> {
        // Few incarnations and close times, as on a busy key, and anything else.
        let time = prop_oneof![any::<u64>(), 1_u64 << 40..(1 << 40) + 100_000];
        let incarnation = prop_oneof![any::<u64>(), 1_u64..3];
        (time, incarnation).prop_map(|(time, incarnation)| Ballot {
            time: HlcTime::from_bits(time),
            incarnation,
        })
    }

    fn lineages() -> impl Strategy<Value = Lineage> {
        let changes = proptest::collection::vec((ballots(), any::<u64>().prop_map(RequestId)), 0..40);
        (ballots(), changes).prop_map(|(since, changes)| Lineage { since, changes })
    }

    proptest! {
        #[test]
        fn a_lineage_comes_back_from_its_bytes(lineage in lineages()) {
            let bytes = lineage.to_bytes();
            prop_assert_eq!(Lineage::from_bytes(&bytes), Some(lineage.clone()));
            let packed = postcard::to_stdvec(&lineage).unwrap();
            prop_assert_eq!(postcard::from_bytes::<Lineage>(&packed), Ok(lineage));
        }

        #[test]
        fn the_form_before_is_still_read(mut lineage in lineages()) {
            // Of this time: the compact form's mark is no year of then.
            lineage.since.time = HlcTime::from_unix_ms(lineage.since.time.unix_ms() >> 4);
            let mut bytes = ballot_to_bytes(lineage.since).to_vec();
            for (ballot, request) in &lineage.changes {
                bytes.extend(ballot_to_bytes(*ballot));
                bytes.extend(request.0.to_be_bytes());
            }
            prop_assert_eq!(Lineage::from_bytes(&bytes), Some(lineage));
            bytes.pop();
            prop_assert_eq!(Lineage::from_bytes(&bytes), None);
        }

        #[test]
        fn bytes_of_no_lineage_are_refused_or_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(lineage) = Lineage::from_bytes(&bytes) {
                prop_assert_eq!(Lineage::from_bytes(&lineage.to_bytes()), Some(lineage));
            }
        }
    }

    #[test]
    fn a_busy_keys_lineage_is_short() {
        let ballot = |number: u64| Ballot {
            time: HlcTime::from_unix_ms(1_790_000_000_000 + number * 3),
            incarnation: 0x1234_5678_9ABC_DEF0,
        };
        let mut lineage = Lineage::blind(ballot(0), RequestId(u64::MAX));
        for number in 1..100 {
            lineage.push(ballot(number), RequestId(u64::MAX - number));
        }
        assert_eq!(lineage.changes.len(), LINEAGE_MAX);
        let bytes = lineage.to_bytes().len();
        assert!(bytes < 400, "{bytes} bytes for {LINEAGE_MAX} changes");
    }
}
