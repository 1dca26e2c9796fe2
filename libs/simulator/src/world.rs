//! The simulated world: its time, its messages, and what happens next.
//!
//! One thread, one seed. Everything that is by chance is drawn from one generator, and everything that happens is an event in one queue, so
//! the same seed is the same run, step by step.

use std::sync::Arc;

use linearizability::Entry;
use register::Key;
use register::teeth::bite_with;

use crate::client::{Call, Client, Versions};
pub(crate) use crate::event::{Address, Message, What};
use crate::front::{Front, Machine};
use crate::kinds::Kind;
use crate::node::Node;
use crate::plan::Plan;
use crate::queue::Queue;
use crate::rng::Rng;
use crate::slab::Slab;
use crate::teeth::{ShellTooth, Wrong};

/// Unix milliseconds at which every world begins.
pub(crate) const EPOCH_MS: u64 = 1_700_000_000_000;
/// How far ahead of its own clock a machine lets another's be, in milliseconds, as the programs have it by default.
pub(crate) const MAX_SKEW_MS: u64 = 500;
/// How far apart the clocks of two machines that talk to each other can be taken to be: each may be the skew bound from a third.
pub(crate) const CLOCKS_APART_US: u64 = 2 * (MAX_SKEW_MS + Plan::MAX_OFFSET_MS) * US_PER_MS;
/// Microseconds in a millisecond.
pub(crate) const US_PER_MS: u64 = 1_000;
/// A world whose clients are not done by then is brought to rest nevertheless. Simulated microseconds.
const END_US: u64 = 180_000_000;
/// Events of one world; far more than any needs.
const STEPS_MAX: u64 = 3_000_000;

/// Where a key lives.
#[derive(Debug)]
pub(crate) struct Place {
    /// Nodes by rank; the first `homes` are the homes.
    pub(crate) nodes: Vec<u8>,
    pub(crate) names: Vec<Arc<str>>,
    pub(crate) is_lock: bool,
    /// Its name.
    pub(crate) key: Key,
}

/// What went wrong, if not what the clients saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Two states under one ballot.
    Corrupt(String),
    /// An answer that does not belong to its question, or contradicts itself.
    Absurd(String),
    /// It does not come to rest as it must.
    Restless(String),
}

/// How much of a world is to be run, for shrinking: everything by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// At most so many clients.
    pub clients: u32,
    /// At most so many calls of each.
    pub calls: u32,
    /// At most so many faults.
    pub faults: u32,
}

impl Limits {
    /// The whole world.
    pub const NONE: Self = Self {
        clients: u32::MAX,
        calls: u32::MAX,
        faults: u32::MAX,
    };
}

/// Memory that worlds hand on to each other: allocating it anew would cost more than running a small world.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    queue: Queue<What>,
    pub(crate) machines: Slab<Machine>,
    calls: Slab<Call>,
    pub(crate) history: Vec<Entry>,
    pub(crate) trace: String,
    /// The text of each number that clients write.
    texts: Vec<Arc<str>>,
}

impl Arena {
    /// The text of a number.
    pub(crate) fn text(&mut self, number: u32) -> Arc<str> {
        let texts = &mut self.texts;
        while texts.len() <= number as usize {
            texts.push(Arc::from(texts.len().to_string()));
        }
        Arc::clone(&texts[number as usize])
    }
}

/// A seeded run.
pub(crate) struct World<'a> {
    pub(crate) kind: &'a Kind,
    pub(crate) plan: Plan,
    pub(crate) limits: Limits,
    pub(crate) wrong: Option<ShellTooth>,
    /// At the end: nothing is lost any more, nobody dies, the clients have gone.
    pub(crate) calm: bool,
    pub(crate) rng: Rng,
    pub(crate) now_us: u64,
    pub(crate) arena: &'a mut Arena,
    pub(crate) nodes: Vec<Node>,
    pub(crate) fronts: Vec<Front>,
    pub(crate) clients: Vec<Client>,
    /// Clients that have something left to do.
    pub(crate) busy_clients: usize,
    pub(crate) places: Vec<Place>,
    pub(crate) trouble: Option<Trouble>,
    pub(crate) traced: bool,
    pub(crate) versions: Versions,
    pub(crate) next_number: u32,
    pub(crate) next_incarnation: u64,
    pub(crate) faults: u32,
    /// Operations of clients, and retries.
    pub(crate) operations: u64,
    pub(crate) unknown: u64,
    pub(crate) unavailable: u64,
}

impl<'a> World<'a> {
    pub(crate) fn new(kind: &'a Kind, seed: u64, plan: Plan, rng: Rng, limits: Limits, arena: &'a mut Arena) -> Self {
        arena.queue.clear();
        arena.machines.clear();
        arena.calls.clear();
        arena.history.clear();
        arena.trace.clear();
        let mut world = Self {
            kind,
            plan,
            limits,
            wrong: None,
            calm: false,
            rng,
            now_us: 0,
            arena,
            nodes: Vec::new(),
            fronts: Vec::new(),
            clients: Vec::new(),
            busy_clients: 0,
            places: Vec::new(),
            trouble: None,
            traced: false,
            versions: Versions::default(),
            next_number: 0,
            next_incarnation: 0,
            faults: 0,
            operations: 0,
            unknown: 0,
            unavailable: 0,
        };
        world.populate(seed);
        world
    }

    /// Makes everything in this world go wrong in one way.
    pub(crate) fn bite(&mut self, wrong: Option<Wrong>) {
        let (protocol, shell) = match wrong {
            Some(Wrong::Protocol(tooth)) => (Some(tooth), None),
            Some(Wrong::Shell(tooth)) => (None, Some(tooth)),
            None => (None, None),
        };
        bite_with(protocol);
        self.wrong = shell;
        if shell == Some(ShellTooth::SweepByOwnClock) {
            for node in 0..self.nodes.len() {
                self.after(US_PER_MS, What::SweepByOwnClock { node: small(node) });
            }
        }
    }

    fn populate(&mut self, seed: u64) {
        let keys = usize::from(self.plan.keys);
        for node in 0..usize::from(self.kind.nodes) {
            let incarnation = self.new_incarnation();
            self.nodes.push(Node::new(keys, incarnation));
            self.nodes[node].offset_ms = self.plan.offset_ms(&mut self.rng);
        }
        for key in 0..keys {
            let mut nodes: Vec<u8> = (0..self.kind.nodes).collect();
            // A shuffle of the front part is enough.
            for i in 0..usize::from(self.kind.list) {
                let other = i + self.rng.index(nodes.len() - i);
                nodes.swap(i, other);
            }
            nodes.truncate(usize::from(self.kind.list));
            let names = nodes.iter().map(|node| self.arena.text(u32::from(*node))).collect();
            let is_lock = self.kind.work.is_lock(key, keys);
            let name = self.arena.text(u32::from(crate::front::small_key(key)));
            let key = if is_lock { Key::lock(&name) } else { Key::data(&name) };
            self.places.push(Place {
                nodes,
                names,
                is_lock,
                key,
            });
        }
        for front in 0..usize::from(self.plan.fronts) {
            let incarnation = self.new_incarnation();
            let offset_ms = self.plan.offset_ms(&mut self.rng);
            let coordinator = self
                .kind
                .coordinator(incarnation, self.plan.limits, seed ^ front as u64);
            self.fronts.push(Front::new(coordinator, offset_ms));
            self.background_soon(front);
        }
        self.acquaint();
        let clients = u32::from(self.plan.clients).min(self.limits.clients);
        for client in 0..clients {
            let calls = self.plan.calls(&mut self.rng).min(self.limits.calls);
            self.clients.push(Client::new(keys, calls));
            let after = self.rng.below(self.plan.think_us);
            self.after(
                after,
                What::Step {
                    client: small(client as usize),
                },
            );
        }
        self.busy_clients = self.clients.len();
        for nemesis in self.plan.nemeses.iter() {
            let after = self.plan.fault_pause_us(&mut self.rng);
            self.after(after, What::Strike(nemesis));
        }
    }

    pub(crate) fn new_incarnation(&mut self) -> u64 {
        self.next_incarnation += 1;
        self.next_incarnation
    }

    /// A number that nobody has been given before: a value, a token, a request.
    pub(crate) fn new_number(&mut self) -> u32 {
        self.next_number += 1;
        self.next_number
    }

    /// Unix milliseconds by a clock that is so wrong.
    pub(crate) fn wall_ms(&self, offset_ms: i64) -> u64 {
        wall_ms(self.now_us, offset_ms, self.kind.tilt.clock_step_ms)
    }

    pub(crate) fn after(&mut self, after_us: u64, what: What) {
        self.arena.queue.push(self.now_us + after_us, what);
    }

    pub(crate) fn machines(&mut self) -> &mut Slab<Machine> {
        &mut self.arena.machines
    }

    pub(crate) fn calls(&mut self) -> &mut Slab<Call> {
        &mut self.arena.calls
    }

    pub(crate) fn history(&mut self) -> &mut Vec<Entry> {
        &mut self.arena.history
    }

    pub(crate) fn bad(&mut self, trouble: Trouble) {
        self.trouble.get_or_insert(trouble);
    }

    // ---- time ----

    /// Runs until the clients are done, then lets everything come to rest.
    pub(crate) fn run(&mut self) {
        let mut steps = 0_u64;
        while self.busy_clients > 0 && self.trouble.is_none() {
            let Some((time, what)) = self.arena.queue.pop(END_US) else {
                break;
            };
            self.now_us = time;
            self.step(what);
            steps += 1;
            if steps > STEPS_MAX {
                self.bad(Trouble::Restless(format!("{STEPS_MAX} events, and no end")));
            }
        }
        self.come_to_rest();
        bite_with(None);
    }

    /// Runs what has been begun to its end, and for so many microseconds at most.
    pub(crate) fn run_dry(&mut self, most_us: u64) {
        let end = self.now_us + most_us;
        while let Some((time, what)) = self.arena.queue.pop(end) {
            if self.trouble.is_some() {
                return;
            }
            // Time has been moved on past what was left over before.
            self.now_us = time.max(self.now_us);
            self.step(what);
        }
    }

    fn step(&mut self, what: What) {
        if self.traced {
            self.note(&what);
        }
        let Some(what) = self.defer(what) else { return };
        match what {
            What::Arrive(message) => self.arrive(*message),
            What::Commit { node, start } => self.commit(usize::from(node), start),
            What::Answer {
                to,
                round,
                rank,
                clock,
                reply,
            } => self.answered(to, round, rank, clock, *reply),
            What::Fail {
                to,
                round,
                rank,
                delivered,
            } => self.failed(to, round, rank, delivered),
            What::Wake { to, timer } => self.wake(to, timer),
            What::Step { client } => self.client_step(usize::from(client)),
            What::Called { call, front } => self.called(call, usize::from(front)),
            What::Background { front, start } => self.background(usize::from(front), start),
            What::Begin { to } => self.begin(to),
            What::GiveUp { to } => self.give_up(to),
            What::Hello { front, start, node } => self.hello(front, start, node),
            What::HelloBack {
                front,
                start,
                node,
                clock,
            } => self.hello_back(front, start, node, clock),
            What::NodePass { front, start } => self.node_pass(front, start),
            What::NodeAsk {
                front,
                start,
                pass,
                node,
                clock,
                request,
            } => self.node_ask(front, (start, pass), node, clock, &request),
            What::NodeTold {
                front,
                start,
                pass,
                node,
                clock,
                raised,
                status,
            } => self.node_told(front, (start, pass), node, clock, raised, *status),
            What::NodePlan { front, start } => self.node_plan(front, start),
            What::Strike(nemesis) => self.strike(nemesis),
            What::Heal(heal) => self.heal(heal),
            What::SweepByOwnClock { node } => self.sweep_by_own_clock(usize::from(node)),
        }
    }

    /// What concerns a paused machine waits until that goes on.
    fn defer(&mut self, what: What) -> Option<What> {
        let node = match &what {
            What::Arrive(message) => Some(message.node),
            What::Commit { node, .. } | What::Hello { node, .. } | What::NodeAsk { node, .. } => Some(*node),
            _ => None,
        };
        if let Some(node) = node.map(|node| &mut self.nodes[usize::from(node)])
            && node.paused
        {
            node.deferred.push(what);
            return None;
        }
        match &what {
            What::Answer { to, .. }
            | What::Fail { to, .. }
            | What::Wake { to, .. }
            | What::Begin { to }
            | What::GiveUp { to } => {
                let front = &mut self.fronts[usize::from(to.front)];
                if front.paused {
                    front.deferred.push(what);
                    return None;
                }
            }
            What::Called { front, .. }
            | What::Background { front, .. }
            | What::HelloBack { front, .. }
            | What::NodePass { front, .. }
            | What::NodeTold { front, .. }
            | What::NodePlan { front, .. } => {
                let front = &mut self.fronts[usize::from(*front)];
                if front.paused {
                    front.deferred.push(what);
                    return None;
                }
            }
            _ => {}
        }
        Some(what)
    }
}

/// Unix milliseconds by a clock that is so wrong and shows multiples of so many milliseconds.
pub(crate) fn wall_ms(now_us: u64, offset_ms: i64, step_ms: u64) -> u64 {
    let fine_ms = (EPOCH_MS + now_us / US_PER_MS).saturating_add_signed(offset_ms);
    fine_ms - fine_ms % step_ms
}

/// An index of a node, coordinator, client or key: there are never more than 200 of any.
#[expect(clippy::cast_possible_truncation, reason = "few of everything, see there")]
pub(crate) fn small(index: usize) -> u8 {
    index as u8
}
