//! How far deliveries are from what no dispatcher could beat.
//!
//! The mean time of the deliveries that ended within the window, beside the larger of the two lower bounds of [`dispatch_sim::Bounds`] on these
//! very orders: direct flight with the fastest drone that may carry the parcel, and one machine as fast as the whole fleet. The bounds take drones
//! to fly at a constant speed, `SPEED_BASE_KMH` and `TIME_SCALE` as drone-sim has them.

use std::collections::BTreeMap;
use std::time::Duration;

use dispatch_sim::{Bounds, Work};
use domain::drone::DroneType;
use domain::geo::Point;
use serde::{Deserialize, Serialize};

use super::latency::{Happened, happened, micros};

/// Most orders that are looked at; with more in the window the newest. Some milliseconds for all.
const ORDERS_MAX: usize = 5_000;
/// The gap is computed anew this often at most, seconds; whoever asks meanwhile gets the last one.
const RENEW_SEC: f64 = 1.0;

/// What the bounds need of a record.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Trip {
    timestamp: f64,
    delivered_at: f64,
    origin: Point,
    destination: Point,
    weight: f64,
}

/// Deliveries within the window, and the last answer.
#[derive(Debug)]
pub(super) struct Trips {
    window: Duration,
    /// A medium drone's speed, km per minute of clock.
    km_per_min: f64,
    by_end: BTreeMap<Happened, Trip>,
    last: Option<(f64, Gap)>,
}

/// The mean beside the bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Gap {
    /// Deliveries it is about.
    count: usize,
    /// From order to delivery, seconds; null without any.
    mean_sec: Option<f64>,
    /// What no dispatcher can beat on these orders, seconds; null without any.
    lower_bound_sec: Option<f64>,
    /// `mean_sec / lower_bound_sec - 1`. Null without a bound, and when the mean is below it: then drones fly faster than the settings say.
    gap: Option<f64>,
}

impl Trips {
    /// `km_per_min`: a medium drone's speed by the clock.
    pub(super) fn new(window: Duration, km_per_min: f64) -> Self {
        Self {
            window,
            km_per_min,
            by_end: BTreeMap::new(),
            last: None,
        }
    }

    /// Takes a delivery that has arrived.
    pub(super) fn note(&mut self, id: &str, trip: Trip) {
        let numbers = [trip.timestamp, trip.delivered_at, trip.weight];
        let direct_km = trip.origin.distance_km(trip.destination);
        if numbers.iter().all(|number| number.is_finite()) && direct_km.is_finite() {
            self.by_end.insert(happened(id, trip.delivered_at), trip);
            if self.by_end.len() > ORDERS_MAX {
                self.by_end.pop_first();
            }
        }
    }

    /// The gap of what was delivered within the window before `now` (Unix seconds), by a fleet of these classes.
    pub(super) fn gap(&mut self, now: f64, fleet: impl Iterator<Item = DroneType>) -> Gap {
        if let Some((at, gap)) = self.last
            && (at..at + RENEW_SEC).contains(&now)
        {
            return gap;
        }
        let since = micros(now - self.window.as_secs_f64());
        self.by_end = self.by_end.split_off(&(since, 0));
        let gap = self.compute(fleet.map(|class| self.speed(class)).sum());
        self.last = Some((now, gap));
        gap
    }

    fn speed(&self, class: DroneType) -> f64 {
        self.km_per_min * class.cruise_scale()
    }

    fn compute(&self, fleet_km_per_min: f64) -> Gap {
        let mut trips: Vec<&Trip> = self.by_end.values().collect();
        trips.sort_unstable_by(|a, b| a.timestamp.total_cmp(&b.timestamp));
        let Some(first) = trips.first() else {
            return Gap::default();
        };
        let begin = first.timestamp;
        let work: Vec<Work> = trips
            .iter()
            .map(|trip| Work {
                placed_min: (trip.timestamp - begin) / 60.0,
                direct_km: trip.origin.distance_km(trip.destination),
                // The lightest class that may carry it is the fastest that may, whether one is there or not.
                fastest_km_per_min: self.speed(DroneType::for_weight(trip.weight)),
            })
            .collect();
        // Clocks of two machines: what seems to be over before it began took no time.
        let total: f64 = trips
            .iter()
            .map(|trip| (trip.delivered_at - trip.timestamp).max(0.0))
            .sum();
        #[expect(clippy::cast_precision_loss, reason = "at most ORDERS_MAX")]
        let mean_sec = total / trips.len() as f64;
        let bound_sec = 60.0 * Bounds::of_work(&work, fleet_km_per_min).best_min();
        Gap {
            count: trips.len(),
            mean_sec: Some(mean_sec),
            lower_bound_sec: Some(bound_sec),
            gap: (bound_sec > 0.0 && mean_sec >= bound_sec).then(|| mean_sec / bound_sec - 1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: f64 = 1_800_000_000.0;
    /// Degrees of latitude.
    const KM: f64 = 1.0 / 111.194_926_644_558_73;

    fn trip(ordered_at: f64, took_sec: f64, km: f64, weight: f64) -> Trip {
        Trip {
            timestamp: ordered_at,
            delivered_at: ordered_at + took_sec,
            origin: Point::new(41.0, 12.0),
            destination: Point::new(41.0 + km * KM, 12.0),
            weight,
        }
    }

    fn rounded(gap: Gap) -> (usize, Option<f64>, Option<f64>, Option<f64>) {
        let to_micro = |value: Option<f64>| value.map(|value| (value * 1e6).round() / 1e6);
        (
            gap.count,
            to_micro(gap.mean_sec),
            to_micro(gap.lower_bound_sec),
            to_micro(gap.gap),
        )
    }

    #[test]
    fn direct_flight_of_each_class() {
        let mut trips = Trips::new(Duration::from_secs(900), 60.0);
        let fleet = || DroneType::ALL.into_iter().cycle().take(300);
        assert_eq!(trips.gap(NOW, fleet()), Gap::default());
        // 1 km a second for medium ones: 12 km take 10 s light, 6 take 6 medium, 8 take 10 heavy.
        trips.note("a", trip(NOW - 100.0, 20.0, 12.0, 1.0));
        trips.note("b", trip(NOW - 90.0, 9.0, 6.0, 5.0));
        trips.note("c", trip(NOW - 80.0, 10.0, 8.0, 9.0));
        trips.note("c", trip(NOW - 80.0, 10.0, 8.0, 9.0));
        trips.note("too old", trip(NOW - 5_000.0, 4_000.0, 8.0, 9.0));
        trips.note("senseless", trip(NOW, f64::NAN, 8.0, 9.0));
        let expected = (3, Some(13.0), Some(8.666_667), Some(0.5));
        assert_eq!(
            trips.gap(NOW + 0.5, fleet()),
            Gap::default(),
            "within a second the same"
        );
        assert_eq!(rounded(trips.gap(NOW + 2.0, fleet())), expected);
        assert_eq!(trips.gap(NOW + 901.0, fleet()).count, 0);
    }

    #[test]
    fn a_backlog_is_no_fault_of_the_dispatcher() {
        let mut trips = Trips::new(Duration::from_secs(900), 60.0);
        // One medium drone, four orders at once of 10 s each: the best there is are 10, 20, 30 and 40 s.
        for number in 0..4 {
            trips.note(&number.to_string(), trip(NOW, 50.0, 10.0, 5.0));
        }
        let gap = trips.gap(NOW + 60.0, std::iter::once(DroneType::Medium));
        assert_eq!(rounded(gap), (4, Some(50.0), Some(25.0), Some(1.0)));
    }

    #[test]
    fn a_mean_below_the_bound_is_told_as_no_gap() {
        let mut trips = Trips::new(Duration::from_secs(900), 60.0);
        trips.note("a", trip(NOW, 5.0, 12.0, 1.0));
        let gap = trips.gap(NOW + 10.0, std::iter::once(DroneType::Light));
        assert_eq!(rounded(gap), (1, Some(5.0), Some(10.0), None));
    }

    #[test]
    fn trips_are_bounded() {
        let mut trips = Trips::new(Duration::from_secs(900), 60.0);
        for number in 0..ORDERS_MAX + 10 {
            trips.note(&number.to_string(), trip(NOW, 50.0, 10.0, 5.0));
        }
        let fleet = std::iter::repeat_n(DroneType::Heavy, 10);
        assert_eq!(trips.gap(NOW + 60.0, fleet).count, ORDERS_MAX);
    }
}
