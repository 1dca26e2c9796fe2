//! Before the searches: makes a state whose problem was changed a proper one again, spoiling as little of it as possible.
//!
//! Proper means: no reduced cost is negative, it is 0 along matched edges, and no potential is below its floor. Only candidates that were
//! added or became cheaper break the first condition. Each such edge can be mended at either end: the row's value falls (then the row's
//! match is no longer tight, if it has another one), or the column's price rises (then the column's is not). A drone that has moved
//! breaks edges of many rows, an order with new candidates edges to many columns. So each edge is mended at the end where more are broken:
//! few vertices have to be searched for afterwards.

use crate::graph::{FAR, NONE, Packed, Side, Vertex};
use crate::limit::Meter;

/// What has happened to a row since it was last proper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowState {
    /// Nothing.
    Proper,
    /// It has other candidates or another unserved cost.
    Changed,
    /// It is new: its value means nothing yet.
    New,
}

/// Which potentials start high when nothing is known yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// Prices at 0: rows are to be searched for.
    Rows,
    /// Values at the unserved cost: columns are.
    Columns,
}

/// Makes the state proper.
pub(crate) fn repair(
    rows: &mut Side,
    columns: &mut Side,
    states: &mut [RowState],
    start: Start,
    meter: &mut Meter<'_>,
) {
    let mut changed: Vec<u32> = rows
        .numbers()
        .filter(|&row| states[row as usize] != RowState::Proper)
        .collect();
    if start == Start::Columns {
        for &row in &changed {
            for edge in rows.edges(row) {
                let column = columns.vertex_mut(edge.vertex());
                column.potential = column.potential.max(-rows.vertex(row).potential - edge.number());
            }
        }
    } else {
        mend(rows, columns, states, &mut changed);
    }
    for row in changed {
        states[row as usize] = RowState::Proper;
        meter.spend(rows.edges(row).len() + 1);
        settle(rows, columns, row);
    }
}

/// Raises the prices of those columns where more edges are broken than at the rows, and adds their rows to the changed ones.
fn mend(rows: &Side, columns: &mut Side, states: &mut [RowState], changed: &mut Vec<u32>) {
    let mut broken: Vec<(u32, Packed)> = Vec::new();
    let mut at_row = vec![0_u32; rows.vertices.len()];
    let mut at_column = vec![0_u32; columns.vertices.len()];
    // A new row has no value that could be kept.
    for &row in changed.iter().filter(|&&row| states[row as usize] == RowState::Changed) {
        let vertex = rows.vertex(row);
        for edge in rows.edges(row) {
            if edge.number() + vertex.potential >= 0 {
                break; // sorted, and prices are not negative
            }
            let column = columns.vertex(edge.vertex());
            // The edge to the mate does not count: the value falls along with it, and nobody is the worse.
            if edge.number() + vertex.potential + column.potential < 0 && edge.vertex() != vertex.mate {
                broken.push((row, *edge));
                at_row[row as usize] += 1;
                at_column[edge.vertex() as usize] += 1;
            }
        }
    }
    for (row, edge) in broken {
        let column = columns.vertex_mut(edge.vertex());
        // Nobody loses a match by the price of an unmatched column.
        let in_favour = at_column[edge.vertex() as usize] + u32::from(column.mate == NONE);
        if in_favour <= at_row[row as usize] {
            continue;
        }
        column.potential = column.potential.max(-rows.vertex(row).potential - edge.number());
        if column.mate != NONE && states[column.mate as usize] == RowState::Proper {
            states[column.mate as usize] = RowState::Changed;
            changed.push(column.mate);
        }
    }
}

/// Gives a row the value that candidates and prices allow. If its match is not tight then, it is given up.
fn settle(rows: &mut Side, columns: &mut Side, row: u32) {
    let Vertex { floor, mate, .. } = *rows.vertex(row);
    let (mut value, mut mate_offer) = (-floor, FAR);
    for edge in rows.edges(row) {
        // Not "at least": the mate may be among the equal ones.
        if edge.number() > value {
            break;
        }
        let offer = edge.number() + columns.vertex(edge.vertex()).potential;
        value = value.min(offer);
        if edge.vertex() == mate {
            mate_offer = offer;
        }
    }
    let vertex = rows.vertex_mut(row);
    vertex.potential = -value;
    if mate != NONE && mate_offer != value {
        vertex.mate = NONE;
        columns.vertex_mut(mate).mate = NONE;
    }
}
