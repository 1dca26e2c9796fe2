//! Bringing one order to the system: attempts, pauses, and when to give up.
//!
//! All attempts of an order carry the same `Idempotency-Key`, so however many of them arrive, the system has the order once.

use std::error::Error;
use std::time::Duration;

use domain::order::NewOrder;
use rand::RngExt;
use reqwest::header::RETRY_AFTER;
use reqwest::{Client, Response, StatusCode, Url};
use serde::Deserialize;
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
    pub(crate) fn after(self, attempt: u32, asked: Option<Duration>, dice: f64) -> Duration {
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
#[derive(Debug, Clone)]
pub(crate) struct Delivered {
    pub(crate) outcome: Outcome,
    pub(crate) retries: u64,
    /// Attempts answered with 429.
    pub(crate) limited: u64,
    /// The id it was accepted with.
    pub(crate) id: Option<String>,
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
    /// With the id of what was accepted.
    Done(Outcome, Option<String>),
    /// Worth another try, after the pause the server asked for.
    Again { asked: Option<Duration>, limited: bool },
}

impl Courier {
    /// Sends `order` until it is accepted, refused, out of attempts, or the run is stopped.
    pub(crate) async fn deliver(&self, order: &NewOrder, key: &str) -> Delivered {
        let mut so_far = Delivered {
            outcome: Outcome::Unfinished,
            retries: 0,
            limited: 0,
            id: None,
        };
        for attempt in 0..ATTEMPTS_MAX {
            so_far.retries = u64::from(attempt);
            let asked = match self.attempt(order, key).await {
                Attempt::Done(outcome, id) => {
                    tracing::debug!(key, ?outcome, retries = so_far.retries, "order");
                    return Delivered { outcome, id, ..so_far };
                }
                Attempt::Again { asked, limited } => {
                    so_far.limited += u64::from(limited);
                    asked
                }
            };
            let last = attempt + 1 == ATTEMPTS_MAX;
            let pause = self.pauses.after(attempt, asked, rand::rng().random());
            if !last && !self.shutdown.sleep(pause).await {
                return so_far;
            }
        }
        self.errors
            .note("given up", &format!("{key}: not accepted in {ATTEMPTS_MAX} attempts"));
        Delivered {
            outcome: Outcome::Failed,
            ..so_far
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
                return Attempt::Again {
                    asked: None,
                    limited: false,
                };
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
        let text = read(answer).await;
        if let Some(outcome) = accepted {
            let order = serde_json::from_slice::<Order>(&text);
            return Attempt::Done(outcome, order.ok().map(|order| order.id));
        }
        self.errors.note(status.as_str(), &detail(text));
        match status {
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Attempt::Again {
                asked,
                limited: status == StatusCode::TOO_MANY_REQUESTS,
            },
            _ => Attempt::Done(Outcome::Failed, None),
        }
    }
}

/// Whole seconds; the form with a date is not used by our servers.
fn retry_after(answer: &Response) -> Option<Duration> {
    let text = answer.headers().get(RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

/// The part of an accepted order's record that is looked at.
#[derive(Deserialize)]
struct Order {
    id: String,
}

/// The same of an error.
#[derive(Deserialize)]
struct Problem {
    detail: String,
}

/// An answer's body.
async fn read(mut answer: Response) -> Vec<u8> {
    let mut text = Vec::new();
    while text.len() < ANSWER_MAX_BYTES {
        match answer.chunk().await {
            Ok(Some(chunk)) => text.extend_from_slice(&chunk),
            Ok(None) | Err(_) => break,
        }
    }
    text
}

/// The `detail` of an error answer, else the beginning of whatever came.
fn detail(mut text: Vec<u8>) -> String {
    if let Ok(problem) = serde_json::from_slice::<Problem>(&text) {
        return problem.detail;
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
