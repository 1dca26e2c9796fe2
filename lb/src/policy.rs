//! Who is chosen among the gateways that are well: in turn, the least busy, or the cheaper of two.
//!
//! `p2c_ewma` compares two gateways drawn at random ("power of two choices": nearly as even as comparing all, without the herd that runs to the one
//! best) by the time an answer is expected to take: a moving average that rises at once and falls slowly (peak EWMA, as Finagle and Linkerd
//! have it), times the requests under way and the one to come. An average loses weight while nothing is heard, so that one that was bad is tried
//! again. Errors count as answers that took [`ERROR_LATENCY`] at least: a gateway that fails fast must not look fast.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use clap::ValueEnum;

use crate::limits::{ERROR_LATENCY, EWMA_DECAY, INITIAL_LATENCY};

/// How a gateway is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Policy {
    /// One after the other.
    #[value(name = "round_robin")]
    RoundRobin,
    /// The one with the fewest requests under way.
    #[value(name = "least_conn")]
    LeastConn,
    /// The one of two drawn at random that is expected to answer sooner.
    #[value(name = "p2c_ewma")]
    P2cEwma,
}

impl Policy {
    /// Whether it wants to know how busy and how fast gateways are.
    pub(crate) fn measures(self) -> bool {
        self != Self::RoundRobin
    }
}

/// How busy and how fast a gateway is, in atomics: every worker tells.
#[derive(Debug)]
pub(crate) struct Load {
    under_way: AtomicUsize,
    /// The moving average, see [`Average`].
    average: AtomicU64,
}

/// Seconds an answer takes, as last told, and when that was, in milliseconds; packed into 64 bits so that both change together. The time wraps
/// after 49 days without an answer, and then is merely taken for a shorter one.
#[derive(Debug, Clone, Copy)]
struct Average {
    seconds: f32,
    at_ms: u32,
}

impl Average {
    fn pack(self) -> u64 {
        u64::from(self.seconds.to_bits()) << 32 | u64::from(self.at_ms)
    }

    fn unpack(bits: u64) -> Self {
        let half = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or(0);
        Self {
            seconds: f32::from_bits(half(bits >> 32)),
            at_ms: half(bits),
        }
    }

    /// How much of it still counts.
    fn weight(self, now_ms: u64) -> f32 {
        let now_ms = wrapped(now_ms);
        // Told by another worker a moment after `now_ms` was read: no time has passed.
        let passed = now_ms.wrapping_sub(self.at_ms);
        let passed = if passed > u32::MAX / 2 { 0 } else { passed };
        (-(Duration::from_millis(u64::from(passed)).as_secs_f32() / EWMA_DECAY.as_secs_f32())).exp()
    }

    fn with(self, sample: f32, now_ms: u64) -> Self {
        let weight = self.weight(now_ms);
        let seconds = if sample > self.seconds {
            sample
        } else {
            self.seconds * weight + sample * (1.0 - weight)
        };
        Self {
            seconds,
            at_ms: wrapped(now_ms),
        }
    }
}

fn wrapped(ms: u64) -> u32 {
    u32::try_from(ms & u64::from(u32::MAX)).unwrap_or(0)
}

impl Load {
    /// Nothing is known, so it is taken for as fast as most.
    pub(crate) fn new(now_ms: u64) -> Self {
        let average = Average {
            seconds: INITIAL_LATENCY.as_secs_f32(),
            at_ms: wrapped(now_ms),
        };
        Self {
            under_way: AtomicUsize::new(0),
            average: AtomicU64::new(average.pack()),
        }
    }

    fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Relaxed)
    }

    /// A request is given to it, until the guard is dropped.
    pub(crate) fn begin(&self) -> UnderWay<'_> {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay(self)
    }

    /// It has begun an answer after `took`.
    pub(crate) fn answered(&self, took: Duration, now_ms: u64) {
        let sample = took.as_secs_f32();
        let add = |bits| Some(Average::unpack(bits).with(sample, now_ms).pack());
        // Never fails: the closure always has a new value.
        let _ = self.average.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// It has failed, or answered with an error, after `took`.
    pub(crate) fn failed(&self, took: Duration, now_ms: u64) {
        self.answered(took.max(ERROR_LATENCY), now_ms);
    }

    /// Seconds that a further request is expected to take.
    pub(crate) fn cost(&self, now_ms: u64) -> f32 {
        // Below this, differences are noise, and only what is under way counts.
        const LEAST_SEC: f32 = 1e-5;
        let average = Average::unpack(self.average.load(Ordering::Relaxed));
        let seconds = (average.seconds * average.weight(now_ms)).max(LEAST_SEC);
        seconds * self.requests()
    }

    /// Requests under way, and the one to come.
    pub(crate) fn requests(&self) -> f32 {
        f32::from(u16::try_from(self.under_way() + 1).unwrap_or(u16::MAX))
    }
}

/// A request that a gateway has been given.
#[derive(Debug)]
pub(crate) struct UnderWay<'a>(&'a Load);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Random numbers from a seed, shared by all workers without a lock (SplitMix64, Steele, Lea and Flood 2014).
#[derive(Debug)]
pub(crate) struct Dice(AtomicU64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    fn next(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `sides`; 0 when there are none.
    pub(crate) fn below(&self, sides: usize) -> usize {
        // The upper half of the product is as even as makes no difference for so few sides.
        let product = u128::from(self.next()) * (sides as u128);
        usize::try_from(product >> 64).unwrap_or(0)
    }

    /// True with this probability, from 0 to 1.
    pub(crate) fn says_yes(&self, probability: f32) -> bool {
        const SIDES: u16 = 10_000;
        let side = u16::try_from(self.below(usize::from(SIDES))).unwrap_or(SIDES);
        f32::from(side) < probability * f32::from(SIDES)
    }

    /// Two different numbers below `sides`, which must be at least 2.
    pub(crate) fn two_below(&self, sides: usize) -> (usize, usize) {
        let first = self.below(sides);
        let second = self.below(sides - 1);
        (first, second + usize::from(second >= first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn an_average_rises_at_once_and_falls_slowly() {
        let load = Load::new(0);
        load.answered(MS(100), 0);
        assert!((load.cost(0) - 0.1).abs() < 1e-6);
        load.answered(MS(10), 0);
        assert!((load.cost(0) - 0.1).abs() < 1e-6, "one fast answer is no proof");
        let decay_ms = u64::try_from(EWMA_DECAY.as_millis()).unwrap();
        load.answered(MS(10), decay_ms);
        let expected = 0.1 / std::f32::consts::E + 0.01 * (1.0 - 1.0 / std::f32::consts::E);
        assert!((load.cost(decay_ms) - expected).abs() < 1e-4);
        load.answered(MS(500), decay_ms);
        assert!((load.cost(decay_ms) - 0.5).abs() < 1e-6);
        assert!(load.cost(decay_ms * 20) < 1e-4, "what was long ago counts for nothing");
        assert!(
            load.cost(decay_ms - 5) >= load.cost(decay_ms),
            "a clock that is behind does no harm"
        );
    }

    #[test]
    fn what_fails_fast_does_not_look_fast() {
        let (failing, slow) = (Load::new(0), Load::new(0));
        failing.failed(MS(0), 0);
        slow.answered(MS(200), 0);
        assert!(failing.cost(0) > slow.cost(0));
    }

    #[test]
    fn requests_under_way_count_until_they_end() {
        let load = Load::new(0);
        let alone = load.cost(0);
        let held = [load.begin(), load.begin()];
        assert_eq!(load.under_way(), 2);
        assert!((load.cost(0) - 3.0 * alone).abs() < 1e-6);
        drop(held);
        assert_eq!(load.under_way(), 0);
    }

    #[test]
    fn dice_are_even_and_repeatable() {
        let dice = Dice::new(7);
        let (mut counts, mut pairs) = ([0; 5], [[0; 5]; 5]);
        for _ in 0..10_000 {
            counts[dice.below(5)] += 1;
            let (a, b) = dice.two_below(5);
            pairs[a][b] += 1;
        }
        assert!(counts.iter().all(|count| (1800..2200).contains(count)), "{counts:?}");
        for (a, row) in pairs.iter().enumerate() {
            for (b, count) in row.iter().enumerate() {
                assert!(
                    if a == b {
                        *count == 0
                    } else {
                        (350..650).contains(count)
                    },
                    "{pairs:?}"
                );
            }
        }
        assert_eq!(dice.below(0), 0);
        let yes = (0..10_000).filter(|_| dice.says_yes(0.1)).count();
        assert!(
            (850..1150).contains(&yes) && !dice.says_yes(0.0) && dice.says_yes(1.0),
            "{yes}"
        );
        let draw = |seed| {
            let dice = Dice::new(seed);
            (0..20).map(|_| dice.below(1000)).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
