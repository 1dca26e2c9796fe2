//! What the page shows of the cluster, from the gateway's own origin: kvfront's view of the KV, lb's gateways, RabbitMQ's queues, and the
//! journey of a key.
//!
//! Promises: each source is asked at most once per [`STATUS_INTERVAL`], however many look, with a time limit and a bounded answer; one that
//! does not answer leaves the others as they are, and its error in its place.

mod chaos;
mod fetch;
mod lb;
mod rabbit;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, routing::post};
use http::header::CONTENT_TYPE;
use http::{StatusCode, Uri};
use kv_api::RawValue;
use serde::Serialize;
use service::http::ApiError;
use tokio::sync::Semaphore;

use self::fetch::{Fetcher, Got};
use crate::coalesce::Coalesced;
use crate::config::Config;

/// Looks at the cluster start at least this far apart; whoever asks meanwhile gets the last one.
const STATUS_INTERVAL: Duration = Duration::from_millis(400);
/// The ring only changes with kvfront's settings.
const RING_INTERVAL: Duration = Duration::from_secs(5);
/// Journeys of keys looked at at once; further ones are answered 503.
const JOURNEYS_MAX: usize = 8;

/// The sources, and what they said last.
#[derive(Debug)]
pub(crate) struct ClusterView {
    fetcher: Fetcher,
    kv_urls: Vec<String>,
    /// Index of the kvfront that answered last.
    kv_preferred: AtomicUsize,
    lb_url: Option<String>,
    rabbit_url: Option<String>,
    chaos_url: Option<String>,
    status: Coalesced<Bytes>,
    ring: Coalesced<Bytes>,
    journeys: Semaphore,
}

/// A source's answer, or why there is none. Both empty: the source is not there.
#[derive(Debug, Serialize)]
struct Source<T> {
    says: Option<T>,
    error: Option<String>,
}

impl<T> Source<T> {
    fn of(result: Option<Result<T, String>>) -> Self {
        let (says, error) = match result {
            None => (None, None),
            Some(Ok(says)) => (Some(says), None),
            Some(Err(error)) => (None, Some(error)),
        };
        Self { says, error }
    }
}

/// The answer of `GET /cluster`.
#[derive(Debug, Serialize)]
struct Status {
    /// Unix seconds.
    now: f64,
    kv: Source<Box<RawValue>>,
    lb: Source<lb::Figures>,
    rabbit: Source<Vec<rabbit::Queue>>,
    /// The page may offer to break things.
    chaos: bool,
}

impl ClusterView {
    /// Asks nobody yet.
    ///
    /// # Errors
    /// The HTTP client cannot be built.
    pub(crate) fn new(config: &Config) -> anyhow::Result<Self> {
        let trimmed = |url: &str| url.trim().trim_end_matches('/').to_owned();
        let optional = |url: &Option<String>| url.as_deref().map(trimmed).filter(|url| !url.is_empty());
        let kv_urls = config.kv_url.split(',').map(trimmed).filter(|url| !url.is_empty());
        Ok(Self {
            fetcher: Fetcher::new()?,
            kv_urls: kv_urls.collect(),
            kv_preferred: AtomicUsize::new(0),
            lb_url: optional(&config.lb_status_url),
            rabbit_url: optional(&config.rabbit_management_url),
            chaos_url: optional(&config.chaos_url),
            status: Coalesced::new(STATUS_INTERVAL),
            ring: Coalesced::new(RING_INTERVAL),
            journeys: Semaphore::new(JOURNEYS_MAX),
        })
    }

    /// Asks the kvfronts, one after the other until one answers.
    async fn kv(&self, path: &str) -> Result<Got, String> {
        let count = self.kv_urls.len();
        let first = self.kv_preferred.load(Ordering::Relaxed);
        let mut trouble = "KV_URL names no kvfront".to_owned();
        for place in (0..count).map(|i| (first + i) % count) {
            match self.fetcher.get(&format!("{}{path}", self.kv_urls[place])).await {
                Ok(got) => {
                    self.kv_preferred.store(place, Ordering::Relaxed);
                    return Ok(got);
                }
                Err(error) => trouble = error,
            }
        }
        Err(trouble)
    }

    async fn kv_says(&self) -> Result<Box<RawValue>, String> {
        let body = self.kv("/cluster").await?.success()?;
        serde_json::from_slice(&body).map_err(|error| format!("kvfront's answer is no JSON: {error}"))
    }

    async fn lb_says(&self) -> Option<Result<lb::Figures, String>> {
        let url = format!("{}/metrics", self.lb_url.as_ref()?);
        let got = self.fetcher.get(&url).await;
        Some(
            got.and_then(Got::success)
                .map(|text| lb::figures(&String::from_utf8_lossy(&text))),
        )
    }

    async fn rabbit_says(&self) -> Option<Result<Vec<rabbit::Queue>, String>> {
        let url = format!("{}{}", self.rabbit_url.as_ref()?, rabbit::PATH);
        let got = self.fetcher.get(&url).await;
        Some(got.and_then(Got::success).and_then(|body| rabbit::queues(&body)))
    }

    async fn look(&self, now: f64) -> Result<Bytes, ApiError> {
        let (kv, lb, rabbit) = tokio::join!(self.kv_says(), self.lb_says(), self.rabbit_says());
        let status = Status {
            now,
            kv: Source::of(Some(kv)),
            lb: Source::of(lb),
            rabbit: Source::of(rabbit),
            chaos: self.chaos_url.is_some(),
        };
        let body = serde_json::to_vec(&status).map_err(|error| ApiError::internal(error.to_string()))?;
        Ok(body.into())
    }
}

/// What the handlers share.
#[derive(Clone)]
struct Shared {
    view: Arc<ClusterView>,
    clock: crate::app::Clock,
}

/// The routes of the cluster view; those that break things answer 404 without `CHAOS_URL`.
pub(crate) fn routes(view: ClusterView, clock: crate::app::Clock) -> Router {
    let view = Arc::new(view);
    Router::new()
        .route("/cluster", get(status))
        .route("/cluster/ring", get(ring))
        .route("/cluster/keys/{*key}", get(journey))
        .route("/chaos", get(chaos::list))
        .route("/chaos/{service}/{action}", post(chaos::act))
        .with_state(Shared { view, clock })
}

async fn status(State(Shared { view, clock }): State<Shared>) -> Result<Response, ApiError> {
    let look = || async { view.look(clock()).await };
    view.status
        .recent(look)
        .await
        .map(|body| json_answer(StatusCode::OK, body))
}

async fn ring(State(Shared { view, .. }): State<Shared>) -> Result<Response, ApiError> {
    let look = || async {
        let got = view.kv("/ring").await.and_then(Got::success);
        got.map_err(ApiError::unavailable)
    };
    view.ring
        .recent(look)
        .await
        .map(|body| json_answer(StatusCode::OK, body))
}

async fn journey(State(Shared { view, .. }): State<Shared>, uri: Uri) -> Result<Response, ApiError> {
    let Ok(_turn) = view.journeys.try_acquire() else {
        let detail = format!("{JOURNEYS_MAX} journeys of keys are being looked at, the most at once");
        return Err(ApiError::unavailable(detail).retry_after_sec(1));
    };
    // As it came: kvfront decodes it.
    let key = uri.path().strip_prefix("/cluster/keys/").unwrap_or_default();
    let got = view.kv(&format!("/explain/{key}")).await;
    got.map(|got| json_answer(got.status, got.body))
        .map_err(ApiError::unavailable)
}

fn json_answer(status: StatusCode, body: Bytes) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], body).into_response()
}
