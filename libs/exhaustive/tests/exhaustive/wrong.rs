//! Wrong protocols: each must be found, and told shortly.

use exhaustive::{Bounds, Chore, Configuration, Counterexample, Start, Verb, explore};
use register::teeth::Tooth;

use crate::plans::{DELETED, HELD, HINTED, ending, in_turn};

const MOST_STATES: u64 = 3_000_000;

/// Explores `plan` with the mistake, as clients see it, and without: the first must be wrong, the second right.
fn finds(tooth: Tooth, plan: &Configuration) -> Counterexample {
    let seen = plan.clone().as_clients_see();
    let report = explore(&seen, Some(tooth), MOST_STATES);
    let found = report
        .wrong
        .unwrap_or_else(|| panic!("{tooth:?} is not found among {} states of {seen}", report.states));
    let right = explore(&seen, None, report.states * 2 + 100_000);
    assert_eq!(right.wrong, None, "{seen}");
    found
}

const fn bounds(rounds: u8, timeouts: u8) -> Bounds {
    Bounds::rounds(rounds).faults(timeouts, 0)
}

#[test]
fn a_quorum_that_is_too_small() {
    let plan = in_turn(&[Verb::Put(10), Verb::Get], bounds(1, 0));
    let found = finds(Tooth::SmallQuorum, &plan);
    assert_eq!(found.steps.len(), 4, "call, accept, call, read of the other: {found}");
}

#[test]
fn a_read_that_writes_nothing_back() {
    let plan = Configuration::concurrent(&[Verb::Put(10), Verb::Get], bounds(2, 1)).then(Verb::Get, 2);
    let found = finds(Tooth::NoWriteBack, &plan.promptly());
    assert!(found.wrong.contains("not linearizable"), "{found}");
}

#[test]
fn a_promise_that_is_ignored() {
    let plan = Configuration::concurrent(&[Verb::Cas(None, 10), Verb::Cas(None, 11)], bounds(2, 0));
    finds(Tooth::PromiseIgnored, &plan.promptly());
}

#[test]
fn a_change_that_is_sent_again_in_doubt() {
    let plan = Configuration::concurrent(&[Verb::Put(10), Verb::Cas(Some(10), 11)], bounds(3, 2)).then(Verb::Get, 2);
    finds(Tooth::SilentRetry, &plan.promptly());
}

#[test]
fn silence_that_is_taken_for_never() {
    finds(
        Tooth::SilenceIsNever,
        &in_turn(&[Verb::Put(10), Verb::Get], bounds(2, 2)),
    );
}

fn beside_a_hand_over(verb: Verb, bounds: Bounds) -> Configuration {
    let plan = in_turn(&[verb], bounds);
    plan.starting(HINTED).with(Chore::HandOver)
}

#[test]
fn a_spare_that_forgets_without_a_floor() {
    finds(Tooth::ForgetWithoutFloor, &beside_a_hand_over(Verb::Get, bounds(2, 1)));
}

#[test]
fn a_spare_that_forgot_counts_in_a_read() {
    finds(
        Tooth::ForgottenWitnessInRead,
        &beside_a_hand_over(Verb::Get, bounds(2, 1)),
    );
}

#[test]
fn a_spare_that_forgot_counts_in_a_prepare() {
    let plan = beside_a_hand_over(Verb::Cas(None, 10), bounds(2, 1));
    finds(Tooth::ForgottenWitnessInPrepare, &plan);
}

#[test]
fn a_promise_that_hides_the_floor() {
    let plan = beside_a_hand_over(Verb::Cas(None, 10), bounds(2, 1));
    finds(Tooth::FloorClearedByPromise, &plan);
}

#[test]
fn a_spare_that_forgets_before_the_home_knows() {
    let plan = beside_a_hand_over(Verb::Get, bounds(4, 3));
    finds(Tooth::ForgetBeforeHome, &plan);
}

#[test]
fn a_hint_over_newer_data() {
    let plan = in_turn(&[Verb::Put(10), Verb::Get], bounds(2, 1));
    finds(Tooth::HintOverNewer, &plan.starting(HINTED).with(Chore::HandOver));
}

#[test]
fn a_refusal_from_memory() {
    let mut plan = in_turn(&[Verb::Put(10), Verb::Put(11)], bounds(2, 0));
    plan = plan.then(Verb::Cas(None, 12), 0).reserving();
    finds(Tooth::RefusalFromMemory, &plan);
}

#[test]
fn a_tombstone_collected_without_a_floor() {
    let mut plan = in_turn(&[Verb::Put(10), Verb::Delete, Verb::Get], bounds(2, 0)).with(Chore::Collect);
    plan.bounds.duplicates = 1;
    finds(Tooth::CollectedWithoutFloor, &plan);
}

#[test]
fn a_tombstone_collected_early() {
    let plan = in_turn(&[Verb::Delete, Verb::Get], bounds(4, 1)).starting(HELD);
    finds(Tooth::CollectedEarly, &plan.with(Chore::Collect));
}

#[test]
fn an_end_by_the_own_clock() {
    finds(Tooth::ExpiryByOwnClock, &ending(bounds(2, 0)));
}

/// No tooth: the protocol itself, on a transport that sends a request again by itself and passes on the second answer. A change whose
/// first copy was taken, and whose second was refused for what was made of it since, looks as if it had never been sent.
#[test]
fn a_transport_that_sends_twice() {
    let mut plan = Configuration::concurrent(&[Verb::Put(10), Verb::Cas(Some(10), 11)], bounds(2, 0)).promptly();
    assert_eq!(explore(&plan, None, MOST_STATES).wrong, None);
    plan.bounds.transport_repeats = 1;
    let report = explore(&plan, None, MOST_STATES);
    assert!(report.wrong.is_some(), "not found among {} states", report.states);
}

#[test]
fn an_acceptor_that_forgets_is_seen_before_its_clients_see_it() {
    let plan = beside_a_hand_over(Verb::Get, bounds(2, 1));
    let report = explore(&plan, Some(Tooth::ForgetWithoutFloor), MOST_STATES);
    let found = report.wrong.expect("the acceptor broke a rule");
    assert!(found.wrong.contains("takes again what it refused"), "{found}");
    let deleted = in_turn(&[Verb::Get], bounds(2, 0)).starting(DELETED);
    let collected = explore(
        &deleted.with(Chore::Collect),
        Some(Tooth::CollectedWithoutFloor),
        MOST_STATES,
    );
    assert!(collected.wrong.is_some(), "likewise");
    assert_eq!(explore(&plan.starting(Start::Empty), None, MOST_STATES).wrong, None);
}
