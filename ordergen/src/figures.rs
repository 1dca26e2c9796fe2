//! Durations, summed up: percentiles out of an HDR histogram.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longest time told apart; longer ones count as this.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// Significant digits of a time.
const DIGITS: u8 = 3;

/// Times, in microseconds.
#[derive(Debug)]
pub(crate) struct Times(Histogram<u64>);

/// How long something took, in seconds to three digits; null when it never happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// How often it happened.
    pub count: u64,
    /// The half took at most this long.
    pub p50_sec: Option<f64>,
    /// 95 of 100 took at most this long.
    pub p95_sec: Option<f64>,
    /// 99 of 100 took at most this long.
    pub p99_sec: Option<f64>,
    /// The longest.
    pub max_sec: Option<f64>,
}

impl Times {
    pub(crate) fn new() -> Self {
        Self(
            Histogram::new_with_bounds(1, micros(LONGEST), DIGITS)
                .expect("the bounds are constants in the allowed order"),
        )
    }

    pub(crate) fn record(&mut self, time: Duration) {
        self.0.saturating_record(micros(time));
    }

    pub(crate) fn percentiles(&self) -> Percentiles {
        let at = |quantile| (!self.0.is_empty()).then(|| seconds(self.0.value_at_quantile(quantile)));
        Percentiles {
            count: self.0.len(),
            p50_sec: at(0.5),
            p95_sec: at(0.95),
            p99_sec: at(0.99),
            max_sec: at(1.0),
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn seconds(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_to_three_digits() {
        let mut times = Times::new();
        assert_eq!(times.percentiles(), Percentiles::default());
        for ms in 1..=1_000 {
            times.record(Duration::from_millis(ms));
        }
        times.record(Duration::MAX);
        let of = times.percentiles();
        let near = |value: Option<f64>, sec: f64| (value.unwrap() / sec - 1.0).abs() < 0.004;
        assert_eq!(of.count, 1_001);
        assert!(
            near(of.p50_sec, 0.5) && near(of.p95_sec, 0.95) && near(of.p99_sec, 0.991),
            "{of:?}"
        );
        assert!(near(of.max_sec, LONGEST.as_secs_f64()), "{of:?}");
    }
}
