//! Loading a system, and one measured window of one kind of work on it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};
use tokio::time::sleep_until;

use crate::client::{Client, Connect, OpError, value};
use crate::cpu;
use crate::pace::{Arrivals, Pace};
use crate::report::Round;
use crate::work::{Access, BATCH_KEYS, HOT_KEY, Keys, Work, loaded_key};
use crate::worker::{Job, Span, Tally, Worker, record, timed};

/// Connections that load keys at once.
const LOADERS: usize = 8;
/// From the last client's preparation to the first operation: every client is waiting by then.
const LEAD: Duration = Duration::from_millis(20);

/// What one window measures, and how long.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) work: Work,
    pub(crate) clients: usize,
    pub(crate) keys: u64,
    pub(crate) access: Access,
    /// Operations a second; nothing for a closed loop.
    pub(crate) rate: Option<f64>,
    pub(crate) warm_up: Duration,
    pub(crate) length: Duration,
    /// Part of the names of new keys: never the same twice.
    pub(crate) tag: String,
}

/// Writes the loaded keys.
pub(crate) async fn load<S: Connect>(system: &S, keys: u64) -> anyhow::Result<()> {
    let mut loaders = JoinSet::new();
    for loader in 0..LOADERS {
        let system = system.clone();
        loaders.spawn(async move {
            let mut client = timed(system.connect(loader)).await?;
            for first in (0..keys).step_by(BATCH_KEYS).skip(loader).step_by(LOADERS) {
                let names: Vec<_> = (first..keys.min(first + BATCH_KEYS as u64)).map(loaded_key).collect();
                timed(client.put_all(&names, &value(0))).await?;
            }
            Ok::<_, OpError>(())
        });
    }
    while let Some(loaded) = loaders.join_next().await {
        loaded?.context("loading keys")?;
    }
    Ok(())
}

/// Measures one window. `servers` are the processes whose CPU time is counted.
pub(crate) async fn measure<S: Connect>(system: &S, plan: &Plan, servers: &[u32]) -> anyhow::Result<Round> {
    if plan.work == Work::CasHot {
        let mut client = timed(system.connect(0)).await?;
        timed(client.put(HOT_KEY, &value(0))).await?;
    }
    let workers = prepare(system, plan).await?;
    let begin = Instant::now() + LEAD;
    let start = begin + plan.warm_up;
    let span = Span {
        start,
        end: start + plan.length,
    };
    let schedule = plan.rate.map(|rate| schedule(rate, begin, span.end));
    let pace = match &schedule {
        Some((arrivals, _)) => Pace::Open(Arc::clone(arrivals)),
        None => Pace::Closed(span.end),
    };
    let running: JoinSet<Tally> = workers
        .into_iter()
        .map(|worker| worker.run(pace.clone(), span))
        .collect();
    let used = cpu_within(span, servers).await;
    let mut tallies = running.join_all().await;
    let not_begun = match schedule {
        Some((arrivals, pacer)) => {
            pacer.await?;
            charge(&mut tallies, &arrivals, start)
        }
        None => 0,
    };
    let mut round = Round::of(&tallies, plan.length, not_begun, used);
    if plan.work == Work::CasHot {
        let made = tallies.iter().map(|tally| tally.increments).sum();
        let unsure = tallies.iter().map(|tally| tally.unsure).sum();
        if let Err(error) = check_hot(system, made, unsure).await {
            round.fail("wrong count", format!("{error:#}"));
        }
    }
    Ok(round)
}

/// Connects all clients.
async fn prepare<S: Connect>(system: &S, plan: &Plan) -> anyhow::Result<Vec<Worker<S>>> {
    let job = Arc::new(Job {
        work: plan.work,
        loaded: plan.keys,
        keys: Keys::new(plan.keys, plan.access),
        tag: plan.tag.clone(),
    });
    let mut preparing: JoinSet<_> = (0..plan.clients)
        .map(|number| Worker::prepare(system.clone(), number, Arc::clone(&job)))
        .collect();
    let mut workers = Vec::with_capacity(plan.clients);
    while let Some(worker) = preparing.join_next().await {
        workers.push(worker?.context("a client cannot begin")?);
    }
    Ok(workers)
}

/// A schedule of arrivals, and what drives it.
fn schedule(rate: f64, begin: Instant, end: Instant) -> (Arc<Arrivals>, JoinHandle<()>) {
    let arrivals = Arc::new(Arrivals::new(rate, begin, end));
    let driven = Arc::clone(&arrivals);
    (arrivals, spawn_blocking(move || driven.run()))
}

/// CPU time used by the servers and by this process, in seconds.
pub(crate) type CpuSec = (Option<f64>, Option<f64>);

async fn cpu_within(span: Span, servers: &[u32]) -> CpuSec {
    let own = [std::process::id()];
    let used = || (cpu::used_by(servers), cpu::used_by(&own));
    let seconds =
        |before: Option<Duration>, after: Option<Duration>| Some((after?.checked_sub(before?)?).as_secs_f64());
    sleep_until(span.start.into()).await;
    let before = used();
    sleep_until(span.end.into()).await;
    let after = used();
    (seconds(before.0, after.0), seconds(before.1, after.1))
}

/// Counts the operations that were due and that nobody began, with the age they had at the end: they took longer than that.
fn charge(tallies: &mut [Tally], arrivals: &Arrivals, start: Instant) -> u64 {
    let Some(tally) = tallies.first_mut() else { return 0 };
    arrivals
        .left(start)
        .map(|age| record(&mut tally.latencies, age))
        .zip(1..)
        .last()
        .map_or(0, |((), count)| count)
}

/// The hot key must hold exactly the increments that were acknowledged, and at most those of unknown effect besides.
async fn check_hot<S: Connect>(system: &S, made: u64, unsure: u64) -> anyhow::Result<()> {
    let mut client = timed(system.connect(0)).await?;
    let (number, _) = timed(client.current(HOT_KEY)).await?;
    if !(made..=made + unsure).contains(&number) {
        bail!("{made} increments succeeded, {unsure} perhaps, the key says {number}");
    }
    Ok(())
}
