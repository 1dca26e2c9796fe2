//! Get, put, delete, CAS: over three real kvstores.

use std::collections::BTreeMap;

use serde_json::json;

use crate::support::{Client, Cluster, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_key_lives_on_exactly_its_two_homes() {
    let cluster = Cluster::start().await;
    for i in 0..20 {
        let key = format!("delivery:{i}");
        let answer = cluster.client.put(&key, json!({ "n": i })).await;
        assert_eq!(answer["rf"], 2);
        assert!(answer["written"].as_u64().unwrap() >= 2, "{answer}");
        assert_eq!(cluster.client.value(&key).await, Some(json!({ "n": i })));
    }
    for i in 0..20 {
        let key = format!("delivery:{i}");
        let homes = cluster.list_of(&key);
        let homes = &homes[..2];
        eventually("two copies", || async {
            let copies = cluster.copies(&key).await;
            let right = copies
                .iter()
                .enumerate()
                .all(|(node, copy)| copy.is_some() == homes.contains(&node));
            right.then_some(())
        })
        .await;
    }
    assert_eq!(
        cluster.client.get("/health").await,
        (200, json!({ "status": "ok", "backends": 3, "rf": 2 }))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_every_kind_work_in_the_path() {
    let client = Cluster::start().await;
    let client = &client.client;
    for key in [
        "a/b",
        "a:b",
        "ü ß/日本?#%&=+",
        "...",
        "cas",
        "batch",
        "%2F",
        "x\u{0}y",
        "a//b/",
        &"k".repeat(1_024),
    ] {
        client.put(key, json!(key)).await;
        assert_eq!(client.value(key).await, Some(json!(key)), "{key:?}");
    }
    let (status, body) = client.get("/kv/a%2Fb").await;
    assert_eq!((status, &body["key"]), (200, &json!("a/b")));
    assert_eq!(
        client.get("/kv/a/b").await.1["key"],
        "a/b",
        "a plain slash is the same key"
    );
    assert_eq!(client.get("/kv/%2Fa").await.0, 404);
    assert_eq!(client.get("/kv/%FF").await.0, 400);
    assert_eq!(client.get("/kv/").await.0, 422);
    let (status, body) = client.get(&format!("/kv/{}", "k".repeat(1_025))).await;
    assert_eq!(status, 422);
    assert!(body["detail"].as_str().unwrap().contains("1025"), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_calls_get_the_documented_status_and_a_reason() {
    let cluster = Cluster::start().await;
    let client = &cluster.client;
    for (body, status, part) in [
        ("{\"value\":", 400, "JSON"),
        ("", 400, "empty"),
        ("{\"value\":NaN}", 400, "JSON"),
        ("{}", 422, "value"),
        ("1", 422, "object"),
        ("[1]", 422, "object"),
        ("{\"value\":1,\"ttl_sec\":0}", 422, "ttl_sec"),
        ("{\"value\":1,\"ttl_sec\":\"x\"}", 422, "ttl_sec"),
        ("{\"value\":1,\"fence\":-1}", 422, "fence"),
    ] {
        let (got, answer) = client.put_raw("/kv/bad", body).await;
        assert_eq!(got, status, "{body}: {answer}");
        assert!(answer["detail"].as_str().unwrap().contains(part), "{body}: {answer}");
    }
    for bytes in [(1 << 20) - 1, 2 << 20] {
        let value = format!("{{\"value\":\"{}\"}}", "x".repeat(bytes));
        let (status, answer) = client.put_raw("/kv/large", value).await;
        assert_eq!(status, 413, "{answer}");
        assert!(answer["detail"].as_str().unwrap().contains("1048576"), "{answer}");
    }
    let largest = format!("{{\"value\":\"{}\"}}", "x".repeat((1 << 20) - 2));
    assert_eq!(client.put_raw("/kv/large", largest).await.0, 200);
    assert_eq!(client.value("bad").await, None);
    assert_eq!(client.get("/kv/bad?consistency=all").await.0, 422);
    assert_eq!(client.cas(json!({ "key": "bad", "old": null })).await.0, 422);
    assert_eq!(
        client.cas(json!({ "key": "bad", "version": "x", "new": 1 })).await.0,
        422
    );
    assert_eq!(client.get("/nothing").await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn values_versions_and_etags() {
    let cluster = Cluster::start().await;
    let client = &cluster.client;
    // A number comes back as it was written.
    let text = r#"{"value":12345678901234567890123.10}"#;
    assert_eq!(client.put_raw("/kv/n", text).await.0, 200);
    let raw = reqwest::get(format!("{}/kv/n", client.base)).await.unwrap();
    let etag = raw.headers()["etag"].to_str().unwrap().trim_matches('"').to_owned();
    let body = raw.text().await.unwrap();
    assert!(body.contains("12345678901234567890123.10"), "{body}");
    assert!(body.contains(&etag), "{body} {etag}");

    let put = client.put("v", json!(null)).await;
    let (_, got) = client.get("/kv/v").await;
    assert_eq!((&got["value"], &got["version"]), (&json!(null), &put["version"]));
    let one = client.get("/kv/v?consistency=one").await;
    assert_eq!(one.1["version"], put["version"]);
    assert_eq!(client.put_raw("/kv/v?consistency=one", "{\"value\":2}").await.0, 200);
    assert_eq!(client.value("v").await, Some(json!(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn cas_by_value_and_by_version() {
    let cluster = Cluster::start().await;
    let client = &cluster.client;
    assert_eq!(
        client.cas(json!({ "key": "c", "old": null, "new": 80 })).await.1["ok"],
        true
    );
    let (status, refused) = client.cas(json!({ "key": "c", "old": 81, "new": 1 })).await;
    assert_eq!(
        (status, &refused["ok"], &refused["current"]),
        (200, &json!(false), &json!(80))
    );
    let (_, swapped) = client
        .cas(json!({ "key": "c", "old": 80.0, "new": { "a": 1, "b": 2 } }))
        .await;
    assert_eq!(swapped["ok"], true, "numbers compare by value");
    let version = swapped["version"].clone();
    assert_eq!(client.get("/kv/c").await.1["version"], version);
    let (_, swapped) = client
        .cas(json!({ "key": "c", "old": { "b": 2, "a": 1 }, "new": 5 }))
        .await;
    assert_eq!(swapped["ok"], true, "objects ignore key order");
    let (_, refused) = client.cas(json!({ "key": "c", "version": version, "new": 6 })).await;
    assert_eq!(
        (&refused["ok"], &refused["current"], &refused["version"]),
        (&json!(false), &json!(5), &swapped["version"])
    );
    assert_eq!(
        client
            .cas(json!({ "key": "c", "version": swapped["version"], "new": 6 }))
            .await
            .1["ok"],
        true
    );
    assert_eq!(
        client.cas(json!({ "key": "c", "version": null, "new": 7 })).await.1["ok"],
        false
    );
    let (_, absent) = client.cas(json!({ "key": "nobody", "old": 1, "new": 2 })).await;
    assert_eq!(absent, json!({ "ok": false, "current": null }));
    assert_eq!(
        client
            .cas(json!({ "key": "nobody", "version": null, "new": 2 }))
            .await
            .1["ok"],
        true
    );
}

/// Many rounds of CAS from one state, one racer per client. Gives the reasons of unknown outcomes.
async fn race(clients: &[Client], rounds: usize) -> Vec<String> {
    let mut unknown = Vec::new();
    for round in 0..rounds {
        let key = format!("race:{}", round % 3);
        let races = clients.iter().enumerate().map(|(racer, client)| {
            let key = &key;
            async move {
                let new = round * clients.len() + racer;
                let (status, body) = client.cas(json!({ "key": key, "old": null, "new": new })).await;
                assert!(status == 200 || body["outcome"] == "unknown", "{status} {body}");
                (
                    (status == 200).then(|| body["ok"] == true),
                    new,
                    body["detail"].to_string(),
                )
            }
        });
        let outcomes = futures_util::future::join_all(races).await;
        let winners: Vec<_> = outcomes.iter().filter(|(won, ..)| *won == Some(true)).collect();
        let unknown_ones: Vec<_> = outcomes.iter().filter(|(won, ..)| won.is_none()).collect();
        unknown.extend(unknown_ones.iter().map(|(_, _, why)| why.clone()));
        let value = clients[round % clients.len()].value(&key).await;
        match winners.as_slice() {
            [(_, new, _)] => assert_eq!(value, Some(json!(new)), "round {round}: {outcomes:?}"),
            // Not known means either way: one of those took effect, or none of all did.
            [] if unknown_ones.len() == clients.len() && value.is_none() => {}
            [] => {
                let explained = unknown_ones.iter().any(|(_, new, _)| value == Some(json!(new)));
                assert!(explained, "round {round}: {outcomes:?} {value:?}");
            }
            more => panic!("round {round}: {} winners: {outcomes:?}", more.len()),
        }
        assert_eq!(clients[0].delete(&format!("/kv/{key}")).await.0, 200);
    }
    unknown
}

#[tokio::test(flavor = "multi_thread")]
async fn of_racing_cas_exactly_one_wins_each_time() {
    let cluster = Cluster::start().await;
    let clients = vec![cluster.client.clone(); 4];
    assert_eq!(
        race(&clients, 150).await,
        Vec::<String>::new(),
        "without a fault, one kvfront knows every outcome"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_cas_racing_through_several_kvfronts_exactly_one_wins_each_time() {
    let cluster = Cluster::start().await;
    let clients = [
        cluster.client.clone(),
        Client::ready(&cluster.addrs(), &[]).await,
        Client::ready(&cluster.addrs(), &[]).await,
    ];
    assert_eq!(
        race(&clients, 100).await,
        Vec::<String>::new(),
        "without a fault, the lineage tells every outcome"
    );
}

/// Counts up from several tasks. Gives (certain, unknown) increments.
async fn count_up(clients: &[Client], writers: usize, each: usize) -> (u64, u64) {
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let client = clients[writer % clients.len()].clone();
            tokio::spawn(async move {
                let (mut certain, mut unknown) = (0, 0);
                for _ in 0..each {
                    loop {
                        let (status, got) = client.get("/kv/counter").await;
                        assert_eq!(status, 200, "{got}");
                        let next = got["value"].as_u64().unwrap() + 1;
                        let (status, answer) = client
                            .cas(json!({ "key": "counter", "version": got["version"], "new": next }))
                            .await;
                        match (status, answer["ok"].as_bool()) {
                            (200, Some(true)) => certain += 1,
                            (200, Some(false)) => continue,
                            _ => {
                                assert_eq!(answer["outcome"], "unknown", "{status} {answer}");
                                unknown += 1;
                            }
                        }
                        break;
                    }
                }
                (certain, unknown)
            })
        })
        .collect();
    let mut sum = (0, 0);
    for task in tasks {
        let (certain, unknown) = task.await.unwrap();
        sum = (sum.0 + certain, sum.1 + unknown);
    }
    sum
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_counters_lose_nothing() {
    let cluster = Cluster::start().await;
    cluster.client.put("counter", json!(0)).await;
    let clients = [cluster.client.clone()];
    assert_eq!(
        count_up(&clients, 6, 15).await,
        (90, 0),
        "without a fault, one kvfront knows every outcome"
    );
    assert_eq!(cluster.client.value("counter").await, Some(json!(90)));
}

#[tokio::test(flavor = "multi_thread")]
async fn puts_of_one_key_side_by_side_are_all_done_and_the_last_one_stays() {
    let cluster = Cluster::start().await;
    let writers = (0..16).map(|writer| {
        let client = cluster.client.clone();
        tokio::spawn(async move {
            let mut written = Vec::new();
            for turn in 0..20 {
                let value = json!([writer, turn]);
                let answer = client.put("hot", value.clone()).await;
                written.push((answer["version"].as_str().unwrap().to_owned(), value));
            }
            assert!(
                written.is_sorted_by_key(|(version, _)| version.clone()),
                "one after the other"
            );
            written
        })
    });
    let mut versions = BTreeMap::new();
    for writer in writers.collect::<Vec<_>>() {
        versions.extend(writer.await.unwrap());
    }
    assert_eq!(versions.len(), 16 * 20, "each has a version of its own");
    let (_, last) = versions.pop_last().unwrap();
    assert_eq!(cluster.client.value("hot").await, Some(last));
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_through_several_kvfronts_lose_nothing() {
    let cluster = Cluster::start().await;
    cluster.client.put("counter", json!(0)).await;
    let clients = [cluster.client.clone(), Client::ready(&cluster.addrs(), &[]).await];
    let (certain, unknown) = count_up(&clients, 4, 10).await;
    let counted = cluster.client.value("counter").await.unwrap().as_u64().unwrap();
    assert_eq!(
        (certain, unknown, counted),
        (40, 0, 40),
        "without a fault, the lineage tells every outcome"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn deletes_and_times_to_live() {
    let cluster = Cluster::start().await;
    let client = &cluster.client;
    let put = client.put("d", json!(1)).await;
    let (_, refused) = client.delete("/kv/d?version=0000000000000001-0000000000000001").await;
    assert_eq!((&refused["ok"], &refused["current"]), (&json!(false), &json!(1)));
    let (_, deleted) = client
        .delete(&format!("/kv/d?version={}", put["version"].as_str().unwrap()))
        .await;
    assert_eq!(deleted, json!({ "ok": true }));
    assert_eq!(client.value("d").await, None);
    assert_eq!(
        client.delete("/kv/d").await,
        (200, json!({ "ok": true })),
        "deleting nothing is fine"
    );

    assert_eq!(client.put_raw("/kv/t", "{\"value\":1,\"ttl_sec\":0.3}").await.0, 200);
    assert_eq!(client.value("t").await, Some(json!(1)));
    eventually("the value ends", || async {
        client.value("t").await.is_none().then_some(())
    })
    .await;
    assert_eq!(
        client.cas(json!({ "key": "t", "version": null, "new": 2 })).await.1["ok"],
        true
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn fences_refuse_what_is_late() {
    let cluster = Cluster::start().await;
    let client = &cluster.client;
    assert_eq!(client.put_raw("/kv/f", "{\"value\":1,\"fence\":5}").await.1["ok"], true);
    let (status, late) = client.put_raw("/kv/f", "{\"value\":2,\"fence\":4}").await;
    assert_eq!(
        (status, &late["ok"], &late["fence_seen"]),
        (200, &json!(false), &json!(5))
    );
    let (_, late) = client.cas(json!({ "key": "f", "old": 1, "new": 2, "fence": 4 })).await;
    assert_eq!((&late["ok"], &late["fence_seen"]), (&json!(false), &json!(5)));
    assert_eq!(
        client
            .cas(json!({ "key": "f", "old": 1, "new": 2, "fence": 6 }))
            .await
            .1["ok"],
        true
    );
    assert_eq!(client.value("f").await, Some(json!(2)));
}
