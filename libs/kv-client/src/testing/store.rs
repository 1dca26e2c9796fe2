//! The fake's data: what the KV API promises, on one machine and in memory.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kv_api::{
    AcquireQuery, BatchOp, CasAnswer, CasBody, DEFAULT_LOCK_TTL_SEC, DEFAULT_SCAN_LIMIT, Item, KEY_NOT_FOUND,
    LockAnswer, MAX_SCAN_LIMIT, NamedBatchBody, PutAnswer, PutBody, RawValue, ReleaseQuery, RenewQuery, ScanAnswer,
    ScanQuery, Version,
};
use register::Ballot;
use register::ballot::HlcTime;
use serde::Serialize;
use serde_json::value::to_raw_value;
use serde_json::{Value, json};
use tokio::sync::watch;

/// Copies the fake pretends to keep.
const RF: usize = 2;

/// An answer: status and body.
pub(super) type Reply = (u16, Value);

#[derive(Debug)]
struct Entry {
    value: Box<RawValue>,
    version: Version,
    expires: Option<Instant>,
}

#[derive(Debug)]
struct Lock {
    token: String,
    owned: bool,
    fence: u64,
    expires: Instant,
}

/// The keys and locks of a [`super::FakeKv`]. Changes made here are like another client's.
#[derive(Debug, Default)]
pub struct Store {
    entries: BTreeMap<String, Entry>,
    /// Fences seen, kept beyond the life of the key.
    fences: BTreeMap<String, u64>,
    locks: BTreeMap<String, Lock>,
    /// What was answered to named changes that took effect.
    answered: HashMap<String, Reply>,
    /// Counts up for versions, tokens and fences.
    counter: u64,
    /// Every change, for watchers.
    log: Vec<Logged>,
    /// How many changes watchers that come back can no longer be told of.
    forgotten: usize,
    /// Counts up when all feeds are to be cut.
    cuts: u64,
    /// Wakes watchers.
    news: watch::Sender<()>,
}

/// A change as watchers are told of it.
#[derive(Debug, Clone)]
pub(super) struct Logged {
    pub(super) key: String,
    /// `None` when it is gone.
    pub(super) value: Option<Box<RawValue>>,
    pub(super) version: Version,
}

impl Store {
    /// Writes `key` as another client would, and gives its new version.
    ///
    /// # Panics
    /// When the value is no JSON: a mistake in the test.
    pub fn set<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) -> Version {
        let value = to_raw_value(value).expect("a test puts JSON");
        self.write(key, value, None)
    }

    /// The value of `key`, `None` when it is absent.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<Value> {
        let entry = self.live(key)?;
        serde_json::from_str(entry.value.get()).ok()
    }

    /// The version of `key`, `None` when it is absent.
    #[must_use]
    pub fn version(&self, key: &str) -> Option<Version> {
        self.live(key).map(|entry| entry.version.clone())
    }

    /// Deletes `key`; answers whether it was there.
    pub fn remove(&mut self, key: &str) -> bool {
        let was = self.live(key).is_some();
        self.gone(key);
        was
    }

    /// Ends every feed that is open; watchers may come back.
    pub fn cut_watches(&mut self) {
        self.cuts += 1;
        self.news.send_replace(());
    }

    /// Watchers that come back are told that changes so far may have been missed.
    pub fn forget_changes(&mut self) {
        self.forgotten = self.log.len();
    }

    pub(super) fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    /// How often feeds were cut.
    pub(super) fn cuts(&self) -> u64 {
        self.cuts
    }

    /// The changes from number `from` on; `None` when some are forgotten.
    pub(super) fn logged(&self, from: usize) -> Option<&[Logged]> {
        self.log.get(from..).filter(|_| from >= self.forgotten)
    }

    /// How many changes there were.
    pub(super) fn logged_len(&self) -> usize {
        self.log.len()
    }

    fn gone(&mut self, key: &str) {
        if self.entries.remove(key).is_some() {
            let version = self.next_version();
            self.log(key, None, version);
        }
    }

    fn log(&mut self, key: &str, value: Option<Box<RawValue>>, version: Version) {
        let key = key.to_owned();
        self.log.push(Logged { key, value, version });
        self.news.send_replace(());
    }

    /// The keys that start with `prefix`, in order.
    #[must_use]
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        self.with_prefix(prefix).map(|(key, _)| key.clone()).collect()
    }

    /// True while somebody holds the lock `name`.
    #[must_use]
    pub fn is_locked(&self, name: &str) -> bool {
        self.locks.get(name).is_some_and(|lock| lock.expires > Instant::now())
    }

    fn with_prefix(&self, prefix: &str) -> impl DoubleEndedIterator<Item = (&String, &Entry)> {
        let now = Instant::now();
        let from = (Bound::Included(prefix.to_owned()), Bound::Unbounded);
        let ours: Vec<_> = self
            .entries
            .range(from)
            .take_while(|(key, _)| key.starts_with(prefix))
            .filter(|(_, entry)| entry.expires.is_none_or(|end| end > now))
            .collect();
        ours.into_iter()
    }

    fn live(&self, key: &str) -> Option<&Entry> {
        self.entries
            .get(key)
            .filter(|entry| entry.expires.is_none_or(|end| end > Instant::now()))
    }

    fn next(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    fn write(&mut self, key: &str, value: Box<RawValue>, ttl_sec: Option<f64>) -> Version {
        let version = self.next_version();
        let expires = ttl_sec.map(|sec| Instant::now() + Duration::from_secs_f64(sec));
        let entry = Entry {
            value,
            version: version.clone(),
            expires,
        };
        self.log(key, Some(entry.value.clone()), version.clone());
        self.entries.insert(key.to_owned(), entry);
        version
    }

    fn next_version(&mut self) -> Version {
        Version::from(Ballot {
            time: HlcTime::from_bits(self.next()),
            incarnation: 1,
        })
    }

    /// The fence the key has seen, if `fence` is lower; else remembers `fence`.
    fn fenced(&mut self, key: &str, fence: Option<u64>) -> Option<u64> {
        let fence = fence?;
        let seen = self.fences.entry(key.to_owned()).or_default();
        if fence < *seen {
            return Some(*seen);
        }
        *seen = fence;
        None
    }

    /// Makes a change; one that has a name and has taken effect before is only answered again.
    pub(super) fn once(&mut self, name: Option<&str>, change: impl FnOnce(&mut Self) -> Reply) -> Reply {
        if let Some(reply) = name.and_then(|name| self.answered.get(name)) {
            return reply.clone();
        }
        let reply = change(self);
        if let Some(name) = name
            && reply.0 == 200
            && reply.1["ok"] == true
        {
            self.answered.insert(name.to_owned(), reply.clone());
        }
        reply
    }

    pub(super) fn get(&self, key: &str) -> Reply {
        match self.live(key) {
            Some(entry) => ok(&item(key, entry)),
            None => (404, json!({"detail": KEY_NOT_FOUND})),
        }
    }

    pub(super) fn put(&mut self, key: &str, body: PutBody) -> Reply {
        if let Some(ttl_sec) = body.ttl_sec
            && let Err(error) = kv_api::ttl_ms(ttl_sec)
        {
            return invalid(&error);
        }
        if let Some(seen) = self.fenced(key, body.fence) {
            return ok(&PutAnswer {
                ok: false,
                written: 0,
                rf: RF,
                version: None,
                fence_seen: Some(seen),
            });
        }
        let version = self.write(key, body.value, body.ttl_sec);
        ok(&PutAnswer {
            ok: true,
            written: RF,
            rf: RF,
            version: Some(version),
            fence_seen: None,
        })
    }

    pub(super) fn cas(&mut self, body: CasBody) -> Reply {
        let (current, version) = match self.live(&body.key) {
            Some(entry) => (entry.value.clone(), Some(entry.version.clone())),
            None => (RawValue::NULL.to_owned(), None),
        };
        let expected = match &body.version {
            Some(expected) => *expected == version,
            None => same(
                &serde_json::from_str(current.get()).unwrap_or_default(),
                body.old.as_ref().unwrap_or(&Value::Null),
            ),
        };
        let refused = |fence_seen| CasAnswer {
            ok: false,
            current: Some(current),
            version,
            fence_seen,
        };
        if !expected {
            return ok(&refused(None));
        }
        if let Some(seen) = self.fenced(&body.key, body.fence) {
            return ok(&refused(Some(seen)));
        }
        let version = self.write(&body.key, body.new, None);
        ok(&CasAnswer {
            ok: true,
            current: None,
            version: Some(version),
            fence_seen: None,
        })
    }

    pub(super) fn delete(&mut self, key: &str, expected: Option<&Version>) -> Reply {
        if let (Some(expected), Some(entry)) = (expected, self.live(key))
            && entry.version != *expected
        {
            let current = Some(entry.value.clone());
            let version = Some(entry.version.clone());
            return ok(&CasAnswer {
                ok: false,
                current,
                version,
                fence_seen: None,
            });
        }
        self.gone(key);
        (200, json!({"ok": true}))
    }

    pub(super) fn scan(&self, query: &ScanQuery) -> Reply {
        let limit = query.limit.unwrap_or(DEFAULT_SCAN_LIMIT).clamp(1, MAX_SCAN_LIMIT);
        let mut all: Vec<_> = self.with_prefix(&query.prefix).collect();
        if query.reverse {
            all.reverse();
        }
        let beyond = |key: &String| match &query.after {
            Some(after) if query.reverse => key < after,
            Some(after) => key > after,
            None => true,
        };
        all.retain(|(key, _)| beyond(key));
        let more = all.len() > limit;
        all.truncate(limit);
        let next = if more {
            all.last().map(|(key, _)| (*key).clone())
        } else {
            None
        };
        ok(&ScanAnswer {
            items: all.into_iter().map(|(key, entry)| item(key, entry)).collect(),
            next,
        })
    }

    pub(super) fn batch(&mut self, body: NamedBatchBody) -> Reply {
        let mut results = Vec::with_capacity(body.ops.len());
        let mut stopped = false;
        for named in body.ops {
            let (status, mut result) = if stopped {
                (424, json!({"detail": "not run: an earlier operation failed"}))
            } else {
                let name = named.request_id.as_deref();
                self.once(name, |store| store.run(named.op))
            };
            stopped |= body.ordered && (status != 200 || result["ok"] == Value::Bool(false));
            result["status"] = status.into();
            results.push(result);
        }
        (200, json!({"results": results}))
    }

    fn run(&mut self, op: BatchOp) -> Reply {
        match op {
            BatchOp::Get { key } => self.get(&key),
            BatchOp::Put {
                key,
                value,
                ttl_sec,
                fence,
            } => self.put(&key, PutBody { value, ttl_sec, fence }),
            BatchOp::Cas {
                key,
                old,
                version,
                new,
                fence,
            } => self.cas(CasBody {
                key,
                old,
                version,
                new,
                fence,
            }),
            BatchOp::Delete { key, version } => self.delete(&key, version.as_ref()),
            BatchOp::Lock { key, ttl_sec, owner } => self.acquire(&key, &AcquireQuery { ttl_sec, owner }),
            BatchOp::Unlock { key, token } => self.release(&key, &ReleaseQuery { token }),
        }
    }

    pub(super) fn acquire(&mut self, name: &str, query: &AcquireQuery) -> Reply {
        let ttl = match lock_ttl(query.ttl_sec) {
            Ok(ttl) => ttl,
            Err(reply) => return reply,
        };
        let now = Instant::now();
        if let Some(lock) = self.locks.get(name)
            && lock.expires > now
        {
            return ok(&lock_answer(false, lock.expires - now, None));
        }
        let fence = self.next();
        let token = format!("token-{fence}");
        let lock = Lock {
            token: token.clone(),
            owned: query.owner.is_some(),
            fence,
            expires: now + ttl,
        };
        self.locks.insert(name.to_owned(), lock);
        ok(&lock_answer(true, ttl, Some((token, fence))))
    }

    pub(super) fn renew(&mut self, name: &str, query: &RenewQuery) -> Reply {
        let ttl = match lock_ttl(query.ttl_sec) {
            Ok(ttl) => ttl,
            Err(reply) => return reply,
        };
        let now = Instant::now();
        match self.locks.get_mut(name) {
            Some(lock) if lock.expires > now && lock.token == query.token => {
                lock.expires = now + ttl;
                ok(&lock_answer(true, ttl, Some((lock.token.clone(), lock.fence))))
            }
            _ => (200, json!({"ok": false})),
        }
    }

    pub(super) fn release(&mut self, name: &str, query: &ReleaseQuery) -> Reply {
        let held = self.locks.get(name).filter(|lock| lock.expires > Instant::now());
        let released = match (held, &query.token) {
            (None, token) => token.is_none(),
            (Some(lock), None) => !lock.owned,
            (Some(lock), Some(token)) => lock.token == *token,
        };
        if released {
            self.locks.remove(name);
        }
        (200, json!({"ok": released}))
    }
}

fn item(key: &str, entry: &Entry) -> Item {
    Item {
        key: key.to_owned(),
        value: entry.value.clone(),
        version: Some(entry.version.clone()),
    }
}

fn ok(answer: &impl Serialize) -> Reply {
    // Through text: raw values cannot be put into a tree.
    let text = serde_json::to_string(answer).unwrap_or_default();
    (200, serde_json::from_str(&text).unwrap_or_default())
}

pub(super) fn invalid(error: &impl ToString) -> Reply {
    (422, json!({"detail": error.to_string()}))
}

fn lock_ttl(ttl_sec: Option<f64>) -> Result<Duration, Reply> {
    kv_api::ttl_ms(ttl_sec.unwrap_or(DEFAULT_LOCK_TTL_SEC))
        .map(Duration::from_millis)
        .map_err(|error| invalid(&error))
}

fn lock_answer(ok: bool, left: Duration, holder: Option<(String, u64)>) -> LockAnswer {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (token, fence) = holder.unzip();
    LockAnswer {
        ok,
        expires_at: Some((unix + left).as_secs_f64()),
        expires_in_sec: Some(left.as_secs_f64()),
        token,
        fence,
    }
}

/// Equality of JSON values with numbers compared by value.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            a == b || (a.as_f64().zip(b.as_f64())).is_some_and(|(a, b)| a.total_cmp(&b).is_eq())
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}
