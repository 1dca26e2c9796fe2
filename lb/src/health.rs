//! Whether a gateway is well, in atomics: every request asks.
//!
//! One is skipped for what it does not do (take connections, answer at all), or for what it answers: that is a judgement, which `backends` makes
//! and bounds. One that comes back is given its share little by little.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::limits::{EJECT_MAX, EJECT_MIN, RETURN_SHARE_MIN, SILENT_MAX};

/// In place of the end of a skip: until the checks say otherwise.
const PUT_OUT: u64 = u64::MAX;

/// Whether a gateway is skipped.
#[derive(Debug)]
pub(crate) struct Health {
    born: Instant,
    /// Milliseconds since `born`; 0 = not skipped; [`PUT_OUT`].
    skipped_until_ms: AtomicU64,
    /// When it was asked and has not answered anything since, milliseconds since `born`; 0 = nothing is owed.
    silent_since_ms: AtomicU64,
    failures: AtomicU32,
    /// Errors since the last answer that was none.
    errors: AtomicU32,
    /// It is skipped for its errors: taking a connection is no excuse.
    judged: AtomicBool,
    /// When it came back, milliseconds since `born`; 0 = it has its whole share.
    returned_ms: AtomicU64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Well,
    /// Skipped long enough, or just found silent: one request may try it.
    Due,
    Skipped,
}

impl Health {
    pub(crate) fn new(born: Instant) -> Self {
        Self {
            born,
            skipped_until_ms: AtomicU64::new(0),
            silent_since_ms: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            errors: AtomicU32::new(0),
            judged: AtomicBool::new(false),
            returned_ms: AtomicU64::new(0),
        }
    }

    pub(crate) fn state(&self, now: Instant) -> State {
        match self.skipped_until_ms.load(Ordering::Relaxed) {
            0 if !self.is_silent(now) => State::Well,
            until if until <= self.ms(now) => State::Due,
            _ => State::Skipped,
        }
    }

    /// Claims the single attempt of a gateway that is due. The others skip it until the attempt must be over.
    pub(crate) fn claim(&self, now: Instant) -> bool {
        let until = self.skipped_until_ms.load(Ordering::Relaxed);
        let next = self.ms(now + EJECT_MAX);
        self.state(now) == State::Due
            && self
                .skipped_until_ms
                .compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// True when this failure starts (or prolongs) the skipping. Of many requests that fail together only the first counts.
    pub(crate) fn failed(&self, now: Instant, probe: bool) -> bool {
        let before = self.skipped_until_ms.load(Ordering::Relaxed);
        if before == PUT_OUT || (!probe && self.state(now) == State::Skipped) {
            return false;
        }
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).min(16);
        let pause = EJECT_MIN.saturating_mul(1 << failures).min(EJECT_MAX);
        let until = self.ms(now + pause).max(1);
        // Unless somebody else has just said the same, or more.
        let _ = self
            .skipped_until_ms
            .compare_exchange(before, until, Ordering::Relaxed, Ordering::Relaxed);
        true
    }

    pub(crate) fn asked(&self, now: Instant) {
        // Only the first request after an answer counts; the common case is one that is owed already.
        if self.silent_since_ms.load(Ordering::Relaxed) == 0 {
            self.silent_since_ms.store(self.ms(now).max(1), Ordering::Relaxed);
        }
    }

    pub(crate) fn is_silent(&self, now: Instant) -> bool {
        let since = self.silent_since_ms.load(Ordering::Relaxed);
        since != 0 && self.ms(now).saturating_sub(since) > u64::try_from(SILENT_MAX.as_millis()).unwrap_or(u64::MAX)
    }

    /// It took a connection. That does not break a silence: the kernel takes connections for a frozen process too.
    pub(crate) fn connected(&self, now: Instant) {
        if !self.is_silent(now) && !self.judged.load(Ordering::Relaxed) {
            self.well(now);
        }
    }

    /// It has answered, and not with an error.
    pub(crate) fn succeeded(&self, now: Instant) {
        self.silent_since_ms.store(0, Ordering::Relaxed);
        if self.errors.load(Ordering::Relaxed) != 0 {
            self.errors.store(0, Ordering::Relaxed);
        }
        self.well(now);
    }

    /// It has answered with an error. Gives how many there were in a row.
    pub(crate) fn answered_badly(&self, now: Instant) -> u32 {
        self.silent_since_ms.store(0, Ordering::Relaxed);
        self.connected(now);
        self.erred()
    }

    /// A request that it was given failed. Gives how many errors there were in a row.
    pub(crate) fn erred(&self) -> u32 {
        self.errors.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// Whether the last thing heard of it was no error.
    pub(crate) fn is_clean(&self) -> bool {
        self.errors.load(Ordering::Relaxed) == 0
    }

    /// Skips it for its errors, until a single request has found it better.
    pub(crate) fn eject(&self, now: Instant) {
        self.judged.store(true, Ordering::Relaxed);
        self.failed(now, false);
    }

    /// What share of its turns it takes after it has come back; none once that is all of them.
    pub(crate) fn share(&self, now: Instant, slow_start: Duration) -> Option<f32> {
        let since = self.returned_ms.load(Ordering::Relaxed);
        if since == 0 {
            return None;
        }
        let passed = Duration::from_millis(self.ms(now).saturating_sub(since));
        if passed >= slow_start {
            self.returned_ms.store(0, Ordering::Relaxed);
            return None;
        }
        Some((passed.as_secs_f32() / slow_start.as_secs_f32()).max(RETURN_SHARE_MIN))
    }

    /// The checks say that it is not well. True when that is news.
    pub(crate) fn put_out(&self) -> bool {
        self.skipped_until_ms.swap(PUT_OUT, Ordering::Relaxed) != PUT_OUT
    }

    pub(crate) fn is_put_out(&self) -> bool {
        self.skipped_until_ms.load(Ordering::Relaxed) == PUT_OUT
    }

    /// It is skipped for what it answers, or for the checks.
    pub(crate) fn is_left_out(&self) -> bool {
        self.is_put_out() || self.judged.load(Ordering::Relaxed)
    }

    /// The checks say that it is well again. True when they said otherwise before.
    pub(crate) fn bring_back(&self, now: Instant) -> bool {
        let was_out = self.is_put_out() && self.end_skip(PUT_OUT, now);
        if was_out {
            self.errors.store(0, Ordering::Relaxed);
            self.silent_since_ms.store(0, Ordering::Relaxed);
        }
        was_out
    }

    fn well(&self, now: Instant) {
        let until = self.skipped_until_ms.load(Ordering::Relaxed);
        // Requests that were under way may still be answered by one that the checks have put out.
        if until != 0 && until != PUT_OUT {
            self.end_skip(until, now);
        }
    }

    fn end_skip(&self, until: u64, now: Instant) -> bool {
        let ended = self
            .skipped_until_ms
            .compare_exchange(until, 0, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok();
        if ended {
            self.failures.store(0, Ordering::Relaxed);
            self.judged.store(false, Ordering::Relaxed);
            self.returned_ms.store(self.ms(now).max(1), Ordering::Relaxed);
        }
        ended
    }

    fn ms(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.born).as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skipping_never_lasts_longer_than_the_most() {
        let health = Health::new(Instant::now());
        let mut now = health.born;
        for _ in 0..100 {
            assert!(health.failed(now, true));
            now += EJECT_MAX;
            assert_eq!(health.state(now), State::Due);
        }
    }

    #[test]
    fn one_that_comes_back_gets_its_share_little_by_little() {
        let (health, slow_start) = (Health::new(Instant::now()), Duration::from_secs(10));
        let mut now = health.born + Duration::from_secs(1);
        assert_eq!(health.share(now, slow_start), None, "a new one has all of it");
        health.failed(now, false);
        now += EJECT_MIN;
        health.succeeded(now);
        assert_eq!(health.share(now, slow_start), Some(RETURN_SHARE_MIN));
        now += slow_start / 2;
        assert!(
            health
                .share(now, slow_start)
                .is_some_and(|share| (share - 0.5).abs() < 0.01)
        );
        health.succeeded(now);
        now += slow_start / 2;
        assert_eq!(
            health.share(now, slow_start),
            None,
            "further answers do not begin it anew"
        );
        health.failed(now, false);
        health.succeeded(now);
        assert_eq!(health.share(now, Duration::ZERO), None, "unless that is turned off");
    }

    #[test]
    fn one_skipped_for_its_errors_comes_back_by_an_answer_only() {
        let health = Health::new(Instant::now());
        let now = health.born + Duration::from_secs(1);
        assert_eq!((health.answered_badly(now), health.erred()), (1, 2));
        assert!(!health.is_clean());
        health.eject(now);
        health.connected(now);
        assert_eq!(health.answered_badly(now), 3);
        assert_eq!(health.state(now), State::Skipped);
        let later = now + EJECT_MIN;
        assert!(health.claim(later), "one request tries it");
        assert_eq!(health.answered_badly(later), 4);
        assert_eq!(
            health.state(later + EJECT_MIN),
            State::Skipped,
            "and it is given longer"
        );
        health.succeeded(later + EJECT_MAX);
        assert_eq!(health.state(later + EJECT_MAX), State::Well);
        assert!(health.is_clean());
    }

    #[test]
    fn one_put_out_by_the_checks_comes_back_by_them_only() {
        let health = Health::new(Instant::now());
        let now = health.born + Duration::from_secs(1);
        assert!(health.put_out() && !health.put_out());
        health.succeeded(now);
        health.connected(now);
        assert!(!health.failed(now, true), "it is skipped already");
        let later = now + EJECT_MAX * 100;
        assert_eq!(health.state(later), State::Skipped);
        assert!(!health.claim(later));
        assert!(health.bring_back(later) && !health.bring_back(later));
        assert_eq!(health.state(later), State::Well);
        assert!(health.share(later, Duration::from_secs(10)).is_some());
    }
}
