//! The ticks: read the fleet, move who has somewhere to go, write, tell.
//!
//! Promises:
//! - One scan, at most one batch of reads, and one batch of writes per tick (plus one per merge round); nothing is written of
//!   a drone that does not change.
//! - Only `pos`, `battery` and `at_charge` are changed, by CAS from the version that was looked at. When somebody else was
//!   faster, the step is worked out again from what they wrote, so neither change is lost; up to [`MERGE_ROUNDS`] times a tick.
//! - A drone moves for the time since it last moved, at most [`catch_up_ticks`] of it: a slow KV makes the steps longer and
//!   not the flight, and an outage does not make drones jump across the city.
//! - A write whose outcome is unknown counts as done for the clock: drones never fly the same time twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use domain::drone::{Drone, DroneStatus, number_of};
use domain::events::DroneUpdate;
use domain::keys;
use domain::zones::ZonesConfig;
use kv_api::MAX_BATCH_OPS;
use kv_client::{Kv, KvError, OpResult, Swap, Version, Versioned, op};

use crate::clock::Now;
use crate::fleet::{self, MAX_RECORDS};
use crate::legs::Legs;
use crate::metrics::FleetMetrics;
use crate::motion::{self, Flight};
use crate::telemetry::Telemetry;

/// How often a write is tried in one tick when others keep changing the record.
pub const MERGE_ROUNDS: u32 = 3;

/// The zones are read again after this many seconds.
const ZONES_REFRESH_SEC: f64 = 10.0;

/// Missing drones are registered again at most this often, seconds.
const REGISTER_AGAIN_SEC: f64 = 5.0;

/// A busy drone that stands still repeats its event after this many seconds, should the dispatcher have missed it.
const BUSY_REPEAT_SEC: f64 = 1.0;

/// Any other drone shows that it is alive after this many seconds of silence.
const IDLE_REPEAT_SEC: f64 = 10.0;

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

/// The simulated fleet.
#[derive(Debug)]
pub struct Simulator {
    kv: Kv,
    pool: u32,
    flight: Flight,
    zones: ZonesConfig,
    zones_read_sec: f64,
    registered_sec: f64,
    legs: Legs,
    tracks: BTreeMap<String, Track>,
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
    /// A fleet of `pool` drones, at the time `now`. Nothing is read or written yet.
    #[must_use]
    pub fn new(
        kv: Kv,
        pool: u32,
        flight: Flight,
        zones: ZonesConfig,
        telemetry: Arc<Telemetry>,
        metrics: FleetMetrics,
        now: Now,
    ) -> Self {
        Self {
            kv,
            pool,
            flight,
            zones,
            zones_read_sec: now.steady_sec,
            registered_sec: now.steady_sec,
            legs: Legs::default(),
            tracks: BTreeMap::new(),
            unreadable: BTreeSet::new(),
            telemetry,
            metrics,
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

        let mut steps = Vec::new();
        for found in fleet.into_values() {
            let ticks = self.due_ticks(&found.value.id, now);
            match self.step(&found.value, ticks, now) {
                Some(to) => steps.push(Step { from: found, to }),
                None => self.unmoved(&found, now),
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
        if let Some(zones) = fleet::read_zones(&self.kv).await? {
            self.zones = zones;
        }
        self.zones_read_sec = now.steady_sec;
        Ok(())
    }

    /// Every drone there is, by id.
    async fn read_fleet(&mut self, now: Now) -> Result<BTreeMap<String, Versioned<Drone>>, KvError> {
        let page = self.kv.scan_all::<Drone>(keys::DRONE_PREFIX, MAX_RECORDS).await?;
        let mut fleet = BTreeMap::new();
        let mut of_pool = 0;
        for item in page.items {
            let key = match &item {
                Ok(found) => &found.key,
                Err(bad) => &bad.key,
            };
            // Unreadable ones exist too: registering would not make them.
            let number = keys::drone_id(key).and_then(number_of);
            of_pool += u32::from(number.is_some_and(|number| (1..=self.pool).contains(&number)));
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
        if of_pool < self.pool && now.steady_sec - self.registered_sec >= REGISTER_AGAIN_SEC {
            let made = fleet::register(&self.kv, self.pool, &self.zones).await?;
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
        let target = motion::target(drone, self.legs.target(drone), &self.zones);
        self.flight.step(drone, target, &self.zones, ticks, now.unix_sec)
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
                            self.track(&step.to.id).moved_sec = now.steady_sec;
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
                    self.track(&step.to.id).moved_sec = now.steady_sec;
                }
                return None;
            }
        };
        if let Swap::Done(version) = swap {
            report.written += 1;
            self.metrics.writes.inc();
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

    /// A drone with nothing to write: its time has passed, and now and then it says that it is there.
    fn unmoved(&mut self, found: &Versioned<Drone>, now: Now) {
        let drone = &found.value;
        let repeat_sec = if drone.status == DroneStatus::Busy {
            BUSY_REPEAT_SEC
        } else {
            IDLE_REPEAT_SEC
        };
        let busy = drone.status == DroneStatus::Busy;
        let track = self.track(&drone.id);
        track.moved_sec = now.steady_sec;
        // Given an order where it already stands: nobody would hear of it for a while otherwise.
        let new_order = busy && track.version.as_ref() != Some(&found.version);
        track.version = Some(found.version.clone());
        let silent = track
            .told_sec
            .is_none_or(|told_sec| now.steady_sec - told_sec >= repeat_sec);
        if silent || new_order {
            self.tell(drone, now);
        }
    }

    fn tell(&mut self, drone: &Drone, now: Now) {
        self.telemetry.push(&DroneUpdate::of(drone));
        self.track(&drone.id).told_sec = Some(now.steady_sec);
    }

    fn track(&mut self, id: &str) -> &mut Track {
        self.tracks.entry(id.to_owned()).or_default()
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
