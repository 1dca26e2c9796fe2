//! Scans and batches.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::support::{Client, Cluster, eventually};

/// All keys of a scan, page by page.
async fn scan_all(client: &Client, query: &str) -> Vec<(String, Value)> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let (status, page) = client.get(&format!("/kv?{query}{after}")).await;
        assert_eq!(status, 200, "{page}");
        for item in page["items"].as_array().unwrap() {
            assert!(item["version"].is_string(), "{item}");
            all.push((item["key"].as_str().unwrap().to_owned(), item["value"].clone()));
        }
        match page["next"].as_str() {
            Some(next) => after = format!("&after={}", kv_api::encode_key(next)),
            None => return all,
        }
    }
}

fn expected(keys: impl Iterator<Item = usize>) -> Vec<(String, Value)> {
    keys.map(|i| (format!("s:{i:03}"), json!(i))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn scans_are_complete_ordered_and_current() {
    let mut cluster = Cluster::start().await;
    let puts: Vec<Value> = (0..60)
        .map(|i| json!({ "op": "put", "key": format!("s:{i:03}"), "value": i }))
        .collect();
    let (status, answer) = cluster.client.post("/kv/batch", json!({ "ops": puts })).await;
    assert_eq!(status, 200, "{answer}");
    for key in ["s", "t", "r:1", "s;"] {
        cluster.client.put(key, json!("outside")).await;
    }
    cluster.client.post("/lock/acquire/s:lock", Value::Null).await;
    for i in (0..60).step_by(3) {
        assert_eq!(cluster.client.delete(&format!("/kv/s:{i:03}")).await.0, 200);
    }
    let left = || (0..60).filter(|i| i % 3 != 0);
    let client = cluster.client.clone();
    for limit in [1, 7, 40, 1_000] {
        let query = format!("prefix=s%3A&limit={limit}");
        assert_eq!(scan_all(&client, &query).await, expected(left()), "limit {limit}");
        let reversed = scan_all(&client, &format!("{query}&reverse=true")).await;
        assert_eq!(reversed, expected(left().rev()), "limit {limit}, reversed");
    }
    assert_eq!(scan_all(&client, "limit=1000").await.len(), 44);
    assert_eq!(
        client.get("/kv?prefix=nobody").await.1,
        json!({ "items": [], "next": null })
    );
    assert_eq!(
        client.get("/kv?prefix=s%3A&after=s%3A050&limit=2").await.1["items"][0]["key"],
        "s:052"
    );
    for bad in ["limit=0", "limit=1001", "limit=x", "reverse=maybe"] {
        assert_eq!(client.get(&format!("/kv?{bad}")).await.0, 422, "{bad}");
    }

    // With one node away all is still there; what is written then is, too.
    cluster.stores[0].stop().await;
    cluster.client.put("s:999", json!(999)).await;
    let all: Vec<_> = left().chain([999]).collect();
    assert_eq!(
        scan_all(&client, "prefix=s%3A&limit=7").await,
        expected(all.iter().copied())
    );
    // With two away it is no scan.
    cluster.stores[1].stop().await;
    let (status, answer) = client.get("/kv?prefix=s%3A").await;
    assert_eq!(
        (status, &answer["answered"], &answer["replicas"]),
        (503, &json!(1), &json!(3)),
        "{answer}"
    );
    cluster.stores[0].start_again().await;
    cluster.stores[1].start_again().await;
    eventually("complete again", || async {
        let (status, _) = client.get("/kv?prefix=s%3A").await;
        (status == 200).then_some(())
    })
    .await;
    assert_eq!(
        scan_all(&client, "prefix=s%3A&limit=7").await,
        expected(all.iter().copied())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_scan_shows_is_not_unread_by_a_later_get() {
    const KEYS: usize = 4;
    let mut cluster = Cluster::start().await;
    let writing = Arc::new(AtomicBool::new(true));
    let writers: Vec<_> = (0..KEYS)
        .map(|key| {
            let (client, writing) = (cluster.client.clone(), Arc::clone(&writing));
            tokio::spawn(async move {
                let mut n = 0;
                while writing.load(Ordering::Relaxed) {
                    n += 1;
                    let body = format!("{{\"value\":{n}}}");
                    let (status, answer) = client.put_raw(&format!("/kv/w:{key}"), body).await;
                    assert!(status == 200 || answer["outcome"] == "unknown", "{status} {answer}");
                }
                n
            })
        })
        .collect();
    let reader = Client::ready(&cluster.addrs(), &[]).await;
    let mut shown = [0; KEYS];
    for round in 0..60 {
        match round {
            20 => cluster.stores[1].stop().await,
            40 => cluster.stores[1].start_again().await,
            _ => {}
        }
        let (status, page) = reader.get("/kv?prefix=w%3A").await;
        assert!(status == 200 || status == 503, "{page}");
        for item in page["items"].as_array().into_iter().flatten() {
            let key: usize = item["key"].as_str().unwrap()[2..].parse().unwrap();
            let value = item["value"].as_u64().unwrap();
            assert!(
                value >= shown[key],
                "key {key}: a scan shows {value} after {}",
                shown[key]
            );
            shown[key] = value;
        }
        for (key, shown) in shown.iter_mut().enumerate() {
            let (status, got) = cluster.client.get(&format!("/kv/w:{key}")).await;
            if status == 200 {
                let value = got["value"].as_u64().unwrap();
                assert!(value >= *shown, "key {key}: a get reads {value} after {shown}");
                *shown = value;
            }
        }
    }
    writing.store(false, Ordering::Relaxed);
    for (key, writer) in writers.into_iter().enumerate() {
        let written: u64 = writer.await.unwrap();
        assert!(shown[key] > 0 && shown[key] <= written);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_answers_each_operation_on_its_own() {
    let cluster = Cluster::start().await;
    let (status, answer) = cluster
        .client
        .post(
            "/kv/batch",
            json!({ "ops": [
                { "op": "put", "key": "a", "value": 1 },
                { "op": "get", "key": "a" },
                { "op": "cas", "key": "a", "old": 1, "new": 2 },
                { "op": "cas", "key": "a", "old": 1, "new": 3 },
                { "op": "delete", "key": "a" },
                { "op": "get", "key": "a" },
                { "op": "lock", "key": "a", "owner": "me" },
                { "op": "unlock", "key": "a" },
                { "op": "put", "key": "", "value": 1 },
                { "op": "put", "key": "ttl", "value": 1, "ttl_sec": -1.0 },
            ] }),
        )
        .await;
    assert_eq!(status, 200, "{answer}");
    let results = answer["results"].as_array().unwrap();
    let statuses: Vec<_> = results.iter().map(|r| r["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 404, 200, 200, 422, 422], "{answer}");
    assert_eq!((&results[1]["value"], &results[2]["ok"]), (&json!(1), &json!(true)));
    assert_eq!((&results[3]["ok"], &results[3]["current"]), (&json!(false), &json!(2)));
    assert_eq!(
        (&results[6]["ok"], &results[7]["ok"]),
        (&json!(true), &json!(false)),
        "an owned lock needs its token"
    );

    let many: Vec<_> = (0..1_025).map(|_| json!({ "op": "get", "key": "a" })).collect();
    let (status, answer) = cluster.client.post("/kv/batch", json!({ "ops": many })).await;
    assert_eq!(status, 413);
    assert!(answer["detail"].as_str().unwrap().contains("1025"));
    let (status, answer) = cluster
        .client
        .post("/kv/batch", json!({ "ops": [{ "op": "jump", "key": "a" }] }))
        .await;
    assert_eq!(status, 422, "{answer}");
    assert!(answer["detail"].as_str().unwrap().contains("jump"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordered_batch_stops_at_the_first_refusal() {
    let cluster = Cluster::start().await;
    let ops = json!([
        { "op": "put", "key": "x", "value": 1 },
        { "op": "cas", "key": "y", "old": 5, "new": 6 },
        { "op": "put", "key": "z", "value": 1 },
    ]);
    let (_, answer) = cluster
        .client
        .post("/kv/batch", json!({ "ops": ops, "ordered": true }))
        .await;
    let statuses: Vec<_> = answer["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["status"].as_u64().unwrap())
        .collect();
    assert_eq!(statuses, [200, 200, 424], "{answer}");
    assert_eq!(answer["results"][1]["ok"], false);
    assert_eq!(
        (cluster.client.value("x").await, cluster.client.value("z").await),
        (Some(json!(1)), None)
    );
    let (_, answer) = cluster.client.post("/kv/batch", json!({ "ops": ops })).await;
    assert_eq!(answer["results"][2]["status"], 200, "unordered, each is on its own");
}
