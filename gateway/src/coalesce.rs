//! One read for all who ask at the same time.
//!
//! Promises: whoever asks gets an answer that was read after they asked, so nobody sees a state older than their own
//! last write; reads never overlap and start at least the given interval apart (or, when made with
//! [`Coalesced::idle_half`], as long apart as leaves the KV alone for half of the time), so the KV sees the same load
//! whether one or a thousand are looking.

use std::future::Future;
use std::time::Duration;

use service::http::ApiError;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// A read that all callers share.
#[derive(Debug)]
pub(crate) struct Coalesced<T> {
    min_interval: Duration,
    /// The interval is no longer than twice the last read.
    idle_half: bool,
    /// Held while reading: waiting for it is the whole point. Tokio's lock is fair, and a reader that hangs up frees
    /// it.
    last: Mutex<Option<Last<T>>>,
}

#[derive(Debug)]
struct Last<T> {
    started: Instant,
    took: Duration,
    result: Result<T, ApiError>,
}

impl<T: Clone> Coalesced<T> {
    /// Reads start at least `min_interval` apart.
    pub(crate) fn new(min_interval: Duration) -> Self {
        Self {
            min_interval,
            idle_half: false,
            last: Mutex::new(None),
        }
    }

    /// After a read nothing is read for as long as it took, or until `max_interval` after its start if that is sooner:
    /// quick reads may follow each other quickly.
    pub(crate) fn idle_half(max_interval: Duration) -> Self {
        Self {
            idle_half: true,
            ..Self::new(max_interval)
        }
    }

    /// What was read less than the interval ago, else what `read` answers now. Nobody waits for the interval to end.
    pub(crate) async fn recent<F, Fut>(&self, read: F) -> Result<T, ApiError>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, ApiError>>,
    {
        let mut last = self.last.lock().await;
        if let Some(last) = &*last
            && last.started.elapsed() < self.min_interval
        {
            return last.result.clone();
        }
        read_into(&mut last, read).await
    }

    /// What `read` answers, or the answer of somebody else's read that started after this call.
    pub(crate) async fn get<F, Fut>(&self, read: F) -> Result<T, ApiError>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, ApiError>>,
    {
        let asked = Instant::now();
        let mut last = self.last.lock().await;
        if let Some(last) = &*last {
            if last.started > asked {
                return last.result.clone();
            }
            let interval = if self.idle_half {
                self.min_interval.min(last.took * 2)
            } else {
                self.min_interval
            };
            sleep_until(last.started + interval).await;
        }
        read_into(&mut last, read).await
    }
}

/// Reads, and remembers what came of it and when.
async fn read_into<T, F, Fut>(last: &mut Option<Last<T>>, read: F) -> Result<T, ApiError>
where
    T: Clone,
    F: FnOnce() -> Fut,
    Fut: Future<Output = Result<T, ApiError>>,
{
    let started = Instant::now();
    let result = read().await;
    *last = Some(Last {
        started,
        took: started.elapsed(),
        result: result.clone(),
    });
    result
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_viewers_share_reads_and_none_gets_an_older_one() {
        let shared = Arc::new(Coalesced::new(Duration::from_millis(50)));
        let reads = Arc::new(AtomicUsize::new(0));
        let ask = |shared: Arc<Coalesced<usize>>, reads: Arc<AtomicUsize>| async move {
            shared
                .get(|| async {
                    let number = reads.fetch_add(1, Ordering::SeqCst) + 1;
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    Ok(number)
                })
                .await
                .unwrap()
        };
        let first = tokio::spawn(ask(Arc::clone(&shared), Arc::clone(&reads)));
        tokio::time::sleep(Duration::from_millis(5)).await;
        let viewers: Vec<_> = (0..100)
            .map(|_| tokio::spawn(ask(Arc::clone(&shared), Arc::clone(&reads))))
            .collect();
        assert_eq!(first.await.unwrap(), 1);
        for viewer in viewers {
            assert_eq!(viewer.await.unwrap(), 2, "asked while the first read was under way");
        }
        assert_eq!(reads.load(Ordering::SeqCst), 2);
        let start = Instant::now();
        assert_eq!(ask(Arc::clone(&shared), Arc::clone(&reads)).await, 3);
        assert!(
            start.elapsed() >= Duration::from_millis(40),
            "reads keep their distance"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn quick_reads_may_follow_each_other_quickly() {
        let shared = Coalesced::idle_half(Duration::from_millis(50));
        for (read_ms, next_after_ms) in [(2, 4), (10, 20), (40, 50), (70, 70)] {
            let read = || async move {
                tokio::time::sleep(Duration::from_millis(read_ms)).await;
                Ok(Instant::now() - Duration::from_millis(read_ms))
            };
            tokio::time::advance(Duration::from_secs(1)).await;
            let first = shared.get(read).await.unwrap();
            let next = shared.get(read).await.unwrap();
            assert_eq!(next - first, Duration::from_millis(next_after_ms), "after {read_ms} ms");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_recent_is_read_once_per_interval() {
        let shared = Coalesced::new(Duration::from_secs(1));
        let reads = AtomicUsize::new(0);
        let look = || shared.recent(|| async { Ok(reads.fetch_add(1, Ordering::SeqCst)) });
        for (after_ms, expected) in [(0, 0), (900, 0), (99, 0), (1, 1), (999, 1), (1_000, 2)] {
            tokio::time::advance(Duration::from_millis(after_ms)).await;
            assert_eq!(look().await.unwrap(), expected, "after {after_ms} ms more");
        }
    }

    #[tokio::test]
    async fn a_failure_is_shared_too() {
        let shared = Coalesced::<u8>::new(Duration::ZERO);
        let error = shared
            .get(|| async { Err(ApiError::unavailable("no quorum")) })
            .await
            .unwrap_err();
        assert_eq!(error.status, 503);
        assert_eq!(shared.get(|| async { Ok(1) }).await.unwrap(), 1);
    }
}
