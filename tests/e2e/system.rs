//! All programs, wired as compose wires them.

use std::collections::BTreeMap;
use std::time::Duration;

use bus::testing::Broker;
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::process::{Process, wait_until};

/// Whole systems at a time: they mostly wait for drones to fly, but two cores do not carry more of them and keep promises about time.
static TURNS: Semaphore = Semaphore::const_new(2);

/// How long a system may take until it answers.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Waits for this test's turn to run a whole system.
pub(crate) async fn turn() -> SemaphorePermit<'static> {
    TURNS.acquire().await.expect("it is never closed")
}

/// A RabbitMQ of this test's own. None where there is none to be had, which in CI fails.
#[expect(clippy::print_stderr, reason = "tells why a test was skipped")]
pub(crate) async fn broker() -> Option<Broker> {
    if !Broker::installed() {
        assert_ne!(
            std::env::var("CI").as_deref(),
            Ok("true"),
            "RabbitMQ is missing: install the package rabbitmq-server"
        );
        eprintln!("skipped: RabbitMQ is not installed (package rabbitmq-server)");
        return None;
    }
    let started = tokio::task::spawn_blocking(Broker::start).await;
    Some(started.expect("no panic").expect("a broker"))
}

/// A client that gives up when a user would.
pub(crate) fn client() -> Client {
    Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(10))
        .build()
        .expect("no TLS, nothing to fail")
}

/// Three kvstores and a kvfront.
pub(crate) struct KvCluster {
    pub(crate) stores: Vec<Process>,
    pub(crate) front: Process,
    pub(crate) http: Client,
    /// Where the databases are; deleted with the cluster.
    _dir: TempDir,
}

impl KvCluster {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same with more settings for kvfront.
    pub(crate) async fn start_with(front_settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let stores: Vec<_> = (0..3)
            .map(|i| {
                let file = dir.path().join(format!("{i}.db"));
                Process::server("kvstore", &[("DB_FILE", file.to_str().expect("UTF-8"))])
            })
            .collect();
        let urls: Vec<_> = stores.iter().map(Process::url).collect();
        let backends = urls.join(",");
        let settings = [&[("BACKENDS", &*backends)], front_settings].concat();
        let front = Process::server("kvfront", &settings);
        let http = client();
        let cluster = Self {
            stores,
            front,
            http,
            _dir: dir,
        };
        cluster.ready().await;
        cluster
    }

    /// Waits until kvfront has a quorum.
    pub(crate) async fn ready(&self) {
        let url = format!("{}/ready", self.front.url());
        wait_until(READY_WITHIN, "kvfront is ready", async || ok(self.http.get(&url)).await).await;
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.front.url())
    }

    pub(crate) async fn get(&self, key: &str) -> Option<Value> {
        let response = send(self.http.get(self.url(&format!("/kv/{key}")))).await;
        match response.status().as_u16() {
            404 => None,
            200 => Some(body(response).await["value"].clone()),
            status => panic!("GET {key}: {status} {}", body(response).await),
        }
    }

    pub(crate) async fn put(&self, key: &str, value: &Value) -> Response {
        send(
            self.http
                .put(self.url(&format!("/kv/{key}")))
                .json(&json!({ "value": value })),
        )
        .await
    }

    pub(crate) async fn cas(&self, body: &Value) -> Response {
        send(self.http.post(self.url("/kv/cas")).json(body)).await
    }

    /// What each kvstore holds of a key; a store that does not answer counts as holding nothing.
    pub(crate) async fn copies(&self, key: &str) -> Vec<Option<Value>> {
        let mut copies = Vec::new();
        for store in &self.stores {
            let url = format!("{}/kv/{key}", store.url());
            let copy = match self.http.get(url).send().await {
                Ok(response) if response.status() == 200 => Some(body(response).await["value"]["data"].clone()),
                _ => None,
            };
            copies.push(copy);
        }
        copies
    }

    /// How many kvstores hold a key.
    pub(crate) async fn holders(&self, key: &str) -> usize {
        self.copies(key).await.iter().flatten().count()
    }
}

/// How a whole system differs from the default one.
#[derive(Default)]
pub(crate) struct Options<'a> {
    /// More settings, for every program.
    pub(crate) settings: Vec<(&'a str, &'a str)>,
    /// A broker; without one the programs find nobody at their `RABBIT_URL`, and must do without.
    pub(crate) rabbit_url: Option<String>,
    /// How many drone-sims fly the fleet together; 0 is the one that flies it all.
    pub(crate) shards: u32,
}

/// Every program.
pub(crate) struct System {
    pub(crate) kv: KvCluster,
    pub(crate) gateways: Vec<Process>,
    pub(crate) dispatcher: Process,
    /// drone-sim; several when the fleet is flown in parts.
    pub(crate) drones: Vec<Process>,
    pub(crate) lb: Process,
    pub(crate) http: Client,
}

impl System {
    pub(crate) async fn start(options: Options<'_>) -> Self {
        let kv = KvCluster::start_with(&options.settings).await;
        let kv_url = kv.front.url();
        // A port of this machine on which nobody listens.
        let rabbit = options
            .rabbit_url
            .unwrap_or_else(|| "amqp://guest:guest@127.0.0.1:1/%2f".to_owned());
        let mut settings = vec![
            ("KV_URL", kv_url.as_str()),
            ("RABBIT_URL", rabbit.as_str()),
            // As compose and the one command set them.
            ("DRONE_POOL_MAX", "18"),
            ("BASE_ACTIVE", "6"),
            ("SCALE_RATIO", "1"),
            ("DRONE_TICK_SEC", "0.375"),
            // Flights four times as fast as in the demo: these tests are about what happens around them.
            ("TIME_SCALE", "100"),
            ("BATTERY_PER_KM", "2"),
        ];
        settings.extend(options.settings.iter().copied());
        let gateways: Vec<_> = (0..3).map(|_| Process::server("gateway", &settings)).collect();
        let dispatcher = Process::server("dispatcher", &settings);
        let parts = (1..=options.shards).map(|index| format!("{index}/{}", options.shards));
        let parts = if options.shards == 0 {
            vec!["1/1".to_owned()]
        } else {
            parts.collect()
        };
        let flown =
            |part: &String| Process::server("drone-sim", &[&settings[..], &[("SHARD", part.as_str())]].concat());
        let drones: Vec<_> = parts.iter().map(flown).collect();
        let urls: Vec<_> = gateways.iter().map(Process::url).collect();
        let urls = urls.join(",");
        let mut lb_settings = vec![("TARGET_URL", urls.as_str()), ("LB_RESOLVE_TTL_SEC", "1")];
        lb_settings.extend(options.settings);
        let lb = Process::server("lb", &lb_settings);
        let system = Self {
            kv,
            gateways,
            dispatcher,
            drones,
            lb,
            http: client(),
        };
        system.ready().await;
        system
    }

    /// Waits until the way from lb to the KV answers and the fleet is there.
    pub(crate) async fn ready(&self) {
        wait_until(READY_WITHIN, "lb, gateways and KV answer", async || {
            ok(self.http.get(self.url("/zones"))).await
        })
        .await;
        wait_until(READY_WITHIN, "the fleet is there", async || {
            let Ok(response) = self.http.get(self.url("/drones")).send().await else {
                return false;
            };
            response.status() == 200 && body(response).await["count"] == 18
        })
        .await;
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.lb.url())
    }

    /// Posts an order.
    pub(crate) async fn order(&self, order: &Value, idempotency_key: Option<&str>) -> Response {
        send(self.order_request(order, idempotency_key)).await
    }

    pub(crate) fn order_request(&self, order: &Value, idempotency_key: Option<&str>) -> RequestBuilder {
        let request = self.http.post(self.url("/deliveries")).json(order);
        match idempotency_key {
            Some(key) => request.header("Idempotency-Key", key),
            None => request,
        }
    }

    pub(crate) async fn delivery(&self, id: &str) -> Value {
        delivery(&self.http, &self.lb.url(), id).await
    }

    /// Waits until every order is delivered.
    pub(crate) async fn all_delivered(&self, ids: &[String], within: Duration) -> Duration {
        all_delivered(&self.http, &self.lb.url(), ids, within).await
    }
}

/// The record of a delivery; null while the system does not answer.
pub(crate) async fn delivery(http: &Client, lb: &str, id: &str) -> Value {
    match http.get(format!("{lb}/deliveries/{id}")).send().await {
        Ok(response) if response.status() == 200 => body(response).await,
        _ => Value::Null,
    }
}

/// Waits until every order is delivered; on failure tells what became of the others.
pub(crate) async fn all_delivered(http: &Client, lb: &str, ids: &[String], within: Duration) -> Duration {
    let begun = std::time::Instant::now();
    let mut open: BTreeMap<&String, Value> = ids.iter().map(|id| (id, Value::Null)).collect();
    while !open.is_empty() {
        for id in open.keys().copied().cloned().collect::<Vec<_>>() {
            let record = delivery(http, lb, &id).await;
            if record["status"] == "delivered" {
                open.remove(&id);
            } else {
                open.insert(
                    ids.iter().find(|known| **known == id).expect("it came from there"),
                    record,
                );
            }
        }
        assert!(
            begun.elapsed() < within,
            "not delivered within {within:?}: {:#?}",
            open.values()
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    begun.elapsed()
}

/// Orders inside the zones, spread over them; the n-th is always the same.
pub(crate) fn order(n: u32) -> Value {
    let spread = |step: u32| f64::from(n * step % 97) / 97.0;
    let point = |a: u32, b: u32| json!({ "lat": 41.81 + 0.16 * spread(a), "lon": 12.38 + 0.21 * spread(b) });
    json!({ "origin": point(31, 57), "destination": point(73, 19), "weight": 0.5 + 9.0 * spread(41) })
}

pub(crate) async fn send(request: RequestBuilder) -> Response {
    request.send().await.expect("an answer")
}

pub(crate) async fn ok(request: RequestBuilder) -> bool {
    request
        .send()
        .await
        .is_ok_and(|response| response.status().is_success())
}

/// The JSON body of an answer.
pub(crate) async fn body(response: Response) -> Value {
    let text = response.text().await.expect("a body");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("no JSON ({error}): {text:?}"))
}

/// The `id` of an accepted order.
pub(crate) async fn id_of(response: Response) -> String {
    body(response).await["id"].as_str().expect("an id").to_owned()
}
