//! At most one holder, as far as that is promised.

use linearizability::{Entry, Op, Time, ViolationKind, one_holder};

const CERTAIN: Time = 100;

fn acquire(token: u32, called: Time, owned: bool) -> Entry {
    let op = Op::Acquire {
        token,
        owned,
        took: Some(true),
    };
    Entry::new(token, 3, called, called + 10, op)
}

fn release(token: Option<u32>, called: Time, freed: Option<bool>) -> Entry {
    Entry::new(0, 3, called, called + 10, Op::Release { token, freed })
}

fn renew(token: u32, called: Time) -> Entry {
    let op = Op::Renew {
        token,
        held: Some(true),
    };
    Entry::new(token, 3, called, called + 10, op)
}

fn assert_two(history: &[Entry]) {
    let violation = one_holder(history, CERTAIN).expect_err("two at once");
    assert_eq!(violation.kind, ViolationKind::TwoHolders);
    assert_eq!((violation.key, violation.stuck.len()), (3, 2), "{violation}");
}

#[test]
fn one_after_the_other() {
    one_holder(&[acquire(1, 0, false), acquire(2, 90, false)], CERTAIN).expect("the first one's time is up");
    assert_two(&[acquire(1, 0, false), acquire(2, 89, false)]);
    assert_two(&[acquire(2, 50, false), acquire(1, 0, false)]);
    one_holder(
        &[
            acquire(1, 0, false),
            Entry {
                key: 4,
                ..acquire(2, 50, false)
            },
        ],
        CERTAIN,
    )
    .expect("two locks");
}

#[test]
fn until_it_is_released() {
    let released = |release| [acquire(1, 0, false), release, acquire(2, 50, false)];
    one_holder(&released(release(Some(1), 40, Some(true))), CERTAIN).expect("released");
    one_holder(&released(release(Some(1), 40, None)), CERTAIN).expect("perhaps released");
    one_holder(&released(release(None, 40, Some(true))), CERTAIN).expect("anybody may");
    assert_two(&released(release(Some(1), 40, Some(false))));
    assert_two(&released(release(Some(9), 40, Some(true))));
    assert_two(&released(release(Some(1), 70, Some(true))));
    assert_two(&[
        acquire(1, 0, true),
        release(None, 30, Some(true)),
        acquire(2, 50, false),
    ]);
}

#[test]
fn for_longer_when_renewed() {
    one_holder(&[acquire(1, 0, false), acquire(2, 120, false)], CERTAIN).expect("its time is up");
    assert_two(&[acquire(1, 0, false), renew(1, 60), acquire(2, 120, false)]);
    one_holder(&[acquire(1, 0, false), renew(1, 60), acquire(2, 160, false)], CERTAIN).expect("its time is up");
}
