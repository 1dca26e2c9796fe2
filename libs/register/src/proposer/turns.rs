//! Changes of one key take turns at a coordinator, and what one of them learns answers those behind it that it refutes.
//!
//! Without turns the proposals of one coordinator would only get in each other's way. And of many clients that swap one hot key each knows
//! a value that only one of them can still swap: if each had to ask the nodes to be told so, the key would spend its time on refusals. So a
//! change that has come to its end refuses those that were waiting before it began and that the state it ended on refutes
//! ([`Operation::refutes`]). That is no answer from memory: a quorum held that state at some moment while they were waiting.
//!
//! Who waits longest is refused or has its turn first; but a change that the last known state does not refute goes before those it does,
//! whose turn would be spent on a refusal. At most [`REFUSED_AT_ONCE`] are refused at a time. The others lose little by waiting, while
//! telling all of them would have all of them back at once, all but one in vain.
//!
//! While all who wait are refuted by what has just been written, another turn would only find that out once more. Those who have been told
//! are about to be back with a change that it does not refute. So the line may be [held](Turns::hold) for one of them, for a moment.
//!
//! None of this is needed for correctness: other coordinators take part all the same.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use super::{Operation, Retry};
use crate::change::{self, Answer, Command};
use crate::state::{Key, RequestId, State};

/// Changes that one turn refuses at most. Those who are told compete for the next turn with the one who had this one, so few is fair to
/// both, and many costs requests that fail.
pub const REFUSED_AT_ONCE: usize = 3;

/// How many of those who wait are looked at when a turn ends, from the front of the line.
const LOOKED_AT: usize = 64;

/// A change that waits, as far as it matters to others.
#[derive(Debug, Clone)]
pub struct Change {
    command: Command,
    /// None for a request that another attempt may have been made at: only a turn of its own can tell what became of that.
    request: Option<RequestId>,
}

impl Change {
    /// This command, under this name.
    #[must_use]
    pub fn new(command: Command, retry: Retry) -> Self {
        Self {
            command,
            request: (!retry.may_be_repetition()).then(|| retry.request()),
        }
    }

    fn refuted_by(&self, ended: &Operation) -> Option<Answer> {
        ended.refutes(&self.command, self.request?)
    }

    fn is_refuted_by(&self, state: &State) -> bool {
        self.request
            .is_some_and(|request| change::timeless_refusal(&self.command, state, request).is_some())
    }
}

/// When a turn began: after so many had joined the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Began(u64);

/// A line that is held: see [`Turns::hold`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold(u64);

/// The lines of all keys that somebody has a turn at. `W` is where to tell one that waits.
#[derive(Debug)]
pub struct Turns<W> {
    lines: HashMap<Key, Line<W>>,
}

#[derive(Debug)]
struct Line<W> {
    /// How many have ever joined.
    joined: u64,
    waiting: VecDeque<Waiting<W>>,
    /// How often it was held.
    holds: u64,
    /// Nobody has a turn: the next is for who is not refuted by this.
    held_for: Option<State>,
}

impl<W> Default for Line<W> {
    fn default() -> Self {
        Self {
            joined: 0,
            waiting: VecDeque::new(),
            holds: 0,
            held_for: None,
        }
    }
}

#[derive(Debug)]
struct Waiting<W> {
    number: u64,
    change: Change,
    whom: W,
}

impl<W> Default for Turns<W> {
    fn default() -> Self {
        Self { lines: HashMap::new() }
    }
}

impl<W> Turns<W> {
    /// A turn at once where nobody has one; none where [`Self::join`] would mean to wait.
    pub fn begin(&mut self, key: &Key) -> Option<Began> {
        match self.lines.entry(key.clone()) {
            Entry::Occupied(_) => None,
            Entry::Vacant(place) => {
                place.insert(Line::default());
                Some(Began(0))
            }
        }
    }

    /// Ends a turn after which nobody waits; false when somebody does, to whom [`Self::next`] passes it.
    pub fn end_of_line(&mut self, key: &Key) -> bool {
        let nobody = self.lines.get(key).is_none_or(|line| line.waiting.is_empty());
        if nobody {
            self.lines.remove(key);
        }
        nobody
    }

    /// Joins the line of a key; where nobody has a turn, or it is held for such a change, the turn is one's own at once.
    pub fn join(&mut self, key: &Key, change: impl FnOnce() -> Change, whom: impl FnOnce() -> W) -> Option<Began> {
        let line = match self.lines.get_mut(key) {
            Some(line) => line,
            None => return self.begin(key),
        };
        let change = change();
        if line.held_for.as_ref().is_some_and(|state| !change.is_refuted_by(state)) {
            line.held_for = None;
            return Some(Began(line.joined));
        }
        line.waiting.push_back(Waiting {
            number: line.joined,
            change,
            whom: whom(),
        });
        line.joined += 1;
        None
    }

    /// Takes out those who were waiting before the turn of `ended` began and whom it refutes, the first few of them; and those who have
    /// gone, wherever it meets them.
    #[must_use]
    pub fn refuted(
        &mut self,
        key: &Key,
        began: Began,
        ended: &Operation,
        is_gone: impl Fn(&W) -> bool,
    ) -> Vec<(W, Answer)> {
        let Some(line) = self.lines.get_mut(key) else {
            return Vec::new();
        };
        let (mut refuted, mut place) = (Vec::new(), 0);
        while refuted.len() < REFUSED_AT_ONCE && place < LOOKED_AT {
            let Some(next) = line.waiting.get(place).filter(|next| next.number < began.0) else {
                break;
            };
            if is_gone(&next.whom) {
                line.waiting.remove(place);
                continue;
            }
            match next.change.refuted_by(ended) {
                Some(answer) => refuted.extend(line.waiting.remove(place).map(|waiting| (waiting.whom, answer))),
                None => place += 1,
            }
        }
        refuted
    }

    /// Whose turn it is after one that has ended, with this operation if any: the first whom it does not refute, else the first. The line
    /// ends with the last of them.
    #[must_use]
    pub fn next(&mut self, key: &Key, ended: Option<&Operation>) -> Option<(W, Began)> {
        let line = self.lines.get_mut(key)?;
        let refuted = |change: &Change| ended.is_some_and(|ended| change.refuted_by(ended).is_some());
        let mut front = line.waiting.iter().take(LOOKED_AT);
        let place = front.position(|waiting| !refuted(&waiting.change));
        let began = Began(line.joined);
        match line.waiting.remove(place.unwrap_or(0)) {
            Some(next) => Some((next.whom, began)),
            None => {
                self.lines.remove(key);
                None
            }
        }
    }

    /// Instead of passing on a turn with [`Self::next`]: keeps it for somebody who joins with a change that is not refuted by what `ended`
    /// wrote. None when it wrote nothing, or when somebody who waits is not refuted, or nobody waits at all. The caller has to
    /// [release](Self::release) the line, soon: nobody of those who wait has a turn before that.
    #[must_use]
    pub fn hold(&mut self, key: &Key, ended: &Operation) -> Option<Hold> {
        let (line, state) = (self.lines.get_mut(key)?, ended.wrote()?);
        let mut front = line.waiting.iter().take(LOOKED_AT);
        if line.waiting.is_empty() || !front.all(|waiting| waiting.change.is_refuted_by(state)) {
            return None;
        }
        line.held_for = Some(state.clone());
        line.holds += 1;
        Some(Hold(line.holds))
    }

    /// Ends a hold. True when nobody has come for the turn: it is to be passed on with [`Self::next`]. A line that has ended since and began
    /// anew may be released too early by it, which costs a turn and nothing else.
    #[must_use]
    pub fn release(&mut self, key: &Key, hold: Hold) -> bool {
        let line = self.lines.get_mut(key).filter(|line| line.holds == hold.0);
        line.is_some_and(|line| line.held_for.take().is_some())
    }
}
