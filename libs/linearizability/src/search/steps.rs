//! The operations of one key, made ready for the search: what is still to be placed, as lists from which taking out and putting back
//! costs little.

use super::fences::{Fences, Ladder};
use super::fingerprint::fingerprint;
use super::values::{ABSENT, NO_VALUE, Values};
use crate::history::{Entry, ModelKind, NEVER, Op, Time};
use crate::model::{State, changes_nothing};

/// Up to so many operations a set of them is written down as it is; beyond, as a fingerprint of as many bits.
const EXACT_SET: usize = u128::BITS as usize;

/// One operation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    pub(super) entry: Entry,
    /// Its place in the key's history.
    pub(super) place: u32,
    /// Answered so, it leaves every state as it is.
    pub(super) pure: bool,
    /// A certain blind write that nobody can tell from any other state; see [`Steps::mark_unseen`].
    pub(super) unseen: bool,
    /// It makes a value that no other operation names: all such values are alike.
    anonymous: bool,
    /// From when on the value it makes may end by itself.
    ends: Time,
    /// The value that must be there, if it is certain.
    needs: u32,
    /// The value it would put there.
    makes: u32,
    /// The value that it removes, and nothing happens when that is not there: of an end that certainly came, and a release by token.
    removes: u32,
    /// Whether its place is bound by the key's fence.
    ladder: Option<Ladder>,
    /// Its share in the name of a set of operations.
    mark: u128,
}

/// All operations of one key, the certain ones before the optional ones, each sorted by call; and which of them are still to be placed.
#[derive(Debug, Default)]
pub(super) struct Steps {
    pub(super) all: Vec<Step>,
    /// Doubly linked lists of what is still to be placed; the two heads stand behind the steps.
    next: Vec<u32>,
    previous: Vec<u32>,
    /// How many steps are certain.
    certain: usize,
    values: Values,
    /// By value: how many certain steps still to be placed need it.
    needed: Vec<u32>,
    /// By value: how many steps still to be placed may make it.
    makers: Vec<u32>,
    /// By value: how many operations name it otherwise than to put it there.
    named: Vec<u32>,
    /// By value: from when on it may end by itself.
    ends: Vec<Time>,
    fences: Fences,
    /// The set of the placed ones.
    placed: u128,
}

impl Steps {
    /// Makes ready the history of one key, sorted by call.
    pub(super) fn load(&mut self, history: &[Entry], model: ModelKind) {
        self.clear();
        let numbers = self.values.load(history);
        self.needed.resize(numbers, 0);
        self.makers.resize(numbers, 0);
        self.named.resize(numbers, 0);
        self.ends.resize(numbers, NEVER);
        for certain in [true, false] {
            for (place, entry) in (0_u32..).zip(history) {
                // What changes nothing and was not answered says nothing.
                if entry.is_certain() == certain && (certain || !changes_nothing(entry)) {
                    self.push(place, entry);
                }
            }
            if certain {
                self.certain = self.all.len();
            }
        }
        self.fences.load(history, model);
        self.count_names();
        if model == ModelKind::Register && !self.someone_saw_a_difference() {
            self.drop_useless_options();
            self.mark_unseen();
        }
        self.link();
    }

    fn clear(&mut self) {
        self.all.clear();
        self.needed.clear();
        self.makers.clear();
        self.named.clear();
        self.ends.clear();
        self.placed = 0;
        self.certain = 0;
    }

    fn push(&mut self, place: u32, entry: &Entry) {
        let refused = entry.refused_below.is_some();
        let needs = match entry.op {
            _ if refused || !entry.is_certain() => NO_VALUE,
            Op::Read(value) | Op::CasMissed { found: value, .. } => self.values.number_of(value),
            Op::Cas {
                expected,
                swapped: Some(true),
                ..
            } => self.values.number_of(expected),
            Op::Renew {
                token,
                held: Some(true),
            } => self.values.number_of(Some(token)),
            _ => NO_VALUE,
        };
        let makes = match entry.op {
            _ if changes_nothing(entry) => NO_VALUE,
            Op::Write(new) | Op::Cas { new, .. } => self.values.number_of(new),
            Op::Acquire { token, .. } => self.values.number_of(Some(token)),
            Op::End(_) | Op::Release { .. } => ABSENT,
            _ => NO_VALUE,
        };
        let removes = match entry.op {
            _ if changes_nothing(entry) || !entry.is_certain() => NO_VALUE,
            Op::End(value) | Op::Release { token: Some(value), .. } => self.values.number_of(Some(value)),
            _ => NO_VALUE,
        };
        self.all.push(Step {
            entry: *entry,
            place,
            pure: changes_nothing(entry),
            unseen: false,
            anonymous: false,
            ends: NEVER,
            needs,
            makes,
            removes,
            ladder: Ladder::of(entry).map(|(ladder, _)| ladder),
            mark: 0,
        });
    }

    /// Counts by value how many operations name it otherwise than to put it there, and finds out when it may end by itself; marks the
    /// operations that make values which nobody names.
    fn count_names(&mut self) {
        for i in 0..self.all.len() {
            let entry = self.all[i].entry;
            let named = match entry.op {
                _ if entry.refused_below.is_some() => continue,
                Op::Read(value) | Op::CasMissed { found: value, .. } => value,
                Op::Cas { expected, .. } => expected,
                Op::Release { token: Some(value), .. } | Op::Renew { token: value, .. } => Some(value),
                Op::End(value) => {
                    let number = self.values.number_of(Some(value)) as usize;
                    if !entry.is_certain() && self.ends[number] == NEVER {
                        self.ends[number] = entry.called;
                        continue;
                    }
                    Some(value)
                }
                Op::Write(_) | Op::Acquire { .. } | Op::Release { token: None, .. } => continue,
            };
            let number = self.values.number_of(named) as usize;
            self.named[number] += 1;
        }
        for step in &self.all {
            if let Some(count) = self.makers.get_mut(step.makes as usize) {
                *count += 1;
            }
        }
        for step in &mut self.all {
            let makes = step.makes as usize;
            let nameless = makes != ABSENT as usize && self.named.get(makes) == Some(&0);
            step.ends = self.ends.get(makes).copied().unwrap_or(NEVER);
            // Two that make one value have but one end between them: such are unlike those with an end of their own.
            step.anonymous = nameless && (step.ends == NEVER || self.makers[makes] == 1);
        }
        self.makers.fill(0);
    }

    /// True when a failed CAS did not say what it found: such a one sees every value but one.
    fn someone_saw_a_difference(&self) -> bool {
        self.all.iter().any(|step| {
            step.entry.refused_below.is_none()
                && matches!(
                    step.entry.op,
                    Op::Cas {
                        swapped: Some(false),
                        ..
                    }
                )
        })
    }

    /// Whether nobody wants the value that this step makes, not even for it to end.
    fn is_unwanted(step: &Step) -> bool {
        step.anonymous && step.ends == NEVER
    }

    /// Leaves out optional operations that nobody can have noticed.
    ///
    /// Take an order that explains the history and in which such an operation P made the value v. Nobody wants v, nobody saw a mere
    /// difference, so between P and the next change only refusals stand, and that change is a blind one (or a certain end, which may
    /// also come too late). If P's fence is none that a refusal names, all refusals after P were for a fence that came later. So the
    /// order without P explains the history as well: each of those operations sees what it saw, or a lower fence that it passes too.
    fn drop_useless_options(&mut self) {
        let fences = &self.fences;
        let mut place = 0;
        self.all.retain(|step| {
            place += 1;
            let refuses = |fence| fences.refused_somebody(fence);
            place <= self.certain || !Self::is_unwanted(step) || step.entry.fence.is_some_and(refuses)
        });
    }

    /// Marks the writes that may be placed as soon as any other blind write is.
    ///
    /// Let u be a certain write without fence of a value that nobody wants, in a history where nobody saw a mere difference, and let
    /// an order explain the history and place the blind write w while u could be placed. Then u can be moved to just before w: nothing
    /// noticed u where it was, for the reasons given at [`Self::drop_useless_options`], and nothing stands between it and w.
    fn mark_unseen(&mut self) {
        for step in &mut self.all[..self.certain] {
            step.unseen =
                Self::is_unwanted(step) && step.entry.fence.is_none() && matches!(step.entry.op, Op::Write(_));
        }
    }

    fn link(&mut self) {
        let exact = self.all.len() <= EXACT_SET;
        for (i, step) in self.all.iter_mut().enumerate() {
            step.mark = if exact { 1 << i } else { fingerprint(i as u64) };
            if let Some(count) = self.needed.get_mut(step.needs as usize) {
                *count += 1;
            }
            if let Some(count) = self.makers.get_mut(step.makes as usize) {
                *count += 1;
            }
        }
        // A history has fewer entries than a u32 counts: it would not fit into memory.
        #[expect(clippy::cast_possible_truncation, reason = "see above")]
        let (certain, all) = (self.certain as u32, self.all.len() as u32);
        self.next.clear();
        self.previous.clear();
        self.next.extend(1..=all + 2);
        self.previous.push(0);
        self.previous.extend(0..=all);
        self.close(all, 0, certain);
        self.close(all + 1, certain, all);
    }

    /// Makes a ring of the steps `from..to` and `head`.
    fn close(&mut self, head: u32, from: u32, to: u32) {
        let (first, last) = if from == to { (head, head) } else { (from, to - 1) };
        self.join(head, first);
        self.join(last, head);
    }

    fn join(&mut self, a: u32, b: u32) {
        self.next[a as usize] = b;
        self.previous[b as usize] = a;
    }

    /// The head of the list of certain steps; ask [`Self::following`] for the first.
    pub(super) fn certain_head(&self) -> usize {
        self.all.len()
    }

    /// The head of the list of optional steps.
    pub(super) fn optional_head(&self) -> usize {
        self.all.len() + 1
    }

    /// The next step still to be placed after this one or this head.
    #[inline]
    pub(super) fn following(&self, step: usize) -> usize {
        self.next[step] as usize
    }

    /// The set of placed steps: exact for a history of up to [`EXACT_SET`] operations.
    pub(super) fn placed(&self) -> u128 {
        self.placed
    }

    /// Takes a step out of its list.
    pub(super) fn place(&mut self, step: usize) {
        let Step {
            needs,
            makes,
            ladder,
            mark,
            ..
        } = self.all[step];
        self.join(self.previous[step], self.next[step]);
        if let Some(ladder) = ladder {
            self.fences.place(ladder);
        }
        self.placed ^= mark;
        if let Some(count) = self.needed.get_mut(needs as usize) {
            *count -= 1;
        }
        if let Some(count) = self.makers.get_mut(makes as usize) {
            *count -= 1;
        }
    }

    /// Puts the step back that was placed last of all.
    pub(super) fn put_back(&mut self, step: usize) {
        let Step {
            needs,
            makes,
            ladder,
            mark,
            ..
        } = self.all[step];
        if let Some(ladder) = ladder {
            self.fences.put_back(ladder);
        }
        let (before, behind) = (self.previous[step], self.next[step]);
        // Its neighbours are again those it was taken from between, as everything placed later is back.
        #[expect(clippy::cast_possible_truncation, reason = "as in `link`")]
        let step = step as u32;
        self.join(before, step);
        self.join(step, behind);
        self.placed ^= mark;
        if let Some(count) = self.needed.get_mut(needs as usize) {
            *count += 1;
        }
        if let Some(count) = self.makers.get_mut(makes as usize) {
            *count += 1;
        }
    }

    /// True when nothing can come of placing `step`, which leads from one state to the other.
    pub(super) fn spoils(&self, step: usize, from: State, to: State) -> bool {
        self.loses_a_needed_value(step, from, to) || self.fences.are_passed(self.all[step].ladder, to.fence)
    }

    /// True when `step` would replace a value that some certain operation has yet to see and that nobody can bring back.
    fn loses_a_needed_value(&self, step: usize, from: State, to: State) -> bool {
        if from.value == to.value {
            return false;
        }
        let Step { needs, makes, .. } = self.all[step];
        let value = self.values.number_of(from.value);
        let left = |counts: &[u32], mine: u32| counts[value as usize] - u32::from(mine == value);
        left(&self.needed, needs) > 0 && left(&self.makers, makes) == 0
    }

    /// True when some certain operation needs a value that is not there at the beginning, and that nobody may have made.
    pub(super) fn lack_a_value(&self) -> bool {
        let made = |(needed, makers): (&u32, &u32)| *needed == 0 || *makers > 0;
        // The absent value, the first, is there.
        !self.needed.iter().zip(&self.makers).skip(1).all(made)
    }

    /// True for an operation that finds nothing to remove in `state`, nor ever will.
    pub(super) fn is_spent(&self, step: usize, state: State) -> bool {
        let removes = self.all[step].removes;
        removes != NO_VALUE && self.makers[removes as usize] == 0 && self.values.number_of(state.value) != removes
    }

    /// True when two steps that may both come next, in a configuration where nothing that is still to be placed returns before
    /// `first_return`, can have each other's place in every order from there: they are equal but for values that nobody tells apart,
    /// and that may end by themselves already, or never.
    pub(super) fn are_alike(&self, a: u32, b: u32, first_return: Time) -> bool {
        let (a, b) = (&self.all[a as usize], &self.all[b as usize]);
        let ends_alike = a.ends == b.ends || a.ends.max(b.ends) <= first_return;
        let alike = a.entry.op == b.entry.op
            || a.anonymous && b.anonymous && ends_alike && same_but_for_value(a.entry.op, b.entry.op);
        alike && a.entry.fence == b.entry.fence
    }

    /// True when whatever follows from `worse` follows from `better` as well: they are equal, or differ by a lower fence that no refusal
    /// names the higher of.
    pub(super) fn is_as_good(&self, better: State, worse: State) -> bool {
        better.value == worse.value
            && better.owned == worse.owned
            && (better.fence == worse.fence || better.fence < worse.fence && !self.fences.refused_somebody(worse.fence))
    }
}

fn same_but_for_value(a: Op, b: Op) -> bool {
    let without = |mut op: Op| {
        match &mut op {
            Op::Write(value) | Op::Cas { new: value, .. } => *value = None,
            Op::Acquire { token, .. } => *token = 0,
            _ => {}
        }
        op
    };
    without(a) == without(b)
}
