//! The whole service over HTTP and the in-process bus: ready, health, metrics, an order announced and assigned.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests may panic as well: that is the report"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bus::{Bus, InProcess, Topic};
use bytes::Bytes;
use dispatcher::Config;
use domain::delivery::{Delivery, DeliveryStatus, OpenEntry};
use domain::drone::Drone;
use domain::events::{DeliveryEvent, DeliveryRequest, DeliveryStatusChanged};
use domain::geo::Point;
use domain::keys;
use domain::order::NewOrder;
use domain::zones::ZonesConfig;
use kv_client::testing::{FakeKv, Fault};
use service::Shutdown;
use service::settings::try_parse_from;
use tokio::net::TcpListener;

/// How long anything here may take.
const DEADLINE: Duration = Duration::from_secs(20);

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !done().await {
        assert!(Instant::now() < end, "waited {DEADLINE:?} for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn store_order(kv: &FakeKv, id: &str) -> Delivery {
    let order = NewOrder {
        origin: Point::new(41.94, 12.43),
        destination: Point::new(41.92, 12.45),
        weight: 1.0,
        priority: None,
        deadline: None,
    };
    let record = Delivery::new(id.to_owned(), &order, &ZonesConfig::rome(2, 2).unwrap(), 0.0);
    kv.set(
        &keys::open(id),
        &OpenEntry {
            id: id.to_owned(),
            timestamp: 0.0,
        },
    );
    kv.set(&keys::delivery(id), &record);
    record
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_announced_order_is_assigned_and_told() {
    let kv = FakeKv::start().await;
    let zones = ZonesConfig::rome(2, 2).unwrap();
    kv.set(keys::ZONES_CONFIG, &zones);
    for number in [1, 4] {
        kv.set(&keys::drone(&format!("drone-{number}")), &Drone::new(number, &zones));
    }
    let shutdown = Shutdown::new();
    let bus = InProcess::with_shutdown(shutdown.token());
    let mut told = bus.subscribe(&Topic::broadcast(keys::DELIVERY_STATUS_QUEUE), 10).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    // Slow rounds: whatever is quick here is so because of the announcement.
    let config: Config = try_parse_from(["dispatcher", "--kv-url", &kv.url, "--assigner-tick-ms", "5000"]).unwrap();
    let running = tokio::spawn(dispatcher::run(
        config,
        listener,
        Arc::clone(&bus) as Arc<dyn Bus>,
        shutdown.clone(),
    ));
    let get = |path: &str| {
        let url = format!("{url}{path}");
        async move { reqwest::get(url).await.unwrap() }
    };
    until("readiness", async || get("/ready").await.status() == 200).await;
    assert_eq!(get("/health").await.text().await.unwrap(), r#"{"status":"ok"}"#);

    // A message that is no order goes to the dead letters and stops nothing.
    let orders = Topic::work(keys::DELIVERY_REQ_QUEUE);
    bus.publish(&orders, Bytes::from_static(b"{\"delivery_id\":7}"))
        .await
        .unwrap();
    let record = store_order(&kv, "0190-1");
    let body = serde_json::to_vec(&DeliveryRequest::of(&record)).unwrap();
    let started = Instant::now();
    bus.publish(&orders, body.into()).await.unwrap();
    let message = tokio::time::timeout(DEADLINE, told.next()).await.unwrap().unwrap();
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    let status: DeliveryStatusChanged = serde_json::from_slice(&message.body).unwrap();
    assert_eq!(
        (status.kind, status.delivery_id.as_str()),
        (DeliveryEvent::DeliveryAssigned, "0190-1")
    );
    message.ack().await;
    assert_eq!(
        kv.record::<Delivery>("delivery:0190-1").unwrap().status,
        DeliveryStatus::Assigned
    );
    let dead = bus.subscribe(&orders.dead(), 1).await.next().await.unwrap();
    assert_eq!(&dead.body[..], b"{\"delivery_id\":7}");
    let metrics = get("/metrics").await.text().await.unwrap();
    assert!(
        metrics.contains("dispatcher_transitions_total{kind=\"delivery_assigned\"} 1"),
        "{metrics}"
    );

    shutdown.stop();
    tokio::time::timeout(DEADLINE, running).await.unwrap().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_announcement_and_after_an_outage_the_sweep_finds_the_order() {
    let kv = FakeKv::start().await;
    let zones = ZonesConfig::rome(2, 2).unwrap();
    kv.set(&keys::drone("drone-1"), &Drone::new(1, &zones));
    kv.outage(Some(Fault::Unavailable));
    let shutdown = Shutdown::new();
    let bus = InProcess::with_shutdown(shutdown.token());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/ready", listener.local_addr().unwrap());
    let config: Config = try_parse_from(["dispatcher", "--kv-url", &kv.url]).unwrap();
    let running = tokio::spawn(dispatcher::run(config, listener, bus, shutdown.clone()));
    until("the outage to show", async || {
        reqwest::get(&url)
            .await
            .unwrap()
            .text()
            .await
            .unwrap()
            .contains("made to fail by the test")
    })
    .await;
    store_order(&kv, "0190-1");
    kv.outage(None);
    until("the assignment", async || {
        kv.record::<Delivery>("delivery:0190-1").unwrap().status == DeliveryStatus::Assigned
    })
    .await;
    shutdown.stop();
    tokio::time::timeout(DEADLINE, running).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_bad_kv_url_is_an_error_at_start() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config: Config = try_parse_from(["dispatcher", "--kv-url", "ftp://x"]).unwrap();
    let error = dispatcher::run(config, listener, InProcess::new(), Shutdown::new())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("ftp://x"), "{error}");
}
