//! A delivery: its record and its life.
//!
//! Promises: the JSON shape of the keys [`crate::keys::delivery`], with unknown fields carried along; `drone_id` is set
//! exactly while assigned or in flight (and stays on delivered, cancelled and failed records as the last drone, if any);
//! `leg` is set exactly while assigned or in flight; every transition appends to a bounded `history`.
//!
//! ```text
//! pending ──assign──▶ assigned ──first_movement──▶ in_flight ──arrive──▶ delivered
//!    ▲                   │                            │
//!    └── drone_lost ─────┴── (before pick-up) ────────┘     cancel (before pick-up) ─▶ cancelled     fail ─▶ failed
//! ```

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::drone::DroneType;
use crate::geo::Point;
use crate::order::NewOrder;
use crate::zones::ZonesConfig;

/// Most entries of `history`: when there are more, the oldest after the first go.
pub const HISTORY_MAX: usize = 32;

/// `reason`: origin or destination lies outside the zones.
pub const REASON_OUT_OF_AREA: &str = "out_of_area";

/// `reason`: no drone could fly it even fully charged.
pub const REASON_OUT_OF_RANGE: &str = "out_of_range";

/// `reason`: the drone was lost with the parcel on board.
pub const REASON_DRONE_LOST: &str = "drone_lost";

/// Where a delivery is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryStatus {
    /// Waits for a drone.
    Pending,
    /// A drone has it and has not moved yet.
    Assigned,
    /// The drone is on its way, to the origin or to the destination.
    InFlight,
    /// Arrived.
    Delivered,
    /// Cancelled before pick-up.
    Cancelled,
    /// Ended without arriving; `reason` says why.
    Failed,
}

impl DeliveryStatus {
    /// All states, in order of life.
    pub const ALL: [Self; 6] = [
        Self::Pending,
        Self::Assigned,
        Self::InFlight,
        Self::Delivered,
        Self::Cancelled,
        Self::Failed,
    ];

    /// True while something is still to happen: pending, assigned, in flight.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Pending | Self::Assigned | Self::InFlight)
    }

    /// True while a drone is at it: assigned, in flight.
    #[must_use]
    pub const fn has_drone(self) -> bool {
        matches!(self, Self::Assigned | Self::InFlight)
    }

    /// The name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Assigned => "assigned",
            Self::InFlight => "in_flight",
            Self::Delivered => "delivered",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }

    /// The state of that name, as in a query `status=`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }
}

/// Which way the drone is flying.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Leg {
    /// Empty, to pick the parcel up.
    ToOrigin,
    /// With the parcel.
    ToDestination,
}

/// One line of a delivery's history: the status (and leg) it had from `at` on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// Since when, Unix seconds.
    pub at: f64,
    /// The status since then.
    pub status: DeliveryStatus,
    /// The leg since then, if it was flying.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leg: Option<Leg>,
    /// The drone it had, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drone_id: Option<String>,
}

/// The record of a delivery.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Delivery {
    /// UUIDv7, so key order is age order.
    pub id: String,
    /// Where it is in its life.
    pub status: DeliveryStatus,
    /// The drone that has it; null while pending.
    #[serde(default)]
    pub drone_id: Option<String>,
    /// Where the parcel is picked up.
    pub origin: Point,
    /// Where it goes.
    pub destination: Point,
    /// Weight in kilograms.
    pub weight: f64,
    /// Zone of the origin; null outside the area.
    #[serde(default)]
    pub origin_zone: Option<String>,
    /// Zone of the destination; null outside the area.
    #[serde(default)]
    pub destination_zone: Option<String>,
    /// When it was accepted, Unix seconds.
    pub timestamp: f64,
    /// Which way the drone flies; null while no drone does.
    #[serde(default)]
    pub leg: Option<Leg>,
    /// When the present drone took it, Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assigned_at: Option<f64>,
    /// When the parcel came on board, Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub picked_up_at: Option<f64>,
    /// When it arrived, Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivered_at: Option<f64>,
    /// When it was cancelled, Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled_at: Option<f64>,
    /// When it failed, Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_at: Option<f64>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Urgency, 0 (or absent) to [`crate::order::PRIORITY_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// What happened so far, oldest first, at most [`HISTORY_MAX`] entries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<HistoryEntry>,
    /// Whatever else the record holds: kept.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The value of an `open:{id}` key: small, there while the delivery is open.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpenEntry {
    /// The delivery's id.
    pub id: String,
    /// When the entry was written, Unix seconds: one without a record is only swept when this is long ago.
    pub timestamp: f64,
}

/// A transition that the delivery's present state does not allow. Nothing has changed; for a late or repeated event that is
/// as it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransitionError {
    /// Wrong status for this transition.
    #[error("delivery {id}: {transition} needs status {expected}, it is {}", status.name())]
    Status {
        /// Which delivery.
        id: String,
        /// The transition that was wanted.
        transition: &'static str,
        /// The statuses that allow it.
        expected: &'static str,
        /// The status it has.
        status: DeliveryStatus,
    },
    /// Right status, wrong leg (the parcel is, or is not yet, on board).
    #[error("delivery {id}: {transition} needs leg {expected}, it is {leg:?}")]
    Leg {
        /// Which delivery.
        id: String,
        /// The transition that was wanted.
        transition: &'static str,
        /// The leg that allows it.
        expected: &'static str,
        /// The leg it has.
        leg: Option<Leg>,
    },
}

impl Delivery {
    /// A pending delivery of `order`, accepted at `now`.
    #[must_use]
    pub fn new(id: String, order: &NewOrder, zones: &ZonesConfig, now: f64) -> Self {
        let pending = Self {
            id,
            status: DeliveryStatus::Pending,
            drone_id: None,
            origin: order.origin,
            destination: order.destination,
            weight: order.weight,
            origin_zone: zones.zone_name_of(order.origin),
            destination_zone: zones.zone_name_of(order.destination),
            timestamp: now,
            leg: None,
            assigned_at: None,
            picked_up_at: None,
            delivered_at: None,
            cancelled_at: None,
            failed_at: None,
            reason: None,
            priority: order.priority,
            history: Vec::new(),
            extra: Map::new(),
        };
        pending.noted(now)
    }

    /// The class of drone that carries it.
    #[must_use]
    pub fn drone_type(&self) -> DroneType {
        DroneType::for_weight(self.weight)
    }

    /// Where its drone flies to now; `None` while no drone has it.
    #[must_use]
    pub fn target(&self) -> Option<Point> {
        match self.leg? {
            Leg::ToOrigin => Some(self.origin),
            Leg::ToDestination => Some(self.destination),
        }
    }

    /// pending → assigned to `drone_id`, leg to the origin.
    ///
    /// # Errors
    /// [`TransitionError::Status`] unless pending.
    pub fn assign(&self, drone_id: &str, now: f64) -> Result<Self, TransitionError> {
        self.need("assign", "pending", &[DeliveryStatus::Pending])?;
        let next = Self {
            status: DeliveryStatus::Assigned,
            drone_id: Some(drone_id.to_owned()),
            leg: Some(Leg::ToOrigin),
            assigned_at: Some(now),
            ..self.clone()
        };
        Ok(next.noted(now))
    }

    /// assigned → in flight.
    ///
    /// # Errors
    /// [`TransitionError::Status`] unless assigned.
    pub fn first_movement(&self, now: f64) -> Result<Self, TransitionError> {
        self.need("first_movement", "assigned", &[DeliveryStatus::Assigned])?;
        // A record without a leg (written by an older hand) starts where every delivery starts.
        let leg = Some(self.leg.unwrap_or(Leg::ToOrigin));
        Ok(Self {
            status: DeliveryStatus::InFlight,
            leg,
            ..self.clone()
        }
        .noted(now))
    }

    /// In flight to the origin → in flight to the destination: the parcel is on board.
    ///
    /// # Errors
    /// [`TransitionError::Status`] unless in flight, [`TransitionError::Leg`] unless flying to the origin.
    pub fn at_origin(&self, now: f64) -> Result<Self, TransitionError> {
        self.need("at_origin", "in_flight", &[DeliveryStatus::InFlight])?;
        self.need_leg("at_origin", "to_origin", Some(Leg::ToOrigin))?;
        Ok(Self {
            leg: Some(Leg::ToDestination),
            picked_up_at: Some(now),
            ..self.clone()
        }
        .noted(now))
    }

    /// In flight to the destination → delivered.
    ///
    /// # Errors
    /// [`TransitionError::Status`] unless in flight, [`TransitionError::Leg`] unless flying to the destination.
    pub fn arrive(&self, now: f64) -> Result<Self, TransitionError> {
        self.need("arrive", "in_flight", &[DeliveryStatus::InFlight])?;
        self.need_leg("arrive", "to_destination", Some(Leg::ToDestination))?;
        Ok(Self {
            status: DeliveryStatus::Delivered,
            leg: None,
            delivered_at: Some(now),
            ..self.clone()
        }
        .noted(now))
    }

    /// Not yet picked up → cancelled. The drone, if any, stays named in the record, so that whoever frees it knows which.
    ///
    /// # Errors
    /// [`TransitionError::Status`] when it has ended, [`TransitionError::Leg`] when the parcel is on board.
    pub fn cancel(&self, now: f64) -> Result<Self, TransitionError> {
        self.need_open("cancel")?;
        self.need_not_picked_up("cancel")?;
        Ok(Self {
            status: DeliveryStatus::Cancelled,
            leg: None,
            cancelled_at: Some(now),
            ..self.clone()
        }
        .noted(now))
    }

    /// Open → failed, with a `reason` (one of the `REASON_…` constants).
    ///
    /// # Errors
    /// [`TransitionError::Status`] when it has ended already.
    pub fn fail(&self, reason: &str, now: f64) -> Result<Self, TransitionError> {
        self.need_open("fail")?;
        let next = Self {
            status: DeliveryStatus::Failed,
            leg: None,
            reason: Some(reason.to_owned()),
            failed_at: Some(now),
            ..self.clone()
        };
        Ok(next.noted(now))
    }

    /// The drone is gone: before pick-up the delivery waits again, after it the delivery fails ([`REASON_DRONE_LOST`]).
    ///
    /// # Errors
    /// [`TransitionError::Status`] unless assigned or in flight.
    pub fn drone_lost(&self, now: f64) -> Result<Self, TransitionError> {
        let flying = [DeliveryStatus::Assigned, DeliveryStatus::InFlight];
        self.need("drone_lost", "assigned or in_flight", &flying)?;
        if self.leg == Some(Leg::ToDestination) {
            return self.fail(REASON_DRONE_LOST, now);
        }
        let next = Self {
            status: DeliveryStatus::Pending,
            drone_id: None,
            leg: None,
            assigned_at: None,
            ..self.clone()
        };
        Ok(next.noted(now))
    }

    fn noted(mut self, now: f64) -> Self {
        if self.history.len() >= HISTORY_MAX {
            // The first entry tells when it was accepted; the ones after it are the least interesting.
            self.history.remove(1);
        }
        self.history.push(HistoryEntry {
            at: now,
            status: self.status,
            leg: self.leg,
            drone_id: self.drone_id.clone(),
        });
        self
    }

    fn need(
        &self,
        transition: &'static str,
        expected: &'static str,
        from: &[DeliveryStatus],
    ) -> Result<(), TransitionError> {
        if from.contains(&self.status) {
            return Ok(());
        }
        Err(TransitionError::Status {
            id: self.id.clone(),
            transition,
            expected,
            status: self.status,
        })
    }

    fn need_open(&self, transition: &'static str) -> Result<(), TransitionError> {
        let open = [
            DeliveryStatus::Pending,
            DeliveryStatus::Assigned,
            DeliveryStatus::InFlight,
        ];
        self.need(transition, "pending, assigned or in_flight", &open)
    }

    fn need_leg(
        &self,
        transition: &'static str,
        expected: &'static str,
        leg: Option<Leg>,
    ) -> Result<(), TransitionError> {
        if self.leg == leg {
            return Ok(());
        }
        Err(TransitionError::Leg {
            id: self.id.clone(),
            transition,
            expected,
            leg: self.leg,
        })
    }

    fn need_not_picked_up(&self, transition: &'static str) -> Result<(), TransitionError> {
        if self.leg == Some(Leg::ToDestination) {
            let expected = "to_origin (not yet picked up)";
            return Err(TransitionError::Leg {
                id: self.id.clone(),
                transition,
                expected,
                leg: self.leg,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};
    use serde_json::json;

    use super::{Delivery, DeliveryStatus, HISTORY_MAX, Leg, OpenEntry, REASON_DRONE_LOST, TransitionError};
    use crate::geo::Point;
    use crate::order::NewOrder;
    use crate::zones::ZonesConfig;

    fn pending() -> Delivery {
        let order = NewOrder {
            origin: Point::new(41.9, 12.5),
            destination: Point::new(41.95, 12.4),
            weight: 2.5,
            priority: None,
        };
        Delivery::new("0190".to_owned(), &order, &ZonesConfig::rome(2, 2).unwrap(), 1_000.0)
    }

    #[test]
    fn json_shape() {
        let json = serde_json::to_value(pending()).unwrap();
        assert_eq!(json["status"], "pending");
        let nulls = ["drone_id", "leg"];
        assert!(nulls.iter().all(|name| json.get(name) == Some(&json!(null))));
        assert_eq!(json["origin_zone"], "zone 1");
        assert!(json.get("assigned_at").is_none() && json.get("reason").is_none() && json.get("priority").is_none());
        let assigned = serde_json::to_value(pending().assign("drone-1", 1_001.0).unwrap()).unwrap();
        assert_eq!(
            (&assigned["leg"], &assigned["drone_id"]),
            (&json!("to_origin"), &json!("drone-1"))
        );
        // Records written by others: no new fields, foreign ones kept.
        let old = json!({"id": "a", "status": "in_flight", "drone_id": "drone-1", "origin": {"lat": 41.9, "lon": 12.5},
            "destination": {"lat": 41.9, "lon": 12.4}, "weight": 1, "origin_zone": "zone 1", "destination_zone": "zone 0",
            "timestamp": 5, "leg": "to_origin", "note": 7});
        let read: Delivery = serde_json::from_value(old).unwrap();
        assert_eq!(serde_json::to_value(read.at_origin(6.0).unwrap()).unwrap()["note"], 7);
        let open = OpenEntry {
            id: "a".to_owned(),
            timestamp: 5.0,
        };
        assert_eq!(
            serde_json::to_value(open).unwrap(),
            json!({"id": "a", "timestamp": 5.0})
        );
    }

    #[test]
    fn a_whole_life() {
        let assigned = pending().assign("drone-1", 1.0).unwrap();
        assert_eq!(assigned.target(), Some(assigned.origin));
        let flying = assigned.first_movement(2.0).unwrap();
        assert!(flying.arrive(3.0).is_err(), "not before pick-up");
        let loaded = flying.at_origin(3.0).unwrap();
        assert_eq!((loaded.leg, loaded.picked_up_at), (Some(Leg::ToDestination), Some(3.0)));
        assert!(matches!(loaded.at_origin(3.5), Err(TransitionError::Leg { .. })));
        assert!(matches!(loaded.cancel(3.5), Err(TransitionError::Leg { .. })));
        let done = loaded.arrive(4.0).unwrap();
        assert_eq!(
            (done.status, done.leg, done.delivered_at),
            (DeliveryStatus::Delivered, None, Some(4.0))
        );
        assert_eq!(done.drone_id.as_deref(), Some("drone-1"));
        let seen: Vec<_> = done.history.iter().map(|entry| entry.status.name()).collect();
        assert_eq!(seen, ["pending", "assigned", "in_flight", "in_flight", "delivered"]);
        assert!(done.arrive(5.0).is_err() && done.cancel(5.0).is_err() && done.fail("x", 5.0).is_err());
    }

    #[test]
    fn a_lost_drone() {
        let flying = pending().assign("drone-1", 1.0).unwrap().first_movement(2.0).unwrap();
        let again = flying.drone_lost(3.0).unwrap();
        assert_eq!(
            (again.status, &again.drone_id, again.assigned_at),
            (DeliveryStatus::Pending, &None, None)
        );
        let lost = flying.at_origin(3.0).unwrap().drone_lost(4.0).unwrap();
        assert_eq!(
            (lost.status, lost.reason.as_deref()),
            (DeliveryStatus::Failed, Some(REASON_DRONE_LOST))
        );
        assert!(pending().drone_lost(1.0).is_err());
    }

    #[test]
    fn names_go_both_ways() {
        for status in DeliveryStatus::ALL {
            assert_eq!(DeliveryStatus::from_name(status.name()), Some(status));
            assert_eq!(serde_json::to_value(status).unwrap(), json!(status.name()));
        }
        assert_eq!(DeliveryStatus::from_name("lost"), None);
    }

    proptest! {
        #[test]
        fn every_walk_keeps_the_invariants(steps in prop::collection::vec(0..7_u8, 0..80)) {
            let mut at = pending();
            for (now, step) in (2_000_u32..).map(f64::from).zip(steps) {
                let next = match step {
                    0 => at.assign("drone-1", now),
                    1 => at.first_movement(now),
                    2 => at.at_origin(now),
                    3 => at.arrive(now),
                    4 if now > 2_030.0 => at.cancel(now),
                    5 if now > 2_030.0 => at.fail("x", now),
                    _ => at.drone_lost(now),
                };
                let Ok(next) = next else { continue };
                prop_assert!(at.status.is_open(), "an ended delivery never changes");
                prop_assert_eq!(next.leg.is_some(), next.status.has_drone());
                if next.status.has_drone() { prop_assert!(next.drone_id.is_some()); }
                if next.status == DeliveryStatus::Pending { prop_assert!(next.drone_id.is_none()); }
                prop_assert_eq!(next.leg == Some(Leg::ToDestination), next.status.has_drone() && next.picked_up_at.is_some());
                prop_assert!(next.history.len() <= HISTORY_MAX);
                prop_assert_eq!(next.history[0].status, DeliveryStatus::Pending);
                prop_assert_eq!(next.history.last().unwrap().status, next.status);
                let back: Delivery = serde_json::from_value(serde_json::to_value(&next).unwrap()).unwrap();
                prop_assert_eq!(&back, &next);
                at = next;
            }
        }
    }
}
