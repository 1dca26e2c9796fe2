//! The nearest of many points in the plane, in exact order.
//!
//! The points' bounding box is cut into square cells with about [`POINTS_PER_CELL`] points each on the average. A query looks at the cell it
//! lies in, then at the ring of cells around that, and so on. Whatever lies outside of the rings seen so far is farther away than their
//! border; so all points found that are not farther than the border may be told, nearest first (the *incremental nearest neighbours*
//! of Hjaltason and Samet, *Distance Browsing in Spatial Databases*, 1999, on a grid instead of a tree).
//!
//! Good for points spread over a city, evenly or in clusters. If all but a few lie in a millionth of the box, a query looks at all of them.
//!
//! Coordinates are the caller's, in one unit for both axes. For latitudes and longitudes of one city, `x = lon · cos(lat₀)`, `y = lat` is
//! near enough to choose candidates by.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Points per cell the grid aims at: few enough to find the nearest quickly, enough that most rings hold something.
pub const POINTS_PER_CELL: usize = 2;

/// A point that cannot be sorted in.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("point {index} is not usable: both coordinates must be finite and within ±{COORDINATE_MAX:e}")]
pub struct BadPoint {
    /// Its index among the given points.
    pub index: usize,
}

/// Largest absolute value of a coordinate: squares of distances stay finite.
pub const COORDINATE_MAX: f64 = 1e150;

/// Points, sorted into cells once.
#[derive(Debug, Clone, Default)]
pub struct Grid {
    left: f64,
    bottom: f64,
    /// Side of a cell; positive.
    cell: f64,
    columns: usize,
    rows: usize,
    /// Where each cell begins in `points`; one more at the end.
    starts: Vec<u32>,
    /// Sorted by cell, then by index.
    points: Vec<(f64, f64, u32)>,
}

/// A point found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Near {
    /// Its index among the points given to [`Grid::new`].
    pub index: usize,
    /// Its distance, squared: exact to one rounding of each operation, and what the order goes by.
    pub squared: f64,
}

impl Near {
    /// Its distance.
    #[must_use]
    pub fn distance(&self) -> f64 {
        self.squared.sqrt()
    }
}

impl Grid {
    /// Sorts points (x, y) in. There may be at most 2³² of them.
    ///
    /// # Errors
    /// [`BadPoint`], the first one.
    pub fn new(points: &[(f64, f64)]) -> Result<Self, BadPoint> {
        let is_good = |value: f64| value.abs() <= COORDINATE_MAX;
        if let Some(index) = points.iter().position(|point| !is_good(point.0) || !is_good(point.1)) {
            return Err(BadPoint { index });
        }
        let indexed: Vec<(f64, f64, u32)> = (0..).zip(points).map(|(index, &(x, y))| (x, y, index)).collect();
        let over = |pick: fn(&(f64, f64)) -> f64, fold: fn(f64, f64) -> f64| points.iter().map(pick).reduce(fold);
        let (Some(left), Some(right)) = (over(|point| point.0, f64::min), over(|point| point.0, f64::max)) else {
            return Ok(Self::default());
        };
        let (bottom, top) = (
            over(|point| point.1, f64::min).unwrap_or(0.0),
            over(|point| point.1, f64::max).unwrap_or(0.0),
        );
        let cells_wanted = (points.len() / POINTS_PER_CELL).max(1);
        let (width, height) = (right - left, top - bottom);
        let cell = cell_side(width, height, cells_wanted);
        let mut grid = Self {
            left,
            bottom,
            cell,
            columns: truncated(width / cell) + 1,
            rows: truncated(height / cell) + 1,
            starts: Vec::new(),
            points: Vec::new(),
        };
        // Counting sort: sizes, then beginnings, then places.
        let mut starts = vec![0_u32; grid.columns * grid.rows + 1];
        for &(x, y, _) in &indexed {
            starts[grid.cell_of(x, y) + 1] += 1;
        }
        for cell in 1..starts.len() {
            starts[cell] += starts[cell - 1];
        }
        let mut next = starts.clone();
        grid.points = vec![(0.0, 0.0, 0); indexed.len()];
        for point in indexed {
            let place = &mut next[grid.cell_of(point.0, point.1)];
            grid.points[*place as usize] = point;
            *place += 1;
        }
        grid.starts = starts;
        Ok(grid)
    }

    /// How many points there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.points.len()
    }

    /// True without points.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    /// All points, nearest to (`x`, `y`) first, those equally near by their index. Lazy: taking `k` costs about what `k` points cost. Take as
    /// many as needed, filter, stop at a distance. Nothing when a coordinate is not usable ([`COORDINATE_MAX`]).
    #[must_use]
    pub fn nearest(&self, x: f64, y: f64) -> Nearest<'_> {
        let is_good = x.abs() <= COORDINATE_MAX && y.abs() <= COORDINATE_MAX;
        let column = steps(x, self.left, self.cell, self.columns);
        let row = steps(y, self.bottom, self.cell, self.rows);
        Nearest {
            grid: self,
            x,
            y,
            column,
            row,
            ring: 0,
            sure: -1.0,
            looked_at: 0,
            is_complete: self.is_empty() || !is_good,
            found: BinaryHeap::new(),
        }
    }

    fn cell_of(&self, x: f64, y: f64) -> usize {
        steps(y, self.bottom, self.cell, self.rows) * self.columns + steps(x, self.left, self.cell, self.columns)
    }
}

/// The side of square cells of which about `wanted` cover a box; positive and finite.
fn cell_side(width: f64, height: f64, wanted: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "about as many as wanted")]
    let wanted = wanted as f64;
    // Of a thin box, cells along its length: never more than `wanted` on either axis.
    let side = (width * (height / wanted))
        .sqrt()
        .max(width / wanted)
        .max(height / wanted);
    // All points in one place (or so near to each other that the quotient vanishes): one cell.
    if side > 0.0 && side.is_finite() && (width.max(height) / side).is_finite() {
        side
    } else {
        1.0
    }
}

/// In which of `count` intervals of length `cell` from `start` on `value` lies, or the nearest one.
fn steps(value: f64, start: f64, cell: f64, count: usize) -> usize {
    truncated((value - start) / cell).min(count.saturating_sub(1))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates, and negative ones are wanted as 0"
)]
fn truncated(value: f64) -> usize {
    value as usize
}

/// Points from near to far; see [`Grid::nearest`].
#[derive(Debug, Clone)]
pub struct Nearest<'a> {
    grid: &'a Grid,
    x: f64,
    y: f64,
    column: usize,
    row: usize,
    /// The next ring to look at.
    ring: usize,
    /// No point outside of the rings seen is nearer than this, squared.
    sure: f64,
    looked_at: usize,
    /// Whether all rings were seen.
    is_complete: bool,
    /// Squared distance (as bits, which for numbers not below 0 sort alike) and index of what was seen and not told.
    found: BinaryHeap<Reverse<(u64, u32)>>,
}

impl Nearest<'_> {
    /// How many points were looked at so far.
    #[must_use]
    pub fn looked_at(&self) -> usize {
        self.looked_at
    }

    /// Looks at the next ring.
    fn widen(&mut self) {
        let grid = self.grid;
        let (low_row, high_row) = (self.row.checked_sub(self.ring), self.row + self.ring);
        let (low_column, high_column) = (self.column.checked_sub(self.ring), self.column + self.ring);
        let columns = low_column.unwrap_or(0)..=high_column.min(grid.columns - 1);
        let inner_rows = low_row.map_or(0, |low| low + 1)..high_row.min(grid.rows);
        if let Some(low) = low_row {
            self.look_at(low, columns.clone());
        }
        if high_row < grid.rows && self.ring > 0 {
            self.look_at(high_row, columns);
        }
        for row in inner_rows {
            if let Some(low) = low_column {
                self.look_at(row, low..=low);
            }
            if high_column < grid.columns && self.ring > 0 {
                self.look_at(row, high_column..=high_column);
            }
        }
        self.ring += 1;
        self.sure = self.border();
        self.is_complete = self.sure.is_infinite();
    }

    fn look_at(&mut self, row: usize, columns: std::ops::RangeInclusive<usize>) {
        let grid = self.grid;
        let first = grid.starts[row * grid.columns + columns.start()] as usize;
        let last = grid.starts[row * grid.columns + columns.end() + 1] as usize;
        self.looked_at += last - first;
        for &(x, y, index) in &grid.points[first..last] {
            let (dx, dy) = (x - self.x, y - self.y);
            self.found.push(Reverse(((dx * dx + dy * dy).to_bits(), index)));
        }
    }

    /// The distance, squared, from the point to the nearest cell not seen; infinite when there is none.
    fn border(&self) -> f64 {
        let grid = self.grid;
        let (right_of, above) = (self.x - grid.left, self.y - grid.bottom);
        #[expect(clippy::cast_precision_loss, reason = "numbers of cells are far below 2^53")]
        let at = |cell: usize| grid.cell * cell as f64;
        let mut border = f64::INFINITY;
        if let Some(low) = (self.column + 1).checked_sub(self.ring).filter(|&low| low > 0) {
            border = border.min(right_of - at(low));
        }
        if let Some(low) = (self.row + 1).checked_sub(self.ring).filter(|&low| low > 0) {
            border = border.min(above - at(low));
        }
        if self.column + self.ring < grid.columns {
            border = border.min(at(self.column + self.ring) - right_of);
        }
        if self.row + self.ring < grid.rows {
            border = border.min(at(self.row + self.ring) - above);
        }
        // Rounding may put a point into the next cell, and may make a distance a little less than it is. Both by relative errors of some
        // 1e-16, the first one of the distance from the box's corner.
        let border = (border - at(grid.columns.max(grid.rows)) * 1e-14).max(0.0);
        border * border * (1.0 - 1e-12)
    }
}

impl Iterator for Nearest<'_> {
    type Item = Near;

    fn next(&mut self) -> Option<Near> {
        loop {
            if let Some(&Reverse((bits, index))) = self.found.peek() {
                let squared = f64::from_bits(bits);
                // Strictly nearer: one exactly as near outside might have a lower index.
                if self.is_complete || squared < self.sure {
                    self.found.pop();
                    return Some(Near {
                        index: index as usize,
                        squared,
                    });
                }
            } else if self.is_complete {
                return None;
            }
            self.widen();
        }
    }
}

impl std::iter::FusedIterator for Nearest<'_> {}
