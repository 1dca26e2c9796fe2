//! Time, passed in so that tests can own it.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A reading of both clocks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Now {
    /// Seconds of a clock that never jumps, from any start: for how much time has passed.
    pub steady_sec: f64,
    /// Unix seconds: for what records say, such as `freeze_until`.
    pub unix_sec: f64,
}

/// Where the time comes from.
pub trait Clock: Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> Now;
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// The machine's clocks, the steady one starting at 0.
    #[must_use]
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Now {
        // A clock before 1970 counts as 1970: nothing is frozen then.
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            steady_sec: self.started.elapsed().as_secs_f64(),
            unix_sec: unix.as_secs_f64(),
        }
    }
}
