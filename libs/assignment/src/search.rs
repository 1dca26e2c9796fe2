//! One step to the optimum: the shortest augmenting path from one active vertex.
//!
//! A tree grows from the active vertex `source` over its own side (*near*) and the other one (*far*): from near vertices along any
//! edge, from far ones along the edge they are matched by. The length of an edge is its reduced cost `cost + potential + potential`,
//! never negative, and 0 for matched ones; so Dijkstra's algorithm finds the vertices in the order of their distance. The tree may end
//! in two ways, and the nearer end is taken:
//!
//! - at an unmatched far vertex. The edges of the path to it change between matched and unmatched, so one more pair is matched;
//! - at a near vertex that may rather stay unmatched: the distance is then that of the vertex plus what its potential is above its floor.
//!   The path changes likewise: `source` gets matched, the other one loses its match, lies at its floor, and is done. It may be `source`
//!   itself, with an empty path.
//!
//! Let `end` be the distance of the end. Potentials of near vertices at distance `d < end` fall by `end - d`, of far ones they rise by as much:
//! then no reduced cost is negative, those on the path are 0, and nobody who was not active has become it. This is the primal-dual
//! step of Jonker and Volgenant, with an unmatched state for everybody.

use crate::graph::{FAR, NONE, Packed, Side};
use crate::limit::{Enough, Meter};
use crate::queue::Queue;

/// Memory that searches share.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scratch {
    queue: Queue,
    /// Far vertices with a distance.
    reached: Vec<u32>,
    /// Far vertices whose distance is final, with it; their mates are at the same distance.
    settled: Vec<(u32, i64)>,
}

enum End {
    /// An unmatched far vertex.
    Far(u32),
    /// A near vertex that gives up its mate.
    Near(u32),
}

/// Makes the active vertex `source` of `near` inactive. If stopped, nothing has changed.
pub(crate) fn search(
    near: &mut Side,
    far: &mut Side,
    source: u32,
    scratch: &mut Scratch,
    meter: &mut Meter<'_>,
) -> Result<(), Enough> {
    scratch.queue.clear();
    scratch.reached.clear();
    scratch.settled.clear();
    let grown = grow(near, far, source, scratch, meter);
    for &vertex in &scratch.reached {
        far.vertex_mut(vertex).distance = FAR;
    }
    let (end, distance) = grown?;

    near.vertex_mut(source).potential -= distance;
    for &(vertex, at) in &scratch.settled {
        let far_vertex = far.vertex_mut(vertex);
        far_vertex.potential += distance - at;
        near.vertex_mut(far_vertex.mate).potential -= distance - at;
    }
    let mut last = match end {
        End::Far(vertex) => vertex,
        End::Near(vertex) => std::mem::replace(&mut near.vertex_mut(vertex).mate, NONE),
    };
    while last != NONE {
        let parent = far.vertex(last).parent;
        far.vertex_mut(last).mate = parent;
        last = std::mem::replace(&mut near.vertex_mut(parent).mate, last);
    }
    Ok(())
}

fn grow(
    near: &Side,
    far: &mut Side,
    source: u32,
    scratch: &mut Scratch,
    meter: &mut Meter<'_>,
) -> Result<(End, i64), Enough> {
    let mut end = End::Near(source);
    let mut nearest_end = near.vertex(source).above_floor();
    let (mut from, mut at) = (source, 0);
    loop {
        let base = at + near.vertex(from).potential;
        let edges = near.edges(from);
        let mut scanned = 0;
        for edge in edges {
            // Edges are sorted: no later one can lead anywhere before the end.
            if base + edge.number() >= nearest_end {
                break;
            }
            scanned += 1;
            let vertex = edge.vertex();
            let target = far.vertex_mut(vertex);
            let distance = base + edge.number() + target.above_floor();
            if distance >= nearest_end || distance >= target.distance {
                continue;
            }
            if target.distance == FAR {
                scratch.reached.push(vertex);
            }
            target.distance = distance;
            target.parent = from;
            if target.mate == NONE {
                (end, nearest_end) = (End::Far(vertex), distance);
            } else {
                scratch.queue.push(Packed::new(distance, vertex));
            }
        }
        meter.add(scanned + 1)?;
        let settled = loop {
            let Some(first) = scratch.queue.pop() else {
                return Ok((end, nearest_end));
            };
            if first.number() >= nearest_end {
                return Ok((end, nearest_end));
            }
            // A vertex reached again by a shorter path was settled by that one.
            if first.number() == far.vertex(first.vertex()).distance {
                break first;
            }
        };
        let vertex = settled.vertex();
        at = settled.number();
        from = far.vertex(vertex).mate;
        scratch.settled.push((vertex, at));
        let unmatching = at + near.vertex(from).above_floor();
        if unmatching < nearest_end {
            (end, nearest_end) = (End::Near(from), unmatching);
        }
    }
}
