//! What CI runs: kept seeds, the seeds that show the teeth, and as many fixed fresh ones as there is time for.

use std::time::Duration;

use simulator::{Counts, Failure, Kind, Runner, Spec, Sweep, TEETH, Wrong, command, explain, pinned};

/// Worlds that once failed, each with what was wrong. Seeds of the random schedules that came before this simulator cannot be replayed in
/// it; their three mistakes are `a write-back asked a node that held the state already`, and two of fences, which the kinds `plain` and
/// `fences` show.
const REGRESSIONS: [(&str, u64, &str); 7] = [
    (
        "fences",
        59,
        "a fence was seen of a write that then was refused: counts as used from when it is seen",
    ),
    ("fences", 11_102, "the same of a compare-and-swap that missed"),
    (
        "disks",
        3_926,
        "a disk that went back to a time when it was being filled counted for what it had been given by then",
    ),
    (
        "disks",
        14_466,
        "a key could not be given to a node whose floor had risen above it while it was being filled",
    ),
    (
        "default",
        31_371,
        "a node was filled above a floor that a coordinator's clock, just an hour back, had made too low",
    ),
    ("default", 1_000_526, "a late admission let an old copy of a disk vote"),
    (
        "disks",
        317,
        "an acquisition that was made and is over was told as refused to who asked again",
    ),
];

/// Seconds for fresh seeds, all cores together; `SIMULATE_SEC` says otherwise.
const DEFAULT_SEC: u64 = 8;
/// The fresh seeds are the same ones each time, and are other ones in each long run by hand.
const FRESH_SEED: u64 = 42_000_000;
/// Operations within which a tooth that shows often is found from fresh seeds.
const OFTEN_OPERATIONS: u64 = 400_000;

fn spec(kind: &str, seed: u64, wrong: Option<Wrong>) -> Spec {
    Spec::new(
        Kind::named(kind).unwrap_or_else(|| panic!("no kind {kind}")),
        seed,
        wrong,
    )
}

fn assert_clean(runner: &mut Runner, spec: &Spec) -> Counts {
    runner
        .run(spec)
        .unwrap_or_else(|(failure, _)| panic!("{}", explain(spec, &failure).text))
}

#[test]
fn what_once_failed_stays_mended() {
    let mut runner = Runner::new();
    for (kind, seed, what) in REGRESSIONS {
        let spec = spec(kind, seed, None);
        if let Err((failure, _)) = runner.run(&spec) {
            panic!("again: {what}\n{}", explain(&spec, &failure).text);
        }
    }
}

#[test]
fn each_tooth_is_seen_in_its_pinned_world_and_only_with_it() {
    let mut runner = Runner::new();
    for tooth in TEETH {
        let (kind, seed) = pinned(tooth.wrong).unwrap_or_else(|| panic!("{} has no pinned world", tooth.wrong));
        assert_clean(&mut runner, &Spec::new(kind, seed, None));
        let bitten = Spec::new(kind, seed, Some(tooth.wrong));
        assert!(
            runner.run(&bitten).is_err(),
            "not seen: {}\nIf the protocol was changed, `scripts/simulate-kv --repin` finds other worlds.",
            command(&bitten)
        );
    }
}

#[test]
fn every_mistake_is_in_the_catalogue() {
    for wrong in Wrong::all() {
        let count = TEETH.iter().filter(|tooth| tooth.wrong == wrong).count();
        assert_eq!(count, 1, "{wrong}");
    }
    for tooth in TEETH {
        assert_eq!(
            tooth.kinds().len(),
            tooth.shown_by.len(),
            "{}: a kind is unknown",
            tooth.wrong
        );
    }
}

#[test]
fn common_mistakes_are_found_from_fresh_seeds() {
    for tooth in TEETH.iter().filter(|tooth| tooth.often) {
        let sweep = Sweep {
            operations: OFTEN_OPERATIONS,
            wrong: Some(tooth.wrong),
            ..Sweep::new(tooth.kinds(), FRESH_SEED)
        };
        let swept = sweep.run();
        assert!(
            !swept.failures.is_empty(),
            "{}: not found in {} operations",
            tooth.wrong,
            swept.counts.operations
        );
    }
}

#[test]
fn one_seed_is_one_run() {
    let mut runner = Runner::new();
    for kind in Kind::all() {
        let traced = Spec {
            traced: true,
            ..spec(kind.name, 7, None)
        };
        let first = assert_clean(&mut runner, &traced);
        let (history, trace) = (runner.history().to_vec(), runner.trace().to_owned());
        // Whatever other worlds leave behind in the runner's memory does not matter.
        assert_clean(&mut runner, &spec(kind.name, 8, None));
        let second = assert_clean(&mut runner, &traced);
        assert_eq!((first, &history[..]), (second, runner.history()), "{}", kind.name);
        assert_eq!(trace, runner.trace(), "{}", kind.name);
        assert!(!history.is_empty());
    }
}

#[test]
fn fresh_seeds_of_all_kinds() {
    let seconds = std::env::var("SIMULATE_SEC").map_or(DEFAULT_SEC, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("SIMULATE_SEC: {text:?} is no number of seconds"))
    });
    let jobs = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let sweep = Sweep {
        time: Duration::from_secs(seconds.div_ceil(jobs as u64)),
        jobs,
        ..Sweep::new(Kind::all(), FRESH_SEED)
    };
    let swept = sweep.run();
    if let Some((spec, failure)) = swept.failures.first() {
        panic!("{}", explain(spec, failure).text);
    }
    println!("{:?}", swept.counts);
    assert!(
        swept.counts.operations > 1_000,
        "hardly anything was run: {:?}",
        swept.counts
    );
}

/// A run in which nothing succeeds proves nothing.
#[test]
fn enough_operations_of_each_kind_succeed() {
    for kind in Kind::all() {
        let sweep = Sweep {
            seeds: 60,
            ..Sweep::new(vec![kind], 1)
        };
        let counts = sweep.run().counts;
        // Where requests are burdened on purpose, or coordinators die ten times a second, it may be fewer.
        let fifths = if kind.tilt.requests.is_empty() { 2 } else { 3 };
        assert!(
            (counts.unknown + counts.unavailable) * 5 < counts.operations * fifths,
            "{}: {counts:?}",
            kind.name
        );
    }
}

/// A failure is told with the command that shows it again, its shortest history and a drawing; and the command's world does fail.
#[test]
fn a_failure_is_explained_and_shrunk() {
    let wrong = Wrong::named("SmallQuorum").unwrap();
    let (kind, seed) = pinned(wrong).unwrap();
    let bitten = Spec::new(kind, seed, Some(wrong));
    let (failure, _) = Runner::new().run(&bitten).unwrap_err();
    let report = explain(&bitten, &failure);
    assert!(report.text.contains(&command(&bitten)), "{}", report.text);
    if matches!(failure, Failure::History(_)) {
        assert!(report.text.contains("shortest history"), "{}", report.text);
        assert!(report.svg.is_some_and(|svg| svg.starts_with("<svg")));
    }
}
