//! The retry budget: how many requests may be sent a second time.
//!
//! Promises: in the long run at most a share of all requests is repeated, and a few a second in any case; what was not used is saved for
//! [`RETRY_WINDOW`], so that a gateway that dies with all its requests under way costs none of them, while gateways that break off again and again
//! are not asked twice as much as before. Requests that are not repeated pay nothing: only who wants to repeat looks how many there were.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::limits::RETRY_WINDOW;

/// A balance that fills with every request and leaks with time.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    /// Repetitions per request.
    share: f64,
    min_per_sec: f64,
    account: Mutex<Account>,
}

#[derive(Debug)]
struct Account {
    balance: f64,
    /// Requests up to the last look.
    requests: usize,
    at: Instant,
}

impl RetryBudget {
    pub(crate) fn new(share: f64, min_per_sec: f64, now: Instant) -> Self {
        Self {
            share,
            min_per_sec,
            account: Mutex::new(Account {
                balance: min_per_sec * RETRY_WINDOW.as_secs_f64(),
                requests: 0,
                at: now,
            }),
        }
    }

    /// Takes one repetition, if there is one. `requests`: how often a gateway has been picked since the start (it may wrap).
    pub(crate) fn take(&self, requests: usize, now: Instant) -> bool {
        // The account is whole between any two statements, so a poisoned lock is still good.
        let mut account = self.account.lock().unwrap_or_else(PoisonError::into_inner);
        let window_sec = RETRY_WINDOW.as_secs_f64();
        let passed = now.saturating_duration_since(account.at).as_secs_f64() / window_sec;
        let fresh = requests.wrapping_sub(account.requests);
        // Another worker may have counted more already.
        let fresh = if fresh > usize::MAX / 2 { 0 } else { fresh };
        let kept = (-passed).exp();
        // What requests spread evenly over the time would have left; all of it when no time has passed.
        let left = if passed > 1e-9 { (1.0 - kept) / passed } else { 1.0 };
        account.balance =
            account.balance * kept + fresh as f64 * self.share * left + self.min_per_sec * window_sec * (1.0 - kept);
        account.requests = account.requests.wrapping_add(fresh);
        account.at = account.at.max(now);
        if account.balance < 1.0 {
            return false;
        }
        account.balance -= 1.0;
        // The repetition is a pick too, but not a request that earns one.
        account.requests = account.requests.wrapping_add(1);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// How many of `wanted` are granted.
    fn granted(budget: &RetryBudget, wanted: usize, requests: usize, now: Instant) -> usize {
        (0..wanted).filter(|_| budget.take(requests, now)).count()
    }

    #[test]
    fn a_burst_is_covered_and_then_only_the_share() {
        let start = Instant::now();
        let budget = RetryBudget::new(0.2, 0.0, start);
        assert_eq!(granted(&budget, 5, 0, start), 0, "nothing was earned yet");
        // 1,000 requests a second, for long: a fifth of the last window's is there at once.
        let now = start + RETRY_WINDOW * 100;
        let per_window = usize::try_from(RETRY_WINDOW.as_secs()).unwrap() * 1000;
        let saved = granted(&budget, 50_000, per_window * 100, now);
        assert!((1900..=2001).contains(&saved), "{saved}");
        // From then on, when everything breaks off, a fifth.
        let (mut requests, mut repeated) = (per_window * 100 + saved, 0);
        for second in 1..=50 {
            requests += 1000;
            let more = granted(&budget, 1000, requests, now + Duration::from_secs(second));
            requests += more;
            repeated += more;
        }
        assert!((9_000..=10_000).contains(&repeated), "{repeated} of 50,000");
    }

    #[test]
    fn a_few_are_granted_in_any_case_and_none_when_there_is_no_budget() {
        let start = Instant::now();
        let few = RetryBudget::new(0.0, 10.0, start);
        assert_eq!(granted(&few, 1000, 0, start), 100, "those of one window");
        assert_eq!(granted(&few, 1000, 0, start), 0);
        let later = granted(&few, 1000, 0, start + Duration::from_secs(1));
        assert!((9..=10).contains(&later), "{later}");
        let none = RetryBudget::new(0.0, 0.0, start);
        assert_eq!(granted(&none, 10, 1_000_000, start + Duration::from_secs(60)), 0);
    }

    #[test]
    fn a_clock_or_a_count_that_goes_backwards_earns_nothing() {
        let start = Instant::now() + Duration::from_secs(100);
        let budget = RetryBudget::new(0.5, 0.0, start);
        assert_eq!(granted(&budget, 100, 20, start), 10);
        assert_eq!(granted(&budget, 100, 5, start - Duration::from_secs(50)), 0);
    }
}
