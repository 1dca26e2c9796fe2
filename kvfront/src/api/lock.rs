//! `/lock`: acquire, release, renew. Locks live in a namespace that `/kv` cannot reach.

use axum::extract::State;
use kv_api::{AcquireQuery, LockAnswer, OkAnswer, ReleaseQuery, RenewQuery};
use service::http::{ApiError, Json, Query};

use super::Api;
use super::kv::PathKey;

pub(super) async fn acquire(
    State(api): State<Api>,
    PathKey(name): PathKey,
    Query(query): Query<AcquireQuery>,
) -> Result<Json<LockAnswer>, ApiError> {
    let AcquireQuery { ttl_sec, owner } = query;
    api.run(move |ops| async move { ops.acquire(&name, ttl_sec, owner.as_deref()).await })
        .await
        .map(Json)
}

pub(super) async fn release(
    State(api): State<Api>,
    PathKey(name): PathKey,
    Query(query): Query<ReleaseQuery>,
) -> Result<Json<OkAnswer>, ApiError> {
    let released = api
        .run(move |ops| async move { ops.release(&name, query.token.as_deref()).await })
        .await?;
    Ok(Json(OkAnswer { ok: released }))
}

pub(super) async fn renew(
    State(api): State<Api>,
    PathKey(name): PathKey,
    Query(query): Query<RenewQuery>,
) -> Result<Json<LockAnswer>, ApiError> {
    let RenewQuery { token, ttl_sec } = query;
    api.run(move |ops| async move { ops.renew(&name, &token, ttl_sec).await })
        .await
        .map(Json)
}
