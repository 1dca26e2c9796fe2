//! `/kv`: get, put, delete, CAS and scan.

use axum::extract::{FromRequestParts, State};
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_TYPE, ETAG};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use kv_api::{CasAnswer, CasBody, ConsistencyQuery, PutBody, ScanQuery, Version, write_open_item};
use register::proposer::Consistency;
use serde::Deserialize;
use service::http::{ApiError, Json, Query};

use super::Api;
use super::errors::rule_error;
use super::named::Named;
use crate::ops::Found;
use crate::scan::{self, ScanRange};

/// Bytes of an item besides its key and value.
const ITEM_BYTES: usize = 80;

/// What a scan counts as among the operations under way: it reads so much of every node that only a few at a time get through before their
/// pages are given up, and a page that is missing makes hundreds of reads.
const SCAN_OPERATIONS: usize = 4 * scan::PARALLEL_READS;

/// The key of the path, decoded from its raw form: an encoded `/` or `:` is part of the key, and so is a plain one.
#[derive(Debug, Clone)]
pub(super) struct PathKey(pub(super) String);

impl<S: Sync> FromRequestParts<S> for PathKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let path = parts.uri.path();
        let raw = ["/kv/", "/lock/acquire/", "/lock/release/", "/lock/renew/", "/explain/"]
            .iter()
            .find_map(|prefix| path.strip_prefix(prefix))
            .unwrap_or_default();
        kv_api::decode_key(raw)
            .map(|key| Self(key.into_owned()))
            .map_err(|e| rule_error(&e))
    }
}

/// Query of `DELETE /kv/{key}`.
#[derive(Debug, Deserialize)]
pub(super) struct DeleteQuery {
    /// Deletes only while the value still has this version.
    version: Option<Version>,
    /// Refused when lower than the fence the key has seen.
    fence: Option<u64>,
}

pub(super) async fn get_key(
    State(api): State<Api>,
    PathKey(key): PathKey,
    Query(query): Query<ConsistencyQuery>,
) -> Result<Response, ApiError> {
    let consistency = query.consistency.map(consistency);
    let (body, version) = api
        .run(move |ops| async move {
            let Found { value, version } = ops.get(&key, consistency).await?;
            let mut body = Vec::with_capacity(key.len() + value.len() + ITEM_BYTES);
            write_open_item(&mut body, &key, &value, version);
            body.push(b'}');
            Ok((body, version))
        })
        .await?;
    let etag = etag(Some(&version.into()));
    Ok(with_etag(
        ([(CONTENT_TYPE, "application/json")], body).into_response(),
        etag,
    ))
}

pub(super) async fn put_key(
    State(api): State<Api>,
    PathKey(key): PathKey,
    Query(query): Query<ConsistencyQuery>,
    named: Named,
    Json(body): Json<PutBody>,
) -> Result<Response, ApiError> {
    let consistency = query.consistency.map(consistency);
    let attempt = named.attempt(&api.ops)?;
    let put = move |ops: std::sync::Arc<crate::ops::Ops>| async move {
        ops.put(&key, body.value.get(), body.ttl_sec, body.fence, consistency, attempt)
            .await
    };
    let answer = api.run(put).await?;
    let etag = etag(answer.version.as_ref());
    Ok(with_etag(Json(answer).into_response(), etag))
}

pub(super) async fn delete_key(
    State(api): State<Api>,
    PathKey(key): PathKey,
    Query(query): Query<DeleteQuery>,
    named: Named,
) -> Result<Json<CasAnswer>, ApiError> {
    let attempt = named.attempt(&api.ops)?;
    let DeleteQuery { version, fence } = query;
    api.run(move |ops| async move { ops.delete(&key, version.as_ref(), fence, attempt).await })
        .await
        .map(Json)
}

pub(super) async fn cas(
    State(api): State<Api>,
    named: Named,
    Json(body): Json<CasBody>,
) -> Result<Json<CasAnswer>, ApiError> {
    let attempt = named.attempt(&api.ops)?;
    let CasBody {
        key,
        old,
        version,
        new,
        fence,
    } = body;
    api.run(move |ops| async move { ops.cas(&key, old, version, new.get(), fence, attempt).await })
        .await
        .map(Json)
}

pub(super) async fn scan(State(api): State<Api>, Query(query): Query<ScanQuery>) -> Result<Response, ApiError> {
    let limit = match query.limit.unwrap_or(kv_api::DEFAULT_SCAN_LIMIT) {
        limit @ 1..=kv_api::MAX_SCAN_LIMIT => limit,
        limit => {
            let expected = format!("1 to {}", kv_api::MAX_SCAN_LIMIT);
            return Err(ApiError::invalid(format!("limit: got {limit}; {expected} is expected")).with("field", "limit"));
        }
    };
    for (field, text) in [("prefix", Some(&query.prefix)), ("after", query.after.as_ref())] {
        if text.is_some_and(|text| text.len() > kv_api::MAX_KEY_BYTES) {
            let detail = format!("{field}: at most {} bytes are allowed", kv_api::MAX_KEY_BYTES);
            return Err(ApiError::invalid(detail).with("field", field));
        }
    }
    let range = ScanRange {
        prefix: query.prefix,
        after: query.after,
        reverse: query.reverse,
    };
    let answer = api
        .run_sized(SCAN_OPERATIONS, move |ops| async move {
            scan::scan(&ops.front, range, limit).await
        })
        .await?;
    Ok(([(CONTENT_TYPE, "application/json")], answer).into_response())
}

/// The consistency as the register names it.
fn consistency(asked: kv_api::Consistency) -> Consistency {
    match asked {
        kv_api::Consistency::One => Consistency::One,
        kv_api::Consistency::Quorum => Consistency::Quorum,
    }
}

fn etag(version: Option<&Version>) -> Option<HeaderValue> {
    version.and_then(|version| HeaderValue::from_str(&format!("\"{}\"", version.0)).ok())
}

fn with_etag(mut response: Response, etag: Option<HeaderValue>) -> Response {
    if let Some(etag) = etag {
        response.headers_mut().insert(ETAG, etag);
    }
    response
}
