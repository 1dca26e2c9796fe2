//! How many deliveries are in which state, without counting all of them each time.
//!
//! A *checkpoint* in the KV says how many deliveries up to some id have ended, and how; the gateway keeps the states of
//! all later ones in memory (the *tail*), and reads again only what is new or still open. From time to time whoever
//! gets there first moves the checkpoint forward, by compare-and-swap, over records that have ended and are old enough
//! that none with a smaller id can still appear. So the cost is that of the open orders, after a million as after ten,
//! and every gateway and every restart gives the same totals.
//!
//! An order whose record only appears [`SETTLED_AFTER_SEC`] after its id was made (its first request died half-way and
//! was repeated later) may be missing from the totals of ended orders; nowhere else.

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;
use std::time::Duration;

use domain::delivery::DeliveryStatus;
use domain::keys::{self, DELIVERY_PREFIX};
use kv_client::{Kv, KvError, Version};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use service::http::ApiError;
use service::{Heartbeat, Shutdown};
use tokio::sync::Mutex;

use crate::app::App;
use crate::coalesce::Coalesced;
use crate::error::api_error;
use crate::listing::get_all;

/// Key of the checkpoint.
const CHECKPOINT: &str = "stats:deliveries";
/// Refreshes start at least this far apart.
const REFRESH_INTERVAL: Duration = Duration::from_millis(250);
/// Without viewers, this often the tail is brought up to date, so that the next viewer does not wait for it.
const IDLE_REFRESH: Duration = Duration::from_secs(10);
/// New records are looked for again among the ids of this long, because ids are made before records and on several
/// clocks.
const OVERLAP_SEC: f64 = 5.0;
/// Records at least this old are covered by the checkpoint once they have ended.
const SETTLED_AFTER_SEC: f64 = 600.0;
/// The checkpoint moves when this many at the front of the tail have ended.
const SETTLE_AT_LEAST: usize = 500;
/// Records per page.
const PAGE: usize = 1_000;
/// Pages of new records read in one refresh; the rest follows in the next ones.
const PAGES_MAX: usize = 20;
/// Open records read again in one refresh; with more, they take turns, after those that the dispatcher has lately
/// spoken of.
const RECHECK_MAX: usize = 250;
/// Most deliveries in memory: some 20 MB. With more the counts stay behind until the checkpoint can move.
const TAIL_MAX: usize = 200_000;

/// Totals of the deliveries up to `through`, all of which have ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Checkpoint {
    through: String,
    delivered: u64,
    failed: u64,
    cancelled: u64,
}

/// How many deliveries are in which state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Counts {
    pub(crate) pending: u64,
    pub(crate) assigned: u64,
    pub(crate) in_flight: u64,
    pub(crate) delivered: u64,
    pub(crate) failed: u64,
    pub(crate) cancelled: u64,
    pub(crate) total: u64,
    /// False while older deliveries are still being read, after a start without a checkpoint.
    pub(crate) complete: bool,
}

/// Counts for all who ask.
#[derive(Debug)]
pub(crate) struct Stats {
    shared: Coalesced<Counts>,
    /// Held during a refresh, which the lock of `shared` makes the only one anyway.
    tally: Mutex<Tally>,
}

#[derive(Debug, Default)]
struct Tally {
    base: Checkpoint,
    base_version: Option<Version>,
    loaded: bool,
    /// Every known delivery after the checkpoint.
    tail: BTreeMap<String, DeliveryStatus>,
    /// Where the next turn of rechecks begins.
    turn: String,
    complete: bool,
}

/// The part of a record that is counted.
#[derive(Deserialize)]
struct Head {
    status: DeliveryStatus,
}

impl Stats {
    pub(crate) fn new() -> Self {
        Self {
            shared: Coalesced::new(REFRESH_INTERVAL),
            tally: Mutex::default(),
        }
    }
}

/// The counts, read after this call.
///
/// # Errors
/// 503.
pub(crate) async fn counts(app: &App) -> Result<Counts, ApiError> {
    let refresh = || async {
        let mut tally = app.stats.tally.lock().await;
        tally
            .refresh(&app.kv, app.now(), &app.recent.delivery_ids())
            .await
            .map_err(|error| api_error(&error))?;
        Ok(tally.counts())
    };
    app.stats.shared.get(refresh).await
}

/// Keeps the tail up to date until `shutdown`.
pub(crate) async fn run(app: std::sync::Arc<App>, beat: Heartbeat, shutdown: Shutdown) {
    // Counting is no condition for taking orders, so this line is well from the start.
    beat.ok();
    loop {
        match counts(&app).await {
            Ok(_) => beat.ok(),
            Err(error) => beat.failed(error.detail),
        }
        if !shutdown.sleep(IDLE_REFRESH).await {
            return;
        }
    }
}

impl Tally {
    /// `changed` are ids that have probably changed: hints, which only decide what is looked at first.
    async fn refresh(&mut self, kv: &Kv, now_sec: f64, changed: &[String]) -> Result<(), KvError> {
        if !self.loaded {
            self.load(kv).await?;
        }
        let from = self.read_new(kv, now_sec).await?;
        self.recheck_open(kv, &from, changed).await?;
        if self.settled(now_sec) >= SETTLE_AT_LEAST {
            self.move_checkpoint(kv, now_sec).await?;
        }
        Ok(())
    }

    async fn load(&mut self, kv: &Kv) -> Result<(), KvError> {
        if let Some(found) = kv.get::<Value>(CHECKPOINT).await? {
            self.base = serde_json::from_value(found.value).unwrap_or_else(|error| {
                tracing::warn!(%error, "{CHECKPOINT} in the KV cannot be read; counting from the beginning");
                Checkpoint::default()
            });
            self.base_version = Some(found.version);
        } else {
            self.base = Checkpoint::default();
            self.base_version = None;
        }
        self.tail = self.tail.split_off(&self.base.through);
        self.tail.remove(&self.base.through);
        self.loaded = true;
        Ok(())
    }

    /// Reads the records that may be new; answers the id after which it has read everything.
    async fn read_new(&mut self, kv: &Kv, now_sec: f64) -> Result<String, KvError> {
        let newest_known = self.tail.last_key_value().map_or(&self.base.through, |(id, _)| id);
        let from = id_at(now_sec - OVERLAP_SEC)
            .min(newest_known.clone())
            .max(self.base.through.clone());
        let mut after = Some(keys::delivery(&from));
        self.complete = false;
        for _ in 0..PAGES_MAX {
            if self.tail.len() >= TAIL_MAX {
                break;
            }
            let page = kv.scan::<Head>(DELIVERY_PREFIX, after.as_deref(), PAGE, false).await?;
            after = page.next.clone();
            for item in page.into_good() {
                if let Some(id) = keys::delivery_id(&item.key) {
                    self.tail.insert(id.to_owned(), item.value.status);
                }
            }
            if after.is_none() {
                self.complete = true;
                break;
            }
        }
        Ok(from)
    }

    /// Reads those again that were open when last seen; what comes after `read_after` has just been read.
    async fn recheck_open(&mut self, kv: &Kv, read_after: &str, changed: &[String]) -> Result<(), KvError> {
        let open = |range: &mut dyn Iterator<Item = (&String, &DeliveryStatus)>, max: usize| -> Vec<String> {
            range
                .filter(|(_, status)| status.is_open())
                .map(|(id, _)| id.clone())
                .take(max)
                .collect()
        };
        let end = Bound::Included(read_after.to_owned());
        if self.turn.as_str() > read_after {
            self.turn.clear();
        }
        let mut ids = open(
            &mut self.tail.range((Bound::Excluded(self.turn.clone()), end)),
            RECHECK_MAX,
        );
        let left = RECHECK_MAX - ids.len();
        ids.extend(open(&mut self.tail.range(..=self.turn.clone()), left));
        self.turn = if left > 0 {
            String::new()
        } else {
            ids.last().cloned().unwrap_or_default()
        };
        let in_turn: HashSet<&String> = ids.iter().collect();
        let hinted = |id: &&String| {
            id.as_str() <= read_after
                && !in_turn.contains(id)
                && self.tail.get(*id).is_some_and(|status| status.is_open())
        };
        let hinted: Vec<String> = changed.iter().filter(hinted).cloned().collect();
        ids.extend(hinted);
        for (key, record) in get_all(kv, ids.iter().map(|id| keys::delivery(id)).collect()).await? {
            if let (Some(id), Ok(head)) = (keys::delivery_id(&key), Head::deserialize(&record)) {
                self.tail.insert(id.to_owned(), head.status);
            }
        }
        Ok(())
    }

    /// How many at the front of the tail the checkpoint could cover.
    fn settled(&self, now_sec: f64) -> usize {
        let limit = id_at(now_sec - SETTLED_AFTER_SEC);
        self.tail
            .iter()
            .take(PAGE)
            .take_while(|(id, status)| !status.is_open() && **id < limit)
            .count()
    }

    /// Moves the checkpoint by what the KV, not memory, says about the records after it.
    async fn move_checkpoint(&mut self, kv: &Kv, now_sec: f64) -> Result<(), KvError> {
        let limit = id_at(now_sec - SETTLED_AFTER_SEC);
        let page = kv
            .scan::<Head>(DELIVERY_PREFIX, Some(&keys::delivery(&self.base.through)), PAGE, false)
            .await?;
        let mut next = self.base.clone();
        for item in page.items {
            // A record that cannot be read is passed over, as everywhere.
            let Ok(item) = item else { continue };
            let Some(id) = keys::delivery_id(&item.key) else {
                continue;
            };
            if item.value.status.is_open() || id >= limit.as_str() {
                break;
            }
            next.add(item.value.status);
            id.clone_into(&mut next.through);
        }
        if next.through == self.base.through {
            return Ok(());
        }
        // Somebody else may have moved it, or the outcome may stay unknown: then what is there now counts, next time.
        self.loaded = false;
        if kv
            .cas_version(CHECKPOINT, self.base_version.as_ref(), &next, None)
            .await?
            .is_done()
        {
            tracing::debug!(through = next.through, "moved {CHECKPOINT}");
        }
        self.load(kv).await
    }

    fn counts(&self) -> Counts {
        let mut counts = Counts {
            delivered: self.base.delivered,
            failed: self.base.failed,
            cancelled: self.base.cancelled,
            complete: self.complete,
            ..Counts::default()
        };
        for status in self.tail.values() {
            *match status {
                DeliveryStatus::Pending => &mut counts.pending,
                DeliveryStatus::Assigned => &mut counts.assigned,
                DeliveryStatus::InFlight => &mut counts.in_flight,
                DeliveryStatus::Delivered => &mut counts.delivered,
                DeliveryStatus::Failed => &mut counts.failed,
                DeliveryStatus::Cancelled => &mut counts.cancelled,
            } += 1;
        }
        counts.total =
            counts.pending + counts.assigned + counts.in_flight + counts.delivered + counts.failed + counts.cancelled;
        counts
    }
}

impl Checkpoint {
    fn add(&mut self, status: DeliveryStatus) {
        match status {
            DeliveryStatus::Delivered => self.delivered += 1,
            DeliveryStatus::Failed => self.failed += 1,
            DeliveryStatus::Cancelled => self.cancelled += 1,
            DeliveryStatus::Pending | DeliveryStatus::Assigned | DeliveryStatus::InFlight => {}
        }
    }
}

/// The smallest UUIDv7 of that time (Unix seconds).
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to the 48 bits of a UUIDv7's clock"
)]
fn id_at(unix_sec: f64) -> String {
    let ms = (unix_sec * 1_000.0).clamp(0.0, 281_474_976_710_655.0) as u64;
    format!("{:08x}-{:04x}-7000-8000-000000000000", ms >> 16, ms & 0xffff)
}

#[cfg(test)]
mod tests {
    use kv_client::testing::FakeKv;
    use serde_json::json;

    use super::*;

    /// Far enough from 1970 for ids to look like real ones.
    const START_SEC: f64 = 1_800_000_000.0;

    fn id(second: u32) -> String {
        id_at(START_SEC + f64::from(second))
    }

    async fn put(kv: &Kv, second: u32, status: &str) {
        kv.put(
            &keys::delivery(&id(second)),
            &json!({"id": id(second), "status": status}),
        )
        .await
        .unwrap();
    }

    #[test]
    fn ids_sort_by_time() {
        assert!(id_at(1.0) < id_at(2.0));
        let real = uuid::Uuid::now_v7().to_string();
        let now = crate::app::system_clock()();
        assert!(id_at(now - 1.0) < real && real < id_at(now + 1.0), "{real}");
    }

    #[tokio::test]
    async fn counts_what_is_there_and_sees_it_change() {
        let fake = FakeKv::start().await;
        let kv = fake.client();
        put(&kv, 1, "pending").await;
        put(&kv, 2, "delivered").await;
        let mut tally = Tally::default();
        tally.refresh(&kv, START_SEC + 100.0, &[]).await.unwrap();
        let counts = tally.counts();
        assert_eq!(
            (counts.pending, counts.delivered, counts.total, counts.complete),
            (1, 1, 2, true)
        );

        put(&kv, 1, "in_flight").await;
        put(&kv, 99, "pending").await;
        // Its id was made before that of second 99, its record came later.
        put(&kv, 98, "failed").await;
        tally.refresh(&kv, START_SEC + 100.0, &[]).await.unwrap();
        let counts = tally.counts();
        assert_eq!(
            (counts.pending, counts.in_flight, counts.delivered, counts.failed),
            (1, 1, 1, 1)
        );
    }

    #[tokio::test]
    async fn the_checkpoint_moves_over_what_has_ended_and_totals_stay() {
        let fake = FakeKv::start().await;
        let kv = fake.client();
        let total = 1_200;
        for second in 0..total {
            put(&kv, second, if second == 1_100 { "pending" } else { "delivered" }).await;
        }
        let now = START_SEC + 5_000.0;
        let mut first = Tally::default();
        for _ in 0..4 {
            first.refresh(&kv, now, &[]).await.unwrap();
            let counts = first.counts();
            assert_eq!((counts.delivered, counts.pending), (u64::from(total) - 1, 1));
        }
        assert!(first.tail.len() <= 200, "{} in memory", first.tail.len());
        assert_eq!(first.base.delivered, 1_000);

        // Another gateway, and one that was overtaken, give the same.
        let mut second = Tally::default();
        second.refresh(&kv, now, &[]).await.unwrap();
        assert_eq!(second.counts(), first.counts());
        put(&kv, 1_100, "cancelled").await;
        second.refresh(&kv, now, &[]).await.unwrap();
        first.refresh(&kv, now, &[]).await.unwrap();
        assert_eq!(second.counts(), first.counts());
        assert_eq!(first.counts().cancelled, 1);
    }

    #[tokio::test]
    async fn many_open_orders_take_turns() {
        let fake = FakeKv::start().await;
        let kv = fake.client();
        let mut tally = Tally {
            loaded: true,
            ..Tally::default()
        };
        for second in 0..2_500 {
            tally.tail.insert(id(second), DeliveryStatus::Pending);
        }
        put(&kv, 10, "delivered").await;
        put(&kv, 2_400, "delivered").await;
        tally.recheck_open(&kv, &id(3_000), &[id(2_400)]).await.unwrap();
        assert_eq!(tally.counts().delivered, 2, "one in turn, one because of a hint");
        put(&kv, 2_200, "delivered").await;
        for _ in 0..2_500 / RECHECK_MAX + 1 {
            tally.recheck_open(&kv, &id(3_000), &[]).await.unwrap();
        }
        assert_eq!(tally.counts().delivered, 3);
    }
}
