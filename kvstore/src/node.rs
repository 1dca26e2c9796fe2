//! A running node: settings, store, metrics and health put together.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use register::HlcTime;
use register::ballot::SkewError;
use service::clock::{WallClock, system_clock};
use service::http::{Limits, serve};
use service::metrics::Metrics;
use service::{Shutdown, Tasks};
use tokio::net::TcpListener;

use crate::clock_watch::ClockWatch;
use crate::config::Config;
use crate::http;
use crate::storage::{CacheLimits, OpenError, Store, StoreMetrics, StoreOptions, Trouble};

/// How often the storage's health line is renewed, and a failing disk is tried again.
const STORAGE_CHECK_EVERY: Duration = Duration::from_millis(250);

/// How long the storage's health line stays good without being renewed.
const STORAGE_SILENCE_MAX: Duration = Duration::from_secs(1);

/// How often the clock's health line is renewed.
const CLOCK_CHECK_EVERY: Duration = Duration::from_millis(250);

/// How long the clock's health line stays good without being renewed.
const CLOCK_SILENCE_MAX: Duration = Duration::from_secs(1);

/// One node. Clones share it.
#[derive(Debug, Clone)]
pub struct Node {
    store: Store,
    metrics: Metrics,
    clock_watch: Arc<ClockWatch>,
    skew_refusals: Counter,
    ring_refusals: Counter,
    max_value_bytes: usize,
}

impl Node {
    /// Opens the node's database. Blocks for as long as the integrity check takes.
    ///
    /// # Errors
    /// [`OpenError`], which names the file and what to do.
    pub fn open(config: &Config, wall: WallClock) -> Result<Self, OpenError> {
        let metrics = Metrics::new("kvstore");
        let options = StoreOptions {
            cache: CacheLimits {
                items: config.max_cache_items,
                bytes: config.max_cache_size_bytes,
            },
            max_clock_skew_ms: config.max_clock_skew_ms,
            wall,
            new_incarnation: rand::random(),
            adopt_ring: config.adopt_ring,
            metrics: StoreMetrics::new(&metrics),
        };
        let store = Store::open(&config.db_file, options)?;
        let skew_refusals = metrics.register(
            "skew_refusals",
            "Messages whose clock was too far ahead",
            Counter::default(),
        );
        let ring_refusals = metrics.register(
            "ring_refusals",
            "Messages from another ring (other BACKENDS or RF)",
            Counter::default(),
        );
        let clock_offset_ms = metrics.register(
            "clock_offset_ms",
            "Clock of the last coordinator that asked, minus this node's, in milliseconds",
            Gauge::default(),
        );
        Ok(Self {
            store,
            metrics,
            clock_watch: Arc::new(ClockWatch::new(config.max_clock_skew_ms, clock_offset_ms)),
            skew_refusals,
            ring_refusals,
            max_value_bytes: config.max_value_bytes,
        })
    }

    /// The node's store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Merges a sender's clock into the node's.
    ///
    /// # Errors
    /// When it is too far ahead. It is counted, because many of them mean that one of the clocks is wrong.
    pub fn observe(&self, sender: HlcTime) -> Result<(), SkewError> {
        self.store.clock().observe(sender).inspect_err(|_| {
            self.skew_refusals.inc();
        })
    }

    /// Notes what the clock of the coordinator of this incarnation says, whether it is accepted or not.
    pub fn hear_clock(&self, sender: u64, clock: HlcTime) {
        let now_unix_ms = self.store.clock().now_unix_ms();
        self.clock_watch.hear(sender, clock, now_unix_ms, Instant::now());
    }

    /// Counts a message from another ring.
    pub fn count_ring_refusal(&self) {
        self.ring_refusals.inc();
    }

    /// Largest value taken, in bytes of JSON text.
    #[must_use]
    pub fn max_value_bytes(&self) -> usize {
        self.max_value_bytes
    }

    /// Serves until `shutdown`, then finishes what was taken on and closes the database.
    pub async fn serve(self, listener: TcpListener, shutdown: Shutdown) {
        let tasks = Tasks::new(shutdown.child());
        self.watch_storage(&tasks);
        self.watch_clock(&tasks);
        let (store, stopping) = (self.store.clone(), shutdown.clone());
        tokio::spawn(async move {
            stopping.stopped().await;
            store.end_waits();
        });
        let routes = http::all_routes(Arc::new(self.clone()), tasks.clone(), self.metrics.clone());
        serve(listener, move |_| routes.clone(), Limits::default(), shutdown).await;
        tasks.stop().await;
        self.store.close().await;
    }

    fn watch_storage(&self, tasks: &Tasks) {
        let store = self.store.clone();
        tasks.spawn("storage", STORAGE_SILENCE_MAX, move |heartbeat, shutdown| async move {
            loop {
                // A node that nobody writes to would stay unwell for ever without trying by itself.
                let health = match store.trouble() {
                    None => Ok(()),
                    Some(Trouble::Failing(_)) => store.probe().await.map_err(|error| error.to_string()),
                    Some(hanging @ Trouble::Hanging(_)) => Err(hanging.to_string()),
                };
                match health {
                    Ok(()) => heartbeat.ok(),
                    Err(error) => heartbeat.failed(error),
                }
                if !shutdown.sleep(STORAGE_CHECK_EVERY).await {
                    return;
                }
            }
        });
    }

    fn watch_clock(&self, tasks: &Tasks) {
        let watch = Arc::clone(&self.clock_watch);
        tasks.spawn("clock", CLOCK_SILENCE_MAX, move |heartbeat, shutdown| async move {
            loop {
                match watch.judge(Instant::now()) {
                    None => heartbeat.ok(),
                    Some(trouble) => heartbeat.failed(trouble),
                }
                if !shutdown.sleep(CLOCK_CHECK_EVERY).await {
                    return;
                }
            }
        });
    }
}

/// Runs a node until `shutdown`.
///
/// # Errors
/// When its database cannot be used.
pub async fn run(config: Config, listener: TcpListener, shutdown: Shutdown) -> anyhow::Result<()> {
    run_with_clock(config, listener, shutdown, system_clock()).await
}

/// Runs a node whose wall clock is `wall`.
///
/// # Errors
/// When its database cannot be used.
pub async fn run_with_clock(
    config: Config,
    listener: TcpListener,
    shutdown: Shutdown,
    wall: WallClock,
) -> anyhow::Result<()> {
    let node = tokio::task::spawn_blocking(move || Node::open(&config, wall)).await;
    let node = node.context("opening the database died")??;
    node.serve(listener, shutdown).await;
    Ok(())
}
