//! Moving deliveries along: refusing what cannot be flown, advancing what has got somewhere, ending what is done.

use domain::delivery::{Delivery, DeliveryStatus, REASON_NO_FLY_ZONE, REASON_OUT_OF_AREA, REASON_OUT_OF_RANGE};
use domain::events::DeliveryEvent;
use domain::keys;
use kv_client::{KvError, Swap, op};

use super::Engine;
use crate::advance;
use crate::fleet::{Change, DroneChange};
use crate::mirror::Seen;
use crate::traces;

/// A delivery's next record, and what there will be to tell.
pub(super) struct Transition {
    pub(super) next: Delivery,
    pub(super) events: Vec<DeliveryEvent>,
}

impl Transition {
    /// What becomes of a delivery without its drone: it waits again, or with the parcel on board it fails.
    pub(super) fn drone_lost(record: &Delivery, now: f64) -> Option<Self> {
        let next = record.drone_lost(now).ok()?;
        let event = if next.status.is_open() {
            DeliveryEvent::DeliveryPending
        } else {
            DeliveryEvent::DeliveryFailed
        };
        Some(Self {
            next,
            events: vec![event],
        })
    }
}

impl Engine {
    /// Looks once at each new order, and again when the zones have changed: outside the area, in a no-fly zone, or out of everybody's range,
    /// it fails at once instead of waiting for ever; else it counts from now on.
    pub(super) async fn screen(&mut self) -> Result<(), KvError> {
        let now = self.now();
        let (zones, energy) = (&self.zones, &self.parts.rules.energy);
        let mut failed = Vec::new();
        for order in self.mirror.orders.values_mut().filter(|order| !order.flyable) {
            let record = &order.seen.record;
            let reason = if zones.zone_of(record.origin).is_none() || zones.zone_of(record.destination).is_none() {
                REASON_OUT_OF_AREA
            } else if [record.origin, record.destination]
                .iter()
                .any(|end| zones.no_fly.zone_of(*end).is_some())
            {
                REASON_NO_FLY_ZONE
            } else if !energy.could_ever_fly(record.origin, record.destination, zones) {
                REASON_OUT_OF_RANGE
            } else {
                order.flyable = true;
                continue;
            };
            if let Ok(next) = record.fail(reason, now) {
                failed.push(Transition {
                    next,
                    events: vec![DeliveryEvent::DeliveryFailed],
                });
            }
        }
        self.change_deliveries(failed).await.map(drop)
    }

    /// Advances every delivery whose drone has got somewhere.
    pub(super) async fn advance(&mut self) -> Result<(), KvError> {
        let now = self.now();
        let eps_km = self.parts.rules.arrive_eps_km;
        let steps: Vec<Transition> = self
            .mirror
            .flights()
            .filter_map(|(delivery, drone)| {
                advance::step(&delivery.record, drone.pos, self.mirror.has_moved(drone), eps_km, now)
            })
            .map(|(next, events)| Transition { next, events })
            .collect();
        self.change_deliveries(steps).await.map(drop)
    }

    /// Marks drones that have been silent for too long as lost and takes their orders from them; takes back who is heard of again.
    /// The drone comes first: from then on it flies nothing, whoever it is that looks at it. A crash in between is made good by
    /// the next round, for which an order of a lost drone is reason enough.
    pub(super) async fn lose_silent(&mut self) -> Result<(), KvError> {
        let now = self.now();
        let drones = self.mirror.drones.values().map(|seen| &seen.record);
        let changes = self.mirror.silence.plan(drones, self.parts.rules.drone_lost_sec);
        for change in &changes {
            let (drone, change, why) = (&change.drone_id, change.change.name(), change.why);
            tracing::warn!(drone, change, why, "a drone's silence");
        }
        self.change_drones(changes).await?;
        let orphaned = self.mirror.orphaned();
        let taken = orphaned
            .filter_map(|record| Transition::drone_lost(record, now))
            .collect();
        self.change_deliveries(taken).await.map(drop)
    }

    /// Makes transitions true, each by CAS from the record in the mirror, and tells about them; whatever has ended frees its
    /// drone and loses its open entry. Answers the ids of those that took place.
    pub(super) async fn change_deliveries(&mut self, transitions: Vec<Transition>) -> Result<Vec<String>, KvError> {
        let mut ops = Vec::new();
        let mut sent = Vec::new();
        for mut transition in transitions {
            let span = self.traces.step(&transition.next, &transition.events);
            transition.next = traces::at(transition.next, &span);
            let id = &transition.next.id;
            let Some(order) = self.mirror.orders.get(id) else {
                span.discard();
                continue;
            };
            ops.push(op::cas(
                keys::delivery(id),
                Some(&order.seen.version),
                &transition.next,
            )?);
            sent.push((transition, span));
        }
        if ops.is_empty() {
            return Ok(Vec::new());
        }
        let now = self.now();
        let results = self.batch(ops).await;
        if results.is_err() {
            // Nobody knows which of them took place.
            for (_, span) in &mut sent {
                span.failed("the KV did not say what became of it");
            }
            self.reread
                .extend(sent.iter().map(|(transition, _)| transition.next.id.clone()));
        }
        let (mut changed, mut ended) = (Vec::new(), Vec::new());
        for ((Transition { next, events }, mut span), result) in sent.into_iter().zip(results?) {
            match result.into_swap() {
                Ok(Swap::Done(version)) => {
                    for event in events {
                        if event == DeliveryEvent::DeliveryPending {
                            self.parts.metrics.reassigned.inc();
                        }
                        self.publish(event, &next);
                    }
                    changed.push(next.id.clone());
                    if !next.status.is_open() {
                        self.note_end(&next);
                        ended.push(next.clone());
                    }
                    self.mirror.put_order(Seen { record: next, version }, now);
                }
                Ok(swap) => {
                    // Somebody else took the step, or another one.
                    span.discard();
                    self.parts.metrics.lost_race("delivery");
                    self.adopt_delivery(&next.id, &swap, now);
                }
                Err(error) => {
                    span.failed(&error);
                    self.note_failure("delivery not advanced", &next.id, &error);
                    self.reread.insert(next.id);
                }
            }
        }
        self.finish(ended).await?;
        Ok(changed)
    }

    /// Frees the drones of deliveries that have ended, then removes their open entries: in this order, so that a crash in
    /// between leaves an entry that leads back here.
    pub(super) async fn finish(&mut self, ended: Vec<Delivery>) -> Result<(), KvError> {
        let release = |delivery: &Delivery| {
            let change = Change::Release {
                delivery_id: delivery.id.clone(),
            };
            Some(DroneChange {
                drone_id: delivery.drone_id.clone()?,
                change,
                why: "its delivery has ended",
            })
        };
        let releases = ended.iter().filter_map(release).collect();
        self.change_drones(releases).await?;
        let ops = ended
            .iter()
            .map(|delivery| op::delete(keys::open(&delivery.id)))
            .collect();
        self.batch(ops).await.map(drop)
    }

    /// Takes over what a refused CAS found.
    pub(super) fn adopt_delivery(&mut self, id: &str, swap: &Swap, now: f64) {
        match swap.found::<Delivery>(&keys::delivery(id)) {
            Ok(Some(found)) => self.mirror.put_order(
                Seen {
                    record: found.value,
                    version: found.version,
                },
                now,
            ),
            Ok(None) => drop(self.mirror.orders.remove(id)),
            Err(error) => {
                self.complain(&keys::delivery(id), &error);
                self.mirror.orders.remove(id);
            }
        }
    }

    fn note_end(&self, delivery: &Delivery) {
        if delivery.status == DeliveryStatus::Delivered {
            let seconds = delivery.delivered_at.map_or(0.0, |at| at - delivery.timestamp);
            self.parts.metrics.deliver_seconds.observe(seconds.max(0.0));
        }
    }
}
