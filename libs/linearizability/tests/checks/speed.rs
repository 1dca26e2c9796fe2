//! How fast it is: `cargo test --release -p linearizability --test checks -- --ignored --nocapture speed`.

use std::time::Instant;

use linearizability::{Checker, Entry};

use crate::workload::{LOCK, REGISTER, Workload};

/// Histories per kind, and how often each is judged.
const HISTORIES: u64 = 500;
const ROUNDS: u32 = 40;

#[expect(clippy::print_stdout, reason = "the result of a measurement")]
fn measure(name: &str, workload: Workload, histories: u64, rounds: u32) {
    let histories: Vec<Vec<Entry>> = (0..histories).map(|seed| workload.history(seed)).collect();
    let operations: usize = histories.iter().map(Vec::len).sum();
    let mut checker = Checker::new();
    let started = Instant::now();
    for _ in 0..rounds {
        for history in &histories {
            checker.check(history).expect("right by construction");
        }
    }
    let took_s = started.elapsed().as_secs_f64() / f64::from(rounds);
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let (checks, operations) = (histories.len() as f64 / took_s, operations as f64 / took_s);
    println!("{name:>28}: {checks:>10.0} checks/s, {operations:>10.0} operations/s");
}

#[test]
#[ignore = "a measurement, for release builds"]
fn speed() {
    let small = |name, workload| measure(name, workload, HISTORIES, ROUNDS);
    small("15 operations of 4 clients", REGISTER);
    small(
        "and failed CAS say more",
        Workload {
            missed: true,
            ..REGISTER
        },
    );
    small(
        "and fences",
        Workload {
            fenced: 0.5,
            ..REGISTER
        },
    );
    small(
        "and ends",
        Workload {
            ending: 0.3,
            ..REGISTER
        },
    );
    small("lock", LOCK);
    small(
        "60 operations of 4 clients",
        Workload {
            operations: 60,
            ..REGISTER
        },
    );
    let long = Workload {
        operations: 5_000,
        clients: 32,
        unknown: 0.03,
        ..REGISTER
    };
    measure("5000 of 32 clients", long, 5, 2);
    measure(
        "5000, lock, ends",
        Workload {
            ending: 1.0,
            model: LOCK.model,
            ..long
        },
        5,
        2,
    );
}
