//! Anti-entropy: replicas that were damaged behind everybody's back are made alike again.

use serde_json::json;

use crate::support::{Cluster, eventually};

/// Compares almost at once, and collects nothing meanwhile.
const QUICKLY: [&str; 2] = ["--repair-every-sec", "0.3"];

/// Waits until exactly the homes hold each key, alike.
async fn alike(cluster: &Cluster, keys: &[String], value: impl Fn(usize) -> serde_json::Value) {
    eventually("exactly the homes hold each key, and alike", || async {
        for (n, key) in keys.iter().enumerate() {
            let homes = cluster.list_of(key);
            for (node, copy) in cluster.copies(key).await.into_iter().enumerate() {
                if copy != homes[..2].contains(&node).then(|| value(n)) {
                    return None;
                }
            }
        }
        Some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_lost_rows_gets_them_back() {
    let mut cluster = Cluster::with(3, &QUICKLY).await;
    let keys: Vec<_> = (0..60).map(|n| format!("k{n}")).collect();
    for (n, key) in keys.iter().enumerate() {
        cluster.client.put(key, json!(n)).await;
    }
    cluster.stores[0].stop().await;
    cluster.stores[0]
        .edit("DELETE FROM records WHERE key LIKE 'dk1%'; UPDATE node SET records = (SELECT count(*) FROM records)");
    cluster.stores[0].start_again().await;
    // Nobody reads these keys: only a comparison finds what is missing.
    alike(&cluster, &keys, |n| json!(n)).await;
    let (_, report) = eventually("the report tells", || async {
        let report = cluster.client.get("/cluster").await;
        let repair = &report.1["repair"];
        (repair["partitions_differing"] == 0 && repair["partitions_compared"] == 4_096).then_some(report)
    })
    .await;
    assert!(report["repair"]["passes"].as_u64() > Some(1), "{report}");
    let (_, metrics) = cluster.client.get("/metrics").await;
    let repaired = metrics
        .as_str()
        .unwrap()
        .lines()
        .find_map(|line| line.strip_prefix("kvfront_keys_repaired_total "));
    assert!(repaired.unwrap().parse::<u64>().unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_spare_should_not_hold_moves_home() {
    let mut cluster = Cluster::with(3, &QUICKLY).await;
    let keys: Vec<_> = (0..60).map(|n| format!("k{n}")).collect();
    for (n, key) in keys.iter().enumerate() {
        cluster.client.put(key, json!(n)).await;
    }
    // Node 1 is given copies of whatever node 0 holds; of a third of the keys it is the spare.
    for store in [0, 1] {
        cluster.stores[store].stop().await;
    }
    let source = cluster.stores[0].file().display().to_string();
    cluster.stores[1].edit(&format!(
        "ATTACH '{source}' AS source; INSERT OR IGNORE INTO records SELECT * FROM source.records; \
         UPDATE node SET records = (SELECT count(*) FROM records)"
    ));
    for store in [0, 1] {
        cluster.stores[store].start_again().await;
    }
    alike(&cluster, &keys, |n| json!(n)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_node_is_away_nothing_is_judged() {
    let mut cluster = Cluster::with(3, &QUICKLY).await;
    for n in 0..10 {
        cluster.client.put(&format!("k{n}"), json!(n)).await;
    }
    cluster.stores[2].stop().await;
    for n in 0..10 {
        cluster.client.put(&format!("k{n}"), json!(n + 1)).await;
    }
    eventually("nothing could be compared", || async {
        let (_, report) = cluster.client.get("/cluster").await;
        (report["repair"]["partitions_compared"] == 0).then_some(())
    })
    .await;
    cluster.stores[2].start_again().await;
    let keys: Vec<_> = (0..10).map(|n| format!("k{n}")).collect();
    alike(&cluster, &keys, |n| json!(n + 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_on_nodes_outside_of_the_list_go_unless_nobody_else_has_them() {
    let mut cluster = Cluster::with(5, &QUICKLY).await;
    let keys: Vec<_> = (0..60).map(|n| format!("k{n}")).collect();
    for (n, key) in keys.iter().enumerate() {
        cluster.client.put(key, json!(n)).await;
    }
    let stranger_of = |key: &String| !cluster.list_of(key).contains(&1);
    assert!(keys.iter().any(|key| cluster.list_of(key)[0] == 0 && stranger_of(key)));
    let lone = (0..).map(|n| format!("lone{n}")).find(stranger_of).unwrap();
    // Node 1 is given copies of whatever node 0 holds, in its list or not, and a key that nobody has heard of.
    for store in [0, 1] {
        cluster.stores[store].stop().await;
    }
    let source = cluster.stores[0].file().display().to_string();
    cluster.stores[1].edit(&format!(
        "ATTACH '{source}' AS source; INSERT OR IGNORE INTO records SELECT * FROM source.records; \
         INSERT INTO records (key, commit_number, accepted, promised, version, fence, lineage, value) \
         SELECT 'd{lone}', commit_number, accepted, promised, version, fence, lineage, value FROM source.records LIMIT 1; \
         UPDATE node SET records = (SELECT count(*) FROM records)"
    ));
    for store in [0, 1] {
        cluster.stores[store].start_again().await;
    }
    alike(&cluster, &keys, |n| json!(n)).await;
    eventually("what is left is told", || async {
        let (_, report) = cluster.client.get("/cluster").await;
        (report["repair"]["strays"] == 1).then_some(())
    })
    .await;
    assert!(cluster.copies(&lone).await[1].is_some(), "it may be all that is left");
}
