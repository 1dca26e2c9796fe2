//! The simulated fleet: motion, battery, charging and telemetry.
//!
//! Promises: every drone of the fleet has a record in the KV from the start on, and keeps it over restarts; drones with a
//! delivery fly to where its leg ends, drones told to charge fly to their charge point and charge there, all others stand. The
//! dispatcher decides who does what and notices arrivals; of their records this service only ever writes
//! `pos`, `battery`, `at_charge`, `charge_since`, `charge_queue` and `seen_at`.
//! Several processes may fly the fleet together, each its part ([`Shard`]).
//! With the broker away drones fly on; with the KV away they wait, and go on from what it holds.
//!
//! - [`motion`]: how a record changes with time; pure.
//! - [`simulator`]: a tick over the fleet.
//! - [`shard`]: which part of it this process flies. [`slots`]: what it shares with those that fly the others.
//! - [`legs`]: where busy drones fly to.
//! - [`fleet`]: registration and zones.
//! - [`flights`]: flights as parts of traces.
//! - [`telemetry`]: events on their way to the bus.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::routing::get;
use bus::{Bus, Topic};
use kv_client::{Kv, KvError, Options};
use rand::RngExt;
use rand::rngs::StdRng;
use service::http::{Limits, serve_router, with_common_routes};
use service::metrics::Metrics;
use service::program::Program;
use service::{Heartbeat, Shutdown, Tasks};
use tokio::net::TcpListener;
use trace::Tracer;

pub use clock::{Clock, Now, SystemClock};
pub use config::{Config, DEFAULT_PORT, DRONE_POOL_LIMIT, Motion, TICK_RANGE_SEC};
pub use metrics::FleetMetrics;
pub use shard::{Part, SHARDS_MAX, Shard};
pub use simulator::{Simulator, TickReport};
pub use telemetry::Telemetry;

mod clock;
mod config;
pub mod fleet;
pub mod flights;
pub mod legs;
mod metrics;
pub mod motion;
pub mod shard;
pub mod simulator;
pub mod slots;
pub mod telemetry;

/// The fleet counts as not ready when no tick has succeeded for this long, or ten ticks if that is longer.
const TICK_SILENCE: Duration = Duration::from_secs(5);

/// First pause after the KV did not answer; doubles up to [`KV_BACKOFF_MAX`], each with ±50 % of jitter.
const KV_BACKOFF_MIN: Duration = Duration::from_millis(100);

/// Longest pause (before jitter) after the KV did not answer.
const KV_BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Largest request body, bytes: nothing here takes one.
const BODY_LIMIT_BYTES: usize = 1_024;

/// Runs the fleet with RabbitMQ at the configured address as its bus, until `shutdown`.
///
/// # Errors
/// When the settings cannot be used.
pub async fn run_with_rabbit(config: Config, listener: TcpListener, shutdown: Shutdown) -> anyhow::Result<()> {
    let url = config.rabbit_url.clone();
    bus::with_rabbit(&url, |bus| run(config, listener, bus, shutdown))
        .await
        .context("RABBIT_URL (--rabbit-url)")?
}

/// Runs the fleet until `shutdown`. That KV or bus are away is no error.
///
/// # Errors
/// When the settings cannot be used.
pub async fn run(config: Config, listener: TcpListener, bus: Arc<dyn Bus>, shutdown: Shutdown) -> anyhow::Result<()> {
    config.validate()?;
    // The next tick is the repetition of a failed read.
    let kv = Kv::new(
        &config.kv_url,
        Options {
            read_retries: 0,
            ..Options::default()
        },
    )
    .context("KV_URL (--kv-url)")?;
    let metrics = Metrics::new(Config::NAME);
    let counts = FleetMetrics::new(&metrics);
    let tasks = Tasks::new(shutdown.child());
    let tracer = config.traces.start(Config::NAME, &metrics, &tasks)?;
    let telemetry = Telemetry::new(config.event_queue_max, counts.clone());

    let topic = Topic::work(config.drone_updates_queue.clone());
    let publisher = Arc::clone(&telemetry);
    tasks.spawn("events", telemetry::MAX_SILENCE, |beat, shutdown| {
        publisher.publish(bus, topic, rand::make_rng(), beat, shutdown)
    });
    let silence = TICK_SILENCE.max(config.tick() * 10);
    let ticker = Ticker {
        kv,
        config,
        telemetry,
        metrics: counts,
        clock: Arc::new(SystemClock::new()),
        rng: rand::make_rng(),
        tracer,
    };
    tasks.spawn("ticks", silence, |beat, shutdown| ticker.run(beat, shutdown));

    let health = get(|| async { axum::Json(serde_json::json!({"status": "ok"})) });
    let router = with_common_routes(
        Router::new().route("/health", health),
        tasks.clone(),
        metrics,
        BODY_LIMIT_BYTES,
    );
    serve_router(listener, router, Limits::default(), shutdown).await;
    tasks.stop().await;
    Ok(())
}

/// The loop that makes the ticks.
struct Ticker {
    kv: Kv,
    config: Config,
    telemetry: Arc<Telemetry>,
    metrics: FleetMetrics,
    clock: Arc<dyn Clock>,
    rng: StdRng,
    tracer: Tracer,
}

impl Ticker {
    async fn run(mut self, beat: Heartbeat, shutdown: Shutdown) {
        // A tick cut off half-way is no harm: each of its writes is whole by itself.
        tokio::select! {
            () = shutdown.stopped() => {}
            () = self.fly(&beat, &shutdown) => {}
        }
    }

    async fn fly(&mut self, beat: &Heartbeat, shutdown: &Shutdown) {
        let kv = self.kv.clone();
        let zones = self
            .insist(beat, "zones", async || fleet::await_zones(&kv, shutdown).await)
            .await;
        let part = self.config.part();
        let made = self
            .insist(beat, "registration", async || {
                fleet::register(&kv, part.numbers(), &zones).await
            })
            .await;
        let (shard, drones) = (self.config.shard, part.numbers().len());
        tracing::info!(%shard, drones, new = made, "the fleet is registered");

        let flight = self.config.flight();
        let (telemetry, metrics) = (Arc::clone(&self.telemetry), self.metrics.clone());
        let mut simulator =
            Simulator::new(kv, part, flight, zones, telemetry, metrics, self.clock.now()).traced(self.tracer.clone());
        let tick = self.config.tick();
        let mut backoff = Backoff::default();
        let mut due_sec = self.clock.now().steady_sec;
        loop {
            let now = self.clock.now();
            self.metrics
                .tick_lag_seconds
                .observe((now.steady_sec - due_sec).max(0.0));
            let outcome = simulator.tick(now).await;
            let ended_sec = self.clock.now().steady_sec;
            self.metrics.tick_seconds.observe(ended_sec - now.steady_sec);
            match outcome {
                Ok(_) => {
                    beat.ok();
                    backoff.reset();
                }
                Err(error) => {
                    beat.failed(&error);
                    self.metrics.ticks_failed.inc();
                    backoff.wait(&mut self.rng, &error).await;
                }
            }
            // The next tick of the grid that is still to come: slow ticks fall out, they never pile up.
            let late = ((self.clock.now().steady_sec - due_sec) / tick.as_secs_f64())
                .floor()
                .max(0.0);
            self.metrics.ticks_skipped.inc_by(whole(late));
            due_sec += (late + 1.0) * tick.as_secs_f64();
            let pause_sec = (due_sec - self.clock.now().steady_sec).max(0.0);
            tokio::time::sleep(Duration::from_secs_f64(pause_sec)).await;
        }
    }

    /// Tries until it succeeds: nothing can fly before.
    async fn insist<T, Fut>(&mut self, beat: &Heartbeat, what: &str, mut act: impl FnMut() -> Fut) -> T
    where
        Fut: Future<Output = Result<T, KvError>>,
    {
        let mut backoff = Backoff::default();
        loop {
            match act().await {
                Ok(done) => return done,
                Err(error) => {
                    beat.failed(format_args!("{what}: {error}"));
                    backoff.wait(&mut self.rng, &error).await;
                }
            }
        }
    }
}

/// Growing pauses with jitter. The first failure of a row is logged loudly, the others quietly.
#[derive(Debug, Default)]
struct Backoff {
    failures: u32,
}

impl Backoff {
    async fn wait(&mut self, rng: &mut StdRng, error: &KvError) {
        if self.failures == 0 {
            tracing::warn!(%error, "the KV does not answer; the fleet waits");
        } else {
            tracing::debug!(%error, failures = self.failures, "the KV does not answer");
        }
        let pause = (KV_BACKOFF_MIN * 2_u32.saturating_pow(self.failures)).min(KV_BACKOFF_MAX);
        self.failures = self.failures.saturating_add(1).min(16);
        tokio::time::sleep(pause.mul_f64(rng.random_range(0.5..1.5))).await;
    }

    fn reset(&mut self) {
        if self.failures > 0 {
            tracing::info!("the KV answers again; the fleet flies on");
        }
        self.failures = 0;
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count of ticks, checked not to be negative"
)]
fn whole(ticks: f64) -> u64 {
    ticks.max(0.0) as u64
}
