//! `deliveries_index`: the newest 1,000 delivery ids, each at most once, for scripts that read them.
//!
//! Promises: an accepted order is in the index within 100 ms while the KV answers at its usual pace; orders never wait for
//! it; several gateways add to the one list without losing each other's ids. The document never grows beyond 1,000 ids,
//! however many orders there are. A gateway that is killed takes the ids with it that it had not written yet; whichever starts
//! next adds them from the records.
//!
//! A write carries the whole list, some 40 KB, to every copy. So writing takes a tenth of a gateway's time: after one that
//! took long, because the KV has much to do, ids gather for longer, as far as the 100 ms allow.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::keys::{self, DELIVERIES_INDEX, DELIVERIES_INDEX_MAX, DELIVERY_PREFIX};
use kv_client::{Kv, KvError, Swap, Version};
use rand::RngExt;
use serde::de::IgnoredAny;
use serde_json::Value;
use service::{Heartbeat, Shutdown};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

/// How long ids gather before they are written together. Also the time in which other gateways have the key to
/// themselves.
const GATHER: Duration = Duration::from_millis(20);
/// After a write that took `t`, ids gather for this many times `t`, ...
const REST: u32 = 9;
/// ... but no longer than this.
const GATHER_MAX: Duration = Duration::from_millis(60);
/// Middle of the first pause after a failed write; doubles each time, with ±50 % of jitter.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// Longest pause between attempts.
const PAUSE_MAX: Duration = Duration::from_millis(1_000);
/// Without orders, this often the loop says that it is well.
const BEAT_EVERY: Duration = Duration::from_secs(2);
/// At the end, how long ids that are not yet written may still be.
const FLUSH_FOR: Duration = Duration::from_millis(1_500);

/// Ids to be added. Keeps the newest 1,000: older ones would fall out of the index anyway.
#[derive(Debug, Clone, Default)]
pub(crate) struct IndexQueue(Arc<Queue>);

#[derive(Debug, Default)]
struct Queue {
    ids: Mutex<VecDeque<String>>,
    added: Notify,
}

impl IndexQueue {
    /// Never waits.
    pub(crate) fn push(&self, id: String) {
        let mut ids = self.lock();
        if ids.len() >= DELIVERIES_INDEX_MAX {
            ids.pop_front();
        }
        ids.push_back(id);
        drop(ids);
        self.0.added.notify_one();
    }

    fn waiting(&self) -> Vec<String> {
        self.lock().iter().cloned().collect()
    }

    fn remove(&self, written: &[String]) {
        let written: BTreeSet<&String> = written.iter().collect();
        self.lock().retain(|id| !written.contains(id));
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<String>> {
        // Whole after every operation, so a poisoned lock is still good.
        self.0.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes ids as they come, until `drained` is signalled; then those that still wait, within [`FLUSH_FOR`].
pub(crate) async fn run(kv: Kv, queue: IndexQueue, beat: Heartbeat, drained: Shutdown) {
    let mut writer = Writer { kv, known: None };
    let mut caught_up = false;
    let mut pause = FIRST_PAUSE;
    let mut not_before = Instant::now();
    beat.ok();
    loop {
        tokio::select! {
            () = queue.0.added.notified() => {
                let next = not_before.max(Instant::now() + GATHER);
                tokio::select! {
                    () = sleep_until(next) => {}
                    () = drained.stopped() => break,
                }
            }
            () = sleep(BEAT_EVERY) => {}
            () = drained.stopped() => break,
        }
        let begun = Instant::now();
        loop {
            let ids = queue.waiting();
            if ids.is_empty() {
                beat.ok();
                break;
            }
            match writer.add(&ids).await {
                Ok(true) => {
                    queue.remove(&ids);
                    not_before = Instant::now() + rest_after(begun.elapsed());
                    pause = FIRST_PAUSE;
                    beat.ok();
                    // What has come meanwhile has also left a notification.
                    break;
                }
                // Somebody else was quicker, and the writer now knows their list: go on at once. Waiting would only
                // make it stale again, and a gateway with much to write could keep the others out for good.
                Ok(false) if drained.is_stopping() => break,
                Ok(false) => continue,
                Err(error) => {
                    beat.failed(&error);
                    tracing::debug!(%error, waiting = ids.len(), "{DELIVERIES_INDEX} could not be written");
                }
            }
            let jittered = pause.mul_f64(rand::rng().random_range(0.5..=1.5));
            if !drained.sleep(jittered).await {
                break;
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
        if !caught_up && !drained.is_stopping() {
            caught_up = writer.catch_up().await.unwrap_or_else(|error| {
                tracing::debug!(%error, "orders missing in {DELIVERIES_INDEX} cannot be looked for yet");
                false
            });
        }
    }
    let deadline = Instant::now() + FLUSH_FOR;
    while Instant::now() < deadline {
        let ids = queue.waiting();
        if ids.is_empty() {
            return;
        }
        if writer.add(&ids).await.is_ok_and(|done| done) {
            queue.remove(&ids);
        } else {
            sleep(FIRST_PAUSE).await;
        }
    }
}

/// How long ids gather after a write that took this long.
fn rest_after(took: Duration) -> Duration {
    (took * REST).min(GATHER_MAX)
}

/// Adds ids by compare-and-swap.
struct Writer {
    kv: Kv,
    /// The list and its version as last seen; the outer `None`: not known, read first.
    known: Option<(Vec<String>, Option<Version>)>,
}

impl Writer {
    /// Adds the newest orders as far as they are missing. False when somebody else was quicker: then try again.
    async fn catch_up(&mut self) -> Result<bool, KvError> {
        let mut ids = Vec::new();
        let mut after = None;
        loop {
            let left = DELIVERIES_INDEX_MAX - ids.len();
            let page = self
                .kv
                .scan::<IgnoredAny>(DELIVERY_PREFIX, after.as_deref(), left, true)
                .await?;
            after = page.next.clone();
            let found = page.into_good().take(left);
            ids.extend(found.filter_map(|item| keys::delivery_id(&item.key).map(str::to_owned)));
            if after.is_none() || ids.len() >= DELIVERIES_INDEX_MAX {
                break;
            }
        }
        // Without orders there is no list to make.
        if ids.is_empty() { Ok(true) } else { self.add(&ids).await }
    }

    /// True when the ids are in the list now, false when somebody else was quicker: then try again.
    async fn add(&mut self, ids: &[String]) -> Result<bool, KvError> {
        let (list, version) = match self.known.take() {
            Some(known) => known,
            None => read(
                self.kv
                    .get::<Value>(DELIVERIES_INDEX)
                    .await?
                    .map(|item| (item.value, item.version)),
            ),
        };
        let merged = merge(&list, ids);
        if merged == list && version.is_some() {
            self.known = Some((list, version));
            return Ok(true);
        }
        // After an unknown outcome `known` stays empty, so the next attempt reads what became of this one.
        match self
            .kv
            .cas_version(DELIVERIES_INDEX, version.as_ref(), &merged, None)
            .await?
        {
            Swap::Done(version) => {
                self.known = Some((merged, Some(version)));
                Ok(true)
            }
            refused => {
                let found = refused.found::<Value>(DELIVERIES_INDEX)?;
                self.known = Some(read(found.map(|item| (item.value, item.version))));
                Ok(false)
            }
        }
    }
}

/// The ids in the stored value; what is no list of texts is replaced.
fn read(found: Option<(Value, Version)>) -> (Vec<String>, Option<Version>) {
    let Some((value, version)) = found else {
        return (Vec::new(), None);
    };
    let list = serde_json::from_value(value).unwrap_or_else(|error| {
        tracing::warn!(%error, "{DELIVERIES_INDEX} in the KV is not a list of ids and is replaced");
        Vec::new()
    });
    (list, Some(version))
}

/// Both lists' ids, each once, oldest first, the newest [`DELIVERIES_INDEX_MAX`] of them. Ids are UUIDv7: their order
/// is their age.
fn merge(list: &[String], ids: &[String]) -> Vec<String> {
    let all: BTreeSet<&String> = list.iter().chain(ids).collect();
    let excess = all.len().saturating_sub(DELIVERIES_INDEX_MAX);
    all.into_iter().skip(excess).cloned().collect()
}

#[cfg(test)]
mod tests {
    use kv_client::testing::{Call, FakeKv};
    use proptest::prelude::{prop_assert, proptest};

    use super::*;

    fn ids(numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
        numbers.into_iter().map(|number| format!("{number:06}")).collect()
    }

    #[test]
    fn a_merge_keeps_the_newest_each_once() {
        assert_eq!(merge(&ids([1, 3]), &ids([3, 2])), ids([1, 2, 3]));
        assert_eq!(merge(&ids(0..1_000), &ids([1_000, 1_001])), ids(2..1_002));
        assert_eq!(
            merge(&ids(5..1_005), &ids([1])),
            ids(5..1_005),
            "older than all of a full list"
        );
    }

    #[test]
    fn the_queue_is_bounded() {
        let queue = IndexQueue::default();
        ids(0..1_500).into_iter().for_each(|id| queue.push(id));
        assert_eq!(queue.waiting(), ids(500..1_500));
        queue.remove(&ids(0..1_400));
        assert_eq!(queue.waiting(), ids(1_400..1_500));
    }

    #[tokio::test]
    async fn a_slow_kv_is_written_to_less_often() {
        let took = Duration::from_millis(30);
        let fake = FakeKv::start().await;
        let (queue, drained) = (IndexQueue::default(), Shutdown::new());
        let tasks = service::Tasks::new(Shutdown::new());
        let beat = tasks.check("index", Duration::MAX);
        let writer = tokio::spawn(run(fake.client(), queue.clone(), beat, drained.clone()));
        let seen = async |number: usize| {
            let deadline = Instant::now() + Duration::from_secs(10);
            let wanted = ids([number])[0].clone();
            while !fake
                .record::<Vec<String>>(DELIVERIES_INDEX)
                .unwrap_or_default()
                .contains(&wanted)
            {
                assert!(Instant::now() < deadline, "{wanted} is not written");
                sleep(Duration::from_millis(1)).await;
            }
        };
        // The list is known after the first, so that each further id is one write.
        queue.push(ids([0])[0].clone());
        seen(0).await;
        fake.delay(took);
        let (begun, before) = (Instant::now(), fake.count(Call::Cas));
        for number in 1..=4 {
            queue.push(ids([number])[0].clone());
            seen(number).await;
        }
        assert!(begun.elapsed() >= rest_after(took) * 3, "{:?}", begun.elapsed());
        assert_eq!(fake.count(Call::Cas) - before, 4);
        drained.stop();
        writer.await.unwrap();
    }

    #[test]
    fn a_rest_is_bounded() {
        assert_eq!(rest_after(Duration::from_millis(5)), Duration::from_millis(45));
        assert_eq!(rest_after(Duration::from_secs(60)), GATHER_MAX);
    }

    proptest! {
        #[test]
        fn merging_in_any_order_gives_one_result(a in proptest::collection::vec(0..2_000_usize, 0..40), b in proptest::collection::vec(0..2_000_usize, 0..40)) {
            let (a, b) = (ids(a), ids(b));
            let one = merge(&merge(&[], &a), &b);
            prop_assert!(one == merge(&merge(&[], &b), &a));
            prop_assert!(one.windows(2).all(|pair| pair[0] < pair[1]));
        }
    }
}
