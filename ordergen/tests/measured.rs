//! A measured load against a small server that keeps orders, loses them, or has them twice.

#![allow(clippy::unwrap_used, reason = "a panic here is the report")]

use std::collections::HashMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::get;
use ordergen::{Config, Pauses, Report, measure, run_and_report};
use serde_json::{Value, json};
use service::Shutdown;
use service::settings::try_parse_from;
use tokio::net::TcpListener;

const PATIENCE: Duration = Duration::from_secs(60);

/// What the server does with an order beside answering 201.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Keep,
    Lose,
    Double,
}

#[derive(Default)]
struct Inner {
    /// Id by key.
    keys: HashMap<String, String>,
    /// Oldest first.
    records: Vec<Value>,
    /// Ids made.
    made: usize,
    attempts: usize,
}

#[derive(Clone)]
struct Server {
    inner: Arc<Mutex<Inner>>,
    /// For the n-th order.
    deed: fn(usize) -> Deed,
    takes: Duration,
}

impl Server {
    async fn start(takes: Duration, deed: fn(usize) -> Deed) -> (SocketAddr, Self) {
        let server = Self {
            inner: Arc::default(),
            deed,
            takes,
        };
        let router = Router::new()
            .route("/deliveries", get(list).post(order))
            .with_state(server.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        (addr, server)
    }
}

impl Inner {
    /// A record as of a delivery that was assigned after 2 s and has arrived after 10 s.
    fn record(&mut self, order: &Value) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let number = self.made;
        self.made += 1;
        let ms = now.as_millis();
        let id = format!(
            "{:08x}-{:04x}-7{:03x}-8000-{:012x}",
            ms >> 16,
            ms & 0xffff,
            number & 0xfff,
            number
        );
        let at = now.as_secs_f64();
        let mut record = order.clone();
        let fields = json!({"id": id, "status": "delivered", "timestamp": at, "assigned_at": at + 2.0, "delivered_at": at + 10.0});
        record
            .as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        self.records.push(record);
        id
    }
}

async fn order(State(server): State<Server>, headers: HeaderMap, body: String) -> impl IntoResponse {
    let order: Value = serde_json::from_str(&body).unwrap();
    let key = headers["idempotency-key"].to_str().unwrap().to_owned();
    let (status, id) = {
        let mut inner = server.inner.lock().unwrap();
        inner.attempts += 1;
        if let Some(id) = inner.keys.get(&key) {
            (StatusCode::OK, id.clone())
        } else {
            let number = inner.keys.len();
            let id = inner.record(&order);
            match (server.deed)(number) {
                Deed::Keep => {}
                Deed::Lose => drop(inner.records.pop()),
                Deed::Double => drop(inner.record(&order)),
            }
            inner.keys.insert(key, id.clone());
            (StatusCode::CREATED, id)
        }
    };
    tokio::time::sleep(server.takes).await;
    (status, axum::Json(json!({"id": id})))
}

/// The list, newest first, in pages of seven.
async fn list(State(server): State<Server>, Query(query): Query<HashMap<String, String>>) -> axum::Json<Value> {
    let inner = server.inner.lock().unwrap();
    let id_of = |record: &Value| record["id"].as_str().unwrap().to_owned();
    let mut newest: Vec<Value> = inner.records.clone();
    newest.sort_by_key(|record| std::cmp::Reverse(id_of(record)));
    let after = query.get("after");
    let mut page: Vec<Value> = newest
        .into_iter()
        .filter(|record| after.is_none_or(|after| id_of(record) < *after))
        .collect();
    let more = page.len() > 7;
    page.truncate(7);
    let next = page.last().map(id_of).filter(|_| more);
    // Somebody wrote something else into the store; that is no delivery of ours.
    page.push(json!({"id": 7}));
    axum::Json(json!({"count": page.len(), "items": page, "next": next}))
}

fn config(addr: SocketAddr, flags: &[&str]) -> Config {
    let url = format!("http://{addr}");
    try_parse_from([&["ordergen", "--lb-url", &url], flags].concat()).unwrap()
}

async fn run(config: &Config) -> Report {
    let pauses = Pauses {
        first: Duration::from_millis(2),
        max: Duration::from_millis(10),
    };
    tokio::time::timeout(PATIENCE, measure(config, Shutdown::new(), pauses))
        .await
        .unwrap()
        .unwrap()
}

#[tokio::test]
async fn response_times_count_from_when_an_order_was_due() {
    let (addr, _) = Server::start(Duration::from_millis(20), |_| Deed::Keep).await;
    // Fifty orders within 50 ms, by one connection that takes a second for them.
    let report = run(&config(
        addr,
        &["--rate", "1000", "--duration", "0.05", "--concurrency", "1"],
    ))
    .await;
    assert_eq!(
        (report.summary.created(), report.summary.skipped, report.lost()),
        (50, 0, 0)
    );
    let response = report.response;
    assert_eq!(response.count, 50);
    assert!(response.max_sec.unwrap() >= 0.9, "{response:?}");
    assert!(response.p50_sec.unwrap() >= 0.4, "{response:?}");
    // What the server took is told beside it.
    let service = report.service;
    assert_eq!(service.count, 50);
    assert!(service.p50_sec.unwrap() >= 0.019, "{service:?}");
    assert!(service.p50_sec < response.p50_sec, "{service:?} of {response:?}");
}

#[tokio::test]
async fn verified_is_what_is_there_exactly_once() {
    let flags = ["--rate", "2000", "--total", "40", "--verify"];
    let (addr, server) = Server::start(Duration::ZERO, |_| Deed::Keep).await;
    let report = run(&config(addr, &flags)).await;
    let found = report.verified.clone().unwrap();
    assert_eq!((found.accepted, found.missing, found.doubled), (40, 0, 0));
    assert_eq!(
        server.inner.lock().unwrap().attempts,
        40,
        "no order more than asked for"
    );

    let (addr, _) = Server::start(Duration::ZERO, |number| match number {
        3 | 4 => Deed::Lose,
        5 => Deed::Double,
        _ => Deed::Keep,
    })
    .await;
    let report = run(&config(addr, &flags)).await;
    let found = report.verified.clone().unwrap();
    assert_eq!(
        (found.accepted, found.missing, found.doubled, found.examples.len()),
        (40, 2, 1, 3)
    );
    assert_eq!(report.lost(), 3);
    let error = run_and_report(config(addr, &flags), Shutdown::new()).await;
    assert!(error.is_ok(), "the misdeeds are behind it: {error:?}");
}

#[tokio::test]
async fn a_loss_is_an_error_of_the_program() {
    let (addr, _) = Server::start(Duration::ZERO, |_| Deed::Lose).await;
    let error = run_and_report(
        config(addr, &["--rate", "500", "--total", "4", "--verify"]),
        Shutdown::new(),
    )
    .await
    .unwrap_err();
    assert!(error.to_string().starts_with("4 orders were lost"), "{error}");
}

#[tokio::test]
async fn a_file_is_replayed_with_its_keys_and_tracked() {
    let (addr, server) = Server::start(Duration::ZERO, |_| Deed::Keep).await;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    for (at_sec, key) in [(0.0, "a"), (0.02, "b"), (0.04, "a"), (9.0, "never")] {
        let point = json!({"lat": 41.9, "lon": 12.5});
        let line =
            json!({"at_sec": at_sec, "origin": point, "destination": point, "weight": 1.5, "idempotency_key": key});
        writeln!(file, "{line}").unwrap();
    }
    let path = file.path().to_str().unwrap();
    let report = run(&config(
        addr,
        &["--replay", path, "--duration", "5", "--track", "--verify"],
    ))
    .await;
    let summary = report.summary;
    assert_eq!((summary.sent(), summary.created(), summary.repeated), (3, 2, 1));
    assert_eq!(server.inner.lock().unwrap().keys.len(), 2);
    let tracked = report.tracked.clone().unwrap();
    assert_eq!(
        (tracked.assigned.count, tracked.delivered.count, tracked.open),
        (2, 2, 0)
    );
    let near = |value: Option<f64>, sec: f64| (value.unwrap() - sec).abs() < 0.05;
    assert!(
        near(tracked.assigned.p50_sec, 2.0) && near(tracked.delivered.p99_sec, 10.0),
        "{tracked:?}"
    );
    // Equal orders under two keys are two orders, and none of them a double.
    assert_eq!(report.verified.unwrap().doubled, 0);
}

#[tokio::test]
async fn a_file_that_cannot_be_used_is_named() {
    let config: Config = try_parse_from(["ordergen", "--replay", "/nowhere/orders.jsonl"]).unwrap();
    let error = measure(&config, Shutdown::new(), Pauses::default()).await.unwrap_err();
    assert!(format!("{error:#}").contains("/nowhere/orders.jsonl"), "{error:#}");
}
