//! Clusters to test against.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use register::acceptor::{Change, decide_as, held};
use register::ballot::SkewError;
use register::membership::{self, NodeStatus};
use register::message::{List, NodeEnvelope, NodeEnvelopeReply, PageRecord, PageReply, PageRequest};
use register::state::Record;
use register::{Envelope, EnvelopeReply, HlcTime, Key};
use serde_json::{Value, json};
use service::Shutdown;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Nothing here may take longer.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Polls until the condition gives a value.
pub(crate) async fn eventually<T, Fut: Future<Output = Option<T>>>(
    what: &str,
    mut condition: impl FnMut() -> Fut,
) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn listen(addr: SocketAddr) -> TcpListener {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match TcpListener::bind(addr).await {
            Ok(listener) => return listener,
            Err(error) => assert!(Instant::now() < deadline, "{addr}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// A real kvstore that can be stopped and started again over the same database.
pub(crate) struct Store {
    pub(crate) addr: SocketAddr,
    file: std::path::PathBuf,
    running: Option<(Shutdown, JoinHandle<anyhow::Result<()>>)>,
}

impl Store {
    async fn start(dir: &Path, name: &str) -> Self {
        let listener = listen(any_port()).await;
        let mut store = Self {
            addr: listener.local_addr().unwrap(),
            file: dir.join(format!("{name}.db")),
            running: None,
        };
        store.serve(listener);
        store
    }

    fn serve(&mut self, listener: TcpListener) {
        let file = self.file.to_str().unwrap();
        let config: kvstore::Config = service::settings::try_parse_from(["kvstore", "--db-file", file]).unwrap();
        let shutdown = Shutdown::new();
        self.running = Some((shutdown.clone(), tokio::spawn(kvstore::run(config, listener, shutdown))));
    }

    pub(crate) async fn stop(&mut self) {
        let (shutdown, task) = self.running.take().expect("it runs");
        shutdown.stop();
        task.await.unwrap().unwrap();
    }

    pub(crate) async fn start_again(&mut self) {
        let listener = listen(self.addr).await;
        self.serve(listener);
    }

    /// What it holds itself of a key.
    pub(crate) async fn own(&self, key: &str) -> Option<Value> {
        let url = format!("http://{}/kv/{}", self.addr, kv_api::encode_key(key));
        let answer = reqwest::get(url).await.unwrap();
        if answer.status() == 404 {
            return None;
        }
        Some(answer.json::<Value>().await.unwrap()["value"]["data"].clone())
    }
}

/// A kvfront and a client of it.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) base: String,
    http: reqwest::Client,
}

/// Status and body of an answer.
pub(crate) type Answer = (u16, Value);

impl Client {
    pub(crate) async fn start(backends: &[SocketAddr], flags: &[&str]) -> Self {
        let list = backends
            .iter()
            .map(|addr| format!("http://{addr}"))
            .collect::<Vec<_>>()
            .join(",");
        let args = ["kvfront", "--backends", &list, "--hint-flush-sec", "0.3"]
            .into_iter()
            .chain(flags.iter().copied());
        let config: kvfront::Config = service::settings::try_parse_from(args).unwrap();
        let listener = listen(any_port()).await;
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(kvfront::run(config, listener, Shutdown::new()));
        Self {
            base,
            http: reqwest::Client::new(),
        }
    }

    /// Started, and ready.
    pub(crate) async fn ready(backends: &[SocketAddr], flags: &[&str]) -> Self {
        let client = Self::start(backends, flags).await;
        eventually("ready", || async {
            (client.get("/ready").await.0 == 200).then_some(())
        })
        .await;
        client
    }

    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(self.http.get(format!("{}{path}", self.base))).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(self.http.delete(format!("{}{path}", self.base))).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(self.http.post(format!("{}{path}", self.base)).body(body.to_string()))
            .await
    }

    pub(crate) async fn put_raw(&self, path: &str, body: impl Into<reqwest::Body>) -> Answer {
        self.send(self.http.put(format!("{}{path}", self.base)).body(body))
            .await
    }

    /// Writes a value; must succeed.
    pub(crate) async fn put(&self, key: &str, value: Value) -> Value {
        let path = format!("/kv/{}", kv_api::encode_key(key));
        let (status, body) = self.put_raw(&path, json!({ "value": value }).to_string()).await;
        assert_eq!((status, &body["ok"]), (200, &json!(true)), "{body}");
        body
    }

    /// Reads a value; `None` when it is not there.
    pub(crate) async fn value(&self, key: &str) -> Option<Value> {
        let (status, body) = self.get(&format!("/kv/{}", kv_api::encode_key(key))).await;
        match status {
            200 => Some(body["value"].clone()),
            404 => {
                assert_eq!(body["detail"], "Key not found");
                None
            }
            _ => panic!("{status} {body}"),
        }
    }

    pub(crate) async fn cas(&self, body: Value) -> Answer {
        self.post("/kv/cas", body).await
    }
}

/// Three real kvstores and a kvfront.
pub(crate) struct Cluster {
    pub(crate) stores: Vec<Store>,
    pub(crate) client: Client,
    _dir: tempfile::TempDir,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        Self::with(3, &[]).await
    }

    pub(crate) async fn with(nodes: usize, flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut stores = Vec::new();
        for node in 0..nodes {
            stores.push(Store::start(dir.path(), &format!("node{node}")).await);
        }
        let client = Client::ready(&stores.iter().map(|s| s.addr).collect::<Vec<_>>(), flags).await;
        Self {
            stores,
            client,
            _dir: dir,
        }
    }

    pub(crate) fn addrs(&self) -> Vec<SocketAddr> {
        self.stores.iter().map(|store| store.addr).collect()
    }

    /// Places in `stores`, homes of the key first.
    pub(crate) fn list_of(&self, key: &str) -> Vec<usize> {
        let list = self
            .addrs()
            .iter()
            .map(|addr| format!("http://{addr}"))
            .collect::<Vec<_>>()
            .join(",");
        let ring = kvfront::ring::Ring::new(kvfront::ring::Backend::parse_list(&list).unwrap(), 2).unwrap();
        let names = &ring.preference(&Key::data(key)).names;
        names
            .iter()
            .map(|name| {
                self.stores
                    .iter()
                    .position(|s| **name == *format!("http://{}", s.addr))
                    .unwrap()
            })
            .collect()
    }

    /// What each store holds of a key itself.
    pub(crate) async fn copies(&self, key: &str) -> Vec<Option<Value>> {
        let mut copies = Vec::new();
        for store in &self.stores {
            copies.push(if store.running.is_some() {
                store.own(key).await
            } else {
                None
            });
        }
        copies
    }
}

/// How a stand-in misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Not at all.
    Well,
    /// Takes requests and never answers; nothing is done.
    Silent,
    /// Does what it is asked, and never answers.
    Mute,
    /// Refuses every envelope as skewed.
    Skewed,
    /// Fails.
    Broken,
    /// Its clock is a minute ahead.
    Ahead,
}

/// A node in memory, around the real acceptor.
#[derive(Clone)]
pub(crate) struct StandIn {
    pub(crate) addr: SocketAddr,
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    records: BTreeMap<String, (Key, Record, u64)>,
    status: NodeStatus,
    mood: Mood,
    envelopes: Vec<usize>,
}

impl StandIn {
    pub(crate) async fn start() -> Self {
        let inner = Inner {
            records: BTreeMap::new(),
            status: NodeStatus {
                incarnation: rand::random(),
                ..NodeStatus::default()
            },
            mood: Mood::Well,
            envelopes: Vec::new(),
        };
        let listener = listen(any_port()).await;
        let node = Self {
            addr: listener.local_addr().unwrap(),
            inner: Arc::new(Mutex::new(inner)),
        };
        let router = Router::new()
            .route("/internal/exchange", post(exchange))
            .route("/internal/page", post(page))
            .route("/internal/node", post(node_itself))
            .with_state(node.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        node
    }

    pub(crate) async fn three() -> (Vec<Self>, Vec<SocketAddr>) {
        let nodes = vec![Self::start().await, Self::start().await, Self::start().await];
        let addrs = nodes.iter().map(|node| node.addr).collect();
        (nodes, addrs)
    }

    pub(crate) fn set(&self, mood: Mood) {
        self.inner.lock().unwrap().mood = mood;
    }

    /// Sizes of the envelopes received, probes left out.
    pub(crate) fn envelopes(&self) -> Vec<usize> {
        self.inner.lock().unwrap().envelopes.clone()
    }

    fn mood(&self) -> Mood {
        self.inner.lock().unwrap().mood
    }

    fn clock(&self) -> HlcTime {
        let now = (kvfront::clocks::system_clock())();
        HlcTime::from_unix_ms(if self.mood() == Mood::Ahead { now + 60_000 } else { now })
    }
}

/// What a mood answers before anything is done.
async fn moody(node: &StandIn) -> Option<Response> {
    match node.mood() {
        Mood::Silent => std::future::pending().await,
        Mood::Skewed => {
            let skew = SkewError {
                ahead_ms: 60_000,
                max_ms: 500,
            };
            let refusal = json!({ "detail": skew.to_string(), "refused": "clock" });
            Some((StatusCode::CONFLICT, axum::Json(refusal)).into_response())
        }
        Mood::Broken => Some((StatusCode::INTERNAL_SERVER_ERROR, "no JSON").into_response()),
        Mood::Well | Mood::Mute | Mood::Ahead => None,
    }
}

async fn node_itself(State(node): State<StandIn>, body: Bytes) -> Response {
    let envelope: NodeEnvelope = postcard::from_bytes(&body).unwrap();
    if let Some(refusal) = moody(&node).await {
        return refusal;
    }
    let clock = node.clock();
    let reply = {
        let mut inner = node.inner.lock().unwrap();
        let decision = membership::decide(&inner.status, &envelope.request, rand::random(), envelope.epoch);
        if let Some(status) = decision.status {
            inner.status = status;
        }
        inner
            .records
            .retain(|_, (_, record, _)| !decision.drop.drops(record.accepted, record.promised));
        NodeEnvelopeReply {
            clock,
            done: decision.done,
            status: inner.status.clone(),
        }
    };
    if node.mood() == Mood::Mute {
        std::future::pending::<()>().await;
    }
    postcard::to_stdvec(&reply).unwrap().into_response()
}

async fn exchange(State(node): State<StandIn>, body: Bytes) -> Response {
    let envelope: Envelope = postcard::from_bytes(&body).unwrap();
    if let Some(refusal) = moody(&node).await {
        return refusal;
    }
    let clock = node.clock();
    let reply = {
        let mut inner = node.inner.lock().unwrap();
        if !envelope.requests.is_empty() {
            inner.envelopes.push(envelope.requests.len());
        }
        let replies = envelope
            .requests
            .into_iter()
            .map(|(key, request)| {
                let text = key.as_text().to_owned();
                let decision = decide_as(
                    inner.status.standing,
                    inner.records.get(&text).map(|(_, record, _)| record),
                    inner.status.floor,
                    &request,
                );
                inner.status.commit += 1;
                match decision.change {
                    Change::Nothing => {}
                    Change::Put(record) => {
                        let commit = inner.status.commit;
                        inner.records.insert(text, (key, record, commit));
                    }
                    Change::Remove { floor } => {
                        inner.records.remove(&text);
                        inner.status.floor = floor;
                    }
                }
                decision.reply
            })
            .collect();
        EnvelopeReply {
            clock,
            incarnation: inner.status.incarnation,
            commit: inner.status.commit,
            floor: inner.status.floor,
            standing: inner.status.standing,
            replies,
        }
    };
    if node.mood() == Mood::Mute {
        std::future::pending::<()>().await;
    }
    postcard::to_stdvec(&reply).unwrap().into_response()
}

async fn page(State(node): State<StandIn>, body: Bytes) -> Response {
    let request: PageRequest = postcard::from_bytes(&body).unwrap();
    if let Some(refusal) = moody(&node).await {
        return refusal;
    }
    if node.mood() == Mood::Mute {
        std::future::pending::<()>().await;
    }
    let clock = node.clock();
    let inner = node.inner.lock().unwrap();
    let show = |(key, record, commit): &(Key, Record, u64)| PageRecord {
        key: key.clone(),
        commit: *commit,
        held: held(Some(record), inner.status.floor),
        hint_for: record.hint_for.clone(),
    };
    let mut records: Vec<PageRecord> = match &request.list {
        List::Keys { prefix, after, reverse } => {
            let mut all: Vec<_> = inner
                .records
                .iter()
                .filter(|(text, _)| text.starts_with(prefix.as_str()))
                .collect();
            if *reverse {
                all.reverse();
            }
            let behind = |text: &String| match after {
                Some(after) if *reverse => text < after,
                Some(after) => text > after,
                None => true,
            };
            all.into_iter()
                .filter(|(text, _)| behind(text))
                .map(|(_, record)| show(record))
                .collect()
        }
        List::Hints { after_commit } => {
            let mut hints: Vec<_> = inner
                .records
                .values()
                .filter(|(_, r, c)| r.hint_for.is_some() && c > after_commit)
                .collect();
            hints.sort_by_key(|(_, _, commit)| *commit);
            hints.into_iter().map(show).collect()
        }
        List::Ended { .. } | List::Leaves { .. } => return StatusCode::NOT_FOUND.into_response(),
    };
    let limit = usize::try_from(request.limit).unwrap();
    let end = records.len() <= limit;
    records.truncate(limit);
    let reply = PageReply {
        clock,
        floor: inner.status.floor,
        incarnation: inner.status.incarnation,
        standing: inner.status.standing,
        records,
        end,
    };
    postcard::to_stdvec(&reply).unwrap().into_response()
}
