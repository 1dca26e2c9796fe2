//! What coordinators and operators see.

use super::*;

#[tokio::test]
async fn coordinators_exchange_and_page() {
    let bench = Bench::new().await;
    let (a, b) = (Key::data("a"), Key::lock("b"));
    let requests = vec![
        (a.clone(), accept(ballot(1), "1")),
        (b.clone(), Request::Read),
        (b.clone(), Request::Prepare { ballot: ballot(2) }),
        (a.clone(), accept(ballot(0), "0")),
    ];
    let reply = bench.exchange(&envelope(requests)).await;
    assert_eq!(reply.replies.len(), 4);
    assert_eq!(reply.replies[0], Reply::Accepted { reserved: false });
    assert!(matches!(&reply.replies[1], Reply::Holds(_)));
    assert!(matches!(&reply.replies[2], Reply::Promised(held) if held.promised == ballot(2)));
    assert_eq!(reply.replies[3], Reply::Refused { higher: ballot(1) });
    assert_eq!(
        (reply.commit, reply.floor, reply.incarnation),
        (2, Ballot::ZERO, bench.node.store().progress().incarnation)
    );
    assert!(reply.clock >= ballot(2).time, "ballots are merged into the clock");
    assert_eq!(bench.data("/kv/a").await, json!(1));

    let list = List::Keys {
        prefix: String::new(),
        after: None,
        reverse: false,
    };
    let request = PageRequest {
        clock: HlcTime::ZERO,
        sender: SENDER,
        epoch: EPOCH,
        list,
        limit: u32::MAX,
    };
    let (status, body) = bench
        .raw("/internal/page", postcard::to_stdvec(&request).unwrap())
        .await;
    assert_eq!(status, 200);
    let page: PageReply = postcard::from_bytes(&body).unwrap();
    let keys: Vec<_> = page.records.iter().map(|record| record.key.clone()).collect();
    assert_eq!((keys, page.end), (vec![a, b], true));
}

#[tokio::test]
async fn skewed_and_unreadable_messages_are_refused_whole() {
    let bench = Bench::new().await;
    let key = Key::data("a");
    let refuse = |envelope: Envelope| {
        let bench = &bench;
        async move {
            let (status, body) = bench
                .raw("/internal/exchange", postcard::to_stdvec(&envelope).unwrap())
                .await;
            (status.as_u16(), String::from_utf8_lossy(&body).into_owned())
        }
    };
    let ahead = Envelope {
        clock: HlcTime::from_unix_ms(START_MS + 501),
        sender: SENDER,
        epoch: EPOCH,
        requests: vec![(key.clone(), Request::Read)],
    };
    let (status, body) = refuse(ahead).await;
    assert!(
        status == 409 && body.contains("clock skew") && body.contains("501 ms"),
        "{status} {body}"
    );
    let hidden = envelope(vec![
        (key.clone(), accept(ballot(1), "1")),
        (key.clone(), accept(ballot(60_000), "2")),
    ]);
    assert_eq!(refuse(hidden).await.0, 409, "a ballot ahead is as bad as a clock ahead");
    assert_eq!(
        bench.get("/kv/a").await.0,
        StatusCode::NOT_FOUND,
        "nothing of a refused message is done"
    );
    let reply = bench.exchange(&envelope(vec![])).await;
    assert!(
        reply.clock < HlcTime::from_unix_ms(START_MS + 500),
        "the skewed clock was not merged"
    );

    let many = envelope(vec![
        (key.clone(), Request::Read);
        super::super::MAX_ENVELOPE_REQUESTS + 1
    ]);
    assert_eq!(refuse(many).await.0, 413);
    let unnamed: Key = postcard::from_bytes(&postcard::to_stdvec("xkey").unwrap()).unwrap();
    assert_eq!(refuse(envelope(vec![(unnamed, Request::Read)])).await.0, 400);
    assert_eq!(
        bench.raw("/internal/exchange", vec![0xff; 30]).await.0,
        StatusCode::BAD_REQUEST
    );
    let mut long = postcard::to_stdvec(&envelope(vec![])).unwrap();
    long.push(0);
    assert_eq!(bench.raw("/internal/exchange", long).await.0, StatusCode::BAD_REQUEST);
    let oversized = vec![0; super::super::MAX_ENVELOPE_BYTES + 1];
    assert_eq!(
        bench.raw("/internal/exchange", oversized).await.0,
        StatusCode::PAYLOAD_TOO_LARGE
    );
}

#[tokio::test]
async fn readiness_tells_of_a_failing_disk_and_of_its_recovery() {
    let bench = Bench::new().await;
    let ready = |expected: StatusCode| {
        let bench = &bench;
        async move {
            let deadline = Instant::now() + PATIENCE;
            loop {
                let (status, body) = bench.get("/ready").await;
                if status == expected {
                    return body;
                }
                assert!(Instant::now() < deadline, "never {expected}: {body}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    };
    ready(StatusCode::OK).await;
    bench.put("/kv/a", r#"{"value":1}"#).await;
    bench.node.store().sql("PRAGMA query_only = ON").await;
    let (status, body) = bench.put("/kv/a", r#"{"value":2}"#).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(body.get("outcome"), None, "it certainly did not happen: {body}");
    let reply = bench
        .exchange(&envelope(vec![(
            Key::data("a"),
            Request::Prepare { ballot: ballot(1) },
        )]))
        .await;
    assert!(matches!(&reply.replies[0], Reply::Failed { .. }));
    let body = ready(StatusCode::SERVICE_UNAVAILABLE).await;
    assert!(
        body["checks"]["storage"]["error"].as_str().unwrap().contains("cannot"),
        "{body}"
    );
    assert_eq!(bench.data("/kv/a").await, json!(1), "reads go on");
    bench.node.store().sql("PRAGMA query_only = OFF").await;
    ready(StatusCode::OK).await;
    assert_eq!(bench.put("/kv/a", r#"{"value":2}"#).await.0, StatusCode::OK);
}

#[tokio::test]
async fn metrics_tell_what_happens() {
    let bench = Bench::unadmitted().await;
    bench.put("/kv/a", r#"{"value":1}"#).await;
    bench.get("/kv/a").await;
    bench.get("/kv/b").await;
    let text = bench.metrics().await;
    for line in [
        "kvstore_commits_total 1",
        "kvstore_changes_total 1",
        "kvstore_commit_batch_requests_count 1",
        "kvstore_commit_seconds_count 1",
        "kvstore_cache_hits_total 1",
        "kvstore_cache_misses_total 1",
        "kvstore_cache_items 1",
        "kvstore_records 1",
        "kvstore_hints 0",
        "kvstore_ring_refusals_total 0",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
}

#[tokio::test]
async fn a_stop_finishes_and_closes() {
    let bench = Bench::new().await;
    bench.put("/kv/a", r#"{"value":1}"#).await;
    bench.shutdown.stop();
    tokio::time::timeout(PATIENCE, bench.serving).await.unwrap().unwrap();
    assert!(
        bench
            .client
            .get(format!("http://{}/health", bench.addr))
            .send()
            .await
            .is_err()
    );
    assert!(bench.node.store().probe().await.is_err(), "the store is closed");
}
