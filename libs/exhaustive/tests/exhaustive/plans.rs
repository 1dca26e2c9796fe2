//! The configurations that are explored.

use exhaustive::{Bounds, Chore, Configuration, FIRST_VALUE, Start, Verb};

/// The key was written, and the spare knows nothing of it.
pub(crate) const HELD: Start = Start::Holding {
    tombstone: false,
    without: 2,
};
/// The key was written while a home was away: the spare holds it too.
pub(crate) const HINTED: Start = Start::Holding {
    tombstone: false,
    without: 1,
};
/// The key was deleted.
pub(crate) const DELETED: Start = Start::Holding {
    tombstone: true,
    without: 2,
};

/// What may be done to a key.
fn alphabet(start: Start, own: u32, other: u32) -> [Verb; 5] {
    let there = if start == Start::Empty { other } else { FIRST_VALUE };
    [
        Verb::Get,
        Verb::Put(own),
        Verb::Delete,
        Verb::Cas(None, own),
        Verb::Cas(Some(there), own),
    ]
}

/// All unordered pairs of concurrent operations, and a read after both.
pub(crate) fn pairs(start: Start, bounds: Bounds) -> Vec<Configuration> {
    let (first, second) = (alphabet(start, 10, 11), alphabet(start, 11, 10));
    let mut plans = Vec::new();
    for (place, a) in first.iter().enumerate() {
        for b in &second[place..] {
            let plan = Configuration::concurrent(&[*a, *b], bounds).then(Verb::Get, 2);
            plans.push(plan.starting(start).promptly());
        }
    }
    plans
}

/// Each operation beside a hand-over, and a read after it.
pub(crate) fn hand_overs(bounds: Bounds) -> Vec<Configuration> {
    let beside = |verb| {
        Configuration::concurrent(&[verb], bounds)
            .then(Verb::Get, 1)
            .starting(HINTED)
            .with(Chore::HandOver)
            .promptly()
    };
    alphabet(HINTED, 10, 11).map(beside).into()
}

/// Each operation beside a collection, and a read after it.
pub(crate) fn collections(bounds: Bounds) -> Vec<Configuration> {
    let beside = |verb| {
        Configuration::concurrent(&[verb], bounds)
            .then(Verb::Get, 1)
            .starting(DELETED)
            .with(Chore::Collect)
            .promptly()
    };
    alphabet(Start::Empty, 10, 11).map(beside).into()
}

/// Two clients of one coordinator each, with two operations each: the second change of a coordinator goes at a reserved ballot.
pub(crate) fn reserving(bounds: Bounds) -> Vec<Configuration> {
    let scripts = [
        [
            Verb::Put(10),
            Verb::Get,
            Verb::Cas(Some(10), 11),
            Verb::Cas(Some(10), 12),
        ],
        [
            Verb::Put(10),
            Verb::Cas(Some(10), 11),
            Verb::Delete,
            Verb::Cas(Some(10), 12),
        ],
        [Verb::Cas(None, 10), Verb::Cas(None, 11), Verb::Get, Verb::Delete],
    ];
    scripts.map(|script| two_by_two(script, bounds)).into()
}

/// The first and last of `verbs` one after the other at the first coordinator, the others one after the other at the second.
pub(crate) fn two_by_two(verbs: [Verb; 4], bounds: Bounds) -> Configuration {
    let mut plan = Configuration::concurrent(&verbs, bounds).reserving().promptly();
    for (place, (coordinator, after)) in [(0, None), (1, None), (1, Some(1)), (0, Some(0))]
        .into_iter()
        .enumerate()
    {
        plan.operations[place].coordinator = coordinator;
        plan.operations[place].after = after.into_iter().collect();
    }
    plan.clocks_ahead_ms.truncate(2);
    plan
}

/// A value that ends by itself, read by coordinators whose clocks part.
pub(crate) fn ending(bounds: Bounds) -> Configuration {
    let mut plan = Configuration::concurrent(&[Verb::PutEnding(10)], bounds)
        .then(Verb::Get, 1)
        .then(Verb::Get, 2)
        .promptly();
    plan.bounds.clock_jumps = 1;
    plan
}

/// One after the other, each at the coordinator of its place.
pub(crate) fn in_turn(verbs: &[Verb], bounds: Bounds) -> Configuration {
    let mut plan = Configuration::concurrent(&verbs[..1], bounds);
    for (coordinator, verb) in verbs.iter().enumerate().skip(1) {
        plan = plan.then(*verb, coordinator);
    }
    plan.promptly()
}
