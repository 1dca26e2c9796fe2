//! Latencies, counted in buckets: exact below 1.6 s, within 0.01 % above, in the manner of HDR histograms (Gil Tene): buckets of equal
//! width within each power of two, twice as wide in the next.

use std::collections::HashMap;

use crate::line::Tenths;

/// Below this many tenths of a millisecond every value has a bucket of its own.
const EXACT_BELOW: u32 = 1 << EXACT_BITS;
const EXACT_BITS: u32 = 14;
/// Buckets of each power of two above.
const PER_OCTAVE: u32 = EXACT_BELOW / 2;

/// The bucket of a latency.
#[must_use]
pub fn bucket(took: Tenths) -> u32 {
    if took < EXACT_BELOW {
        return took;
    }
    let octave = took.ilog2() - EXACT_BITS;
    let shift = octave + 1;
    EXACT_BELOW + octave * PER_OCTAVE + ((took >> shift) - PER_OCTAVE)
}

/// The middle of a bucket, in milliseconds.
#[must_use]
pub fn middle_ms(bucket: u32) -> f64 {
    if bucket < EXACT_BELOW {
        return f64::from(bucket) / 10.0;
    }
    let (octave, place) = ((bucket - EXACT_BELOW) / PER_OCTAVE, (bucket - EXACT_BELOW) % PER_OCTAVE);
    let low = f64::from(PER_OCTAVE + place);
    (low + 0.5) * f64::from(2_u32.pow(octave + 1)) / 10.0
}

/// Counts per bucket.
#[derive(Debug, Clone, Default)]
pub struct Histogram {
    /// As long as the largest bucket seen asks for.
    counts: Vec<u64>,
    total: u64,
}

impl Histogram {
    /// Counts one latency.
    pub fn add(&mut self, took: Tenths) {
        self.add_bucket(bucket(took), 1);
    }

    /// Counts `n` latencies of a bucket.
    pub fn add_bucket(&mut self, bucket: u32, n: u64) {
        let at = bucket as usize;
        if at >= self.counts.len() {
            self.counts.resize(at + 1, 0);
        }
        self.counts[at] += n;
        self.total += n;
    }

    /// Adds what another one has counted.
    pub fn merge(&mut self, few: &Sparse) {
        for (&bucket, &n) in &few.0 {
            self.add_bucket(bucket, u64::from(n));
        }
    }

    /// Latencies counted.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.counts.clear();
        self.total = 0;
    }

    /// The smallest latency, in milliseconds, which at least `percent` of all do not exceed ("nearest rank"); `None` of none.
    #[must_use]
    pub fn percentile_ms(&self, percent: u32) -> Option<f64> {
        let rank = u128::from(self.total) * u128::from(percent);
        let rank = rank.div_ceil(100).max(1);
        let mut seen = 0;
        for (bucket, &n) in (0..).zip(&self.counts) {
            seen += u128::from(n);
            if n > 0 && seen >= rank {
                return Some(middle_ms(bucket));
            }
        }
        None
    }
}

/// The same for few latencies: takes memory only for buckets that were met.
#[derive(Debug, Clone, Default)]
pub struct Sparse(HashMap<u32, u32>);

impl Sparse {
    /// Counts one latency.
    pub fn add(&mut self, took: Tenths) {
        let n = self.0.entry(bucket(took)).or_default();
        *n = n.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{ProptestConfig, any, prop};
    use proptest::{prop_assert, prop_assert_eq, proptest};

    use super::{EXACT_BELOW, Histogram, bucket, middle_ms};

    #[test]
    fn percentiles_of_a_hundred() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile_ms(50), None);
        for ms in 1..=100 {
            histogram.add(ms * 10);
        }
        let found = [0, 1, 50, 95, 99, 100].map(|percent| histogram.percentile_ms(percent));
        assert_eq!(found, [1.0, 1.0, 50.0, 95.0, 99.0, 100.0].map(Some));
    }

    #[test]
    fn buckets_follow_each_other_without_gap() {
        let mut last = bucket(EXACT_BELOW - 1);
        for took in EXACT_BELOW..EXACT_BELOW * 9 {
            let next = bucket(took);
            assert!(next == last || next == last + 1, "{took}");
            last = next;
        }
        assert!(bucket(u32::MAX) < 170_000, "memory is bounded");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn a_bucket_is_near(took in any::<u32>()) {
            let ms = f64::from(took) / 10.0;
            prop_assert!((middle_ms(bucket(took)) - ms).abs() <= ms * 0.000_13, "{took}");
        }

        #[test]
        fn percentiles_are_those_of_the_sorted_list(mut all in prop::collection::vec(0..EXACT_BELOW, 1..300), percent in 1..=100_u32) {
            let mut histogram = Histogram::default();
            all.iter().for_each(|&took| histogram.add(took));
            all.sort_unstable();
            let rank = (all.len() * percent as usize).div_ceil(100);
            prop_assert_eq!(histogram.percentile_ms(percent), Some(f64::from(all[rank - 1]) / 10.0));
        }
    }
}
