//! Clients at work on both kvfronts, on few hot keys and on many, and the running judgement of what they were told.
//!
//! A key is used for so many operations, then another takes its place, and the history of the old one is judged while the others go on:
//! so a history stays short enough for the checker, and a long run needs no more memory than a short one.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{Seek, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::{JoinHandle, JoinSet};

use super::client::work;
use super::cluster::Cluster;
use super::record::{Record, micros};
use super::retired::{Kept, judge_all, read_again};
use super::shared::Shared;

/// Clients; each is at home on one kvfront.
pub(crate) const CLIENTS: u32 = 8;
/// How often it is looked whether anything was found wrong, and how the machine is.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A timer that rings this much late is on time.
const TIMER_MARGIN: Duration = Duration::from_millis(2);
/// A disk that takes so long to keep something is a slow one, and well.
const SYNC_MARGIN: Duration = Duration::from_millis(50);

/// Clients at work.
#[derive(Debug)]
pub(crate) struct Load {
    shared: Arc<Shared>,
    clients: JoinSet<()>,
    retire: UnboundedSender<Arc<Record>>,
    judge: JoinHandle<Vec<Kept>>,
    /// How late our own timers rang and our own writes were on the disk since gaps are watched, all in all.
    late_us: AtomicU64,
    /// Beside the nodes' databases.
    probe: Arc<File>,
}

/// What a run came to.
#[derive(Debug, Clone)]
pub(crate) struct Summary {
    /// Operations by what became of them.
    counts: BTreeMap<&'static str, u64>,
    /// Keys used, each judged for itself.
    keys: u32,
    /// Of those, the ones that were read once more at the end.
    read_again: usize,
}

impl Summary {
    pub(crate) fn count(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or(0)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            counts,
            keys,
            read_again,
        } = self;
        write!(f, "{} operations", counts.values().sum::<u64>())?;
        for (name, count) in counts {
            write!(f, ", {count} {name}")?;
        }
        write!(f, "; {keys} keys judged, {read_again} of them read again at the end")
    }
}

impl Load {
    /// Sets the clients to work. `run` names the run in what is left of a violation.
    pub(crate) fn start(cluster: &Cluster, run: &str, seed: u64) -> Self {
        let shared = Shared::new(format!("{run}-seed-{seed}"), Arc::clone(&cluster.front_urls));
        let shared = Arc::new(shared);
        let (retire, retired) = unbounded_channel();
        let mut clients = JoinSet::new();
        for client in 0..CLIENTS {
            let rng = StdRng::seed_from_u64(seed.wrapping_mul(1_000).wrapping_add(client.into()));
            clients.spawn(work(Arc::clone(&shared), retire.clone(), client, rng));
        }
        let judge = tokio::spawn(judge_all(Arc::clone(&shared), retired));
        Self {
            shared,
            clients,
            retire,
            judge,
            late_us: AtomicU64::new(0),
            probe: Arc::new(tempfile::tempfile().expect("a file in the folder for temporary ones")),
        }
    }

    /// Lets the clients work for so long. Fails as soon as anything is found wrong.
    pub(crate) async fn go_on(&self, span: Duration) {
        let end = Instant::now() + span;
        while Instant::now() < end {
            self.check();
            let (asleep, nap) = (Instant::now(), LOOK_EVERY.min(span));
            tokio::time::sleep(nap).await;
            let late = asleep.elapsed().saturating_sub(nap + TIMER_MARGIN);
            let disk_late = self.sync().await.saturating_sub(SYNC_MARGIN);
            self.late_us.fetch_add(micros(late + disk_late), Ordering::Relaxed);
        }
        self.check();
    }

    /// How long the disk takes to keep something. Nodes answer a change when it is kept, so nobody is answered while the disk stands still.
    async fn sync(&self) -> Duration {
        let (begun, mut probe) = (Instant::now(), Arc::clone(&self.probe));
        let sync = move || {
            probe
                .rewind()
                .and_then(|()| probe.write_all(b"kept?"))
                .and_then(|()| probe.sync_data())
        };
        let synced = tokio::task::spawn_blocking(sync).await;
        synced.expect("it does not panic").expect("the disk takes a few bytes");
        begun.elapsed()
    }

    /// Fails when anything was found wrong.
    pub(crate) fn check(&self) {
        if let Some(wrong) = self.shared.failure() {
            panic!("{wrong}");
        }
    }

    /// True once every client was answered.
    pub(crate) fn all_answered(&self) -> bool {
        self.shared.all_answered()
    }

    /// From now on, gaps and slow operations count.
    pub(crate) fn watch_gaps(&self) {
        self.shared.watch_gaps();
        self.late_us.store(0, Ordering::Relaxed);
    }

    /// How long this process waited for a processor or the disk since [`Self::watch_gaps`], by its own timers and writes: next to nothing, unless
    /// the machine has more to do than it can.
    pub(crate) fn machine_was_late(&self) -> Duration {
        Duration::from_micros(self.late_us.load(Ordering::Relaxed))
    }

    /// The longest time that a client of these fronts has been without an answer since [`Self::watch_gaps`].
    pub(crate) fn longest_gap(&self, fronts: &[usize]) -> Duration {
        self.shared.longest_gap(fronts)
    }

    /// The slowest operation since [`Self::watch_gaps`], and what it was told: why somebody had to wait.
    pub(crate) fn slowest(&self) -> String {
        self.shared.slowest()
    }

    /// Stops the clients, judges what is left, and reads every key once more: nothing acknowledged may be missing.
    ///
    /// # Errors
    /// What was found wrong first.
    pub(crate) async fn stop(mut self) -> Result<Summary, String> {
        self.shared.stop();
        while let Some(ended) = self.clients.join_next().await {
            ended.expect("a client that does not panic");
        }
        for record in self.shared.take_keys() {
            // When nobody takes it any more, the judge has failed, which is told below.
            let _ = self.retire.send(record);
        }
        let Self {
            shared, retire, judge, ..
        } = self;
        drop(retire);
        let kept = judge.await.expect("a judge that does not panic");
        if let Some(wrong) = shared.failure() {
            return Err(wrong.clone());
        }
        let summary = Summary {
            counts: shared.counts(),
            keys: shared.keys(),
            read_again: kept.len(),
        };
        read_again(&shared, kept).await?;
        Ok(summary)
    }
}
