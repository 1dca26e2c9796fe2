//! The order generator: bursts of synthetic orders against the load balancer.
//!
//! Promises: orders are due by a schedule that does not wait for answers; each has an `Idempotency-Key` of its own and is sent again,
//! a bounded number of times, when the answer says so or does not come; with `TOTAL` it ends after exactly that many accepted
//! orders. One log line per phase and per kind of error, a summary at the end; single orders show at `LOG=debug`.
//!
//! - [`config`](Config): settings. `schedule`: when orders are due. `orders`: what they look like.
//! - `deliver`: attempts and pauses. `report`: what is counted.

mod config;
mod deliver;
mod orders;
mod report;
mod schedule;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use reqwest::Url;
use service::Shutdown;
use service::program::Program;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::deliver::{Courier, Delivered, Outcome};
use crate::orders::{Orders, idempotency_key};
use crate::report::Errors;
use crate::schedule::{Phase, Schedule, Step};

pub use config::Config;
pub use deliver::Pauses;
pub use report::Summary;

/// Orders under way at once; further ones are skipped and counted, so that an outage does not pile up work without bound.
const IN_FLIGHT_MAX: usize = 256;

/// How long an answer may take. Repeating is safe, so this need not outlast the proxy's own patience.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// After the stop signal, how long orders under way may take to be answered.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// Sends orders until `shutdown`, or until `TOTAL` are accepted.
///
/// # Errors
/// When a setting cannot be used. A system that does not answer is no error: it is counted, and tried again.
pub async fn run(config: Config, shutdown: Shutdown) -> anyhow::Result<()> {
    let summary = generate(&config, shutdown, Pauses::default()).await?;
    tracing::info!("ended: {summary}");
    Ok(())
}

/// As [`run`], with pauses of one's own, and returning what happened.
///
/// # Errors
/// As [`run`].
pub async fn generate(config: &Config, shutdown: Shutdown, pauses: Pauses) -> anyhow::Result<Summary> {
    config.validate()?;
    let client = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(REQUEST_TIMEOUT)
        // The load balancer is next door; a proxy of the environment is not meant for it.
        .no_proxy()
        .build()
        .context("cannot set up the HTTP client")?;
    let courier = Arc::new(Courier {
        client,
        url: deliveries_url(&config.lb_url)?,
        pauses,
        errors: Errors::default(),
        shutdown,
    });
    let mut run = Run {
        total: config.total,
        orders: Orders::new(config.seed, config.weight_min, config.weight_max),
        courier,
        in_flight: JoinSet::new(),
        summary: Summary::default(),
    };
    tracing::info!(url = %run.courier.url, total = config.total, seed = config.seed, "sending orders");
    run.follow(Schedule::new(config)).await;
    run.finish().await;
    Ok(run.summary)
}

fn deliveries_url(base: &Url) -> anyhow::Result<Url> {
    let text = format!("{}/deliveries", base.as_str().trim_end_matches('/'));
    Url::parse(&text).with_context(|| format!("LB_URL: got {base}"))
}

/// A run under way. One task owns it; orders are tasks of their own.
struct Run {
    total: u64,
    orders: Orders,
    courier: Arc<Courier>,
    in_flight: JoinSet<Delivered>,
    summary: Summary,
}

impl Run {
    /// Follows the schedule until all orders are accepted or the stop signal comes.
    async fn follow(&mut self, mut schedule: Schedule) {
        let start = Instant::now();
        let shutdown = self.courier.shutdown.clone();
        while !self.is_done() {
            let step = schedule.step();
            let (Step::Begin { at, .. } | Step::Order { at }) = step;
            // A moment beyond the clock's range never comes.
            let due = async {
                match start.checked_add(at) {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::pin!(due);
            loop {
                tokio::select! {
                    biased;
                    () = shutdown.stopped() => return,
                    Some(delivered) = self.in_flight.join_next() => {
                        self.note(&delivered);
                        if self.is_done() {
                            return;
                        }
                    }
                    () = &mut due => break,
                }
            }
            match step {
                Step::Begin { phase, .. } => self.begin(phase),
                Step::Order { .. } => self.send(),
            }
        }
    }

    fn begin(&self, phase: Phase) {
        if phase.length_sec <= 0.0 {
            return;
        }
        let errors = self.courier.errors.take();
        let Phase {
            name,
            length_sec,
            rate_per_sec,
        } = phase;
        let summary = self.summary;
        tracing::info!("{name} for {length_sec} s at {rate_per_sec} orders/s; so far {summary}{errors}");
    }

    fn send(&mut self) {
        let under_way = u64::try_from(self.in_flight.len()).unwrap_or(u64::MAX);
        if self.total > 0 && self.summary.accepted + under_way >= self.total {
            // Enough, if those under way are accepted; otherwise one of the next makes up for it.
            return;
        }
        if self.in_flight.len() >= IN_FLIGHT_MAX {
            self.summary.skipped += 1;
            self.courier
                .errors
                .note("skipped", &format!("{IN_FLIGHT_MAX} orders are under way"));
            return;
        }
        let order = self.orders.order();
        let courier = Arc::clone(&self.courier);
        self.in_flight
            .spawn(async move { courier.deliver(&order, &idempotency_key()).await });
    }

    fn is_done(&self) -> bool {
        self.total > 0 && self.summary.accepted >= self.total
    }

    fn note(&mut self, delivered: &Result<Delivered, tokio::task::JoinError>) {
        let summary = &mut self.summary;
        let Ok(Delivered { outcome, retries }) = *delivered else {
            // Stopped in the middle.
            summary.unfinished += 1;
            return;
        };
        summary.retries += retries;
        match outcome {
            Outcome::Accepted => summary.accepted += 1,
            Outcome::Repeated => {
                summary.accepted += 1;
                summary.repeated += 1;
            }
            Outcome::Failed => summary.failed += 1,
            Outcome::Unfinished => summary.unfinished += 1,
        }
    }

    /// Lets orders under way be answered; after the grace the rest is left.
    async fn finish(&mut self) {
        let deadline = Instant::now() + STOP_GRACE;
        while let Ok(Some(delivered)) = tokio::time::timeout_at(deadline, self.in_flight.join_next()).await {
            self.note(&delivered);
        }
        self.in_flight.abort_all();
        while let Some(delivered) = self.in_flight.join_next().await {
            self.note(&delivered);
        }
    }
}
