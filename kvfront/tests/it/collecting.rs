//! What has ended leaves all nodes, and never comes back.

use register::{Ballot, Key, Reply, Request};
use serde_json::json;

use crate::support::{Cluster, eventually, now};

/// Collects almost at once.
const QUICKLY: [&str; 4] = ["--collect-every-sec", "0.1", "--tombstone-keep-sec", "0.2"];

async fn nothing_is_left(cluster: &Cluster) {
    eventually("no node holds anything", || async {
        cluster.records().await.is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tombstones_ended_values_and_released_locks_leave_all_nodes() {
    let cluster = Cluster::with(3, &QUICKLY).await;
    for n in 0..40 {
        cluster.client.put(&format!("k{n}"), json!(n)).await;
        let body = json!({ "value": n, "ttl_sec": 0.3 }).to_string();
        let (status, answer) = cluster.client.put_raw(&format!("/kv/ends{n}"), body).await;
        assert_eq!(status, 200, "{answer}");
    }
    let (_, lock) = cluster.client.post("/lock/acquire/l", json!({})).await;
    assert_eq!(lock["ok"], true, "{lock}");
    assert_eq!(cluster.client.post("/lock/release/l", json!({})).await.1["ok"], true);
    for n in 0..40 {
        assert_eq!(cluster.client.delete(&format!("/kv/k{n}")).await.0, 200);
    }
    nothing_is_left(&cluster).await;
    for n in 0..40 {
        assert_eq!(cluster.client.value(&format!("k{n}")).await, None);
        assert_eq!(cluster.client.value(&format!("ends{n}")).await, None);
    }
    let (_, metrics) = cluster.client.get("/metrics").await;
    for kind in ["expired", "tombstone"] {
        let line = format!("kvfront_collected_total{{kind=\"{kind}\"}}");
        assert!(metrics.as_str().unwrap().contains(&line), "{metrics}");
    }
    // A key that was collected may be made anew, and a lock's fence still grows.
    cluster.client.put("k0", json!("anew")).await;
    assert_eq!(cluster.client.value("k0").await, Some(json!("anew")));
    let (_, again) = cluster.client.post("/lock/acquire/l", json!({})).await;
    assert!(again["fence"].as_u64() > lock["fence"].as_u64(), "{lock} {again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_slept_through_a_thousand_deletes_brings_none_back() {
    const KEYS: usize = 1_000;
    let mut cluster = Cluster::with(3, &QUICKLY).await;
    let batch = async |cluster: &Cluster, op: &dyn Fn(usize) -> serde_json::Value| {
        let ops: Vec<_> = (0..KEYS).map(op).collect();
        let (status, answer) = cluster.client.post("/kv/batch", json!({ "ops": ops })).await;
        assert_eq!(status, 200, "{answer}");
        let results = answer["results"].as_array().unwrap();
        assert!(results.iter().all(|result| result["ok"] == true), "{answer}");
    };
    batch(
        &cluster,
        &|n| json!({ "op": "put", "key": format!("k{n}"), "value": n }),
    )
    .await;
    cluster.stores[1].stop().await;
    batch(&cluster, &|n| json!({ "op": "delete", "key": format!("k{n}") })).await;
    eventually("their tombstones wait for it", || async {
        let (_, report) = cluster.client.get("/cluster").await;
        (report["collection"]["waiting"].as_u64() >= Some(KEYS as u64)).then_some(())
    })
    .await;
    let tombstones = cluster.records().await.len();
    assert!(tombstones >= KEYS, "{tombstones}: on a quorum each");
    cluster.stores[1].start_again().await;
    cluster.whole().await;
    assert!(
        cluster.client.get("/kv?prefix=k").await.1["items"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    nothing_is_left(&cluster).await;
    for n in 0..KEYS {
        assert_eq!(cluster.client.value(&format!("k{n}")).await, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promise_that_nothing_followed_is_dropped() {
    let cluster = Cluster::with(3, &QUICKLY).await;
    let ballot = Ballot {
        time: now(),
        incarnation: 77,
    };
    let (key, epoch) = (Key::data("promised"), cluster.ring().epoch());
    for store in &cluster.stores {
        let reply = store.request(epoch, key.clone(), Request::Prepare { ballot }).await;
        // Promised is stored; on a busy machine one may be gone again before the next has answered.
        assert!(matches!(reply, Reply::Promised(_)), "{reply:?}");
    }
    nothing_is_left(&cluster).await;
    let reply = cluster.stores[0].request(epoch, key, Request::Prepare { ballot }).await;
    assert!(
        matches!(reply, Reply::Refused { .. }),
        "what was promised stays refused: {reply:?}"
    );
    cluster.client.put("promised", json!(1)).await;
    assert_eq!(cluster.client.value("promised").await, Some(json!(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fence_that_must_be_remembered_keeps_its_tombstone() {
    let cluster = Cluster::with(3, &QUICKLY).await;
    let fenced = json!({ "value": 1, "fence": 7 }).to_string();
    assert_eq!(cluster.client.put_raw("/kv/fenced", fenced).await.0, 200);
    assert_eq!(cluster.client.delete("/kv/fenced").await.0, 200);
    cluster.client.put("plain", json!(1)).await;
    assert_eq!(cluster.client.delete("/kv/plain").await.0, 200);
    eventually("only the fenced one is left", || async {
        let records = cluster.records().await;
        let names: Vec<_> = records.iter().map(|(_, record)| record.key.name().to_owned()).collect();
        (!names.is_empty() && names.iter().all(|name| name == "fenced")).then_some(())
    })
    .await;
    let lower = json!({ "value": 2, "fence": 6 }).to_string();
    let (status, answer) = cluster.client.put_raw("/kv/fenced", lower).await;
    assert!(status != 200 || answer["ok"] == false, "{status} {answer}");
}
