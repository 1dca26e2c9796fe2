//! Nodes that are silent, mute, skewed or broken: stand-ins around the real acceptor.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::stand_in::{Mood, StandIn};
use crate::support::{Client, Cluster, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn serves_only_once_it_knows_the_clocks_of_a_quorum() {
    let dead: SocketAddr = {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        closed.local_addr().unwrap()
    };
    let one = StandIn::start().await;
    let two = StandIn::start().await;
    two.set(Mood::Skewed);
    let client = Client::start(&[one.addr, two.addr, dead], &[]).await;
    let (status, answer) = eventually("two nodes are named", || async {
        let (status, answer) = client.get("/kv/x").await;
        let detail = answer["detail"].as_str().unwrap().to_owned();
        // The well one is new, and nobody can tell yet whether it is a lost disk.
        (detail.contains("skew") && detail.contains("not admitted yet")).then_some((status, answer))
    })
    .await;
    assert_eq!(status, 503);
    let detail = answer["detail"].as_str().unwrap();
    for addr in [one.addr, two.addr, dead] {
        assert!(detail.contains(&addr.to_string()), "{detail}");
    }
    let (status, ready) = client.get("/ready").await;
    assert_eq!(status, 503);
    for says in ["waiting", "the cluster is being set up"] {
        assert!(ready.to_string().contains(says), "{ready}");
    }
    assert_eq!(client.get("/health").await.0, 200);
    two.set(Mood::Well);
    eventually("ready", || async {
        (client.get("/ready").await.0 == 200).then_some(())
    })
    .await;
    client.put("x", json!(1)).await;
    assert_eq!(client.value("x").await, Some(json!(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_node_costs_little_and_two_make_a_503_that_names_them() {
    let (nodes, addrs) = StandIn::three().await;
    let client = Client::ready(&addrs, &[]).await;
    for (i, node) in nodes.iter().enumerate() {
        node.set(Mood::Silent);
        for n in 0..4 {
            let asked = Instant::now();
            client.put(&format!("k{n}"), json!(i)).await;
            assert!(asked.elapsed() < Duration::from_millis(900), "{:?}", asked.elapsed());
            assert_eq!(client.value(&format!("k{n}")).await, Some(json!(i)));
        }
        node.set(Mood::Well);
        eventually("all up", || async {
            (client.get("/cluster").await.1["up"] == 3).then_some(())
        })
        .await;
    }
    nodes[0].set(Mood::Silent);
    nodes[1].set(Mood::Silent);
    let (status, answer) = client.get("/kv/k0").await;
    assert_eq!(status, 503);
    assert_eq!(
        (&answer["answered"], &answer["needed"], &answer["replicas"]),
        (&json!(1), &json!(2), &json!(3)),
        "{answer}"
    );
    let silent = answer["silent"].to_string();
    assert!(
        silent.contains(&addrs[0].to_string()) && silent.contains(&addrs[1].to_string()),
        "{answer}"
    );
    nodes[1].set(Mood::Well);
    eventually("served again", || async {
        (client.get("/kv/k0").await.0 == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_only_mute_nodes_took_is_of_unknown_outcome() {
    let (nodes, addrs) = StandIn::three().await;
    let client = Client::ready(&addrs, &[]).await;
    client.put("k", json!(1)).await;
    nodes[0].set(Mood::Mute);
    nodes[1].set(Mood::Mute);
    nodes[2].set(Mood::Mute);
    let (status, answer) = client.put_raw("/kv/k", "{\"value\":2}").await;
    assert_eq!((status, &answer["outcome"]), (503, &json!("unknown")), "{answer}");
    assert!(answer["detail"].as_str().unwrap().contains("not known"), "{answer}");
    for node in &nodes {
        node.set(Mood::Well);
    }
    eventually("it reads as one or the other, and stays so", || async {
        let (status, answer) = client.get("/kv/k").await;
        (status == 200).then(|| assert!(answer["value"] == 1 || answer["value"] == 2, "{answer}"))
    })
    .await;
    let settled = client.value("k").await;
    assert_eq!(client.value("k").await, settled);
}

/// A wake of a thread that is later than this tells of a machine on which 250 ms may be too short for a message and its answer.
const BUSY: Duration = Duration::from_millis(50);

/// Waits for `work`; how late meanwhile the latest of a thread's wakes was.
async fn with_the_slowest_wake<T>(work: impl Future<Output = T>) -> (T, Duration) {
    const NAP: Duration = Duration::from_millis(5);
    let ended = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&ended);
    let watch = std::thread::spawn(move || {
        let mut slowest = Duration::ZERO;
        while !seen.load(Ordering::Relaxed) {
            let begun = Instant::now();
            std::thread::sleep(NAP);
            slowest = slowest.max(begun.elapsed() - NAP);
        }
        slowest
    });
    let done = work.await;
    ended.store(true, Ordering::Relaxed);
    (done, watch.join().expect("it only sleeps"))
}

/// However the deadline falls into the last attempt.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_every_node_refuses_until_the_deadline_is_not_done() {
    let (nodes, addrs) = StandIn::three().await;
    let client = Client::ready(&addrs, &[]).await;
    nodes.iter().for_each(|node| node.set(Mood::Stopping));
    let put = async |n: u32| client.put_raw(&format!("/kv/k{n}"), "{\"value\":1}").await;
    let answers = futures_util::future::join_all((0..16).map(put));
    let (answers, slowest) = with_the_slowest_wake(answers).await;
    for (status, answer) in answers {
        if answer["outcome"] == "unknown" && slowest > BUSY {
            // A refusal was on its way when the deadline came: on so busy a machine it may take longer than kvfront leaves for it.
            continue;
        }
        assert_eq!(
            (status, answer.get("outcome")),
            (503, None),
            "{answer}, slowest wake {slowest:?}"
        );
        let detail = answer["detail"].as_str().unwrap();
        assert!(
            detail.contains("stopping") && detail.contains("nothing was changed"),
            "{answer}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kvfront_whose_clock_is_refused_says_so_at_once_and_serves_again() {
    let (nodes, addrs) = StandIn::three().await;
    let client = Client::ready(&addrs, &[]).await;
    nodes[0].set(Mood::Skewed);
    client.put("k", json!(1)).await;
    nodes[1].set(Mood::Skewed);
    let put = || client.put_raw("/kv/k", "{\"value\":2}");
    // Of the first ones the third node may have taken some, which is told when their time is over.
    let answer = eventually("it is not tried any more", || async {
        let asked = Instant::now();
        let (status, answer) = put().await;
        assert_eq!(status, 503, "{answer}");
        (asked.elapsed() < Duration::from_secs(1)).then_some(answer)
    })
    .await;
    assert_eq!(answer.get("outcome"), None, "{answer}");
    assert!(answer["detail"].as_str().unwrap().contains("clock"), "{answer}");
    let (status, answer) = client.get("/kv/k").await;
    assert_eq!(status, 503, "{answer}");
    nodes[0].set(Mood::Well);
    eventually("served again", || async { (put().await.0 == 200).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_far_ahead_is_refused_and_shown() {
    let (nodes, addrs) = StandIn::three().await;
    let client = Client::ready(&addrs, &[]).await;
    nodes[0].set(Mood::Ahead);
    client.put("k", json!(1)).await;
    eventually("the skew is shown", || async {
        client.put("k", json!(1)).await;
        let (_, report) = client.get("/cluster").await;
        let node = report["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .find(|n| n["url"] == format!("http://{}", addrs[0]))
            .unwrap();
        let shown = node["clock_ahead_ms"].as_i64().is_some_and(|ahead| ahead > 50_000);
        (shown && node["error"].as_str().is_some_and(|e| e.contains("clock skew"))).then_some(())
    })
    .await;
    nodes[1].set(Mood::Ahead);
    eventually("503 that says why", || async {
        let (status, answer) = client.get("/kv/k").await;
        // On a machine that stood still it may also be that nobody answered.
        (status == 503 && answer["detail"].as_str().unwrap().contains("skew")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_nodes_are_no_answer() {
    let (nodes, addrs) = StandIn::three().await;
    let client = Client::ready(&addrs, &[]).await;
    nodes[2].set(Mood::Broken);
    for n in 0..6 {
        client.put(&format!("k{n}"), json!(n)).await;
        assert_eq!(client.value(&format!("k{n}")).await, Some(json!(n)));
    }
    eventually("it is suspected", || async {
        (client.get("/cluster").await.1["up"] == 2).then_some(())
    })
    .await;
    assert_eq!(client.get("/kv?prefix=k").await.1["items"].as_array().unwrap().len(), 6);
    assert_eq!(client.get("/ready").await.0, 200, "a quorum is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_queues_up_travels_together() {
    let (nodes, addrs) = StandIn::three().await;
    let client = Client::ready(&addrs, &[]).await;
    let ops: Vec<_> = (0..500)
        .map(|n| json!({ "op": "put", "key": format!("k{n}"), "value": n }))
        .collect();
    let (status, answer) = client.post("/kv/batch", json!({ "ops": ops })).await;
    assert_eq!(status, 200);
    assert!(
        answer["results"].as_array().unwrap().iter().all(|r| r["ok"] == true),
        "{answer}"
    );
    let largest = nodes.iter().flat_map(StandIn::envelopes).max();
    assert!(largest > Some(4), "{largest:?}");
    let envelopes: usize = nodes.iter().map(|node| node.envelopes().len()).sum();
    assert!(envelopes < 500, "{envelopes} envelopes for 1000 accepts");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_much_at_once_is_turned_away() {
    let (nodes, addrs) = StandIn::three().await;
    let client = Client::ready(&addrs, &["--max-concurrent-ops", "1"]).await;
    for node in &nodes {
        node.set(Mood::Silent);
    }
    let answers = futures_util::future::join_all((0..4).map(|_| client.get("/kv/x"))).await;
    let busy = |(status, answer): &&(u16, serde_json::Value)| {
        *status == 503
            && answer["detail"]
                .as_str()
                .is_some_and(|d| d.contains("MAX_CONCURRENT_OPS"))
    };
    assert_eq!(answers.iter().filter(busy).count(), 3, "{answers:?}");
    assert!(answers.iter().all(|(status, _)| *status == 503), "{answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_ends_though_its_client_hangs_up() {
    let cluster = Cluster::start().await;
    let http = reqwest::Client::new();
    for n in 0..20 {
        let url = format!("{}/kv/hang{n}", cluster.client.base);
        let request = http
            .put(url)
            .body("{\"value\":1}")
            .timeout(Duration::from_micros(300 * n));
        let _ = request.send().await;
    }
    // Each either never arrived or is there on both homes: never on one alone.
    for n in 0..20 {
        let key = format!("hang{n}");
        eventually("all or nothing", || async {
            let copies = cluster.copies(&key).await.into_iter().flatten().count();
            (copies == 0 || copies == 2).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_rf_1_and_with_five_nodes() {
    let one = Cluster::with(1, &["--rf", "1"]).await;
    one.client.put("k", json!(1)).await;
    assert_eq!(one.client.value("k").await, Some(json!(1)));
    assert_eq!(one.client.get("/kv").await.1["items"].as_array().unwrap().len(), 1);

    let five = Cluster::with(5, &["--rf", "3"]).await;
    for n in 0..10 {
        let key = format!("k{n}");
        assert_eq!(five.client.put(&key, json!(n)).await["rf"], 3);
        eventually("three copies", || async {
            let copies = five.copies(&key).await.into_iter().flatten().count();
            (copies == 3).then_some(())
        })
        .await;
    }
    assert_eq!(
        five.client.get("/kv?limit=3").await.1["items"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_clock_of_its_own_is_told_apart_from_sick_nodes() {
    let (nodes, addrs) = StandIn::three().await;
    let client = Client::ready(&addrs, &[]).await;
    let says = async |text: &str| {
        eventually(text, || async {
            client.get("/kv/k").await;
            let (status, ready) = client.get("/ready").await;
            (status == 503 && ready.to_string().contains(text)).then_some(())
        })
        .await;
    };
    for node in &nodes {
        node.set(Mood::Skewed);
    }
    says("this machine's clock is 60000 ms ahead of the clocks of 3 of 3 nodes").await;
    for node in &nodes {
        node.set(Mood::Ahead);
    }
    says("ms behind the clocks of 3 of 3 nodes").await;
    let (_, report) = client.get("/cluster").await;
    assert!(report["nodes"][0]["clock_refusals"].as_u64() > Some(0), "{report}");
    let (_, metrics) = client.get("/metrics").await;
    assert!(metrics.as_str().unwrap().contains("kvfront_clock_refusals_total{"));
    for node in &nodes {
        node.set(Mood::Well);
    }
    eventually("ready again", || async {
        (client.get("/ready").await.0 == 200).then_some(())
    })
    .await;
}
