//! The fleet's records: made once, kept for ever.
//!
//! Promises: `drone-1` … `drone-N` exist; a record that is there already stays as it is; `drones_index` names every drone
//! there is, in the order of their numbers, also when several processes register parts of the fleet at the same time. Zones are read, never written: until the gateway has made them, the default grid.

use std::time::Duration;

use domain::drone::{Drone, number_of};
use domain::keys;
use domain::zones::{DEFAULT_GRID_COLS, DEFAULT_GRID_ROWS, ZonesConfig};
use kv_api::MAX_BATCH_OPS;
use kv_client::{Kv, KvError, OpResult, op};
use service::Shutdown;

/// Most drone records that are looked at: the largest fleet, and as many again left from before.
pub const MAX_RECORDS: usize = 2 * crate::config::DRONE_POOL_LIMIT as usize;

/// How often the index is tried again when somebody else writes it at the same time.
const INDEX_ATTEMPTS: u32 = 5;

/// At the first start, how long new drones wait for the gateway's zones before they are placed by the default grid.
const ZONES_WAIT: Duration = Duration::from_secs(3);

/// Pause between two looks for the zones.
const ZONES_POLL: Duration = Duration::from_millis(200);

/// The grid that counts while there is none in the KV.
#[must_use]
pub fn default_zones() -> ZonesConfig {
    ZonesConfig::rome(DEFAULT_GRID_ROWS, DEFAULT_GRID_COLS).expect("the default grid is within the limits")
}

/// The zones in the KV; `None` when there are none, or none that make sense.
///
/// # Errors
/// When the KV does not answer.
pub async fn read_zones(kv: &Kv) -> Result<Option<ZonesConfig>, KvError> {
    let found = match kv.get::<ZonesConfig>(keys::ZONES_CONFIG).await {
        Ok(found) => found,
        Err(error @ KvError::Decode { .. }) => {
            tracing::warn!(%error, "the zones cannot be used");
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    Ok(found.map(|found| found.value).filter(|zones| match zones.check() {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(%error, "the zones cannot be used");
            false
        }
    }))
}

/// The zones, waiting a little for them to be made; then the default grid.
///
/// # Errors
/// When the KV does not answer.
pub async fn await_zones(kv: &Kv, shutdown: &Shutdown) -> Result<ZonesConfig, KvError> {
    let until = tokio::time::Instant::now() + ZONES_WAIT;
    loop {
        if let Some(zones) = read_zones(kv).await? {
            return Ok(zones);
        }
        if tokio::time::Instant::now() >= until || !shutdown.sleep(ZONES_POLL).await {
            return Ok(default_zones());
        }
    }
}

/// Makes the records of the drones with these numbers that are missing, and completes the index. Harmless to repeat.
///
/// # Errors
/// When the KV does not answer; what was made stays, and repeating makes the rest.
pub async fn register(kv: &Kv, numbers: &[u32], zones: &ZonesConfig) -> Result<usize, KvError> {
    let mut made = 0;
    for chunk in numbers.chunks(MAX_BATCH_OPS) {
        let ops = chunk
            .iter()
            .map(|number| Drone::new(*number, zones))
            .map(|drone| op::cas(keys::drone(&drone.id), None, &drone))
            .collect::<Result<_, _>>()?;
        for result in kv.batch(ops, false).await? {
            match result {
                OpResult::Failed(error) => return Err(error),
                done => made += usize::from(done.is_done()),
            }
        }
    }
    complete_index(kv, numbers).await?;
    Ok(made)
}

async fn complete_index(kv: &Kv, numbers: &[u32]) -> Result<(), KvError> {
    for _ in 0..INDEX_ATTEMPTS {
        let found = match kv.get::<Vec<String>>(keys::DRONES_INDEX).await {
            Ok(found) => found,
            // Whatever it is, it is no index: the version is still needed to replace it.
            Err(KvError::Decode { .. }) => {
                let any = kv.get::<serde_json::Value>(keys::DRONES_INDEX).await?;
                any.map(|any| kv_client::Versioned {
                    value: Vec::new(),
                    version: any.version,
                    key: any.key,
                })
            }
            Err(error) => return Err(error),
        };
        // Read after the index: whoever has made drones that are not seen here has yet to write it, and finds it changed.
        let records = kv
            .scan_all::<serde_json::Value>(keys::DRONE_PREFIX, MAX_RECORDS)
            .await?;
        let mut ids: Vec<String> = records
            .into_good()
            .filter_map(|record| keys::drone_id(&record.key).map(str::to_owned))
            .chain(numbers.iter().map(|number| format!("drone-{number}")))
            .collect();
        // As people count; names of another kind last.
        ids.sort_by_cached_key(|id| (number_of(id).unwrap_or(u32::MAX), id.clone()));
        ids.dedup();
        if found.as_ref().is_some_and(|found| found.value == ids) {
            return Ok(());
        }
        let expected = found.as_ref().map(|found| &found.version);
        if kv
            .cas_version(keys::DRONES_INDEX, expected, &ids, None)
            .await?
            .is_done()
        {
            return Ok(());
        }
    }
    Err(KvError::Unavailable {
        detail: format!("{} changed {INDEX_ATTEMPTS} times meanwhile", keys::DRONES_INDEX),
    })
}
