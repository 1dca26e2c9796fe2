//! Who will have charged when, and where a drone is charged soonest: the queues at the charge points, played forward.
//!
//! Promises: with as many slots as are needed nobody ever waits; else drones are served as [`domain::chargers`] has it, those who are on their
//! way in the order in which they will arrive (list scheduling). Nothing is reserved by it: it is a guess, made anew each round.

use std::collections::HashMap;

use domain::chargers::{by_turn, can_wait};
use domain::drone::{Drone, DroneStatus};
use domain::geo::Point;
use domain::zones::ZonesConfig;

use crate::rules::Rules;

/// The charge points as they will be used. All times are minutes of flight from now.
#[derive(Debug)]
pub struct Chargers<'a> {
    zones: &'a ZonesConfig,
    rules: &'a Rules,
    /// For each zone, when each of its slots is free. Empty with as many slots as are needed.
    free_at: Vec<Vec<f64>>,
    /// For each zone, how many drones charge or are to charge there, those that can wait too. Empty with as many slots as are needed.
    sent: Vec<usize>,
    /// When each drone that charges where slots are scarce will have `FULL_AFTER`.
    charged_at: HashMap<&'a str, f64>,
}

impl<'a> Chargers<'a> {
    /// The queues as the drones that charge, or are on their way to, will make them.
    #[must_use]
    pub fn new(drones: &[&'a Drone], zones: &'a ZonesConfig, rules: &'a Rules) -> Self {
        let slots = if rules.charger_slots == 0 { 0 } else { zones.zones.len() };
        let mut chargers = Self {
            zones,
            rules,
            free_at: vec![vec![0.0; rules.charger_slots]; slots],
            sent: vec![0; slots],
            charged_at: HashMap::new(),
        };
        if slots > 0 {
            chargers.play(drones);
        }
        chargers
    }

    fn play(&mut self, drones: &[&'a Drone]) {
        let is_sent = |drone: &Drone| matches!(drone.status, DroneStatus::Charging | DroneStatus::Retiring);
        let mut coming: Vec<(&Drone, Point, f64)> = (drones.iter().filter(|drone| is_sent(drone)))
            .map(|&drone| {
                let at = drone.charge_target(self.zones);
                (drone, at, self.flight_min(drone, at))
            })
            .collect();
        // Who is there has its turn by when it came; one that has just come is the last of them.
        let since = |drone: &Drone| drone.charge_since.unwrap_or(f64::INFINITY);
        coming.sort_by(|(a, _, a_min), (b, _, b_min)| {
            (a_min.total_cmp(b_min)).then_with(|| by_turn((a, since(a)), (b, since(b))))
        });
        for (drone, at, arrival_min) in coming {
            // Those hold up nobody who needs the charge.
            if can_wait(drone) {
                self.note_sent(at);
                continue;
            }
            let arriving_pct = self.left_pct(drone, at);
            let charged_at = self.book(at, arrival_min, arriving_pct);
            self.charged_at.insert(&drone.id, charged_at);
        }
    }

    /// How long `drone`, already sent to charge, waits for its slot beside the way and the charging.
    #[must_use]
    pub fn waits_min(&self, drone: &Drone) -> f64 {
        let Some(charged_at) = self.charged_at.get(drone.id.as_str()) else {
            return 0.0;
        };
        let at = drone.charge_target(self.zones);
        let charging_min = self.charging_min(self.left_pct(drone, at));
        (charged_at - self.flight_min(drone, at) - charging_min).max(0.0)
    }

    /// How long one that comes to the charge point `at` in `arrival_min` waits there.
    #[must_use]
    pub fn wait_min(&self, at: Point, arrival_min: f64) -> f64 {
        let slots = self.zones.nearest_zone(at).and_then(|(zone, _)| self.free_at.get(zone));
        let first = slots.and_then(|slots| slots.iter().copied().reduce(f64::min));
        first.map_or(0.0, |free_at| (free_at - arrival_min).max(0.0))
    }

    /// The charge point at which `drone` has its charge soonest, of those it reaches; it counts there from now on. `None` when that is the
    /// nearest one.
    pub fn send(&mut self, drone: &Drone) -> Option<Point> {
        let (nearest, _) = self.zones.nearest_charge(drone.pos)?;
        if self.free_at.is_empty() {
            return None;
        }
        let ready_min = |at: Point| {
            let arrival_min = self.flight_min(drone, at);
            arrival_min + self.wait_min(at, arrival_min) + self.charging_min(self.left_pct(drone, at))
        };
        let charges = self.zones.zones.iter().map(|zone| zone.charge);
        let others = charges.filter(|charge| *charge != nearest && reaches(drone, *charge, self.zones, self.rules));
        let mut best = (nearest, ready_min(nearest));
        for charge in others {
            let ready = ready_min(charge);
            if ready < best.1 {
                best = (charge, ready);
            }
        }
        self.add(drone, best.0);
        (best.0 != nearest).then_some(best.0)
    }

    /// `drone` will charge at `at`.
    pub fn add(&mut self, drone: &Drone, at: Point) {
        self.book(at, self.flight_min(drone, at), self.left_pct(drone, at));
    }

    /// Whether `drone`, which only tops up, finds a slot at the charge point nearest to it; it counts there from now on.
    pub fn spare(&mut self, drone: &Drone) -> bool {
        let Some((zone, _)) = self.zones.nearest_zone(drone.pos) else {
            return false;
        };
        let Some(sent) = self.sent.get_mut(zone) else {
            return true;
        };
        let has_room = *sent < self.rules.charger_slots;
        *sent += usize::from(has_room);
        has_room
    }

    fn note_sent(&mut self, at: Point) {
        let zone = self.zones.nearest_zone(at).map(|(zone, _)| zone);
        if let Some(sent) = zone.and_then(|zone| self.sent.get_mut(zone)) {
            *sent += 1;
        }
    }

    /// Takes the slot that is free first; when the drone has its charge.
    fn book(&mut self, at: Point, arrival_min: f64, battery_pct: f64) -> f64 {
        self.note_sent(at);
        let charging_min = self.charging_min(battery_pct);
        let zone = self.zones.nearest_zone(at).map(|(zone, _)| zone);
        let slots = zone.and_then(|zone| self.free_at.get_mut(zone));
        let first = slots.and_then(|slots| slots.iter_mut().min_by(|a, b| a.total_cmp(b)));
        first.map_or(arrival_min + charging_min, |free_at| {
            *free_at = free_at.max(arrival_min) + charging_min;
            *free_at
        })
    }

    fn flight_min(&self, drone: &Drone, at: Point) -> f64 {
        self.way_km(drone, at) / self.rules.pace.km_per_min(drone.kind)
    }

    /// Its battery when it comes to `at`.
    fn left_pct(&self, drone: &Drone, at: Point) -> f64 {
        (drone.battery - self.way_km(drone, at) * self.rules.energy.battery_per_km).max(0.0)
    }

    fn charging_min(&self, battery_pct: f64) -> f64 {
        self.rules.pace.charging_min(self.rules.full_after_pct - battery_pct)
    }

    fn way_km(&self, drone: &Drone, at: Point) -> f64 {
        // A drone stands a few metres beside the plug, and charges there.
        if drone.pos.is_at_charge(at) {
            0.0
        } else {
            self.zones.way_km(drone.pos, at)
        }
    }
}

/// Whether the battery of `drone` takes it to `charge` with the safety margin to spare. The nearest charge point counts as reached: there is no
/// better one.
#[must_use]
pub fn reaches(drone: &Drone, charge: Point, zones: &ZonesConfig, rules: &Rules) -> bool {
    let nearest = zones.nearest_charge(drone.pos);
    nearest.is_some_and(|(nearest, _)| nearest == charge)
        || rules.energy.feasible(drone.battery, zones.way_km(drone.pos, charge))
}

#[cfg(test)]
mod tests {
    use domain::chargers::Place;
    use domain::drone::Drone;
    use domain::geo::Point;

    use super::Chargers;
    use crate::rules::Rules;
    use crate::testing::{drone, rules, zones};

    fn with_slots(charger_slots: usize) -> Rules {
        Rules {
            charger_slots,
            ..rules()
        }
    }

    fn standing(number: u32, battery: f64, since: f64) -> Drone {
        let there = drone(number, zones().zones[0].charge, battery).charge(None).unwrap();
        there.placed(Some(Place { since, queue: 0 }))
    }

    fn near(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-9, "{a} {b}");
    }

    #[test]
    fn who_waits_waits_for_those_before_it() {
        let (zones, rules) = (zones(), with_slots(1));
        let fleet = [standing(1, 45.0, 9.0), standing(4, 75.0, 5.0)];
        let fleet: Vec<&Drone> = fleet.iter().collect();
        let chargers = Chargers::new(&fleet, &zones, &rules);
        let (first, second) = (rules.pace.charging_min(20.0), rules.pace.charging_min(50.0));
        near(chargers.waits_min(fleet[1]), 0.0);
        near(chargers.waits_min(fleet[0]), first);
        let at = zones.zones[0].charge;
        near(chargers.wait_min(at, 0.0), first + second);
        near(chargers.wait_min(at, first), second);
        near(chargers.wait_min(at, 1e9), 0.0);
        near(chargers.wait_min(zones.zones[1].charge, 0.0), 0.0);
        for (slots, wait) in [(2, first), (3, 0.0), (0, 0.0)] {
            let rules = with_slots(slots);
            near(Chargers::new(&fleet, &zones, &rules).wait_min(at, 0.0), wait);
        }
    }

    #[test]
    fn who_only_tops_up_holds_nobody_up_and_goes_only_where_there_is_room() {
        let (zones, rules) = (zones(), with_slots(2));
        let at = zones.zones[0].charge;
        let topping = |number| drone(number, at, 50.0).top_up().unwrap();
        let (first, second) = (topping(1), topping(4));
        let mut chargers = Chargers::new(&[&first], &zones, &rules);
        near(chargers.wait_min(at, 0.0), 0.0);
        assert!(chargers.spare(&drone(4, at, 50.0)) && !chargers.spare(&drone(7, at, 50.0)));
        let mut chargers = Chargers::new(&[&first, &second], &zones, &rules);
        near(chargers.wait_min(at, 0.0), 0.0);
        assert!(!chargers.spare(&drone(7, at, 50.0)));
        let unlimited = with_slots(0);
        assert!(Chargers::new(&[&first, &second], &zones, &unlimited).spare(&drone(7, at, 50.0)));
    }

    #[test]
    fn a_full_charge_point_is_passed_over_for_one_within_reach() {
        let zones = zones();
        let near_0 = Point::new(41.90, 12.4275);
        let sent = |slots, others: &[Drone], battery| {
            let rules = with_slots(slots);
            let fleet: Vec<&Drone> = others.iter().collect();
            let mut chargers = Chargers::new(&fleet, &zones, &rules);
            chargers.send(&drone(1, near_0, battery))
        };
        assert_eq!(zones.nearest_charge(near_0).unwrap().0, zones.zones[0].charge);
        let queue: Vec<Drone> = (2..12).map(|number| standing(number, 30.0, 1.0)).collect();
        assert_eq!(sent(1, &queue[..1], 60.0), None, "a short wait");
        assert_eq!(sent(1, &queue, 60.0), Some(zones.zones[2].charge));
        assert_eq!(sent(0, &queue, 60.0), None);
        assert_eq!(sent(1, &queue, 15.0), None, "the other one is beyond its battery");
        // Those who are sent in the same round count.
        let rules = with_slots(1);
        let mut chargers = Chargers::new(&[], &zones, &rules);
        let goals: Vec<Option<Point>> = (1..=9)
            .map(|number| chargers.send(&drone(number, near_0, 60.0)))
            .collect();
        assert!(goals.contains(&None) && goals.iter().any(Option::is_some), "{goals:?}");
    }
}
