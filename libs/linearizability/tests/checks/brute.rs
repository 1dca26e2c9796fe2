//! The checker and one that tries every order, on short histories: the same verdict.

use linearizability::{Entry, ModelKind, NEVER, Op, ViolationKind, check};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};

use crate::machine::Machine;
use crate::workload::{LOCK, REGISTER, Workload, with_a_lie};

/// Whether any order at all explains the history, by trying them all.
pub(crate) fn explained(history: &[Entry]) -> bool {
    let history: Vec<&Entry> = history.iter().filter(|entry| entry.called != NEVER).collect();
    explained_from(&history, &mut vec![false; history.len()], Machine::default())
}

fn is_certain(entry: &Entry) -> bool {
    let told = !matches!(
        entry.op,
        Op::Cas { swapped: None, .. }
            | Op::Acquire { took: None, .. }
            | Op::Release { freed: None, .. }
            | Op::Renew { held: None, .. }
    );
    entry.returned != NEVER && (told || entry.refused_below.is_some())
}

fn explained_from(history: &[&Entry], placed: &mut [bool], machine: Machine) -> bool {
    let left = |placed: &[bool]| -> Vec<usize> { (0..history.len()).filter(|&i| !placed[i]).collect() };
    let left = left(placed);
    if !left.iter().any(|&i| is_certain(history[i])) {
        return true;
    }
    left.iter().any(|&i| {
        let waits = left
            .iter()
            .any(|&j| is_certain(history[j]) && history[j].returned < history[i].called);
        if waits {
            return false;
        }
        let Some(next) = machine.gave(history[i], is_certain(history[i])) else {
            return false;
        };
        placed[i] = true;
        let explained = explained_from(history, placed, next);
        placed[i] = false;
        explained
    })
}

/// The checker's verdict.
pub(crate) fn judged(history: &[Entry]) -> bool {
    match check(history) {
        Ok(_) => true,
        Err(violation) if violation.kind == ViolationKind::NotLinearizable => false,
        Err(violation) => panic!("{violation}"),
    }
}

fn value() -> impl Strategy<Value = Option<u32>> {
    option::weighted(0.8, 1..4_u32)
}

fn register_op() -> impl Strategy<Value = Op> {
    let outcome = option::of(any::<bool>());
    prop_oneof![
        3 => value().prop_map(Op::Read),
        3 => value().prop_map(Op::Write),
        3 => (value(), value(), outcome).prop_map(|(expected, new, swapped)| Op::Cas { expected, new, swapped }),
        1 => (value(), value()).prop_map(|(expected, found)| Op::CasMissed { expected, found }),
        1 => (1..4_u32).prop_map(Op::End),
    ]
}

fn lock_op() -> impl Strategy<Value = Op> {
    let outcome = || option::of(any::<bool>());
    prop_oneof![
        4 => (1..4_u32, any::<bool>(), outcome()).prop_map(|(token, owned, took)| Op::Acquire { token, owned, took }),
        3 => (option::weighted(0.7, 1..4_u32), outcome()).prop_map(|(token, freed)| Op::Release { token, freed }),
        1 => (1..4_u32, outcome()).prop_map(|(token, held)| Op::Renew { token, held }),
        1 => (1..4_u32).prop_map(Op::End),
    ]
}

fn history(op: impl Strategy<Value = Op>) -> impl Strategy<Value = Vec<Entry>> {
    let returned = prop_oneof![4 => (0..12_u64).prop_map(Some), 1 => Just(None)];
    let fence = option::weighted(0.4, 1..5_u64);
    let refused = option::weighted(0.1, 1..5_u64);
    let entry = (op, 0..12_u64, returned, fence, refused).prop_map(|(op, called, lasts, fence, refused)| {
        let mut entry = Entry::new(0, 0, called, lasts.map_or(NEVER, |lasts| called + lasts), op);
        if !matches!(op, Op::Read(_) | Op::End(_)) {
            entry.fence = fence;
        }
        if matches!(op, Op::Write(_) | Op::Cas { .. }) && entry.returned != NEVER {
            entry.refused_below = refused;
        }
        entry
    });
    vec(entry, 1..7)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn any_history_of_a_register(history in history(register_op())) {
        assert_eq!(judged(&history), explained(&history), "{history:#?}");
    }

    #[test]
    fn any_history_of_a_lock(history in history(lock_op())) {
        assert_eq!(judged(&history), explained(&history), "{history:#?}");
    }
}

/// Right histories are told to be right, and with one answer changed both checkers say the same.
fn compare(workload: Workload, seeds: u64) {
    let mut wrong = 0;
    for seed in 0..seeds {
        let history = workload.history(seed);
        assert!(judged(&history), "seed {seed} of {workload:?}: {history:#?}");
        let lie = with_a_lie(&history, seed);
        let verdict = judged(&lie);
        assert_eq!(verdict, explained(&lie), "seed {seed} of {workload:?}: {lie:#?}");
        wrong += u64::from(!verdict);
    }
    assert!(wrong > seeds / 10, "{wrong} of {seeds} were wrong: too few to compare");
}

#[test]
fn a_real_register_and_one_that_lies() {
    let small = Workload {
        operations: 8,
        clients: 3,
        unknown: 0.15,
        ..REGISTER
    };
    compare(small, 3_000);
    compare(Workload { fenced: 0.6, ..small }, 3_000);
    compare(
        Workload {
            ending: 0.5,
            blind: 0.5,
            operations: 6,
            ..small
        },
        3_000,
    );
    let missed = Workload {
        missed: true,
        blind: 0.6,
        ..small
    };
    compare(missed, 3_000);
    compare(Workload { fenced: 0.4, ..missed }, 3_000);
}

#[test]
fn a_real_lock_and_one_that_lies() {
    let small = Workload {
        operations: 8,
        clients: 3,
        unknown: 0.15,
        ..LOCK
    };
    assert_eq!(ModelKind::of(&small.history(1)), Some(ModelKind::Lock));
    compare(small, 3_000);
    let ending = Workload {
        ending: 0.5,
        operations: 6,
        ..small
    };
    compare(ending, 3_000);
}
