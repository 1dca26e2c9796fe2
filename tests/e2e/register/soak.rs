//! All faults at random, one at a time, for as long as one likes: `scripts/soak`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::cluster::STORES;
use super::proxy::Wire;
use super::{ANSWERED_AGAIN_WITHIN, Scene, report};

/// Environment variable that says how many seconds a soak takes.
pub(crate) const SOAK_SEC: &str = "SOAK_SEC";
/// Environment variable that says which faults come, and what the clients do.
const SOAK_SEED: &str = "SOAK_SEED";
/// Seconds it takes when nobody says so, as in CI.
const CI_SEC: u64 = 60;
/// The seed then.
const CI_SEED: u64 = 1;
/// How long a fault lasts, milliseconds.
const FAULT_MS: std::ops::Range<u64> = 500..5_000;
/// How long the cluster is left alone after it was whole again, milliseconds.
const REST_MS: std::ops::Range<u64> = 200..1_500;

/// What happens to one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Killed,
    Paused,
    Isolated,
    NotHeard,
    Replaced,
}

const FAULTS: [Fault; 5] = [
    Fault::Killed,
    Fault::Paused,
    Fault::Isolated,
    Fault::NotHeard,
    Fault::Replaced,
];

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Killed => "killed",
            Self::Paused => "paused",
            Self::Isolated => "isolated",
            Self::NotHeard => "not heard",
            Self::Replaced => "replaced",
        })
    }
}

/// What the faults of one kind came to.
#[derive(Debug, Default)]
struct Tally {
    faults: u32,
    longest_gap: Duration,
    /// How late the machine was meanwhile.
    late: Duration,
    /// The slowest operation when the longest gap was.
    slowest: String,
    longest_recovery: Duration,
}

/// One run, until its time is over or anything is found wrong.
pub(crate) async fn run() {
    let span = Duration::from_secs(setting(SOAK_SEC, CI_SEC));
    let seed = setting(SOAK_SEED, CI_SEED);
    report(&format!("register soak: {span:?}, seed {seed}"));
    let mut rng = StdRng::seed_from_u64(seed);
    let mut scene = Scene::start("soak", seed).await;
    let mut tallies: BTreeMap<Fault, Tally> = BTreeMap::new();
    let begun = Instant::now();
    while begun.elapsed() < span {
        let (fault, node) = (FAULTS[rng.random_range(0..FAULTS.len())], rng.random_range(0..STORES));
        let lasting = Duration::from_millis(rng.random_range(FAULT_MS));
        scene.load.watch_gaps();
        strike(&mut scene, fault, node).await;
        scene.load.go_on(lasting).await;
        relieve(&mut scene, fault, node);
        let recovery = scene.cluster.whole().await;
        let (gap, late) = (scene.load.longest_gap(&[0, 1]), scene.load.machine_was_late());
        let at = begun.elapsed().as_secs_f64();
        report(&format!(
            "{at:7.1} s  kvstore {node} {fault:<9} for {lasting:>6.1?}: longest gap {gap:>9.1?}, whole again {recovery:>9.1?} later"
        ));
        if gap > ANSWERED_AGAIN_WITHIN {
            let slowest = scene.load.slowest();
            report(&format!(
                "           the machine was {late:.1?} late; the slowest call took {slowest}"
            ));
        }
        let tally = tallies.entry(fault).or_default();
        tally.faults += 1;
        if gap > tally.longest_gap {
            tally.longest_gap = gap;
            tally.late = late;
            tally.slowest = scene.load.slowest();
        }
        tally.longest_recovery = tally.longest_recovery.max(recovery);
        scene.load.go_on(Duration::from_millis(rng.random_range(REST_MS))).await;
    }
    let summary = scene.load.stop().await.unwrap_or_else(|wrong| panic!("{wrong}"));
    report(&summary.to_string());
    judge_gaps(&tallies);
}

/// Tells what the faults came to. Everything else that could be wrong has ended the run before.
fn judge_gaps(tallies: &BTreeMap<Fault, Tally>) {
    for (fault, tally) in tallies {
        report(&format!(
            "{:>4} times {fault:<9}: longest gap {:.1?}, longest recovery {:.1?}",
            tally.faults, tally.longest_gap, tally.longest_recovery
        ));
    }
    report("violations: 0; acknowledged writes lost: 0");
    for (fault, tally) in tallies {
        assert!(
            tally.longest_gap <= ANSWERED_AGAIN_WITHIN + tally.late,
            "a client was without an answer for {:?} with a kvstore {fault}; the slowest call then took {}",
            tally.longest_gap,
            tally.slowest
        );
    }
    report("all answers came in time");
}

async fn strike(scene: &mut Scene, fault: Fault, node: usize) {
    match fault {
        Fault::Killed => scene.cluster.kill_store(node),
        Fault::Paused => scene.cluster.pause_store(node),
        Fault::Isolated => scene.cluster.wire_store(node, Wire::CUT),
        Fault::NotHeard => scene.cluster.wire_store(node, Wire::NO_ANSWERS),
        Fault::Replaced => scene.cluster.lose_disk(node).await,
    }
}

fn relieve(scene: &mut Scene, fault: Fault, node: usize) {
    match fault {
        Fault::Killed | Fault::Replaced => scene.cluster.start_store(node),
        Fault::Paused => scene.cluster.resume_store(node),
        Fault::Isolated | Fault::NotHeard => scene.cluster.wire_store(node, Wire::WHOLE),
    }
}

/// A number from the environment.
fn setting<T: FromStr>(name: &str, default: T) -> T {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text:?} is no number")),
        Err(_) => default,
    }
}
