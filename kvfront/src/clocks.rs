//! The coordinator's clock and memory, shared by every operation of this kvfront.
//!
//! One mutex around `register`'s [`Coordinator`]: held for the length of one state-machine step, never across an `await`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use register::HlcTime;
use register::ballot::SkewError;
use register::proposer::{Action, Coordinator, Event, Limits, Operation};

/// Where wall-clock time comes from: Unix milliseconds. Tests pass their own.
pub type WallClock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// This machine's clock.
#[must_use]
pub fn system_clock() -> WallClock {
    Arc::new(|| {
        // Before 1970 counts as 1970: the nodes will refuse such a clock, with an error that says so.
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
    })
}

/// The hybrid logical clock and what the coordinator remembers, behind one lock.
pub struct Clocks {
    coordinator: Mutex<Coordinator>,
    wall: WallClock,
}

impl std::fmt::Debug for Clocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clocks").finish_non_exhaustive()
    }
}

impl Clocks {
    /// A coordinator of a fresh incarnation, drawn at random: ballots of different starts never meet.
    #[must_use]
    pub fn new(max_skew_ms: u64, limits: Limits, wall: WallClock) -> Self {
        let coordinator = Coordinator::new(rand::random(), max_skew_ms, limits, rand::random());
        Self {
            coordinator: Mutex::new(coordinator),
            wall,
        }
    }

    /// Unix milliseconds by the wall clock.
    #[must_use]
    pub fn now_unix_ms(&self) -> u64 {
        (self.wall)()
    }

    /// A new reading of the hybrid clock, for an envelope.
    #[must_use]
    pub fn tick(&self) -> HlcTime {
        let now = self.now_unix_ms();
        self.lock().clock.tick(now)
    }

    /// Merges a node's reading.
    ///
    /// # Errors
    /// The reading is too far ahead of this machine's clock; it was not merged.
    pub fn observe(&self, other: HlcTime) -> Result<(), SkewError> {
        let now = self.now_unix_ms();
        self.lock().clock.observe(other, now)
    }

    /// Random bits from the coordinator's process, for request ids.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.lock().clock.incarnation()
    }

    /// One step of an operation.
    pub(crate) fn step(&self, operation: &mut Operation, event: Event) -> Vec<Action> {
        let now = self.now_unix_ms();
        operation.handle(&mut self.lock(), now, event)
    }

    fn lock(&self) -> MutexGuard<'_, Coordinator> {
        // A panic inside a step could leave what is remembered about one key half-made; what is remembered may only propose, never
        // answer, so going on is safe.
        self.coordinator.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
