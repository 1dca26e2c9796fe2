//! The client against the fake, and against connections that break.

use std::time::{Duration, Instant};

use kv_api::BatchOp;
use serde_json::value::to_raw_value;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::testing::{Call, FakeKv, Fault};
use crate::{
    Acquired, Change, KeyRange, Kv, KvError, OpResult, Options, Put, PutOptions, Swap, Version, Watch, WatchEvent, op,
};

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !done() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A server that reads something of each request and then does `end` with the connection.
async fn broken_server(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut some = [0_u8; 1_024];
            let _ = stream.read(&mut some).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    url
}

/// A URL where nobody listens.
async fn dead_url() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[tokio::test]
async fn values_and_versions() {
    let fake = FakeKv::start().await;
    let kv = fake.client();
    assert_eq!(kv.get::<Value>("a/b:ü ?").await.unwrap(), None);
    let version = kv.put("a/b:ü ?", &json!({"x": 1.5})).await.unwrap();
    let found = kv.get::<Value>("a/b:ü ?").await.unwrap().unwrap();
    assert_eq!(
        (found.value, found.version, found.key.as_str()),
        (json!({"x": 1.5}), version, "a/b:ü ?")
    );
    kv.delete("a/b:ü ?").await.unwrap();
    kv.delete("a/b:ü ?").await.unwrap();
    assert_eq!(fake.value("a/b:ü ?"), None);
    assert!(matches!(kv.get::<Value>("").await, Err(KvError::Invalid { .. })));
    kv.healthy().await.unwrap();
    assert!(kv.cluster().await.unwrap().get().contains("serving"));
}

#[tokio::test]
async fn a_swap_needs_the_version() {
    let fake = FakeKv::start().await;
    let kv = fake.client();
    let Swap::Done(first) = kv.cas_version("k", None, &1, None).await.unwrap() else {
        panic!("absent")
    };
    let refused = kv.cas_version("k", None, &2, None).await.unwrap();
    assert_eq!(refused.found::<i32>("k").unwrap().unwrap().version, first);
    let Swap::Done(second) = kv.cas_version("k", Some(&first), &2, None).await.unwrap() else {
        panic!("current")
    };
    assert_ne!(first, second);
    assert!(!kv.cas_version("k", Some(&first), &3, None).await.unwrap().is_done());
    assert!(!kv.delete_version("k", &first).await.unwrap());
    assert!(kv.delete_version("k", &second).await.unwrap());
    let gone = kv.cas_version("k", Some(&second), &3, None).await.unwrap();
    assert!(matches!(gone, Swap::Refused { version: None, .. }), "{gone:?}");
    assert!(gone.found::<i32>("k").unwrap().is_none());
}

#[tokio::test]
async fn fences_and_time_to_live() {
    let fake = FakeKv::start().await;
    let kv = fake.client();
    let fenced = |fence| PutOptions {
        fence: Some(fence),
        ttl: None,
    };
    assert!(matches!(kv.put_with("k", &1, fenced(5)).await.unwrap(), Put::Done(_)));
    assert_eq!(
        kv.put_with("k", &2, fenced(4)).await.unwrap(),
        Put::FenceTooLow { seen: 5 }
    );
    let version = fake.with(|store| store.version("k")).unwrap();
    let late = kv.cas_version("k", Some(&version), &3, Some(4)).await.unwrap();
    assert!(matches!(late, Swap::FenceTooLow { seen: 5 }));
    let soon = PutOptions {
        ttl: Some(Duration::from_millis(20)),
        fence: None,
    };
    kv.put_with("t", &1, soon).await.unwrap();
    until("the value ends", || fake.value("t").is_none()).await;
    let never = PutOptions {
        ttl: Some(Duration::ZERO),
        fence: None,
    };
    assert!(matches!(
        kv.put_with("t", &1, never).await,
        Err(KvError::Invalid { .. })
    ));
}

#[tokio::test]
async fn a_batch_answers_each_operation() {
    let fake = FakeKv::start().await;
    let kv = fake.client();
    fake.set("a", &1);
    let stale = Version("stale".to_owned());
    let ops = vec![
        op::get("a"),
        op::get("none"),
        op::put("b", "text").unwrap(),
        op::cas("a", Some(&stale), &2).unwrap(),
        op::delete("b"),
        op::delete_version("a", &stale),
        BatchOp::Lock {
            key: "l".to_owned(),
            ttl_sec: None,
            owner: None,
        },
        BatchOp::Unlock {
            key: "l".to_owned(),
            token: Some("wrong".to_owned()),
        },
        BatchOp::Put {
            key: "t".to_owned(),
            value: to_raw_value(&1).unwrap(),
            ttl_sec: Some(-1.0),
            fence: None,
        },
    ];
    let results = kv.batch(ops, false).await.unwrap();
    let done: Vec<bool> = results.iter().map(OpResult::is_done).collect();
    assert_eq!(done, [true, true, true, false, true, false, true, false, false]);
    assert!(
        matches!(&results[8], OpResult::Failed(KvError::Rejected { status: 422, .. })),
        "{:?}",
        results[8]
    );
    let mut results = results.into_iter();
    assert_eq!(results.next().unwrap().into_got::<i32>().unwrap().unwrap().value, 1);
    assert!(results.next().unwrap().into_got::<i32>().unwrap().is_none());
    assert!(results.next().unwrap().into_got::<i32>().is_err());
    assert!(!results.next().unwrap().into_swap().unwrap().is_done());

    let ops = vec![
        op::put("x", &1).unwrap(),
        op::cas("x", None, &2).unwrap(),
        op::put("y", &1).unwrap(),
    ];
    let results = kv.batch(ops, true).await.unwrap();
    assert!(matches!(results[2], OpResult::NotRun), "{results:?}");
    assert_eq!(fake.value("y"), None);

    assert!(kv.batch(Vec::new(), true).await.unwrap().is_empty());
    let many = vec![op::get("a"); kv_api::MAX_BATCH_OPS + 1];
    assert!(matches!(kv.batch(many, false).await, Err(KvError::Invalid { .. })));
}

#[tokio::test]
async fn scans_go_page_by_page_and_survive_bad_values() {
    let fake = FakeKv::start().await;
    let kv = fake.client();
    for n in 0..7 {
        fake.set(&format!("n:{n}"), &n);
    }
    fake.set("n:3", "three");
    fake.set("o", &1);
    let page = kv.scan::<i32>("n:", None, 3, false).await.unwrap();
    assert_eq!((page.items.len(), page.next.as_deref()), (3, Some("n:2")));
    let page = kv.scan::<i32>("n:", Some("n:2"), 2, false).await.unwrap();
    let bad = page.items[0].as_ref().unwrap_err();
    assert!(
        bad.key == "n:3" && bad.version.is_some() && bad.reason.contains("invalid type"),
        "{bad}"
    );
    assert_eq!(page.items[1].as_ref().unwrap().value, 4);
    let back = kv.scan::<Value>("n:", Some("n:5"), 2, true).await.unwrap();
    let keys: Vec<_> = back.into_good().map(|item| item.key).collect();
    assert_eq!(keys, ["n:4", "n:3"]);
    let all = kv.scan_all::<i32>("n:", 100).await.unwrap();
    assert_eq!((all.items.len(), all.next.clone()), (7, None));
    assert_eq!(all.into_good().count(), 6);
    let some = kv.scan_all::<i32>("n:", 5).await.unwrap();
    assert_eq!((some.items.len(), some.next.as_deref()), (5, Some("n:4")));
}

#[tokio::test]
async fn ranges_cut_the_keys_into_parts_and_are_read_with_little_of_the_next() {
    let fake = FakeKv::start().await;
    let kv = fake.client();
    for n in 0..60 {
        fake.set(&format!("n:{n:02}"), &n);
    }
    let range = |after: Option<&str>, through: Option<&str>| KeyRange {
        after: after.map(str::to_owned),
        through: through.map(str::to_owned),
    };
    let parts = [
        // What is expected may be right, too few, or too many; ends need not be keys that are there.
        (range(None, Some("n:19")), 20, 1),
        (range(Some("n:19"), Some("n:39x")), 5, 2),
        (range(Some("n:39x"), Some("n:44")), 50, 1),
        (range(Some("n:44"), None), 15, 1),
    ];
    let mut all = Vec::new();
    for (range, expected, calls) in parts {
        let before = fake.count(Call::Scan);
        let page = kv.scan_range::<i32>("n:", &range, expected, 100).await.unwrap();
        assert_eq!(
            (page.next.clone(), fake.count(Call::Scan) - before),
            (None, calls),
            "{range:?}"
        );
        all.extend(page.into_good().map(|item| item.value));
    }
    assert_eq!(all, (0..60).collect::<Vec<_>>());
    let some = kv
        .scan_range::<i32>("n:", &range(Some("n:19"), Some("n:39")), 20, 7)
        .await;
    let some = some.unwrap();
    assert_eq!((some.items.len(), some.next.as_deref()), (7, Some("n:26")));
}

#[tokio::test]
async fn a_lock_is_exclusive_until_released_dropped_or_over() {
    let fake = FakeKv::start().await;
    let kv = fake.client();
    let ttl = Duration::from_secs(30);
    let mut guard = kv.lock("l", "me", ttl).await.unwrap().guard().unwrap();
    assert!(guard.remaining() > Duration::from_secs(20) && guard.remaining() <= ttl);
    let Acquired::No(held) = kv.lock("l", "you", ttl).await.unwrap() else {
        panic!("held")
    };
    assert!(held.expires_in.unwrap() <= ttl);
    assert!(guard.renew(Duration::from_secs(60)).await.unwrap());
    assert!(guard.remaining() > ttl);
    let fence = guard.fence;
    assert!(guard.release().await.unwrap());
    let again = kv.lock("l", "me", ttl).await.unwrap().guard().unwrap();
    assert!(again.fence > fence);
    drop(again);
    until("a dropped lock is released", || {
        !fake.with(|store| store.is_locked("l"))
    })
    .await;
    let mut short = kv
        .lock("l", "me", Duration::from_millis(10))
        .await
        .unwrap()
        .guard()
        .unwrap();
    until("it ends by itself", || !fake.with(|store| store.is_locked("l"))).await;
    assert!(!short.renew(ttl).await.unwrap());
    assert!(!short.release().await.unwrap());
    assert!(matches!(
        kv.lock("l", "", Duration::ZERO).await,
        Err(KvError::Invalid { .. })
    ));
}

#[tokio::test]
async fn a_failed_write_says_what_became_of_it_and_is_sent_once() {
    let fake = FakeKv::start().await;
    let kv = fake.client();
    fake.fail_next(Call::Put, 1, Fault::Unavailable);
    let error = kv.put("k", &1).await.unwrap_err();
    assert!(
        error.is_retryable() && matches!(error, KvError::Unavailable { .. }),
        "{error}"
    );
    for (fault, done) in [
        (Fault::UnknownNotDone, false),
        (Fault::UnknownDone, true),
        (Fault::LostAnswer, true),
    ] {
        fake.with(|store| store.remove("k"));
        let before = fake.count(Call::Put);
        fake.fail_next(Call::Put, 1, fault);
        let error = kv.put("k", &1).await.unwrap_err();
        assert!(
            error.is_outcome_unknown() && !error.is_retryable(),
            "{fault:?}: {error}"
        );
        assert_eq!(fake.value("k").is_some(), done, "{fault:?}");
        assert_eq!(fake.count(Call::Put), before + 1, "{fault:?}");
    }
    fake.fail_next(Call::Batch, 1, Fault::LostAnswer);
    let error = kv.batch(vec![op::put("k", &1).unwrap()], false).await.unwrap_err();
    assert!(error.is_outcome_unknown(), "{error}");
}

/// A client that sends changes up to three times.
fn persistent(url: &str) -> Kv {
    let options = Options {
        write_retries: 2,
        retry_backoff: Duration::from_millis(1),
        ..Options::default()
    };
    Kv::new(url, options).unwrap()
}

#[tokio::test]
async fn a_named_change_is_sent_again_and_made_once() {
    let fake = FakeKv::start().await;
    let kv = persistent(&fake.url);
    for fault in [
        Fault::Unavailable,
        Fault::UnknownNotDone,
        Fault::UnknownDone,
        Fault::LostAnswer,
    ] {
        fake.with(|store| store.remove("k"));
        fake.fail_next(Call::Cas, 2, fault);
        // Made twice, the second would be refused.
        assert!(
            kv.cas_version("k", None, &1, None).await.unwrap().is_done(),
            "{fault:?}"
        );
        let version = fake.with(|store| store.version("k")).unwrap();
        fake.fail_next(Call::Batch, 1, fault);
        let ops = vec![op::cas("k", Some(&version), &2).unwrap(), op::get("k")];
        let results = kv.batch(ops, false).await.unwrap();
        assert!(results.iter().all(OpResult::is_done), "{fault:?}: {results:?}");
        fake.fail_next(Call::Acquire, 1, fault);
        let guard = kv.lock("l", "me", Duration::from_secs(30)).await.unwrap().guard();
        fake.fail_next(Call::Release, 1, fault);
        assert!(guard.expect("it is ours").release().await.unwrap(), "{fault:?}");
    }
    // The second put of the same value is another change.
    let first = kv.put("p", &1).await.unwrap();
    assert_ne!(kv.put("p", &1).await.unwrap(), first);
}

#[tokio::test]
async fn repetitions_end_and_the_worst_that_was_heard_stands() {
    let fake = FakeKv::start().await;
    let kv = persistent(&fake.url);
    fake.fail_next(Call::Put, 1, Fault::UnknownDone);
    fake.fail_next(Call::Put, 2, Fault::Unavailable);
    let error = kv.put("k", &1).await.unwrap_err();
    assert!(error.is_outcome_unknown(), "{error}");
    assert_eq!(fake.count(Call::Put), 3);
    fake.fail_next(Call::Put, 3, Fault::Unavailable);
    assert!(kv.put("k", &1).await.unwrap_err().is_retryable());
    assert_eq!(fake.count(Call::Put), 6);
    let started = Instant::now();
    let kv = persistent(&broken_server("").await);
    assert!(kv.put("k", &1).await.unwrap_err().is_outcome_unknown());
    assert!(started.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn reads_are_repeated_a_little() {
    let fake = FakeKv::start().await;
    let options = Options {
        retry_backoff: Duration::from_millis(1),
        ..Options::default()
    };
    let kv = Kv::new(&fake.url, options).unwrap();
    fake.set("k", &7);
    fake.fail_next(Call::Get, 2, Fault::Unavailable);
    assert_eq!(kv.get::<i32>("k").await.unwrap().unwrap().value, 7);
    fake.fail_next(Call::Get, 3, Fault::LostAnswer);
    let error = kv.get::<i32>("k").await.unwrap_err();
    assert!(matches!(error, KvError::Unavailable { .. }), "{error}");
    assert_eq!(fake.count(Call::Get), 6);
    fake.fail_next(Call::Batch, 1, Fault::UnknownNotDone);
    assert!(
        kv.batch(vec![op::get("k")], false).await.unwrap()[0].is_done(),
        "a batch of gets is a read"
    );
    assert!(matches!(kv.get::<String>("k").await, Err(KvError::Decode { .. })));
}

#[tokio::test]
async fn a_connection_that_drops_after_sending_leaves_the_write_unknown() {
    for answer in [
        "",
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"ok\":",
        "nonsense\r\n\r\n",
    ] {
        let kv = Kv::new(&broken_server(answer).await, Options::default()).unwrap();
        let error = kv.put("k", &1).await.unwrap_err();
        assert!(error.is_outcome_unknown(), "{answer:?}: {error}");
        let error = kv.get::<i32>("k").await.unwrap_err();
        assert!(matches!(error, KvError::Unavailable { .. }), "{answer:?}: {error}");
    }
}

#[tokio::test]
async fn no_answer_in_time_leaves_the_write_unknown() {
    let fake = FakeKv::start().await;
    let options = Options {
        request_timeout: Duration::from_millis(50),
        ..Options::default()
    };
    let kv = Kv::new(&fake.url, options).unwrap();
    fake.delay(Duration::from_secs(60));
    let error = kv.put("k", &1).await.unwrap_err();
    assert!(
        error.is_outcome_unknown() && error.to_string().contains("no answer in time"),
        "{error}"
    );
    let started = Instant::now();
    assert!(kv.get::<i32>("k").await.unwrap_err().is_retryable());
    assert!(started.elapsed() < Duration::from_secs(1), "reads end too");
}

#[tokio::test]
async fn the_next_kvfront_is_tried_only_when_nothing_was_sent() {
    let fake = FakeKv::start().await;
    let dead = dead_url().await;
    let kv = Kv::new(&format!("{dead}, {}", fake.url), Options::default()).unwrap();
    kv.put("k", &1).await.unwrap();
    assert_eq!(fake.value("k"), Some(json!(1)));
    let kv = Kv::new(&format!("{},{}", broken_server("").await, fake.url), Options::default()).unwrap();
    assert!(kv.put("k", &2).await.unwrap_err().is_outcome_unknown());
    assert_eq!(fake.value("k"), Some(json!(1)));
    let kv = Kv::new(&dead, Options::default()).unwrap();
    let error = kv.put("k", &1).await.unwrap_err();
    assert!(
        matches!(error, KvError::Unreachable { .. }) && error.is_retryable(),
        "{error}"
    );
    assert!(error.to_string().contains(&dead), "it names the address: {error}");
}

#[tokio::test]
async fn answers_have_a_limit() {
    let fake = FakeKv::start().await;
    fake.set("k", &"x".repeat(10_000));
    let kv = Kv::new(
        &fake.url,
        Options {
            max_answer_bytes: 1_000,
            ..Options::default()
        },
    )
    .unwrap();
    let error = kv.get::<String>("k").await.unwrap_err();
    assert!(error.to_string().contains("longer than 1000 bytes"), "{error}");
}

#[test]
fn urls_are_checked() {
    for bad in [
        "",
        "localhost:9000",
        "https://x",
        "http://x/?a=1",
        "http://u:p@x",
        "ftp://x",
        "http://a,nonsense",
    ] {
        let error = Kv::new(bad, Options::default()).unwrap_err();
        assert!(
            matches!(error, KvError::Invalid { .. }) && error.to_string().contains("http://host:port"),
            "{error}"
        );
    }
    for good in [
        "http://kvfront:9000",
        "http://kvfront:9000/",
        "http://[::1]:9000,http://b",
    ] {
        Kv::new(good, Options::default()).unwrap();
    }
}

/// The next event, passing over breaks.
async fn told(watch: &mut Watch) -> WatchEvent {
    let event = async {
        loop {
            if let Ok(event) = watch.next().await {
                return event;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), event)
        .await
        .expect("an event in time")
}

/// The next change, as key and value.
async fn told_change(watch: &mut Watch) -> (String, Option<Value>) {
    loop {
        match told(watch).await {
            WatchEvent::Change(Change { key, value, .. }) => {
                return (key, value.map(|value| serde_json::from_str(value.get()).unwrap()));
            }
            WatchEvent::Alive => {}
            WatchEvent::Gap { reason } => panic!("{reason}"),
        }
    }
}

#[tokio::test]
async fn a_watch_tells_what_changes_and_outlives_breaks() {
    let fake = FakeKv::start().await;
    let kv = fake.client();
    fake.set("w:1", &"before");
    let mut watch = kv.watch("w:");
    assert!(matches!(told(&mut watch).await, WatchEvent::Alive));
    fake.set("w:1", &1);
    fake.set("other", &1);
    assert_eq!(told_change(&mut watch).await, ("w:1".to_owned(), Some(json!(1))));
    fake.with(|store| {
        store.cut_watches();
        store.set("w:2", &"meanwhile");
        store.remove("w:1");
    });
    fake.fail_next(Call::Watch, 2, Fault::Unavailable);
    assert!(
        matches!(watch.next().await, Err(KvError::Unavailable { .. })),
        "the break shows"
    );
    assert_eq!(
        told_change(&mut watch).await,
        ("w:2".to_owned(), Some(json!("meanwhile")))
    );
    assert_eq!(told_change(&mut watch).await, ("w:1".to_owned(), None));
    fake.with(|store| {
        store.set("w:3", &"lost");
        store.forget_changes();
        store.cut_watches();
    });
    let gap = loop {
        match told(&mut watch).await {
            WatchEvent::Gap { reason } => break reason,
            // The change itself may still have come before the feed was cut.
            WatchEvent::Change(change) => assert_eq!(change.key, "w:3"),
            WatchEvent::Alive => {}
        }
    };
    assert!(gap.contains("forget"), "{gap}");
    fake.set("w:4", &4);
    assert_eq!(told_change(&mut watch).await, ("w:4".to_owned(), Some(json!(4))));
}

#[tokio::test]
async fn a_watch_asks_the_next_kvfront() {
    let fake = FakeKv::start().await;
    let urls = format!("{},{}", dead_url().await, fake.url);
    let mut watch = Kv::new(&urls, Options::default()).unwrap().watch("");
    assert!(matches!(watch.next().await, Ok(WatchEvent::Alive)));
}
