//! A single drone that can be paused: it stands still and says nothing, as one that has broken down.
//!
//! That is what `freeze_until` in a drone's record does, so no simulator has to know of this. It is renewed while the pause lasts, and ends by
//! itself soon after this program has.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kv_client::{Kv, KvError};
use serde_json::{Map, Value};
use service::Shutdown;

use super::switch::{Mode, Switch};

/// A pause is written for so long.
const FREEZE: Duration = Duration::from_secs(60);
/// And renewed after so long.
const RENEW_EVERY: Duration = Duration::from_secs(20);
/// Pause between attempts: the simulator writes the record, too.
const RETRY_EVERY: Duration = Duration::from_millis(100);

/// Does what the drone's switch is told, until `stop`.
pub async fn follow(switch: Arc<Switch>, kv: Kv, stop: Shutdown) {
    let mut wanted = switch.subscribe();
    let mut written = Mode::Running;
    loop {
        let mode = *wanted.borrow_and_update();
        let until = (mode == Mode::Paused).then(|| unix_sec() + FREEZE.as_secs_f64());
        let mut pause = RENEW_EVERY;
        if mode != written || until.is_some() {
            match freeze(&kv, &switch.name, until).await {
                Ok(true) => {
                    written = mode;
                    switch.reached(mode);
                }
                Ok(false) => pause = RETRY_EVERY,
                Err(error) => {
                    tracing::warn!(drone = switch.name, %error, "the record was not changed; trying again");
                    pause = RETRY_EVERY;
                }
            }
        }
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            goes_on = stop.sleep(pause) => if !goes_on { return },
        }
    }
}

/// Writes into the drone's record until when it is left alone (Unix seconds). False: there is none, or somebody else was first.
async fn freeze(kv: &Kv, drone: &str, until: Option<f64>) -> Result<bool, KvError> {
    let key = domain::keys::drone(drone);
    let Some(found) = kv.get::<Map<String, Value>>(&key).await? else {
        return Ok(false);
    };
    let mut record = found.value;
    match until {
        Some(until) => record.insert("freeze_until".to_owned(), until.into()),
        None => record.remove("freeze_until"),
    };
    let swap = kv.cas_version(&key, Some(&found.version), &record, None).await?;
    Ok(swap.is_done())
}

fn unix_sec() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use kv_client::testing::FakeKv;
    use serde_json::json;
    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::chaos::DRONE_ACTIONS;
    use crate::chaos::switch::Action;

    async fn is_frozen(kv: &Kv, expected: bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let record = kv.get::<Value>("drone:drone-1").await.unwrap().unwrap().value;
            if record["freeze_until"].is_number() == expected {
                assert_eq!(record["battery"], 80, "the rest stays");
                return;
            }
            assert!(Instant::now() < deadline, "{record}");
            sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn a_drone_is_paused_and_goes_on() {
        let fake = FakeKv::start().await;
        let kv = fake.client();
        let switch = Switch::new(("drone-1".to_owned(), "drone"), None, DRONE_ACTIONS, None);
        let stop = Shutdown::new();
        let following = tokio::spawn(follow(Arc::clone(&switch), fake.client(), stop.clone()));
        switch.tell(Action::Pause).unwrap();
        // Its record may come later.
        kv.put("drone:drone-1", &json!({"id": "drone-1", "battery": 80}))
            .await
            .unwrap();
        is_frozen(&kv, true).await;
        switch.tell(Action::Start).unwrap();
        is_frozen(&kv, false).await;
        assert!(switch.tell(Action::Stop).is_err());
        stop.stop();
        following.await.unwrap();
    }
}
