//! Changes that their clients have named: sent again, they take effect once.

use kv_api::RequestName;
use serde_json::{Value, json};

use crate::stand_in::{Mood, StandIn};
use crate::support::{Answer, Client, Cluster, eventually};

fn now_ms() -> u64 {
    (service::clock::system_clock())()
}

fn name() -> RequestName {
    RequestName::new(now_ms(), rand::random())
}

/// Sends one attempt.
async fn attempt(client: &Client, call: (&str, &str), body: &Value, name: &str, attempt: Option<u32>) -> Answer {
    let (method, path) = call;
    let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
    let mut request = reqwest::Client::new()
        .request(method, format!("{}{path}", client.base))
        .header(kv_api::REQUEST_ID_HEADER, name);
    if let Some(number) = attempt {
        request = request.header(kv_api::REQUEST_ATTEMPT_HEADER, number.to_string());
    }
    if !body.is_null() {
        request = request.body(body.to_string());
    }
    client.send(request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repetition_gets_the_first_answer_and_changes_nothing() {
    let cluster = Cluster::start().await;
    let client = &cluster.client;
    // Another kvfront knows nothing of what the first has done.
    let other = Client::ready(&cluster.addrs(), &[]).await;
    let swap = name().to_string();
    let body = json!({"key": "c", "old": null, "new": 1});
    let (status, first) = attempt(client, ("POST", "/kv/cas"), &body, &swap, Some(1)).await;
    assert_eq!((status, &first["ok"]), (200, &json!(true)), "{first}");
    for (client, number) in [(client, Some(2)), (&other, Some(3)), (&other, None), (&other, Some(1))] {
        let (status, again) = attempt(client, ("POST", "/kv/cas"), &body, &swap, number).await;
        assert_eq!((status, &again), (200, &first), "attempt {number:?}");
    }
    // Also when others have changed the key since.
    let put = name().to_string();
    let (_, written) = attempt(client, ("PUT", "/kv/c"), &json!({"value": 2}), &put, Some(1)).await;
    client.cas(json!({"key": "c", "old": 2, "new": 3})).await;
    let (status, again) = attempt(&other, ("PUT", "/kv/c"), &json!({"value": 2}), &put, Some(2)).await;
    assert_eq!((status, &again["version"]), (200, &written["version"]), "{again}");
    assert_eq!(client.value("c").await, Some(json!(3)));
    let delete = name().to_string();
    attempt(client, ("DELETE", "/kv/c"), &Value::Null, &delete, Some(1)).await;
    client.put("c", json!(4)).await;
    let (status, again) = attempt(client, ("DELETE", "/kv/c"), &Value::Null, &delete, Some(2)).await;
    // The put in between was blind: whether it replaced what the deletion had left cannot be told.
    assert!(status == 200 || again["outcome"] == "unknown", "{again}");
    assert_eq!(client.value("c").await, Some(json!(4)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_is_asked_for_twice_is_held_once_and_by_who_asked() {
    let cluster = Cluster::start().await;
    let client = &cluster.client;
    let asked = name().to_string();
    let call = ("POST", "/lock/acquire/l?ttl_sec=30&owner=me");
    let (_, first) = attempt(client, call, &Value::Null, &asked, Some(1)).await;
    assert_eq!(first["ok"], true);
    let (_, again) = attempt(client, call, &Value::Null, &asked, Some(2)).await;
    assert_eq!(
        (&again["token"], &again["fence"]),
        (&first["token"], &first["fence"]),
        "{again}"
    );
    let (_, somebody) = attempt(client, call, &Value::Null, &name().to_string(), Some(1)).await;
    assert_eq!(somebody["ok"], false);
    let release = name().to_string();
    let path = format!("/lock/release/l?token={}", first["token"].as_str().unwrap());
    for number in [1, 2] {
        let (_, answer) = attempt(client, ("POST", &path), &Value::Null, &release, Some(number)).await;
        assert_eq!(answer["ok"], true, "attempt {number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_of_a_batch_are_named_one_by_one() {
    let cluster = Cluster::start().await;
    let client = &cluster.client;
    let (one, two, lock) = (name().to_string(), name().to_string(), name().to_string());
    let body = json!({"ops": [
        {"op": "cas", "key": "a", "old": null, "new": 1, "request_id": one},
        {"op": "cas", "key": "a", "old": 1, "new": 2, "request_id": two},
        {"op": "lock", "key": "l", "ttl_sec": 5, "owner": "me", "request_id": lock},
        {"op": "get", "key": "a"}]});
    let (status, first) = client.post("/kv/batch", body.clone()).await;
    assert_eq!(status, 200);
    let (_, again) = client.post("/kv/batch", body).await;
    for (at, first) in first["results"].as_array().unwrap().iter().enumerate().take(2) {
        assert_eq!((&first["ok"], first), (&json!(true), &again["results"][at]));
    }
    assert_eq!(first["results"][2]["token"], again["results"][2]["token"]);
    assert_eq!(again["results"][3]["value"], 2);
    let (status, answer) = attempt(client, ("POST", "/kv/batch"), &json!({"ops": []}), &one, None).await;
    assert_eq!((status, &answer["field"]), (422, &json!("Request-Id")), "{answer}");
    let body = json!({"ops": [{"op": "put", "key": "b", "value": 1}, {"op": "put", "key": "c", "value": 1, "request_id": "x"}]});
    let (status, answer) = client.post("/kv/batch", body).await;
    assert_eq!((status, &answer["field"]), (422, &json!("request_id")), "{answer}");
    assert_eq!(client.value("b").await, None, "nothing of it was done");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_cannot_be_used_are_refused() {
    let cluster = Cluster::start().await;
    let client = &cluster.client;
    let put = |name: String, number: Option<u32>| async move {
        attempt(client, ("PUT", "/kv/n"), &json!({"value": 1}), &name, number).await
    };
    for bad in ["order-1", "017f22e2-79b0-4cc3-98c4-dc0c0c07398f"] {
        let (status, answer) = put(bad.to_owned(), None).await;
        assert_eq!((status, &answer["field"]), (422, &json!("Request-Id")), "{answer}");
    }
    let ahead = RequestName::new(now_ms() + 5_000, 1);
    let (status, answer) = put(ahead.to_string(), None).await;
    assert_eq!(status, 422);
    assert!(
        answer["detail"].as_str().unwrap().contains("MAX_CLOCK_SKEW_MS"),
        "{answer}"
    );
    let (status, answer) = put(name().to_string(), Some(0)).await;
    assert_eq!((status, &answer["field"]), (422, &json!("Request-Attempt")), "{answer}");
    assert_eq!(client.value("n").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_told_any_more_is_unknown() {
    let cluster = Cluster::start().await;
    let client = &cluster.client;
    // First sent an hour ago, as it says; since then the key was written blindly.
    let old = RequestName::new(now_ms() - 3_600_000, rand::random()).to_string();
    client.put("k", json!(1)).await;
    let (status, answer) = attempt(client, ("PUT", "/kv/k"), &json!({"value": 2}), &old, Some(2)).await;
    assert_eq!((status, &answer["outcome"]), (503, &json!("unknown")), "{answer}");
    assert_eq!(client.value("k").await, Some(json!(1)));
    let (status, _) = attempt(client, ("PUT", "/kv/k"), &json!({"value": 2}), &old, Some(1)).await;
    assert_eq!(status, 200, "known to be the first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_whose_answers_were_lost_is_told_by_its_repetition() {
    let (nodes, addrs) = StandIn::three().await;
    let client = Client::ready(&addrs, &[]).await;
    client.put("k", json!(0)).await;
    let increment = name().to_string();
    let body = json!({"key": "k", "old": 0, "new": 1});
    // Done by the nodes, or by some, and not answered.
    for node in &nodes {
        node.set(Mood::Mute);
    }
    let (status, lost) = attempt(&client, ("POST", "/kv/cas"), &body, &increment, Some(1)).await;
    assert_eq!(status, 503, "{lost}");
    for node in &nodes {
        node.set(Mood::Well);
    }
    let answer = eventually("an answer", || async {
        let (status, answer) = attempt(&client, ("POST", "/kv/cas"), &body, &increment, Some(2)).await;
        (status == 200).then_some(answer)
    })
    .await;
    assert_eq!(answer["ok"], true, "{answer}");
    let (_, other) = client.cas(json!({"key": "k", "old": 1, "new": 2})).await;
    assert_eq!(other["ok"], true, "it was made once: {other}");
}
