//! Trying again for a short while, so that the crash of one kvstore does not surface as failed requests.
//!
//! Only for operations that may be repeated even after an unknown outcome, because a repetition finds what the first
//! attempt left behind.

use std::future::Future;
use std::time::Duration;

use kv_client::KvError;
use rand::RngExt;
use tokio::time::{Instant, sleep, timeout_at};

/// No attempt starts later than this after the request began.
pub(crate) const RETRY_FOR: Duration = Duration::from_millis(1_500);
/// A request is answered within this, whatever the KV does.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_millis(2_000);
/// Middle of the first pause between attempts; doubles each time, with ±50 % of jitter so that racing requests come
/// apart.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// Longest pause between attempts.
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// How long one request may still try, shared by all its KV calls.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    start: Instant,
}

/// How the last attempt ended.
#[derive(Debug)]
pub(crate) struct GaveUp {
    /// The last attempt's error.
    pub(crate) error: KvError,
    /// Some attempt may have taken effect.
    pub(crate) outcome_unknown: bool,
}

impl Budget {
    /// A budget that starts now.
    pub(crate) fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Repeats `attempt` while it fails in a way that may pass, until it succeeds or the time is up.
    pub(crate) async fn run<T, F, Fut>(self, mut attempt: F) -> Result<T, GaveUp>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, KvError>>,
    {
        let mut outcome_unknown = false;
        let mut pause = FIRST_PAUSE;
        loop {
            let result = timeout_at(self.start + ANSWER_WITHIN, attempt()).await;
            let error = match result {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) => error,
                Err(_) => KvError::Unknown {
                    detail: format!("the KV did not answer within {} ms", ANSWER_WITHIN.as_millis()),
                },
            };
            outcome_unknown |= error.is_outcome_unknown();
            let may_pass = error.is_retryable() || error.is_outcome_unknown();
            let next = pause.mul_f64(rand::rng().random_range(0.5..=1.5));
            if !may_pass || Instant::now() + next >= self.start + RETRY_FOR {
                return Err(GaveUp { error, outcome_unknown });
            }
            sleep(next).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn unavailable() -> KvError {
        KvError::Unavailable {
            detail: "1 of 3".to_owned(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn passes_over_short_trouble_and_gives_up_in_time() {
        let tries = Cell::new(0);
        let result = Budget::start()
            .run(|| {
                tries.set(tries.get() + 1);
                let result = if tries.get() < 3 {
                    Err(unavailable())
                } else {
                    Ok(tries.get())
                };
                async move { result }
            })
            .await;
        assert_eq!(result.unwrap(), 3);

        let start = Instant::now();
        let gave_up = Budget::start()
            .run(|| async { Err::<(), _>(unavailable()) })
            .await
            .unwrap_err();
        assert!(!gave_up.outcome_unknown && gave_up.error.is_retryable());
        assert!(start.elapsed() <= RETRY_FOR);

        let start = Instant::now();
        let gave_up = Budget::start()
            .run(std::future::pending::<Result<(), KvError>>)
            .await
            .unwrap_err();
        assert!(gave_up.outcome_unknown);
        assert!(start.elapsed() <= ANSWER_WITHIN + Duration::from_millis(1));
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_pass_is_not_repeated() {
        let tries = Cell::new(0);
        let gave_up = Budget::start()
            .run(|| {
                tries.set(tries.get() + 1);
                async {
                    Err::<(), _>(KvError::Rejected {
                        status: 413,
                        detail: String::new(),
                    })
                }
            })
            .await
            .unwrap_err();
        assert_eq!(tries.get(), 1);
        assert!(!gave_up.outcome_unknown);
    }
}
