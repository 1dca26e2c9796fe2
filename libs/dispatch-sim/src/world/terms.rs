//! What a world is told, and what it tells.

use crate::fleet::{Classes, Doors, Energy};
use crate::geometry::{Straight, Ways};
use crate::snapshot::{AllFit, BadPlan, Demand, Pairs};

/// How a world runs, beside its orders.
#[derive(Clone, Copy)]
pub struct Settings<'a> {
    /// Speed of all drones, unless [`Settings::classes`] has theirs.
    pub km_per_min: f64,
    /// Time between decisions: 0 decides at every event, anything else at the first multiple after one.
    pub decision_every_min: f64,
    /// Who may take what.
    pub pairs: &'a dyn Pairs,
    /// How drones fly.
    pub ways: &'a dyn Ways,
    /// What policies are told about orders to come.
    pub demand: &'a Demand,
    /// Weight classes, if there are several. Then ids of orders are 0, 1, 2, …
    pub classes: Option<&'a Classes>,
    /// Batteries and chargers, if batteries run down. All are full in the beginning.
    pub energy: Option<&'a Energy>,
    /// What happens at each order's doors, by index; nothing for orders beyond its end.
    pub doors: &'a [Doors],
}

impl<'a> Settings<'a> {
    /// One class, no batteries, nothing in the way, decisions at every event, any drone for any order.
    #[must_use]
    pub fn plain(km_per_min: f64, demand: &'a Demand) -> Self {
        Self {
            km_per_min,
            decision_every_min: 0.0,
            pairs: &AllFit,
            ways: &Straight,
            demand,
            classes: None,
            energy: None,
            doors: &[],
        }
    }
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

/// What the fleet flew.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Flown {
    /// With parcels; km.
    pub loaded_km: f64,
    /// To pick-ups, also those that somebody else made in the end; km.
    pub to_pickups_km: f64,
    /// To places to wait at; km.
    pub to_places_km: f64,
    /// To chargers; km.
    pub to_chargers_km: f64,
    /// How often an order went from a drone that was on its way to another one.
    pub reassigned: usize,
}

impl Flown {
    /// All that was flown without a parcel; km.
    #[must_use]
    pub fn empty_km(&self) -> f64 {
        self.to_pickups_km + self.to_places_km + self.to_chargers_km
    }
}
