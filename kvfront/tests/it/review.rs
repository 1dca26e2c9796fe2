//! Lost disks and old copies in clusters that keep one copy of each key, or three.

use serde_json::json;

use crate::support::{Cluster, eventually};

/// An old copy of a disk cannot be filled from anywhere. It counts as it is: dropping what it still holds would help nobody.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_copy_of_what_nobody_else_holds_is_kept() {
    let mut cluster = Cluster::with(3, &["--rf", "1"]).await;
    let keys: Vec<_> = (0..30).map(|n| format!("k{n}")).collect();
    for key in &keys {
        cluster.client.put(key, json!("old")).await;
    }
    cluster.stores[2].stop().await;
    let copy = cluster.stores[2].file().with_extension("old");
    std::fs::copy(cluster.stores[2].file(), &copy).unwrap();
    cluster.stores[2].start_again().await;
    cluster.whole().await;
    for key in &keys {
        cluster.client.put(key, json!("new")).await;
    }
    cluster.stores[2].stop().await;
    std::fs::copy(&copy, cluster.stores[2].file()).unwrap();
    cluster.stores[2].start_again().await;
    eventually("it votes", || async {
        (cluster.report_of(2).await["standing"] == "voting").then_some(())
    })
    .await;
    let mut values = Vec::new();
    for key in &keys {
        values.push(cluster.client.value(key).await);
    }
    assert!(values.iter().all(Option::is_some), "{values:?}");
    assert!(values.contains(&Some(json!("old"))), "some are its own: {values:?}");
}

/// With three copies two nodes may be lost, and three of five hold all that was acknowledged: neither waits for the other.
#[tokio::test(flavor = "multi_thread")]
async fn two_of_five_nodes_that_lost_their_disks_are_both_filled() {
    let mut cluster = Cluster::with(5, &["--rf", "3"]).await;
    let keys: Vec<_> = (0..60).map(|n| format!("k{n}")).collect();
    for (n, key) in keys.iter().enumerate() {
        cluster.client.put(key, json!(n)).await;
    }
    for store in [0, 1] {
        cluster.stores[store].stop().await;
        cluster.stores[store].lose_disk();
    }
    for store in [0, 1] {
        cluster.stores[store].start_again().await;
    }
    for store in [0, 1] {
        eventually("it is filled and votes", || async {
            let report = cluster.report_of(store).await;
            (report["standing"] == "voting" && report["generation"] == 2).then_some(())
        })
        .await;
    }
    // Now they are needed.
    for store in [2, 3] {
        cluster.stores[store].stop().await;
    }
    for (n, key) in keys.iter().enumerate() {
        assert_eq!(cluster.client.value(key).await, Some(json!(n)), "{key}");
    }
}
