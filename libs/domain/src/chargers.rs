//! Charge points with a limited number of slots: who charges, who waits, in which order.
//!
//! Promises: who charges at a point is never more than its slots; nobody waits while a slot is free; those who need the charge
//! come first, in the order of their arrival, so everybody's turn comes as long as those before it get full. All of it follows from
//! the drones' records, so it survives a restart and is the same for whoever looks.
//!
//! Waiting costs no energy: drones stand on the ground beside the charge point.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::drone::{Drone, DroneStatus, number_of};
use crate::energy::FULL_PCT;
use crate::geo::Point;
use crate::zones::ZonesConfig;

/// Default of `CHARGER_SLOTS`: as many as are needed.
pub const DEFAULT_CHARGER_SLOTS: u32 = 0;

/// Most slots per charge point that can be set: more than any fleet has drones.
pub const MAX_CHARGER_SLOTS: u32 = 10_000;

/// The place of a drone at its charge point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    /// When it came, Unix seconds.
    pub since: f64,
    /// 0 while it has a slot, or is full and needs none; else its place in the queue, from 1.
    pub queue: u32,
}

impl Place {
    /// Whether it is still the place of `drone`, found at `now` (Unix seconds): it has not left since, nor come anew.
    #[must_use]
    pub fn is_of(&self, drone: &Drone, now: f64) -> bool {
        drone.charge_since.unwrap_or(now).total_cmp(&self.since).is_eq()
    }
}

/// Whether `drone` stands where it was sent to charge.
#[must_use]
pub fn stands_at_charger(drone: &Drone, zones: &ZonesConfig) -> bool {
    let is_sent = matches!(drone.status, DroneStatus::Charging | DroneStatus::Retiring);
    is_sent && drone.pos.is_at_charge(drone.charge_target(zones))
}

/// Whose turn comes first at a charge point, of two drones with the times at which they came: those who need the charge go before those who can
/// wait ([`can_wait`]), then who came first. The number breaks ties.
#[must_use]
pub fn by_turn(a: (&Drone, f64), b: (&Drone, f64)) -> Ordering {
    Turn::of(a.0, a.1).compare(&Turn::of(b.0, b.1))
}

/// What decides when a drone's turn comes: see [`by_turn`].
#[derive(Debug, Clone, Copy)]
pub struct Turn<'a> {
    /// Whether it can wait ([`can_wait`]).
    pub can_wait: bool,
    /// When it came, Unix seconds.
    pub since: f64,
    /// Its id.
    pub drone: &'a str,
}

impl<'a> Turn<'a> {
    /// That of `drone`, which came at `since`.
    #[must_use]
    pub fn of(drone: &'a Drone, since: f64) -> Self {
        Self {
            can_wait: can_wait(drone),
            since,
            drone: &drone.id,
        }
    }

    /// Less is earlier.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Ordering {
        let number = |turn: &Self| number_of(turn.drone).unwrap_or(u32::MAX);
        (self.can_wait.cmp(&other.can_wait))
            .then(self.since.total_cmp(&other.since))
            .then_with(|| number(self).cmp(&number(other)))
            // Names of another kind: whoever looks sees the same order.
            .then_with(|| self.drone.cmp(other.drone))
    }
}

/// Whether `drone`, which charges, leaves its slot to those who need the charge: it is going to be parked, or only tops up.
#[must_use]
pub fn can_wait(drone: &Drone) -> bool {
    drone.status == DroneStatus::Retiring || drone.is_topping_up()
}

/// The place of every drone that stands where it was sent to charge, by id, with `slots` per charge point (0: as many as are needed), at
/// `now` (Unix seconds). Frozen drones hold nobody up: they have none.
#[must_use]
pub fn places<'a>(
    drones: impl IntoIterator<Item = &'a Drone>,
    zones: &ZonesConfig,
    slots: u32,
    now: f64,
) -> BTreeMap<String, Place> {
    let mut points: BTreeMap<usize, Vec<(&Drone, f64)>> = BTreeMap::new();
    for drone in drones {
        if drone.is_frozen(now) || !stands_at_charger(drone, zones) {
            continue;
        }
        // A charge point that the grid no longer has shares the slots of the nearest one.
        let point = nearest(drone, zones);
        let since = drone.charge_since.unwrap_or(now);
        points.entry(point).or_default().push((drone, since));
    }
    let mut places = BTreeMap::new();
    for standing in points.values_mut() {
        standing.sort_by(|a, b| by_turn(*a, *b));
        let mut before = 0_u32;
        for (drone, since) in standing {
            let mut queue = 0;
            if slots > 0 && drone.battery < FULL_PCT {
                before = before.saturating_add(1);
                queue = before.saturating_sub(slots);
            }
            places.insert(drone.id.clone(), Place { since: *since, queue });
        }
    }
    places
}

fn nearest(drone: &Drone, zones: &ZonesConfig) -> usize {
    zones.nearest_zone(drone.pos).map_or(0, |(index, _)| index)
}

/// The charge point whose slots `drone`, which stands at one, shares.
#[must_use]
pub fn point_of(drone: &Drone, zones: &ZonesConfig) -> Point {
    let zone = zones.zones.get(nearest(drone, zones));
    // A grid without zones is one charge point to all.
    zone.map_or(zones.bounds.center(), |zone| zone.charge)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};

    use super::{Place, places};
    use crate::drone::Drone;
    use crate::geo::Point;
    use crate::zones::ZonesConfig;

    fn grid() -> ZonesConfig {
        ZonesConfig::rome(2, 2).unwrap()
    }

    /// Drone `number` sent to charge, standing at the charge point of a zone.
    fn standing(number: u32, zone: usize, battery: f64, since: Option<f64>) -> Drone {
        let at = grid().zones[zone].charge;
        Drone {
            charge_since: since,
            ..Drone::new(number, &grid())
                .moved(at, battery, true)
                .charge(None)
                .unwrap()
        }
    }

    fn queues(fleet: &[Drone], slots: u32) -> Vec<Option<u32>> {
        let places = places(fleet, &grid(), slots, 100.0);
        let queue = |drone: &Drone| places.get(&drone.id).map(|place| place.queue);
        fleet.iter().map(queue).collect()
    }

    #[test]
    fn who_came_first_charges_first() {
        let fleet = [
            standing(1, 0, 40.0, Some(30.0)),
            standing(2, 0, 40.0, Some(10.0)),
            standing(3, 0, 40.0, None),
            standing(4, 1, 40.0, None),
            standing(5, 0, 40.0, Some(20.0)),
        ];
        assert_eq!(queues(&fleet, 2), [Some(1), Some(0), Some(2), Some(0), Some(0)]);
        assert_eq!(queues(&fleet, 0), [Some(0); 5]);
        let found = places(&fleet, &grid(), 2, 100.0)["drone-3"];
        let here_now = Place { since: 100.0, queue: 2 };
        assert_eq!(found, here_now);
    }

    #[test]
    fn who_needs_no_slot_holds_none() {
        let full = standing(1, 0, 100.0, Some(1.0));
        let frozen = Drone {
            freeze_until: Some(200.0),
            ..standing(2, 0, 40.0, Some(2.0))
        };
        let retiring = standing(3, 0, 40.0, Some(3.0)).retire().unwrap();
        let topping = Drone::new(6, &grid()).moved(retiring.pos, 40.0, true).top_up().unwrap();
        let needy = standing(4, 0, 40.0, Some(4.0));
        let idle = Drone::new(5, &grid()).moved(needy.pos, 40.0, true);
        let on_its_way = standing(9, 0, 40.0, None).moved(Point::new(41.9, 12.5), 40.0, false);
        let fleet = [full, frozen, retiring, topping, needy, idle, on_its_way];
        assert_eq!(
            queues(&fleet, 1),
            [Some(0), None, Some(1), Some(2), Some(0), None, None]
        );
    }

    #[test]
    fn a_charge_point_that_is_no_longer_there_shares_the_nearest_ones_slots() {
        let other = ZonesConfig::rome(3, 3).unwrap();
        let sent = Drone::new(1, &grid()).charge(Some(grid().zones[0].charge)).unwrap();
        let fleet = [sent.moved(sent.charge_at.unwrap(), 40.0, true)];
        assert_eq!(places(&fleet, &other, 1, 5.0)["drone-1"].queue, 0);
    }

    proptest! {
        #[test]
        fn slots_are_used_and_never_more_of_them(
            fleet in prop::collection::vec((0..4_usize, 0.0..=100.0_f64, 0.0..9.0_f64, 0..3_u8), 0..40), slots in 0..5_u32,
        ) {
            let fleet: Vec<Drone> = (1..).zip(&fleet).map(|(number, (zone, battery, since, kind))| {
                let drone = standing(number, *zone, *battery, Some(*since));
                match kind {
                    0 => drone.retire().unwrap(),
                    1 => drone.moved(drone.pos, 100.0, true),
                    _ => drone,
                }
            }).collect();
            let places = places(&fleet, &grid(), slots, 100.0);
            prop_assert_eq!(places.len(), fleet.len());
            for zone in 0..4 {
                let here: Vec<&Drone> = fleet.iter().filter(|drone| drone.pos == grid().zones[zone].charge).collect();
                let wanting: Vec<u32> = here.iter().filter(|drone| drone.battery < 100.0).map(|drone| places[&drone.id].queue).collect();
                let charging = wanting.iter().filter(|place| **place == 0).count();
                let most = if slots == 0 { wanting.len() } else { wanting.len().min(slots as usize) };
                prop_assert_eq!(charging, most);
                // The queue has no gaps.
                let mut waiting: Vec<u32> = here.iter().map(|drone| places[&drone.id].queue).filter(|place| *place > 0).collect();
                waiting.sort_unstable();
                prop_assert!(waiting.iter().zip(1..).all(|(place, number)| *place == number));
            }
        }
    }
}
