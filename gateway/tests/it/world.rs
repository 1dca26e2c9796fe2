//! One or more gateways on one KV.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bus::InProcess;
use gateway::Config;
use kv_client::testing::FakeKv;
use reqwest::{Client, Response};
use serde_json::{Value, json};
use service::{Shutdown, settings};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Longest wait for anything.
const DEADLINE: Duration = Duration::from_secs(10);

pub(crate) struct World {
    pub(crate) kv: FakeKv,
    pub(crate) bus: Arc<InProcess>,
    pub(crate) client: Client,
    pub(crate) urls: Vec<String>,
    /// Settings beyond the defaults.
    flags: Vec<String>,
    shutdown: Shutdown,
    running: Vec<JoinHandle<anyhow::Result<()>>>,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with_gateways(1).await
    }

    /// One gateway with these flags, on a KV that `prepare` has filled.
    pub(crate) async fn prepared(flags: &[&str], prepare: impl FnOnce(&FakeKv)) -> Self {
        let kv = FakeKv::start().await;
        prepare(&kv);
        Self::on(kv, 1, flags).await
    }

    pub(crate) async fn with_gateways(count: usize) -> Self {
        Self::on(FakeKv::start().await, count, &[]).await
    }

    /// Gateways on a KV that others have used before.
    pub(crate) async fn on(kv: FakeKv, count: usize, flags: &[&str]) -> Self {
        let mut world = Self {
            kv,
            bus: InProcess::new(),
            client: Client::new(),
            urls: Vec::new(),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            shutdown: Shutdown::new(),
            running: Vec::new(),
        };
        for _ in 0..count {
            world.add_gateway().await;
        }
        for url in world.urls.clone() {
            world
                .until("the gateway is ready", async || {
                    world.client.get(format!("{url}/ready")).send().await.unwrap().status() == 200
                })
                .await;
        }
        world
    }

    pub(crate) async fn add_gateway(&mut self) {
        let fixed = ["gateway", "--kv-url", &self.kv.url].map(str::to_owned);
        let config: Config = settings::try_parse_from(fixed.into_iter().chain(self.flags.clone())).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        self.urls.push(format!("http://{}", listener.local_addr().unwrap()));
        let bus = Arc::clone(&self.bus);
        self.running
            .push(tokio::spawn(gateway::run(config, listener, bus, self.shutdown.child())));
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.urls[0])
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        answer(self.client.get(self.url(path)).send().await.unwrap()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> (u16, Value) {
        answer(self.client.delete(self.url(path)).send().await.unwrap()).await
    }

    pub(crate) async fn post_text(&self, body: impl Into<reqwest::Body>) -> (u16, Value) {
        answer(
            self.client
                .post(self.url("/deliveries"))
                .body(body)
                .send()
                .await
                .unwrap(),
        )
        .await
    }

    pub(crate) async fn order(&self) -> Value {
        let (status, body) = self.post_text(an_order().to_string()).await;
        assert_eq!(status, 201, "{body}");
        body
    }

    pub(crate) async fn order_with_key(&self, key: &str, order: &Value) -> (u16, Value) {
        order_with_key(&self.client, &self.urls[0], key, order).await
    }

    pub(crate) async fn until(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let start = Instant::now();
        while !holds().await {
            assert!(start.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) fn index(&self) -> Vec<String> {
        self.kv.record("deliveries_index").unwrap_or_default()
    }

    pub(crate) async fn stop(self) -> FakeKv {
        self.shutdown.stop();
        for gateway in self.running {
            gateway.await.unwrap().unwrap();
        }
        self.kv
    }
}

pub(crate) async fn order_with_key(client: &Client, url: &str, key: &str, order: &Value) -> (u16, Value) {
    let request = client
        .post(format!("{url}/deliveries"))
        .header("Idempotency-Key", key)
        .body(order.to_string());
    answer(request.send().await.unwrap()).await
}

pub(crate) async fn answer(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    let body = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{status} is not JSON ({error}): {text}"));
    (status, body)
}

pub(crate) fn an_order() -> Value {
    json!({"origin": {"lat": 41.9, "lon": 12.45}, "destination": {"lat": 41.85, "lon": 12.55}, "weight": 2.5})
}
