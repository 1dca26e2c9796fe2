//! What is left out to make explorations small hides nothing.

use std::collections::BTreeSet;

use exhaustive::{Bounds, Configuration, Verb, explore};

use crate::plans::HINTED;

const MOST_STATES: u64 = 5_000_000;

fn histories(plan: &Configuration) -> BTreeSet<String> {
    let report = explore(plan, None, MOST_STATES);
    assert!(report.complete && report.wrong.is_none(), "{plan}: {report:?}");
    report.histories
}

/// The clients see the very same things when answers are prompt and refused messages dropped as when nothing is left out.
#[test]
fn clients_see_the_same() {
    let pair = |a, b| Configuration::concurrent(&[a, b], Bounds::rounds(2)).then(Verb::Get, 2);
    let plans = [
        pair(Verb::Put(10), Verb::Get),
        Configuration::concurrent(&[Verb::Cas(Some(1), 10)], Bounds::rounds(2))
            .then(Verb::Get, 1)
            .starting(HINTED),
    ];
    for plan in plans {
        let all = histories(&plan.clone().as_clients_see());
        assert_eq!(all, histories(&plan), "{plan}, refused messages dropped");
        assert_eq!(all, histories(&plan.clone().promptly()), "{plan}, prompt answers too");
    }
}
