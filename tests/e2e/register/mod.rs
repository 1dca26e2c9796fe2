//! The register under fault, as real processes: three kvstores and two kvfronts, clients over HTTP, and every answer judged by the
//! checker that also judges the simulator (`libs/linearizability`).
//!
//! - `cluster`: the programs, and what can happen to them. `proxy`: the wires between them. `start-kvstore`: a disk that can be full.
//! - `load`: all clients. `client`: one of them. `mix`: what it does next. `what`: one operation. `wire`: one call. `shared`: what they share.
//! - `record`: what was done to a key, and told. `retired`: what becomes of it then. `judge`: right or wrong.
//! - `kills`, `partitions`, `disks`, `clocks`, `deletes`: one fault after the other. `soak`: all of them at random, for as long as one likes.
//!
//! Faults and operations come from a seed; what the processes make of them in time does not. A violation leaves its history, a timeline
//! and a picture in `target/tmp/`, and says where.

mod client;
mod clocks;
mod cluster;
mod deletes;
mod disks;
mod judge;
mod kills;
mod load;
mod mix;
mod partitions;
mod proxy;
mod record;
mod retired;
mod shared;
mod soak;
mod what;
mod wire;

use std::time::Duration;

use cluster::Cluster;
use load::Load;
use proxy::Wire;

use crate::process::wait_until;
use crate::system::turn;

/// With one node gone, silent, slow or unable, in whatever way, every client is answered again within this time: a promise of the product.
/// Likewise the clients of one kvfront, whatever is wrong with another. A machine that has more to do than it can is allowed what its timers
/// show to be its own fault.
const ANSWERED_AGAIN_WITHIN: Duration = Duration::from_secs(1);
/// The first answers of a new cluster come within this time.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);
/// How long a fault lasts that shows at once.
const SHORT_FAULT: Duration = Duration::from_millis(1_500);
/// A fault longer than every timeout on the way (operation 2 s and a margin of 1 s, envelope 1 s).
const LONG_FAULT: Duration = Duration::from_secs(4);
/// How long the clients work before the first fault and after the last.
const QUIET: Duration = Duration::from_millis(500);

/// Named so that it begins before the others: it takes longest.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_soak_of_random_faults() {
    let _turn = turn().await;
    soak::run().await;
}

/// What is not linearizable is found: kvfronts to which one answer is enough. Were it not for this, silence would prove nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn what_one_answer_is_enough_for_is_found_out() {
    let _turn = turn().await;
    let cluster = Cluster::start_with(&[("DEFAULT_CONSISTENCY", "one")]).await;
    let load = Load::start(&cluster, "one-answer", 15);
    load.go_on(QUIET).await;
    // Now each writes to a home of a third of the keys that the other cannot read.
    cluster.wire(0, 0, Wire::CUT);
    cluster.wire(1, 1, Wire::CUT);
    load.go_on(SHORT_FAULT).await;
    cluster.wire(0, 0, Wire::WHOLE);
    cluster.wire(1, 1, Wire::WHOLE);
    let verdict = load.stop().await;
    let wrong = verdict.expect_err("an answer of one node may be old");
    assert!(wrong.contains("is not linearizable"), "{wrong}");
}

/// A cluster with clients at work.
struct Scene {
    cluster: Cluster,
    load: Load,
}

impl Scene {
    async fn start(run: &str, seed: u64) -> Self {
        let cluster = Cluster::start().await;
        let load = Load::start(&cluster, run, seed);
        wait_until(ANSWERED_WITHIN, "each client is answered", async || load.all_answered()).await;
        load.go_on(QUIET).await;
        Self { cluster, load }
    }

    /// Waits for everybody to be well again, with the clients at work.
    async fn recovers(&self) {
        let took = self.cluster.whole().await;
        report(&format!("whole again after {took:?}"));
        self.load.check();
    }

    /// Lets the clients of `fronts` work on for `span`: every one of them has to be answered again in time.
    async fn goes_on(&self, what: &str, fronts: &[usize], span: Duration) {
        self.load.go_on(span).await;
        let (gap, late) = (self.load.longest_gap(fronts), self.load.machine_was_late());
        report(&format!(
            "{what}: the longest time without an answer was {gap:?} (the machine was {late:?} late)"
        ));
        let slowest = self.load.slowest();
        if gap > ANSWERED_AGAIN_WITHIN / 2 {
            report(&format!("    the slowest call took {slowest}"));
        }
        assert!(
            gap <= ANSWERED_AGAIN_WITHIN + late,
            "{what}: a client was without an answer for {gap:?}, of which the machine explains {late:?}; the slowest call took {slowest}"
        );
    }

    /// Everything that was answered is judged, and still there.
    async fn ends_well(self) {
        self.load.go_on(QUIET).await;
        let summary = self.load.stop().await.unwrap_or_else(|wrong| panic!("{wrong}"));
        report(&summary.to_string());
        assert!(summary.count("ok") > 0, "nothing was answered");
    }
}

/// What a test has to say besides right or wrong.
#[expect(clippy::print_stdout, reason = "a test's report")]
fn report(text: &str) {
    println!("{text}");
}
