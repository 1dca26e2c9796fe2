//! The ticks: read the fleet, or the part of it that this process flies, move who has somewhere to go, write, tell.
//!
//! Promises:
//! - One scan, at most one batch of reads, and one batch of writes per tick (plus one per merge round); of a drone that does
//!   not change nothing but its sign of life is written. Where charge points have few slots and others fly parts of the fleet, what
//!   [`crate::slots`] needs besides.
//! - A drone that stands says so in its record now and then (`seen_at`) and on the bus. A frozen one is silent.
//! - Only `pos`, `battery`, `at_charge`, `charge_since`, `charge_queue` and `seen_at` are changed, by CAS from the version that was looked at. When somebody else was
//!   faster, the step is worked out again from what they wrote, so neither change is lost; up to [`MERGE_ROUNDS`] times a tick.
//! - A drone moves for the time since it last moved, at most [`catch_up_ticks`] of it: a slow KV makes the steps longer and
//!   not the flight, and an outage does not make drones jump across the city.
//! - A write whose outcome is unknown counts as done for the clock: drones never fly the same time twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use domain::chargers::{self, Place};
use domain::drone::{Drone, DroneStatus, HEARTBEAT_SEC, number_of};
use domain::events::DroneUpdate;
use domain::keys;
use domain::zones::ZonesConfig;
use kv_api::MAX_BATCH_OPS;
use kv_client::{Kv, KvError, OpResult, Swap, Version, Versioned, key_of, op};
use trace::Tracer;

use crate::clock::Now;
use crate::fleet::{self, MAX_RECORDS};
use crate::flights::Flights;
use crate::legs::Legs;
use crate::metrics::FleetMetrics;
use crate::motion::{self, Flight};
use crate::shard::Part;
use crate::slots::Slots;
use crate::telemetry::Telemetry;

/// How often a write is tried in one tick when others keep changing the record.
pub const MERGE_ROUNDS: u32 = 3;

/// The zones are read again after this many seconds.
const ZONES_REFRESH_SEC: f64 = 10.0;

/// Missing drones are registered again at most this often, seconds.
const REGISTER_AGAIN_SEC: f64 = 5.0;

/// A busy drone that stands still shows that it is alive after this many seconds, should the dispatcher have missed its event.
/// Any other drone does so after [`HEARTBEAT_SEC`].
const BUSY_REPEAT_SEC: f64 = 1.0;

/// Most ticks that a drone makes good at once: three, or as many as a second has.
#[must_use]
pub fn catch_up_ticks(tick_sec: f64) -> f64 {
    (1.0 / tick_sec).max(3.0)
}

/// What a tick did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TickReport {
    /// Drones seen.
    pub drones: usize,
    /// Records written.
    pub written: usize,
    /// Writes refused and merged.
    pub conflicts: usize,
    /// Writes given up.
    pub lost: usize,
}

/// The simulated fleet, or a part of it.
#[derive(Debug)]
pub struct Simulator {
    kv: Kv,
    part: Part,
    flight: Flight,
    zones: ZonesConfig,
    zones_read_sec: f64,
    registered_sec: f64,
    legs: Legs,
    flights: Flights,
    tracks: BTreeMap<String, Track>,
    /// Of this tick: who charges and who waits at a charge point.
    places: BTreeMap<String, Place>,
    /// Where slots are shared with others who fly.
    slots: Option<Slots>,
    unreadable: BTreeSet<String>,
    telemetry: Arc<Telemetry>,
    metrics: FleetMetrics,
}

/// What is remembered of a drone between ticks.
#[derive(Debug, Default)]
struct Track {
    /// Up to when its movement is done, steady seconds.
    moved_sec: f64,
    /// When it was last told of, steady seconds.
    told_sec: Option<f64>,
    /// The version we wrote or saw last.
    version: Option<Version>,
}

/// A drone on its way through a tick.
struct Step {
    from: Versioned<Drone>,
    to: Drone,
}

impl Simulator {
    /// The drones of `part`, at the time `now`. Nothing is read or written yet.
    #[must_use]
    pub fn new(
        kv: Kv,
        part: Part,
        flight: Flight,
        zones: ZonesConfig,
        telemetry: Arc<Telemetry>,
        metrics: FleetMetrics,
        now: Now,
    ) -> Self {
        let are_slots_shared = flight.charger_slots > 0 && !part.is_whole();
        Self {
            kv,
            slots: are_slots_shared.then(|| Slots::new(part.clone(), flight.charger_slots)),
            part,
            flight,
            zones,
            zones_read_sec: now.steady_sec,
            registered_sec: now.steady_sec,
            legs: Legs::default(),
            flights: Flights::default(),
            tracks: BTreeMap::new(),
            places: BTreeMap::new(),
            unreadable: BTreeSet::new(),
            telemetry,
            metrics,
        }
    }

    /// The same, recording the flights of orders that are traced.
    #[must_use]
    pub fn traced(self, tracer: Tracer) -> Self {
        Self {
            flights: Flights::new(tracer),
            ..self
        }
    }

    /// One tick at the time `now`.
    ///
    /// # Errors
    /// When the KV does not answer. Nothing is forgotten: the next tick goes on from what the KV then holds.
    pub async fn tick(&mut self, now: Now) -> Result<TickReport, KvError> {
        self.refresh_zones(now).await?;
        let fleet = self.read_fleet(now).await?;
        let mut report = TickReport {
            drones: fleet.len(),
            ..TickReport::default()
        };

        self.places = match &mut self.slots {
            Some(slots) => slots.settle(&self.kv, fleet.values(), &self.zones, now).await?,
            None => {
                let drones = fleet.values().map(|found| &found.value);
                chargers::places(drones, &self.zones, self.flight.charger_slots, now.unix_sec)
            }
        };
        self.count_chargers(fleet.values().map(|found| &found.value));

        let tracks = &self.tracks;
        let changed = |drone: &Drone| {
            let version = fleet.get(&drone.id).map(|found| &found.version);
            tracks.get(&drone.id).and_then(|track| track.version.as_ref()) != version
        };
        let busy = fleet
            .values()
            .map(|found| &found.value)
            .filter(|drone| drone.status == DroneStatus::Busy);
        self.legs.refresh(&self.kv, busy, changed, now.steady_sec).await?;
        if self.flights.is_on() {
            let drones = fleet.values().map(|found| &found.value);
            self.flights.follow(drones, &self.zones, |drone| self.legs.way(drone));
        }

        let mut steps = Vec::new();
        for found in fleet.into_values() {
            let ticks = self.due_ticks(&found.value.id, now);
            match self.step(&found.value, ticks, now) {
                Some(to) => steps.push(Step { from: found, to }),
                None => steps.extend(self.unmoved(found, now)),
            }
        }
        for _ in 0..MERGE_ROUNDS {
            if steps.is_empty() {
                break;
            }
            steps = self.write(steps, now, &mut report).await?;
        }
        report.lost += steps.len();
        self.metrics.writes_lost.inc_by(steps.len() as u64);
        Ok(report)
    }

    async fn refresh_zones(&mut self, now: Now) -> Result<(), KvError> {
        if now.steady_sec - self.zones_read_sec < ZONES_REFRESH_SEC {
            return Ok(());
        }
        // Equal ones have computed their ways already.
        if let Some(zones) = fleet::read_zones(&self.kv).await?.filter(|zones| *zones != self.zones) {
            self.zones = zones;
        }
        self.zones_read_sec = now.steady_sec;
        Ok(())
    }

    /// Every drone there is of this part, by id.
    async fn read_fleet(&mut self, now: Now) -> Result<BTreeMap<String, Versioned<Drone>>, KvError> {
        let expected = if self.part.is_whole() {
            MAX_RECORDS
        } else {
            // Records of further drones are kept: as many as there were in the last tick.
            self.part.numbers().len().max(self.tracks.len())
        };
        let range = self.part.range();
        let page = self
            .kv
            .scan_range::<Drone>(keys::DRONE_PREFIX, range, expected, MAX_RECORDS)
            .await?;
        let mut fleet = BTreeMap::new();
        let mut of_pool = 0;
        for item in page.items {
            // Unreadable ones exist too: registering would not make them.
            let number = keys::drone_id(key_of(&item)).and_then(number_of);
            of_pool += usize::from(number.is_some_and(|number| self.part.numbers().binary_search(&number).is_ok()));
            match item {
                // A record under another's key would be written to the wrong place.
                Ok(found) if keys::drone_id(&found.key) == Some(found.value.id.as_str()) => {
                    self.unreadable.remove(&found.key);
                    fleet.insert(found.value.id.clone(), found);
                }
                Ok(found) => self.warn_once(&found.key, &format!("its id is {:?}", found.value.id)),
                Err(bad) => self.warn_once(&bad.key, &bad.reason),
            }
        }
        self.tracks.retain(|id, _| fleet.contains_key(id));
        self.metrics.set_drones(fleet.values().map(|found| found.value.status));
        self.metrics
            .battery_mean_pct
            .set(mean(fleet.values().map(|found| found.value.battery)));
        if of_pool < self.part.numbers().len() && now.steady_sec - self.registered_sec >= REGISTER_AGAIN_SEC {
            let made = fleet::register(&self.kv, self.part.numbers(), &self.zones).await?;
            self.registered_sec = now.steady_sec;
            tracing::warn!(made, "drones were missing and were registered again");
        }
        Ok(fleet)
    }

    fn warn_once(&mut self, key: &str, reason: &str) {
        if self.unreadable.len() < MAX_RECORDS && self.unreadable.insert(key.to_owned()) {
            tracing::warn!(key, reason, "this record is no drone and is left alone");
        }
    }

    /// How many ticks of movement a drone has coming.
    fn due_ticks(&mut self, id: &str, now: Now) -> f64 {
        let tick_sec = self.flight.tick_sec;
        let track = self.tracks.entry(id.to_owned()).or_insert_with(|| Track {
            // One never seen before has just started its first tick.
            moved_sec: now.steady_sec - tick_sec,
            ..Track::default()
        });
        ((now.steady_sec - track.moved_sec) / tick_sec).clamp(0.0, catch_up_ticks(tick_sec))
    }

    fn step(&self, drone: &Drone, ticks: f64, now: Now) -> Option<Drone> {
        if drone.is_frozen(now.unix_sec) {
            return None;
        }
        // Looked at again, because somebody may have sent it elsewhere since.
        let place = self.places.get(&drone.id).copied();
        // A shared slot belongs to who came when it was taken: whoever was sent elsewhere since, or came anew, has to take another, and
        // must not come back as who it was.
        let place = place.filter(|place| self.slots.is_none() || place.is_of(drone, now.unix_sec));
        let placed = drone.placed(place.filter(|_| chargers::stands_at_charger(drone, &self.zones)));
        let target = motion::target(drone, self.legs.target(drone), &self.zones);
        let next = self.flight.step(&placed, target, &self.zones, ticks, now.unix_sec);
        let next = next.unwrap_or(placed);
        (next != *drone).then(|| seen(next, now))
    }

    /// Counts who charges, who waits for a slot, and who is on the way.
    fn count_chargers<'a>(&self, drones: impl Iterator<Item = &'a Drone>) {
        let (mut charging, mut waiting, mut coming) = (0, 0, 0);
        let is_sent = |drone: &&Drone| matches!(drone.status, DroneStatus::Charging | DroneStatus::Retiring);
        for drone in drones.filter(is_sent) {
            match self.places.get(&drone.id) {
                Some(place) if place.queue == 0 => charging += 1,
                Some(_) => waiting += 1,
                None => coming += 1,
            }
        }
        self.metrics.set_chargers(charging, waiting, coming);
    }

    /// Sends the steps, and gives back those to be tried again: somebody else was faster.
    async fn write(&mut self, steps: Vec<Step>, now: Now, report: &mut TickReport) -> Result<Vec<Step>, KvError> {
        let mut again = Vec::new();
        let mut left = steps.into_iter().peekable();
        while left.peek().is_some() {
            let chunk: Vec<Step> = left.by_ref().take(MAX_BATCH_OPS).collect();
            let ops = chunk
                .iter()
                .map(|step| op::cas(step.from.key.clone(), Some(&step.from.version), &step.to))
                .collect::<Result<_, _>>()?;
            let results = match self.kv.batch(ops, false).await {
                Ok(results) => results,
                Err(error) => {
                    if error.is_outcome_unknown() {
                        for step in &chunk {
                            self.note_unknown(step, now);
                        }
                    }
                    return Err(error);
                }
            };
            for (step, result) in chunk.into_iter().zip(results) {
                again.extend(self.settle(&step, result, now, report));
            }
        }
        Ok(again)
    }

    /// Takes note of one result; a step to be tried again, if there is one.
    fn settle(&mut self, step: &Step, result: OpResult, now: Now, report: &mut TickReport) -> Option<Step> {
        let swap = match result.into_swap() {
            Ok(swap) => swap,
            Err(error) => {
                tracing::debug!(drone = step.to.id, %error, "not written");
                report.lost += 1;
                self.metrics.writes_lost.inc();
                if error.is_outcome_unknown() {
                    self.note_unknown(step, now);
                }
                return None;
            }
        };
        if let Swap::Done(version) = swap {
            report.written += 1;
            self.metrics.writes.inc();
            self.note_slot(step, now);
            self.note_empty(step);
            let track = self.track(&step.to.id);
            track.moved_sec = now.steady_sec;
            track.version = Some(version);
            self.tell(&step.to, now);
            return None;
        }
        report.conflicts += 1;
        self.metrics.conflicts.inc();
        let from = match swap.found::<Drone>(&step.from.key) {
            Ok(from) => from?,
            Err(error) => {
                self.warn_once(&step.from.key, &error.to_string());
                return None;
            }
        };
        // Worked out again rather than copied over: they may have frozen it, freed it, or put it elsewhere.
        let ticks = self.due_ticks(&from.value.id, now);
        let to = self.step(&from.value, ticks, now)?;
        Some(Step { from, to })
    }

    /// A step of which nobody knows whether it was written.
    fn note_unknown(&mut self, step: &Step, now: Now) {
        self.track(&step.to.id).moved_sec = now.steady_sec;
        if let Some(slots) = self.slots.as_mut().filter(|_| step.to.charge_queue == Some(0)) {
            slots.doubt(&step.to.id, &step.from.version);
        }
    }

    /// A drone that does not change: its time has passed, and now and then it says that it is there. The step is its sign of
    /// life, if one is due.
    fn unmoved(&mut self, found: Versioned<Drone>, now: Now) -> Option<Step> {
        let drone = &found.value;
        let is_frozen = drone.is_frozen(now.unix_sec);
        let busy = drone.status == DroneStatus::Busy;
        let repeat_sec = if busy { BUSY_REPEAT_SEC } else { HEARTBEAT_SEC };
        let track = self.track(&drone.id);
        track.moved_sec = now.steady_sec;
        // Given an order where it already stands: nobody would hear of it for a while otherwise.
        let new_order = busy && track.version.as_ref() != Some(&found.version);
        track.version = Some(found.version.clone());
        if is_frozen {
            return None;
        }
        let told_sec = track.told_sec;
        // After a start the record tells when it was last seen.
        let silent_sec = told_sec.map_or_else(
            || drone.seen_at.map(|seen_at| (now.unix_sec - seen_at).abs()),
            |told_sec| Some(now.steady_sec - told_sec),
        );
        if silent_sec.is_some_and(|silent_sec| silent_sec >= repeat_sec) {
            let to = seen(drone.clone(), now);
            return Some(Step { from: found, to });
        }
        if new_order || told_sec.is_none() {
            self.tell(drone, now);
        }
        None
    }

    /// A drone that has got its slot: how long it waited.
    fn note_slot(&self, step: &Step, now: Now) {
        let had_slot = step.from.value.charge_queue == Some(0);
        if let (Some(0), Some(since), false) = (step.to.charge_queue, step.to.charge_since, had_slot) {
            self.metrics
                .charge_wait_seconds
                .observe((now.unix_sec - since).max(0.0));
        }
    }

    /// A battery that has run out in the air: it must not happen, so each time counts.
    fn note_empty(&self, step: &Step) {
        if motion::ran_out(&step.from.value, &step.to) {
            self.metrics.empty_in_air.inc();
            let (drone, status) = (&step.to.id, step.to.status.name());
            tracing::warn!(drone, status, "its battery ran out in the air; it creeps on");
        }
    }

    fn tell(&mut self, drone: &Drone, now: Now) {
        let update = DroneUpdate::of(drone);
        match self.flights.arrived(drone) {
            Some(flight) => flight.run(|| self.telemetry.push(&update)),
            None => self.telemetry.push(&update),
        }
        self.track(&drone.id).told_sec = Some(now.steady_sec);
    }

    fn track(&mut self, id: &str) -> &mut Track {
        self.tracks.entry(id.to_owned()).or_default()
    }
}

/// The record as it is written at `now`.
fn seen(drone: Drone, now: Now) -> Drone {
    Drone {
        seen_at: Some(now.unix_sec),
        ..drone
    }
}

#[expect(clippy::cast_precision_loss, reason = "a fleet has thousands of drones, not 2^52")]
fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len();
    if count == 0 {
        0.0
    } else {
        values.sum::<f64>() / count as f64
    }
}
