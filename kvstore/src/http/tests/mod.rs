//! A node over real HTTP.

mod cluster;
mod internal;
mod kv;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use register::ballot::Ballot;
use register::membership::NodeRequest;
use register::message::{List, NodeEnvelope, NodeEnvelopeReply, PageReply, PageRequest};
use register::{Envelope, EnvelopeReply, Epoch, HlcTime, Key, Reply, Request, RequestId, Standing, State};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use service::Shutdown;
use service::settings::try_parse_from;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::{Config, Node};

/// Deadline of every wait in these tests.
const PATIENCE: Duration = Duration::from_secs(20);

/// The wall clock of these tests starts here, Unix milliseconds.
const START_MS: u64 = 1_800_000_000_000;

/// The ring of these tests.
const EPOCH: Epoch = Epoch(7);

/// Incarnation of the coordinator that asks in these tests.
const SENDER: u64 = 5;

struct Bench {
    addr: SocketAddr,
    node: Node,
    client: reqwest::Client,
    now_ms: &'static AtomicU64,
    shutdown: Shutdown,
    serving: JoinHandle<()>,
    _dir: TempDir,
}

impl Bench {
    /// A node that votes.
    async fn new() -> Self {
        let bench = Self::unadmitted().await;
        bench.admit().await;
        bench
    }

    /// A node that nobody has admitted yet.
    async fn unadmitted() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kv.db");
        let args = [
            "kvstore",
            "--db-file",
            file.to_str().unwrap(),
            "--max-value-bytes",
            "1000",
        ];
        let config: Config = try_parse_from(args).unwrap();
        let now_ms: &'static AtomicU64 = Box::leak(Box::new(AtomicU64::new(START_MS)));
        let node = Node::open(&config, std::sync::Arc::new(|| now_ms.load(Ordering::Relaxed))).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shutdown = Shutdown::new();
        let serving = tokio::spawn(node.clone().serve(listener, shutdown.clone()));
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        Self {
            addr,
            node,
            client,
            now_ms,
            shutdown,
            serving,
            _dir: dir,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    async fn ask(&self, request: reqwest::RequestBuilder) -> (StatusCode, Value) {
        let response = request.send().await.unwrap();
        let status = response.status();
        (
            status,
            serde_json::from_slice(&response.bytes().await.unwrap()).unwrap(),
        )
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.ask(self.client.get(self.url(path))).await
    }

    async fn put(&self, path: &str, body: &str) -> (StatusCode, Value) {
        self.ask(self.client.put(self.url(path)).body(body.to_owned())).await
    }

    async fn post(&self, path: &str, body: &str) -> (StatusCode, Value) {
        self.ask(self.client.post(self.url(path)).body(body.to_owned())).await
    }

    async fn delete(&self, path: &str) -> (StatusCode, Value) {
        self.ask(self.client.delete(self.url(path))).await
    }

    /// The stored data of a key.
    async fn data(&self, path: &str) -> Value {
        self.get(path).await.1["value"]["data"].clone()
    }

    async fn raw(&self, path: &str, body: Vec<u8>) -> (StatusCode, Vec<u8>) {
        let response = self.client.post(self.url(path)).body(body).send().await.unwrap();
        (response.status(), response.bytes().await.unwrap().to_vec())
    }

    async fn exchange(&self, envelope: &Envelope) -> EnvelopeReply {
        self.internal("/internal/exchange", envelope).await
    }

    /// Admits the node as a coordinator does.
    async fn admit(&self) {
        let incarnation = self.node.store().progress().incarnation;
        let reply = self.ask_node(NodeRequest::Admit { incarnation, commit: 0 }).await;
        assert!(reply.done && reply.status.standing == Standing::Voting, "{reply:?}");
    }

    async fn ask_node(&self, request: NodeRequest) -> NodeEnvelopeReply {
        let clock = HlcTime::from_unix_ms(START_MS);
        self.internal(
            "/internal/node",
            &NodeEnvelope {
                clock,
                sender: SENDER,
                epoch: EPOCH,
                request,
            },
        )
        .await
    }

    /// The answer to a coordinator's message.
    async fn internal<T: DeserializeOwned>(&self, path: &str, message: &impl Serialize) -> T {
        let (status, body) = self.raw(path, postcard::to_stdvec(message).unwrap()).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        postcard::from_bytes(&body).unwrap()
    }

    /// Status and text of the refusal of a coordinator's message.
    async fn refusal(&self, path: &str, message: &impl Serialize) -> (u16, Value) {
        let (status, body) = self.raw(path, postcard::to_stdvec(message).unwrap()).await;
        (status.as_u16(), serde_json::from_slice(&body).unwrap())
    }

    async fn metrics(&self) -> String {
        let answer = self.client.get(self.url("/metrics")).send().await.unwrap();
        answer.text().await.unwrap()
    }

    fn advance_ms(&self, ms: u64) {
        self.now_ms.fetch_add(ms, Ordering::Relaxed);
    }
}

fn ballot(after_start_ms: u64) -> Ballot {
    Ballot {
        time: HlcTime::from_unix_ms(START_MS + after_start_ms),
        incarnation: 5,
    }
}

fn accept(at: Ballot, value: &str) -> Request {
    let state = State {
        value: Some(value.into()),
        version: at,
        fence: 0,
        expires_at_ms: None,
        lineage: register::Lineage::blind(Ballot::ZERO, RequestId(1)),
    };
    Request::Accept {
        ballot: at,
        state,
        blind: true,
        reserve: None,
        hint_for: None,
    }
}

fn envelope(requests: Vec<(Key, Request)>) -> Envelope {
    Envelope {
        clock: HlcTime::from_unix_ms(START_MS),
        sender: SENDER,
        epoch: EPOCH,
        requests,
    }
}
