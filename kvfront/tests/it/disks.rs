//! A node's disk is lost, or is an old copy: it is filled from the others, and counts only then.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Client, Cluster, eventually};

/// Waits until this node votes under this generation.
async fn votes_again(cluster: &Cluster, store: usize, generation: u64) {
    eventually("it is filled and votes", || async {
        let report = cluster.report_of(store).await;
        (report["standing"] == "voting" && report["generation"] == generation).then_some(())
    })
    .await;
}

/// Every key has the value of its number, whichever other node is away.
async fn survives_the_loss_of_any_other(cluster: &mut Cluster, store: usize, keys: &[String]) {
    for other in (0..3).filter(|other| *other != store) {
        cluster.stores[other].stop().await;
        for (n, key) in keys.iter().enumerate() {
            assert_eq!(cluster.client.value(key).await, Some(json!(n)), "{key} without {other}");
        }
        cluster.stores[other].start_again().await;
        cluster.whole().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_node_is_filled_and_then_any_other_may_be_lost() {
    let mut cluster = Cluster::start().await;
    // A second kvfront fills the same node at the same time.
    let _other = Client::ready(&cluster.addrs(), &[]).await;
    let keys: Vec<_> = (0..150).map(|n| format!("k{n}")).collect();
    for (n, key) in keys.iter().take(120).enumerate() {
        cluster.client.put(key, json!(n)).await;
    }
    cluster.client.put("deleted", json!(1)).await;
    assert_eq!(cluster.client.delete("/kv/deleted").await.0, 200);
    let (_, lock) = cluster
        .client
        .post("/lock/acquire/l?ttl_sec=600", json!({ "owner": "o" }))
        .await;
    assert_eq!(lock["ok"], true, "{lock}");
    for store in [0, 1] {
        cluster.stores[store].stop().await;
        cluster.stores[store].lose_disk();
        cluster.stores[store].start_again().await;
        // Acknowledged while it is being filled.
        for (n, key) in keys.iter().enumerate().skip(120 + 15 * store).take(15) {
            let asked = Instant::now();
            cluster.client.put(key, json!(n)).await;
            assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
        }
        votes_again(&cluster, store, 2).await;
        cluster.whole().await;
        survives_the_loss_of_any_other(&mut cluster, store, &keys[..135 + 15 * store]).await;
    }
    assert_eq!(cluster.client.value("deleted").await, None);
    let (_, again) = cluster.client.post("/lock/acquire/l", json!({})).await;
    assert_eq!(again["ok"], false, "{again}");
    let (_, metrics) = cluster.client.get("/metrics").await;
    assert!(metrics.as_str().unwrap().contains("kvfront_keys_filled_total"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_copy_of_a_disk_is_seen_and_filled() {
    let mut cluster = Cluster::start().await;
    let keys: Vec<_> = (0..60).map(|n| format!("k{n}")).collect();
    for key in &keys {
        cluster.client.put(key, json!("old")).await;
    }
    cluster.stores[2].stop().await;
    let copy = cluster.stores[2].file().with_extension("old");
    std::fs::copy(cluster.stores[2].file(), &copy).unwrap();
    cluster.stores[2].start_again().await;
    cluster.whole().await;
    for (n, key) in keys.iter().enumerate() {
        cluster.client.put(key, json!(n)).await;
    }
    cluster.stores[2].stop().await;
    std::fs::copy(&copy, cluster.stores[2].file()).unwrap();
    cluster.stores[2].start_again().await;
    votes_again(&cluster, 2, 2).await;
    cluster.whole().await;
    survives_the_loss_of_any_other(&mut cluster, 2, &keys).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_not_filled_while_another_is_away() {
    let mut cluster = Cluster::start().await;
    for n in 0..20 {
        cluster.client.put(&format!("k{n}"), json!(n)).await;
    }
    // The node that stays remembers the one that comes back empty only once it votes itself.
    cluster.whole().await;
    cluster.stores[0].stop().await;
    cluster.stores[0].lose_disk();
    cluster.stores[1].stop().await;
    cluster.stores[0].start_again().await;
    eventually("the lost disk is seen", || async {
        (cluster.report_of(0).await["standing"] == "filling").then_some(())
    })
    .await;
    // Node 2 alone holds what was acknowledged, and nobody may say of any key that it is not there.
    let reads = (0..20).map(|n| {
        let client = cluster.client.clone();
        async move { client.get(&format!("/kv/k{n}")).await.0 }
    });
    assert_eq!(futures_util::future::join_all(reads).await, [503; 20]);
    assert_eq!(cluster.client.get("/ready").await.0, 503);
    cluster.stores[1].start_again().await;
    votes_again(&cluster, 0, 2).await;
    for n in 0..20 {
        assert_eq!(cluster.client.value(&format!("k{n}")).await, Some(json!(n)));
    }
}
