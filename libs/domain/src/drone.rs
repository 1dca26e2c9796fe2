//! A drone: its record, its weight class, and which change of status is allowed when.
//!
//! Promises: the JSON shape of the keys [`crate::keys::drone`], with fields this code does not know carried along unchanged;
//! `status == busy` exactly when `current_delivery` is set, after every transition. The dispatcher owns `status`,
//! `current_delivery`, `charge_at`, `top_up` and the `feas_…` fields; the simulator owns `pos`, `battery`, `at_charge`, `seen_at`,
//! `charge_since` and `charge_queue` (the last two end with the charging, whoever ends it). Each writes by CAS from what it read,
//! changing only its own.
//!
//! ```text
//! inactive ⇄ idle ⇄ busy     idle → charging → idle     idle, charging → retiring → inactive     charging to top up → busy
//! idle, busy, charging, retiring → lost → idle
//! ```

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::chargers::Place;
pub use crate::class::DroneType;
use crate::energy::FULL_PCT;
use crate::geo::Point;
use crate::zones::ZonesConfig;

/// Most delivery ids that `feas_miss_set` remembers; the oldest go first.
pub const FEAS_MISS_SET_MAX: usize = 64;

/// A drone whose record has nothing new for this long, in seconds, gets a fresh `seen_at` from who flies it.
pub const HEARTBEAT_SEC: f64 = 10.0;

/// What a drone is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DroneStatus {
    /// Parked; not part of the active fleet.
    Inactive,
    /// Ready for an order.
    Idle,
    /// Flying a delivery.
    Busy,
    /// On its way to a charge point or charging there.
    Charging,
    /// As charging, but will be inactive afterwards.
    Retiring,
    /// Silent for too long: it gets no order until it is heard of again.
    Lost,
}

impl DroneStatus {
    /// All states, in the order they are shown.
    pub const ALL: [Self; 6] = [
        Self::Inactive,
        Self::Idle,
        Self::Busy,
        Self::Charging,
        Self::Retiring,
        Self::Lost,
    ];

    /// The name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Charging => "charging",
            Self::Retiring => "retiring",
            Self::Lost => "lost",
        }
    }

    /// True for the states that count as the active fleet: everything but inactive, retiring and lost.
    #[must_use]
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Idle | Self::Busy | Self::Charging)
    }
}

/// The record of a drone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Drone {
    /// `drone-1` … `drone-N`.
    pub id: String,
    /// Weight class.
    #[serde(rename = "type")]
    pub kind: DroneType,
    /// What it is doing.
    pub status: DroneStatus,
    /// Battery in percent, [0, 100].
    pub battery: f64,
    /// Where it is.
    pub pos: Point,
    /// Fraction of the remaining way covered per tick under `MOTION=fraction` ([`DroneType::fraction`]).
    pub speed: f64,
    /// The delivery it flies; set exactly while busy.
    #[serde(default)]
    pub current_delivery: Option<String>,
    /// How many distinct orders it was infeasible for since it last charged or flew.
    #[serde(default)]
    pub feas_miss: u32,
    /// The ids of those orders, newest last, at most [`FEAS_MISS_SET_MAX`].
    #[serde(default)]
    pub feas_miss_set: Vec<String>,
    /// Whether it stands at a charge point.
    #[serde(default)]
    pub at_charge: bool,
    /// While this (Unix seconds) is in the future the simulator leaves the drone alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freeze_until: Option<f64>,
    /// The charge point a charging drone must go to, when it is not simply the nearest: see [`Drone::charge_target`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charge_at: Option<Point>,
    /// While charging: it only uses the time until an order needs it, and may be given one at any moment.
    #[serde(default, skip_serializing_if = "is_false")]
    pub top_up: bool,
    /// When it came to the charge point at which it charges or waits for a slot, Unix seconds: see [`crate::chargers`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charge_since: Option<f64>,
    /// There, 0 while it has a slot (or is full and needs none), else its place in the queue, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charge_queue: Option<u32>,
    /// When who flies it last wrote the record, Unix seconds of its clock: a sign of life, to be compared with itself only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_at: Option<f64>,
    /// Whatever else the record holds: kept, so that merging never loses a foreign field.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// What only who flies the drone writes: as long as it stays the same, nothing was heard of the drone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sign {
    pos: Point,
    battery: f64,
    at_charge: bool,
    seen_at: Option<f64>,
}

/// A change of status that the drone's present state does not allow.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DroneError {
    /// Wrong status for this change.
    #[error("drone {id}: {change} needs status {expected}, it is {}", status.name())]
    Status {
        /// Which drone.
        id: String,
        /// What was wanted.
        change: &'static str,
        /// The statuses that allow it.
        expected: &'static str,
        /// The status it has.
        status: DroneStatus,
    },
    /// It holds another delivery, or none.
    #[error("drone {id}: holds delivery {found:?}, not {expected}")]
    OtherDelivery {
        /// Which drone.
        id: String,
        /// The delivery it holds.
        found: Option<String>,
        /// The delivery that was meant.
        expected: String,
    },
    /// It has been heard of since it was judged.
    #[error("drone {id}: is not silent any more")]
    NotSilent {
        /// Which drone.
        id: String,
    },
    /// It is not yet full, or not at a charge point.
    #[error(
        "drone {id}: battery {battery_pct}% (at a charge point: {at_charge}); needs {full_after_pct}% at a charge point"
    )]
    NotCharged {
        /// Which drone.
        id: String,
        /// Its battery in percent.
        battery_pct: f64,
        /// Whether it is at a charge point.
        at_charge: bool,
        /// What counts as full, percent.
        full_after_pct: f64,
    },
}

impl Drone {
    /// Drone number `number` (1, 2, …) of a new fleet: classes go round light, medium, heavy; places go round the charge
    /// points; idle and full. The dispatcher's fleet sizing retires what is too many.
    #[must_use]
    pub fn new(number: u32, zones: &ZonesConfig) -> Self {
        let index = number.saturating_sub(1) as usize;
        let kind = DroneType::ALL[index % DroneType::ALL.len()];
        let pos = if zones.zones.is_empty() {
            zones.bounds.center()
        } else {
            zones.zones[index % zones.zones.len()].charge
        };
        Self {
            id: format!("drone-{number}"),
            kind,
            status: DroneStatus::Idle,
            battery: FULL_PCT,
            pos,
            speed: kind.fraction(),
            current_delivery: None,
            feas_miss: 0,
            feas_miss_set: Vec::new(),
            at_charge: !zones.zones.is_empty(),
            freeze_until: None,
            charge_at: None,
            top_up: false,
            charge_since: None,
            charge_queue: None,
            seen_at: None,
            extra: Map::new(),
        }
    }

    /// True while the simulator must leave the drone alone at `now` (Unix seconds).
    #[must_use]
    pub fn is_frozen(&self, now: f64) -> bool {
        self.freeze_until.is_some_and(|until| until > now)
    }

    /// Where a charging or retiring drone flies to: `charge_at` when set, else the nearest charge point.
    #[must_use]
    pub fn charge_target(&self, zones: &ZonesConfig) -> Point {
        self.charge_at
            .or_else(|| zones.nearest_charge(self.pos).map(|(charge, _)| charge))
            .unwrap_or(self.pos)
    }

    /// True when it stands where it is to charge and has at least `full_after_pct`.
    #[must_use]
    pub fn is_charged(&self, full_after_pct: f64) -> bool {
        let where_sent = self.charge_at.is_none_or(|charge| self.pos.is_at_charge(charge));
        self.at_charge && where_sent && self.battery >= full_after_pct
    }

    /// The simulator's merge: the new place, battery (clamped to [0, 100]) and whether that is a charge point.
    #[must_use]
    pub fn moved(&self, pos: Point, battery_pct: f64, at_charge: bool) -> Self {
        Self {
            pos,
            battery: battery_pct.clamp(0.0, FULL_PCT),
            at_charge,
            ..self.clone()
        }
    }

    /// The simulator's merge: its place at its charge point, `None` when it does not stand at one to charge.
    #[must_use]
    pub fn placed(&self, place: Option<Place>) -> Self {
        Self {
            charge_since: place.map(|place| place.since),
            charge_queue: place.map(|place| place.queue),
            ..self.clone()
        }
    }

    /// The last sign of life.
    #[must_use]
    pub const fn sign(&self) -> Sign {
        Sign {
            pos: self.pos,
            battery: self.battery,
            at_charge: self.at_charge,
            seen_at: self.seen_at,
        }
    }

    /// Idle, busy, charging or retiring → lost, if nothing was heard of it since `last`. The delivery, if any, is taken from it.
    ///
    /// # Errors
    /// [`DroneError::Status`] from any other status, [`DroneError::NotSilent`] when something was heard.
    pub fn lose(&self, last: &Sign) -> Result<Self, DroneError> {
        let flown = [
            DroneStatus::Idle,
            DroneStatus::Busy,
            DroneStatus::Charging,
            DroneStatus::Retiring,
        ];
        self.need("lose", "idle, busy, charging or retiring", &flown)?;
        if self.sign() != *last {
            return Err(DroneError::NotSilent { id: self.id.clone() });
        }
        Ok(Self {
            current_delivery: None,
            charge_at: None,
            ..self.with_status(DroneStatus::Lost)
        })
    }

    /// lost → idle: it was heard of again.
    ///
    /// # Errors
    /// [`DroneError::Status`] unless lost.
    pub fn found(&self) -> Result<Self, DroneError> {
        self.need("found", "lost", &[DroneStatus::Lost])?;
        Ok(self.with_status(DroneStatus::Idle).cleared())
    }

    /// inactive or retiring → idle: joins the active fleet.
    ///
    /// # Errors
    /// [`DroneError::Status`] from any other status.
    pub fn wake(&self) -> Result<Self, DroneError> {
        self.need(
            "wake",
            "inactive or retiring",
            &[DroneStatus::Inactive, DroneStatus::Retiring],
        )?;
        Ok(Self {
            charge_at: None,
            ..self.with_status(DroneStatus::Idle)
        })
    }

    /// Whether it can be given an order as far as its status goes: idle, or charging to top up.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.current_delivery.is_none() && (self.status == DroneStatus::Idle || self.is_topping_up())
    }

    /// Whether it charges only until an order needs it.
    #[must_use]
    pub fn is_topping_up(&self) -> bool {
        self.status == DroneStatus::Charging && self.top_up
    }

    /// idle, or charging to top up → busy with `delivery_id`; what it was infeasible for is forgotten.
    ///
    /// # Errors
    /// [`DroneError::Status`] from any other status.
    pub fn take(&self, delivery_id: &str) -> Result<Self, DroneError> {
        if !self.is_topping_up() {
            self.need("take", "idle, or charging to top up", &[DroneStatus::Idle])?;
        }
        Ok(Self {
            current_delivery: Some(delivery_id.to_owned()),
            charge_at: None,
            ..self.with_status(DroneStatus::Busy).cleared()
        })
    }

    /// busy with `delivery_id` → idle: delivered, cancelled or undone.
    ///
    /// # Errors
    /// [`DroneError::Status`] unless busy, [`DroneError::OtherDelivery`] when busy with another.
    pub fn release(&self, delivery_id: &str) -> Result<Self, DroneError> {
        self.need("release", "busy", &[DroneStatus::Busy])?;
        if self.current_delivery.as_deref() != Some(delivery_id) {
            return Err(DroneError::OtherDelivery {
                id: self.id.clone(),
                found: self.current_delivery.clone(),
                expected: delivery_id.to_owned(),
            });
        }
        Ok(Self {
            current_delivery: None,
            ..self.with_status(DroneStatus::Idle)
        })
    }

    /// idle, or charging to top up → charging because it must, at the charge point `charge_at`, or at the nearest when `None`.
    ///
    /// # Errors
    /// [`DroneError::Status`] from any other status.
    pub fn charge(&self, charge_at: Option<Point>) -> Result<Self, DroneError> {
        if !self.is_topping_up() {
            self.need("charge", "idle, or charging to top up", &[DroneStatus::Idle])?;
        }
        Ok(Self {
            charge_at,
            ..self.with_status(DroneStatus::Charging)
        })
    }

    /// idle → charging to top up, at the nearest charge point, until an order needs it.
    ///
    /// # Errors
    /// [`DroneError::Status`] unless idle.
    pub fn top_up(&self) -> Result<Self, DroneError> {
        self.need("top up", "idle", &[DroneStatus::Idle])?;
        Ok(Self {
            charge_at: None,
            top_up: true,
            ..self.with_status(DroneStatus::Charging)
        })
    }

    /// charging → charging at another charge point, `charge_at`.
    ///
    /// # Errors
    /// [`DroneError::Status`] unless charging.
    pub fn divert(&self, charge_at: Point) -> Result<Self, DroneError> {
        self.need("divert", "charging", &[DroneStatus::Charging])?;
        Ok(Self {
            charge_at: Some(charge_at),
            top_up: false,
            ..self.placed(None)
        })
    }

    /// charging → idle, once full; what it was infeasible for is forgotten.
    ///
    /// # Errors
    /// [`DroneError::Status`] unless charging, [`DroneError::NotCharged`] when not yet full at its charge point.
    pub fn charged(&self, full_after_pct: f64) -> Result<Self, DroneError> {
        self.need("charged", "charging", &[DroneStatus::Charging])?;
        self.need_full(full_after_pct)?;
        Ok(Self {
            charge_at: None,
            ..self.with_status(DroneStatus::Idle).cleared()
        })
    }

    /// idle or charging → retiring: leaves the active fleet, and charges first.
    ///
    /// # Errors
    /// [`DroneError::Status`] from any other status.
    pub fn retire(&self) -> Result<Self, DroneError> {
        self.need(
            "retire",
            "idle or charging",
            &[DroneStatus::Idle, DroneStatus::Charging],
        )?;
        Ok(Self {
            charge_at: None,
            ..self.with_status(DroneStatus::Retiring)
        })
    }

    /// retiring → inactive, once full.
    ///
    /// # Errors
    /// [`DroneError::Status`] unless retiring, [`DroneError::NotCharged`] when not yet full at a charge point.
    pub fn retired(&self, full_after_pct: f64) -> Result<Self, DroneError> {
        self.need("retired", "retiring", &[DroneStatus::Retiring])?;
        self.need_full(full_after_pct)?;
        Ok(Self {
            charge_at: None,
            ..self.with_status(DroneStatus::Inactive).cleared()
        })
    }

    /// Remembers that the drone, idle, was infeasible for `delivery_ids`. `None` when all of them were known already,
    /// so that nothing needs to be written.
    #[must_use]
    pub fn missed<'a>(&self, delivery_ids: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut set = self.feas_miss_set.clone();
        for id in delivery_ids {
            if !set.iter().any(|known| known == id) {
                set.push(id.to_owned());
            }
        }
        if set.len() == self.feas_miss_set.len() {
            return None;
        }
        let excess = set.len().saturating_sub(FEAS_MISS_SET_MAX);
        set.drain(..excess);
        let feas_miss = u32::try_from(set.len()).unwrap_or(u32::MAX);
        Some(Self {
            feas_miss,
            feas_miss_set: set,
            ..self.clone()
        })
    }

    /// Any status but busy → busy with `delivery_id`, which already names this drone and has its parcel on board: a repair,
    /// after somebody else wrote the drone's record.
    ///
    /// # Errors
    /// [`DroneError::Status`] when busy.
    pub fn resume(&self, delivery_id: &str) -> Result<Self, DroneError> {
        let not_busy = [
            DroneStatus::Inactive,
            DroneStatus::Idle,
            DroneStatus::Charging,
            DroneStatus::Retiring,
        ];
        self.need("resume", "other than busy", &not_busy)?;
        let delivery = Some(delivery_id.to_owned());
        Ok(Self {
            current_delivery: delivery,
            charge_at: None,
            ..self.with_status(DroneStatus::Busy).cleared()
        })
    }

    /// A record whose `status` and `current_delivery` contradict each other, made consistent: busy with nothing becomes idle,
    /// a delivery of a drone that is not busy is dropped. `None` when there is nothing to mend.
    #[must_use]
    pub fn mended(&self) -> Option<Self> {
        if self.is_consistent() {
            return None;
        }
        let status = if self.status == DroneStatus::Busy {
            DroneStatus::Idle
        } else {
            self.status
        };
        Some(Self {
            current_delivery: None,
            ..self.with_status(status)
        })
    }

    /// True when `status` and `current_delivery` agree.
    #[must_use]
    pub fn is_consistent(&self) -> bool {
        (self.status == DroneStatus::Busy) == self.current_delivery.is_some()
    }

    fn with_status(&self, status: DroneStatus) -> Self {
        let next = match status {
            DroneStatus::Charging | DroneStatus::Retiring => self.clone(),
            _ => self.placed(None),
        };
        Self {
            status,
            top_up: false,
            ..next
        }
    }

    fn cleared(self) -> Self {
        Self {
            feas_miss: 0,
            feas_miss_set: Vec::new(),
            ..self
        }
    }

    fn need(&self, change: &'static str, expected: &'static str, from: &[DroneStatus]) -> Result<(), DroneError> {
        if from.contains(&self.status) {
            return Ok(());
        }
        Err(DroneError::Status {
            id: self.id.clone(),
            change,
            expected,
            status: self.status,
        })
    }

    fn need_full(&self, full_after_pct: f64) -> Result<(), DroneError> {
        if self.is_charged(full_after_pct) {
            return Ok(());
        }
        Err(DroneError::NotCharged {
            id: self.id.clone(),
            battery_pct: self.battery,
            at_charge: self.at_charge,
            full_after_pct,
        })
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

/// The number in `drone-7`, for sorting a fleet as people count. `None` for other ids.
#[must_use]
pub fn number_of(id: &str) -> Option<u32> {
    id.strip_prefix("drone-")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};
    use serde_json::json;

    use super::{Drone, DroneError, DroneStatus, FEAS_MISS_SET_MAX, Place, number_of};
    use crate::geo::Point;
    use crate::zones::ZonesConfig;

    fn drone() -> Drone {
        Drone::new(1, &ZonesConfig::rome(2, 2).unwrap())
    }

    #[test]
    fn a_fleet_goes_round() {
        let zones = ZonesConfig::rome(2, 2).unwrap();
        let fleet: Vec<_> = (1..=6).map(|number| Drone::new(number, &zones)).collect();
        let kinds: Vec<_> = fleet.iter().map(|drone| drone.kind.name()).collect();
        assert_eq!(kinds, ["light", "medium", "heavy", "light", "medium", "heavy"]);
        assert_eq!(fleet[4].pos, zones.zones[0].charge);
        assert_eq!(number_of("drone-12"), Some(12));
        assert_eq!(number_of("x"), None);
    }

    #[test]
    fn json_shape_and_foreign_fields() {
        let json = serde_json::to_value(drone()).unwrap();
        assert_eq!(json["type"], "light");
        assert_eq!(json["status"], "idle");
        assert_eq!(json["current_delivery"], json!(null));
        assert_eq!(json["feas_miss_set"], json!([]));
        assert!(json.get("freeze_until").is_none() && json.get("charge_at").is_none() && json.get("seen_at").is_none());
        let mut foreign = json;
        foreign["note"] = json!({"by": "a student"});
        foreign["freeze_until"] = json!(12.5);
        let read: Drone = serde_json::from_value(foreign.clone()).unwrap();
        assert!(read.is_frozen(12.0) && !read.is_frozen(12.5));
        assert_eq!(
            serde_json::to_value(read.moved(read.pos, 80.0, false)).unwrap()["note"],
            foreign["note"]
        );
        // A record as the first scripts write it: no bookkeeping fields.
        let bare = json!({"id": "drone-9", "type": "heavy", "status": "idle", "battery": 80,
            "pos": {"lat": 41.9, "lon": 12.5}, "speed": 0.15});
        assert!(
            serde_json::from_value::<Drone>(bare)
                .unwrap()
                .current_delivery
                .is_none()
        );
    }

    #[test]
    fn a_mission_and_back() {
        let busy = drone().take("d1").unwrap();
        assert!(busy.is_consistent() && busy.status == DroneStatus::Busy);
        assert!(matches!(busy.take("d2"), Err(DroneError::Status { .. })));
        assert!(matches!(busy.release("d2"), Err(DroneError::OtherDelivery { .. })));
        assert!(busy.charge(None).is_err() && busy.retire().is_err() && busy.wake().is_err());
        let idle = busy.release("d1").unwrap();
        assert_eq!(idle.status, DroneStatus::Idle);
        assert!(idle.release("d1").is_err(), "a repeated event changes nothing");
    }

    #[test]
    fn who_tops_up_may_be_taken_and_who_must_charge_may_not() {
        let topping = drone().top_up().unwrap();
        assert_eq!(serde_json::to_value(&topping).unwrap()["top_up"], true);
        assert!(topping.is_available() && topping.status == DroneStatus::Charging && topping.top_up().is_err());
        let busy = topping.take("d1").unwrap();
        assert!(busy.is_consistent() && !busy.top_up && !busy.is_available());
        let must = topping.charge(None).unwrap();
        assert!(!must.is_available() && must.take("d1").is_err() && must.charge(None).is_err());
        assert!(serde_json::to_value(&must).unwrap().get("top_up").is_none());
        for next in [topping.charged(95.0), topping.retire(), topping.lose(&topping.sign())] {
            assert!(!next.unwrap().top_up);
        }
    }

    #[test]
    fn contradictions_are_mended() {
        let empty = Drone {
            status: DroneStatus::Busy,
            ..drone()
        };
        assert_eq!(empty.mended().unwrap().status, DroneStatus::Idle);
        let charging = drone().charge(None).unwrap();
        let holding = Drone {
            current_delivery: Some("d1".to_owned()),
            ..charging.clone()
        };
        assert_eq!(holding.mended(), Some(charging.clone()));
        assert_eq!(charging.mended(), None);
        let resumed = charging.resume("d1").unwrap();
        assert!(resumed.is_consistent() && resumed.resume("d2").is_err());
    }

    #[test]
    fn charging_ends_only_when_full_where_it_was_sent() {
        let zones = ZonesConfig::rome(2, 2).unwrap();
        let far = zones.zones[3].charge;
        let charging = drone()
            .moved(Point::new(41.9, 12.5), 20.0, false)
            .charge(Some(far))
            .unwrap();
        assert_eq!(charging.charge_target(&zones), far);
        assert!(matches!(charging.charged(95.0), Err(DroneError::NotCharged { .. })));
        let elsewhere = charging.moved(zones.zones[0].charge, 100.0, true);
        assert!(elsewhere.charged(95.0).is_err());
        let waiting = charging
            .moved(far, 95.0, true)
            .placed(Some(Place { since: 7.0, queue: 2 }));
        assert_eq!(
            waiting.retire().unwrap().charge_queue,
            Some(2),
            "it keeps its place in the queue"
        );
        assert_eq!(waiting.charged(95.0).unwrap().charge_since, None);
        let diverted = waiting.divert(zones.zones[0].charge).unwrap();
        assert_eq!((diverted.charge_since, diverted.charge_queue), (None, None));
        assert!(diverted.charged(95.0).is_err(), "full, but not where it is wanted now");
        assert_eq!(diverted.charge_target(&zones), zones.zones[0].charge);
        assert!(drone().divert(far).is_err());
        let there = charging.moved(far, 95.0, true).charged(95.0).unwrap();
        assert_eq!((there.status, there.charge_at), (DroneStatus::Idle, None));
        let retiring = there.retire().unwrap();
        assert_eq!(
            retiring.retired(95.0).unwrap().wake().unwrap().status,
            DroneStatus::Idle
        );
    }

    #[test]
    fn a_silent_drone_is_lost_and_found() {
        let busy = drone().take("d1").unwrap();
        let last = busy.sign();
        let lost = busy.lose(&last).unwrap();
        assert_eq!((lost.status, &lost.current_delivery), (DroneStatus::Lost, &None));
        assert!(lost.is_consistent() && !lost.status.is_active());
        assert!(lost.take("d2").is_err() && lost.wake().is_err() && lost.resume("d1").is_err());
        assert_eq!(lost.found().unwrap().status, DroneStatus::Idle);
        // Anything that who flies it writes is a sign of life; a change of status is none.
        let beat = Drone {
            seen_at: Some(5.0),
            ..busy.clone()
        };
        for heard in [busy.moved(Point::new(41.9, 12.5), 90.0, false), beat] {
            assert!(matches!(heard.lose(&last), Err(DroneError::NotSilent { .. })));
        }
        assert!(busy.release("d1").unwrap().lose(&last).is_ok());
        assert!(busy.found().is_err());
    }

    #[test]
    fn misses_are_distinct_and_bounded() {
        let once = drone().missed(["a", "b", "a"]).unwrap();
        assert_eq!((once.feas_miss, once.feas_miss_set.len()), (2, 2));
        assert!(once.missed(["b"]).is_none());
        let ids: Vec<String> = (0..200).map(|n| n.to_string()).collect();
        let many = once.missed(ids.iter().map(String::as_str)).unwrap();
        assert_eq!(many.feas_miss_set.len(), FEAS_MISS_SET_MAX);
        assert_eq!(many.feas_miss_set.last().unwrap(), "199");
    }

    proptest! {
        #[test]
        fn every_walk_keeps_busy_and_delivery_together(steps in prop::collection::vec(0..12_u8, 0..60)) {
            let mut at = drone();
            for step in steps {
                let next = match step {
                    0 => at.wake(),
                    1 => at.take("a"),
                    2 => at.take("b"),
                    3 => at.release("a"),
                    4 => at.release("b"),
                    5 => at.charge(None),
                    6 => at.charged(95.0),
                    7 => at.retire(),
                    8 => at.lose(&at.sign()),
                    9 => at.found(),
                    10 => at.top_up(),
                    _ => at.retired(95.0),
                };
                if let Ok(next) = next {
                    prop_assert!(next.is_consistent());
                    prop_assert!(next.status != at.status || at.is_topping_up());
                    prop_assert_eq!(&next.id, &at.id);
                    at = next;
                }
            }
        }

        #[test]
        fn batteries_stay_in_range(battery in -500.0..500.0_f64) {
            let at = drone().moved(Point::new(41.9, 12.5), battery, false);
            prop_assert!((0.0..=100.0).contains(&at.battery));
        }
    }
}
