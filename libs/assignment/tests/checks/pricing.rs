//! The optimum over all pairs, found from a few.

use assignment::{Error, Grid, PricingError, Solver};
use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, proptest};

use crate::problems::{costs, problem, told};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_few_candidates_find_the_optimum_over_all(
        kind in costs(), rows in 0..40_usize, columns in 1..40_usize, listed in 0..3_usize, seed in any::<u64>(),
    ) {
        let all = problem(kind, rows, columns, 1.0, seed);
        let (mut full, ..) = told(&all);
        let least = full.solve().cost;
        let mut few = all.clone();
        few.rows.iter_mut().for_each(|row| row.candidates.truncate(listed));
        let (mut solver, ids, columns) = told(&few);
        let tell = |_: &Solver, row, below, pairs: &mut Vec<_>| {
            let number = ids.iter().position(|id| *id == row).unwrap();
            let near = all.rows[number].candidates.iter().filter(|candidate| candidate.1 < below);
            pairs.extend(near.map(|&(column, cost)| (columns[column], cost)));
        };
        let summary = solver.solve_with_pricing(u64::MAX, tell).unwrap();
        prop_assert_eq!(summary.cost, least);
        // The duals found from few prove it for all.
        let (_, solution) = solver.export();
        prop_assert_eq!(solution.verify(&all), Ok(()));
    }
}

#[test]
fn with_a_grid() {
    let mut solver = Solver::new();
    let drones: Vec<(f64, f64)> = (0..200)
        .map(|n| (f64::from(n * 37 % 200), f64::from(n * 91 % 200)))
        .collect();
    let orders: Vec<(f64, f64)> = (0..300)
        .map(|n| (f64::from(n * 53 % 90), f64::from(n * 17 % 90)))
        .collect();
    let grid = Grid::new(&drones).unwrap();
    let columns: Vec<_> = drones.iter().map(|_| solver.add_column().unwrap()).collect();
    #[expect(clippy::cast_possible_truncation, reason = "below 300")]
    let near = |order: (f64, f64)| {
        grid.nearest(order.0, order.1)
            .map(|near| (columns[near.index], (near.distance() * 1e3) as i64))
    };
    for &order in &orders {
        let candidates: Vec<_> = near(order).take(4).collect();
        solver.add_row(90_000, &candidates).unwrap();
    }
    let few = solver.solve().cost;
    let summary = solver
        .solve_with_pricing(u64::MAX, |_, row, below, pairs| {
            pairs.extend(near(orders[row.slot()]).take_while(|pair| pair.1 < below));
        })
        .unwrap();
    assert!(
        summary.cost < few,
        "orders crowd in a corner: four candidates are not enough"
    );
    let mut full = Solver::new();
    for _ in &drones {
        full.add_column().unwrap();
    }
    for &order in &orders {
        // Both solvers have given the same ids.
        full.add_row(90_000, &near(order).collect::<Vec<_>>()).unwrap();
    }
    assert_eq!(full.solve().cost, summary.cost);
}

#[test]
fn limits_and_mistakes_come_through() {
    let all = problem(crate::problems::Costs::Distances, 40, 40, 1.0, 1);
    let (mut solver, _, columns) = told(&all);
    assert!(
        matches!(solver.solve_with_pricing(10, |_, _, _, _| {}), Err(PricingError::Stopped(stopped)) if stopped.left > 0)
    );
    solver.remove_column(columns[0]).unwrap();
    let told = solver.solve_with_pricing(u64::MAX, |_, _, _, pairs| pairs.push((columns[0], -1)));
    assert_eq!(told, Err(PricingError::Refused(Error::NoSuchColumn(columns[0]))));
    let unneeded = solver.solve_with_pricing(u64::MAX, |_, _, below, pairs| pairs.push((columns[1], below)));
    assert!(unneeded.is_ok());
}

proptest! {
    #[test]
    fn prices_are_what_one_more_column_saves(kind in costs(), seed in any::<u64>()) {
        // Weak duality: without a column the cost rises by at most its price... and a twin of it saves at most as much.
        let instance = problem(kind, 12, 8, 0.5, seed);
        let (mut solver, rows, columns) = told(&instance);
        let before = solver.solve().cost;
        let price = solver.price(columns[0]);
        let twin = solver.add_column().unwrap();
        for (&id, row) in rows.iter().zip(&instance.rows) {
            if let Some(&(_, cost)) = row.candidates.iter().find(|candidate| candidate.0 == 0) {
                solver.add_candidates(id, &[(twin, cost)]).unwrap();
            }
        }
        let saved = before - solver.solve().cost;
        prop_assert!((0..=price).contains(&saved));
    }
}
