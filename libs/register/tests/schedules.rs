//! Random schedules over the real state machines: one key, two homes and a spare, three coordinators, hand-over; messages delayed, lost,
//! duplicated and reordered, nodes crashed, links cut, clocks apart. Every history must be linearizable.
//!
//! `SCHEDULES=200000 SEED=1 cargo test --release -p register --test schedules` runs as many as one likes; a failure prints its seed.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use register::acceptor::{Change, decide};
use register::change::{Answer, Command, Expect};
use register::handover::{HandOver, HandOverAction, HandOverEvent};
use register::proposer::{Action, Consistency, Coordinator, Event, Limits, Members, Operation, Outcome};
use register::{Ballot, Record, Reply, Request, RequestId};

/// World seeds that once failed, each with what was wrong.
const REGRESSIONS: [u64; 1] = [
    1_000_000_222, // a write-back asked a node that held the state already, and counted it twice
];

/// Runs in CI; more by hand.
const DEFAULT_SCHEDULES: u64 = 3_000;
const COORDINATORS: usize = 3;
const HOMES: usize = 2;
const NODES: usize = 3;
const END_MS: u64 = 60_000;
const EPOCH_MS: u64 = 1_700_000_000_000;

type Value = Option<u32>;

#[derive(Debug, Clone, PartialEq)]
enum Op {
    Read(Value),
    Write(Value),
    /// Expected, new, and whether it swapped (`None`: not known).
    Cas(Value, Value, Option<bool>),
}

#[derive(Debug, Clone)]
struct Entry {
    called: u64,
    returned: u64,
    op: Op,
}

const NEVER: u64 = u64::MAX;

enum What {
    /// A request reaches a node; the answer goes to `from`.
    Arrive {
        from: From,
        round: u32,
        rank: usize,
        request: Request,
    },
    /// The same message once more; nobody waits for the answer.
    ArriveAgain {
        rank: usize,
        request: Request,
    },
    Answer {
        from: From,
        round: u32,
        rank: usize,
        reply: Option<Reply>,
    },
    Wake {
        operation: u64,
        timer: u32,
    },
    Client(usize),
    Flush,
    Fault,
    Heal {
        node: usize,
    },
    Join {
        coordinator: usize,
        node: usize,
    },
}

#[derive(Clone, Copy)]
enum From {
    Operation(u64),
    HandOver(u64),
}

struct Client {
    left: u32,
    seen: Value,
}

/// An operation, its coordinator, and whose it is: client and place in the history.
type Running = (Operation, usize, Option<(usize, usize)>);

struct World {
    rng: StdRng,
    now: u64,
    order: u64,
    queue: BinaryHeap<Reverse<(u64, u64, u64)>>,
    events: HashMap<u64, What>,
    nodes: [(Option<Record>, Ballot); NODES],
    up: [bool; NODES],
    cut: HashSet<(usize, usize)>,
    coordinators: Vec<(Coordinator, i64)>,
    operations: HashMap<u64, Running>,
    handovers: HashMap<u64, (HandOver, usize)>,
    clients: Vec<Client>,
    history: Vec<Entry>,
    next_id: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let limits = Limits {
            deadline_ms: 8_000,
            phase_ms: 2_500,
            spare_after_ms: rng.random_range(50..1_200),
            backoff_ms: 20,
        };
        let coordinators = (0..COORDINATORS)
            .map(|i| {
                (
                    Coordinator::new(i as u64 + 1, 500, limits, seed ^ i as u64),
                    rng.random_range(-150..150),
                )
            })
            .collect();
        let clients = (0..rng.random_range(2..5))
            .map(|_| Client {
                left: rng.random_range(3..8),
                seen: None,
            })
            .collect();
        Self {
            rng,
            now: 0,
            order: 0,
            queue: BinaryHeap::new(),
            events: HashMap::new(),
            nodes: Default::default(),
            up: [true; NODES],
            cut: HashSet::new(),
            coordinators,
            operations: HashMap::new(),
            handovers: HashMap::new(),
            clients,
            history: Vec::new(),
            next_id: 0,
        }
    }

    fn at(&mut self, after_ms: u64, what: What) {
        self.order += 1;
        self.queue.push(Reverse((self.now + after_ms, self.order, self.order)));
        self.events.insert(self.order, what);
    }

    fn delay(&mut self) -> u64 {
        match self.rng.random_range(0..6) {
            0..3 => self.rng.random_range(1..20),
            3 => 200,
            4 => 800,
            _ => self.rng.random_range(0..3_500),
        }
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn run(mut self) -> Vec<Entry> {
        for client in 0..self.clients.len() {
            let after = self.rng.random_range(0..500);
            self.at(after, What::Client(client));
        }
        self.at(500, What::Fault);
        self.at(500, What::Flush);
        while let Some(Reverse((time, _, id))) = self.queue.pop() {
            if time > END_MS {
                break;
            }
            self.now = time;
            let Some(what) = self.events.remove(&id) else { continue };
            self.step(what);
        }
        self.history
    }

    fn step(&mut self, what: What) {
        match what {
            What::Arrive {
                from,
                round,
                rank,
                request,
            } => {
                let coordinator = self.coordinator_of(from);
                let link = coordinator.is_some_and(|c| !self.cut.contains(&(c, rank)));
                if !self.up[rank] {
                    // A dead node refuses the connection: certainly not delivered, and told at once.
                    let after = self.delay();
                    return self.at(
                        after,
                        What::Answer {
                            from,
                            round,
                            rank,
                            reply: None,
                        },
                    );
                }
                if !link || self.rng.random_bool(0.05) {
                    return;
                }
                let reply = self.ask(rank, &request);
                if self.rng.random_bool(0.03) {
                    let after = self.delay();
                    self.at(after, What::ArriveAgain { rank, request });
                }
                if !self.rng.random_bool(0.05) {
                    let after = self.delay();
                    self.at(
                        after,
                        What::Answer {
                            from,
                            round,
                            rank,
                            reply: Some(reply),
                        },
                    );
                }
            }
            What::ArriveAgain { rank, request } => {
                if self.up[rank] {
                    self.ask(rank, &request);
                }
            }
            What::Answer {
                from: From::Operation(id),
                round,
                rank,
                reply,
            } => {
                let event = match reply {
                    Some(reply) => Event::Reply { round, rank, reply },
                    None => Event::Failed {
                        round,
                        rank,
                        delivered: false,
                        reason: "refused".to_owned(),
                    },
                };
                self.give(id, event);
            }
            What::Answer {
                from: From::HandOver(id),
                round,
                rank,
                reply,
            } => {
                let event = match reply {
                    Some(reply) => HandOverEvent::Reply { round, rank, reply },
                    None => HandOverEvent::Failed { round, rank },
                };
                self.give_handover(id, event);
            }
            What::Wake { operation, timer } => self.give(operation, Event::Wake { timer }),
            What::Client(client) => self.client(client),
            What::Flush => self.flush(),
            What::Fault => self.fault(),
            What::Heal { node } => self.up[node] = true,
            What::Join { coordinator, node } => {
                self.cut.remove(&(coordinator, node));
            }
        }
    }

    fn coordinator_of(&self, from: From) -> Option<usize> {
        match from {
            From::Operation(id) => self.operations.get(&id).map(|(_, coordinator, _)| *coordinator),
            From::HandOver(id) => self.handovers.get(&id).map(|(_, coordinator)| *coordinator),
        }
    }

    fn ask(&mut self, rank: usize, request: &Request) -> Reply {
        let (record, floor) = &mut self.nodes[rank];
        let decision = decide(record.as_ref(), *floor, request);
        assert!(
            !matches!(decision.reply, Reply::Corrupt { .. }),
            "two states under one ballot"
        );
        match decision.change {
            Change::Nothing => {}
            Change::Put(new) => *record = Some(new),
            Change::Remove { floor: new } => {
                *record = None;
                *floor = new;
            }
        }
        decision.reply
    }

    fn members(&mut self) -> Members {
        let suspected = (0..NODES)
            .map(|rank| !self.up[rank] && self.rng.random_bool(0.5))
            .collect();
        Members {
            homes: HOMES,
            names: (0..NODES).map(|i| Arc::from(format!("n{i}"))).collect(),
            suspected,
        }
    }

    fn start(&mut self, operation: Operation, coordinator: usize, caller: Option<(usize, usize)>) {
        let id = self.id();
        self.operations.insert(id, (operation, coordinator, caller));
        self.give(id, Event::Start);
    }

    fn give(&mut self, id: u64, event: Event) {
        let Some((operation, index, caller)) = self.operations.get_mut(&id) else {
            return;
        };
        let (index, caller) = (*index, *caller);
        let (coordinator, offset) = &mut self.coordinators[index];
        if self.rng.random_bool(0.01) {
            *offset = self.rng.random_range(-150..150);
        }
        let now = (EPOCH_MS + self.now).saturating_add_signed(*offset);
        let actions = operation.handle(coordinator, now, event);
        for action in actions {
            match action {
                Action::Send { round, rank, request } => {
                    let after = self.delay();
                    self.at(
                        after,
                        What::Arrive {
                            from: From::Operation(id),
                            round,
                            rank,
                            request,
                        },
                    );
                }
                Action::Wake { timer, after_ms } => self.at(after_ms, What::Wake { operation: id, timer }),
                Action::Done(outcome) => self.done(caller, outcome),
            }
        }
    }

    fn done(&mut self, caller: Option<(usize, usize)>, outcome: Outcome) {
        let Some((client, entry)) = caller else { return };
        let value = |text: Option<Arc<str>>| text.map(|text| text.parse().expect("the tests write numbers"));
        let now = self.now;
        let known = &mut self.history[entry];
        match outcome {
            Outcome::Answered { answer, .. } => {
                known.returned = now;
                match (&mut known.op, answer) {
                    (Op::Read(seen), Answer::Value { value: text, .. }) => *seen = value(Some(text)),
                    (Op::Read(seen), Answer::Absent) => *seen = None,
                    (Op::Write(_), Answer::Written { .. }) => {}
                    (Op::Cas(_, _, swapped), Answer::Swapped { .. }) => *swapped = Some(true),
                    (Op::Cas(_, _, swapped), Answer::NotSwapped { .. }) => *swapped = Some(false),
                    (op, answer) => panic!("{op:?} was answered with {answer:?}"),
                }
                self.clients[client].seen = match &known.op {
                    Op::Read(seen) | Op::Write(seen) => *seen,
                    Op::Cas(_, new, Some(true)) => *new,
                    Op::Cas(..) => self.clients[client].seen,
                };
            }
            // Nothing was written (or read): a promise that the checker holds it to.
            Outcome::Unavailable { .. } => known.called = NEVER,
            // Stays pending for ever: it may take effect at any time, or never.
            Outcome::Unknown { .. } => {
                if matches!(known.op, Op::Read(_)) {
                    known.called = NEVER;
                }
            }
            Outcome::Corrupt { ballot } => panic!("two states under {ballot}"),
        }
        let after = self.rng.random_range(0..1_500);
        self.at(after, What::Client(client));
    }

    fn client(&mut self, client: usize) {
        if self.clients[client].left == 0 {
            return;
        }
        self.clients[client].left -= 1;
        let id = self.id();
        let fresh = u32::try_from(id).expect("few ids in one run");
        let seen = self.clients[client].seen;
        let text = |value: u32| Arc::from(value.to_string());
        let (op, command) = match self.rng.random_range(0..100) {
            0..35 => (Op::Read(None), Command::Get),
            35..45 => (
                Op::Write(None),
                Command::Delete {
                    version: None,
                    fence: None,
                },
            ),
            45..60 => (
                Op::Write(Some(fresh)),
                Command::Put {
                    value: text(fresh),
                    ttl_ms: None,
                    fence: None,
                },
            ),
            _ => {
                let expect = Expect::Value(seen.map_or(serde_json::Value::Null, Into::into));
                (
                    Op::Cas(seen, Some(fresh), None),
                    Command::Cas {
                        expect,
                        new: text(fresh),
                        fence: None,
                    },
                )
            }
        };
        let entry = self.history.len();
        self.history.push(Entry {
            called: self.now,
            returned: NEVER,
            op,
        });
        let coordinator = self.rng.random_range(0..COORDINATORS);
        let members = self.members();
        let repair = self.rng.random_bool(0.5);
        let operation = Operation::new(command, RequestId(id), Consistency::Quorum, members, repair);
        self.start(operation, coordinator, Some((client, entry)));
    }

    fn flush(&mut self) {
        let spare = &self.nodes[NODES - 1];
        if self.up[NODES - 1]
            && let Some(record) = &spare.0
            && let Some(state) = &record.state
        {
            let machine = HandOver::new(record.accepted, state.clone(), HOMES, NODES - 1, NODES);
            let id = self.id();
            let coordinator = self.rng.random_range(0..COORDINATORS);
            self.handovers.insert(id, (machine, coordinator));
            self.give_handover(id, HandOverEvent::Start);
        }
        let after = self.rng.random_range(300..3_000);
        self.at(after, What::Flush);
    }

    fn give_handover(&mut self, id: u64, event: HandOverEvent) {
        let Some((machine, coordinator)) = self.handovers.get_mut(&id) else {
            return;
        };
        let coordinator = *coordinator;
        for action in machine.handle(event) {
            match action {
                HandOverAction::Send { round, rank, request } => {
                    let after = self.delay();
                    self.at(
                        after,
                        What::Arrive {
                            from: From::HandOver(id),
                            round,
                            rank,
                            request,
                        },
                    );
                }
                HandOverAction::Settle => {
                    let request = RequestId(self.id());
                    let members = self.members();
                    self.start(Operation::settle(request, members), coordinator, None);
                }
                HandOverAction::Done(_) => {}
            }
        }
    }

    fn fault(&mut self) {
        let node = self.rng.random_range(0..NODES);
        let lasts = self.rng.random_range(300..6_000);
        match self.rng.random_range(0..10) {
            0..5 if self.up.iter().all(|up| *up) => {
                self.up[node] = false;
                self.at(lasts, What::Heal { node });
            }
            5..8 => {
                let coordinator = self.rng.random_range(0..COORDINATORS);
                self.cut.insert((coordinator, node));
                self.at(lasts, What::Join { coordinator, node });
            }
            _ => {}
        }
        let after = self.rng.random_range(300..4_000);
        self.at(after, What::Fault);
    }
}

/// Wing & Gong (1993) with memoisation over (operations done, value): is there an order that explains every answer?
fn linearizable(history: &[Entry]) -> bool {
    let mut entries: Vec<&Entry> = history.iter().filter(|entry| entry.called != NEVER).collect();
    entries.sort_by_key(|entry| entry.called);
    assert!(entries.len() <= 64, "the bit set holds 64 operations");
    let must = entries
        .iter()
        .enumerate()
        .filter(|(_, e)| e.returned != NEVER)
        .fold(0_u64, |bits, (i, _)| bits | 1 << i);
    let (mut stack, mut tried) = (vec![(0_u64, None::<u32>)], HashSet::new());
    while let Some((done, value)) = stack.pop() {
        if done & must == must {
            return true;
        }
        if !tried.insert((done, value)) {
            continue;
        }
        let open = || entries.iter().enumerate().filter(|(i, _)| done >> i & 1 == 0);
        let first_return = open().map(|(_, entry)| entry.returned).min().unwrap_or(NEVER);
        for (i, entry) in open().take_while(|(_, entry)| entry.called <= first_return) {
            let next = match &entry.op {
                Op::Read(seen) => (*seen == value).then_some(value),
                Op::Write(new) => Some(*new),
                Op::Cas(old, new, None) => (*old == value).then_some(*new),
                Op::Cas(old, new, Some(swapped)) => {
                    ((*old == value) == *swapped).then_some(if *swapped { *new } else { value })
                }
            };
            if let Some(next) = next {
                stack.push((done | 1 << i, next));
            }
        }
    }
    false
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| {
        text.parse().unwrap_or_else(|_| panic!("{name}: {text:?} is no number"))
    })
}

fn assert_linearizable(seed: u64, history: &[Entry]) {
    if linearizable(history) {
        return;
    }
    let mut entries: Vec<_> = history.iter().filter(|entry| entry.called != NEVER).collect();
    entries.sort_by_key(|entry| entry.called);
    let time = |at: u64| if at == NEVER { "…".to_owned() } else { at.to_string() };
    let line = |e: &&Entry| format!("{:>6} – {:>6} ms  {:?}", time(e.called), time(e.returned), e.op);
    panic!(
        "world seed {seed} is not linearizable:\n{}",
        entries.iter().map(line).collect::<Vec<_>>().join("\n")
    );
}

#[test]
fn what_once_failed_stays_mended() {
    for seed in REGRESSIONS {
        assert_linearizable(seed, &World::new(seed).run());
    }
}

#[test]
fn every_schedule_is_linearizable() {
    let (schedules, seed) = (setting("SCHEDULES", DEFAULT_SCHEDULES), setting("SEED", 1));
    let (mut operations, mut unknown, mut refused) = (0_usize, 0_usize, 0_usize);
    for run in 0..schedules {
        let seed = seed.wrapping_mul(1_000_000_007).wrapping_add(run);
        let history = World::new(seed).run();
        operations += history.len();
        refused += history.iter().filter(|entry| entry.called == NEVER).count();
        unknown += history
            .iter()
            .filter(|entry| entry.called != NEVER && entry.returned == NEVER)
            .count();
        assert_linearizable(seed, &history);
    }
    println!("{schedules} schedules, {operations} operations: {unknown} unknown, {refused} unavailable");
    // A run in which nothing succeeds proves nothing.
    assert!(
        unknown + refused < operations / 4,
        "{unknown} unknown and {refused} unavailable of {operations}"
    );
}

#[test]
fn the_checker_finds_a_stale_read() {
    let entry = |called, returned, op| Entry { called, returned, op };
    let stale = [
        entry(0, 1, Op::Write(Some(1))),
        entry(2, 3, Op::Write(Some(2))),
        entry(4, 5, Op::Read(Some(1))),
    ];
    assert!(!linearizable(&stale));
    let twice = [
        entry(0, 1, Op::Cas(None, Some(1), Some(true))),
        entry(0, 1, Op::Cas(None, Some(2), Some(true))),
    ];
    assert!(!linearizable(&twice));
    let pending = [
        entry(0, NEVER, Op::Write(Some(1))),
        entry(2, 3, Op::Read(Some(1))),
        entry(4, 5, Op::Read(Some(1))),
    ];
    assert!(linearizable(&pending));
}
