//! Clients at work on both kvfronts, on few hot keys and on many, and the running judgement of what they were told.
//!
//! A key is used for so many operations, then another takes its place, and the history of the old one is judged while the others go on:
//! so a history stays short enough for the checker, and a long run needs no more memory than a short one.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt};
use linearizability::Checker;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::{Client, Method};
use serde_json::json;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::MissedTickBehavior;

use super::cluster::{Cluster, FRONTS};
use super::judge::judge;
use super::mix;
use super::record::{Became, Kind, Record, TestClock, What};
use super::wire::{self, Told};

/// Clients; each is at home on one kvfront.
pub(crate) const CLIENTS: u32 = 8;
/// A client asks no more often than this: two cores carry the programs, the proxies and the checker too.
const ASK_EVERY: Duration = Duration::from_millis(8);
/// Keys that most operations go to: two of each kind.
const HOT_KEYS: usize = 8;
/// Keys that the others go to.
const COLD_KEYS: usize = 120;
/// Of a hundred operations, those on hot keys.
const HOT_PERCENT: u32 = 60;
/// Operations after which a hot key is retired. The checker judges as many within milliseconds.
const HOT_USES: u32 = 800;
/// The same of the others: so few that they are all over the database.
const COLD_USES: u32 = 40;
/// Of a hundred calls, those that are batches.
const BATCH_PERCENT: u32 = 8;
/// Operations of a batch.
const BATCH_OPS: Range<usize> = 2..6;
/// The judge's own number among the clients: it reads each key once more when it is retired.
const JUDGE: u32 = CLIENTS;
/// A retired key must be readable within this time, whatever happens to the one node.
const READ_WITHIN: Duration = Duration::from_secs(30);
/// How often the judge looks whether a retired key is still in use.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Operations that differ by less took equally long, microseconds.
const ALIKE_US: u64 = 1_000;
/// Keys read at a time at the end.
const READERS: usize = 16;

/// A place for a key, and how often the key there was used.
#[derive(Debug)]
struct Slot {
    record: Arc<Record>,
    uses: u32,
    uses_max: u32,
}

/// What all clients and the judge share.
#[derive(Debug)]
struct Shared {
    run: String,
    clock: TestClock,
    fronts: Arc<RwLock<Vec<String>>>,
    slots: Vec<Mutex<Slot>>,
    next_key: AtomicU32,
    next_id: AtomicU32,
    stop: AtomicBool,
    /// The first thing that was wrong.
    failed: OnceLock<String>,
    counts: Mutex<BTreeMap<&'static str, u64>>,
    /// By client: when its last good answer came, and the longest time between two.
    last_answer_us: Vec<AtomicU64>,
    longest_gap_us: Vec<AtomicU64>,
    /// The slowest operation since then: how long it took, and what it was.
    slowest: Mutex<(u64, String)>,
}

/// A key that was judged, and what it may hold from then on.
#[derive(Debug)]
struct Kept {
    name: String,
    possible: Vec<Option<u32>>,
}

/// Clients at work.
#[derive(Debug)]
pub(crate) struct Load {
    shared: Arc<Shared>,
    clients: JoinSet<()>,
    retire: UnboundedSender<Arc<Record>>,
    judge: JoinHandle<Vec<Kept>>,
}

/// What a run came to.
#[derive(Debug, Clone)]
pub(crate) struct Summary {
    /// Operations by what became of them.
    counts: BTreeMap<&'static str, u64>,
    /// Keys used, each judged for itself.
    keys: u32,
    /// Of those, the ones that were read once more at the end.
    read_again: usize,
}

impl Summary {
    pub(crate) fn count(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or(0)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: u64 = self.counts.values().sum();
        write!(f, "{all} operations")?;
        for (name, count) in &self.counts {
            write!(f, ", {count} {name}")?;
        }
        write!(
            f,
            "; {} keys judged, {} of them read again at the end",
            self.keys, self.read_again
        )
    }
}

impl Load {
    /// Sets the clients to work. `run` names the run in what is left of a violation.
    pub(crate) fn start(cluster: &Cluster, run: &str, seed: u64) -> Self {
        let (retire, retired) = unbounded_channel();
        let (next_key, next_id) = (AtomicU32::new(0), AtomicU32::new(1));
        let slots = (0..HOT_KEYS + COLD_KEYS)
            .map(|place| Mutex::new(Slot::new(place, &next_key)))
            .collect();
        let shared = Arc::new(Shared {
            run: format!("{run}-seed-{seed}"),
            clock: TestClock(Instant::now()),
            fronts: Arc::clone(&cluster.front_urls),
            slots,
            next_key,
            next_id,
            stop: AtomicBool::new(false),
            failed: OnceLock::new(),
            counts: Mutex::default(),
            last_answer_us: (0..CLIENTS).map(|_| AtomicU64::new(0)).collect(),
            longest_gap_us: (0..CLIENTS).map(|_| AtomicU64::new(0)).collect(),
            slowest: Mutex::default(),
        });
        let mut clients = JoinSet::new();
        for client in 0..CLIENTS {
            let rng = StdRng::seed_from_u64(seed.wrapping_mul(1_000).wrapping_add(client.into()));
            clients.spawn(work(Arc::clone(&shared), retire.clone(), client, rng));
        }
        let judge = tokio::spawn(judge_all(Arc::clone(&shared), retired));
        Self {
            shared,
            clients,
            retire,
            judge,
        }
    }

    /// Lets the clients work for so long. Fails as soon as anything is found wrong.
    pub(crate) async fn go_on(&self, span: Duration) {
        let end = Instant::now() + span;
        while Instant::now() < end {
            self.check();
            tokio::time::sleep(LOOK_EVERY.min(span)).await;
        }
        self.check();
    }

    /// Fails when anything was found wrong.
    pub(crate) fn check(&self) {
        if let Some(wrong) = self.shared.failed.get() {
            panic!("{wrong}");
        }
    }

    /// True once every client was answered.
    pub(crate) fn all_answered(&self) -> bool {
        let answered = |last: &AtomicU64| last.load(Ordering::Relaxed) > 0;
        self.shared.last_answer_us.iter().all(answered)
    }

    /// Forgets the gaps so far.
    pub(crate) fn watch_gaps(&self) {
        let now = self.shared.clock.now_us();
        for (last, longest) in self.shared.last_answer_us.iter().zip(&self.shared.longest_gap_us) {
            last.fetch_max(now, Ordering::Relaxed);
            longest.store(0, Ordering::Relaxed);
        }
        *self.shared.slowest.lock().unwrap_or_else(PoisonError::into_inner) = Default::default();
    }

    /// The slowest operation since [`Self::watch_gaps`], and what it was told: why somebody had to wait.
    pub(crate) fn slowest(&self) -> String {
        let slowest = self.shared.slowest.lock().unwrap_or_else(PoisonError::into_inner);
        format!("{} ms: {}", slowest.0 / 1_000, slowest.1)
    }

    /// The longest time that a client of these fronts has been without an answer since [`Self::watch_gaps`].
    pub(crate) fn longest_gap(&self, fronts: &[usize]) -> Duration {
        let now = self.shared.clock.now_us();
        let gaps = (0..CLIENTS as usize)
            .filter(|client| fronts.contains(&(client % FRONTS)))
            .map(|client| {
                let open = now.saturating_sub(self.shared.last_answer_us[client].load(Ordering::Relaxed));
                open.max(self.shared.longest_gap_us[client].load(Ordering::Relaxed))
            });
        Duration::from_micros(gaps.max().unwrap_or(0))
    }

    /// Stops the clients, judges what is left, and reads every key once more: nothing acknowledged may be missing.
    pub(crate) async fn stop(mut self) -> Summary {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended.expect("a client that does not panic");
        }
        for slot in &self.shared.slots {
            let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
            let record = std::mem::replace(&mut slot.record, Arc::new(Record::new(0, String::new(), Kind::Plain)));
            // When the judge has ended, it has failed, which is told below.
            let _ = self.retire.send(record);
        }
        drop(self.retire);
        let kept = self.judge.await.expect("a judge that does not panic");
        if let Some(wrong) = self.shared.failed.get() {
            panic!("{wrong}");
        }
        let read_again_at_end = kept.len();
        read_again(&self.shared, kept).await;
        let counts = self
            .shared
            .counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        Summary {
            counts,
            keys: self.shared.next_key.load(Ordering::Relaxed),
            read_again: read_again_at_end,
        }
    }
}

impl Slot {
    fn new(place: usize, next_key: &AtomicU32) -> Self {
        let (uses_max, kind) = match place {
            0..HOT_KEYS => (
                HOT_USES,
                [Kind::Plain, Kind::Ending, Kind::Fenced, Kind::Lock][place % 4],
            ),
            // Mostly plain.
            _ => (
                COLD_USES,
                [
                    Kind::Plain,
                    Kind::Plain,
                    Kind::Plain,
                    Kind::Ending,
                    Kind::Plain,
                    Kind::Fenced,
                    Kind::Plain,
                    Kind::Lock,
                ][place % 8],
            ),
        };
        Self {
            record: fresh_record(kind, next_key),
            uses: 0,
            uses_max,
        }
    }
}

fn fresh_record(kind: Kind, next_key: &AtomicU32) -> Arc<Record> {
    let number = next_key.fetch_add(1, Ordering::Relaxed);
    Arc::new(Record::new(number, format!("soak-{number}"), kind))
}

impl Shared {
    /// The key of a place, for one use. What it replaces is given to the judge.
    fn key_of(&self, place: usize, retire: &UnboundedSender<Arc<Record>>) -> Arc<Record> {
        let mut slot = self.slots[place].lock().unwrap_or_else(PoisonError::into_inner);
        if slot.uses == slot.uses_max {
            let fresh = fresh_record(slot.record.kind, &self.next_key);
            let old = std::mem::replace(&mut slot.record, fresh);
            slot.uses = 0;
            let _ = retire.send(old);
        }
        slot.uses += 1;
        Arc::clone(&slot.record)
    }

    /// Some place: often one of the few hot ones.
    fn some_place(&self, rng: &mut StdRng) -> usize {
        if rng.random_range(0..100) < HOT_PERCENT {
            rng.random_range(0..HOT_KEYS)
        } else {
            rng.random_range(HOT_KEYS..self.slots.len())
        }
    }

    fn choose(&self, record: &Record, rng: &mut StdRng) -> What {
        let fresh = self.next_id.fetch_add(1, Ordering::Relaxed);
        mix::choose(record.kind, rng, self.clock.now_us(), fresh, record.seen())
    }

    fn url(&self, front: usize, path: &str) -> String {
        format!(
            "{}{path}",
            self.fronts.read().unwrap_or_else(PoisonError::into_inner)[front]
        )
    }

    fn fail(&self, why: String) {
        let _ = self.failed.set(why);
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Keeps the slowest operation. The operations of a batch take equally long: of these, one without an answer.
    fn note_slow(&self, took_us: u64, describe: impl FnOnce() -> String, told: &Told) {
        let mut slowest = self.slowest.lock().unwrap_or_else(PoisonError::into_inner);
        let is_blamed = !matches!(told, Told::Answer { .. }) && took_us + ALIKE_US > slowest.0;
        if took_us > slowest.0 + ALIKE_US || is_blamed {
            *slowest = (took_us, describe());
        }
    }

    /// Notes what a client was told of one operation.
    fn note(&self, record: &Record, client: u32, called: u64, what: &What, told: &Told) {
        let now = self.clock.now_us();
        self.note_slow(
            now - called,
            || format!("client {client}, {} at {called} us: {what:?}: {told:?}", record.name),
            told,
        );
        let became = record.note(client, called, now, what, told);
        let name = match became {
            Became::Answered => "ok",
            Became::Unavailable => "unavailable",
            Became::Unknown => "unknown",
            Became::Wrong(why) => return self.fail(format!("{}: {why}", record.name)),
        };
        *self
            .counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(name)
            .or_default() += 1;
        if name == "ok"
            && let Some(last) = self.last_answer_us.get(client as usize)
        {
            let gap = now.saturating_sub(last.swap(now, Ordering::Relaxed));
            self.longest_gap_us[client as usize].fetch_max(gap, Ordering::Relaxed);
        }
    }
}

/// One client, until all are to stop.
async fn work(shared: Arc<Shared>, retire: UnboundedSender<Arc<Record>>, client: u32, mut rng: StdRng) {
    let http = wire::client();
    let front = client as usize % FRONTS;
    let mut ticks = tokio::time::interval(ASK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !shared.stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        if rng.random_range(0..100) < BATCH_PERCENT {
            let places = (0..rng.random_range(BATCH_OPS))
                .map(|_| shared.some_place(&mut rng))
                .collect();
            batch(&shared, &retire, &http, client, front, places, &mut rng).await;
        } else {
            let record = shared.key_of(shared.some_place(&mut rng), &retire);
            let what = shared.choose(&record, &mut rng);
            let (method, path, body) = what.as_call(&record.name);
            let called = shared.clock.now_us();
            let told = wire::call(&http, method, shared.url(front, &path), body.as_ref()).await;
            shared.note(&record, client, called, &what, &told);
        }
    }
}

/// One batch: every operation is noted as if it had been called and told for itself.
async fn batch(
    shared: &Shared,
    retire: &UnboundedSender<Arc<Record>>,
    http: &Client,
    client: u32,
    front: usize,
    places: Vec<usize>,
    rng: &mut StdRng,
) {
    let mut asked = Vec::new();
    let mut ops = Vec::new();
    for place in places {
        let record = shared.key_of(place, retire);
        let what = shared.choose(&record, rng);
        if let Some(op) = what.as_batch_op(&record.name) {
            ops.push(op);
            asked.push((record, what));
        }
    }
    if asked.is_empty() {
        return;
    }
    let called = shared.clock.now_us();
    let told = wire::call(
        http,
        Method::POST,
        shared.url(front, "/kv/batch"),
        Some(&json!({ "ops": ops })),
    )
    .await;
    let results = match &told {
        Told::Answer { status: 200, body } => body["results"].as_array().cloned().unwrap_or_default(),
        _ => Vec::new(),
    };
    for (place, (record, what)) in asked.iter().enumerate() {
        let told = match (&told, results.get(place)) {
            (Told::Answer { .. }, Some(result)) => {
                let status = result["status"].as_u64().and_then(|status| u16::try_from(status).ok());
                wire::told(status.unwrap_or_default(), result.clone())
            }
            (Told::Answer { status, body }, None) => Told::Wrong(format!("a batch was answered with {status} {body}")),
            (told, _) => told.clone(),
        };
        shared.note(record, client, called, what, &told);
    }
}

/// Judges keys as they retire, until there will be no more. Gives those whose value stays.
async fn judge_all(shared: Arc<Shared>, mut retired: UnboundedReceiver<Arc<Record>>) -> Vec<Kept> {
    let http = wire::client();
    let (mut checker, mut kept) = (Checker::new(), Vec::new());
    while let Some(record) = retired.recv().await {
        // Whoever still asks something of it holds it.
        while Arc::strong_count(&record) > 1 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let last = match record.kind {
            Kind::Lock => None,
            Kind::Plain | Kind::Fenced | Kind::Ending => match read(&shared, &http, &record).await {
                Ok(last) => Some(last),
                Err(why) => {
                    shared.fail(why);
                    return kept;
                }
            },
        };
        if let (Kind::Plain | Kind::Fenced, Some(last)) = (record.kind, last) {
            kept.push(Kept {
                name: record.name.clone(),
                possible: record.possible(last),
            });
        }
        let run = shared.run.clone();
        let judged = tokio::task::spawn_blocking(move || {
            let verdict = judge(&mut checker, &run, &record);
            (checker, verdict)
        });
        let verdict;
        (checker, verdict) = judged.await.expect("a checker that does not panic");
        if let Err(violation) = verdict {
            shared.fail(violation);
            return kept;
        }
    }
    kept
}

/// Reads a retired key, over whichever kvfront answers, and notes it.
async fn read(shared: &Shared, http: &Client, record: &Record) -> Result<Option<u32>, String> {
    let begun = Instant::now();
    loop {
        for front in 0..FRONTS {
            let called = shared.clock.now_us();
            let told = get(shared, http, front, &record.name).await;
            shared.note(record, JUDGE, called, &What::Get, &told);
            match told {
                Told::Answer { .. } => return Ok(record.seen().value),
                told if begun.elapsed() > READ_WITHIN => {
                    return Err(format!(
                        "{} cannot be read within {READ_WITHIN:?}: {told:?}",
                        record.name
                    ));
                }
                _ => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }
}

async fn get(shared: &Shared, http: &Client, front: usize, key: &str) -> Told {
    wire::call(http, Method::GET, shared.url(front, &format!("/kv/{key}")), None).await
}

/// Reads every kept key once more: what was acknowledged is still there.
async fn read_again(shared: &Shared, kept: Vec<Kept>) {
    let http = wire::client();
    let lost = stream::iter(kept)
        .map(|kept| {
            let http = &http;
            async move {
                let record = Record::new(0, kept.name, Kind::Plain);
                let found = read(shared, http, &record).await;
                match found {
                    Ok(found) if kept.possible.contains(&found) => None,
                    found => Some(format!(
                        "{} is {found:?}, should be one of {:?}",
                        record.name, kept.possible
                    )),
                }
            }
        })
        .buffer_unordered(READERS)
        .filter_map(async |lost| lost)
        .collect::<Vec<_>>()
        .await;
    assert!(lost.is_empty(), "acknowledged writes are lost: {lost:#?}");
}
