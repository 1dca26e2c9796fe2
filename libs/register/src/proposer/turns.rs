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
//! Blind writes need not know what is there, so those that wait have a turn together ([`goes_together`]), and while they have it, more may come
//! along: each is sent as it comes, at a ballot above those before it, and the nodes take one after the other. Else a key that many write
//! would have one write for each way to the disk and back. They wait behind any other change that waits and is not refuted, so that
//! nobody is kept from its turn by writes that keep coming. Where only one wants it, it has the turn alone, and makes its change of what
//! is remembered.
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

/// Blind writes that have a turn together at most.
pub const TOGETHER_MAX: usize = 256;

/// Whether a change may have its turn together with others of which this holds: it is a blind write, and sent as one.
#[must_use]
pub fn goes_together(command: &Command, retry: Retry) -> bool {
    command.is_blind() && !retry.is_clients()
}

/// A change that waits, as far as it matters to others.
#[derive(Debug, Clone)]
pub struct Change {
    command: Command,
    goes_together: bool,
    /// None for a request that another attempt may have been made at: only a turn of its own can tell what became of that.
    request: Option<RequestId>,
}

impl Change {
    /// This command, under this name.
    #[must_use]
    pub fn new(command: Command, retry: Retry) -> Self {
        Self {
            goes_together: goes_together(&command, retry),
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
pub struct Began {
    joined: u64,
    among_others: bool,
}

impl Began {
    /// Whether others have their turn together with this one: see [`Operation::among_others`].
    #[must_use]
    pub const fn is_among_others(self) -> bool {
        self.among_others
    }
}

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
    /// How many have a turn.
    at_it: usize,
    /// They have it together, and others may come along.
    together: bool,
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
            at_it: 0,
            together: false,
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

impl<W> Line<W> {
    /// Gives a turn to a change that [`goes_together`] with others, or not.
    fn give(&mut self, goes_together: bool) -> Began {
        if self.at_it == 0 {
            self.together = goes_together && self.has_next_together();
        }
        self.at_it += 1;
        self.held_for = None;
        Began {
            joined: self.joined,
            among_others: self.together,
        }
    }

    /// Whether one more may have a turn together with those who have one.
    const fn has_room(&self) -> bool {
        self.together && self.at_it > 0 && self.at_it < TOGETHER_MAX
    }

    fn has_next_together(&self) -> bool {
        self.waiting.front().is_some_and(|next| next.change.goes_together)
    }
}

impl<W> Turns<W> {
    /// A turn at once where nobody has one, or where those who have it have it together and this one [goes along](goes_together); none where
    /// [`Self::join`] would mean to wait.
    pub fn begin(&mut self, key: &Key, together: bool) -> Option<Began> {
        match self.lines.entry(key.clone()) {
            Entry::Occupied(mut place) => {
                let line = place.get_mut();
                let goes_along = together && line.waiting.is_empty() && line.has_room();
                goes_along.then(|| line.give(together))
            }
            Entry::Vacant(place) => Some(place.insert(Line::default()).give(together)),
        }
    }

    /// One who had a turn gives it back. True when the turn is to be passed on: somebody waits, and nobody has it any more, or only such as the
    /// next one goes along with. [`Self::hold`] and [`Self::next`] say to whom. A line in which nobody waits ends with the last.
    #[must_use]
    pub fn leave(&mut self, key: &Key) -> bool {
        let Some(line) = self.lines.get_mut(key) else {
            return false;
        };
        line.at_it = line.at_it.saturating_sub(1);
        if line.at_it > 0 {
            return line.has_room() && line.has_next_together();
        }
        let somebody_waits = !line.waiting.is_empty();
        if !somebody_waits {
            self.lines.remove(key);
        }
        somebody_waits
    }

    /// Joins the line of a key; where [`Self::begin`] gives a turn, or it is held for such a change, the turn is one's own at once.
    pub fn join(&mut self, key: &Key, change: impl FnOnce() -> Change, whom: impl FnOnce() -> W) -> Option<Began> {
        let change = change();
        if let Some(began) = self.begin(key, change.goes_together) {
            return Some(began);
        }
        let line = self.lines.get_mut(key)?;
        if line.held_for.as_ref().is_some_and(|state| !change.is_refuted_by(state)) {
            return Some(line.give(change.goes_together));
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
            let Some(next) = line.waiting.get(place).filter(|next| next.number < began.joined) else {
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

    /// Whose turn it is after one that has ended, with this operation if any: the first whom it does not refute, else the first. To be called
    /// until there is nobody more: others who wait may have their turn together with that one. The line ends with the last of them.
    #[must_use]
    pub fn next(&mut self, key: &Key, ended: Option<&Operation>) -> Option<(W, Began)> {
        let line = self.lines.get_mut(key)?;
        if line.at_it > 0 {
            let goes_along = line.has_room() && line.has_next_together();
            let next = goes_along.then(|| line.waiting.pop_front()).flatten()?;
            return Some((next.whom, line.give(true)));
        }
        let refuted = |change: &Change| ended.is_some_and(|ended| change.refuted_by(ended).is_some());
        let mut front = line.waiting.iter().take(LOOKED_AT);
        let place = front.position(|waiting| !refuted(&waiting.change));
        match line.waiting.remove(place.unwrap_or(0)) {
            Some(next) => Some((next.whom, line.give(next.change.goes_together))),
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
        let (line, state) = (self.lines.get_mut(key).filter(|line| line.at_it == 0)?, ended.wrote()?);
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

    /// Ends a line, whoever has a turn: all who wait in it.
    pub fn abandon(&mut self, key: &Key) -> impl Iterator<Item = W> + use<W> {
        let line = self.lines.remove(key).unwrap_or_default();
        line.waiting.into_iter().map(|waiting| waiting.whom)
    }
}
