//! Where busy drones fly to: the deliveries they have, read as seldom as will do.
//!
//! Promises: a target is at most [`REFRESH_SEC`] behind the delivery's record, and read afresh every tick while the drone
//! stands at it (waiting for the dispatcher to turn the leg) and whenever somebody else has changed the drone. A delivery that
//! is gone, unreadable, or not this drone's gives no target, so the drone waits.

use std::collections::{BTreeMap, BTreeSet};

use domain::delivery::Delivery;
use domain::drone::Drone;
use domain::geo::Point;
use domain::keys;
use kv_api::MAX_BATCH_OPS;
use kv_client::{Kv, KvError, op};
use trace::Context;

use crate::flights::Way;

/// A delivery's record is read again after this many seconds.
pub const REFRESH_SEC: f64 = 1.0;

/// The deliveries of the drones that are busy.
#[derive(Debug, Default)]
pub struct Legs {
    known: BTreeMap<String, Leg>,
}

#[derive(Debug)]
struct Leg {
    read_at_sec: f64,
    drone_id: Option<String>,
    target: Option<Point>,
    leg: domain::delivery::Leg,
    /// The order's trace, and the last span of its life.
    context: Context,
}

impl Legs {
    /// Reads what has to be read for `busy` drones, in as few requests as can be, and forgets the rest. `changed` tells of a
    /// drone whether somebody else changed its record since it was last seen.
    ///
    /// # Errors
    /// When the KV does not answer; what was known before stays.
    pub async fn refresh<'a>(
        &mut self,
        kv: &Kv,
        busy: impl Iterator<Item = &'a Drone> + Clone,
        changed: impl Fn(&Drone) -> bool,
        steady_sec: f64,
    ) -> Result<(), KvError> {
        let wanted: BTreeSet<&str> = busy
            .clone()
            .filter_map(|drone| drone.current_delivery.as_deref())
            .collect();
        self.known.retain(|id, _| wanted.contains(id.as_str()));
        let due: BTreeSet<&str> = busy
            .filter(|drone| changed(drone) || self.is_due(drone, steady_sec))
            .filter_map(|drone| drone.current_delivery.as_deref())
            .collect();
        let due: Vec<&str> = due.into_iter().collect();
        for ids in due.chunks(MAX_BATCH_OPS) {
            let ops = ids.iter().map(|id| op::get(keys::delivery(id))).collect();
            for (id, result) in ids.iter().zip(kv.batch(ops, false).await?) {
                let found = match result.into_got::<Delivery>() {
                    Ok(found) => found.map(|found| found.value),
                    Err(error @ KvError::Decode { .. }) => {
                        tracing::warn!(delivery = id, %error, "its drone waits");
                        None
                    }
                    // This one could not be read now; its neighbours were.
                    Err(error) => {
                        tracing::debug!(delivery = id, %error, "not read");
                        continue;
                    }
                };
                let leg = Leg {
                    read_at_sec: steady_sec,
                    drone_id: found.as_ref().and_then(|delivery| delivery.drone_id.clone()),
                    target: found.as_ref().and_then(target),
                    leg: found
                        .as_ref()
                        .and_then(|delivery| delivery.leg)
                        .unwrap_or(domain::delivery::Leg::ToOrigin),
                    context: found.as_ref().map(context_of).unwrap_or_default(),
                };
                self.known.insert((*id).to_owned(), leg);
            }
        }
        Ok(())
    }

    /// Where `drone` flies to for its delivery; `None` when it has none, or none that is known to be its own.
    #[must_use]
    pub fn target(&self, drone: &Drone) -> Option<Point> {
        let leg = self.known.get(drone.current_delivery.as_deref()?)?;
        leg.target
            .filter(|_| leg.drone_id.as_deref() == Some(drone.id.as_str()))
    }

    /// The flight of `drone` for its delivery; `None` when there is none that is known.
    #[must_use]
    pub fn way(&self, drone: &Drone) -> Option<Way> {
        let delivery_id = drone.current_delivery.as_deref()?;
        let (target, leg) = (self.target(drone)?, self.known.get(delivery_id)?);
        Some(Way {
            delivery_id: delivery_id.to_owned(),
            leg: leg.leg,
            target,
            context: leg.context.clone(),
        })
    }

    fn is_due(&self, drone: &Drone, steady_sec: f64) -> bool {
        let Some(leg) = drone.current_delivery.as_deref().and_then(|id| self.known.get(id)) else {
            return true;
        };
        // Without a target the dispatcher is between its two writes: drone taken, delivery not yet assigned.
        let waiting = self.target(drone).is_none_or(|target| target == drone.pos);
        waiting || steady_sec - leg.read_at_sec >= REFRESH_SEC
    }
}

fn context_of(delivery: &Delivery) -> Context {
    let parent = delivery.traceparent.as_deref().map(str::as_bytes);
    Context::read(parent, delivery.tracestate.as_deref(), delivery.request_id.as_deref())
}

fn target(delivery: &Delivery) -> Option<Point> {
    // A flying record without a leg (written by an older hand) starts where every delivery starts.
    delivery
        .target()
        .or_else(|| delivery.status.has_drone().then_some(delivery.origin))
}
