//! Looking: what the KV holds, by scan when due and by key when hinted at.

use std::collections::{BTreeSet, HashMap};

use domain::delivery::{Delivery, OpenEntry};
use domain::drone::Drone;
use domain::keys;
use domain::zones::ZonesConfig;
use kv_client::{KvError, OpResult, Version, Versioned, op};
use serde_json::Value;

use super::{Engine, parse};
use crate::limits::{
    FLEET_PAGE, MIRROR_DRONES_MAX, MIRROR_ORDERS_MAX, ORPHAN_AFTER_SEC, REREAD_AFTER_SEC, REREAD_MAX, SWEEP_MIN_SEC,
    SWEEP_PER_RECORD_SEC, ZONES_EVERY_SEC,
};

/// An open entry as a sweep found it.
struct Listed {
    id: String,
    version: Version,
    written_at: Option<f64>,
}

impl Engine {
    /// Reads the zone configuration now and then. A missing or unusable one leaves the last good one in force; the gateway
    /// writes it anew.
    pub(super) async fn refresh_zones(&mut self) -> Result<(), KvError> {
        let now = self.now();
        if !self.zones_due.is_due(now, ZONES_EVERY_SEC) {
            return Ok(());
        }
        let found = self.read_one(keys::ZONES_CONFIG.to_owned()).await?;
        self.zones_due.done(now);
        let Some(found) = found else { return Ok(()) };
        match parse::<ZonesConfig>(found) {
            Ok(zones) => match zones.record.check() {
                // Equal ones have computed their ways already.
                Ok(()) if zones.record == self.zones => {}
                Ok(()) => {
                    self.zones = zones.record;
                    self.mirror.screen_again();
                }
                Err(error) => self.complain(keys::ZONES_CONFIG, &error),
            },
            Err(error) => self.complain(keys::ZONES_CONFIG, &error),
        }
        Ok(())
    }

    /// Scans the fleet when due; else reads the drones that were hinted at.
    pub(super) async fn refresh_fleet(&mut self, hinted: BTreeSet<String>) -> Result<(), KvError> {
        let now = self.now();
        if self.fleet_due.is_due(now, interval_sec(self.mirror.drones.len())) {
            let mut after: Option<String> = None;
            let mut present = BTreeSet::new();
            loop {
                let page = self
                    .parts
                    .store
                    .scan(keys::DRONE_PREFIX, after.as_deref(), FLEET_PAGE)
                    .await?;
                for item in page.items {
                    match item {
                        Ok(found) => {
                            if let Some(id) = self.take_drone(found) {
                                present.insert(id);
                            }
                        }
                        Err(bad) => self.complain(&bad.key, &bad.reason),
                    }
                }
                after = page.next;
                if after.is_none() || present.len() >= MIRROR_DRONES_MAX {
                    break;
                }
            }
            self.mirror.drones.retain(|id, _| present.contains(id));
            let lost_sec = self.parts.rules.drone_lost_sec;
            self.mirror.silence.looked(now, lost_sec, |id| present.contains(id));
            self.fleet_due.done(now);
        } else if !hinted.is_empty() {
            let ids: Vec<String> = hinted
                .into_iter()
                .filter(|id| self.mirror.drones.contains_key(id))
                .collect();
            let results = self
                .batch(ids.iter().map(|id| op::get(keys::drone(id))).collect())
                .await?;
            for (id, result) in ids.iter().zip(results) {
                match result {
                    OpResult::Got(Some(found)) => drop(self.take_drone(found)),
                    OpResult::Got(None) => drop(self.mirror.drones.remove(id)),
                    _ => {}
                }
            }
        }
        self.mirror.update_baselines();
        Ok(())
    }

    /// Takes over a drone's record and answers its id, if it is one.
    fn take_drone(&mut self, found: Versioned<Value>) -> Option<String> {
        let key = found.key.clone();
        let id = keys::drone_id(&key)?;
        match parse::<Drone>(found) {
            Ok(seen) if seen.record.id == id => {
                self.mirror.put_drone(seen);
                Some(id.to_owned())
            }
            Ok(seen) => {
                self.complain(
                    &key,
                    &format_args!("id: got {:?}; expected {id:?}, as in its key", seen.record.id),
                );
                None
            }
            Err(error) => {
                self.complain(&key, &error);
                None
            }
        }
    }

    /// Sweeps a page of `open:` when due, and reads the records of orders that are new, hinted at, or due to be read again.
    pub(super) async fn refresh_orders(&mut self, hinted: BTreeSet<String>) -> Result<(), KvError> {
        let now = self.now();
        let mut wanted = hinted;
        // With a full mirror new orders wait for the sweep, whose turn comes when older ones have ended.
        let mut room = MIRROR_ORDERS_MAX.saturating_sub(self.mirror.orders.len());
        wanted.retain(|id| {
            let wanted = room > 0 && !self.mirror.orders.contains_key(id);
            room -= usize::from(wanted);
            wanted
        });
        wanted.append(&mut self.reread);
        let mut listed = HashMap::new();
        if self.sweep_due.is_due(now, interval_sec(self.swept)) {
            for entry in self.sweep().await? {
                if !self.mirror.orders.contains_key(&entry.id)
                    && self.mirror.orders.len() + wanted.len() < MIRROR_ORDERS_MAX
                {
                    wanted.insert(entry.id.clone());
                }
                listed.insert(entry.id.clone(), entry);
            }
            self.sweep_due.done(now);
            wanted.extend(self.stale(now));
        }
        let read = self.read_orders(&wanted, now).await;
        if read.is_err() {
            // Hints come once: keep them for the next round.
            self.reread = wanted;
        }
        let (absent, ended) = read?;
        self.drop_left_behind(&absent, &ended, &listed, now).await
    }

    /// Known orders that were not read for a while, the longest unread first.
    fn stale(&self, now: f64) -> Vec<String> {
        let mut stale: Vec<_> = self
            .mirror
            .orders
            .iter()
            .filter(|(_, order)| !(0.0..REREAD_AFTER_SEC).contains(&(now - order.read_at)))
            .map(|(id, order)| (order.read_at, id))
            .collect();
        stale.sort_by(|a, b| a.0.total_cmp(&b.0));
        stale.into_iter().take(REREAD_MAX).map(|(_, id)| id.clone()).collect()
    }

    /// Reads one page of open entries and forgets orders of its range that are no longer listed.
    async fn sweep(&mut self) -> Result<Vec<Listed>, KvError> {
        let limit = self.parts.rules.pending_scan_limit;
        let after = self.sweep_after.take();
        let page = self
            .parts
            .store
            .scan(keys::OPEN_PREFIX, after.as_deref(), limit)
            .await?;
        self.swept = page.items.len();
        let mut listed = Vec::new();
        for item in page.items {
            // A damaged entry still says which order is open.
            let (key, version, written_at) = match item {
                Ok(found) => {
                    let entry = serde_json::from_value::<OpenEntry>(found.value).ok();
                    (found.key, Some(found.version), entry.map(|entry| entry.timestamp))
                }
                Err(bad) => (bad.key, bad.version, None),
            };
            if let (Some(id), Some(version)) = (keys::open_id(&key), version) {
                listed.push(Listed {
                    id: id.to_owned(),
                    version,
                    written_at,
                });
            }
        }
        let first = after.as_deref().and_then(keys::open_id).unwrap_or("").to_owned();
        let last = page.next.as_deref().and_then(keys::open_id).map(str::to_owned);
        let present: BTreeSet<&str> = listed.iter().map(|entry| entry.id.as_str()).collect();
        self.mirror.orders.retain(|id, _| {
            let in_range = *id > first && last.as_ref().is_none_or(|last| id <= last);
            !in_range || present.contains(id.as_str())
        });
        self.sweep_after = page.next;
        Ok(listed)
    }

    /// Reads these orders' records into the mirror; answers which have none, and which have ended.
    async fn read_orders(&mut self, ids: &BTreeSet<String>, now: f64) -> Result<(Vec<String>, Vec<String>), KvError> {
        let results = self
            .batch(ids.iter().map(|id| op::get(keys::delivery(id))).collect())
            .await?;
        let (mut absent, mut ended) = (Vec::new(), Vec::new());
        for (id, result) in ids.iter().zip(results) {
            match result {
                OpResult::Got(Some(found)) => match parse::<Delivery>(found) {
                    Ok(seen) if seen.record.id == *id => {
                        if !seen.record.status.is_open() {
                            ended.push(id.clone());
                        }
                        self.mirror.put_order(seen, now);
                    }
                    Ok(seen) => {
                        let error = format!("id: got {:?}; expected {id:?}, as in its key", seen.record.id);
                        self.complain(&keys::delivery(id), &error);
                        self.mirror.orders.remove(id);
                    }
                    Err(error) => {
                        self.complain(&keys::delivery(id), &error);
                        self.mirror.orders.remove(id);
                    }
                },
                OpResult::Got(None) => {
                    self.mirror.orders.remove(id);
                    absent.push(id.clone());
                }
                // No answer for this one: what is known stays, and a later round asks again.
                _ => drop(self.reread.insert(id.clone())),
            }
        }
        Ok((absent, ended))
    }

    /// Removes the open entries of orders that have ended, and entries that never got a record.
    async fn drop_left_behind(
        &mut self,
        absent: &[String],
        ended: &[String],
        listed: &HashMap<String, Listed>,
        now: f64,
    ) -> Result<(), KvError> {
        // What is not listed now has no entry, or is listed by a later sweep: no need to delete on suspicion.
        let gone = ended.iter().filter(|id| listed.contains_key(*id));
        let mut ops: Vec<_> = gone.map(|id| op::delete(keys::open(id))).collect();
        let mut orphans = HashMap::new();
        let mut removed = Vec::new();
        for entry in absent.iter().filter_map(|id| listed.get(id)) {
            let seen_since = self.orphans.get(&entry.id).copied().unwrap_or(now);
            let since = entry.written_at.unwrap_or(seen_since).min(seen_since);
            if now - since > ORPHAN_AFTER_SEC {
                // Only the very entry that was seen: a gateway that tries the order again writes a new one.
                ops.push(op::delete_version(keys::open(&entry.id), &entry.version));
                removed.push(entry.id.clone());
            } else {
                orphans.insert(entry.id.clone(), seen_since);
            }
        }
        self.orphans.retain(|id, _| !listed.contains_key(id));
        if self.orphans.len() >= MIRROR_ORDERS_MAX {
            self.orphans.clear();
        }
        self.orphans.extend(orphans);
        self.batch(ops).await?;
        if removed.is_empty() {
            return Ok(());
        }
        tracing::info!(orders = ?removed, "removed open entries that never got a record");
        self.parts.metrics.repair("orphan_entry");
        // A record that came at this very moment must not be left without its entry.
        let late = self
            .batch(removed.iter().map(|id| op::get(keys::delivery(id))).collect())
            .await?;
        for (id, result) in removed.iter().zip(late) {
            if let Ok(Some(found)) = result.into_got::<Delivery>()
                && found.value.status.is_open()
            {
                self.ensure_open_entry(id, now).await?;
            }
        }
        Ok(())
    }

    /// Writes the open entry of an order unless there is one.
    pub(super) async fn ensure_open_entry(&self, id: &str, now: f64) -> Result<(), KvError> {
        let entry = OpenEntry {
            id: id.to_owned(),
            timestamp: now,
        };
        self.batch(vec![op::cas(keys::open(id), None, &entry)?]).await.map(drop)
    }

    async fn read_one(&self, key: String) -> Result<Option<Versioned<Value>>, KvError> {
        let mut results = self.batch(vec![op::get(key)]).await?;
        match results.pop() {
            Some(OpResult::Got(found)) => Ok(found),
            Some(OpResult::Failed(error)) => Err(error),
            _ => Ok(None),
        }
    }
}

/// Seconds between two scans that read about `records` records each.
fn interval_sec(records: usize) -> f64 {
    let records = f64::from(u32::try_from(records).unwrap_or(u32::MAX));
    SWEEP_MIN_SEC.max(records * SWEEP_PER_RECORD_SEC)
}
