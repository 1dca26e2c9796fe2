//! A home goes away and comes back: spares help out and hand over.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Client, Cluster, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_home_that_was_away_gets_what_it_missed() {
    let mut cluster = Cluster::start().await;
    // A second kvfront flushes the same hints at the same time: doing it twice is doing it once.
    let _other = Client::ready(&cluster.addrs(), &[]).await;
    let keys: Vec<_> = (0..30).map(|i| format!("k:{i}")).collect();
    for key in &keys {
        cluster.client.put(key, json!("before")).await;
    }
    cluster.stores[0].stop().await;
    for key in &keys {
        let asked = Instant::now();
        cluster.client.put(key, json!("meanwhile")).await;
        assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
        assert_eq!(cluster.client.value(key).await, Some(json!("meanwhile")));
    }
    let waiting = eventually("hints are seen", || async {
        let (_, report) = cluster.client.get("/cluster").await;
        let waiting = report["hints_waiting"].as_u64().unwrap();
        (waiting > 0).then_some(report)
    })
    .await;
    assert_eq!(waiting["up"], 2, "{waiting}");

    cluster.stores[0].start_again().await;
    let back = Instant::now();
    eventually("exactly the homes hold each key, and alike", || async {
        for key in &keys {
            let homes = cluster.list_of(key);
            for (node, copy) in cluster.copies(key).await.into_iter().enumerate() {
                let wanted = homes[..2].contains(&node).then(|| json!("meanwhile"));
                if copy != wanted {
                    return None;
                }
            }
        }
        Some(())
    })
    .await;
    assert!(back.elapsed() < Duration::from_secs(5), "{:?}", back.elapsed());
    eventually("no hint is left", || async {
        let (_, report) = cluster.client.get("/cluster").await;
        (report["hints_waiting"] == 0 && report["up"] == 3).then_some(())
    })
    .await;
    for key in &keys {
        assert_eq!(cluster.client.value(key).await, Some(json!("meanwhile")));
    }
    let (_, metrics) = cluster.client.get("/metrics").await;
    let metrics = metrics.as_str().unwrap();
    assert!(metrics.contains("kvfront_hints_handed_over_total"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_meanwhile_stays_deleted() {
    let mut cluster = Cluster::start().await;
    let keys: Vec<_> = (0..12).map(|i| format!("gone:{i}")).collect();
    for key in &keys {
        cluster.client.put(key, json!(1)).await;
    }
    for away in 0..3 {
        cluster.stores[away].stop().await;
        for key in &keys[away * 4..away * 4 + 4] {
            assert_eq!(cluster.client.delete(&format!("/kv/{key}")).await.0, 200);
        }
        cluster.stores[away].start_again().await;
        eventually("all are up and no hint is left", || async {
            let (_, report) = cluster.client.get("/cluster").await;
            (report["hints_waiting"] == 0 && report["up"] == 3).then_some(())
        })
        .await;
        for key in &keys[..away * 4 + 4] {
            assert_eq!(cluster.client.value(key).await, None, "{key}");
        }
        let (_, page) = cluster.client.get("/kv?prefix=gone").await;
        assert_eq!(page["items"].as_array().unwrap().len(), keys.len() - away * 4 - 4);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_go_on_while_any_one_node_is_away() {
    let mut cluster = Cluster::start().await;
    let mut n = 0;
    cluster.client.put("cas", json!(0)).await;
    for away in 0..3 {
        cluster.stores[away].stop().await;
        for _ in 0..5 {
            let (status, answer) = cluster
                .client
                .cas(json!({ "key": "cas", "old": n, "new": n + 1 }))
                .await;
            assert_eq!((status, &answer["ok"]), (200, &json!(true)), "{answer}");
            n += 1;
        }
        let (_, lock) = cluster
            .client
            .post(&format!("/lock/acquire/away:{away}"), json!(null))
            .await;
        assert_eq!(lock["ok"], true, "{lock}");
        cluster.stores[away].start_again().await;
        eventually("it is back", || async {
            let (_, report) = cluster.client.get("/cluster").await;
            (report["hints_waiting"] == 0 && report["up"] == 3).then_some(())
        })
        .await;
    }
    assert_eq!(cluster.client.value("cas").await, Some(json!(n)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keys_journey_is_told_while_a_home_is_away_and_after() {
    let mut cluster = Cluster::start().await;
    let key = "drone:7/x";
    cluster.client.put("drone:7", json!("another key")).await;
    cluster.client.put("drone:7/xx", json!("another key")).await;
    let path = "/explain/drone:7%2Fx";
    let names: Vec<_> = cluster
        .list_of(key)
        .iter()
        .map(|&node| format!("http://{}", cluster.stores[node].addr))
        .collect();

    let (status, unknown) = cluster.client.get(path).await;
    assert_eq!(
        (status, &unknown["version"], &unknown["copies"]),
        (200, &json!(null), &json!(0))
    );
    cluster.client.put(key, json!("before")).await;
    let home = cluster.list_of(key)[0];
    cluster.stores[home].stop().await;
    let put = cluster.client.put(key, json!("meanwhile")).await;
    let (_, away) = cluster.client.get(path).await;
    assert_eq!(away["key"], key);
    assert_eq!(away["nodes"][0]["name"], names[0].as_str());
    assert_eq!(
        (&away["nodes"][0]["has"], &away["nodes"][0]["version"]),
        (&json!("unknown"), &json!(null)),
        "{away}"
    );
    assert!(
        away["nodes"][0]["error"].is_string() && away["nodes"][0]["state"] != "up",
        "{away}"
    );
    assert_eq!(
        (&away["version"], &away["copies"]),
        (&put["version"], &json!(2)),
        "{away}"
    );
    let spare = &away["nodes"][2];
    assert_eq!(
        (&spare["role"], &spare["has"]),
        (&json!("spare"), &json!("newest")),
        "{away}"
    );
    assert_eq!(spare["hint_for"], names[0].as_str(), "{away}");
    eventually("a node that stays silent is called down", || async {
        (cluster.report_of(home).await["state"] == "down").then_some(())
    })
    .await;

    cluster.stores[home].start_again().await;
    eventually("both homes hold it, and the hint is gone", || async {
        let (_, back) = cluster.client.get(path).await;
        let has: Vec<_> = back["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|copy| copy["has"].clone())
            .collect();
        (has == ["newest", "newest", "absent"] && back["nodes"][2]["hint_for"].is_null()).then_some(())
    })
    .await;
    assert_eq!(cluster.client.delete(&format!("/kv/{}", "drone:7%2Fx")).await.0, 200);
    let (_, deleted) = cluster.client.get(path).await;
    assert_eq!(deleted["nodes"][0]["deleted"], true, "{deleted}");
    assert_eq!(cluster.client.get("/explain/%ff").await.0, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ring_and_what_was_counted_are_told() {
    let cluster = Cluster::start().await;
    cluster.client.put("cas", json!(1)).await;
    for old in [2, 3] {
        let (_, answer) = cluster.client.cas(json!({ "key": "cas", "old": old, "new": 4 })).await;
        assert_eq!(answer["ok"], false, "{answer}");
    }
    let (_, report) = cluster.client.get("/cluster").await;
    assert_eq!(report["counters"]["cas_conflicts"], 2, "{report}");
    assert!(report["counters"]["read_repairs"].is_u64(), "{report}");
    assert!(
        report["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .all(|node| node["state"] == "up"),
        "{report}"
    );

    let (status, ring) = cluster.client.get("/ring").await;
    assert_eq!(
        (status, &ring["epoch"], &ring["partitions"]),
        (200, &report["epoch"], &json!(4096))
    );
    let ranges = ring["ranges"].as_array().unwrap();
    assert_eq!(ranges[0]["from"], 0);
    let (_, explained) = cluster.client.get("/explain/cas").await;
    let partition = explained["partition"].as_u64().unwrap();
    let range = ranges
        .iter()
        .rfind(|range| range["from"].as_u64().unwrap() <= partition)
        .unwrap();
    for (rank, node) in range["nodes"].as_array().unwrap().iter().enumerate() {
        let name = &ring["nodes"][usize::try_from(node.as_u64().unwrap()).unwrap()];
        assert_eq!(*name, explained["nodes"][rank]["name"]);
    }
}
