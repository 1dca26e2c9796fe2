//! Locks: over three real kvstores.

use serde_json::{Value, json};

use crate::support::{Cluster, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_goes_from_hand_to_hand() {
    let cluster = Cluster::start().await;
    let client = &cluster.client;
    let post = |path: &'static str| client.post(path, Value::Null);

    let (_, first) = post("/lock/acquire/job%2F1?owner=a").await;
    assert_eq!(first["ok"], true);
    assert!(
        (first["expires_in_sec"].as_f64().unwrap() - 30.0).abs() < 1.0,
        "{first}"
    );
    let (status, refused) = post("/lock/acquire/job%2F1?owner=b").await;
    assert_eq!(
        (status, &refused["ok"], &refused["token"]),
        (200, &json!(false), &Value::Null)
    );
    assert!(refused["expires_at"].as_f64().unwrap() > 1e9, "{refused}");

    let token = first["token"].as_str().unwrap();
    assert_eq!(post("/lock/release/job%2F1?token=wrong").await.1["ok"], false);
    assert_eq!(post("/lock/acquire/job%2F1").await.1["ok"], false, "still held");
    let (_, renewed) = client
        .post(&format!("/lock/renew/job%2F1?token={token}&ttl_sec=60"), Value::Null)
        .await;
    assert_eq!(renewed["ok"], true);
    assert!(renewed["expires_in_sec"].as_f64().unwrap() > 50.0, "{renewed}");
    assert_eq!(post("/lock/renew/job%2F1?token=wrong").await.1, json!({ "ok": false }));
    assert_eq!(
        client
            .post(&format!("/lock/release/job%2F1?token={token}"), Value::Null)
            .await
            .1["ok"],
        true
    );

    let (_, second) = post("/lock/acquire/job%2F1").await;
    assert_eq!(second["ok"], true);
    assert!(second["fence"].as_u64() > first["fence"].as_u64(), "{first} {second}");
    assert_eq!(
        post("/lock/release/job%2F1").await.1["ok"],
        true,
        "taken without owner, released without token"
    );
    assert_eq!(post("/lock/release/job%2F1").await.1["ok"], true, "nothing held");
    assert_eq!(client.value("job/1").await, None, "locks are no keys");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_ends_by_itself() {
    let cluster = Cluster::start().await;
    let client = &cluster.client;
    let (_, first) = client.post("/lock/acquire/l?ttl_sec=0.4&owner=a", Value::Null).await;
    assert_eq!(first["ok"], true);
    let again = || client.post("/lock/acquire/l?ttl_sec=5&owner=b", Value::Null);
    assert_eq!(again().await.1["ok"], false);
    let second = eventually("free again", || async {
        let (_, answer) = again().await;
        (answer["ok"] == true).then_some(answer)
    })
    .await;
    assert!(second["fence"].as_u64() > first["fence"].as_u64());
    let token = first["token"].as_str().unwrap();
    assert_eq!(
        client
            .post(&format!("/lock/renew/l?token={token}"), Value::Null)
            .await
            .1["ok"],
        false
    );
    assert_eq!(client.post("/lock/acquire/l?ttl_sec=-1", Value::Null).await.0, 422);
    assert_eq!(client.post("/lock/acquire/l?ttl_sec=x", Value::Null).await.0, 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_want_a_lock_one_gets_it() {
    let cluster = Cluster::start().await;
    let wanting = (0..8).map(|_| {
        let client = cluster.client.clone();
        async move { client.post("/lock/acquire/one?owner=x", Value::Null).await }
    });
    let answers = futures_util::future::join_all(wanting).await;
    let got = answers
        .iter()
        .filter(|(status, answer)| *status == 200 && answer["ok"] == true)
        .count();
    assert_eq!(got, 1, "{answers:?}");
}
