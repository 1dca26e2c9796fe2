//! The operations of the KV API, apart from HTTP: checked input in, the shapes of `kv-api` out.
//!
//! Single calls and batches run through the same functions, so both answer alike.

use std::sync::Arc;

use kv_api::{BatchOp, CasAnswer, LockAnswer, OkAnswer, PutAnswer, RawValue, RequestName, Version};
use register::change::{Answer, Command, Expect};
use register::proposer::{Consistency, Outcome};
use register::{Ballot, Key};

use crate::front::{Asked, ClientRequest, Front};

/// What an operation needs besides [`Front`].
#[derive(Debug)]
pub struct Ops {
    /// The operations' machinery.
    pub front: Arc<Front>,
    /// For gets and puts that do not say.
    pub default_consistency: Consistency,
    /// Largest value, in bytes of JSON text.
    pub max_value_bytes: usize,
}

/// A change as its client named it, and which attempt at it this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// The name, the same in all attempts.
    pub name: RequestName,
    /// It is known that no other attempt was made before.
    pub is_first: bool,
}

impl Attempt {
    fn request(self) -> ClientRequest {
        ClientRequest {
            id: self.name.id(),
            first_attempt_unix_ms: (!self.is_first).then(|| self.name.first_attempt_unix_ms()),
        }
    }
}

/// Why an operation has no proper answer. Says nothing of HTTP; `api::errors` does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpError {
    /// Nobody holds the key.
    #[error("{}", kv_api::KEY_NOT_FOUND)]
    NotFound,
    /// A part of the call breaks a rule.
    #[error(transparent)]
    Rule(#[from] kv_api::ApiRuleError),
    /// A part of the call has the wrong shape; the text names it.
    #[error("{0}")]
    Invalid(String),
    /// A change is named in a way that cannot be used.
    #[error("{field}: {problem}")]
    Named {
        /// The header or field.
        field: &'static str,
        /// What is wrong, and what was expected.
        problem: String,
    },
    /// The value is too large.
    #[error("value: it has {bytes} bytes; at most {max} are allowed (MAX_VALUE_BYTES)")]
    TooLarge {
        /// Bytes it has.
        bytes: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// It could not be started.
    #[error(transparent)]
    NotStarted(#[from] crate::front::NotStarted),
    /// Too few replicas answered; nothing was changed.
    #[error("{answered} of {of} replicas answered, {needed} are needed{}: {reason}; nothing was changed", no_answer(.silent))]
    Unavailable {
        /// Replicas that answered.
        answered: usize,
        /// Replicas that have to.
        needed: usize,
        /// Replicas there are for this key.
        of: usize,
        /// URLs of those that did not answer.
        silent: Vec<String>,
        /// What happened last.
        reason: String,
    },
    /// It may or may not have taken effect.
    #[error("the outcome is not known, it may or may not take effect: {0}")]
    Unknown(String),
    /// Two states under one ballot.
    #[error("corruption: the replicas hold two different states under version {0}; nothing was changed, see the log")]
    Corrupt(Ballot),
    /// The machinery answered something that does not belong to the question.
    #[error("internal error: {0}")]
    Internal(String),
}

fn no_answer(silent: &[String]) -> String {
    if silent.is_empty() {
        String::new()
    } else {
        format!(", no answer from {}", silent.join(", "))
    }
}

/// A value that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// JSON text.
    pub value: Arc<str>,
    /// Ballot of its last change.
    pub version: Ballot,
}

/// What one operation of a batch came to.
#[derive(Debug, Clone)]
pub enum Done {
    /// A get.
    Found(Found),
    /// A put.
    Put(PutAnswer),
    /// A CAS or a delete.
    Cas(CasAnswer),
    /// A lock.
    Lock(LockAnswer),
    /// An unlock.
    Ok(OkAnswer),
}

impl Done {
    /// A change that was refused.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        match self {
            Self::Found(_) => false,
            Self::Put(answer) => !answer.ok,
            Self::Cas(answer) => !answer.ok,
            Self::Lock(answer) => !answer.ok,
            Self::Ok(answer) => !answer.ok,
        }
    }
}

/// A conditional change that was not made.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Refused {
    NotSwapped {
        current: Option<Arc<str>>,
        version: Option<Ballot>,
    },
    Fence {
        seen: u64,
    },
}

impl Ops {
    /// Reads a key.
    ///
    /// # Errors
    /// [`OpError::NotFound`] and the failures of any operation.
    pub async fn get(&self, key: &str, consistency: Option<Consistency>) -> Result<Found, OpError> {
        let asked = self.asked(data_key(key)?, Command::Get, self.consistency(consistency), None);
        found(self.run(asked).await?)
    }

    /// Writes a value.
    ///
    /// # Errors
    /// Those of any operation. A fence that is too low is an answer, not an error.
    pub async fn put(
        &self,
        key: &str,
        value: &str,
        ttl_sec: Option<f64>,
        fence: Option<u64>,
        consistency: Option<Consistency>,
        attempt: Option<Attempt>,
    ) -> Result<PutAnswer, OpError> {
        let key = data_key(key)?;
        let command = self.put_command(value, ttl_sec, fence)?;
        let asked = self.asked(key, command, self.consistency(consistency), attempt);
        self.written(self.run(asked).await?)
    }

    /// Changes a value only from an expected one. `version: Some(None)` expects the key to be absent; without `version`, `old` counts,
    /// and `None` there means absent or null.
    ///
    /// # Errors
    /// Those of any operation. A value or version that differs is an answer, not an error.
    pub async fn cas(
        &self,
        key: &str,
        old: Option<serde_json::Value>,
        version: Option<Option<Version>>,
        new: &str,
        fence: Option<u64>,
        attempt: Option<Attempt>,
    ) -> Result<CasAnswer, OpError> {
        let key = data_key(key)?;
        let command = self.cas_command(old, version.as_ref().map(Option::as_ref), new, fence)?;
        swapped_or_not(self.run(self.asked(key, command, Consistency::Quorum, attempt)).await?)
    }

    /// Deletes a key; with a version, only while the value still has it.
    ///
    /// # Errors
    /// Those of any operation.
    pub async fn delete(
        &self,
        key: &str,
        version: Option<&Version>,
        fence: Option<u64>,
        attempt: Option<Attempt>,
    ) -> Result<CasAnswer, OpError> {
        let key = data_key(key)?;
        let command = delete_command(version, fence)?;
        deleted_or_not(self.run(self.asked(key, command, Consistency::Quorum, attempt)).await?)
    }

    /// Takes a lock for `ttl_sec`.
    ///
    /// # Errors
    /// Those of any operation. A lock that is held is an answer, not an error.
    pub async fn acquire(
        &self,
        name: &str,
        ttl_sec: Option<f64>,
        owner: Option<&str>,
        attempt: Option<Attempt>,
    ) -> Result<LockAnswer, OpError> {
        let key = lock_key(name)?;
        let command = acquire_command(ttl_sec, owner, attempt)?;
        locked_or_not(self.run(self.asked(key, command, Consistency::Quorum, attempt)).await?)
    }

    /// Frees a lock: only that of `token`, or, without token, only one taken without owner. True when it is free for the caller's sake.
    ///
    /// # Errors
    /// Those of any operation.
    pub async fn release(&self, name: &str, token: Option<&str>, attempt: Option<Attempt>) -> Result<bool, OpError> {
        let key = lock_key(name)?;
        let command = release_command(token)?;
        released_or_not(self.run(self.asked(key, command, Consistency::Quorum, attempt)).await?)
    }

    /// What an operation of a batch asks for, checked: no two calls and no batch differ in that.
    ///
    /// # Errors
    /// A part of it breaks a rule.
    pub fn asked_in_batch(&self, op: &BatchOp, attempt: Option<Attempt>) -> Result<Asked, OpError> {
        let (name, is_lock) = op.target();
        let key = if is_lock { lock_key(name) } else { data_key(name) }?;
        let mut consistency = Consistency::Quorum;
        let command = match op {
            BatchOp::Get { .. } => {
                consistency = self.default_consistency;
                return Ok(self.asked(key, Command::Get, consistency, None));
            }
            BatchOp::Put {
                value, ttl_sec, fence, ..
            } => {
                consistency = self.default_consistency;
                self.put_command(value.get(), *ttl_sec, *fence)
            }
            BatchOp::Cas {
                old,
                version,
                new,
                fence,
                ..
            } => {
                let version = version.as_ref().map(Option::as_ref);
                self.cas_command(old.clone(), version, new.get(), *fence)
            }
            BatchOp::Delete { version, .. } => delete_command(version.as_ref(), None),
            BatchOp::Lock { ttl_sec, owner, .. } => acquire_command(*ttl_sec, owner.as_deref(), attempt),
            BatchOp::Unlock { token, .. } => release_command(token.as_deref()),
        };
        Ok(self.asked(key, command?, consistency, attempt))
    }

    /// What an operation of a batch came to, in the words of its own call.
    ///
    /// # Errors
    /// Those of its own call.
    pub fn done_in_batch(&self, op: &BatchOp, key: &Key, outcome: Outcome) -> Result<Done, OpError> {
        let told = self.told(key, outcome)?;
        match op {
            BatchOp::Get { .. } => found(told).map(Done::Found),
            BatchOp::Put { .. } => self.written(told).map(Done::Put),
            BatchOp::Cas { .. } => swapped_or_not(told).map(Done::Cas),
            BatchOp::Delete { .. } => deleted_or_not(told).map(Done::Cas),
            BatchOp::Lock { .. } => locked_or_not(told).map(Done::Lock),
            BatchOp::Unlock { .. } => released_or_not(told).map(|ok| Done::Ok(OkAnswer { ok })),
        }
    }

    /// Runs one operation of a batch by itself.
    ///
    /// # Errors
    /// Those of its own call.
    pub async fn run_in_batch(&self, op: &BatchOp, attempt: Option<Attempt>) -> Result<Done, OpError> {
        let Asked {
            key,
            command,
            consistency,
            request,
        } = self.asked_in_batch(op, attempt)?;
        let outcome = self.front.run_with(&key, command, consistency, request).await;
        self.done_in_batch(op, &key, outcome)
    }

    /// Extends a lock that `token` still holds.
    ///
    /// # Errors
    /// Those of any operation.
    pub async fn renew(
        &self,
        name: &str,
        token: &str,
        ttl_sec: Option<f64>,
        attempt: Option<Attempt>,
    ) -> Result<LockAnswer, OpError> {
        let key = lock_key(name)?;
        kv_api::check_name("token", token)?;
        let ttl_ms = kv_api::ttl_ms(ttl_sec.unwrap_or(kv_api::DEFAULT_LOCK_TTL_SEC))?;
        let command = Command::Renew {
            token: token.into(),
            ttl_ms,
        };
        match self.run(self.asked(key, command, Consistency::Quorum, attempt)).await? {
            (
                Answer::Renewed {
                    expires_at_ms,
                    expires_in_ms,
                },
                _,
            ) => Ok(LockAnswer {
                ok: true,
                expires_at: Some(seconds(expires_at_ms)),
                expires_in_sec: Some(seconds(expires_in_ms)),
                ..LockAnswer::default()
            }),
            (Answer::NotRenewed, _) => Ok(LockAnswer::default()),
            (other, _) => Err(unexpected("renew", &other)),
        }
    }

    /// Reads the headers of a named change, or the field of a named operation.
    ///
    /// # Errors
    /// [`OpError::Named`]: no UUID of version 7, or its time is further ahead of this clock than clocks may be apart.
    pub fn attempt(&self, field: &'static str, name: &str, is_first: bool) -> Result<Attempt, OpError> {
        let wrong = |problem: String| OpError::Named { field, problem };
        let name: RequestName = name
            .parse()
            .map_err(|e: kv_api::ParseRequestNameError| wrong(e.to_string()))?;
        let clocks = &self.front.clocks;
        let (now_ms, max_ms) = (clocks.now_unix_ms(), clocks.max_skew_ms());
        let ahead_ms = name.first_attempt_unix_ms().saturating_sub(now_ms);
        if ahead_ms > max_ms {
            return Err(wrong(format!(
                "its time is {ahead_ms} ms ahead of this clock; at most {max_ms} ms are accepted (MAX_CLOCK_SKEW_MS)"
            )));
        }
        Ok(Attempt { name, is_first })
    }

    fn asked(&self, key: Key, command: Command, consistency: Consistency, attempt: Option<Attempt>) -> Asked {
        Asked {
            key,
            command,
            consistency,
            request: attempt.map(Attempt::request),
        }
    }

    async fn run(&self, asked: Asked) -> Result<Told, OpError> {
        let Asked {
            key,
            command,
            consistency,
            request,
        } = asked;
        let outcome = self.front.run_with(&key, command, consistency, request).await;
        self.told(&key, outcome)
    }

    fn told(&self, key: &Key, outcome: Outcome) -> Result<Told, OpError> {
        match outcome {
            Outcome::Answered { answer, copies } => Ok((answer, copies)),
            failed => Err(failure(&self.front, key, failed)),
        }
    }

    fn put_command(&self, value: &str, ttl_sec: Option<f64>, fence: Option<u64>) -> Result<Command, OpError> {
        let value = self.checked_value(value)?;
        let ttl_ms = ttl_sec.map(kv_api::ttl_ms).transpose()?;
        Ok(Command::Put { value, ttl_ms, fence })
    }

    fn written(&self, told: Told) -> Result<PutAnswer, OpError> {
        let rf = self.front.ring.rf();
        match told {
            (Answer::Written { version }, copies) => Ok(PutAnswer {
                ok: true,
                written: copies,
                rf,
                version: Some(version.into()),
                fence_seen: None,
            }),
            (Answer::FenceTooLow { seen }, _) => Ok(PutAnswer {
                ok: false,
                written: 0,
                rf,
                version: None,
                fence_seen: Some(seen),
            }),
            (other, _) => Err(unexpected("put", &other)),
        }
    }

    fn cas_command(
        &self,
        old: Option<serde_json::Value>,
        version: Option<Option<&Version>>,
        new: &str,
        fence: Option<u64>,
    ) -> Result<Command, OpError> {
        let new = self.checked_value(new)?;
        let expect = match (old, version) {
            (Some(_), Some(_)) => return Err(OpError::Invalid("old, version: give one of them, not both".to_owned())),
            (None, Some(version)) => Expect::Version(version.map(parse_version).transpose()?),
            (old, None) => Expect::Value(old.unwrap_or(serde_json::Value::Null)),
        };
        Ok(Command::Cas { expect, new, fence })
    }

    fn consistency(&self, asked: Option<Consistency>) -> Consistency {
        asked.unwrap_or(self.default_consistency)
    }

    fn checked_value(&self, value: &str) -> Result<Arc<str>, OpError> {
        let (bytes, max) = (value.len(), self.max_value_bytes);
        if bytes > max {
            Err(OpError::TooLarge { bytes, max })
        } else {
            Ok(value.into())
        }
    }
}

/// An answer, and how many copies it rests on.
type Told = (Answer, usize);

fn found((answer, _): Told) -> Result<Found, OpError> {
    match answer {
        Answer::Value { value, version } => Ok(Found { value, version }),
        Answer::Absent => Err(OpError::NotFound),
        other => Err(unexpected("get", &other)),
    }
}

fn swapped_or_not((answer, _): Told) -> Result<CasAnswer, OpError> {
    match answer {
        Answer::Swapped { version } => Ok(swapped(Some(version))),
        other => not_swapped(refused("cas", other)?),
    }
}

fn delete_command(version: Option<&Version>, fence: Option<u64>) -> Result<Command, OpError> {
    let version = version.map(parse_version).transpose()?;
    Ok(Command::Delete { version, fence })
}

fn deleted_or_not((answer, _): Told) -> Result<CasAnswer, OpError> {
    match answer {
        Answer::Written { .. } | Answer::Swapped { .. } | Answer::Absent => Ok(swapped(None)),
        other => not_swapped(refused("delete", other)?),
    }
}

fn acquire_command(ttl_sec: Option<f64>, owner: Option<&str>, attempt: Option<Attempt>) -> Result<Command, OpError> {
    let ttl_ms = kv_api::ttl_ms(ttl_sec.unwrap_or(kv_api::DEFAULT_LOCK_TTL_SEC))?;
    if let Some(owner) = owner {
        kv_api::check_name("owner", owner)?;
    }
    // Every attempt at one change asks for the same token, or the one that finds the lock taken would not know it as its own.
    let token: Arc<str> = match attempt {
        Some(attempt) => attempt.name.lock_token().into(),
        None => format!("{:032x}", rand::random::<u128>()).into(),
    };
    Ok(Command::Acquire {
        token,
        owner: owner.map(Arc::from),
        ttl_ms,
    })
}

fn locked_or_not((answer, _): Told) -> Result<LockAnswer, OpError> {
    match answer {
        Answer::Locked {
            token,
            fence,
            expires_at_ms,
            expires_in_ms,
        } => Ok(LockAnswer {
            ok: true,
            expires_at: Some(seconds(expires_at_ms)),
            expires_in_sec: Some(seconds(expires_in_ms)),
            token: Some(token.to_string()),
            fence: Some(fence),
        }),
        Answer::LockHeld {
            expires_at_ms,
            expires_in_ms,
        } => Ok(LockAnswer {
            ok: false,
            expires_at: Some(seconds(expires_at_ms)),
            expires_in_sec: Some(seconds(expires_in_ms)),
            ..LockAnswer::default()
        }),
        other => Err(unexpected("lock", &other)),
    }
}

fn release_command(token: Option<&str>) -> Result<Command, OpError> {
    if let Some(token) = token {
        kv_api::check_name("token", token)?;
    }
    Ok(Command::Release {
        token: token.map(Arc::from),
    })
}

fn released_or_not((answer, _): Told) -> Result<bool, OpError> {
    match answer {
        Answer::Released(released) => Ok(released),
        other => Err(unexpected("unlock", &other)),
    }
}

/// An outcome without an answer, with the nodes' names.
pub(crate) fn failure(front: &Front, key: &Key, outcome: Outcome) -> OpError {
    match outcome {
        Outcome::Unavailable {
            answered,
            needed,
            of,
            silent,
            reason,
        } => {
            let names = &front.ring.preference(key).names;
            let silent = silent
                .into_iter()
                .filter_map(|rank| names.get(rank))
                .map(ToString::to_string)
                .collect();
            OpError::Unavailable {
                answered,
                needed,
                of,
                silent,
                reason,
            }
        }
        Outcome::Unknown { reason } => OpError::Unknown(reason),
        Outcome::Corrupt { ballot } => OpError::Corrupt(ballot),
        Outcome::Answered { answer, .. } => unexpected("failure", &answer),
    }
}

fn raw(text: &str) -> Result<Box<RawValue>, OpError> {
    RawValue::from_string(text.to_owned()).map_err(|e| OpError::Internal(format!("a stored value is not JSON: {e}")))
}

fn data_key(name: &str) -> Result<Key, OpError> {
    kv_api::check_key(name)?;
    Ok(Key::data(name))
}

fn lock_key(name: &str) -> Result<Key, OpError> {
    kv_api::check_key(name)?;
    Ok(Key::lock(name))
}

fn parse_version(version: &Version) -> Result<Ballot, OpError> {
    version.ballot().map_err(|e| OpError::Invalid(format!("version: {e}")))
}

fn swapped(version: Option<Ballot>) -> CasAnswer {
    CasAnswer {
        ok: true,
        current: None,
        version: version.map(Version::from),
        fence_seen: None,
    }
}

fn refused(op: &str, answer: Answer) -> Result<Refused, OpError> {
    match answer {
        Answer::NotSwapped { current, version } => Ok(Refused::NotSwapped { current, version }),
        Answer::FenceTooLow { seen } => Ok(Refused::Fence { seen }),
        other => Err(unexpected(op, &other)),
    }
}

fn not_swapped(refused: Refused) -> Result<CasAnswer, OpError> {
    Ok(match refused {
        Refused::NotSwapped { current, version } => CasAnswer {
            ok: false,
            current: Some(raw(current.as_deref().unwrap_or("null"))?),
            version: version.map(Version::from),
            fence_seen: None,
        },
        Refused::Fence { seen } => CasAnswer {
            ok: false,
            current: None,
            version: None,
            fence_seen: Some(seen),
        },
    })
}

fn unexpected(op: &str, answer: &Answer) -> OpError {
    tracing::error!(op, ?answer, "an answer that does not belong to the operation");
    OpError::Internal(format!("{op} got an answer of another kind"))
}

/// Milliseconds as seconds, for people and scripts.
#[expect(
    clippy::cast_precision_loss,
    reason = "exact to the millisecond for the next 285,000 years"
)]
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}
