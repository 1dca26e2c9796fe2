//! The JSON shapes, limits and key rules of the KV API: one place for what kvfront and kvstore serve and `kv-client` speaks.
//!
//! Values travel as raw JSON text ([`RawValue`]), so that a number comes back exactly as it was written.

mod batch_op;
mod request;

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use register::Ballot;
use serde::{Deserialize, Serialize};
pub use serde_json::value::RawValue;

pub use batch_op::{BatchOp, NamedOp};
pub use request::{ParseRequestNameError, REQUEST_ATTEMPT_HEADER, REQUEST_ID_HEADER, RequestName};

/// Longest key, in bytes of UTF-8.
pub const MAX_KEY_BYTES: usize = 1_024;
/// Largest value by default, in bytes of JSON text.
pub const MAX_VALUE_BYTES: usize = 1 << 20;
/// Most operations in one batch.
pub const MAX_BATCH_OPS: usize = 1_024;
/// Records a scan returns when no limit is asked for.
pub const DEFAULT_SCAN_LIMIT: usize = 100;
/// Most records a scan returns.
pub const MAX_SCAN_LIMIT: usize = 1_000;
/// Time to live of a lock when none is asked for, in seconds.
pub const DEFAULT_LOCK_TTL_SEC: f64 = 30.0;
/// Longest time to live of a value or a lock, in seconds: ten years.
pub const MAX_TTL_SEC: f64 = 315_360_000.0;
/// Longest `owner` or `token`, in bytes.
pub const MAX_OWNER_BYTES: usize = 256;

/// The answer to a key that is not there, as existing scripts match it.
pub const KEY_NOT_FOUND: &str = "Key not found";

/// A key, a time to live or another part of a call that cannot be used. The text names it, the value and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiRuleError {
    /// The key is empty.
    #[error("key: it is empty; 1 to {MAX_KEY_BYTES} bytes of UTF-8 are expected")]
    EmptyKey,
    /// The key is `.` or `..`.
    #[error(
        "key: \".\" and \"..\" cannot be keys, because URL parsers take them for directories, percent-encoded or not"
    )]
    DotKey,
    /// The key is too long.
    #[error("key: it has {0} bytes; at most {MAX_KEY_BYTES} are allowed")]
    LongKey(usize),
    /// The key is not UTF-8 after percent-decoding.
    #[error("key: it is not valid UTF-8 after percent-decoding")]
    KeyNotUtf8,
    /// A time to live that is not above zero, not finite, or too long.
    #[error("ttl_sec: {0} is out of range; a number of seconds above 0 and at most {MAX_TTL_SEC} is expected")]
    Ttl(String),
    /// An owner or token that is too long.
    #[error("{field}: it has {bytes} bytes; at most {MAX_OWNER_BYTES} are allowed")]
    LongName {
        /// `owner` or `token`.
        field: &'static str,
        /// Its length.
        bytes: usize,
    },
}

impl ApiRuleError {
    /// True for what cannot be read (400); false for what can be read and is not allowed (422).
    #[must_use]
    pub fn is_malformed(&self) -> bool {
        matches!(self, Self::KeyNotUtf8)
    }
}

/// Checks a key.
///
/// # Errors
/// [`ApiRuleError::EmptyKey`], [`ApiRuleError::DotKey`] or [`ApiRuleError::LongKey`].
pub fn check_key(key: &str) -> Result<(), ApiRuleError> {
    match key.len() {
        0 => Err(ApiRuleError::EmptyKey),
        1..=2 if matches!(key, "." | "..") => Err(ApiRuleError::DotKey),
        1..=MAX_KEY_BYTES => Ok(()),
        bytes => Err(ApiRuleError::LongKey(bytes)),
    }
}

/// Everything but the characters that are plain in a path segment.
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A key as it stands in a path: `:`, `/` and everything else that is special is percent-encoded.
#[must_use]
pub fn encode_key(key: &str) -> String {
    utf8_percent_encode(key, IN_PATH).to_string()
}

/// The key of a raw (still encoded) path segment or path rest.
///
/// # Errors
/// When it is not UTF-8, empty or too long.
pub fn decode_key(raw: &str) -> Result<Cow<'_, str>, ApiRuleError> {
    let key = percent_decode_str(raw)
        .decode_utf8()
        .map_err(|_| ApiRuleError::KeyNotUtf8)?;
    check_key(&key).map(|()| key)
}

/// Checks a time to live in seconds and gives it in milliseconds, at least 1.
///
/// # Errors
/// [`ApiRuleError::Ttl`].
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked to lie between 0 and ten years"
)]
pub fn ttl_ms(ttl_sec: f64) -> Result<u64, ApiRuleError> {
    if ttl_sec > 0.0 && ttl_sec <= MAX_TTL_SEC {
        Ok(((ttl_sec * 1_000.0).round() as u64).max(1))
    } else {
        Err(ApiRuleError::Ttl(ttl_sec.to_string()))
    }
}

/// Checks an owner or a token.
///
/// # Errors
/// [`ApiRuleError::LongName`].
pub fn check_name(field: &'static str, text: &str) -> Result<(), ApiRuleError> {
    if text.len() <= MAX_OWNER_BYTES {
        Ok(())
    } else {
        Err(ApiRuleError::LongName {
            field,
            bytes: text.len(),
        })
    }
}

/// What users see as a version: opaque text, compared for equality only.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub String);

impl From<Ballot> for Version {
    fn from(ballot: Ballot) -> Self {
        Self(ballot.to_text().map(char::from).iter().collect())
    }
}

impl Version {
    /// The ballot behind the version.
    ///
    /// # Errors
    /// When the text is no version of ours.
    pub fn ballot(&self) -> Result<Ballot, register::ballot::ParseBallotError> {
        self.0.parse()
    }
}

/// How many replicas must answer a get or put.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Consistency {
    /// One answer or ack is enough; a get may be stale.
    One,
    /// Linearizable.
    Quorum,
}

/// Query of `GET` and `PUT /kv/{key}`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ConsistencyQuery {
    /// `one` or `quorum`; else the coordinator's default.
    pub consistency: Option<Consistency>,
}

/// 200 answer to `GET /kv/{key}`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Item {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Box<RawValue>,
    /// Its version; also sent as `ETag`. A kvstore's own answers have none: its value is the stored envelope.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub version: Option<Version>,
}

/// Appends an [`Item`] as JSON, without its closing brace. `value` is JSON text: a stored one is copied as it is, not read once more.
pub fn write_open_item(out: &mut Vec<u8>, key: &str, value: &str, version: Ballot) {
    out.extend_from_slice(b"{\"key\":");
    write_json_text(out, key);
    out.extend_from_slice(b",\"value\":");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b",\"version\":\"");
    out.extend_from_slice(&version.to_text());
    out.push(b'"');
}

/// Appends a text as JSON.
pub fn write_json_text(out: &mut Vec<u8>, text: &str) {
    let is_plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
    if text.bytes().all(is_plain) {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        // A text can be written, and so can memory.
        let _ = serde_json::to_writer(out, text);
    }
}

/// Body of `PUT /kv/{key}`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PutBody {
    /// The new value; any JSON, but it has to be there.
    pub value: Box<RawValue>,
    /// Seconds until it ends.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ttl_sec: Option<f64>,
    /// Refused when lower than the fence the key has seen.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fence: Option<u64>,
}

/// Answer to `PUT /kv/{key}`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PutAnswer {
    /// False only when a fence refused it.
    pub ok: bool,
    /// Copies that had acknowledged it when this was sent.
    pub written: usize,
    /// Copies wanted.
    pub rf: usize,
    /// Version of the value written.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub version: Option<Version>,
    /// When refused: the fence the key has seen.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fence_seen: Option<u64>,
}

/// Body of `POST /kv/cas`: either `old` or `version` says what is expected. `"version": null` means absent; `"old": null` (or neither)
/// means absent or null.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CasBody {
    /// The key.
    pub key: String,
    /// The expected value.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub old: Option<serde_json::Value>,
    /// The expected version; the outer option tells "not given" from `null`.
    #[serde(skip_serializing_if = "Option::is_none", default, deserialize_with = "given")]
    pub version: Option<Option<Version>>,
    /// The new value.
    pub new: Box<RawValue>,
    /// Refused when lower than the fence the key has seen.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fence: Option<u64>,
}

/// Tells a field that is `null` from one that is not there.
fn given<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Some)
}

/// Answer to `POST /kv/cas`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CasAnswer {
    /// True when it was swapped.
    pub ok: bool,
    /// When not: the value it has, or null.
    #[serde(skip_serializing_if = "Option::is_none", default, deserialize_with = "given_raw")]
    pub current: Option<Box<RawValue>>,
    /// The version it has now; none when it is absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub version: Option<Version>,
    /// When a fence refused it: the fence the key has seen.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fence_seen: Option<u64>,
}

/// Keeps a `null` value apart from a missing one: both sides write `current` whenever the swap was refused.
fn given_raw<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

/// An answer that is only yes or no: delete, release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OkAnswer {
    /// Yes or no.
    pub ok: bool,
}

/// Query of `POST /lock/acquire/{key}`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct AcquireQuery {
    /// Seconds until the lock frees itself; [`DEFAULT_LOCK_TTL_SEC`] when not given.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ttl_sec: Option<f64>,
    /// Who wants it. A lock taken with an owner is released only with its token.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub owner: Option<String>,
}

/// Answer to acquire and renew.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LockAnswer {
    /// True when the caller holds the lock now.
    pub ok: bool,
    /// When the lock (the caller's, or the one in the way) ends, Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expires_at: Option<f64>,
    /// Seconds left; holders count from before they asked.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expires_in_sec: Option<f64>,
    /// Proves who holds it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub token: Option<String>,
    /// Grows with each acquisition; pass it to `put` and `cas` so that a late holder is refused.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fence: Option<u64>,
}

/// Query of `POST /lock/release/{key}`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ReleaseQuery {
    /// Releases only this holder's lock.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub token: Option<String>,
}

/// Query of `POST /lock/renew/{key}`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RenewQuery {
    /// The holder's token.
    pub token: String,
    /// Seconds from now; [`DEFAULT_LOCK_TTL_SEC`] when not given.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ttl_sec: Option<f64>,
}

/// Query of `GET /kv`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ScanQuery {
    /// Only keys that start with this; all when empty.
    #[serde(default)]
    pub prefix: String,
    /// Only keys after this one (before it, when `reverse`).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub after: Option<String>,
    /// At most this many: [`DEFAULT_SCAN_LIMIT`] when not given, [`MAX_SCAN_LIMIT`] at most.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub limit: Option<usize>,
    /// From the last key to the first: `true` or `1`; `false` or `0`.
    #[serde(default, deserialize_with = "flag")]
    pub reverse: bool,
}

/// A yes or no in a query, written as scripts and environments write it.
fn flag<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    match Cow::<str>::deserialize(deserializer)?.as_ref() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        other => Err(serde::de::Error::custom(format!(
            "got {other:?}; true, false, 1 or 0 is expected"
        ))),
    }
}

/// Answer to `GET /kv`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ScanAnswer {
    /// In key order (or reverse).
    pub items: Vec<Item>,
    /// Pass as `after` for the next page; null at the end.
    pub next: Option<String>,
}

/// Query of `GET /watch`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct WatchQuery {
    /// Only keys that start with this; all when empty.
    #[serde(default)]
    pub prefix: String,
    /// The `id` of the last event that was got; from now on when not given. The header `Last-Event-ID` means the same.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub after: Option<String>,
}

/// Data of a `change` event of `GET /watch`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WatchChange {
    /// The key.
    pub key: String,
    /// Its new value; null when it was deleted, or has ended.
    pub value: Box<RawValue>,
    /// The version of the change. Of one key, versions as text order like its changes.
    pub version: Version,
    /// The key is gone.
    pub deleted: bool,
    /// Other changes of the key may lie between this and the event before.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub conflated: bool,
}

/// Data of a `gap` event of `GET /watch`: changes may have been missed, of any key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchGap {
    /// Why.
    pub reason: String,
}

/// Body of `POST /kv/batch`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BatchBody {
    /// At most [`MAX_BATCH_OPS`]. Operations on one key run in their order, others in parallel.
    pub ops: Vec<BatchOp>,
    /// Runs all operations one after the other, and stops at the first that fails or is refused: the rest answer 424 and were not run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ordered: bool,
}

/// Body of `POST /kv/batch` as a coordinator takes it: [`BatchBody`], with names of changes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NamedBatchBody {
    /// As in [`BatchBody`].
    pub ops: Vec<NamedOp>,
    /// As in [`BatchBody`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ordered: bool,
}

/// Answer to `POST /kv/batch`: for each operation the body that its own call would give, with its HTTP status as `status`
/// (424 for what an `ordered` batch did not run).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BatchAnswer {
    /// One per operation, in their order.
    pub results: Vec<serde_json::Value>,
}

/// The body of every error answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What is wrong.
    pub detail: String,
    /// `unknown` when the operation may or may not take effect.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub outcome: Option<String>,
}

/// What a kvstore shows (and takes) as a value of its own data.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredEnvelope {
    /// Last-write-wins timestamp, Unix seconds.
    #[serde(rename = "_ts")]
    pub ts: f64,
    /// The value itself.
    pub data: Box<RawValue>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_the_path() {
        for key in [
            "delivery:1",
            "a/b",
            "ü ?#%",
            "...",
            ".a",
            "a/../b",
            "x y",
            "%2F",
            "~-_.",
        ] {
            assert_eq!(decode_key(&encode_key(key)).unwrap(), key);
            assert!(!encode_key(key).contains(['/', ':', '?', '#', ' ']));
        }
        assert_eq!(decode_key("%ff"), Err(ApiRuleError::KeyNotUtf8));
        assert_eq!(decode_key(""), Err(ApiRuleError::EmptyKey));
        for dots in [".", "..", "%2E", "%2e%2E"] {
            assert_eq!(decode_key(dots), Err(ApiRuleError::DotKey));
        }
        assert!(decode_key(&"k".repeat(1_024)).is_ok());
        assert_eq!(decode_key(&"k".repeat(1_025)), Err(ApiRuleError::LongKey(1_025)));
    }

    #[test]
    fn absent_null_and_given_are_told_apart() {
        let cas = |text| serde_json::from_str::<CasBody>(text).unwrap();
        assert_eq!(cas(r#"{"key":"k","old":null,"new":1}"#).version, None);
        assert_eq!(cas(r#"{"key":"k","version":null,"new":1}"#).version, Some(None));
        assert!(
            serde_json::from_str::<CasBody>(r#"{"key":"k"}"#).is_err(),
            "`new` has to be there"
        );
        assert_eq!(cas(r#"{"key":"k","new":null}"#).new.get(), "null");
        let refused: CasAnswer = serde_json::from_str(r#"{"ok":false,"current":null}"#).unwrap();
        assert_eq!(refused.current.unwrap().get(), "null");
    }

    #[test]
    fn named_operations_are_operations() {
        let text = r#"{"op":"cas","key":"k","version":null,"new":{"a":[1,2.5]},"request_id":"x"}"#;
        let named: NamedOp = serde_json::from_str(text).unwrap();
        assert_eq!(named.request_id.as_deref(), Some("x"));
        assert!(matches!(
            &named.op,
            BatchOp::Cas {
                version: Some(None),
                old: None,
                ..
            }
        ));
        let plain: NamedOp = serde_json::from_str(r#"{"op":"get","key":"k"}"#).unwrap();
        assert_eq!(serde_json::to_string(&plain).unwrap(), r#"{"op":"get","key":"k"}"#);
        let back: BatchOp = serde_json::from_str(&serde_json::to_string(&named).unwrap()).unwrap();
        assert!(matches!(
            back,
            BatchOp::Cas {
                version: Some(None),
                ..
            }
        ));
    }

    #[test]
    fn times_to_live_are_checked() {
        assert_eq!(ttl_ms(2.0), Ok(2_000));
        assert_eq!(ttl_ms(0.000_1), Ok(1));
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e12] {
            assert!(ttl_ms(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_come_back_as_written() {
        let text = r#"{"value":12345678901234567890123.10}"#;
        let body: PutBody = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&body).unwrap(), text);
    }
}
