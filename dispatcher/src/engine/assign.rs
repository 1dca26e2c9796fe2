//! Making an assignment true, safely against everybody else who may be at it.
//!
//! Lock the delivery, lock the drone, read both again; CAS the drone idle → busy, CAS the delivery pending → assigned; undo the
//! first when the second fails; release the locks in every case. The locks only spare work that would be in vain: what keeps
//! two dispatchers (or a gateway that cancels) apart are the two compare-and-swaps. An order that is taken back from its drone goes
//! the same way in the other direction: [`super::take_back`].

use std::sync::Arc;

use domain::delivery::{Delivery, DeliveryStatus};
use domain::drone::Drone;
use domain::events::DeliveryEvent;
use domain::keys;
use futures_util::StreamExt;
use futures_util::stream;
use kv_client::{BatchOp, KvError, OpResult, Swap, op};
use trace::{Scope, Span, Tracer};

use super::{Engine, parse};
use crate::limits::{ASSIGN_CONCURRENCY, CAS_ATTEMPTS, HOLD_OFF_SEC, LOCK_TTL_SEC};
use crate::mirror::Seen;
use crate::outlook;
use crate::policy::{Assignment, fitness};
use crate::rules::Rules;
use crate::store::Store;
use crate::traces;
use domain::zones::ZonesConfig;

/// What an attempt came to, and everything it learnt.
#[derive(Debug, Default)]
pub(super) struct Attempt {
    pub(super) delivery: Option<Seen<Delivery>>,
    pub(super) drone: Option<Seen<Drone>>,
    pub(super) outcome: Outcome,
}

impl Attempt {
    /// Nothing was learnt but that the KV did not answer.
    pub(super) fn failed(error: KvError) -> Self {
        Self {
            outcome: Outcome::Failed(error),
            ..Self::default()
        }
    }
}

/// What is wanted of an order and a drone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// That the drone, which is free, flies the order, which waits.
    Assigned,
    /// That the order, to whose pick-up the drone flies, waits, and the drone is free.
    TakenBack,
    /// That the drone has the order again that was taken back from it, as if nothing had been.
    Returned,
}

impl Wanted {
    /// The name of the step in traces.
    const fn name(self) -> &'static str {
        match self {
            Self::Assigned => "assign",
            Self::TakenBack => "take back",
            Self::Returned => "return",
        }
    }
}

#[derive(Debug, Default)]
pub(super) enum Outcome {
    /// Both records are written.
    Done,
    /// Somebody else holds one of the locks.
    LockHeld,
    /// The records no longer allow it, or somebody else was faster: nothing is changed.
    #[default]
    Overtaken,
    /// The KV did not answer somewhere on the way. What it left half-done is found by reconciling.
    Failed(KvError),
}

/// What an attempt needs; shared by those that run side by side.
pub(super) struct Context<'a> {
    pub(super) store: Arc<dyn Store>,
    pub(super) rules: &'a Rules,
    zones: &'a ZonesConfig,
    owner: &'a str,
    pub(super) now: f64,
}

impl Engine {
    /// Makes these assignments true, and takes over what was learnt in doing so. True when another round right away is worth its while. One that
    /// fails concerns its order and drone only: others go on.
    pub(super) async fn assign(&mut self, assignments: Vec<Assignment>, wanted: Wanted) -> bool {
        let now = self.now();
        let mut again = false;
        for (pair, attempt) in self.attempt_all(assignments, wanted, now).await {
            again |= matches!(attempt.outcome, Outcome::Overtaken);
            self.settle(&pair, attempt, wanted, now);
        }
        again
    }

    /// Tries each of these pairs, [`ASSIGN_CONCURRENCY`] at a time.
    pub(super) async fn attempt_all(
        &self,
        pairs: Vec<Assignment>,
        wanted: Wanted,
        now: f64,
    ) -> Vec<(Assignment, Attempt)> {
        let context = Context {
            store: Arc::clone(&self.parts.store),
            rules: &self.parts.rules,
            zones: &self.zones,
            owner: &self.parts.owner,
            now,
        };
        let context = &context;
        let (orders, traces) = (&self.mirror.orders, &self.traces);
        stream::iter(pairs)
            .map(|pair| async move {
                let record = orders.get(&pair.delivery_id).map(|order| &order.seen.record);
                let span = record.map(|record| traces.pairing(record, &pair.drone_id, wanted.name()));
                let span = span.unwrap_or_else(|| Span::unrecorded(trace::Context::default()));
                let attempt = context.attempt_traced(&pair, wanted, span, &traces.tracer).await;
                (pair, attempt)
            })
            .buffer_unordered(ASSIGN_CONCURRENCY)
            .collect()
            .await
    }

    /// Takes over what an attempt to assign learnt.
    fn settle(&mut self, pair: &Assignment, attempt: Attempt, wanted: Wanted, now: f64) {
        if let Some(drone) = attempt.drone {
            self.mirror.put_drone(drone);
        }
        if let Some(delivery) = attempt.delivery {
            if matches!(attempt.outcome, Outcome::Done) {
                // One that is swapped was assigned before.
                if delivery.record.assigned_at.is_none_or(|at| at >= now) {
                    let waited_sec = (now - delivery.record.timestamp).max(0.0);
                    self.parts.metrics.assign_seconds.observe(waited_sec);
                } else if wanted == Wanted::Assigned {
                    self.parts.metrics.swaps.inc();
                }
                self.publish(DeliveryEvent::DeliveryAssigned, &delivery.record);
            }
            self.mirror.put_order(delivery, now);
        }
        self.note_outcome(pair, attempt.outcome, "assignment", now);
    }

    /// Takes note of an attempt that came to nothing: who is looked at again, and who is left alone for a while.
    pub(super) fn note_outcome(&mut self, pair: &Assignment, outcome: Outcome, what: &'static str, now: f64) {
        match outcome {
            Outcome::Done => return,
            Outcome::LockHeld => {}
            Outcome::Overtaken => {
                self.parts.metrics.lost_race(what);
                self.reread.insert(pair.delivery_id.clone());
                self.fleet_due.again();
                return;
            }
            Outcome::Failed(error) => {
                self.note_failure(&format!("{what} not completed"), &pair.delivery_id, &error);
                self.reread.insert(pair.delivery_id.clone());
                self.fleet_due.again();
            }
        }
        for id in [&pair.delivery_id, &pair.drone_id] {
            self.hold_off.insert(id.clone(), now + HOLD_OFF_SEC);
        }
    }
}

impl Context<'_> {
    /// As [`Self::attempt`], as a span of the order's trace, which its calls of the KV belong to.
    async fn attempt_traced(&self, pair: &Assignment, wanted: Wanted, mut span: Span, tracer: &Tracer) -> Attempt {
        let scope = Scope::new(span.context().clone(), tracer);
        let attempt = trace::within(scope, self.attempt(pair, wanted, &span)).await;
        match &attempt.outcome {
            Outcome::Done => {}
            Outcome::LockHeld => span.failed("somebody else holds a lock"),
            Outcome::Overtaken => span.failed("overtaken"),
            Outcome::Failed(error) => span.failed(error),
        }
        attempt
    }

    async fn attempt(&self, pair: &Assignment, wanted: Wanted, span: &Span) -> Attempt {
        let locks = [keys::delivery_lock(&pair.delivery_id), keys::drone_lock(&pair.drone_id)];
        let mut ops: Vec<BatchOp> = locks.iter().map(|name| self.lock(name)).collect();
        ops.push(op::get(keys::delivery(&pair.delivery_id)));
        ops.push(op::get(keys::drone(&pair.drone_id)));
        // In order: what is read is read under both locks.
        let results = match self.store.batch(ops, true).await {
            Ok(results) => results,
            // A lock that was taken without our learning its token frees itself.
            Err(error) => {
                return Attempt::failed(error);
            }
        };
        let tokens: Vec<(&String, String)> = locks
            .iter()
            .zip(&results)
            .filter_map(|(name, result)| match result {
                OpResult::Lock(answer) if answer.ok => Some((name, answer.token.clone()?)),
                _ => None,
            })
            .collect();
        let attempt = if tokens.len() == locks.len() {
            self.under_locks(pair, wanted, results, span).await
        } else {
            let failed = results.into_iter().find_map(|result| match result {
                OpResult::Failed(error) => Some(error),
                _ => None,
            });
            Attempt {
                outcome: failed.map_or(Outcome::LockHeld, Outcome::Failed),
                ..Attempt::default()
            }
        };
        let unlock: Vec<BatchOp> = tokens
            .into_iter()
            .map(|(name, token)| BatchOp::Unlock {
                key: name.clone(),
                token: Some(token),
            })
            .collect();
        if !unlock.is_empty()
            && let Err(error) = self.store.batch(unlock, false).await
        {
            tracing::debug!(%error, "locks not released; they will free themselves");
        }
        attempt
    }

    fn lock(&self, name: &str) -> BatchOp {
        BatchOp::Lock {
            key: name.to_owned(),
            ttl_sec: Some(LOCK_TTL_SEC),
            owner: Some(self.owner.to_owned()),
        }
    }

    /// The part under both locks: `results` ends with the two reads.
    async fn under_locks(&self, pair: &Assignment, wanted: Wanted, mut results: Vec<OpResult>, span: &Span) -> Attempt {
        let drone = read::<Drone>(results.pop());
        let delivery = read::<Delivery>(results.pop());
        match (delivery, drone) {
            (Ok(Some(delivery)), Ok(Some(drone))) => match wanted {
                // Boxed: what goes on in here is large, and several go on at once.
                Wanted::TakenBack => Box::pin(self.take_back(pair, delivery, drone, span)).await,
                _ => Box::pin(self.give(pair, delivery, drone, wanted, span)).await,
            },
            (Err(error), _) | (_, Err(error)) => Attempt::failed(error),
            (delivery, drone) => Attempt {
                delivery: delivery.unwrap_or_default(),
                drone: drone.unwrap_or_default(),
                outcome: Outcome::Overtaken,
            },
        }
    }

    async fn give(
        &self,
        pair: &Assignment,
        delivery: Seen<Delivery>,
        drone: Seen<Drone>,
        wanted: Wanted,
        span: &Span,
    ) -> Attempt {
        let fit = fitness(&drone.record, &delivery.record, self.now, self.zones, self.rules);
        // Who had it a moment ago was fit when it took it.
        let is_fit = fit.is_ok() || wanted == Wanted::Returned;
        let (true, Ok(busy), Ok(mut assigned)) = (
            is_fit,
            drone.record.take(&pair.delivery_id),
            delivery.record.assign(&pair.drone_id, self.now),
        ) else {
            return Attempt {
                delivery: Some(delivery),
                drone: Some(drone),
                outcome: Outcome::Overtaken,
            };
        };
        if wanted == Wanted::Returned {
            assigned.swaps = assigned.swaps.saturating_sub(1);
        }
        let outlook = outlook::flying(&assigned, &drone.record, self.now, self.zones, self.rules);
        let assigned = traces::at(assigned.expecting(outlook), span);
        self.swap_both(
            pair,
            Both {
                delivery,
                drone,
                assigned,
                busy,
            },
        )
        .await
    }

    async fn swap_both(&self, pair: &Assignment, both: Both) -> Attempt {
        let Both {
            delivery,
            drone,
            assigned,
            busy,
        } = both;
        let ops = op::cas(keys::drone(&pair.drone_id), Some(&drone.version), &busy).and_then(|first| {
            Ok(vec![
                first,
                op::cas(keys::delivery(&pair.delivery_id), Some(&delivery.version), &assigned)?,
            ])
        });
        let ops = match ops {
            Ok(ops) => ops,
            Err(error) => {
                return Attempt::failed(error);
            }
        };
        // In order: the delivery is only touched once the drone is ours.
        let mut results = match self.store.batch(ops, true).await {
            Ok(results) => results,
            Err(error) => {
                return Attempt::failed(error);
            }
        };
        let second = results.pop().map(OpResult::into_swap);
        let first = results.pop().map(OpResult::into_swap);
        let busy = match first {
            Some(Ok(Swap::Done(version))) => Seen { record: busy, version },
            Some(Err(error)) => {
                return Attempt::failed(error);
            }
            // The simulator or somebody else wrote the drone in between.
            _ => return Attempt::default(),
        };
        match second {
            Some(Ok(Swap::Done(version))) => Attempt {
                delivery: Some(Seen {
                    record: assigned,
                    version,
                }),
                drone: Some(busy),
                outcome: Outcome::Done,
            },
            // It may yet take effect: undoing the drone now could leave a delivery with a drone that flies another.
            Some(Err(error)) if error.is_outcome_unknown() => Attempt {
                drone: Some(busy),
                outcome: Outcome::Failed(error),
                ..Attempt::default()
            },
            Some(Err(error)) => {
                let drone = self.undo(pair, busy).await;
                Attempt {
                    drone,
                    outcome: Outcome::Failed(error),
                    ..Attempt::default()
                }
            }
            Some(Ok(swap)) => self.second_refused(pair, busy, &swap).await,
            None => Attempt {
                drone: Some(busy),
                ..Attempt::default()
            },
        }
    }

    /// Somebody changed the delivery: cancelled it, gave it away, or (another dispatcher, reconciling) finished our work.
    async fn second_refused(&self, pair: &Assignment, busy: Seen<Drone>, swap: &Swap) -> Attempt {
        let found = swap
            .found::<Delivery>(&keys::delivery(&pair.delivery_id))
            .ok()
            .flatten();
        let delivery = found.map(|found| Seen {
            record: found.value,
            version: found.version,
        });
        let finished = delivery.as_ref().is_some_and(|seen| {
            seen.record.status != DeliveryStatus::Pending
                && seen.record.drone_id.as_deref() == Some(&pair.drone_id)
                && seen.record.status.is_open()
        });
        if finished {
            return Attempt {
                delivery,
                drone: Some(busy),
                outcome: Outcome::Overtaken,
            };
        }
        Attempt {
            delivery,
            drone: self.undo(pair, busy).await,
            outcome: Outcome::Overtaken,
        }
    }

    /// Frees the drone again. When that fails too, reconciling finds a busy drone whose delivery is not its own.
    pub(super) async fn undo(&self, pair: &Assignment, busy: Seen<Drone>) -> Option<Seen<Drone>> {
        let mut seen = busy;
        for _ in 0..CAS_ATTEMPTS {
            let Ok(idle) = seen.record.release(&pair.delivery_id) else {
                return Some(seen);
            };
            let swap = op::cas(keys::drone(&pair.drone_id), Some(&seen.version), &idle);
            let results = self.store.batch(vec![swap.ok()?], false).await;
            match results.ok()?.pop()?.into_swap().ok()? {
                Swap::Done(version) => return Some(Seen { record: idle, version }),
                refused => {
                    let found = refused.found::<Drone>(&keys::drone(&pair.drone_id)).ok()??;
                    seen = Seen {
                        record: found.value,
                        version: found.version,
                    };
                }
            }
        }
        Some(seen)
    }
}

/// The records of an attempt, as read and as wanted.
struct Both {
    delivery: Seen<Delivery>,
    drone: Seen<Drone>,
    assigned: Delivery,
    busy: Drone,
}

/// The record out of a read; `None` when it is absent or cannot be understood (which refreshing will complain about).
fn read<T: serde::de::DeserializeOwned>(result: Option<OpResult>) -> Result<Option<Seen<T>>, KvError> {
    match result {
        Some(OpResult::Got(Some(found))) => Ok(parse(found).ok()),
        Some(OpResult::Failed(error)) => Err(error),
        _ => Ok(None),
    }
}
