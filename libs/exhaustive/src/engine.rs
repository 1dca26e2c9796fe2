//! The parts of worlds, each kept once and known by its number, and what they do to each other, each worked out once.
//!
//! A world is made of few parts (nodes, processes, coordinators, messages) that come in thousands of forms, combined in millions of ways.
//! So a world is a row of numbers (SPIN's "collapse compression", Holzmann 1997), and the real state machines run only for a combination
//! of parts that has not been met before: they are pure functions, and what they did once is what they do again.

use std::collections::BTreeSet;

use register::proposer::Coordinator;
use register::{Ballot, Request, RequestId};

use crate::configuration::{Chore, Configuration, JUMP_MS};
use crate::fingerprint::{Fingerprint, Interner, Map};
use crate::history::{self, History, Told};
use crate::message::{Body, Message, NOBODY};
use crate::node::Node;
use crate::process::{self, Happening, Process, Running, Timer, Wants};

/// Number of [`Process::NotBegun`].
pub(crate) const NOT_BEGUN: u32 = 0;
/// Number of [`Process::Ended`].
pub(crate) const ENDED: u32 = 1;
/// In place of a coordinator's number: no process needs it any more.
pub(crate) const RETIRED: u32 = u32::MAX;
/// The first coordinator's clock, Unix milliseconds.
pub(crate) const EPOCH_MS: u64 = 1_700_000_000_000;
/// Request ids of settling operations start here, those of clients' operations at 1.
const SETTLING: u64 = 100;

/// In place of a step's number: the call of an operation.
const CALLED: u32 = u32::MAX;

/// What happens to a process, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Input {
    /// An operation is called.
    Call,
    /// A chore begins with what this node holds.
    Begin(u32),
    /// This answer arrives.
    Reply(u32),
    /// This request did not reach its node.
    NotDelivered(u32),
    Timer(Timer),
}

/// All that a step of a process depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Cause {
    pub(crate) place: usize,
    pub(crate) process: u32,
    pub(crate) coordinator: u32,
    /// The coordinator's clock has jumped.
    pub(crate) jumped: bool,
    pub(crate) input: Input,
}

/// What a process made of it.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) process: u32,
    pub(crate) coordinator: u32,
    pub(crate) sent: Vec<u32>,
    pub(crate) told: Option<Told>,
    /// Nothing happened at all.
    pub(crate) nothing: bool,
    /// It went beyond the bound of rounds.
    pub(crate) beyond: bool,
    /// What must never be.
    pub(crate) broken: Option<String>,
}

/// What a request did to a node, in numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AskedNumbers {
    pub(crate) node: u32,
    /// The answer; none when nobody waits.
    pub(crate) answer: Option<u32>,
    pub(crate) inert: bool,
    pub(crate) broken: bool,
}

#[derive(Debug)]
pub(crate) struct Engine<'a> {
    pub(crate) plan: &'a Configuration,
    pub(crate) messages: Interner<Message>,
    pub(crate) nodes: Interner<Node>,
    pub(crate) processes: Interner<Process>,
    pub(crate) coordinators: Interner<Coordinator>,
    pub(crate) histories: Interner<History>,
    asked: Map<(u32, u32), AskedNumbers>,
    broken: Map<(u32, u32), String>,
    steps: Vec<Step>,
    by_cause: Map<Cause, u32>,
    awaited: Map<(u32, u32), bool>,
    retold: Map<(u32, usize, u32), u32>,
    /// Per history, why no register could have given it.
    judged: Vec<Option<String>>,
    /// Per node, the ballot accepted last and the fingerprint of its state.
    holds: Vec<Option<(Ballot, Fingerprint)>>,
}

impl<'a> Engine<'a> {
    pub(crate) fn new(plan: &'a Configuration) -> Self {
        let mut engine = Self {
            plan,
            messages: Interner::new(),
            nodes: Interner::new(),
            processes: Interner::new(),
            coordinators: Interner::new(),
            histories: Interner::new(),
            asked: Map::default(),
            broken: Map::default(),
            steps: Vec::new(),
            by_cause: Map::default(),
            awaited: Map::default(),
            retold: Map::default(),
            judged: Vec::new(),
            holds: Vec::new(),
        };
        let first = [Process::NotBegun, Process::Ended].map(|process| engine.processes.number(process));
        assert_eq!(first, [NOT_BEGUN, ENDED]);
        engine
    }

    /// The coordinator that a process is at. Chores are the last one's.
    pub(crate) fn coordinator_of(&self, place: usize) -> usize {
        let last = self.plan.clocks_ahead_ms.len() - 1;
        self.plan
            .operations
            .get(place)
            .map_or(last, |planned| planned.coordinator)
    }

    pub(crate) fn node(&mut self, node: Node) -> u32 {
        let holds = node
            .accepted()
            .map(|(ballot, state)| (ballot, Fingerprint::of_form(state)));
        let number = self.nodes.number(node);
        if number as usize == self.holds.len() {
            self.holds.push(holds);
        }
        number
    }

    /// True when the two nodes hold different states under one ballot.
    pub(crate) fn contradict(&self, a: u32, b: u32) -> bool {
        match (self.holds[a as usize], self.holds[b as usize]) {
            (Some((ballot, state)), Some((other, other_state))) => ballot == other && state != other_state,
            _ => false,
        }
    }

    /// What the request does to the node.
    pub(crate) fn ask(&mut self, node: u32, request: u32) -> AskedNumbers {
        if let Some(asked) = self.asked.get(&(node, request)) {
            return *asked;
        }
        let message = self.messages.thing(request).clone();
        let Body::Request(question) = &message.body else {
            unreachable!("only requests are given to nodes");
        };
        let done = self.nodes.thing(node).ask(question);
        if let Some(broken) = done.broken.clone() {
            self.broken.insert((node, request), broken);
        }
        let answer = (message.from != NOBODY).then(|| self.messages.number(message.answered(done.reply)));
        let asked = AskedNumbers {
            node: self.node(done.node),
            answer,
            inert: done.inert && (self.plan.drop_refused || *question == Request::Read),
            broken: done.broken.is_some(),
        };
        self.asked.insert((node, request), asked);
        asked
    }

    /// Which rule the node broke when it was given this request.
    pub(crate) fn rule_broken(&self, node: u32, request: u32) -> String {
        self.broken.get(&(node, request)).cloned().unwrap_or_default()
    }

    /// Whether the process still waits for this answer, or for the answer to this request. Once it does not, it never will again: a
    /// machine's rounds only go up, and it takes one answer per node and round.
    pub(crate) fn awaits(&mut self, process: u32, message: u32) -> bool {
        if process == ENDED {
            return false;
        }
        if let Some(awaited) = self.awaited.get(&(process, message)) {
            return *awaited;
        }
        let awaited = self.is_awaited(process, self.messages.thing(message));
        self.awaited.insert((process, message), awaited);
        awaited
    }

    fn is_awaited(&self, process: u32, message: &Message) -> bool {
        let Process::Running(running) = self.processes.thing(process) else {
            return false;
        };
        if running.life != message.life {
            return false;
        }
        let (round, rank) = (message.round, message.rank);
        let happening = match &message.body {
            Body::Reply(reply) => Happening::Reply {
                round,
                rank,
                reply: reply.clone(),
            },
            Body::Request(_) if !running.is_told_of_failures() => return true,
            Body::Request(_) => Happening::NotDelivered { round, rank },
        };
        let mut probe = running.clone();
        let wants = probe.handle(&mut process::coordinator(0, false), EPOCH_MS, happening);
        !wants.is_nothing() || Fingerprint::of_form(&probe) != Fingerprint::of_form(running)
    }

    /// The number of what comes of this.
    pub(crate) fn step(&mut self, cause: Cause) -> u32 {
        if let Some(step) = self.by_cause.get(&cause) {
            return *step;
        }
        let step = self.take_step(cause);
        let number = u32::try_from(self.steps.len()).expect("fewer than 2^32 steps fit into memory");
        self.steps.push(step);
        self.by_cause.insert(cause, number);
        number
    }

    pub(crate) fn taken(&self, step: u32) -> &Step {
        &self.steps[step as usize]
    }

    fn take_step(&mut self, cause: Cause) -> Step {
        let mut coordinator = self.coordinators.thing(cause.coordinator).clone();
        let begun = self.begin(cause);
        let Some((mut running, happening)) = begun else {
            return Step::nothing(cause);
        };
        let at = self.coordinator_of(cause.place);
        let now_ms = EPOCH_MS + self.plan.clocks_ahead_ms[at] + if cause.jumped { JUMP_MS } else { 0 };
        let is_timer = matches!(happening, Happening::Timer(_));
        let mut wants = running.handle(&mut coordinator, now_ms, happening);
        let mut sent = self.sent(cause.place, &running, &wants);
        if wants.chore_over == Some(true) {
            running = Running::settle(RequestId(SETTLING + cause.place as u64));
            wants = running.handle(&mut coordinator, now_ms, Happening::Start);
            sent = self.sent(cause.place, &running, &wants);
        }
        let ended = wants.outcome.is_some() || wants.chore_over.is_some();
        let verb = self.plan.operations.get(cause.place).map(|planned| planned.verb);
        let told = match (&wants.outcome, verb) {
            (Some(outcome), Some(verb)) => history::told(verb, outcome).map(Some),
            (Some(register::proposer::Outcome::Corrupt { ballot }), None) => Err(format!("two states under {ballot}")),
            _ => Ok(None),
        };
        let beyond = wants.rounds > self.plan.bounds.rounds;
        let quiet = wants.is_nothing();
        let process = if ended {
            ENDED
        } else {
            self.processes.number(Process::Running(Box::new(running)))
        };
        let coordinator = self.coordinators.number(coordinator);
        let unchanged = process == cause.process || is_timer && self.differ_by_a_timer(cause.process, process);
        Step {
            nothing: quiet && coordinator == cause.coordinator && unchanged,
            process,
            coordinator,
            sent,
            broken: told.as_ref().err().cloned(),
            told: told.unwrap_or_default(),
            beyond,
        }
    }

    /// The machine that the cause is about (a new one, if it begins), and what happens to it.
    fn begin(&self, cause: Cause) -> Option<(Running, Happening)> {
        let answered = |message: u32| {
            let message = self.messages.thing(message);
            (message.round, message.rank, &message.body)
        };
        let happening = match cause.input {
            Input::Call | Input::Begin(_) => Happening::Start,
            Input::Timer(timer) => Happening::Timer(timer),
            Input::Reply(message) => match answered(message) {
                (round, rank, Body::Reply(reply)) => Happening::Reply {
                    round,
                    rank,
                    reply: reply.clone(),
                },
                _ => return None,
            },
            Input::NotDelivered(message) => {
                let (round, rank, _) = answered(message);
                Happening::NotDelivered { round, rank }
            }
        };
        let running = match (cause.input, self.processes.thing(cause.process)) {
            (Input::Call, _) => {
                let verb = self.plan.operations[cause.place].verb;
                Running::operation(verb.command(), RequestId(cause.place as u64 + 1))
            }
            (Input::Begin(node), _) => self.chore(cause.place, node)?,
            (_, Process::Running(running)) => Running::clone(running),
            _ => return None,
        };
        Some((running, happening))
    }

    /// The chore that this node's record gives reason for.
    fn chore(&self, place: usize, node: u32) -> Option<Running> {
        let (ballot, state) = self.nodes.thing(node).accepted()?;
        match self.plan.chores[place - self.plan.operations.len()] {
            Chore::HandOver => Some(Running::hand_over(ballot, state.clone())),
            Chore::Collect => Running::collect(ballot, state.clone()),
        }
    }

    fn sent(&mut self, place: usize, running: &Running, wants: &Wants) -> Vec<u32> {
        let message = |(round, rank, request): &(u32, usize, Request)| Message {
            from: place,
            life: running.life,
            round: *round,
            rank: *rank,
            body: Body::Request(request.clone()),
        };
        let messages: Vec<_> = wants.sends.iter().map(message).collect();
        messages
            .into_iter()
            .map(|message| self.messages.number(message))
            .collect()
    }

    /// True when firing a timer did nothing but use it up.
    fn differ_by_a_timer(&self, before: u32, after: u32) -> bool {
        match (self.processes.thing(before), self.processes.thing(after)) {
            (Process::Running(before), Process::Running(after)) => before.is_same_machine(after),
            _ => false,
        }
    }

    pub(crate) fn call(&mut self, history: u32, place: usize) -> u32 {
        if let Some(called) = self.retold.get(&(history, place, CALLED)) {
            return *called;
        }
        let called = self.histories.thing(history).call(place);
        let number = self.judged_number(called);
        self.retold.insert((history, place, CALLED), number);
        number
    }

    pub(crate) fn may_end(&mut self, history: u32) -> u32 {
        let ending = self.histories.thing(history).may_end();
        self.judged_number(ending)
    }

    /// The history after a step that told the client something.
    pub(crate) fn tell(&mut self, history: u32, place: usize, step: u32) -> u32 {
        if let Some(told) = self.retold.get(&(history, place, step)) {
            return *told;
        }
        let before = self.histories.thing(history);
        let told = self.taken(step).told.map_or(*before, |told| before.tell(place, told));
        let number = self.judged_number(told);
        self.retold.insert((history, place, step), number);
        number
    }

    pub(crate) fn judged_number(&mut self, history: History) -> u32 {
        let number = self.histories.number(history);
        if number as usize == self.judged.len() {
            self.judged.push(history.judge(self.plan).err());
        }
        number
    }

    /// Why no register could have given this history, if so.
    pub(crate) fn wrong_with(&self, history: u32) -> Option<&str> {
        self.judged[history as usize].as_deref()
    }

    pub(crate) fn all_histories(&self) -> BTreeSet<String> {
        let histories = (0..self.judged.len()).filter_map(|number| u32::try_from(number).ok());
        histories
            .map(|number| self.histories.thing(number).line(self.plan))
            .collect()
    }

    /// How many forms of nodes, processes and messages were met.
    pub(crate) fn forms(&self) -> (usize, usize, usize) {
        (self.nodes.len(), self.processes.len(), self.messages.len())
    }
}

impl Step {
    fn nothing(cause: Cause) -> Self {
        Self {
            process: cause.process,
            coordinator: cause.coordinator,
            sent: Vec::new(),
            told: None,
            nothing: true,
            beyond: false,
            broken: None,
        }
    }
}
