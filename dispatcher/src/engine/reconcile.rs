//! Finding and repairing contradictions between drones and deliveries: what a crash in the middle leaves behind, or what
//! somebody else wrote.
//!
//! Promises: a contradiction is acted upon only after it has lasted [`RECONCILE_GRACE_SEC`] (an assignment under way looks
//! like one for an instant), on records read freshly, by CAS; so repairing twice, or while somebody else repairs, does nothing
//! wrong. A drone that is busy with a delivery that has ended, is absent or belongs to another is freed; a delivery that still
//! waits although a drone is busy with it gets that drone; a delivery whose drone does not hold it waits again, or, with the
//! parcel on board, gets its drone back, as soon as that has battery for the rest of the way.

use std::collections::HashMap;

use domain::delivery::{Delivery, DeliveryStatus, Leg};
use domain::drone::{Drone, DroneStatus};
use domain::energy::FULL_PCT;
use domain::events::DeliveryEvent;
use domain::keys;
use domain::zones::ZonesConfig;
use kv_client::{KvError, OpResult, op};

use super::deliveries::Transition;
use super::{Engine, parse};
use crate::charging;
use crate::fleet::{Change, DroneChange};
use crate::limits::{RECONCILE_EVERY_SEC, RECONCILE_GRACE_SEC};
use crate::mirror::{Seen, holds};
use crate::rules::Rules;

/// A drone and a delivery that contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Suspect {
    drone_id: String,
    /// `None`: the drone's record contradicts itself.
    delivery_id: Option<String>,
}

/// What settles a contradiction.
#[derive(Debug, PartialEq)]
pub(super) enum Repair {
    /// There is none (any more).
    None,
    /// Change the drone.
    Drone(Change, &'static str),
    /// Give the delivery to the drone that is already busy with it.
    Assign,
    /// Take the delivery from the drone.
    DroneLost,
}

/// What to do about a drone and a delivery, given what the KV holds of both now.
pub(super) fn repair(
    drone: Option<&Drone>,
    delivery: Option<&Delivery>,
    suspect: &Suspect,
    zones: &ZonesConfig,
    rules: &Rules,
) -> Repair {
    let Some(delivery_id) = &suspect.delivery_id else {
        return match drone {
            Some(drone) if !drone.is_consistent() => Repair::Drone(Change::Mend, "status and delivery contradict"),
            _ => Repair::None,
        };
    };
    let drone_holds = drone.is_some_and(|drone| holds(drone, delivery_id));
    let names_drone = delivery
        .is_some_and(|delivery| delivery.status.has_drone() && delivery.drone_id.as_deref() == Some(&suspect.drone_id));
    match (drone_holds, names_drone, delivery) {
        (true, true, _) | (false, false, _) => Repair::None,
        (true, false, Some(delivery)) if delivery.status == DeliveryStatus::Pending => Repair::Assign,
        (true, false, _) => Repair::Drone(
            Change::Release {
                delivery_id: delivery_id.clone(),
            },
            "its delivery is not its own",
        ),
        (false, true, Some(delivery)) if delivery.leg == Some(Leg::ToDestination) => match drone {
            // It has the parcel on board, unless it flies another one by now or is lost.
            Some(drone) if !matches!(drone.status, DroneStatus::Busy | DroneStatus::Lost) => {
                carry_on(drone, delivery, zones, rules)
            }
            _ => Repair::DroneLost,
        },
        (false, true, _) => Repair::DroneLost,
    }
}

/// The drone goes on with the parcel if its battery takes it there; else it has to charge first, which [`charging::with_parcels`] sees to. One
/// that is full where it charges, and still cannot, never will.
fn carry_on(drone: &Drone, delivery: &Delivery, zones: &ZonesConfig, rules: &Rules) -> Repair {
    if charging::can_carry_on(drone, delivery.destination, zones, rules) {
        let resume = Change::Resume {
            delivery_id: delivery.id.clone(),
            destination: delivery.destination,
        };
        return Repair::Drone(resume, "its parcel is on board");
    }
    let can_gain = zones.nearest_charge(drone.pos).is_some() && !drone.is_charged(FULL_PCT);
    if can_gain { Repair::None } else { Repair::DroneLost }
}

impl Engine {
    /// Looks for contradictions and repairs those that have lasted.
    pub(super) async fn reconcile(&mut self) -> Result<(), KvError> {
        let now = self.now();
        if !self.reconcile_due.is_due(now, RECONCILE_EVERY_SEC) {
            return Ok(());
        }
        self.reconcile_due.done(now);
        let mut suspects = HashMap::new();
        for suspect in self.suspicious() {
            let since = self
                .suspects
                .get(&suspect)
                .copied()
                .filter(|since| *since <= now)
                .unwrap_or(now);
            suspects.insert(suspect, since);
        }
        let mut ripe: Vec<Suspect> = suspects
            .iter()
            .filter(|(_, since)| now - **since >= RECONCILE_GRACE_SEC)
            .map(|(suspect, _)| suspect.clone())
            .collect();
        ripe.sort();
        self.suspects = suspects;
        if ripe.is_empty() {
            Ok(())
        } else {
            self.repair_all(ripe, now).await
        }
    }

    fn suspicious(&self) -> Vec<Suspect> {
        let suspect = |drone: &str, delivery: Option<&str>| Suspect {
            drone_id: drone.to_owned(),
            delivery_id: delivery.map(str::to_owned),
        };
        let mut found = Vec::new();
        for seen in self.mirror.drones.values() {
            let drone = &seen.record;
            if !drone.is_consistent() {
                found.push(suspect(&drone.id, None));
            } else if let Some(id) = &drone.current_delivery {
                let agrees = self.mirror.orders.get(id).is_some_and(|order| {
                    let record = &order.seen.record;
                    record.status.has_drone() && record.drone_id.as_ref() == Some(&drone.id)
                });
                if !agrees {
                    found.push(suspect(&drone.id, Some(id)));
                }
            }
        }
        for order in self.mirror.orders.values() {
            let record = &order.seen.record;
            let Some(drone_id) = record.drone_id.as_deref().filter(|_| record.status.has_drone()) else {
                continue;
            };
            let held = self
                .mirror
                .drones
                .get(drone_id)
                .is_some_and(|seen| holds(&seen.record, &record.id));
            if !held {
                found.push(suspect(drone_id, Some(&record.id)));
            }
        }
        found
    }

    async fn repair_all(&mut self, ripe: Vec<Suspect>, now: f64) -> Result<(), KvError> {
        let mut ops = Vec::new();
        for suspect in &ripe {
            ops.push(op::get(keys::drone(&suspect.drone_id)));
            // A suspect without a delivery reads its drone twice, which keeps the answers in pairs.
            let second = suspect
                .delivery_id
                .as_ref()
                .map_or_else(|| keys::drone(&suspect.drone_id), |id| keys::delivery(id));
            ops.push(op::get(second));
        }
        let mut results = self.batch(ops).await?.into_iter();
        let mut changes = Vec::new();
        let mut transitions = Vec::new();
        for suspect in ripe {
            let (Some(drone), Some(delivery)) = (results.next(), results.next()) else {
                break;
            };
            let (OpResult::Got(drone), OpResult::Got(delivery)) = (drone, delivery) else {
                continue;
            };
            let drone = drone.and_then(|found| parse::<Drone>(found).ok());
            let delivery = delivery
                .filter(|_| suspect.delivery_id.is_some())
                .and_then(|found| parse::<Delivery>(found).ok());
            let repair = repair(
                drone.as_ref().map(|seen| &seen.record),
                delivery.as_ref().map(|seen| &seen.record),
                &suspect,
                &self.zones,
                &self.parts.rules,
            );
            let open = delivery.as_ref().is_some_and(|seen| seen.record.status.is_open());
            if open
                && let Some(id) = suspect
                    .delivery_id
                    .as_ref()
                    .filter(|id| !self.mirror.orders.contains_key(*id))
            {
                // An open order that no sweep lists: give it back its entry.
                self.ensure_open_entry(id, now).await?;
            }
            let record = delivery.as_ref().map(|seen| seen.record.clone());
            self.take_over(drone, delivery, now);
            match (repair, record) {
                (Repair::None, _) => {}
                (Repair::Drone(change, why), _) => {
                    tracing::warn!(
                        drone = suspect.drone_id,
                        delivery = suspect.delivery_id,
                        change = change.name(),
                        why,
                        "repaired"
                    );
                    self.parts.metrics.repair(change.name());
                    changes.push(DroneChange {
                        drone_id: suspect.drone_id,
                        change,
                        why,
                    });
                }
                (Repair::Assign, Some(record)) => {
                    if let Ok(next) = record.assign(&suspect.drone_id, now) {
                        tracing::warn!(
                            drone = suspect.drone_id,
                            delivery = next.id,
                            "finished a half-made assignment"
                        );
                        self.parts.metrics.repair("assign");
                        transitions.push(Transition {
                            next,
                            events: vec![DeliveryEvent::DeliveryAssigned],
                        });
                    }
                }
                (Repair::DroneLost, Some(record)) => {
                    if let Some(transition) = Transition::drone_lost(&record, now) {
                        self.parts.metrics.repair("drone_lost");
                        transitions.push(transition);
                    }
                }
                (Repair::Assign | Repair::DroneLost, None) => {}
            }
        }
        self.change_drones(changes).await?;
        self.change_deliveries(transitions).await.map(drop)
    }

    fn take_over(&mut self, drone: Option<Seen<Drone>>, delivery: Option<Seen<Delivery>>, now: f64) {
        if let Some(drone) = drone {
            self.mirror.put_drone(drone);
        }
        if let Some(delivery) = delivery {
            self.mirror.put_order(delivery, now);
        }
    }
}
