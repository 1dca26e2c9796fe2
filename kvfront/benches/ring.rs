//! What it costs to find out where a key lives, and to make the table that says so.

use std::hint::black_box;

use criterion::Criterion;
use kvfront::ring::{Backend, Ring};
use register::Key;

const BACKENDS: &str = "http://kvstore_a:9000,http://kvstore_b:9000,http://kvstore_c:9000";
const RF: usize = 2;
/// Keys that are looked up in turn.
const KEYS: usize = 1_000;

fn ring() -> Ring {
    Ring::new(Backend::parse_list(BACKENDS).expect("three URLs"), RF).expect("two of three")
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let ring = ring();
    // As long as the keys of deliveries: their ids are UUIDs.
    let keys: Vec<_> = (0..KEYS)
        .map(|number| Key::data(&format!("delivery:0192f3a4-7b5c-7d6e-8f90-{number:012}")))
        .collect();
    let mut group = criterion.benchmark_group("ring");
    let mut turn = keys.iter().cycle();
    group.bench_function("preference of a key", |bencher| {
        bencher.iter(|| {
            black_box(&ring)
                .preference(black_box(turn.next().expect("an endless turn")))
                .quorum()
        });
    });
    group.bench_function("table of three nodes", |bencher| bencher.iter(self::ring));
    group.finish();
    criterion.final_summary();
}
