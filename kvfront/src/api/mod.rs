//! The HTTP edge: routes, keys out of paths, queries and bodies in, answers out.
//!
//! A client that hangs up never cancels an operation: each runs in a task of its own.

mod admin;
mod batch;
mod errors;
mod explain;
mod kv;
mod lock;
mod named;
mod room;
mod watch;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::Method;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use service::Tasks;
use service::http::{ApiError, RequestMetrics, ShortCut, ShortCuts, Traced, detached, with_measured_routes};
use service::metrics::Metrics;
use service::traces::Tracer;

use crate::front::Front;
use crate::ops::{OpError, Ops};
use crate::upkeep::Upkeep;
use crate::watch::Hub;

/// Bytes of the largest batch body.
const BATCH_BODY_MAX_BYTES: usize = 16 << 20;
/// On top of twice the largest value (a CAS carries two), so that a value somewhat too large is answered cleanly instead of by a closed
/// connection.
const BODY_MARGIN_BYTES: usize = 1 << 20;

/// The route of a single key.
const KEY_ROUTE: &str = "/kv/{*key}";

/// What the handlers share.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    pub(crate) ops: Arc<Ops>,
    pub(crate) upkeep: Arc<Upkeep>,
}

impl Api {
    fn front(&self) -> &Arc<Front> {
        &self.ops.front
    }

    /// Admits one operation and runs it to its end, whether or not the client waits.
    async fn run<T, F, Fut>(&self, work: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce(Arc<Ops>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, OpError>> + Send + 'static,
    {
        self.run_sized(1, work).await
    }

    /// As [`Self::run`], for work that counts as several operations.
    async fn run_sized<T, F, Fut>(&self, operations: usize, work: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce(Arc<Ops>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, OpError>> + Send + 'static,
    {
        let permit = self.front().admit(operations).map_err(|e| errors::not_started(&e))?;
        let ops = Arc::clone(&self.ops);
        detached(async move {
            let result = work(ops).await.map_err(ApiError::from);
            drop(permit);
            result
        })
        .await
    }
}

/// All routes of a kvfront.
///
/// A call that belongs to a recorded trace has one span here, whatever it asks of how many nodes: messages to a node are shared by many
/// operations, so none of them is on behalf of one.
pub(crate) fn routes(api: Api, tasks: Tasks, metrics: Metrics, tracer: Tracer) -> ShortCuts {
    let body_limit = 2 * api.ops.max_value_bytes + BODY_MARGIN_BYTES;
    let requests = RequestMetrics::register(&metrics).traced(Traced::Following(tracer));
    // The same handlers as below.
    let short_cuts = vec![
        ShortCut::to(&api, body_limit, (Method::GET, "/kv/", KEY_ROUTE), kv::get_key),
        ShortCut::to(&api, body_limit, (Method::PUT, "/kv/", KEY_ROUTE), kv::put_key),
        ShortCut::to_whole(&api, body_limit, (Method::POST, "/kv/cas"), kv::cas),
    ];
    let watched = Hub::start(Arc::clone(api.front()), &tasks);
    // Keys named like a call are keys all the same, for the other methods.
    let key_methods = || get(kv::get_key).put(kv::put_key).delete(kv::delete_key);
    let router = Router::new()
        .route("/health", get(admin::health))
        .route("/cluster", get(admin::cluster))
        .route("/ring", get(admin::ring))
        .route("/explain/{*key}", get(explain::explain))
        .route("/kv", get(kv::scan))
        .route("/kv/", key_methods())
        .route("/kv/cas", key_methods().post(kv::cas))
        .route(
            "/kv/batch",
            key_methods()
                .merge(post(batch::batch).layer(from_fn_with_state(api.clone(), room::for_a_batch)))
                .layer(DefaultBodyLimit::max(BATCH_BODY_MAX_BYTES)),
        )
        .route(KEY_ROUTE, key_methods())
        .route("/lock/acquire/{*key}", post(lock::acquire))
        .route("/lock/release/{*key}", post(lock::release))
        .route("/lock/renew/{*key}", post(lock::renew))
        .merge(Router::new().route("/watch", get(watch::watch)).with_state(watched))
        .with_state(api);
    let router = with_measured_routes(router, tasks, metrics, requests.clone(), body_limit);
    ShortCuts::new(router, short_cuts, requests)
}
