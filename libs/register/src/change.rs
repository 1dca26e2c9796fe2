//! How a command turns one state into the next: pure, judged at the ballot the change is made at.
//!
//! Shared by the proposer, which applies a command to the newest state a quorum knows, and by a kvstore's node-local calls.
//! Time is the ballot's: an expiry becomes visible only by committing a tombstone whose ballot is at or after it, so two coordinators
//! never disagree about it.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ballot::Ballot;
use crate::state::{Lineage, RequestId, State};
use crate::teeth::{Tooth, bites};

/// What a client wants of one register.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Command {
    /// Read it.
    Get,
    /// Set it, whatever it was.
    Put {
        /// JSON text.
        value: Arc<str>,
        /// Time to live from the ballot on, milliseconds.
        ttl_ms: Option<u64>,
        /// Refused when lower than the fence the key has seen.
        fence: Option<u64>,
    },
    /// Remove it.
    Delete {
        /// Only while the value has this version.
        version: Option<Ballot>,
        /// Refused when lower than the fence the key has seen.
        fence: Option<u64>,
    },
    /// Set it if it is what is expected.
    Cas {
        /// What is expected.
        expect: Expect,
        /// JSON text.
        new: Arc<str>,
        /// Refused when lower than the fence the key has seen.
        fence: Option<u64>,
    },
    /// Take a lock that nobody holds.
    Acquire {
        /// Proves the holder; drawn by the coordinator, unguessable.
        token: Arc<str>,
        /// Who wants it; a lock with an owner is released only by its token.
        owner: Option<Arc<str>>,
        /// Time to live from the ballot on, milliseconds.
        ttl_ms: u64,
    },
    /// Give a lock back.
    Release {
        /// The holder's token; none frees only a lock taken without owner.
        token: Option<Arc<str>>,
    },
    /// Hold a lock for longer.
    Renew {
        /// The holder's token.
        token: Arc<str>,
        /// Time to live from the ballot on, milliseconds.
        ttl_ms: u64,
    },
}

impl Command {
    /// True for a write that does not depend on the state: it can be accepted without a prepare.
    #[must_use]
    pub fn is_blind(&self) -> bool {
        matches!(
            self,
            Self::Put { fence: None, .. }
                | Self::Delete {
                    version: None,
                    fence: None
                }
        )
    }

    /// True for a change whose outcome does not depend on the time at which it is made: none of locks and none that sets an end.
    #[must_use]
    pub fn is_timeless_change(&self) -> bool {
        matches!(
            self,
            Self::Put { ttl_ms: None, .. } | Self::Delete { .. } | Self::Cas { .. }
        )
    }
}

/// What a CAS expects.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Expect {
    /// An equal value, numbers compared by value and objects without order; `null` means absent or null.
    Value(serde_json::Value),
    /// This version; `None` means absent.
    Version(Option<Ballot>),
}

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Answer {
    /// The value of a get.
    Value {
        /// JSON text.
        value: Arc<str>,
        /// Ballot of its last change.
        version: Ballot,
    },
    /// A get found nothing.
    Absent,
    /// A put or delete took effect.
    Written {
        /// Ballot of the change.
        version: Ballot,
    },
    /// A CAS took effect.
    Swapped {
        /// Ballot of the change.
        version: Ballot,
    },
    /// A CAS (or a delete by version) found something else.
    NotSwapped {
        /// What is there.
        current: Option<Arc<str>>,
        /// Its version.
        version: Option<Ballot>,
    },
    /// A fence was lower than the key has seen.
    FenceTooLow {
        /// The fence seen.
        seen: u64,
    },
    /// A lock was taken.
    Locked {
        /// The holder's token.
        token: Arc<str>,
        /// The fencing number.
        fence: u64,
        /// When it ends, Unix milliseconds.
        expires_at_ms: u64,
        /// Time left at the ballot, milliseconds.
        expires_in_ms: u64,
    },
    /// Somebody holds the lock.
    LockHeld {
        /// When it ends, Unix milliseconds.
        expires_at_ms: u64,
        /// Time left at the ballot, milliseconds.
        expires_in_ms: u64,
    },
    /// To a release: false when somebody else holds the lock.
    Released(bool),
    /// A lock is held for longer.
    Renewed {
        /// When it ends, Unix milliseconds.
        expires_at_ms: u64,
        /// Time left at the ballot, milliseconds.
        expires_in_ms: u64,
    },
    /// The token holds no lock here.
    NotRenewed,
}

impl Answer {
    /// True when it tells the client that its command has changed something: then it must not be made twice.
    #[must_use]
    pub fn tells_of_a_change(&self) -> bool {
        matches!(
            self,
            Self::Written { .. }
                | Self::Swapped { .. }
                | Self::Locked { .. }
                | Self::Renewed { .. }
                | Self::Released(true)
        )
    }
}

/// What a command does to a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The next state; none when nothing changes.
    pub next: Option<State>,
    /// What to tell the client, once the next state (or the one it was judged on) is committed.
    pub answer: Answer,
}

/// What a lock's register holds, as JSON; expiry and fence are the state's own.
#[derive(Debug, Serialize, Deserialize)]
struct Holder {
    token: Arc<str>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    owner: Option<Arc<str>>,
}

/// Applies `command` to `current` at `ballot`.
#[must_use]
pub fn apply(command: &Command, current: Option<&State>, ballot: Ballot, request: RequestId) -> Applied {
    let now_ms = ballot.time.unix_ms();
    let expired = current.filter(|state| state.is_expired(now_ms));
    // An ended value is nothing, and saying so needs a tombstone to be committed even if the command itself changes nothing.
    let live = current.filter(|state| state.value.is_some() && expired.is_none());
    let at = At {
        current,
        live,
        ballot,
        now_ms,
        request,
    };
    let mut applied = at.apply(command);
    if applied.next.is_none() && expired.is_some() {
        // Of a command that changes nothing itself, the lineage must not say that it was made.
        let request = if applied.answer.tells_of_a_change() {
            request
        } else {
            RequestId::NOBODY
        };
        applied.next = Some(At { request, ..at }.next(None, None));
    }
    applied
}

/// What a change is refused with on this state, at whatever time; none when it is not refused, when the change or the state depends on
/// time, or when the state was made by the very request.
#[must_use]
pub fn timeless_refusal(command: &Command, state: &State, request: RequestId) -> Option<Answer> {
    let timeless = command.is_timeless_change() && state.expires_at_ms.is_none();
    if !timeless || state.lineage.made_by(request).is_some() {
        return None;
    }
    // A refusal does not depend on the ballot.
    let Applied { next, answer } = apply(command, Some(state), state.version, request);
    (next.is_none() && !answer.tells_of_a_change()).then_some(answer)
}

/// What to tell a client whose change is part of `current` already: it was made at `made`, by an earlier attempt. Nothing is changed (but
/// that what has ended is given its tombstone), and the answer rests on `current`, judged at `ballot`, as a refusal does.
///
/// For a lock it is what holds *now* that counts: an acquisition is told as [`Answer::Locked`] only while the command's token still holds
/// the lock, and a renewal only while it does. A lock that was taken and is over is told as [`Answer::LockHeld`]: with the time that the
/// present holder has left, with none when nobody holds it. Either way the client does not hold it, and may ask anew under a new id.
#[must_use]
pub fn repeated(command: &Command, current: &State, made: Ballot, ballot: Ballot) -> Applied {
    let now_ms = ballot.time.unix_ms();
    let expired = current.is_expired(now_ms);
    let live = (current.value.is_some() && !expired).then_some(current);
    let at = At {
        current: Some(current),
        live,
        ballot,
        now_ms,
        request: RequestId::NOBODY,
    };
    let expires_at_ms = live.map_or(now_ms, |held| held.expires_at_ms.unwrap_or(u64::MAX));
    let expires_in_ms = expires_at_ms.saturating_sub(now_ms);
    let answer = match command {
        // A read changes nothing, and is in no lineage.
        Command::Get => at.apply(command).answer,
        Command::Put { .. } | Command::Delete { .. } => Answer::Written { version: made },
        Command::Cas { .. } => Answer::Swapped { version: made },
        Command::Acquire { token, .. } if at.is_held_by(token) => Answer::Locked {
            token: Arc::clone(token),
            fence: current.fence,
            expires_at_ms,
            expires_in_ms,
        },
        Command::Acquire { .. } => Answer::LockHeld {
            expires_at_ms,
            expires_in_ms,
        },
        Command::Release { .. } => Answer::Released(true),
        Command::Renew { token, .. } if at.is_held_by(token) => Answer::Renewed {
            expires_at_ms,
            expires_in_ms,
        },
        Command::Renew { .. } => Answer::NotRenewed,
    };
    let next = expired.then(|| at.next(None, None));
    Applied { next, answer }
}

/// The blind state of a put or delete: what it makes of a register without knowing it. `None` for other commands.
#[must_use]
pub fn blind_state(command: &Command, ballot: Ballot, request: RequestId) -> Option<State> {
    let at = At {
        current: None,
        live: None,
        ballot,
        now_ms: ballot.time.unix_ms(),
        request,
    };
    let mut state = command.is_blind().then(|| at.apply(command).next).flatten()?;
    state.lineage = Lineage::blind(ballot, request);
    Some(state)
}

struct At<'a> {
    current: Option<&'a State>,
    live: Option<&'a State>,
    ballot: Ballot,
    now_ms: u64,
    request: RequestId,
}

impl At<'_> {
    fn apply(&self, command: &Command) -> Applied {
        match command {
            Command::Get => self.unchanged(match self.value() {
                Some((value, version)) => Answer::Value { value, version },
                None => Answer::Absent,
            }),
            Command::Put { value, ttl_ms, fence } => self.fenced(*fence, || {
                let next = self.next(
                    Some(Arc::clone(value)),
                    ttl_ms.map(|ttl| self.now_ms.saturating_add(ttl)),
                );
                Applied {
                    next: Some(next),
                    answer: Answer::Written { version: self.ballot },
                }
            }),
            Command::Delete { version, fence } => self.fenced(*fence, || match (version, self.value()) {
                (Some(expected), found) if found.as_ref().map(|(_, version)| version) != Some(expected) => {
                    self.unchanged(not_swapped(found))
                }
                _ => Applied {
                    next: Some(self.next(None, None)),
                    answer: Answer::Written { version: self.ballot },
                },
            }),
            Command::Cas { expect, new, fence } => self.fenced(*fence, || {
                let found = self.value();
                if !meets(expect, found.as_ref()) {
                    return self.unchanged(not_swapped(found));
                }
                let next = self.next(Some(Arc::clone(new)), None);
                Applied {
                    next: Some(next),
                    answer: Answer::Swapped { version: self.ballot },
                }
            }),
            Command::Acquire { token, owner, ttl_ms } => self.acquire(token, owner.as_ref(), *ttl_ms),
            Command::Release { token } => self.release(token.as_deref()),
            Command::Renew { token, ttl_ms } => self.renew(token, *ttl_ms),
        }
    }

    fn acquire(&self, token: &Arc<str>, owner: Option<&Arc<str>>, ttl_ms: u64) -> Applied {
        if let Some(held) = self.live {
            let expires_at_ms = held.expires_at_ms.unwrap_or(u64::MAX);
            return self.unchanged(Answer::LockHeld {
                expires_at_ms,
                expires_in_ms: expires_at_ms.saturating_sub(self.now_ms),
            });
        }
        let expires_at_ms = self.now_ms.saturating_add(ttl_ms);
        let holder = Holder {
            token: Arc::clone(token),
            owner: owner.cloned(),
        };
        let mut next = self.next(Some(to_json(&holder)), Some(expires_at_ms));
        if !bites(Tooth::FenceStandsStill) {
            // Above the last one, and not below the clock, so that fences grow even past a collected tombstone.
            next.fence = next.fence.saturating_add(1).max(self.now_ms);
        }
        let answer = Answer::Locked {
            token: Arc::clone(token),
            fence: next.fence,
            expires_at_ms,
            expires_in_ms: ttl_ms,
        };
        Applied {
            next: Some(next),
            answer,
        }
    }

    fn release(&self, token: Option<&str>) -> Applied {
        let Some(holder) = self.holder() else {
            return self.unchanged(Answer::Released(true));
        };
        let may = token.map_or(holder.owner.is_none(), |token| *holder.token == *token);
        if may {
            Applied {
                next: Some(self.next(None, None)),
                answer: Answer::Released(true),
            }
        } else {
            self.unchanged(Answer::Released(false))
        }
    }

    fn renew(&self, token: &str, ttl_ms: u64) -> Applied {
        let Some(held) = self.live.filter(|_| self.is_held_by(token)) else {
            return self.unchanged(Answer::NotRenewed);
        };
        let expires_at_ms = self.now_ms.saturating_add(ttl_ms);
        let mut next = held.clone();
        next.expires_at_ms = Some(expires_at_ms);
        next.lineage.push(self.ballot, self.request);
        Applied {
            next: Some(next),
            answer: Answer::Renewed {
                expires_at_ms,
                expires_in_ms: ttl_ms,
            },
        }
    }

    fn value(&self) -> Option<(Arc<str>, Ballot)> {
        self.live
            .and_then(|state| state.value.clone().map(|value| (value, state.version)))
    }

    fn is_held_by(&self, token: &str) -> bool {
        self.holder().is_some_and(|holder| *holder.token == *token)
    }

    fn holder(&self) -> Option<Holder> {
        let value = self.live?.value.as_ref()?;
        // Only this module writes lock registers; one that cannot be read is held by nobody who could prove it.
        Some(serde_json::from_str(value).unwrap_or(Holder {
            token: Arc::from(""),
            owner: Some(Arc::from("?")),
        }))
    }

    fn fenced(&self, fence: Option<u64>, change: impl FnOnce() -> Applied) -> Applied {
        let seen = self.current.map_or(0, |state| state.fence);
        match fence {
            Some(fence) if fence < seen && !bites(Tooth::LowFencePasses) => {
                self.unchanged(Answer::FenceTooLow { seen })
            }
            _ => {
                let mut applied = change();
                if let (Some(next), Some(fence)) = (&mut applied.next, fence) {
                    next.fence = fence;
                }
                applied
            }
        }
    }

    /// A state with a new value (or a tombstone) that keeps what travels with the register.
    fn next(&self, value: Option<Arc<str>>, expires_at_ms: Option<u64>) -> State {
        let mut next = State {
            value,
            version: self.ballot,
            fence: self.current.map_or(0, |state| state.fence),
            expires_at_ms,
            lineage: self
                .current
                .map_or_else(Lineage::default, |state| state.lineage.clone()),
        };
        next.lineage.push(self.ballot, self.request);
        next
    }

    fn unchanged(&self, answer: Answer) -> Applied {
        Applied { next: None, answer }
    }
}

fn not_swapped(found: Option<(Arc<str>, Ballot)>) -> Answer {
    let (current, version) = found.unzip();
    Answer::NotSwapped { current, version }
}

fn meets(expect: &Expect, found: Option<&(Arc<str>, Ballot)>) -> bool {
    match (expect, found) {
        (Expect::Version(expected), found) => *expected == found.map(|(_, version)| *version),
        (Expect::Value(expected), None) => expected.is_null(),
        (Expect::Value(expected), Some((text, _))) => {
            serde_json::from_str::<serde_json::Value>(text).is_ok_and(|found| json_equal(expected, &found))
        }
    }
}

fn to_json(holder: &Holder) -> Arc<str> {
    // Two strings: writing them as JSON cannot fail.
    serde_json::to_string(holder).unwrap_or_default().into()
}

/// Equality as existing scripts expect it: numbers by value (`80` equals `80.0`), objects without order.
#[must_use]
pub fn json_equal(a: &serde_json::Value, b: &serde_json::Value) -> bool {
    use serde_json::Value::{Array, Number, Object};
    match (a, b) {
        (Number(a), Number(b)) => numbers_equal(a, b),
        (Array(a), Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| json_equal(a, b)),
        (Object(a), Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| json_equal(a, b)))
        }
        _ => a == b,
    }
}

fn numbers_equal(a: &serde_json::Number, b: &serde_json::Number) -> bool {
    // Integers exactly: as floats, neighbours above 2^53 would be equal.
    match (a.as_i128(), b.as_i128()) {
        (Some(a), Some(b)) => a == b,
        _ => a.as_f64() == b.as_f64(),
    }
}
