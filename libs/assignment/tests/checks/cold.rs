//! One problem, solved from nothing.

use assignment::{COST_MAX, Error, Flaw, Instance, InstanceRow, Solver, Summary};
use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, proptest};

use crate::hungarian::least_cost;
use crate::problems::{Costs, costs, least_of_all, problem, problems, told};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn small_ones_are_as_good_as_the_best_of_all(instance in problems(6, 6)) {
        let (mut solver, ..) = told(&instance);
        let summary = solver.solve();
        prop_assert_eq!(summary.cost, least_of_all(&instance));
        prop_assert_eq!(summary.cost, least_cost(&instance));
        prop_assert_eq!(solver.verify(), Ok(()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn larger_ones_are_as_good_as_the_hungarian_method(instance in problems(70, 70)) {
        let (mut solver, ..) = told(&instance);
        let summary = solver.solve();
        prop_assert_eq!(summary.cost, least_cost(&instance));
        let (exported, solution) = solver.export();
        prop_assert_eq!(solution.verify(&exported), Ok(()));
        // The proof holds for the problem as it was told, too.
        prop_assert_eq!(solution.verify(&instance), Ok(()));
        prop_assert_eq!(solution.column_of.iter().flatten().count(), summary.matched);
        for (row, column) in solver.pairs() {
            prop_assert_eq!(solver.column_of(row), Some(column));
            prop_assert_eq!(solver.row_of(column), Some(row));
        }
    }

    #[test]
    fn the_order_of_candidates_and_dearer_doubles_change_nothing(instance in problems(20, 20)) {
        let mut turned = instance.clone();
        for row in &mut turned.rows {
            row.candidates.reverse();
            let dearer: Vec<_> = row.candidates.iter().map(|&(column, cost)| (column, (cost + 1).min(COST_MAX))).collect();
            row.candidates.extend(dearer);
        }
        let solved = |instance: &Instance| {
            let (mut solver, ..) = told(instance);
            (solver.solve(), solver.export())
        };
        prop_assert_eq!(solved(&instance), solved(&turned));
    }

    #[test]
    fn a_limit_stops_and_going_on_gets_there(
        kind in costs(), rows in 1..40_usize, columns in 1..40_usize, limit in 1..3_000_u64, seed in any::<u64>(),
    ) {
        let instance = problem(kind, rows, columns, 0.4, seed);
        let (mut solver, ..) = told(&instance);
        let mut twin = solver.clone();
        let first = solver.solve_within(limit);
        prop_assert_eq!(first, twin.solve_within(limit));
        prop_assert_eq!(solver.export(), twin.export());
        if let Err(stopped) = first {
            prop_assert!(stopped.work >= limit);
            // What is matched is matched for good reasons: the proof lacks nothing but unmatched ones.
            let (exported, part) = solver.export();
            for (row, column) in part.column_of.clone().into_iter().enumerate() {
                let offers = exported.rows[row].candidates.iter().filter(|candidate| Some(candidate.0) == column);
                let offer = offers.map(|&(column, cost)| cost + part.prices[column]).min();
                prop_assert!(offer.is_none_or(|offer| offer == part.values[row]));
            }
        }
        prop_assert_eq!(solver.solve().cost, least_cost(&instance));
        prop_assert_eq!(solver.verify(), Ok(()));
    }
}

#[test]
fn many_of_every_kind_prove_themselves() {
    for kind in [
        Costs::AllEqual,
        Costs::Few,
        Costs::Wide,
        Costs::PowerLaw,
        Costs::Extreme,
        Costs::Distances,
        Costs::Clusters,
    ] {
        for (rows, columns, fill) in [(600, 100, 0.2), (100, 600, 0.2), (400, 400, 0.03), (300, 300, 1.0)] {
            let (mut solver, ..) = told(&problem(kind, rows, columns, fill, 5));
            solver.solve();
            assert_eq!(solver.verify(), Ok(()), "{kind:?} {rows} {columns} {fill}");
        }
    }
}

#[test]
fn nothing_is_solved_too() {
    let mut solver = Solver::new();
    assert_eq!(
        solver.solve(),
        Summary {
            cost: 0,
            matched: 0,
            work: 0,
            searches: 0
        }
    );
    solver.add_column().unwrap();
    assert_eq!(solver.solve().cost, 0);
    let row = solver.add_row(-5, &[]).unwrap();
    assert_eq!((solver.solve().cost, solver.value(row)), (-5, -5));
    assert_eq!(solver.verify(), Ok(()));
}

#[test]
fn a_caller_may_stop_it() {
    let instance = problem(Costs::Distances, 3_000, 3_000, 0.05, 1);
    let (mut solver, ..) = told(&instance);
    let mut asked = Vec::new();
    let stopped = solver.solve_while(u64::MAX, |work| {
        asked.push(work);
        asked.len() < 3
    });
    let stopped = stopped.expect_err("more than three times 65,536 edges");
    assert!(stopped.left > 0 && asked.len() == 3 && asked.is_sorted());
    assert!(asked[0] >= 1 << 16 && asked[2] <= stopped.work);
    solver.solve();
    assert_eq!(solver.verify(), Ok(()));
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let mut solver = Solver::new();
    let (gone, column) = (solver.add_column().unwrap(), solver.add_column().unwrap());
    let row = solver.add_row(10, &[(column, 3), (gone, 1)]).unwrap();
    solver.remove_column(gone).unwrap();
    let reused = solver.add_column().unwrap();
    assert_eq!(reused.slot(), gone.slot());
    assert_ne!(reused, gone);
    let before = solver.export();
    assert_eq!(solver.remove_column(gone), Err(Error::NoSuchColumn(gone)));
    assert_eq!(solver.set_row(row, 9, &[(gone, 3)]), Err(Error::NoSuchColumn(gone)));
    assert_eq!(
        solver.add_row(COST_MAX + 1, &[]),
        Err(Error::CostOutOfRange(COST_MAX + 1))
    );
    assert_eq!(
        solver.add_candidates(row, &[(column, i64::MIN)]),
        Err(Error::CostOutOfRange(i64::MIN))
    );
    assert_eq!(solver.export(), before);
    assert_eq!(solver.solve().cost, 3);
    solver.remove_row(row).unwrap();
    assert_eq!(solver.remove_row(row), Err(Error::NoSuchRow(row)));
    assert_eq!(solver.set_unserved(row, 1), Err(Error::NoSuchRow(row)));
    assert_eq!(
        (solver.column_of(row), solver.row_of(gone), solver.row_of(column)),
        (None, None, None)
    );
    assert_eq!(solver.solve().cost, 0);
}

#[test]
fn every_flaw_is_found() {
    let row = |unserved, candidates: &[(usize, i64)]| InstanceRow {
        unserved,
        candidates: candidates.to_vec(),
    };
    let instance = Instance {
        columns: 2,
        rows: vec![row(10, &[(0, 1), (1, 4)]), row(10, &[(0, 2)])],
    };
    let (mut solver, ..) = told(&instance);
    solver.solve();
    let (_, right) = solver.export();
    assert_eq!((right.column_of.clone(), right.cost), (vec![Some(1), Some(0)], 6));
    let flaw = |spoil: fn(&mut assignment::Solution)| {
        let mut wrong = right.clone();
        spoil(&mut wrong);
        wrong.verify(&instance).expect_err("spoilt")
    };
    assert_eq!(flaw(|it| it.prices.truncate(1)), Flaw::Shape);
    assert_eq!(
        flaw(|it| it.column_of[1] = Some(1)),
        Flaw::NotACandidate { row: 1, column: 1 }
    );
    assert_eq!(flaw(|it| it.cost = 5), Flaw::Cost { stated: 5, actual: 6 });
    assert!(matches!(flaw(|it| it.prices[1] = -1), Flaw::Offer { column: 1, .. }));
    assert!(matches!(flaw(|it| it.values[0] = 3), Flaw::Offer { row: 0, .. }));
    assert!(matches!(flaw(|it| it.values[0] = 11), Flaw::Value { row: 0, .. }));
    assert!(matches!(flaw(|it| it.column_of[1] = None), Flaw::Value { row: 1, .. }));
    let lonely = Instance {
        columns: 1,
        rows: vec![row(1, &[(0, 5)])],
    };
    let unmatched = |price| assignment::Solution {
        column_of: vec![None],
        cost: 1,
        values: vec![1],
        prices: vec![price],
    };
    assert_eq!(unmatched(0).verify(&lonely), Ok(()));
    assert_eq!(unmatched(2).verify(&lonely), Err(Flaw::Price { column: 0, price: 2 }));
    let twice = Instance {
        columns: 1,
        rows: vec![row(9, &[(0, 5)]), row(9, &[(0, 5)])],
    };
    let both = assignment::Solution {
        column_of: vec![Some(0); 2],
        cost: 10,
        values: vec![5; 2],
        prices: vec![0],
    };
    assert_eq!(both.verify(&twice), Err(Flaw::TakenTwice { column: 0 }));
}
