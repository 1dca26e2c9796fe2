//! Changes of a drone's status: what is planned, as data, and what it makes of a record.
//!
//! A change is planned from a snapshot and made true later, so [`Change::apply`] runs again on whatever the KV then holds and
//! refuses when the drone has moved on.

use domain::drone::{Drone, DroneError, Sign};
use domain::geo::Point;

/// What is to become of one drone.
#[derive(Debug, Clone, PartialEq)]
pub struct DroneChange {
    /// Which drone.
    pub drone_id: String,
    /// What.
    pub change: Change,
    /// Why, for the log.
    pub why: &'static str,
}

/// A change of a drone's record.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// inactive or retiring → idle.
    Wake,
    /// idle, or charging to top up → charging because it must, at a certain charge point or the nearest.
    Charge {
        /// The charge point, when it is not the nearest.
        at: Option<Point>,
    },
    /// idle → charging to top up, at the nearest charge point.
    TopUp,
    /// charging → charging at another charge point.
    Divert {
        /// The charge point.
        at: Point,
    },
    /// charging → idle once it has at least this much.
    Charged {
        /// Percent.
        full_after_pct: f64,
    },
    /// idle or charging → retiring.
    Retire,
    /// retiring → inactive once it has at least this much.
    Retired {
        /// Percent.
        full_after_pct: f64,
    },
    /// Remember these orders as infeasible for it.
    Missed {
        /// Their ids.
        delivery_ids: Vec<String>,
    },
    /// busy with this delivery → idle.
    Release {
        /// The delivery.
        delivery_id: String,
    },
    /// Not busy → busy with this delivery, whose parcel it has on board.
    Resume {
        /// The delivery.
        delivery_id: String,
        /// Where it goes.
        destination: Point,
    },
    /// Any flown status → lost, unless something was heard since `last`.
    Lose {
        /// What was last heard of it.
        last: Sign,
    },
    /// lost → idle.
    Found,
    /// Make a self-contradicting record consistent.
    Mend,
}

impl Change {
    /// A name for logs and metrics.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Wake => "wake",
            Self::Charge { .. } => "charge",
            Self::TopUp => "top_up",
            Self::Divert { .. } => "divert",
            Self::Charged { .. } => "charged",
            Self::Retire => "retire",
            Self::Retired { .. } => "retired",
            Self::Missed { .. } => "missed",
            Self::Release { .. } => "release",
            Self::Resume { .. } => "resume",
            Self::Lose { .. } => "lose",
            Self::Found => "found",
            Self::Mend => "mend",
        }
    }

    /// The record after the change; `None` when it would be the same.
    ///
    /// # Errors
    /// [`DroneError`] when the drone's present state does not allow it (any more).
    pub fn apply(&self, drone: &Drone) -> Result<Option<Drone>, DroneError> {
        match self {
            Self::Wake => drone.wake().map(Some),
            Self::Charge { at } => drone.charge(*at).map(Some),
            Self::TopUp => drone.top_up().map(Some),
            Self::Divert { at } => drone.divert(*at).map(Some),
            Self::Charged { full_after_pct } => drone.charged(*full_after_pct).map(Some),
            Self::Retire => drone.retire().map(Some),
            Self::Retired { full_after_pct } => drone.retired(*full_after_pct).map(Some),
            Self::Missed { delivery_ids } => Ok(drone.missed(delivery_ids.iter().map(String::as_str))),
            Self::Release { delivery_id } => drone.release(delivery_id).map(Some),
            Self::Resume { delivery_id, .. } => drone.resume(delivery_id).map(Some),
            Self::Lose { last } => drone.lose(last).map(Some),
            Self::Found => drone.found().map(Some),
            Self::Mend => Ok(drone.mended()),
        }
    }

    /// True when the drone may be free for an order afterwards, so that another round is worth its while at once.
    #[must_use]
    pub const fn frees(&self) -> bool {
        matches!(
            self,
            Self::Wake | Self::Charged { .. } | Self::Release { .. } | Self::Found
        )
    }
}
