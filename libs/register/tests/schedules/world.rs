//! The simulated world: nodes, coordinators, clients and everything that goes wrong between them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use register::acceptor::{Change, decide};
use register::change::{Answer, Command};
use register::errand::{self, Ended, Errand};
use register::handover::HandOver;
use register::proposer::{Action, Consistency, Coordinator, Event, Limits, Members, Operation, Outcome, Retry};
use register::{Ballot, HlcTime, Key, Record, Reply, Request, RequestId};

use crate::history::{Entry, NEVER, Op, Value};
use crate::mix::{Mix, fence_of, ttl_of};

const COORDINATORS: usize = 3;
const END_MS: u64 = 60_000;
const EPOCH_MS: u64 = 1_700_000_000_000;
/// How far off a coordinator's clock is at most.
const OFFSET_MAX_MS: i64 = 150;
/// Two coordinators may be twice the skew bound (500 ms) apart.
pub(crate) const CLOCKS_APART_MS: u64 = 1_000;
/// A client sends a request at most so often.
const MAX_ATTEMPTS: u32 = 4;
/// Rounds of settling and flushing after which everything must be at home.
const CALM_ROUNDS: u32 = 3;

/// The one key there is.
fn key() -> Key {
    Key::data("k")
}

/// What kind of world it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) homes: usize,
    pub(crate) nodes: usize,
    pub(crate) mix: Mix,
    /// Nodes drop records of other keys, which raises their floors.
    pub(crate) other_keys: bool,
    /// Coordinators die and come back as somebody else.
    pub(crate) restarts: bool,
    /// Clients name their requests, and send those again whose outcome is unknown.
    pub(crate) retries: bool,
}

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
    /// A client sends its last request again.
    Again(usize),
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
    /// What it last asked for, to ask again.
    asked: Option<Asked>,
}

#[derive(Clone)]
struct Asked {
    command: Command,
    consistency: Consistency,
    id: RequestId,
    entry: usize,
    attempts: u32,
}

/// An operation, its coordinator, and whose it is: client and place in the history.
type Running = (Operation, usize, Option<(usize, usize)>);

/// A seeded run of one key.
pub(crate) struct World {
    setup: Setup,
    /// At the end: nothing is lost, nobody dies, the clients have gone.
    calm: bool,
    next_incarnation: u64,
    rng: StdRng,
    now: u64,
    order: u64,
    queue: BinaryHeap<Reverse<(u64, u64, u64)>>,
    events: HashMap<u64, What>,
    nodes: Vec<(Option<Record>, Ballot)>,
    up: Vec<bool>,
    cut: HashSet<(usize, usize)>,
    coordinators: Vec<(Coordinator, i64)>,
    operations: HashMap<u64, Running>,
    /// Operations and hand-overs that take no more events: done, or their coordinator died.
    ended: HashSet<u64>,
    handovers: HashMap<u64, (HandOver, usize)>,
    clients: Vec<Client>,
    history: Vec<Entry>,
    next_id: u64,
}

impl World {
    pub(crate) fn new(setup: Setup, seed: u64) -> Self {
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
                    rng.random_range(-OFFSET_MAX_MS..OFFSET_MAX_MS),
                )
            })
            .collect();
        let clients = (0..rng.random_range(2..5))
            .map(|_| Client {
                left: rng.random_range(3..8),
                seen: None,
                asked: None,
            })
            .collect();
        Self {
            setup,
            calm: false,
            next_incarnation: COORDINATORS as u64 + 1,
            rng,
            now: 0,
            order: 0,
            queue: BinaryHeap::new(),
            events: HashMap::new(),
            nodes: vec![(None, Ballot::ZERO); setup.nodes],
            up: vec![true; setup.nodes],
            cut: HashSet::new(),
            coordinators,
            operations: HashMap::new(),
            ended: HashSet::new(),
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
        if self.calm {
            return 1;
        }
        match self.rng.random_range(0..6) {
            0..3 => self.rng.random_range(1..20),
            3 => 200,
            4 => 800,
            _ => self.rng.random_range(0..3_500),
        }
    }

    fn chance(&mut self, probability: f64) -> bool {
        !self.calm && self.rng.random_bool(probability)
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Runs it to its end, then lets everything come to rest: exactly the homes must hold the key then, and agree.
    pub(crate) fn run(mut self) -> Vec<Entry> {
        for client in 0..self.clients.len() {
            let after = self.rng.random_range(0..500);
            self.at(after, What::Client(client));
        }
        self.at(500, What::Fault);
        self.at(500, What::Flush);
        self.run_until(END_MS);
        self.come_to_rest();
        self.history
    }

    fn run_until(&mut self, end_ms: u64) {
        while let Some(Reverse((time, _, id))) = self.queue.pop() {
            let Some(what) = self.events.remove(&id) else { continue };
            if time > end_ms {
                break;
            }
            self.now = time;
            self.step(what);
        }
    }

    fn come_to_rest(&mut self) {
        self.calm = true;
        self.queue.clear();
        self.events.clear();
        self.operations.clear();
        self.handovers.clear();
        self.cut.clear();
        self.up.fill(true);
        for _ in 0..CALM_ROUNDS {
            let (request, members) = (RequestId(self.id()), self.members());
            self.start(Operation::settle(key(), request, members), 0, None);
            self.run_until(u64::MAX);
            self.flush();
            self.run_until(u64::MAX);
        }
        let held = |(record, _): &(Option<Record>, Ballot)| {
            let record = record.as_ref().filter(|record| !record.accepted.is_zero());
            record.map(|record| (record.accepted, record.state.clone()))
        };
        let (homes, spares) = self.nodes.split_at(self.setup.homes);
        assert!(
            homes.iter().all(|home| held(home) == held(&homes[0])),
            "the homes differ: {homes:#?}"
        );
        assert!(
            spares.iter().all(|spare| held(spare).is_none()),
            "a spare still holds it: {spares:#?}"
        );
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
                if !link || self.chance(0.05) {
                    return;
                }
                let reply = self.ask(rank, &request);
                if self.chance(0.03) {
                    let after = self.delay();
                    self.at(after, What::ArriveAgain { rank, request });
                }
                if !self.chance(0.05) {
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
                from,
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
                match from {
                    From::Operation(id) => self.give(id, event),
                    From::HandOver(id) => self.give_handover(id, event),
                }
            }
            What::Wake { operation, timer } => self.give(operation, Event::Wake { timer }),
            What::Client(client) => self.client(client),
            What::Again(client) => self.attempt(client),
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
        let suspected = (0..self.setup.nodes)
            .map(|rank| !self.up[rank] && self.rng.random_bool(0.5))
            .collect();
        Members {
            homes: self.setup.homes,
            names: (0..self.setup.nodes).map(|i| Arc::from(format!("n{i}"))).collect(),
            suspected,
        }
    }

    fn start(&mut self, operation: Operation, coordinator: usize, caller: Option<(usize, usize)>) {
        let id = self.id();
        self.operations.insert(id, (operation, coordinator, caller));
        self.give(id, Event::Start);
    }

    fn give(&mut self, id: u64, event: Event) {
        if self.ended.contains(&id) {
            return;
        }
        let Some((operation, index, caller)) = self.operations.get_mut(&id) else {
            return;
        };
        let (index, caller) = (*index, *caller);
        let (coordinator, offset) = &mut self.coordinators[index];
        if !self.calm && self.rng.random_bool(0.01) {
            *offset = self.rng.random_range(-OFFSET_MAX_MS..OFFSET_MAX_MS);
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
                Action::Done(outcome) => {
                    self.ended.insert(id);
                    self.done(caller, outcome);
                }
            }
        }
    }

    fn done(&mut self, caller: Option<(usize, usize)>, outcome: Outcome) {
        let Some((client, entry)) = caller else { return };
        let value = |text: Option<Arc<str>>| text.map(|text| text.parse().expect("the tests write numbers"));
        let now = self.now;
        let may_ask_again = self.may_ask_again(client);
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
                    (_, Answer::FenceTooLow { seen }) => known.refused_below = Some(seen),
                    (Op::Acquire(_, took), Answer::Locked { fence, .. }) => {
                        *took = Some(true);
                        known.fence = Some(fence);
                    }
                    (Op::Acquire(_, took), Answer::LockHeld { .. }) => *took = Some(false),
                    (Op::Release(_, freed), Answer::Released(yes)) => *freed = Some(yes),
                    (Op::Renew(_, held), Answer::Renewed { .. }) => *held = Some(true),
                    (Op::Renew(_, held), Answer::NotRenewed) => *held = Some(false),
                    (op, answer) => panic!("{op:?} was answered with {answer:?}"),
                }
                match &known.op {
                    Op::Read(seen) | Op::Write(seen) => self.clients[client].seen = *seen,
                    Op::Cas(_, new, Some(true)) => self.clients[client].seen = *new,
                    Op::Acquire(token, Some(true)) => self.clients[client].seen = Some(*token),
                    Op::Cas(..) | Op::Acquire(..) | Op::Release(..) | Op::Renew(..) | Op::End(_) => {}
                }
            }
            // Nothing was written (or read): a promise that the checker holds it to.
            Outcome::Unavailable { .. } => known.called = NEVER,
            // It may be asked for again: all attempts together are one operation.
            Outcome::Unknown { .. } if may_ask_again => {
                let after = self.rng.random_range(0..1_500);
                return self.at(after, What::Again(client));
            }
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
        let (op, command, consistency) = self.setup.mix.choose(&mut self.rng, self.now, fresh, seen);
        let entry = self.history.len();
        self.history.push(Entry {
            called: self.now,
            returned: NEVER,
            fence: fence_of(&command),
            refused_below: None,
            op,
        });
        if let Some(ttl_ms) = ttl_of(&command) {
            self.history.push(Entry {
                called: self.now + ttl_ms - CLOCKS_APART_MS,
                returned: NEVER,
                fence: None,
                refused_below: None,
                op: Op::End(fresh),
            });
        }
        self.clients[client].asked = Some(Asked {
            command,
            consistency,
            id: RequestId(id),
            entry,
            attempts: 0,
        });
        self.attempt(client);
    }

    fn may_ask_again(&self, client: usize) -> bool {
        let asked = self.clients[client].asked.as_ref();
        self.setup.retries && !self.calm && asked.is_some_and(|asked| asked.attempts < MAX_ATTEMPTS)
    }

    /// Sends what a client asks for, at first or again.
    fn attempt(&mut self, client: usize) {
        let Some(asked) = &mut self.clients[client].asked else {
            return;
        };
        asked.attempts += 1;
        let Asked {
            command,
            consistency,
            id,
            entry,
            attempts,
        } = asked.clone();
        let retry = match attempts {
            _ if !self.setup.retries => Retry::Never(id),
            1 => Retry::First(id),
            _ => Retry::repeated(id, EPOCH_MS + self.history[entry].called, OFFSET_MAX_MS.unsigned_abs()),
        };
        let coordinator = self.rng.random_range(0..COORDINATORS);
        let members = self.members();
        let repair = self.rng.random_bool(0.5);
        let operation = Operation::new(key(), command, retry, consistency, members, repair);
        self.start(operation, coordinator, Some((client, entry)));
    }

    fn flush(&mut self) {
        let (homes, nodes) = (self.setup.homes, self.setup.nodes);
        for spare in homes..nodes {
            if self.up[spare]
                && let Some(record) = &self.nodes[spare].0
                && let Some(state) = &record.state
            {
                let machine = HandOver::new(record.accepted, state.clone(), homes, spare, nodes);
                let id = self.id();
                let coordinator = self.rng.random_range(0..COORDINATORS);
                self.handovers.insert(id, (machine, coordinator));
                self.give_handover(id, Event::Start);
            }
        }
        if !self.calm {
            let after = self.rng.random_range(300..3_000);
            self.at(after, What::Flush);
        }
    }

    fn give_handover(&mut self, id: u64, event: Event) {
        if self.ended.contains(&id) {
            return;
        }
        let Some((machine, coordinator)) = self.handovers.get_mut(&id) else {
            return;
        };
        let coordinator = *coordinator;
        for action in machine.handle(event) {
            match action {
                errand::Action::Send { round, rank, request } => {
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
                errand::Action::End(Ended::Settle) => {
                    let request = RequestId(self.id());
                    let members = self.members();
                    self.start(Operation::settle(key(), request, members), coordinator, None);
                }
                errand::Action::End(Ended::Done(_)) => {}
            }
        }
    }

    /// A coordinator dies with all it was about, and its successor knows nothing.
    fn restart(&mut self) {
        let coordinator = self.rng.random_range(0..COORDINATORS);
        let limits = self.coordinators[coordinator].0.limits;
        self.next_incarnation += 1;
        let seed = self.rng.random();
        self.coordinators[coordinator].0 = Coordinator::new(self.next_incarnation, 500, limits, seed);
        // What it has sent is still on its way; what comes back finds nobody.
        let died = |(id, of): (&u64, usize)| (of == coordinator && !self.ended.contains(id)).then_some(*id);
        let operations = self.operations.iter().filter_map(|(id, (_, of, _))| died((id, *of)));
        let handovers = self.handovers.iter().filter_map(|(id, (_, of))| died((id, *of)));
        let mut died: Vec<u64> = operations.chain(handovers).collect();
        died.sort_unstable();
        for id in died {
            self.ended.insert(id);
            let caller = self.operations.get(&id).and_then(|(_, _, caller)| *caller);
            let reason = "the coordinator died".to_owned();
            self.done(caller, Outcome::Unknown { reason });
        }
    }

    fn fault(&mut self) {
        let node = self.rng.random_range(0..self.setup.nodes);
        let lasts = self.rng.random_range(300..6_000);
        match self.rng.random_range(0..10) {
            0..5 if self.up.iter().filter(|up| !**up).count() < (self.setup.nodes - 1) / 2 => {
                self.up[node] = false;
                self.at(lasts, What::Heal { node });
            }
            5..8 => {
                let coordinator = self.rng.random_range(0..COORDINATORS);
                self.cut.insert((coordinator, node));
                self.at(lasts, What::Join { coordinator, node });
            }
            8 if self.setup.restarts => self.restart(),
            // The node has handed over some other key, whose ballot was drawn just now.
            9 if self.setup.other_keys => {
                let ballot = Ballot {
                    time: HlcTime::from_unix_ms(EPOCH_MS + self.now),
                    incarnation: 0,
                };
                let floor = &mut self.nodes[node].1;
                *floor = ballot.max(*floor);
            }
            _ => {}
        }
        let after = self.rng.random_range(300..4_000);
        self.at(after, What::Fault);
    }
}
