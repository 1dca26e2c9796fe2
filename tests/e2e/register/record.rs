//! What clients did to one key and what they were told, as the checker takes it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use linearizability::{Entry, NEVER, Op};
use reqwest::Method;
use serde_json::{Value, json};

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

/// One operation on one key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum What {
    Get,
    Put {
        id: u32,
        ends: bool,
        fence: Option<u64>,
    },
    Delete,
    DeleteVersion {
        expected: u32,
        version: String,
    },
    Cas {
        expected: Option<u32>,
        by: By,
        id: u32,
        fence: Option<u64>,
    },
    Acquire {
        id: u32,
        owned: bool,
    },
    Renew {
        id: u32,
        token: String,
    },
    /// With the token, or whoever holds it.
    Release(Option<(u32, String)>),
}

/// How a CAS says what it expects.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum By {
    Value,
    Version(Option<String>),
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

/// An answer, in the checker's words.
struct Heard {
    op: Op,
    /// What is there now, as far as the answer tells.
    seen: Option<Seen>,
    fence: Option<u64>,
    refused_below: Option<u64>,
}

/// What an answer says; none when it is no answer to that.
fn understood(what: &What, status: u16, body: &Value) -> Option<Heard> {
    let version = || body["version"].as_str().map(str::to_owned);
    let value = |value| {
        Some(Seen {
            value,
            version: version(),
            holder: None,
        })
    };
    let heard = |op, seen| {
        Some(Heard {
            op,
            seen,
            fence: None,
            refused_below: None,
        })
    };
    if (status, what) == (404, &What::Get) {
        return heard(Op::Read(None), value(None));
    }
    if status != 200 {
        return None;
    }
    let ok = || body["ok"].as_bool();
    match what {
        What::Get => {
            let id = id_of(&body["value"])?;
            heard(Op::Read(id), value(id))
        }
        What::Put { id, fence, .. } => changed(*fence, body, Op::Write(Some(*id)), value(Some(*id))),
        What::Delete => (ok()?).then(|| heard(Op::Write(None), value(None)))?,
        What::DeleteVersion { expected, .. } => swap(Some(*expected), None, None, body, version()),
        What::Cas {
            expected, id, fence, ..
        } => swap(*expected, Some(*id), *fence, body, version()),
        What::Acquire { id, owned } => {
            let took = ok()?;
            let token = body["token"].as_str().map(|token| (*id, token.to_owned()));
            let fence = body["fence"].as_u64();
            // Whoever takes a lock is told its token and its fence.
            (!took || (token.is_some() && fence.is_some())).then_some(Heard {
                op: Op::Acquire {
                    token: *id,
                    owned: *owned,
                    took: Some(took),
                },
                seen: took.then(|| Seen {
                    holder: token,
                    ..Seen::default()
                }),
                fence: if took { fence } else { None },
                refused_below: None,
            })
        }
        What::Renew { id, .. } => heard(
            Op::Renew {
                token: *id,
                held: Some(ok()?),
            },
            None,
        ),
        What::Release(token) => {
            let token = token.as_ref().map(|(id, _)| *id);
            heard(
                Op::Release {
                    token,
                    freed: Some(ok()?),
                },
                None,
            )
        }
    }
}

/// A change that a fence may have refused.
fn changed(fence: Option<u64>, body: &Value, op: Op, seen: Option<Seen>) -> Option<Heard> {
    let ok = body["ok"].as_bool()?;
    let refused_below = body["fence_seen"].as_u64();
    // It was refused just when it says for which fence.
    (ok == refused_below.is_none()).then_some(Heard {
        op,
        seen: seen.filter(|_| ok),
        fence,
        refused_below,
    })
}

fn swap(
    expected: Option<u32>,
    new: Option<u32>,
    fence: Option<u64>,
    body: &Value,
    version: Option<String>,
) -> Option<Heard> {
    let cas = |swapped| Op::Cas { expected, new, swapped };
    if body["ok"] == true || body.get("fence_seen").is_some() {
        return changed(
            fence,
            body,
            cas(Some(true)),
            Some(Seen {
                value: new,
                version,
                holder: None,
            }),
        );
    }
    let found = id_of(body.get("current")?)?;
    let seen = Some(Seen {
        value: found,
        version,
        holder: None,
    });
    Some(Heard {
        op: Op::CasMissed { expected, found },
        seen,
        fence,
        refused_below: None,
    })
}

/// The id that is a value; `Some(None)` for null, and none for what no client of ours has written.
fn id_of(value: &Value) -> Option<Option<u32>> {
    if value.is_null() {
        return Some(None);
    }
    value.as_u64().and_then(|id| u32::try_from(id).ok()).map(Some)
}

/// A change whose outcome is not known, and its fence. A read leaves no trace.
fn open(what: &What) -> Option<(Op, Option<u64>)> {
    Some(match what {
        What::Get => return None,
        What::Put { id, fence, .. } => (Op::Write(Some(*id)), *fence),
        What::Delete => (Op::Write(None), None),
        What::DeleteVersion { expected, .. } => (
            Op::Cas {
                expected: Some(*expected),
                new: None,
                swapped: None,
            },
            None,
        ),
        What::Cas {
            expected, id, fence, ..
        } => (
            Op::Cas {
                expected: *expected,
                new: Some(*id),
                swapped: None,
            },
            *fence,
        ),
        What::Acquire { id, owned } => (
            Op::Acquire {
                token: *id,
                owned: *owned,
                took: None,
            },
            None,
        ),
        What::Renew { id, .. } => (Op::Renew { token: *id, held: None }, None),
        What::Release(token) => (
            Op::Release {
                token: token.as_ref().map(|(id, _)| *id),
                freed: None,
            },
            None,
        ),
    })
}

/// True for a change that was made, or may have been.
fn takes_effect(entry: &Entry) -> bool {
    entry.refused_below.is_none() && !matches!(entry.op, Op::CasMissed { .. })
}

impl What {
    fn fence(&self) -> Option<u64> {
        match self {
            Self::Put { fence, .. } | Self::Cas { fence, .. } => *fence,
            _ => None,
        }
    }

    /// As a call of its own: method, path and body.
    pub(crate) fn as_call(&self, key: &str) -> (Method, String, Option<Value>) {
        let ttl_sec = TTL.as_secs_f64();
        match self {
            Self::Get => (Method::GET, format!("/kv/{key}"), None),
            Self::Put { .. } => (Method::PUT, format!("/kv/{key}"), Some(self.fields())),
            Self::Delete => (Method::DELETE, format!("/kv/{key}"), None),
            Self::DeleteVersion { version, .. } => (Method::DELETE, format!("/kv/{key}?version={version}"), None),
            Self::Cas { .. } => {
                let mut body = self.fields();
                body["key"] = key.into();
                (Method::POST, "/kv/cas".to_owned(), Some(body))
            }
            Self::Acquire { id, owned } => {
                let owner = if *owned {
                    format!("&owner=client-{id}")
                } else {
                    String::new()
                };
                (
                    Method::POST,
                    format!("/lock/acquire/{key}?ttl_sec={ttl_sec}{owner}"),
                    None,
                )
            }
            Self::Renew { token, .. } => (
                Method::POST,
                format!("/lock/renew/{key}?token={token}&ttl_sec={ttl_sec}"),
                None,
            ),
            Self::Release(Some((_, token))) => (Method::POST, format!("/lock/release/{key}?token={token}"), None),
            Self::Release(None) => (Method::POST, format!("/lock/release/{key}"), None),
        }
    }

    /// As one of a batch; none for what a batch cannot do.
    pub(crate) fn as_batch_op(&self, key: &str) -> Option<Value> {
        let name = match self {
            Self::Get => "get",
            Self::Put { .. } => "put",
            Self::Delete | Self::DeleteVersion { .. } => "delete",
            Self::Cas { .. } => "cas",
            Self::Acquire { .. } => "lock",
            Self::Release(_) => "unlock",
            Self::Renew { .. } => return None,
        };
        let mut op = self.fields();
        op["op"] = name.into();
        op["key"] = key.into();
        Some(op)
    }

    /// The fields that a call's body and an operation of a batch have in common.
    fn fields(&self) -> Value {
        let ttl_sec = TTL.as_secs_f64();
        let mut fields = match self {
            Self::Put { id, ends: false, .. } => json!({ "value": id }),
            Self::Put { id, ends: true, .. } => json!({ "value": id, "ttl_sec": ttl_sec }),
            Self::DeleteVersion { version, .. } => json!({ "version": version }),
            Self::Cas {
                expected,
                by: By::Value,
                id,
                ..
            } => json!({ "old": expected, "new": id }),
            Self::Cas {
                by: By::Version(version),
                id,
                ..
            } => json!({ "version": version, "new": id }),
            Self::Acquire { owned: false, .. } => json!({ "ttl_sec": ttl_sec }),
            Self::Acquire { owned: true, id } => json!({ "ttl_sec": ttl_sec, "owner": format!("client-{id}") }),
            Self::Release(Some((_, token))) => json!({ "token": token }),
            Self::Get | Self::Delete | Self::Renew { .. } | Self::Release(None) => json!({}),
        };
        if let Self::Put { fence: Some(fence), .. } | Self::Cas { fence: Some(fence), .. } = self {
            fields["fence"] = (*fence).into();
        }
        fields
    }
}
