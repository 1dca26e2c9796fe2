//! What the clients of a run share: the keys in use, ids, the time, and what they were told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;
use tokio::sync::mpsc::UnboundedSender;

use super::cluster::FRONTS;
use super::load::CLIENTS;
use super::mix;
use super::record::{Became, Kind, Record, TestClock};
use super::what::What;
use super::wire::Told;

/// Keys that most operations go to: two of each kind.
const HOT_KEYS: usize = 8;
/// Keys that the others go to.
const COLD_KEYS: usize = 120;
/// Of a hundred operations, those on hot keys.
const HOT_PERCENT: u32 = 60;
/// Operations after which a hot key is retired. The checker judges as many within milliseconds.
const HOT_USES: u32 = 800;
/// The same of the others.
const COLD_USES: u32 = 40;
/// What hot keys are used for, in turn.
const HOT_KINDS: [Kind; 4] = [Kind::Plain, Kind::Ending, Kind::Fenced, Kind::Lock];
/// What the others are used for, in turn: mostly plain.
const COLD_KINDS: [Kind; 8] = [
    Kind::Plain,
    Kind::Plain,
    Kind::Plain,
    Kind::Ending,
    Kind::Plain,
    Kind::Fenced,
    Kind::Plain,
    Kind::Lock,
];
/// Operations that differ by less took equally long, microseconds.
const ALIKE_US: u64 = 1_000;

/// A place for a key, and how often the key there was used.
#[derive(Debug)]
struct Slot {
    record: Arc<Record>,
    uses: u32,
    uses_max: u32,
}

/// The shared state. None of its locks is held for long, or across an await.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Names the run in what is left of a violation.
    pub(crate) run: String,
    pub(crate) clock: TestClock,
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

impl Shared {
    pub(crate) fn new(run: String, fronts: Arc<RwLock<Vec<String>>>) -> Self {
        let next_key = AtomicU32::new(0);
        let hot = (0..HOT_KEYS).map(|place| (HOT_KINDS[place % HOT_KINDS.len()], HOT_USES));
        let cold = (0..COLD_KEYS).map(|place| (COLD_KINDS[place % COLD_KINDS.len()], COLD_USES));
        let slot = |(kind, uses_max)| {
            Mutex::new(Slot {
                record: fresh_record(kind, &next_key),
                uses: 0,
                uses_max,
            })
        };
        let slots = hot.chain(cold).map(slot).collect();
        let by_client = || (0..CLIENTS).map(|_| AtomicU64::new(0)).collect();
        Self {
            run,
            clock: TestClock(Instant::now()),
            fronts,
            slots,
            next_key,
            next_id: AtomicU32::new(1),
            stop: AtomicBool::new(false),
            failed: OnceLock::new(),
            counts: Mutex::default(),
            last_answer_us: by_client(),
            longest_gap_us: by_client(),
            slowest: Mutex::default(),
        }
    }

    /// Some key, for one use: often one of the few hot ones. A key that it replaces, because that was used often enough, goes to `retire`.
    pub(crate) fn some_key(&self, rng: &mut StdRng, retire: &UnboundedSender<Arc<Record>>) -> Arc<Record> {
        let place = if rng.random_range(0..100) < HOT_PERCENT {
            rng.random_range(0..HOT_KEYS)
        } else {
            rng.random_range(HOT_KEYS..self.slots.len())
        };
        let mut slot = lock(&self.slots[place]);
        if slot.uses == slot.uses_max {
            let fresh = fresh_record(slot.record.kind, &self.next_key);
            let old = std::mem::replace(&mut slot.record, fresh);
            slot.uses = 0;
            // When nobody takes it any more, the judge has failed, and the run with it.
            let _ = retire.send(old);
        }
        slot.uses += 1;
        Arc::clone(&slot.record)
    }

    /// Takes the keys that are still in use, when no client will use them any more.
    pub(crate) fn take_keys(&self) -> Vec<Arc<Record>> {
        let nothing = || Arc::new(Record::new(0, String::new(), Kind::Plain));
        let take = |slot: &Mutex<Slot>| std::mem::replace(&mut lock(slot).record, nothing());
        self.slots.iter().map(take).collect()
    }

    /// What a client does next to this key.
    pub(crate) fn choose(&self, record: &Record, rng: &mut StdRng) -> What {
        let fresh = self.next_id.fetch_add(1, Ordering::Relaxed);
        mix::choose(record.kind, rng, self.clock.now_us(), fresh, record.seen())
    }

    pub(crate) fn url(&self, front: usize, path: &str) -> String {
        let fronts = self.fronts.read().unwrap_or_else(PoisonError::into_inner);
        format!("{}{path}", fronts[front])
    }

    /// Ends the run: something is wrong.
    pub(crate) fn fail(&self, why: String) {
        // The first reason is the one to look at.
        let _ = self.failed.set(why);
        self.stop();
    }

    pub(crate) fn failure(&self) -> Option<&String> {
        self.failed.get()
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Notes what a client was told of one operation.
    pub(crate) fn note(&self, record: &Record, client: u32, called: u64, what: &What, told: &Told) {
        let now = self.clock.now_us();
        let describe = || format!("client {client}, {} at {called} us: {what:?}: {told:?}", record.name);
        self.note_slow(now - called, describe, told);
        let name = match record.note(client, called, now, what, told) {
            Became::Answered => "ok",
            Became::Unavailable => "unavailable",
            Became::Unknown => "unknown",
            Became::Wrong(why) => return self.fail(format!("{}: {why}", record.name)),
        };
        *lock(&self.counts).entry(name).or_default() += 1;
        let client = client as usize;
        if name == "ok"
            && let (Some(last), Some(longest)) = (self.last_answer_us.get(client), self.longest_gap_us.get(client))
        {
            let gap = now.saturating_sub(last.swap(now, Ordering::Relaxed));
            longest.fetch_max(gap, Ordering::Relaxed);
        }
    }

    /// Keeps the slowest operation. The operations of a batch take equally long: of these, one without an answer.
    fn note_slow(&self, took_us: u64, describe: impl FnOnce() -> String, told: &Told) {
        let mut slowest = lock(&self.slowest);
        let is_blamed = !matches!(told, Told::Answer { .. }) && took_us + ALIKE_US > slowest.0;
        if took_us > slowest.0 + ALIKE_US || is_blamed {
            *slowest = (took_us, describe());
        }
    }

    /// True once every client was answered.
    pub(crate) fn all_answered(&self) -> bool {
        self.last_answer_us.iter().all(|last| last.load(Ordering::Relaxed) > 0)
    }

    /// Forgets gaps and slow operations so far.
    pub(crate) fn watch_gaps(&self) {
        let now = self.clock.now_us();
        for (last, longest) in self.last_answer_us.iter().zip(&self.longest_gap_us) {
            last.fetch_max(now, Ordering::Relaxed);
            longest.store(0, Ordering::Relaxed);
        }
        *lock(&self.slowest) = Default::default();
    }

    /// The slowest operation since [`Self::watch_gaps`], and what it was told: why somebody had to wait.
    pub(crate) fn slowest(&self) -> String {
        let (took_us, what) = &*lock(&self.slowest);
        format!("{} ms: {what}", took_us / 1_000)
    }

    /// The longest time that a client of these fronts has been without an answer since [`Self::watch_gaps`].
    pub(crate) fn longest_gap(&self, fronts: &[usize]) -> Duration {
        let now = self.clock.now_us();
        let gap = |client: usize| {
            let open = now.saturating_sub(self.last_answer_us[client].load(Ordering::Relaxed));
            open.max(self.longest_gap_us[client].load(Ordering::Relaxed))
        };
        let theirs = (0..self.last_answer_us.len()).filter(|client| fronts.contains(&(client % FRONTS)));
        Duration::from_micros(theirs.map(gap).max().unwrap_or(0))
    }

    /// Operations by what became of them.
    pub(crate) fn counts(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.counts).clone()
    }

    /// Keys used so far.
    pub(crate) fn keys(&self) -> u32 {
        self.next_key.load(Ordering::Relaxed)
    }
}

fn fresh_record(kind: Kind, next_key: &AtomicU32) -> Arc<Record> {
    let number = next_key.fetch_add(1, Ordering::Relaxed);
    Arc::new(Record::new(number, format!("soak-{number}"), kind))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whoever panicked with it has failed the test already.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
