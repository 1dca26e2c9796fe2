//! Zones as polygons on a flat map of the city, km east and north.
//!
//! The map is affine, so a straight line between latitudes and longitudes (which is how drones move) is a straight line here too. Everything
//! is decided with a tolerance: what is at most [`EPS_KM`] deep in a zone is on its edge, and its edge may be flown along. So rounding, some
//! nanometres here, decides nothing.

use std::ops::{Add, Mul, Sub};

use super::VERTICES_MAX;
use crate::geo::{Plane, Point};

/// How deep in a zone still counts as its edge: a millimetre.
pub(super) const EPS_KM: f64 = 1e-6;

/// A place on the map, or the way between two, km.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Xy {
    pub(super) x: f64,
    pub(super) y: f64,
}

impl Add for Xy {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            x: self.x + other.x,
            y: self.y + other.y,
        }
    }
}

impl Sub for Xy {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            x: self.x - other.x,
            y: self.y - other.y,
        }
    }
}

impl Mul<f64> for Xy {
    type Output = Self;

    fn mul(self, factor: f64) -> Self {
        Self {
            x: self.x * factor,
            y: self.y * factor,
        }
    }
}

impl Xy {
    pub(super) fn of(plane: &Plane, point: Point) -> Self {
        let (x, y) = plane.km(point);
        Self { x, y }
    }

    pub(super) fn point(self, plane: &Plane) -> Point {
        plane.point((self.x, self.y))
    }

    pub(super) fn dot(self, other: Self) -> f64 {
        self.x * other.x + self.y * other.y
    }

    /// Twice the area of the triangle 0, self, other: above 0 when `other` is to the left.
    pub(super) fn cross(self, other: Self) -> f64 {
        self.x * other.y - self.y * other.x
    }

    pub(super) fn length(self) -> f64 {
        self.dot(self).sqrt()
    }
}

/// The point of the segment `a`–`b` nearest to `p`.
pub(super) fn nearest_on(a: Xy, b: Xy, p: Xy) -> Xy {
    let along = b - a;
    let share = (p - a).dot(along) / along.dot(along);
    // A segment of no length has no share, and one end as good as the other.
    if share.is_nan() {
        a
    } else {
        a + along * share.clamp(0.0, 1.0)
    }
}

/// How far the segments `a`–`b` and `c`–`d` are apart, km; 0 where they cross.
pub(super) fn apart_km((a, b): (Xy, Xy), (c, d): (Xy, Xy)) -> f64 {
    let splits = |(a, b): (Xy, Xy), (c, d): (Xy, Xy)| (b - a).cross(c - a) * (b - a).cross(d - a) < 0.0;
    if splits((a, b), (c, d)) && splits((c, d), (a, b)) {
        return 0.0;
    }
    let km = |p: Xy, (a, b): (Xy, Xy)| (p - nearest_on(a, b, p)).length();
    [km(a, (c, d)), km(b, (c, d)), km(c, (a, b)), km(d, (a, b))]
        .into_iter()
        .fold(f64::INFINITY, f64::min)
}

/// A zone on the map: its corners, counter-clockwise.
#[derive(Debug)]
pub(super) struct Polygon {
    /// The corners as they were given.
    pub(super) points: Vec<Point>,
    /// The same on the map.
    pub(super) corners: Vec<Xy>,
    low: Xy,
    high: Xy,
}

impl Polygon {
    /// The polygon of these corners, at most [`VERTICES_MAX`], in whichever direction they run.
    pub(super) fn new(plane: &Plane, vertices: &[Point]) -> Self {
        let mut points = vertices.to_vec();
        let mut corners: Vec<Xy> = points.iter().map(|at| Xy::of(plane, *at)).collect();
        let area: f64 = edges(&corners).map(|(a, b)| a.cross(b)).sum();
        if area < 0.0 {
            points.reverse();
            corners.reverse();
        }
        let fold = |pick: fn(f64, f64) -> f64, start: f64| {
            let both = |at: Xy, corner: &Xy| Xy {
                x: pick(at.x, corner.x),
                y: pick(at.y, corner.y),
            };
            corners.iter().fold(Xy { x: start, y: start }, both)
        };
        let (low, high) = (fold(f64::min, f64::INFINITY), fold(f64::max, f64::NEG_INFINITY));
        Self {
            points,
            corners,
            low,
            high,
        }
    }

    /// Its edges, each from one corner to the next.
    pub(super) fn edges(&self) -> impl Iterator<Item = (Xy, Xy)> + '_ {
        edges(&self.corners)
    }

    /// The corners before and after the one at `index`.
    pub(super) fn around(&self, index: usize) -> (Xy, Xy) {
        let count = self.corners.len();
        (
            self.corners[(index + count - 1) % count],
            self.corners[(index + 1) % count],
        )
    }

    /// The point of its edge nearest to `p`.
    pub(super) fn nearest_edge(&self, p: Xy) -> Xy {
        let mut best = (f64::INFINITY, p);
        for (a, b) in self.edges() {
            let at = nearest_on(a, b, p);
            let km = (p - at).length();
            if km < best.0 {
                best = (km, at);
            }
        }
        best.1
    }

    /// Whether `p` is inside, deeper than the tolerance.
    pub(super) fn contains(&self, p: Xy) -> bool {
        if p.x <= self.low.x || p.x >= self.high.x || p.y <= self.low.y || p.y >= self.high.y {
            return false;
        }
        // Even-odd rule: how often a ray to the east crosses the edge.
        let is_crossed =
            |&(a, b): &(Xy, Xy)| (a.y > p.y) != (b.y > p.y) && p.x < a.x + (b.x - a.x) * (p.y - a.y) / (b.y - a.y);
        let is_inside = self.edges().filter(is_crossed).count() % 2 == 1;
        let is_deep = |(a, b): (Xy, Xy)| {
            let apart = p - nearest_on(a, b, p);
            apart.dot(apart) > EPS_KM * EPS_KM
        };
        is_inside && self.edges().all(is_deep)
    }

    /// Whether the straight way from `a` to `b` goes through the inside.
    pub(super) fn blocks(&self, a: Xy, b: Xy) -> bool {
        if a.x.max(b.x) <= self.low.x
            || a.x.min(b.x) >= self.high.x
            || a.y.max(b.y) <= self.low.y
            || a.y.min(b.y) >= self.high.y
        {
            return false;
        }
        let along = b - a;
        let length = along.length();
        if length <= EPS_KM {
            return self.contains(a);
        }
        // The box round it on one side of the way: so is all that is in there.
        let (middle, half) = ((self.low + self.high) * 0.5, (self.high - self.low) * 0.5);
        let reach = along.x.abs() * half.y + along.y.abs() * half.x;
        if along.cross(middle - a).abs() - reach >= -EPS_KM * length {
            return false;
        }
        let mut sides = [0.0; VERTICES_MAX];
        let sides = &mut sides[..self.corners.len()];
        let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
        for (side_km, corner) in sides.iter_mut().zip(&self.corners) {
            *side_km = along.cross(*corner - a) / length;
            (least, most) = (least.min(*side_km), most.max(*side_km));
        }
        // All of it on one side, or grazed.
        if least >= -EPS_KM || most <= EPS_KM {
            return false;
        }
        self.goes_inside((a, along), sides)
    }

    /// Whether the way from `a` over `along`, of which the corners are `sides` km to the left, goes through the inside.
    fn goes_inside(&self, (a, along): (Xy, Xy), sides: &[f64]) -> bool {
        // Where the way meets the edge it may change between in and out; between two such places it does not. An edge is met once, or at both ends.
        let mut cuts = [0.0; 2 + 2 * VERTICES_MAX];
        cuts[1] = 1.0;
        let mut count = 2;
        let mut cut = |at: Xy| {
            let share = along.dot(at - a) / along.dot(along);
            if (0.0..=1.0).contains(&share) {
                cuts[count] = share;
                count += 1;
            }
        };
        let ends = sides.iter().zip(sides.iter().cycle().skip(1));
        for ((c, d), (c_km, d_km)) in self.edges().zip(ends) {
            if c_km.abs() <= EPS_KM {
                cut(c);
            }
            if c_km * d_km < 0.0 {
                cut(c + (d - c) * (c_km / (c_km - d_km)));
            }
        }
        let cuts = &mut cuts[..count];
        cuts.sort_unstable_by(f64::total_cmp);
        cuts.windows(2)
            .any(|pair| self.contains(a + along * f64::midpoint(pair[0], pair[1])))
    }
}

fn edges(corners: &[Xy]) -> impl Iterator<Item = (Xy, Xy)> + '_ {
    let next = corners.iter().cycle().skip(1);
    corners.iter().copied().zip(next.copied())
}

/// The same, without anything that only makes it fast: what the tests compare with.
#[cfg(test)]
impl Polygon {
    /// As [`Self::blocks`].
    pub(super) fn blocks_plainly(&self, a: Xy, b: Xy) -> bool {
        let along = b - a;
        let length = along.length();
        if length <= EPS_KM {
            return self.contains(a);
        }
        let side_km = |corner: Xy| along.cross(corner - a) / length;
        let mut cuts = vec![0.0, 1.0];
        for (c, d) in self.edges() {
            let (c_km, d_km) = (side_km(c), side_km(d));
            let mut cut = |at: Xy| cuts.push((along.dot(at - a) / along.dot(along)).clamp(0.0, 1.0));
            if c_km.abs() <= EPS_KM {
                cut(c);
            }
            if c_km * d_km < 0.0 {
                cut(c + (d - c) * (c_km / (c_km - d_km)));
            }
        }
        cuts.sort_by(f64::total_cmp);
        let middle = |pair: &[f64]| a + along * f64::midpoint(pair[0], pair[1]);
        let sides = || self.corners.iter().map(|corner| side_km(*corner));
        let is_cut = sides().any(|km| km < -EPS_KM) && sides().any(|km| km > EPS_KM);
        is_cut && cuts.windows(2).any(|pair| self.contains(middle(pair)))
    }
}
