//! Who votes: a cluster's first start, nodes that come back, another ring.

use std::time::{Duration, Instant};

use register::Standing;
use serde_json::json;

use crate::support::{Client, Cluster, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_takes_one_missing_node_as_it_comes() {
    let begun = Instant::now();
    let mut cluster = Cluster::without_the_last(3, &[]).await;
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    for n in 0..20 {
        cluster.client.put(&format!("k{n}"), json!(n)).await;
    }
    assert_eq!(cluster.report_of(2).await["up"], false);
    cluster.stores[2].start_again().await;
    cluster.whole().await;
    let report = cluster.report_of(2).await;
    assert_eq!(
        (&report["standing"], &report["generation"]),
        (&json!("voting"), &json!(1))
    );
    // It counts: without another one, everything is still there.
    cluster.stores[0].stop().await;
    for n in 0..20 {
        assert_eq!(cluster.client.value(&format!("k{n}")).await, Some(json!(n)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_alone_is_not_set_up_and_says_so() {
    let mut cluster = Cluster::start().await;
    cluster.client.put("k", json!(1)).await;
    for store in &mut cluster.stores {
        store.stop().await;
    }
    // A new kvfront knows nothing, and the one node that is there cannot say that its disk is not an old copy.
    cluster.stores[0].start_again().await;
    let client = Client::start(&cluster.addrs(), &[]).await;
    let detail = eventually("it says what it waits for", || async {
        let (status, answer) = client.get("/kv/k").await;
        assert_eq!(status, 503);
        let detail = answer["detail"].as_str()?.to_owned();
        detail.contains("being set up").then_some(detail)
    })
    .await;
    assert!(detail.contains(&cluster.stores[0].addr.to_string()), "{detail}");
    eventually("so does its readiness", || async {
        let (status, ready) = client.get("/ready").await;
        assert_eq!(status, 503);
        let membership = ready["checks"]["membership"].to_string();
        membership.contains("being set up").then_some(())
    })
    .await;
    cluster.stores[1].start_again().await;
    eventually("two are enough", || async {
        (client.get("/ready").await.0 == 200).then_some(())
    })
    .await;
    assert_eq!(client.value("k").await, Some(json!(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_remember_each_other_and_how_far_they_got() {
    let cluster = Cluster::start().await;
    for n in 0..10 {
        cluster.client.put(&format!("k{n}"), json!(n)).await;
    }
    let epoch = cluster.ring().epoch();
    eventually("every commit is remembered by two others", || async {
        let mut statuses = Vec::new();
        for store in &cluster.stores {
            statuses.push((format!("http://{}", store.addr), store.status(epoch).await));
        }
        let remembered = statuses.iter().all(|(name, status)| {
            assert_eq!((status.standing, status.epoch), (Standing::Voting, Some(epoch)));
            let peers = statuses.iter().flat_map(|(_, other)| &other.peers);
            let mut of_this = peers.filter(|peer| *peer.name == **name && peer.incarnation == status.incarnation);
            of_this.clone().count() == 2 && of_this.all(|peer| peer.commit == status.commit)
        });
        remembered.then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_ring_is_refused_and_told() {
    let cluster = Cluster::start().await;
    cluster.client.put("k", json!(1)).await;
    let other = Client::start(&cluster.addrs(), &["--rf", "1"]).await;
    eventually("it says that its ring is another", || async {
        let (status, ready) = other.get("/ready").await;
        let (kv_status, answer) = other.get("/kv/k").await;
        assert_eq!((status, kv_status), (503, 503));
        let told = |text: String| text.contains("the node refuses us") && text.contains("ring");
        let (_, report) = other.get("/cluster").await;
        (told(ready.to_string()) && told(answer.to_string()) && told(report.to_string())).then_some(())
    })
    .await;
    assert_eq!(cluster.client.value("k").await, Some(json!(1)), "the others go on");
}
