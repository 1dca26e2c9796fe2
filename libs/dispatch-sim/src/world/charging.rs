//! Who charges when: the rules of the product, whatever the policy.
//!
//! - A drone without an order whose battery is critical goes to the nearest charger.
//! - An order that nobody was given, though drones that may carry it stand idle, has one of them charge for it (its *helper*): near the
//!   order's origin if the battery reaches there, and up to what the order needs.
//! - At a charger with all slots taken drones wait in the order in which they came. That wait is what reports call the charging wait.
//! - Nobody is sent to wait at a place from which its battery would not reach a charger.

use std::collections::VecDeque;

use super::{Task, World};
use crate::fleet::Energy;
use crate::geometry::Point;
use crate::report::{Charging, Times};
use crate::snapshot::{Plan, Snapshot};

/// Batteries in the beginning.
pub(super) const START_PCT: f64 = 100.0;

/// At a charger, or on the way to it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Stay {
    pub(super) charger: usize,
    pub(super) target_pct: f64,
    /// The order for whose sake.
    order: Option<usize>,
}

/// The chargers, and what became of those who came.
#[derive(Debug)]
pub(super) struct Stalls {
    /// Per charger: how many charge, and who waits since when.
    charging: Vec<usize>,
    queues: Vec<VecDeque<(usize, f64)>>,
    waits_min: Vec<f64>,
    pub(super) least_battery_pct: f64,
}

impl Stalls {
    pub(super) fn new(chargers: usize) -> Self {
        Self {
            charging: vec![0; chargers],
            queues: vec![VecDeque::new(); chargers],
            waits_min: Vec::new(),
            least_battery_pct: START_PCT,
        }
    }
}

impl World<'_> {
    pub(super) fn charging(&self) -> Charging {
        Charging {
            stays: self.stalls.waits_min.len(),
            queued: self.stalls.waits_min.iter().filter(|min| **min > 0.0).count(),
            waits: Times::new(self.stalls.waits_min.clone()),
            least_battery_pct: self.stalls.least_battery_pct,
        }
    }

    pub(super) fn charger(&self, stay: Stay) -> Point {
        // Stays are made in worlds with energy only, at one of its chargers.
        (self.settings.energy).map_or(Point::default(), |energy| energy.chargers[stay.charger].at)
    }

    /// Minutes at a slot from `battery_pct` up to the target.
    pub(super) fn charge_min(&self, battery_pct: f64, stay: Stay) -> f64 {
        let per_min = self
            .settings
            .energy
            .map_or(f64::INFINITY, |energy| energy.charge_pct_per_min);
        (stay.target_pct - battery_pct).max(0.0) / per_min
    }

    /// The battery after the present task, of which `km` were flown.
    pub(super) fn battery_after(&self, drone: usize, km: f64) -> f64 {
        let craft = &self.crafts[drone];
        let Some(energy) = self.settings.energy else {
            return craft.battery_pct;
        };
        match craft.task {
            Task::Charges(stay) => {
                let gained = (self.now_min - craft.since_min) * energy.charge_pct_per_min;
                if craft.until_min <= self.now_min {
                    stay.target_pct.max(craft.battery_pct)
                } else {
                    craft.battery_pct + gained
                }
            }
            _ => craft.battery_pct - km * energy.per_km_pct,
        }
    }

    pub(super) fn battery_now(&self, drone: usize) -> f64 {
        self.battery_after(
            drone,
            self.settings.ways.km(self.crafts[drone].from, self.position(drone)),
        )
    }

    /// Where a drone that delivers to `destination` will be ready, how many minutes after that, and with what battery.
    pub(super) fn after_delivery(&self, drone: usize, destination: Point) -> (Point, f64, f64) {
        let left_pct = self.battery_after(drone, self.settings.ways.km(self.crafts[drone].from, destination));
        match self.settings.energy {
            Some(energy) if left_pct <= energy.critical_pct => {
                let (charger, km) = energy.nearest(self.settings.ways, destination);
                let there_pct = left_pct - km * energy.per_km_pct;
                let min = km / self.km_per_min[drone] + (energy.full_pct - there_pct) / energy.charge_pct_per_min;
                (energy.chargers[charger].at, min, energy.full_pct)
            }
            _ => (destination, 0.0, left_pct),
        }
    }

    /// Minutes until a drone at a charger, or on the way there, is charged. A queue counts as the time until the next slot is free: a guess.
    pub(super) fn charged_in_min(&self, drone: usize, stay: Stay) -> f64 {
        let craft = &self.crafts[drone];
        match craft.task {
            Task::Charges(_) => craft.until_min - self.now_min,
            Task::Queues(_) => {
                let at_slots = self
                    .crafts
                    .iter()
                    .filter(|other| matches!(other.task, Task::Charges(it) if it.charger == stay.charger));
                let free_in_min = at_slots
                    .map(|other| other.until_min - self.now_min)
                    .fold(f64::INFINITY, f64::min);
                free_in_min + self.charge_min(craft.battery_pct, stay)
            }
            _ => {
                let there_pct = self.battery_after(drone, self.settings.ways.km(craft.from, self.charger(stay)));
                craft.until_min - self.now_min + self.charge_min(there_pct, stay)
            }
        }
    }

    pub(super) fn arrive_at_charger(&mut self, drone: usize, stay: Stay) {
        self.turn(drone, Task::Queues(stay));
        self.stalls.queues[stay.charger].push_back((drone, self.now_min));
        self.fill_slots(stay.charger);
    }

    pub(super) fn leave_charger(&mut self, drone: usize, stay: Stay) {
        self.turn(drone, Task::Waits);
        self.stalls.charging[stay.charger] -= 1;
        self.fill_slots(stay.charger);
    }

    fn fill_slots(&mut self, charger: usize) {
        let slots = self.settings.energy.map_or(0, |energy| energy.chargers[charger].slots);
        while self.stalls.charging[charger] < slots {
            let Some((drone, since_min)) = self.stalls.queues[charger].pop_front() else {
                return;
            };
            let Task::Queues(stay) = self.crafts[drone].task else {
                continue;
            };
            self.stalls.charging[charger] += 1;
            self.stalls.waits_min.push(self.now_min - since_min);
            self.turn(drone, Task::Charges(stay));
        }
    }

    /// Changes the tasks of those that have to charge.
    pub(super) fn send_to_charge(&self, energy: &Energy, plan: &Plan, snapshot: &Snapshot<'_>, tasks: &mut [Task]) {
        for (drone, task) in tasks.iter_mut().enumerate() {
            if !self.crafts[drone].task.is_open() || matches!(task, Task::FliesToPickup(_)) {
                continue;
            }
            let battery_pct = self.battery_now(drone);
            if battery_pct <= energy.critical_pct {
                let charger = energy.nearest(self.settings.ways, self.position(drone)).0;
                *task = Task::FliesToCharger(Stay {
                    charger,
                    target_pct: energy.full_pct,
                    order: None,
                });
            } else if let Task::FliesTo(place) = *task {
                let km =
                    self.settings.ways.km(self.position(drone), place) + energy.nearest(self.settings.ways, place).1;
                if battery_pct < km * energy.per_km_pct + energy.margin_pct {
                    *task = Task::Waits;
                }
            }
        }
        let mut is_served = vec![false; snapshot.orders.len()];
        for &(order, _) in plan.pickups.iter().chain(&plan.promised) {
            is_served[order] = true;
        }
        for (order, _) in is_served.iter().enumerate().filter(|(_, is_served)| !**is_served) {
            if let Some((drone, stay)) = self.helper(energy, order, snapshot, tasks) {
                tasks[drone] = Task::FliesToCharger(stay);
            }
        }
    }

    /// Who should charge for an order (its index in the snapshot), and where; nobody if somebody does already, or nobody can.
    fn helper(&self, energy: &Energy, order: usize, snapshot: &Snapshot<'_>, tasks: &[Task]) -> Option<(usize, Stay)> {
        let (number, wanted) = (self.open[order], &snapshot.orders[order]);
        let helps = |task: Task| match task {
            Task::FliesToCharger(stay) | Task::Queues(stay) | Task::Charges(stay) => stay.order == Some(number),
            _ => false,
        };
        if (self.crafts.iter().map(|craft| craft.task))
            .chain(tasks.iter().copied())
            .any(helps)
        {
            return None;
        }
        let near = energy.nearest(self.settings.ways, wanted.origin).0;
        let idle = (0..tasks.len()).filter(|&drone| {
            self.crafts[drone].task.is_open()
                && matches!(tasks[drone], Task::Waits | Task::FliesTo(_))
                && self.settings.pairs.extra_min(wanted, &snapshot.drones[drone]).is_some()
                && (self.settings.classes).is_none_or(|classes| classes.may_carry(wanted, drone))
        });
        let stays = idle.filter_map(|drone| {
            let (here, battery_pct) = (self.position(drone), self.battery_now(drone));
            let km = self.settings.ways.km(here, energy.chargers[near].at);
            let reaches = battery_pct >= km * energy.per_km_pct + energy.margin_pct;
            let charger = if reaches {
                near
            } else {
                energy.nearest(self.settings.ways, here).0
            };
            let at = energy.chargers[charger].at;
            let target_pct = energy
                .full_pct
                .max(energy.needed_pct(self.settings.ways, at, wanted))
                .min(START_PCT);
            // Nobody can be charged beyond what it has there already: another one has to.
            let km = self.settings.ways.km(here, at);
            let there_pct = battery_pct - km * energy.per_km_pct;
            let gains = km > 0.0 || there_pct < target_pct;
            gains.then_some((
                drone,
                km,
                Stay {
                    charger,
                    target_pct,
                    order: Some(number),
                },
            ))
        });
        stays
            .min_by(|a, b| a.1.total_cmp(&b.1))
            .map(|(drone, _, stay)| (drone, stay))
    }
}
