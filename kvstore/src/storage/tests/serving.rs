//! Local changes, the clock, pages, damaged rows.

use register::hashing::partition_of_text;
use register::scan::{Partitions, ScanRange, ScanRecord};

use super::*;

#[tokio::test]
async fn local_changes_pass_promises_of_others() {
    let bench = Bench::new();
    let store = bench.open().await;
    let key = Key::data("a");
    // A coordinator whose clock runs a little ahead of ours was promised this key.
    let ahead = Ballot {
        time: HlcTime::from_unix_ms(store.clock().now_unix_ms() + 400),
        incarnation: 1,
    };
    one(&store, &key, Request::Prepare { ballot: ahead }).await;
    let put = |text: &str| Command::Put {
        value: text.into(),
        ttl_ms: None,
        fence: None,
    };
    let answer = store.change(key.clone(), put("1"), RequestId(1)).await.unwrap();
    assert!(
        matches!(answer, Answer::Written { version } if version > ahead),
        "{answer:?}"
    );
    assert_eq!(value(&held(&store, &key).await), Some("1"));
    // One further ahead than the bound is not followed.
    let far = Ballot {
        time: HlcTime::from_unix_ms(store.clock().now_unix_ms() + 5_000),
        incarnation: 1,
    };
    one(&store, &key, Request::Prepare { ballot: far }).await;
    assert!(matches!(
        store.change(key.clone(), put("2"), RequestId(2)).await,
        Err(StoreError::Skew(_))
    ));
    assert_eq!(value(&held(&store, &key).await), Some("1"));
}

#[tokio::test]
async fn the_clock_never_runs_back_over_a_restart() {
    let bench = Bench::new();
    let store = bench.open().await;
    let put = Command::Put {
        value: "1".into(),
        ttl_ms: None,
        fence: None,
    };
    let Answer::Written { version } = store.change(Key::data("a"), put, RequestId(1)).await.unwrap() else {
        panic!()
    };
    store.close().await;
    let mut options = bench.options();
    // Meanwhile the wall clock was set back by an hour.
    let behind = version.time.unix_ms() - 3_600_000;
    options.wall = Arc::new(move || behind);
    let store = Store::open(&bench.path(), options).unwrap();
    assert!(store.clock().ballot() > version);
}

#[tokio::test]
async fn a_wall_clock_that_was_ahead_leaves_nothing_on_the_disk() {
    const NOW_MS: u64 = 1_800_000_000_000;
    const HOUR_MS: u64 = 3_600_000;
    let bench = Bench::new();
    let open_at = |now_ms: u64| {
        let options = StoreOptions {
            wall: Arc::new(move || now_ms),
            ..bench.options()
        };
        Store::open(&bench.path(), options).unwrap()
    };
    let store = open_at(NOW_MS + HOUR_MS);
    admit(&store).await;
    let promised = Ballot {
        time: HlcTime::from_unix_ms(NOW_MS + 200),
        incarnation: 1,
    };
    store.clock().observe(promised.time).unwrap();
    assert_eq!(store.clock().read(), HlcTime::from_unix_ms(NOW_MS + HOUR_MS));
    one(&store, &Key::data("a"), Request::Prepare { ballot: promised }).await;
    assert_eq!(store.clock().read(), HlcTime::from_unix_ms(NOW_MS + HOUR_MS));
    store.probe().await.unwrap();
    store.close().await;

    let store = open_at(NOW_MS);
    assert_eq!(
        store.clock().read(),
        promised.time,
        "not below what was promised, and not an hour ahead"
    );
    store.close().await;
    let store = open_at(NOW_MS + 1_000);
    assert_eq!(store.clock().read(), HlcTime::from_unix_ms(NOW_MS + 1_000));
}

#[tokio::test]
async fn pages_walk_keys_both_ways_and_hints_by_commit() {
    let bench = Bench::new();
    let store = bench.open().await;
    let names = ["a", "a:1", "a:2", "a:3", "b", "a\u{10FFFF}x"];
    let requests = names.iter().map(|name| (Key::data(name), hint(1, "1"))).collect();
    store.decide(requests).await.unwrap();
    store
        .decide(vec![(Key::lock("a:1"), accept(1, "1")), (Key::data("a"), hint(2, "2"))])
        .await
        .unwrap();
    let keys = |prefix: &str, after: Option<&str>, reverse, limit| {
        let list = List::Keys {
            prefix: prefix.to_owned(),
            after: after.map(str::to_owned),
            reverse,
        };
        let store = store.clone();
        async move {
            let page = store.page(list, limit).await.unwrap();
            let names: Vec<String> = page
                .records
                .iter()
                .map(|record| record.key.as_text().to_owned())
                .collect();
            (names.join(" "), page.end)
        }
    };
    assert_eq!(keys("da:", None, false, 2).await, ("da:1 da:2".to_owned(), false));
    assert_eq!(keys("da:", Some("da:2"), false, 2).await, ("da:3".to_owned(), true));
    assert_eq!(keys("da:", None, true, 2).await, ("da:3 da:2".to_owned(), false));
    assert_eq!(keys("da:", Some("da:2"), true, 2).await, ("da:1".to_owned(), true));
    assert_eq!(
        keys("da:", Some("d"), false, 9).await,
        ("da:1 da:2 da:3".to_owned(), true),
        "after below the prefix"
    );
    assert_eq!(
        keys("da:", Some("db"), false, 9).await,
        (String::new(), true),
        "after above the prefix"
    );
    assert_eq!(keys("da:", Some("db"), true, 1).await, ("da:3".to_owned(), false));
    assert_eq!(keys("da:", Some("d"), true, 9).await, (String::new(), true));
    assert_eq!(
        keys("d", None, false, 9).await,
        ("da da:1 da:2 da:3 da\u{10FFFF}x db".to_owned(), true)
    );
    assert_eq!(keys("", None, true, 2).await, ("la:1 db".to_owned(), false));

    // One transaction made them, yet a page may end between any two.
    let mut after_commit = 0;
    let mut seen = Vec::new();
    loop {
        let page = store.page(List::Hints { after_commit }, 2).await.unwrap();
        seen.extend(page.records.iter().map(|record| record.key.name().to_owned()));
        let Some(last) = page.records.last() else { break };
        after_commit = last.commit;
        if page.end {
            break;
        }
    }
    assert_eq!(
        seen,
        ["a:1", "a:2", "a:3", "b", "a\u{10FFFF}x", "a"],
        "the rewritten one comes last"
    );
}

#[tokio::test]
async fn pages_end_early_when_values_are_large() {
    let bench = Bench::new();
    let store = bench.open().await;
    let large = format!("\"{}\"", "x".repeat(1 << 20));
    let requests = (0..6)
        .map(|number| (Key::data(&number.to_string()), accept(1, &large)))
        .collect();
    store.decide(requests).await.unwrap();
    let list = List::Keys {
        prefix: "d".to_owned(),
        after: None,
        reverse: false,
    };
    let page = store.page(list, 100).await.unwrap();
    assert!(!page.end && page.records.len() == 4, "{} records", page.records.len());
    // What a page is sent as stays well below what a client takes.
    let reply = PageReply {
        clock: HlcTime::ZERO,
        floor: page.floor,
        incarnation: page.incarnation,
        standing: page.standing,
        records: page.records,
        end: page.end,
    };
    assert!(postcard::to_stdvec(&reply).unwrap().len() < 2 * MAX_PAGE_BYTES);
}

/// The records of a page of a scan.
fn records_of(page: &ScanPage) -> Vec<ScanRecord<'_>> {
    let (mut records, mut rest) = (Vec::new(), page.records.as_slice());
    while !rest.is_empty() {
        let (record, behind) = postcard::take_from_bytes(rest).unwrap();
        records.push(record);
        rest = behind;
    }
    assert_eq!(records.len(), usize::try_from(page.count).unwrap());
    records
}

#[tokio::test]
async fn a_scan_tells_what_a_page_holds_and_only_the_values_it_is_to_tell() {
    let bench = Bench::new();
    let store = bench.open().await;
    let names = ["a", "a:1", "a:2", "b", "a\u{10FFFF}x"];
    let requests = names.iter().map(|name| (Key::data(name), accept(1, "\"v\""))).collect();
    store.decide(requests).await.unwrap();
    let promised = Request::Prepare {
        ballot: store.clock().ballot(),
    };
    one(&store, &Key::data("a:3"), promised).await;
    let (told, untold) = (partition_of_text("da:1"), partition_of_text("da:2"));
    assert_ne!(told, untold);
    let mut tell = Partitions::default();
    tell.insert(told);
    for (reverse, after, limit) in [
        (false, None, 9),
        (true, None, 9),
        (false, Some("da"), 2),
        (true, Some("da:3"), 1),
        (false, Some("db"), 1),
    ] {
        let list = List::Keys {
            prefix: "da".to_owned(),
            after: after.map(str::to_owned),
            reverse,
        };
        let range = ScanRange {
            prefix: "da".to_owned(),
            after: after.map(str::to_owned),
            reverse,
            tell: tell.clone(),
        };
        let page = store.page(list, limit).await.unwrap();
        let scan = store.scan(range, limit).await.unwrap();
        assert_eq!(
            (scan.end, scan.floor, scan.incarnation, scan.standing),
            (page.end, page.floor, page.incarnation, page.standing)
        );
        let records = records_of(&scan);
        assert_eq!(records.len(), page.records.len());
        for (record, held) in records.iter().zip(&page.records) {
            let (key, held) = (held.key.as_text(), &held.held);
            assert_eq!((record.key, record.accepted.ballot()), (key, held.accepted));
            let shown = held.state.as_ref().filter(|_| partition_of_text(key) == told);
            assert_eq!(record.told.is_some(), shown.is_some(), "{key}");
            if let (Some(told), Some(state)) = (record.told, shown) {
                assert_eq!(
                    (told.value, told.version.ballot(), told.expires_at_ms),
                    (state.value.as_deref(), state.version, state.expires_at_ms)
                );
            }
        }
    }
}

#[tokio::test]
async fn the_digest_of_a_scan_tells_states_apart() {
    let bench = Bench::new();
    let store = bench.open().await;
    let state = State {
        value: Some("1".into()),
        version: Ballot::ZERO,
        fence: 1,
        expires_at_ms: None,
        lineage: register::Lineage::default(),
    };
    let newer = store.clock().ballot();
    let changed = [
        state.clone(),
        State {
            value: Some("2".into()),
            ..state.clone()
        },
        State {
            value: None,
            ..state.clone()
        },
        State {
            version: newer,
            ..state.clone()
        },
        State {
            fence: 2,
            ..state.clone()
        },
        State {
            expires_at_ms: Some(1),
            ..state.clone()
        },
        State {
            lineage: register::Lineage::blind(newer, RequestId(1)),
            ..state.clone()
        },
        state,
    ];
    let accept = |(number, state): (usize, &State)| {
        let request = Request::Accept {
            ballot: newer,
            state: state.clone(),
            blind: false,
            reserve: None,
            hint_for: None,
        };
        (Key::data(&number.to_string()), request)
    };
    store
        .decide(changed.iter().enumerate().map(accept).collect())
        .await
        .unwrap();
    let range = ScanRange {
        prefix: "d".to_owned(),
        after: None,
        reverse: false,
        tell: Partitions::default(),
    };
    let scan = store.scan(range, 100).await.unwrap();
    let digests: Vec<u64> = records_of(&scan).iter().map(|record| record.digest).collect();
    assert_eq!(digests.len(), changed.len());
    assert_eq!(digests.first(), digests.last(), "equal states");
    let different: std::collections::HashSet<_> = digests.iter().collect();
    assert_eq!(different.len(), changed.len() - 1);
}

#[tokio::test]
async fn a_damaged_row_fails_its_own_key_only() {
    let bench = Bench::new();
    let store = bench.open().await;
    one(&store, &Key::data("good"), accept(1, "1")).await;
    store
        .sql("INSERT INTO records (key, commit_number, accepted, fence) VALUES ('dbad', 9, x'01', 0)")
        .await;
    let found = store.read(&[Key::data("bad"), Key::data("good")]).await;
    assert!(
        matches!(&found[0], Reply::Failed { reason } if reason.contains("bad")),
        "{found:?}"
    );
    assert!(
        matches!(&found[1], Reply::Holds(held) if value(held) == Some("1")),
        "{found:?}"
    );
    let replies = store
        .decide(vec![
            (Key::data("bad"), accept(2, "2")),
            (Key::data("good"), accept(2, "2")),
        ])
        .await;
    assert!(matches!(
        replies.unwrap()[..],
        [Reply::Failed { .. }, Reply::Accepted { .. }]
    ));
}
