//! Many worlds on several cores.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::kinds::Kind;
use crate::nemesis::Nemeses;
use crate::run::{Counts, Failure, Runner, Spec};
use crate::teeth::Wrong;
use crate::world::Limits;

/// Which worlds are run: of each kind in turn, the seeds from `seed` on, until something ends it.
#[derive(Debug, Clone)]
pub struct Sweep {
    /// Their kinds.
    pub kinds: Vec<&'static Kind>,
    /// The first seed.
    pub seed: u64,
    /// How many seeds of each kind, at most.
    pub seeds: u64,
    /// No world is begun once that many operations have been made.
    pub operations: u64,
    /// No world is begun after this time.
    pub time: Duration,
    /// Failures after which it ends.
    pub failures: usize,
    /// Worlds run at a time.
    pub jobs: usize,
    /// These nemeses, instead of what each seed would draw.
    pub nemeses: Option<Nemeses>,
    /// What is deliberately wrong.
    pub wrong: Option<Wrong>,
}

/// What a sweep came to.
#[derive(Debug, Default)]
pub struct Swept {
    /// All worlds together.
    pub counts: Counts,
    /// The worlds that failed, in the order of their seeds.
    pub failures: Vec<(Spec, Failure)>,
    /// How long it took.
    pub took: Duration,
}

impl Sweep {
    /// All seeds from `seed` on of these kinds, on one core, until the first failure.
    #[must_use]
    pub fn new(kinds: Vec<&'static Kind>, seed: u64) -> Self {
        Self {
            kinds,
            seed,
            seeds: u64::MAX,
            operations: u64::MAX,
            time: Duration::MAX,
            failures: 1,
            jobs: 1,
            nemeses: None,
            wrong: None,
        }
    }

    /// Runs them.
    #[must_use]
    pub fn run(&self) -> Swept {
        let started = Instant::now();
        let shared = Shared {
            next: AtomicU64::new(0),
            operations: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            swept: Mutex::default(),
        };
        std::thread::scope(|scope| {
            for _ in 1..self.jobs {
                scope.spawn(|| self.work(&shared, started));
            }
            self.work(&shared, started);
        });
        let mut swept = shared.swept.into_inner().unwrap_or_else(PoisonError::into_inner);
        swept.failures.sort_by_key(|(spec, _)| spec.seed);
        swept.took = started.elapsed();
        swept
    }

    fn work(&self, shared: &Shared, started: Instant) {
        let mut runner = Runner::new();
        let mut counts = Counts::default();
        while !shared.stop.load(Ordering::Relaxed) && started.elapsed() < self.time {
            let number = shared.next.fetch_add(1, Ordering::Relaxed);
            let Some(spec) = self.spec(number) else { break };
            let more = match runner.run(&spec) {
                Ok(more) => more,
                Err((failure, more)) => {
                    let mut swept = shared.lock();
                    swept.failures.push((spec, failure));
                    if swept.failures.len() >= self.failures {
                        shared.stop.store(true, Ordering::Relaxed);
                    }
                    more
                }
            };
            counts.add(more);
            let operations = shared.operations.fetch_add(more.operations, Ordering::Relaxed);
            if operations + more.operations >= self.operations {
                break;
            }
        }
        shared.lock().counts.add(counts);
    }

    fn spec(&self, number: u64) -> Option<Spec> {
        let kinds = self.kinds.len() as u64;
        let round = number / kinds;
        let kind = self.kinds.get(usize::try_from(number % kinds).ok()?)?;
        (round < self.seeds).then(|| Spec {
            kind,
            seed: self.seed.wrapping_add(round),
            nemeses: self.nemeses,
            limits: Limits::NONE,
            wrong: self.wrong,
            traced: false,
        })
    }
}

struct Shared {
    next: AtomicU64,
    operations: AtomicU64,
    stop: AtomicBool,
    swept: Mutex<Swept>,
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Swept> {
        // Only whole results are put in.
        self.swept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
