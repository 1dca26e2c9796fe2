//! An order's way into the KV: one ordered batch, which stops at the first operation that fails or is refused.
//!
//! Without an `Idempotency-Key` it writes `open:{id}` and then the record `delivery:{id}`, the record only where there is
//! none. Once the record is there the order exists, whatever happens to this process.
//!
//! With one, a compare-and-swap on `idem:{key}` comes first in the batch and decides, once and for all, which id the
//! order has and who answers 201. When it is refused nothing else of the batch is done, and the request reads the record
//! of the id it was told; finding none, it writes it in the same way, because the first may have died in between. So it
//! does not matter who writes: the content follows from the key's entry and the (equal) body, but for whose request
//! it says made it.
//!
//! After an unknown outcome everything may be repeated: the swap finds its own id in the entry, `open:` is a plain put,
//! and the record is only ever created where it is absent. `open:` is written anew with every attempt, since the
//! dispatcher removes entries that stay without a record (by comparing versions).
//!
//! An entry counts for a day ([`REMEMBER_FOR`]). An older one is replaced by comparing versions, as if it were absent;
//! [`crate::keep`] removes those that nobody asks for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use domain::delivery::{Delivery, OpenEntry};
use domain::events::DeliveryRequest;
use domain::keys;
use domain::order::NewOrder;
use http::HeaderMap;
use kv_client::{BatchOp, KvError, OpResult, Put, Swap, Version, Versioned, op};
use serde::{Deserialize, Serialize};
use service::http::ApiError;
use uuid::Uuid;

use crate::app::App;
use crate::error::api_error;
use crate::hash::stable_hash;
use crate::order_body::canonical;
use crate::retry::{Budget, GaveUp};
use crate::traces::on_behalf;

/// The header that makes an order safe to send again.
pub(crate) const IDEMPOTENCY_KEY_NAME: &str = "Idempotency-Key";
/// Longest idempotency key, in bytes.
pub(crate) const IDEMPOTENCY_KEY_MAX_BYTES: usize = 255;

/// How long an idempotency key is remembered.
pub(crate) const REMEMBER_FOR: Duration = Duration::from_secs(24 * 60 * 60);
/// How often a request asks for a key whose entry changes at the same moment. An entry changes only when it comes, when
/// it is replaced after its day, and when it goes.
const CLAIMS_MAX: u32 = 3;

/// An accepted order.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// Its record; of a repeat, as it is now.
    pub(crate) record: Delivery,
    /// True for exactly one answer per order.
    pub(crate) first: bool,
}

/// The value of `idem:{key}`. Never changes within its day.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Remembered {
    /// The order's id.
    pub(crate) id: String,
    /// [`stable_hash`] of the canonical order.
    pub(crate) body_hash: String,
    /// When the key was first seen, Unix seconds; also the order's timestamp.
    pub(crate) at: f64,
}

/// What became of the record's two writes: the swap that makes it, and the version of `open:`.
type Written = Result<(Swap, Version), KvError>;

/// Who has the key.
enum Claim {
    /// This request, since this attempt.
    Now(Written),
    /// This request, since an earlier attempt of unknown outcome, which may have stored the order too.
    Before,
    /// Another one.
    Theirs(Remembered),
}

/// One attempt at a key.
enum Claimed {
    Done(Written),
    Refused(Option<Versioned<Remembered>>),
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
    let Some(value) = headers.get(IDEMPOTENCY_KEY_NAME) else {
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
/// stands for another order, or an end of the order lies in a no-fly zone.
pub(crate) async fn submit(app: &App, order: &NewOrder, key: Option<String>) -> Result<Accepted, ApiError> {
    let result = submit_where_allowed(app, order, key).await;
    match &result {
        Ok(accepted) if accepted.first => app.counters.created.inc(),
        Ok(_) => app.counters.repeated.inc(),
        Err(error) if error.status == 422 => app.counters.refused.inc(),
        Err(error) if error.body().get("outcome").is_some() => app.counters.unknown.inc(),
        Err(_) => app.counters.unavailable.inc(),
    };
    result
}

async fn submit_where_allowed(app: &App, order: &NewOrder, key: Option<String>) -> Result<Accepted, ApiError> {
    let budget = Budget::start();
    if let Err(error) = order.check_no_fly(&app.zones.known().no_fly)
        // What was accepted before the zone was drawn is answered as it always was.
        && !is_repeat(app, budget, key.as_deref()).await?
    {
        return Err(ApiError::invalid(error.to_string()).with("field", error.field));
    }
    let id = Uuid::now_v7().to_string();
    match key {
        None => {
            let record = on_behalf(Delivery::new(id, order, &app.zones.known(), app.now()));
            store(app, budget, &record, false, false).await.map(|stored| Accepted {
                record: stored.into_record(record),
                first: true,
            })
        }
        Some(key) => submit_once(app, budget, order, key, id).await,
    }
}

/// Whether the key stands for an order already.
async fn is_repeat(app: &App, budget: Budget, key: Option<&str>) -> Result<bool, ApiError> {
    let Some(key) = key.map(keys::idem) else {
        return Ok(false);
    };
    let found = budget
        .run(|| app.kv.get::<Remembered>(&key))
        .await
        .map_err(|gave_up| api_error(&gave_up.error))?;
    Ok(found.is_some_and(|entry| app.now() - entry.value.at < REMEMBER_FOR.as_secs_f64()))
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
    let record_of =
        |entry: &Remembered| on_behalf(Delivery::new(entry.id.clone(), order, &app.zones.known(), entry.at));
    let record = record_of(&mine);
    let maybe_mine = match claim(app, budget, &key, &mine, &record).await? {
        Claim::Now(Ok((Swap::Done(_), _))) => {
            announce(app, &record);
            return Ok(Accepted { record, first: true });
        }
        // Refused: a repeat was quicker to write the record. The outcome of another failure may be unknown.
        Claim::Now(written) => written.is_err_and(|error| error.is_outcome_unknown()),
        Claim::Before => true,
        Claim::Theirs(theirs) => {
            let record = match find(app, budget, &theirs.id).await? {
                Some(found) => found,
                None => {
                    let record = record_of(&theirs);
                    store(app, budget, &record, true, false).await?.into_record(record)
                }
            };
            return Ok(Accepted { record, first: false });
        }
    };
    let record = store(app, budget, &record, true, maybe_mine).await?.into_record(record);
    Ok(Accepted { record, first: true })
}

/// Finds out what the key stands for. When it is free it stands for `mine` from now on, and `record` is stored as well.
async fn claim(app: &App, budget: Budget, key: &str, mine: &Remembered, record: &Delivery) -> Result<Claim, ApiError> {
    let key = keys::idem(key);
    let mut expected: Option<Version> = None;
    for _ in 0..CLAIMS_MAX {
        let claimed = budget
            .run(|| try_claim(app, &key, expected.as_ref(), mine, record))
            .await
            .map_err(|gave_up| not_stored(&mine.id, &gave_up, true))?;
        let found = match claimed {
            Claimed::Done(written) => return Ok(Claim::Now(written)),
            Claimed::Refused(found) => found,
        };
        match found {
            // An earlier attempt of this very request took effect though its outcome was not known.
            Some(found) if found.value.id == mine.id => return Ok(Claim::Before),
            Some(found) if mine.at - found.value.at >= REMEMBER_FOR.as_secs_f64() => expected = Some(found.version),
            Some(found) if found.value.body_hash == mine.body_hash => return Ok(Claim::Theirs(found.value)),
            Some(_) => {
                return Err(ApiError::invalid(
                    "Idempotency-Key: this key was used for an order with another body; expected the same body or a new key",
                )
                .with("field", "Idempotency-Key"));
            }
            None => expected = None,
        }
    }
    Err(
        ApiError::unavailable("the idempotency key changed while it was being read; send the order again")
            .retry_after_sec(1),
    )
}

/// Takes the key, if its entry has the version `expected`, and stores the order.
async fn try_claim(
    app: &App,
    key: &str,
    expected: Option<&Version>,
    mine: &Remembered,
    record: &Delivery,
) -> Result<Claimed, KvError> {
    let [open, create] = writes(app, record)?;
    let ops = vec![op::cas(key, expected, mine)?, open, create];
    let mut results = app.kv.batch(ops, true).await?.into_iter();
    let swap = match results.next() {
        Some(result) => result.into_swap()?,
        None => return Err(unexpected("cas", None)),
    };
    if swap.is_done() {
        Ok(Claimed::Done(written(results)))
    } else {
        swap.found(key).map(Claimed::Refused)
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

/// Writes `open:` and the record, and tells the rest of the system when the record is new. `maybe_mine`: this request may
/// have created it already; finding it then means it is (as good as) ours to announce.
async fn store(
    app: &App,
    budget: Budget,
    record: &Delivery,
    has_key: bool,
    maybe_mine: bool,
) -> Result<Stored, ApiError> {
    let maybe_mine = AtomicBool::new(maybe_mine);
    let (swap, open_version) = budget
        .run(|| async {
            let result = write(app, record).await;
            if result.as_ref().is_err_and(KvError::is_outcome_unknown) {
                maybe_mine.store(true, Ordering::Relaxed);
            }
            result
        })
        .await
        .map_err(|mut gave_up| {
            gave_up.outcome_unknown |= maybe_mine.load(Ordering::Relaxed);
            not_stored(&record.id, &gave_up, has_key)
        })?;
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
    }
    if !found.status.is_open() {
        // The order has ended meanwhile, and with it its entry; ours must not outlive it. Should this fail, the
        // dispatcher's sweep does it.
        let _ = app.kv.delete_version(&keys::open(&record.id), &open_version).await;
    }
    Ok(Stored::Before(Box::new(found)))
}

async fn write(app: &App, record: &Delivery) -> Written {
    written(app.kv.batch(writes(app, record)?.into(), true).await?.into_iter())
}

/// What stores an order, in this order.
fn writes(app: &App, record: &Delivery) -> Result<[BatchOp; 2], KvError> {
    let open = OpenEntry {
        id: record.id.clone(),
        timestamp: app.now(),
    };
    Ok([
        op::put(keys::open(&record.id), &open)?,
        op::cas(keys::delivery(&record.id), None, record)?,
    ])
}

/// The results of [`writes`].
fn written(mut results: impl Iterator<Item = OpResult>) -> Written {
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
