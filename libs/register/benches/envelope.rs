//! What it costs to write envelopes and their answers as postcard and to read them again, the way kvfront and kvstore do it.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput};
use register::message::Held;
use register::{
    Ballot, Envelope, EnvelopeReply, Epoch, HlcTime, Key, Lineage, Reply, Request, RequestId, Standing, State,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

const VALUE_BYTES: usize = 256;
const NOW_MS: u64 = 1_800_000_000_000;

fn ballot(number: u64) -> Ballot {
    Ballot {
        time: HlcTime::from_bits(HlcTime::from_unix_ms(NOW_MS).to_bits() + number),
        incarnation: 0x9e37_79b9_7f4a_7c15,
    }
}

fn state(number: u64) -> State {
    State {
        value: Some(Arc::from("x".repeat(VALUE_BYTES))),
        version: ballot(number),
        fence: 0,
        expires_at_ms: None,
        lineage: Lineage::blind(ballot(number), RequestId(0x2545_f491_4f6c_dd1d ^ number)),
    }
}

/// Changes as puts make them.
fn envelope(requests: u64) -> Envelope {
    let change = |number| {
        let request = Request::Accept {
            ballot: ballot(number),
            state: state(number),
            blind: true,
            reserve: Some(ballot(number + requests)),
            hint_for: None,
        };
        (Key::data(&format!("bench-{number:08}")), request)
    };
    Envelope {
        clock: ballot(2 * requests).time,
        sender: 7,
        epoch: Epoch(0x545f_8d31_97a8_318c),
        requests: (0..requests).map(change).collect(),
    }
}

/// Answers to reads.
fn answers(replies: u64) -> EnvelopeReply {
    let holds = |number| {
        Reply::Holds(Held {
            accepted: ballot(number),
            state: Some(state(number)),
            promised: ballot(number + replies),
            floor: Ballot::ZERO,
        })
    };
    EnvelopeReply {
        clock: ballot(2 * replies).time,
        incarnation: 7,
        commit: 1_000_000,
        floor: Ballot::ZERO,
        standing: Standing::Voting,
        replies: (0..replies).map(holds).collect(),
    }
}

fn measure<T: Serialize + DeserializeOwned>(criterion: &mut Criterion, name: &str, make: impl Fn(u64) -> T) {
    let mut group = criterion.benchmark_group(name);
    for messages in [8, 64] {
        let message = make(messages);
        let bytes = postcard::to_stdvec(&message).expect("numbers and texts");
        let (read, rest) = postcard::take_from_bytes::<T>(&bytes).expect("what was just written");
        assert!(rest.is_empty() && postcard::to_stdvec(&read).is_ok_and(|again| again == bytes));
        group.throughput(Throughput::Elements(messages));
        group.bench_function(BenchmarkId::new("write", messages), |bencher| {
            bencher.iter(|| postcard::to_stdvec(black_box(&message)));
        });
        group.bench_function(BenchmarkId::new("read", messages), |bencher| {
            bencher
                .iter_with_large_drop(|| postcard::take_from_bytes::<T>(black_box(&bytes)).map(|(message, _)| message));
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    measure(&mut criterion, "envelope of changes", envelope);
    measure(&mut criterion, "answers to reads", answers);
    criterion.final_summary();
}
