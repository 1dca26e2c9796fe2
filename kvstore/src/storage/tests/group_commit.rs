//! Batches, and readers beside them.

use super::*;

#[tokio::test]
async fn requests_of_one_batch_see_each_other() {
    let bench = Bench::new();
    let store = bench.open().await;
    let key = Key::data("a");
    let before = store.metrics.transactions.get();
    let requests = vec![
        (key.clone(), accept(5, "1")),
        (key.clone(), Request::Read),
        (key.clone(), accept(4, "0")),
        (key.clone(), Request::Forget { ballot: ballot(5) }),
        (key.clone(), accept(5, "1")),
        (key.clone(), accept(6, "2")),
    ];
    let replies = store.decide(requests).await.unwrap();
    assert_eq!(replies[0], Reply::Accepted { reserved: false });
    assert!(matches!(&replies[1], Reply::Holds(held) if value(held) == Some("1")));
    assert_eq!(replies[2], Reply::Refused { higher: ballot(5) });
    assert_eq!(replies[3], Reply::Forgotten);
    assert_eq!(replies[4], Reply::Refused { higher: ballot(5) }, "below the floor");
    assert_eq!(replies[5], Reply::Accepted { reserved: false });
    assert_eq!(store.metrics.transactions.get(), before + 1);
    assert_eq!(value(&held(&store, &key).await), Some("2"));
}

#[tokio::test]
async fn what_changes_nothing_costs_no_commit() {
    let bench = Bench::new();
    let store = bench.open().await;
    let key = Key::data("a");
    one(&store, &key, accept(5, "1")).await;
    let before = store.metrics.transactions.get();
    assert_eq!(
        one(&store, &key, accept(5, "1")).await,
        Reply::Accepted { reserved: false }
    );
    assert_eq!(
        one(&store, &key, accept(4, "1")).await,
        Reply::Refused { higher: ballot(5) }
    );
    store.node(NodeRequest::Status, EPOCH).await.unwrap();
    assert_eq!(store.metrics.transactions.get(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_queues_up_is_committed_together() {
    let bench = Bench::new();
    let store = bench.open().await;
    let mut writes = tokio::task::JoinSet::new();
    for number in 0..500u64 {
        let store = store.clone();
        writes.spawn(async move { one(&store, &Key::data(&number.to_string()), accept(number + 1, "1")).await });
    }
    while let Some(reply) = writes.join_next().await {
        assert_eq!(reply.unwrap(), Reply::Accepted { reserved: false });
    }
    assert_eq!(store.progress().commit, 500);
    let transactions = store.metrics.transactions.get();
    assert!(transactions < 400, "{transactions} transactions for 500 writes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_under_load_read_their_writes_and_never_go_back() {
    let mut bench = Bench::new();
    // So small that records are evicted and read back all the time.
    bench.cache = CacheLimits {
        items: 3,
        bytes: 1 << 20,
    };
    let store = bench.open().await;
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..4u64 {
        let store = store.clone();
        tasks.spawn(async move {
            let key = Key::data(&format!("w{writer}"));
            for number in 1..=150u64 {
                assert_eq!(
                    one(&store, &key, accept(number, &number.to_string())).await,
                    Reply::Accepted { reserved: false }
                );
                assert!(
                    held(&store, &key).await.accepted >= ballot(number),
                    "did not read its own write"
                );
            }
        });
    }
    for _ in 0..4 {
        let store = store.clone();
        tasks.spawn(async move {
            let keys: Vec<Key> = (0..4).map(|writer| Key::data(&format!("w{writer}"))).collect();
            let mut newest = vec![Ballot::ZERO; keys.len()];
            let deadline = Instant::now() + PATIENCE;
            while newest.iter().any(|ballot| *ballot < self::ballot(150)) {
                assert!(Instant::now() < deadline, "the writers did not get there");
                for (found, newest) in store.read(&keys).await.into_iter().zip(&mut newest) {
                    let Reply::Holds(found) = found else {
                        panic!("{found:?}")
                    };
                    assert!(
                        found.accepted >= *newest,
                        "went back from {newest} to {}",
                        found.accepted
                    );
                    *newest = found.accepted;
                }
                tokio::task::yield_now().await;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}
