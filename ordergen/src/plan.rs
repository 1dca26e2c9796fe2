//! What is sent when: the cycle, a steady rate, or the orders of a file.
//!
//! Due times never depend on how fast answers come (an open loop). No clock: times are durations since the start.

use std::time::Duration;

use domain::order::NewOrder;

use crate::config::Config;
use crate::orders::{Orders, idempotency_key};
use crate::replay::{self, Recorded};
use crate::schedule::{Schedule, Step};

/// When orders are due.
#[derive(Debug)]
enum When {
    Cycle(Schedule),
    Steady {
        rate_per_sec: f64,
        number: u64,
    },
    /// As the file says.
    Recorded,
}

/// What orders are sent.
#[derive(Debug)]
enum What {
    Random(Box<Orders>),
    /// The rest of a file, in the order of time.
    Recorded(std::vec::IntoIter<Recorded>),
}

/// The sequence of steps, and the orders that go with it.
#[derive(Debug)]
pub(crate) struct Plan {
    when: When,
    what: What,
    until: Option<Duration>,
    len: Option<u64>,
}

impl Plan {
    /// # Errors
    /// When the file cannot be used.
    pub(crate) fn new(config: &Config) -> anyhow::Result<Self> {
        let recorded = match &config.replay {
            Some(path) => Some(replay::read(path, config.rate.is_none())?),
            None => None,
        };
        let until = config.duration_sec.map(Duration::from_secs_f64);
        let when = match (config.rate, &recorded) {
            (Some(rate_per_sec), _) => When::Steady {
                rate_per_sec,
                number: 0,
            },
            (None, Some(_)) => When::Recorded,
            (None, None) => When::Cycle(Schedule::new(config)),
        };
        let len = len(config, recorded.as_deref());
        let what = match recorded {
            Some(orders) => What::Recorded(orders.into_iter()),
            None => What::Random(Box::new(
                Orders::new(config.seed, config.weight_min, config.weight_max)
                    .outside(config.no_fly.no_fly_zones.clone()),
            )),
        };
        Ok(Self { when, what, until, len })
    }

    /// How many orders it has, if that is known.
    pub(crate) fn len(&self) -> Option<u64> {
        self.len
    }

    /// The next step; `None` at the end. Never goes back in time.
    pub(crate) fn step(&mut self) -> Option<Step> {
        let next_recorded = match &self.what {
            What::Recorded(rest) => Some(rest.as_slice().first()?),
            What::Random(_) => None,
        };
        let step = match &mut self.when {
            When::Cycle(schedule) => schedule.step(),
            When::Steady { rate_per_sec, number } => Step::Order {
                at: due(*number, *rate_per_sec),
            },
            When::Recorded => Step::Order { at: next_recorded?.at },
        };
        let (Step::Begin { at, .. } | Step::Order { at }) = step;
        if self.until.is_some_and(|until| at >= until) {
            return None;
        }
        if let (When::Steady { number, .. }, Step::Order { .. }) = (&mut self.when, &step) {
            *number += 1;
        }
        Some(step)
    }

    /// The order of the step that is due, with its key.
    pub(crate) fn order(&mut self) -> Option<(NewOrder, String)> {
        match &mut self.what {
            What::Random(orders) => Some((orders.order(), idempotency_key())),
            What::Recorded(rest) => {
                let recorded = rest.next()?;
                Some((recorded.order, recorded.key.unwrap_or_else(idempotency_key)))
            }
        }
    }
}

/// When order `number` (from 0) is due. From the number, not from the order before: rounding must not add up.
fn due(number: u64, rate_per_sec: f64) -> Duration {
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 orders")]
    let sec = number as f64 / rate_per_sec;
    Duration::try_from_secs_f64(sec).unwrap_or(Duration::MAX)
}

/// How many orders there are, where they are counted.
fn len(config: &Config, recorded: Option<&[Recorded]>) -> Option<u64> {
    let until = config.duration_sec.unwrap_or(f64::INFINITY);
    let in_file = recorded.map(|orders| {
        let in_time = |order: &&Recorded| config.rate.is_some() || order.at.as_secs_f64() < until;
        orders.iter().filter(in_time).count() as u64
    });
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "rate and duration are positive; what is beyond the range is capped"
    )]
    let by_rate = config
        .rate
        .zip(config.duration_sec)
        .map(|(rate, sec)| (rate * sec).ceil() as u64);
    let total = (config.total > 0).then_some(config.total);
    [in_file, by_rate, total].into_iter().flatten().min()
}

#[cfg(test)]
mod tests {
    use service::settings::try_parse_from;

    use super::*;

    fn plan(flags: &[&str]) -> Plan {
        let config: Config = try_parse_from([&["ordergen"], flags].concat()).unwrap();
        Plan::new(&config).unwrap()
    }

    fn all(plan: &mut Plan) -> Vec<Duration> {
        let steps = std::iter::from_fn(|| plan.step());
        let order = |step| match step {
            Step::Order { at } => Some(at),
            Step::Begin { .. } => None,
        };
        steps.filter_map(order).collect()
    }

    #[test]
    fn a_steady_rate_does_not_drift_and_ends() {
        let mut steady = plan(&["--rate", "3", "--duration", "100"]);
        assert_eq!(steady.len(), Some(300));
        let due = all(&mut steady);
        assert_eq!((due.len(), due[0]), (300, Duration::ZERO));
        assert!((due[299].as_secs_f64() - 299.0 / 3.0).abs() < 1e-6);
        assert_eq!(plan(&["--rate", "3"]).len(), None);
        assert_eq!(plan(&["--rate", "3", "--total", "7"]).len(), Some(7));
    }

    #[test]
    fn the_cycle_ends_only_when_told_to() {
        // One a second in the peak, from the first second on.
        let flags = [
            "--low-rps",
            "0",
            "--peak-rps",
            "1",
            "--low1-sec",
            "1",
            "--duration",
            "5.5",
        ];
        let due = all(&mut plan(&flags));
        assert_eq!(due.len(), 5);
    }
}
