//! Full disks, failing commits, bugs, and the stop.

use super::*;

async fn failing_disk(break_it: &'static str, mend_it: &'static str) {
    let bench = Bench::new();
    let store = bench.open().await;
    let key = Key::data("a");
    one(&store, &key, accept(1, "1")).await;
    store.sql(break_it).await;
    let before = store.progress();
    let large = format!("\"{}\"", "x".repeat(200_000));
    let requests = vec![
        (key.clone(), Request::Prepare { ballot: ballot(2) }),
        (Key::data("b"), accept(3, &large)),
        (key.clone(), Request::Forget { ballot: ballot(1) }),
    ];
    for reply in store.decide(requests).await.unwrap() {
        assert!(matches!(reply, Reply::Failed { .. }), "{reply:?}");
    }
    assert!(store.trouble().is_some());
    let command = Command::Put {
        value: large.as_str().into(),
        ttl_ms: None,
        fence: None,
    };
    assert!(matches!(
        store.change(Key::data("c"), command, RequestId(1)).await,
        Err(StoreError::Failed { .. })
    ));
    // Reads work, and nothing is half applied: neither in the cache nor in the database nor in the numbers.
    let a = held(&store, &key).await;
    assert_eq!((value(&a), a.promised), (Some("1"), ballot(1)));
    assert_eq!(held(&store, &Key::data("b")).await.state, None);
    assert_eq!(store.progress(), before);
    store.sql(mend_it).await;
    assert!(store.trouble().is_some(), "until a commit succeeds");
    store.probe().await.unwrap();
    assert_eq!(store.trouble(), None);
    assert_eq!(
        one(&store, &Key::data("b"), accept(3, &large)).await,
        Reply::Accepted { reserved: false }
    );
    assert_eq!(store.progress().commit, before.commit + 1);
}

#[tokio::test]
async fn a_full_disk_fails_the_batch_and_nothing_else() {
    failing_disk("PRAGMA max_page_count = 1", "PRAGMA max_page_count = 1000000").await;
}

#[tokio::test]
async fn a_disk_that_refuses_writes_fails_the_batch_and_nothing_else() {
    failing_disk("PRAGMA query_only = ON", "PRAGMA query_only = OFF").await;
}

#[tokio::test]
async fn a_commit_that_fails_at_its_end_changes_nothing() {
    let bench = Bench::new();
    let store = bench.open().await;
    // A deferred constraint is judged by COMMIT itself: the fence commit runs into it as well, so the outcome counts as unknown.
    store
        .sql(
            "CREATE TABLE parent (id INTEGER PRIMARY KEY);
         CREATE TABLE child (id REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
         CREATE TRIGGER fail AFTER UPDATE ON node BEGIN INSERT INTO child VALUES (7); END;
         CREATE TRIGGER fail_log AFTER INSERT ON log BEGIN INSERT INTO child VALUES (7); END;",
        )
        .await;
    let result = store.decide(vec![(Key::data("a"), accept(1, "1"))]).await;
    assert!(matches!(result, Err(StoreError::Unknown { .. })), "{result:?}");
    assert!(store.probe().await.is_err());
    store.sql("DROP TRIGGER fail; DROP TRIGGER fail_log").await;
    store.probe().await.unwrap();
    assert_eq!(held(&store, &Key::data("a")).await.state, None);
    assert_eq!(store.progress().commit, 0);
    assert_eq!(
        one(&store, &Key::data("a"), accept(1, "1")).await,
        Reply::Accepted { reserved: false }
    );
}

#[tokio::test]
async fn the_writer_survives_a_panic() {
    let bench = Bench::new();
    let store = bench.open().await;
    one(&store, &Key::data("a"), accept(1, "1")).await;
    let outcome: Result<(), _> = store.ask(|answer| Job::Panic { answer }).await;
    assert!(matches!(outcome, Err(StoreError::Unknown { .. })), "{outcome:?}");
    assert_eq!(
        one(&store, &Key::data("a"), accept(2, "2")).await,
        Reply::Accepted { reserved: false }
    );
    assert_eq!(value(&held(&store, &Key::data("a")).await), Some("2"));
    assert_eq!(store.progress().commit, 2);
}

#[tokio::test]
async fn what_is_queued_at_the_stop_is_still_done() {
    let bench = Bench::new();
    let store = bench.open().await;
    let writes: Vec<_> = (1..=50u64)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move {
                store
                    .decide(vec![(Key::data(&number.to_string()), accept(number, "1"))])
                    .await
            })
        })
        .collect();
    tokio::task::yield_now().await;
    store.close().await;
    let mut done = 0;
    for write in writes {
        match write.await.unwrap() {
            Ok(replies) => {
                assert_eq!(replies, [Reply::Accepted { reserved: false }]);
                done += 1;
            }
            Err(error) => assert_eq!(error, StoreError::Closed),
        }
    }
    let store = bench.open().await;
    assert_eq!(store.progress().commit, done);
}
