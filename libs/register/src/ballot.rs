//! Ballots: totally ordered, never reused, close to wall-clock time.
//!
//! A [`Ballot`] is a hybrid logical clock reading (Kulkarni et al. 2014, "Logical Physical Clocks", §3) plus the incarnation of the
//! coordinator that drew it. It is the last-write-wins timestamp and the Paxos ballot in one.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A hybrid logical clock reading: 48 bits of Unix milliseconds, then a 16-bit counter, so that integers order like time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct HlcTime(u64);

impl HlcTime {
    /// Bits of the counter below the milliseconds.
    const COUNTER_BITS: u32 = 16;
    /// Before anything.
    pub const ZERO: Self = Self(0);
    /// The largest reading; a clock that gets there is broken.
    pub const MAX: Self = Self(u64::MAX);

    /// The first reading of a millisecond. Milliseconds past 48 bits (the year 10889) saturate.
    #[must_use]
    pub const fn from_unix_ms(unix_ms: u64) -> Self {
        const MAX_MS: u64 = u64::MAX >> HlcTime::COUNTER_BITS;
        let ms = if unix_ms > MAX_MS { MAX_MS } else { unix_ms };
        Self(ms << Self::COUNTER_BITS)
    }

    /// The packed integer, ordered like time.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The reading of a packed integer.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Unix milliseconds of the reading.
    #[must_use]
    pub const fn unix_ms(self) -> u64 {
        self.0 >> Self::COUNTER_BITS
    }

    /// Unix seconds, the counter as a fraction of a millisecond: what the outside sees as `_ts`.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "seconds for people and scripts; the exact ballot is kept beside it"
    )]
    pub fn unix_sec(self) -> f64 {
        self.0 as f64 / f64::from(1u32 << Self::COUNTER_BITS) / 1_000.0
    }

    /// The reading of Unix seconds, as [`Self::unix_sec`] shows them. Negative and non-finite seconds give zero.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "`as` saturates, and negatives are cut before"
    )]
    pub fn from_unix_sec(unix_sec: f64) -> Self {
        if unix_sec.is_finite() && unix_sec > 0.0 {
            Self((unix_sec * 1_000.0 * f64::from(1u32 << Self::COUNTER_BITS)) as u64)
        } else {
            Self::ZERO
        }
    }

    /// The next reading after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// A ballot: a clock reading and the incarnation (a random number per start) of the coordinator that drew it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Ballot {
    /// When it was drawn.
    pub time: HlcTime,
    /// Who drew it.
    pub incarnation: u64,
}

impl Ballot {
    /// Below every ballot that is ever drawn: "nothing accepted", "nothing promised".
    pub const ZERO: Self = Self {
        time: HlcTime::ZERO,
        incarnation: 0,
    };

    /// As 16 bytes that order like ballots.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        ((u128::from(self.time.to_bits()) << 64) | u128::from(self.incarnation)).to_be_bytes()
    }

    /// The ballot that [`Self::to_bytes`] gave.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the lower half of 128 bits is meant")]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let bits = u128::from_be_bytes(bytes);
        Self {
            time: HlcTime::from_bits((bits >> 64) as u64),
            incarnation: bits as u64,
        }
    }

    /// The text that [`fmt::Display`] gives, in ASCII.
    #[must_use]
    pub fn to_text(self) -> [u8; 33] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [b'-'; 33];
        let mut write = |start: usize, bits: u64| {
            for (digit, byte) in text[start..start + 16].chunks_exact_mut(2).zip(bits.to_be_bytes()) {
                digit[0] = DIGITS[usize::from(byte >> 4)];
                digit[1] = DIGITS[usize::from(byte & 0xf)];
            }
        };
        write(0, self.time.to_bits());
        write(17, self.incarnation);
        text
    }

    /// True for [`Ballot::ZERO`].
    #[must_use]
    pub fn is_zero(self) -> bool {
        self == Self::ZERO
    }
}

/// `tttttttttttttttt-iiiiiiiiiiiiiiii`, both parts as 16 hexadecimal digits, so that text orders like ballots.
impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_text()
            .iter()
            .try_for_each(|byte| f.write_char(char::from(*byte)))
    }
}

/// A text that is no ballot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a version is two groups of 16 hexadecimal digits joined by '-', not {0:?}")]
pub struct ParseBallotError(String);

impl FromStr for Ballot {
    type Err = ParseBallotError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseBallotError(text.chars().take(64).collect());
        let (time, incarnation) = text.split_once('-').ok_or_else(error)?;
        let hex = |part: &str| {
            let digits = part.len() == 16 && part.bytes().all(|b| b.is_ascii_hexdigit());
            digits
                .then(|| u64::from_str_radix(part, 16).ok())
                .flatten()
                .ok_or_else(error)
        };
        Ok(Self {
            time: HlcTime::from_bits(hex(time)?),
            incarnation: hex(incarnation)?,
        })
    }
}

/// A reading from another machine lies too far ahead of ours to be merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "clock skew: the sender's clock is {ahead_ms} ms ahead of ours, at most {max_ms} ms are accepted (MAX_CLOCK_SKEW_MS)"
)]
pub struct SkewError {
    /// How far ahead the sender is, in milliseconds.
    pub ahead_ms: u64,
    /// The bound, in milliseconds.
    pub max_ms: u64,
}

/// A hybrid logical clock: never goes back, stays close to the wall clock, and refuses to be dragged ahead.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Clock {
    last: HlcTime,
    incarnation: u64,
    max_skew_ms: u64,
}

impl Clock {
    /// A clock for a coordinator (or node) of this incarnation. `resume_above` is the highest reading known from before.
    #[must_use]
    pub fn new(incarnation: u64, max_skew_ms: u64, resume_above: HlcTime) -> Self {
        Self {
            last: resume_above,
            incarnation,
            max_skew_ms,
        }
    }

    /// The incarnation that this clock stamps into ballots.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// The highest reading drawn or merged so far.
    #[must_use]
    pub fn last(&self) -> HlcTime {
        self.last
    }

    /// A new reading: max(wall clock, last + 1).
    pub fn tick(&mut self, now_unix_ms: u64) -> HlcTime {
        self.last = HlcTime::from_unix_ms(now_unix_ms).max(self.last.next());
        self.last
    }

    /// A new ballot above everything this clock has seen.
    pub fn ballot(&mut self, now_unix_ms: u64) -> Ballot {
        Ballot {
            time: self.tick(now_unix_ms),
            incarnation: self.incarnation,
        }
    }

    /// A new ballot that is also above `other` (learnt from a refusal). A refusal that lies beyond the skew bound is not followed.
    pub fn ballot_above(&mut self, other: Ballot, now_unix_ms: u64) -> Result<Ballot, SkewError> {
        self.observe(other.time, now_unix_ms)?;
        Ok(self.ballot(now_unix_ms))
    }

    /// Merges a reading from a message; refuses one that is more than the skew bound ahead of the wall clock.
    pub fn observe(&mut self, other: HlcTime, now_unix_ms: u64) -> Result<(), SkewError> {
        let ahead_ms = other.unix_ms().saturating_sub(now_unix_ms);
        if ahead_ms > self.max_skew_ms {
            return Err(SkewError {
                ahead_ms,
                max_ms: self.max_skew_ms,
            });
        }
        self.last = self.last.max(other);
        Ok(())
    }
}
