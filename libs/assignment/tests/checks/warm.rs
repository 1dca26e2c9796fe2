//! Problems that change, solved from where they were.

use std::collections::BTreeMap;

use assignment::{ColumnId, RowId, Solver};
use proptest::prelude::{ProptestConfig, Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};

use crate::problems::Costs;
use crate::problems::{costs, problem, problems, some_of, told};

#[derive(Debug, Clone)]
enum Change {
    AddColumn {
        cost: i64,
        rows: Vec<usize>,
    },
    RemoveColumn(usize),
    /// All candidates of a column get dearer by so much: the drone has moved.
    MoveColumn(usize, i64),
    AddRow {
        unserved: i64,
        columns: Vec<usize>,
        cost: i64,
    },
    RemoveRow(usize),
    SetRow {
        row: usize,
        unserved: i64,
        columns: Vec<usize>,
        cost: i64,
    },
    AddCandidate {
        row: usize,
        column: usize,
        cost: i64,
    },
    /// All rows wait for so long: unserved costs grow.
    Age(i64),
    Solve,
    SolveWithin(u64),
    Chill,
}

fn change() -> impl Strategy<Value = Change> {
    let cost = || prop_oneof![-3..8_i64, -50_000..900_000_i64];
    prop_oneof![
        2 => (cost(), some_of(30)).prop_map(|(cost, rows)| Change::AddColumn { cost, rows }),
        2 => (0..30_usize).prop_map(Change::RemoveColumn),
        2 => (0..30_usize, cost()).prop_map(|(column, cost)| Change::MoveColumn(column, cost - 3)),
        2 => (cost(), some_of(30), cost()).prop_map(|(unserved, columns, cost)| Change::AddRow { unserved, columns, cost }),
        2 => (0..30_usize).prop_map(Change::RemoveRow),
        3 => (0..30_usize, cost(), some_of(30), cost())
            .prop_map(|(row, unserved, columns, cost)| Change::SetRow { row, unserved, columns, cost }),
        3 => (0..30_usize, 0..30_usize, cost()).prop_map(|(row, column, cost)| Change::AddCandidate { row, column, cost }),
        1 => cost().prop_map(Change::Age),
        4 => prop::strategy::Just(Change::Solve),
        1 => (1..200_u64).prop_map(Change::SolveWithin),
        1 => prop::strategy::Just(Change::Chill),
    ]
}

/// What the solver should know.
#[derive(Clone)]
struct Model {
    solver: Solver,
    columns: Vec<ColumnId>,
    rows: BTreeMap<RowId, (i64, BTreeMap<ColumnId, i64>)>,
}

impl Model {
    fn row(&self, number: usize) -> Option<RowId> {
        self.rows.keys().nth(number % self.rows.len().max(1)).copied()
    }

    fn column(&self, number: usize) -> Option<ColumnId> {
        self.columns.get(number % self.columns.len().max(1)).copied()
    }

    /// Distinct columns, each a little dearer than the one before.
    fn candidates(&self, columns: &[usize], cost: i64) -> BTreeMap<ColumnId, i64> {
        (0..)
            .zip(columns)
            .filter_map(|(more, &column)| Some((self.column(column)?, cost + more)))
            .collect()
    }

    fn tell(&mut self, row: RowId) {
        let (unserved, candidates) = &self.rows[&row];
        let candidates: Vec<_> = candidates.iter().map(|(&column, &cost)| (column, cost)).collect();
        self.solver.set_row(row, *unserved, &candidates).expect("it is there");
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::AddColumn { cost, rows } => {
                let column = self.solver.add_column().expect("it is there");
                self.columns.push(column);
                for row in rows.iter().filter_map(|&row| self.row(row)).collect::<Vec<_>>() {
                    self.rows.get_mut(&row).expect("it is there").1.insert(column, *cost);
                    self.tell(row);
                }
            }
            Change::RemoveColumn(number) => {
                let Some(column) = self.column(*number) else { return };
                self.columns.retain(|other| *other != column);
                for row in self.rows.values_mut() {
                    row.1.remove(&column);
                }
                self.solver.remove_column(column).expect("it is there");
            }
            Change::MoveColumn(number, more) => {
                let Some(column) = self.column(*number) else { return };
                for row in self.rows.keys().copied().collect::<Vec<_>>() {
                    if let Some(cost) = self.rows.get_mut(&row).expect("it is there").1.get_mut(&column) {
                        *cost += more;
                        self.tell(row);
                    }
                }
            }
            Change::AddRow {
                unserved,
                columns,
                cost,
            } => {
                let row = self.solver.add_row(*unserved, &[]).expect("it is there");
                self.rows.insert(row, (*unserved, self.candidates(columns, *cost)));
                self.tell(row);
            }
            Change::RemoveRow(number) => {
                let Some(row) = self.row(*number) else { return };
                self.rows.remove(&row);
                self.solver.remove_row(row).expect("it is there");
            }
            Change::SetRow {
                row,
                unserved,
                columns,
                cost,
            } => {
                let Some(row) = self.row(*row) else { return };
                let candidates = self.candidates(columns, *cost);
                self.rows.insert(row, (*unserved, candidates));
                self.tell(row);
            }
            Change::AddCandidate { row, column, cost } => {
                let (Some(row), Some(column)) = (self.row(*row), self.column(*column)) else {
                    return;
                };
                self.rows.get_mut(&row).expect("it is there").1.insert(column, *cost);
                self.solver
                    .add_candidates(row, &[(column, *cost)])
                    .expect("it is there");
            }
            Change::Age(more) => {
                for (&row, (unserved, _)) in &mut self.rows {
                    *unserved += more;
                    self.solver.set_unserved(row, *unserved).expect("it is there");
                }
            }
            Change::Solve => {
                self.solver.solve();
            }
            Change::SolveWithin(limit) => {
                // Stopped or not: what comes next must cope.
                let _ = self.solver.solve_within(*limit);
            }
            Change::Chill => self.solver.chill(),
        }
    }

    /// The least cost, by a new solver.
    fn cold(&self) -> i64 {
        let mut solver = Solver::new();
        let columns: BTreeMap<ColumnId, ColumnId> = self
            .columns
            .iter()
            .map(|&column| (column, solver.add_column().expect("it is there")))
            .collect();
        for (unserved, candidates) in self.rows.values() {
            let candidates: Vec<_> = candidates
                .iter()
                .map(|(column, &cost)| (columns[column], cost))
                .collect();
            solver.add_row(*unserved, &candidates).expect("it is there");
        }
        solver.solve().cost
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn warm_costs_what_cold_costs(
        instance in problems(25, 25),
        changes in prop::collection::vec(change(), 0..60),
    ) {
        let (solver, rows, columns) = told(&instance);
        let rows = rows.into_iter().zip(&instance.rows).map(|(id, row)| {
            (id, (row.unserved, row.candidates.iter().map(|&(column, cost)| (columns[column], cost)).collect()))
        });
        let mut model = Model { solver, rows: rows.collect(), columns };
        // Costs at the very border cannot grow.
        if model.rows.values().any(|row| row.0.abs() > 1 << 38 || row.1.values().any(|cost| cost.abs() > 1 << 38)) {
            return Ok(());
        }
        for change in &changes {
            model.apply(change);
            if matches!(change, Change::Solve) {
                prop_assert_eq!(model.solver.verify(), Ok(()));
            }
        }
        let mut twin = model.clone();
        let summary = model.solver.solve();
        prop_assert_eq!(model.solver.verify(), Ok(()));
        prop_assert_eq!(summary.cost, model.cold());
        let costs = model.solver.pairs().map(|(row, column)| model.rows[&row].1[&column] - model.rows[&row].0);
        prop_assert_eq!(costs.sum::<i64>() + model.rows.values().map(|row| row.0).sum::<i64>(), summary.cost);
        prop_assert_eq!(twin.solver.solve(), summary);
        prop_assert_eq!(twin.solver.export(), model.solver.export());
    }

    #[test]
    fn telling_the_same_again_costs_nothing(kind in costs(), seed in any::<u64>()) {
        let instance = problem(kind, 30, 20, 0.5, seed);
        let (mut solver, rows, columns) = told(&instance);
        let first = solver.solve();
        for (&id, row) in rows.iter().zip(&instance.rows) {
            let candidates: Vec<_> = row.candidates.iter().rev().map(|&(column, cost)| (columns[column], cost)).collect();
            solver.set_row(id, row.unserved, &candidates).expect("it is there");
        }
        let again = solver.solve();
        prop_assert_eq!((again.cost, again.work, again.searches), (first.cost, 0, 0));
    }
}

#[test]
fn a_small_change_is_little_work() {
    let instance = problem(Costs::Distances, 1_000, 1_000, 0.05, 3);
    let (mut solver, rows, columns) = told(&instance);
    let cold = solver.solve().work;
    let mut warm = 0;
    for (&row, &column) in rows.iter().zip(&columns).step_by(50) {
        solver.remove_row(row).expect("it is there");
        solver.remove_column(column).expect("it is there");
        warm += solver.solve().work;
        assert_eq!(solver.verify(), Ok(()));
    }
    assert!(warm < cold, "20 times {} edges, {cold} from cold", warm / 20);
}
