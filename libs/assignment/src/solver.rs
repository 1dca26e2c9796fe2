//! The solver: a problem that changes, and a matching that follows it.

use crate::bidding::bid;
use crate::certificate::{Flaw, Instance, InstanceRow, Solution};
use crate::graph::{COST_MAX, FAR, NONE, Packed, Side, VERTICES_MAX, Vertex};
use crate::limit::{Enough, Meter, Stopped};
use crate::repair::{RowState, Start, repair};
use crate::scaling::{Spread, scale};
use crate::search::{Scratch, search};
use crate::slots::{ColumnId, RowId, Slots};

/// Bids per active vertex before it is searched for. More would settle a few more, but where partners are short, prices climb in small
/// steps that one search makes at once.
const BIDS_EACH: usize = 4;

/// Why a change was refused. Nothing has changed then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The row was never there, or is not any more.
    #[error("{0} is not there")]
    NoSuchRow(RowId),
    /// The column was never there, or is not any more.
    #[error("{0} is not there")]
    NoSuchColumn(ColumnId),
    /// A cost beyond ±[`COST_MAX`].
    #[error("cost {0} is outside ±{COST_MAX}")]
    CostOutOfRange(i64),
    /// As many rows or columns as there may be.
    #[error("there are {VERTICES_MAX} already")]
    Full,
}

/// What solving came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// The least possible cost: of all taken candidates and all unmatched rows together.
    pub cost: i64,
    /// Matched rows.
    pub matched: usize,
    /// What was done, in scanned edges (and one for each vertex).
    pub work: u64,
    /// Augmenting paths that had to be searched for.
    pub searches: usize,
}

/// A minimum-cost matching of rows and columns that is kept while both come, go and change. See the [crate](crate) for how.
///
/// Changes cost little; [`solve`](Self::solve) does the work. What is asked about the matching before that is as of the last time, less
/// what was removed since.
///
/// Deterministic: the same calls in the same order give the same ids, the same matching, and the same counts of work.
#[derive(Debug, Clone)]
pub struct Solver {
    rows: Side,
    columns: Side,
    row_slots: Slots,
    column_slots: Slots,
    states: Vec<RowState>,
    /// Per column, how many of its edges, from the first, are sorted.
    sorted: Vec<usize>,
    /// Per row, the floor that is in the columns' edges to it. Another one gets there when solving.
    mirrored_floors: Vec<i64>,
    /// Whether prices mean nothing yet.
    is_cold: bool,
    scratch: Scratch,
    /// Per column, where it was last met in a list of candidates.
    marks: Vec<u64>,
    mark: u64,
}

impl Default for Solver {
    fn default() -> Self {
        Self::new()
    }
}

impl Solver {
    /// Without rows and columns.
    #[must_use]
    pub fn new() -> Self {
        Self {
            rows: Side::default(),
            columns: Side::default(),
            row_slots: Slots::default(),
            column_slots: Slots::default(),
            states: Vec::new(),
            sorted: Vec::new(),
            mirrored_floors: Vec::new(),
            is_cold: true,
            scratch: Scratch::default(),
            marks: Vec::new(),
            mark: 0,
        }
    }

    /// Forgets prices and matching, not the problem: the next call of [`solve`](Self::solve) starts anew. Faster than going on when most
    /// of the problem has changed.
    pub fn chill(&mut self) {
        for side in [&mut self.rows, &mut self.columns] {
            for vertex in &mut side.vertices {
                *vertex = Vertex::new(vertex.floor);
            }
        }
        for row in self
            .rows
            .numbers()
            .filter(|&row| self.row_slots.generation(row).is_some())
        {
            self.states[row as usize] = RowState::New;
        }
        self.is_cold = true;
    }

    /// Adds a column that nobody can take yet.
    ///
    /// # Errors
    /// [`Error::Full`].
    pub fn add_column(&mut self) -> Result<ColumnId, Error> {
        let (slot, generation) = self.column_slots.take().ok_or(Error::Full)?;
        place(&mut self.columns, slot, Vertex::new(0));
        self.sorted.resize(self.columns.vertices.len(), 0);
        self.marks.resize(self.columns.vertices.len(), 0);
        Ok(ColumnId::new(slot, generation))
    }

    /// Removes a column. It is no row's candidate any more.
    ///
    /// # Errors
    /// [`Error::NoSuchColumn`].
    pub fn remove_column(&mut self, column: ColumnId) -> Result<(), Error> {
        self.check_column(column)?;
        let slot = column.vertex();
        for edge in std::mem::take(&mut self.columns.edges[slot as usize]) {
            let row = edge.vertex() as usize;
            let candidates = &mut self.rows.edges[row];
            let cost = edge.number() - self.mirrored_floors[row];
            if let Ok(index) = candidates.binary_search(&Packed::new(cost, slot)) {
                candidates.remove(index);
            }
        }
        self.sorted[slot as usize] = 0;
        let mate = self.columns.vertex(slot).mate;
        if mate != NONE {
            self.rows.vertex_mut(mate).mate = NONE;
            self.touch(mate);
        }
        *self.columns.vertex_mut(slot) = Vertex::new(0);
        self.column_slots.give_back(slot);
        Ok(())
    }

    /// Adds a row that costs `unserved` while unmatched, and may take one of `candidates` for the cost beside it. Of several for the same
    /// column the cheapest counts; the order of candidates means nothing.
    ///
    /// # Errors
    /// [`Error::NoSuchColumn`], [`Error::CostOutOfRange`], [`Error::Full`].
    pub fn add_row(&mut self, unserved: i64, candidates: &[(ColumnId, i64)]) -> Result<RowId, Error> {
        self.check_row_costs(unserved, candidates)?;
        let (slot, generation) = self.row_slots.take().ok_or(Error::Full)?;
        place(&mut self.rows, slot, Vertex::new(-unserved));
        self.states.resize(self.rows.vertices.len(), RowState::New);
        self.states[slot as usize] = RowState::New;
        self.mirrored_floors.resize(self.rows.vertices.len(), 0);
        self.mirrored_floors[slot as usize] = -unserved;
        let edges = self.pack(candidates);
        self.replace_edges(slot, edges);
        Ok(RowId::new(slot, generation))
    }

    /// Gives a row another unserved cost and other candidates, as [`add_row`](Self::add_row) takes them. Costs nothing later if they are
    /// the same as before.
    ///
    /// # Errors
    /// [`Error::NoSuchRow`], [`Error::NoSuchColumn`], [`Error::CostOutOfRange`].
    pub fn set_row(&mut self, row: RowId, unserved: i64, candidates: &[(ColumnId, i64)]) -> Result<(), Error> {
        self.check_row_costs(unserved, candidates)?;
        self.set_unserved(row, unserved)?;
        let edges = self.pack(candidates);
        self.replace_edges(row.vertex(), edges);
        Ok(())
    }

    /// Adds candidates to those a row has. For a column that is one already the new cost counts.
    ///
    /// # Errors
    /// [`Error::NoSuchRow`], [`Error::NoSuchColumn`], [`Error::CostOutOfRange`].
    pub fn add_candidates(&mut self, row: RowId, candidates: &[(ColumnId, i64)]) -> Result<(), Error> {
        self.check_row(row)?;
        self.check_row_costs(0, candidates)?;
        let mut edges = self.pack(candidates);
        let kept = self
            .rows
            .edges(row.vertex())
            .iter()
            .filter(|edge| self.marks[edge.vertex() as usize] != self.mark);
        edges.extend(kept);
        edges.sort_unstable();
        self.replace_edges(row.vertex(), edges);
        Ok(())
    }

    /// Gives a row another unserved cost.
    ///
    /// # Errors
    /// [`Error::NoSuchRow`], [`Error::CostOutOfRange`].
    pub fn set_unserved(&mut self, row: RowId, unserved: i64) -> Result<(), Error> {
        self.check_row(row)?;
        check_cost(unserved)?;
        let vertex = self.rows.vertex_mut(row.vertex());
        if vertex.floor == -unserved {
            return Ok(());
        }
        // A row that is left unserved goes on wanting to be, until `repair` has seen what columns say to that.
        let rests = vertex.mate == NONE && vertex.potential == vertex.floor;
        vertex.floor = -unserved;
        vertex.potential = if rests {
            vertex.floor
        } else {
            vertex.potential.max(vertex.floor)
        };
        self.touch(row.vertex());
        Ok(())
    }

    /// Removes a row.
    ///
    /// # Errors
    /// [`Error::NoSuchRow`].
    pub fn remove_row(&mut self, row: RowId) -> Result<(), Error> {
        self.check_row(row)?;
        let slot = row.vertex();
        self.replace_edges(slot, Vec::new());
        *self.rows.vertex_mut(slot) = Vertex::new(0);
        self.mirrored_floors[slot as usize] = 0;
        self.states[slot as usize] = RowState::Proper;
        self.row_slots.give_back(slot);
        Ok(())
    }

    /// Finds the matching of least cost, however long it takes.
    pub fn solve(&mut self) -> Summary {
        match self.solve_while(u64::MAX, |_| true) {
            Ok(summary) => summary,
            // Nobody counts to 2^64 edges.
            Err(stopped) => unreachable!("{stopped}"),
        }
    }

    /// Finds the matching of least cost, unless it takes about `limit` scanned edges or more.
    ///
    /// # Errors
    /// [`Stopped`] at the limit. What is matched then is matched well among itself, but rows may be unmatched that should not be: the
    /// caller may give them what is free, or call again, which goes on. A search under way is begun anew then, so a limit below one search
    /// (at most all edges and rows) may never get through; adding up the changes is not limited either.
    pub fn solve_within(&mut self, limit: u64) -> Result<Summary, Stopped> {
        self.solve_while(limit, |_| true)
    }

    /// As [`solve_within`](Self::solve_within), and asks `keep_going` every 65,536 edges or so, telling it how many were scanned.
    ///
    /// # Errors
    /// [`Stopped`] at the limit, or when `keep_going` said no.
    pub fn solve_while(&mut self, limit: u64, mut keep_going: impl FnMut(u64) -> bool) -> Result<Summary, Stopped> {
        let mut meter = Meter::new(limit, &mut keep_going);
        self.prepare(&mut meter);
        let mut searches = 0;
        match self.settle_all(&mut meter, &mut searches) {
            Ok(()) => {
                let (cost, matched) = self.tally();
                Ok(Summary {
                    cost,
                    matched,
                    work: meter.work(),
                    searches,
                })
            }
            Err(Enough) => {
                let active = |side: &Side| side.vertices.iter().filter(|vertex| vertex.is_active()).count();
                Err(Stopped {
                    work: meter.work(),
                    left: active(&self.rows) + active(&self.columns),
                })
            }
        }
    }

    /// The column of a row, if both are there and matched.
    #[must_use]
    pub fn column_of(&self, row: RowId) -> Option<ColumnId> {
        self.check_row(row).ok()?;
        self.column_id(self.rows.vertex(row.vertex()).mate)
    }

    /// The row of a column, if both are there and matched.
    #[must_use]
    pub fn row_of(&self, column: ColumnId) -> Option<RowId> {
        self.check_column(column).ok()?;
        self.row_id(self.columns.vertex(column.vertex()).mate)
    }

    /// All matched pairs, by the rows' slots.
    pub fn pairs(&self) -> impl Iterator<Item = (RowId, ColumnId)> + '_ {
        self.rows
            .numbers()
            .filter_map(|row| Some((self.row_id(row)?, self.column_id(self.rows.vertex(row).mate)?)))
    }

    /// The rows, by their slots.
    pub fn rows(&self) -> impl Iterator<Item = RowId> + '_ {
        self.rows.numbers().filter_map(|row| self.row_id(row))
    }

    /// The columns, by their slots.
    pub fn columns(&self) -> impl Iterator<Item = ColumnId> + '_ {
        self.columns.numbers().filter_map(|column| self.column_id(column))
    }

    /// What a column was worth when last solved: one more of its kind would save at most that much. 0 for one that is not there.
    #[must_use]
    pub fn price(&self, column: ColumnId) -> i64 {
        self.check_column(column)
            .map_or(0, |()| self.columns.vertex(column.vertex()).potential)
    }

    /// What a row cost when last solved, with the price of what it took: the unserved cost for an unmatched one. A candidate changes
    /// nothing unless its cost and price are below. 0 for one that is not there.
    #[must_use]
    pub fn value(&self, row: RowId) -> i64 {
        self.check_row(row)
            .map_or(0, |()| -self.rows.vertex(row.vertex()).potential)
    }

    /// Problem, matching and duals in plain numbers, rows and columns in the order of their slots. The solution is one right after solving.
    #[must_use]
    pub fn export(&self) -> (Instance, Solution) {
        let mut number_of = vec![0; self.columns.vertices.len()];
        let mut prices = Vec::new();
        for column in self.columns() {
            number_of[column.slot()] = prices.len();
            prices.push(self.price(column));
        }
        let mut instance = Instance {
            columns: prices.len(),
            rows: Vec::new(),
        };
        let mut solution = Solution {
            prices,
            cost: self.tally().0,
            ..Solution::default()
        };
        for row in self.rows() {
            let edges = self.rows.edges(row.vertex()).iter();
            instance.rows.push(InstanceRow {
                unserved: -self.rows.vertex(row.vertex()).floor,
                candidates: edges
                    .map(|edge| (number_of[edge.vertex() as usize], edge.number()))
                    .collect(),
            });
            solution
                .column_of
                .push(self.column_of(row).map(|column| number_of[column.slot()]));
            solution.values.push(self.value(row));
        }
        (instance, solution)
    }

    /// Checks that the matching is the best one, by [`Solution::verify`]. Looks at every edge.
    ///
    /// # Errors
    /// A [`Flaw`], if something was changed since it was last solved, or the last time was stopped.
    pub fn verify(&self) -> Result<(), Flaw> {
        let (instance, solution) = self.export();
        solution.verify(&instance)
    }

    /// Brings edges and potentials in order after changes.
    fn prepare(&mut self, meter: &mut Meter<'_>) {
        self.mirror_floors();
        for (edges, sorted) in self.columns.edges.iter_mut().zip(&mut self.sorted) {
            if *sorted < edges.len() {
                // Stable, as that one is fast where a large part is sorted already.
                edges.sort();
                *sorted = edges.len();
            }
        }
        let start = if self.is_cold && self.column_slots.taken() < self.row_slots.taken() {
            Start::Columns
        } else {
            Start::Rows
        };
        repair(&mut self.rows, &mut self.columns, &mut self.states, start, meter);
    }

    /// Brings the floors of rows that have others now into the columns' edges.
    fn mirror_floors(&mut self) {
        let floors = &mut self.mirrored_floors;
        let rises: Vec<i64> = (self.rows.vertices.iter().zip(floors.iter_mut()))
            .map(|(row, mirrored)| row.floor - std::mem::replace(mirrored, row.floor))
            .collect();
        if rises.iter().all(|rise| *rise == 0) {
            return;
        }
        for (edges, sorted) in self.columns.edges.iter_mut().zip(&mut self.sorted) {
            for edge in edges {
                let rise = rises[edge.vertex() as usize];
                if rise != 0 {
                    *edge = Packed::new(edge.number() + rise, edge.vertex());
                    *sorted = 0;
                }
            }
        }
    }

    /// Makes every active vertex inactive.
    fn settle_all(&mut self, meter: &mut Meter<'_>, searches: &mut usize) -> Result<(), Enough> {
        let spread = self.spread();
        let Self {
            rows, columns, scratch, ..
        } = self;
        if self.is_cold && self.row_slots.taken() > 0 {
            self.is_cold = false;
            // The smaller side bids: it can be satisfied, and need not be outbid for long.
            if self.column_slots.taken() < self.row_slots.taken() {
                scale(columns, rows, spread, meter)?;
            } else {
                scale(rows, columns, spread, meter)?;
            }
        }
        settle_side(rows, columns, scratch, meter, searches)?;
        settle_side(columns, rows, scratch, meter, searches)
    }

    /// How much costs differ. Looks only at the ends of each row's candidates.
    fn spread(&self) -> Spread {
        let mut spread = Spread { most: 0, typical: 0 };
        let mut counted = 0;
        for (row, edges) in self.rows.vertices.iter().zip(&self.rows.edges) {
            if let [first, .., last] = edges.as_slice() {
                spread.typical += last.number() - first.number();
                counted += 1;
            }
            if let Some(first) = edges.first() {
                spread.most = spread.most.max(-row.floor - first.number());
            }
        }
        spread.typical /= counted.max(1);
        spread
    }

    /// Cost and number of matched rows, as of now.
    fn tally(&self) -> (i64, usize) {
        let (mut cost, mut matched) = (0, 0);
        for row in self.rows() {
            let vertex = self.rows.vertex(row.vertex());
            let taken = self
                .rows
                .edges(row.vertex())
                .iter()
                .find(|edge| edge.vertex() == vertex.mate);
            cost += taken.map_or(-vertex.floor, |edge| edge.number());
            matched += usize::from(taken.is_some());
        }
        (cost, matched)
    }

    fn touch(&mut self, row: u32) {
        let state = &mut self.states[row as usize];
        if *state == RowState::Proper {
            *state = RowState::Changed;
        }
    }

    /// Candidates as sorted edges, the cheapest of each column. Marks their columns.
    fn pack(&mut self, candidates: &[(ColumnId, i64)]) -> Vec<Packed> {
        let mut edges: Vec<Packed> = candidates
            .iter()
            .map(|&(column, cost)| Packed::new(cost, column.vertex()))
            .collect();
        edges.sort_unstable();
        self.mark += 1;
        edges.retain(|edge| std::mem::replace(&mut self.marks[edge.vertex() as usize], self.mark) != self.mark);
        edges
    }

    /// Gives a row these edges, telling the columns only what is different.
    fn replace_edges(&mut self, row: u32, edges: Vec<Packed>) {
        let old = std::mem::take(&mut self.rows.edges[row as usize]);
        let mate = self.rows.vertex(row).mate;
        let (mut olds, mut news) = (old.iter().peekable(), edges.iter().peekable());
        let mut changed = false;
        loop {
            let is_gone = match (olds.peek(), news.peek()) {
                (None, None) => break,
                (Some(old), Some(new)) if old == new => {
                    olds.next();
                    news.next();
                    continue;
                }
                (Some(old), Some(new)) => old < new,
                (old, _) => old.is_some(),
            };
            changed = true;
            if let Some(edge) = if is_gone { olds.next() } else { news.next() } {
                let mirrored = Packed::new(edge.number() + self.mirrored_floors[row as usize], row);
                if is_gone {
                    self.forget_edge(edge.vertex(), mirrored);
                } else {
                    self.columns.edges[edge.vertex() as usize].push(mirrored);
                }
            }
        }
        if changed && mate != NONE && !edges.iter().any(|edge| edge.vertex() == mate) {
            self.columns.vertex_mut(mate).mate = NONE;
            self.rows.vertex_mut(row).mate = NONE;
        }
        self.rows.edges[row as usize] = edges;
        if changed {
            self.touch(row);
        }
    }

    fn forget_edge(&mut self, column: u32, edge: Packed) {
        let edges = &mut self.columns.edges[column as usize];
        let sorted = &mut self.sorted[column as usize];
        if let Ok(index) = edges[..*sorted].binary_search(&edge) {
            edges.remove(index);
            *sorted -= 1;
        } else if let Some(index) = edges[*sorted..].iter().position(|other| *other == edge) {
            edges.swap_remove(*sorted + index);
        }
    }

    fn row_id(&self, slot: u32) -> Option<RowId> {
        Some(RowId::new(slot, self.row_slots.generation(slot)?))
    }

    fn column_id(&self, slot: u32) -> Option<ColumnId> {
        Some(ColumnId::new(slot, self.column_slots.generation(slot)?))
    }

    fn check_row(&self, row: RowId) -> Result<(), Error> {
        if self.row_slots.holds(row.vertex(), row.generation()) {
            Ok(())
        } else {
            Err(Error::NoSuchRow(row))
        }
    }

    fn check_column(&self, column: ColumnId) -> Result<(), Error> {
        if self.column_slots.holds(column.vertex(), column.generation()) {
            Ok(())
        } else {
            Err(Error::NoSuchColumn(column))
        }
    }

    fn check_row_costs(&self, unserved: i64, candidates: &[(ColumnId, i64)]) -> Result<(), Error> {
        check_cost(unserved)?;
        for &(column, cost) in candidates {
            self.check_column(column)?;
            check_cost(cost)?;
        }
        Ok(())
    }
}

/// Makes every active vertex of `near` inactive.
fn settle_side(
    near: &mut Side,
    far: &mut Side,
    scratch: &mut Scratch,
    meter: &mut Meter<'_>,
    searches: &mut usize,
) -> Result<(), Enough> {
    bid(near, far, 0, BIDS_EACH, meter)?;
    for vertex in near.numbers() {
        if near.vertex(vertex).is_active() {
            search(near, far, vertex, scratch, meter)?;
            *searches += 1;
        }
    }
    Ok(())
}

fn check_cost(cost: i64) -> Result<(), Error> {
    if (-COST_MAX..=COST_MAX).contains(&cost) {
        Ok(())
    } else {
        Err(Error::CostOutOfRange(cost))
    }
}

fn place(side: &mut Side, slot: u32, vertex: Vertex) {
    debug_assert_eq!(vertex.distance, FAR);
    if slot as usize == side.vertices.len() {
        side.vertices.push(vertex);
        side.edges.push(Vec::new());
    } else {
        *side.vertex_mut(slot) = vertex;
    }
}
