//! A world as a row of numbers, and everything that may happen in it next.

use crate::configuration::{
    ANY, Chore, Configuration, MAX_COORDINATORS, MAX_MESSAGES, MAX_PROCESSES, NODES, SPARE, Verb,
};
use crate::engine::{Cause, ENDED, Engine, Input, NOT_BEGUN, RETIRED};
use crate::fingerprint::Fingerprint;
use crate::process::{Process, Timer};

/// One thing that happens. Messages, nodes' records and timers are those of the world it happens in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Happens {
    Call(u8),
    /// A chore begins with what the node of this rank holds.
    Begin(u8, u8),
    Deliver(u32),
    /// A request is delivered, and a copy of it stays on its way.
    DeliverAndKeep(u32),
    /// A copy of a request is delivered before itself.
    DeliverCopy(u32),
    /// A request is delivered, and the answer lost.
    DeliverLosingAnswer(u32),
    NotDelivered(u32),
    Fires(u8, Timer),
    ClockJumps(u8),
}

/// How much of the bounds is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Spent {
    timeouts: u8,
    pub(crate) lost_answers: u8,
    pub(crate) duplicates: u8,
    pub(crate) transport_repeats: u8,
    pub(crate) refused_connections: u8,
    /// Coordinators whose clock has jumped, a bit each.
    jumped: u8,
}

/// Everything there is at one moment, by the engine's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct World {
    pub(crate) nodes: [u32; NODES],
    pub(crate) processes: [u32; MAX_PROCESSES],
    pub(crate) coordinators: [u32; MAX_COORDINATORS],
    pub(crate) history: u32,
    pub(crate) spent: Spent,
    /// Messages in flight, ascending; those of equal number are copies.
    pub(crate) flying: [u32; MAX_MESSAGES],
    pub(crate) flying_count: usize,
}

/// How many words a world takes at most.
pub(crate) const MAX_WORDS: usize = NODES + MAX_PROCESSES + MAX_COORDINATORS + 3 + MAX_MESSAGES;

/// What comes of an expansion.
#[derive(Debug, Default)]
pub(crate) struct Next {
    pub(crate) worlds: Vec<(Happens, World)>,
    /// Things that would have gone beyond a bound.
    pub(crate) beyond: u64,
}

/// A wrong thing that happens, and why it is wrong.
pub(crate) type Wrong = (Happens, String);

impl World {
    pub(crate) fn new(nodes: [u32; NODES], coordinators: &[u32], history: u32) -> Self {
        let mut world = Self {
            nodes,
            processes: [NOT_BEGUN; MAX_PROCESSES],
            coordinators: [RETIRED; MAX_COORDINATORS],
            history,
            spent: Spent::default(),
            flying: [0; MAX_MESSAGES],
            flying_count: 0,
        };
        world.coordinators[..coordinators.len()].copy_from_slice(coordinators);
        world
    }

    pub(crate) fn flying(&self) -> &[u32] {
        &self.flying[..self.flying_count]
    }

    /// Writes it as words; the number of words.
    pub(crate) fn write(&self, words: &mut [u32; MAX_WORDS]) -> usize {
        let Spent {
            timeouts,
            lost_answers,
            duplicates,
            transport_repeats,
            refused_connections,
            jumped,
        } = self.spent;
        let faults = [timeouts, lost_answers, duplicates, refused_connections];
        let parts = [
            &self.nodes[..],
            &self.processes,
            &self.coordinators,
            &[
                self.history,
                u32::from_le_bytes(faults),
                u32::from_le_bytes([transport_repeats, jumped, 0, 0]),
            ],
            self.flying(),
        ];
        let mut at = 0;
        for part in parts {
            words[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        at
    }

    /// The world that was written so.
    pub(crate) fn read(words: &[u32]) -> Self {
        let mut world = Self::new([0; NODES], &[], 0);
        let (nodes, words) = words.split_at(NODES);
        let (processes, words) = words.split_at(MAX_PROCESSES);
        let (coordinators, words) = words.split_at(MAX_COORDINATORS);
        world.nodes.copy_from_slice(nodes);
        world.processes.copy_from_slice(processes);
        world.coordinators.copy_from_slice(coordinators);
        world.history = words[0];
        let [timeouts, lost_answers, duplicates, refused_connections] = words[1].to_le_bytes();
        let [transport_repeats, jumped, ..] = words[2].to_le_bytes();
        world.spent = Spent {
            transport_repeats,
            timeouts,
            lost_answers,
            duplicates,
            refused_connections,
            jumped,
        };
        let flying = &words[3..];
        world.flying[..flying.len()].copy_from_slice(flying);
        world.flying_count = flying.len();
        world
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        let mut words = [0; MAX_WORDS];
        let length = self.write(&mut words);
        Fingerprint::of_words(&words[..length])
    }

    pub(crate) fn jumped(&self, coordinator: usize) -> bool {
        self.spent.jumped & 1 << coordinator != 0
    }

    /// The same with one message more; none when there is no room.
    pub(crate) fn with_message(mut self, message: u32, most: usize) -> Option<Self> {
        if self.flying_count >= most {
            return None;
        }
        self.flying[self.flying_count] = message;
        self.flying_count += 1;
        Some(self)
    }

    pub(crate) fn without_message(mut self, message: u32) -> Self {
        if let Some(at) = self.flying().iter().position(|other| *other == message) {
            self.flying_count -= 1;
            self.flying[at] = self.flying[self.flying_count];
        }
        self
    }

    /// Nothing that happens from now on is seen by a client.
    fn is_over(&self, plan: &Configuration) -> bool {
        self.processes[..plan.operations.len()]
            .iter()
            .all(|process| *process == ENDED)
    }
}

impl Engine<'_> {
    /// Everything that may happen next in this world.
    ///
    /// # Errors
    /// Something wrong that may happen next.
    pub(crate) fn next(&mut self, world: &World, next: &mut Next) -> Result<(), Wrong> {
        next.worlds.clear();
        if world.is_over(self.plan) {
            return Ok(());
        }
        if let Some(last) = self.last_operation(world) {
            return self.call_operation(world, last, next);
        }
        for place in 0..self.plan.operations.len() + self.plan.chores.len() {
            match world.processes[place] {
                ENDED => {}
                NOT_BEGUN if place < self.plan.operations.len() => self.call_operation(world, place, next)?,
                NOT_BEGUN => self.begin_chore(world, place, next)?,
                _ => self.fire_timers(world, place, next)?,
            }
        }
        for (at, message) in world.flying().iter().enumerate() {
            if at > 0 && world.flying()[at - 1] == *message {
                continue;
            }
            if self.messages.thing(*message).is_request() {
                self.deliver_request(world, *message, next)?;
            } else {
                let happens = Happens::Deliver(*message);
                let place = self.messages.thing(*message).from;
                let rest = world.without_message(*message);
                let went = self.go_on(&rest, place, Input::Reply(*message), happens)?;
                self.reach(happens, went, Touched::place(place), next);
            }
        }
        self.jump_clocks(world, next)
    }

    /// Calls an operation. Those it comes after and that still run reach their deadline just before: a deadline sends nothing and tells
    /// no client that anything happened, so whatever else happens between it and the first thing that needs it could as well come before.
    fn call_operation(&mut self, world: &World, place: usize, next: &mut Next) -> Result<(), Wrong> {
        let happens = Happens::Call(small(place));
        let mut before = *world;
        let mut touched = 1 << place;
        for earlier in self.plan.operations[place].after.clone() {
            match before.processes[earlier] {
                NOT_BEGUN => return Ok(()),
                ENDED => {}
                _ => {
                    touched |= 1 << earlier;
                    let deadline = Input::Timer(Timer::Deadline);
                    match self.go_on(&before, earlier, deadline, happens)? {
                        Went::To(after) => before = after,
                        Went::Nowhere | Went::Beyond => return Ok(()),
                    }
                }
            }
        }
        before.history = self.call(before.history, place);
        let went = self.go_on(&before, place, Input::Call, happens)?;
        self.reach(
            happens,
            went,
            Touched {
                places: touched,
                rank: None,
            },
            next,
        );
        Ok(())
    }

    /// The operation that can only come last, if it is its turn: it is called at once. Nobody could tell from the answers that it was
    /// called later, and its messages may be as late as they like.
    fn last_operation(&self, world: &World) -> Option<usize> {
        let place = self.plan.operations.len() - 1;
        let (last, others) = (&self.plan.operations[place], &world.processes[..place]);
        let waits_for_all = (0..place).all(|other| last.after.contains(&other));
        let turn = world.processes[place] == NOT_BEGUN && others.iter().all(|process| *process == ENDED);
        (last.verb == Verb::Get && waits_for_all && turn).then_some(place)
    }

    fn begin_chore(&mut self, world: &World, place: usize, next: &mut Next) -> Result<(), Wrong> {
        let ranks = match self.plan.chores[place - self.plan.operations.len()] {
            Chore::HandOver => SPARE..SPARE + 1,
            Chore::Collect => 0..NODES,
        };
        for rank in ranks {
            let begins = Happens::Begin(small(place), small(rank));
            let went = self.go_on(world, place, Input::Begin(world.nodes[rank]), begins)?;
            self.reach(begins, went, Touched::place(place), next);
        }
        Ok(())
    }

    fn fire_timers(&mut self, world: &World, place: usize, next: &mut Next) -> Result<(), Wrong> {
        for timer in Timer::ALL {
            let Process::Running(running) = self.processes.thing(world.processes[place]) else {
                return Ok(());
            };
            if running.has_armed(timer) && (timer != Timer::Deadline || self.ends_alone(place)) {
                let fires = Happens::Fires(small(place), timer);
                let mut late = *world;
                let counted = matches!(timer, Timer::Spare | Timer::Phase);
                if counted && !spend(&mut late.spent.timeouts, self.plan.bounds.timeouts) {
                    continue;
                }
                let went = self.go_on(&late, place, Input::Timer(timer), fires)?;
                self.reach(fires, went, Touched::place(place), next);
            }
        }
        Ok(())
    }

    /// Whether its deadline is reached for its own sake, and not for one that comes after it: it may tell that a change was not made. A
    /// read that is given up cannot be told from one that is never answered, nor can a settling.
    fn ends_alone(&self, place: usize) -> bool {
        let followed = self.plan.operations.iter().any(|other| other.after.contains(&place));
        let planned = self.plan.operations.get(place);
        !followed && planned.is_some_and(|planned| planned.verb != Verb::Get)
    }

    fn jump_clocks(&mut self, world: &World, next: &mut Next) -> Result<(), Wrong> {
        if world.spent.jumped.count_ones() >= u32::from(self.plan.bounds.clock_jumps) {
            return Ok(());
        }
        for coordinator in 0..self.plan.clocks_ahead_ms.len() {
            if !world.jumped(coordinator) && world.coordinators[coordinator] != RETIRED {
                let mut jumped = *world;
                jumped.spent.jumped |= 1 << coordinator;
                jumped.history = self.may_end(world.history);
                let happens = Happens::ClockJumps(small(coordinator));
                self.reach(happens, Went::To(jumped), Touched::default(), next);
            }
        }
        Ok(())
    }

    /// A process takes a step.
    pub(crate) fn go_on(&mut self, world: &World, place: usize, input: Input, happens: Happens) -> Result<Went, Wrong> {
        let at = self.coordinator_of(place);
        let cause = Cause {
            place,
            process: world.processes[place],
            coordinator: world.coordinators[at],
            jumped: world.jumped(at),
            input,
        };
        let number = self.step(cause);
        let step = self.taken(number);
        if let Some(broken) = &step.broken {
            return Err((happens, broken.clone()));
        }
        // What a refused connection did not change still is a message less.
        if step.nothing && !matches!(input, Input::NotDelivered(_)) {
            return Ok(Went::Nowhere);
        }
        if step.beyond {
            return Ok(Went::Beyond);
        }
        let mut after = *world;
        after.processes[place] = step.process;
        after.coordinators[at] = step.coordinator;
        for message in &step.sent {
            match after.with_message(*message, self.plan.bounds.messages) {
                Some(more) => after = more,
                None => return Ok(Went::Beyond),
            }
        }
        if step.told.is_some() {
            after.history = self.tell(world.history, place, number);
            if let Some(wrong) = self.wrong_with(after.history) {
                return Err((happens, wrong.to_owned()));
            }
        }
        if after.processes[place] == ENDED {
            self.retire_coordinators(&mut after);
        }
        Ok(Went::To(after))
    }

    /// A coordinator that nothing will be asked of any more is like any other such one.
    fn retire_coordinators(&self, world: &mut World) {
        let places = self.plan.operations.len() + self.plan.chores.len();
        for coordinator in 0..self.plan.clocks_ahead_ms.len() {
            let needed = |place: usize| self.coordinator_of(place) == coordinator && world.processes[place] != ENDED;
            if !(0..places).any(needed) {
                world.coordinators[coordinator] = RETIRED;
            }
        }
    }
}

/// Where a step leads.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Went {
    To(World),
    /// Nothing happened at all.
    Nowhere,
    /// Beyond a bound.
    Beyond,
}

/// What a transition has changed, so that messages to or from it may have become idle.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Touched {
    /// Processes, a bit each.
    pub(crate) places: u8,
    pub(crate) rank: Option<usize>,
}

impl Touched {
    pub(crate) fn place(place: usize) -> Self {
        Self {
            places: 1 << place,
            rank: None,
        }
    }

    pub(crate) fn rank(rank: usize) -> Self {
        Self {
            places: 0,
            rank: Some(rank),
        }
    }
}

/// Uses up one of a bound, if any is left. What is not bounded is not counted: worlds would differ by it.
pub(crate) fn spend(spent: &mut u8, bound: u8) -> bool {
    if bound == ANY {
        return true;
    }
    let left = *spent < bound;
    *spent += u8::from(left);
    left
}

fn small(number: usize) -> u8 {
    // Places, ranks and coordinators are below ten.
    u8::try_from(number).unwrap_or(u8::MAX)
}
