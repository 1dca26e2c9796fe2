//! An order's way into the KV.
//!
//! Without an `Idempotency-Key`: one ordered batch writes `open:{id}` and then the record `delivery:{id}`, the record
//! only where there is none. Once the record is there the order exists, whatever happens to this process.
//!
//! With one, a compare-and-swap on `idem:{key}` comes first and decides, once and for all, which id the order has and
//! who answers 201. Every other request with that key reads the record of that id; finding none, it writes it in the
//! same way, because the first may have died in between. So it does not matter who writes: the content follows from the
//! key's entry and the (equal) body.
//!
//! Both writes may be repeated after an unknown outcome: `open:` is a plain put, and the record is only ever created
//! where it is absent. `open:` is written anew with every attempt, since the dispatcher removes entries that stay
//! without a record (by comparing versions).

use std::sync::atomic::{AtomicBool, Ordering};

use domain::delivery::{Delivery, OpenEntry};
use domain::events::DeliveryRequest;
use domain::keys;
use domain::order::NewOrder;
use http::HeaderMap;
use kv_client::{KvError, OpResult, Put, Swap, Version, op};
use serde::{Deserialize, Serialize};
use service::http::ApiError;
use uuid::Uuid;

use crate::app::App;
use crate::error::api_error;
use crate::hash::stable_hash;
use crate::order_body::canonical;
use crate::retry::{Budget, GaveUp};

/// The header that makes an order safe to send again.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Longest idempotency key, in bytes.
const IDEMPOTENCY_KEY_MAX_BYTES: usize = 255;

/// An accepted order.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// Its record; of a repeat, as it is now.
    pub(crate) record: Delivery,
    /// True for exactly one answer per order.
    pub(crate) first: bool,
}

/// The value of `idem:{key}`. Never changes once written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Remembered {
    /// The order's id.
    pub(crate) id: String,
    /// [`stable_hash`] of the canonical order.
    pub(crate) body_hash: String,
    /// When the key was first seen, Unix seconds; also the order's timestamp.
    pub(crate) at: f64,
}

/// Who created the record.
enum Stored {
    Now,
    /// Somebody else before; this is what it is now.
    Before(Box<Delivery>),
}

/// Reads and checks the idempotency key.
///
/// # Errors
/// 422 naming the header.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    let invalid = |problem: String| {
        ApiError::invalid(format!(
            "Idempotency-Key: {problem}; expected 1 to {IDEMPOTENCY_KEY_MAX_BYTES} bytes of UTF-8"
        ))
        .with("field", "Idempotency-Key")
    };
    match std::str::from_utf8(value.as_bytes()).map(str::trim) {
        Err(_) => Err(invalid("it is not UTF-8".to_owned())),
        Ok("") => Err(invalid("it is empty".to_owned())),
        Ok(key) if key.len() > IDEMPOTENCY_KEY_MAX_BYTES => Err(invalid(format!("it has {} bytes", key.len()))),
        Ok(key) => Ok(Some(key.to_owned())),
    }
}

/// Accepts an order, at most once per idempotency key.
///
/// # Errors
/// 503 when the KV takes nothing; with `outcome` and `id` when the order may exist all the same; 422 when the key
/// stands for another order.
pub(crate) async fn submit(app: &App, order: &NewOrder, key: Option<String>) -> Result<Accepted, ApiError> {
    let budget = Budget::start();
    let id = Uuid::now_v7().to_string();
    let result = match key {
        None => {
            let record = Delivery::new(id, order, &app.zones.known(), app.now());
            store(app, budget, &record, false).await.map(|stored| Accepted {
                record: stored.into_record(record),
                first: true,
            })
        }
        Some(key) => submit_once(app, budget, order, key, id).await,
    };
    match &result {
        Ok(accepted) if accepted.first => app.counters.created.inc(),
        Ok(_) => app.counters.repeated.inc(),
        Err(error) if error.status == 422 => app.counters.refused.inc(),
        Err(error) if error.body().get("outcome").is_some() => app.counters.unknown.inc(),
        Err(_) => app.counters.unavailable.inc(),
    };
    result
}

async fn submit_once(
    app: &App,
    budget: Budget,
    order: &NewOrder,
    key: String,
    id: String,
) -> Result<Accepted, ApiError> {
    let mine = Remembered {
        id,
        body_hash: stable_hash(canonical(order).as_bytes()),
        at: app.now(),
    };
    let (remembered, first) = remember(app, budget, &key, mine).await?;
    let record = Delivery::new(remembered.id.clone(), order, &app.zones.known(), remembered.at);
    if !first && let Some(found) = find(app, budget, &remembered.id).await? {
        return Ok(Accepted {
            record: found,
            first: false,
        });
    }
    let stored = store(app, budget, &record, true).await?;
    app.keep.send(key, remembered);
    Ok(Accepted {
        record: stored.into_record(record),
        first,
    })
}

/// What the key stands for, and whether that is due to this request.
async fn remember(app: &App, budget: Budget, key: &str, mine: Remembered) -> Result<(Remembered, bool), ApiError> {
    let key = keys::idem(key);
    let swap = budget
        .run(|| app.kv.cas_version(&key, None, &mine, None))
        .await
        .map_err(|gave_up| not_stored(&mine.id, &gave_up, true))?;
    if swap.is_done() {
        return Ok((mine, true));
    }
    let found = swap.found::<Remembered>(&key).map_err(|error| api_error(&error))?;
    match found.map(|found| found.value) {
        // An earlier attempt of this very request took effect though its outcome was not known.
        Some(found) if found.id == mine.id => Ok((mine, true)),
        Some(found) if found.body_hash == mine.body_hash => Ok((found, false)),
        Some(_) => Err(ApiError::invalid(
            "Idempotency-Key: this key was used for an order with another body; expected the same body or a new key",
        )
        .with("field", "Idempotency-Key")),
        None => Err(
            ApiError::unavailable("the idempotency key changed while it was being read; send the order again")
                .retry_after_sec(1),
        ),
    }
}

async fn find(app: &App, budget: Budget, id: &str) -> Result<Option<Delivery>, ApiError> {
    let key = keys::delivery(id);
    let found = budget
        .run(|| app.kv.get::<Delivery>(&key))
        .await
        .map_err(|gave_up| api_error(&gave_up.error))?;
    Ok(found.map(|found| found.value))
}

/// Writes `open:` and the record, and tells the rest of the system when the record is new.
async fn store(app: &App, budget: Budget, record: &Delivery, has_key: bool) -> Result<Stored, ApiError> {
    // True once an attempt of ours may have created the record: finding it then means it is (as good as) ours to
    // announce.
    let maybe_mine = AtomicBool::new(false);
    let (swap, open_version) = budget
        .run(|| async {
            let result = write(app, record).await;
            if result.as_ref().is_err_and(KvError::is_outcome_unknown) {
                maybe_mine.store(true, Ordering::Relaxed);
            }
            result
        })
        .await
        .map_err(|gave_up| not_stored(&record.id, &gave_up, has_key))?;
    if swap.is_done() {
        announce(app, record);
        return Ok(Stored::Now);
    }
    let found = swap
        .found::<Delivery>(&record.id)
        .map_err(|error| api_error(&error))?
        .map(|found| found.value);
    let Some(found) = found else {
        return Err(
            ApiError::unavailable(format!("order {} changed while it was being stored", record.id)).retry_after_sec(1),
        );
    };
    if maybe_mine.load(Ordering::Relaxed) {
        announce(app, record);
    } else if !found.status.is_open() {
        // The order has ended meanwhile, and with it its entry; ours must not outlive it. Should this fail, the
        // dispatcher's sweep does it.
        let _ = app.kv.delete_version(&keys::open(&record.id), &open_version).await;
    }
    Ok(Stored::Before(Box::new(found)))
}

async fn write(app: &App, record: &Delivery) -> Result<(Swap, Version), KvError> {
    let open = OpenEntry {
        id: record.id.clone(),
        timestamp: app.now(),
    };
    let ops = vec![
        op::put(keys::open(&record.id), &open)?,
        op::cas(keys::delivery(&record.id), None, record)?,
    ];
    let mut results = app.kv.batch(ops, true).await?.into_iter();
    let version = match results.next() {
        Some(OpResult::Put(Put::Done(version))) => version,
        // Whether the entry is there or not: the record was not tried, so for the order nothing has happened yet.
        Some(OpResult::Failed(KvError::Unknown { detail })) => return Err(KvError::Unavailable { detail }),
        Some(OpResult::Failed(error)) => return Err(error),
        other => return Err(unexpected("put", other.as_ref())),
    };
    match results.next() {
        Some(result) => Ok((result.into_swap()?, version)),
        None => Err(unexpected("cas", None)),
    }
}

fn unexpected(op: &str, result: Option<&OpResult>) -> KvError {
    KvError::Decode {
        detail: format!("batch: the result of a {op} was expected, not {result:?}"),
    }
}

fn announce(app: &App, record: &Delivery) {
    tracing::info!("[gateway] NEW delivery id={} weight={}", record.id, record.weight);
    app.index.push(record.id.clone());
    app.hints.send(DeliveryRequest::of(record));
}

fn not_stored(id: &str, gave_up: &GaveUp, has_key: bool) -> ApiError {
    if !gave_up.outcome_unknown {
        return api_error(&gave_up.error);
    }
    let again = if has_key {
        "send it again with the same Idempotency-Key"
    } else {
        "send orders with an Idempotency-Key, which makes it safe to repeat them"
    };
    ApiError::outcome_unknown(format!(
        "it is not known whether order {id} was stored ({}); ask GET /deliveries/{id}, or {again}",
        gave_up.error
    ))
    .with("id", id)
    .retry_after_sec(1)
}

impl Stored {
    fn into_record(self, mine: Delivery) -> Delivery {
        match self {
            Self::Now => mine,
            Self::Before(found) => *found,
        }
    }
}
