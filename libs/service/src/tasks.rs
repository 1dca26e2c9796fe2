//! Named background loops, each with a health line, that stop when told to.
//!
//! A service is *ready* while every check has succeeded recently enough. Loops report through a [`Heartbeat`]; `/ready` and `/metrics`
//! show the last success and the last error.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::shutdown::Shutdown;

/// How long [`Tasks::stop`] waits for loops to end before it gives up on them.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(3);

type Checks = BTreeMap<&'static str, Check>;

#[derive(Debug)]
struct Check {
    max_silence: Duration,
    last_success: Option<Instant>,
    last_error: Option<String>,
}

/// The background loops of one service. Clones share them.
#[derive(Debug, Clone)]
pub struct Tasks {
    shutdown: Shutdown,
    tracker: TaskTracker,
    checks: Arc<Mutex<Checks>>,
}

/// How a loop tells that it is well.
#[derive(Debug, Clone)]
pub struct Heartbeat {
    name: &'static str,
    checks: Arc<Mutex<Checks>>,
}

/// One line of `/ready`.
#[derive(Debug, Clone, Serialize)]
pub struct CheckReport {
    /// Succeeded recently enough.
    pub ok: bool,
    /// Seconds since the last success; null before the first.
    pub last_success_sec_ago: Option<f64>,
    /// The last error, while it has not been followed by a success.
    pub error: Option<String>,
}

/// The body of `/ready`.
#[derive(Debug, Clone, Serialize)]
pub struct Readiness {
    /// `ready`, `not ready` or `stopping`.
    pub status: &'static str,
    /// A line per check.
    pub checks: BTreeMap<&'static str, CheckReport>,
}

impl Readiness {
    /// True when every check is well and the service is not stopping.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.status == "ready"
    }
}

impl Tasks {
    /// No loops yet; they will stop with `shutdown`.
    #[must_use]
    pub fn new(shutdown: Shutdown) -> Self {
        Self {
            shutdown,
            tracker: TaskTracker::new(),
            checks: Arc::default(),
        }
    }

    /// Adds a check that is not ready until its first success, and again when `max_silence` has passed without one.
    #[must_use]
    pub fn check(&self, name: &'static str, max_silence: Duration) -> Heartbeat {
        let check = Check {
            max_silence,
            last_success: None,
            last_error: None,
        };
        lock(&self.checks).insert(name, check);
        Heartbeat {
            name,
            checks: Arc::clone(&self.checks),
        }
    }

    /// Starts a named loop with a check of the same name. The loop ends by itself once the shutdown it is given is signalled.
    /// A loop that panics leaves an error on its line and the service not ready.
    pub fn spawn<F, Fut>(&self, name: &'static str, max_silence: Duration, run: F)
    where
        F: FnOnce(Heartbeat, Shutdown) -> Fut,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let heartbeat = self.check(name, max_silence);
        let task = tokio::spawn(run(heartbeat.clone(), self.shutdown.clone()));
        self.tracker.spawn(async move {
            if let Err(error) = task.await {
                tracing::error!(task = name, %error, "a background loop died");
                heartbeat.died();
            }
        });
    }

    /// The state of every check.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let now = Instant::now();
        let checks: BTreeMap<_, _> = lock(&self.checks)
            .iter()
            .map(|(name, check)| {
                let silent_for = check.last_success.map(|at| now.duration_since(at));
                let report = CheckReport {
                    ok: silent_for.is_some_and(|silent| silent <= check.max_silence),
                    last_success_sec_ago: silent_for.map(|silent| silent.as_secs_f64()),
                    error: check.last_error.clone(),
                };
                (*name, report)
            })
            .collect();
        let status = match (self.shutdown.is_stopping(), checks.values().all(|check| check.ok)) {
            (true, _) => "stopping",
            (false, true) => "ready",
            (false, false) => "not ready",
        };
        Readiness { status, checks }
    }

    /// Signals the loops to stop and waits for them, at most [`STOP_TIMEOUT`].
    pub async fn stop(&self) {
        self.shutdown.stop();
        self.tracker.close();
        if tokio::time::timeout(STOP_TIMEOUT, self.tracker.wait()).await.is_err() {
            tracing::warn!(waiting = self.tracker.len(), "background loops did not stop in time");
        }
    }
}

impl Heartbeat {
    /// A round went well.
    pub fn ok(&self) {
        self.update(|check| {
            check.last_success = Some(Instant::now());
            check.last_error = None;
        });
    }

    /// A round failed. The check stays ready until its allowed silence has passed.
    pub fn failed(&self, error: impl std::fmt::Display) {
        self.update(|check| check.last_error = Some(error.to_string()));
    }

    fn died(&self) {
        self.update(|check| {
            check.last_success = None;
            check.last_error = Some("the loop panicked".to_owned());
        });
    }

    fn update(&self, change: impl FnOnce(&mut Check)) {
        if let Some(check) = lock(&self.checks).get_mut(self.name) {
            change(check);
        }
    }
}

fn lock(checks: &Mutex<Checks>) -> MutexGuard<'_, Checks> {
    // The map is whole at every point where a panic could happen, so a poisoned lock is still good.
    checks.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ready_follows_the_heartbeat() {
        let tasks = Tasks::new(Shutdown::new());
        assert!(tasks.readiness().is_ready(), "nothing to wait for");
        let beat = tasks.check("kv", Duration::from_secs(5));
        assert!(!tasks.readiness().is_ready(), "not before the first success");
        beat.ok();
        assert!(tasks.readiness().is_ready());
        tokio::time::advance(Duration::from_secs(6)).await;
        beat.failed("connection refused");
        let readiness = tasks.readiness();
        assert_eq!(readiness.status, "not ready");
        assert_eq!(readiness.checks["kv"].error.as_deref(), Some("connection refused"));
    }

    #[tokio::test]
    async fn a_loop_stops_when_told_and_a_dead_one_shows() {
        let tasks = Tasks::new(Shutdown::new());
        tasks.spawn("good", Duration::from_secs(60), |beat, shutdown| async move {
            beat.ok();
            shutdown.stopped().await;
        });
        tasks.spawn("bad", Duration::from_secs(60), |beat, _| async move {
            beat.ok();
            panic!("on purpose");
        });
        let deadline = Instant::now() + Duration::from_secs(10);
        while tasks.readiness().checks["bad"].error.is_none() {
            assert!(Instant::now() < deadline, "the panic was not noticed");
            tokio::task::yield_now().await;
        }
        tasks.stop().await;
        assert_eq!(tasks.readiness().status, "stopping");
        assert!(tasks.tracker.is_empty());
    }
}
