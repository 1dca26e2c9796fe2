//! The bodies of the bus messages.
//!
//! Events are hints: the KV holds the truth, and losing, repeating or delaying one must be harmless. Unknown fields are
//! ignored when reading, so that senders may add some.

use std::fmt;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::delivery::Delivery;
use crate::drone::{Drone, DroneStatus};
use crate::geo::Point;

/// Gateway → dispatcher on [`crate::keys::DELIVERY_REQ_QUEUE`]: an order has been accepted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeliveryRequest {
    /// The delivery's id.
    pub delivery_id: String,
    /// Where the parcel is picked up.
    pub origin: Point,
    /// Where it goes.
    pub destination: Point,
    /// Its weight in kilograms.
    pub weight: f64,
}

impl DeliveryRequest {
    /// The request that announces `delivery`.
    #[must_use]
    pub fn of(delivery: &Delivery) -> Self {
        Self {
            delivery_id: delivery.id.clone(),
            origin: delivery.origin,
            destination: delivery.destination,
            weight: delivery.weight,
        }
    }
}

/// The only `type` of a [`DroneUpdate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DroneUpdateKind {
    /// `"drone_update"`.
    DroneUpdate,
}

/// drone-sim → dispatcher on [`crate::keys::DRONE_UPDATES_QUEUE`]: where a drone is now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DroneUpdate {
    /// Always `drone_update`.
    #[serde(rename = "type")]
    pub kind: DroneUpdateKind,
    /// Which drone.
    pub drone_id: String,
    /// Where it is.
    pub pos: Point,
    /// Its battery in percent.
    pub battery: f64,
    /// The status it had when it was moved.
    pub status: DroneStatus,
    /// The delivery it had when it was moved.
    pub current_delivery: Option<String>,
    /// Whether it stands at a charge point.
    pub at_charge: bool,
}

impl DroneUpdate {
    /// The update that describes `drone`.
    #[must_use]
    pub fn of(drone: &Drone) -> Self {
        Self {
            kind: DroneUpdateKind::DroneUpdate,
            drone_id: drone.id.clone(),
            pos: drone.pos,
            battery: drone.battery,
            status: drone.status,
            current_delivery: drone.current_delivery.clone(),
            at_charge: drone.at_charge,
        }
    }
}

/// A message on [`crate::keys::DRONE_UPDATES_QUEUE`]: one update, or an array of them.
#[derive(Debug, Clone, PartialEq)]
pub struct DroneUpdates(pub Vec<DroneUpdate>);

impl<'de> Deserialize<'de> for DroneUpdates {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;

        // By hand, because an untagged enum would not say what is wrong with an update.
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = DroneUpdates;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a drone_update or an array of them")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<DroneUpdates, A::Error> {
                let one = DroneUpdate::deserialize(MapAccessDeserializer::new(map))?;
                Ok(DroneUpdates(vec![one]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<DroneUpdates, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(seq)).map(DroneUpdates)
            }
        }

        deserializer.deserialize_any(OneOrMany)
    }
}

/// What happened to a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryEvent {
    /// A drone took it.
    DeliveryAssigned,
    /// Its drone has started to move.
    DeliveryInFlight,
    /// The parcel is on board.
    DeliveryPickedUp,
    /// It arrived.
    DeliveryCompleted,
    /// It was cancelled before pick-up.
    DeliveryCancelled,
    /// It ended without arriving; the record says why.
    DeliveryFailed,
    /// Its drone was lost or freed before pick-up; it waits again.
    DeliveryPending,
}

impl DeliveryEvent {
    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DeliveryAssigned => "delivery_assigned",
            Self::DeliveryInFlight => "delivery_in_flight",
            Self::DeliveryPickedUp => "delivery_picked_up",
            Self::DeliveryCompleted => "delivery_completed",
            Self::DeliveryCancelled => "delivery_cancelled",
            Self::DeliveryFailed => "delivery_failed",
            Self::DeliveryPending => "delivery_pending",
        }
    }
}

/// Dispatcher → every gateway on [`crate::keys::DELIVERY_STATUS_QUEUE`]: a delivery has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryStatusChanged {
    /// What happened.
    #[serde(rename = "type")]
    pub kind: DeliveryEvent,
    /// Which delivery.
    pub delivery_id: String,
    /// The drone it has, or had until this event.
    pub drone_id: Option<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{DeliveryEvent, DeliveryStatusChanged, DroneUpdate, DroneUpdates};

    #[test]
    fn one_update_or_many() {
        let one = |number: u32| {
            json!({
                "type": "drone_update", "drone_id": format!("drone-{number}"), "pos": {"lat": 41.9, "lon": 12.5}, "battery": 80.0,
                "status": "idle", "current_delivery": null, "at_charge": false,
            })
        };
        let ids = |body| {
            let DroneUpdates(updates) = serde_json::from_value(body).unwrap();
            updates.into_iter().map(|update| update.drone_id).collect::<Vec<_>>()
        };
        assert_eq!(ids(one(2)), ["drone-2"]);
        assert_eq!(ids(json!([one(2), one(3)])), ["drone-2", "drone-3"]);
        assert!(ids(json!([])).is_empty());
        for (body, expected) in [
            (json!("x"), "a drone_update or an array of them"),
            (json!({"type": "drone_update"}), "drone_id"),
            (json!([one(2), {"type": "order"}]), "unknown variant `order`"),
        ] {
            let error = serde_json::from_value::<DroneUpdates>(body).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn bodies_on_the_wire() {
        let status = DeliveryStatusChanged {
            kind: DeliveryEvent::DeliveryAssigned,
            delivery_id: "d".to_owned(),
            drone_id: Some("drone-1".to_owned()),
        };
        let body = serde_json::to_value(&status).unwrap();
        assert_eq!(
            body,
            json!({"type": "delivery_assigned", "delivery_id": "d", "drone_id": "drone-1"})
        );
        for kind in [
            DeliveryEvent::DeliveryAssigned,
            DeliveryEvent::DeliveryInFlight,
            DeliveryEvent::DeliveryPickedUp,
            DeliveryEvent::DeliveryCompleted,
            DeliveryEvent::DeliveryCancelled,
            DeliveryEvent::DeliveryFailed,
            DeliveryEvent::DeliveryPending,
        ] {
            assert_eq!(serde_json::to_value(kind).unwrap(), json!(kind.name()));
        }
        let update: DroneUpdate = serde_json::from_value(json!({
            "type": "drone_update", "drone_id": "drone-2", "pos": {"lat": 41.9, "lon": 12.5}, "battery": 80,
            "status": "idle", "current_delivery": null, "at_charge": false, "heading": 12,
        }))
        .unwrap();
        assert!((update.battery - 80.0).abs() < 1e-12);
        assert!(serde_json::from_value::<DroneUpdate>(json!({"type": "other"})).is_err());
    }
}
