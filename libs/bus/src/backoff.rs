//! Pauses between attempts: exponential, with jitter so that many clients do not return in step after a broker's restart.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::limits::{RECONNECT_DELAY_MAX, RECONNECT_DELAY_MIN};

/// Doubling pauses between [`RECONNECT_DELAY_MIN`] and [`RECONNECT_DELAY_MAX`], each shortened at random by up to half.
#[derive(Debug)]
pub(crate) struct Backoff {
    ceiling: Duration,
    rng: StdRng,
}

impl Backoff {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            ceiling: RECONNECT_DELAY_MIN,
            rng: StdRng::seed_from_u64(seed),
        }
    }

    /// The pause to make now; the next one is up to twice as long.
    pub(crate) fn next_delay(&mut self) -> Duration {
        let delay = self.ceiling.mul_f64(self.rng.random_range(0.5..=1.0));
        self.ceiling = self.ceiling.saturating_mul(2).min(RECONNECT_DELAY_MAX);
        delay
    }

    /// It worked: start from the shortest pause again.
    pub(crate) fn reset(&mut self) {
        self.ceiling = RECONNECT_DELAY_MIN;
    }
}

#[cfg(test)]
mod tests {
    use super::Backoff;
    use crate::limits::{RECONNECT_DELAY_MAX, RECONNECT_DELAY_MIN};

    #[test]
    fn doubles_with_jitter_up_to_the_limit_and_resets() {
        let mut backoff = Backoff::new(7);
        let mut ceiling = RECONNECT_DELAY_MIN;
        for _ in 0..20 {
            let delay = backoff.next_delay();
            assert!(
                delay >= ceiling / 2 && delay <= ceiling,
                "{delay:?} is outside {:?}..={ceiling:?}",
                ceiling / 2
            );
            ceiling = (ceiling * 2).min(RECONNECT_DELAY_MAX);
        }
        backoff.reset();
        assert!(backoff.next_delay() <= RECONNECT_DELAY_MIN);
    }

    #[test]
    fn one_seed_gives_one_sequence_and_another_seed_another() {
        let delays = |seed| {
            let mut backoff = Backoff::new(seed);
            [(); 8].map(|()| backoff.next_delay())
        };
        assert_eq!(delays(1), delays(1));
        assert_ne!(delays(1), delays(2));
    }
}
