//! What a policy sees, and what it answers.

use crate::geometry::Point;

/// An order that nobody has picked up yet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Order {
    /// The caller's name for it.
    pub id: u64,
    /// Where the parcel is.
    pub origin: Point,
    /// Where it has to go.
    pub destination: Point,
    /// When it was placed; minutes on the clock of [`Snapshot::now_min`].
    pub placed_min: f64,
}

impl Order {
    /// Length of the loaded leg, in km.
    #[must_use]
    pub fn direct_km(&self) -> f64 {
        self.origin.km_to(self.destination)
    }
}

/// A drone: from where and when on it can fly to a pick-up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drone {
    /// The caller's name for it.
    pub id: u64,
    /// Where it is now if it is ready, else where it will be when it is (the destination of its parcel, the charger).
    pub at: Point,
    /// Minutes from now until it can be sent anywhere; 0 for a drone that is ready. A drone that flies a parcel or charges is not ready
    /// before that is over; one on the way to a pick-up is ready all the while.
    pub ready_in_min: f64,
    /// Its speed, positive.
    pub km_per_min: f64,
    /// What it is on its way to, if it is ready.
    pub heading: Heading,
}

impl Drone {
    /// Whether it can be sent somewhere now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready_in_min <= 0.0
    }

    /// Minutes from now until it can be at `point`.
    #[must_use]
    pub fn minutes_to(&self, point: Point) -> f64 {
        self.ready_in_min + self.at.km_to(point) / self.km_per_min
    }
}

/// What a ready drone is on its way to.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Heading {
    /// Nothing: it waits where it is.
    #[default]
    Nowhere,
    /// The pick-up of an order, by its index in [`Snapshot::orders`].
    Pickup(usize),
    /// A place where it will wait for orders.
    Place(Point),
}

/// What a pair is charged with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Charge {
    /// See [`Pairs::extra_min`].
    pub extra_min: f64,
    /// By how many km the way to the pick-up is longer than the straight line; its minutes are part of `extra_min`. Not negative.
    pub detour_km: f64,
}

/// Which drone may take which order: weight classes, battery, ranges, rules.
pub trait Pairs {
    /// Minutes on top of the flight that the pair is charged with (a detour to a charger, the pity of a heavy drone for a light parcel), or
    /// nothing if the drone must not take the order. Must be finite, and the same when asked again.
    fn extra_min(&self, order: &Order, drone: &Drone) -> Option<f64>;

    /// The same, and how much of it is because something is in the way to the pick-up.
    fn charge(&self, order: &Order, drone: &Drone) -> Option<Charge> {
        Some(Charge {
            extra_min: self.extra_min(order, drone)?,
            detour_km: 0.0,
        })
    }

    /// Length of the loaded leg, in km: the straight line, unless something is in the way.
    fn loaded_km(&self, order: &Order) -> f64 {
        order.direct_km()
    }

    /// Minutes on top of what it costs anyway to leave the order without a drone; negative for one that may rather wait than others. Must be
    /// small beside [`MatchingSettings::unserved_min`](crate::MatchingSettings), and the same when asked again.
    fn patience_min(&self, _order: &Order) -> f64 {
        0.0
    }
}

/// Any drone may take any order, at no extra cost.
#[derive(Debug, Clone, Copy, Default)]
pub struct AllFit;

impl Pairs for AllFit {
    fn extra_min(&self, _: &Order, _: &Drone) -> Option<f64> {
        Some(0.0)
    }
}

impl<F: Fn(&Order, &Drone) -> Option<f64>> Pairs for F {
    fn extra_min(&self, order: &Order, drone: &Drone) -> Option<f64> {
        self(order, drone)
    }
}

/// Where orders will come from, as far as that is known: a few hundred points, each standing for a share of the origins to come.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Demand {
    /// Points and their weights. Only the ratios of the weights matter; none is negative.
    pub points: Vec<(Point, f64)>,
    /// Orders per minute in all.
    pub per_min: f64,
}

impl Demand {
    /// Nothing is known: nobody is sent anywhere on suspicion.
    #[must_use]
    pub fn unknown() -> Self {
        Self::default()
    }

    /// Equal demand everywhere in a square, as `cells` × `cells` points.
    #[must_use]
    pub fn uniform(side_km: f64, cells: u32, per_min: f64) -> Self {
        Self::even((Point::default(), Point::new(side_km, side_km)), cells, per_min)
    }

    /// Equal demand everywhere in the rectangle between two corners, south-west and north-east, as `cells` × `cells` points.
    #[must_use]
    pub fn even((low, high): (Point, Point), cells: u32, per_min: f64) -> Self {
        let middle = |low: f64, high: f64, cell: u32| low + (f64::from(cell) + 0.5) * (high - low) / f64::from(cells);
        let points = (0..cells)
            .flat_map(|row| (0..cells).map(move |column| (row, column)))
            .map(|(row, column)| Point::new(middle(low.x, high.x, column), middle(low.y, high.y, row)))
            .map(|point| (point, 1.0))
            .collect();
        Self { points, per_min }
    }
}

/// All that a policy decides from.
#[derive(Clone, Copy)]
pub struct Snapshot<'a> {
    /// Minutes on the caller's clock.
    pub now_min: f64,
    /// Orders not picked up, oldest first; also those that a drone is on its way to.
    pub orders: &'a [Order],
    /// Drones that are, or will be, there for orders.
    pub drones: &'a [Drone],
    /// Who may take what.
    pub pairs: &'a dyn Pairs,
    /// Where orders will come from.
    pub demand: &'a Demand,
}

/// What the fleet does from now on. Every ready drone that is not mentioned stops and waits where it is; drones that are not ready go on with
/// what they do.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Who flies to which pick-up now: (order, drone), as indices in the snapshot. Each order and each drone at most once in these and the
    /// next; these drones are ready.
    pub pickups: Vec<(usize, usize)>,
    /// Which orders wait for a drone that is not ready: (order, drone). Nothing is promised to anybody by it; it tells why an order waits.
    pub promised: Vec<(usize, usize)>,
    /// Ready drones without an order, and where they should wait.
    pub moves: Vec<(usize, Point)>,
}

/// Decides who flies what. A pure function: the same snapshot gives the same plan.
///
/// A policy keeps no state. What it should remember (who is on the way to what) is in the snapshot, so nothing is lost when the process is.
pub trait Policy {
    /// The plan for a snapshot.
    fn plan(&self, snapshot: &Snapshot<'_>) -> Plan;
}

/// Why a plan cannot be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPlan {
    /// An index beyond the snapshot.
    #[error("order {order} or drone {drone} is not in the snapshot")]
    NotThere {
        /// Index of the order.
        order: usize,
        /// Index of the drone.
        drone: usize,
    },
    /// Two drones for one order.
    #[error("order {0} is given to two drones")]
    OrderTwice(usize),
    /// Two orders, or an order and a place, for one drone.
    #[error("drone {0} is sent to two places")]
    DroneTwice(usize),
    /// A drone was sent that is not ready.
    #[error("drone {0} is not ready, but is sent")]
    NotReady(usize),
    /// A pair that [`Pairs`] forbids.
    #[error("drone {drone} must not take order {order}")]
    Forbidden {
        /// Index of the order.
        order: usize,
        /// Index of the drone.
        drone: usize,
    },
}

impl Plan {
    /// Checks that the plan can be carried out.
    ///
    /// # Errors
    /// [`BadPlan`], the first reason why not.
    pub fn check(&self, snapshot: &Snapshot<'_>) -> Result<(), BadPlan> {
        let mut orders = vec![false; snapshot.orders.len()];
        let mut drones = vec![false; snapshot.drones.len()];
        for (number, &(order, drone)) in self.pickups.iter().chain(&self.promised).enumerate() {
            let (Some(o), Some(d)) = (snapshot.orders.get(order), snapshot.drones.get(drone)) else {
                return Err(BadPlan::NotThere { order, drone });
            };
            if std::mem::replace(&mut orders[order], true) {
                return Err(BadPlan::OrderTwice(order));
            }
            if std::mem::replace(&mut drones[drone], true) {
                return Err(BadPlan::DroneTwice(drone));
            }
            if number < self.pickups.len() && !d.is_ready() {
                return Err(BadPlan::NotReady(drone));
            }
            if snapshot.pairs.extra_min(o, d).is_none() {
                return Err(BadPlan::Forbidden { order, drone });
            }
        }
        for &(drone, _) in &self.moves {
            let Some(d) = snapshot.drones.get(drone) else {
                return Err(BadPlan::NotThere { order: 0, drone });
            };
            if std::mem::replace(&mut drones[drone], true) {
                return Err(BadPlan::DroneTwice(drone));
            }
            if !d.is_ready() {
                return Err(BadPlan::NotReady(drone));
            }
        }
        Ok(())
    }
}
