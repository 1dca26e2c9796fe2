//! The commit log, from outside.

use rusqlite::Connection;

use super::*;

/// A store that was not closed, and the copy its crash leaves behind.
async fn crashed(bench: &Bench, commits: u64) -> PathBuf {
    let store = bench.open().await;
    for number in 1..=commits {
        one(&store, &Key::data(&format!("k{}", number % 5)), accept(number, "1")).await;
    }
    let copy = bench.dir.path().join("crashed.db");
    crash_copy(&bench.path(), &copy);
    copy
}

fn positions(path: &Path) -> (u64, u64) {
    let sql = "SELECT log_start, log_fresh FROM node";
    let connection = Connection::open(path).unwrap();
    let found: (i64, i64) = connection
        .query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    (found.0.cast_unsigned(), found.1.cast_unsigned())
}

#[tokio::test]
async fn whatever_the_log_has_is_found_after_a_crash_at_every_turn() {
    let mut generations = std::collections::HashSet::new();
    for commits in [1, 2, 7, 8, 9, 10, 15, 16, 17, 24, 25, 40] {
        let bench = Bench::new();
        let copy = crashed(&bench, commits).await;
        generations.insert(positions(&copy));
        let store = bench.open_at(&copy).await;
        assert_eq!(store.progress().commit, commits);
        for number in commits.saturating_sub(4).max(1)..=commits {
            let held = held(&store, &Key::data(&format!("k{}", number % 5))).await;
            assert_eq!(held.accepted, ballot(number));
        }
        store.close().await;
        let (start, fresh) = positions(&copy);
        assert_eq!(start, fresh, "the log of a node that was stopped is empty");
    }
    assert!(generations.len() >= 4, "{generations:?}");
}

#[tokio::test]
async fn a_broken_log_is_refused_and_left_alone() {
    let breaks = [
        (
            "UPDATE log SET bytes = zeroblob(4048) WHERE slot = (SELECT log_start % 16 FROM node)",
            "before slot",
        ),
        (
            "UPDATE log SET bytes = CAST(substr(bytes, 1, 12) || x'09' || substr(bytes, 14) AS BLOB)
             WHERE slot = (SELECT log_start % 16 FROM node)",
            "has form 9",
        ),
        (
            "UPDATE log SET bytes = CAST(substr(bytes, 1, 8) || x'FFFFFF0F' || substr(bytes, 13) AS BLOB)
             WHERE slot = (SELECT log_start % 16 FROM node)",
            "bytes",
        ),
        (
            "UPDATE log SET bytes = x'01' WHERE slot = (SELECT log_start % 16 FROM node)",
            "too short",
        ),
    ];
    for (break_it, told) in breaks {
        let bench = Bench::new();
        let copy = crashed(&bench, 20).await;
        let connection = Connection::open(&copy).unwrap();
        connection.execute_batch(break_it).unwrap();
        drop(connection);
        let error = Store::open(&copy, bench.options()).unwrap_err();
        assert!(matches!(error, OpenError::Corrupt { .. }), "{error:?}");
        let text = error.to_string();
        assert!(
            text.contains("crashed.db") && text.contains("commit log") && text.contains(told),
            "{text}"
        );
    }
}

/// What the log is for: pages written per commit, whatever the size of the table.
#[tokio::test]
async fn a_commit_writes_few_pages() {
    const PAGE_AND_HEADER: u64 = 4_096 + 24;
    const COMMITS: u64 = 64;
    let bench = Bench::new();
    let store = bench.open().await;
    let value = format!("\"{}\"", "x".repeat(200));
    let key = |number: u64| Key::data(&format!("{:04}", number * 7_919 % 2_000));
    let rows = (0..2_000).map(|number| (key(number), accept(1, &value)));
    store.decide(rows.collect()).await.unwrap();
    let wal = || {
        std::fs::metadata(format!("{}-wal", bench.path().display()))
            .unwrap()
            .len()
    };
    // Eight records spread over the table each time, the same sixty-four of them again and again.
    let write = async |commit: u64| {
        let records = (0..8).map(|number| (key((commit % 8) * 8 + number), accept(commit + 2, &value)));
        let replies = store.decide(records.collect()).await.unwrap();
        assert!(
            replies.iter().all(|reply| matches!(reply, Reply::Accepted { .. })),
            "{replies:?}"
        );
    };
    for commit in 0..COMMITS {
        write(commit).await;
    }
    let before = wal();
    for commit in COMMITS..2 * COMMITS {
        write(commit).await;
    }
    let pages = (wal() - before) / PAGE_AND_HEADER;
    // A page of the log each; sixty-four records, each on a page of its own, once in a generation of eight; the node's row.
    assert!(
        pages <= COMMITS * (1 + 8 + 1),
        "{pages} pages for {COMMITS} commits of 8 records"
    );
    assert!(pages >= COMMITS, "{pages} pages for {COMMITS} commits");
}

/// Found under load: while a commit that begins a generation ended with a checkpoint, lists gave up and the node was taken for ill.
#[tokio::test]
async fn a_list_waits_for_the_writer_to_tell_of_what_the_table_shows() {
    let bench = Bench::new();
    let store = bench.open().await;
    one(&store, &Key::data("k"), accept(1, "1")).await;
    store.sql("UPDATE node SET log_fresh = log_fresh + 1").await;
    let list = List::Keys {
        prefix: "d".to_owned(),
        after: None,
        reverse: false,
    };
    let mut page = std::pin::pin!(store.page(list, 10));
    let early = tokio::time::timeout(Duration::from_millis(50), &mut page).await;
    assert!(
        early.is_err(),
        "the table and the log do not belong together: {early:?}"
    );
    store.sql("UPDATE node SET log_fresh = log_fresh - 1").await;
    assert_eq!(page.await.unwrap().records.len(), 1);
}
