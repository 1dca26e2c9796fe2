//! How fast records are written, read, and opened. Ignored: it measures, and judges nothing. Compare two builds on one machine:
//! `cargo test -p kvstore --lib speed -- --ignored --nocapture`

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use register::Record;

use super::super::rows;
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
    let value = format!("\"{}\"", "x".repeat(254));
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
const OPENED: u64 = 1_000_000;

#[tokio::test]
#[ignore = "a measurement"]
async fn speed_of_opening() {
    let bench = Bench::new();
    let store = bench.open().await;
    let value = format!("\"{}\"", "x".repeat(254));
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

/// Records that are read from.
const READ_FROM: u64 = 670_000;
/// Keys of one call.
const READ_KEYS: usize = 8;
/// Tasks that read.
const READERS: u64 = 8;
/// Calls of each of them.
const READS: usize = 4_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "a measurement"]
async fn speed_of_reads() {
    let bench = Bench::new();
    bench.open().await.close().await;
    let mut connection = rusqlite::Connection::open(bench.path()).unwrap();
    let transaction = connection.transaction().unwrap();
    let key = |number: u64| Key::data(&format!("bench-k-{number:08}"));
    let at = ballot(1);
    for number in 0..READ_FROM {
        let record = Record {
            accepted: at,
            state: Some(state(&format!("\"{number:0250}\""), at)),
            promised: at,
            floor: Ballot::ZERO,
            hint_for: None,
        };
        let stored = Stored { record, commit: number };
        rows::write_record(&transaction, &key(number), &stored, false).unwrap();
    }
    transaction.commit().unwrap();
    drop(connection);
    let store = bench.open_unadmitted();
    for (round, from) in (1_u64..).zip(["on the spot", "in threads"].into_iter().cycle().take(6)) {
        store.readers.only_in_threads(from == "in threads");
        let (started, cpu) = (Instant::now(), cpu_time());
        let mut readers = tokio::task::JoinSet::new();
        for reader in 0..READERS {
            let store = store.clone();
            let mut random = SmallRng::seed_from_u64(round * READERS + reader);
            readers.spawn(async move {
                for _ in 0..READS {
                    let keys: Vec<Key> = (0..READ_KEYS).map(|_| key(random.random_range(0..READ_FROM))).collect();
                    let rows = store.readers.records(keys).await.unwrap();
                    assert!(rows.iter().all(|(_, row)| matches!(row, Ok(Some(_)))));
                }
            });
        }
        readers.join_all().await;
        let count = READERS * (READS * READ_KEYS) as u64;
        let used = (cpu_time() - cpu) / u32::try_from(count).unwrap();
        println!(
            "{:.0} records per second, {used:?} of processor time each, read {from}",
            per_second(count, started)
        );
    }
}

/// Processor time this process has used so far.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // After the name: fields from 3 on; user and system time are 14 and 15, in hundredths.
    let fields = stat.rsplit(')').next().unwrap().split_ascii_whitespace();
    let ticks = fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap());
    Duration::from_millis(10 * ticks.sum::<u64>())
}

#[expect(clippy::cast_precision_loss, reason = "a measurement")]
fn per_second(count: u64, since: Instant) -> f64 {
    count as f64 / since.elapsed().as_secs_f64()
}
