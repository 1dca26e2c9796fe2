//! The world in which policies are measured: a virtual clock that jumps from event to event.
//!
//! Drones fly at constant speed, straight or as [`Settings::ways`] has it. Without further [`Settings`] there is one class of them, batteries never run down, and picking up and
//! delivering take no time; weight classes, batteries with chargers and times at the doors can be added. Whenever an order is placed, a
//! parcel is picked up, one is delivered, or a drone is charged, the policy is asked: at once, or at the next multiple of
//! [`Settings::decision_every_min`].
//!
//! **What is counted.** All orders, from the first, into an empty system, to the last, which is flown after arrivals have ended. Nothing is cut
//! off as warm-up: with thousands of orders both ends weigh little, and a policy that starves some orders cannot hide them behind the end.

mod charging;
mod terms;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

pub use self::terms::{Failure, Flown, Settings, Trip};

use self::charging::{Stalls, Stay};
use crate::fleet::Costs;
use crate::geometry::Point;
use crate::report::Report;
use crate::snapshot::{Drone, Heading, Order, Plan, Policy, Snapshot};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Task {
    Waits,
    FliesTo(Point),
    FliesToPickup(usize),
    Delivers(usize),
    FliesToCharger(Stay),
    /// Stands at the charger, all of whose slots are taken.
    Queues(Stay),
    Charges(Stay),
}

#[derive(Debug, Clone, Copy)]
struct Craft {
    /// Where it was, and what its battery had, at `since_min`.
    from: Point,
    battery_pct: f64,
    since_min: f64,
    /// When the task is done; infinite for one that ends by other means.
    until_min: f64,
    task: Task,
    /// Counts changes of the task: events of older tasks are void.
    version: u64,
}

/// Order of events at the same minute: the drone's number, then the task's.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Event {
    at_min: f64,
    drone: usize,
    version: u64,
}

impl Eq for Event {}

impl Ord for Event {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at_min
            .total_cmp(&other.at_min)
            .then(self.drone.cmp(&other.drone))
            .then(self.version.cmp(&other.version))
    }
}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

struct World<'a> {
    settings: Settings<'a>,
    orders: &'a [Order],
    crafts: Vec<Craft>,
    events: BinaryHeap<Reverse<Event>>,
    /// Orders not picked up, oldest first.
    open: Vec<usize>,
    trips: Vec<Trip>,
    delivered: usize,
    now_min: f64,
    flown: Flown,
    /// Speed of each drone.
    km_per_min: Vec<f64>,
    stalls: Stalls,
}

/// Runs `policy` until every order is delivered. `orders` are sorted by the time they were placed; drones start at `starts`.
///
/// # Errors
/// [`Failure`], if the policy plans what cannot be done, or never serves an order.
pub fn run(
    policy: &dyn Policy,
    orders: &[Order],
    starts: &[Point],
    settings: &Settings<'_>,
) -> Result<(Report, Vec<Trip>), Failure> {
    run_watched(policy, orders, starts, settings, |_| {})
}

/// As [`run`], and tells after each delivery how many there were.
///
/// # Errors
/// As [`run`].
pub fn run_watched(
    policy: &dyn Policy,
    orders: &[Order],
    starts: &[Point],
    settings: &Settings<'_>,
    mut on_delivered: impl FnMut(usize),
) -> Result<(Report, Vec<Trip>), Failure> {
    let mut world = World::new(orders, starts, *settings);
    let mut next_order = 0;
    let mut decide_at = f64::INFINITY;
    while world.delivered < orders.len() {
        let arrival = orders.get(next_order).map_or(f64::INFINITY, |order| order.placed_min);
        let event = world.next_event().unwrap_or(f64::INFINITY);
        let now = arrival.min(event).min(decide_at);
        if now.is_infinite() {
            let left = orders.len() - world.delivered;
            return Err(Failure::Stalled { left });
        }
        world.now_min = now;
        let mut is_news = false;
        if arrival <= now {
            world.place(next_order);
            next_order += 1;
            is_news = true;
        } else if event <= now {
            let before = world.delivered;
            is_news = world.happen();
            if world.delivered > before {
                on_delivered(world.delivered);
            }
        } else {
            decide_at = f64::INFINITY;
            world.decide(policy)?;
        }
        if is_news {
            decide_at = decide_at.min(next_multiple(now, settings.decision_every_min));
        }
    }
    let mut report = Report::new(&world.trips, starts.len(), &world.flown);
    report.charging = world.charging();
    Ok((report, world.trips))
}

/// The first multiple of `step` that is not before `now`; `now` itself without a step.
fn next_multiple(now: f64, step: f64) -> f64 {
    if step > 0.0 {
        ((now / step).ceil() * step).max(now)
    } else {
        now
    }
}

impl<'a> World<'a> {
    fn new(orders: &'a [Order], starts: &[Point], settings: Settings<'a>) -> Self {
        let crafts = starts.iter().map(|&from| Craft {
            from,
            battery_pct: charging::START_PCT,
            since_min: 0.0,
            until_min: f64::INFINITY,
            task: Task::Waits,
            version: 0,
        });
        let trips = orders.iter().map(|order| Trip {
            placed_min: order.placed_min,
            assigned_min: f64::NAN,
            picked_up_min: f64::NAN,
            delivered_min: f64::NAN,
            drone: usize::MAX,
            open_before: 0,
        });
        Self {
            settings,
            orders,
            crafts: crafts.collect(),
            events: BinaryHeap::new(),
            open: Vec::new(),
            trips: trips.collect(),
            delivered: 0,
            now_min: 0.0,
            flown: Flown::default(),
            km_per_min: (0..starts.len())
                .map(|drone| {
                    (settings.classes).map_or(settings.km_per_min, |classes| {
                        classes.km_per_min[usize::from(classes.drones[drone])]
                    })
                })
                .collect(),
            stalls: Stalls::new(settings.energy.map_or(0, |energy| energy.chargers.len())),
        }
    }

    /// When the next event is that still counts.
    fn next_event(&mut self) -> Option<f64> {
        while let Some(Reverse(event)) = self.events.peek() {
            if self.crafts[event.drone].version == event.version {
                return Some(event.at_min);
            }
            self.events.pop();
        }
        None
    }

    fn place(&mut self, order: usize) {
        self.trips[order].open_before = self.open.len();
        self.open.push(order);
    }

    /// The first event happens. Whether anybody should think about it.
    fn happen(&mut self) -> bool {
        let Some(Reverse(event)) = self.events.pop() else {
            return false;
        };
        let drone = event.drone;
        match self.crafts[drone].task {
            Task::Waits => false,
            Task::FliesTo(_) => {
                self.turn(drone, Task::Waits);
                false
            }
            Task::FliesToPickup(order) => {
                // Turning first: the way is then counted as flown empty.
                self.turn(drone, Task::Delivers(order));
                self.open.retain(|&other| other != order);
                let trip = &mut self.trips[order];
                trip.picked_up_min = self.now_min;
                trip.drone = drone;
                true
            }
            Task::Delivers(order) => {
                self.turn(drone, Task::Waits);
                self.trips[order].delivered_min = self.now_min;
                self.delivered += 1;
                true
            }
            Task::FliesToCharger(stay) => {
                self.arrive_at_charger(drone, stay);
                false
            }
            Task::Queues(_) => false,
            Task::Charges(stay) => {
                self.leave_charger(drone, stay);
                true
            }
        }
    }

    fn goal(&self, task: Task) -> Option<Point> {
        match task {
            Task::Waits | Task::Queues(_) | Task::Charges(_) => None,
            Task::FliesTo(place) => Some(place),
            Task::FliesToPickup(order) => Some(self.orders[order].origin),
            Task::Delivers(order) => Some(self.orders[order].destination),
            Task::FliesToCharger(stay) => Some(self.charger(stay)),
        }
    }

    fn position(&self, drone: usize) -> Point {
        let craft = &self.crafts[drone];
        let km = (self.now_min - craft.since_min) * self.km_per_min[drone];
        self.goal(craft.task)
            .map_or(craft.from, |goal| self.settings.ways.after(craft.from, goal, km))
    }

    /// When a task is done that begins here and now.
    fn end_min(&self, drone: usize, here: Point, task: Task) -> f64 {
        let flight_min = |goal: Point| self.settings.ways.km(here, goal) / self.km_per_min[drone];
        match (task, self.goal(task)) {
            (Task::Delivers(order), Some(goal)) => {
                let doors = self.settings.doors.get(order).copied().unwrap_or_default();
                let arrival = self.now_min + doors.pickup_service_min + flight_min(goal);
                arrival.max(doors.open_from_min) + doors.delivery_service_min
            }
            (Task::Charges(stay), _) => self.now_min + self.charge_min(self.crafts[drone].battery_pct, stay),
            (_, Some(goal)) => self.now_min + flight_min(goal),
            (_, None) => f64::INFINITY,
        }
    }

    /// From here and now on the drone does something else.
    fn turn(&mut self, drone: usize, task: Task) {
        let craft = self.crafts[drone];
        // An event is when the goal is reached: then the drone is there, whatever rounding says.
        let here = match self.goal(craft.task) {
            Some(goal) if craft.until_min <= self.now_min => goal,
            _ => self.position(drone),
        };
        let km = self.settings.ways.km(craft.from, here);
        match craft.task {
            Task::FliesTo(_) => self.flown.to_places_km += km,
            Task::FliesToPickup(_) => self.flown.to_pickups_km += km,
            Task::FliesToCharger(_) => self.flown.to_chargers_km += km,
            Task::Delivers(_) => self.flown.loaded_km += km,
            Task::Waits | Task::Queues(_) | Task::Charges(_) => {}
        }
        let battery_pct = self.battery_after(drone, km);
        self.stalls.least_battery_pct = self.stalls.least_battery_pct.min(battery_pct);
        let version = craft.version + 1;
        self.crafts[drone] = Craft {
            from: here,
            battery_pct,
            since_min: self.now_min,
            until_min: f64::INFINITY,
            task,
            version,
        };
        let at_min = self.end_min(drone, here, task);
        self.crafts[drone].until_min = at_min;
        if at_min.is_finite() {
            self.events.push(Reverse(Event { at_min, drone, version }));
        }
    }

    /// Asks the policy, and does what it says.
    fn decide(&mut self, policy: &dyn Policy) -> Result<(), Failure> {
        let orders: Vec<Order> = self.open.iter().map(|&order| self.orders[order]).collect();
        let (drones, battery_pct): (Vec<Drone>, Vec<f64>) =
            (0..self.crafts.len()).map(|drone| self.seen(drone)).unzip();
        let kept: Vec<Option<u64>> = (self.crafts.iter())
            .map(|craft| match craft.task {
                Task::FliesToPickup(order) => Some(self.orders[order].id),
                _ => None,
            })
            .collect();
        let costs = Costs {
            ways: self.settings.ways,
            pairs: self.settings.pairs,
            classes: self.settings.classes,
            energy: self.settings.energy,
            battery_pct: &battery_pct,
            kept: &kept,
        };
        let snapshot = Snapshot {
            now_min: self.now_min,
            orders: &orders,
            drones: &drones,
            pairs: &costs,
            demand: self.settings.demand,
        };
        let plan = policy.plan(&snapshot);
        plan.check(&snapshot).map_err(|why| Failure::BadPlan {
            at_min: self.now_min,
            why,
        })?;
        let tasks = self.tasks(&plan, &snapshot);
        for (drone, &task) in tasks.iter().enumerate() {
            let current = self.crafts[drone].task;
            if current == task || !current.is_open() {
                continue;
            }
            if let Task::FliesToPickup(order) = task {
                let assigned = &mut self.trips[order].assigned_min;
                if assigned.is_nan() {
                    *assigned = self.now_min;
                } else {
                    self.flown.reassigned += 1;
                }
            }
            self.turn(drone, task);
        }
        Ok(())
    }

    /// What each drone is to do, if it can be told: what the plan says, and what batteries ask for.
    fn tasks(&self, plan: &Plan, snapshot: &Snapshot<'_>) -> Vec<Task> {
        let mut tasks = vec![Task::Waits; self.crafts.len()];
        for &(order, drone) in &plan.pickups {
            tasks[drone] = Task::FliesToPickup(self.open[order]);
        }
        for &(drone, place) in &plan.moves {
            tasks[drone] = Task::FliesTo(self.settings.ways.stay(place));
        }
        if let Some(energy) = self.settings.energy {
            self.send_to_charge(energy, plan, snapshot, &mut tasks);
        }
        tasks
    }

    /// A drone as policies see it, and its battery when it is ready.
    fn seen(&self, drone: usize) -> (Drone, f64) {
        let craft = &self.crafts[drone];
        let here = |heading| (self.position(drone), 0.0, heading, self.battery_now(drone));
        let (at, ready_in_min, heading, battery_pct) = match craft.task {
            Task::Waits => here(Heading::Nowhere),
            Task::FliesTo(place) => here(Heading::Place(place)),
            Task::FliesToPickup(order) => here(
                self.open
                    .binary_search(&order)
                    .map_or(Heading::Nowhere, Heading::Pickup),
            ),
            Task::Delivers(order) => {
                let left_min = craft.until_min - self.now_min;
                let (at, min, battery_pct) = self.after_delivery(drone, self.orders[order].destination);
                (at, left_min + min, Heading::Nowhere, battery_pct)
            }
            Task::FliesToCharger(stay) | Task::Queues(stay) | Task::Charges(stay) => (
                self.charger(stay),
                self.charged_in_min(drone, stay),
                Heading::Nowhere,
                stay.target_pct,
            ),
        };
        let drone = Drone {
            id: drone as u64,
            at,
            // Not ready even if it is due this very moment: its event comes next.
            ready_in_min: if craft.task.is_open() {
                0.0
            } else {
                ready_in_min.max(f64::MIN_POSITIVE)
            },
            km_per_min: self.km_per_min[drone],
            heading,
        };
        (drone, battery_pct)
    }
}

impl Task {
    /// Whether the drone can be told to do something else.
    fn is_open(self) -> bool {
        matches!(self, Self::Waits | Self::FliesTo(_) | Self::FliesToPickup(_))
    }
}
