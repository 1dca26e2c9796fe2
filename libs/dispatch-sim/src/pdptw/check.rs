//! Is a solution allowed, and what does it cost?

use super::{Instance, Solution};

/// Sums of decimal numbers may be off by that.
const EPSILON: f64 = 1e-6;

/// What a solution costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Vehicles that leave the depot.
    pub vehicles: usize,
    /// All ways, from the depot and back to it.
    pub distance: f64,
}

/// Why a solution is not allowed. Routes are numbered from 1, tasks as in the file.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum Fault {
    /// More routes than vehicles.
    #[error("{used} vehicles are used, there are {allowed}")]
    Vehicles {
        /// Routes.
        used: usize,
        /// Vehicles.
        allowed: usize,
    },
    /// No such task.
    #[error("route {route}: there is no task {task}")]
    NoSuchTask {
        /// Route.
        route: usize,
        /// Number.
        task: usize,
    },
    /// A task twice.
    #[error("route {route}: task {task} is done a second time")]
    Twice {
        /// Route.
        route: usize,
        /// Task.
        task: usize,
    },
    /// A task on no route.
    #[error("task {task} is on no route")]
    Missing {
        /// Task.
        task: usize,
    },
    /// A delivery before its pick-up, or on another route.
    #[error(
        "route {route}: task {task} is delivered there before it is picked up there (its pick-up is task {pickup})"
    )]
    NotPickedUp {
        /// Route.
        route: usize,
        /// The delivery.
        task: usize,
        /// Its pick-up.
        pickup: usize,
    },
    /// Too much on board.
    #[error("route {route}: after task {task} {load} is on board, the capacity is {capacity}")]
    Capacity {
        /// Route.
        route: usize,
        /// Task.
        task: usize,
        /// On board.
        load: f64,
        /// At most.
        capacity: f64,
    },
    /// Too late; task 0 is the way back to the depot.
    #[error("route {route}: task {task} is reached at {arrival:.3}, it closes at {due}")]
    Late {
        /// Route.
        route: usize,
        /// Task.
        task: usize,
        /// When.
        arrival: f64,
        /// When at the latest.
        due: f64,
    },
}

impl Instance {
    /// Distance between two tasks.
    #[must_use]
    pub fn distance(&self, from: usize, to: usize) -> f64 {
        self.tasks[from].at.km_to(self.tasks[to].at)
    }

    /// The length of a route, with the ways from the depot and back.
    #[must_use]
    pub fn length(&self, route: &[usize]) -> f64 {
        let ends = route.first().zip(route.last());
        let to_depot = ends.map_or(0.0, |(&first, &last)| self.distance(0, first) + self.distance(last, 0));
        to_depot
            + route
                .windows(2)
                .map(|pair| self.distance(pair[0], pair[1]))
                .sum::<f64>()
    }

    /// All faults of `solution`, and what it costs all the same. Allowed if there are none. Vehicles leave the depot when it opens, and wait where
    /// they are early.
    #[must_use]
    pub fn check(&self, solution: &Solution) -> (Cost, Vec<Fault>) {
        let mut faults = Vec::new();
        let mut route_of: Vec<Option<usize>> = vec![None; self.tasks.len()];
        let mut cost = Cost {
            vehicles: 0,
            distance: 0.0,
        };
        for (route, tasks) in (1..).zip(&solution.routes) {
            let known: Vec<usize> = tasks
                .iter()
                .copied()
                .filter(|&task| task > 0 && task < self.tasks.len())
                .collect();
            let strange = tasks.iter().filter(|&&task| task == 0 || task >= self.tasks.len());
            faults.extend(strange.map(|&task| Fault::NoSuchTask { route, task }));
            if known.is_empty() {
                continue;
            }
            cost.vehicles += 1;
            cost.distance += self.length(&known);
            for &task in &known {
                let pickup = self.tasks[task].partner;
                if route_of[task].is_some() {
                    faults.push(Fault::Twice { route, task });
                } else if !self.tasks[task].is_pickup && route_of[pickup] != Some(route) {
                    faults.push(Fault::NotPickedUp { route, task, pickup });
                }
                route_of[task] = Some(route);
            }
            self.follow(route, &known, |fault| faults.push(fault));
        }
        let missing = (1..self.tasks.len()).filter(|&task| route_of[task].is_none());
        faults.extend(missing.map(|task| Fault::Missing { task }));
        if cost.vehicles > self.vehicles {
            faults.push(Fault::Vehicles {
                used: cost.vehicles,
                allowed: self.vehicles,
            });
        }
        (cost, faults)
    }

    /// Load and time along a route; `fail` gets each fault.
    fn follow(&self, route: usize, tasks: &[usize], mut fail: impl FnMut(Fault)) {
        let (mut load, mut now, mut from) = (0.0, self.tasks[0].ready, 0);
        for &task in tasks {
            let stop = &self.tasks[task];
            load += stop.demand;
            if load > self.capacity + EPSILON {
                fail(Fault::Capacity {
                    route,
                    task,
                    load,
                    capacity: self.capacity,
                });
            }
            let arrival = now + self.distance(from, task) / self.speed;
            if arrival > stop.due + EPSILON {
                fail(Fault::Late {
                    route,
                    task,
                    arrival,
                    due: stop.due,
                });
            }
            now = arrival.max(stop.ready) + stop.service;
            from = task;
        }
        let arrival = now + self.distance(from, 0) / self.speed;
        if arrival > self.tasks[0].due + EPSILON {
            fail(Fault::Late {
                route,
                task: 0,
                arrival,
                due: self.tasks[0].due,
            });
        }
    }

    /// Whether a single route keeps capacity and windows. Pairing and precedence are up to the caller.
    pub(super) fn is_in_time(&self, route: &[usize]) -> bool {
        let mut is_in_time = true;
        self.follow(0, route, |_| is_in_time = false);
        is_in_time
    }
}
