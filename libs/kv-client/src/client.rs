//! The calls.

use std::sync::Arc;
use std::time::Duration;

use kv_api::{
    BatchOp, CasAnswer, CasBody, Item, MAX_BATCH_OPS, MAX_SCAN_LIMIT, NamedBatchBody, NamedOp, OkAnswer, PutAnswer,
    PutBody, RawValue, RequestName, ScanAnswer, Version, check_key, encode_key,
};
use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::to_raw_value;

use crate::batch::{OpResult, effect, typed};
use crate::transport::{Effect, Transport};
use crate::{KeyRange, KvError, Options, op};

/// No body.
const NONE: Option<&()> = None;

/// Fewest items that a page of a range asks for: those that nobody expected are few, and more than one goes into a page.
const RANGE_PAGE_MIN: usize = 16;

/// As [`kv_api::BatchAnswer`], each result still as text: it is read once, as what its operation says it is.
#[derive(serde::Deserialize)]
struct Results {
    results: Vec<Box<RawValue>>,
}

/// A client of one KV cluster. Cloning is cheap and shares the connections.
#[derive(Debug, Clone)]
pub struct Kv {
    pub(crate) transport: Arc<Transport>,
}

/// A value, and the version to name when changing it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned<T> {
    /// The value.
    pub value: T,
    /// Its version; changes with every change of the value.
    pub version: Version,
    /// Its key.
    pub key: String,
}

/// What became of a put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Put {
    /// Written.
    Done(Version),
    /// Refused: the key has seen a higher fence.
    FenceTooLow {
        /// The fence it has seen.
        seen: u64,
    },
}

/// What a put may carry beside the value.
#[derive(Debug, Clone, Copy, Default)]
pub struct PutOptions {
    /// The value ends after this long.
    pub ttl: Option<Duration>,
    /// Refused when lower than the fence the key has seen.
    pub fence: Option<u64>,
}

/// What became of a compare-and-swap.
#[derive(Debug, Clone)]
pub enum Swap {
    /// Swapped.
    Done(Version),
    /// Another version than the expected one is there.
    Refused {
        /// The value it has now; `None` (or the JSON text `null`) when the key is absent.
        current: Option<Box<RawValue>>,
        /// The version it has now; `None` when the key is absent.
        version: Option<Version>,
    },
    /// Refused: the key has seen a higher fence.
    FenceTooLow {
        /// The fence it has seen.
        seen: u64,
    },
}

/// A value that is not of the asked-for type. The rest of its page is not affected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("value of {key:?} cannot be read: {reason}")]
pub struct BadItem {
    /// Its key.
    pub key: String,
    /// Its version, to replace or delete it with.
    pub version: Option<Version>,
    /// Where the shape differs.
    pub reason: String,
}

/// Part of a scan, in key order (or reverse).
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// One per key: the value, or why it cannot be read.
    pub items: Vec<Result<Versioned<T>, BadItem>>,
    /// Pass as `after` to go on; `None` at the end.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// The readable items; each other is logged as a warning.
    pub fn into_good(self) -> impl Iterator<Item = Versioned<T>> {
        self.items
            .into_iter()
            .filter_map(|item| item.inspect_err(|bad| tracing::warn!(%bad, "skipped")).ok())
    }
}

impl Kv {
    /// A client of the kvfront at `base_url` (`http://host:port`), or of several, separated by commas: when no connection to
    /// one can be made, the next is tried. Nothing is connected yet.
    ///
    /// # Errors
    /// [`KvError::Invalid`] for anything but http URLs.
    pub fn new(base_url: &str, options: Options) -> Result<Self, KvError> {
        Ok(Self {
            transport: Transport::new(base_url, options)?,
        })
    }

    /// Reads `key`; `None` when it is absent.
    ///
    /// # Errors
    /// [`KvError::Decode`] when the value is no `T`; never [`KvError::Unknown`].
    pub async fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<Versioned<T>>, KvError> {
        let item: Option<Item> = self
            .transport
            .call(Effect::Read, Method::GET, &path_of(key)?, NONE)
            .await?;
        item.map(Versioned::of_item).transpose()
    }

    /// Writes `key` whatever is there, and gives its new version.
    ///
    /// # Errors
    /// See [`KvError`]; after [`KvError::Unknown`] it may or may not be written.
    pub async fn put<T: Serialize + ?Sized>(&self, key: &str, value: &T) -> Result<Version, KvError> {
        match self.put_with(key, value, PutOptions::default()).await? {
            Put::Done(version) => Ok(version),
            Put::FenceTooLow { seen } => Err(KvError::decode(
                &format!("PUT {key:?}"),
                format_args!("refused for a fence ({seen}) though none was sent"),
            )),
        }
    }

    /// Writes `key` with a time to live or a fence.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub async fn put_with<T: Serialize + ?Sized>(
        &self,
        key: &str,
        value: &T,
        options: PutOptions,
    ) -> Result<Put, KvError> {
        let ttl_sec = options.ttl.as_ref().map(Duration::as_secs_f64);
        ttl_sec.map(kv_api::ttl_ms).transpose()?;
        let body = PutBody {
            value: raw(key, value)?,
            ttl_sec,
            fence: options.fence,
        };
        let path = path_of(key)?;
        let answer: PutAnswer = self.write(Method::PUT, &path, Some(&body)).await?;
        Put::of(&format!("PUT {key:?}"), answer)
    }

    /// Writes `new` if `key` still has the version `expected`; `None` means: if it is absent.
    ///
    /// # Errors
    /// See [`KvError`]; after [`KvError::Unknown`] it may or may not be swapped: read before deciding.
    pub async fn cas_version<T: Serialize + ?Sized>(
        &self,
        key: &str,
        expected: Option<&Version>,
        new: &T,
        fence: Option<u64>,
    ) -> Result<Swap, KvError> {
        check_key(key)?;
        let body = CasBody {
            key: key.to_owned(),
            old: None,
            version: Some(expected.cloned()),
            new: raw(key, new)?,
            fence,
        };
        let answer: CasAnswer = self.write(Method::POST, "/kv/cas", Some(&body)).await?;
        Swap::of(&format!("CAS {key:?}"), answer)
    }

    /// Deletes `key`; no error when it is not there.
    ///
    /// # Errors
    /// See [`KvError`].
    pub async fn delete(&self, key: &str) -> Result<(), KvError> {
        // A 404 means the same as success here, so it is not told apart.
        let _: Option<OkAnswer> = self
            .transport
            .call(Effect::Write, Method::DELETE, &path_of(key)?, NONE)
            .await?;
        Ok(())
    }

    /// Deletes `key` if it still has this version; answers whether it is gone.
    ///
    /// # Errors
    /// See [`KvError`].
    pub async fn delete_version(&self, key: &str, version: &Version) -> Result<bool, KvError> {
        let mut results = self.batch(vec![op::delete_version(key, version)], false).await?;
        match results.pop() {
            Some(OpResult::Deleted) => Ok(true),
            Some(OpResult::DeleteRefused { .. }) => Ok(false),
            Some(OpResult::Failed(error)) => Err(error),
            other => Err(KvError::decode(
                "batch",
                format_args!("the result of a delete was expected, not {other:?}"),
            )),
        }
    }

    /// Runs up to [`MAX_BATCH_OPS`] operations in one request, each on its own: one result per operation, in their order.
    /// `ordered` runs them one after the other and stops at the first that fails or is refused.
    /// A batch of nothing but `get` counts as a read, and is repeated like one.
    ///
    /// # Errors
    /// When the request as a whole failed; [`KvError::Unknown`] then leaves every operation unknown.
    pub async fn batch(&self, ops: Vec<BatchOp>, ordered: bool) -> Result<Vec<OpResult>, KvError> {
        if ops.is_empty() {
            return Ok(Vec::new());
        }
        if ops.len() > MAX_BATCH_OPS {
            let len = ops.len();
            return Err(KvError::invalid(format!(
                "ops: {len} operations; at most {MAX_BATCH_OPS} are allowed"
            )));
        }
        for op in &ops {
            check_key(op.target().0)?;
        }
        let effect = effect(&ops);
        let named = |op: BatchOp| NamedOp {
            request_id: self.name_of(&op).map(|name| name.to_string()),
            op,
        };
        let body = NamedBatchBody {
            ops: ops.into_iter().map(named).collect(),
            ordered,
        };
        let answer: Option<Results> = self
            .transport
            .call(effect, Method::POST, "/kv/batch", Some(&body))
            .await?;
        let results = answer.ok_or_else(|| no_such_call("POST /kv/batch"))?.results;
        if results.len() != body.ops.len() {
            let (got, asked) = (results.len(), body.ops.len());
            return Err(KvError::decode(
                "POST /kv/batch",
                format_args!("{got} results for {asked} operations"),
            ));
        }
        Ok(body
            .ops
            .iter()
            .zip(results)
            .map(|(named, result)| typed(&named.op, &result))
            .collect())
    }

    /// A name for an operation that changes something, if changes are repeated.
    fn name_of(&self, op: &BatchOp) -> Option<RequestName> {
        match op {
            BatchOp::Get { .. } => None,
            _ => self.transport.new_name(),
        }
    }

    /// One page of the keys that start with `prefix`, in key order (or `reverse`), after `after` (or from the first): up to
    /// `limit` items, [`MAX_SCAN_LIMIT`] at most.
    ///
    /// # Errors
    /// Never for the sake of one value: see [`Page::items`].
    pub async fn scan<T: DeserializeOwned>(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        reverse: bool,
    ) -> Result<Page<T>, KvError> {
        let limit = limit.clamp(1, MAX_SCAN_LIMIT);
        let mut path = format!("/kv?prefix={}&limit={limit}", encode_key(prefix));
        if let Some(after) = after {
            path.push_str("&after=");
            path.push_str(&encode_key(after));
        }
        if reverse {
            path.push_str("&reverse=true");
        }
        let answer: Option<ScanAnswer> = self.transport.call(Effect::Read, Method::GET, &path, NONE).await?;
        let answer = answer.ok_or_else(|| no_such_call("GET /kv"))?;
        Ok(Page {
            items: answer.items.into_iter().map(item_of).collect(),
            next: answer.next,
        })
    }

    /// All keys that start with `prefix`, in key order, page by page, up to `max`: [`Page::next`] is set when there are more.
    /// The pages are read one after the other, so changes meanwhile may or may not be seen.
    ///
    /// # Errors
    /// As [`Self::scan`], for any of the pages.
    pub async fn scan_all<T: DeserializeOwned>(&self, prefix: &str, max: usize) -> Result<Page<T>, KvError> {
        self.scan_range(prefix, &KeyRange::default(), max, max).await
    }

    /// The same for the keys of `range` among those that start with `prefix`. `expected` is how many there are, as far as is known: so many
    /// are asked for at once, so that little is read of what lies behind a range that ends.
    ///
    /// # Errors
    /// As [`Self::scan`], for any of the pages.
    pub async fn scan_range<T: DeserializeOwned>(
        &self,
        prefix: &str,
        range: &KeyRange,
        expected: usize,
        max: usize,
    ) -> Result<Page<T>, KvError> {
        // A page that is full does not know that it is the last one: where only that can end the range, one more is asked for.
        let expected = expected + usize::from(range.through.is_none());
        let mut all = Page {
            items: Vec::new(),
            next: None,
        };
        let mut after = range.after.clone();
        loop {
            let left = max.saturating_sub(all.items.len());
            if left == 0 {
                return Ok(all);
            }
            let asked = expected.saturating_sub(all.items.len()).max(RANGE_PAGE_MIN).min(left);
            let page = self.scan(prefix, after.as_deref(), asked, false).await?;
            let items = page.items.into_iter();
            all.items.extend(items.filter(|item| range.contains(key_of(item))));
            after = page.next.filter(|next| !range.ends_by(next));
            all.next.clone_from(&after);
            if after.is_none() {
                return Ok(all);
            }
        }
    }

    /// What a kvfront knows of the cluster, as its JSON: nodes, ring, who is up (`GET /cluster`).
    ///
    /// # Errors
    /// See [`KvError`]; never [`KvError::Unknown`].
    pub async fn cluster(&self) -> Result<Box<RawValue>, KvError> {
        let answer: Option<Box<RawValue>> = self.transport.call(Effect::Read, Method::GET, "/cluster", NONE).await?;
        answer.ok_or_else(|| no_such_call("GET /cluster"))
    }

    /// Asks a kvfront whether it is alive.
    ///
    /// # Errors
    /// When none answers, or the one that does is not well.
    pub async fn healthy(&self) -> Result<(), KvError> {
        let answer: Option<serde_json::Value> = self.transport.call(Effect::Read, Method::GET, "/health", NONE).await?;
        answer.map(drop).ok_or_else(|| no_such_call("GET /health"))
    }

    pub(crate) async fn write<A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<A, KvError> {
        let what = format!("{method} {path}");
        let answer = self.transport.call(Effect::Write, method, path, body).await?;
        answer.ok_or_else(|| no_such_call(&what))
    }
}

impl<T: DeserializeOwned> Versioned<T> {
    pub(crate) fn of_item(item: Item) -> Result<Self, KvError> {
        item_of(item).map_err(|bad| KvError::Decode {
            detail: bad.to_string(),
        })
    }
}

impl Put {
    pub(crate) fn of(what: &str, answer: PutAnswer) -> Result<Self, KvError> {
        match (answer.ok, answer.version, answer.fence_seen) {
            (true, Some(version), _) => Ok(Self::Done(version)),
            (false, _, Some(seen)) => Ok(Self::FenceTooLow { seen }),
            (true, None, _) => Err(KvError::decode(what, "ok, but without a version")),
            (false, ..) => Err(KvError::decode(what, "not ok, but without a fence that says why")),
        }
    }
}

impl Swap {
    pub(crate) fn of(what: &str, answer: CasAnswer) -> Result<Self, KvError> {
        match (answer.ok, answer.version, answer.fence_seen) {
            (true, Some(version), _) => Ok(Self::Done(version)),
            (true, None, _) => Err(KvError::decode(what, "ok, but without a version")),
            (false, _, Some(seen)) => Ok(Self::FenceTooLow { seen }),
            (false, version, None) => Ok(Self::Refused {
                current: answer.current,
                version,
            }),
        }
    }

    /// True when it was swapped.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done(_))
    }

    /// What a refusal found, parsed: `None` when the key is absent, or nothing was refused.
    ///
    /// # Errors
    /// [`KvError::Decode`] when the value there is no `T`.
    pub fn found<T: DeserializeOwned>(&self, key: &str) -> Result<Option<Versioned<T>>, KvError> {
        let Self::Refused {
            current: Some(current),
            version: Some(version),
        } = self
        else {
            return Ok(None);
        };
        let value = serde_json::from_str(current.get()).map_err(|error| KvError::decode(key, error))?;
        Ok(Some(Versioned {
            value,
            version: version.clone(),
            key: key.to_owned(),
        }))
    }
}

fn item_of<T: DeserializeOwned>(item: Item) -> Result<Versioned<T>, BadItem> {
    let Item { key, value, version } = item;
    let Some(version) = version else {
        let reason = "it has no version: is this a kvstore instead of a kvfront?".to_owned();
        return Err(BadItem { key, version, reason });
    };
    match serde_json::from_str(value.get()) {
        Ok(value) => Ok(Versioned { value, version, key }),
        Err(error) => Err(BadItem {
            key,
            version: Some(version),
            reason: error.to_string(),
        }),
    }
}

/// The key of an item of a [`Page`], readable or not.
#[must_use]
pub fn key_of<T>(item: &Result<Versioned<T>, BadItem>) -> &str {
    match item {
        Ok(found) => &found.key,
        Err(bad) => &bad.key,
    }
}

fn path_of(key: &str) -> Result<String, KvError> {
    check_key(key)?;
    Ok(format!("/kv/{}", encode_key(key)))
}

fn raw<T: Serialize + ?Sized>(key: &str, value: &T) -> Result<Box<RawValue>, KvError> {
    to_raw_value(value).map_err(|error| KvError::invalid(format!("value for {key:?} is no JSON: {error}")))
}

fn no_such_call(what: &str) -> KvError {
    KvError::Rejected {
        status: 404,
        detail: format!("{what}: the server does not know this call"),
    }
}
