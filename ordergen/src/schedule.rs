//! When orders are due.
//!
//! Promises: due times depend on the settings alone, never on how fast answers come (an *open loop*: a slow system does not get fewer
//! orders). The phases low, peak, low, silent follow each other for ever. The first order is due at once; from then on each is due
//! when the rates since the last one add up to a whole order, across the ends of phases too, so that slow rates and short phases lose
//! none. No clock: times are durations since the start.

use std::time::Duration;

use crate::config::Config;

/// Orders smaller than this are rounding.
const EPSILON: f64 = 1e-9;

/// A part of the cycle.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Phase {
    pub(crate) name: &'static str,
    pub(crate) length_sec: f64,
    pub(crate) rate_per_sec: f64,
}

/// What happens next.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    /// A phase begins.
    Begin { at: Duration, phase: Phase },
    /// An order is due.
    Order { at: Duration },
}

/// The endless sequence of steps.
#[derive(Debug)]
pub(crate) struct Schedule {
    phases: [Phase; 4],
    /// Which phase comes after the present one.
    next: usize,
    present: Option<Phase>,
    /// Begin of the present phase, seconds since the start.
    began_sec: f64,
    /// Orders that must add up, from the begin of the present phase, until the next is due.
    debt: f64,
}

impl Schedule {
    pub(crate) fn new(config: &Config) -> Self {
        let phase = |name, length_sec, rate_per_sec| Phase {
            name,
            length_sec,
            rate_per_sec,
        };
        Self {
            phases: [
                phase("low", config.low1_sec, config.low_rps),
                phase("peak", config.peak_sec, config.peak_rps),
                phase("low", config.low2_sec, config.low_rps),
                phase("silent", config.silent_sec, 0.0),
            ],
            next: 0,
            present: None,
            began_sec: 0.0,
            debt: 0.0,
        }
    }

    /// The next step. Never goes back in time. Settings without any order in a cycle give phases only.
    pub(crate) fn step(&mut self) -> Step {
        if let Some(phase) = self.present {
            let orders_left = phase.rate_per_sec * phase.length_sec - self.debt;
            if orders_left > EPSILON {
                let at = seconds(self.began_sec + self.debt / phase.rate_per_sec);
                self.debt += 1.0;
                return Step::Order { at };
            }
            self.debt = (-orders_left).max(0.0);
            self.began_sec += phase.length_sec;
        }
        let phase = self.phases[self.next];
        self.next = (self.next + 1) % self.phases.len();
        self.present = Some(phase);
        Step::Begin {
            at: seconds(self.began_sec),
            phase,
        }
    }
}

/// Lengths are checked at start to be finite and not negative; some thousand years are enough for the rest.
fn seconds(sec: f64) -> Duration {
    Duration::try_from_secs_f64(sec).unwrap_or(Duration::from_secs(1 << 36))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::ProptestConfig;
    use proptest::{prop_assert, proptest};
    use service::settings::try_parse_from;

    use super::*;

    fn config(values: [f64; 6]) -> Config {
        let names = ["low-rps", "peak-rps", "low1-sec", "peak-sec", "low2-sec", "silent-sec"];
        let flags = names
            .iter()
            .zip(values)
            .map(|(name, value)| format!("--{name}={value}"));
        try_parse_from(std::iter::once("ordergen".to_owned()).chain(flags)).unwrap()
    }

    fn orders(schedule: &mut Schedule, until_sec: f64) -> Vec<f64> {
        let mut due = Vec::new();
        loop {
            match schedule.step() {
                Step::Order { at } if at.as_secs_f64() < until_sec => due.push(at.as_secs_f64()),
                Step::Begin { at, .. } if at.as_secs_f64() < until_sec => {}
                _ => return due,
            }
        }
    }

    #[test]
    fn a_cycle_of_the_demo() {
        // 0.2 a second for 30 s, 2 for 7 s, 0.2 for 20 s, nothing for 60 s.
        let mut schedule = Schedule::new(&config([0.2, 2.0, 30.0, 7.0, 20.0, 60.0]));
        let due = orders(&mut schedule, 117.0);
        assert_eq!(due.len(), 6 + 14 + 4);
        let near = |index: usize, sec: f64| assert!((due[index] - sec).abs() < 1e-6, "{index}: {}", due[index]);
        near(0, 0.0);
        near(1, 5.0);
        near(6, 30.0);
        near(7, 30.5);
        near(20, 37.0);
        near(23, 52.0);
    }

    #[test]
    fn phases_come_in_order_and_empty_ones_take_no_time() {
        let mut schedule = Schedule::new(&config([1.0, 1.0, 2.0, 0.0, 0.0, 3.0]));
        let mut begins = Vec::new();
        while begins.len() < 6 {
            if let Step::Begin { at, phase } = schedule.step() {
                begins.push((phase.name, at.as_secs()));
            }
        }
        assert_eq!(
            begins,
            [
                ("low", 0),
                ("peak", 2),
                ("low", 2),
                ("silent", 2),
                ("low", 5),
                ("peak", 7)
            ]
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// Over whole cycles the number of orders is what the rates add up to, however slow or short the phases.
        #[test]
        fn no_order_is_lost_between_phases(
            low in 0.05_f64..3.0, peak in 0.05_f64..20.0,
            low1 in 0.0_f64..20.0, peak_sec in 0.1_f64..10.0, low2 in 0.0_f64..20.0, silent in 0.0_f64..20.0,
        ) {
            let mut schedule = Schedule::new(&config([low, peak, low1, peak_sec, low2, silent]));
            let cycles = 5.0;
            let cycle_sec = low1 + peak_sec + low2 + silent;
            let due = orders(&mut schedule, cycles * cycle_sec - 1e-6);
            let expected = cycles * (low * (low1 + low2) + peak * peak_sec);
            let count = f64::from(u32::try_from(due.len()).unwrap());
            // The first is due at once, so the whole part is rounded up.
            prop_assert!((count - expected).abs() <= 1.0 + 1e-6, "{} due, {} expected", count, expected);
            prop_assert!(due.windows(2).all(|pair| pair[0] <= pair[1]), "time never goes back");
        }
    }
}
