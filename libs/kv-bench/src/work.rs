//! What is measured, and the keys it is measured on.

use std::fmt;

use serde::Serialize;

/// What the names of the loaded keys begin with.
pub(crate) const KEY_PREFIX: &str = "bench-k-";
/// The first text after all that begin with [`KEY_PREFIX`], in the order of bytes.
pub(crate) const PREFIX_END: &str = "bench-k.";
/// The key that all clients of [`Work::CasHot`] change.
pub(crate) const HOT_KEY: &str = "bench-hot";
/// Puts in one batch.
pub(crate) const BATCH_KEYS: usize = 100;
/// Keys in one page of a scan.
pub(crate) const SCAN_KEYS: usize = 1_000;
/// Gets among a hundred operations of [`Work::Mix`]; the rest are puts.
pub(crate) const MIX_GET_PERCENT: u32 = 90;

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// Reads one of the loaded keys, linearizably.
    Get,
    /// Writes one of the loaded keys.
    Put,
    /// Makes a key that is not there, on that condition.
    CasCreate,
    /// Changes the client's own key, on the condition that it is as the client left it.
    CasUpdate,
    /// Adds one to a number that all clients share; tries until it succeeds.
    CasHot,
    /// Nine gets, one put.
    Mix,
    /// Writes 100 loaded keys with one request.
    Batch,
    /// Reads 1,000 loaded keys with one request.
    Scan,
    /// Takes a lock of the client's own and gives it back: two requests.
    Lock,
}

impl Work {
    /// All of it, in the order of the report.
    pub const ALL: [Self; 9] = [
        Self::Get,
        Self::Put,
        Self::CasCreate,
        Self::CasUpdate,
        Self::CasHot,
        Self::Mix,
        Self::Batch,
        Self::Scan,
        Self::Lock,
    ];

    /// Its name in settings and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Put => "put",
            Self::CasCreate => "cas-create",
            Self::CasUpdate => "cas-update",
            Self::CasHot => "cas-hot",
            Self::Mix => "mix",
            Self::Batch => "batch",
            Self::Scan => "scan",
            Self::Lock => "lock",
        }
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Some kinds of work, as a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Works(pub Vec<Work>);

impl std::str::FromStr for Works {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self(Work::ALL.to_vec()));
        }
        let named = |name: &str| Work::ALL.into_iter().find(|work| work.name() == name.trim());
        let works: Option<Vec<_>> = text.split(',').map(named).collect();
        works.map(Self).ok_or_else(|| {
            let names = Work::ALL.map(Work::name).join(", ");
            format!("`all` is expected, or some of {names}, comma-separated")
        })
    }
}

/// The loaded key with this number.
pub(crate) fn loaded_key(number: u64) -> String {
    format!("{KEY_PREFIX}{number:08}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn works_are_read_by_name() {
        assert_eq!("all".parse::<Works>().unwrap().0.len(), Work::ALL.len());
        assert_eq!("get,lock".parse::<Works>().unwrap().0, [Work::Get, Work::Lock]);
        assert!("get,fly".parse::<Works>().unwrap_err().contains("cas-hot"));
    }

    #[test]
    fn loaded_keys_lie_between_the_prefix_and_its_end() {
        for number in [0, 99_999_999] {
            let key = loaded_key(number);
            assert!(key.as_str() > KEY_PREFIX && key.as_str() < PREFIX_END);
        }
    }
}
