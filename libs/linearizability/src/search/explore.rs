//! Wing & Gong's search with Lowe's memory, for one key.
//!
//! A *configuration* is a set of placed operations and the state they led to. An operation may be placed next when nothing that is still
//! to be placed had returned before it was called. The search goes down until every certain operation is placed, and back up from where
//! nothing fits; configurations that led nowhere are remembered, so each is tried once.
//!
//! What keeps it short, each argued for where it is done: operations that change nothing are placed as soon as they fit; optional ones
//! only when the next operation notices; of equal ones only one is tried; a value that somebody has yet to see is not replaced.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use super::steps::{Step, Steps};
use crate::history::{NEVER, Op, Time};
use crate::model::{State, after};

/// How a search ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// An order that explains every answer.
    Order,
    /// That there is none.
    Nothing,
    /// That the budget is too small.
    NoEnd,
}

/// A configuration; the set is named as [`Steps::placed`] does.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Configuration {
    placed: u128,
    state: State,
}

/// A configuration on the way, with what may come next.
#[derive(Debug)]
struct Node {
    state: State,
    /// What is placed beyond this is put back when nothing fits here.
    trail: usize,
    /// Its choices are those from here up to the next node's.
    choices: usize,
}

/// What may be placed next.
#[derive(Debug, Clone, Copy)]
enum Choice {
    One {
        step: u32,
        to: State,
    },
    /// All unseen writes that may come next; see [`Steps`]' `mark_unseen`.
    Unseen,
}

impl Choice {
    fn returns(self, steps: &Steps) -> Time {
        match self {
            Self::One { step, .. } => steps.all[step as usize].entry.returned,
            Self::Unseen => 0,
        }
    }
}

/// Memory of the search, kept from one key to the next.
#[derive(Debug, Default)]
pub(super) struct Explorer {
    /// What is placed, in order.
    trail: Vec<u32>,
    nodes: Vec<Node>,
    choices: Vec<Choice>,
    /// Certain operations that may come next.
    open: Vec<u32>,
    dead_ends: HashSet<Configuration, BuildHasherDefault<Mixer>>,
    /// The longest trail that ended nowhere.
    longest: Vec<u32>,
    pub(super) steps: u64,
}

/// A memory of dead ends larger than this is given back before the next search: clearing it would take longer than small searches do.
const DEAD_ENDS_KEPT: usize = 4_096;

impl Explorer {
    /// Searches until an order is found, or none is left, or `budget_steps` operations were tried.
    pub(super) fn run(&mut self, steps: &mut Steps, budget_steps: u64) -> Found {
        self.clear();
        if steps.lack_a_value() {
            return Found::Nothing;
        }
        if self.arrive(steps, State::default(), 0) {
            return Found::Order;
        }
        while let Some(node) = self.nodes.last() {
            let (from, trail, choices) = (node.state, node.trail, node.choices);
            if self.choices.len() == choices {
                let placed = steps.placed();
                self.dead_ends.insert(Configuration { placed, state: from });
                self.nodes.pop();
                self.retreat(steps, trail);
                continue;
            }
            if self.steps >= budget_steps {
                return Found::NoEnd;
            }
            let Some(choice) = self.choices.pop() else { continue };
            let trail = self.trail.len();
            let to = self.take(steps, choice, from);
            if self.arrive(steps, to, trail) {
                return Found::Order;
            }
        }
        Found::Nothing
    }

    /// Places in the history of what was placed: all of it after [`Found::Order`], else of the longest way that was tried.
    pub(super) fn order(&self, steps: &Steps, found: Found) -> Vec<usize> {
        let order = if found == Found::Order {
            &self.trail
        } else {
            &self.longest
        };
        order
            .iter()
            .map(|&step| steps.all[step as usize].place as usize)
            .collect()
    }

    fn clear(&mut self) {
        self.trail.clear();
        self.nodes.clear();
        self.choices.clear();
        self.longest.clear();
        self.steps = 0;
        if self.dead_ends.capacity() > DEAD_ENDS_KEPT {
            self.dead_ends = HashSet::default();
        }
        self.dead_ends.clear();
    }

    /// Places what was chosen; the state it leads to.
    fn take(&mut self, steps: &mut Steps, choice: Choice, from: State) -> State {
        match choice {
            Choice::One { step, to } => {
                self.place(steps, step as usize);
                to
            }
            Choice::Unseen => {
                let mut to = from;
                let (mut step, mut first_return) = (steps.following(steps.certain_head()), NEVER);
                while step != steps.certain_head() && steps.all[step].entry.called <= first_return {
                    let next = steps.following(step);
                    let Step { entry, unseen, .. } = steps.all[step];
                    // An unseen write has no fence, so it fits everywhere.
                    if let (true, Some(after)) = (unseen, after(&entry, to)) {
                        to = after;
                        self.place(steps, step);
                    } else {
                        first_return = first_return.min(entry.returned);
                    }
                    step = next;
                }
                to
            }
        }
    }

    fn place(&mut self, steps: &mut Steps, step: usize) {
        self.steps += 1;
        steps.place(step);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "there are fewer steps than that, see `Steps::link`"
        )]
        self.trail.push(step as u32);
    }

    /// Back to where `trail` operations were placed.
    fn retreat(&mut self, steps: &mut Steps, trail: usize) {
        if self.trail.len() > self.longest.len() {
            self.longest.clone_from(&self.trail);
        }
        for step in self.trail.drain(trail..).rev() {
            steps.put_back(step as usize);
        }
    }

    /// Looks around in a new configuration; true when nothing certain is left to be placed. `trail` is how far to go back from here.
    fn arrive(&mut self, steps: &mut Steps, state: State, trail: usize) -> bool {
        let hopeless = self.look_around(steps, state);
        if steps.following(steps.certain_head()) == steps.certain_head() {
            return true;
        }
        let seen = || {
            let placed = steps.placed();
            !self.dead_ends.is_empty() && self.dead_ends.contains(&Configuration { placed, state })
        };
        if hopeless || seen() {
            self.retreat(steps, trail);
            return false;
        }
        let choices = self.choices.len();
        self.choose(steps, state);
        self.nodes.push(Node { state, trail, choices });
        false
    }

    /// Places what fits and neither does nor ever will change anything, and collects in `open` the other certain operations that may come next. True when one of
    /// them can never be explained from here on.
    ///
    /// An order from here that places such an operation later explains as much when it is moved to here: the states stay what they are,
    /// and nothing that it passes had returned before it was called.
    fn look_around(&mut self, steps: &mut Steps, state: State) -> bool {
        self.open.clear();
        let (mut step, mut first_return) = (steps.following(steps.certain_head()), NEVER);
        while step != steps.certain_head() {
            let next = steps.following(step);
            let Step { entry, pure, .. } = &steps.all[step];
            if entry.called > first_return {
                break;
            }
            let idle = *pure || steps.is_spent(step, state);
            if idle && after(entry, state) == Some(state) {
                self.place(steps, step);
            } else {
                if is_too_late(&steps.all[step], state) {
                    return true;
                }
                first_return = first_return.min(entry.returned);
                #[expect(clippy::cast_possible_truncation, reason = "as in `place`")]
                self.open.push(step as u32);
            }
            step = next;
        }
        false
    }

    /// Collects what may come next; the best choice last, as it is taken first.
    fn choose(&mut self, steps: &Steps, state: State) {
        let open = self.open.iter().map(|&step| &steps.all[step as usize]);
        let first_return = open.map(|step| step.entry.returned).min().unwrap_or(NEVER);
        let unseen = self.open.iter().find(|&&step| steps.all[step as usize].unseen).copied();
        // Whatever blind write would come next, the unseen ones can come before it.
        let blind_too = unseen.is_none();
        self.choose_optional(steps, state, first_return, blind_too);
        self.choose_certain(steps, state, first_return, blind_too);
        if let Some(step) = unseen
            && let Some(to) = after(&steps.all[step as usize].entry, state)
            && !steps.spoils(step as usize, state, to)
        {
            self.choices.push(Choice::Unseen);
        }
    }

    fn choose_certain(&mut self, steps: &Steps, state: State, first_return: Time, blind_too: bool) {
        let first = self.choices.len();
        for i in 0..self.open.len() {
            let step = self.open[i];
            let of = &steps.all[step as usize];
            if !of.pure
                && (blind_too || !is_blind(of))
                && let Some(to) = after(&of.entry, state)
                && !steps.spoils(step as usize, state, to)
            {
                self.offer(steps, (first, first_return), step, to);
            }
        }
        // What returns first is the likeliest to come first.
        self.choices[first..].sort_unstable_by_key(|choice| std::cmp::Reverse(choice.returns(steps)));
    }

    /// Adds a choice, unless one like it is among those since `first`. Of two that are alike and may both come next, the one that returns
    /// first can always have the earlier place: swapping them changes no answer, and frees more than it binds.
    fn offer(&mut self, steps: &Steps, (first, first_return): (usize, Time), step: u32, to: State) {
        let returned = steps.all[step as usize].entry.returned;
        for choice in &mut self.choices[first..] {
            if let Choice::One { step: other, .. } = *choice
                && steps.are_alike(other, step, first_return)
            {
                if returned < steps.all[other as usize].entry.returned {
                    *choice = Choice::One { step, to };
                }
                return;
            }
        }
        self.choices.push(Choice::One { step, to });
    }

    /// Adds the optional operations that the next one would notice.
    ///
    /// Take, of the orders that explain the rest from here, one with as few optional operations as possible, and of those one that has
    /// them as late as possible. If it begins with an optional operation P, some X follows at once (else P would not be there). X does
    /// not fit, or leads to something worse, or to something else in the other order of the two: else P could be left out, or come
    /// later. And X may come next already, as P had not returned before anything. So P needs to be tried only if there is such an X.
    fn choose_optional(&mut self, steps: &Steps, state: State, first_return: Time, blind_too: bool) {
        let first = self.choices.len();
        let mut step = steps.following(steps.optional_head());
        while step != steps.optional_head() && steps.all[step].entry.called <= first_return {
            let of = &steps.all[step];
            if (blind_too || !is_blind(of))
                && let Some(to) = after(&of.entry, state).filter(|to| *to != state)
                && !steps.spoils(step, state, to)
                && self.is_noticed(steps, step, state, to, first_return)
            {
                #[expect(clippy::cast_possible_truncation, reason = "as in `place`")]
                self.offer(steps, (first, first_return), step as u32, to);
            }
            step = steps.following(step);
        }
    }

    /// Whether some operation that may come next notices that the optional `step` led from `from` to `to`.
    fn is_noticed(&self, steps: &Steps, step: usize, from: State, to: State, first_return: Time) -> bool {
        let notices = |other: usize| {
            let entry = &steps.all[other].entry;
            let Some(both) = after(entry, to) else { return false };
            let Some(without) = after(entry, from) else { return true };
            let swapped = || after(&steps.all[step].entry, without);
            !steps.is_as_good(without, both) && swapped() != Some(both)
        };
        if self.open.iter().any(|&other| notices(other as usize)) {
            return true;
        }
        let mut other = steps.following(steps.optional_head());
        while other != steps.optional_head() && steps.all[other].entry.called <= first_return {
            if other != step && notices(other) {
                return true;
            }
            other = steps.following(other);
        }
        false
    }
}

/// True for what fits every state that its fence passes.
fn is_blind(step: &Step) -> bool {
    matches!(step.entry.op, Op::Write(_)) && step.entry.refused_below.is_none()
}

/// True when fences, which only grow, have passed this one by: it can never have been answered so from here on.
fn is_too_late(step: &Step, state: State) -> bool {
    let failed = step.pure && matches!(step.entry.op, Op::Cas { .. } | Op::CasMissed { .. });
    failed && step.entry.refused_below.is_none() && step.entry.fence.is_some_and(|fence| fence < state.fence)
}

/// A hash for keys that are mixed well by multiplying: the default one takes longer than the rest of a step.
#[derive(Debug, Default)]
pub(super) struct Mixer(u64);

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.write_u64(u64::from(number));
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(23) ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn write_u128(&mut self, number: u128) {
        // Both halves, one after the other.
        #[expect(clippy::cast_possible_truncation, reason = "the other half follows")]
        self.write_u64(number as u64);
        self.write_u64((number >> 64) as u64);
    }

    fn finish(&self) -> u64 {
        // The table takes its place from the low bits, and they are the least mixed.
        self.0 ^ (self.0 >> 32)
    }
}
