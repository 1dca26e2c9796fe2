//! What clients did to one key and what they were told, as the checker takes it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::what::{Heard, What, open, understood};
use super::wire::Told;
use linearizability::{Entry, NEVER, Op};

/// Time to live of the locks, and of the values that end.
pub(crate) const TTL: Duration = Duration::from_secs(3);
/// How much earlier or later than its time to live something may end: two kvfronts may be twice the bound of 500 ms apart.
const TTL_MARGIN: Duration = Duration::from_secs(1);

/// The clock of a test: microseconds since it began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TestClock(pub(crate) Instant);

impl TestClock {
    pub(crate) fn now_us(self) -> u64 {
        micros(self.0.elapsed())
    }
}

pub(crate) fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).expect("a test of less than 500,000 years")
}

/// What a key is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Get, put, delete, CAS.
    Plain,
    /// The same, and its puts end by themselves.
    Ending,
    /// Get, and put and CAS under fences.
    Fenced,
    /// A lock.
    Lock,
}

/// What the clients last heard of a key, to have something to expect.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) value: Option<u32>,
    pub(crate) version: Option<String>,
    pub(crate) holder: Option<(u32, String)>,
}

/// One key's history.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) number: u32,
    pub(crate) name: String,
    pub(crate) kind: Kind,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    entries: Vec<Entry>,
    /// Values that were written with a time to live.
    ending: Vec<u32>,
    /// Fences of changes that came to nothing.
    in_vain: Vec<u64>,
    seen: Seen,
}

/// What became of an operation, for the summary.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Became {
    Answered,
    Unavailable,
    Unknown,
    /// Against the contract.
    Wrong(String),
}

impl Record {
    pub(crate) fn new(number: u32, name: String, kind: Kind) -> Self {
        Self {
            number,
            name,
            kind,
            inner: Mutex::default(),
        }
    }

    pub(crate) fn seen(&self) -> Seen {
        self.lock().seen.clone()
    }

    /// Notes an operation that was called and told at these moments.
    pub(crate) fn note(&self, client: u32, called: u64, returned: u64, what: &What, told: &Told) -> Became {
        let entry = |returned, op| Entry::new(client, self.number, called, returned, op);
        let (became, noted) = match told {
            Told::Answer { status, body } => match understood(what, *status, body) {
                Some(Heard {
                    op,
                    seen,
                    fence,
                    refused_below,
                }) => {
                    if let Some(seen) = seen {
                        self.lock().seen = seen;
                    }
                    let entry = Entry {
                        fence,
                        refused_below,
                        ..entry(returned, op)
                    };
                    (Became::Answered, Some(entry))
                }
                None => return Became::Wrong(format!("{what:?} was answered with {status} {body}")),
            },
            Told::NotDone(_) => (Became::Unavailable, None),
            Told::Unknown(_) => (
                Became::Unknown,
                open(what).map(|(op, fence)| Entry {
                    fence,
                    ..entry(NEVER, op)
                }),
            ),
            Told::Wrong(why) => return Became::Wrong(format!("{what:?}: {why}")),
        };
        let mut inner = self.lock();
        if !noted.is_some_and(|entry| takes_effect(&entry)) {
            inner.in_vain.extend(what.fence());
        }
        if let (What::Put { id, ends: true, .. }, Some(_)) = (what, &noted) {
            inner.ending.push(*id);
        }
        inner.entries.extend(noted);
        became
    }

    /// All that is known, with the moments at which things may have ended by themselves.
    pub(crate) fn history(&self) -> Vec<Entry> {
        let inner = self.lock();
        let ends = inner.entries.iter().filter_map(|entry| self.end_of(entry, &inner));
        // A change that came to nothing may have been shown to a node, and a key that has seen a fence refuses lower ones: rightly, as
        // nobody uses a fence before the lock of the lower ones has ended. The checker knows the fences of changes that were made only.
        let judged = |entry: &&Entry| entry.refused_below.is_none_or(|seen| !inner.in_vain.contains(&seen));
        inner.entries.iter().filter(judged).copied().chain(ends).collect()
    }

    /// How long a lock is held for certain, counted from before it was asked for.
    pub(crate) fn certain_us() -> u64 {
        micros(TTL - TTL_MARGIN)
    }

    /// The end of what this entry wrote or took.
    fn end_of(&self, entry: &Entry, inner: &Inner) -> Option<Entry> {
        let (id, renewals) = match entry.op {
            Op::Write(Some(id)) if inner.ending.contains(&id) && entry.refused_below.is_none() => (id, vec![]),
            Op::Acquire {
                token,
                took: None | Some(true),
                ..
            } => {
                let of_it = |other: &&Entry| matches!(other.op, Op::Renew { token: other, held: None | Some(true) } if other == token);
                (token, inner.entries.iter().filter(of_it).collect())
            }
            _ => return None,
        };
        // It lasts as long as the last renewal that is known to have succeeded says; unknown ones may have made it last longer.
        let answered = |entry: &&&Entry| entry.returned != NEVER;
        let called = renewals
            .iter()
            .filter(answered)
            .map(|renewal| renewal.called)
            .fold(entry.called, u64::max);
        let returned = renewals
            .iter()
            .map(|renewal| renewal.returned)
            .fold(entry.returned, u64::max);
        let latest = if returned == NEVER {
            NEVER
        } else {
            returned + micros(TTL + TTL_MARGIN)
        };
        Some(Entry::new(
            entry.client,
            self.number,
            called + Self::certain_us(),
            latest,
            Op::End(id),
        ))
    }

    /// Values that the key may hold if `last` is what a quorum gave after everything had returned: that, or what is still under way.
    pub(crate) fn possible(&self, last: Option<u32>) -> Vec<Option<u32>> {
        let pending = |entry: &Entry| match entry.op {
            Op::Write(new) | Op::Cas { new, swapped: None, .. } if entry.returned == NEVER => Some(new),
            _ => None,
        };
        std::iter::once(last)
            .chain(self.lock().entries.iter().filter_map(pending))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// True for a change that was made, or may have been.
fn takes_effect(entry: &Entry) -> bool {
    entry.refused_below.is_none() && !matches!(entry.op, Op::CasMissed { .. })
}
