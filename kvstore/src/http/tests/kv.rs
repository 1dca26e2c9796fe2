//! The KV API on the node's own data.

use super::*;

#[tokio::test]
async fn put_get_delete() {
    let bench = Bench::new().await;
    assert_eq!(bench.get("/health").await, (StatusCode::OK, json!({"status": "ok"})));
    assert_eq!(
        bench.get("/kv/a").await,
        (StatusCode::NOT_FOUND, json!({"detail": "Key not found"}))
    );
    let (status, body) = bench.put("/kv/a%3A1%2F2", r#"{"value":{"x":[1,2.50]}}"#).await;
    assert_eq!(
        (status, &body["ok"], &body["written"], &body["rf"]),
        (StatusCode::OK, &json!(true), &json!(1), &json!(1))
    );
    let (status, body) = bench.get("/kv/a:1%2F2").await;
    assert_eq!((status, &body["key"]), (StatusCode::OK, &json!("a:1/2")));
    assert_eq!(body["value"]["data"], json!({"x": [1, 2.5]}));
    let ts = body["value"]["_ts"].as_f64().unwrap();
    assert!((ts - 1_800_000_000.0).abs() < 0.01, "{ts}");
    assert_eq!(
        bench.get("/kv/a:1/2").await.0,
        StatusCode::OK,
        "a plain slash belongs to the key"
    );
    assert_eq!(bench.delete("/kv/a:1%2F2").await, (StatusCode::OK, json!({"ok": true})));
    assert_eq!(bench.get("/kv/a:1%2F2").await.0, StatusCode::NOT_FOUND);
    // Keys may be called like calls.
    for name in ["cas", "batch"] {
        assert_eq!(
            bench.put(&format!("/kv/{name}"), r#"{"value":1}"#).await.0,
            StatusCode::OK
        );
        assert_eq!(bench.data(&format!("/kv/{name}")).await, json!(1));
    }
}

#[tokio::test]
async fn numbers_come_back_as_written() {
    let bench = Bench::new().await;
    bench.put("/kv/a", r#"{"value":12345678901234567890123.10}"#).await;
    let text = bench
        .client
        .get(bench.url("/kv/a"))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(text.contains("\"data\":12345678901234567890123.10}"), "{text}");
}

#[tokio::test]
async fn values_end_with_their_time_to_live() {
    let bench = Bench::new().await;
    bench.put("/kv/a", r#"{"value":1,"ttl_sec":2}"#).await;
    bench.advance_ms(1_999);
    assert_eq!(bench.data("/kv/a").await, json!(1));
    bench.advance_ms(2);
    assert_eq!(bench.get("/kv/a").await.0, StatusCode::NOT_FOUND);
    assert_eq!(bench.get("/kv").await.1["items"], json!([]));
    let (_, swapped) = bench.post("/kv/cas", r#"{"key":"a","old":null,"new":2}"#).await;
    assert_eq!(swapped["ok"], json!(true));
}

#[tokio::test]
async fn an_envelope_never_replaces_a_newer_one() {
    let bench = Bench::new().await;
    let put = |ts: f64, data: &str| {
        let body = format!(r#"{{"value":{{"_ts":{ts},"data":{data}}}}}"#);
        let bench = &bench;
        async move { bench.put("/kv/a", &body).await }
    };
    let start_sec = 1_800_000_000.0;
    let (status, body) = put(start_sec - 10.0, "1").await;
    assert_eq!((status, &body["written"]), (StatusCode::OK, &json!(1)));
    assert_eq!(
        bench.get("/kv/a").await.1["value"],
        json!({"_ts": start_sec - 10.0, "data": 1})
    );
    let (status, body) = put(start_sec - 11.0, "0").await;
    assert_eq!(
        (status, &body["ok"], &body["written"]),
        (StatusCode::OK, &json!(true), &json!(0))
    );
    assert_eq!(bench.data("/kv/a").await, json!(1));
    assert_eq!(
        put(start_sec - 10.0, "1").await.1["written"],
        json!(1),
        "the same again is the same"
    );
    assert_eq!(put(start_sec - 9.0, "{\"b\":2}").await.1["written"], json!(1));
    assert_eq!(bench.data("/kv/a").await, json!({"b": 2}));

    // A delete is newer than anything before it.
    bench.delete("/kv/a").await;
    assert_eq!(put(start_sec - 1.0, "3").await.1["written"], json!(0));
    assert_eq!(bench.get("/kv/a").await.0, StatusCode::NOT_FOUND);

    // Skew, promise, fence.
    let (status, body) = put(start_sec + 2.0, "4").await;
    assert_eq!(status, StatusCode::CONFLICT, "{body}");
    assert!(body["detail"].as_str().unwrap().contains("clock skew"), "{body}");
    bench
        .exchange(&envelope(vec![(
            Key::data("a"),
            Request::Prepare { ballot: ballot(400) },
        )]))
        .await;
    assert_eq!(put(start_sec + 0.3, "5").await.0, StatusCode::CONFLICT);
    assert_eq!(put(start_sec + 0.45, "6").await.1["written"], json!(1));
    for bad in ["-1", "0", "\"now\""] {
        let body = format!(r#"{{"value":{{"_ts":{bad},"data":1}}}}"#);
        let (status, _) = bench.put("/kv/b", &body).await;
        let stored_as_it_is = bad.starts_with('"');
        assert_eq!(
            status,
            if stored_as_it_is {
                StatusCode::OK
            } else {
                StatusCode::UNPROCESSABLE_ENTITY
            },
            "{bad}"
        );
    }
}

#[tokio::test]
async fn one_timestamp_with_two_values_ends_the_same_in_any_order() {
    let put = |data: &'static str| format!(r#"{{"value":{{"_ts":1799999990,"data":{data}}}}}"#);
    let mut ends = Vec::new();
    for order in [["1", "2"], ["2", "1"]] {
        let bench = Bench::new().await;
        for data in order {
            assert_eq!(bench.put("/kv/a", &put(data)).await.0, StatusCode::OK);
        }
        ends.push(bench.data("/kv/a").await);
    }
    assert_eq!(ends[0], ends[1]);
}

#[tokio::test]
async fn cas_swaps_once() {
    let bench = Bench::new().await;
    let (_, first) = bench.post("/kv/cas", r#"{"key":"a","old":null,"new":80}"#).await;
    assert_eq!(first["ok"], json!(true));
    let (_, refused) = bench.post("/kv/cas", r#"{"key":"a","old":null,"new":1}"#).await;
    assert_eq!((&refused["ok"], &refused["current"]), (&json!(false), &json!(80)));
    assert_eq!(refused["version"], first["version"]);
    let (_, by_value) = bench.post("/kv/cas", r#"{"key":"a","old":80.0,"new":{"n":1}}"#).await;
    assert_eq!(by_value["ok"], json!(true), "numbers compare by value");
    let body = json!({"key": "a", "version": by_value["version"], "new": 3}).to_string();
    assert_eq!(bench.post("/kv/cas", &body).await.1["ok"], json!(true));
    assert_eq!(bench.post("/kv/cas", &body).await.1["ok"], json!(false));
    let (_, fence) = bench.put("/kv/a", r#"{"value":4,"fence":7}"#).await;
    assert_eq!(fence["ok"], json!(true));
    let (status, low) = bench.put("/kv/a", r#"{"value":5,"fence":6}"#).await;
    assert_eq!(
        (status, &low["ok"], &low["fence_seen"]),
        (StatusCode::OK, &json!(false), &json!(7))
    );
}

#[tokio::test]
async fn racing_cas_has_one_winner() {
    let bench = Bench::new().await;
    let tries = (0..32).map(|number| {
        let body = format!(r#"{{"key":"a","old":null,"new":{number}}}"#);
        let request = bench.client.post(bench.url("/kv/cas")).body(body);
        tokio::spawn(async move { request.send().await.unwrap().json::<Value>().await.unwrap()["ok"] == true })
    });
    let mut winners = 0;
    for outcome in tries.collect::<Vec<_>>() {
        winners += u32::from(outcome.await.unwrap());
    }
    assert_eq!(winners, 1);
}

#[tokio::test]
async fn locks() {
    let bench = Bench::new().await;
    let (_, first) = bench.post("/lock/acquire/order%2F1?ttl_sec=2&owner=me", "").await;
    assert_eq!(first["ok"], json!(true));
    let token = first["token"].as_str().unwrap().to_owned();
    let (status, second) = bench.post("/lock/acquire/order%2F1", "").await;
    assert_eq!((status, &second["ok"]), (StatusCode::OK, &json!(false)));
    assert_eq!(second["expires_at"], json!(1_800_000_002.0));
    assert_eq!(
        bench.post("/lock/release/order%2F1", "").await.1,
        json!({"ok": false}),
        "it has an owner"
    );
    assert_eq!(
        bench.post("/lock/release/order%2F1?token=other", "").await.1,
        json!({"ok": false})
    );
    let (_, renewed) = bench
        .post(&format!("/lock/renew/order%2F1?token={token}&ttl_sec=4"), "")
        .await;
    assert_eq!(
        (&renewed["ok"], &renewed["expires_at"]),
        (&json!(true), &json!(1_800_000_004.0))
    );
    bench.advance_ms(4_001);
    let (_, third) = bench.post("/lock/acquire/order%2F1", "").await;
    assert_eq!(third["ok"], json!(true), "freed by time");
    assert!(third["fence"].as_u64() > first["fence"].as_u64());
    assert_eq!(
        bench.post(&format!("/lock/renew/order%2F1?token={token}"), "").await.1["ok"],
        json!(false)
    );
    assert_eq!(bench.post("/lock/release/order%2F1", "").await.1, json!({"ok": true}));
    assert_eq!(
        bench.post("/lock/release/order%2F1", "").await.1,
        json!({"ok": true}),
        "also when nothing is held"
    );
    assert_eq!(
        bench.get("/kv/order%2F1").await.0,
        StatusCode::NOT_FOUND,
        "locks are not reachable through /kv"
    );
    assert_eq!(bench.get("/kv").await.1["items"], json!([]));
    for bad in ["0", "-1", "NaN", "1e12", "soon"] {
        let (status, _) = bench.post(&format!("/lock/acquire/a?ttl_sec={bad}"), "").await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{bad}");
    }
}

#[tokio::test]
async fn scans_walk_live_keys() {
    let bench = Bench::new().await;
    for number in 0..7 {
        bench
            .put(&format!("/kv/n:{number}"), &format!(r#"{{"value":{number}}}"#))
            .await;
    }
    bench.put("/kv/other", r#"{"value":0}"#).await;
    for gone in [0, 3, 6] {
        bench.delete(&format!("/kv/n:{gone}")).await;
    }
    for (reverse, expected) in [
        ("", vec!["n:1", "n:2", "n:4", "n:5"]),
        ("&reverse=true", vec!["n:5", "n:4", "n:2", "n:1"]),
    ] {
        let (mut seen, mut after) = (Vec::new(), String::new());
        loop {
            let (status, page) = bench.get(&format!("/kv?prefix=n:&limit=2{reverse}{after}")).await;
            assert_eq!(status, StatusCode::OK);
            let items = page["items"].as_array().unwrap();
            assert!(items.len() <= 2);
            seen.extend(items.iter().map(|item| item["key"].as_str().unwrap().to_owned()));
            let Some(next) = page["next"].as_str() else { break };
            after = format!("&after={next}");
        }
        assert_eq!(seen, expected);
    }
    assert_eq!(bench.get("/kv?limit=0").await.0, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(bench.get("/kv?limit=many").await.0, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn batches() {
    let bench = Bench::new().await;
    let ops = json!([
        {"op": "put", "key": "a", "value": 1},
        {"op": "get", "key": "a"},
        {"op": "cas", "key": "a", "old": 2, "new": 3},
        {"op": "cas", "key": "a", "old": 1, "new": 3},
        {"op": "delete", "key": "b"},
        {"op": "lock", "key": "a", "ttl_sec": 1},
        {"op": "unlock", "key": "a"},
        {"op": "get", "key": "missing"},
        {"op": "put", "key": "", "value": 1},
    ]);
    let (status, body) = bench.post("/kv/batch", &json!({ "ops": ops }).to_string()).await;
    assert_eq!(status, StatusCode::OK);
    let results = body["results"].as_array().unwrap();
    let statuses: Vec<_> = results
        .iter()
        .map(|result| result["status"].as_u64().unwrap())
        .collect();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 200, 200, 404, 422]);
    assert_eq!(results[1]["value"]["data"], json!(1));
    assert_eq!((&results[2]["ok"], &results[3]["ok"]), (&json!(false), &json!(true)));
    assert_eq!(bench.data("/kv/a").await, json!(3));

    let ordered = json!({ "ordered": true, "ops": [
        {"op": "put", "key": "x", "value": 1},
        {"op": "cas", "key": "x", "old": 2, "new": 3},
        {"op": "put", "key": "y", "value": 1},
    ]});
    let (_, body) = bench.post("/kv/batch", &ordered.to_string()).await;
    let statuses: Vec<_> = body["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| result["status"].clone())
        .collect();
    assert_eq!(statuses, [json!(200), json!(200), json!(424)]);
    assert_eq!(bench.get("/kv/y").await.0, StatusCode::NOT_FOUND);
    let unknown = bench.post("/kv/batch", r#"{"ops":[{"op":"steal","key":"a"}]}"#).await;
    assert_eq!(unknown.0, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn what_cannot_be_used_is_named() {
    let bench = Bench::new().await;
    let large = format!(r#"{{"value":"{}"}}"#, "x".repeat(1_000));
    let huge = format!(r#"{{"value":"{}"}}"#, "x".repeat(70_000));
    let long_key = format!("/kv/{}", "k".repeat(1_025));
    let cases = [
        ("/kv/a", "", 400, "empty"),
        ("/kv/a", r#"{"value":"#, 400, "not valid JSON"),
        ("/kv/a", r#"{"value":NaN}"#, 400, "not valid JSON"),
        ("/kv/a", r#"{"values":1}"#, 422, "value"),
        ("/kv/a", r#"{"value":1,"ttl_sec":-1}"#, 422, "ttl_sec"),
        ("/kv/a", r#"{"value":1,"ttl_sec":"long"}"#, 422, "ttl_sec"),
        ("/kv/a", r#"{"value":1,"fence":-1}"#, 422, "fence"),
        ("/kv/a", large.as_str(), 413, "at most 1000"),
        ("/kv/a", huge.as_str(), 413, "larger"),
        ("/kv/%ff", r#"{"value":1}"#, 400, "UTF-8"),
        (long_key.as_str(), r#"{"value":1}"#, 422, "1025 bytes"),
    ];
    for (path, body, status, part) in cases {
        let (found, answer) = bench.put(path, body).await;
        assert_eq!(
            found.as_u16(),
            status,
            "{path} {}: {answer}",
            &body[..body.len().min(40)]
        );
        assert!(
            answer["detail"].as_str().unwrap().contains(part),
            "{answer} should contain {part:?}"
        );
    }
    assert_eq!(
        bench
            .post("/kv/cas", r#"{"key":"a","old":1,"version":null,"new":1}"#)
            .await
            .0,
        422
    );
    // Not in a path: the client's URL parser would take it for a directory, which is why it is no key.
    let (status, answer) = bench.post("/kv/cas", r#"{"key":"..","old":null,"new":1}"#).await;
    assert_eq!(status, 422, "{answer}");
    assert_eq!(
        bench.post("/kv/cas", r#"{"key":"a","version":"v1","new":1}"#).await.0,
        422
    );
    assert_eq!(
        bench.post("/kv/a", r#"{"value":1}"#).await.0,
        StatusCode::METHOD_NOT_ALLOWED
    );
    assert_eq!(bench.get("/nothing").await.0, StatusCode::NOT_FOUND);
}
