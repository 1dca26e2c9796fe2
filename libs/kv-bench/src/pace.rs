//! When operations begin. Closed loop: as soon as the client's last one has ended. Open loop: at a fixed rate, whatever the servers do; the
//! latency of an operation counts from the instant it was due, so a stall is seen by everything that should have happened during it
//! (no coordinated omission).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

/// When a client's next operation is due.
#[derive(Debug, Clone)]
pub(crate) enum Pace {
    /// At once, until this instant.
    Closed(Instant),
    /// By a schedule that all clients share.
    Open(Arc<Arrivals>),
}

impl Pace {
    /// Waits for the next operation and tells when it was due; nothing once the time is over.
    pub(crate) async fn next(&self) -> Option<Instant> {
        match self {
            Self::Closed(end) => Some(Instant::now()).filter(|now| now < end),
            Self::Open(arrivals) => arrivals.take().await,
        }
    }
}

/// A schedule of operations at a fixed rate. Whichever client is free takes the next one.
#[derive(Debug)]
pub(crate) struct Arrivals {
    begin: Instant,
    end: Instant,
    /// Operations a second.
    rate: f64,
    /// One permit for each operation that is due and that nobody has taken.
    due: Semaphore,
    taken: AtomicU64,
}

impl Arrivals {
    pub(crate) fn new(rate: f64, begin: Instant, end: Instant) -> Self {
        Self {
            begin,
            end,
            rate,
            due: Semaphore::new(0),
            taken: AtomicU64::new(0),
        }
    }

    /// When operation `number` is due.
    fn due_at(&self, number: u64) -> Instant {
        self.begin + Duration::from_secs_f64(number as f64 / self.rate)
    }

    async fn take(&self) -> Option<Instant> {
        self.due.acquire().await.ok()?.forget();
        Some(self.due_at(self.taken.fetch_add(1, Ordering::Relaxed)))
    }

    /// Lets operations become due until the end. Blocks: the timers of tokio are good to a millisecond only, a sleeping thread is to some
    /// fifty microseconds.
    pub(crate) fn run(&self) {
        let mut issued = 0;
        loop {
            let now = Instant::now();
            let mut fresh = 0;
            while self.due_at(issued) <= now && self.due_at(issued) < self.end {
                issued += 1;
                fresh += 1;
            }
            self.due.add_permits(fresh);
            let next = self.due_at(issued).min(self.end);
            if now >= self.end {
                break;
            }
            std::thread::sleep(next.saturating_duration_since(now));
        }
        self.due.close();
    }

    /// How long each operation that became due from `since` on, and that nobody has begun, had waited at the end.
    pub(crate) fn left(&self, since: Instant) -> impl Iterator<Item = Duration> {
        (self.taken.load(Ordering::Relaxed)..)
            .map(|number| self.due_at(number))
            .take_while(|due| *due < self.end)
            .filter(move |due| *due >= since)
            .map(|due| self.end - due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(rate: f64, length: Duration) -> Arrivals {
        let begin = Instant::now();
        Arrivals::new(rate, begin, begin + length)
    }

    #[test]
    fn operations_are_due_at_even_distances() {
        let arrivals = arrivals(200.0, Duration::from_secs(1));
        for number in [0, 1, 7, 199] {
            let after = arrivals.due_at(number) - arrivals.begin;
            let expected = Duration::from_millis(5 * number);
            assert!(after.abs_diff(expected) < Duration::from_micros(1), "{after:?}");
        }
    }

    #[tokio::test]
    async fn whoever_is_late_is_told_when_it_was_due() {
        let arrivals = arrivals(1_000.0, Duration::from_millis(20));
        // Everything has been due for a while before the first client comes.
        arrivals.due.add_permits(20);
        assert_eq!(arrivals.take().await, Some(arrivals.begin));
        assert_eq!(arrivals.take().await, Some(arrivals.due_at(1)));
    }

    #[tokio::test]
    async fn what_nobody_began_is_left_with_its_age() {
        let arrivals = arrivals(1_000.0, Duration::from_millis(20));
        arrivals.due.add_permits(20);
        for _ in 0..15 {
            arrivals.take().await;
        }
        let ages: Vec<_> = arrivals.left(arrivals.begin).map(|age| age.as_micros()).collect();
        assert_eq!(ages.len(), 5);
        assert!(ages[0].abs_diff(5_000) <= 1 && ages[4].abs_diff(1_000) <= 1, "{ages:?}");
        assert_eq!(arrivals.left(arrivals.due_at(18)).count(), 2);
    }

    #[test]
    fn the_schedule_runs_to_its_end_and_closes() {
        let arrivals = arrivals(1_000.0, Duration::from_millis(20));
        arrivals.run();
        assert!(Instant::now() >= arrivals.end);
        assert!(arrivals.due.is_closed());
        assert_eq!(arrivals.due.available_permits(), 20);
    }
}
