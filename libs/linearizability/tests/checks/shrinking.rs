//! Wrong histories get short, and stay wrong.

use linearizability::{Entry, NEVER, Op, ViolationKind, check, shrink};

use crate::brute::{explained, judged};
use crate::workload::{LOCK, REGISTER, Workload, with_a_lie};

/// Whatever is taken away from a right history, it stays right: told by wrong ones, whose shortest form must be wrong to one who tries
/// every order, and whose beginnings up to any answer must be no more wrong than they were.
#[test]
fn what_is_left_is_wrong_and_shows_the_whole_to_be() {
    let kinds = [
        REGISTER,
        Workload {
            fenced: 0.5,
            ..REGISTER
        },
        Workload {
            ending: 0.4,
            ..REGISTER
        },
        Workload {
            missed: true,
            ..REGISTER
        },
        LOCK,
        Workload { ending: 0.6, ..LOCK },
    ];
    for workload in kinds {
        let small = Workload {
            operations: 8,
            clients: 3,
            unknown: 0.15,
            ..workload
        };
        let mut wrong = 0;
        for seed in 0..1_500 {
            let lie = with_a_lie(&small.history(seed), seed);
            let short = shrink(&lie);
            if judged(&lie) {
                assert_eq!(short, lie, "right, so left alone");
                continue;
            }
            wrong += 1;
            assert!(!judged(&short), "seed {seed} of {small:?}: {lie:#?} became {short:#?}");
            assert!(
                short.len() > 6 || !explained(&short),
                "seed {seed} of {small:?}: {short:#?}"
            );
            assert!(short.len() <= lie.len());
        }
        assert!(wrong > 100, "{wrong} wrong ones of {workload:?}");
    }
}

/// A stale read among thousands of operations.
#[test]
fn a_long_one_gets_short() {
    let workload = Workload {
        operations: 2_000,
        clients: 8,
        unknown: 0.02,
        missed: true,
        ..REGISTER
    };
    for seed in 0..3 {
        let mut history = workload.history(seed);
        let stale = history
            .iter()
            .position(|entry| matches!(entry.op, Op::Read(Some(_))) && entry.returned != NEVER && entry.called > 3_000)
            .expect("there are reads");
        let (mut early, key) = (history[stale], history[stale].key);
        early.returned += 1_000_000;
        early.called = early.returned - 1;
        history.push(early);
        history.push(Entry::new(
            1,
            key,
            early.called - 10,
            early.called - 5,
            Op::Write(Some(999_999)),
        ));
        let short = shrink(&history);
        assert_eq!(
            check(&short).expect_err("still wrong").kind,
            ViolationKind::NotLinearizable
        );
        assert!(short.len() <= 3, "seed {seed}: {short:#?}");
    }
}

/// Changes that depend on each other can only go when swaps become writes.
#[test]
fn a_chain_of_swaps_gets_short() {
    let swap = |at: u32| {
        let op = Op::Cas {
            expected: (at > 0).then_some(at),
            new: Some(at + 1),
            swapped: Some(true),
        };
        Entry::new(0, 0, u64::from(at) * 2, u64::from(at) * 2 + 1, op)
    };
    let mut history: Vec<Entry> = (0..100).map(swap).collect();
    history.push(Entry::new(1, 0, 300, 301, Op::Read(Some(50))));
    history.push(Entry::new(1, 0, 302, 303, Op::Read(Some(100))));
    let short = shrink(&history);
    assert!(check(&short).is_err());
    assert!(short.len() <= 3, "{short:#?}");
    assert!(
        short.iter().any(|entry| entry.op == Op::Read(Some(50))),
        "the mistake is in it"
    );
}
