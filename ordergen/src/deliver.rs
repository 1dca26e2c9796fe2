//! Bringing one order to the system: attempts, pauses, and when to give up.
//!
//! All attempts of an order carry the same `Idempotency-Key`, so however many of them arrive, the system has the order once.

use std::error::Error;
use std::time::Duration;

use domain::order::NewOrder;
use rand::RngExt;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, Url};
use service::Shutdown;

use crate::report::Errors;

/// How often an order is tried; with [`Pauses::default`] over about 40 s, which outlives the restart of any part of the system.
pub(crate) const ATTEMPTS_MAX: u32 = 12;

/// The longest `Retry-After` that is honoured.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// Bytes of an answer that are read; ours are far shorter. What is longer is left, and its connection closed.
const ANSWER_MAX_BYTES: usize = 64 * 1024;

/// Bytes of an error's text that are logged, when it is not in our format.
const DETAIL_MAX_BYTES: usize = 300;

/// Pauses between attempts: doubled each time, of random length between half and all of it, so that orders that failed together do
/// not come back together.
#[derive(Debug, Clone, Copy)]
pub struct Pauses {
    /// Longest pause after the first attempt.
    pub first: Duration,
    /// Longest pause ever.
    pub max: Duration,
}

impl Default for Pauses {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(200),
            max: Duration::from_secs(5),
        }
    }
}

impl Pauses {
    /// The pause after attempt `attempt` (the first is 0), which never undercuts what the server asked for.
    fn after(self, attempt: u32, asked: Option<Duration>, dice: f64) -> Duration {
        let full = self.first.saturating_mul(1 << attempt.min(16)).min(self.max);
        let own = full.mul_f64(0.5 + dice.clamp(0.0, 1.0) / 2.0);
        asked.map_or(own, |asked| asked.min(RETRY_AFTER_MAX) + own.mul_f64(0.5))
    }
}

/// What became of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// 201.
    Accepted,
    /// 200: an earlier attempt had arrived.
    Repeated,
    /// Refused, or out of attempts.
    Failed,
    /// Told to stop before it was known.
    Unfinished,
}

/// What one order took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delivered {
    pub(crate) outcome: Outcome,
    pub(crate) retries: u64,
}

/// What all orders share.
#[derive(Debug)]
pub(crate) struct Courier {
    pub(crate) client: Client,
    pub(crate) url: Url,
    pub(crate) pauses: Pauses,
    pub(crate) errors: Errors,
    pub(crate) shutdown: Shutdown,
}

/// What one attempt came to.
enum Attempt {
    Done(Outcome),
    /// Worth another try, after the pause the server asked for.
    Again(Option<Duration>),
}

impl Courier {
    /// Sends `order` until it is accepted, refused, out of attempts, or the run is stopped.
    pub(crate) async fn deliver(&self, order: &NewOrder, key: &str) -> Delivered {
        let mut retries = 0;
        for attempt in 0..ATTEMPTS_MAX {
            if attempt > 0 {
                retries += 1;
            }
            let asked = match self.attempt(order, key).await {
                Attempt::Done(outcome) => {
                    tracing::debug!(key, ?outcome, retries, "order");
                    return Delivered { outcome, retries };
                }
                Attempt::Again(asked) => asked,
            };
            let last = attempt + 1 == ATTEMPTS_MAX;
            let pause = self.pauses.after(attempt, asked, rand::rng().random());
            if !last && !self.shutdown.sleep(pause).await {
                return Delivered {
                    outcome: Outcome::Unfinished,
                    retries,
                };
            }
        }
        self.errors
            .note("given up", &format!("{key}: not accepted in {ATTEMPTS_MAX} attempts"));
        Delivered {
            outcome: Outcome::Failed,
            retries,
        }
    }

    async fn attempt(&self, order: &NewOrder, key: &str) -> Attempt {
        let sent = self
            .client
            .post(self.url.clone())
            .header("idempotency-key", key)
            .json(order)
            .send()
            .await;
        let answer = match sent {
            Ok(answer) => answer,
            Err(error) => {
                let class = if error.is_connect() {
                    "connect"
                } else if error.is_timeout() {
                    "timeout"
                } else {
                    "broken off"
                };
                self.errors.note(class, &with_causes(&error));
                return Attempt::Again(None);
            }
        };
        let status = answer.status();
        let accepted = match status {
            StatusCode::CREATED => Some(Outcome::Accepted),
            StatusCode::OK => Some(Outcome::Repeated),
            _ => None,
        };
        let asked = retry_after(&answer);
        // Read even when nobody looks at it: only then can the connection carry the next order.
        let detail = detail(answer).await;
        if let Some(outcome) = accepted {
            return Attempt::Done(outcome);
        }
        self.errors.note(status.as_str(), &detail);
        match status {
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Attempt::Again(asked),
            _ => Attempt::Done(Outcome::Failed),
        }
    }
}

/// Whole seconds; the form with a date is not used by our servers.
fn retry_after(answer: &Response) -> Option<Duration> {
    let text = answer.headers().get(RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

/// The `detail` of an error answer, else the beginning of whatever came.
async fn detail(answer: Response) -> String {
    let is_json = answer
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    let mut answer = answer;
    let mut text = Vec::new();
    while text.len() < ANSWER_MAX_BYTES {
        match answer.chunk().await {
            Ok(Some(chunk)) => text.extend_from_slice(&chunk),
            Ok(None) | Err(_) => break,
        }
    }
    let parsed = is_json
        .then(|| serde_json::from_slice::<serde_json::Value>(&text).ok())
        .flatten();
    if let Some(detail) = parsed.as_ref().and_then(|body| body.get("detail")?.as_str()) {
        return detail.to_owned();
    }
    text.truncate(DETAIL_MAX_BYTES);
    String::from_utf8_lossy(&text).into_owned()
}

/// reqwest's own words stop short of "connection refused".
fn with_causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_with_jitter_up_to_the_most() {
        let pauses = Pauses::default();
        let ms = |attempt, dice| pauses.after(attempt, None, dice).as_millis();
        assert_eq!((ms(0, 0.0), ms(0, 1.0)), (100, 200));
        assert_eq!((ms(2, 0.0), ms(2, 1.0)), (400, 800));
        assert_eq!((ms(30, 0.0), ms(30, 1.0)), (2500, 5000));
    }

    #[test]
    fn what_the_server_asks_for_is_never_undercut_but_bounded() {
        let pauses = Pauses::default();
        let asked = |sec| pauses.after(0, Some(Duration::from_secs(sec)), 0.0);
        assert!(asked(3) >= Duration::from_secs(3) && asked(3) < Duration::from_secs(4));
        assert!(asked(1_000_000) <= RETRY_AFTER_MAX + pauses.max);
    }
}
