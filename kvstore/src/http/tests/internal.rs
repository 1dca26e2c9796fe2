//! What coordinators ask of the node itself, of its hash tree, its lists and its feed; rings and clocks that do not fit.

use register::hashing::{HashTree, LEAVES, LEAVES_PER_PARTITION, PARTITIONS, leaf_of, partition_of};
use register::membership::Peer;
use register::message::{ChangesReply, ChangesRequest, HashReply, HashRequest};

use register::scan::{Partitions, ScanRange, ScanRequest};

use super::*;
use crate::http::{MAX_PEER_NAME_BYTES, MAX_QUESTION_BYTES};
use crate::storage::MAX_PEERS;

const CLOCK: HlcTime = HlcTime::from_unix_ms(START_MS);

fn page_request(list: List) -> PageRequest {
    PageRequest {
        clock: CLOCK,
        sender: SENDER,
        epoch: EPOCH,
        list,
        limit: 10,
    }
}

fn all_keys() -> List {
    List::Keys {
        prefix: String::new(),
        after: None,
        reverse: false,
    }
}

fn changes_request(incarnation: u64, after_commit: u64, wait_ms: u32) -> ChangesRequest {
    ChangesRequest {
        clock: CLOCK,
        sender: SENDER,
        epoch: EPOCH,
        incarnation,
        after_commit,
        limit: 10,
        wait_ms,
    }
}

#[tokio::test]
async fn a_node_tells_its_standing_and_counts_only_when_admitted() {
    let bench = Bench::unadmitted().await;
    bench.put("/kv/a", r#"{"value":1}"#).await;
    let requests = || {
        envelope(vec![
            (Key::data("a"), Request::Read),
            (Key::data("b"), accept(ballot(1), "1")),
        ])
    };
    let reply = bench.exchange(&requests()).await;
    assert_eq!(reply.standing, Standing::Blank);
    assert!(
        reply.replies.iter().all(|reply| matches!(reply, Reply::Failed { .. })),
        "{:?}",
        reply.replies
    );
    let page: PageReply = bench.internal("/internal/page", &page_request(all_keys())).await;
    assert_eq!((page.standing, page.records.len()), (Standing::Blank, 1));
    assert_eq!(bench.data("/kv/a").await, json!(1), "its own API works all the same");

    assert!(bench.metrics().await.contains("kvstore_voting 0"));
    bench.admit().await;
    assert!(bench.metrics().await.contains("kvstore_voting 1"));
    let reply = bench.exchange(&requests()).await;
    assert_eq!(reply.standing, Standing::Voting);
    assert!(matches!(reply.replies[..], [Reply::Holds(_), Reply::Accepted { .. }]));
    let status = bench.ask_node(NodeRequest::Status).await.status;
    assert_eq!((status.epoch, status.generation, status.commit), (Some(EPOCH), 1, 2));
    assert_eq!(
        (status.incarnation, status.floor),
        (reply.incarnation, reply.floor),
        "all calls tell the same"
    );

    let above = ballot(400);
    let refill = NodeRequest::Refill {
        incarnation: status.incarnation,
        if_commit_below: Some(3),
        generation: 2,
        above,
    };
    let refilled = bench.ask_node(refill.clone()).await;
    assert!(refilled.done && !bench.ask_node(refill).await.done);
    let reply = bench.exchange(&requests()).await;
    assert_eq!(
        (reply.standing, reply.incarnation, reply.commit, reply.floor),
        (Standing::Filling { above }, refilled.status.incarnation, 2, above)
    );
    assert!(matches!(
        reply.replies[..],
        [Reply::Failed { .. }, Reply::Failed { .. }]
    ));
    let page: PageReply = bench.internal("/internal/page", &page_request(all_keys())).await;
    assert_eq!((page.standing, page.incarnation), (reply.standing, reply.incarnation));
    let hashes: HashReply = bench.internal("/internal/hashes", &hash_request(None)).await;
    assert_eq!(hashes.standing, reply.standing);
}

#[tokio::test]
async fn what_no_coordinator_would_send_about_a_node_is_refused() {
    let bench = Bench::new().await;
    let peer = |name: String| Peer {
        name: name.into(),
        generation: 1,
        incarnation: 1,
        commit: 1,
    };
    let names = |count: usize| (0..count).map(|number| peer(number.to_string())).collect();
    let refuse = async |request: NodeRequest| {
        let message = NodeEnvelope {
            clock: CLOCK,
            sender: SENDER,
            epoch: EPOCH,
            request,
        };
        bench.refusal("/internal/node", &message).await
    };
    let (status, body) = refuse(NodeRequest::Remember {
        peers: names(MAX_PEERS + 1),
    })
    .await;
    assert!(
        status == 413 && body["detail"].as_str().unwrap().contains("256"),
        "{status} {body}"
    );
    let long = vec![peer("x".repeat(MAX_PEER_NAME_BYTES + 1))];
    assert_eq!(refuse(NodeRequest::Remember { peers: long }).await.0, 413);
    // It would refuse every write until then.
    let (status, body) = refuse(NodeRequest::Raise { floor: ballot(2_001) }).await;
    assert!(status == 409 && body["refused"] == "clock", "{status} {body}");
    let peers = names(MAX_PEERS);
    assert_eq!(
        bench.ask_node(NodeRequest::Remember { peers }).await.status.peers.len(),
        MAX_PEERS
    );
    let raised = bench.ask_node(NodeRequest::Raise { floor: ballot(1_000) }).await;
    assert_eq!(
        raised.status.floor,
        ballot(1_000),
        "above all that may have been drawn by others"
    );
    for path in ["node", "page", "hashes", "changes"] {
        let path = format!("/internal/{path}");
        assert_eq!(
            bench.raw(&path, vec![0xff; 30]).await.0,
            StatusCode::BAD_REQUEST,
            "{path}"
        );
        let oversized = vec![0; MAX_QUESTION_BYTES + 1];
        assert_eq!(
            bench.raw(&path, oversized).await.0,
            StatusCode::PAYLOAD_TOO_LARGE,
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_node_that_is_stopping_says_that_nothing_was_done() {
    let bench = Bench::new().await;
    bench.node.store().close().await;
    let change = envelope(vec![(Key::data("a"), accept(ballot(1), "1"))]);
    let (status, body) = bench.refusal("/internal/exchange", &change).await;
    assert_eq!((status, &body["refused"]), (503, &json!("stopping")), "{body}");
}

#[tokio::test]
async fn another_ring_is_refused_by_every_call_and_nothing_is_merged() {
    let bench = Bench::new().await;
    let epoch = Epoch(8);
    let clock = HlcTime::from_unix_ms(START_MS + 400);
    let incarnation = bench.node.store().progress().incarnation;
    let mut exchange = envelope(vec![(Key::data("a"), accept(ballot(1), "1"))]);
    (exchange.clock, exchange.epoch) = (clock, epoch);
    let node = NodeEnvelope {
        clock,
        sender: SENDER,
        epoch,
        request: NodeRequest::Admit { incarnation, commit: 0 },
    };
    let page = PageRequest {
        clock,
        epoch,
        ..page_request(all_keys())
    };
    let scan = ScanRequest {
        clock,
        sender: SENDER,
        epoch,
        range: ScanRange {
            prefix: "d".to_owned(),
            after: None,
            reverse: false,
            tell: Partitions::default(),
        },
        limit: 10,
    };
    let hashes = HashRequest {
        clock,
        sender: SENDER,
        epoch,
        partitions: None,
    };
    let changes = ChangesRequest {
        clock,
        epoch,
        ..changes_request(incarnation, 0, 0)
    };
    let refusals = [
        bench.refusal("/internal/exchange", &exchange).await,
        bench.refusal("/internal/node", &node).await,
        bench.refusal("/internal/page", &page).await,
        bench.refusal("/internal/scan", &scan).await,
        bench.refusal("/internal/hashes", &hashes).await,
        bench.refusal("/internal/changes", &changes).await,
    ];
    for (status, body) in &refusals {
        let detail = body["detail"].as_str().unwrap();
        assert!(
            *status == 409 && body["refused"] == "ring" && detail.contains("BACKENDS") && detail.contains("ADOPT_RING"),
            "{status} {body}"
        );
    }
    let status = bench.ask_node(NodeRequest::Status).await;
    assert!(status.clock < clock, "its clock was not merged");
    assert_eq!((status.status.commit, status.status.epoch), (0, Some(EPOCH)));
    let metrics = bench.metrics().await;
    assert!(metrics.contains("kvstore_ring_refusals_total 6"), "{metrics}");
}

fn hash_request(partitions: Option<Vec<u16>>) -> HashRequest {
    HashRequest {
        clock: CLOCK,
        sender: SENDER,
        epoch: EPOCH,
        partitions,
    }
}

#[tokio::test]
async fn hashes_tell_where_replicas_differ() {
    let bench = Bench::new().await;
    let (a, b) = (Key::data("a"), Key::data("b"));
    let requests = vec![(a.clone(), accept(ballot(1), "1")), (b.clone(), accept(ballot(2), "2"))];
    bench.exchange(&envelope(requests)).await;
    let mut tree = HashTree::default();
    tree.change(&a, Ballot::ZERO, ballot(1));
    tree.change(&b, Ballot::ZERO, ballot(2));
    let roots: HashReply = bench.internal("/internal/hashes", &hash_request(None)).await;
    assert_eq!((roots.standing, &roots.hashes), (Standing::Voting, &tree.roots()));
    let partitions = [&b, &a].map(|key| u16::try_from(partition_of(key)).unwrap());
    let leaves: HashReply = bench
        .internal("/internal/hashes", &hash_request(Some(partitions.to_vec())))
        .await;
    let expected = partitions
        .map(|partition| tree.leaves(partition.into()).to_vec())
        .concat();
    assert_eq!(leaves.hashes, expected);
    assert_eq!(expected.len(), 2 * LEAVES_PER_PARTITION);

    let leaf = u32::try_from(leaf_of(&b)).unwrap();
    let list = |leaf| List::Leaves {
        leaves: vec![leaf],
        after: None,
    };
    let page: PageReply = bench.internal("/internal/page", &page_request(list(leaf))).await;
    let [record] = &page.records[..] else {
        panic!("{page:?}")
    };
    assert_eq!(
        (&record.key, record.held.accepted, &record.held.state, page.end),
        (&b, ballot(2), &None, true)
    );

    let beyond = u16::try_from(PARTITIONS).unwrap();
    for partitions in [vec![beyond], vec![0; PARTITIONS + 1]] {
        let refusal = bench.refusal("/internal/hashes", &hash_request(Some(partitions))).await;
        assert_eq!(refusal.0, 400, "{}", refusal.1);
    }
    let beyond = page_request(list(u32::try_from(LEAVES).unwrap()));
    assert_eq!(bench.refusal("/internal/page", &beyond).await.0, 400);
}

#[tokio::test]
async fn what_may_be_collected_is_listed() {
    let bench = Bench::new().await;
    bench.put("/kv/a", r#"{"value":1}"#).await;
    bench.put("/kv/b", r#"{"value":1,"ttl_sec":1}"#).await;
    bench.delete("/kv/a").await;
    let ended = |expired_at_ms| {
        page_request(List::Ended {
            after_commit: 0,
            expired_at_ms,
        })
    };
    let names = async |expired_at_ms| {
        let page: PageReply = bench.internal("/internal/page", &ended(expired_at_ms)).await;
        let names: Vec<_> = page.records.iter().map(|record| record.key.name().to_owned()).collect();
        names.join(" ")
    };
    assert_eq!(names(START_MS).await, "a");
    assert_eq!(names(START_MS + 1_000).await, "b a");
}

#[tokio::test]
async fn changes_are_waited_for() {
    let bench = std::sync::Arc::new(Bench::new().await);
    let incarnation = bench.node.store().progress().incarnation;
    let ask = |after_commit, wait_ms| {
        let bench = std::sync::Arc::clone(&bench);
        tokio::spawn(async move {
            let request = changes_request(incarnation, after_commit, wait_ms);
            bench.internal::<ChangesReply>("/internal/changes", &request).await
        })
    };
    let nothing = ask(0, 0).await.unwrap();
    assert_eq!((nothing.commit, nothing.lost, nothing.changes.len()), (0, false, 0));
    let waiting = ask(0, u32::MAX);
    bench
        .exchange(&envelope(vec![
            (Key::data("p"), Request::Prepare { ballot: ballot(1) }),
            (Key::data("a"), accept(ballot(2), "1")),
        ]))
        .await;
    let told = waiting.await.unwrap();
    let [change] = &told.changes[..] else {
        panic!("{told:?}")
    };
    assert_eq!(
        (change.commit, &change.key, change.accepted),
        (2, &Key::data("a"), ballot(2))
    );
    assert_eq!(
        (told.commit, told.lost, told.incarnation, told.standing),
        (2, false, incarnation, Standing::Voting)
    );
    assert!(ask(3, u32::MAX).await.unwrap().lost, "there is no such commit");

    // Who waits does not hold up the stop.
    let waiting = ask(2, u32::MAX);
    let stopping = bench.node.store().clone();
    let started = Instant::now();
    while stopping.waiting() == 0 {
        assert!(started.elapsed() < PATIENCE, "it does not wait");
        tokio::task::yield_now().await;
    }
    bench.shutdown.stop();
    let started = Instant::now();
    assert_eq!(waiting.await.unwrap().changes, []);
    while stopping.probe().await.is_ok() {
        assert!(started.elapsed() < PATIENCE, "the node does not stop");
        tokio::task::yield_now().await;
    }
    assert!(
        started.elapsed() < crate::http::MAX_CHANGES_WAIT,
        "it waited for the one who waits"
    );
}

#[tokio::test]
async fn a_node_whose_clock_is_wrong_says_so() {
    const HOUR_MS: u64 = 3_600_000;
    for (now_ms, part, refused) in [
        (START_MS - HOUR_MS, "3600.0 s behind", true),
        (START_MS + HOUR_MS, "3600.0 s ahead of", false),
    ] {
        let bench = Bench::new().await;
        // What coordinators go on saying, whatever the node's clock does.
        let message = postcard::to_stdvec(&envelope(vec![(Key::data("a"), Request::Read)])).unwrap();
        let until = async |expected: StatusCode| {
            let deadline = Instant::now() + PATIENCE;
            loop {
                let (status, _) = bench.raw("/internal/exchange", message.clone()).await;
                let (ready, body) = bench.get("/ready").await;
                if ready == expected {
                    return (status, body);
                }
                assert!(Instant::now() < deadline, "never {expected}: {body}");
                tokio::task::yield_now().await;
            }
        };
        until(StatusCode::OK).await;
        bench.now_ms.store(now_ms, Ordering::Relaxed);
        let (status, body) = until(StatusCode::SERVICE_UNAVAILABLE).await;
        assert_eq!(status == StatusCode::CONFLICT, refused, "{status}");
        let error = body["checks"]["clock"]["error"].as_str().unwrap();
        assert!(
            error.contains(part) && error.contains("at most 500 ms") && error.contains("set its clock"),
            "{error}"
        );
        let offset = i64::try_from(START_MS).unwrap() - i64::try_from(now_ms).unwrap();
        let metrics = bench.metrics().await;
        assert!(
            metrics.contains(&format!("kvstore_clock_offset_ms {offset}")),
            "{metrics}"
        );
        bench.now_ms.store(START_MS, Ordering::Relaxed);
        let (_, body) = until(StatusCode::OK).await;
        assert_eq!(body["checks"]["clock"]["error"], Value::Null);
    }
}
