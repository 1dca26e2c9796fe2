use serde_json::json;

use super::super::memory::{ENTRY_BYTES, FRESH_MS, Memory, MemoryLimits, Remembered};
use super::*;
use crate::state::Lineage;

fn is_accept(request: &Request) -> bool {
    matches!(request, Request::Accept { .. })
}

#[test]
fn the_next_change_takes_one_round_trip() {
    let (mut cluster, mut one) = (Cluster::new(), coordinator(1));
    cluster.run(&mut one, cas(json!(null), "1"), never(1));
    assert_eq!(cluster.rounds, 2, "a prepare and an accept");
    let reserved = cluster.record(0).promised;
    assert!(reserved > cluster.record(0).accepted);
    for change in 2..6 {
        let outcome = cluster.run(&mut one, cas(json!(change - 1), &change.to_string()), never(change));
        assert_eq!(cluster.rounds, 1);
        let version = cluster.record(0).accepted;
        assert_eq!(answer(outcome), Answer::Swapped { version });
    }
    assert_eq!(cluster.state(1).lineage.changes[1], (reserved, RequestId(2)));
    assert_eq!(cluster.state(0), cluster.state(1));
    assert_eq!(
        answer(cluster.run(&mut one, Command::Get, never(7))),
        Answer::Value {
            value: Arc::from("5"),
            version: cluster.record(0).accepted
        }
    );
}

#[test]
fn a_put_made_of_what_is_remembered_keeps_fence_and_lineage() {
    let (mut cluster, mut one) = (Cluster::new(), coordinator(1));
    let fenced = Command::Put {
        value: Arc::from("1"),
        ttl_ms: None,
        fence: Some(7),
    };
    cluster.run(&mut one, fenced, never(1));
    cluster.run(&mut one, put("2"), never(2));
    assert_eq!((cluster.rounds, cluster.value(0)), (1, Some("2")));
    let state = cluster.state(0);
    assert_eq!((state.fence, state.lineage.since), (7, Ballot::ZERO));
    assert_eq!(state.lineage.changes.len(), 2);
    let delete = Command::Delete {
        version: None,
        fence: None,
    };
    cluster.run(&mut one, delete, never(3));
    assert_eq!((cluster.rounds, cluster.state(0).fence), (1, 7));
}

#[test]
fn a_blind_put_reserves_too() {
    let (mut cluster, mut one) = (Cluster::new(), coordinator(1));
    cluster.run(&mut one, put("1"), never(1));
    cluster.run(&mut one, cas(json!(1), "2"), never(2));
    assert_eq!((cluster.rounds, cluster.value(1)), (1, Some("2")));
}

#[test]
fn a_reservation_that_no_quorum_granted_is_not_used() {
    let (mut cluster, mut one) = (Cluster::new(), coordinator(1));
    cluster.fate = Box::new(|rank, _| if rank == 1 { Fate::Ungranted } else { Fate::Arrives });
    cluster.run(&mut one, put("1"), never(1));
    assert_eq!(one.remembered(), (0, 0));
    cluster.run(&mut one, cas(json!(1), "2"), never(2));
    assert_eq!(cluster.rounds, 2);
}

#[test]
fn what_is_remembered_never_refuses() {
    let (mut cluster, mut one, mut other) = (Cluster::new(), coordinator(1), coordinator(2));
    cluster.run(&mut one, put("1"), never(1));
    cluster.run(&mut other, put("2"), never(2));
    let outcome = cluster.run(&mut one, cas(json!(2), "3"), never(3));
    assert!(matches!(answer(outcome), Answer::Swapped { .. }), "it remembers 1");
    assert_eq!(cluster.rounds, 3, "a look, a prepare and an accept");
}

#[test]
fn a_refusal_costs_a_look_and_no_reservation() {
    let (mut cluster, mut one) = (Cluster::new(), coordinator(1));
    cluster.run(&mut one, put("1"), never(1));
    let (version, promised) = (cluster.record(0).accepted, cluster.record(0).promised);
    let outcome = cluster.run(&mut one, cas(json!(7), "8"), never(2));
    let current = Some(Arc::from("1"));
    let refusal = Answer::NotSwapped {
        current,
        version: Some(version),
    };
    assert_eq!((answer(outcome), cluster.rounds), (refusal, 1));
    assert_eq!(cluster.record(0).promised, promised, "nothing was written");
    cluster.run(&mut one, cas(json!(1), "2"), never(3));
    assert_eq!((cluster.rounds, cluster.value(1)), (1, Some("2")));
}

#[test]
fn a_look_that_nodes_do_not_agree_on_refuses_nothing() {
    let (mut cluster, mut one, mut other) = (Cluster::new(), coordinator(1), coordinator(2));
    cluster.run(&mut one, put("1"), never(1));
    // Only one home takes it: whether 7 will be read ever again is not known.
    cluster.fate = Box::new(|rank, request| {
        if rank > 0 && is_accept(request) {
            Fate::Lost
        } else {
            Fate::Arrives
        }
    });
    cluster.run(&mut other, put("7"), never(2));
    cluster.fate = Box::new(|_, _| Fate::Arrives);
    let outcome = cluster.run(&mut one, cas(json!(8), "9"), never(3));
    let current = cluster.state(0).value.clone();
    assert_eq!(cluster.state(0), cluster.state(1), "settled before it is told");
    let version = Some(cluster.state(0).version);
    assert_eq!(answer(outcome), Answer::NotSwapped { current, version });
}

#[test]
fn refused_by_all_it_starts_over() {
    let (mut cluster, mut one, mut other) = (Cluster::new(), coordinator(1), coordinator(2));
    cluster.run(&mut one, put("1"), never(1));
    cluster.run(&mut other, cas(json!(1), "2"), never(2));
    let before_ms = cluster.now_ms;
    let outcome = cluster.run(&mut one, cas(json!(1), "3"), never(3));
    assert_eq!(cluster.now_ms, before_ms + 1, "without a pause");
    let version = Some(cluster.record(0).accepted);
    let current = Some(Arc::from("2"));
    assert_eq!(answer(outcome), Answer::NotSwapped { current, version });
    assert_eq!(cluster.rounds, 2, "an accept that both refused, and a prepare");
    cluster.run(&mut one, put("1"), never(4));
    cluster.run(&mut other, put("2"), never(5));
    let outcome = cluster.run(&mut one, put("3"), never(6));
    let version = cluster.record(0).accepted;
    assert_eq!(answer(outcome), Answer::Written { version });
    assert_eq!(cluster.value(1), Some("3"));
}

#[test]
fn taken_by_some_it_learns_what_became_of_it() {
    let (mut cluster, mut one) = (Cluster::new(), coordinator(1));
    cluster.run(&mut one, put("1"), never(1));
    let reserved = cluster.record(1).promised;
    let above = Ballot {
        time: reserved.time.next(),
        incarnation: 2,
    };
    cluster.ask(1, &Request::Prepare { ballot: above });
    let outcome = cluster.run(&mut one, cas(json!(1), "2"), never(2));
    assert_eq!(answer(outcome), Answer::Swapped { version: reserved });
    assert_eq!(cluster.value(1), Some("2"));
    assert_eq!(cluster.state(1).lineage.changes.len(), 2, "once");
    assert_eq!(one.remembered(), (0, 0));
}

#[test]
fn lost_everywhere_it_is_dead_before_it_is_made_again() {
    let (mut cluster, mut one) = (Cluster::new(), coordinator(1));
    cluster.run(&mut one, put("1"), never(1));
    let reserved = cluster.record(1).promised;
    cluster.fate = Box::new(move |_, request| match request {
        Request::Accept { ballot, .. } if *ballot == reserved => Fate::Lost,
        _ => Fate::Arrives,
    });
    let outcome = cluster.run(&mut one, cas(json!(1), "2"), never(2));
    let version = cluster.record(0).accepted;
    assert_eq!(answer(outcome), Answer::Swapped { version });
    assert!(version > reserved);
}

#[test]
fn an_old_reservation_is_not_used() {
    let (mut cluster, mut one) = (Cluster::new(), coordinator(1));
    cluster.run(&mut one, put("1"), never(1));
    cluster.now_ms += FRESH_MS - 1;
    cluster.run(&mut one, cas(json!(1), "2"), never(2));
    assert_eq!(cluster.rounds, 1);
    cluster.now_ms += 2 * FRESH_MS;
    cluster.run(&mut one, cas(json!(2), "3"), never(3));
    assert_eq!(cluster.rounds, 2);
}

#[test]
fn nothing_that_depends_on_time_is_made_at_an_old_ballot() {
    let (mut cluster, mut one) = (Cluster::new(), coordinator(1));
    let ending = Command::Put {
        value: Arc::from("1"),
        ttl_ms: Some(100),
        fence: None,
    };
    cluster.run(&mut one, put("0"), never(1));
    cluster.run(&mut one, ending, never(2));
    let record = cluster.record(0);
    assert!(record.accepted.time.unix_ms() >= cluster.now_ms, "a ballot of its own");
    assert_eq!(record.promised, record.accepted, "none reserved");
    assert_eq!(one.remembered(), (0, 0));
    let acquire = Command::Acquire {
        token: Arc::from("t"),
        owner: None,
        ttl_ms: 100,
    };
    cluster.now_ms += 200;
    cluster.run(&mut one, acquire, never(3));
    assert_eq!(one.remembered(), (0, 0));
}

#[test]
fn a_settle_and_an_unknown_outcome_drop_what_is_remembered() {
    let (mut cluster, mut one) = (Cluster::new(), coordinator(1));
    cluster.run(&mut one, put("1"), never(1));
    assert_eq!(one.remembered().0, 1);
    let mut settle = Operation::settle(key(), RequestId(2), Cluster::members());
    let actions = settle.handle(&mut one, cluster.now_ms, Event::Start);
    cluster.carry_on(&mut one, &mut settle, actions);
    assert_eq!(one.remembered().0, 0);

    cluster.run(&mut one, put("2"), never(3));
    assert_eq!(one.remembered().0, 1);
    cluster.fate = Box::new(|rank, request| {
        if rank == 0 && is_accept(request) {
            Fate::Arrives
        } else {
            Fate::Lost
        }
    });
    let outcome = cluster.run(&mut one, put("3"), never(4));
    assert!(matches!(outcome, Outcome::Unknown { .. }), "{outcome:?}");
    assert_eq!(one.remembered(), (0, 0));
}

#[test]
fn with_memory_off_nothing_is_reserved() {
    let (mut cluster, mut one) = (Cluster::new(), coordinator(1).with_memory(MemoryLimits::NONE));
    cluster.run(&mut one, put("1"), never(1));
    assert_eq!(cluster.record(0).promised, cluster.record(0).accepted);
    assert_eq!(one.remembered(), (0, 0));
}

#[test]
fn ballots_drawn_after_a_reservation_lie_above_it() {
    let (mut cluster, mut one) = (Cluster::new(), coordinator(1));
    let mut last = Ballot::ZERO;
    for change in 1..20 {
        // The wall clock goes back, too.
        cluster.now_ms -= 3;
        cluster.run(&mut one, put("1"), never(change));
        let record = cluster.record(0);
        assert!(record.accepted > last);
        last = record.accepted;
        assert!(record.promised > last && one.clock.last() >= record.promised.time);
    }
}

fn remembered(time: u64, value: &str) -> Remembered {
    let ballot = |time| Ballot {
        time: HlcTime::from_bits(time),
        incarnation: 1,
    };
    let state = State {
        value: Some(Arc::from(value)),
        version: ballot(time),
        fence: 0,
        expires_at_ms: None,
        lineage: Lineage::default(),
    };
    Remembered {
        state,
        reserved: ballot(time + 1),
    }
}

#[test]
fn entries_and_bytes_are_bounded_and_counted_exactly() {
    let of = |name: u64| Key::data(&name.to_string());
    let mut memory = Memory::new(MemoryLimits {
        entries: 3,
        bytes: usize::MAX,
    });
    for name in 0..5 {
        memory.keep(&of(name), remembered(name, "12"));
    }
    assert_eq!(memory.len(), 3);
    assert_eq!(memory.take(&of(1)), None, "the oldest went first");
    let entry = ENTRY_BYTES + of(4).as_text().len() + size_of::<State>() + 2;
    assert_eq!(memory.bytes(), 3 * entry);
    memory.keep(&of(2), remembered(9, "1"));
    assert_eq!(
        (memory.len(), memory.bytes()),
        (3, 3 * entry - 1),
        "in place of the old one"
    );
    memory.keep(&of(2), remembered(8, "99"));
    assert_eq!(memory.take(&of(2)), Some(remembered(9, "1")), "the newer one stays");
    for name in [3, 4] {
        assert!(memory.take(&of(name)).is_some());
    }
    assert_eq!((memory.len(), memory.bytes()), (0, 0));

    let mut memory = Memory::new(MemoryLimits {
        entries: 3,
        bytes: 2 * entry,
    });
    for name in 0..3 {
        memory.keep(&of(name), remembered(name, "12"));
    }
    assert_eq!((memory.len(), memory.bytes()), (2, 2 * entry));
    memory.keep(&of(7), remembered(7, &"x".repeat(2 * entry)));
    assert_eq!(
        (memory.len(), memory.take(&of(7))),
        (2, None),
        "too large to keep anything else"
    );
}
