//! How soon a deliberate mistake is found.

use std::fmt::Write;

use crate::catalog::{TEETH, pinned};
use crate::kinds::Kind;
use crate::run::{Runner, Spec};
use crate::sweep::Sweep;
use crate::teeth::{Catalogued, Wrong};

/// How often, and how long at most, each tooth is looked for.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Times that it is looked for, from fresh seeds each.
    pub rounds: u64,
    /// Operations after which one round is given up.
    pub operations: u64,
    /// The first seed of the first round.
    pub seed: u64,
    /// Worlds run at a time.
    pub jobs: usize,
}

/// What came of looking for one tooth.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Which.
    pub wrong: Wrong,
    /// Per round: the kind and the seed that showed it, and the worlds and operations until then; none when it was given up.
    pub found: Vec<Option<Found>>,
}

/// One detection.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    /// The kind of world.
    pub kind: &'static str,
    /// Its seed.
    pub seed: u64,
    /// Worlds until then.
    pub worlds: u64,
    /// Operations until then.
    pub operations: u64,
}

/// Seeds of two rounds are that far apart.
const ROUND_SEEDS: u64 = 1_000_000_000;

/// Looks for one tooth, in worlds of the kinds that show it.
#[must_use]
pub fn measure(tooth: &Catalogued, effort: &Effort) -> Measured {
    let round = |number: u64| {
        let sweep = Sweep {
            operations: effort.operations,
            jobs: effort.jobs,
            wrong: Some(tooth.wrong),
            ..Sweep::new(tooth.kinds(), effort.seed.wrapping_add(number * ROUND_SEEDS))
        };
        let swept = sweep.run();
        swept.failures.first().map(|(spec, _)| Found {
            kind: spec.kind.name,
            seed: spec.seed,
            worlds: swept.counts.worlds,
            operations: swept.counts.operations,
        })
    };
    Measured {
        wrong: tooth.wrong,
        found: (0..effort.rounds).map(round).collect(),
    }
}

impl Measured {
    /// A line of a table: the tooth, how often it was found, worlds and operations per detection on average, the most operations that one
    /// took, and the first that was found.
    #[must_use]
    pub fn row(&self) -> String {
        let found: Vec<Found> = self.found.iter().flatten().copied().collect();
        let mut row = format!("| {} | {} of {} |", self.wrong, found.len(), self.found.len());
        let count = found.len() as u64;
        let average = |of: fn(&Found) -> u64| found.iter().map(of).sum::<u64>().checked_div(count);
        let most = found.iter().map(|found| found.operations).max();
        for number in [average(|found| found.worlds), average(|found| found.operations), most] {
            let text = number.map_or_else(|| "–".to_owned(), grouped);
            // Writing to a string cannot fail.
            let _ = write!(row, " {text} |");
        }
        let first = found
            .first()
            .map_or_else(|| "–".to_owned(), |found| format!("{} {}", found.kind, found.seed));
        let _ = write!(row, " {first} |");
        row
    }
}

/// The head of the table of [`Measured::row`]s.
pub const TABLE_HEAD: &str = "| tooth | found | worlds per detection | operations per detection | at most | the first: kind and seed |\n\
                              |---|---|---|---|---|---|";

/// `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The pinned worlds anew: each that still shows its tooth (and nothing without it) is kept, and for the others one is looked for, within
/// so many operations. A change of the protocol changes what happens in every world, so this is run after each. The text of `pins.txt`,
/// and the teeth for which none was found.
#[must_use]
pub fn repin(operations: u64, jobs: usize) -> (String, Vec<Wrong>) {
    let mut text = String::from(
        "# The worlds that show each tooth in CI: its name, the kind of world, the seed. Written by `scripts/simulate-kv --repin`.\n",
    );
    let mut missing = Vec::new();
    for tooth in TEETH {
        let kept = pinned(tooth.wrong).filter(|(kind, seed)| shows(tooth.wrong, kind, *seed));
        let found = kept.or_else(|| look_for(tooth, operations, jobs));
        match found {
            // Writing to a string cannot fail.
            Some((kind, seed)) => _ = writeln!(text, "{} {} {seed}", tooth.wrong, kind.name),
            None => missing.push(tooth.wrong),
        }
    }
    (text, missing)
}

fn look_for(tooth: &Catalogued, operations: u64, jobs: usize) -> Option<(&'static Kind, u64)> {
    let sweep = Sweep {
        operations,
        jobs,
        wrong: Some(tooth.wrong),
        ..Sweep::new(tooth.kinds(), PIN_SEED)
    };
    let swept = sweep.run();
    let worlds = swept.failures.iter().map(|(spec, _)| (spec.kind, spec.seed));
    worlds.into_iter().find(|(kind, seed)| shows(tooth.wrong, kind, *seed))
}

/// Whether a world fails with a tooth, and does not without it.
fn shows(wrong: Wrong, kind: &'static Kind, seed: u64) -> bool {
    let mut runner = Runner::new();
    let mut fails = |wrong| runner.run(&Spec::new(kind, seed, wrong)).is_err();
    fails(Some(wrong)) && !fails(None)
}

/// Where looking for worlds to pin begins.
const PIN_SEED: u64 = 7_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_for_people() {
        let texts = [0, 999, 1_000, 1_234_567].map(grouped);
        assert_eq!(texts, ["0", "999", "1,000", "1,234,567"]);
    }
}
