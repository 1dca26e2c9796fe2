//! Assigns drones to deliveries, advances them, charges and sizes the fleet.
//!
//! The way of an order through here: [`hints`] or a sweep finds it, [`engine`] reads it and everything else that is due,
//! [`policy`] chooses its drone, the engine makes that true in the KV, [`advance`] follows the drone, and each transition is
//! told on the bus. [`charging`] and [`scale`] see to it that there is a drone with a battery. Decisions are pure functions;
//! the engine makes them true by compare-and-swap; this file only ties it to the network.

pub mod advance;
mod bus_loops;
pub mod chargers;
pub mod charging;
pub mod clock;
pub mod config;
pub mod engine;
pub mod fleet;
pub mod hints;
pub mod limits;
pub mod metrics;
mod mirror;
pub mod outlook;
pub mod policy;
pub mod rules;
pub mod scale;
pub mod silence;
pub mod store;
#[cfg(test)]
mod testing;
mod traces;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::routing::get;
use bus::Bus;
use kv_client::{Kv, Options};
use serde_json::json;
use service::http::{Limits, serve_router, with_common_routes};
use service::metrics::Metrics;
use service::program::Program;
use service::{Heartbeat, Shutdown, Tasks};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

pub use config::Config;

use crate::bus_loops::{Source, Topics, consume_orders, consume_updates, publish_status};
use crate::clock::SystemClock;
use crate::engine::{Engine, Parts};
use crate::hints::Inbox;
use crate::limits::{BEAT_EVERY, BODY_MAX_BYTES, OUTBOX_MAX, ROUND_GAP, ROUND_GAP_MAX, ROUND_MAX_SILENCE, ROUND_REST};
use crate::metrics::DispatchMetrics;

/// Runs a dispatcher as a program of its own does: over the RabbitMQ that its settings name.
///
/// # Errors
/// When the settings cannot be used.
pub async fn run_with_rabbit(config: Config, listener: TcpListener, shutdown: Shutdown) -> anyhow::Result<()> {
    let url = config.rabbit_url.clone();
    bus::with_rabbit(&url, |bus| run(config, listener, bus, shutdown))
        .await
        .context("RABBIT_URL (--rabbit-url)")?
}

/// Runs a dispatcher until `shutdown`: serves `/health`, `/ready` and `/metrics` on `listener`, and dispatches. It keeps no
/// state of its own, so it may be killed and started again anywhere, and several may run.
///
/// # Errors
/// When the settings cannot be used (a bad `KV_URL`).
pub async fn run(config: Config, listener: TcpListener, bus: Arc<dyn Bus>, shutdown: Shutdown) -> anyhow::Result<()> {
    let kv = Kv::new(&config.kv_url, Options::default())?;
    let metrics = Metrics::new("dispatcher");
    let dispatch_metrics = DispatchMetrics::new(&metrics);
    let tasks = Tasks::new(shutdown.clone());
    let tracer = config.traces.start(Config::NAME, &metrics, &tasks)?;
    let inbox = Arc::new(Inbox::default());
    let topics = Topics::new(&config);
    let (outbox, messages) = mpsc::channel(OUTBOX_MAX);
    let engine = Engine::new(Parts {
        store: Arc::new(kv),
        clock: Arc::new(SystemClock),
        rules: config.rules(),
        policy: config.policy,
        owner: format!("dispatcher-{:016x}", rand::random::<u64>()),
        outbox,
        metrics: dispatch_metrics.clone(),
    })
    .traced(tracer.clone());
    let tick = Duration::from_millis(config.assigner_tick_ms);
    let silence = ROUND_MAX_SILENCE.max(tick * 3);
    let rounds_inbox = Arc::clone(&inbox);
    tasks.spawn("rounds", silence, move |beat, shutdown| {
        rounds(engine, rounds_inbox, tick, beat, shutdown)
    });
    let alive = BEAT_EVERY * 6;
    let (orders_bus, orders_inbox, orders) = (Arc::clone(&bus), Arc::clone(&inbox), topics.orders);
    let orders_tracer = tracer.clone();
    tasks.spawn("delivery_requests", alive, move |beat, shutdown| {
        consume_orders(
            Source::new(orders_bus, orders, orders_tracer),
            orders_inbox,
            beat,
            shutdown,
        )
    });
    let (updates_bus, updates, eps_km) = (Arc::clone(&bus), topics.updates, config.arrive_eps_km);
    tasks.spawn("drone_updates", alive, move |beat, shutdown| {
        consume_updates(Source::new(updates_bus, updates, tracer), inbox, eps_km, beat, shutdown)
    });
    let status = topics.status;
    tasks.spawn("delivery_status", alive, move |beat, shutdown| {
        publish_status(bus, status, messages, dispatch_metrics, beat, shutdown)
    });
    let router = Router::new().route("/health", get(|| async { axum::Json(json!({"status": "ok"})) }));
    let router = with_common_routes(router, tasks.clone(), metrics, BODY_MAX_BYTES);
    serve_router(listener, router, Limits::default(), shutdown).await;
    tasks.stop().await;
    Ok(())
}

/// The shortest pause after a round that took so long.
fn gap_after(took: Duration) -> Duration {
    (took * ROUND_REST).clamp(ROUND_GAP, ROUND_GAP_MAX)
}

/// A round every tick, and soon when a hint comes in: sooner the less there is to look at.
async fn rounds(mut engine: Engine, inbox: Arc<Inbox>, tick: Duration, beat: Heartbeat, shutdown: Shutdown) {
    let mut failing = false;
    while !shutdown.is_stopping() {
        let begun = tokio::time::Instant::now();
        // A round is never cut off half-way: it ends within the KV client's timeouts, and leaves no locks behind.
        let again = match engine.round(inbox.take()).await {
            Ok(report) => {
                if std::mem::take(&mut failing) {
                    tracing::info!("the KV answers again");
                }
                beat.ok();
                inbox.watch(engine.watches());
                report.again
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "a round failed; trying on");
                }
                beat.failed(&error);
                false
            }
        };
        let gap = if again { ROUND_GAP } else { gap_after(begun.elapsed()) };
        if !shutdown.sleep(gap).await {
            break;
        }
        // While the KV is away, hints are no reason to hurry.
        let pause = if again {
            Duration::ZERO
        } else {
            tick.saturating_sub(gap)
        };
        tokio::select! {
            () = shutdown.stopped() => break,
            () = tokio::time::sleep(pause) => {}
            () = inbox.notified(), if !failing => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_that_took_long_is_followed_by_a_longer_pause() {
        let ms = Duration::from_millis;
        assert_eq!(gap_after(ms(1)), ROUND_GAP);
        assert_eq!(gap_after(ms(40)), ms(80));
        assert_eq!(gap_after(ms(60_000)), ROUND_GAP_MAX);
    }
}
