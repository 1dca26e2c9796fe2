//! An in-memory server of the KV API for tests, over real HTTP on a free port of the loopback interface.
//!
//! Promises what one client can see of the real thing: versions, CAS by version and by value, deletes, scans, batches (also
//! ordered), time to live, locks with token and fence, named changes, watching (without the ends of times to live). Beyond that it can be told to fail, to be slow, and to let somebody else
//! change something just before a call is carried out.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use kv_api::{MAX_VALUE_BYTES, NamedBatchBody, REQUEST_ID_HEADER, decode_key};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::TcpListener;

pub use store::Store;

use crate::{Kv, Options};
use store::{Reply, invalid};

mod feed;
mod store;

/// A kind of call, to choose which ones misbehave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// `GET /kv/{key}`
    Get,
    /// `PUT /kv/{key}`
    Put,
    /// `POST /kv/cas`
    Cas,
    /// `DELETE /kv/{key}`
    Delete,
    /// `GET /kv`
    Scan,
    /// `POST /kv/batch`
    Batch,
    /// `POST /lock/acquire/{key}`
    Acquire,
    /// `POST /lock/renew/{key}`
    Renew,
    /// `POST /lock/release/{key}`
    Release,
    /// `GET /health`
    Health,
    /// `GET /watch`
    Watch,
    /// `GET /cluster`
    Cluster,
}

/// A way to misbehave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// 503; nothing is changed.
    Unavailable,
    /// 503 with `"outcome":"unknown"`; nothing is changed.
    UnknownNotDone,
    /// 503 with `"outcome":"unknown"`; it is carried out all the same.
    UnknownDone,
    /// It is carried out, but the connection breaks in the middle of the answer.
    LostAnswer,
    /// 503 with `"outcome":"unknown"`; of a batch only so many operations are carried out, of anything else nothing.
    UnknownAfter(usize),
}

type Hook = Box<dyn FnOnce(&mut Store) + Send>;

#[derive(Default)]
struct Inner {
    store: Store,
    faults: VecDeque<(Call, Fault)>,
    outage: Option<Fault>,
    delay: Duration,
    hooks: Vec<(Call, Hook)>,
    seen: Vec<Call>,
}

/// The server. It stops when dropped.
pub struct FakeKv {
    /// `http://127.0.0.1:PORT`
    pub url: String,
    inner: Arc<Mutex<Inner>>,
    server: tokio::task::JoinHandle<()>,
}

impl std::fmt::Debug for FakeKv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeKv").field("url", &self.url).finish_non_exhaustive()
    }
}

impl FakeKv {
    /// Starts an empty one.
    ///
    /// # Panics
    /// When no port of the loopback interface can be opened.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free loopback port");
        let addr = listener.local_addr().expect("a bound socket has an address");
        let inner = Arc::new(Mutex::new(Inner::default()));
        // A little above the value limit, for the JSON around it; batches in tests are far smaller.
        let limit = axum::extract::DefaultBodyLimit::max(8 * MAX_VALUE_BYTES);
        let app = Router::new()
            .fallback(handle)
            .layer(limit)
            .with_state(Arc::clone(&inner));
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, app).await {
                tracing::error!(%error, "the fake KV stopped");
            }
        });
        Self {
            url: format!("http://{addr}"),
            inner,
            server,
        }
    }

    /// A client of it, with default options.
    ///
    /// # Panics
    /// Never: the URL is sound.
    #[must_use]
    pub fn client(&self) -> Kv {
        Kv::new(&self.url, Options::default()).expect("the URL is sound")
    }

    /// Looks at or changes the data directly, as another client would. Keep it short: calls wait meanwhile.
    pub fn with<R>(&self, act: impl FnOnce(&mut Store) -> R) -> R {
        act(&mut lock(&self.inner).store)
    }

    /// Writes `key` directly.
    pub fn set<T: Serialize + ?Sized>(&self, key: &str, value: &T) {
        self.with(|store| store.set(key, value));
    }

    /// The value of `key`, `None` when it is absent.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<Value> {
        self.with(|store| store.value(key))
    }

    /// The value of `key` as a `T`, `None` when it is absent.
    ///
    /// # Panics
    /// When it is no `T`: the test has failed.
    #[must_use]
    pub fn record<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        self.value(key)
            .map(|value| serde_json::from_value(value).expect("the record has the expected shape"))
    }

    /// The next `times` calls of this kind fail so.
    pub fn fail_next(&self, call: Call, times: usize, fault: Fault) {
        lock(&self.inner)
            .faults
            .extend(std::iter::repeat_n((call, fault), times));
    }

    /// Every call fails so, until told otherwise with `None`.
    pub fn outage(&self, fault: Option<Fault>) {
        lock(&self.inner).outage = fault;
    }

    /// Every call is carried out this much later; zero by default.
    pub fn delay(&self, delay: Duration) {
        lock(&self.inner).delay = delay;
    }

    /// Just before the next call of this kind is carried out, somebody else acts: for races that happen every time.
    pub fn before_next(&self, call: Call, act: impl FnOnce(&mut Store) + Send + 'static) {
        lock(&self.inner).hooks.push((call, Box::new(act)));
    }

    /// How many calls of this kind came so far, failed ones included.
    #[must_use]
    pub fn count(&self, call: Call) -> usize {
        lock(&self.inner).seen.iter().filter(|seen| **seen == call).count()
    }
}

impl Drop for FakeKv {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn lock(inner: &Mutex<Inner>) -> std::sync::MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn handle(
    State(inner): State<Arc<Mutex<Inner>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let name = headers.get(REQUEST_ID_HEADER).and_then(|name| name.to_str().ok());
    let (call, key) = match route(&method, uri.path()) {
        Ok(route) => route,
        Err(reply) => return answer(reply),
    };
    let delay = lock(&inner).delay;
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    let (fault, reply) = {
        let mut inner = lock(&inner);
        let inner = &mut *inner;
        inner.seen.push(call);
        let planned = inner.faults.iter().position(|(on, _)| *on == call);
        let planned = planned.and_then(|at| inner.faults.remove(at)).map(|(_, fault)| fault);
        let fault = planned.or(inner.outage);
        let reply = match fault {
            Some(Fault::UnknownAfter(_)) if call != Call::Batch => (503, json!({"detail": "made to fail by the test"})),
            Some(Fault::Unavailable | Fault::UnknownNotDone) => (503, json!({"detail": "made to fail by the test"})),
            _ => {
                let (now, later) = std::mem::take(&mut inner.hooks)
                    .into_iter()
                    .partition(|(on, _)| *on == call);
                inner.hooks = later;
                let now: Vec<(Call, Hook)> = now;
                for (_, hook) in now {
                    hook(&mut inner.store);
                }
                let ops_max = match fault {
                    Some(Fault::UnknownAfter(ops)) => ops,
                    _ => usize::MAX,
                };
                let run =
                    |store: &mut Store| run(store, call, &key, &uri, &body, ops_max).unwrap_or_else(|reply| reply);
                inner.store.once(name, run)
            }
        };
        (fault, reply)
    };
    if call == Call::Watch && fault.is_none() {
        return feed::serve(&inner, &uri).unwrap_or_else(answer);
    }
    match fault {
        Some(Fault::UnknownDone | Fault::UnknownNotDone | Fault::UnknownAfter(_)) => {
            answer((503, json!({"detail": "made to fail by the test", "outcome": "unknown"})))
        }
        Some(Fault::LostAnswer) => {
            // A body that fails half-way makes the server break the connection.
            let broken = std::io::Error::other("made to break by the test");
            let parts = [Ok(Bytes::from_static(b"{")), Err(broken)];
            Body::from_stream(futures_util::stream::iter(parts)).into_response()
        }
        _ => answer(reply),
    }
}

fn route(method: &Method, path: &str) -> Result<(Call, String), Reply> {
    let key = |raw: &str| {
        decode_key(raw)
            .map(std::borrow::Cow::into_owned)
            .map_err(|error| invalid(&error))
    };
    let plain = |call| Ok((call, String::new()));
    match (method.as_str(), path) {
        ("GET", "/health") => plain(Call::Health),
        ("GET", "/kv") => plain(Call::Scan),
        ("GET", "/watch") => plain(Call::Watch),
        ("GET", "/cluster") => plain(Call::Cluster),
        ("POST", "/kv/cas") => plain(Call::Cas),
        ("POST", "/kv/batch") => plain(Call::Batch),
        (method, path) => {
            for (on, prefix, call) in [
                ("GET", "/kv/", Call::Get),
                ("PUT", "/kv/", Call::Put),
                ("DELETE", "/kv/", Call::Delete),
                ("POST", "/lock/acquire/", Call::Acquire),
                ("POST", "/lock/renew/", Call::Renew),
                ("POST", "/lock/release/", Call::Release),
            ] {
                if let Some(raw) = path.strip_prefix(prefix)
                    && method == on
                {
                    return Ok((call, key(raw)?));
                }
            }
            Err((404, json!({"detail": "Not Found"})))
        }
    }
}

fn query<Q: DeserializeOwned>(uri: &Uri) -> Result<Q, Reply> {
    Query::try_from_uri(uri)
        .map(|Query(query)| query)
        .map_err(|error| invalid(&error))
}

/// `ops_max`: of a batch no more operations are carried out.
fn run(store: &mut Store, call: Call, key: &str, uri: &Uri, body: &[u8], ops_max: usize) -> Result<Reply, Reply> {
    fn json<B: DeserializeOwned>(body: &[u8]) -> Result<B, Reply> {
        serde_json::from_slice(body).map_err(|error| invalid(&error))
    }
    Ok(match call {
        Call::Health => (200, json!({"status": "ok", "backends": 3, "rf": 2})),
        Call::Get => store.get(key),
        Call::Put => store.put(key, json(body)?),
        Call::Delete => store.delete(key, None),
        Call::Cas => store.cas(json(body)?),
        Call::Batch => {
            let mut batch: NamedBatchBody = json(body)?;
            batch.ops.truncate(ops_max);
            store.batch(batch)
        }
        Call::Scan => store.scan(&query(uri)?),
        Call::Acquire => store.acquire(key, &query(uri)?),
        Call::Renew => store.renew(key, &query(uri)?),
        Call::Release => store.release(key, &query(uri)?),
        Call::Cluster => (200, json!({"status": "serving", "backends": 3, "up": 3, "nodes": []})),
        // Answered by a feed, not by a reply.
        Call::Watch => (200, Value::Null),
    })
}

fn answer((status, body): Reply) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, axum::Json(body)).into_response()
}
