//! Sees every change of orders and drones as it comes, and says as soon as something is wrong.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use domain::keys;
use kv_client::{Kv, KvError, WatchEvent};
use serde_json::Value;
use tokio::task::JoinSet;

use super::MENDED_WITHIN;
use super::bonds::{Loose, loose};
use super::picture::Picture;
use crate::process::Patience;

/// How often the half-done is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Pause before the KV is asked again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Most records that are listed: far more than there are.
const RECORDS_MAX: usize = 50_000;
/// What is watched.
const PREFIXES: [&str; 3] = [keys::OPEN_PREFIX, keys::DELIVERY_PREFIX, keys::DRONE_PREFIX];

/// What the tasks know together.
#[derive(Debug, Default)]
struct Seen {
    picture: Picture,
    /// What is half-done: for how long.
    for_long: BTreeMap<Loose, Duration>,
    /// How long things of a kind were half-done at most.
    longest: BTreeMap<&'static str, Duration>,
    changes: u64,
    gaps: u64,
    /// What was found wrong first.
    wrong: Option<String>,
}

/// Watches until dropped.
pub(super) struct Watcher {
    eye: Eye,
    _tasks: JoinSet<()>,
}

/// What each task needs.
#[derive(Clone)]
struct Eye {
    kv: Kv,
    begun: Instant,
    seen: Arc<Mutex<Seen>>,
}

impl Watcher {
    pub(super) fn start(kv: &Kv, begun: Instant) -> Self {
        let eye = Eye {
            kv: kv.clone(),
            begun,
            seen: Arc::default(),
        };
        let mut tasks = JoinSet::new();
        for prefix in PREFIXES {
            let eye = eye.clone();
            tasks.spawn(async move { eye.follow(prefix).await });
        }
        Self { eye, _tasks: tasks }
    }

    /// Waits until something is wrong, and says what.
    pub(super) async fn wrong(&self) -> String {
        let mut clock = Patience::new(Duration::ZERO);
        loop {
            for loose in self.eye.overdue(clock.step()) {
                // What the watch told may be late; what the KV holds is not.
                if self.eye.is_still(&loose).await {
                    let story = self.eye.lock().picture.story(loose.order());
                    return format!("{loose}, for more than {MENDED_WITHIN:?}\n{story}");
                }
            }
            if let Some(wrong) = self.eye.lock().wrong.take() {
                return wrong;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until these orders have ended.
    ///
    /// # Errors
    /// The stories of those that have not, in time.
    pub(super) async fn ended(&self, ids: &[&str], within: Duration) -> Result<(), String> {
        let mut patience = Patience::new(within);
        loop {
            let open: Vec<&&str> = {
                let seen = self.eye.lock();
                let is_open = |id: &&&str| seen.picture.status(id).is_none_or(|status| status.is_open());
                ids.iter().filter(is_open).collect()
            };
            if open.is_empty() {
                return Ok(());
            }
            if patience.is_over() {
                let seen = self.eye.lock();
                let stories: Vec<_> = open
                    .iter()
                    .map(|id| format!("{id}:\n{}", seen.picture.story(id)))
                    .collect();
                return Err(format!(
                    "{} orders have not ended within {within:?}:\n{}",
                    open.len(),
                    stories.join("\n")
                ));
            }
            tokio::time::sleep(AGAIN_AFTER).await;
            for id in open {
                // When the KV does not answer, the next look does.
                let _ = self.eye.read(&keys::delivery(id)).await;
            }
        }
    }

    /// What is listed, held or half-done still, as the KV has it now.
    pub(super) async fn left(&self) -> Vec<String> {
        for prefix in PREFIXES {
            if let Err(error) = self.eye.list(prefix).await {
                return vec![error.to_string()];
            }
        }
        let seen = self.eye.lock();
        let listed = seen.picture.listed().map(|id| format!("order {id} is listed as open"));
        let held = seen.picture.drones.values().filter_map(|known| {
            let order = known.record.current_delivery.as_deref()?;
            Some(format!("{} holds order {order}", known.record.id))
        });
        let half_done = loose(&seen.picture);
        listed
            .chain(held)
            .chain(half_done.iter().map(Loose::to_string))
            .collect()
    }

    /// How an order ended, in words.
    pub(super) fn fate(&self, id: &str) -> String {
        let seen = self.eye.lock();
        let Some(known) = seen.picture.orders.get(id) else {
            return "unknown".to_owned();
        };
        let status = known.record.status.name();
        known
            .record
            .reason
            .as_ref()
            .map_or(status.to_owned(), |reason| format!("{status} ({reason})"))
    }

    /// Everything that was seen of an order.
    pub(super) fn story(&self, id: &str) -> String {
        self.eye.lock().picture.story(id)
    }

    /// What was seen altogether.
    pub(super) fn summary(&self) -> String {
        let seen = self.eye.lock();
        let longest: Vec<_> = seen
            .longest
            .iter()
            .map(|(kind, span)| format!("{kind} {span:.1?}"))
            .collect();
        format!(
            "{} changes seen, {} gaps, least battery {:.0} %\nlongest half-done: {}",
            seen.changes,
            seen.gaps,
            seen.picture.least_battery_pct.unwrap_or(f64::NAN),
            longest.join(", ")
        )
    }
}

impl Eye {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes every change of the keys with a prefix.
    async fn follow(&self, prefix: &str) {
        let mut watch = self.kv.watch(prefix);
        let mut is_listed = false;
        loop {
            match watch.next().await {
                Ok(WatchEvent::Change(change)) => {
                    let value = change
                        .value
                        .as_ref()
                        .map(|value| serde_json::from_str::<Value>(value.get()));
                    match value.transpose() {
                        Ok(value) => self.note(&change.key, &change.version, value.as_ref()),
                        Err(error) => self.found(format!("{} cannot be read: {error}", change.key)),
                    }
                }
                Ok(WatchEvent::Alive) => {}
                Ok(WatchEvent::Gap { .. }) => {
                    self.lock().gaps += 1;
                    is_listed = false;
                }
                // It goes on where it stopped.
                Err(_) => continue,
            }
            // What was there before, or may have been missed.
            if !is_listed {
                is_listed = self.list(prefix).await.is_ok();
            }
        }
    }

    fn note(&self, key: &str, version: &kv_client::Version, value: Option<&Value>) {
        let mut seen = self.lock();
        seen.changes += 1;
        let verdict = seen.picture.note(self.begun.elapsed(), key, version, value);
        drop(seen);
        if let Err(wrong) = verdict {
            self.found(wrong);
        }
    }

    fn found(&self, wrong: String) {
        self.lock().wrong.get_or_insert(wrong);
    }

    /// Notes all keys with a prefix as they are now.
    async fn list(&self, prefix: &str) -> Result<(), KvError> {
        let before: Vec<String> = match prefix {
            keys::OPEN_PREFIX => self.lock().picture.listed().map(str::to_owned).collect(),
            _ => Vec::new(),
        };
        let page = self.kv.scan_all::<Value>(prefix, RECORDS_MAX).await?;
        let found: Vec<_> = page.into_good().collect();
        for item in &found {
            self.note(&item.key, &item.version, Some(&item.value));
        }
        for id in before {
            // It may have come meanwhile: only what is asked for by name is known not to be there.
            self.read(&keys::open(&id)).await?;
        }
        Ok(())
    }

    /// Notes a key as it is now.
    async fn read(&self, key: &str) -> Result<(), KvError> {
        match self.kv.get::<Value>(key).await? {
            Some(found) => self.note(key, &found.version, Some(&found.value)),
            None => {
                if let Some(id) = keys::open_id(key) {
                    self.lock().picture.is_unlisted(id);
                }
            }
        }
        Ok(())
    }

    /// What has been half-done for too long, now that another `step` has passed.
    fn overdue(&self, step: Duration) -> Vec<Loose> {
        let mut seen = self.lock();
        let mut for_long = BTreeMap::new();
        for loose in loose(&seen.picture) {
            // The first look is its beginning.
            let span = seen.for_long.get(&loose).map_or(Duration::ZERO, |span| *span + step);
            let longest = seen.longest.entry(loose.kind()).or_default();
            *longest = (*longest).max(span);
            for_long.insert(loose, span);
        }
        seen.for_long = for_long;
        let is_overdue = |(_, span): &(&Loose, &Duration)| **span > MENDED_WITHIN;
        seen.for_long
            .iter()
            .filter(is_overdue)
            .map(|(loose, _)| loose.clone())
            .collect()
    }

    /// Whether it is half-done in the KV too: in two readings of all that it depends on, one after the other.
    async fn is_still(&self, about: &Loose) -> bool {
        for _ in 0..2 {
            let order = about.order();
            let read = async {
                self.read(&keys::delivery(order)).await?;
                self.read(&keys::open(order)).await?;
                self.list(keys::DRONE_PREFIX).await
            };
            // Nobody knows while the KV does not answer.
            if read.await.is_err() || !loose(&self.lock().picture).contains(about) {
                return false;
            }
        }
        true
    }
}
