//! The order generator: bursts of synthetic orders against the load balancer, or a load that is measured.
//!
//! Promises: orders are due by a schedule that does not wait for answers; each has an `Idempotency-Key` of its own and is sent again,
//! a bounded number of times, when the answer says so or does not come; with `TOTAL` it ends after exactly that many accepted
//! orders. One log line per phase and per kind of error, a summary at the end; single orders show at `LOG=debug`.
//! Response times count from when an order was due: a system that does not keep up cannot hide it.
//!
//! - [`config`](Config): settings. `plan`: what is due when, by `schedule` (the cycle) or `replay` (a file). `orders`: random orders.
//! - `deliver`: attempts and pauses. `report`: what is counted. `figures`: percentiles. `progress`: the bar.
//! - `survey`: what the system has in the end. `outcome`: the summary.

mod config;
mod deliver;
mod figures;
mod orders;
mod outcome;
mod plan;
mod progress;
mod replay;
mod report;
mod schedule;
mod survey;

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::Url;
use service::Shutdown;
use service::program::Program;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::deliver::{Courier, Delivered, Outcome};
use crate::figures::Times;
use crate::plan::Plan;
use crate::progress::Progress;
use crate::report::Errors;
use crate::schedule::{Phase, Step};
use crate::survey::{Ledger, Survey, content_of};

pub use config::Config;
pub use deliver::Pauses;
pub use figures::Percentiles;
pub use outcome::Report;
pub use report::Summary;
pub use survey::{Tracked, Verified};

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

/// As [`run`], and says on standard output how it went when that is measured or asked for.
///
/// # Errors
/// As [`run`]; also when an order was lost.
pub async fn run_and_report(config: Config, shutdown: Shutdown) -> anyhow::Result<()> {
    let report = measure(&config, shutdown, Pauses::default()).await?;
    tracing::info!("ended: {}", report.summary);
    let text = if config.json {
        format!("{}\n", report.to_json())
    } else if config.is_measured() || config.verify || config.track {
        report.table()
    } else {
        String::new()
    };
    // A pipe that nobody reads any more is nobody's loss.
    let _ = std::io::stdout().write_all(text.as_bytes());
    // In the cycle, which may go on for weeks, orders that were given up are part of the demonstration.
    let lost = if config.is_measured() {
        report.lost()
    } else {
        report.not_once()
    };
    if lost > 0 {
        bail!("{lost} orders were lost: given up, or accepted and not there exactly once");
    }
    Ok(())
}

/// As [`measure`], returning only what became of the orders.
///
/// # Errors
/// As [`measure`].
pub async fn generate(config: &Config, shutdown: Shutdown, pauses: Pauses) -> anyhow::Result<Summary> {
    Ok(measure(config, shutdown, pauses).await?.summary)
}

/// As [`run`], with pauses of one's own, and returning what happened.
///
/// # Errors
/// As [`run`]; also when the orders are to be tracked or verified, and the list of deliveries cannot be read.
pub async fn measure(config: &Config, shutdown: Shutdown, pauses: Pauses) -> anyhow::Result<Report> {
    config.validate()?;
    let plan = Plan::new(config)?;
    let client = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(REQUEST_TIMEOUT)
        // The load balancer is next door; a proxy of the environment is not meant for it.
        .no_proxy()
        .pool_max_idle_per_host(config.concurrency)
        .build()
        .context("cannot set up the HTTP client")?;
    let courier = Arc::new(Courier {
        client,
        url: deliveries_url(&config.lb_url)?,
        pauses,
        errors: Errors::default(),
        shutdown,
    });
    let progress = Progress::new(config.is_measured() || plan.len().is_some(), plan.len());
    let mut run = Run {
        total: config.total,
        concurrency: config.concurrency,
        may_wait: config.is_measured(),
        keeps_ledger: config.track || config.verify,
        plan,
        courier,
        in_flight: JoinSet::new(),
        summary: Summary::default(),
        response: Times::new(),
        service: Times::new(),
        ledger: Ledger::default(),
        progress,
    };
    tracing::info!(url = %run.courier.url, total = config.total, seed = config.seed, "sending orders");
    let start = Instant::now();
    run.follow(start).await;
    run.finish().await;
    let took = start.elapsed();
    let survey = run.survey(config).await;
    run.progress.clear();
    let (tracked, verified) = survey?;
    Ok(Report {
        summary: run.summary,
        response: run.response.percentiles(),
        service: run.service.percentiles(),
        took,
        tracked,
        verified,
    })
}

fn deliveries_url(base: &Url) -> anyhow::Result<Url> {
    let text = format!("{}/deliveries", base.as_str().trim_end_matches('/'));
    Url::parse(&text).with_context(|| format!("LB_URL: got {base}"))
}

/// A run under way. One task owns it; orders are tasks of their own.
struct Run {
    total: u64,
    concurrency: usize,
    /// With too many under way an order waits; otherwise it is skipped.
    may_wait: bool,
    /// Whether somebody will ask what became of each order.
    keeps_ledger: bool,
    plan: Plan,
    courier: Arc<Courier>,
    in_flight: JoinSet<Done>,
    summary: Summary,
    response: Times,
    service: Times,
    ledger: Ledger,
    progress: Progress,
}

/// An order that has been brought to the system, or not.
struct Done {
    delivered: Delivered,
    content: u64,
    /// Since it was due.
    response: Duration,
    /// Since it was sent first.
    service: Duration,
}

impl Run {
    /// Follows the plan until its end, until all orders are accepted, or until the stop signal comes.
    async fn follow(&mut self, start: Instant) {
        let shutdown = self.courier.shutdown.clone();
        while !self.is_done() {
            let Some(step) = self.plan.step() else {
                return self.wait_for_all().await;
            };
            let (Step::Begin { at, .. } | Step::Order { at }) = step;
            // A moment beyond the clock's range never comes.
            let moment = start.checked_add(at);
            let due = async {
                match moment {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::pin!(due);
            loop {
                let has_room = !self.may_wait || self.in_flight.len() < self.concurrency;
                tokio::select! {
                    biased;
                    () = shutdown.stopped() => return,
                    Some(done) = self.in_flight.join_next() => {
                        self.note(done);
                        if self.is_done() {
                            return;
                        }
                    }
                    () = &mut due, if has_room => break,
                }
            }
            match step {
                Step::Begin { phase, .. } => self.begin(phase),
                Step::Order { .. } => self.send(moment.unwrap_or(start)),
            }
        }
    }

    /// Nothing more is due: what is under way may take its time.
    async fn wait_for_all(&mut self) {
        let shutdown = self.courier.shutdown.clone();
        loop {
            tokio::select! {
                biased;
                () = shutdown.stopped() => return,
                done = self.in_flight.join_next() => match done {
                    Some(done) => self.note(done),
                    None => return,
                }
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

    fn send(&mut self, due: Instant) {
        let under_way = u64::try_from(self.in_flight.len()).unwrap_or(u64::MAX);
        if self.total > 0 && self.summary.accepted + under_way >= self.total {
            // Enough, if those under way are accepted; otherwise one of the next makes up for it.
            return;
        }
        if self.in_flight.len() >= self.concurrency {
            self.summary.skipped += 1;
            self.courier
                .errors
                .note("skipped", &format!("{} orders are under way", self.concurrency));
            return;
        }
        let Some((order, key)) = self.plan.order() else {
            return;
        };
        let courier = Arc::clone(&self.courier);
        self.in_flight.spawn(async move {
            let sent = Instant::now();
            let delivered = courier.deliver(&order, &key).await;
            Done {
                delivered,
                content: content_of(&order),
                response: due.elapsed(),
                service: sent.elapsed(),
            }
        });
    }

    fn is_done(&self) -> bool {
        self.total > 0 && self.summary.accepted >= self.total
    }

    fn note(&mut self, done: Result<Done, tokio::task::JoinError>) {
        let summary = &mut self.summary;
        let Ok(Done {
            delivered,
            content,
            response,
            service,
        }) = done
        else {
            // Stopped in the middle.
            summary.unfinished += 1;
            return;
        };
        summary.retries += delivered.retries;
        summary.limited += delivered.limited;
        match delivered.outcome {
            Outcome::Accepted => summary.accepted += 1,
            Outcome::Repeated => {
                summary.accepted += 1;
                summary.repeated += 1;
            }
            Outcome::Failed => summary.failed += 1,
            Outcome::Unfinished => summary.unfinished += 1,
        }
        if matches!(delivered.outcome, Outcome::Accepted | Outcome::Repeated) {
            self.response.record(response);
            self.service.record(service);
        }
        if self.keeps_ledger {
            match delivered.id {
                Some(id) => self.ledger.accepted(id, content),
                None => self.ledger.uncertain(content),
            }
        }
        self.progress.sent(&self.summary);
    }

    /// What the system has in the end, as far as that is asked for.
    async fn survey(&mut self, config: &Config) -> anyhow::Result<(Option<Tracked>, Option<Verified>)> {
        let survey = Survey {
            client: &self.courier.client,
            url: &self.courier.url,
            pauses: self.courier.pauses,
            shutdown: &self.courier.shutdown,
        };
        let verified = if config.verify {
            Some(survey.verify(&self.ledger).await.context("VERIFY (--verify)")?)
        } else {
            None
        };
        let tracked = if config.track {
            let deadline = Instant::now() + Duration::from_secs_f64(config.track_timeout_sec);
            let (progress, all) = (&mut self.progress, self.summary.accepted);
            let tracked = survey
                .track(&self.ledger, deadline, |open| progress.open(open, all))
                .await;
            Some(tracked.context("TRACK (--track)")?)
        } else {
            None
        };
        Ok((tracked, verified))
    }

    /// Lets orders under way be answered; after the grace the rest is left.
    async fn finish(&mut self) {
        let deadline = Instant::now() + STOP_GRACE;
        while let Ok(Some(done)) = tokio::time::timeout_at(deadline, self.in_flight.join_next()).await {
            self.note(done);
        }
        self.in_flight.abort_all();
        while let Some(done) = self.in_flight.join_next().await {
            self.note(done);
        }
    }
}
