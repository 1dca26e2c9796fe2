//! One client: its connection, its operations one after the other, and what became of them.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{sleep, timeout};

use crate::client::{Client, Connect, OpError, Swap, value};
use crate::pace::Pace;
use crate::work::{BATCH_KEYS, HOT_KEY, Keys, MIX_GET_PERCENT, SCAN_KEYS, Work, loaded_key};

/// How long one operation may take.
pub(crate) const OP_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause before a connection that could not be opened is tried again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);
/// Longest latency told apart, microseconds; longer ones count as this.
const MAX_LATENCY_US: u64 = 60_000_000;
/// Significant decimal digits of latencies.
const LATENCY_DIGITS: u8 = 3;

/// What all clients of one measurement do.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) work: Work,
    /// Loaded keys.
    pub(crate) loaded: u64,
    /// Which of them are asked for.
    pub(crate) keys: Keys,
    /// Part of the names of new keys: never the same twice.
    pub(crate) tag: String,
}

/// The measured time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    /// When counting begins; what ends before is warm-up.
    pub(crate) start: Instant,
    /// When it ends.
    pub(crate) end: Instant,
}

/// Latencies in microseconds.
pub(crate) type Latencies = Histogram<u32>;

pub(crate) fn no_latencies() -> Latencies {
    Histogram::new_with_bounds(1, MAX_LATENCY_US, LATENCY_DIGITS)
        .expect("the bounds are constants in the allowed order")
}

pub(crate) fn record(latencies: &mut Latencies, latency: Duration) {
    latencies.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(MAX_LATENCY_US));
}

/// Failures of one kind.
#[derive(Debug, Clone, Default)]
pub(crate) struct Failures {
    pub(crate) count: u64,
    /// The text of the first.
    pub(crate) first: String,
}

/// What became of one client's operations.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Successes that ended between start and end.
    pub(crate) done: u64,
    /// Of what ended after the start.
    pub(crate) latencies: Latencies,
    /// Likewise.
    pub(crate) failures: BTreeMap<&'static str, Failures>,
    /// Swaps of the hot key that somebody else was faster than; likewise.
    pub(crate) lost: u64,
    /// Increments of the hot key, warm-up included.
    pub(crate) increments: u64,
    /// Attempts whose effect is not known, warm-up included.
    pub(crate) unsure: u64,
}

impl Tally {
    pub(crate) fn empty() -> Self {
        Self {
            done: 0,
            latencies: no_latencies(),
            failures: BTreeMap::new(),
            lost: 0,
            increments: 0,
            unsure: 0,
        }
    }

    fn fail(&mut self, error: &OpError) {
        let failures = self.failures.entry(error.kind()).or_default();
        failures.count += 1;
        if failures.first.is_empty() {
            failures.first = error.to_string();
        }
    }
}

/// How an operation ended that did not fail.
#[derive(Debug, PartialEq)]
enum Ended {
    Done,
    /// The time was over before it succeeded (only where it tries again and again).
    GaveUp,
}

/// A client.
pub(crate) struct Worker<S: Connect> {
    system: S,
    client: S::Client,
    number: usize,
    job: Arc<Job>,
    random: SmallRng,
    /// Counts its changes.
    made: u64,
    /// The number in the key that it changes conditionally, and its version.
    known: Option<(u64, <S::Client as Client>::Version)>,
    tally: Tally,
}

impl<S: Connect> Worker<S> {
    /// Connects, and makes the client's own key if there is to be one.
    pub(crate) async fn prepare(system: S, number: usize, job: Arc<Job>) -> Result<Self, OpError> {
        let mut client = timed(system.connect(number)).await?;
        if job.work == Work::CasUpdate {
            timed(client.put(&own_key(number), &value(0))).await?;
        }
        Ok(Self {
            system,
            client,
            number,
            random: SmallRng::seed_from_u64(number as u64),
            job,
            made: 0,
            known: None,
            tally: Tally::empty(),
        })
    }

    /// Works until the pace says that the time is over.
    pub(crate) async fn run(mut self, pace: Pace, span: Span) -> Tally {
        while let Some(due) = pace.next().await {
            let ended = self.operation(span).await;
            let now = Instant::now();
            match ended {
                Ok(Ended::Done) => self.count(due, now, span),
                Ok(Ended::GaveUp) => {}
                Err(error) => self.recover(&error, now, span).await,
            }
        }
        self.tally
    }

    fn count(&mut self, due: Instant, now: Instant, span: Span) {
        if now < span.start {
            return;
        }
        record(&mut self.tally.latencies, now - due);
        if now <= span.end {
            self.tally.done += 1;
        }
    }

    async fn recover(&mut self, error: &OpError, now: Instant, span: Span) {
        self.known = None;
        self.tally.unsure += 1;
        if now >= span.start {
            self.tally.fail(error);
        }
        while error.is_broken() && Instant::now() < span.end {
            match timed(self.system.connect(self.number)).await {
                Ok(client) => {
                    self.client = client;
                    return;
                }
                Err(error) => {
                    self.tally.fail(&error);
                    sleep(RECONNECT_PAUSE).await;
                }
            }
        }
    }

    async fn operation(&mut self, span: Span) -> Result<Ended, OpError> {
        self.made += 1;
        match self.job.work {
            Work::Get => self.get().await?,
            Work::Put => self.put().await?,
            Work::CasCreate => {
                let key = format!("bench-new-{}-{}-{}", self.job.tag, self.number, self.made);
                timed(self.client.create(&key, &value(self.made))).await?;
            }
            Work::CasUpdate => self.update_own().await?,
            Work::CasHot => return self.increment(span).await,
            Work::Mix if self.random.random_range(0..100) < MIX_GET_PERCENT => self.get().await?,
            Work::Mix => self.put().await?,
            Work::Batch => {
                let keys = self.neighbours(BATCH_KEYS);
                timed(self.client.put_all(&keys, &value(self.made))).await?;
            }
            Work::Scan => {
                let last = self.job.loaded - SCAN_KEYS as u64; // checked in the settings
                let after = match self.random.random_range(0..=last) {
                    0 => String::new(),
                    first => loaded_key(first - 1),
                };
                timed(self.client.scan(&after, SCAN_KEYS)).await?;
            }
            Work::Lock => timed(self.client.lock_unlock(&format!("bench-lock-{}", self.number))).await?,
        }
        Ok(Ended::Done)
    }

    async fn get(&mut self) -> Result<(), OpError> {
        let key = self.any_key();
        timed(self.client.get(&key)).await
    }

    async fn put(&mut self) -> Result<(), OpError> {
        let key = self.any_key();
        timed(self.client.put(&key, &value(self.made))).await
    }

    async fn update_own(&mut self) -> Result<(), OpError> {
        let key = own_key(self.number);
        let (number, version) = self.known(&key).await?;
        match timed(self.client.swap(&key, &version, &value(number + 1))).await? {
            Swap::Won(version) => self.known = Some((number + 1, version)),
            Swap::Lost(now, _) => {
                return Err(OpError::wrong(format!("{key} has {now}, nobody else changes it")));
            }
        }
        Ok(())
    }

    /// One more on the hot key. A swap that is lost tells what is there now, and the next is tried from that.
    async fn increment(&mut self, span: Span) -> Result<Ended, OpError> {
        let (mut number, mut version) = self.known(HOT_KEY).await?;
        loop {
            match timed(self.client.swap(HOT_KEY, &version, &value(number + 1))).await? {
                Swap::Won(version) => {
                    self.known = Some((number + 1, version));
                    self.tally.increments += 1;
                    return Ok(Ended::Done);
                }
                Swap::Lost(now, newer) => (number, version) = (now, newer),
            }
            let now = Instant::now();
            if now >= span.end {
                return Ok(Ended::GaveUp);
            }
            self.tally.lost += u64::from(now >= span.start);
        }
    }

    /// What this client last knew of the key, or else what is there.
    async fn known(&mut self, key: &str) -> Result<(u64, <S::Client as Client>::Version), OpError> {
        match self.known.take() {
            Some(known) => Ok(known),
            None => timed(self.client.current(key)).await,
        }
    }

    fn any_key(&mut self) -> String {
        loaded_key(self.job.keys.draw(&mut self.random))
    }

    /// So many keys in a row, from anywhere.
    fn neighbours(&mut self, count: usize) -> Vec<String> {
        let first = self.job.keys.draw(&mut self.random);
        let number = |i| (first + i) % self.job.loaded;
        (0..count as u64).map(|i| loaded_key(number(i))).collect()
    }
}

fn own_key(client: usize) -> String {
    format!("bench-own-{client}")
}

/// Gives up waiting in time.
pub(crate) async fn timed<T>(operation: impl Future<Output = Result<T, OpError>> + Send) -> Result<T, OpError> {
    timeout(OP_TIMEOUT, operation).await.unwrap_or(Err(OpError::Timeout))
}
