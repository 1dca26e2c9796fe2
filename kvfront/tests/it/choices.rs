//! What a call or a setting may choose: how many answers are enough, and in a batch all that single calls may.

use serde_json::{Value, json};

use crate::support::{Cluster, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn by_default_one_answer_is_enough_when_it_is_set_so_and_never_for_a_swap() {
    let mut cluster = Cluster::with(3, &["--default-consistency", "one"]).await;
    let client = cluster.client.clone();
    client.put("k", json!(1)).await;
    eventually("both homes have it", || async {
        let copies = cluster.copies("k").await;
        (copies.iter().flatten().count() == 2).then_some(())
    })
    .await;
    let list = cluster.list_of("k");
    cluster.stores[list[1]].stop().await;
    cluster.stores[list[2]].stop().await;
    assert_eq!(client.value("k").await, Some(json!(1)));
    let (status, written) = client.put_raw("/kv/k", "{\"value\":2}").await;
    assert_eq!((status, &written["written"]), (200, &json!(1)), "{written}");
    let (_, batch) = client
        .post("/kv/batch", json!({"ops": [{"op": "get", "key": "k"}]}))
        .await;
    assert_eq!(batch["results"][0]["value"], 2, "{batch}");
    for (status, answer) in [
        client.get("/kv/k?consistency=quorum").await,
        client.put_raw("/kv/k?consistency=quorum", "{\"value\":3}").await,
        client.cas(json!({"key": "k", "old": 2, "new": 3})).await,
        client.post("/lock/acquire/k?ttl_sec=5", Value::Null).await,
    ] {
        assert_eq!(status, 503, "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_of_a_batch_may_do_what_single_calls_may() {
    let cluster = Cluster::start().await;
    let client = &cluster.client;
    let run = |ops: Value| async move {
        let (status, answer) = client.post("/kv/batch", json!({ "ops": ops })).await;
        assert_eq!(status, 200, "{answer}");
        answer["results"].clone()
    };
    let first = run(json!([
        {"op": "lock", "key": "l", "ttl_sec": 600, "owner": "me"},
        {"op": "lock", "key": "l", "ttl_sec": 600, "owner": "you"},
        {"op": "unlock", "key": "l"},
        {"op": "put", "key": "f", "value": 1, "fence": 5},
        {"op": "put", "key": "f", "value": 2, "fence": 4},
        {"op": "cas", "key": "f", "old": 1, "new": 3, "fence": 4},
        {"op": "cas", "key": "f", "old": 1, "new": 3, "fence": 6},
        {"op": "put", "key": "t", "value": 1, "ttl_sec": 0.2}]))
    .await;
    let ok: Vec<_> = first
        .as_array()
        .unwrap()
        .iter()
        .map(|answer| answer["ok"] == true)
        .collect();
    assert_eq!(ok, [true, false, false, true, false, false, true, true], "{first}");
    assert!(first[0]["expires_in_sec"].as_f64().unwrap() > 500.0, "{first}");
    assert_eq!(
        (&first[4]["fence_seen"], &first[5]["fence_seen"]),
        (&json!(5), &json!(5))
    );
    eventually("its time comes", || async {
        client.value("t").await.is_none().then_some(())
    })
    .await;
    let second = run(json!([
        {"op": "unlock", "key": "l", "token": "not this"},
        {"op": "unlock", "key": "l", "token": first[0]["token"]},
        {"op": "lock", "key": "l", "ttl_sec": 5},
        {"op": "unlock", "key": "l"},
        {"op": "cas", "key": "f", "version": first[6]["version"], "new": 4},
        {"op": "delete", "key": "f", "version": first[6]["version"]},
        {"op": "get", "key": "f"}]))
    .await;
    let ok: Vec<_> = second
        .as_array()
        .unwrap()
        .iter()
        .map(|answer| answer["ok"] == true)
        .collect();
    assert_eq!(ok, [false, true, true, true, true, false, false], "{second}");
    assert_eq!(second[6]["value"], 4);
    assert!(second[2]["fence"].as_u64() > first[0]["fence"].as_u64());
}
