//! What a restart and a crash leave behind.

use super::*;

async fn fill_with_everything(store: &Store) {
    let (a, b, c, d) = (Key::data("a"), Key::data("b"), Key::lock("c"), Key::data("d"));
    let requests = vec![
        (a.clone(), accept(10, "1")),
        (a, Request::Prepare { ballot: ballot(20) }),
        (b, Request::Prepare { ballot: ballot(30) }),
        (c, hint(40, "\"held\"")),
        (d.clone(), accept(50, "2")),
        (d, Request::Forget { ballot: ballot(50) }),
    ];
    let replies = store.decide(requests).await.unwrap();
    assert!(
        matches!(
            replies[..],
            [
                Reply::Accepted { .. },
                Reply::Promised(_),
                Reply::Promised(_),
                Reply::Accepted { .. },
                Reply::Accepted { .. },
                Reply::Forgotten
            ]
        ),
        "{replies:?}"
    );
}

async fn everything_is_there(store: &Store) {
    let a = held(store, &Key::data("a")).await;
    assert_eq!((value(&a), a.accepted, a.promised), (Some("1"), ballot(10), ballot(20)));
    assert_eq!(a.state.unwrap(), state("1", ballot(10)));
    let b = held(store, &Key::data("b")).await;
    assert_eq!((value(&b), b.promised), (None, ballot(30)));
    assert_eq!(b.floor, Ballot::ZERO, "the floor from before the dropping");
    let page = store.page(List::Hints { after_commit: 0 }, 10).await.unwrap();
    assert_eq!(page.records.len(), 1);
    assert_eq!(
        (page.records[0].key.clone(), page.records[0].hint_for.as_deref()),
        (Key::lock("c"), Some("http://home:9000"))
    );
    let d = held(store, &Key::data("d")).await;
    assert_eq!((d.state, d.floor), (None, ballot(50)));
    assert_eq!((store.progress().commit, store.progress().floor), (6, ballot(50)));
}

#[tokio::test]
async fn a_restart_keeps_everything() {
    let bench = Bench::new();
    let store = bench.open().await;
    let incarnation = store.progress().incarnation;
    fill_with_everything(&store).await;
    everything_is_there(&store).await;
    store.close().await;
    assert_eq!(store.decide(vec![]).await, Err(StoreError::Closed));
    let store = bench.open().await;
    everything_is_there(&store).await;
    assert_eq!(store.progress().incarnation, incarnation);
    assert!(
        store.clock().last() >= HlcTime::from_bits(50),
        "above all it has seen, dropped or not"
    );
    assert_eq!((store.metrics.records.get(), store.metrics.hints.get()), (3, 1));
}

#[tokio::test]
async fn a_crash_keeps_what_was_answered() {
    let bench = Bench::new();
    let store = bench.open().await;
    fill_with_everything(&store).await;
    let copy = bench.dir.path().join("after-crash.db");
    crash_copy(&bench.path(), &copy);
    let after = bench.open_at(&copy).await;
    everything_is_there(&after).await;
    assert_eq!(after.progress().incarnation, store.progress().incarnation);
}

#[tokio::test]
async fn a_torn_log_loses_whole_commits_only() {
    let bench = Bench::new();
    let store = bench.open().await;
    for number in 1..=20u64 {
        let text = number.to_string();
        let pair = vec![
            (Key::data("a"), accept(number, &text)),
            (Key::data("b"), accept(number, &text)),
        ];
        store.decide(pair).await.unwrap();
    }
    let copy = bench.dir.path().join("torn.db");
    crash_copy(&bench.path(), &copy);
    let log = PathBuf::from(format!("{}-wal", copy.display()));
    let whole = std::fs::read(&log).unwrap();
    let mut seen = Vec::new();
    for cut in (0..=whole.len()).rev().step_by(whole.len() / 40) {
        std::fs::write(&log, &whole[..cut]).unwrap();
        let Ok(torn) = Store::open(&copy, bench.options()) else {
            // Without its log the file may not even have the schema's commit; that is refused or made anew, never half read.
            continue;
        };
        admit(&torn).await;
        let (a, b) = (held(&torn, &Key::data("a")).await, held(&torn, &Key::data("b")).await);
        assert_eq!(value(&a), value(&b), "half a commit at {cut} bytes");
        assert_eq!(a.accepted.time.to_bits() * 2, torn.progress().commit);
        seen.push(a.accepted);
        torn.close().await;
        for suffix in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{suffix}", copy.display()));
        }
        crash_copy(&bench.path(), &copy);
    }
    assert!(
        seen.len() > 10 && seen.is_sorted_by(|later, earlier| later >= earlier),
        "{seen:?}"
    );
}
