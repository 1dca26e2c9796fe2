//! Bad input: the documented status or reason, and a message that names the trouble.

use std::time::Duration;

use serde_json::{Value, json};

use crate::process::wait_until;
use crate::system::{Options, System, body, id_of, order, send, turn};

#[tokio::test]
async fn bad_input_is_refused_by_name_and_nothing_is_lost() {
    let _turn = turn().await;
    let system = System::start(Options::default()).await;
    let post = async |text: String| {
        let answer = send(system.http.post(system.url("/deliveries")).body(text)).await;
        (
            answer.status().as_u16(),
            body(answer).await["detail"].as_str().expect("detail").to_owned(),
        )
    };
    let with = |field: &str, value: Value| {
        let mut order = order(1);
        let (place, name) = field
            .split_once('.')
            .map_or((None, field), |(place, name)| (Some(place), name));
        match place {
            Some(place) => order[place][name] = value,
            None => order[name] = value,
        }
        order.to_string()
    };
    let cases = [
        ("{\"origin\":".to_owned(), 400, "JSON"),
        (String::new(), 400, "empty"),
        (with("weight", json!("heavy")), 422, "weight"),
        (with("weight", json!(0)), 422, "weight"),
        (with("weight", json!(-1)), 422, "weight"),
        (with("origin.lat", json!(91)), 422, "origin.lat"),
        (with("destination.lon", json!(-180.5)), 422, "destination.lon"),
        (with("origin", json!([1, 2])), 422, "origin"),
        (json!({ "weight": 1 }).to_string(), 422, "origin"),
        (with("weight", json!(1)).replace(":1", ":NaN"), 400, "JSON"),
        (
            with("weight", json!(1)).replace("\"weight\":1", "\"weight\":1e999"),
            422,
            "weight",
        ),
    ];
    for (text, status, names) in cases {
        let (got, detail) = post(text.clone()).await;
        assert_eq!(got, status, "{text}: {detail}");
        assert!(detail.contains(names), "{text}: {detail:?} should name {names:?}");
    }
    let (status, detail) = post(format!("{{\"x\":\"{}\"}}", "x".repeat(3 << 20))).await;
    assert_eq!(status, 413, "{detail}");
    let missing = send(system.http.get(system.url("/deliveries/nothing-of-that-name"))).await;
    assert_eq!(missing.status(), 404, "{}", body(missing).await);

    // Accepted, as before, and ended with a reason instead of waiting for ever.
    let paris = json!({ "lat": 48.8566, "lon": 2.3522 });
    let far = json!({ "origin": { "lat": 41.801, "lon": 12.371 }, "destination": { "lat": 41.979, "lon": 12.599 }, "weight": 1 });
    for (order, reason) in [(
        json!({ "origin": paris, "destination": paris, "weight": 1 }),
        "out_of_area",
    )] {
        let answer = system.order(&order, None).await;
        assert_eq!(answer.status(), 201);
        let id = id_of(answer).await;
        wait_until(Duration::from_secs(10), "it has failed", async || {
            system.delivery(&id).await["status"] == "failed"
        })
        .await;
        assert_eq!(system.delivery(&id).await["reason"], reason);
    }
    let id = id_of(system.order(&far, None).await).await;
    system.all_delivered(&[id], Duration::from_secs(120)).await;
}

#[tokio::test]
async fn an_order_farther_than_any_drone_can_fly_fails_with_its_reason() {
    let _turn = turn().await;
    // At eight percent a kilometre nobody crosses the town.
    let system = System::start(Options {
        settings: vec![("BATTERY_PER_KM", "8")],
        ..Options::default()
    })
    .await;
    let far = json!({ "origin": { "lat": 41.801, "lon": 12.371 }, "destination": { "lat": 41.979, "lon": 12.599 }, "weight": 1 });
    let id = id_of(system.order(&far, None).await).await;
    wait_until(Duration::from_secs(10), "it has failed", async || {
        system.delivery(&id).await["status"] == "failed"
    })
    .await;
    assert_eq!(system.delivery(&id).await["reason"], "out_of_range");
}

#[tokio::test]
async fn the_kv_refuses_by_name() {
    let _turn = turn().await;
    let kv = crate::system::KvCluster::start().await;
    let refuse = async |request: reqwest::RequestBuilder, status: u16, names: &str| {
        let answer = send(request).await;
        let got = answer.status().as_u16();
        let detail = body(answer).await["detail"].as_str().expect("detail").to_owned();
        assert_eq!(got, status, "{detail}");
        assert!(detail.contains(names), "{detail:?} should name {names:?}");
    };
    let put = |text: String| kv.http.put(kv.url("/kv/k")).body(text);
    refuse(put("{\"value\":".to_owned()), 400, "JSON").await;
    refuse(put("{}".to_owned()), 422, "value").await;
    refuse(put(format!("{{\"value\":\"{}\"}}", "x".repeat(2 << 20))), 413, "").await;
    refuse(put("{\"value\":1,\"ttl_sec\":-1}".to_owned()), 422, "ttl_sec").await;
    refuse(kv.http.get(kv.url("/kv/nobody")), 404, "Key not found").await;
    refuse(kv.http.get(kv.url(&format!("/kv/{}", "k".repeat(1_025)))), 422, "key").await;
    refuse(kv.http.post(kv.url("/kv/cas")).json(&json!({ "key": "k" })), 422, "new").await;
    refuse(kv.http.get(kv.url("/nowhere")), 404, "").await;
    let odd = "a/b:c%d ü";
    let path = kv.url("/kv/a%2Fb%3Ac%25d%20%C3%BC");
    assert_eq!(
        send(kv.http.put(&path).json(&json!({ "value": 1 }))).await.status(),
        200
    );
    assert_eq!(body(send(kv.http.get(&path)).await).await["key"], odd);
}
