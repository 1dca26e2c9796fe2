//! Operations against three acceptors, two of them homes: what each costs in rounds, and what the nodes hold afterwards.

mod memory;
mod retry;
mod turns;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::preference::goes_before;
use super::{Action, Consistency, Coordinator, DEFERENCE, Event, Limits, Members, Operation, Outcome, Retry};
use crate::acceptor::{Change, decide};
use crate::ballot::{Ballot, HlcTime};
use crate::change::{Answer, Command, Expect};
use crate::message::{Reply, Request};
use crate::state::{Key, Record, RequestId, State};

const HOMES: usize = 2;
const NODES: usize = 3;
const MAX_SKEW_MS: u64 = 500;

fn key() -> Key {
    Key::data("k")
}

fn coordinator(incarnation: u64) -> Coordinator {
    Coordinator::new(incarnation, MAX_SKEW_MS, Limits::default(), incarnation)
}

fn never(request: u64) -> Retry {
    Retry::Never(RequestId(request))
}

fn put(value: &str) -> Command {
    Command::Put {
        value: Arc::from(value),
        ttl_ms: None,
        fence: None,
    }
}

fn cas(old: serde_json::Value, new: &str) -> Command {
    Command::Cas {
        expect: Expect::Value(old),
        new: Arc::from(new),
        fence: None,
    }
}

fn answer(outcome: Outcome) -> Answer {
    match outcome {
        Outcome::Answered { answer, .. } => answer,
        other => panic!("{other:?}"),
    }
}

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Arrives,
    /// Nobody ever hears of it.
    Lost,
    /// It arrives, and the answer says that the reservation was not granted.
    Ungranted,
}

type Fates = Box<dyn Fn(usize, &Request) -> Fate>;

/// Three nodes that answer at once, a clock that moves only while everybody waits, and one key.
struct Cluster {
    nodes: Vec<(Option<Record>, Ballot)>,
    now_ms: u64,
    fate: Fates,
    /// Rounds that the last operation sent something in.
    rounds: usize,
}

impl Cluster {
    fn new() -> Self {
        Self {
            nodes: vec![(None, Ballot::ZERO); NODES],
            now_ms: 1_700_000_000_000,
            fate: Box::new(|_, _| Fate::Arrives),
            rounds: 0,
        }
    }

    fn members() -> Members {
        Members {
            homes: HOMES,
            names: (0..NODES).map(|i| Arc::from(format!("n{i}"))).collect(),
            suspected: vec![false; NODES],
        }
    }

    fn run(&mut self, coordinator: &mut Coordinator, command: Command, retry: Retry) -> Outcome {
        self.operate(coordinator, command, retry).1
    }

    fn operate(&mut self, coordinator: &mut Coordinator, command: Command, retry: Retry) -> (Operation, Outcome) {
        self.now_ms += 1;
        let mut operation = Operation::new(key(), command, retry, Consistency::Quorum, Self::members(), true);
        let actions = operation.handle(coordinator, self.now_ms, Event::Start);
        let outcome = self.carry_on(coordinator, &mut operation, actions);
        (operation, outcome)
    }

    /// Carries out `actions` and all that comes of them.
    fn carry_on(&mut self, coordinator: &mut Coordinator, operation: &mut Operation, actions: Vec<Action>) -> Outcome {
        let (mut actions, mut timers) = (VecDeque::from(actions), BTreeSet::new());
        let mut rounds = BTreeSet::new();
        loop {
            let event = match actions.pop_front() {
                Some(Action::Done(outcome)) => {
                    self.rounds = rounds.len();
                    return outcome;
                }
                Some(Action::Wake { timer, after_ms }) => {
                    timers.insert((self.now_ms + after_ms, timer));
                    continue;
                }
                Some(Action::Send { round, rank, request }) => {
                    rounds.insert(round);
                    let Some(reply) = self.deliver(rank, &request) else {
                        continue;
                    };
                    Event::Reply { round, rank, reply }
                }
                None => {
                    let (at, timer) = timers.pop_first().expect("the operation waits for something");
                    self.now_ms = self.now_ms.max(at);
                    Event::Wake { timer }
                }
            };
            actions.extend(operation.handle(coordinator, self.now_ms, event));
        }
    }

    fn deliver(&mut self, rank: usize, request: &Request) -> Option<Reply> {
        let fate = (self.fate)(rank, request);
        if fate == Fate::Lost {
            return None;
        }
        let reply = self.ask(rank, request);
        let granted = matches!(reply, Reply::Accepted { reserved: true });
        if granted && fate == Fate::Ungranted {
            return Some(Reply::Accepted { reserved: false });
        }
        Some(reply)
    }

    fn ask(&mut self, rank: usize, request: &Request) -> Reply {
        let (record, floor) = &mut self.nodes[rank];
        let decision = decide(record.as_ref(), *floor, request);
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

    fn record(&self, rank: usize) -> &Record {
        self.nodes[rank].0.as_ref().expect("it holds the key")
    }

    fn state(&self, rank: usize) -> &State {
        self.record(rank).state.as_ref().expect("it accepted something")
    }

    fn value(&self, rank: usize) -> Option<&str> {
        self.state(rank).value.as_deref()
    }
}

/// The pause of an operation whose first prepare is refused by a ballot of `other`.
fn pause_ms(own: u64, other: u64, seed: u64, limits: Limits) -> u64 {
    let mut coordinator = Coordinator::new(own, MAX_SKEW_MS, limits, seed);
    let now_ms = 1_700_000_000_000;
    let command = cas(serde_json::Value::Null, "1");
    let mut operation = Operation::new(key(), command, never(1), Consistency::Quorum, Cluster::members(), true);
    operation.handle(&mut coordinator, now_ms, Event::Start);
    let higher = Ballot {
        time: HlcTime::from_unix_ms(now_ms + 100),
        incarnation: other,
    };
    let refused = Event::Reply {
        round: 1,
        rank: 0,
        reply: Reply::Refused { higher },
    };
    match operation.handle(&mut coordinator, now_ms, refused).as_slice() {
        [Action::Wake { after_ms, .. }] => *after_ms,
        actions => panic!("{actions:?}"),
    }
}

#[test]
fn who_is_not_preferred_for_a_key_pauses_longer() {
    let limits = Limits {
        backoff_ms: 10,
        ..Limits::default()
    };
    let longest = |own, other| (0..200).map(|seed| pause_ms(own, other, seed, limits)).max().unwrap();
    let (first, second) = if goes_before(&key(), 7, 9) { (7, 9) } else { (9, 7) };
    assert_eq!(longest(first, second), 10);
    assert_eq!(longest(second, first), 10 * DEFERENCE);
    assert_eq!(longest(second, second), 10, "nobody gives way to itself");
}

#[test]
fn without_backoff_no_dice_are_thrown() {
    let limits = Limits {
        backoff_ms: 0,
        ..Limits::default()
    };
    let mut one = Coordinator::new(7, MAX_SKEW_MS, limits, 1);
    let before = one.clone();
    assert_eq!(one.pause_ms(5, true), 0);
    assert_eq!(one, before);
}
