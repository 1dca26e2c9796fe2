//! Connections to one gateway that wait for their next request.
//!
//! Promises: a connection is handed to one request at a time; the one used last is used first, so that a pool grown by a burst shrinks
//! again; at most [`IDLE_MAX_PER_BACKEND`] wait, none longer than [`IDLE_TIMEOUT`].

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::client::conn::http1::SendRequest;

use crate::limits::{IDLE_MAX_PER_BACKEND, IDLE_TIMEOUT};
use crate::request_body::RequestBody;

/// The sending end of a connection; dropping it closes the connection.
pub(crate) type Sender = SendRequest<RequestBody>;

#[derive(Debug)]
struct Idle<T> {
    connection: T,
    since: Instant,
}

/// Idle connections, the oldest first. Generic so that tests need no sockets.
#[derive(Debug)]
pub(crate) struct Pool<T = Sender>(Mutex<Vec<Idle<T>>>);

impl<T> Pool<T> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// The connection used last, unless it has idled longer than `max_idle`.
    pub(crate) fn take(&self, max_idle: Duration, now: Instant) -> Option<T> {
        let mut idle = self.lock();
        let young = idle
            .last()
            .is_some_and(|newest| now.saturating_duration_since(newest.since) <= max_idle);
        if young {
            idle.pop().map(|newest| newest.connection)
        } else {
            None
        }
    }

    /// Keeps a connection for the next request; closes it when enough are waiting.
    pub(crate) fn put(&self, connection: T, now: Instant) {
        let mut idle = self.lock();
        if idle.len() < IDLE_MAX_PER_BACKEND {
            idle.push(Idle { connection, since: now });
        }
    }

    /// Closes what has idled too long.
    pub(crate) fn prune(&self, now: Instant) {
        let mut idle = self.lock();
        let old = idle.partition_point(|one| now.saturating_duration_since(one.since) > IDLE_TIMEOUT);
        let closing: Vec<_> = idle.drain(..old).collect();
        // Closing wakes each connection's task; others need not wait for that.
        drop(idle);
        drop(closing);
    }

    /// Closes all.
    pub(crate) fn clear(&self) {
        let closing = std::mem::take(&mut *self.lock());
        drop(closing);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Idle<T>>> {
        // The list is whole at every point where a panic could happen, so a poisoned lock is still good.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_last_used_comes_first_and_age_counts() {
        let pool = Pool::new();
        let start = Instant::now();
        pool.put("old", start);
        pool.put("new", start + SECOND * 10);
        assert_eq!(
            pool.take(SECOND, start + SECOND * 20),
            None,
            "both idled too long for this request"
        );
        assert_eq!(pool.take(SECOND, start + SECOND * 10), Some("new"));
        assert_eq!(pool.take(IDLE_TIMEOUT, start + SECOND * 20), Some("old"));
        assert_eq!(pool.take(IDLE_TIMEOUT, start), None);
    }

    #[test]
    fn the_number_and_the_age_are_bounded() {
        let pool = Pool::new();
        let start = Instant::now();
        for n in 0..IDLE_MAX_PER_BACKEND + 5 {
            pool.put(n, start);
        }
        assert_eq!(pool.lock().len(), IDLE_MAX_PER_BACKEND);
        let later = start + IDLE_TIMEOUT + SECOND;
        pool.clear();
        pool.put(1, start);
        pool.put(2, later);
        pool.prune(later);
        assert_eq!(pool.take(IDLE_TIMEOUT, later), Some(2));
        assert_eq!(pool.take(IDLE_TIMEOUT, later), None);
    }
}
