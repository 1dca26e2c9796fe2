//! Operations of a batch, made from typed values. `lock` and `unlock` are built from [`BatchOp`] directly.

use kv_api::{BatchOp, RawValue, Version};
use serde::Serialize;

use crate::KvError;

/// Reads `key`.
#[must_use]
pub fn get(key: impl Into<String>) -> BatchOp {
    BatchOp::Get { key: key.into() }
}

/// Writes `value` whatever is there.
///
/// # Errors
/// [`KvError::Invalid`] when the value is no JSON.
pub fn put<T: Serialize + ?Sized>(key: impl Into<String>, value: &T) -> Result<BatchOp, KvError> {
    let key = key.into();
    let value = raw(&key, value)?;
    Ok(BatchOp::Put {
        key,
        value,
        ttl_sec: None,
        fence: None,
    })
}

/// Writes `new` if the value still has the version `expected`; `None` means: if the key is absent.
///
/// # Errors
/// [`KvError::Invalid`] when the value is no JSON.
pub fn cas<T: Serialize + ?Sized>(
    key: impl Into<String>,
    expected: Option<&Version>,
    new: &T,
) -> Result<BatchOp, KvError> {
    let key = key.into();
    let new = raw(&key, new)?;
    Ok(BatchOp::Cas {
        key,
        old: None,
        version: Some(expected.cloned()),
        new,
        fence: None,
    })
}

/// Deletes `key` whatever it holds.
#[must_use]
pub fn delete(key: impl Into<String>) -> BatchOp {
    BatchOp::Delete {
        key: key.into(),
        version: None,
    }
}

/// Deletes `key` if its value still has this version.
#[must_use]
pub fn delete_version(key: impl Into<String>, version: &Version) -> BatchOp {
    BatchOp::Delete {
        key: key.into(),
        version: Some(version.clone()),
    }
}

fn raw<T: Serialize + ?Sized>(key: &str, value: &T) -> Result<Box<RawValue>, KvError> {
    serde_json::value::to_raw_value(value)
        .map_err(|error| KvError::invalid(format!("value for {key:?} is no JSON: {error}")))
}
