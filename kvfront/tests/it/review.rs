//! A node that shares its keys with nobody: what it has is all there is.

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
