//! Thousands of operations on one key.

use std::time::Instant;

use linearizability::{Entry, NEVER, Op, ViolationKind, check};

use crate::workload::{LOCK, REGISTER, Workload, with_a_lie};

const LONG: Workload = Workload {
    operations: 5_000,
    clients: 16,
    unknown: 0.03,
    missed: true,
    ..REGISTER
};

/// All that a long workload may be.
fn workloads() -> Vec<(&'static str, Workload)> {
    let crowd = Workload { clients: 32, ..LONG };
    vec![
        ("plain", LONG),
        ("crowd", crowd),
        ("failed cas that say nothing", Workload { missed: false, ..crowd }),
        ("mostly writes", Workload { blind: 0.8, ..crowd }),
        ("fenced", Workload { fenced: 0.5, ..LONG }),
        ("ending", Workload { ending: 0.5, ..LONG }),
        ("many unknown", Workload { unknown: 0.1, ..crowd }),
        (
            "lock",
            Workload {
                operations: 5_000,
                clients: 32,
                unknown: 0.03,
                ..LOCK
            },
        ),
        (
            "ending lock",
            Workload {
                operations: 5_000,
                clients: 32,
                unknown: 0.03,
                ending: 1.0,
                ..LOCK
            },
        ),
    ]
}

#[test]
fn right_ones_are_accepted() {
    for (name, workload) in workloads() {
        for seed in 0..3 {
            let history = workload.history(seed);
            let stats =
                check(&history).unwrap_or_else(|violation| panic!("{name}, seed {seed}: {}", violation.explanation));
            assert_eq!(stats.operations, history.len());
            assert!(stats.steps < 100_000, "{name}, seed {seed}: {stats:?}");
        }
    }
}

/// Makes one read late in the history see a value that had been overwritten long before it was asked.
fn with_a_stale_read(history: &[Entry]) -> Option<(u64, Vec<Entry>)> {
    let mut history = history.to_vec();
    let answered = |entry: &&Entry| entry.returned != NEVER;
    let old = history.iter().filter(answered).find_map(|entry| match entry.op {
        Op::Read(seen @ Some(_)) if entry.returned > 300 => Some(seen),
        _ => None,
    })?;
    let end = history.iter().filter(answered).map(|entry| entry.returned).max()?;
    let late =
        |entry: &&mut Entry| matches!(entry.op, Op::Read(_)) && entry.returned != NEVER && entry.called > end / 2;
    let read = history.iter_mut().find(late)?;
    read.op = Op::Read(old);
    let answered = read.returned;
    Some((answered, history))
}

#[test]
fn a_stale_read_is_found() {
    for (name, workload) in workloads() {
        for seed in 0..2 {
            let Some((answered, history)) = with_a_stale_read(&workload.history(seed)) else {
                assert!(name.contains("lock"), "{name} has reads");
                continue;
            };
            let violation = check(&history).expect_err(name);
            assert_eq!(violation.kind, ViolationKind::NotLinearizable, "{name}, seed {seed}");
            let stuck: Vec<_> = violation.stuck.iter().map(|&place| violation.history[place]).collect();
            assert!(
                stuck.iter().any(|entry| entry.returned == answered),
                "{name}, seed {seed}: {stuck:?}"
            );
            assert!(violation.order.len() > 1_000, "{name}: an order for all that was right");
        }
    }
}

#[test]
fn a_lock_taken_twice_is_found() {
    let (name, workload) = workloads().pop().expect("there are some");
    let mut history = workload.history(1);
    let refused =
        |entry: &&mut Entry| matches!(entry.op, Op::Acquire { took: Some(false), .. }) && entry.called > 2_000;
    let entry = history.iter_mut().find(refused).expect(name);
    if let Op::Acquire { took, .. } = &mut entry.op {
        *took = Some(true);
    }
    entry.fence = Some(1);
    let violation = check(&history).expect_err("taken twice");
    assert_eq!(violation.kind, ViolationKind::NotLinearizable);
}

#[test]
fn what_cannot_be_decided_is_no_pass() {
    let history = LONG.history(1);
    let violation = linearizability::Checker::with_budget(100)
        .check(&history)
        .expect_err("too small a budget");
    assert_eq!(violation.kind, ViolationKind::Undecided);
    assert!(violation.explanation.contains("100"), "{}", violation.explanation);
}

/// How much of a search long histories take, right and with one answer changed at random:
/// `cargo test --release -p linearizability --test checks -- --ignored --nocapture budget`.
#[test]
#[ignore = "a measurement, for release builds"]
fn budget() {
    const SEEDS: u64 = 10;
    for (name, workload) in workloads() {
        let (mut most, mut wrong, mut undecided, mut slowest_s) = (0, 0, 0, 0.0_f64);
        for seed in 0..SEEDS {
            let history = workload.history(seed);
            let started = Instant::now();
            most = check(&history).expect("right by construction").steps.max(most);
            match check(&with_a_lie(&history, seed)) {
                Ok(_) => {}
                Err(violation) if violation.kind == ViolationKind::NotLinearizable => wrong += 1,
                Err(_) => undecided += 1,
            }
            slowest_s = slowest_s.max(started.elapsed().as_secs_f64());
        }
        println!(
            "{name:>30}: at most {most} steps when right; with a lie {wrong} wrong, {undecided} undecided of {SEEDS}; {slowest_s:.2} s"
        );
        assert!(wrong > 0, "{name}");
    }
}
