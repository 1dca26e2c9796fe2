//! What order generators and students' scripts rely on.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::process::wait_until;
use crate::system::{Options, System, body, id_of, order, send, turn};

#[tokio::test]
async fn orders_are_accepted_once_delivered_and_spread_over_the_gateways() {
    let _turn = turn().await;
    let mut system = System::start(Options::default()).await;

    // Two with one key: 201, then 200, the same id, one document.
    let first = system.order(&order(1), Some("same")).await;
    assert_eq!(first.status(), 201);
    let first = body(first).await;
    assert_eq!(
        (&first["status"], &first["drone_id"]),
        (&json!("pending"), &Value::Null),
        "{first}"
    );
    let repeat = system.order(&order(1), Some("same")).await;
    assert_eq!(repeat.status(), 200);
    let id = id_of(repeat).await;
    assert_eq!(first["id"], json!(id));
    let other = system.order(&order(2), Some("same")).await;
    assert_eq!(
        other.status(),
        422,
        "the same key with another body: {}",
        body(other).await
    );

    // Fifty that race.
    let racing = order(3);
    let answers = join_all((0..50).map(|_| system.order(&racing, Some("race")))).await;
    let created = answers.iter().filter(|answer| answer.status() == 201).count();
    let repeated = answers.iter().filter(|answer| answer.status() == 200).count();
    assert_eq!((created, repeated), (1, 49));
    let ids: BTreeSet<String> = join_all(answers.into_iter().map(id_of)).await.into_iter().collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    let raced = ids.into_iter().next().expect("one");
    let listed = async |wanted: &str| {
        let index = system.kv.get("deliveries_index").await.unwrap_or_default();
        index
            .as_array()
            .map_or(0, |ids| ids.iter().filter(|id| **id == *wanted).count())
    };
    for wanted in [&id, &raced] {
        wait_until(Duration::from_secs(5), "the order is in deliveries_index", async || {
            listed(wanted).await > 0
        })
        .await;
        assert_eq!(listed(wanted).await, 1, "once");
    }
    let records = body(send(system.kv.http.get(system.kv.url("/kv?prefix=delivery:"))).await).await;
    assert_eq!(
        records["items"].as_array().map(Vec::len),
        Some(2),
        "one document per order"
    );

    system.all_delivered(&[id, raced], Duration::from_secs(90)).await;

    // Every gateway had a share.
    let mut shares = Vec::new();
    for gateway in &system.gateways {
        let text = send(system.http.get(format!("{}/metrics", gateway.url())))
            .await
            .text()
            .await
            .expect("text");
        let count = |line: &str| {
            line.rsplit(' ')
                .next()
                .and_then(|n| n.parse::<f64>().ok())
                .unwrap_or_default()
        };
        let requests = |line: &&str| line.starts_with("gateway_http_requests_total") && line.contains("/deliveries");
        shares.push(text.lines().filter(requests).map(count).sum::<f64>());
    }
    assert!(
        shares.iter().all(|share| *share > 10.0),
        "requests per gateway: {shares:?}"
    );

    // One gateway dies: what may be repeated never fails, and nothing does once the lb has noticed.
    system.gateways[1].kill();
    for n in 0..60 {
        let answer = system.order(&order(n), Some(&format!("after-{n}"))).await;
        assert_eq!(answer.status(), 201, "order {n}: {}", body(answer).await);
        let read = send(system.http.get(system.url("/health"))).await;
        assert_eq!(read.status(), 200, "read {n}");
    }
    let ttl = Duration::from_secs(2);
    tokio::time::timeout(ttl * 2, async {
        for n in 0..30 {
            let answer = system.order(&order(n), None).await;
            assert_eq!(answer.status(), 201, "order {n} without a key: {}", body(answer).await);
        }
    })
    .await
    .expect("thirty orders in four seconds");
}

#[tokio::test]
async fn lists_zones_drones_and_the_page() {
    let _turn = turn().await;
    let system = System::start(Options::default()).await;
    let get = async |path: &str| body(send(system.http.get(system.url(path))).await).await;
    let zones = get("/zones").await;
    assert_eq!((&zones["rows"], &zones["cols"]), (&json!(2), &json!(2)));
    assert_eq!(zones["zones"][0]["name"], "zone 0");
    assert_eq!(zones["bounds"]["lat_max"], json!(41.98));
    assert_eq!(system.kv.get("zones_config").await, Some(zones));
    let drones = get("/drones").await;
    assert_eq!(drones["count"], 18);
    assert!(drones["items"][0]["zone"].is_string(), "{drones}");
    let one = get("/drones/drone-1").await;
    assert_eq!((&one["id"], &one["type"]), (&json!("drone-1"), &json!("light")));
    assert_eq!(
        system
            .kv
            .get("drones_index")
            .await
            .and_then(|ids| ids.as_array().map(Vec::len)),
        Some(18)
    );
    for n in 0..3 {
        assert_eq!(system.order(&order(n), None).await.status(), 201);
    }
    let newest = get("/deliveries?limit=2").await;
    assert_eq!(newest["count"], 2);
    let ids: Vec<_> = newest["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|item| item["id"].as_str())
        .collect();
    assert!(ids[0] > ids[1], "newest first");
    let page = send(system.http.get(system.url("/"))).await;
    assert!(
        page.url().path().starts_with("/dashboard"),
        "redirected to {}",
        page.url()
    );
    assert!(page.text().await.expect("text").contains("data-testid"));
    for server in [
        &system.kv.front,
        &system.kv.stores[0],
        &system.dispatcher,
        &system.drones[0],
        &system.gateways[0],
    ] {
        for path in ["/health", "/ready", "/metrics"] {
            let answer = send(system.http.get(format!("{}{path}", server.url()))).await;
            assert_eq!(answer.status(), 200, "{server:?} {path}");
        }
    }
}
