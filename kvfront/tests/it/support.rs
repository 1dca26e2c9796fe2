//! Clusters to test against.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kvfront::ring::{Backend, Ring};
use register::membership::{NodeRequest, NodeStatus};
use register::message::{List, NodeEnvelope, NodeEnvelopeReply, PageRecord, PageReply, PageRequest};
use register::{Envelope, EnvelopeReply, Epoch, HlcTime, Key, Reply, Request};
use serde::Serialize;
use serde::de::DeserializeOwned;
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

pub(crate) async fn listen(addr: SocketAddr) -> TcpListener {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match TcpListener::bind(addr).await {
            Ok(listener) => return listener,
            Err(error) => assert!(Instant::now() < deadline, "{addr}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// A real kvstore that can be stopped and started again over the same database.
pub(crate) struct Store {
    pub(crate) addr: SocketAddr,
    file: PathBuf,
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

    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Its database, of one file once it has stopped.
    pub(crate) fn file(&self) -> &Path {
        assert!(self.running.is_none(), "its files are its own while it runs");
        &self.file
    }

    /// As if its disk had been replaced.
    pub(crate) fn lose_disk(&self) {
        std::fs::remove_file(self.file()).unwrap();
    }

    /// Runs statements on its database behind its back.
    pub(crate) fn edit(&self, sql: &str) {
        let database = rusqlite::Connection::open(self.file()).unwrap();
        database.execute_batch(sql).unwrap();
    }

    async fn ask<Q: Serialize, R: DeserializeOwned>(&self, path: &str, message: &Q) -> R {
        let url = format!("http://{}/internal/{path}", self.addr);
        let body = postcard::to_stdvec(message).unwrap();
        let answer = reqwest::Client::new().post(url).body(body).send().await.unwrap();
        let (status, body) = (answer.status(), answer.bytes().await.unwrap());
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        postcard::from_bytes(&body).unwrap()
    }

    /// What it says of itself.
    pub(crate) async fn status(&self, epoch: Epoch) -> NodeStatus {
        let envelope = NodeEnvelope {
            clock: now(),
            sender: 1,
            epoch,
            request: NodeRequest::Status,
        };
        self.ask::<_, NodeEnvelopeReply>("node", &envelope).await.status
    }

    /// All its records, tombstones and promises included.
    pub(crate) async fn records(&self, epoch: Epoch) -> Vec<PageRecord> {
        let mut records: Vec<PageRecord> = Vec::new();
        loop {
            let list = List::Keys {
                prefix: String::new(),
                after: records.last().map(|record| record.key.as_text().to_owned()),
                reverse: false,
            };
            let request = PageRequest {
                clock: now(),
                sender: 1,
                epoch,
                list,
                limit: 1_000,
            };
            let page: PageReply = self.ask("page", &request).await;
            records.extend(page.records);
            if page.end {
                return records;
            }
        }
    }

    /// One request of a coordinator.
    pub(crate) async fn request(&self, epoch: Epoch, key: Key, request: Request) -> Reply {
        let envelope = Envelope {
            clock: now(),
            sender: 1,
            epoch,
            requests: vec![(key, request)],
        };
        let mut answer: EnvelopeReply = self.ask("exchange", &envelope).await;
        answer.replies.remove(0)
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

/// The time, as a coordinator would send it.
pub(crate) fn now() -> HlcTime {
    HlcTime::from_unix_ms((service::clock::system_clock())())
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
        let (stores, dir) = Self::stores(nodes).await;
        let client = Client::ready(&stores.iter().map(|s| s.addr).collect::<Vec<_>>(), flags).await;
        Self {
            stores,
            client,
            _dir: dir,
        }
    }

    /// A cluster of which one node was never there: it can be started later.
    pub(crate) async fn without_the_last(nodes: usize, flags: &[&str]) -> Self {
        let (mut stores, dir) = Self::stores(nodes).await;
        let last = stores.last_mut().unwrap();
        last.stop().await;
        last.lose_disk();
        let client = Client::ready(&stores.iter().map(|s| s.addr).collect::<Vec<_>>(), flags).await;
        Self {
            stores,
            client,
            _dir: dir,
        }
    }

    async fn stores(nodes: usize) -> (Vec<Store>, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let mut stores = Vec::new();
        for node in 0..nodes {
            stores.push(Store::start(dir.path(), &format!("node{node}")).await);
        }
        (stores, dir)
    }

    /// Waits until all nodes are up, vote, and have nothing to hand over.
    pub(crate) async fn whole(&self) {
        eventually("all nodes vote and no hint is left", || async {
            let (_, report) = self.client.get("/cluster").await;
            let nodes = report["nodes"].as_array()?;
            let fine = |node: &Value| node["up"] == true && node["standing"] == "voting";
            (report["hints_waiting"] == 0 && nodes.iter().all(fine)).then_some(())
        })
        .await;
    }

    /// What `/cluster` says of the node of this place in `stores`.
    pub(crate) async fn report_of(&self, store: usize) -> Value {
        let (_, report) = self.client.get("/cluster").await;
        let url = format!("http://{}", self.stores[store].addr);
        let nodes = report["nodes"].as_array().unwrap();
        nodes.iter().find(|node| node["url"] == *url).unwrap().clone()
    }

    /// Every record that any running node holds, with the node's place.
    pub(crate) async fn records(&self) -> Vec<(usize, PageRecord)> {
        let mut all = Vec::new();
        for (node, store) in self.stores.iter().enumerate() {
            if store.is_running() {
                let records = store.records(self.ring().epoch()).await;
                all.extend(records.into_iter().map(|record| (node, record)));
            }
        }
        all
    }

    pub(crate) fn ring(&self) -> Ring {
        let list: Vec<String> = self.addrs().iter().map(|addr| format!("http://{addr}")).collect();
        Ring::new(Backend::parse_list(&list.join(",")).unwrap(), 2).unwrap()
    }

    pub(crate) fn addrs(&self) -> Vec<SocketAddr> {
        self.stores.iter().map(|store| store.addr).collect()
    }

    /// Places in `stores`, homes of the key first.
    pub(crate) fn list_of(&self, key: &str) -> Vec<usize> {
        let ring = self.ring();
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
