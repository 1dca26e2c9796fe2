//! What a run came to.

use crate::bounds::mean;
use crate::world::{Flown, Trip};

/// A policy is unstable if the orders that wait when new ones are placed more than grow by this factor from the second quarter of a run to the
/// last. A backlog that grows steadily grows by 7/3 between the middles of the two; one that is stable varies.
pub const GROWTH_MAX: f64 = 1.75;

/// Times of one kind, in minutes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Times {
    /// The mean.
    pub mean: f64,
    /// Half took no longer.
    pub p50: f64,
    /// 95 of 100 took no longer.
    pub p95: f64,
    /// The longest.
    pub max: f64,
}

impl Times {
    pub(crate) fn new(mut minutes: Vec<f64>) -> Self {
        minutes.sort_unstable_by(f64::total_cmp);
        let Some(&max) = minutes.last() else {
            return Self::default();
        };
        // Nearest rank: the least value that `percent` of all do not exceed.
        let rank = |percent: usize| minutes[(minutes.len() * percent).div_ceil(100) - 1];
        Self {
            mean: mean(minutes.iter().copied()),
            p50: rank(50),
            p95: rank(95),
            max,
        }
    }
}

/// What a run came to. All orders count.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Report {
    /// From placing until a drone was first sent.
    pub to_assign: Times,
    /// From placing until the parcel was picked up.
    pub to_pickup: Times,
    /// From placing until it was delivered.
    pub to_deliver: Times,
    /// Mean number of waiting orders that new ones of the second quarter met.
    pub open_early: f64,
    /// The same for the last quarter.
    pub open_late: f64,
    /// Whether the backlog did not grow ([`GROWTH_MAX`]).
    pub is_stable: bool,
    /// What was flown, with parcels and without.
    pub flown: Flown,
    /// What happened at chargers.
    pub charging: Charging,
}

/// What happened at chargers; nothing in a world without batteries.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Charging {
    /// How often a drone was put to charge.
    pub stays: usize,
    /// Of these, how many had to wait for a slot.
    pub queued: usize,
    /// How long they waited for a slot, those included that did not have to.
    pub waits: Times,
    /// The least that any battery ever had, percent.
    pub least_battery_pct: f64,
}

impl Report {
    /// Sums up `trips`, which are in the order in which they were placed.
    #[must_use]
    pub fn new(trips: &[Trip], drones: usize, flown: &Flown) -> Self {
        let times = |end: fn(&Trip) -> f64| Times::new(trips.iter().map(|trip| end(trip) - trip.placed_min).collect());
        let quarter = trips.len() / 4;
        let open_early = mean_open(&trips[quarter..2 * quarter]);
        let open_late = mean_open(&trips[3 * quarter..]);
        #[expect(clippy::cast_precision_loss, reason = "fleets are far below 2^52")]
        let fleet = drones as f64;
        Self {
            to_assign: times(|trip| trip.assigned_min),
            to_pickup: times(|trip| trip.picked_up_min),
            to_deliver: times(|trip| trip.delivered_min),
            open_early,
            open_late,
            // A few orders more than a few are no trend: the growth must also be more than one order per drone. A burst at one time
            // is no arrival process that a backlog could grow under.
            is_stable: open_late <= GROWTH_MAX * open_early || open_late - open_early <= fleet || is_burst(trips),
            flown: *flown,
            charging: Charging::default(),
        }
    }
}

/// Whether all orders were placed at once.
fn is_burst(trips: &[Trip]) -> bool {
    let placed = |trip: Option<&Trip>| trip.map_or(0.0, |trip| trip.placed_min);
    placed(trips.last()) <= placed(trips.first())
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn mean_open(trips: &[Trip]) -> f64 {
    mean(trips.iter().map(|trip| trip.open_before as f64))
}
