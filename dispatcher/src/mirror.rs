//! The dispatcher's picture of open orders and drones: rebuilt from the KV at any time, never the truth itself.

use std::collections::{BTreeMap, HashMap};

use domain::delivery::{Delivery, DeliveryStatus};
use domain::drone::{Drone, DroneStatus, DroneType};
use domain::geo::Point;
use kv_client::Version;

use crate::hints::Watch;
use crate::limits::{COMPLAIN_EVERY_SEC, COMPLAINTS_MAX};

/// A record as it was last read, with the version to name when changing it.
#[derive(Debug, Clone)]
pub(crate) struct Seen<T> {
    pub(crate) record: T,
    pub(crate) version: Version,
}

/// An open order.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) seen: Seen<Delivery>,
    /// When it was last read, Unix seconds.
    pub(crate) read_at: f64,
    /// True once it is known to lie in the area and within range.
    pub(crate) flyable: bool,
}

/// Open orders by id (which is by age) and all drones by id.
#[derive(Debug, Default)]
pub(crate) struct Mirror {
    pub(crate) drones: BTreeMap<String, Seen<Drone>>,
    pub(crate) orders: BTreeMap<String, Order>,
    /// Where each flying drone stood when it took its order: (order, place).
    baselines: HashMap<String, (String, Point)>,
}

impl Mirror {
    pub(crate) fn put_order(&mut self, seen: Seen<Delivery>, now: f64) {
        let id = seen.record.id.clone();
        if !seen.record.status.is_open() {
            self.orders.remove(&id);
            return;
        }
        // An order that a drone took once is flyable; a pending one keeps what was found out about it.
        let known = self.orders.get(&id).is_some_and(|order| order.flyable);
        let flyable = known || seen.record.status.has_drone();
        self.orders.insert(
            id,
            Order {
                seen,
                read_at: now,
                flyable,
            },
        );
    }

    pub(crate) fn put_drone(&mut self, seen: Seen<Drone>) {
        self.drones.insert(seen.record.id.clone(), seen);
    }

    /// Waiting orders that could be flown, oldest first.
    pub(crate) fn pending(&self) -> impl Iterator<Item = &Delivery> {
        self.orders
            .values()
            .filter(|order| order.flyable && order.seen.record.status == DeliveryStatus::Pending)
            .map(|order| &order.seen.record)
    }

    pub(crate) fn pending_by_type(&self) -> BTreeMap<DroneType, usize> {
        let mut counts = BTreeMap::new();
        for order in self.pending() {
            *counts.entry(order.drone_type()).or_default() += 1;
        }
        counts
    }

    pub(crate) fn orders_by_status(&self) -> BTreeMap<DeliveryStatus, usize> {
        let mut counts = BTreeMap::new();
        for order in self.orders.values() {
            *counts.entry(order.seen.record.status).or_default() += 1;
        }
        counts
    }

    pub(crate) fn drones_by_status(&self) -> BTreeMap<DroneStatus, usize> {
        let mut counts = BTreeMap::new();
        for drone in self.drones.values() {
            *counts.entry(drone.record.status).or_default() += 1;
        }
        counts
    }

    /// Drones with the order that each flies, where both agree.
    pub(crate) fn flights(&self) -> impl Iterator<Item = (&Seen<Delivery>, &Drone)> {
        self.orders.values().filter_map(|order| {
            let record = &order.seen.record;
            let drone = &self.drones.get(record.drone_id.as_deref()?)?.record;
            (record.status.has_drone() && holds(drone, &record.id)).then_some((&order.seen, drone))
        })
    }

    /// Notes where drones stand that have just taken an order, and forgets those that no longer fly one.
    pub(crate) fn update_baselines(&mut self) {
        let mut baselines = HashMap::new();
        for (delivery, drone) in self.flights() {
            let known = self
                .baselines
                .get(&drone.id)
                .filter(|(id, _)| *id == delivery.record.id);
            let from = known.map_or(drone.pos, |(_, from)| *from);
            baselines.insert(drone.id.clone(), (delivery.record.id.clone(), from));
        }
        self.baselines = baselines;
    }

    /// True when `drone` has moved since it was first seen with its order.
    pub(crate) fn has_moved(&self, drone: &Drone) -> bool {
        let known = self.baselines.get(&drone.id);
        known.is_some_and(|(id, from)| drone.current_delivery.as_ref() == Some(id) && *from != drone.pos)
    }

    /// What would be news about each flying drone.
    pub(crate) fn watches(&self) -> HashMap<String, Watch> {
        self.flights()
            .filter_map(|(delivery, drone)| {
                let target = delivery.record.target()?;
                let from = (delivery.record.status == DeliveryStatus::Assigned)
                    .then(|| self.baselines.get(&drone.id).map_or(drone.pos, |(_, from)| *from));
                Some((
                    drone.id.clone(),
                    Watch {
                        delivery_id: delivery.record.id.clone(),
                        target,
                        from,
                    },
                ))
            })
            .collect()
    }
}

/// True when `drone` is busy with the delivery `id`.
pub(crate) fn holds(drone: &Drone, id: &str) -> bool {
    drone.status == DroneStatus::Busy && drone.current_delivery.as_deref() == Some(id)
}

/// Something that is due every so often on the injected clock. A clock that jumps back makes it due at once.
#[derive(Debug, Default)]
pub(crate) struct Due {
    last: Option<f64>,
}

impl Due {
    pub(crate) fn is_due(&self, now: f64, every_sec: f64) -> bool {
        self.last.is_none_or(|last| now < last || now - last >= every_sec)
    }

    pub(crate) fn done(&mut self, now: f64) {
        self.last = Some(now);
    }

    pub(crate) fn again(&mut self) {
        self.last = None;
    }
}

/// Lets each complaint through once in a while.
#[derive(Debug, Default)]
pub(crate) struct Complaints {
    last: HashMap<String, f64>,
}

impl Complaints {
    pub(crate) fn may(&mut self, about: &str, now: f64) -> bool {
        if self
            .last
            .get(about)
            .is_some_and(|last| (0.0..COMPLAIN_EVERY_SEC).contains(&(now - last)))
        {
            return false;
        }
        if self.last.len() >= COMPLAINTS_MAX {
            self.last.clear();
        }
        self.last.insert(about.to_owned(), now);
        true
    }
}
