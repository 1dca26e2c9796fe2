//! One operation of a batch: a tagged enum that keeps raw JSON text, which a derived reader of tagged enums cannot.

#[cfg(doc)]
use crate::{AcquireQuery, CasBody, MAX_BATCH_OPS, PutBody, REQUEST_ID_HEADER, ReleaseQuery, RequestName};
use crate::{RawValue, Version, given, given_raw};
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize};

/// One operation of a batch, and the name of the change it makes.
#[derive(Debug, Clone, Serialize)]
pub struct NamedOp {
    /// The operation.
    #[serde(flatten)]
    pub op: BatchOp,
    /// A [`RequestName`], as [`REQUEST_ID_HEADER`] carries it for a single change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// One operation of a batch: the same fields as the call of its name. Fields that belong to other calls are not looked at.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum BatchOp {
    /// `GET /kv/{key}`
    Get {
        /// The key.
        key: String,
    },
    /// `PUT /kv/{key}`
    Put {
        /// The key.
        key: String,
        /// As in [`PutBody`].
        value: Box<RawValue>,
        /// As in [`PutBody`].
        #[serde(skip_serializing_if = "Option::is_none")]
        ttl_sec: Option<f64>,
        /// As in [`PutBody`].
        #[serde(skip_serializing_if = "Option::is_none")]
        fence: Option<u64>,
    },
    /// `POST /kv/cas`
    Cas {
        /// The key.
        key: String,
        /// As in [`CasBody`].
        #[serde(skip_serializing_if = "Option::is_none")]
        old: Option<serde_json::Value>,
        /// As in [`CasBody`].
        #[serde(skip_serializing_if = "Option::is_none")]
        version: Option<Option<Version>>,
        /// As in [`CasBody`].
        new: Box<RawValue>,
        /// As in [`CasBody`].
        #[serde(skip_serializing_if = "Option::is_none")]
        fence: Option<u64>,
    },
    /// `DELETE /kv/{key}`
    Delete {
        /// The key.
        key: String,
        /// Deletes only while the value still has this version; else `{"ok":false,"current",…}`.
        #[serde(skip_serializing_if = "Option::is_none")]
        version: Option<Version>,
    },
    /// `POST /lock/acquire/{key}`
    Lock {
        /// The lock's name.
        key: String,
        /// As in [`AcquireQuery`].
        #[serde(skip_serializing_if = "Option::is_none")]
        ttl_sec: Option<f64>,
        /// As in [`AcquireQuery`].
        #[serde(skip_serializing_if = "Option::is_none")]
        owner: Option<String>,
    },
    /// `POST /lock/release/{key}`
    Unlock {
        /// The lock's name.
        key: String,
        /// As in [`ReleaseQuery`].
        #[serde(skip_serializing_if = "Option::is_none")]
        token: Option<String>,
    },
}

impl BatchOp {
    /// The key or lock name it acts on, and whether it is a lock.
    #[must_use]
    pub fn target(&self) -> (&str, bool) {
        match self {
            Self::Get { key } | Self::Put { key, .. } | Self::Cas { key, .. } | Self::Delete { key, .. } => {
                (key, false)
            }
            Self::Lock { key, .. } | Self::Unlock { key, .. } => (key, true),
        }
    }
}

/// All fields of all operations, each read when it is known whether it is wanted.
#[derive(Deserialize)]
struct Fields {
    op: Kind,
    key: String,
    #[serde(default, deserialize_with = "given_raw")]
    value: Option<Box<RawValue>>,
    #[serde(default, deserialize_with = "given_raw")]
    new: Option<Box<RawValue>>,
    #[serde(default)]
    ttl_sec: Option<Box<RawValue>>,
    #[serde(default)]
    fence: Option<Box<RawValue>>,
    #[serde(default)]
    old: Option<Box<RawValue>>,
    #[serde(default, deserialize_with = "given")]
    version: Option<Option<Box<RawValue>>>,
    #[serde(default)]
    owner: Option<Box<RawValue>>,
    #[serde(default)]
    token: Option<Box<RawValue>>,
    #[serde(default)]
    request_id: Option<String>,
}

/// The tags of [`BatchOp`].
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Get,
    Put,
    Cas,
    Delete,
    Lock,
    Unlock,
}

/// A field, named when it cannot be read.
fn field<T: DeserializeOwned, E: Error>(name: &'static str, raw: Option<Box<RawValue>>) -> Result<Option<T>, E> {
    let read = |raw: Box<RawValue>| serde_json::from_str(raw.get());
    raw.map(read)
        .transpose()
        .map_err(|error| E::custom(format_args!("{name}: {error}")))
}

impl Fields {
    fn into_named<E: Error>(self) -> Result<NamedOp, E> {
        let key = self.key;
        let op = match self.op {
            Kind::Get => BatchOp::Get { key },
            Kind::Put => BatchOp::Put {
                key,
                value: self.value.ok_or_else(|| E::missing_field("value"))?,
                ttl_sec: field("ttl_sec", self.ttl_sec)?,
                fence: field("fence", self.fence)?,
            },
            Kind::Cas => BatchOp::Cas {
                key,
                old: field("old", self.old)?,
                version: match self.version {
                    Some(version) => Some(field("version", version)?),
                    None => None,
                },
                new: self.new.ok_or_else(|| E::missing_field("new"))?,
                fence: field("fence", self.fence)?,
            },
            Kind::Delete => BatchOp::Delete {
                key,
                version: field("version", self.version.flatten())?,
            },
            Kind::Lock => BatchOp::Lock {
                key,
                ttl_sec: field("ttl_sec", self.ttl_sec)?,
                owner: field("owner", self.owner)?,
            },
            Kind::Unlock => BatchOp::Unlock {
                key,
                token: field("token", self.token)?,
            },
        };
        let request_id = self.request_id;
        Ok(NamedOp { op, request_id })
    }
}

impl<'de> Deserialize<'de> for NamedOp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Fields::deserialize(deserializer)?.into_named()
    }
}

impl<'de> Deserialize<'de> for BatchOp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        NamedOp::deserialize(deserializer).map(|named| named.op)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<NamedOp, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn operations_come_back_as_they_were_written() {
        for text in [
            r#"{"op":"get","key":"k"}"#,
            r#"{"op":"put","key":"k","value":12345678901234567890123.10,"ttl_sec":2.5,"fence":7}"#,
            r#"{"op":"put","key":"k","value":null,"request_id":"r"}"#,
            r#"{"op":"cas","key":"k","old":{"a":[1]},"new":"x"}"#,
            r#"{"op":"cas","key":"k","version":null,"new":{"a":[1,2.5]},"fence":1,"request_id":"r"}"#,
            r#"{"op":"cas","key":"k","version":"v","new":0}"#,
            r#"{"op":"delete","key":"k"}"#,
            r#"{"op":"delete","key":"k","version":"v"}"#,
            r#"{"op":"lock","key":"k","ttl_sec":1.5,"owner":"me"}"#,
            r#"{"op":"unlock","key":"k","token":"t"}"#,
        ] {
            assert_eq!(serde_json::to_string(&read(text).unwrap()).unwrap(), text);
        }
        let anyhow = r#" { "value" : [ 1 ] , "key":"k", "fence":null, "more":{}, "op":"put" } "#;
        let BatchOp::Put { value, fence: None, .. } = read(anyhow).unwrap().op else {
            panic!("a put");
        };
        assert_eq!(value.get(), "[ 1 ]");
    }

    #[test]
    fn what_is_wrong_is_named_and_fields_of_other_calls_do_not_matter() {
        for (text, problem) in [
            (r#"{"op":"steal","key":"k"}"#, "steal"),
            (r#"{"key":"k"}"#, "missing field `op`"),
            (r#"{"op":"get"}"#, "missing field `key`"),
            (r#"{"op":"put","key":"k"}"#, "missing field `value`"),
            (r#"{"op":"cas","key":"k","value":1}"#, "missing field `new`"),
            (
                r#"{"op":"put","key":"k","value":1,"ttl_sec":"x"}"#,
                "ttl_sec: invalid type",
            ),
            (r#"{"op":"delete","key":"k","version":3}"#, "version: invalid type"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(problem), "{text}: {error}");
        }
        assert!(read(r#"{"op":"get","key":"k","ttl_sec":"x","version":3,"value":[]}"#).is_ok());
    }
}
