//! The world in which policies are measured: a virtual clock that jumps from event to event.
//!
//! Drones fly straight, at constant speed, without batteries. Picking up and delivering take no time. Whenever an order is placed, a parcel is
//! picked up, or one is delivered, the policy is asked: at once, or at the next multiple of [`Settings::decision_every_min`].
//!
//! **What is counted.** All orders, from the first, into an empty system, to the last, which is flown after arrivals have ended. Nothing is cut
//! off as warm-up: with thousands of orders both ends weigh little, and a policy that starves some orders cannot hide them behind the end.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::geometry::Point;
use crate::report::Report;
use crate::snapshot::{BadPlan, Demand, Drone, Heading, Order, Pairs, Policy, Snapshot};

/// How a world runs, beside its orders.
#[derive(Clone, Copy)]
pub struct Settings<'a> {
    /// Speed of all drones.
    pub km_per_min: f64,
    /// Time between decisions: 0 decides at every event, anything else at the first multiple after one.
    pub decision_every_min: f64,
    /// Who may take what.
    pub pairs: &'a dyn Pairs,
    /// What policies are told about orders to come.
    pub demand: &'a Demand,
}

/// Why a world could not be run to its end.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum Failure {
    /// The policy answered what cannot be done.
    #[error("the plan at minute {at_min} cannot be carried out: {why}")]
    BadPlan {
        /// When.
        at_min: f64,
        /// Why not.
        why: BadPlan,
    },
    /// Nothing is going on, no order will come, and some were not delivered: the policy does not serve them.
    #[error("{left} orders are never served")]
    Stalled {
        /// How many.
        left: usize,
    },
}

/// What became of an order. Minutes on the world's clock.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trip {
    /// When it was placed.
    pub placed_min: f64,
    /// When a drone was first sent to it.
    pub assigned_min: f64,
    /// When it was picked up.
    pub picked_up_min: f64,
    /// When it was delivered.
    pub delivered_min: f64,
    /// Which drone delivered it.
    pub drone: usize,
    /// Orders not picked up when it was placed, itself not counted.
    pub open_before: usize,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Task {
    Waits,
    FliesTo(Point),
    FliesToPickup(usize),
    Delivers(usize),
}

#[derive(Debug, Clone, Copy)]
struct Craft {
    /// Where it was at `since_min`.
    from: Point,
    since_min: f64,
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
    empty_km: f64,
    waiting_km: f64,
    reassigned: usize,
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
    let report = Report::new(&world.trips, starts.len(), &world.flown());
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

/// What the fleet flew without parcels.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Flown {
    /// To pick-ups, also those that somebody else made in the end; km.
    pub to_pickups_km: f64,
    /// To places to wait at; km.
    pub to_places_km: f64,
    /// How often an order went from a drone that was on its way to another one.
    pub reassigned: usize,
}

impl<'a> World<'a> {
    fn new(orders: &'a [Order], starts: &[Point], settings: Settings<'a>) -> Self {
        let crafts = starts.iter().map(|&from| Craft {
            from,
            since_min: 0.0,
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
            empty_km: 0.0,
            waiting_km: 0.0,
            reassigned: 0,
        }
    }

    fn flown(&self) -> Flown {
        Flown {
            to_pickups_km: self.empty_km,
            to_places_km: self.waiting_km,
            reassigned: self.reassigned,
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
        }
    }

    fn goal(&self, task: Task) -> Option<Point> {
        match task {
            Task::Waits => None,
            Task::FliesTo(place) => Some(place),
            Task::FliesToPickup(order) => Some(self.orders[order].origin),
            Task::Delivers(order) => Some(self.orders[order].destination),
        }
    }

    fn position(&self, drone: usize) -> Point {
        let craft = &self.crafts[drone];
        let km = (self.now_min - craft.since_min) * self.settings.km_per_min;
        self.goal(craft.task)
            .map_or(craft.from, |goal| craft.from.towards(goal, km))
    }

    /// From here and now on the drone does something else.
    fn turn(&mut self, drone: usize, task: Task) {
        let craft = self.crafts[drone];
        // An event is when the goal is reached: then the drone is there, whatever rounding says.
        let is_due = self
            .goal(craft.task)
            .is_some_and(|goal| craft.since_min + craft.from.km_to(goal) / self.settings.km_per_min <= self.now_min);
        let here = match self.goal(craft.task) {
            Some(goal) if is_due => goal,
            _ => self.position(drone),
        };
        let km = craft.from.km_to(here);
        match craft.task {
            Task::FliesTo(_) => self.waiting_km += km,
            Task::FliesToPickup(_) => self.empty_km += km,
            Task::Waits | Task::Delivers(_) => {}
        }
        let version = craft.version + 1;
        self.crafts[drone] = Craft {
            from: here,
            since_min: self.now_min,
            task,
            version,
        };
        if let Some(goal) = self.goal(task) {
            self.events.push(Reverse(Event {
                at_min: self.now_min + here.km_to(goal) / self.settings.km_per_min,
                drone,
                version,
            }));
        }
    }

    /// Asks the policy, and does what it says.
    fn decide(&mut self, policy: &dyn Policy) -> Result<(), Failure> {
        let orders: Vec<Order> = self.open.iter().map(|&order| self.orders[order]).collect();
        let drones: Vec<Drone> = (0..self.crafts.len()).map(|drone| self.seen(drone)).collect();
        let snapshot = Snapshot {
            now_min: self.now_min,
            orders: &orders,
            drones: &drones,
            pairs: self.settings.pairs,
            demand: self.settings.demand,
        };
        let plan = policy.plan(&snapshot);
        plan.check(&snapshot).map_err(|why| Failure::BadPlan {
            at_min: self.now_min,
            why,
        })?;
        let mut tasks = vec![Task::Waits; self.crafts.len()];
        for &(order, drone) in &plan.pickups {
            tasks[drone] = Task::FliesToPickup(self.open[order]);
        }
        for &(drone, place) in &plan.moves {
            tasks[drone] = Task::FliesTo(place);
        }
        for (drone, &task) in tasks.iter().enumerate() {
            let current = self.crafts[drone].task;
            if current == task || matches!(current, Task::Delivers(_)) {
                continue;
            }
            if let Task::FliesToPickup(order) = task {
                let assigned = &mut self.trips[order].assigned_min;
                if assigned.is_nan() {
                    *assigned = self.now_min;
                } else {
                    self.reassigned += 1;
                }
            }
            self.turn(drone, task);
        }
        Ok(())
    }

    /// A drone as policies see it.
    fn seen(&self, drone: usize) -> Drone {
        let craft = &self.crafts[drone];
        let (at, ready_in_min, heading) = match craft.task {
            Task::Waits => (craft.from, 0.0, Heading::Nowhere),
            Task::FliesTo(place) => (self.position(drone), 0.0, Heading::Place(place)),
            Task::FliesToPickup(order) => {
                let heading = self
                    .open
                    .binary_search(&order)
                    .map_or(Heading::Nowhere, Heading::Pickup);
                (self.position(drone), 0.0, heading)
            }
            Task::Delivers(order) => {
                let destination = self.orders[order].destination;
                let due = craft.since_min + craft.from.km_to(destination) / self.settings.km_per_min;
                // Not ready even if it is due this very moment: its event comes next.
                (
                    destination,
                    (due - self.now_min).max(f64::MIN_POSITIVE),
                    Heading::Nowhere,
                )
            }
        };
        Drone {
            id: drone as u64,
            at,
            ready_in_min,
            km_per_min: self.settings.km_per_min,
            heading,
        }
    }
}
