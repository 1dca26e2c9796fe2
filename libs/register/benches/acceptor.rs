//! What a decision of the acceptor costs, apart from making it durable.
//!
//! Each decision is made on a record as it is found in a busy store: a value of 256 bytes, and a lineage of one change (last written by
//! a blind put) or as long as lineages get (a key that is swapped all the time).

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion};
use register::acceptor::{Change, Decision, decide};
use register::message::Reply;
use register::state::LINEAGE_MAX;
use register::{Ballot, HlcTime, Lineage, Record, Request, RequestId, State};

const VALUE_BYTES: usize = 256;
const NOW_MS: u64 = 1_800_000_000_000;

fn ballot(ms: u64) -> Ballot {
    Ballot {
        time: HlcTime::from_unix_ms(NOW_MS + ms),
        incarnation: 7,
    }
}

/// A state of so many changes, the newest of them made at `ms`.
fn state(changes: usize, ms: u64) -> State {
    let newest = ballot(ms);
    let mut lineage = Lineage::blind(ballot(0), RequestId(1));
    for change in (1..changes).rev() {
        lineage.push(ballot(ms - change as u64), RequestId(change as u64 + 1));
    }
    State {
        value: Some(Arc::from("x".repeat(VALUE_BYTES))),
        version: newest,
        fence: 0,
        expires_at_ms: None,
        lineage,
    }
}

fn record(changes: usize) -> Record {
    Record {
        accepted: ballot(100),
        state: Some(state(changes, 100)),
        promised: ballot(100),
        floor: Ballot::ZERO,
        hint_for: None,
    }
}

fn accept(blind: bool, reserve: bool, changes: usize, ms: u64) -> Request {
    Request::Accept {
        ballot: ballot(ms),
        state: state(changes, ms),
        blind,
        reserve: reserve.then(|| ballot(ms + 1)),
        hint_for: None,
    }
}

fn is_told(decision: &Decision) -> bool {
    matches!(decision.reply, Reply::Holds(_))
}

fn is_refused(decision: &Decision) -> bool {
    matches!(decision.reply, Reply::Refused { .. })
}

fn is_taken(decision: &Decision) -> bool {
    matches!(decision.change, Change::Put(_))
}

/// A request to a node with this record, and what has to come of it.
struct Case<'a> {
    name: &'static str,
    record: Option<&'a Record>,
    request: Request,
    expected: fn(&Decision) -> bool,
}

fn cases(held: &Record, changes: usize) -> [Case<'_>; 6] {
    let on_held = |name, request, expected| Case {
        name,
        record: Some(held),
        request,
        expected,
    };
    [
        on_held("read", Request::Read, is_told),
        on_held("prepare", Request::Prepare { ballot: ballot(200) }, is_taken),
        on_held("prepare, refused", Request::Prepare { ballot: ballot(50) }, is_refused),
        on_held("accept, blind", accept(true, false, 1, 200), is_taken),
        on_held("accept with a reservation", accept(false, true, changes, 200), is_taken),
        Case {
            name: "accept of a new key",
            record: None,
            request: accept(false, true, 1, 200),
            expected: is_taken,
        },
    ]
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("decide");
    for changes in [1, LINEAGE_MAX] {
        let held = record(changes);
        for case in cases(&held, changes) {
            let decided = decide(case.record, Ballot::ZERO, &case.request);
            assert!((case.expected)(&decided), "{}: {decided:?}", case.name);
            let id = BenchmarkId::new(case.name, format!("lineage {changes}"));
            group.bench_function(id, |bencher| {
                bencher.iter(|| decide(black_box(case.record), Ballot::ZERO, black_box(&case.request)));
            });
        }
    }
    group.finish();
    criterion.final_summary();
}
