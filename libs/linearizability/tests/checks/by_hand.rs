//! Small histories of every kind of operation, right and wrong.

use linearizability::{Checker, Entry, ModelKind, NEVER, Op, Time, Value, ViolationKind, check};

use crate::brute::{explained, judged};

/// One after the other, each answered before the next.
fn in_turn(ops: &[Op]) -> Vec<Entry> {
    let entry = |(at, op): (Time, &Op)| Entry::new(0, 0, at * 10, at * 10 + 5, *op);
    (0..).zip(ops).map(entry).collect()
}

/// All at once.
fn together(ops: &[Op]) -> Vec<Entry> {
    let entry = |(client, op): (u32, &Op)| Entry::new(client, 0, 0, 10, *op);
    (0..).zip(ops).map(entry).collect()
}

/// The first one is never answered.
fn after_unknown(mut history: Vec<Entry>) -> Vec<Entry> {
    history[0].returned = NEVER;
    history
}

fn right(history: &[Entry]) {
    assert!(explained(history), "{history:#?}");
    assert!(judged(history), "{history:#?}");
}

fn wrong(history: &[Entry]) {
    assert!(!explained(history), "{history:#?}");
    assert!(!judged(history), "{history:#?}");
}

fn cas(expected: Value, new: u32, swapped: Option<bool>) -> Op {
    Op::Cas {
        expected,
        new: Some(new),
        swapped,
    }
}

const fn acquire(token: u32, took: Option<bool>) -> Op {
    Op::Acquire {
        token,
        owned: false,
        took,
    }
}

const fn release(token: Option<u32>, freed: bool) -> Op {
    Op::Release {
        token,
        freed: Some(freed),
    }
}

const fn renew(token: u32, held: bool) -> Op {
    Op::Renew {
        token,
        held: Some(held),
    }
}

const W1: Op = Op::Write(Some(1));
const W2: Op = Op::Write(Some(2));
const R1: Op = Op::Read(Some(1));
const R2: Op = Op::Read(Some(2));
const ABSENT: Op = Op::Read(None);
const DELETE: Op = Op::Write(None);

#[test]
fn reads_and_writes() {
    right(&[]);
    right(&in_turn(&[ABSENT, W1, R1, W2, R2, DELETE, ABSENT]));
    wrong(&in_turn(&[R1]));
    wrong(&in_turn(&[W1, ABSENT]));
    wrong(&in_turn(&[W1, W2, R1]));
    wrong(&in_turn(&[W1, DELETE, R1]));
    right(&together(&[W1, W2, R1, R2, ABSENT]));
}

#[test]
fn readers_agree_on_the_order_of_writes() {
    let read = |client, called, op| Entry::new(client, 0, called, called + 5, op);
    let mut history = together(&[W1, W2]);
    history.extend([read(2, 20, R1), read(2, 30, R1)]);
    right(&history);
    history.push(read(3, 40, R2));
    wrong(&history);
}

#[test]
fn a_moment_in_common_is_an_overlap() {
    let write = Entry::new(0, 0, 0, 5, W1);
    right(&[write, Entry::new(1, 0, 5, 6, ABSENT)]);
    wrong(&[write, Entry::new(1, 0, 6, 7, ABSENT)]);
}

#[test]
fn an_unknown_write_happens_once_or_never() {
    let history = |ops: &[Op]| after_unknown(in_turn(ops));
    right(&history(&[W1, ABSENT, ABSENT]));
    right(&history(&[W1, ABSENT, R1, R1]));
    wrong(&history(&[W1, ABSENT, R1, ABSENT]));
    wrong(&history(&[W1, W2, R1, W2, R1]));
    right(&history(&[W1, W2, R1, W2, R2]));
    let mut early = history(&[W1, R1]);
    early[0].called = 100;
    wrong(&early);
}

#[test]
fn compare_and_swap() {
    right(&in_turn(&[
        cas(None, 1, Some(true)),
        cas(None, 2, Some(false)),
        cas(Some(1), 2, Some(true)),
        R2,
    ]));
    wrong(&in_turn(&[cas(Some(1), 2, Some(true))]));
    wrong(&in_turn(&[W1, cas(Some(1), 2, Some(false))]));
    wrong(&together(&[cas(None, 1, Some(true)), cas(None, 2, Some(true))]));
    right(&together(&[cas(None, 1, Some(true)), cas(None, 2, Some(false))]));
    wrong(&together(&[cas(None, 1, Some(false)), cas(None, 2, Some(false))]));
    right(&after_unknown(in_turn(&[cas(None, 1, None), R1])));
    wrong(&after_unknown(in_turn(&[cas(Some(2), 1, None), R1])));
    // An unknown write may be what made a CAS fail, though nobody read it.
    right(&after_unknown(in_turn(&[W1, cas(None, 2, Some(false))])));
    wrong(&after_unknown(in_turn(&[
        cas(Some(2), 1, None),
        cas(None, 2, Some(false)),
    ])));
}

#[test]
fn a_cas_that_says_what_it_found() {
    let missed = |expected, found| Op::CasMissed { expected, found };
    right(&in_turn(&[W1, missed(Some(2), Some(1))]));
    wrong(&in_turn(&[W1, missed(Some(1), Some(1))]));
    wrong(&in_turn(&[W1, missed(Some(2), Some(3))]));
}

#[test]
fn fences_of_a_register() {
    let fenced = |fences: &[Option<u64>], ops: &[Op]| {
        let mut history = in_turn(ops);
        for (entry, fence) in history.iter_mut().zip(fences) {
            entry.fence = *fence;
        }
        history
    };
    right(&fenced(&[Some(3), Some(3), Some(4)], &[W1, W2, W1]));
    wrong(&fenced(&[Some(3), Some(2)], &[W1, W2]));
    wrong(&fenced(&[Some(3), None, Some(2)], &[W1, W2, W1]));
    wrong(&fenced(&[Some(3), Some(2)], &[W1, cas(None, 2, Some(false))]));
    let mut refused = fenced(&[Some(3), Some(2)], &[W1, W2]);
    refused[1].refused_below = Some(3);
    refused.extend([Entry::new(0, 0, 100, 101, R1)]);
    right(&refused);
    refused[1].refused_below = Some(4);
    wrong(&refused);
    refused[1] = refused[1].fenced(3).refused(3);
    wrong(&refused);
    // Only a pending write can have raised the fence that a refusal names, though nobody saw its value.
    let mut unseen = fenced(&[Some(5), None, Some(4)], &[W1, W2, W1]);
    unseen[0].returned = NEVER;
    unseen[2].refused_below = Some(5);
    right(&unseen);
    unseen[0].fence = Some(6);
    wrong(&unseen);
}

#[test]
fn values_that_end() {
    let end = |called, returned| Entry::new(9, 0, called, returned, Op::End(1));
    let mut history = in_turn(&[W1, R1, ABSENT]);
    wrong(&history);
    history.push(end(12, NEVER));
    right(&history);
    history[3].called = 30;
    wrong(&history);
    // By 40 at the latest.
    let mut late = in_turn(&[W1, R1]);
    late.push(end(20, 40));
    right(&late);
    late.push(Entry::new(1, 0, 41, 42, R1));
    wrong(&late);
    // It was another value by then.
    let mut other = in_turn(&[W1, W2]);
    other.push(end(20, 40));
    other.push(Entry::new(1, 0, 41, 42, R2));
    right(&other);
}

/// Fences 1, 2, … for those who took the lock.
fn with_lock_fences(mut history: Vec<Entry>) -> Vec<Entry> {
    let took = |entry: &&mut Entry| matches!(entry.op, Op::Acquire { took: Some(true), .. });
    for (fence, entry) in (1..).zip(history.iter_mut().filter(took)) {
        entry.fence = Some(fence);
    }
    history
}

#[test]
fn locks() {
    let turn = |ops: &[Op]| with_lock_fences(in_turn(ops));
    let (took, refused) = (Some(true), Some(false));
    right(&turn(&[
        acquire(1, took),
        acquire(2, refused),
        release(Some(1), true),
        acquire(2, took),
    ]));
    wrong(&turn(&[acquire(1, took), acquire(2, took)]));
    wrong(&turn(&[acquire(1, refused)]));
    wrong(&turn(&[acquire(1, took), release(Some(2), true)]));
    right(&turn(&[acquire(1, took), release(Some(2), false)]));
    wrong(&turn(&[release(Some(2), false)]));
    right(&turn(&[release(Some(2), true), release(None, true)]));
    right(&turn(&[acquire(1, took), release(None, true), acquire(2, took)]));
    wrong(&turn(&[acquire(1, took), release(None, false)]));
    right(&turn(&[acquire(1, took), renew(1, true), renew(2, false)]));
    wrong(&turn(&[acquire(1, took), release(Some(1), true), renew(1, true)]));
    wrong(&turn(&[acquire(1, took), renew(1, false)]));
    right(&after_unknown(turn(&[
        acquire(1, None),
        acquire(2, refused),
        renew(1, true),
    ])));
    wrong(&after_unknown(turn(&[
        acquire(1, None),
        renew(1, true),
        acquire(2, took),
    ])));
}

#[test]
fn only_its_token_frees_an_owned_lock() {
    let owned = Op::Acquire {
        token: 1,
        owned: true,
        took: Some(true),
    };
    let turn = |ops: &[Op]| with_lock_fences(in_turn(ops));
    right(&turn(&[owned, release(None, false), release(Some(1), true)]));
    wrong(&turn(&[owned, release(None, true)]));
    // The next holder's lock has no owner.
    right(&turn(&[
        owned,
        release(Some(1), true),
        acquire(2, Some(true)),
        release(None, true),
    ]));
}

#[test]
fn fences_of_a_lock_grow() {
    let ops = [acquire(1, Some(true)), release(Some(1), true), acquire(2, Some(true))];
    let fences = |first, second| {
        let mut history = in_turn(&ops);
        (history[0].fence, history[2].fence) = (first, second);
        history
    };
    right(&fences(Some(4), Some(9)));
    wrong(&fences(Some(4), Some(4)));
    wrong(&fences(Some(4), Some(3)));
    // A fence that nobody was told is above the one before and below the one after.
    let untold = [
        ops[0],
        ops[1],
        acquire(3, None),
        renew(3, true),
        release(Some(3), true),
        ops[2],
    ];
    let mut history = in_turn(&untold);
    history[2].returned = NEVER;
    (history[0].fence, history[5].fence) = (Some(4), Some(6));
    right(&history);
    history[5].fence = Some(5);
    wrong(&history);
}

#[test]
fn locks_that_end() {
    let mut history = with_lock_fences(in_turn(&[acquire(1, Some(true)), acquire(2, Some(true))]));
    wrong(&history);
    history.push(Entry::new(9, 0, 4, NEVER, Op::End(1)));
    right(&history);
    history.push(Entry::new(0, 0, 50, 51, renew(1, true)));
    wrong(&history);
}

#[test]
fn keys_are_judged_apart() {
    let on = |key, called, op| Entry::new(0, key, called, called + 1, op);
    let history = [
        on(1, 0, W1),
        on(2, 2, ABSENT),
        on(3, 4, acquire(1, Some(true))),
        on(1, 6, R1),
    ];
    let stats = check(&history).expect("each is right");
    assert_eq!((stats.keys, stats.operations), (3, 4));
    let violation = check(&[on(1, 0, W1), on(2, 2, R1)]).expect_err("key 2 never had it");
    assert_eq!((violation.key, violation.kind), (2, ViolationKind::NotLinearizable));
    assert_eq!(violation.stuck, [0]);
}

#[test]
fn the_order_of_entries_does_not_matter() {
    let mut history = in_turn(&[W1, R1, W2, R2]);
    history.reverse();
    right(&history);
    let mut stale = in_turn(&[W1, W2, R1]);
    stale.reverse();
    wrong(&stale);
}

#[test]
fn what_is_no_history_is_told_so() {
    let kind = |history: &[Entry]| check(history).expect_err("no history").kind;
    assert_eq!(kind(&in_turn(&[W1, acquire(1, None)])), ViolationKind::Malformed);
    assert_eq!(kind(&[Entry::new(0, 0, 5, 4, W1)]), ViolationKind::Malformed);
    assert_eq!(ModelKind::of(&in_turn(&[W1, acquire(1, None)])), None);
    assert_eq!(
        ModelKind::of(&in_turn(&[Op::End(1), acquire(1, None)])),
        Some(ModelKind::Lock)
    );
    // Never called: not part of it.
    right(&[Entry::new(0, 0, NEVER, NEVER, R1)]);
}

#[test]
fn a_checker_forgets_what_it_judged_before() {
    let (good, bad) = (in_turn(&[W1, R1]), in_turn(&[W1, R2]));
    let mut checker = Checker::new();
    for _ in 0..3 {
        checker.check(&good).expect("right");
        let violation = checker.check(&bad).expect_err("wrong");
        assert_eq!((violation.order, violation.stuck), (vec![0], vec![1]));
    }
}
