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
//! None of this is needed for correctness: other coordinators take part all the same.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use super::{Operation, Retry};
use crate::change::{Answer, Command};
use crate::state::{Key, RequestId};

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
}

/// When a turn began: after so many had joined the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Began(u64);

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
                let (joined, waiting) = (0, VecDeque::new());
                place.insert(Line { joined, waiting });
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

    /// Joins the line of a key; where nobody has a turn, it is one's own at once.
    pub fn join(&mut self, key: &Key, change: impl FnOnce() -> Change, whom: impl FnOnce() -> W) -> Option<Began> {
        let line = match self.lines.get_mut(key) {
            Some(line) => line,
            None => return self.begin(key),
        };
        line.waiting.push_back(Waiting {
            number: line.joined,
            change: change(),
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
}
