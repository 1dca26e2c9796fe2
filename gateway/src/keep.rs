//! Ends idempotency keys after their day.
//!
//! An entry that is asked for after its day counts as absent (see [`crate::submit`]), so nothing here is pressing: page by
//! page, for ever, every gateway looks through the entries and removes those that are older. An order thus costs no
//! write of its own for the end of its key. The work at a time is bounded, and only hurries while it finds something.

use std::time::Duration;

use domain::keys::IDEM_PREFIX;
use kv_client::{BatchOp, Kv, KvError, OpResult, op};
use rand::RngExt;
use service::{Heartbeat, Shutdown};

use crate::app::Clock;
use crate::submit::{REMEMBER_FOR, Remembered};

/// Entries the sweep looks at together.
const SWEEP_PAGE: usize = 500;
/// Middle of the pause between two of its pages; ±50 %, so that gateways do not look at the same page at the same time.
const SWEEP_EVERY: Duration = Duration::from_secs(2);
/// The same after a page with something to remove.
const SWEEP_ON: Duration = Duration::from_millis(100);
/// An entry is removed this long after its day, so that gateways whose clocks differ agree that it is over.
const SWEEP_AFTER: Duration = Duration::from_secs(10 * 60);

fn all_well(results: Vec<OpResult>) -> Result<(), KvError> {
    let failed = results.into_iter().find_map(|result| match result {
        OpResult::Failed(error) => Some(error),
        _ => None,
    });
    failed.map_or(Ok(()), Err)
}

/// Removes entries whose day is over, page by page, until `shutdown`.
pub(crate) async fn sweep(kv: Kv, clock: Clock, beat: Heartbeat, shutdown: Shutdown) {
    beat.ok();
    let mut after = None;
    let mut pause = SWEEP_EVERY;
    loop {
        let jittered = pause.mul_f64(rand::rng().random_range(0.5..=1.5));
        if !shutdown.sleep(jittered).await {
            return;
        }
        match sweep_page(&kv, after.as_deref(), clock()).await {
            Ok((next, removed)) => {
                after = next;
                pause = if removed > 0 { SWEEP_ON } else { SWEEP_EVERY };
                beat.ok();
            }
            Err(error) => {
                pause = SWEEP_EVERY;
                beat.failed(error);
            }
        }
    }
}

/// Looks at one page; answers where the next begins (`None`: at the beginning) and how many were removed.
async fn sweep_page(kv: &Kv, after: Option<&str>, now_sec: f64) -> Result<(Option<String>, usize), KvError> {
    let page = kv.scan::<Remembered>(IDEM_PREFIX, after, SWEEP_PAGE, false).await?;
    let before_sec = now_sec - (REMEMBER_FOR + SWEEP_AFTER).as_secs_f64();
    // What cannot be read is not ours to remove.
    let over: Vec<BatchOp> = page
        .items
        .into_iter()
        .flatten()
        .filter(|item| item.value.at < before_sec)
        // By version: should the key be in use again, that entry stays.
        .map(|item| op::delete_version(item.key, &item.version))
        .collect();
    let removed = over.len();
    all_well(kv.batch(over, false).await?)?;
    Ok((page.next, removed))
}

#[cfg(test)]
mod tests {
    use kv_client::testing::{Call, FakeKv};
    use serde_json::json;

    use super::*;

    const NOW_SEC: f64 = 1_800_000_000.0;
    const HOUR_SEC: f64 = 3_600.0;

    fn entry(age_hours: f64) -> Remembered {
        Remembered {
            id: "id".to_owned(),
            body_hash: "hash".to_owned(),
            at: NOW_SEC - age_hours * HOUR_SEC,
        }
    }

    #[tokio::test]
    async fn a_sweep_removes_what_is_past_its_day_a_page_at_a_time() {
        let fake = FakeKv::start().await;
        for number in 0..SWEEP_PAGE + 100 {
            fake.set(&format!("idem:{number:06}"), &entry(25.0));
        }
        fake.set("idem:000000", &entry(23.9));
        fake.set("idem:000001", &json!("not ours"));
        fake.set("other", &entry(25.0));
        let kv = fake.client();
        let (next, removed) = sweep_page(&kv, None, NOW_SEC).await.unwrap();
        assert_eq!(removed, SWEEP_PAGE - 2);
        let (end, removed) = sweep_page(&kv, next.as_deref(), NOW_SEC).await.unwrap();
        assert_eq!((end, removed), (None, 100));
        assert_eq!(
            fake.with(|store| store.keys("")),
            ["idem:000000", "idem:000001", "other"]
        );
        let batches = fake.count(Call::Batch);
        assert_eq!(sweep_page(&kv, None, NOW_SEC).await.unwrap(), (None, 0));
        assert_eq!(fake.count(Call::Batch), batches, "nothing to do costs a scan");
    }

    #[tokio::test]
    async fn a_key_that_is_in_use_again_stays() {
        let fake = FakeKv::start().await;
        fake.set("idem:k", &entry(30.0));
        fake.before_next(Call::Batch, |store| {
            store.set("idem:k", &entry(0.0));
        });
        sweep_page(&fake.client(), None, NOW_SEC).await.unwrap();
        assert_eq!(fake.record::<Remembered>("idem:k"), Some(entry(0.0)));
    }
}
