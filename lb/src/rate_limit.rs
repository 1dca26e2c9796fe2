//! Token buckets: one for everybody, one per client address.
//!
//! Promises: over any stretch of `t` seconds at most `burst + rate × t` requests pass a bucket; a refusal says after how many whole
//! seconds (at least 1) a token will be there if nobody else takes it; a request refused by one bucket costs nothing in the other.
//! Time is passed in. At most [`CLIENTS_MAX`] clients are remembered; a forgotten one starts with a full bucket again.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use lru::LruCache;

use crate::clients::household;
use crate::limits::CLIENTS_MAX;

/// The longest `Retry-After`, seconds: rates of one token a day exist, clients that wait for it do not.
const RETRY_AFTER_MAX_SEC: f64 = 3600.0;

/// A bucket's rate and size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    rate_per_sec: f64,
    burst: f64,
}

impl Limit {
    /// None when the rate is 0, that is, no limit. A burst of 0 means a second's worth.
    pub(crate) fn new(rate_per_sec: f64, burst: f64) -> Option<Self> {
        let burst = if burst > 0.0 { burst } else { rate_per_sec };
        (rate_per_sec > 0.0).then_some(Self {
            rate_per_sec,
            burst: burst.max(1.0),
        })
    }
}

/// Which bucket was empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Global,
    Client,
}

/// A request over a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) scope: Scope,
    pub(crate) retry_after_sec: u64,
    /// Requests that the bucket holds when it is full.
    pub(crate) burst: u64,
    /// Seconds until it is, when nobody takes any.
    pub(crate) full_after_sec: u64,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn full(limit: Limit, now: Instant) -> Self {
        Self {
            tokens: limit.burst,
            at: now,
        }
    }

    /// Adds what has dripped in since the last look. A clock that went backwards adds nothing.
    fn refill(&mut self, limit: Limit, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + elapsed * limit.rate_per_sec).min(limit.burst);
        self.at = self.at.max(now);
    }

    /// Whole seconds until so many tokens are there, when nobody takes any.
    fn wait(&self, tokens: f64, limit: Limit) -> u64 {
        let wait_sec = ((tokens - self.tokens) / limit.rate_per_sec).ceil();
        whole(wait_sec.clamp(1.0, RETRY_AFTER_MAX_SEC))
    }
}

/// A number that is not negative, without what is behind the point; the largest there is when it is larger.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float that does not fit is cast to the nearest that does"
)]
fn whole(number: f64) -> u64 {
    number as u64
}

/// Both limits. Without any it takes no lock.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    global: Option<Limit>,
    client: Option<Limit>,
    buckets: Mutex<Buckets>,
}

#[derive(Debug)]
struct Buckets {
    global: Option<Bucket>,
    clients: LruCache<IpAddr, Bucket>,
}

impl RateLimiter {
    pub(crate) fn new(global: Option<Limit>, client: Option<Limit>) -> Self {
        Self {
            global,
            client,
            buckets: Mutex::new(Buckets {
                global: None,
                // Bounded below; a bounded cache would allocate all its memory at once, even when there is no limit.
                clients: LruCache::unbounded(),
            }),
        }
    }

    /// Takes a token from each bucket, or none at all.
    pub(crate) fn check(&self, client: IpAddr, now: Instant) -> Result<(), Refusal> {
        if self.global.is_none() && self.client.is_none() {
            return Ok(());
        }
        // Buckets are whole between any two statements, so a poisoned lock is still good.
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let Buckets { global, clients } = &mut *buckets;
        let mut taken_global = None;
        if let Some(limit) = self.global {
            let bucket = global.get_or_insert_with(|| Bucket::full(limit, now));
            bucket.refill(limit, now);
            refuse(bucket, limit, Scope::Global)?;
            taken_global = Some(bucket);
        }
        if let Some(limit) = self.client {
            let client = household(client);
            if clients.len() >= CLIENTS_MAX && !clients.contains(&client) {
                clients.pop_lru();
            }
            let bucket = clients.get_or_insert_mut(client, || Bucket::full(limit, now));
            bucket.refill(limit, now);
            refuse(bucket, limit, Scope::Client)?;
            bucket.tokens -= 1.0;
        }
        if let Some(bucket) = taken_global {
            bucket.tokens -= 1.0;
        }
        Ok(())
    }
}

fn refuse(bucket: &Bucket, limit: Limit, scope: Scope) -> Result<(), Refusal> {
    if bucket.tokens >= 1.0 {
        return Ok(());
    }
    Err(Refusal {
        scope,
        retry_after_sec: bucket.wait(1.0, limit),
        burst: whole(limit.burst),
        full_after_sec: bucket.wait(limit.burst, limit),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::{ProptestConfig, prop};
    use proptest::{prop_assert, prop_assert_eq, proptest};

    use super::*;

    const ALICE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const BOB: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    #[test]
    fn no_limit_lets_everything_pass() {
        let limiter = RateLimiter::new(Limit::new(0.0, 5.0), Limit::new(0.0, 0.0));
        let now = Instant::now();
        assert!((0..1000).all(|_| limiter.check(ALICE, now).is_ok()));
    }

    #[test]
    fn a_client_over_its_limit_spends_nothing_of_the_global_one() {
        let limiter = RateLimiter::new(Limit::new(1.0, 3.0), Limit::new(1.0, 2.0));
        let now = Instant::now();
        assert!(limiter.check(ALICE, now).is_ok() && limiter.check(ALICE, now).is_ok());
        for _ in 0..10 {
            assert_eq!(limiter.check(ALICE, now).unwrap_err().scope, Scope::Client);
        }
        assert!(limiter.check(BOB, now).is_ok(), "one global token is left");
        assert_eq!(limiter.check(BOB, now).unwrap_err().scope, Scope::Global);
        assert!(limiter.check(BOB, now + Duration::from_secs(1)).is_ok());
    }

    #[test]
    fn a_refusal_tells_the_size_and_when_it_is_full_again() {
        let limiter = RateLimiter::new(None, Limit::new(0.5, 3.0));
        let now = Instant::now();
        while limiter.check(ALICE, now).is_ok() {}
        let refusal = limiter.check(ALICE, now).unwrap_err();
        let told = (refusal.burst, refusal.retry_after_sec, refusal.full_after_sec);
        assert_eq!(told, (3, 2, 6));
    }

    #[test]
    fn addresses_of_one_ipv6_network_share_a_bucket() {
        let limiter = RateLimiter::new(None, Limit::new(0.1, 1.0));
        let now = Instant::now();
        assert!(limiter.check("2001:db8::1".parse().unwrap(), now).is_ok());
        assert!(limiter.check("2001:db8::2".parse().unwrap(), now).is_err());
        assert!(limiter.check("2001:db8:0:1::1".parse().unwrap(), now).is_ok());
        assert!(limiter.check(ALICE, now).is_ok());
        let mapped = "::ffff:10.0.0.1".parse().unwrap();
        assert!(
            limiter.check(mapped, now).is_err(),
            "the same client over IPv6 notation"
        );
    }

    #[test]
    fn memory_is_bounded() {
        let limiter = RateLimiter::new(None, Limit::new(1.0, 1.0));
        let now = Instant::now();
        for n in 0..u32::try_from(CLIENTS_MAX).unwrap() + 10 {
            let _ = limiter.check(IpAddr::V4(n.into()), now);
        }
        assert_eq!(limiter.buckets.lock().unwrap().clients.len(), CLIENTS_MAX);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn never_more_than_burst_and_rate_allow(
            rate in 0.1_f64..200.0,
            burst in 1.0_f64..50.0,
            gaps_ms in prop::collection::vec(0_u64..400, 1..300),
        ) {
            let limit = Limit::new(rate, burst).unwrap();
            let limiter = RateLimiter::new(Some(limit), None);
            let start = Instant::now();
            let mut now = start;
            let mut passed = Vec::new();
            for gap_ms in gaps_ms {
                now += Duration::from_millis(gap_ms);
                match limiter.check(ALICE, now) {
                    Ok(()) => passed.push(now),
                    Err(refusal) => {
                        // The promise of Retry-After: nobody else came, so a token is there by then.
                        let probe = RateLimiter::new(Some(limit), None);
                        probe.buckets.lock().unwrap().global = limiter.buckets.lock().unwrap().global;
                        prop_assert!(refusal.retry_after_sec >= 1);
                        prop_assert_eq!(probe.check(ALICE, now + Duration::from_secs(refusal.retry_after_sec)), Ok(()));
                    }
                }
            }
            // Every stretch, not only the whole.
            for (first, from) in passed.iter().enumerate() {
                for (last, to) in passed.iter().enumerate().skip(first) {
                    let allowed = burst + rate * to.duration_since(*from).as_secs_f64();
                    let count = u32::try_from(last - first + 1).unwrap();
                    prop_assert!(f64::from(count) <= allowed + 1e-6, "{} passed, {} allowed", count, allowed);
                }
            }
        }

        #[test]
        fn a_rested_bucket_is_full_again_and_no_fuller(rate in 0.5_f64..100.0, burst in 1_u32..40) {
            let limit = Limit::new(rate, f64::from(burst)).unwrap();
            let limiter = RateLimiter::new(None, Some(limit));
            let start = Instant::now();
            while limiter.check(ALICE, start).is_ok() {}
            let later = start + Duration::from_secs_f64(limit.burst / limit.rate_per_sec) * 3;
            let passed = (0..burst * 2).filter(|_| limiter.check(ALICE, later).is_ok()).count();
            prop_assert_eq!(passed, usize::try_from(burst).unwrap());
        }
    }
}
