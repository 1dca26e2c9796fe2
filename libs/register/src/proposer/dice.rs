//! Dice for the jitter of pauses: seeded, copied with the coordinator, so that a run can be repeated and a model checker can keep them.

/// SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators"). Not for secrets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number from 0 to `most`. The remainder favours small ones by less than most / 2^64: nothing for a pause.
    pub(super) fn up_to(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        most.checked_add(1).map_or(bits, |faces| bits % faces)
    }
}
