//! The KV calls on the node's own data: typed in, typed out; used by the routes and by batches.
//!
//! All of it goes through the same acceptor as the cluster's requests: a local write obeys promise, floor and fence, and its ballot is the
//! node's own. It is still one replica's opinion only; see the crate's documentation.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use kv_api::{
    CasAnswer, CasBody, Item, LockAnswer, OkAnswer, PutAnswer, PutBody, RawValue, ScanAnswer, ScanQuery,
    StoredEnvelope, Version,
};
use register::change::{Answer, Command, Expect};
use register::message::{List, Reply, Request};
use register::{Ballot, HlcTime, Key, Lineage, RequestId, State};
use service::http::ApiError;

use super::{broken_rule, not_served};
use crate::node::Node;
use crate::storage::{MAX_PAGE_BYTES, StoreError};

/// Pages a scan reads at most to fill its answer: long runs of tombstones end it early, with `next` to go on from.
const SCAN_PAGES_MAX: usize = 16;

/// What a key is told to be when it is not there.
pub(super) fn not_found() -> ApiError {
    ApiError::not_found(kv_api::KEY_NOT_FOUND)
}

/// `GET /kv/{key}`: the stored envelope.
pub(super) async fn get(node: &Node, name: &str) -> Result<Item, ApiError> {
    let stored = node
        .store()
        .record(&Key::data(name))
        .await
        .map_err(|error| not_served(&error))?;
    let now_unix_ms = node.store().clock().now_unix_ms();
    let record = stored.as_deref().map(|stored| &stored.record);
    let item = record.and_then(|record| item(name, record.accepted, record.state.as_ref(), now_unix_ms));
    item.unwrap_or_else(|| Err(not_found()))
}

/// A stored state as it is shown; none for tombstones, what has ended, and mere promises.
fn item(name: &str, accepted: Ballot, state: Option<&State>, now_unix_ms: u64) -> Option<Result<Item, ApiError>> {
    let state = state.filter(|state| !state.is_expired(now_unix_ms))?;
    let value = state.value.as_deref()?;
    let item = raw(value).and_then(|data| {
        let envelope = StoredEnvelope {
            ts: accepted.time.unix_sec(),
            data,
        };
        let value =
            serde_json::value::to_raw_value(&envelope).map_err(|error| ApiError::internal(error.to_string()))?;
        Ok(Item {
            key: name.to_owned(),
            value,
            version: None,
        })
    });
    Some(item)
}

/// `PUT /kv/{key}`
pub(super) async fn put(node: &Node, name: &str, body: PutBody) -> Result<PutAnswer, ApiError> {
    check_value(node, &body.value)?;
    if let Some(envelope) = as_envelope(&body.value) {
        return put_replica(node, name, &body, &envelope).await;
    }
    let ttl_ms = body
        .ttl_sec
        .map(kv_api::ttl_ms)
        .transpose()
        .map_err(|error| broken_rule(&error))?;
    let command = Command::Put {
        value: body.value.get().into(),
        ttl_ms,
        fence: body.fence,
    };
    match change(node, Key::data(name), command).await? {
        Answer::Written { version } => Ok(written(version)),
        Answer::FenceTooLow { seen } => Ok(fenced(seen)),
        other => Err(unexpected(&other)),
    }
}

fn written(version: Ballot) -> PutAnswer {
    PutAnswer {
        ok: true,
        written: 1,
        rf: 1,
        version: Some(version.into()),
        fence_seen: None,
    }
}

fn fenced(seen: u64) -> PutAnswer {
    PutAnswer {
        ok: false,
        written: 0,
        rf: 1,
        version: None,
        fence_seen: Some(seen),
    }
}

fn as_envelope(value: &RawValue) -> Option<StoredEnvelope> {
    serde_json::from_str(value.get()).ok()
}

/// A replica write from outside: last write wins by `_ts`. What is older than what is held changes nothing and is answered as done
/// (`written` 0), because that is what last-write-wins makes of it. One timestamp with two values is settled by the values' hashes, so
/// that all nodes settle it alike.
async fn put_replica(
    node: &Node,
    name: &str,
    body: &PutBody,
    envelope: &StoredEnvelope,
) -> Result<PutAnswer, ApiError> {
    if body.ttl_sec.is_some() {
        return Err(ApiError::invalid(
            "ttl_sec: a replica write carries its own time; put the plain value to set one",
        ));
    }
    let time = HlcTime::from_unix_sec(envelope.ts);
    if time == HlcTime::ZERO {
        let detail = format!(
            "value._ts: {} is no time; Unix seconds above 0 are expected",
            envelope.ts
        );
        return Err(ApiError::invalid(detail));
    }
    let store = node.store();
    node.observe(time)
        .map_err(|error| ApiError::conflict(error.to_string()))?;
    // The hasher's keys are fixed, so equal values get equal ballots on every node.
    let incarnation = BuildHasherDefault::<DefaultHasher>::new().hash_one((envelope.data.get(), body.fence));
    let ballot = Ballot { time, incarnation };
    let state = State {
        value: Some(envelope.data.get().into()),
        version: ballot,
        fence: body.fence.unwrap_or(0),
        expires_at_ms: None,
        // It knows nothing of what it replaces.
        lineage: Lineage {
            since: ballot,
            changes: Vec::new(),
        },
    };
    let accept = Request::Accept {
        ballot,
        state,
        blind: true,
        reserve: None,
        hint_for: None,
    };
    let key = Key::data(name);
    let reply = store
        .decide_locally(key.clone(), accept)
        .await
        .map_err(|error| not_served(&error))?;
    match reply {
        Reply::Accepted { .. } => Ok(written(ballot)),
        Reply::Fenced { fence } => Ok(fenced(fence)),
        Reply::Refused { .. } => {
            let record = store.record(&key).await.map_err(|error| not_served(&error))?;
            if record.is_none_or(|stored| stored.record.accepted > ballot) {
                // Newer, or dropped since by something newer.
                return Ok(PutAnswer {
                    ok: true,
                    written: 0,
                    rf: 1,
                    version: None,
                    fence_seen: None,
                });
            }
            Err(ApiError::conflict(
                "a coordinator is changing this key and was promised that nothing older is taken; send it again later",
            ))
        }
        Reply::Failed { reason } => Err(ApiError::unavailable(reason)),
        Reply::Corrupt { ballot } => Err(not_served(&StoreError::Corrupt { ballot })),
        other => Err(ApiError::internal(format!(
            "the acceptor answered an accept with {other:?}"
        ))),
    }
}

/// `DELETE /kv/{key}`
pub(super) async fn delete(node: &Node, name: &str, version: Option<&Version>) -> Result<CasAnswer, ApiError> {
    let version = version.map(parse_version).transpose()?;
    match change(node, Key::data(name), Command::Delete { version, fence: None }).await? {
        Answer::Written { .. } => Ok(CasAnswer {
            ok: true,
            current: None,
            version: None,
            fence_seen: None,
        }),
        other => refused_swap(other),
    }
}

/// `POST /kv/cas`
pub(super) async fn cas(node: &Node, body: CasBody) -> Result<CasAnswer, ApiError> {
    kv_api::check_key(&body.key).map_err(|error| broken_rule(&error))?;
    check_value(node, &body.new)?;
    let expect = match (body.old, body.version) {
        (Some(_), Some(_)) => return Err(ApiError::invalid("old, version: only one of them may be given")),
        (old, None) => Expect::Value(old.unwrap_or(serde_json::Value::Null)),
        (None, Some(version)) => Expect::Version(version.as_ref().map(parse_version).transpose()?),
    };
    let command = Command::Cas {
        expect,
        new: body.new.get().into(),
        fence: body.fence,
    };
    match change(node, Key::data(&body.key), command).await? {
        Answer::Swapped { version } => Ok(CasAnswer {
            ok: true,
            current: None,
            version: Some(version.into()),
            fence_seen: None,
        }),
        other => refused_swap(other),
    }
}

fn refused_swap(answer: Answer) -> Result<CasAnswer, ApiError> {
    match answer {
        Answer::NotSwapped { current, version } => {
            let current = Some(raw(current.as_deref().unwrap_or("null"))?);
            Ok(CasAnswer {
                ok: false,
                current,
                version: version.map(Version::from),
                fence_seen: None,
            })
        }
        Answer::FenceTooLow { seen } => Ok(CasAnswer {
            ok: false,
            current: None,
            version: None,
            fence_seen: Some(seen),
        }),
        other => Err(unexpected(&other)),
    }
}

/// `POST /lock/acquire/{key}`
pub(super) async fn acquire(
    node: &Node,
    name: &str,
    ttl_sec: Option<f64>,
    owner: Option<&str>,
) -> Result<LockAnswer, ApiError> {
    let ttl_ms = lock_ttl_ms(ttl_sec)?;
    if let Some(owner) = owner {
        kv_api::check_name("owner", owner).map_err(|error| broken_rule(&error))?;
    }
    let token = format!("{:032x}", rand::random::<u128>());
    let command = Command::Acquire {
        token: token.into(),
        owner: owner.map(Arc::from),
        ttl_ms,
    };
    match change(node, Key::lock(name), command).await? {
        Answer::Locked {
            token,
            fence,
            expires_at_ms,
            expires_in_ms,
        } => Ok(LockAnswer {
            token: Some(token.to_string()),
            fence: Some(fence),
            ..lock_answer(true, expires_at_ms, expires_in_ms)
        }),
        Answer::LockHeld {
            expires_at_ms,
            expires_in_ms,
        } => Ok(lock_answer(false, expires_at_ms, expires_in_ms)),
        other => Err(unexpected(&other)),
    }
}

/// `POST /lock/release/{key}`
pub(super) async fn release(node: &Node, name: &str, token: Option<&str>) -> Result<OkAnswer, ApiError> {
    let command = Command::Release {
        token: token.map(Arc::from),
    };
    match change(node, Key::lock(name), command).await? {
        Answer::Released(ok) => Ok(OkAnswer { ok }),
        other => Err(unexpected(&other)),
    }
}

/// `POST /lock/renew/{key}`
pub(super) async fn renew(node: &Node, name: &str, token: &str, ttl_sec: Option<f64>) -> Result<LockAnswer, ApiError> {
    let command = Command::Renew {
        token: token.into(),
        ttl_ms: lock_ttl_ms(ttl_sec)?,
    };
    match change(node, Key::lock(name), command).await? {
        Answer::Renewed {
            expires_at_ms,
            expires_in_ms,
        } => Ok(lock_answer(true, expires_at_ms, expires_in_ms)),
        Answer::NotRenewed => Ok(LockAnswer::default()),
        other => Err(unexpected(&other)),
    }
}

fn lock_ttl_ms(ttl_sec: Option<f64>) -> Result<u64, ApiError> {
    let ttl_sec = ttl_sec.unwrap_or(kv_api::DEFAULT_LOCK_TTL_SEC);
    kv_api::ttl_ms(ttl_sec).map_err(|error| broken_rule(&error))
}

fn lock_answer(ok: bool, expires_at_ms: u64, expires_in_ms: u64) -> LockAnswer {
    LockAnswer {
        ok,
        expires_at: Some(sec(expires_at_ms)),
        expires_in_sec: Some(sec(expires_in_ms)),
        ..LockAnswer::default()
    }
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of any sensible year are exact")]
fn sec(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}

/// `GET /kv?prefix=…`
pub(super) async fn scan(node: &Node, query: ScanQuery) -> Result<ScanAnswer, ApiError> {
    let limit = match query.limit {
        None => kv_api::DEFAULT_SCAN_LIMIT,
        Some(limit @ 1..=kv_api::MAX_SCAN_LIMIT) => limit,
        Some(limit) => {
            let expected = format!("1 to {}", kv_api::MAX_SCAN_LIMIT);
            return Err(ApiError::invalid(format!("limit: got {limit}; {expected} is expected")).with("field", "limit"));
        }
    };
    let prefix = Key::data(&query.prefix).as_text().to_owned();
    let mut after = query.after.map(|after| Key::data(&after).as_text().to_owned());
    let now_unix_ms = node.store().clock().now_unix_ms();
    let (mut items, mut bytes) = (Vec::new(), 0);
    for _ in 0..SCAN_PAGES_MAX {
        let list = List::Keys {
            prefix: prefix.clone(),
            after: after.clone(),
            reverse: query.reverse,
        };
        let page = node
            .store()
            .page(list, limit)
            .await
            .map_err(|error| not_served(&error))?;
        let records = page.records.len();
        for (number, record) in page.records.into_iter().enumerate() {
            let name = record.key.name();
            if let Some(item) = item(name, record.held.accepted, record.held.state.as_ref(), now_unix_ms) {
                let item = item?;
                bytes += item.value.get().len();
                items.push(item);
            }
            let is_last = page.end && number + 1 == records;
            if (items.len() >= limit || bytes >= MAX_PAGE_BYTES) && !is_last {
                return Ok(ScanAnswer {
                    items,
                    next: Some(name.to_owned()),
                });
            }
            after = Some(record.key.as_text().to_owned());
        }
        if page.end {
            return Ok(ScanAnswer { items, next: None });
        }
    }
    let next = after
        .as_deref()
        .and_then(Key::from_text)
        .map(|key| key.name().to_owned());
    Ok(ScanAnswer { items, next })
}

async fn change(node: &Node, key: Key, command: Command) -> Result<Answer, ApiError> {
    let request = RequestId(rand::random());
    node.store()
        .change(key, command, request)
        .await
        .map_err(|error| not_served(&error))
}

fn check_value(node: &Node, value: &RawValue) -> Result<(), ApiError> {
    let (bytes, limit) = (value.get().len(), node.max_value_bytes());
    if bytes > limit {
        return Err(ApiError::too_large(format!(
            "value: it has {bytes} bytes of JSON; at most {limit} are taken (MAX_VALUE_BYTES)"
        )));
    }
    Ok(())
}

fn parse_version(version: &Version) -> Result<Ballot, ApiError> {
    version
        .ballot()
        .map_err(|error| ApiError::invalid(format!("version: {error}")))
}

fn raw(text: &str) -> Result<Box<RawValue>, ApiError> {
    RawValue::from_string(text.to_owned())
        .map_err(|error| ApiError::internal(format!("a stored value is no JSON: {error}")))
}

fn unexpected(answer: &Answer) -> ApiError {
    ApiError::internal(format!("unexpected outcome {answer:?}"))
}
