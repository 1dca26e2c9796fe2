//! `/lock`: acquire, release, renew. Locks live in a namespace that `/kv` cannot reach.

use axum::extract::State;
use kv_api::{AcquireQuery, LockAnswer, OkAnswer, ReleaseQuery, RenewQuery};
use service::http::{ApiError, Json, Query};

use super::Api;
use super::kv::PathKey;
use super::named::Named;

pub(super) async fn acquire(
    State(api): State<Api>,
    PathKey(name): PathKey,
    Query(query): Query<AcquireQuery>,
    named: Named,
) -> Result<Json<LockAnswer>, ApiError> {
    let attempt = named.attempt(&api.ops)?;
    let AcquireQuery { ttl_sec, owner } = query;
    api.run(move |ops| async move { ops.acquire(&name, ttl_sec, owner.as_deref(), attempt).await })
        .await
        .map(Json)
}

pub(super) async fn release(
    State(api): State<Api>,
    PathKey(name): PathKey,
    Query(query): Query<ReleaseQuery>,
    named: Named,
) -> Result<Json<OkAnswer>, ApiError> {
    let attempt = named.attempt(&api.ops)?;
    let released = api
        .run(move |ops| async move { ops.release(&name, query.token.as_deref(), attempt).await })
        .await?;
    Ok(Json(OkAnswer { ok: released }))
}

pub(super) async fn renew(
    State(api): State<Api>,
    PathKey(name): PathKey,
    Query(query): Query<RenewQuery>,
    named: Named,
) -> Result<Json<LockAnswer>, ApiError> {
    let attempt = named.attempt(&api.ops)?;
    let RenewQuery { token, ttl_sec } = query;
    api.run(move |ops| async move { ops.renew(&name, &token, ttl_sec, attempt).await })
        .await
        .map(Json)
}
