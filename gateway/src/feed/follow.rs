//! Keeping the mirror up to date: read everything once, then follow the KV's change feed.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use domain::keys::{self, DELIVERY_PREFIX, DRONE_PREFIX};
use kv_api::RawValue;
use kv_client::{Change, Kv, KvError, OpResult, Version, WatchEvent, op};
use serde_json::{Map, Value};
use service::{Heartbeat, Shutdown};

use super::mirror::{ClusterNews, DRONES_MAX, OTHERS_MAX, Record};
use crate::app::App;
use crate::listing::with_zone;

/// Pause before everything is read again after that failed.
const RELOAD_PAUSE: Duration = Duration::from_millis(500);

/// How often viewers are told how the KV cluster is.
const CLUSTER_EVERY: Duration = Duration::from_secs(2);

/// Asks how the KV cluster is, while somebody looks, until `shutdown`.
pub(crate) async fn follow_cluster(app: Arc<App>, beat: Heartbeat, shutdown: Shutdown) {
    beat.ok();
    while shutdown.sleep(CLUSTER_EVERY).await {
        if !app.feed.has_viewers() {
            beat.ok();
            continue;
        }
        let answer = tokio::select! {
            answer = app.kv.cluster() => answer,
            () = shutdown.stopped() => return,
        };
        match &answer {
            Ok(_) => beat.ok(),
            Err(error) => beat.failed(error),
        }
        app.feed.change_cluster(ClusterNews {
            at: app.now(),
            ok: answer.is_ok(),
            error: answer.as_ref().err().map(ToString::to_string),
            cluster: answer.ok().map(Record::new),
        });
    }
}

/// Follows the drones until `shutdown`.
pub(crate) async fn follow_drones(app: Arc<App>, beat: Heartbeat, shutdown: Shutdown) {
    let load = || load_drones(&app);
    follow(
        &app.kv,
        DRONE_PREFIX,
        load,
        |change| {
            let zones = app.zones.known();
            app.feed.change_drone(&change, |record| with_zone(record, &zones));
        },
        &beat,
        &shutdown,
    )
    .await;
}

/// Follows the deliveries until `shutdown`.
pub(crate) async fn follow_deliveries(app: Arc<App>, beat: Heartbeat, shutdown: Shutdown) {
    let load = || load_deliveries(&app);
    follow(
        &app.kv,
        DELIVERY_PREFIX,
        load,
        |change| app.feed.change_delivery(change),
        &beat,
        &shutdown,
    )
    .await;
}

async fn follow<L, F>(
    kv: &Kv,
    prefix: &str,
    load: L,
    mut apply: impl FnMut(Change),
    beat: &Heartbeat,
    shutdown: &Shutdown,
) where
    L: Fn() -> F,
    F: Future<Output = Result<(), KvError>>,
{
    // Viewers are no condition for taking orders, so this line is well from the start.
    beat.ok();
    let mut watch = kv.watch(prefix);
    let mut loaded = false;
    loop {
        let event = tokio::select! {
            event = watch.next() => event,
            () = shutdown.stopped() => return,
        };
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                beat.failed(error);
                continue;
            }
        };
        if let WatchEvent::Gap { reason } = &event {
            tracing::info!(prefix, reason, "reading everything again");
            loaded = false;
        }
        // Read after the feed has begun: what changes from then on is told.
        while !loaded {
            let read = tokio::select! {
                read = load() => read,
                () = shutdown.stopped() => return,
            };
            match read {
                Ok(()) => loaded = true,
                Err(error) => {
                    beat.failed(error);
                    if !shutdown.sleep(RELOAD_PAUSE).await {
                        return;
                    }
                }
            }
        }
        if let WatchEvent::Change(change) = event {
            apply(change);
        }
        beat.ok();
    }
}

async fn load_drones(app: &App) -> Result<(), KvError> {
    let page = app.kv.scan_all::<Map<String, Value>>(DRONE_PREFIX, DRONES_MAX).await?;
    let zones = app.zones.known();
    let drones = page.into_good().filter_map(|item| {
        let id = keys::drone_id(&item.key)?.to_owned();
        Some((id, item.version, with_zone(item.value, &zones)))
    });
    app.feed.reload(|mirror| mirror.load_drones(drones));
    Ok(())
}

async fn load_deliveries(app: &App) -> Result<(), KvError> {
    let newest = app
        .kv
        .scan::<Box<RawValue>>(DELIVERY_PREFIX, None, OTHERS_MAX, true)
        .await?;
    let mut found: BTreeMap<String, (Version, Record)> = newest
        .into_good()
        .map(|item| (item.key, (item.version, Record::new(item.value))))
        .collect();
    for item in flown(&app.kv, &found).await? {
        found.insert(item.0, item.1);
    }
    let deliveries = found
        .into_iter()
        .filter_map(|(key, (version, record))| Some((keys::delivery_id(&key)?.to_owned(), version, record)));
    app.feed.reload(|mirror| mirror.load_deliveries(deliveries));
    Ok(())
}

type Found = (String, (Version, Record));

/// The deliveries that drones have, as far as they are not known yet.
async fn flown(kv: &Kv, known: &BTreeMap<String, (Version, Record)>) -> Result<Vec<Found>, KvError> {
    let drones = kv.scan_all::<Map<String, Value>>(DRONE_PREFIX, DRONES_MAX).await?;
    let wanted: HashSet<String> = drones
        .into_good()
        .filter_map(|item| Some(keys::delivery(item.value.get("current_delivery")?.as_str()?)))
        .filter(|key| !known.contains_key(key))
        .collect();
    let wanted: Vec<String> = wanted.into_iter().collect();
    let mut found = Vec::new();
    for keys in wanted.chunks(kv_api::MAX_BATCH_OPS) {
        for result in kv.batch(keys.iter().map(op::get).collect(), false).await? {
            if let OpResult::Failed(error) = result {
                return Err(error);
            }
            if let Some(item) = result.into_got::<Box<RawValue>>()? {
                found.push((item.key, (item.version, Record::new(item.value))));
            }
        }
    }
    Ok(found)
}
