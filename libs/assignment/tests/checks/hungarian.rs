//! The Hungarian method on a full matrix, O(n³), as it is in textbooks: slow and simple.

use assignment::Instance;

/// The least cost. Each row gets a column of its own for staying unmatched; pairs that are no candidates cost too much.
pub(crate) fn least_cost(instance: &Instance) -> i64 {
    const NEVER: i64 = 1 << 50;
    let (rows, columns) = (instance.rows.len(), instance.columns + instance.rows.len());
    let mut costs = vec![vec![NEVER; columns + 1]; rows + 1];
    for (number, row) in instance.rows.iter().enumerate() {
        for &(column, cost) in &row.candidates {
            let entry = &mut costs[number + 1][column + 1];
            *entry = cost.min(*entry);
        }
        costs[number + 1][instance.columns + number + 1] = row.unserved;
    }
    // From 1; column 0 is where the row that comes in stands.
    let (mut of_row, mut of_column) = (vec![0; rows + 1], vec![0; columns + 1]);
    let (mut row_at, mut way) = (vec![0; columns + 1], vec![0; columns + 1]);
    for row in 1..=rows {
        row_at[0] = row;
        let mut column = 0;
        let mut least = vec![i64::MAX; columns + 1];
        let mut used = vec![false; columns + 1];
        while row_at[column] != 0 {
            used[column] = true;
            let (from, mut delta, mut next) = (row_at[column], i64::MAX, 0);
            for to in (1..=columns).filter(|&to| !used[to]) {
                let reduced = costs[from][to] - of_row[from] - of_column[to];
                if reduced < least[to] {
                    (least[to], way[to]) = (reduced, column);
                }
                if least[to] < delta {
                    (delta, next) = (least[to], to);
                }
            }
            for to in 0..=columns {
                if used[to] {
                    of_row[row_at[to]] += delta;
                    of_column[to] -= delta;
                } else if least[to] != i64::MAX {
                    least[to] -= delta;
                }
            }
            column = next;
        }
        while column != 0 {
            row_at[column] = row_at[way[column]];
            column = way[column];
        }
    }
    (1..=columns)
        .filter(|&column| row_at[column] != 0)
        .map(|column| costs[row_at[column]][column])
        .sum()
}
