//! Drones and deliveries as the KV's change feed tells them: never the truth itself, and rebuilt at any time.
//!
//! Of deliveries it keeps those that a drone has, however old, and the newest others; so its size does not depend on how many wait.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use domain::delivery::DeliveryStatus;
use domain::drone::DroneType;
use kv_api::RawValue;
use kv_client::Version;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::latency::{Latencies, Summary};

/// Deliveries without a drone that are kept.
pub(super) const OTHERS_MAX: usize = 1_000;
/// Drones that are kept.
pub(super) const DRONES_MAX: usize = 10_000;

/// A delivery's record as it is stored, on one line.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub(super) struct Record(Arc<RawValue>);

/// The part of a record that is looked at.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Head {
    pub(super) status: DeliveryStatus,
    #[serde(default)]
    pub(super) timestamp: Option<f64>,
    #[serde(default)]
    pub(super) assigned_at: Option<f64>,
    #[serde(default)]
    pub(super) picked_up_at: Option<f64>,
    #[serde(default)]
    pub(super) delivered_at: Option<f64>,
}

/// What viewers are told of a delivery.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub(super) enum DeliveryNews {
    Now(Record),
    Gone { id: String, deleted: bool },
}

/// What has changed since the last frame, each key once.
#[derive(Debug, Default)]
pub(super) struct News {
    /// The id and the fields that differ.
    pub(super) drones: Vec<Map<String, Value>>,
    /// Whole records.
    pub(super) deliveries: Vec<DeliveryNews>,
    pub(super) cluster: Option<ClusterNews>,
}

/// How the KV cluster is.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ClusterNews {
    /// When this was asked, Unix seconds.
    pub(super) at: f64,
    /// A kvfront has answered.
    pub(super) ok: bool,
    /// Its answer: the body of the KV's `GET /cluster`.
    pub(super) cluster: Option<Record>,
    /// Why there is none.
    pub(super) error: Option<String>,
}

#[derive(Debug)]
struct Drone {
    version: Version,
    record: Map<String, Value>,
    /// What viewers know of it.
    told: Map<String, Value>,
}

#[derive(Debug)]
struct Delivery {
    version: Version,
    record: Record,
}

/// The picture, and what of it viewers have not been told.
#[derive(Debug)]
pub(super) struct Mirror {
    drones: BTreeMap<String, Drone>,
    /// Deliveries that a drone has.
    flying: BTreeMap<String, Delivery>,
    /// The newest deliveries that none has.
    others: BTreeMap<String, Delivery>,
    changed_drones: BTreeSet<String>,
    changed_deliveries: BTreeMap<String, DeliveryNews>,
    cluster: Option<ClusterNews>,
    has_cluster_news: bool,
    latencies: Latencies,
    has_drones: bool,
    has_deliveries: bool,
}

impl Record {
    pub(super) fn new(raw: Box<RawValue>) -> Self {
        // Line breaks would end the event's line; in JSON they only stand between tokens.
        let one_line = if raw.get().contains(['\n', '\r']) {
            RawValue::from_string(raw.get().replace(['\n', '\r'], " ")).unwrap_or(raw)
        } else {
            raw
        };
        Self(Arc::from(one_line))
    }

    /// What is looked at of it: a [`Head`] or a [`super::gap::Trip`].
    fn part<'a, T: Deserialize<'a>>(&'a self) -> Option<T> {
        serde_json::from_str(self.0.get()).ok()
    }
}

impl Mirror {
    /// `km_per_min`: a medium drone's speed by the clock.
    pub(super) fn new(window: Duration, km_per_min: f64) -> Self {
        Self {
            drones: BTreeMap::new(),
            flying: BTreeMap::new(),
            others: BTreeMap::new(),
            changed_drones: BTreeSet::new(),
            changed_deliveries: BTreeMap::new(),
            cluster: None,
            has_cluster_news: false,
            latencies: Latencies::new(window, km_per_min),
            has_drones: false,
            has_deliveries: false,
        }
    }

    /// Both kinds have been read.
    pub(super) fn is_whole(&self) -> bool {
        self.has_drones && self.has_deliveries
    }

    pub(super) fn latencies(&mut self, now: f64) -> Summary {
        // Unknown classes count as the fastest: the bound stays one.
        let class = |drone: &Drone| {
            let class = drone.record.get("type").map(DroneType::deserialize);
            class.and_then(Result::ok).unwrap_or(DroneType::Light)
        };
        self.latencies.summary(now, self.drones.values().map(class))
    }

    /// Forgets all drones; they are put one by one, followed by this.
    pub(super) fn load_drones(&mut self, drones: impl Iterator<Item = (String, Version, Map<String, Value>)>) {
        self.drones.clear();
        self.changed_drones.clear();
        for (id, version, record) in drones {
            self.put_drone(&id, &version, Some(record));
        }
        for drone in self.drones.values_mut() {
            drone.told.clone_from(&drone.record);
        }
        self.changed_drones.clear();
        self.has_drones = true;
    }

    /// Forgets all deliveries and takes these.
    pub(super) fn load_deliveries(&mut self, deliveries: impl Iterator<Item = (String, Version, Record)>) {
        self.flying.clear();
        self.others.clear();
        for (id, version, record) in deliveries {
            self.put_delivery(&id, &version, Some(record));
        }
        self.changed_deliveries.clear();
        self.has_deliveries = true;
    }

    /// The drone has this record now, or is gone. What is not newer than what is known changes nothing.
    pub(super) fn put_drone(&mut self, id: &str, version: &Version, record: Option<Map<String, Value>>) {
        let has_room = self.drones.len() < DRONES_MAX;
        let known = self.drones.get_mut(id);
        if known.as_ref().is_some_and(|known| version.0 <= known.version.0) {
            return;
        }
        match (known, record) {
            (Some(known), Some(record)) => {
                known.version = version.clone();
                known.record = record;
            }
            (None, Some(record)) if has_room => {
                let drone = Drone {
                    version: version.clone(),
                    record,
                    told: Map::new(),
                };
                self.drones.insert(id.to_owned(), drone);
            }
            (None, _) => return,
            (Some(_), None) => {
                self.drones.remove(id);
            }
        }
        self.changed_drones.insert(id.to_owned());
    }

    /// The delivery has this record now, or is gone. What is not newer than what is known changes nothing.
    pub(super) fn put_delivery(&mut self, id: &str, version: &Version, record: Option<Record>) {
        let known = self.flying.get(id).or_else(|| self.others.get(id));
        if known.is_some_and(|known| version.0 <= known.version.0) {
            return;
        }
        let Some(record) = record else {
            self.flying.remove(id);
            self.others.remove(id);
            let id = id.to_owned();
            let gone = DeliveryNews::Gone {
                id: id.clone(),
                deleted: true,
            };
            self.changed_deliveries.insert(id, gone);
            return;
        };
        let Some(head) = record.part::<Head>() else {
            tracing::debug!(id, "a delivery's record cannot be read");
            return;
        };
        self.latencies.note(id, &head);
        if head.status == DeliveryStatus::Delivered
            && let Some(trip) = record.part()
        {
            self.latencies.note_trip(id, trip);
        }
        self.changed_deliveries
            .insert(id.to_owned(), DeliveryNews::Now(record.clone()));
        let seen = Delivery {
            version: version.clone(),
            record,
        };
        if head.status.has_drone() {
            self.others.remove(id);
            self.flying.insert(id.to_owned(), seen);
        } else {
            self.flying.remove(id);
            self.others.insert(id.to_owned(), seen);
            if self.others.len() > OTHERS_MAX {
                // Ids are UUIDv7: the first is the oldest.
                self.others.pop_first();
            }
        }
    }

    /// The cluster is like this now.
    pub(super) fn put_cluster(&mut self, news: ClusterNews) {
        self.cluster = Some(news);
        self.has_cluster_news = true;
    }

    /// How the cluster was when it was last asked.
    pub(super) fn cluster(&self) -> Option<&ClusterNews> {
        self.cluster.as_ref()
    }

    /// What has changed since the last call.
    pub(super) fn take_news(&mut self) -> News {
        let drones = std::mem::take(&mut self.changed_drones);
        News {
            drones: drones.iter().filter_map(|id| self.drone_news(id)).collect(),
            deliveries: std::mem::take(&mut self.changed_deliveries).into_values().collect(),
            cluster: std::mem::take(&mut self.has_cluster_news)
                .then(|| self.cluster.clone())
                .flatten(),
        }
    }

    /// All drones, as viewers are told.
    pub(super) fn drones(&self) -> Vec<&Map<String, Value>> {
        self.drones.values().map(|drone| &drone.record).collect()
    }

    /// The deliveries that are kept, oldest first.
    pub(super) fn deliveries(&self) -> Vec<&Record> {
        let mut all: Vec<_> = self.flying.iter().chain(&self.others).collect();
        all.sort_unstable_by_key(|(id, _)| *id);
        all.into_iter().map(|(_, delivery)| &delivery.record).collect()
    }

    fn drone_news(&mut self, id: &str) -> Option<Map<String, Value>> {
        let mut news = Map::new();
        news.insert("id".to_owned(), id.into());
        let Some(drone) = self.drones.get_mut(id) else {
            news.insert("deleted".to_owned(), true.into());
            return Some(news);
        };
        let is_new = drone.told.is_empty();
        for (field, value) in &drone.record {
            if drone.told.get(field) != Some(value) {
                news.insert(field.clone(), value.clone());
            }
        }
        for field in drone.told.keys().filter(|field| !drone.record.contains_key(*field)) {
            news.insert(field.clone(), Value::Null);
        }
        drone.told.clone_from(&drone.record);
        // Without a field beside the id nothing that viewers could see has changed.
        (is_new || news.len() > 1).then_some(news)
    }
}
