//! The dispatcher's picture of open orders and drones: rebuilt from the KV at any time, never the truth itself.

use std::collections::{BTreeMap, HashMap, HashSet};

use domain::delivery::{Delivery, DeliveryStatus, Leg};
use domain::drone::{Drone, DroneStatus, DroneType};
use domain::geo::Point;
use kv_client::Version;

use crate::hints::Watch;
use crate::limits::{COMPLAIN_EVERY_SEC, COMPLAINTS_MAX};
use crate::silence::Silence;

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
    /// True once it is known to lie in the area, outside no-fly zones and within range.
    pub(crate) flyable: bool,
    /// When its outlook was last written by this dispatcher, Unix seconds.
    pub(crate) told_at: f64,
}

/// Open orders by id (which is by age) and all drones by id.
#[derive(Debug, Default)]
pub(crate) struct Mirror {
    pub(crate) drones: BTreeMap<String, Seen<Drone>>,
    pub(crate) orders: BTreeMap<String, Order>,
    /// Where each flying drone stood when it took its order: (order, place).
    baselines: HashMap<String, (String, Point)>,
    /// Who has been silent for how long.
    pub(crate) silence: Silence,
    /// See [`Self::changes`].
    changes: u64,
}

impl Mirror {
    pub(crate) fn put_order(&mut self, seen: Seen<Delivery>, now: f64) {
        let id = seen.record.id.clone();
        if !seen.record.status.is_open() {
            self.changes += u64::from(self.orders.remove(&id).is_some());
            return;
        }
        // An order that a drone took once is flyable; a pending one keeps what was found out about it.
        let known = self.orders.get(&id);
        let state = |record: &Delivery| (record.status, record.leg);
        let is_news = known.is_none_or(|known| state(&known.seen.record) != state(&seen.record));
        self.changes += u64::from(is_news);
        let told_at = known.map_or(0.0, |order| order.told_at);
        let flyable = known.is_some_and(|order| order.flyable) || seen.record.status.has_drone();
        self.orders.insert(
            id,
            Order {
                seen,
                read_at: now,
                flyable,
                told_at,
            },
        );
    }

    /// What is known of where waiting orders lie counts no longer: the zones have changed.
    pub(crate) fn screen_again(&mut self) {
        for order in self.orders.values_mut() {
            order.flyable = order.seen.record.status.has_drone();
        }
    }

    pub(crate) fn put_drone(&mut self, seen: Seen<Drone>) {
        self.silence.note(&seen.record);
        let known = self.drones.get(&seen.record.id);
        self.changes += u64::from(known.is_none_or(|known| known.record.status != seen.record.status));
        self.drones.insert(seen.record.id.clone(), seen);
    }

    /// Counts what may make another plan the best one, beside the flight of time: orders and drones that are new or do something else.
    pub(crate) const fn changes(&self) -> u64 {
        self.changes
    }

    /// How many orders a drone is on its way to.
    pub(crate) fn orders_to_fetch(&self) -> f64 {
        let records = self.orders.values().map(|order| &order.seen.record);
        let fetched = records.filter(|record| record.status.has_drone() && record.leg != Some(Leg::ToDestination));
        fetched.map(|_| 1.0).sum()
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

    /// Orders that are given to a drone, with its id.
    fn given(&self) -> impl Iterator<Item = (&Seen<Delivery>, &str)> {
        let given = self.orders.values().map(|order| &order.seen);
        given
            .filter(|seen| seen.record.status.has_drone())
            .filter_map(|seen| Some((seen, seen.record.drone_id.as_deref()?)))
    }

    /// Drones with the order that each flies, where both agree.
    pub(crate) fn flights(&self) -> impl Iterator<Item = (&Seen<Delivery>, &Drone)> {
        self.given().filter_map(|(order, id)| {
            let drone = &self.drones.get(id)?.record;
            holds(drone, &order.record.id).then_some((order, drone))
        })
    }

    /// Drones that have a parcel on board but do not fly it (any more), with its order: somebody else wrote their records.
    pub(crate) fn carriers(&self) -> impl Iterator<Item = (&Drone, &Delivery)> {
        let on_board = self
            .given()
            .filter(|(order, _)| order.record.leg == Some(Leg::ToDestination));
        on_board.filter_map(|(order, id)| {
            let drone = &self.drones.get(id)?.record;
            let is_elsewhere = matches!(drone.status, DroneStatus::Busy | DroneStatus::Lost);
            (!is_elsewhere).then_some((drone, &order.record))
        })
    }

    /// Drones that an order is given to and that do not hold it: nobody knows yet whether they will go on with it, so they get no other.
    pub(crate) fn claimed(&self) -> HashSet<&str> {
        let is_held = |order: &Seen<Delivery>, id: &str| {
            let drone = self.drones.get(id);
            drone.is_some_and(|seen| holds(&seen.record, &order.record.id))
        };
        self.given()
            .filter(|(order, id)| !is_held(order, id))
            .map(|(_, id)| id)
            .collect()
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

    /// Orders whose drone is lost.
    pub(crate) fn orphaned(&self) -> impl Iterator<Item = &Delivery> {
        let records = self.orders.values().map(|order| &order.seen.record);
        records.filter(|record| {
            let drone = record.drone_id.as_ref().and_then(|id| self.drones.get(id));
            record.status.has_drone() && drone.is_some_and(|seen| seen.record.status == DroneStatus::Lost)
        })
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
