use serde_json::json;

use super::*;

const ACQUIRE_TTL_MS: u64 = 10_000;

/// A repetition whose first attempt was made a minute before the cluster's clock began.
fn again(request: u64) -> Retry {
    repeated_from(request, 1_699_999_940_000)
}

fn repeated_from(request: u64, unix_ms: u64) -> Retry {
    Retry::Repeated {
        request: RequestId(request),
        not_before: HlcTime::from_unix_ms(unix_ms),
    }
}

/// One that does not look further back than the cluster's clock began.
fn again_after_all() -> Retry {
    repeated_from(1, 1_700_000_000_005)
}

/// The coordinator sends the first messages of an operation and is gone.
fn start_and_die(cluster: &mut Cluster, coordinator: &mut Coordinator, command: Command, retry: Retry) {
    let quorum = Consistency::Quorum;
    let mut operation = Operation::new(key(), command, retry, quorum, Cluster::members(), true);
    for action in operation.handle(coordinator, cluster.now_ms, Event::Start) {
        if let Action::Send { rank, request, .. } = action {
            cluster.deliver(rank, &request);
        }
    }
}

fn acquire(token: &str) -> Command {
    Command::Acquire {
        token: Arc::from(token),
        owner: None,
        ttl_ms: ACQUIRE_TTL_MS,
    }
}

fn renew(token: &str) -> Command {
    Command::Renew {
        token: Arc::from(token),
        ttl_ms: ACQUIRE_TTL_MS,
    }
}

fn release(token: &str) -> Command {
    Command::Release {
        token: Some(Arc::from(token)),
    }
}

fn assert_cannot_tell(outcome: &Outcome) {
    assert!(
        matches!(outcome, Outcome::Unknown { reason } if reason.contains("earlier attempt")),
        "{outcome:?}"
    );
}

#[test]
fn the_slack_of_a_repetition_covers_skew_and_reservations() {
    let retry = Retry::repeated(RequestId(1), 10_000, 500);
    assert_eq!(retry, repeated_from(1, 10_000 - 2 * 500 - 1_000));
    assert_eq!(Retry::repeated(RequestId(1), 10, 500), repeated_from(1, 0));
}

#[test]
fn a_repeated_cas_takes_effect_once() {
    let (mut cluster, mut one, mut other) = (Cluster::new(), coordinator(1), coordinator(2));
    let first = cluster.run(&mut one, cas(json!(null), "1"), Retry::First(RequestId(1)));
    let before = cluster.nodes.clone();
    let repeated = cluster.run(&mut other, cas(json!(null), "1"), again(1));
    assert_eq!(answer(repeated), answer(first));
    for (rank, (record, _)) in before.iter().enumerate().take(HOMES) {
        assert_eq!(
            cluster.nodes[rank].0.as_ref().unwrap().state,
            record.as_ref().unwrap().state
        );
    }
}

#[test]
fn a_repeated_put_does_not_undo_what_came_after_it() {
    let (mut cluster, mut one, mut other) = (Cluster::new(), coordinator(1), coordinator(2));
    let first = cluster.run(&mut one, put("1"), Retry::First(RequestId(1)));
    assert_eq!(cluster.rounds, 2, "a client's request is never blind");
    cluster.run(&mut one, put("2"), never(2));
    assert_eq!(cluster.rounds, 1);
    let repeated = cluster.run(&mut other, put("1"), again(1));
    assert_eq!(answer(repeated), answer(first));
    assert_eq!(cluster.value(0), Some("2"));
}

#[test]
fn a_repetition_does_not_use_what_is_remembered() {
    let (mut cluster, mut one) = (Cluster::new(), coordinator(1));
    cluster.run(&mut one, cas(json!(null), "1"), never(1));
    cluster.run(&mut one, put("2"), again(2));
    assert_eq!((cluster.rounds, cluster.value(0)), (2, Some("2")));
}

#[test]
fn a_first_attempt_does_not_propose_what_is_remembered_of_another() {
    let (mut cluster, mut one) = (Cluster::new(), coordinator(1));
    let made = cluster.run(&mut one, put("1"), again(1));
    assert_eq!(one.remembered().0, 1);
    // It was on its way for longer than its repetition.
    let first = cluster.run(&mut one, put("1"), Retry::First(RequestId(1)));
    assert_eq!(answer(first), answer(made));
    assert_eq!(cluster.state(0).lineage.changes.len(), 1);
}

#[test]
fn what_is_not_in_the_lineage_is_made() {
    let (mut cluster, mut one) = (Cluster::new(), coordinator(1));
    cluster.run(&mut one, cas(json!(null), "1"), never(1));
    let outcome = cluster.run(&mut one, cas(json!(1), "2"), again(2));
    assert!(matches!(answer(outcome), Answer::Swapped { .. }));
    assert_eq!(cluster.value(0), Some("2"));
    let refused = cluster.run(&mut one, cas(json!(1), "3"), again(3));
    assert!(matches!(answer(refused), Answer::NotSwapped { .. }));
}

#[test]
fn a_blind_write_since_the_first_attempt_hides_what_became_of_it() {
    let (mut cluster, mut one) = (Cluster::new(), coordinator(1));
    let first_ms = cluster.now_ms;
    cluster.run(&mut one, put("2"), never(2));
    let outcome = cluster.run(&mut one, put("1"), repeated_from(1, first_ms));
    assert_cannot_tell(&outcome);
    assert_eq!(cluster.value(0), Some("2"), "nothing was done");
    let later = cluster.run(&mut one, put("1"), repeated_from(1, first_ms + 100));
    assert!(
        matches!(answer(later), Answer::Written { .. }),
        "the blind write was before it"
    );
}

#[test]
fn where_nothing_is_held_the_floors_say_how_much_is_known() {
    let (mut cluster, mut one) = (Cluster::new(), coordinator(1));
    let first_ms = cluster.now_ms - 50;
    cluster.nodes[1].1 = Ballot {
        time: HlcTime::from_unix_ms(first_ms),
        incarnation: 9,
    };
    let outcome = cluster.run(&mut one, put("1"), repeated_from(1, first_ms));
    assert_cannot_tell(&outcome);
    assert!(
        cluster
            .nodes
            .iter()
            .all(|(record, _)| record.as_ref().is_none_or(|r| r.state.is_none()))
    );
    let outcome = cluster.run(&mut one, put("1"), repeated_from(1, first_ms + 1));
    assert!(matches!(answer(outcome), Answer::Written { .. }));
}

#[test]
fn what_only_one_node_took_is_committed_before_it_is_told() {
    let (mut cluster, mut one, mut other) = (Cluster::new(), coordinator(1), coordinator(2));
    cluster.run(&mut one, put("0"), never(9));
    cluster.now_ms += 10;
    // The first attempt reaches one node, and its coordinator dies.
    cluster.fate = Box::new(|rank, request| match request {
        Request::Accept { state, .. } if rank == 1 && state.value.as_deref() == Some("1") => Fate::Lost,
        _ => Fate::Arrives,
    });
    start_and_die(&mut cluster, &mut one, put("1"), Retry::Never(RequestId(1)));
    assert_eq!((cluster.value(0), cluster.value(1)), (Some("1"), Some("0")));
    let made = cluster.record(0).accepted;
    cluster.fate = Box::new(|_, _| Fate::Arrives);
    let outcome = cluster.run(&mut other, put("1"), repeated_from(1, made.time.unix_ms()));
    assert_eq!(answer(outcome), Answer::Written { version: made });
    assert_eq!(cluster.state(0), cluster.state(1));
    assert_eq!(cluster.state(0).version, made);
}

#[test]
fn a_refused_repetition_kills_the_attempt_that_one_node_took() {
    let (mut cluster, mut one, mut other) = (Cluster::new(), coordinator(1), coordinator(2));
    cluster.run(&mut one, put("0"), never(8));
    let (ballot, state) = (cluster.record(0).accepted, cluster.state(0).clone());
    cluster.ask(2, &Request::Install { ballot, state });
    let only = |allowed: [bool; NODES]| -> Fates {
        Box::new(move |rank, _| if allowed[rank] { Fate::Arrives } else { Fate::Lost })
    };
    // One node alone takes a change, and the first attempt, which is made of it; both coordinators die.
    cluster.now_ms += 10;
    cluster.fate = only([true, false, false]);
    start_and_die(&mut cluster, &mut one, put("5"), never(9));
    cluster.fate = Box::new(|rank, request| match request {
        Request::Prepare { .. } if rank != 1 => Fate::Arrives,
        Request::Accept { .. } if rank == 0 => Fate::Arrives,
        _ => Fate::Lost,
    });
    let outcome = cluster.run(&mut other, cas(json!(5), "1"), Retry::First(RequestId(1)));
    assert!(matches!(outcome, Outcome::Unknown { .. }), "{outcome:?}");
    assert_eq!(cluster.value(0), Some("1"));
    // The repetition meets the others, who all agree on what was before.
    cluster.fate = only([false, true, true]);
    let refused = answer(cluster.run(&mut coordinator(3), cas(json!(5), "1"), again_after_all()));
    assert!(matches!(refused, Answer::NotSwapped { .. }), "{refused:?}");
    cluster.fate = only([true, true, false]);
    let read = answer(cluster.run(&mut one, Command::Get, never(10)));
    assert!(
        matches!(&read, Answer::Value { value, .. } if **value == *"0"),
        "{read:?}"
    );
}

#[test]
fn a_first_attempt_that_starts_over_sees_that_another_was_made() {
    let (mut cluster, mut one, mut other) = (Cluster::new(), coordinator(1), coordinator(2));
    cluster.run(&mut other, cas(json!(null), "0"), never(9));
    let start = |one: &mut Coordinator, cluster: &Cluster, request| {
        let retry = Retry::First(RequestId(request));
        let mut operation = Operation::new(
            key(),
            cas(json!(0), "1"),
            retry,
            Consistency::Quorum,
            Cluster::members(),
            true,
        );
        let actions = operation.handle(one, cluster.now_ms, Event::Start);
        (operation, actions)
    };
    // Its prepare is under way while the repetition is made; then it is refused, and starts over.
    let (mut first, prepares) = start(&mut one, &cluster, 1);
    let made = answer(cluster.run(&mut other, cas(json!(0), "1"), again(1)));
    cluster.run(&mut other, cas(json!(1), "0"), never(2));
    let outcome = cluster.carry_on(&mut one, &mut first, prepares);
    assert_eq!(answer(outcome), made);
    assert_eq!(cluster.value(0), Some("0"), "not a second time");

    // The same, and a blind write hides what became of the repetition.
    let (mut first, prepares) = start(&mut one, &cluster, 3);
    cluster.run(&mut other, cas(json!(0), "1"), again(3));
    cluster.now_ms += 10;
    cluster.run(&mut coordinator(3), put("0"), never(4));
    let outcome = cluster.carry_on(&mut one, &mut first, prepares);
    assert_cannot_tell(&outcome);
    assert_eq!(cluster.value(0), Some("0"));
}

#[test]
fn without_a_quorum_a_repetition_is_unknown_and_a_first_attempt_is_not() {
    let (mut cluster, mut one) = (Cluster::new(), coordinator(1));
    cluster.fate = Box::new(|_, _| Fate::Lost);
    assert_cannot_tell(&cluster.run(&mut one, put("1"), again(1)));
    let first = cluster.run(&mut one, put("1"), Retry::First(RequestId(2)));
    assert!(matches!(first, Outcome::Unavailable { answered: 0, .. }), "{first:?}");
}

#[test]
fn an_acquisition_is_repeated_only_while_it_holds() {
    let (mut cluster, mut one) = (Cluster::new(), coordinator(1));
    let taken = answer(cluster.run(&mut one, acquire("t"), Retry::First(RequestId(1))));
    let Answer::Locked {
        fence, expires_at_ms, ..
    } = taken
    else {
        panic!("{taken:?}")
    };
    cluster.now_ms += 100;
    let repeated = answer(cluster.run(&mut one, acquire("t"), again(1)));
    let Answer::Locked {
        fence: again_fence,
        expires_at_ms: again_at,
        expires_in_ms,
        ..
    } = repeated
    else {
        panic!("{repeated:?}")
    };
    assert_eq!((again_fence, again_at), (fence, expires_at_ms));
    assert!(expires_in_ms < ACQUIRE_TTL_MS, "time has passed");

    cluster.run(&mut one, release("t"), never(2));
    let over = answer(cluster.run(&mut one, acquire("t"), again(1)));
    assert!(matches!(over, Answer::LockHeld { expires_in_ms: 0, .. }), "{over:?}");
    cluster.run(&mut one, acquire("u"), never(3));
    let held = answer(cluster.run(&mut one, acquire("t"), again(1)));
    assert!(matches!(held, Answer::LockHeld { expires_in_ms: 1.., .. }), "{held:?}");
}

#[test]
fn releases_and_renewals_are_repeated() {
    let (mut cluster, mut one) = (Cluster::new(), coordinator(1));
    cluster.run(&mut one, acquire("t"), never(1));
    let renewed = answer(cluster.run(&mut one, renew("t"), Retry::First(RequestId(2))));
    let Answer::Renewed { expires_at_ms, .. } = renewed else {
        panic!("{renewed:?}")
    };
    cluster.now_ms += 50;
    let repeated = answer(cluster.run(&mut one, renew("t"), again(2)));
    assert!(matches!(repeated, Answer::Renewed { expires_at_ms: at, .. } if at == expires_at_ms));
    cluster.run(&mut one, release("t"), Retry::First(RequestId(3)));
    cluster.run(&mut one, acquire("u"), never(4));
    assert_eq!(
        answer(cluster.run(&mut one, release("t"), again(3))),
        Answer::Released(true)
    );
    assert_eq!(answer(cluster.run(&mut one, renew("t"), again(2))), Answer::NotRenewed);
    assert!(!cluster.state(0).is_tombstone(), "the lock is another's by now");
}

#[test]
fn a_repetition_does_not_tell_of_an_end_without_a_tombstone() {
    let (mut cluster, mut one) = (Cluster::new(), coordinator(1));
    cluster.run(&mut one, acquire("t"), never(1));
    cluster.run(&mut one, renew("t"), Retry::First(RequestId(2)));
    cluster.now_ms += ACQUIRE_TTL_MS;
    assert_eq!(answer(cluster.run(&mut one, renew("t"), again(2))), Answer::NotRenewed);
    assert!(cluster.state(0).is_tombstone() && cluster.state(1).is_tombstone());
}

#[test]
fn the_end_of_a_value_is_nobodys_change() {
    let (mut cluster, mut one) = (Cluster::new(), coordinator(1));
    let ending = Command::Put {
        value: Arc::from("1"),
        ttl_ms: Some(100),
        fence: None,
    };
    cluster.run(&mut one, ending, never(1));
    cluster.now_ms += 200;
    let refused = answer(cluster.run(&mut one, cas(json!(1), "2"), Retry::First(RequestId(2))));
    assert!(matches!(refused, Answer::NotSwapped { current: None, .. }));
    assert!(cluster.state(0).is_tombstone(), "the tombstone was committed for it");
    let repeated = answer(cluster.run(&mut one, cas(json!(1), "2"), repeated_from(2, cluster.now_ms)));
    assert!(
        matches!(repeated, Answer::NotSwapped { .. }),
        "it was not made: {repeated:?}"
    );
}
