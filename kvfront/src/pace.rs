//! A limit on how fast upkeep goes through keys, so that it leaves the nodes to their users.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// What was not used of this time may be caught up with.
const BURST: Duration = Duration::from_millis(50);

/// So many turns a second, for all who share it.
#[derive(Debug)]
pub(crate) struct Pace {
    every: Duration,
    next: Mutex<Instant>,
}

impl Pace {
    pub(crate) fn new(per_second: u32) -> Self {
        Self {
            every: Duration::from_secs(1) / per_second.max(1),
            next: Mutex::new(Instant::now()),
        }
    }

    /// Waits for the next turn. Whoever stops waiting has used it up.
    pub(crate) async fn turn(&self) {
        sleep_until(self.next_turn(Instant::now())).await;
    }

    fn next_turn(&self, now: Instant) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let at = (*next).max(now.checked_sub(BURST).unwrap_or(now));
        *next = at + self.every;
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_so_many_a_second() {
        let pace = Pace::new(100);
        let start = Instant::now() + Duration::from_secs(10);
        let last = (0..205).map(|_| pace.next_turn(start)).last().unwrap();
        let took = last - start;
        assert!(
            took >= Duration::from_millis(1_900) && took <= Duration::from_millis(2_100),
            "{took:?}: an idle time is not saved up"
        );
    }
}
