//! The graph as the algorithm sees it: two sides that are treated alike, and edges packed into eight bytes.

/// Bits of a packed word that hold a vertex; the rest holds a cost or a distance.
const VERTEX_BITS: u32 = 22;

const VERTEX_MASK: i64 = (1 << VERTEX_BITS) - 1;

/// Most rows, and most columns, at the same time: their numbers fit beside a cost.
pub const VERTICES_MAX: usize = 1 << VERTEX_BITS;

/// Largest absolute value of a cost. In milliseconds 17 years. Differences of two costs still fit beside a vertex in 64 bits, and the
/// sum over [`VERTICES_MAX`] rows fits in an `i64`.
pub const COST_MAX: i64 = 1 << 39;

/// "No vertex".
pub(crate) const NONE: u32 = u32::MAX;

/// "Not reached".
pub(crate) const FAR: i64 = i64::MAX;

/// A number (cost or distance) and a vertex in one word, ordered by the number, then by the vertex. Half the size of the pair:
/// scanning edges is bound by memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Packed(i64);

impl Packed {
    /// `number` must be within ±4 · [`COST_MAX`], `vertex` below [`VERTICES_MAX`].
    pub(crate) fn new(number: i64, vertex: u32) -> Self {
        debug_assert!(number.abs() < 4 * COST_MAX && i64::from(vertex) <= VERTEX_MASK);
        Self(number << VERTEX_BITS | i64::from(vertex))
    }

    pub(crate) fn number(self) -> i64 {
        self.0 >> VERTEX_BITS
    }

    #[expect(clippy::cast_sign_loss, reason = "masked to 22 bits")]
    pub(crate) fn vertex(self) -> u32 {
        (self.0 & VERTEX_MASK) as u32
    }
}

/// A row or a column.
#[derive(Debug, Clone)]
pub(crate) struct Vertex {
    /// Its potential: minus the value of a row, or the price of a column. `cost + potential + potential ≥ 0` along every edge.
    pub(crate) potential: i64,
    /// The least potential it may have, which is the one it has while unmatched in an optimum: minus the unserved cost of a row, 0
    /// for a column.
    pub(crate) floor: i64,
    /// During a search: the length of the shortest known path to it.
    pub(crate) distance: i64,
    /// The vertex it is matched with.
    pub(crate) mate: u32,
    /// During a search: the vertex from which it was reached.
    pub(crate) parent: u32,
}

impl Vertex {
    pub(crate) fn new(floor: i64) -> Self {
        Self {
            potential: floor,
            floor,
            distance: FAR,
            mate: NONE,
            parent: NONE,
        }
    }

    /// How far its potential may still fall; what it adds to the number of an edge that leads to it.
    pub(crate) fn above_floor(&self) -> i64 {
        self.potential - self.floor
    }

    /// Unmatched without being at its floor: what keeps a state from being optimal.
    pub(crate) fn is_active(&self) -> bool {
        self.mate == NONE && self.potential > self.floor
    }
}

/// All rows, or all columns. Vacant slots are vertices without edges that lie at their floor, so nobody has to tell them apart.
#[derive(Debug, Clone, Default)]
pub(crate) struct Side {
    pub(crate) vertices: Vec<Vertex>,
    /// Edges of each vertex, least first (those of columns only while solving). The number of an edge is its cost *plus the floor of the vertex
    /// at its other end*, so the least that the edge can come to: scans end as soon as that is too much. Rows see plain costs, for the
    /// floors of columns are 0.
    pub(crate) edges: Vec<Vec<Packed>>,
}

impl Side {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "at most VERTICES_MAX vertices are ever made"
    )]
    pub(crate) fn numbers(&self) -> std::ops::Range<u32> {
        0..self.vertices.len() as u32
    }

    pub(crate) fn vertex(&self, vertex: u32) -> &Vertex {
        &self.vertices[vertex as usize]
    }

    pub(crate) fn vertex_mut(&mut self, vertex: u32) -> &mut Vertex {
        &mut self.vertices[vertex as usize]
    }

    pub(crate) fn edges(&self, vertex: u32) -> &[Packed] {
        &self.edges[vertex as usize]
    }
}
