//! The store as a whole: durability, group commit, failures, concurrency.

use std::path::{Path, PathBuf};
use std::time::Instant;

use proptest::prelude::*;
use register::message::PageReply;
use register::{HlcTime, State};
use service::metrics::Metrics;
use tempfile::TempDir;

use super::*;
use crate::clock::system_clock;

/// Deadline of every wait in these tests.
const PATIENCE: Duration = Duration::from_secs(20);

struct Bench {
    dir: TempDir,
    cache: CacheLimits,
}

impl Bench {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            cache: CacheLimits {
                items: 100,
                bytes: 1 << 20,
            },
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("kv.db")
    }

    fn open(&self) -> Store {
        self.open_at(&self.path())
    }

    fn open_at(&self, path: &Path) -> Store {
        Store::open(path, self.options()).unwrap()
    }

    fn options(&self) -> StoreOptions {
        StoreOptions {
            cache: self.cache,
            max_clock_skew_ms: 500,
            wall: system_clock(),
            new_incarnation: rand::random(),
            metrics: StoreMetrics::new(&Metrics::new("kvstore")),
        }
    }
}

fn ballot(time: u64) -> Ballot {
    Ballot {
        time: HlcTime::from_bits(time),
        incarnation: 9,
    }
}

fn state(value: &str, at: Ballot) -> State {
    State {
        value: Some(value.into()),
        version: at,
        fence: 0,
        expires_at_ms: None,
        recent: vec![RequestId(3)],
    }
}

fn accept(time: u64, value: &str) -> Request {
    let ballot = ballot(time);
    Request::Accept {
        ballot,
        state: state(value, ballot),
        blind: true,
        reserve: None,
        hint_for: None,
    }
}

fn hint(time: u64, value: &str) -> Request {
    let ballot = ballot(time);
    let hint_for = Some("http://home:9000".into());
    Request::Accept {
        ballot,
        state: state(value, ballot),
        blind: true,
        reserve: None,
        hint_for,
    }
}

async fn one(store: &Store, key: &Key, request: Request) -> Reply {
    store.decide(vec![(key.clone(), request)]).await.unwrap().pop().unwrap()
}

async fn held(store: &Store, key: &Key) -> Held {
    store.read(std::slice::from_ref(key)).await.pop().unwrap().unwrap()
}

fn value(held: &Held) -> Option<&str> {
    held.state.as_ref()?.value.as_deref()
}

/// Files as a crash at this moment would leave them.
fn crash_copy(from: &Path, to: &Path) {
    for suffix in ["", "-wal"] {
        let name = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
        std::fs::copy(name(from), name(to)).unwrap();
    }
}

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
    assert_eq!(
        store.progress(),
        Progress {
            commit: 6,
            floor: ballot(50)
        }
    );
}

#[tokio::test]
async fn a_restart_keeps_everything() {
    let bench = Bench::new();
    let store = bench.open();
    let incarnation = store.incarnation();
    fill_with_everything(&store).await;
    everything_is_there(&store).await;
    store.close().await;
    assert_eq!(store.decide(vec![]).await, Err(StoreError::Closed));
    let store = bench.open();
    everything_is_there(&store).await;
    assert_eq!(store.incarnation(), incarnation);
    assert!(
        store.clock().last() >= HlcTime::from_bits(50),
        "above all it has seen, dropped or not"
    );
    assert_eq!((store.metrics.records.get(), store.metrics.hints.get()), (3, 1));
}

#[tokio::test]
async fn a_crash_keeps_what_was_answered() {
    let bench = Bench::new();
    let store = bench.open();
    fill_with_everything(&store).await;
    let copy = bench.dir.path().join("after-crash.db");
    crash_copy(&bench.path(), &copy);
    let after = bench.open_at(&copy);
    everything_is_there(&after).await;
    assert_eq!(after.incarnation(), store.incarnation());
}

#[tokio::test]
async fn a_torn_log_loses_whole_commits_only() {
    let bench = Bench::new();
    let store = bench.open();
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

#[tokio::test]
async fn requests_of_one_batch_see_each_other() {
    let bench = Bench::new();
    let store = bench.open();
    let key = Key::data("a");
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
    assert_eq!(store.metrics.transactions.get(), 1);
    assert_eq!(value(&held(&store, &key).await), Some("2"));
}

#[tokio::test]
async fn what_changes_nothing_costs_no_commit() {
    let bench = Bench::new();
    let store = bench.open();
    let key = Key::data("a");
    one(&store, &key, accept(5, "1")).await;
    assert_eq!(
        one(&store, &key, accept(5, "1")).await,
        Reply::Accepted { reserved: false }
    );
    assert_eq!(
        one(&store, &key, accept(4, "1")).await,
        Reply::Refused { higher: ballot(5) }
    );
    assert_eq!(store.metrics.transactions.get(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_queues_up_is_committed_together() {
    let bench = Bench::new();
    let store = bench.open();
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
    let store = bench.open();
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
                    let found = found.unwrap();
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

async fn sql(store: &Store, sql: &'static str) {
    store.ask(|answer| Job::Sql { sql, answer }).await.unwrap();
}

async fn failing_disk(break_it: &'static str, mend_it: &'static str) {
    let bench = Bench::new();
    let store = bench.open();
    let key = Key::data("a");
    one(&store, &key, accept(1, "1")).await;
    sql(&store, break_it).await;
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
    sql(&store, mend_it).await;
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
    let store = bench.open();
    // A deferred constraint is judged by COMMIT itself: the fence commit runs into it as well, so the outcome counts as unknown.
    sql(
        &store,
        "CREATE TABLE parent (id INTEGER PRIMARY KEY);
         CREATE TABLE child (id REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
         CREATE TRIGGER fail AFTER UPDATE ON node BEGIN INSERT INTO child VALUES (7); END;",
    )
    .await;
    let result = store.decide(vec![(Key::data("a"), accept(1, "1"))]).await;
    assert!(matches!(result, Err(StoreError::Unknown { .. })), "{result:?}");
    assert!(store.probe().await.is_err());
    sql(&store, "DROP TRIGGER fail").await;
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
    let store = bench.open();
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
    let store = bench.open();
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
    let store = bench.open();
    assert_eq!(store.progress().commit, done);
}

#[tokio::test]
async fn local_changes_pass_promises_of_others() {
    let bench = Bench::new();
    let store = bench.open();
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
    let store = bench.open();
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
async fn pages_walk_keys_both_ways_and_hints_by_commit() {
    let bench = Bench::new();
    let store = bench.open();
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
    let store = bench.open();
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
        incarnation: 1,
        records: page.records,
        end: page.end,
    };
    assert!(postcard::to_stdvec(&reply).unwrap().len() < 2 * MAX_PAGE_BYTES);
}

#[tokio::test]
async fn a_damaged_row_fails_its_own_key_only() {
    let bench = Bench::new();
    let store = bench.open();
    one(&store, &Key::data("good"), accept(1, "1")).await;
    sql(
        &store,
        "INSERT INTO records (key, commit_number, accepted, fence) VALUES ('dbad', 9, x'01', 0)",
    )
    .await;
    let found = store.read(&[Key::data("bad"), Key::data("good")]).await;
    assert!(
        matches!(&found[0], Err(StoreError::Failed { reason }) if reason.contains("bad")),
        "{found:?}"
    );
    assert_eq!(value(found[1].as_ref().unwrap()), Some("1"));
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

#[derive(Debug, Clone)]
enum Step {
    Decide(Vec<(u8, Request)>),
    Read(u8),
    Reopen,
}

fn requests() -> impl Strategy<Value = Request> {
    let times = 1u64..12;
    let install = |time: u64| Request::Install {
        ballot: ballot(time),
        state: state(&time.to_string(), ballot(time)),
    };
    prop_oneof![
        1 => Just(Request::Read),
        1 => times.clone().prop_map(|time| Request::Prepare { ballot: ballot(time) }),
        4 => times.clone().prop_map(|time| accept(time, &time.to_string())),
        1 => times.clone().prop_map(|time| hint(time, &time.to_string())),
        1 => times.clone().prop_map(install),
        1 => times.prop_map(|time| Request::Forget { ballot: ballot(time) }),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => proptest::collection::vec((0u8..4, requests()), 1..6).prop_map(Step::Decide),
        4 => (0u8..4).prop_map(Step::Read),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// With cache, batches, SQLite and restarts the store answers exactly like the pure acceptor over a map.
    #[test]
    fn the_store_is_the_acceptor(steps in steps(), items in 0usize..4) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut bench = Bench::new();
            bench.cache = CacheLimits { items, bytes: 1 << 20 };
            let mut store = bench.open();
            let mut model: std::collections::BTreeMap<u8, register::Record> = std::collections::BTreeMap::new();
            let mut floor = Ballot::ZERO;
            for step in steps {
                match step {
                    Step::Decide(requests) => {
                        let named = requests.iter().map(|(key, request)| (Key::data(&key.to_string()), request.clone())).collect();
                        let expected: Vec<Reply> = requests
                            .iter()
                            .map(|(key, request)| {
                                let decision = acceptor::decide(model.get(key), floor, request);
                                match decision.change {
                                    acceptor::Change::Nothing => {}
                                    acceptor::Change::Put(record) => drop(model.insert(*key, record)),
                                    acceptor::Change::Remove { floor: raised } => {
                                        floor = raised;
                                        model.remove(key);
                                    }
                                }
                                decision.reply
                            })
                            .collect();
                        prop_assert_eq!(store.decide(named).await.unwrap(), expected);
                    }
                    Step::Read(key) => {
                        let found = held(&store, &Key::data(&key.to_string())).await;
                        prop_assert_eq!(found, acceptor::held(model.get(&key), floor));
                    }
                    Step::Reopen => {
                        store.close().await;
                        store = bench.open();
                    }
                }
                prop_assert_eq!(store.progress().floor, floor);
                let hints = model.values().filter(|record| record.hint_for.is_some()).count();
                let page = store.page(List::Hints { after_commit: 0 }, 100).await.unwrap();
                prop_assert_eq!(page.records.len(), hints);
                prop_assert_eq!(page.commit, store.progress().commit);
                store.probe().await.unwrap();
                prop_assert_eq!(usize::try_from(store.metrics.records.get()).unwrap(), model.len());
                prop_assert_eq!(usize::try_from(store.metrics.hints.get()).unwrap(), hints);
            }
            store.close().await;
            Ok(())
        })?;
    }
}
