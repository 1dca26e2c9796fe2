use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::ballot::HlcTime;
use crate::state::LINEAGE_MAX;

fn at(ms: u64) -> Ballot {
    Ballot {
        time: HlcTime::from_unix_ms(ms),
        incarnation: 1,
    }
}

fn run(command: &Command, current: Option<&State>, ms: u64) -> Applied {
    apply(command, current, at(ms), RequestId(ms))
}

fn put(value: &str, ttl_ms: Option<u64>, fence: Option<u64>) -> Command {
    Command::Put {
        value: Arc::from(value),
        ttl_ms,
        fence,
    }
}

fn acquire(token: &str, owner: Option<&str>, ttl_ms: u64) -> Command {
    Command::Acquire {
        token: Arc::from(token),
        owner: owner.map(Arc::from),
        ttl_ms,
    }
}

#[test]
fn cas_by_value_and_by_version() {
    let state = run(&put("{\"battery\":80,\"on\":true}", None, None), None, 10)
        .next
        .unwrap();
    let cas = |expect| Command::Cas {
        expect,
        new: Arc::from("1"),
        fence: None,
    };
    let equal = run(
        &cas(Expect::Value(json!({"on": true, "battery": 80.0}))),
        Some(&state),
        20,
    );
    assert_eq!(equal.answer, Answer::Swapped { version: at(20) });
    let other = run(&cas(Expect::Value(json!({"battery": 80}))), Some(&state), 20);
    assert_eq!(
        other.answer,
        Answer::NotSwapped {
            current: state.value.clone(),
            version: Some(at(10))
        }
    );
    assert_eq!(other.next, None);
    assert!(
        run(&cas(Expect::Version(Some(at(10)))), Some(&state), 20)
            .next
            .is_some()
    );
    assert!(run(&cas(Expect::Version(None)), Some(&state), 20).next.is_none());
    assert!(run(&cas(Expect::Version(None)), None, 20).next.is_some());
}

#[test]
fn null_means_absent_or_null_by_value_only() {
    let cas = |expect| Command::Cas {
        expect,
        new: Arc::from("1"),
        fence: None,
    };
    let null = run(&put("null", None, None), None, 10).next.unwrap();
    assert!(run(&cas(Expect::Value(json!(null))), None, 20).next.is_some());
    assert!(run(&cas(Expect::Value(json!(null))), Some(&null), 20).next.is_some());
    assert!(run(&cas(Expect::Version(None)), Some(&null), 20).next.is_none());
}

#[test]
fn an_expiry_shows_only_with_a_tombstone() {
    let state = run(&put("1", Some(100), None), None, 1_000).next.unwrap();
    let before = run(&Command::Get, Some(&state), 1_099);
    assert!(matches!(before.answer, Answer::Value { .. }) && before.next.is_none());
    let after = run(&Command::Get, Some(&state), 1_100);
    assert_eq!(after.answer, Answer::Absent);
    let tombstone = after.next.unwrap();
    assert!(tombstone.is_tombstone() && tombstone.version == at(1_100));
    assert_eq!(
        run(&Command::Get, Some(&tombstone), 1_200),
        Applied {
            next: None,
            answer: Answer::Absent
        }
    );
}

#[test]
fn a_lock_is_taken_once_frees_itself_and_its_fence_grows() {
    let taken = run(&acquire("t1", Some("me"), 2_000), None, 10_000);
    let Answer::Locked {
        fence: first,
        expires_in_ms: 2_000,
        ..
    } = taken.answer
    else {
        panic!("{taken:?}")
    };
    let lock = taken.next.unwrap();
    let again = run(&acquire("t2", Some("me"), 2_000), Some(&lock), 11_000);
    assert_eq!(
        again.answer,
        Answer::LockHeld {
            expires_at_ms: 12_000,
            expires_in_ms: 1_000
        }
    );
    let release = |token: Option<&str>, lock: &State, ms| {
        run(
            &Command::Release {
                token: token.map(Arc::from),
            },
            Some(lock),
            ms,
        )
    };
    assert_eq!(
        release(None, &lock, 11_000).answer,
        Answer::Released(false),
        "taken with an owner"
    );
    assert_eq!(
        release(Some("t2"), &lock, 11_000).answer,
        Answer::Released(false),
        "another holder's token"
    );
    let free = release(Some("t1"), &lock, 11_000).next.unwrap();
    assert_eq!(
        release(None, &free, 11_000).answer,
        Answer::Released(true),
        "nothing was held"
    );
    for current in [&free, &lock] {
        let later = run(&acquire("t3", None, 1_000), Some(current), 12_000);
        let Answer::Locked { fence, .. } = later.answer else {
            panic!("{later:?}")
        };
        assert!(fence > first);
    }
}

#[test]
fn only_the_holder_renews_and_the_fence_stays() {
    let lock = run(&acquire("t1", None, 2_000), None, 10_000).next.unwrap();
    let renew = |token: &str, ms| {
        run(
            &Command::Renew {
                token: Arc::from(token),
                ttl_ms: 5_000,
            },
            Some(&lock),
            ms,
        )
    };
    let renewed = renew("t1", 11_000);
    assert_eq!(
        renewed.answer,
        Answer::Renewed {
            expires_at_ms: 16_000,
            expires_in_ms: 5_000
        }
    );
    let next = renewed.next.unwrap();
    assert_eq!((next.fence, next.version), (lock.fence, lock.version));
    assert_eq!(renew("t2", 11_000).answer, Answer::NotRenewed);
    assert_eq!(renew("t1", 12_000).answer, Answer::NotRenewed, "it had ended");
}

#[test]
fn a_lower_fence_changes_nothing() {
    let state = run(&put("1", None, Some(7)), None, 10).next.unwrap();
    assert_eq!(state.fence, 7);
    let late = run(&put("2", None, Some(6)), Some(&state), 20);
    assert_eq!(
        late,
        Applied {
            next: None,
            answer: Answer::FenceTooLow { seen: 7 }
        }
    );
    let unfenced = run(&put("2", None, None), Some(&state), 20).next.unwrap();
    assert_eq!(unfenced.fence, 7, "what was seen is not forgotten");
    let deleted = run(
        &Command::Delete {
            version: None,
            fence: None,
        },
        Some(&state),
        20,
    )
    .next
    .unwrap();
    assert_eq!(deleted.fence, 7);
}

#[test]
fn numbers_compare_by_value_and_integers_exactly() {
    assert!(json_equal(&json!(80), &json!(80.0)));
    assert!(!json_equal(
        &json!(9_007_199_254_740_993_u64),
        &json!(9_007_199_254_740_992_u64)
    ));
    assert!(json_equal(
        &json!({"a": [1, {"b": 2.0}]}),
        &json!({"a": [1.0, {"b": 2}]})
    ));
    assert!(!json_equal(&json!({"a": 1}), &json!({"a": 1, "b": null})));
    assert!(!json_equal(&json!(0), &json!(false)));
}

proptest! {
    /// Fences never fall, ids stay bounded, and a blind write makes what the full command makes of nothing.
    #[test]
    fn what_travels_with_a_register_survives(steps in proptest::collection::vec((0..6_u8, 1..500_u64, 0..4_u64), 1..40)) {
        let (mut state, mut now): (Option<State>, u64) = (None, 1_000);
        for (kind, pause_ms, small) in steps {
            now += pause_ms;
            let command = match kind {
                0 => put("1", Some(100), None),
                1 => put("2", None, Some(small)),
                2 => Command::Delete { version: None, fence: None },
                3 => acquire("t", None, 200),
                4 => Command::Release { token: None },
                _ => Command::Get,
            };
            let applied = run(&command, state.as_ref(), now);
            if let Some(next) = applied.next {
                prop_assert!(next.fence >= state.as_ref().map_or(0, |state| state.fence));
                prop_assert!(next.lineage.changes.len() <= LINEAGE_MAX);
                let by = if applied.answer.tells_of_a_change() { RequestId(now) } else { RequestId::NOBODY };
                prop_assert_eq!(next.lineage.changes.last(), Some(&(at(now), by)));
                if applied.answer.tells_of_a_change() {
                    prop_assert_eq!(next.lineage.made_by(RequestId(now)), Some(at(now)));
                }
                prop_assert_eq!(next.lineage.made_by(RequestId::NOBODY), None);
                state = Some(next);
            }
            if command.is_blind() {
                let blind = blind_state(&command, at(now), RequestId(now)).unwrap();
                prop_assert_eq!(blind.lineage.since, at(now), "it knows nothing of what it replaces");
                let full = run(&command, None, now).next.unwrap();
                prop_assert_eq!(State { lineage: full.lineage.clone(), ..blind }, full);
            }
        }
    }
}
