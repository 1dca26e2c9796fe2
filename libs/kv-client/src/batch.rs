//! The results of a batch: one per operation, typed by what the operation was.

use kv_api::{BatchOp, CasAnswer, Item, LockAnswer, OkAnswer, PutAnswer, RawValue, Version};
use reqwest::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::client::{Put, Swap, Versioned};
use crate::transport::{Effect, failure};
use crate::{KvError, Put as PutOutcome};

/// What became of one operation of a batch.
#[derive(Debug, Clone)]
pub enum OpResult {
    /// `get`: the value, or `None` when the key is absent.
    Got(Option<Versioned<Value>>),
    /// `put`.
    Put(Put),
    /// `cas`.
    Cas(Swap),
    /// `delete`: gone (also when it was not there before).
    Deleted,
    /// `delete` with a version: the value has another one now, and is still there.
    DeleteRefused {
        /// The version it has now.
        version: Option<Version>,
    },
    /// `lock`: the server's answer; `ok` says whether it was taken.
    Lock(LockAnswer),
    /// `unlock`: whether it was released.
    Unlocked(bool),
    /// An earlier operation of an `ordered` batch failed or was refused; this one was not run.
    NotRun,
    /// It failed; the error says what that means, as for the single call.
    Failed(KvError),
}

impl OpResult {
    /// True when the operation did what it was to do: a get that found or did not find, a change that took place.
    #[must_use]
    pub fn is_done(&self) -> bool {
        match self {
            Self::Got(_) | Self::Deleted => true,
            Self::Put(outcome) => matches!(outcome, PutOutcome::Done(_)),
            Self::Cas(outcome) => matches!(outcome, Swap::Done(_)),
            Self::Lock(answer) => answer.ok,
            Self::Unlocked(ok) => *ok,
            Self::DeleteRefused { .. } | Self::NotRun | Self::Failed(_) => false,
        }
    }

    /// The value of a `get`, parsed. A failed operation gives its error, and any other kind a [`KvError::Decode`].
    ///
    /// # Errors
    /// As said, and [`KvError::Decode`] when the value is no `T`.
    pub fn into_got<T: DeserializeOwned>(self) -> Result<Option<Versioned<T>>, KvError> {
        match self {
            Self::Got(None) => Ok(None),
            Self::Got(Some(found)) => {
                let Versioned { value, version, key } = found;
                let value = serde_json::from_value(value).map_err(|error| KvError::decode(&key, error))?;
                Ok(Some(Versioned { value, version, key }))
            }
            Self::Failed(error) => Err(error),
            other => Err(KvError::decode(
                "batch",
                format_args!("the result of a get was expected, not {other:?}"),
            )),
        }
    }

    /// The outcome of a `cas`. A failed operation gives its error, and any other kind a [`KvError::Decode`].
    ///
    /// # Errors
    /// As said.
    pub fn into_swap(self) -> Result<Swap, KvError> {
        match self {
            Self::Cas(swap) => Ok(swap),
            Self::Failed(error) => Err(error),
            other => Err(KvError::decode(
                "batch",
                format_args!("the result of a cas was expected, not {other:?}"),
            )),
        }
    }
}

/// Whether a batch can change anything.
pub(crate) fn effect(ops: &[BatchOp]) -> Effect {
    if ops.iter().all(|op| matches!(op, BatchOp::Get { .. })) {
        Effect::Read
    } else {
        Effect::NamedBatch
    }
}

/// The part of a result that every operation has.
#[derive(Deserialize)]
struct Status {
    status: u16,
}

/// Types one result by its operation.
pub(crate) fn typed(op: &BatchOp, result: &RawValue) -> OpResult {
    let (key, _) = op.target();
    let what = || format!("batch: {} {key:?}", name(op));
    let status = serde_json::from_str::<Status>(result.get()).ok();
    let Some(status) = status.and_then(|found| StatusCode::from_u16(found.status).ok()) else {
        return OpResult::Failed(KvError::decode(&what(), "the result has no status"));
    };
    match status {
        StatusCode::FAILED_DEPENDENCY => return OpResult::NotRun,
        StatusCode::NOT_FOUND if matches!(op, BatchOp::Get { .. }) => return OpResult::Got(None),
        status if !status.is_success() => {
            let effect = effect(std::slice::from_ref(op));
            return OpResult::Failed(failure(effect, &what(), status, result.get().as_bytes()));
        }
        _ => {}
    }
    answer(op, &what(), result).unwrap_or_else(OpResult::Failed)
}

fn answer(op: &BatchOp, what: &str, result: &RawValue) -> Result<OpResult, KvError> {
    Ok(match op {
        BatchOp::Get { .. } => OpResult::Got(Some(Versioned::of_item(parse::<Item>(what, result)?)?)),
        BatchOp::Put { .. } => OpResult::Put(Put::of(what, parse::<PutAnswer>(what, result)?)?),
        BatchOp::Cas { .. } => OpResult::Cas(Swap::of(what, parse::<CasAnswer>(what, result)?)?),
        BatchOp::Delete { .. } => {
            let answer: CasAnswer = parse(what, result)?;
            if answer.ok {
                OpResult::Deleted
            } else {
                OpResult::DeleteRefused {
                    version: answer.version,
                }
            }
        }
        BatchOp::Lock { .. } => OpResult::Lock(parse(what, result)?),
        BatchOp::Unlock { .. } => OpResult::Unlocked(parse::<OkAnswer>(what, result)?.ok),
    })
}

fn parse<A: DeserializeOwned>(what: &str, result: &RawValue) -> Result<A, KvError> {
    serde_json::from_str(result.get()).map_err(|error| KvError::decode(what, error))
}

fn name(op: &BatchOp) -> &'static str {
    match op {
        BatchOp::Get { .. } => "get",
        BatchOp::Put { .. } => "put",
        BatchOp::Cas { .. } => "cas",
        BatchOp::Delete { .. } => "delete",
        BatchOp::Lock { .. } => "lock",
        BatchOp::Unlock { .. } => "unlock",
    }
}
