//! What clients did to one key and what they were told, as the checker takes it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use linearizability::{Entry, NEVER, Op};

use super::what::{Heard, What, open, understood};
use super::wire::Told;

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
    /// Fences, and when they were first shown to anybody: of all changes that came with one, whatever became of them.
    shown: Vec<(u64, u64)>,
    seen: Seen,
}

impl Inner {
    /// False for a refusal whose fence had been shown, but was not known to have been taken.
    ///
    /// A fence counts from the moment a node has seen it. The change that came with it may take effect later, or come to nothing: lower
    /// ones are refused all the same, and rightly, as nobody uses a fence before the lock of the lower ones has ended. To the checker,
    /// who knows of changes that were made, and of nothing before they were, such a refusal would be wrong.
    fn is_judged(&self, refusal: &Entry) -> bool {
        let Some(seen) = refusal.refused_below else {
            return true;
        };
        let was_shown = self
            .shown
            .iter()
            .any(|&(fence, called)| fence == seen && called <= refusal.returned);
        let has_taken =
            |entry: &Entry| entry.fence == Some(seen) && takes_effect(entry) && entry.returned < refusal.called;
        !was_shown || self.entries.iter().any(has_taken)
    }
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
        inner.shown.extend(what.fence().map(|fence| (fence, called)));
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
        let judged = |entry: &&Entry| inner.is_judged(entry);
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::what::By;
    use super::*;

    fn told(status: u16, body: Value) -> Told {
        crate::register::wire::told(status, body)
    }

    fn put(id: u32) -> What {
        What::Put {
            id,
            ends: false,
            fence: None,
        }
    }

    #[test]
    fn what_was_not_done_leaves_no_trace_and_what_is_not_known_may_come_late() {
        let record = Record::new(7, "k".to_owned(), Kind::Plain);
        let unavailable = told(503, json!({ "detail": "no quorum" }));
        let unknown = told(503, json!({ "outcome": "unknown" }));
        assert_eq!(record.note(0, 1, 2, &put(1), &unavailable), Became::Unavailable);
        assert_eq!(record.note(0, 3, 4, &What::Get, &unknown), Became::Unknown);
        assert_eq!(record.history(), []);
        assert_eq!(record.note(0, 5, 6, &put(2), &unknown), Became::Unknown);
        assert_eq!(record.history(), [Entry::new(0, 7, 5, NEVER, Op::Write(Some(2)))]);
        assert_eq!(record.possible(Some(9)), [Some(9), Some(2)]);
    }

    #[test]
    fn a_refused_cas_tells_what_it_found() {
        let record = Record::new(0, "k".to_owned(), Kind::Plain);
        let cas = What::Cas {
            expected: Some(1),
            by: By::Value,
            id: 3,
            fence: None,
        };
        let refused = told(200, json!({ "ok": false, "current": 2, "version": "v" }));
        assert_eq!(record.note(0, 1, 2, &cas, &refused), Became::Answered);
        let missed = Op::CasMissed {
            expected: Some(1),
            found: Some(2),
        };
        assert_eq!(record.history(), [Entry::new(0, 0, 1, 2, missed)]);
        assert_eq!(
            (record.seen().value, record.seen().version.as_deref()),
            (Some(2), Some("v"))
        );
    }

    #[test]
    fn a_lock_ends_by_itself_unless_it_is_renewed() {
        let record = Record::new(0, "k".to_owned(), Kind::Lock);
        let taken = told(200, json!({ "ok": true, "token": "t", "fence": 5 }));
        record.note(0, 100, 200, &What::Acquire { id: 1, owned: false }, &taken);
        let end = |called: u64, returned: u64| {
            let [.., last] = record.history()[..] else {
                panic!("a history")
            };
            let certain = Record::certain_us();
            assert_eq!((last.op, last.called), (Op::End(1), called + certain));
            assert_eq!(
                last.returned,
                if returned == NEVER {
                    NEVER
                } else {
                    returned + micros(TTL + TTL_MARGIN)
                }
            );
        };
        end(100, 200);
        let renew = What::Renew {
            id: 1,
            token: "t".to_owned(),
        };
        record.note(0, 300, 400, &renew, &told(200, json!({ "ok": true })));
        end(300, 400);
        record.note(0, 500, 600, &renew, &told(503, json!({ "outcome": "unknown" })));
        end(300, NEVER);
    }

    #[test]
    fn a_refusal_is_judged_unless_its_fence_was_shown_and_not_yet_taken() {
        let record = Record::new(0, "k".to_owned(), Kind::Fenced);
        let fenced = |fence| What::Put {
            id: 1,
            ends: false,
            fence: Some(fence),
        };
        let refused = told(200, json!({ "ok": false, "fence_seen": 9 }));
        record.note(0, 1, 2, &fenced(3), &refused);
        assert_eq!(record.history().len(), 1, "nobody had shown it");
        record.note(0, 3, 4, &fenced(9), &told(503, json!({ "detail": "no quorum" })));
        record.note(0, 5, 6, &fenced(3), &refused);
        assert_eq!(record.history().len(), 1, "it came to nothing, but was shown");
        record.note(0, 7, 8, &fenced(9), &told(200, json!({ "ok": true })));
        record.note(0, 9, 10, &fenced(3), &refused);
        assert_eq!(record.history().len(), 3, "it was taken before");
    }

    #[test]
    fn an_answer_that_does_not_fit_is_wrong() {
        let record = Record::new(0, "k".to_owned(), Kind::Plain);
        for (what, status, body) in [
            (What::Get, 200, json!({ "value": "not ours" })),
            (put(1), 404, json!({})),
            (put(1), 422, json!({ "detail": "no" })),
            (put(1), 200, json!({ "ok": false })),
            (What::Acquire { id: 1, owned: true }, 200, json!({ "ok": true })),
        ] {
            let became = record.note(0, 1, 2, &what, &told(status, body));
            assert!(matches!(became, Became::Wrong(_)), "{what:?}: {became:?}");
        }
    }
}
