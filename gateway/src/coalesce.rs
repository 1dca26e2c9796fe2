//! One read for all who ask at the same time.
//!
//! Promises: whoever asks gets an answer that was read after they asked, so nobody sees a state older than their own
//! last write; reads never overlap and start at least the given interval apart, so the KV sees the same load whether
//! one or a thousand are looking.

use std::future::Future;
use std::time::Duration;

use service::http::ApiError;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// A read that all callers share.
#[derive(Debug)]
pub(crate) struct Coalesced<T> {
    min_interval: Duration,
    /// Held while reading: waiting for it is the whole point. Tokio's lock is fair, and a reader that hangs up frees
    /// it.
    last: Mutex<Option<Last<T>>>,
}

#[derive(Debug)]
struct Last<T> {
    started: Instant,
    result: Result<T, ApiError>,
}

impl<T: Clone> Coalesced<T> {
    /// Reads start at least `min_interval` apart.
    pub(crate) fn new(min_interval: Duration) -> Self {
        Self {
            min_interval,
            last: Mutex::new(None),
        }
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
            sleep_until(last.started + self.min_interval).await;
        }
        let started = Instant::now();
        let result = read().await;
        *last = Some(Last {
            started,
            result: result.clone(),
        });
        result
    }
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
