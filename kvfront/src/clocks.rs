//! The coordinator's clock and memory, shared by every operation of this kvfront.
//!
//! One mutex around `register`'s [`Coordinator`]: held for the length of one state-machine step, never across an `await`.

use std::sync::{Mutex, MutexGuard, PoisonError};

use register::HlcTime;
use register::ballot::SkewError;
use register::proposer::{Action, Coordinator, Event, Limits, Operation};
use service::clock::WallClock;

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
    use std::sync::Arc;
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
