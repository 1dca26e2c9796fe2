//! Wall-clock time as a dependency, so that tests own it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Where the time of day comes from.
pub trait Clock: Send + Sync + 'static {
    /// Now, Unix seconds.
    fn now_unix_sec(&self) -> f64;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_unix_sec(&self) -> f64 {
        // A clock before 1970 is broken beyond what dispatching could mend; 0 keeps all arithmetic finite.
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0.0, |since| since.as_secs_f64())
    }
}
