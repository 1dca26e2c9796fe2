//! One round after the other: look, advance, miss the silent, repair, size, assign, charge.
//!
//! Promises, with any number of dispatchers, any of them killed at any point, and no help from the bus: no order gets two
//! drones and no drone two orders; every transition is a CAS from the state that justified it; whatever a crash leaves
//! half-done is finished or undone by whoever looks next; the cost of a round depends on the open orders and the fleet, not on
//! the past. All state here is a mirror that can be thrown away.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use domain::delivery::{Delivery, DeliveryStatus};
use domain::drone::Drone;
use domain::events::{DeliveryEvent, DeliveryStatusChanged};
use domain::keys;
use domain::zones::{DEFAULT_GRID_COLS, DEFAULT_GRID_ROWS, ROME, ZonesConfig};
use kv_client::{BatchOp, KvError, OpResult, Swap, Versioned, op};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::mpsc;
use trace::Tracer;

use crate::charging;
use crate::clock::Clock;
use crate::fleet::{Change, DroneChange};
use crate::hints::{Hints, Watch};
use crate::limits::{
    BATCH_OPS_MAX, CAS_ATTEMPTS, HOLD_OFF_SEC, OUTLOOK_EVERY_SEC, RETIRE_AFTER_SEC, SWAPS_PER_ORDER_SEC,
};
use crate::metrics::DispatchMetrics;
use crate::mirror::{Complaints, Due, Mirror, Seen};
use crate::outlook;
use crate::policy::Policy;
use crate::rules::Rules;
use crate::scale;
use crate::store::Store;
use crate::traces::Traces;

mod assign;
mod deliveries;
mod outlooks;
mod reconcile;
mod refresh;
mod snapshot;
mod take_back;

/// What an [`Engine`] is made of.
pub struct Parts {
    /// The KV.
    pub store: Arc<dyn Store>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// What to decide by.
    pub rules: Rules,
    /// Who gets which order.
    pub policy: Policy,
    /// Names this dispatcher in its locks.
    pub owner: String,
    /// Where status messages go; when it is full they are dropped and counted.
    pub outbox: mpsc::Sender<DeliveryStatusChanged>,
    /// What is counted.
    pub metrics: DispatchMetrics,
}

/// The dispatcher without network and loops: call [`Engine::round`] again and again.
pub struct Engine {
    parts: Parts,
    zones: ZonesConfig,
    mirror: Mirror,
    zones_due: Due,
    fleet_due: Due,
    sweep_due: Due,
    reconcile_due: Due,
    outlook_due: Due,
    /// Where the next sweep of `open:` goes on; `None` from the start.
    sweep_after: Option<String>,
    /// Records that the last sweep page read.
    swept: usize,
    /// Orders whose record must be read again before anything is decided about them.
    reread: BTreeSet<String>,
    /// Open entries without a readable record: since when.
    orphans: HashMap<String, f64>,
    /// Contradictions between drones and deliveries: since when.
    suspects: HashMap<reconcile::Suspect, f64>,
    /// Orders and drones that somebody else has locked, or whose keys do not answer: until when they are left alone.
    hold_off: HashMap<String, f64>,
    surplus_since: Option<f64>,
    swaps_due: Due,
    /// What [`Mirror::changes`] was when swaps were last looked for.
    swaps_seen: Option<u64>,
    complaints: Complaints,
    traces: Traces,
}

/// What a round came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RoundReport {
    /// True when another round right away may assign more.
    pub again: bool,
}

impl Engine {
    /// An engine that knows nothing yet.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let zones = ZonesConfig::build(ROME, DEFAULT_GRID_ROWS, DEFAULT_GRID_COLS)
            .expect("the default grid is one of the tested ones");
        Self {
            parts,
            zones,
            mirror: Mirror::default(),
            zones_due: Due::default(),
            fleet_due: Due::default(),
            sweep_due: Due::default(),
            reconcile_due: Due::default(),
            outlook_due: Due::default(),
            sweep_after: None,
            swept: 0,
            reread: BTreeSet::new(),
            orphans: HashMap::new(),
            suspects: HashMap::new(),
            hold_off: HashMap::new(),
            surplus_since: None,
            swaps_due: Due::default(),
            swaps_seen: None,
            complaints: Complaints::default(),
            traces: Traces::default(),
        }
    }

    /// The same, recording what becomes of orders that are traced.
    #[must_use]
    pub fn traced(mut self, tracer: Tracer) -> Self {
        self.traces.tracer = tracer;
        self
    }

    /// One round: reads what is due or hinted at, and does everything that can be done now.
    ///
    /// # Errors
    /// When the KV does not answer; whatever had been done by then stands, and the next round goes on.
    pub async fn round(&mut self, hints: Hints) -> Result<RoundReport, KvError> {
        let started = Instant::now();
        self.traces.flights = hints.contexts;
        self.refresh_zones().await?;
        self.refresh_fleet(hints.drones).await?;
        self.refresh_orders(hints.orders).await?;
        self.screen().await?;
        self.advance().await?;
        self.lose_silent().await?;
        self.reconcile().await?;
        self.wake().await?;
        let again = self.match_and_charge().await?;
        self.retire().await?;
        self.mirror.update_baselines();
        self.parts.metrics.set_orders(&self.mirror.orders_by_status());
        self.parts.metrics.set_drones(&self.mirror.drones_by_status());
        self.parts
            .metrics
            .round_seconds
            .observe(started.elapsed().as_secs_f64());
        Ok(RoundReport { again })
    }

    /// What would be news about each flying drone: see [`crate::hints::Inbox`].
    #[must_use]
    pub fn watches(&self) -> HashMap<String, Watch> {
        self.mirror.watches()
    }

    /// Whether the order `id` is in the queue of those that wait for a drone.
    #[must_use]
    pub fn has_queued(&self, id: &str) -> bool {
        self.status_of(id) == Some(DeliveryStatus::Pending)
    }

    /// What the mirror has of the order `id`; `None` when it does not know it.
    #[must_use]
    pub fn status_of(&self, id: &str) -> Option<DeliveryStatus> {
        self.mirror.orders.get(id).map(|order| order.seen.record.status)
    }

    fn now(&self) -> f64 {
        self.parts.clock.now_unix_sec()
    }

    /// Wakes drones where the fleet is too small for what waits.
    async fn wake(&mut self) -> Result<(), KvError> {
        let Some(autoscale) = self.parts.rules.autoscale else {
            return Ok(());
        };
        let drones: Vec<&Drone> = self.mirror.drones.values().map(|seen| &seen.record).collect();
        let changes = scale::plan_wake(&drones, &self.mirror.pending_by_type(), autoscale);
        self.change_drones(changes).await.map(drop)
    }

    /// Retires drones once there have been too many for a while.
    async fn retire(&mut self) -> Result<(), KvError> {
        let Some(autoscale) = self.parts.rules.autoscale else {
            return Ok(());
        };
        let now = self.now();
        let drones: Vec<&Drone> = self.mirror.drones.values().map(|seen| &seen.record).collect();
        let changes = scale::plan_retire(&drones, &self.mirror.pending_by_type(), autoscale);
        if changes.is_empty() {
            self.surplus_since = None;
            return Ok(());
        }
        // A clock that jumped back must not keep the surplus flying until it has caught up.
        let since = self.surplus_since.map_or(now, |since| since.min(now));
        self.surplus_since = Some(since);
        if now - since < RETIRE_AFTER_SEC {
            return Ok(());
        }
        self.change_drones(changes).await.map(drop)
    }

    /// Whether the next plan is to look for swaps. Without news a plan that was the best still is, so there is nothing to find out while nobody
    /// waits; and in large fleets not every event is worth a look at all that fly.
    fn wants_swaps(&mut self, now: f64) -> bool {
        let changes = Some(self.mirror.changes());
        let is_news = self.swaps_seen != changes || self.mirror.pending().next().is_some();
        let every_sec = self.mirror.orders_to_fetch() * SWAPS_PER_ORDER_SEC;
        let is_wanted = is_news && self.swaps_due.is_due(now, every_sec);
        if is_wanted {
            self.swaps_seen = changes;
            self.swaps_due.done(now);
        }
        is_wanted
    }

    /// Assigns what can be assigned and sends drones to charge. True when another round right away may assign more.
    async fn match_and_charge(&mut self) -> Result<bool, KvError> {
        let now = self.now();
        let held_off = self.hold_off.len();
        self.hold_off
            .retain(|_, until| (0.0..=HOLD_OFF_SEC).contains(&(*until - now)));
        if self.hold_off.len() < held_off {
            // Who was left alone until now may be part of a swap.
            self.swaps_seen = None;
        }
        let wants_swaps = self.wants_swaps(now);
        let carriers: Vec<(&Drone, &Delivery)> = self.mirror.carriers().collect();
        let snapshot = self.snapshot(now, wants_swaps);
        let plan = self.parts.policy.plan(&snapshot, &self.parts.rules);
        let mut charging = charging::plan(&snapshot, &plan, &self.parts.rules);
        charging.extend(charging::with_parcels(&carriers, &self.zones, &self.parts.rules));
        let outlook_due = self.outlook_due.is_due(now, OUTLOOK_EVERY_SEC);
        let outlooks = outlook_due.then(|| outlook::waiting(&snapshot, &plan, &self.parts.rules));
        let fell_back = plan.fell_back;
        let (taken_back, assignments) = (plan.taken_back, plan.assignments);
        if let Some(stopped) = fell_back {
            self.parts.metrics.fallbacks.inc();
            if self.complaints.may("policy", now) {
                tracing::warn!(%stopped, "too much to decide at once; greedy decided");
            }
        }
        let again = self.swap(taken_back, assignments).await;
        let applied = self.change_drones(charging).await?;
        if let Some(outlooks) = outlooks {
            self.tell_outlooks(outlooks).await?;
        }
        Ok(again || applied.iter().any(|change| change.change.frees()))
    }

    /// Makes changes of drones true, each by CAS, and answers which took place. Losing a race against the simulator, which
    /// writes the same records, is normal: the change is then tried on what is there now, as long as it still applies.
    async fn change_drones(&mut self, changes: Vec<DroneChange>) -> Result<Vec<DroneChange>, KvError> {
        let mut todo = changes;
        let mut applied = Vec::new();
        for _ in 0..CAS_ATTEMPTS {
            let mut ops = Vec::new();
            let mut sent = Vec::new();
            for change in std::mem::take(&mut todo) {
                let Some(seen) = self.mirror.drones.get(&change.drone_id) else {
                    continue;
                };
                if !charging::is_within_reach(&change.change, &seen.record, &self.zones, &self.parts.rules) {
                    tracing::debug!(drone = change.drone_id, "its battery is no longer enough for that");
                    continue;
                }
                match change.change.apply(&seen.record) {
                    Ok(Some(next)) => {
                        ops.push(op::cas(keys::drone(&change.drone_id), Some(&seen.version), &next)?);
                        sent.push((change, next));
                    }
                    Ok(None) => {}
                    Err(refused) => tracing::debug!(%refused, "a planned change no longer applies"),
                }
            }
            if ops.is_empty() {
                break;
            }
            let results = self.batch(ops).await?;
            for ((change, next), result) in sent.into_iter().zip(results) {
                match result.into_swap() {
                    Ok(Swap::Done(version)) => {
                        self.note_drone_change(&change, &next);
                        self.mirror.put_drone(Seen { record: next, version });
                        applied.push(change);
                    }
                    Ok(swap) => {
                        self.parts.metrics.lost_race("drone");
                        if self.adopt_drone(&change.drone_id, &swap) {
                            todo.push(change);
                        }
                    }
                    Err(error) => {
                        self.note_failure("drone not changed", &change.drone_id, &error);
                        self.fleet_due.again();
                    }
                }
            }
        }
        Ok(applied)
    }

    fn note_drone_change(&self, change: &DroneChange, next: &Drone) {
        let (drone, what, why) = (&change.drone_id, change.change.name(), change.why);
        self.parts.metrics.drone_change(what);
        match &change.change {
            Change::Charge { .. }
            | Change::TopUp
            | Change::Divert { .. }
            | Change::Charged { .. }
            | Change::Missed { .. }
                if self.parts.rules.debug_charge =>
            {
                tracing::info!(
                    drone,
                    what,
                    why,
                    battery = next.battery,
                    feas_miss = next.feas_miss,
                    "charging"
                );
            }
            _ => tracing::debug!(drone, what, why, "drone changed"),
        }
    }

    /// Takes over what a refused CAS found. False when there is nothing (readable) any more.
    fn adopt_drone(&mut self, id: &str, swap: &Swap) -> bool {
        match swap.found::<Drone>(&keys::drone(id)) {
            Ok(Some(found)) => {
                self.mirror.put_drone(Seen {
                    record: found.value,
                    version: found.version,
                });
                true
            }
            Ok(None) => {
                self.mirror.drones.remove(id);
                false
            }
            Err(error) => {
                self.complain(&keys::drone(id), &error);
                self.mirror.drones.remove(id);
                false
            }
        }
    }

    /// Runs operations on different keys, each on its own, in batches of [`BATCH_OPS_MAX`].
    async fn batch(&self, ops: Vec<BatchOp>) -> Result<Vec<OpResult>, KvError> {
        let mut results = Vec::with_capacity(ops.len());
        let mut ops = ops.into_iter().peekable();
        while ops.peek().is_some() {
            let some: Vec<BatchOp> = ops.by_ref().take(BATCH_OPS_MAX).collect();
            results.extend(self.parts.store.batch(some, false).await?);
        }
        Ok(results)
    }

    fn publish(&self, kind: DeliveryEvent, delivery: &Delivery) {
        self.parts.metrics.transition(kind.name());
        self.traces.log(kind, delivery);
        let message = DeliveryStatusChanged {
            kind,
            delivery_id: delivery.id.clone(),
            drone_id: delivery.drone_id.clone(),
        };
        if self.parts.outbox.try_send(message).is_err() {
            self.parts.metrics.unpublished.inc();
            tracing::debug!(
                delivery = delivery.id,
                event = kind.name(),
                "too many status messages waiting; dropped"
            );
        }
    }

    /// Logs that something was not done for want of the KV: loudly once in a while, since it fails for many at once and is
    /// tried again every round.
    fn note_failure(&mut self, what: &str, id: &str, error: &KvError) {
        let now = self.now();
        if self.complaints.may(what, now) {
            tracing::warn!(id, %error, "{what}; trying on");
        } else {
            tracing::debug!(id, %error, "{what}");
        }
    }

    fn complain(&mut self, key: &str, error: &dyn std::fmt::Display) {
        let now = self.now();
        if self.complaints.may(key, now) {
            tracing::warn!(key, %error, "a record cannot be read; it is skipped");
        }
    }
}

/// A record of type `T` out of what the KV holds, or why not.
fn parse<T: DeserializeOwned>(found: Versioned<Value>) -> Result<Seen<T>, serde_json::Error> {
    let version = found.version;
    serde_json::from_value(found.value).map(|record| Seen { record, version })
}
