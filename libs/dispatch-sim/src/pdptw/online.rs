//! Requests as orders of our world, and what became of them as routes.
//!
//! **What fits**: places, vehicles and their depot, speed, service times, and that nothing is taken before it is ready. A request becomes known when
//! its pick-up opens: dispatch decides as it goes and knows nothing in advance. **What does not**: a drone carries one parcel at a time, whatever
//! the capacity; the ends of windows are not heeded (a customer gets the parcel late rather than never); drones need not return. [`Instance::check`]
//! tells which windows were missed.
//!
//! The other way round, orders of our world are an instance with capacity 1, demands of 1, pick-ups ready when placed, and windows that end after
//! everything.

use super::{Instance, Solution, Task};
use crate::fleet::Doors;
use crate::geometry::Point;
use crate::snapshot::Order;
use crate::world::Trip;

/// Units per km, so that whole numbers are exact to 10 m.
const UNITS_PER_KM: f64 = 100.0;

/// An instance as a world: distances are km, times are minutes.
#[derive(Debug, Clone, PartialEq)]
pub struct Online {
    /// The requests by the time they become known.
    pub orders: Vec<Order>,
    /// What happens at their doors.
    pub doors: Vec<Doors>,
    /// Task number of each one's pick-up.
    pub pickups: Vec<usize>,
}

impl Online {
    /// The requests of an instance.
    #[must_use]
    pub fn new(instance: &Instance) -> Self {
        let mut pickups: Vec<usize> = instance.pickups().collect();
        let ready = |task: usize| instance.tasks[task].ready;
        pickups.sort_by(|&a, &b| ready(a).total_cmp(&ready(b)).then(a.cmp(&b)));
        let ends = |pickup: usize| (instance.tasks[pickup], instance.tasks[instance.tasks[pickup].partner]);
        let orders = (0..).zip(&pickups).map(|(id, &pickup)| {
            let (from, to) = ends(pickup);
            Order {
                id,
                origin: from.at,
                destination: to.at,
                placed_min: from.ready,
            }
        });
        let doors = pickups.iter().map(|&pickup| {
            let (from, to) = ends(pickup);
            Doors {
                pickup_service_min: from.service,
                open_from_min: to.ready,
                delivery_service_min: to.service,
            }
        });
        Self {
            orders: orders.collect(),
            doors: doors.collect(),
            pickups,
        }
    }

    /// The routes that drones flew; `trips` in the order of the orders.
    #[must_use]
    pub fn routes(&self, instance: &Instance, trips: &[Trip]) -> Solution {
        let mut by_time: Vec<usize> = (0..trips.len()).collect();
        by_time.sort_by(|&a, &b| trips[a].picked_up_min.total_cmp(&trips[b].picked_up_min));
        let drones = trips.iter().map(|trip| trip.drone + 1).max().unwrap_or(0);
        let mut routes = vec![Vec::new(); drones];
        for index in by_time {
            let pickup = self.pickups[index];
            routes[trips[index].drone].extend([pickup, instance.tasks[pickup].partner]);
        }
        routes.retain(|route| !route.is_empty());
        Solution { routes }
    }
}

impl Instance {
    /// Orders of our world as an instance, for other solvers. Its unit of distance is 10 m, its unit of time what a drone flies that in, so that
    /// all numbers are whole and the speed is 1. Every vehicle starts at `depot`.
    #[must_use]
    pub fn of_orders(orders: &[Order], drones: usize, km_per_min: f64, depot: Point) -> Self {
        let place = |point: Point| Point::new((point.x * UNITS_PER_KM).round(), (point.y * UNITS_PER_KM).round());
        let time = |min: f64| (min * km_per_min * UNITS_PER_KM).ceil();
        // Time enough for a single drone that flies them one after the other.
        let there_and_on =
            |order: &Order| depot.km_to(order.origin) + order.direct_km() + order.destination.km_to(depot);
        let work: f64 = orders.iter().map(there_and_on).sum();
        let last = orders.iter().map(|order| order.placed_min).fold(0.0, f64::max);
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        let rounding = 4.0 * (orders.len() + 1) as f64;
        let due = time(last) + (work * UNITS_PER_KM).ceil() + rounding;
        let stop = |at: Point, demand: f64, ready: f64, partner: usize| Task {
            at: place(at),
            demand,
            ready,
            due,
            service: 0.0,
            partner,
            is_pickup: demand > 0.0,
        };
        let mut tasks = vec![stop(depot, 0.0, 0.0, 0)];
        for order in orders {
            let number = tasks.len();
            tasks.push(stop(order.origin, 1.0, time(order.placed_min), number + 1));
            tasks.push(stop(order.destination, -1.0, 0.0, number));
        }
        Self {
            vehicles: drones,
            capacity: 1.0,
            speed: 1.0,
            tasks,
        }
    }
}
