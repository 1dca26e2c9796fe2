//! What the cache of records costs: a hit, and a record put in where the least recently used one has to go.
//!
//! The cache is no business of other crates, so its source is compiled in here.

#[path = "../src/storage/cache.rs"]
#[expect(
    dead_code,
    unreachable_pub,
    reason = "the rest of it is the store's; what is public there is not here"
)]
mod cache;

/// Where the cache looks for it.
mod rows {
    pub(super) use kvstore::storage::Stored;
}

use std::hint::black_box;
use std::sync::Arc;

use criterion::Criterion;
use register::{Ballot, HlcTime, Key, Lineage, Record, RequestId, State};

use cache::{Cache, CacheLimits};
use rows::Stored;

const VALUE_BYTES: usize = 256;
/// Records in the cache: its default limit.
const ITEMS: usize = 10_000;
/// Keys about, when there are more than fit.
const KEYS: usize = 100_000;
/// A step through the keys that meets all of them, in no order that a cache of the processor could foresee: prime, and no divisor of either
/// number.
const STEP: usize = 7_919;

fn stored(number: usize) -> (Key, Arc<Stored>) {
    let ballot = Ballot {
        time: HlcTime::from_unix_ms(1_800_000_000_000 + number as u64),
        incarnation: 7,
    };
    let state = State {
        value: Some(Arc::from("x".repeat(VALUE_BYTES))),
        version: ballot,
        fence: 0,
        expires_at_ms: None,
        lineage: Lineage::blind(ballot, RequestId(1 + number as u64)),
    };
    let record = Record {
        accepted: ballot,
        state: Some(state),
        promised: ballot,
        floor: Ballot::ZERO,
        hint_for: None,
    };
    let commit = number as u64;
    (
        Key::data(&format!("bench-{number:08}")),
        Arc::new(Stored { record, commit }),
    )
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let records: Vec<_> = (0..KEYS).map(stored).collect();
    let limits = CacheLimits {
        items: ITEMS,
        bytes: usize::MAX,
    };
    let mut cache = Cache::new(limits);
    for (key, stored) in &records[..ITEMS] {
        cache.put(key.clone(), Arc::clone(stored));
    }
    assert_eq!(cache.items(), ITEMS);
    let mut group = criterion.benchmark_group("cache");
    let mut next = 0;
    group.bench_function("get, a hit", |bencher| {
        bencher.iter(|| {
            next = (next + STEP) % ITEMS;
            cache.get(black_box(&records[next].0)).expect("it is in the cache")
        });
    });
    group.bench_function("put over an older one", |bencher| {
        bencher.iter(|| {
            next = (next + STEP) % ITEMS;
            let (key, stored) = &records[next];
            cache.put(black_box(key).clone(), Arc::clone(stored));
        });
    });
    // A key's turn comes again only after all the others, when it has long gone.
    group.bench_function("put, another goes", |bencher| {
        bencher.iter(|| {
            next = (next + STEP) % KEYS;
            let (key, stored) = &records[next];
            cache.put(black_box(key).clone(), Arc::clone(stored));
        });
    });
    assert_eq!(cache.items(), ITEMS);
    group.finish();
    criterion.final_summary();
}
