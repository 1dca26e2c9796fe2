//! Whether the node counts: durable, of one moment with what is told, and apart from the node's own API.

use std::sync::atomic::{AtomicBool, Ordering};

use register::hashing::HashTree;
use register::membership::Peer;

use super::*;

fn peer(name: &str, commit: u64) -> Peer {
    Peer {
        name: name.into(),
        generation: 1,
        incarnation: 4,
        commit,
    }
}

#[tokio::test]
async fn what_was_told_of_the_node_is_found_after_a_restart_and_after_a_crash() {
    let bench = Bench::new();
    let store = bench.open_unadmitted();
    let (_, blank) = store.node(NodeRequest::Status, EPOCH).await.unwrap();
    assert_eq!(
        (blank.standing, blank.generation, blank.epoch),
        (Standing::Blank, 0, None)
    );
    admit(&store).await;
    one(&store, &Key::data("a"), accept(5, "1")).await;
    let peers = vec![peer("b", 3), peer("c", 9)];
    store.node(NodeRequest::Remember { peers }, EPOCH).await.unwrap();
    let refill = NodeRequest::Refill {
        incarnation: blank.incarnation,
        if_commit_below: None,
        generation: 2,
        above: ballot(20),
    };
    let (done, filling) = store.node(refill.clone(), EPOCH).await.unwrap();
    assert!(done && filling.incarnation != blank.incarnation);
    assert_eq!(filling.standing, Standing::Filling { above: ballot(20) });
    assert_eq!(
        (filling.commit, filling.floor, filling.peers.len()),
        (1, ballot(20), 2),
        "none of it takes a commit number"
    );
    assert_eq!(store.clock().incarnation(), filling.incarnation);
    assert!(!store.node(refill, EPOCH).await.unwrap().0, "said before");

    let copy = bench.dir.path().join("after-crash.db");
    crash_copy(&bench.path(), &copy);
    store.close().await;
    for path in [copy, bench.path()] {
        let store = Store::open(&path, bench.options()).unwrap();
        let found = store.node(NodeRequest::Status, EPOCH).await.unwrap().1;
        assert_eq!(found, filling.clone().after_restart());
        assert_eq!(
            found.standing,
            Standing::Blank,
            "its disk may be a copy from the middle of the filling"
        );
        assert_eq!(store.clock().incarnation(), filling.incarnation);
        let vote = |incarnation, at| NodeRequest::Vote {
            incarnation,
            above: ballot(at),
        };
        assert!(
            !store.node(vote(filling.incarnation, 20), EPOCH).await.unwrap().0,
            "late"
        );
        let refill = NodeRequest::Refill {
            incarnation: filling.incarnation,
            if_commit_below: None,
            generation: 3,
            above: ballot(30),
        };
        let (done, again) = store.node(refill, EPOCH).await.unwrap();
        assert!(done && again.incarnation != filling.incarnation);
        assert!(store.node(vote(again.incarnation, 30), EPOCH).await.unwrap().0);
        store.close().await;
        let store = Store::open(&path, bench.options()).unwrap();
        assert_eq!(
            store.progress().standing,
            Standing::Returned,
            "its disk may be an old copy"
        );
        admit(&store).await;
        assert_eq!(store.metrics.records.get(), 0, "what was not filled is dropped");
    }
}

#[tokio::test]
async fn changes_of_its_own_do_not_make_an_old_disk_look_newer() {
    let bench = Bench::new();
    let store = bench.open().await;
    one(&store, &Key::data("a"), accept(5, "1")).await;
    store.close().await;
    for round in 0..2 {
        // The second time it was never admitted in between.
        let store = bench.open_unadmitted();
        let put = Command::Put {
            value: "1".into(),
            ttl_ms: None,
            fence: None,
        };
        store.change(Key::data("b"), put, RequestId(1)).await.unwrap();
        let (_, status) = store.node(NodeRequest::Status, EPOCH).await.unwrap();
        assert_eq!(
            (status.standing, status.commit),
            (Standing::Returned, 1),
            "round {round}"
        );
        assert_eq!(store.progress().commit, 1);
        let suspected = NodeRequest::Refill {
            incarnation: status.incarnation,
            if_commit_below: Some(1),
            generation: 2,
            above: ballot(9),
        };
        assert!(!store.node(suspected, EPOCH).await.unwrap().0, "it is not behind");
        store.close().await;
    }
    let store = bench.open().await;
    assert_eq!(store.progress().commit, 3, "compared, it counts on");
    one(&store, &Key::data("a"), accept(6, "1")).await;
    store.close().await;
    assert_eq!(bench.open_unadmitted().progress().commit, 4);
}

#[tokio::test]
async fn coordinators_are_answered_as_the_standing_allows_and_the_nodes_own_api_always() {
    let bench = Bench::new();
    let store = bench.open_unadmitted();
    let (a, b) = (Key::data("a"), Key::data("b"));
    let put = |text: &str| Command::Put {
        value: text.into(),
        ttl_ms: None,
        fence: None,
    };
    let is_failed = |replies: &[Reply]| replies.iter().all(|reply| matches!(reply, Reply::Failed { .. }));
    let ask = async |requests: Vec<Request>| {
        let requests = requests.into_iter().map(|request| (a.clone(), request)).collect();
        store.decide(requests).await.unwrap()
    };
    // Blank: nothing.
    store.change(b.clone(), put("1"), RequestId(1)).await.unwrap();
    let all = vec![Request::Read, accept(5, "1"), Request::Prepare { ballot: ballot(6) }];
    assert!(is_failed(&ask(all).await));
    assert!(is_failed(&store.read(&[a.clone(), b.clone()]).await), "cached or not");
    admit(&store).await;
    assert_eq!(ask(vec![accept(5, "1")]).await, [Reply::Accepted { reserved: false }]);
    // Filling: what is above.
    let refill = NodeRequest::Refill {
        incarnation: store.progress().incarnation,
        if_commit_below: None,
        generation: 2,
        above: ballot(10),
    };
    store.node(refill, EPOCH).await.unwrap();
    assert!(is_failed(&store.read(std::slice::from_ref(&a)).await));
    assert!(is_failed(&ask(vec![Request::Read, accept(12, "2")]).await));
    assert_eq!(
        value_of_record(&store, &a).await.as_deref(),
        Some("1"),
        "its own API shows it"
    );
    let install = Request::Install {
        ballot: ballot(11),
        state: state("3", ballot(11)),
    };
    assert_eq!(ask(vec![install, Request::Read]).await[0], Reply::Installed);
    assert_eq!(held(&store, &a).await.accepted, ballot(11));
    assert_eq!(ask(vec![accept(12, "4")]).await, [Reply::Accepted { reserved: false }]);
    store.change(a.clone(), put("5"), RequestId(2)).await.unwrap();
    let reply = store.decide_locally(Key::data("c"), accept(11, "1")).await.unwrap();
    assert_eq!(reply, Reply::Accepted { reserved: false });
}

async fn value_of_record(store: &Store, key: &Key) -> Option<Arc<str>> {
    let stored = store.record(key).await.unwrap()?;
    stored.record.state.as_ref()?.value.clone()
}

#[tokio::test]
async fn records_are_dropped_as_the_rules_say() {
    let bench = Bench::new();
    let store = bench.open().await;
    let names = ["old", "new", "hint", "promise", "high"].map(Key::data);
    let [old, new, hinted, promise, high] = names.clone();
    let requests = vec![
        (old.clone(), accept(5, "1")),
        (new.clone(), accept(15, "2")),
        (hinted.clone(), hint(6, "3")),
        (promise.clone(), Request::Prepare { ballot: ballot(7) }),
        (high.clone(), Request::Prepare { ballot: ballot(30) }),
    ];
    store.decide(requests).await.unwrap();
    let counts = || (store.metrics.records.get(), store.metrics.hints.get());
    assert_eq!(counts(), (5, 1));
    let raise = NodeRequest::Raise { floor: ballot(10) };
    let (_, status) = store.node(raise.clone(), EPOCH).await.unwrap();
    assert_eq!((status.floor, counts()), (ballot(10), (4, 1)));
    assert_eq!(
        held(&store, &promise).await.floor,
        ballot(10),
        "gone, and the floor says so"
    );
    assert_eq!(held(&store, &high).await.promised, ballot(30));
    assert_eq!(
        one(&store, &promise, accept(9, "1")).await,
        Reply::Refused { higher: ballot(10) }
    );
    let transactions = store.metrics.transactions.get();
    assert_eq!(store.node(NodeRequest::Status, EPOCH).await.unwrap().1, status);
    assert_eq!(
        store.metrics.transactions.get(),
        transactions,
        "a question is no commit"
    );

    let refill = NodeRequest::Refill {
        incarnation: status.incarnation,
        if_commit_below: None,
        generation: 2,
        above: ballot(10),
    };
    let (_, status) = store.node(refill, EPOCH).await.unwrap();
    let vote = NodeRequest::Vote {
        incarnation: status.incarnation,
        above: ballot(10),
    };
    store.node(vote, EPOCH).await.unwrap();
    assert_eq!(counts(), (1, 0));
    for gone in [old, hinted, high] {
        assert_eq!(held(&store, &gone).await.accepted, Ballot::ZERO);
    }
    assert_eq!(held(&store, &new).await.accepted, ballot(15));
    let mut tree = HashTree::default();
    tree.change(&new, Ballot::ZERO, ballot(15));
    assert_eq!(store.hashes(None), tree.roots());
}

#[tokio::test]
async fn a_full_disk_leaves_the_node_what_it_was() {
    let bench = Bench::new();
    let store = bench.open().await;
    let key = Key::data("a");
    one(&store, &key, accept(5, "1")).await;
    let (_, before) = store.node(NodeRequest::Status, EPOCH).await.unwrap();
    let hashes = store.hashes(None);
    store.sql("PRAGMA query_only = ON").await;
    let refill = NodeRequest::Refill {
        incarnation: before.incarnation,
        if_commit_below: None,
        generation: 2,
        above: ballot(10),
    };
    for request in [refill, NodeRequest::Raise { floor: ballot(9) }] {
        assert!(matches!(
            store.node(request, EPOCH).await,
            Err(StoreError::Failed { .. })
        ));
        assert_eq!(store.node(NodeRequest::Status, EPOCH).await.unwrap().1, before);
        assert_eq!(store.progress().standing, Standing::Voting);
        let found = held(&store, &key).await;
        assert_eq!((value(&found), store.hashes(None) == hashes), (Some("1"), true));
    }
    assert!(store.trouble().is_some());
}

#[tokio::test]
async fn whom_a_node_remembers_is_bounded() {
    let bench = Bench::new();
    let store = bench.open().await;
    let remember = |range: std::ops::Range<usize>| NodeRequest::Remember {
        peers: range.map(|number| peer(&format!("n{number}"), 1)).collect(),
    };
    store.node(remember(0..MAX_PEERS), EPOCH).await.unwrap();
    let refused = store.node(remember(MAX_PEERS..MAX_PEERS + 1), EPOCH).await;
    assert!(matches!(refused, Err(StoreError::Failed { reason }) if reason.contains("256")));
    assert_eq!(
        store.node(remember(0..1), EPOCH).await.unwrap().1.peers.len(),
        MAX_PEERS
    );
}

#[tokio::test]
async fn a_node_keeps_to_its_ring_until_told_to_forget_it() {
    let bench = Bench::new();
    let store = bench.open_unadmitted();
    let other = Epoch(8);
    for epoch in [EPOCH, other] {
        assert_eq!(store.compare_ring(epoch), Ok(()), "a blank node takes any");
        store.take_ring(epoch).await.unwrap();
    }
    assert_eq!(store.progress().epoch, None, "and keeps none");
    admit(&store).await;
    let own = RingError {
        own: EPOCH,
        sender: other,
    };
    assert_eq!(store.compare_ring(other), Err(own));
    assert_eq!(store.node(NodeRequest::Status, other).await, Err(StoreError::Ring(own)));
    let text = own.to_string();
    assert!(
        ["BACKENDS", "RF", "ADOPT_RING=1", "0000000000000007", "0000000000000008"]
            .iter()
            .all(|part| text.contains(part)),
        "{text}"
    );
    let refill = NodeRequest::Refill {
        incarnation: store.progress().incarnation,
        if_commit_below: None,
        generation: 2,
        above: ballot(10),
    };
    store.node(refill, EPOCH).await.unwrap();
    store.close().await;
    let store = bench.open_unadmitted();
    assert_eq!(store.compare_ring(other), Err(own), "over a restart");
    store.close().await;

    let mut options = bench.options();
    options.adopt_ring = true;
    let store = Store::open(&bench.path(), options).unwrap();
    assert_eq!(store.compare_ring(other), Ok(()));
    store.take_ring(other).await.unwrap();
    assert_eq!(store.progress().epoch, None, "it is to be filled from the start");
    let refill = NodeRequest::Refill {
        incarnation: store.progress().incarnation,
        if_commit_below: None,
        generation: 3,
        above: ballot(10),
    };
    assert!(store.node(refill, other).await.unwrap().0);
    assert_eq!(store.progress().epoch, Some(other));
    assert!(matches!(store.take_ring(EPOCH).await, Ok(())), "nothing more to take");
    assert!(store.compare_ring(EPOCH).is_err());
    store.close().await;
    assert_eq!(bench.open_unadmitted().progress().epoch, Some(other));
}

/// While nodes are filled and vote again, a reader never gets what was not filled: neither after `Refill` was answered nor after `Vote`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_read_is_answered_under_a_standing_of_another_moment() {
    const ROUNDS: u64 = 40;
    let mut bench = Bench::new();
    // So small that most reads go to the database.
    bench.cache = CacheLimits {
        items: 2,
        bytes: 1 << 20,
    };
    let store = bench.open().await;
    let keys: Vec<Key> = (0..8).map(|number| Key::data(&number.to_string())).collect();
    // Everything accepted up to this was dropped, or may not be told: the readers' bar.
    let bar = Arc::new(std::sync::Mutex::new(Ballot::ZERO));
    let done = Arc::new(AtomicBool::new(false));
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let (store, keys, bar, done) = (store.clone(), keys.clone(), Arc::clone(&bar), Arc::clone(&done));
        readers.spawn(async move {
            let mut told = 0_u64;
            while !done.load(Ordering::SeqCst) {
                let bar = *bar.lock().unwrap();
                for reply in store.read(&keys).await {
                    if let Reply::Holds(held) = reply {
                        assert!(
                            held.accepted.is_zero() && held.floor >= bar || held.accepted > bar,
                            "told {held:?} though nothing up to {bar} may be"
                        );
                        told += 1;
                    }
                }
                tokio::task::yield_now().await;
            }
            told
        });
    }
    for round in 1..=ROUNDS {
        let (low, above) = (ballot(round * 10), ballot(round * 10 + 5));
        let write = |key: &Key| {
            let state = state("1", low);
            let install = Request::Install { ballot: low, state };
            (key.clone(), install)
        };
        store.decide(keys.iter().map(write).collect()).await.unwrap();
        let refill = NodeRequest::Refill {
            incarnation: store.progress().incarnation,
            if_commit_below: None,
            generation: round + 1,
            above,
        };
        let (done, status) = store.node(refill, EPOCH).await.unwrap();
        assert!(done);
        *bar.lock().unwrap() = above;
        tokio::task::yield_now().await;
        let vote = NodeRequest::Vote {
            incarnation: status.incarnation,
            above,
        };
        assert!(store.node(vote, EPOCH).await.unwrap().0);
    }
    done.store(true, Ordering::SeqCst);
    let mut told = 0;
    while let Some(reader) = readers.join_next().await {
        told += reader.unwrap();
    }
    assert!(told > 0, "no reader was ever answered");
}
