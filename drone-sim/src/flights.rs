//! Flights as parts of traces: a span from the tick that first sees where a drone flies to for its order, to the one in which it is there.
//!
//! It belongs to the last span of the order's life, which the order's record names; the event that tells of the arrival is on the flight's
//! behalf, so that what the dispatcher makes of it belongs to the flight in turn. Without a tracer nothing of this is kept.

use std::collections::BTreeMap;

use domain::delivery::Leg;
use domain::drone::Drone;
use domain::geo::Point;
use domain::zones::ZonesConfig;
use trace::{Context, Kind, Scope, Span, Tracer};

/// Where a drone flies to for its order, and on whose behalf.
#[derive(Debug, Clone, PartialEq)]
pub struct Way {
    /// The order.
    pub delivery_id: String,
    /// Empty, or with the parcel.
    pub leg: Leg,
    /// Where that ends.
    pub target: Point,
    /// The order's trace and the last span of its life.
    pub context: Context,
}

/// The flights of a fleet.
#[derive(Debug, Default)]
pub struct Flights {
    tracer: Tracer,
    under_way: BTreeMap<String, Flight>,
}

#[derive(Debug)]
struct Flight {
    delivery_id: String,
    leg: Leg,
    target: Point,
    /// Until it has been told that it is over.
    span: Option<Span>,
}

impl Flights {
    /// No flights yet.
    #[must_use]
    pub fn new(tracer: Tracer) -> Self {
        Self {
            tracer,
            under_way: BTreeMap::new(),
        }
    }

    /// Whether anybody wants to know of them.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.tracer.is_on()
    }

    /// Takes note of where the drones fly to now; `way_of` says so of each. A flight that is not among them any more was broken off.
    pub fn follow<'a>(
        &mut self,
        drones: impl Iterator<Item = &'a Drone>,
        zones: &ZonesConfig,
        way_of: impl Fn(&Drone) -> Option<Way>,
    ) {
        let mut before = std::mem::take(&mut self.under_way);
        for drone in drones {
            let Some(way) = way_of(drone).filter(|way| way.context.span.is_some_and(|span| span.sampled)) else {
                continue;
            };
            let flight = before.remove(&drone.id).filter(|flight| flight.is(&way));
            let flight = flight.unwrap_or_else(|| self.begin(drone, zones, way));
            self.under_way.insert(drone.id.clone(), flight);
        }
        for mut span in before.into_values().filter_map(|flight| flight.span) {
            span.failed("broken off");
        }
    }

    /// The first time that a drone tells that it is where its flight ends: ends the span, and gives what the event is on behalf of.
    pub fn arrived(&mut self, drone: &Drone) -> Option<Scope> {
        let flight = self.under_way.get_mut(&drone.id)?;
        if flight.target != drone.pos || drone.current_delivery.as_deref() != Some(flight.delivery_id.as_str()) {
            return None;
        }
        let span = flight.span.take()?;
        Some(Scope::new(span.context().clone(), &self.tracer))
    }

    fn begin(&self, drone: &Drone, zones: &ZonesConfig, way: Way) -> Flight {
        let name = match way.leg {
            Leg::ToOrigin => "fly to origin",
            Leg::ToDestination => "fly to destination",
        };
        let mut span = self.tracer.follow(way.context, Kind::Internal, name);
        span.set_with("delivery.id", || way.delivery_id.clone());
        span.set_with("drone.id", || drone.id.clone());
        span.set_with("distance_km", || zones.way_km(drone.pos, way.target));
        Flight {
            delivery_id: way.delivery_id,
            leg: way.leg,
            target: way.target,
            span: Some(span),
        }
    }
}

impl Flight {
    fn is(&self, way: &Way) -> bool {
        self.delivery_id == way.delivery_id && self.leg == way.leg && self.target == way.target
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use domain::zones::ROME;
    use trace::testing::Kept;

    use super::*;

    fn names(kept: &Kept) -> Vec<(String, bool)> {
        let spans = kept.lock();
        spans
            .iter()
            .map(|span| (span.name.to_string(), span.error.is_some()))
            .collect()
    }

    fn way(leg: Leg, target: Point) -> Way {
        let parent = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        Way {
            delivery_id: "d1".to_owned(),
            leg,
            target,
            context: Context::read(Some(parent), None, None),
        }
    }

    #[test]
    fn a_flight_is_a_span_until_the_drone_tells_that_it_is_there() {
        let kept = Kept::default();
        let number = std::sync::atomic::AtomicU64::new(1);
        let random = move || number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut flights = Flights::new(Tracer::new(Box::new(kept.clone()), 1.0, Arc::new(random)));
        let zones = ZonesConfig::build(ROME, 2, 2).unwrap();
        let mut drone = Drone::new(1, &zones);
        drone.current_delivery = Some("d1".to_owned());
        let (origin, destination) = (Point { lat: 41.9, lon: 12.5 }, Point { lat: 41.95, lon: 12.5 });
        for _ in 0..2 {
            flights.follow([&drone].into_iter(), &zones, |_| Some(way(Leg::ToOrigin, origin)));
            assert!(
                flights.arrived(&drone).is_none() && names(&kept).is_empty(),
                "on its way"
            );
        }
        drone.pos = origin;
        let scope = flights.arrived(&drone).expect("it is there");
        assert_eq!(names(&kept), [("fly to origin".to_owned(), false)]);
        let span = kept.lock()[0].clone();
        assert_eq!(scope.context.span, Some(span.context));
        assert_eq!(span.parent.unwrap().to_string(), "b7ad6b7169203331");
        // Waiting for the dispatcher, it tells so again and again.
        flights.follow([&drone].into_iter(), &zones, |_| Some(way(Leg::ToOrigin, origin)));
        assert!(flights.arrived(&drone).is_none());
        flights.follow([&drone].into_iter(), &zones, |_| {
            Some(way(Leg::ToDestination, destination))
        });
        flights.follow([&drone].into_iter(), &zones, |_| None);
        assert_eq!(
            names(&kept).last(),
            Some(&("fly to destination".to_owned(), true)),
            "broken off"
        );
    }
}
