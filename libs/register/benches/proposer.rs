//! What a whole operation costs coordinator and nodes, without network and disk: one coordinator, three acceptors in memory that answer
//! at once, two of them homes.
//!
//! The coordinator's memory is full, as it is on a busy kvfront. Time goes on with the operations, two in a millisecond: each of the
//! [`KNOWN`] keys that are written again is written every half second, so that its reservation is fresh, and its lineage a few changes long.

use std::sync::Arc;

use criterion::Criterion;
use register::acceptor::{Change, decide};
use register::change::{Answer, Command, Expect};
use register::proposer::memory::MemoryLimits;
use register::proposer::{Action, Consistency, Coordinator, Event, Limits, Members, Operation, Outcome, Retry};
use register::{Ballot, Key, Record, Request, RequestId};

const NODES: usize = 3;
const HOMES: usize = 2;
const VALUE_BYTES: usize = 256;
/// Keys that are written again and again.
const KNOWN: usize = 1_000;
const OPERATIONS_PER_MS: u64 = 2;
const START_MS: u64 = 1_800_000_000_000;

/// Three nodes and the one coordinator that talks to them.
struct Cluster {
    coordinator: Coordinator,
    /// By key, then by node.
    records: Vec<[Option<Record>; NODES]>,
    keys: Vec<Key>,
    value: Arc<str>,
    members: Members,
    operations: u64,
}

impl Cluster {
    /// With so many keys, all absent, and a coordinator that remembers others.
    fn new(keys: usize) -> Self {
        let mut cluster = Self {
            coordinator: Coordinator::new(7, 500, Limits::default(), 7),
            records: vec![[const { None }; NODES]; keys],
            keys: (0..keys)
                .map(|number| Key::data(&format!("bench-{number:08}")))
                .collect(),
            value: Arc::from(format!("\"{}\"", "x".repeat(VALUE_BYTES - 2))),
            members: Members {
                homes: HOMES,
                names: (0..NODES)
                    .map(|node| Arc::from(format!("http://kvstore_{node}:9000")))
                    .collect(),
                suspected: vec![false; NODES],
            },
            operations: 0,
        };
        let others = MemoryLimits::default().entries;
        for number in 0..others {
            let mut records = [const { None }; NODES];
            let key = Key::data(&format!("other-{number:08}"));
            cluster.operate(&key, &mut records, cluster.put());
        }
        assert_eq!(cluster.coordinator.remembered().0, others);
        cluster
    }

    fn put(&self) -> Command {
        Command::Put {
            value: Arc::clone(&self.value),
            ttl_ms: None,
            fence: None,
        }
    }

    fn cas(&self, version: Option<Ballot>) -> Command {
        Command::Cas {
            expect: Expect::Version(version),
            new: Arc::clone(&self.value),
            fence: None,
        }
    }

    /// Runs one command on the key of this number to its end.
    fn run(&mut self, number: usize, command: Command) -> Answer {
        let key = self.keys[number].clone();
        let mut records = std::mem::take(&mut self.records[number]);
        let answer = self.operate(&key, &mut records, command);
        self.records[number] = records;
        answer
    }

    fn operate(&mut self, key: &Key, records: &mut [Option<Record>; NODES], command: Command) -> Answer {
        self.operations += 1;
        let now_ms = START_MS + self.operations / OPERATIONS_PER_MS;
        let retry = Retry::Never(RequestId(self.operations));
        let members = self.members.clone();
        let mut operation = Operation::new(key.clone(), command, retry, Consistency::Quorum, members, true);
        let mut actions = operation.handle(&mut self.coordinator, now_ms, Event::Start);
        loop {
            let mut next = Vec::new();
            for action in actions {
                match action {
                    Action::Done(Outcome::Answered { answer, .. }) => return answer,
                    Action::Done(other) => panic!("{other:?}"),
                    // Nobody is ever late.
                    Action::Wake { .. } => {}
                    Action::Send { round, rank, request } => {
                        let reply = ask(&mut records[rank], &request);
                        let event = Event::Reply { round, rank, reply };
                        next.extend(operation.handle(&mut self.coordinator, now_ms, event));
                    }
                }
            }
            assert!(!next.is_empty(), "the operation waits for something that does not come");
            actions = next;
        }
    }
}

fn ask(record: &mut Option<Record>, request: &Request) -> register::Reply {
    let decision = decide(record.as_ref(), Ballot::ZERO, request);
    match decision.change {
        Change::Nothing => {}
        Change::Put(new) => *record = Some(new),
        Change::Remove { .. } => *record = None,
    }
    decision.reply
}

fn written(answer: &Answer) -> Ballot {
    match answer {
        Answer::Written { version } | Answer::Swapped { version } => *version,
        other => panic!("{other:?}"),
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("operation");
    group.bench_function("put", |bencher| {
        let (mut cluster, mut number) = (Cluster::new(KNOWN), 0);
        bencher.iter(|| {
            number = (number + 1) % KNOWN;
            written(&cluster.run(number, cluster.put()))
        });
    });
    group.bench_function("cas-create", |bencher| {
        // More than the coordinator remembers: when a key's turn comes again, it is as new as its nodes then are.
        let keys = 2 * MemoryLimits::default().entries;
        let (mut cluster, mut number) = (Cluster::new(keys), 0);
        bencher.iter(|| {
            number = (number + 1) % keys;
            cluster.records[number] = [const { None }; NODES];
            written(&cluster.run(number, cluster.cas(None)))
        });
    });
    group.bench_function("cas-update", |bencher| {
        let (mut cluster, mut number) = (Cluster::new(KNOWN), 0);
        let mut versions: Vec<_> = (0..KNOWN)
            .map(|key| written(&cluster.run(key, cluster.put())))
            .collect();
        bencher.iter(|| {
            number = (number + 1) % KNOWN;
            versions[number] = written(&cluster.run(number, cluster.cas(Some(versions[number]))));
        });
    });
    group.bench_function("get", |bencher| {
        let (mut cluster, mut number) = (Cluster::new(KNOWN), 0);
        for key in 0..KNOWN {
            written(&cluster.run(key, cluster.put()));
        }
        bencher.iter(|| {
            number = (number + 1) % KNOWN;
            match cluster.run(number, Command::Get) {
                Answer::Value { value, .. } => value,
                other => panic!("{other:?}"),
            }
        });
    });
    group.finish();
    criterion.final_summary();
}
