//! How a command turns one state into the next: pure, judged at the ballot the change is made at.
//!
//! Shared by the proposer, which applies a command to the newest state a quorum knows, and by a kvstore's node-local calls.
//! Time is the ballot's: an expiry becomes visible only by committing a tombstone whose ballot is at or after it, so two coordinators
//! never disagree about it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ballot::Ballot;
use crate::state::{Lineage, RequestId, State};

/// What a client wants of one register.
#[derive(Debug, Clone, PartialEq)]
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
}

/// What a CAS expects.
#[derive(Debug, Clone, PartialEq)]
pub enum Expect {
    /// An equal value, numbers compared by value and objects without order; `null` means absent or null.
    Value(serde_json::Value),
    /// This version; `None` means absent.
    Version(Option<Ballot>),
}

/// What came of a command.
#[derive(Debug, Clone, PartialEq)]
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
#[derive(Debug, Clone, PartialEq)]
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
        applied.next = Some(at.next(None, None));
    }
    applied
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
        // Above the last one, and not below the clock, so that fences grow even past a collected tombstone.
        next.fence = next.fence.saturating_add(1).max(self.now_ms);
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
        let (Some(held), Some(holder)) = (self.live, self.holder()) else {
            return self.unchanged(Answer::NotRenewed);
        };
        if *holder.token != *token {
            return self.unchanged(Answer::NotRenewed);
        }
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
            Some(fence) if fence < seen => self.unchanged(Answer::FenceTooLow { seen }),
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::ballot::HlcTime;
    use crate::state::LINEAGE_MAX;

    fn at(ms: u64) -> Ballot {
        Ballot {
            time: HlcTime::from_unix_ms(ms),
            incarnation: 1,
        }
    }

    fn run(command: &Command, current: Option<&State>, ms: u64) -> Applied {
        apply(command, current, at(ms), RequestId(ms))
    }

    fn put(value: &str, ttl_ms: Option<u64>, fence: Option<u64>) -> Command {
        Command::Put {
            value: Arc::from(value),
            ttl_ms,
            fence,
        }
    }

    fn acquire(token: &str, owner: Option<&str>, ttl_ms: u64) -> Command {
        Command::Acquire {
            token: Arc::from(token),
            owner: owner.map(Arc::from),
            ttl_ms,
        }
    }

    #[test]
    fn cas_by_value_and_by_version() {
        let state = run(&put("{\"battery\":80,\"on\":true}", None, None), None, 10)
            .next
            .unwrap();
        let cas = |expect| Command::Cas {
            expect,
            new: Arc::from("1"),
            fence: None,
        };
        let equal = run(
            &cas(Expect::Value(json!({"on": true, "battery": 80.0}))),
            Some(&state),
            20,
        );
        assert_eq!(equal.answer, Answer::Swapped { version: at(20) });
        let other = run(&cas(Expect::Value(json!({"battery": 80}))), Some(&state), 20);
        assert_eq!(
            other.answer,
            Answer::NotSwapped {
                current: state.value.clone(),
                version: Some(at(10))
            }
        );
        assert_eq!(other.next, None);
        assert!(
            run(&cas(Expect::Version(Some(at(10)))), Some(&state), 20)
                .next
                .is_some()
        );
        assert!(run(&cas(Expect::Version(None)), Some(&state), 20).next.is_none());
        assert!(run(&cas(Expect::Version(None)), None, 20).next.is_some());
    }

    #[test]
    fn null_means_absent_or_null_by_value_only() {
        let cas = |expect| Command::Cas {
            expect,
            new: Arc::from("1"),
            fence: None,
        };
        let null = run(&put("null", None, None), None, 10).next.unwrap();
        assert!(run(&cas(Expect::Value(json!(null))), None, 20).next.is_some());
        assert!(run(&cas(Expect::Value(json!(null))), Some(&null), 20).next.is_some());
        assert!(run(&cas(Expect::Version(None)), Some(&null), 20).next.is_none());
    }

    #[test]
    fn an_expiry_shows_only_with_a_tombstone() {
        let state = run(&put("1", Some(100), None), None, 1_000).next.unwrap();
        let before = run(&Command::Get, Some(&state), 1_099);
        assert!(matches!(before.answer, Answer::Value { .. }) && before.next.is_none());
        let after = run(&Command::Get, Some(&state), 1_100);
        assert_eq!(after.answer, Answer::Absent);
        let tombstone = after.next.unwrap();
        assert!(tombstone.is_tombstone() && tombstone.version == at(1_100));
        assert_eq!(
            run(&Command::Get, Some(&tombstone), 1_200),
            Applied {
                next: None,
                answer: Answer::Absent
            }
        );
    }

    #[test]
    fn a_lock_is_taken_once_frees_itself_and_its_fence_grows() {
        let taken = run(&acquire("t1", Some("me"), 2_000), None, 10_000);
        let Answer::Locked {
            fence: first,
            expires_in_ms: 2_000,
            ..
        } = taken.answer
        else {
            panic!("{taken:?}")
        };
        let lock = taken.next.unwrap();
        let again = run(&acquire("t2", Some("me"), 2_000), Some(&lock), 11_000);
        assert_eq!(
            again.answer,
            Answer::LockHeld {
                expires_at_ms: 12_000,
                expires_in_ms: 1_000
            }
        );
        let release = |token: Option<&str>, lock: &State, ms| {
            run(
                &Command::Release {
                    token: token.map(Arc::from),
                },
                Some(lock),
                ms,
            )
        };
        assert_eq!(
            release(None, &lock, 11_000).answer,
            Answer::Released(false),
            "taken with an owner"
        );
        assert_eq!(
            release(Some("t2"), &lock, 11_000).answer,
            Answer::Released(false),
            "another holder's token"
        );
        let free = release(Some("t1"), &lock, 11_000).next.unwrap();
        assert_eq!(
            release(None, &free, 11_000).answer,
            Answer::Released(true),
            "nothing was held"
        );
        for current in [&free, &lock] {
            let later = run(&acquire("t3", None, 1_000), Some(current), 12_000);
            let Answer::Locked { fence, .. } = later.answer else {
                panic!("{later:?}")
            };
            assert!(fence > first);
        }
    }

    #[test]
    fn only_the_holder_renews_and_the_fence_stays() {
        let lock = run(&acquire("t1", None, 2_000), None, 10_000).next.unwrap();
        let renew = |token: &str, ms| {
            run(
                &Command::Renew {
                    token: Arc::from(token),
                    ttl_ms: 5_000,
                },
                Some(&lock),
                ms,
            )
        };
        let renewed = renew("t1", 11_000);
        assert_eq!(
            renewed.answer,
            Answer::Renewed {
                expires_at_ms: 16_000,
                expires_in_ms: 5_000
            }
        );
        let next = renewed.next.unwrap();
        assert_eq!((next.fence, next.version), (lock.fence, lock.version));
        assert_eq!(renew("t2", 11_000).answer, Answer::NotRenewed);
        assert_eq!(renew("t1", 12_000).answer, Answer::NotRenewed, "it had ended");
    }

    #[test]
    fn a_lower_fence_changes_nothing() {
        let state = run(&put("1", None, Some(7)), None, 10).next.unwrap();
        assert_eq!(state.fence, 7);
        let late = run(&put("2", None, Some(6)), Some(&state), 20);
        assert_eq!(
            late,
            Applied {
                next: None,
                answer: Answer::FenceTooLow { seen: 7 }
            }
        );
        let unfenced = run(&put("2", None, None), Some(&state), 20).next.unwrap();
        assert_eq!(unfenced.fence, 7, "what was seen is not forgotten");
        let deleted = run(
            &Command::Delete {
                version: None,
                fence: None,
            },
            Some(&state),
            20,
        )
        .next
        .unwrap();
        assert_eq!(deleted.fence, 7);
    }

    #[test]
    fn numbers_compare_by_value_and_integers_exactly() {
        assert!(json_equal(&json!(80), &json!(80.0)));
        assert!(!json_equal(
            &json!(9_007_199_254_740_993_u64),
            &json!(9_007_199_254_740_992_u64)
        ));
        assert!(json_equal(
            &json!({"a": [1, {"b": 2.0}]}),
            &json!({"a": [1.0, {"b": 2}]})
        ));
        assert!(!json_equal(&json!({"a": 1}), &json!({"a": 1, "b": null})));
        assert!(!json_equal(&json!(0), &json!(false)));
    }

    proptest! {
        /// Fences never fall, ids stay bounded, and a blind write makes what the full command makes of nothing.
        #[test]
        fn what_travels_with_a_register_survives(steps in proptest::collection::vec((0..6_u8, 1..500_u64, 0..4_u64), 1..40)) {
            let (mut state, mut now): (Option<State>, u64) = (None, 1_000);
            for (kind, pause_ms, small) in steps {
                now += pause_ms;
                let command = match kind {
                    0 => put("1", Some(100), None),
                    1 => put("2", None, Some(small)),
                    2 => Command::Delete { version: None, fence: None },
                    3 => acquire("t", None, 200),
                    4 => Command::Release { token: None },
                    _ => Command::Get,
                };
                let applied = run(&command, state.as_ref(), now);
                if let Some(next) = applied.next {
                    prop_assert!(next.fence >= state.as_ref().map_or(0, |state| state.fence));
                    prop_assert!(next.lineage.changes.len() <= LINEAGE_MAX);
                    prop_assert_eq!(next.lineage.changes.last(), Some(&(at(now), RequestId(now))));
                    state = Some(next);
                }
                if command.is_blind() {
                    let blind = blind_state(&command, at(now), RequestId(now)).unwrap();
                    prop_assert_eq!(blind.lineage.since, at(now), "it knows nothing of what it replaces");
                    let full = run(&command, None, now).next.unwrap();
                    prop_assert_eq!(State { lineage: full.lineage.clone(), ..blind }, full);
                }
            }
        }
    }
}
