//! The real protocol: nothing may be wrong anywhere.

use std::io::Write;
use std::time::Instant;

use exhaustive::{Bounds, Configuration, Report, Start, Verb, explore};

use crate::plans::{HELD, HINTED, collections, ending, hand_overs, pairs, reserving};

const MOST_STATES: u64 = 60_000_000;

fn is_right(plan: &Configuration) -> Report {
    let report = explore(plan, None, MOST_STATES);
    if let Some(wrong) = &report.wrong {
        panic!("{plan}\n{wrong}");
    }
    assert!(report.complete, "{plan}: more than {MOST_STATES} states");
    report
}

fn all_are_right(plans: &[Configuration]) -> u64 {
    plans.iter().map(|plan| is_right(plan).states).sum()
}

#[test]
fn pairs_on_an_empty_key() {
    let states = all_are_right(&pairs(Start::Empty, Bounds::rounds(3).faults(1, 0)));
    assert!(states > 100_000, "only {states} states");
}

#[test]
fn pairs_on_a_key_that_is_there() {
    all_are_right(&pairs(HELD, Bounds::rounds(3).faults(1, 0)));
}

#[test]
fn operations_beside_a_hand_over() {
    all_are_right(&hand_overs(Bounds::rounds(3).faults(1, 0)));
}

#[test]
fn operations_beside_a_collection() {
    all_are_right(&collections(Bounds::rounds(3).faults(1, 0)));
}

#[test]
fn changes_at_reserved_ballots() {
    all_are_right(&reserving(Bounds::rounds(2).faults(1, 0)));
}

#[test]
fn a_value_that_ends() {
    is_right(&ending(Bounds::rounds(3).faults(1, 0)));
}

/// Nothing left out: any number of timeouts, answers that wander as long as they like.
#[test]
fn two_rounds_of_anything() {
    let pair = |a, b| Configuration::concurrent(&[a, b], Bounds::rounds(2)).then(Verb::Get, 2);
    is_right(&pair(Verb::Put(10), Verb::Get));
}

/// The larger set: `cargo test --release -p exhaustive -- --ignored --nocapture larger`. What it found stands in
/// `docs/results/register-exhaustive.md`; these lines are its rows.
fn larger(plans: &[Configuration]) {
    let mut out = std::io::stdout();
    for plan in plans {
        let begun = Instant::now();
        let report = is_right(plan);
        let row = format!(
            "| {plan} | {} | {} | {} | {} | {:.1} |",
            report.states,
            report.transitions,
            report.depth,
            report.histories.len(),
            begun.elapsed().as_secs_f64()
        );
        writeln!(out, "{row}").expect("a test may write");
    }
}

#[test]
#[ignore = "takes many minutes; run it with --release"]
fn larger_pairs_on_an_empty_key() {
    larger(&pairs(Start::Empty, Bounds::rounds(4).faults(1, 1)));
}

#[test]
#[ignore = "takes many minutes; run it with --release"]
fn larger_pairs_on_a_key_that_is_there() {
    larger(&pairs(HELD, Bounds::rounds(4).faults(1, 1)));
}

#[test]
#[ignore = "takes many minutes; run it with --release"]
fn larger_pairs_on_a_key_that_is_hinted() {
    larger(&pairs(HINTED, Bounds::rounds(4).faults(1, 1)));
}

#[test]
#[ignore = "takes many minutes; run it with --release"]
fn larger_chores_reservations_and_ends() {
    let bounds = Bounds::rounds(4).faults(1, 1);
    larger(&hand_overs(bounds));
    larger(&collections(bounds));
    larger(&[ending(bounds)]);
    larger(&reserving(Bounds::rounds(3).faults(1, 0)));
}

/// The set that every test run explores, row by row.
#[test]
#[ignore = "the same as the tests above, for the table"]
fn usual_set() {
    let bounds = Bounds::rounds(3).faults(1, 0);
    larger(&pairs(Start::Empty, bounds));
    larger(&pairs(HELD, bounds));
    larger(&hand_overs(bounds));
    larger(&collections(bounds));
    larger(&reserving(Bounds::rounds(2).faults(1, 0)));
    larger(&[ending(bounds)]);
}
