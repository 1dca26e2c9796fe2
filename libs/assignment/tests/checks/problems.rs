//! Problems of many kinds.

use assignment::{COST_MAX, ColumnId, Instance, InstanceRow, RowId, Solver};
use proptest::prelude::{Just, Strategy, any, prop, prop_oneof};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// How costs are drawn.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Costs {
    AllEqual,
    Few,
    Wide,
    PowerLaw,
    Extreme,
    Distances,
    Clusters,
}

pub(crate) fn costs() -> impl Strategy<Value = Costs> {
    prop_oneof![
        Just(Costs::AllEqual),
        Just(Costs::Few),
        Just(Costs::Wide),
        Just(Costs::PowerLaw),
        Just(Costs::Extreme),
        Just(Costs::Distances),
        Just(Costs::Clusters),
    ]
}

/// A random problem. `fill` is how many of all pairs are candidates, from 0 to 1.
pub(crate) fn problem(kind: Costs, rows: usize, columns: usize, fill: f64, seed: u64) -> Instance {
    let mut random = StdRng::seed_from_u64(seed);
    let mut place = |centre: bool| {
        let around = if centre {
            f64::from(random.random_range(0..4_u8)) * 300.0
        } else {
            0.0
        };
        let breadth = if centre { 50.0 } else { 1000.0 };
        (
            around + random.random_range(0.0..breadth),
            random.random_range(0.0..breadth),
        )
    };
    let is_clustered = matches!(kind, Costs::Clusters);
    let row_places: Vec<(f64, f64)> = (0..rows).map(|_| place(is_clustered)).collect();
    let column_places: Vec<(f64, f64)> = (0..columns).map(|_| place(is_clustered)).collect();
    let mut random = StdRng::seed_from_u64(!seed);
    let mut draw = |row: usize, column: Option<usize>| -> i64 {
        match kind {
            Costs::AllEqual => 7,
            Costs::Few => random.random_range(-2..=2),
            Costs::Wide => random.random_range(-1_000_000..=1_000_000),
            Costs::PowerLaw => 1 << random.random_range(0..36_u32),
            Costs::Extreme => [-COST_MAX, -COST_MAX + 1, 0, COST_MAX - 1, COST_MAX][random.random_range(0..5_usize)],
            Costs::Distances | Costs::Clusters => column.map_or_else(
                || random.random_range(0..600),
                |column| {
                    let (from, to) = (row_places[row], column_places[column]);
                    #[expect(clippy::cast_possible_truncation, reason = "below 2000")]
                    let distance = (from.0 - to.0).hypot(from.1 - to.1) as i64;
                    distance
                },
            ),
        }
    };
    let rows = (0..rows)
        .map(|row| {
            let mut candidates = Vec::new();
            let mut chance = StdRng::seed_from_u64(seed ^ (row as u64 + 1) << 20);
            for column in 0..columns {
                if chance.random_bool(fill) {
                    candidates.push((column, draw(row, Some(column))));
                }
            }
            InstanceRow {
                unserved: draw(row, None),
                candidates,
            }
        })
        .collect();
    Instance { columns, rows }
}

/// Problems with up to so many rows and columns.
pub(crate) fn problems(rows: usize, columns: usize) -> impl Strategy<Value = Instance> {
    (
        costs(),
        0..=rows,
        0..=columns,
        prop_oneof![Just(0.0), Just(0.2), Just(0.6), Just(1.0)],
        any::<u64>(),
    )
        .prop_map(|(kind, rows, columns, fill, seed)| problem(kind, rows, columns, fill, seed))
}

/// A solver with the problem told, and the ids of rows and columns.
pub(crate) fn told(instance: &Instance) -> (Solver, Vec<RowId>, Vec<ColumnId>) {
    let mut solver = Solver::new();
    let columns: Vec<ColumnId> = (0..instance.columns)
        .map(|_| solver.add_column().expect("it is there"))
        .collect();
    let rows = instance
        .rows
        .iter()
        .map(|row| {
            let candidates: Vec<_> = row
                .candidates
                .iter()
                .map(|&(column, cost)| (columns[column], cost))
                .collect();
            solver.add_row(row.unserved, &candidates).expect("it is there")
        })
        .collect();
    (solver, rows, columns)
}

/// The least cost of all matchings, each tried.
pub(crate) fn least_of_all(instance: &Instance) -> i64 {
    fn from(rows: &[InstanceRow], taken: &mut Vec<bool>) -> i64 {
        let Some((first, others)) = rows.split_first() else {
            return 0;
        };
        let mut least = first.unserved + from(others, taken);
        for &(column, cost) in &first.candidates {
            if !taken[column] {
                taken[column] = true;
                least = least.min(cost + from(others, taken));
                taken[column] = false;
            }
        }
        least
    }
    from(&instance.rows, &mut vec![false; instance.columns])
}

/// A set of numbers below `below`.
pub(crate) fn some_of(below: usize) -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0..below.max(1), 0..4)
}
