//! How far a delivery has come: a pure function of its record and where its drone is.
//!
//! Promises: the answer is the record after every transition that the drone's place justifies, each of them allowed by the
//! delivery's state machine; a delivery whose drone has not got anywhere new stays as it is.

use domain::delivery::{Delivery, DeliveryStatus, Leg};
use domain::events::DeliveryEvent;
use domain::geo::Point;

/// The record of `delivery` now that its drone is at `pos`, and what happened on the way; `None` when nothing did.
/// `moved` says whether the drone has moved since it took the order.
#[must_use]
pub fn step(
    delivery: &Delivery,
    pos: Point,
    moved: bool,
    arrive_eps_km: f64,
    now: f64,
) -> Option<(Delivery, Vec<DeliveryEvent>)> {
    let there = |place: Point| pos.distance_km(place) <= arrive_eps_km;
    let mut next = delivery.clone();
    let mut events = Vec::new();
    // A drone that is at the origin already when it is chosen need not move before it picks up.
    if next.status == DeliveryStatus::Assigned && (moved || there(next.origin)) {
        next = next.first_movement(now).ok()?;
        events.push(DeliveryEvent::DeliveryInFlight);
    }
    if next.status == DeliveryStatus::InFlight && next.leg == Some(Leg::ToOrigin) && there(next.origin) {
        next = next.at_origin(now).ok()?;
        events.push(DeliveryEvent::DeliveryPickedUp);
    }
    if next.status == DeliveryStatus::InFlight && next.leg == Some(Leg::ToDestination) && there(next.destination) {
        next = next.arrive(now).ok()?;
        events.push(DeliveryEvent::DeliveryCompleted);
    }
    (!events.is_empty()).then_some((next, events))
}

#[cfg(test)]
mod tests {
    use domain::delivery::DeliveryStatus;
    use domain::events::DeliveryEvent::{DeliveryCompleted, DeliveryInFlight, DeliveryPickedUp};
    use domain::geo::Point;
    use proptest::prelude::{prop, prop_assert, proptest};

    use super::step;
    use crate::testing::order;

    const ORIGIN: Point = Point::new(41.90, 12.50);
    const HERE: Point = Point::new(41.92, 12.52);

    #[test]
    fn one_transition_after_the_other() {
        let assigned = order("a", ORIGIN, 1.0).assign("drone-1", 1.0).unwrap();
        assert_eq!(step(&assigned, HERE, false, 0.02, 2.0), None);
        let (flying, events) = step(&assigned, HERE, true, 0.02, 2.0).unwrap();
        assert_eq!(
            (flying.status, events),
            (DeliveryStatus::InFlight, vec![DeliveryInFlight])
        );
        assert_eq!(step(&flying, HERE, true, 0.02, 3.0), None);
        // The destination on the way to the origin means nothing.
        assert_eq!(step(&flying, flying.destination, true, 0.02, 3.0), None);
        let (loaded, events) = step(&flying, ORIGIN, true, 0.02, 3.0).unwrap();
        assert_eq!((loaded.picked_up_at, events), (Some(3.0), vec![DeliveryPickedUp]));
        assert_eq!(
            step(&loaded, ORIGIN, true, 0.02, 4.0),
            None,
            "a repeated event changes nothing"
        );
        let (done, events) = step(&loaded, loaded.destination, true, 0.02, 4.0).unwrap();
        assert_eq!(
            (done.status, events),
            (DeliveryStatus::Delivered, vec![DeliveryCompleted])
        );
        assert_eq!(step(&done, done.destination, true, 0.02, 5.0), None);
    }

    #[test]
    fn a_parcel_that_goes_nowhere_is_delivered_at_once() {
        let mut here = order("a", ORIGIN, 1.0);
        here.destination = ORIGIN;
        let assigned = here.assign("drone-1", 1.0).unwrap();
        let (done, events) = step(&assigned, ORIGIN, false, 0.02, 2.0).unwrap();
        assert_eq!(done.status, DeliveryStatus::Delivered);
        assert_eq!(events, [DeliveryInFlight, DeliveryPickedUp, DeliveryCompleted]);
    }

    proptest! {
        #[test]
        fn any_flight_goes_forward_only(way in prop::collection::vec((41.89..41.92_f64, 12.49..12.51_f64, 0..4_u8), 0..40)) {
            let mut at = order("a", ORIGIN, 1.0).assign("drone-1", 1.0).unwrap();
            for (lat, lon, place) in way {
                let pos = match place { 0 => at.origin, 1 => at.destination, _ => Point::new(lat, lon) };
                let Some((next, events)) = step(&at, pos, true, 0.02, 2.0) else { continue };
                prop_assert!(next.status >= at.status && !events.is_empty());
                prop_assert!(next.picked_up_at.is_some() >= at.picked_up_at.is_some());
                if next.status == DeliveryStatus::Delivered { prop_assert!(next.picked_up_at.is_some()); }
                prop_assert!(step(&next, pos, true, 0.02, 3.0).is_none());
                at = next;
            }
        }
    }
}
