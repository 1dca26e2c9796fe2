//! How fast records are written. Ignored: it measures, and judges nothing. Compare two builds on one machine:
//! `cargo test -p kvstore --lib speed -- --ignored --nocapture`

use super::*;

/// Records of one message.
const BATCH: u64 = 64;
/// Messages.
const BATCHES: u64 = 400;
/// Senders of single records.
const SENDERS: u64 = 32;
/// Records of each of them.
const SINGLES: u64 = 300;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn speed_of_writes() {
    let bench = Bench::new();
    let store = bench.open().await;
    let value = format!("\"{}\"", "x".repeat(200));
    for round in 1..=3 {
        let started = Instant::now();
        for batch in 0..BATCHES {
            let key = |number: u64| Key::data(&format!("key-{}", (batch * BATCH + number) % 5_000));
            let time = (round * BATCHES + batch) * BATCH;
            let requests = (0..BATCH).map(|number| (key(number), accept(time + number, &value)));
            let replies = store.decide(requests.collect()).await.unwrap();
            assert!(replies.iter().all(|reply| matches!(reply, Reply::Accepted { .. })));
        }
        let in_batches = per_second(BATCHES * BATCH, started);
        let started = Instant::now();
        let mut senders = tokio::task::JoinSet::new();
        for sender in 0..SENDERS {
            let (store, value) = (store.clone(), value.clone());
            senders.spawn(async move {
                for number in 0..SINGLES {
                    let key = Key::data(&format!("single-{sender}-{}", number % 50));
                    one(&store, &key, accept(round * SINGLES + number + 1, &value)).await;
                }
            });
        }
        while let Some(done) = senders.join_next().await {
            done.unwrap();
        }
        let singly = per_second(SENDERS * SINGLES, started);
        println!(
            "records per second: {in_batches:.0} in messages of {BATCH}, {singly:.0} singly from {SENDERS} senders"
        );
    }
}

/// Records in the database that is opened.
const OPENED: u64 = 200_000;

#[tokio::test]
#[ignore = "a measurement"]
async fn speed_of_opening() {
    let bench = Bench::new();
    let store = bench.open().await;
    let value = format!("\"{}\"", "x".repeat(200));
    for first in (0..OPENED).step_by(4_000) {
        let requests = (first..first + 4_000).map(|number| (Key::data(&format!("key-{number}")), accept(1, &value)));
        store.decide(requests.collect()).await.unwrap();
    }
    store.close().await;
    let started = Instant::now();
    let store = bench.open_unadmitted();
    println!("opened {OPENED} records in {:?}", started.elapsed());
    let started = Instant::now();
    super::super::tree::SharedTree::default()
        .rebuild(&rusqlite::Connection::open(bench.path()).unwrap())
        .unwrap();
    println!("of which the hash tree: {:?}", started.elapsed());
    let started = Instant::now();
    let hashes = store.hashes(None);
    println!("{} roots in {:?}", hashes.len(), started.elapsed());
    let started = Instant::now();
    let list = List::Leaves {
        leaves: vec![],
        after: None,
    };
    assert!(store.page(list, 1).await.unwrap().end);
    println!("a walk over all leaves: {:?}", started.elapsed());
}

#[expect(clippy::cast_precision_loss, reason = "a measurement")]
fn per_second(count: u64, since: Instant) -> f64 {
    count as f64 / since.elapsed().as_secs_f64()
}
