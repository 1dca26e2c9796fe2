//! Where a watcher stands, as the text that `id:` carries and `after=` takes back.

use std::fmt;
use std::fmt::Write;
use std::str::FromStr;

use register::{Ballot, HlcTime};
use serde::{Deserialize, Serialize};

/// First characters of the text: the format's version.
const FORMAT: &str = "1-";
/// Longest text that is read, in bytes: many times what a position of the largest ring takes.
pub(crate) const MAX_TEXT_BYTES: usize = 32 << 10;

/// A place in one node's feed: everything up to it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cursor {
    /// The incarnation that `commit` counts in.
    pub(crate) incarnation: u64,
    /// Number of the last commit told.
    pub(crate) commit: u64,
}

/// Where a watcher stands: everything that was chosen and shown by the nodes up to these cursors has been delivered, or is older than
/// something that has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    /// Nothing newer than this has been delivered.
    pub(crate) newest: HlcTime,
    /// By the hash of the node's name.
    pub(crate) cursors: Vec<(u64, Cursor)>,
    /// What was delivered although nodes show it only after the cursors, by the hash of the key. Not all of it: the rest may come again.
    pub(crate) told: Vec<(u64, Ballot)>,
    /// By the hash of the key: a version up to this was shown and is undecided, so it may have been chosen without being shown again.
    pub(crate) unsure: Vec<(u64, HlcTime)>,
    /// The same of keys that are not named.
    pub(crate) unsure_all: HlcTime,
}

/// A text that is no position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no position: the `id` of an event of this watch is expected")]
pub(crate) struct ParsePositionError;

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = postcard::to_stdvec(self).map_err(|_| fmt::Error)?;
        f.write_str(FORMAT)?;
        let mut text = String::with_capacity(bytes.len() * 2);
        for byte in bytes {
            write!(text, "{byte:02x}")?;
        }
        f.write_str(&text)
    }
}

impl FromStr for Position {
    type Err = ParsePositionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text
            .strip_prefix(FORMAT)
            .filter(|digits| digits.len() <= MAX_TEXT_BYTES)
            .ok_or(ParsePositionError)?;
        let bytes = digits
            .as_bytes()
            .chunks(2)
            .map(|pair| {
                let is_byte = pair.len() == 2 && pair.iter().all(u8::is_ascii_hexdigit);
                let pair = std::str::from_utf8(pair).ok().filter(|_| is_byte)?;
                u8::from_str_radix(pair, 16).ok()
            })
            .collect::<Option<Vec<u8>>>()
            .ok_or(ParsePositionError)?;
        postcard::from_bytes(&bytes).map_err(|_| ParsePositionError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_survives_its_text_and_nonsense_is_refused() {
        let ballot = Ballot {
            time: HlcTime::from_unix_ms(1_795_243_575_552),
            incarnation: u64::MAX,
        };
        let cursor = Cursor {
            incarnation: u64::MAX,
            commit: 1_000_000,
        };
        let position = Position {
            newest: ballot.time,
            cursors: vec![(1, cursor), (2, cursor), (3, cursor)],
            told: vec![(7, ballot); 16],
            unsure: vec![(7, ballot.time)],
            unsure_all: HlcTime::ZERO,
        };
        let text = position.to_string();
        assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'), "{text}");
        assert!(text.len() < 1_200, "{}", text.len());
        assert_eq!(text.parse(), Ok(position));
        for bad in [
            "",
            "1-",
            "2-00",
            "1-0",
            "1-zz",
            "1-0g",
            "1-ü0",
            &format!("1-{}", "0".repeat(MAX_TEXT_BYTES + 2)),
        ] {
            assert_eq!(bad.parse::<Position>(), Err(ParsePositionError), "{bad:?}");
        }
        let cut = &text[..text.len() - 2];
        assert_eq!(cut.parse::<Position>(), Err(ParsePositionError));
    }
}
