//! The KV API's routes.

use std::sync::Arc;

use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::response::IntoResponse;
use kv_api::{
    AcquireQuery, CasAnswer, CasBody, Item, LockAnswer, OkAnswer, PutAnswer, PutBody, ReleaseQuery, RenewQuery,
    ScanAnswer, ScanQuery,
};
use service::http::{ApiError, Json, Query};

use super::{broken_rule, ops};
use crate::node::Node;

type Answer<T> = Result<Json<T>, ApiError>;
type SharedNode = State<Arc<Node>>;

/// The key in a path: whatever follows `/kv/` or `/lock/…/`, percent-decoded; a plain `/` belongs to it as well as an encoded one.
pub(super) struct InPath(String);

impl<S: Sync> FromRequestParts<S> for InPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let path = parts.uri.path();
        let raw = path
            .strip_prefix("/kv/")
            .or_else(|| path.strip_prefix("/lock/")?.split_once('/').map(|(_, key)| key));
        let key = kv_api::decode_key(raw.unwrap_or_default());
        key.map(|key| Self(key.into_owned()))
            .map_err(|error| broken_rule(&error))
    }
}

/// `GET /health`
pub(super) async fn health() -> impl IntoResponse {
    axum::Json(serde_json::json!({ "status": "ok" }))
}

/// `GET /kv/{key}`
pub(super) async fn get(State(node): SharedNode, InPath(key): InPath) -> Answer<Item> {
    ops::get(&node, &key).await.map(Json)
}

/// `PUT /kv/{key}`
pub(super) async fn put(State(node): SharedNode, InPath(key): InPath, Json(body): Json<PutBody>) -> Answer<PutAnswer> {
    ops::put(&node, &key, body).await.map(Json)
}

/// `DELETE /kv/{key}`
pub(super) async fn delete(State(node): SharedNode, InPath(key): InPath) -> Answer<OkAnswer> {
    ops::delete(&node, &key, None)
        .await
        .map(|answer| Json(OkAnswer { ok: answer.ok }))
}

/// `POST /kv/cas`
pub(super) async fn cas(State(node): SharedNode, Json(body): Json<CasBody>) -> Answer<CasAnswer> {
    ops::cas(&node, body).await.map(Json)
}

/// `GET /kv?prefix=…`
pub(super) async fn scan(State(node): SharedNode, Query(query): Query<ScanQuery>) -> Answer<ScanAnswer> {
    ops::scan(&node, query).await.map(Json)
}

/// `POST /lock/acquire/{key}`
pub(super) async fn acquire(
    State(node): SharedNode,
    InPath(key): InPath,
    Query(query): Query<AcquireQuery>,
) -> Answer<LockAnswer> {
    ops::acquire(&node, &key, query.ttl_sec, query.owner.as_deref())
        .await
        .map(Json)
}

/// `POST /lock/release/{key}`
pub(super) async fn release(
    State(node): SharedNode,
    InPath(key): InPath,
    Query(query): Query<ReleaseQuery>,
) -> Answer<OkAnswer> {
    ops::release(&node, &key, query.token.as_deref()).await.map(Json)
}

/// `POST /lock/renew/{key}`
pub(super) async fn renew(
    State(node): SharedNode,
    InPath(key): InPath,
    Query(query): Query<RenewQuery>,
) -> Answer<LockAnswer> {
    ops::renew(&node, &key, &query.token, query.ttl_sec).await.map(Json)
}
