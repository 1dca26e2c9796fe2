//! The load balancer: a streaming reverse proxy in front of the gateways.
//!
//! Promises: requests go round over every address that the targets' names resolve to; a gateway that takes no connection is skipped for
//! a while; what may safely be sent twice is sent to another gateway when one breaks off; bodies stream in both directions and
//! events pass at once; every failure of its own is answered as `{"detail": …}`. `/ready` and `/metrics` are its own, everything else,
//! `/health` included, is forwarded.
//!
//! - [`config`](Config): settings. `limits`: every limit and timeout.
//! - `worker`: threads, and who gets which connection. `watch`: deadlines and the stop. `buffer`: memory.
//! - `connection`: a client's requests, one after the other. `exchange`: from request to answer, and what may be repeated when.
//! - `head`: heads of requests and answers, and which headers cross. `chunked`: the chunked coding.
//! - `upload`, `download`, `tunnel`: what passes in which direction. `transfer`: what they share.
//! - `resolve`, `backends`, `upstream`: names to addresses, whose turn it is, connections that wait. `health`, `policy`: who is well, who is
//!   chosen. `check`: asking them. `retry`: how much may be repeated.
//! - `traces`: requests as parts of traces.
//! - `clients`: who asks, and how many connections one may have. `rate_limit`: token buckets. `access_log`, `access_format`: one line per request.

mod access_format;
mod access_log;
mod backends;
mod buffer;
mod check;
mod chunked;
mod clients;
mod config;
mod connection;
mod download;
mod error;
mod exchange;
mod head;
mod health;
mod limits;
mod metrics;
mod policy;
mod rate_limit;
mod resolve;
mod retry;
mod traces;
mod transfer;
mod tunnel;
mod upload;
mod upstream;
mod watch;
mod worker;

use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use anyhow::Context;
use service::metrics::Metrics;
use service::program::Program;
use service::{Shutdown, Tasks};
use tokio::net::TcpListener;

use crate::access_log::AccessLog;
use crate::backends::{Backends, Rules};
use crate::check::Checks;
use crate::clients::{ConnectionLimit, Proxies};
use crate::limits::Limits;
use crate::metrics::LbMetrics;
use crate::rate_limit::RateLimiter;
use crate::upload::ReplayMemory;
use crate::worker::Shared;

pub use config::{AccessFormat, Config, FaultArgs, LimitArgs, Target, TimeoutArgs};
pub use limits::Timeouts;
pub use policy::Policy;
pub use resolve::{Lookup, Resolver, SystemResolver};

/// Names are looked up at least this often in the eyes of `/ready`, however short the TTL.
const RESOLVE_MAX_SILENCE: Duration = Duration::from_secs(60);

/// Gateways are asked how they are at least this often in the eyes of `/ready`.
const HEALTH_MAX_SILENCE: Duration = Duration::from_secs(60);

/// What tests and the one-process run may want to own.
pub struct Parts {
    /// Where the access log goes.
    pub access_log: Box<dyn Write + Send>,
    /// Who looks names up.
    pub resolver: Arc<dyn Resolver>,
    /// How long everything may take.
    pub timeouts: Timeouts,
    /// Of the random choices among gateways.
    pub seed: u64,
}

impl Parts {
    /// Standard output, the system's resolver, the timeouts of `config`, and a seed that nobody knows.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            access_log: Box::new(std::io::stdout()),
            resolver: Arc::new(SystemResolver),
            timeouts: Timeouts::from(config),
            seed: RandomState::new().hash_one(0),
        }
    }
}

/// Serves until `shutdown`: then event streams end, other answers have a grace to finish, and the access log is flushed.
///
/// # Errors
/// When a setting cannot be used or the access log's writer cannot be started.
pub async fn run(config: Config, listener: TcpListener, shutdown: Shutdown) -> anyhow::Result<()> {
    let parts = Parts::new(&config);
    run_with(config, listener, shutdown, parts).await
}

/// As [`run`], with parts of one's own.
///
/// # Errors
/// As [`run`].
pub async fn run_with(config: Config, listener: TcpListener, shutdown: Shutdown, parts: Parts) -> anyhow::Result<()> {
    config.validate()?;
    if let Some(files) = service::files::raise_limit() {
        tracing::info!(
            files,
            connections = config.limits.lb_max_connections,
            "open files allowed"
        );
    }
    let registry = Metrics::new(Config::NAME);
    let metrics = Arc::new(LbMetrics::new(&registry));
    let log = AccessLog::start(config.access_log, parts.access_log, metrics.access_dropped.clone())
        .context("cannot start the access log")?;
    let tasks = Tasks::new(shutdown.child());
    let tracer = config.traces.start(Config::NAME, &registry, &tasks)?;
    let backends = Arc::new(Backends::new(Rules::from(&config), parts.seed, Arc::clone(&metrics)));
    let ttl = limits::seconds(config.lb_resolve_ttl_sec);
    tasks.spawn("resolve", RESOLVE_MAX_SILENCE.max(ttl * 3), {
        let (backends, targets, resolver) = (Arc::clone(&backends), config.target_url.clone(), parts.resolver);
        move |heartbeat, shutdown| resolve::keep_resolved(backends, targets, resolver, ttl, heartbeat, shutdown)
    });
    if let Some(checks) = Checks::of(&config) {
        let (backends, path) = (Arc::clone(&backends), Arc::<str>::from(checks.path.as_str()));
        let ask = move |addr| {
            let path = Arc::clone(&path);
            async move { check::ask(addr, &path).await }
        };
        let silence = HEALTH_MAX_SILENCE.max((checks.interval + checks.timeout) * 3);
        tasks.spawn("health checks", silence, move |heartbeat, shutdown| {
            check::keep_checked(backends, checks, ask, heartbeat, shutdown)
        });
    }
    let shared = Arc::new(Shared {
        backends,
        target: join(&config.target_url),
        limiter: RateLimiter::new(config.global_limit(), config.client_limit()),
        timeouts: parts.timeouts,
        limits: Limits::from(&config),
        proxies: Proxies::new(config.trusted_proxies.clone()),
        per_client: ConnectionLimit::new(config.limits.lb_max_connections_per_client),
        forwarding: AtomicUsize::new(0),
        replay_memory: Arc::new(ReplayMemory::new(config.limits.lb_replay_memory_bytes)),
        log: log.clone(),
        tracer,
        metrics: Arc::clone(&metrics),
        registry,
        tasks: tasks.clone(),
    });
    tracing::info!(target = shared.target, "forwarding");
    let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let workers = config.common.worker_threads.map_or(processors, NonZeroUsize::get);
    let served = worker::serve(&shared, listener, workers, &shutdown).await;
    tasks.stop().await;
    tokio::task::spawn_blocking(move || log.close())
        .await
        .context("cannot flush the access log")?;
    served.context("cannot start the workers")
}

fn join(targets: &[Target]) -> String {
    let names: Vec<String> = targets.iter().map(Target::to_string).collect();
    names.join(", ")
}
