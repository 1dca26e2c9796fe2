//! Workers: threads that serve connections, each with a runtime, connections to gateways and memory of its own.
//!
//! One thread accepts and hands every connection to the worker that has the fewest. That keeps the work even, where listeners of their own
//! (`SO_REUSEPORT`) would deal connections out by chance, and lose those that wait at a worker which stops.

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use service::metrics::Metrics;
use service::{Shutdown, Tasks};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use trace::Tracer;

use crate::access_log::AccessLog;
use crate::backends::Backends;
use crate::buffer::Memory;
use crate::clients::{ConnectionLimit, Place, Proxies, TooMany, Trust};
use crate::connection;
use crate::limits::{ACCEPT_BACKOFF, CUT_TIMEOUT, Limits, TICK, Timeouts};
use crate::metrics::LbMetrics;
use crate::rate_limit::RateLimiter;
use crate::upload::ReplayMemory;
use crate::upstream::Pool;
use crate::watch::{Clock, Phase};

/// Ticks between two looks for connections to gateways that have idled too long.
const PRUNE_EVERY_TICKS: u32 = 40;

/// What all workers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) backends: Arc<Backends>,
    /// The targets as the user wrote them, for messages.
    pub(crate) target: String,
    pub(crate) limiter: RateLimiter,
    pub(crate) timeouts: Timeouts,
    pub(crate) limits: Limits,
    pub(crate) proxies: Proxies,
    pub(crate) per_client: Arc<ConnectionLimit>,
    /// Requests that are being forwarded.
    pub(crate) forwarding: AtomicUsize,
    pub(crate) replay_memory: Arc<ReplayMemory>,
    pub(crate) log: AccessLog,
    /// Off unless traces are exported.
    pub(crate) tracer: Tracer,
    pub(crate) metrics: Arc<LbMetrics>,
    pub(crate) registry: Metrics,
    pub(crate) tasks: Tasks,
}

/// What the connections of one worker share.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) clock: Rc<Clock>,
    pub(crate) memory: Rc<Memory>,
    pub(crate) pool: Pool,
    /// For lines of the access log.
    pub(crate) scratch: RefCell<Vec<u8>>,
    ids: Cell<u64>,
    ids_seed: RandomState,
}

impl Worker {
    /// An id that no other request has, and that does not tell how many there were.
    pub(crate) fn new_id(&self) -> u128 {
        let number = self.ids.get();
        self.ids.set(number + 1);
        let half = |half: u8| u128::from(self.ids_seed.hash_one((number, half)));
        half(0) << 64 | half(1)
    }
}

/// A connection on its way to a worker.
struct Accepted {
    stream: std::net::TcpStream,
    peer: SocketAddr,
    slot: OwnedSemaphorePermit,
    /// Among those of its client, where they are counted.
    place: Result<Option<Place>, TooMany>,
}

/// A worker, as seen by who accepts.
struct Seat {
    sender: mpsc::UnboundedSender<Accepted>,
    connections: Arc<AtomicUsize>,
    ended: oneshot::Receiver<()>,
}

/// Serves until `shutdown`; then idle connections and event streams end, other answers have the grace to finish, and the rest is cut.
///
/// # Errors
/// When a thread or its runtime cannot be started.
pub(crate) async fn serve(
    shared: &Arc<Shared>,
    listener: TcpListener,
    workers: usize,
    shutdown: &Shutdown,
) -> io::Result<()> {
    let mut seats = (0..workers.max(1))
        .map(|number| start(number, Arc::clone(shared), shutdown.clone()))
        .collect::<io::Result<Vec<_>>>()?;
    let slots = Arc::new(Semaphore::new(shared.limits.connections));
    loop {
        let accepted = tokio::select! {
            () = shutdown.stopped() => break,
            accepted = accept(&listener, &slots, shared) => accepted,
        };
        match accepted {
            Ok(accepted) => hand_over(&seats, accepted),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                shutdown.sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
    drop(listener);
    for seat in &mut seats {
        // A worker that is gone has ended too.
        let _ = (&mut seat.ended).await;
    }
    Ok(())
}

async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>, shared: &Shared) -> io::Result<Accepted> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    // A proxy that is trusted speaks for many.
    let place = match shared.proxies.trust(peer.ip()) {
        Trust::Proxy => Ok(None),
        Trust::Unset | Trust::Stranger => shared.per_client.take(peer.ip()),
    };
    if place.is_err() {
        shared.metrics.connections_refused.inc();
    }
    Ok(Accepted {
        stream: stream.into_std()?,
        peer,
        slot,
        place,
    })
}

fn hand_over(seats: &[Seat], accepted: Accepted) {
    let Some(seat) = seats.iter().min_by_key(|seat| seat.connections.load(Ordering::Relaxed)) else {
        return;
    };
    seat.connections.fetch_add(1, Ordering::Relaxed);
    if seat.sender.send(accepted).is_err() {
        tracing::error!("a worker has ended before its time");
    }
}

fn start(number: usize, shared: Arc<Shared>, shutdown: Shutdown) -> io::Result<Seat> {
    // Bounded by the places for connections.
    let (sender, receiver) = mpsc::unbounded_channel();
    let connections = Arc::new(AtomicUsize::new(0));
    let (ends, ended) = oneshot::channel();
    let count = Arc::clone(&connections);
    std::thread::Builder::new()
        .name(format!("lb-{number}"))
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build_local(tokio::runtime::LocalOptions::default());
            match runtime {
                Ok(runtime) => runtime.block_on(work(shared, receiver, count, shutdown)),
                Err(error) => tracing::error!(%error, "cannot start a worker's runtime"),
            }
            let _ = ends.send(());
        })?;
    Ok(Seat {
        sender,
        connections,
        ended,
    })
}

async fn work(
    shared: Arc<Shared>,
    mut receiver: mpsc::UnboundedReceiver<Accepted>,
    connections: Arc<AtomicUsize>,
    shutdown: Shutdown,
) {
    let start = Instant::now();
    let pool = Pool::new(shared.limits.idle_per_gateway, shared.timeouts.upstream_idle);
    let worker = Rc::new(Worker {
        shared,
        clock: Clock::new(),
        memory: Rc::default(),
        pool,
        scratch: RefCell::default(),
        ids: Cell::new(0),
        ids_seed: RandomState::new(),
    });
    let ticking = Rc::clone(&worker);
    let ticker = tokio::task::spawn_local(async move {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for count in 1_u32.. {
            ticks.tick().await;
            ticking.clock.advance(start.elapsed());
            if count.is_multiple_of(PRUNE_EVERY_TICKS) {
                ticking
                    .pool
                    .prune(&ticking.shared.backends.list(), ticking.clock.now_ms());
            }
        }
    });
    loop {
        let accepted = tokio::select! {
            () = shutdown.stopped() => break,
            accepted = receiver.recv() => accepted,
        };
        let Some(accepted) = accepted else { break };
        begin(&worker, accepted, &connections);
    }
    worker.clock.enter(Phase::Stopping);
    // Those that were accepted just before the signal have their turn too.
    receiver.close();
    while let Ok(accepted) = receiver.try_recv() {
        begin(&worker, accepted, &connections);
    }
    for (phase, patience) in [
        (Phase::Stopping, worker.shared.timeouts.grace),
        (Phase::Cut, CUT_TIMEOUT),
    ] {
        worker.clock.enter(phase);
        let over = Instant::now() + patience;
        while connections.load(Ordering::Relaxed) > 0 && Instant::now() < over {
            tokio::time::sleep(TICK / 5).await;
        }
    }
    ticker.abort();
}

/// A connection among those of its worker. Given back even when serving it panics, or a stop would wait for it.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn begin(worker: &Rc<Worker>, accepted: Accepted, connections: &Arc<AtomicUsize>) {
    let (worker, counted) = (Rc::clone(worker), Counted(Arc::clone(connections)));
    let Accepted {
        stream,
        peer,
        slot,
        place,
    } = accepted;
    tokio::task::spawn_local(async move {
        match TcpStream::from_std(stream) {
            Ok(stream) => connection::serve(worker, stream, peer.ip(), place.as_ref().err().copied()).await,
            Err(error) => tracing::warn!(%error, "cannot serve a connection"),
        }
        drop(counted);
        drop(place);
        drop(slot);
    });
}
