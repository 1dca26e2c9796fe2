//! The zone configuration: the KV's copy is the truth; when it is missing or broken it is made anew from the settings.

use std::sync::{Arc, PoisonError, RwLock};

use domain::keys::ZONES_CONFIG;
use domain::zones::ZonesConfig;
use kv_client::{Kv, KvError, Swap, Version};
use serde_json::Value;

/// How often a lost race for the key is tried again.
const ATTEMPTS_MAX: u32 = 4;

/// The zones as this gateway knows them.
#[derive(Debug)]
pub(crate) struct Zones {
    kv: Kv,
    /// What the settings describe.
    configured: ZonesConfig,
    /// What was last seen in the KV.
    current: RwLock<Arc<ZonesConfig>>,
}

impl Zones {
    /// The grid that the settings describe, until the KV has been read.
    pub(crate) fn new(kv: Kv, configured: ZonesConfig) -> Self {
        let current = RwLock::new(Arc::new(configured.clone()));
        Self {
            kv,
            configured,
            current,
        }
    }

    /// The zones without asking the KV: accepting an order must not cost a read of what hardly ever changes.
    pub(crate) fn known(&self) -> Arc<ZonesConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the zones, storing those of the settings when there are none that can be used.
    pub(crate) async fn load(&self) -> Result<Arc<ZonesConfig>, KvError> {
        let mut found = self
            .kv
            .get::<Value>(ZONES_CONFIG)
            .await?
            .map(|item| (item.value, item.version));
        for _ in 0..ATTEMPTS_MAX {
            let (usable, version) = judge(found.as_ref());
            if let Some(zones) = usable {
                return Ok(self.remember(zones));
            }
            match self
                .kv
                .cas_version(ZONES_CONFIG, version, &self.configured, None)
                .await?
            {
                Swap::Done(_) => return Ok(self.remember(self.configured.clone())),
                refused => {
                    found = refused
                        .found::<Value>(ZONES_CONFIG)?
                        .map(|item| (item.value, item.version))
                }
            }
        }
        Err(KvError::Unavailable {
            detail: format!("{ZONES_CONFIG} changed {ATTEMPTS_MAX} times while it was being stored"),
        })
    }

    fn remember(&self, zones: ZonesConfig) -> Arc<ZonesConfig> {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if **current != zones {
            if (zones.rows, zones.cols) != (self.configured.rows, self.configured.cols) {
                tracing::warn!(
                    stored_rows = zones.rows,
                    stored_cols = zones.cols,
                    "{ZONES_CONFIG} in the KV differs from GRID_ROWS and GRID_COLS and is used; delete the key to build it anew"
                );
            }
            if zones.no_fly != self.configured.no_fly {
                tracing::warn!(
                    stored = zones.no_fly.zones().len(),
                    configured = self.configured.no_fly.zones().len(),
                    "{ZONES_CONFIG} in the KV has other no-fly zones than NO_FLY_ZONES and is used; delete the key to build it anew"
                );
            }
            *current = Arc::new(zones);
        }
        Arc::clone(&current)
    }
}

/// The stored zones if they can be used, and the version to replace otherwise (`None`: absent).
fn judge(found: Option<&(Value, Version)>) -> (Option<ZonesConfig>, Option<&Version>) {
    let Some((value, version)) = found else {
        return (None, None);
    };
    let zones = serde_json::from_value::<ZonesConfig>(value.clone())
        .map_err(|error| error.to_string())
        .and_then(|zones| zones.check().map(|()| zones).map_err(|error| error.to_string()))
        .inspect_err(|error| tracing::warn!(error, "{ZONES_CONFIG} in the KV cannot be used and is replaced"))
        .ok();
    (zones, Some(version))
}
