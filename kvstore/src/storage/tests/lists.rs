//! What may be collected, leaves of the hash tree, the feed of changes.

use std::collections::HashSet;

use register::hashing::leaf_of;

use super::super::feed::MAX_WAITING;
use super::*;

fn tombstone(time: u64) -> Request {
    let mut request = accept(time, "");
    if let Request::Accept { state, .. } = &mut request {
        state.value = None;
    }
    request
}

fn ending(time: u64, expires_at_ms: u64) -> Request {
    let mut request = accept(time, "1");
    if let Request::Accept { state, .. } = &mut request {
        state.expires_at_ms = Some(expires_at_ms);
    }
    request
}

async fn names(store: &Store, list: List, limit: usize) -> (Vec<String>, bool, u64) {
    let page = store.page(list, limit).await.unwrap();
    let last = page.records.last().map_or(0, |record| record.commit);
    let names = page.records.iter().map(|record| record.key.name().to_owned()).collect();
    (names, page.end, last)
}

#[tokio::test]
async fn what_has_ended_is_listed_in_commit_order_and_nothing_else() {
    let bench = Bench::new();
    let store = bench.open().await;
    let requests = vec![
        (Key::data("tombstone"), tombstone(1)),
        (Key::data("value"), accept(1, "1")),
        (Key::data("at 5"), ending(1, 5)),
        (Key::data("at 6"), ending(1, 6)),
        (Key::data("promise"), Request::Prepare { ballot: ballot(1) }),
        (Key::data("revived"), tombstone(1)),
        (Key::data("revived"), accept(2, "1")),
        (Key::data("tombstone"), tombstone(3)),
    ];
    store.decide(requests).await.unwrap();
    let ended = |after_commit, expired_at_ms| List::Ended {
        after_commit,
        expired_at_ms,
    };
    let (found, end, _) = names(&store, ended(0, 5), 10).await;
    assert_eq!((found.join(", ").as_str(), end), ("at 5, promise, tombstone", true));
    let (found, end, last) = names(&store, ended(0, 6), 2).await;
    assert_eq!((found.join(", ").as_str(), end), ("at 5, at 6", false));
    let (found, end, _) = names(&store, ended(last, 6), 2).await;
    assert_eq!((found.join(", ").as_str(), end), ("promise, tombstone", true));
    assert_eq!(names(&store, ended(0, 0), 10).await.0.join(", "), "promise, tombstone");
}

/// Enough rows that a walk needs several snapshots; what it looks for is among the last ones.
#[tokio::test]
async fn a_walk_goes_on_until_it_finds_something() {
    const ROWS: usize = 10_000;
    let bench = Bench::new();
    let store = bench.open().await;
    let far_away = 1_000_000;
    let requests = (0..ROWS).map(|number| (Key::data(&format!("{number:05}")), ending(1, far_away)));
    store.decide(requests.collect()).await.unwrap();
    store.decide(vec![(Key::data("last"), tombstone(1))]).await.unwrap();
    let ended = List::Ended {
        after_commit: 0,
        expired_at_ms: 5,
    };
    assert_eq!(names(&store, ended, 10).await.0, ["last"]);
    let ended = List::Ended {
        after_commit: store.progress().commit,
        expired_at_ms: 5,
    };
    assert_eq!(names(&store, ended, 10).await, (vec![], true, 0));

    let leaves: HashSet<usize> = [9_998, 9_999]
        .map(|number| leaf_of(&Key::data(&format!("{number:05}"))))
        .into();
    let expected: Vec<String> = (0..ROWS)
        .map(|number| format!("{number:05}"))
        .filter(|name| leaves.contains(&leaf_of(&Key::data(name))))
        .collect();
    let leaves: Vec<u32> = leaves.into_iter().map(|leaf| leaf.try_into().unwrap()).collect();
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let list = List::Leaves {
            leaves: leaves.clone(),
            after: after.clone(),
        };
        let page = store.page(list, 1).await.unwrap();
        for record in &page.records {
            assert_eq!((record.held.accepted, &record.held.state), (ballot(1), &None));
            after = Some(record.key.as_text().to_owned());
            found.push(record.key.name().to_owned());
        }
        assert!(page.end || !page.records.is_empty(), "no progress");
        if page.end {
            break;
        }
    }
    assert_eq!(found, expected);
    let none = List::Leaves {
        leaves: vec![],
        after: None,
    };
    assert_eq!(names(&store, none, 1).await, (vec![], true, 0));
}

#[tokio::test]
async fn lists_are_found_by_their_indexes() {
    let bench = Bench::new();
    let store = bench.open().await;
    store.probe().await.unwrap();
    let connection = rusqlite::Connection::open(bench.path()).unwrap();
    let plan = |sql: &str| -> String {
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let steps = statement
            .query_map([vec![0_u8; 16]], |row| row.get::<_, String>(3))
            .unwrap();
        steps.collect::<Result<Vec<_>, _>>().unwrap().join("; ")
    };
    let ended = plan(
        "SELECT value FROM records WHERE (value IS NULL OR expires_at_ms IS NOT NULL) AND commit_number > ?1 ORDER BY commit_number",
    );
    assert!(ended.contains("ended") && !ended.contains("TEMP"), "{ended}");
    let promises =
        plan("DELETE FROM records WHERE value IS NULL AND accepted IS NULL AND (promised IS NULL OR promised <= ?1)");
    assert!(promises.contains("ended"), "{promises}");
}

async fn told(store: &Store, after: u64, limit: usize) -> (Vec<(u64, String)>, u64, bool) {
    let incarnation = store.progress().incarnation;
    let stretch = store.changes(incarnation, after, limit, Duration::ZERO).await;
    let changes = stretch.changes.iter();
    let changes = changes.map(|change| {
        (
            change.commit,
            change.state.value.as_deref().unwrap_or_default().to_owned(),
        )
    });
    (changes.collect(), stretch.commit, stretch.lost)
}

#[tokio::test]
async fn the_feed_tells_every_accepted_state_once_and_in_order() {
    let bench = Bench::new();
    let store = bench.open().await;
    let a = Key::data("a");
    let requests = vec![
        (a.clone(), accept(1, "1")),
        (a.clone(), Request::Prepare { ballot: ballot(2) }),
        (a.clone(), accept(2, "2")),
        (Key::data("b"), accept(1, "3")),
        (Key::data("b"), Request::Forget { ballot: ballot(1) }),
    ];
    store.decide(requests).await.unwrap();
    let all = [(1, "1"), (3, "2"), (4, "3")].map(|(commit, value)| (commit, value.to_owned()));
    // Also what the same batch replaced: others may have seen it chosen.
    assert_eq!(told(&store, 0, 10).await, (all.to_vec(), 5, false));
    assert_eq!(told(&store, 0, 2).await, (all[..2].to_vec(), 3, false));
    assert_eq!(told(&store, 3, 2).await, (all[2..].to_vec(), 5, false));
    assert_eq!(told(&store, 5, 2).await, (vec![], 5, false));
    assert_eq!(told(&store, 6, 2).await, (vec![], 5, true), "there is no such commit");
    let other = store.progress().incarnation.wrapping_add(1);
    assert!(store.changes(other, 0, 10, Duration::ZERO).await.lost);
    store.close().await;
    let store = bench.open().await;
    assert_eq!(
        told(&store, 4, 2).await,
        (vec![], 5, true),
        "the feed began with the restart"
    );
    assert_eq!(told(&store, 5, 2).await, (vec![], 5, false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_changes_gets_all_of_them() {
    const WRITERS: u64 = 4;
    const WRITES: u64 = 50;
    let bench = Bench::new();
    let store = bench.open().await;
    let incarnation = store.progress().incarnation;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        writers.spawn(async move {
            for number in 1..=WRITES {
                one(&store, &Key::data(&writer.to_string()), accept(number, "1")).await;
            }
        });
    }
    let (mut after, mut seen) = (0, Vec::new());
    let deadline = Instant::now() + PATIENCE;
    while seen.len() < usize::try_from(WRITERS * WRITES).unwrap() {
        assert!(Instant::now() < deadline, "only {} changes were told", seen.len());
        let stretch = store.changes(incarnation, after, 7, PATIENCE).await;
        assert!(!stretch.lost && stretch.commit > after);
        after = stretch.commit;
        seen.extend(
            stretch
                .changes
                .into_iter()
                .map(|change| (change.commit, change.key, change.accepted)),
        );
    }
    assert!(seen.is_sorted_by(|(earlier, ..), (later, ..)| earlier < later));
    for writer in 0..WRITERS {
        let key = Key::data(&writer.to_string());
        let of_key: Vec<Ballot> = seen
            .iter()
            .filter(|(_, of, _)| *of == key)
            .map(|(.., at)| *at)
            .collect();
        assert_eq!(of_key, (1..=WRITES).map(ballot).collect::<Vec<_>>());
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    // Who waits when the node begins anew is told so, and who waits when it stops is let go.
    let waiting = |after| {
        let store = store.clone();
        tokio::spawn(async move { store.changes(incarnation, after, 7, PATIENCE).await })
    };
    let waits = waiting(after);
    let refill = NodeRequest::Refill {
        incarnation,
        if_commit_below: None,
        generation: 2,
        above: ballot(100),
    };
    store.node(refill, EPOCH).await.unwrap();
    let stretch = waits.await.unwrap();
    assert!(stretch.lost && stretch.incarnation == store.progress().incarnation);
    let incarnation = stretch.incarnation;
    let mut waits = tokio::task::JoinSet::new();
    for _ in 0..MAX_WAITING + 1 {
        let store = store.clone();
        waits.spawn(async move { store.changes(incarnation, after, 7, PATIENCE).await });
    }
    // One too many is answered at once, the others when the node stops.
    assert!(waits.join_next().await.unwrap().unwrap().changes.is_empty());
    assert_eq!(store.waiting(), MAX_WAITING);
    store.end_waits();
    while let Some(stretch) = waits.join_next().await {
        assert!(stretch.unwrap().changes.is_empty());
    }
    assert!(Instant::now() < deadline, "they waited for nothing");
}

#[tokio::test]
async fn a_damaged_record_is_left_out_of_walks() {
    let bench = Bench::new();
    let store = bench.open().await;
    store
        .sql("INSERT INTO records (key, commit_number, accepted, fence) VALUES ('dbad', 1, x'01', 0)")
        .await;
    store
        .decide(vec![(Key::data("a"), tombstone(1)), (Key::data("c"), tombstone(1))])
        .await
        .unwrap();
    let ended = List::Ended {
        after_commit: 0,
        expired_at_ms: 0,
    };
    assert_eq!(names(&store, ended, 10).await.0, ["a", "c"]);
}
