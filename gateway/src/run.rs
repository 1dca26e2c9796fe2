//! Putting the parts together, and taking them apart in order.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bus::{Bus, Topic};
use kv_client::{Kv, Options};
use service::http::{Limits, RequestMetrics, Traced, serve_router, with_measured_routes};
use service::metrics::Metrics;
use service::program::Program;
use service::{Shutdown, Tasks};
use tokio::net::TcpListener;

use crate::app::{App, OrderCounters, system_clock};
use crate::cluster::{self, ClusterView};
use crate::config::Config;
use crate::feed::{self, Feed, FrameTimes};
use crate::hints::{self, HintSender};
use crate::index::{self, IndexQueue};
use crate::keep;
use crate::listing::Lists;
use crate::page::Home;
use crate::routes::{ORDER_MAX_BYTES, routes};
use crate::stats::{self, Stats};
use crate::status::{self, Recent};
use crate::zones::Zones;

/// Longest wait for one KV call: a request has two seconds in all.
const KV_TIMEOUT: Duration = Duration::from_secs(2);
/// How often the zones are read, which is also how the gateway knows that the KV is there.
const KV_CHECK_EVERY: Duration = Duration::from_millis(500);
/// After this long without an answer from the KV the gateway is not ready.
const KV_MAX_SILENCE: Duration = Duration::from_secs(5);
/// After this long without a written index the gateway is not ready. Longer than the KV's: it only fails with it.
const INDEX_MAX_SILENCE: Duration = Duration::from_secs(60);
/// For loops whose failures do not keep the gateway from its work; they show in `/ready` all the same.
const NEVER: Duration = Duration::MAX;

/// Serves until `shutdown`, with RabbitMQ (`config.rabbit_url`) as the bus.
///
/// # Errors
/// When a setting cannot be used. That KV or broker are away is no error.
pub async fn run_with_rabbit(config: Config, listener: TcpListener, shutdown: Shutdown) -> anyhow::Result<()> {
    let url = config.rabbit_url.clone();
    bus::with_rabbit(&url, |bus| run(config, listener, bus, shutdown))
        .await
        .context("RABBIT_URL (--rabbit-url)")?
}

/// Serves until `shutdown`; then answers what is under way, writes what waits for the index, and returns.
///
/// # Errors
/// When a setting cannot be used. That KV or broker are away is no error.
pub async fn run(config: Config, listener: TcpListener, bus: Arc<dyn Bus>, shutdown: Shutdown) -> anyhow::Result<()> {
    if let Some(files) = service::files::raise_limit() {
        tracing::info!(files, viewers = config.events_viewers_max, "open files allowed");
    }
    let options = Options {
        request_timeout: KV_TIMEOUT,
        ..Options::default()
    };
    let kv = Kv::new(&config.kv_url, options).context("KV_URL (--kv-url)")?;
    let metrics = Metrics::new("gateway");
    let tasks = Tasks::new(shutdown.clone());
    let tracer = config.traces.start(Config::NAME, &metrics, &tasks)?;
    // Signalled once no order can arrive any more.
    let drained = Shutdown::new();
    let clock = system_clock();
    let cluster_view = ClusterView::new(&config)?;
    let home = Home::new(config.tiles()?, config.tile_attribution.as_deref().unwrap_or_default())?;
    let cluster_clock = Arc::clone(&clock);
    let (hint_sender, hint_queue) = HintSender::new(&metrics);
    let app = Arc::new(App {
        zones: Zones::new(kv.clone(), config.zones()?),
        lists: Lists::new(),
        stats: Stats::new(),
        recent: Recent::new(&metrics),
        feed: Arc::new(Feed::new(
            config.events_viewers_max,
            Duration::from_secs_f64(config.stats_window_sec),
            config.speed_base_kmh * config.time_scale / 60.0,
            &metrics,
        )),
        hints: hint_sender.clone(),
        index: IndexQueue::default(),
        counters: OrderCounters::new(&metrics),
        clock: Arc::clone(&clock),
        kv: kv.clone(),
    });

    tasks.spawn("kv", KV_MAX_SILENCE, |beat, shutdown| {
        let app = Arc::clone(&app);
        async move {
            loop {
                match app.zones.load().await {
                    Ok(_) => beat.ok(),
                    Err(error) => beat.failed(error),
                }
                if !shutdown.sleep(KV_CHECK_EVERY).await {
                    return;
                }
            }
        }
    });
    let requests = Topic::work(config.delivery_req_queue);
    let statuses = Topic::broadcast(config.delivery_status_queue);
    let queue = app.index.clone();
    tasks.spawn("index", INDEX_MAX_SILENCE, |beat, _| {
        index::run(kv.clone(), queue, beat, drained.clone())
    });
    tasks.spawn("hints", NEVER, |beat, _| {
        hints::run(
            Arc::clone(&bus),
            requests,
            hint_sender,
            hint_queue,
            beat,
            drained.clone(),
        )
    });
    let now = Arc::clone(&clock);
    tasks.spawn("idempotency sweep", NEVER, |beat, shutdown| {
        keep::sweep(kv, now, beat, shutdown)
    });
    let recent = app.recent.clone();
    tasks.spawn("delivery status", NEVER, |beat, shutdown| {
        status::run(bus, statuses, recent, clock, beat, shutdown)
    });
    tasks.spawn("drone changes", NEVER, |beat, shutdown| {
        feed::follow_drones(Arc::clone(&app), beat, shutdown)
    });
    tasks.spawn("delivery changes", NEVER, |beat, shutdown| {
        feed::follow_deliveries(Arc::clone(&app), beat, shutdown)
    });
    tasks.spawn("cluster", NEVER, |beat, shutdown| {
        feed::follow_cluster(Arc::clone(&app), beat, shutdown)
    });
    let frames = FrameTimes {
        interval: Duration::from_millis(config.events_interval_ms),
        sign_of_life: Duration::from_secs_f64(config.events_heartbeat_sec),
    };
    tasks.spawn("event frames", NEVER, |beat, shutdown| {
        feed::make_frames(Arc::clone(&app.feed), Arc::clone(&app.clock), frames, beat, shutdown)
    });
    tasks.spawn("stats", NEVER, |beat, shutdown| {
        stats::run(Arc::clone(&app), beat, shutdown)
    });

    let router = routes(app, home).merge(cluster::routes(cluster_view, cluster_clock));
    let requests = RequestMetrics::register(&metrics).traced(Traced::Beginning(tracer));
    let router = with_measured_routes(router, tasks.clone(), metrics, requests, ORDER_MAX_BYTES);
    serve_router(listener, router, Limits::default(), shutdown).await;
    drained.stop();
    tasks.stop().await;
    Ok(())
}
