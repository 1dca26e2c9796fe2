//! The machine's wall clock, as it is passed to whoever depends on it.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Where wall-clock time comes from: Unix milliseconds. Tests pass their own.
pub type WallClock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// This machine's clock.
///
/// In builds with debug assertions, and in no others, the environment variable `TEST_CLOCK_OFFSET_FILE` may name a file with a signed number
/// of milliseconds, by which the clock is then wrong; the file is read again every 20 ms, and a missing or empty one means 0.
#[must_use]
pub fn system_clock() -> WallClock {
    let clock: WallClock = Arc::new(|| {
        // Before 1970 counts as 1970: whoever is asked with such a clock refuses it, with an error that says so.
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
