//! What makes a fleet more than points that fly: weight classes, batteries and chargers, and what is done at an order's doors.
//!
//! The rules are those of the product (docs/dispatch.md): a mission is pick-up, delivery and the way to the nearest charge point, and a drone
//! whose battery is not enough for it, or is critical, does not get the order.

use crate::geometry::{Point, Ways};
use crate::snapshot::{Charge, Drone, Heading, Order, Pairs};

/// What it costs, as km of flight, that a drone is one class heavier than it need be: the next order may be for nobody else.
pub const CLASS_STEP_KM: f64 = 2.0;

/// Which part of the way to the charge point is charged for a delivery after which the drone must go there.
pub const CHARGER_SHARE: f64 = 0.5;

/// Weight classes, as ranks from 0 (the lightest).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Classes {
    /// Rank of each drone.
    pub drones: Vec<u8>,
    /// Least rank that carries each order, by [`Order::id`], which counts from 0 up.
    pub orders: Vec<u8>,
    /// Speed of each rank.
    pub km_per_min: Vec<f64>,
    /// Whether heavier drones carry lighter parcels, at [`CLASS_STEP_KM`] per class; else only their own.
    pub heavier_may: bool,
}

impl Classes {
    /// Whether drone number `drone` may carry the order.
    #[must_use]
    pub fn may_carry(&self, order: &Order, drone: usize) -> bool {
        let (has, needs) = (self.drones[drone], self.orders[index(order.id)]);
        has == needs || (has > needs && self.heavier_may)
    }

    /// Minutes on top of the flight, or nothing if the drone must not: [`CLASS_STEP_KM`] per class, and what the loaded leg takes longer than with
    /// a drone of the parcel's own class.
    fn extra_min(&self, order: &Order, drone: &Drone, loaded_km: f64) -> Option<f64> {
        let (has, needs) = (self.drones[index(drone.id)], self.orders[index(order.id)]);
        let steps = has.checked_sub(needs)?;
        let longer_min = loaded_km / drone.km_per_min - loaded_km / self.km_per_min[usize::from(needs)];
        (steps == 0 || self.heavier_may).then(|| f64::from(steps) * CLASS_STEP_KM / drone.km_per_min + longer_min)
    }

    /// Speed of the fastest drone that may carry the order; 0 without any. Heavier ones count: a bound must hold for every policy.
    #[must_use]
    pub fn fastest_km_per_min(&self, order: &Order) -> f64 {
        let needs = self.orders[index(order.id)];
        (self.drones.iter().filter(|&&has| has >= needs))
            .map(|&has| self.km_per_min[usize::from(has)])
            .fold(0.0, f64::max)
    }
}

/// A place to charge at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Charger {
    /// Where.
    pub at: Point,
    /// How many drones it charges at once; others wait in the order in which they came.
    pub slots: usize,
}

/// Batteries, in percent, and where they are charged.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Energy {
    /// Spent per km of flight.
    pub per_km_pct: f64,
    /// What must be left when the drone is at the charge point after a mission.
    pub margin_pct: f64,
    /// At or below this a drone gets no order, and goes to charge when it has nothing to do.
    pub critical_pct: f64,
    /// Up to where it is charged.
    pub full_pct: f64,
    /// Gained per minute at a charger.
    pub charge_pct_per_min: f64,
    /// At least one.
    pub chargers: Vec<Charger>,
}

impl Energy {
    /// The charger nearest to `point`, and how far it is; infinitely far without any.
    #[must_use]
    pub fn nearest(&self, ways: &dyn Ways, point: Point) -> (usize, f64) {
        (self.chargers.iter().enumerate())
            .map(|(index, charger)| (index, ways.km(charger.at, point)))
            .min_by(|a, b| a.1.total_cmp(&b.1))
            .unwrap_or((0, f64::INFINITY))
    }

    /// Battery that a mission asks for: from `from` to the origin, to the destination, and to a charger, with the margin.
    #[must_use]
    pub fn needed_pct(&self, ways: &dyn Ways, from: Point, order: &Order) -> f64 {
        let loaded_km = ways.km(order.origin, order.destination);
        let km = ways.km(from, order.origin) + loaded_km + self.nearest(ways, order.destination).1;
        km * self.per_km_pct + self.margin_pct
    }

    /// Whether a drone charged at the charger nearest to the origin can fly the order. If not, nobody ever can.
    #[must_use]
    pub fn can_ever_fly(&self, ways: &dyn Ways, order: &Order) -> bool {
        let (charger, _) = self.nearest(ways, order.origin);
        let from = self.chargers.get(charger).map_or(order.origin, |charger| charger.at);
        self.needed_pct(ways, from, order) <= self.full_pct
    }
}

/// What happens at an order's doors, and when.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Doors {
    /// From the drone's arrival at the origin until it leaves with the parcel.
    pub pickup_service_min: f64,
    /// Before this minute of the world's clock the destination takes nothing; the drone waits there.
    pub open_from_min: f64,
    /// How long the delivery takes once it has begun; it counts as delivered when that is over.
    pub delivery_service_min: f64,
}

/// Who may take what now, with classes and batteries.
pub(crate) struct Costs<'a> {
    pub(crate) ways: &'a dyn Ways,
    pub(crate) pairs: &'a dyn Pairs,
    pub(crate) classes: Option<&'a Classes>,
    pub(crate) energy: Option<&'a Energy>,
    /// Battery of each drone when it is ready.
    pub(crate) battery_pct: &'a [f64],
    /// The order that each drone is on its way to, as its id.
    pub(crate) kept: &'a [Option<u64>],
}

impl Pairs for Costs<'_> {
    fn extra_min(&self, order: &Order, drone: &Drone) -> Option<f64> {
        self.charge(order, drone).map(|charge| charge.extra_min)
    }

    fn charge(&self, order: &Order, drone: &Drone) -> Option<Charge> {
        let mut extra = self.pairs.extra_min(order, drone)?;
        // Policies reckon with the straight way.
        let detour_km = self.ways.km(drone.at, order.origin) - drone.at.km_to(order.origin);
        extra += detour_km / drone.km_per_min;
        if let Some(classes) = self.classes {
            extra += classes.extra_min(order, drone, self.loaded_km(order))?;
        }
        if let Some(energy) = self.energy {
            let battery = self.battery_pct[index(drone.id)];
            let needed = energy.needed_pct(self.ways, drone.at, order);
            // Who is on its way had enough when it was sent, and needs less with every km; the last digit must not decide otherwise.
            let is_kept = matches!(drone.heading, Heading::Pickup(_)) && self.kept[index(drone.id)] == Some(order.id);
            if !is_kept && (battery <= energy.critical_pct || battery < needed) {
                return None;
            }
            let home_km = energy.nearest(self.ways, order.destination).1;
            let after_pct = battery - needed + energy.margin_pct + home_km * energy.per_km_pct;
            if after_pct <= energy.critical_pct {
                extra += CHARGER_SHARE * home_km / drone.km_per_min;
            }
        }
        Some(Charge {
            extra_min: extra,
            detour_km,
        })
    }

    fn loaded_km(&self, order: &Order) -> f64 {
        self.ways.km(order.origin, order.destination)
    }

    fn patience_min(&self, order: &Order) -> f64 {
        self.pairs.patience_min(order)
    }
}

/// Ids of drones and orders of a world are indices.
fn index(id: u64) -> usize {
    usize::try_from(id).unwrap_or(usize::MAX)
}
