//! What the clients have seen so far, in a form that forgets what no checker could tell apart.

use std::fmt;

use linearizability::{Entry, NEVER, Op, check};
use register::change::Answer;
use register::proposer::Outcome;

use crate::configuration::{Configuration, FIRST_VALUE, MAX_PROCESSES, Start, Verb};

/// What a client was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Told {
    /// Nothing yet, or that it cannot be told: it may take effect at any time, or never.
    Pending,
    /// This.
    Answer(Op),
    /// That nothing was changed (or, to a read, nothing).
    NoEffect,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pending => f.write_str("that its outcome is unknown"),
            Self::NoEffect => f.write_str("that nothing was done"),
            Self::Answer(op) => write!(f, "{}", Entry::new(0, 0, 0, 0, *op)),
        }
    }
}

/// One operation of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Line {
    /// The operations that had been answered when it was called, a bit each. Of the order of events nothing else matters: an order of the
    /// operations explains the history exactly if it puts none before one that was answered before it was called.
    before: u8,
    told: Told,
}

/// The lines of the operations that were called. The last one is of the end of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct History {
    lines: [Option<Line>; MAX_PROCESSES + 1],
}

const END: usize = MAX_PROCESSES;
/// After all calls.
const LAST: u64 = 1_000;
/// Moments between two calls: room for answers.
const GAP: u64 = 10;

impl History {
    fn answered(&self) -> u8 {
        let answered = |line: &Option<Line>| matches!(line, Some(line) if matches!(line.told, Told::Answer(_)));
        let places = self.lines.iter().enumerate().filter(|(_, line)| answered(line));
        places.fold(0, |all, (place, _)| all | 1 << place)
    }

    /// An operation is called.
    pub(crate) fn call(mut self, place: usize) -> Self {
        self.lines[place] = Some(Line {
            before: self.answered(),
            told: Told::Pending,
        });
        self
    }

    /// From now on what was put for a time may end.
    pub(crate) fn may_end(self) -> Self {
        if self.lines[END].is_some() {
            self
        } else {
            self.call(END)
        }
    }

    /// An operation is answered.
    pub(crate) fn tell(mut self, place: usize, told: Told) -> Self {
        if let Some(line) = &mut self.lines[place] {
            line.told = told;
            if told == Told::NoEffect {
                line.before = 0;
            }
        }
        self
    }

    /// Whether one register could have given these answers; if not, why.
    pub(crate) fn judge(&self, plan: &Configuration) -> Result<(), String> {
        check(&self.entries(plan))
            .map(|_| ())
            .map_err(|wrong| wrong.to_string())
    }

    /// In one line, for comparing explorations.
    pub(crate) fn line(&self, plan: &Configuration) -> String {
        let entries = self.entries(plan);
        let shown = entries.iter().map(|entry| {
            let (client, called, returned) = (entry.client, entry.called, entry.returned.min(LAST));
            format!("{client}: {entry} ({called} to {returned})")
        });
        shown.collect::<Vec<_>>().join(", ")
    }

    fn entries(&self, plan: &Configuration) -> Vec<Entry> {
        let mut entries = Vec::new();
        if let Start::Holding { tombstone, .. } = plan.start {
            entries.push(Entry::new(0, 0, 0, 0, Op::Write((!tombstone).then_some(FIRST_VALUE))));
        }
        for (place, line) in self.lines.iter().enumerate() {
            let Some(line) = line else { continue };
            let op = match (line.told, plan.operations.get(place)) {
                (Told::NoEffect, _) => continue,
                (Told::Answer(op), _) => op,
                (Told::Pending, Some(planned)) => match pending(planned.verb) {
                    Some(op) => op,
                    None => continue,
                },
                (Told::Pending, None) => match plan.operations.iter().find_map(|planned| ending(planned.verb)) {
                    Some(value) => Op::End(value),
                    None => continue,
                },
            };
            let client = u32::try_from(place + 1).unwrap_or(u32::MAX);
            entries.push(Entry::new(client, 0, called(line), self.returned(place, line), op));
        }
        entries
    }

    /// Just before the first call that saw it answered.
    fn returned(&self, place: usize, line: &Line) -> u64 {
        if line.told == Told::Pending {
            return NEVER;
        }
        let saw = |other: &&Line| other.before & 1 << place != 0;
        let first = self.lines.iter().flatten().filter(saw).map(called).min();
        first.map_or(LAST, |first| first - GAP / 2)
    }
}

/// What is answered before two calls only grows from the earlier to the later one, so how much it is orders them.
fn called(line: &Line) -> u64 {
    GAP + GAP * u64::from(line.before.count_ones())
}

fn pending(verb: Verb) -> Option<Op> {
    match verb {
        Verb::Get => None,
        Verb::Put(value) | Verb::PutEnding(value) => Some(Op::Write(Some(value))),
        Verb::Delete => Some(Op::Write(None)),
        Verb::Cas(expected, new) => Some(Op::Cas {
            expected,
            new: Some(new),
            swapped: None,
        }),
    }
}

fn ending(verb: Verb) -> Option<u32> {
    match verb {
        Verb::PutEnding(value) => Some(value),
        _ => None,
    }
}

/// What an outcome tells the client.
///
/// # Errors
/// What no client must ever be told.
pub(crate) fn told(verb: Verb, outcome: &Outcome) -> Result<Told, String> {
    let answer = match outcome {
        Outcome::Answered { answer, .. } => answer,
        Outcome::Unavailable { .. } => return Ok(Told::NoEffect),
        Outcome::Unknown { .. } if verb == Verb::Get => return Ok(Told::NoEffect),
        Outcome::Unknown { .. } => return Ok(Told::Pending),
        Outcome::Corrupt { ballot } => return Err(format!("two states under {ballot}")),
    };
    let op = match (verb, answer) {
        (Verb::Get, Answer::Value { value, .. }) => Op::Read(Some(number(value)?)),
        (Verb::Get, Answer::Absent) => Op::Read(None),
        (Verb::Put(value) | Verb::PutEnding(value), Answer::Written { .. }) => Op::Write(Some(value)),
        (Verb::Delete, Answer::Written { .. }) => Op::Write(None),
        (Verb::Cas(expected, new), Answer::Swapped { .. }) => Op::Cas {
            expected,
            new: Some(new),
            swapped: Some(true),
        },
        (Verb::Cas(expected, _), Answer::NotSwapped { current, .. }) => Op::CasMissed {
            expected,
            found: current.as_deref().map(number).transpose()?,
        },
        _ => return Err(format!("{verb} was answered with {answer:?}")),
    };
    Ok(Told::Answer(op))
}

fn number(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("a value that nobody wrote: {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::configuration::Bounds;

    const PUT: Told = Told::Answer(Op::Write(Some(10)));

    fn plan() -> Configuration {
        Configuration::concurrent(&[Verb::Put(10), Verb::Get, Verb::Get], Bounds::rounds(1))
    }

    fn saw(value: Option<u32>) -> Told {
        Told::Answer(Op::Read(value))
    }

    #[test]
    fn what_was_read_once_must_not_be_unread() {
        let once = History::default().call(0).call(1).tell(1, saw(Some(10))).call(2);
        assert!(once.tell(2, saw(Some(10))).judge(&plan()).is_ok());
        assert!(once.tell(2, saw(None)).judge(&plan()).is_err());
    }

    #[test]
    fn concurrent_reads_may_see_either() {
        let both = History::default().call(0).call(1).call(2);
        let either = both.tell(1, saw(Some(10))).tell(2, saw(None));
        assert!(either.judge(&plan()).is_ok());
        assert!(either.tell(0, PUT).judge(&plan()).is_ok());
        let no_effect = both.tell(0, Told::NoEffect).tell(1, saw(Some(10)));
        assert!(no_effect.judge(&plan()).is_err(), "nobody wrote it");
    }

    #[test]
    fn the_order_of_answers_between_calls_is_forgotten() {
        let called = History::default().call(0).call(1);
        let put_first = called.tell(0, PUT).tell(1, saw(None)).call(2);
        let get_first = called.tell(1, saw(None)).tell(0, PUT).call(2);
        assert_eq!(put_first, get_first);
        assert!(
            put_first.tell(2, saw(None)).judge(&plan()).is_err(),
            "it was written before"
        );
    }
}
