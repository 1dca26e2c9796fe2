//! What the KV holds of orders and drones as its changes tell, and whether each of these changes was allowed.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::delivery::{Delivery, DeliveryStatus, HISTORY_MAX, HistoryEntry, Leg};
use domain::drone::Drone;
use domain::keys;
use kv_client::Version;
use serde_json::Value;

/// A record as it was last seen.
#[derive(Debug)]
pub(super) struct Known<T> {
    pub(super) record: T,
    version: Version,
}

/// The newest of everything that was seen.
#[derive(Debug, Default)]
pub(super) struct Picture {
    pub(super) orders: BTreeMap<String, Known<Delivery>>,
    pub(super) drones: BTreeMap<String, Known<Drone>>,
    /// Entries of open orders: the version that was seen last, and whether it is there.
    open: BTreeMap<String, (Version, bool)>,
    /// What happened to each order, in words.
    stories: BTreeMap<String, Vec<String>>,
    /// The least that a battery ever had, percent.
    pub(super) least_battery_pct: Option<f64>,
}

impl Picture {
    /// Takes note of a change, `at` so long after the beginning. What was seen before, or is older than that, changes nothing.
    ///
    /// # Errors
    /// Why it must not have happened.
    pub(super) fn note(
        &mut self,
        at: Duration,
        key: &str,
        version: &Version,
        value: Option<&Value>,
    ) -> Result<(), String> {
        if let Some(id) = keys::delivery_id(key) {
            match value {
                Some(value) => self.note_order(at, read(key, value)?, version),
                // Of a key that never was, the KV may settle just that, and tell.
                None if !self.orders.contains_key(id) => Ok(()),
                None => Err(format!("{key} was deleted\n{}", self.story(id))),
            }
        } else if let Some(id) = keys::open_id(key) {
            let is_newer = self.open.get(id).is_none_or(|(seen, _)| version.0 > seen.0);
            if is_newer {
                self.open.insert(id.to_owned(), (version.clone(), value.is_some()));
            }
            Ok(())
        } else if let Some(id) = keys::drone_id(key) {
            match value {
                Some(value) => self.note_drone(at, read(key, value)?, version),
                None if !self.drones.contains_key(id) => Ok(()),
                None => Err(format!("{key} was deleted")),
            }
        } else {
            Ok(())
        }
    }

    fn note_order(&mut self, at: Duration, new: Delivery, version: &Version) -> Result<(), String> {
        let id = new.id.clone();
        let known = self.orders.get(&id);
        if known.is_some_and(|known| version.0 <= known.version.0) {
            return Ok(());
        }
        let verdict = allowed(known.map(|known| &known.record), &new);
        let leg = new.leg.map_or(String::new(), |leg| format!(" {leg:?}"));
        let drone = new.drone_id.as_deref().unwrap_or("no drone");
        self.tell(
            &id,
            at,
            &format!("is {}{leg}, {drone} ({})", new.status.name(), version.0),
        );
        let record = new;
        let version = version.clone();
        self.orders.insert(id.clone(), Known { record, version });
        verdict.map_err(|wrong| format!("order {id} {wrong}\n{}", self.story(&id)))
    }

    fn note_drone(&mut self, at: Duration, new: Drone, version: &Version) -> Result<(), String> {
        let known = self.drones.get(&new.id);
        if known.is_some_and(|known| version.0 <= known.version.0) {
            return Ok(());
        }
        let before = known.and_then(|known| known.record.current_delivery.clone());
        if before != new.current_delivery {
            let drone = &new.id;
            if let Some(order) = before {
                self.tell(&order, at, &format!("{drone} lets go of it ({})", version.0));
            }
            if let Some(order) = &new.current_delivery {
                self.tell(order, at, &format!("{drone} takes it ({})", version.0));
            }
        }
        self.least_battery_pct = Some(
            self.least_battery_pct
                .map_or(new.battery, |least| least.min(new.battery)),
        );
        let verdict = if new.is_consistent() {
            Ok(())
        } else {
            Err(format!(
                "{} is {} and holds {:?}",
                new.id,
                new.status.name(),
                new.current_delivery
            ))
        };
        let version = version.clone();
        self.drones.insert(new.id.clone(), Known { record: new, version });
        verdict
    }

    /// The entry of an open order was looked for and is not there.
    pub(super) fn is_unlisted(&mut self, id: &str) {
        if let Some((_, is_there)) = self.open.get_mut(id) {
            *is_there = false;
        }
    }

    /// Whether the order is listed among the open ones.
    pub(super) fn lists(&self, id: &str) -> bool {
        self.open.get(id).is_some_and(|(_, is_there)| *is_there)
    }

    /// The orders listed among the open ones.
    pub(super) fn listed(&self) -> impl Iterator<Item = &str> {
        self.open
            .iter()
            .filter(|(_, (_, is_there))| *is_there)
            .map(|(id, _)| id.as_str())
    }

    /// Where the order is in its life, if it was seen.
    pub(super) fn status(&self, id: &str) -> Option<DeliveryStatus> {
        self.orders.get(id).map(|known| known.record.status)
    }

    /// Everything that was seen of an order.
    pub(super) fn story(&self, id: &str) -> String {
        let mut lines = self.stories.get(id).cloned().unwrap_or_default();
        if let Some(known) = self.orders.get(id) {
            lines.push(format!("its record: {}", serde_json::json!(known.record)));
        }
        lines.join("\n")
    }

    fn tell(&mut self, id: &str, at: Duration, what: &str) {
        let line = format!("{:8.3} s  {what}", at.as_secs_f64());
        self.stories.entry(id.to_owned()).or_default().push(line);
    }
}

fn read<T: serde::de::DeserializeOwned>(key: &str, value: &Value) -> Result<T, String> {
    serde_json::from_value(value.clone()).map_err(|error| format!("{key} cannot be read ({error}): {value}"))
}

/// Whether an order's record may follow another one.
fn allowed(old: Option<&Delivery>, new: &Delivery) -> Result<(), String> {
    let steps = &new.history;
    let last = steps.last().ok_or("has no history")?;
    if (last.status, last.leg, &last.drone_id) != (new.status, new.leg, &new.drone_id) {
        return Err("is not what its history says".to_owned());
    }
    if steps[0].status != DeliveryStatus::Pending {
        return Err("did not begin to wait".to_owned());
    }
    // Of a longer one some steps are left out.
    let is_whole = steps.len() < HISTORY_MAX;
    if let Some(pair) = steps.windows(2).find(|pair| is_whole && !is_step(&pair[0], &pair[1])) {
        return Err(format!("went from {:?} to {:?}", pair[0], pair[1]));
    }
    let Some(old) = old else { return Ok(()) };
    if !old.status.is_open() {
        return Err(format!("changed after it was {}", old.status.name()));
    }
    if is_whole && !steps.starts_with(&old.history) {
        return Err(format!("has another past than it had: {:?}", old.history));
    }
    Ok(())
}

/// Whether the second is a step that an order can take from the first.
fn is_step(from: &HistoryEntry, to: &HistoryEntry) -> bool {
    use DeliveryStatus::{Assigned, Cancelled, Delivered, Failed, InFlight, Pending};
    let keeps_drone = from.drone_id == to.drone_id;
    let is_loaded = from.leg == Some(Leg::ToDestination);
    match (from.status, to.status) {
        (Pending, Assigned) => from.drone_id.is_none() && to.drone_id.is_some(),
        (Assigned, InFlight) => keeps_drone && !is_loaded,
        (InFlight, InFlight) => keeps_drone && !is_loaded && to.leg == Some(Leg::ToDestination),
        (InFlight, Delivered) => keeps_drone && is_loaded,
        (Pending | Assigned | InFlight, Cancelled) => !is_loaded,
        (Assigned | InFlight, Pending) => !is_loaded && to.drone_id.is_none(),
        (Pending | Assigned | InFlight, Failed) => true,
        _ => false,
    }
}
