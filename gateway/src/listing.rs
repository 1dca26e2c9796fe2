//! The reads: deliveries newest first, drones with their zones.
//!
//! Records are passed on as they are stored, with every field, also those this code does not know.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use domain::delivery::DeliveryStatus;
use domain::drone::number_of;
use domain::geo::Point;
use domain::keys::{self, DELIVERY_PREFIX, DRONE_PREFIX, OPEN_PREFIX};
use domain::zones::ZonesConfig;
use kv_api::RawValue;
use kv_client::{Kv, KvError, OpResult, op};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use service::http::ApiError;

use crate::app::App;
use crate::coalesce::Coalesced;
use crate::error::api_error;
use crate::retry::Budget;

/// Deliveries a list holds when no limit is asked for.
pub(crate) const LIMIT_DEFAULT: usize = 30;
/// Most deliveries a list holds.
pub(crate) const LIMIT_MAX: usize = 1_000;
/// Longest `after`, in characters; an id has 36.
pub(crate) const AFTER_MAX: usize = 64;
/// Reads of the fleet start at least this far apart; those of a list of deliveries may follow each other sooner while
/// the KV answers quickly.
const READ_INTERVAL: Duration = Duration::from_millis(50);
/// Different limits whose reads are shared; further ones read for themselves.
const SHARED_LIMITS_MAX: usize = 16;
/// Most drones listed.
const DRONES_MAX: usize = 10_000;
/// Pages looked through for one list filtered by status; `next` says where to go on.
const FILTER_PAGES_MAX: usize = 10;
/// Records per page of a filtered list.
const FILTER_PAGE: usize = 500;

/// Query of `GET /deliveries`.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct ListQuery {
    limit: Option<String>,
    status: Option<String>,
    after: Option<String>,
}

/// The shared reads.
#[derive(Debug)]
pub(crate) struct Lists {
    drones: Coalesced<Arc<Drones>>,
    newest: Mutex<HashMap<usize, Arc<Coalesced<Bytes>>>>,
}

/// The fleet as listed.
#[derive(Debug)]
pub(crate) struct Drones {
    /// The answer's body.
    pub(crate) body: Bytes,
    /// How many drones have which status.
    pub(crate) by_status: HashMap<String, usize>,
}

#[derive(Serialize)]
struct List<'a, T> {
    count: usize,
    items: &'a [T],
    /// Pass as `after` for what is older; null at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Option<&'a str>>,
}

impl Lists {
    pub(crate) fn new() -> Self {
        Self {
            drones: Coalesced::new(READ_INTERVAL),
            newest: Mutex::default(),
        }
    }

    /// The read shared by all who ask for the newest `limit`, while there are not too many different limits.
    fn newest(&self, limit: usize) -> Option<Arc<Coalesced<Bytes>>> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if !newest.contains_key(&limit) && newest.len() >= SHARED_LIMITS_MAX {
            return None;
        }
        let shared = newest
            .entry(limit)
            .or_insert_with(|| Arc::new(Coalesced::idle_half(READ_INTERVAL)));
        Some(Arc::clone(shared))
    }
}

/// `GET /deliveries`.
///
/// # Errors
/// 422 for a query that cannot be used, 503.
pub(crate) async fn deliveries(app: &App, query: ListQuery) -> Result<Bytes, ApiError> {
    let limit = match &query.limit {
        None => LIMIT_DEFAULT,
        Some(text) => text
            .parse()
            .ok()
            .filter(|limit| (1..=LIMIT_MAX).contains(limit))
            .ok_or_else(|| {
                let detail = format!("limit: got {text:?}; expected a whole number from 1 to {LIMIT_MAX}");
                ApiError::invalid(detail).with("field", "limit")
            })?,
    };
    if let Some(after) = &query.after
        && after.chars().count() > AFTER_MAX
    {
        let detail = format!("after: expected the `next` of a list, at most {AFTER_MAX} characters");
        return Err(ApiError::invalid(detail).with("field", "after"));
    }
    if let Some(name) = &query.status {
        let status = DeliveryStatus::from_name(name).ok_or_else(|| {
            let names = DeliveryStatus::ALL.map(DeliveryStatus::name).join(", ");
            ApiError::invalid(format!("status: got {name:?}; expected one of {names}")).with("field", "status")
        })?;
        return read(|| filtered(&app.kv, status, query.after.as_deref(), limit)).await;
    }
    if query.after.is_some() {
        return read(|| newest(&app.kv, query.after.as_deref(), limit)).await;
    }
    let load = || read(|| newest(&app.kv, None, limit));
    match app.lists.newest(limit) {
        Some(shared) => shared.get(load).await,
        None => load().await,
    }
}

/// `GET /deliveries/{id}`.
///
/// # Errors
/// 404, 503.
pub(crate) async fn delivery(app: &App, id: &str) -> Result<Box<RawValue>, ApiError> {
    let key = keys::delivery(id);
    let found = read(|| app.kv.get::<Box<RawValue>>(&key)).await?;
    found
        .map(|found| found.value)
        .ok_or_else(|| ApiError::not_found("Delivery not found"))
}

/// `GET /drones`.
///
/// # Errors
/// 503.
pub(crate) async fn drones(app: &App) -> Result<Arc<Drones>, ApiError> {
    let zones = app.zones.known();
    app.lists.drones.get(|| read(|| all_drones(&app.kv, &zones))).await
}

/// `GET /drones/{id}`.
///
/// # Errors
/// 404, 503.
pub(crate) async fn drone(app: &App, id: &str) -> Result<Value, ApiError> {
    let key = keys::drone(id);
    let found = read(|| app.kv.get::<Map<String, Value>>(&key)).await?;
    let found = found.ok_or_else(|| ApiError::not_found("Drone not found"))?;
    Ok(Value::Object(with_zone(found.value, &app.zones.known())))
}

async fn read<T, F, Fut>(attempt: F) -> Result<T, ApiError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, KvError>>,
{
    Budget::start()
        .run(attempt)
        .await
        .map_err(|gave_up| match gave_up.error {
            // A read changes nothing: to its caller, "unknown" is just "not now".
            KvError::Unknown { detail } => api_error(&KvError::Unavailable { detail }),
            error => api_error(&error),
        })
}

async fn newest(kv: &Kv, after: Option<&str>, limit: usize) -> Result<Bytes, KvError> {
    let after = after.map(keys::delivery);
    let page = kv
        .scan::<Box<RawValue>>(DELIVERY_PREFIX, after.as_deref(), limit, true)
        .await?;
    let next = page.next.clone();
    let items: Vec<_> = page.into_good().map(|item| item.value).collect();
    body(&items, Some(next.as_deref().and_then(keys::delivery_id)))
}

/// What is open is found through the few `open:` entries, everything else by looking through the records.
async fn filtered(kv: &Kv, status: DeliveryStatus, after: Option<&str>, limit: usize) -> Result<Bytes, KvError> {
    let prefix = if status.is_open() { OPEN_PREFIX } else { DELIVERY_PREFIX };
    let mut after = after.map(|id| format!("{prefix}{id}"));
    let mut items = Vec::new();
    for _ in 0..FILTER_PAGES_MAX {
        let page = kv.scan::<Value>(prefix, after.as_deref(), FILTER_PAGE, true).await?;
        after = page.next.clone();
        let records = if status.is_open() {
            let ids = page
                .into_good()
                .filter_map(|item| keys::open_id(&item.key).map(keys::delivery));
            get_all(kv, ids.collect()).await?
        } else {
            page.into_good().map(|item| (item.key, item.value)).collect()
        };
        for (key, record) in records {
            if record.get("status").and_then(Value::as_str) != Some(status.name()) {
                continue;
            }
            items.push(record);
            if items.len() == limit {
                // There may be more: go on after the last one shown.
                return body(&items, Some(keys::delivery_id(&key)));
            }
        }
        if after.is_none() {
            break;
        }
    }
    let next = after.as_deref().and_then(|key| key.strip_prefix(prefix));
    body(&items, Some(next))
}

/// The values of these keys, as far as they exist.
pub(crate) async fn get_all(kv: &Kv, keys: Vec<String>) -> Result<Vec<(String, Value)>, KvError> {
    let results = kv.batch(keys.into_iter().map(op::get).collect(), false).await?;
    let found = results.into_iter().filter_map(|result| match result {
        OpResult::Failed(error) => Some(Err(error)),
        result => result.into_got::<Value>().transpose(),
    });
    found.map(|item| item.map(|item| (item.key, item.value))).collect()
}

async fn all_drones(kv: &Kv, zones: &ZonesConfig) -> Result<Arc<Drones>, KvError> {
    let page = kv.scan_all::<Map<String, Value>>(DRONE_PREFIX, DRONES_MAX).await?;
    let mut drones: Vec<_> = page.into_good().map(|item| with_zone(item.value, zones)).collect();
    drones.sort_by_cached_key(|drone| {
        let id = drone.get("id").and_then(Value::as_str).unwrap_or_default();
        (number_of(id).unwrap_or(u32::MAX), id.to_owned())
    });
    let mut by_status = HashMap::new();
    for status in drones
        .iter()
        .filter_map(|drone| drone.get("status").and_then(Value::as_str))
    {
        *by_status.entry(status.to_owned()).or_default() += 1;
    }
    Ok(Arc::new(Drones {
        body: body(&drones, None)?,
        by_status,
    }))
}

/// The record with the zone it is in; null outside the area.
pub(crate) fn with_zone(mut drone: Map<String, Value>, zones: &ZonesConfig) -> Map<String, Value> {
    let pos = drone.get("pos").and_then(|pos| Point::deserialize(pos).ok());
    let zone = pos.and_then(|pos| zones.zone_name_of(pos));
    drone.insert("zone".to_owned(), zone.map_or(Value::Null, Value::String));
    drone
}

fn body<T: Serialize>(items: &[T], next: Option<Option<&str>>) -> Result<Bytes, KvError> {
    serde_json::to_vec(&List {
        count: items.len(),
        items,
        next,
    })
    .map(Bytes::from)
    .map_err(|error| KvError::Decode {
        detail: format!("a list cannot be written as JSON: {error}"),
    })
}
