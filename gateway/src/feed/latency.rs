//! How long deliveries take, over the last while.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use serde::Serialize;

use domain::drone::DroneType;

use super::gap::{Gap, Trip, Trips};
use super::mirror::Head;

/// Most samples per figure; with more in the window the oldest go.
const SAMPLES_MAX: usize = 50_000;

/// When something happened (Unix microseconds) and to which delivery: the same news twice is one sample.
pub(super) type Happened = (u64, u64);

/// Milliseconds from the order to something that happened to it.
#[derive(Debug, Default)]
struct Samples(BTreeMap<Happened, u32>);

/// The three figures.
#[derive(Debug)]
pub(super) struct Latencies {
    window: Duration,
    assign: Samples,
    pick_up: Samples,
    deliver: Samples,
    trips: Trips,
}

/// Percentiles of the deliveries that got on within the window.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Summary {
    /// Length of the window, seconds.
    window_sec: f64,
    /// From the order to the drone that takes it.
    assign: Figures,
    /// From the order to its pick-up.
    pick_up: Figures,
    /// From the order to its end at the destination.
    deliver: Figures,
    /// What of `deliver` a better dispatcher could save at most.
    bound: Gap,
}

/// Seconds; null when there was none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
struct Figures {
    count: usize,
    p50_sec: Option<f64>,
    p95_sec: Option<f64>,
    p99_sec: Option<f64>,
    max_sec: Option<f64>,
}

impl Latencies {
    /// `km_per_min`: a medium drone's speed by the clock.
    pub(super) fn new(window: Duration, km_per_min: f64) -> Self {
        Self {
            window,
            assign: Samples::default(),
            pick_up: Samples::default(),
            deliver: Samples::default(),
            trips: Trips::new(window, km_per_min),
        }
    }

    /// Takes the way of a delivery that has arrived.
    pub(super) fn note_trip(&mut self, id: &str, trip: Trip) {
        self.trips.note(id, trip);
    }

    /// Takes what the record of `id` tells.
    pub(super) fn note(&mut self, id: &str, head: &Head) {
        let Some(ordered_at) = head.timestamp else { return };
        for (samples, at) in [
            (&mut self.assign, head.assigned_at),
            (&mut self.pick_up, head.picked_up_at),
            (&mut self.deliver, head.delivered_at),
        ] {
            if let Some(at) = at {
                samples.add(id, at, at - ordered_at);
            }
        }
    }

    /// The figures of what happened within the window before `now` (Unix seconds), with a fleet of these classes.
    pub(super) fn summary(&mut self, now: f64, fleet: impl Iterator<Item = DroneType>) -> Summary {
        let since = micros(now - self.window.as_secs_f64());
        Summary {
            window_sec: self.window.as_secs_f64(),
            assign: self.assign.figures(since),
            pick_up: self.pick_up.figures(since),
            deliver: self.deliver.figures(since),
            bound: self.trips.gap(now, fleet),
        }
    }
}

impl Samples {
    fn add(&mut self, id: &str, at: f64, took_sec: f64) {
        if !took_sec.is_finite() {
            return;
        }
        // Clocks of two machines: what seems to be over before it began took no time.
        let took_ms = micros(took_sec) / 1_000;
        self.0
            .insert(happened(id, at), u32::try_from(took_ms).unwrap_or(u32::MAX));
        if self.0.len() > SAMPLES_MAX {
            self.0.pop_first();
        }
    }

    fn figures(&mut self, since: u64) -> Figures {
        self.0 = self.0.split_off(&(since, 0));
        let mut sorted: Vec<u32> = self.0.values().copied().collect();
        sorted.sort_unstable();
        let seconds = |ms: &u32| f64::from(*ms) / 1_000.0;
        // The nearest rank: the least value that is not below this share of all.
        let rank = |percent: usize| {
            let number = (sorted.len() * percent).div_ceil(100);
            sorted.get(number.saturating_sub(1)).map(seconds)
        };
        Figures {
            count: sorted.len(),
            p50_sec: rank(50),
            p95_sec: rank(95),
            p99_sec: rank(99),
            max_sec: sorted.last().map(seconds),
        }
    }
}

/// What happened to the delivery `id` at that time (Unix seconds).
pub(super) fn happened(id: &str, at: f64) -> Happened {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    (micros(at), hasher.finish())
}

/// Unix microseconds; what lies before 1970 is 1970.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped; Unix time in microseconds fits for 500,000 years"
)]
pub(super) fn micros(unix_sec: f64) -> u64 {
    (unix_sec * 1e6).clamp(0.0, 1.8e19) as u64
}

#[cfg(test)]
mod tests {
    use domain::delivery::DeliveryStatus;

    use super::*;

    const NOW: f64 = 1_800_000_000.0;

    fn none() -> impl Iterator<Item = DroneType> {
        std::iter::empty()
    }

    fn assigned(ordered_at: f64, assigned_at: f64) -> Head {
        Head {
            status: DeliveryStatus::Assigned,
            timestamp: Some(ordered_at),
            assigned_at: Some(assigned_at),
            picked_up_at: None,
            delivered_at: None,
        }
    }

    #[test]
    fn percentiles_are_those_of_the_window_and_nothing_counts_twice() {
        let mut latencies = Latencies::new(Duration::from_secs(900), 1.0);
        assert_eq!(latencies.summary(NOW, none()).assign, Figures::default());
        for second in 1..=100 {
            let took = f64::from(second);
            for _ in 0..2 {
                latencies.note(&format!("d{second}"), &assigned(NOW - took, NOW));
            }
        }
        latencies.note("old", &assigned(NOW - 5_000.0, NOW - 901.0));
        let summary = latencies.summary(NOW, none());
        let expected = Figures {
            count: 100,
            p50_sec: Some(50.0),
            p95_sec: Some(95.0),
            p99_sec: Some(99.0),
            max_sec: Some(100.0),
        };
        assert_eq!((summary.assign, summary.deliver), (expected, Figures::default()));
        assert_eq!(latencies.summary(NOW + 901.0, none()).assign.count, 0);
    }

    #[test]
    fn samples_are_bounded_and_clocks_that_differ_do_no_harm() {
        let mut latencies = Latencies::new(Duration::from_secs(900), 1.0);
        for number in 0..SAMPLES_MAX + 10 {
            latencies.note(&number.to_string(), &assigned(NOW + 1.0, NOW));
        }
        let figures = latencies.summary(NOW, none()).assign;
        assert_eq!((figures.count, figures.max_sec), (SAMPLES_MAX, Some(0.0)));
    }
}
