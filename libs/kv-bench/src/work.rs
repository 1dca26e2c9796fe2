//! What is measured, and the keys it is measured on.

use std::fmt;

use rand::{Rng, RngExt};
use rand_distr::{Distribution, Zipf};
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

/// How keys are chosen among the loaded ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Each as often as any other: the worst for every cache
    Even,
    /// The r-th most popular key in proportion to r^-0.99, and neighbours in popularity far from one another, as in YCSB
    Zipf,
}

impl Access {
    /// Its name in settings and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Even => "even",
            Self::Zipf => "zipf",
        }
    }
}

/// Exponent of [`Access::Zipf`]: that of YCSB's core workloads (Cooper et al., Benchmarking Cloud Serving Systems with YCSB, 2010, section 4).
const ZIPF_EXPONENT: f64 = 0.99;

/// Spreads ranks over the keys. A prime larger than any number of keys: no two ranks get the same key.
const SPREAD: u64 = 2_654_435_761;

/// Draws numbers of loaded keys.
#[derive(Debug)]
pub(crate) struct Keys {
    loaded: u64,
    /// Nothing where all are drawn evenly.
    ranks: Option<Zipf<f64>>,
}

impl Keys {
    /// Of so many, at least one.
    pub(crate) fn new(loaded: u64, access: Access) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "the settings allow 99,999,999 at most")]
        let ranks = match access {
            Access::Even => None,
            Access::Zipf => Zipf::new(loaded as f64, ZIPF_EXPONENT).ok(), // fails only for less than one
        };
        Self { loaded, ranks }
    }

    pub(crate) fn draw(&self, random: &mut impl Rng) -> u64 {
        match &self.ranks {
            None => random.random_range(0..self.loaded),
            Some(ranks) => self.of_rank(ranks.sample(random)),
        }
    }

    /// The key of a rank, counted from 1.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "ranks are whole and at least 1"
    )]
    fn of_rank(&self, rank: f64) -> u64 {
        rank as u64 * SPREAD % self.loaded
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
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    #[test]
    fn works_are_read_by_name() {
        assert_eq!("all".parse::<Works>().unwrap().0.len(), Work::ALL.len());
        assert_eq!("get,lock".parse::<Works>().unwrap().0, [Work::Get, Work::Lock]);
        assert!("get,fly".parse::<Works>().unwrap_err().contains("cas-hot"));
    }

    #[test]
    fn popular_keys_are_drawn_as_often_as_their_rank_says() {
        let keys = Keys::new(1_000, Access::Zipf);
        let ranked: std::collections::BTreeSet<u64> = (1..=1_000).map(|rank| keys.of_rank(f64::from(rank))).collect();
        assert!(ranked.into_iter().eq(0..1_000), "each key has one rank");
        let mut random = SmallRng::seed_from_u64(1);
        let mut counts = [0_u32; 1_000];
        for _ in 0..100_000 {
            counts[usize::try_from(keys.draw(&mut random)).unwrap()] += 1;
        }
        let count = |rank: f64| f64::from(counts[usize::try_from(keys.of_rank(rank)).unwrap()]);
        // Of 1,000 keys the first is drawn 12.9 times in a hundred: 1 / sum of r^-0.99.
        assert!((12_500.0..13_300.0).contains(&count(1.0)), "{}", count(1.0));
        let ratio = count(1.0) / count(10.0);
        assert!((8.8..10.8).contains(&ratio), "{ratio} instead of 10^0.99 = 9.8");
        let even = Keys::new(1_000, Access::Even);
        assert!((0..100_000).all(|_| even.draw(&mut random) < 1_000));
    }

    #[test]
    fn loaded_keys_lie_between_the_prefix_and_its_end() {
        for number in [0, 99_999_999] {
            let key = loaded_key(number);
            assert!(key.as_str() > KEY_PREFIX && key.as_str() < PREFIX_END);
        }
    }
}
