//! Orders as parts of traces. Each step of an order's life is a span that belongs to the step before it: the record names the last one, so
//! that it does not matter which dispatcher takes the next, or when.

use std::collections::HashMap;

use domain::delivery::Delivery;
use domain::events::DeliveryEvent;
use trace::{Context, Kind, Scope, Span, Tracer};

/// On whose behalf an order was made, and the last span of its life.
pub(crate) fn context_of(record: &Delivery) -> Context {
    let parent = record.traceparent.as_deref().map(str::as_bytes);
    Context::read(parent, record.tracestate.as_deref(), record.request_id.as_deref())
}

/// The record, with this span as the last one.
pub(crate) fn at(record: Delivery, span: &Span) -> Delivery {
    let Some(last) = span.context().span.filter(|_| span.is_recorded()) else {
        return record;
    };
    Delivery {
        traceparent: Some(last.traceparent().as_str().to_owned()),
        ..record
    }
}

/// Who records what becomes of orders.
#[derive(Debug, Default)]
pub(crate) struct Traces {
    pub(crate) tracer: Tracer,
    /// What the drones told of in this round was on behalf of: their flights.
    pub(crate) flights: HashMap<String, Context>,
}

impl Traces {
    /// The span of assigning an order to a drone, or of taking it back.
    pub(crate) fn pairing(&self, record: &Delivery, drone_id: &str, name: &'static str) -> Span {
        let mut span = self.tracer.follow(context_of(record), Kind::Internal, name);
        describe(&mut span, record);
        span.set_with("drone.id", || drone_id.to_owned());
        span
    }

    /// The span of a step, named after the last of its events; none when it has none. What a drone did belongs to its flight.
    pub(crate) fn step(&self, next: &Delivery, events: &[DeliveryEvent]) -> Span {
        let before = context_of(next);
        let name = match events.last() {
            None | Some(DeliveryEvent::DeliveryInFlight) => return Span::unrecorded(before),
            Some(DeliveryEvent::DeliveryAssigned) => "assign",
            Some(DeliveryEvent::DeliveryPickedUp) => "picked up",
            Some(DeliveryEvent::DeliveryCompleted) => "delivered",
            Some(DeliveryEvent::DeliveryCancelled) => "cancelled",
            Some(DeliveryEvent::DeliveryFailed) => "failed",
            Some(DeliveryEvent::DeliveryPending) => "reassigned",
        };
        let flight = next.drone_id.as_ref().and_then(|drone| self.flights.get(drone));
        let trace_of = |context: &Context| context.span.map(|span| span.trace_id);
        let parent = flight.filter(|flight| trace_of(flight) == trace_of(&before)).cloned();
        let mut span = self.tracer.follow(parent.unwrap_or(before), Kind::Internal, name);
        describe(&mut span, next);
        if let Some(drone_id) = &next.drone_id {
            span.set_with("drone.id", || drone_id.clone());
        }
        if let Some(reason) = &next.reason {
            span.failed(reason);
        }
        span
    }

    /// Logs a step that took place, on behalf of the order.
    pub(crate) fn log(&self, event: DeliveryEvent, record: &Delivery) {
        let (delivery, drone) = (&record.id, &record.drone_id);
        let since = |at: Option<f64>| at.map(|at| (at - record.timestamp).max(0.0));
        Scope::new(context_of(record), &self.tracer).run(|| match event {
            DeliveryEvent::DeliveryAssigned => {
                tracing::info!(delivery, drone, waited_sec = since(record.assigned_at), "assigned");
            }
            DeliveryEvent::DeliveryInFlight => tracing::debug!(delivery, drone, "in flight"),
            DeliveryEvent::DeliveryPickedUp => {
                tracing::info!(delivery, drone, seconds = since(record.picked_up_at), "picked up");
            }
            DeliveryEvent::DeliveryCompleted => {
                tracing::info!(delivery, drone, seconds = since(record.delivered_at), "delivered");
            }
            DeliveryEvent::DeliveryCancelled => tracing::info!(delivery, drone, "cancelled"),
            DeliveryEvent::DeliveryFailed => tracing::warn!(delivery, drone, reason = record.reason, "failed"),
            // A lost drone takes the time with it at which the order was assigned.
            DeliveryEvent::DeliveryPending if record.assigned_at.is_some() => {
                tracing::info!(delivery, swaps = record.swaps, "taken back for a better drone");
            }
            DeliveryEvent::DeliveryPending => {
                let lost = record.history.iter().rev().find_map(|entry| entry.drone_id.as_ref());
                tracing::warn!(delivery, drone = lost, "reassigned: it waits for another drone");
            }
        });
    }
}

fn describe(span: &mut Span, record: &Delivery) {
    span.set_with("delivery.id", || record.id.clone());
    if let Some(id) = &record.request_id {
        span.set_with("request.id", || id.clone());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use domain::geo::Point;
    use trace::testing::Kept;

    use super::*;
    use crate::testing::order;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn traces() -> (Traces, Kept) {
        let kept = Kept::default();
        let number = std::sync::atomic::AtomicU64::new(1);
        let random = move || number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let traces = Traces {
            tracer: Tracer::new(Box::new(kept.clone()), 1.0, Arc::new(random)),
            flights: HashMap::new(),
        };
        (traces, kept)
    }

    fn ordered() -> Delivery {
        Delivery {
            traceparent: Some(PARENT.to_owned()),
            ..order("d1", Point::new(41.9, 12.5), 1.0)
        }
    }

    #[test]
    fn a_step_belongs_to_the_one_before_it_or_to_the_flight_that_brought_it() {
        let (mut traces, kept) = traces();
        let assigned = ordered().assign("drone-1", 1.0).unwrap();
        let span = traces.pairing(&assigned, "drone-1", "assign");
        let assigned = at(assigned, &span);
        drop(span);
        let first = kept.lock()[0].clone();
        assert_eq!(
            (first.name.as_ref(), first.parent.unwrap().to_string()),
            ("assign", PARENT[36..52].to_owned())
        );
        assert_eq!(
            context_of(&assigned).span,
            Some(first.context),
            "the record names the last span"
        );

        let step = |traces: &Traces, events: &[DeliveryEvent]| {
            drop(traces.step(&assigned, events));
            kept.lock().pop().map(|span| (span.name.to_string(), span.parent))
        };
        let picked_up = [DeliveryEvent::DeliveryInFlight, DeliveryEvent::DeliveryPickedUp];
        let expected = ("picked up".to_owned(), Some(first.context.span_id));
        assert_eq!(step(&traces, &picked_up), Some(expected.clone()));
        // Another trace's flight is not this order's.
        let other = Context::read(Some(PARENT.replace("0af7", "ffff").as_bytes()), None, None);
        traces.flights.insert("drone-1".to_owned(), other);
        assert_eq!(step(&traces, &picked_up), Some(expected));
        traces
            .flights
            .insert("drone-1".to_owned(), Context::read(Some(PARENT.as_bytes()), None, None));
        let (_, parent) = step(&traces, &picked_up).unwrap();
        assert_eq!(parent.unwrap().to_string(), PARENT[36..52]);
    }

    #[test]
    fn what_is_no_step_or_no_trace_is_no_span() {
        let (traces, kept) = traces();
        for events in [&[][..], &[DeliveryEvent::DeliveryInFlight]] {
            drop(traces.step(&ordered(), events));
        }
        let untraced = order("d2", Point::new(41.9, 12.5), 1.0);
        let span = traces.step(&untraced, &[DeliveryEvent::DeliveryFailed]);
        assert_eq!(at(untraced.clone(), &span), untraced);
        drop(span);
        assert!(kept.lock().is_empty());
    }
}
