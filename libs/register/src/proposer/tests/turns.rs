//! Whose turn it is, and who needs none.

use serde_json::json;

use super::super::turns::{Change, REFUSED_AT_ONCE, Turns};
use super::*;

fn swap(old: u64, request: u64) -> Change {
    Change::new(cas(json!(old), "0"), never(request))
}

fn ended(cluster: &mut Cluster, one: &mut Coordinator, value: &str) -> Operation {
    cluster.operate(one, put(value), never(1)).0
}

#[test]
fn those_who_waited_from_before_are_refuted_and_others_are_not() {
    let (mut cluster, mut one) = (Cluster::new(), coordinator(1));
    let mut turns = Turns::default();
    let first = turns.join(&key(), || swap(0, 1), || "first").expect("nobody was there");
    for (old, name) in [(4, "stale"), (5, "fresh"), (6, "stale too")] {
        assert!(turns.join(&key(), || swap(old, 2), || name).is_none());
    }
    let operation = ended(&mut cluster, &mut one, "5");
    assert!(
        turns.refuted(&key(), first, &operation, |_| false).is_empty(),
        "they joined after it had begun"
    );
    let (next, second) = turns.next(&key(), Some(&operation)).expect("three wait");
    assert_eq!(next, "fresh", "whom it does not refute");
    assert!(turns.join(&key(), || swap(4, 3), || "late").is_none());

    let operation = ended(&mut cluster, &mut one, "7");
    let refuted = turns.refuted(&key(), second, &operation, |_| false);
    let version = Some(cluster.record(0).accepted);
    let current = Some(Arc::from("7"));
    let refusal = Answer::NotSwapped { current, version };
    assert_eq!(refuted, [("stale", refusal.clone()), ("stale too", refusal)]);
    let (next, _) = turns.next(&key(), Some(&operation)).expect("one waits");
    assert_eq!(next, "late", "it has its turn to be told");
    assert!(turns.next(&key(), None).is_none());
    assert!(turns.join(&key(), || swap(0, 1), || "first again").is_some());
}

#[test]
fn a_line_of_refuted_ones_is_held_for_one_who_is_not() {
    let (mut cluster, mut one) = (Cluster::new(), coordinator(1));
    let mut turns = Turns::default();
    assert!(turns.join(&key(), || swap(0, 1), || "first").is_some());
    let five = ended(&mut cluster, &mut one, "5");
    assert_eq!(turns.hold(&key(), &five), None, "nobody waits");
    assert!(turns.join(&key(), || swap(3, 2), || "stale").is_none());
    let hold = turns.hold(&key(), &five).expect("who waits is refuted");
    assert!(turns.join(&key(), || swap(4, 3), || "stale too").is_none());
    let fresh = turns.join(&key(), || swap(5, 4), || "fresh");
    assert!(fresh.is_some(), "it is held for this one");
    assert!(!turns.release(&key(), hold), "somebody has come");
    assert!(
        turns.join(&key(), || swap(5, 5), || "as fresh").is_none(),
        "one at a time"
    );
    assert_eq!(turns.hold(&key(), &five), None, "somebody who waits is not refuted");

    let six = ended(&mut cluster, &mut one, "6");
    let again = turns.hold(&key(), &six).expect("all are refuted by now");
    assert!(!turns.release(&key(), hold), "it is another hold");
    assert!(turns.release(&key(), again));
    assert!(!turns.release(&key(), again), "it has ended");
    let (next, _) = turns.next(&key(), None).expect("three wait");
    assert_eq!(next, "stale", "nobody has come: who waits longest has its turn");
    let (found, _) = cluster.operate(&mut one, Command::Get, never(7));
    assert_eq!(turns.hold(&key(), &found), None, "it wrote nothing");
}

#[test]
fn few_are_refused_at_once_and_in_their_order() {
    let (mut cluster, mut one) = (Cluster::new(), coordinator(1));
    let mut turns = Turns::default();
    assert!(turns.join(&key(), || swap(0, 1), || usize::MAX).is_some());
    for number in 0..REFUSED_AT_ONCE + 2 {
        assert!(turns.join(&key(), || swap(0, 2), || number).is_none());
    }
    let (next, began) = turns.next(&key(), None).expect("some wait");
    assert_eq!(next, 0);
    let operation = ended(&mut cluster, &mut one, "7");
    let is_gone = |number: &usize| *number == 1;
    let refuted = turns.refuted(&key(), began, &operation, is_gone).into_iter();
    let refuted: Vec<usize> = refuted.map(|(number, _)| number).collect();
    assert_eq!(refuted, (2..REFUSED_AT_ONCE + 2).collect::<Vec<_>>(), "and 1 has gone");
}

#[test]
fn what_time_or_another_attempt_may_decide_is_not_refuted() {
    let (mut cluster, mut one) = (Cluster::new(), coordinator(1));
    let operation = ended(&mut cluster, &mut one, "7");
    let refuted = |command: &Command, request| operation.refutes(command, RequestId(request)).is_some();
    assert!(refuted(&cas(json!(1), "2"), 2));
    assert!(!refuted(&cas(json!(7), "2"), 2), "it would succeed");
    assert!(!refuted(&put("2"), 2));
    assert!(
        !refuted(&cas(json!(1), "2"), 1),
        "the state was made by this very request"
    );
    let lock = Command::Acquire {
        token: Arc::from("t"),
        owner: None,
        ttl_ms: 1_000,
    };
    assert!(!refuted(&lock, 2), "when it ends depends on the time");

    let (large, _) = cluster.operate(&mut one, put(&format!("\"{}\"", "x".repeat(4_096))), never(3));
    assert_eq!(
        large.refutes(&cas(json!(1), "2"), RequestId(4)),
        None,
        "comparing takes long"
    );

    let mut turns = Turns::default();
    let repeated = Retry::repeated(RequestId(2), cluster.now_ms, MAX_SKEW_MS);
    assert!(turns.join(&key(), || swap(0, 1), || 0).is_some());
    assert!(
        turns
            .join(&key(), || Change::new(cas(json!(1), "2"), repeated), || 1)
            .is_none()
    );
    assert!(turns.join(&key(), || swap(0, 3), || 2).is_none());
    let (next, _) = turns.next(&key(), Some(&operation)).expect("two wait");
    assert_eq!(next, 1, "an earlier attempt may have been made");

    let with_end = Command::Put {
        value: Arc::from("1"),
        ttl_ms: Some(1_000),
        fence: None,
    };
    let (operation, _) = cluster.operate(&mut one, with_end, never(4));
    assert_eq!(
        operation.refutes(&cas(json!(0), "2"), RequestId(5)),
        None,
        "it may have ended by then"
    );
}
