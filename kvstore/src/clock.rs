//! The node's hybrid logical clock, over a wall clock that is passed in.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use register::ballot::{Clock, SkewError};
use register::{Ballot, HlcTime};
use service::clock::WallClock;

/// A node's clock. Clones share it.
#[derive(Clone)]
pub struct NodeClock {
    wall: WallClock,
    max_skew_ms: u64,
    clock: Arc<Mutex<Clock>>,
}

impl std::fmt::Debug for NodeClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeClock")
            .field("clock", &*self.lock())
            .finish_non_exhaustive()
    }
}

impl NodeClock {
    /// A clock that stamps `incarnation` into its ballots and resumes above what was stored before.
    #[must_use]
    pub fn new(incarnation: u64, max_skew_ms: u64, resume_above: HlcTime, wall: WallClock) -> Self {
        Self {
            wall,
            max_skew_ms,
            clock: Arc::new(Mutex::new(Clock::new(incarnation, max_skew_ms, resume_above))),
        }
    }

    /// Unix milliseconds of the wall clock.
    #[must_use]
    pub fn now_unix_ms(&self) -> u64 {
        (self.wall)()
    }

    /// A reading for an answer: not below the wall clock, nor below any ballot the node has taken, promised or drawn. Several answers may
    /// tell the same one.
    ///
    /// The wall clock's part in it is told and not kept, here or on the disk: what was wrong only because the wall clock was is gone once
    /// that is mended. A node orders nothing by what it tells.
    #[must_use]
    pub fn read(&self) -> HlcTime {
        let now = HlcTime::from_unix_ms(self.now_unix_ms());
        now.max(self.last())
    }

    /// The incarnation it stamps into ballots.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.lock().incarnation()
    }

    /// Stamps another incarnation from now on; the readings go on.
    pub fn set_incarnation(&self, incarnation: u64) {
        let mut clock = self.lock();
        *clock = Clock::new(incarnation, self.max_skew_ms, clock.last());
    }

    /// How far ahead of the wall clock another clock may be, in milliseconds.
    #[must_use]
    pub fn max_skew_ms(&self) -> u64 {
        self.max_skew_ms
    }

    /// The highest reading drawn or merged so far.
    #[must_use]
    pub fn last(&self) -> HlcTime {
        self.lock().last()
    }

    /// Merges a sender's clock.
    ///
    /// # Errors
    /// When it is further ahead of the wall clock than the skew bound; then nothing is merged.
    pub fn observe(&self, other: HlcTime) -> Result<(), SkewError> {
        let now_unix_ms = self.now_unix_ms();
        self.lock().observe(other, now_unix_ms)
    }

    /// A ballot above everything seen.
    #[must_use]
    pub fn ballot(&self) -> Ballot {
        let now_unix_ms = self.now_unix_ms();
        self.lock().ballot(now_unix_ms)
    }

    /// A ballot that is also above `other`.
    ///
    /// # Errors
    /// When `other` is further ahead of the wall clock than the skew bound.
    pub fn ballot_above(&self, other: Ballot) -> Result<Ballot, SkewError> {
        let now_unix_ms = self.now_unix_ms();
        self.lock().ballot_above(other, now_unix_ms)
    }

    fn lock(&self) -> MutexGuard<'_, Clock> {
        // A clock is a few integers; it is whole at every point.
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const MAX_SKEW_MS: u64 = 500;
    const HOUR_MS: u64 = 3_600_000;
    const NOW_MS: u64 = 1_800_000_000_000;

    /// A clock that resumes above `resume_above`, and its wall clock.
    fn bench(resume_above: HlcTime) -> (NodeClock, Arc<AtomicU64>) {
        let now_ms = Arc::new(AtomicU64::new(NOW_MS));
        let wall: WallClock = Arc::new({
            let now_ms = Arc::clone(&now_ms);
            move || now_ms.load(Ordering::Relaxed)
        });
        (NodeClock::new(7, MAX_SKEW_MS, resume_above, wall), now_ms)
    }

    #[test]
    fn a_wall_clock_that_was_ahead_is_forgotten_once_it_is_mended() {
        let (clock, now_ms) = bench(HlcTime::ZERO);
        let coordinator = HlcTime::from_unix_ms(NOW_MS + 400);
        clock.observe(coordinator).unwrap();
        now_ms.store(NOW_MS + HOUR_MS, Ordering::Relaxed);
        assert_eq!(clock.read(), HlcTime::from_unix_ms(NOW_MS + HOUR_MS));
        assert_eq!(clock.last(), coordinator, "which is what goes to the disk");
        now_ms.store(NOW_MS, Ordering::Relaxed);
        assert_eq!(clock.read(), coordinator);
        now_ms.store(NOW_MS + 401, Ordering::Relaxed);
        assert_eq!(clock.read(), HlcTime::from_unix_ms(NOW_MS + 401));
    }

    #[test]
    fn what_is_told_is_never_below_what_was_taken() {
        let stored = HlcTime::from_unix_ms(NOW_MS + 300);
        let (clock, now_ms) = bench(stored);
        assert_eq!(clock.read(), stored);
        let merged = stored.next();
        clock.observe(merged).unwrap();
        clock.observe(HlcTime::from_unix_ms(NOW_MS)).unwrap();
        assert_eq!(clock.read(), merged);
        now_ms.store(NOW_MS - HOUR_MS, Ordering::Relaxed);
        assert_eq!(clock.read(), merged, "whatever the wall clock does");
        clock.set_incarnation(8);
        assert_eq!(clock.read(), merged);
    }

    #[test]
    fn ballots_of_its_own_are_never_drawn_twice() {
        let (clock, now_ms) = bench(HlcTime::ZERO);
        now_ms.store(NOW_MS + HOUR_MS, Ordering::Relaxed);
        let first = clock.ballot();
        assert_eq!(first.time, HlcTime::from_unix_ms(NOW_MS + HOUR_MS));
        now_ms.store(NOW_MS, Ordering::Relaxed);
        assert_eq!(clock.read(), first.time, "a stored change may carry it");
        assert!(clock.ballot() > first);
    }
}
