//! Whether commits work: what `/ready` says about the disk.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::metrics::StoreMetrics;

/// A commit that takes longer than this is a disk that hangs.
const HANGING_AFTER: Duration = Duration::from_secs(2);

/// Told by the writer, asked by everybody.
#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Why the last commit failed.
    failure: Option<String>,
    /// When the commit under way began.
    committing_since: Option<Instant>,
}

/// What is wrong with the disk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The last commit failed, for this reason. Another one may go better: [`super::Store::probe`].
    #[error("{0}")]
    Failing(String),
    /// A commit has been under way for this long. All there is to do is to wait.
    #[error("a commit has been under way for {0:?}")]
    Hanging(Duration),
}

impl Health {
    /// What is wrong now.
    pub(crate) fn trouble(&self) -> Option<Trouble> {
        let inner = self.lock();
        let hanging = inner
            .committing_since
            .map(|since| since.elapsed())
            .filter(|elapsed| *elapsed > HANGING_AFTER);
        hanging
            .map(Trouble::Hanging)
            .or_else(|| inner.failure.clone().map(Trouble::Failing))
    }

    /// Runs one commit and keeps what came of it.
    pub(crate) fn commit<T, E>(
        &self,
        metrics: &StoreMetrics,
        reason: impl Fn(&E) -> &str,
        commit: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        self.lock().committing_since = Some(Instant::now());
        let result = commit();
        let mut inner = self.lock();
        inner.committing_since = None;
        match &result {
            Ok(_) => {
                metrics.transactions.inc();
                if inner.failure.take().is_some() {
                    tracing::info!("the database can be written again");
                }
            }
            Err(error) => {
                metrics.failures.inc();
                let reason = reason(error);
                if inner.failure.is_none() {
                    tracing::error!(reason, "writes fail; reads go on");
                }
                inner.failure = Some(reason.to_owned());
            }
        }
        result
    }

    /// After a panic: no commit is under way any more.
    pub(crate) fn reset(&self) {
        self.lock().committing_since = None;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Two fields that are whole at every point.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use service::metrics::Metrics;

    use super::*;

    #[test]
    fn a_commit_that_hangs_shows_while_it_hangs() {
        let (health, metrics) = (Health::default(), StoreMetrics::new(&Metrics::new("kvstore")));
        let long_ago = Instant::now().checked_sub(HANGING_AFTER + Duration::from_secs(1));
        let result = health.commit(
            &metrics,
            |never: &String| never,
            || {
                assert_eq!(health.trouble(), None);
                health.lock().committing_since = long_ago;
                assert!(matches!(health.trouble(), Some(Trouble::Hanging(_))));
                Ok(())
            },
        );
        assert_eq!((result, health.trouble()), (Ok(()), None));
    }

    #[test]
    fn a_failure_shows_until_a_success() {
        let (health, metrics) = (Health::default(), StoreMetrics::new(&Metrics::new("kvstore")));
        let commit = |result: Result<(), String>| health.commit(&metrics, String::as_str, || result);
        commit(Err("full".to_owned())).unwrap_err();
        assert_eq!(health.trouble(), Some(Trouble::Failing("full".to_owned())));
        commit(Ok(())).unwrap();
        assert_eq!(health.trouble(), None);
        assert_eq!((metrics.transactions.get(), metrics.failures.get()), (1, 1));
    }
}
