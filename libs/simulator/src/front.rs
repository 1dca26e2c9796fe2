//! A coordinator as kvfront is one: it runs operations and background work as state machines, and carries their messages.

use register::ballot::Clock;
use register::errand::{self, Ended, Errand};
use register::membership::NodeStatus;
use register::proposer::memory::MemoryLimits;
use register::proposer::turns::{Began, Change, Turns};
use register::proposer::{Action, Coordinator, Event, Limits, Members, Operation, Outcome};
use register::{HlcTime, Reply, Request, RequestId};

use crate::kinds::Kind;
use crate::membership::Filling;
use crate::slab::Id;
use crate::task::Task;
use crate::teeth::ShellTooth;
use crate::world::{Address, MAX_SKEW_MS, Message, Trouble, US_PER_MS, What, World, small};

/// A task of the background that takes longer is left to the next pass. Simulated microseconds.
const TASK_TIMEOUT_US: u64 = 5_000 * US_PER_MS;

/// The incarnation of all coordinators where ballots meet. No node is given it.
const SHARED_INCARNATION: u64 = u64::MAX;

/// One simulated coordinator.
#[derive(Debug)]
pub(crate) struct Front {
    pub(crate) coordinator: Coordinator,
    limits: Limits,
    /// How wrong its wall clock is.
    pub(crate) offset_ms: i64,
    pub(crate) paused: bool,
    /// Counts its starts.
    pub(crate) start: u32,
    /// It knows the clocks of enough nodes to draw ballots.
    serving: bool,
    /// Nodes whose clocks it knows, as bits.
    learnt: u32,
    /// Nodes that its requests do not reach, as bits.
    pub(crate) requests_cut: u32,
    /// Nodes whose answers do not reach it, as bits.
    pub(crate) answers_cut: u32,
    /// How often it has asked the nodes how they are.
    pub(crate) pass: u32,
    /// What the nodes said of themselves since it asked last.
    pub(crate) seen: Vec<Option<NodeStatus>>,
    /// It is going to ask them again.
    pub(crate) asks_again: bool,
    /// And after that once more: something has happened meanwhile.
    pub(crate) and_again: bool,
    /// Tasks under way: the next pass over all keys waits for them.
    pub(crate) tasks: u32,
    /// The node that it is filling again.
    pub(crate) filling: Option<Filling>,
    /// What reached it while it was paused.
    pub(crate) deferred: Vec<What>,
    /// Calls that wait for their turns.
    turns: Turns<Id>,
}

impl Front {
    pub(crate) fn new(coordinator: Coordinator, offset_ms: i64) -> Self {
        Self {
            limits: coordinator.limits,
            coordinator,
            offset_ms,
            paused: false,
            start: 0,
            // Nothing was ever written when the world begins: any clock will do.
            serving: true,
            learnt: 0,
            requests_cut: 0,
            answers_cut: 0,
            pass: 0,
            seen: Vec::new(),
            asks_again: false,
            and_again: false,
            tasks: 0,
            filling: None,
            deferred: Vec::new(),
            turns: Turns::default(),
        }
    }

    pub(crate) fn clock(&mut self) -> &mut Clock {
        &mut self.coordinator.clock
    }
}

impl Kind {
    /// A coordinator that has just started.
    pub(crate) fn coordinator(&self, incarnation: u64, limits: Limits, seed: u64) -> Coordinator {
        let (incarnation, memory) = if self.ballots_meet {
            (SHARED_INCARNATION, MemoryLimits::NONE)
        } else {
            (incarnation, MemoryLimits::default())
        };
        Coordinator::new(incarnation, MAX_SKEW_MS, limits, seed).with_memory(memory)
    }
}

/// A state machine that a coordinator runs.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) front: u8,
    key: u16,
    running: Running,
}

#[expect(
    clippy::large_enum_variant,
    reason = "most are operations, and a box for each would cost more than the room"
)]
#[derive(Debug)]
enum Running {
    /// An operation, and the call that it is for, with its turn.
    Operation(Operation, Option<(Id, Option<Began>)>),
    /// Something that the coordinator does of its own accord.
    Task(Task),
}

impl World<'_> {
    pub(crate) fn members(&mut self, front: usize, key: usize) -> Members {
        let mut suspected = Vec::with_capacity(usize::from(self.kind.list));
        for rank in 0..usize::from(self.kind.list) {
            let node = usize::from(self.places[key].nodes[rank]);
            let front = &self.fronts[front];
            let unreachable = !self.nodes[node].up
                || self.nodes[node].paused
                || (front.requests_cut | front.answers_cut) >> node & 1 == 1;
            let often = if unreachable { 500 } else { 10 };
            suspected.push(self.chance(often));
        }
        Members {
            homes: usize::from(self.kind.homes),
            names: self.places[key].names.clone(),
            suspected,
        }
    }

    /// Begins a change when its turn has come.
    pub(crate) fn take_turn(&mut self, front: usize, key: u16, call: Id, change: Change) {
        let name = self.places[usize::from(key)].key.clone();
        if let Some(began) = self.fronts[front].turns.join(&name, || change, || call) {
            self.begin_call(front, call, Some(began));
        }
    }

    /// The operation of a call that had a turn has ended.
    fn turn_ended(&mut self, front: usize, key: u16, began: Began, ended: &Operation) {
        let name = self.places[usize::from(key)].key.clone();
        let copies = usize::from(self.kind.list / 2 + 1);
        for (call, answer) in self.fronts[front].turns.refuted(&name, began, ended, |_| false) {
            self.note_begun(format_args!("  f{front} refuses a call that waits: {answer:?}"));
            self.call_ended(call, Outcome::Answered { answer, copies });
        }
        if !self.fronts[front].turns.leave(&name) {
            return;
        }
        while let Some((call, began)) = self.fronts[front].turns.next(&name, Some(ended)) {
            self.begin_call(front, call, Some(began));
        }
    }

    /// Runs an operation on a coordinator, for a call (in its turn, maybe) or for its own sake.
    pub(crate) fn start_operation(
        &mut self,
        front: usize,
        key: u16,
        operation: Operation,
        call: Option<(Id, Option<Began>)>,
    ) {
        if self.traced {
            let what = format!("{operation:?}");
            self.note_begun(format_args!("f{front} begins on key {key}: {what}"));
        }
        let running = Running::Operation(operation, call);
        let machine = Machine {
            front: small(front),
            key,
            running,
        };
        let id = self.machines().insert(machine);
        self.give(id, Event::Start);
    }

    /// Commits again whatever the key holds.
    pub(crate) fn settle(&mut self, front: usize, key: u16) {
        let members = self.members(front, usize::from(key));
        let request = RequestId(u64::from(self.new_number()));
        let name = self.places[usize::from(key)].key.clone();
        self.start_operation(front, key, Operation::settle(name, request, members), None);
    }

    /// A task that begins a moment after what it is about was listed.
    pub(crate) fn begin_soon(&mut self, front: usize, key: u16, task: Task) {
        self.note_begun(format_args!("f{front} will begin on key {key}: {task:?}"));
        let machine = Machine {
            front: small(front),
            key,
            running: Running::Task(task),
        };
        let to = Address {
            front: small(front),
            machine: self.machines().insert(machine),
        };
        self.fronts[front].tasks += 1;
        let after = self.delay_us();
        self.after(after, What::Begin { to });
        self.after(after + TASK_TIMEOUT_US, What::GiveUp { to });
    }

    pub(crate) fn begin(&mut self, to: Address) {
        self.give(to.machine, Event::Start);
    }

    /// A task whose messages were lost is left to the next pass.
    pub(crate) fn give_up(&mut self, to: Address) {
        if let Some(Machine {
            front,
            running: Running::Task(task),
            ..
        }) = self.machines().remove(to.machine)
        {
            self.task_ended(usize::from(front), &task, false);
        }
    }

    pub(crate) fn wake(&mut self, to: Address, timer: u32) {
        self.give(to.machine, Event::Wake { timer });
    }

    pub(crate) fn answered(&mut self, to: Address, round: u32, rank: u8, clock: HlcTime, reply: Reply) {
        let front = usize::from(to.front);
        let wall_ms = self.wall_ms(self.fronts[front].offset_ms);
        if self.fronts[front].clock().observe(clock, wall_ms).is_err() {
            return self.failed(to, round, rank, true);
        }
        let rank = usize::from(rank);
        self.give(to.machine, Event::Reply { round, rank, reply });
    }

    pub(crate) fn failed(&mut self, to: Address, round: u32, rank: u8, delivered: bool) {
        let failed = Event::Failed {
            round,
            rank: usize::from(rank),
            delivered,
            reason: String::new(),
        };
        self.give(to.machine, failed);
    }

    fn give(&mut self, id: Id, event: Event) {
        match self.machines().get_mut(id).map(|machine| &machine.running) {
            Some(Running::Operation(..)) => self.give_operation(id, event),
            Some(Running::Task(_)) => self.give_task(id, event),
            None => {}
        }
    }

    fn give_operation(&mut self, id: Id, event: Event) {
        let (now_us, step_ms) = (self.now_us, self.kind.tilt.clock_step_ms);
        let Some(Machine {
            front,
            key,
            running: Running::Operation(operation, call),
        }) = self.arena.machines.get_mut(id)
        else {
            return;
        };
        let (front, key, call) = (*front, *key, *call);
        let shell = &mut self.fronts[usize::from(front)];
        let now_ms = crate::world::wall_ms(now_us, shell.offset_ms, step_ms);
        let actions = operation.handle(&mut shell.coordinator, now_ms, event);
        let to = Address { front, machine: id };
        for action in actions {
            match action {
                Action::Send { round, rank, request } => self.send_to_rank(to, key, round, rank, request),
                Action::Wake { timer, after_ms } => self.after(after_ms * US_PER_MS, What::Wake { to, timer }),
                Action::Done(outcome) => {
                    let ended = self.machines().remove(id);
                    self.note_begun(format_args!("  f{front} {id} ends: {outcome:?}"));
                    if let Outcome::Corrupt { ballot } = &outcome {
                        self.bad(Trouble::Corrupt(format!(
                            "a coordinator found two states under {ballot}"
                        )));
                    }
                    let Some((call, turn)) = call else { continue };
                    self.call_ended(call, outcome);
                    if let Some(Machine {
                        running: Running::Operation(ended, _),
                        ..
                    }) = ended
                        && let Some(began) = turn
                    {
                        self.turn_ended(usize::from(front), key, began, &ended);
                    }
                }
            }
        }
    }

    fn give_task(&mut self, id: Id, event: Event) {
        let Some(Machine {
            front,
            key,
            running: Running::Task(task),
        }) = self.machines().get_mut(id)
        else {
            return;
        };
        let (front, key) = (*front, *key);
        let actions = task.handle(event);
        let to = Address { front, machine: id };
        for action in actions {
            let ended = match action {
                errand::Action::Send { round, rank, request } => {
                    self.send_to_rank(to, key, round, rank, request);
                    continue;
                }
                errand::Action::End(ended) => ended,
            };
            if ended == Ended::Settle {
                self.settle(usize::from(front), key);
            }
            if let Some(Machine {
                running: Running::Task(task),
                ..
            }) = self.machines().remove(id)
            {
                self.task_ended(usize::from(front), &task, ended == Ended::Done(true));
            }
        }
    }

    fn send_to_rank(&mut self, to: Address, key: u16, round: u32, rank: usize, request: Request) {
        let wall_ms = self.wall_ms(self.fronts[usize::from(to.front)].offset_ms);
        let message = Message {
            node: self.places[usize::from(key)].nodes[rank],
            rank: small(rank),
            key,
            round,
            to,
            copy: false,
            clock: self.fronts[usize::from(to.front)].clock().tick(wall_ms),
            request,
        };
        self.send(message);
    }

    // ---- starting ----

    pub(crate) fn is_serving(&self, front: usize) -> bool {
        self.fronts[front].serving
    }

    /// A coordinator dies with all it was about, and its successor knows nothing.
    pub(crate) fn restart_front(&mut self, index: usize) {
        let fresh = self.new_incarnation();
        let seed = self.rng.next();
        let front = &mut self.fronts[index];
        let incarnation = match self.wrong {
            Some(ShellTooth::IncarnationReused) => front.coordinator.clock.incarnation(),
            _ => fresh,
        };
        front.coordinator = self.kind.coordinator(incarnation, front.limits, seed);
        front.paused = false;
        front.deferred.clear();
        front.start += 1;
        front.serving = false;
        front.learnt = 0;
        front.seen.clear();
        front.asks_again = false;
        front.tasks = 0;
        front.filling = None;
        let mut lines = std::mem::take(&mut front.turns);
        self.background_soon(index);
        self.look_at_nodes_soon();
        self.say_hello(index);
        // What it has sent is still on its way; what comes back finds nobody.
        let died = self.machines().ids(|machine| usize::from(machine.front) == index);
        for id in died {
            if let Some(Machine {
                running: Running::Operation(_, Some((call, _))),
                ..
            }) = self.machines().remove(id)
            {
                self.call_ended(call, Outcome::Unknown { reason: String::new() });
            }
        }
        for place in 0..self.places.len() {
            for call in lines.abandon(&self.places[place].key) {
                self.call_ended(call, Outcome::Unknown { reason: String::new() });
            }
        }
    }

    pub(crate) fn say_hello(&mut self, front: usize) {
        let start = self.fronts[front].start;
        for node in 0..self.nodes.len() {
            if self.fronts[front].learnt >> node & 1 == 0 {
                let after = self.delay_us();
                let (front, node) = (small(front), small(node));
                self.after(after, What::Hello { front, start, node });
            }
        }
    }

    pub(crate) fn hello_back(&mut self, front: u8, start: u32, node: u8, clock: HlcTime) {
        let index = usize::from(front);
        let wall_ms = self.wall_ms(self.fronts[index].offset_ms);
        let shell = &mut self.fronts[index];
        if shell.start != start || shell.serving {
            return;
        }
        if shell.clock().observe(clock, wall_ms).is_ok() {
            shell.learnt |= 1 << node;
        }
        // Of every key's list a quorum is known.
        let may_be_missing = u32::from(self.kind.list - (self.kind.list / 2 + 1));
        shell.serving = u32::from(self.kind.nodes) - shell.learnt.count_ones() <= may_be_missing;
    }
}

/// A key's index: worlds have at most a few hundred keys.
#[expect(clippy::cast_possible_truncation, reason = "see there")]
pub(crate) fn small_key(key: usize) -> u16 {
    key as u16
}
