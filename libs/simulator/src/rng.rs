//! The dice of a world: xoshiro256++ (Blackman and Vigna 2019), small, fast, and the same on every machine and with every release of every
//! crate, so that a kept seed stays the schedule that it was kept for.

/// A seeded generator.
#[derive(Debug, Clone)]
pub(crate) struct Rng {
    state: [u64; 4],
}

impl Rng {
    /// Spreads the seed with SplitMix64, so that neighbouring seeds have nothing in common.
    pub(crate) fn new(seed: u64) -> Self {
        let mut spread = seed;
        let mut next = || {
            spread = spread.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = spread;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        Self {
            state: [next(), next(), next(), next()],
        }
    }

    pub(crate) fn next(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let shifted = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= shifted;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// Below `bound`; zero when that is zero. The bias of the multiplication is below 2⁻³² for the small bounds used here.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((self.next() >> 32).wrapping_mul(bound)) >> 32
    }

    /// From `low` up to, not including, `high` (at most 2³² apart).
    pub(crate) fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low))
    }

    /// True so many times in a thousand.
    pub(crate) fn per_mille(&mut self, times: u32) -> bool {
        times > 0 && self.below(1_000) < u64::from(times)
    }

    /// An index below `len`.
    #[expect(clippy::cast_possible_truncation, reason = "below `len`, which is a usize")]
    pub(crate) fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// Between minus `most` and `most`.
    #[expect(clippy::cast_possible_wrap, reason = "callers ask for hours in milliseconds at most")]
    pub(crate) fn around_zero(&mut self, most: u64) -> i64 {
        self.below(2 * most + 1) as i64 - most as i64
    }
}
