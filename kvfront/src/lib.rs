//! The KV coordinator: ring, proposer, hints, repair and scan, behind HTTP.
//!
//! Stateless: what it knows is learnt from the kvstores, and any number of kvfronts may run over the same ones. It is a thin shell around
//! `register::proposer`, which decides everything that matters for correctness.
//!
//! - [`config`]: the settings. [`ring`]: key → preference list.
//! - [`transport`]: messages to the nodes, batched, each answered exactly once, never sent twice; node health.
//! - [`clocks`]: the hybrid clock. [`front`]: running operations to their end.
//! - [`ops`]: the KV API apart from HTTP; `api`: HTTP; `scan`, `hints`: what their names say. [`metrics`]: what is counted.

mod api;
pub mod clocks;
pub mod config;
pub mod front;
mod hints;
pub mod metrics;
pub mod ops;
pub mod ring;
mod scan;
pub mod transport;

use std::sync::Arc;
use std::time::Duration;

use register::proposer::Limits;
use service::http::serve_router;
use service::metrics::Metrics;
use service::program::Program;
use service::{Heartbeat, Shutdown, Tasks};
use tokio::net::TcpListener;
use tokio::time::Instant;

pub use config::Config;

use crate::clocks::{Clocks, system_clock};
use crate::front::Front;
use crate::hints::HintsSeen;
use crate::metrics::FrontMetrics;
use crate::ops::Ops;
use crate::transport::Transport;

/// How often it is looked whether a quorum of nodes is there.
const QUORUM_CHECK_EVERY: Duration = Duration::from_millis(100);
/// `/ready` turns to 503 when no quorum was there for this long.
const QUORUM_MAX_SILENCE: Duration = Duration::from_secs(2);
/// `/ready` turns to 503 when no hint flush succeeded for this many periods, at least [`HINT_MIN_SILENCE`].
const HINT_SILENT_PERIODS: u32 = 5;
/// See [`HINT_SILENT_PERIODS`].
const HINT_MIN_SILENCE: Duration = Duration::from_secs(30);

/// Serves until `shutdown`. Operations under way then are answered within the server's grace.
///
/// # Errors
/// A setting that cannot be used. Nodes that are away are no error: `/ready` and every 503 name them.
pub async fn run(config: Config, listener: TcpListener, shutdown: Shutdown) -> anyhow::Result<()> {
    config.validate()?;
    let ring = config.ring()?;
    let nodes = ring.backends().len();
    let metrics = Metrics::new(Config::NAME);
    let front_metrics = Arc::new(FrontMetrics::new(&metrics));
    let limits = Limits::default();
    let clocks = Arc::new(Clocks::new(config.max_clock_skew_ms, limits, system_clock()));
    let transport = Transport::start(ring.backends(), clocks, &front_metrics);
    let front = Arc::new(Front::new(
        ring,
        Arc::clone(&transport),
        front_metrics,
        limits,
        config.read_repair,
        config.max_concurrent_ops,
    ));
    let seen = Arc::new(HintsSeen::new(nodes));

    let tasks = Tasks::new(shutdown.child());
    tasks.spawn("quorum", QUORUM_MAX_SILENCE, {
        let front = Arc::clone(&front);
        move |beat, stop| watch_quorum(front, beat, stop)
    });
    let hint_flush = config.hint_flush();
    tasks.spawn(
        "hint_flush",
        (hint_flush * HINT_SILENT_PERIODS).max(HINT_MIN_SILENCE),
        {
            let (front, seen) = (Arc::clone(&front), Arc::clone(&seen));
            move |beat, stop| hints::run(front, seen, hint_flush, beat, stop)
        },
    );

    let ops = Ops {
        front,
        default_consistency: config.default_consistency.into(),
        max_value_bytes: config.max_value_bytes,
    };
    let router = api::router(
        api::Api {
            ops: Arc::new(ops),
            hints: seen,
        },
        tasks.clone(),
        metrics,
    );
    serve_router(listener, router, service::http::Limits::default(), shutdown).await;
    tasks.stop().await;
    transport.stop().await;
    Ok(())
}

/// Keeps `/ready` and the gauges up to date, and says in the log when a quorum is missing for long, or is there again.
async fn watch_quorum(front: Arc<Front>, beat: Heartbeat, stop: Shutdown) {
    let mut missing_since: Option<Instant> = None;
    let mut told = false;
    loop {
        let away: Vec<_> = (0..front.transport.len())
            .filter(|&node| front.transport.is_suspected(node))
            .collect();
        for (node, backend) in front.ring.backends().iter().enumerate() {
            front.metrics.suspected(&backend.name, away.contains(&node));
        }
        if away.len() <= front.ring.may_be_missing() && front.is_learnt() {
            beat.ok();
            if told {
                tracing::info!("a quorum of nodes answers again");
            }
            (missing_since, told) = (None, false);
        } else {
            let names = front.describe_nodes(|node| front.transport.is_suspected(node));
            if !told && missing_since.get_or_insert_with(Instant::now).elapsed() >= QUORUM_MAX_SILENCE {
                tracing::warn!(no_answer_from = names, "no quorum of nodes");
                told = true;
            }
            beat.failed(format!("waiting for a quorum of nodes; no answer from {names}"));
        }
        if !stop.sleep(QUORUM_CHECK_EVERY).await {
            return;
        }
    }
}
