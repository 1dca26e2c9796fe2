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
///
/// In builds with debug assertions, and in no others, the environment variable `TEST_CLOCK_OFFSET_FILE` may name a file with a signed number
/// of milliseconds, by which the clock is then wrong; the file is read again every 20 ms, and a missing or empty one means 0.
#[must_use]
pub fn system_clock() -> WallClock {
    let clock: WallClock = Arc::new(|| {
        // Before 1970 counts as 1970: the nodes will refuse such a clock, with an error that says so.
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
    });
    #[cfg(debug_assertions)]
    let clock = bent::bent(clock);
    clock
}

/// Test builds only: the file named by `TEST_CLOCK_OFFSET_FILE` bends the machine's clock.
#[cfg(debug_assertions)]
mod bent {
    use std::path::PathBuf;
    use std::sync::{Arc, Mutex, PoisonError};
    use std::time::{Duration, Instant};

    use super::WallClock;

    /// Names a file that holds a signed number of milliseconds.
    const OFFSET_FILE_VARIABLE: &str = "TEST_CLOCK_OFFSET_FILE";
    /// The file is read again no sooner than this after the last time.
    const READ_AGAIN_AFTER: Duration = Duration::from_millis(20);

    /// `clock`, moved by what the file says; itself, when no file is named.
    pub(super) fn bent(clock: WallClock) -> WallClock {
        let Some(file) = std::env::var_os(OFFSET_FILE_VARIABLE).map(PathBuf::from) else {
            return clock;
        };
        let last = Mutex::new(None);
        Arc::new(move || {
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            let offset_ms = match *last {
                Some((read_at, offset_ms)) if Instant::now() < read_at + READ_AGAIN_AFTER => offset_ms,
                _ => {
                    // A missing or empty file is no offset.
                    let text = std::fs::read_to_string(&file).unwrap_or_default();
                    let offset_ms = text.trim().parse::<i64>().unwrap_or(0);
                    *last = Some((Instant::now(), offset_ms));
                    offset_ms
                }
            };
            clock().saturating_add_signed(offset_ms)
        })
    }
}

/// The hybrid logical clock and what the coordinator remembers, behind one lock.
pub struct Clocks {
    coordinator: Mutex<Coordinator>,
    max_skew_ms: u64,
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
            max_skew_ms,
            wall,
        }
    }

    /// How far apart the clocks of two machines may be, in milliseconds.
    #[must_use]
    pub fn max_skew_ms(&self) -> u64 {
        self.max_skew_ms
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

    /// The coordinator's incarnation: who is asking.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.lock().clock.incarnation()
    }

    /// By how many milliseconds the hybrid clock is ahead of the wall clock, when that is more than merging allows: then the wall clock was
    /// further ahead itself, and has been set back.
    ///
    /// The hybrid clock does not follow it. What is under way rests on ballots that only rise: a change that was lost is buried by one
    /// above it, a repetition finds what came after its first ballot, and a node's floor is put above all ballots seen. Only a new start
    /// leaves all of that behind.
    #[must_use]
    pub fn ahead_of_wall_ms(&self) -> Option<u64> {
        let last = self.lock().clock.last();
        let ahead_ms = last.unix_ms().saturating_sub(self.now_unix_ms());
        (ahead_ms > self.max_skew_ms).then_some(ahead_ms)
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const MAX_SKEW_MS: u64 = 500;
    const HOUR_MS: u64 = 3_600_000;
    const NOW_MS: u64 = 1_800_000_000_000;

    #[test]
    fn a_wall_clock_that_was_set_back_is_noticed_and_not_followed() {
        let now_ms = Arc::new(AtomicU64::new(NOW_MS));
        let wall: WallClock = Arc::new({
            let now_ms = Arc::clone(&now_ms);
            move || now_ms.load(Ordering::Relaxed)
        });
        let clocks = Clocks::new(MAX_SKEW_MS, Limits::default(), wall);
        assert_eq!(clocks.ahead_of_wall_ms(), None, "before anything");
        clocks.observe(HlcTime::from_unix_ms(NOW_MS + MAX_SKEW_MS)).unwrap();
        assert_eq!(clocks.ahead_of_wall_ms(), None, "a node may be that far ahead");
        now_ms.store(NOW_MS + HOUR_MS, Ordering::Relaxed);
        let drawn = clocks.tick();
        assert_eq!(clocks.ahead_of_wall_ms(), None, "it does not know of itself");
        now_ms.store(NOW_MS, Ordering::Relaxed);
        assert_eq!(clocks.ahead_of_wall_ms(), Some(HOUR_MS));
        assert!(clocks.tick() > drawn, "no ballot is drawn twice");
        now_ms.store(NOW_MS + HOUR_MS - MAX_SKEW_MS, Ordering::Relaxed);
        assert_eq!(clocks.ahead_of_wall_ms(), None, "time has caught up with it");
    }
}
