//! Taking orders back from drones that fly to their pick-up, so that better ones can have them, or the drones better orders.
//!
//! A swap is this and an ordinary assignment ([`super::assign`]). The order comes first: CAS assigned or in flight → pending, then CAS its
//! drone busy → idle, under the locks of both. So the order's record alone decides against everybody else:
//!
//! - Whoever notes the pick-up first, or a cancellation, has won: the first CAS is refused, and nothing is changed. A drone that comes there
//!   between the two has won, too: the second is refused, and the first is undone.
//! - A drone flies an order only while the order's record names it, so from the first CAS on it flies there no more.
//! - Killed after the first CAS: the order waits, a drone is busy with it. Reconciling gives it that drone again, as it does with any
//!   assignment that is half made; or if another drone has taken it meanwhile, it frees this one.
//! - Killed after the second: the order waits and the drone is free, as at any other time.
//!
//! No order ever has two drones, and no drone two orders.

use std::collections::HashSet;

use domain::delivery::Delivery;
use domain::drone::Drone;
use domain::events::DeliveryEvent;
use domain::keys;
use kv_client::{OpResult, Swap, op};
use trace::Span;

use super::Engine;
use super::assign::{Attempt, Context, Outcome, Wanted};
use crate::mirror::{Seen, holds};
use crate::policy::{Assignment, is_at_pickup, may_be_taken_back};
use crate::traces;

impl Engine {
    /// Takes these orders back from their drones and makes `assignments` true, except those for whose order or drone that failed. Who then is left
    /// without what it was taken for goes back to where it was. True when another round right away is worth its while.
    pub(super) async fn swap(&mut self, taken_back: Vec<Assignment>, mut assignments: Vec<Assignment>) -> bool {
        if taken_back.is_empty() {
            return self.assign(assignments, Wanted::Assigned).await;
        }
        let now = self.now();
        let (mut apart, mut failed) = (Vec::new(), HashSet::new());
        for (pair, attempt) in self.attempt_all(taken_back, Wanted::TakenBack, now).await {
            if let Some(drone) = attempt.drone {
                self.mirror.put_drone(drone);
            }
            let is_done = matches!(attempt.outcome, Outcome::Done);
            if let Some(delivery) = attempt.delivery {
                if is_done {
                    self.publish(DeliveryEvent::DeliveryPending, &delivery.record);
                }
                self.mirror.put_order(delivery, now);
            }
            self.note_outcome(&pair, attempt.outcome, "swap", now);
            if is_done {
                apart.push(pair);
            } else {
                failed.extend([pair.delivery_id, pair.drone_id]);
            }
        }
        assignments.retain(|pair| !failed.contains(&pair.delivery_id) && !failed.contains(&pair.drone_id));
        let provided: HashSet<&String> = (assignments.iter())
            .flat_map(|pair| [&pair.delivery_id, &pair.drone_id])
            .collect();
        apart.retain(|pair| !provided.contains(&pair.delivery_id) && !provided.contains(&pair.drone_id));
        let overtaken = self.assign(assignments, Wanted::Assigned).await;
        self.assign(apart, Wanted::Returned).await || overtaken
    }
}

impl Context<'_> {
    /// The two compare-and-swaps, under the locks of both.
    pub(super) async fn take_back(
        &self,
        pair: &Assignment,
        delivery: Seen<Delivery>,
        drone: Seen<Drone>,
        span: &Span,
    ) -> Attempt {
        let is_its_own = holds(&drone.record, &pair.delivery_id)
            && delivery.record.drone_id.as_ref() == Some(&pair.drone_id)
            && may_be_taken_back(&delivery.record, &drone.record, self.now, self.rules);
        let (true, Ok(waiting), Ok(idle)) = (
            is_its_own,
            delivery.record.take_back(self.now),
            drone.record.release(&pair.delivery_id),
        ) else {
            return Attempt {
                delivery: Some(delivery),
                drone: Some(drone),
                outcome: Outcome::Overtaken,
            };
        };
        let waiting = traces::at(waiting, span);
        let ops = op::cas(keys::delivery(&pair.delivery_id), Some(&delivery.version), &waiting).and_then(|first| {
            let second = op::cas(keys::drone(&pair.drone_id), Some(&drone.version), &idle)?;
            Ok(vec![first, second])
        });
        let ops = match ops {
            Ok(ops) => ops,
            Err(error) => return Attempt::failed(error),
        };
        // In order: the drone is only freed once the order is no longer its own.
        let mut results = match self.store.batch(ops, true).await {
            Ok(results) => results,
            Err(error) => return Attempt::failed(error),
        };
        let second = results.pop().map(OpResult::into_swap);
        let waiting = match results.pop().map(OpResult::into_swap) {
            Some(Ok(Swap::Done(version))) => Seen {
                record: waiting,
                version,
            },
            Some(Err(error)) => return Attempt::failed(error),
            // It was picked up, cancelled or given away at this moment.
            _ => return Attempt::default(),
        };
        let drone = match second {
            Some(Ok(Swap::Done(version))) => Some(Seen { record: idle, version }),
            // Who flies the drone wrote in between.
            Some(Ok(refused)) => match found_drone(&refused, pair) {
                Some(there) if is_at_pickup(&there.record, &delivery.record, self.rules) => {
                    return self.restore(pair, delivery.record, waiting, there).await;
                }
                Some(elsewhere) => self.undo(pair, elsewhere).await,
                None => None,
            },
            _ => self.undo(pair, drone).await,
        };
        let is_free = drone
            .as_ref()
            .is_some_and(|drone| !holds(&drone.record, &pair.delivery_id));
        Attempt {
            delivery: Some(waiting),
            drone,
            // The order waits either way; a drone that could not be freed is left to reconciling.
            outcome: if is_free { Outcome::Done } else { Outcome::Overtaken },
        }
    }

    /// The drone came to the pick-up at this very moment: it shall have its order again, as if nothing had been.
    async fn restore(
        &self,
        pair: &Assignment,
        before: Delivery,
        waiting: Seen<Delivery>,
        drone: Seen<Drone>,
    ) -> Attempt {
        let key = keys::delivery(&pair.delivery_id);
        let swap = match op::cas(key.clone(), Some(&waiting.version), &before) {
            Ok(op) => self.store.batch(vec![op], false).await,
            Err(error) => Err(error),
        };
        let swap = match swap.map(|mut results| results.pop().map(OpResult::into_swap)) {
            Ok(Some(Ok(swap))) => swap,
            // Reconciling gives it the order again.
            Ok(Some(Err(error))) | Err(error) => return Attempt::failed(error),
            Ok(None) => return Attempt::default(),
        };
        let (delivery, drone) = if let Swap::Done(version) = swap {
            let record = before;
            (Some(Seen { record, version }), Some(drone))
        } else {
            // Somebody else has it, or it was cancelled.
            let found = swap.found::<Delivery>(&key).ok().flatten();
            let delivery = found.map(|found| Seen {
                record: found.value,
                version: found.version,
            });
            (delivery, self.undo(pair, drone).await)
        };
        Attempt {
            delivery,
            drone,
            outcome: Outcome::Overtaken,
        }
    }
}

fn found_drone(refused: &Swap, pair: &Assignment) -> Option<Seen<Drone>> {
    let found = refused.found::<Drone>(&keys::drone(&pair.drone_id)).ok()??;
    Some(Seen {
        record: found.value,
        version: found.version,
    })
}
