//! The KV coordinator: ring, proposer, hints, repair and scan, behind HTTP.
//!
//! Stateless: what it knows is learnt from the kvstores, and any number of kvfronts may run over the same ones. It is a thin shell around
//! `register::proposer`, which decides everything that matters for correctness.
//!
//! - [`config`]: the settings. [`ring`]: key → preference list.
//! - [`transport`]: messages to the nodes, batched, each answered exactly once, never sent twice; node health.
//! - [`clocks`]: the hybrid clock. [`front`]: running operations to their end.
//! - [`ops`]: the KV API apart from HTTP; `api`: HTTP; `scan`: what its name says. [`metrics`]: what is counted.
//! - Loops of upkeep: `quorum` (is one there?), `membership` (who votes?), `hints` (records of spares go home), `refill` (a lost disk),
//!   `collect` (tombstones leave), `repair` (replicas are kept alike).

mod api;
pub mod clocks;
mod collect;
pub mod config;
mod drive;
mod errand;
pub mod front;
mod hints;
mod make_way;
mod membership;
pub mod metrics;
pub mod ops;
mod pace;
mod quorum;
mod refill;
mod repair;
pub mod ring;
mod scan;
pub mod transport;
mod turns;
mod upkeep;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use register::proposer::Limits;
use service::clock::system_clock;
use service::http::serve;
use service::metrics::Metrics;
use service::program::Program;
use service::{Shutdown, Tasks};
use tokio::net::TcpListener;

pub use config::Config;

use crate::clocks::Clocks;
use crate::collect::CollectSettings;
use crate::front::Front;
use crate::metrics::FrontMetrics;
use crate::ops::Ops;
use crate::pace::Pace;
use crate::transport::Transport;
use crate::upkeep::Upkeep;

/// `/ready` turns to 503 when too few nodes have voted for this long.
const MEMBERSHIP_MAX_SILENCE: Duration = Duration::from_secs(5);
/// `/ready` turns to 503 when no hint flush succeeded for this many periods, at least [`HINT_MIN_SILENCE`].
const HINT_SILENT_PERIODS: u32 = 5;
/// See [`HINT_SILENT_PERIODS`].
const HINT_MIN_SILENCE: Duration = Duration::from_secs(30);
/// `/ready` turns to 503 when a loop of upkeep made no step for so long beyond its pause.
const UPKEEP_MAX_SILENCE: Duration = Duration::from_secs(60);

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
    let transport = Transport::start(ring.backends(), ring.epoch(), clocks, &front_metrics);
    let front = Arc::new(Front::new(
        ring,
        Arc::clone(&transport),
        front_metrics,
        limits,
        config.read_repair,
        config.max_concurrent_ops,
    ));
    let upkeep = Arc::new(Upkeep::new(nodes));

    let tasks = Tasks::new(shutdown.child());
    let tracer = config.traces.start(Config::NAME, &metrics, &tasks)?;
    tasks.spawn("quorum", quorum::MAX_SILENCE, {
        let front = Arc::clone(&front);
        move |beat, stop| quorum::watch(front, beat, stop)
    });
    tasks.spawn("membership", MEMBERSHIP_MAX_SILENCE, {
        let (front, upkeep) = (Arc::clone(&front), Arc::clone(&upkeep));
        move |beat, stop| membership::run(front, upkeep, beat, stop)
    });
    let hint_flush = config.hint_flush();
    tasks.spawn(
        "hint_flush",
        (hint_flush * HINT_SILENT_PERIODS).max(HINT_MIN_SILENCE),
        {
            let (front, upkeep) = (Arc::clone(&front), Arc::clone(&upkeep));
            move |beat, stop| hints::run(front, upkeep, hint_flush, beat, stop)
        },
    );

    spawn_upkeep(&tasks, &config, &front, &upkeep);

    let ops = Ops {
        front,
        default_consistency: config.default_consistency.into(),
        max_value_bytes: config.max_value_bytes,
    };
    let routes = api::routes(
        api::Api {
            ops: Arc::new(ops),
            upkeep,
        },
        tasks.clone(),
        metrics,
        tracer,
    );
    serve(
        listener,
        move |_| routes.clone(),
        service::http::Limits::default(),
        shutdown,
    )
    .await;
    tasks.stop().await;
    transport.stop().await;
    Ok(())
}

/// Starts what repairs and tidies.
fn spawn_upkeep(tasks: &Tasks, config: &Config, front: &Arc<Front>, upkeep: &Arc<Upkeep>) {
    let pace = Arc::new(Pace::new(config.repair_keys_per_sec));
    tasks.spawn("refill", UPKEEP_MAX_SILENCE, {
        let (front, upkeep, pace) = (Arc::clone(front), Arc::clone(upkeep), Arc::clone(&pace));
        move |beat, stop| refill::run(front, upkeep, pace, beat, stop)
    });
    let settings = CollectSettings {
        every: config.collect_every(),
        keep: config.tombstone_keep(),
    };
    tasks.spawn("collect", settings.every + UPKEEP_MAX_SILENCE, {
        let (front, upkeep) = (Arc::clone(front), Arc::clone(upkeep));
        move |beat, stop| collect::run(front, upkeep, settings, beat, stop)
    });
    let every = config.repair_every();
    tasks.spawn("repair", every + UPKEEP_MAX_SILENCE, {
        let (front, upkeep) = (Arc::clone(front), Arc::clone(upkeep));
        move |beat, stop| repair::run(front, upkeep, pace, every, beat, stop)
    });
}
