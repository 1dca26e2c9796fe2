//! Whose turn it is, and who needs none.

use serde_json::json;

use super::super::turns::{Began, Change, REFUSED_AT_ONCE, TOGETHER_MAX, Turns, goes_together};
use super::*;

fn swap(old: u64, request: u64) -> Change {
    Change::new(cas(json!(old), "0"), never(request))
}

/// The one who has the turn ends with this.
fn passed_on<W>(turns: &mut Turns<W>, ended: Option<&Operation>) -> Option<(W, Began)> {
    let next = turns.leave(&key()).then(|| turns.next(&key(), ended)).flatten();
    assert!(turns.next(&key(), ended).is_none(), "nobody goes along with a swap");
    next
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
    let (next, second) = passed_on(&mut turns, Some(&operation)).expect("three wait");
    assert_eq!(next, "fresh", "whom it does not refute");
    assert!(turns.join(&key(), || swap(4, 3), || "late").is_none());

    let operation = ended(&mut cluster, &mut one, "7");
    let refuted = turns.refuted(&key(), second, &operation, |_| false);
    let version = Some(cluster.record(0).accepted);
    let current = Some(Arc::from("7"));
    let refusal = Answer::NotSwapped { current, version };
    assert_eq!(refuted, [("stale", refusal.clone()), ("stale too", refusal)]);
    let (next, _) = passed_on(&mut turns, Some(&operation)).expect("one waits");
    assert_eq!(next, "late", "it has its turn to be told");
    assert!(passed_on(&mut turns, None).is_none());
    assert!(turns.join(&key(), || swap(0, 1), || "first again").is_some());
}

#[test]
fn a_line_of_refuted_ones_is_held_for_one_who_is_not() {
    let (mut cluster, mut one) = (Cluster::new(), coordinator(1));
    let mut turns = Turns::default();
    assert!(turns.join(&key(), || swap(0, 1), || "first").is_some());
    let five = ended(&mut cluster, &mut one, "5");
    assert!(turns.join(&key(), || swap(3, 2), || "stale").is_none());
    assert_eq!(turns.hold(&key(), &five), None, "somebody has a turn");
    assert!(turns.leave(&key()), "somebody waits");
    let hold = turns.hold(&key(), &five).expect("who waits is refuted");
    assert!(turns.join(&key(), || swap(4, 3), || "stale too").is_none());
    let fresh = turns.join(&key(), || swap(5, 4), || "fresh");
    assert!(fresh.is_some(), "it is held for this one");
    assert!(!turns.release(&key(), hold), "somebody has come");
    assert!(
        turns.join(&key(), || swap(5, 5), || "as fresh").is_none(),
        "one at a time"
    );
    assert!(turns.leave(&key()));
    assert_eq!(turns.hold(&key(), &five), None, "somebody who waits is not refuted");

    let six = ended(&mut cluster, &mut one, "6");
    let again = turns.hold(&key(), &six).expect("all are refuted by now");
    assert!(!turns.release(&key(), hold), "it is another hold");
    assert!(turns.release(&key(), again));
    assert!(!turns.release(&key(), again), "it has ended");
    let (next, _) = turns.next(&key(), None).expect("three wait");
    assert_eq!(next, "stale", "nobody has come: who waits longest has its turn");
    assert!(turns.leave(&key()));
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
    let (next, began) = passed_on(&mut turns, None).expect("some wait");
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
    let (next, _) = passed_on(&mut turns, Some(&operation)).expect("two wait");
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

fn blind(value: &str) -> Change {
    Change::new(put(value), never(1))
}

#[test]
fn blind_writes_have_their_turn_together_and_behind_whoever_waits() {
    let mut turns = Turns::default();
    let alone = turns.join(&key(), || blind("1"), || "alone").expect("nobody was there");
    assert!(!alone.is_among_others());
    for name in ["second", "third"] {
        let joined = turns.join(&key(), || blind("2"), || name);
        assert!(
            joined.is_none(),
            "one that makes use of what is remembered has it alone"
        );
    }
    assert!(turns.leave(&key()));
    for name in ["second", "third"] {
        let (next, began) = turns.next(&key(), None).expect("both have it");
        assert_eq!((next, began.is_among_others()), (name, true), "neither makes use of it");
    }
    assert!(turns.next(&key(), None).is_none());
    let along = turns.join(&key(), || blind("4"), || "along").expect("it comes along");
    assert!(along.is_among_others());

    assert!(turns.join(&key(), || swap(1, 2), || "swap").is_none());
    assert!(turns.begin(&key(), true).is_none(), "a swap waits before it");
    assert!(turns.join(&key(), || blind("5"), || "behind it").is_none());
    assert!(!turns.leave(&key()) && !turns.leave(&key()), "one still has its turn");
    assert!(turns.next(&key(), None).is_none());
    assert!(turns.leave(&key()), "all have ended");
    assert_eq!(turns.next(&key(), None).expect("two wait").0, "swap");
    assert!(turns.next(&key(), None).is_none(), "a swap is alone");
    assert!(turns.leave(&key()));
    let (next, last) = turns.next(&key(), None).expect("one waits");
    assert_eq!((next, last.is_among_others()), ("behind it", false));
    assert!(turns.join(&key(), || swap(1, 3), || "second swap").is_none());
    assert_eq!(turns.abandon(&key()).collect::<Vec<_>>(), ["second swap"]);
    assert!(!turns.leave(&key()), "there is no line any more");
}

#[test]
fn as_many_as_that_have_a_turn_together() {
    let mut turns = Turns::default();
    let joined = |turns: &mut Turns<usize>, number| turns.join(&key(), || blind("1"), || number).is_some();
    assert!(joined(&mut turns, 0));
    assert!((1..=TOGETHER_MAX + 1).all(|number| !joined(&mut turns, number)));
    assert!(turns.leave(&key()));
    let have_it = std::iter::from_fn(|| turns.next(&key(), None)).map(|(number, _)| number);
    assert!(have_it.eq(1..=TOGETHER_MAX));
    assert!(turns.leave(&key()), "there is room for one more");
    let next = turns.next(&key(), None).map(|(number, _)| number);
    assert_eq!(next, Some(TOGETHER_MAX + 1));
    assert!(
        turns.next(&key(), None).is_none() && !turns.leave(&key()),
        "nobody waits"
    );
}

#[test]
fn what_reads_before_it_writes_goes_alone() {
    assert!(goes_together(&put("1"), never(1)));
    assert!(
        !goes_together(&put("1"), Retry::First(RequestId(1))),
        "another attempt may be made"
    );
    assert!(!goes_together(&cas(json!(1), "2"), never(1)));
    let fenced = Command::Put {
        value: Arc::from("1"),
        ttl_ms: None,
        fence: Some(1),
    };
    assert!(!goes_together(&fenced, never(1)));
}

/// A put of 1 by a coordinator reaches one home; then a put of 2 by `other`, or by the same, is done; then the first one reaches the rest.
/// What comes of it.
fn overtaken(one: &mut Coordinator, other: Option<&mut Coordinator>, cluster: &mut Cluster) -> (Ballot, Outcome) {
    let mut first = Operation::new(key(), put("1"), never(1), Consistency::Quorum, Cluster::members(), true);
    let mut under_way = first.handle(one, cluster.now_ms, Event::Start);
    let sent = |action: &Action| match action {
        Action::Send { round, rank, request } => Some((*round, *rank, request.clone())),
        _ => None,
    };
    let (round, rank, request) = under_way.iter().find_map(sent).expect("it asks the homes");
    let Request::Accept { ballot, .. } = request else {
        panic!("it writes at once: {request:?}")
    };
    let reply = cluster.ask(rank, &request);
    under_way.retain(|action| sent(action).is_none_or(|(_, other, _)| other != rank));
    let next = put("2");
    let second = Operation::new(key(), next, never(2), Consistency::Quorum, Cluster::members(), true);
    let mut second = second.among_others();
    let by = other.unwrap_or(&mut *one);
    cluster.now_ms += 1;
    let actions = second.handle(by, cluster.now_ms, Event::Start);
    let done = answer(cluster.carry_on(by, &mut second, actions));
    assert!(
        matches!(done, Answer::Written { version } if version > ballot),
        "{done:?}"
    );
    under_way.extend(first.handle(one, cluster.now_ms, Event::Reply { round, rank, reply }));
    (ballot, cluster.carry_on(one, &mut first, under_way))
}

#[test]
fn a_blind_write_that_a_later_one_of_its_coordinator_overtook_is_done() {
    let (mut cluster, mut one) = (Cluster::new(), coordinator(1));
    let (version, outcome) = overtaken(&mut one, None, &mut cluster);
    assert_eq!(answer(outcome), Answer::Written { version });
    assert_eq!((cluster.value(0), cluster.value(1)), (Some("2"), Some("2")));
}

#[test]
fn a_blind_write_that_another_coordinators_overtook_may_have_come_too_late() {
    let (mut cluster, mut one, mut two) = (Cluster::new(), coordinator(1), coordinator(2));
    let (_, outcome) = overtaken(&mut one, Some(&mut two), &mut cluster);
    assert!(matches!(outcome, Outcome::Unknown { .. }), "{outcome:?}");
}

#[test]
fn a_reserved_ballot_says_nothing_of_when_its_write_was_begun() {
    let (mut cluster, mut one) = (Cluster::new(), coordinator(1));
    cluster.run(&mut one, put("0"), never(3));
    let (_, outcome) = overtaken(&mut one, None, &mut cluster);
    assert!(matches!(outcome, Outcome::Unknown { .. }), "{outcome:?}");
}
