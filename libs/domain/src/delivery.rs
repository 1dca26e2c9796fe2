//! A delivery: its record and its life.
//!
//! Promises: the JSON shape of the keys [`crate::keys::delivery`], with unknown fields carried along; `drone_id` is set
//! exactly while assigned or in flight (and stays on delivered, cancelled and failed records as the last drone, if any);
//! `leg` is set exactly while assigned or in flight; every transition appends to a bounded `history`.
//!
//! ```text
//! pending ──assign──▶ assigned ──first_movement──▶ in_flight ──arrive──▶ delivered
//!    ▲                   │                            │
//!    └─ drone_lost, take_back (before pick-up) ───────┘     cancel (before pick-up) ─▶ cancelled     fail ─▶ failed
//! ```

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::drone::DroneType;
use crate::geo::Point;
use crate::order::NewOrder;
use crate::priority::Priority;
use crate::zones::ZonesConfig;

/// Most entries of `history`: when there are more, the oldest after the first go.
pub const HISTORY_MAX: usize = 32;

/// `reason`: origin or destination lies outside the zones.
pub const REASON_OUT_OF_AREA: &str = "out_of_area";

/// `reason`: origin or destination lies in a no-fly zone.
pub const REASON_NO_FLY_ZONE: &str = "no_fly_zone";

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
    /// When a drone took it, Unix seconds. It stays what it was when a swap gives the order to another one, and goes when the drone is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assigned_at: Option<f64>,
    /// How often it was taken back from a drone that flew to its pick-up, for a better one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub swaps: u32,
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
    /// How urgent it is; absent means normal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// When it should have arrived, Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<f64>,
    /// When it will probably be picked up, Unix seconds; while it waits or its drone flies to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pickup_eta: Option<f64>,
    /// When it will probably arrive, Unix seconds; while it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery_eta: Option<f64>,
    /// Why it waits, for people to read; while it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// The trace that its life is part of, and the last span of that: the value of a W3C `traceparent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// The W3C `tracestate` beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracestate: Option<String>,
    /// The id of the request that ordered it, as in logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// What happened so far, oldest first, at most [`HISTORY_MAX`] entries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<HistoryEntry>,
    /// Whatever else the record holds: kept.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// What is expected of an open delivery: a guess, of which nothing depends.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outlook {
    /// When it will be picked up, Unix seconds; `None` when nobody knows, or after it.
    pub pickup_at: Option<f64>,
    /// When it will arrive, Unix seconds; `None` when nobody knows.
    pub delivery_at: Option<f64>,
    /// Why it waits, while it does.
    pub waits_for: Option<String>,
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
            swaps: 0,
            picked_up_at: None,
            delivered_at: None,
            cancelled_at: None,
            failed_at: None,
            reason: None,
            priority: order.priority,
            deadline: order.deadline,
            pickup_eta: None,
            delivery_eta: None,
            waits_for: None,
            traceparent: None,
            tracestate: None,
            request_id: None,
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

    /// The same with another outlook, which is no step of its life.
    #[must_use]
    pub fn expecting(self, outlook: Outlook) -> Self {
        Self {
            pickup_eta: outlook.pickup_at,
            delivery_eta: outlook.delivery_at,
            waits_for: outlook.waits_for,
            ..self
        }
    }

    /// The outlook in the record.
    #[must_use]
    pub fn outlook(&self) -> Outlook {
        Outlook {
            pickup_at: self.pickup_eta,
            delivery_at: self.delivery_eta,
            waits_for: self.waits_for.clone(),
        }
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
            // After a swap the first time counts: the order has been provided for since.
            assigned_at: self.assigned_at.or(Some(now)),
            ..self.clone()
        };
        // What the order waited for is over; who assigned it knows better.
        Ok(next.expecting(Outlook::default()).noted(now))
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
            pickup_eta: None,
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
        .expecting(Outlook::default())
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
        .expecting(Outlook::default())
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
        Ok(next.expecting(Outlook::default()).noted(now))
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
        Ok(next.expecting(Outlook::default()).noted(now))
    }

    /// Assigned or in flight to the origin → pending: taken back from its drone, because a better one can come or it has better to do. A swap is
    /// this and [`Self::assign`].
    ///
    /// # Errors
    /// [`TransitionError::Status`] unless assigned or in flight, [`TransitionError::Leg`] when the parcel is on board.
    pub fn take_back(&self, now: f64) -> Result<Self, TransitionError> {
        let flying = [DeliveryStatus::Assigned, DeliveryStatus::InFlight];
        self.need("take_back", "assigned or in_flight", &flying)?;
        self.need_not_picked_up("take_back")?;
        let next = Self {
            status: DeliveryStatus::Pending,
            drone_id: None,
            leg: None,
            swaps: self.swaps.saturating_add(1),
            ..self.clone()
        };
        Ok(next.expecting(Outlook::default()).noted(now))
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

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_zero(count: &u32) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};
    use serde_json::json;

    use super::{Delivery, DeliveryStatus, HISTORY_MAX, Leg, OpenEntry, Outlook, REASON_DRONE_LOST, TransitionError};
    use crate::geo::Point;
    use crate::order::NewOrder;
    use crate::zones::ZonesConfig;

    fn pending() -> Delivery {
        let order = NewOrder {
            origin: Point::new(41.9, 12.5),
            destination: Point::new(41.95, 12.4),
            weight: 2.5,
            priority: None,
            deadline: None,
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
    fn an_outlook_lasts_as_long_as_it_means_something() {
        let outlook = |pickup_at, waits_for: Option<&str>| Outlook {
            pickup_at,
            delivery_at: Some(90.0),
            waits_for: waits_for.map(str::to_owned),
        };
        let waiting = pending().expecting(outlook(Some(50.0), Some("no light drone free; next in 40 s")));
        let json = serde_json::to_value(&waiting).unwrap();
        assert_eq!(
            (&json["pickup_eta"], &json["delivery_eta"]),
            (&json!(50.0), &json!(90.0))
        );
        assert_eq!(json["waits_for"], "no light drone free; next in 40 s");
        let assigned = waiting.assign("drone-1", 1.0).unwrap();
        assert_eq!(assigned.outlook(), Outlook::default());
        let flying = assigned
            .expecting(outlook(Some(50.0), None))
            .first_movement(2.0)
            .unwrap();
        assert_eq!(flying.pickup_eta, Some(50.0));
        let loaded = flying.at_origin(3.0).unwrap();
        assert_eq!(loaded.outlook(), outlook(None, None));
        assert_eq!(flying.drone_lost(3.0).unwrap().outlook(), Outlook::default());
        for ended in [loaded.arrive(4.0), loaded.fail("x", 4.0), flying.cancel(4.0)] {
            assert_eq!(ended.unwrap().outlook(), Outlook::default());
        }
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
    fn what_is_taken_back_waits_again_and_remembers_when_it_was_first_taken() {
        let assigned = pending().assign("drone-1", 1.0).unwrap();
        assert!(serde_json::to_value(&assigned).unwrap().get("swaps").is_none());
        for taken in [assigned.clone(), assigned.first_movement(2.0).unwrap()] {
            let back = taken.take_back(3.0).unwrap();
            assert_eq!(
                (back.status, &back.drone_id, back.leg, back.swaps),
                (DeliveryStatus::Pending, &None, None, 1)
            );
            let again = back.assign("drone-2", 4.0).unwrap();
            assert_eq!(
                (again.assigned_at, again.drone_id.as_deref()),
                (Some(1.0), Some("drone-2"))
            );
            let twice = again.take_back(5.0).unwrap();
            assert_eq!(
                (twice.swaps, serde_json::to_value(&twice).unwrap()["swaps"].as_u64()),
                (2, Some(2))
            );
        }
        let loaded = assigned.first_movement(2.0).unwrap().at_origin(3.0).unwrap();
        assert!(matches!(loaded.take_back(4.0), Err(TransitionError::Leg { .. })));
        assert!(pending().take_back(1.0).is_err());
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
        fn every_walk_keeps_the_invariants(steps in prop::collection::vec(0..8_u8, 0..80)) {
            let mut at = pending();
            for (now, step) in (2_000_u32..).map(f64::from).zip(steps) {
                let next = match step {
                    0 => at.assign("drone-1", now),
                    1 => at.first_movement(now),
                    2 => at.at_origin(now),
                    3 => at.arrive(now),
                    4 if now > 2_030.0 => at.cancel(now),
                    5 if now > 2_030.0 => at.fail("x", now),
                    6 => at.take_back(now),
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
