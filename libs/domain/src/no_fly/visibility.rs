//! The shortest ways round the zones, by the corners that see each other.
//!
//! A shortest way among polygons is straight but for bends at their corners: at those that stick out, and only where it touches the polygon
//! there rather than running into it. So the corners that see each other along such tangents make a graph (the reduced visibility graph)
//! in which every shortest way is one: T. Lozano-Pérez and M. A. Wesley, *An algorithm for planning collision-free paths among polyhedral
//! obstacles*, Communications of the ACM 22 (1979), 560–570; M. de Berg et al., *Computational Geometry*, chapter "Visibility Graphs";
//! J.-C. Latombe, *Robot Motion Planning* (1991), section 4.1.
//!
//! Zones stand still, so all ways between corners are computed once, by R. W. Floyd's algorithm (Communications of the ACM 5 (1962), 345).
//! What is left per question is which corners the two ends see. Lengths are great-circle km throughout, so they cannot fall below the
//! straight distance.

use super::geometry::{EPS_KM, Polygon, Xy};
use crate::geo::{EARTH_RADIUS_KM, Plane, Point};

/// The zones on the map.
#[derive(Debug)]
pub(super) struct Map {
    pub(super) plane: Plane,
    pub(super) polygons: Vec<Polygon>,
}

impl Map {
    /// The zone that `p` is in.
    pub(super) fn zone_of(&self, p: Xy) -> Option<usize> {
        self.polygons.iter().position(|polygon| polygon.contains(p))
    }

    /// Whether a zone is in the straight way from `a` to `b`.
    pub(super) fn blocks(&self, a: Xy, b: Xy) -> bool {
        self.polygons.iter().any(|polygon| polygon.blocks(a, b))
    }
}

/// A place on the map, and on the globe.
#[derive(Debug, Clone, Copy)]
struct Place {
    at: Xy,
    point: Point,
    /// On the globe with a radius of 1: what lengths are computed from where many are asked for.
    unit: [f64; 3],
}

impl Place {
    fn new(at: Xy, point: Point) -> Self {
        let ((lat_sin, lat_cos), (lon_sin, lon_cos)) =
            (point.lat.to_radians().sin_cos(), point.lon.to_radians().sin_cos());
        let unit = [lat_cos * lon_cos, lat_cos * lon_sin, lat_sin];
        Self { at, point, unit }
    }

    fn of(map: &Map, point: Point) -> Self {
        Self::new(Xy::of(&map.plane, point), point)
    }

    /// As [`Point::distance_km`], but for the last digits, at a tenth of its cost: the arc over the chord c is 2 · asin(c ÷ 2), of which the first
    /// terms of the series are more than enough up to some hundreds of km.
    fn km_to(&self, other: &Self) -> f64 {
        let apart = |axis: usize| self.unit[axis] - other.unit[axis];
        let squared = apart(0).powi(2) + apart(1).powi(2) + apart(2).powi(2);
        if squared > SERIES_MAX {
            return self.point.distance_km(other.point);
        }
        let series = 1.0 + squared * (1.0 / 24.0 + squared * (3.0 / 640.0));
        EARTH_RADIUS_KM * squared.sqrt() * series
    }
}

/// Square of the longest chord for which the series is used: 200 km, where the terms that are left out are less than a micrometre.
const SERIES_MAX: f64 = 1e-3;

/// A corner that sticks out of its zone.
#[derive(Debug)]
struct Corner {
    place: Place,
    /// From here to the corners before and after it.
    before: Xy,
    after: Xy,
}

impl Corner {
    /// Whether a way from `p` to this corner touches the zone there, so that a shortest way may bend: its neighbours are on one side of it.
    fn is_tangent_from(&self, p: Xy) -> bool {
        let along = self.place.at - p;
        // How far they are to the left, times the length of the way.
        let (before, after) = (along.cross(self.before), along.cross(self.after));
        if before * after >= 0.0 {
            return true;
        }
        // One on each side: unless, within the tolerance, one of them is on the way's line, or `p` on the line of an edge. (So near to the corner
        // that would turn the way, and lead its line past the other end of the edge.)
        let squared = along.dot(along);
        let is_grazed =
            |cross: f64, neighbour: Xy| cross * cross <= EPS_KM * EPS_KM * squared.max(neighbour.dot(neighbour));
        is_grazed(before, self.before) || is_grazed(after, self.after) || squared <= EPS_KM * EPS_KM
    }
}

/// The corners, and the shortest ways between them.
#[derive(Debug)]
pub(super) struct Graph {
    corners: Vec<Corner>,
    /// From each corner to each: the length, km; infinite when none is known.
    km: Vec<f64>,
    /// From each corner to each: the corner to fly to first.
    first: Vec<usize>,
}

/// A corner, and how far it is from an end of a way, km.
#[derive(Debug, Clone, Copy)]
struct Reach {
    corner: usize,
    km: f64,
}

/// Ways that begin with one corner.
#[derive(Debug)]
struct Begun {
    start: Reach,
    /// Whether it is known that the way to the corner is free.
    is_seen: bool,
    /// None of them is shorter.
    least_km: f64,
    /// The last corner of the shortest one, where it has been looked for.
    last: Option<usize>,
}

/// A shortest way: from its start to the corner `first`, from there to the corner `last`, and from there to its end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route {
    first: usize,
    last: usize,
    pub(super) km: f64,
}

impl Graph {
    /// The graph of the zones on `map`.
    pub(super) fn new(map: &Map) -> Self {
        let mut corners = Vec::new();
        for polygon in &map.polygons {
            for (index, (at, point)) in polygon.corners.iter().zip(&polygon.points).enumerate() {
                let (before, after) = polygon.around(index);
                if (*at - before).cross(after - *at) > 0.0 {
                    corners.push(Corner {
                        place: Place::new(*at, *point),
                        before: before - *at,
                        after: after - *at,
                    });
                }
            }
        }
        let count = corners.len();
        let mut graph = Self {
            corners,
            km: vec![f64::INFINITY; count * count],
            first: (0..count * count).map(|pair| pair % count).collect(),
        };
        for a in 0..count {
            graph.km[a * count + a] = 0.0;
            for b in 0..a {
                let (one, other) = (&graph.corners[a], &graph.corners[b]);
                let (here, there) = (one.place, other.place);
                if one.is_tangent_from(there.at) && other.is_tangent_from(here.at) && !map.blocks(here.at, there.at) {
                    let km = here.point.distance_km(there.point);
                    graph.km[a * count + b] = km;
                    graph.km[b * count + a] = km;
                }
            }
        }
        graph.close();
        graph
    }

    /// Floyd's algorithm: the shortest way from each to each, by ever more corners in between.
    fn close(&mut self) {
        let count = self.corners.len();
        for over in 0..count {
            for from in 0..count {
                let begin_km = self.km[from * count + over];
                if begin_km.is_infinite() {
                    continue;
                }
                for to in 0..count {
                    let km = begin_km + self.km[over * count + to];
                    if km < self.km[from * count + to] {
                        self.km[from * count + to] = km;
                        self.first[from * count + to] = self.first[from * count + over];
                    }
                }
            }
        }
    }

    /// The shortest way between two places outside the zones, something being in the straight one. The same question has the same answer. Nothing
    /// only if the ends see no corner, which polygons that are apart leave no place for.
    ///
    /// What takes long is to find out whether an end sees a corner. So it is asked only about the ends of the shortest way there would be if they
    /// saw all corners; a corner that is not seen is out, and what is the shortest way then is asked again. Of a corner where no way has been
    /// looked for yet, that over it straight to the end stands for it: there is no shorter one.
    pub(super) fn route(&self, map: &Map, from: Point, to: Point) -> Option<Route> {
        let (from, to) = (Place::of(map, from), Place::of(map, to));
        let (starts, mut ends) = (self.touched_from(&from), self.touched_from(&to));
        let mut begun: Vec<Begun> = starts
            .into_iter()
            .map(|start| Begun {
                start,
                is_seen: false,
                least_km: start.km + self.corners[start.corner].place.km_to(&to),
                last: None,
            })
            .collect();
        let is_seen = |place: &Place, corner: usize| !map.blocks(place.at, self.corners[corner].place.at);
        loop {
            let found = begun.iter().enumerate();
            let (index, _) = found.min_by(|one, other| one.1.least_km.total_cmp(&other.1.least_km))?;
            let best = &mut begun[index];
            let Some(last) = best.last else {
                match self.onward(best.start, &ends) {
                    Some((last, km)) => (best.last, best.least_km) = (Some(last), km),
                    None => drop(begun.swap_remove(index)),
                }
                continue;
            };
            if !best.is_seen && !is_seen(&from, best.start.corner) {
                begun.swap_remove(index);
                continue;
            }
            best.is_seen = true;
            if is_seen(&to, last) {
                let first = best.start.corner;
                let km = from.point.distance_km(self.corners[first].place.point)
                    + self.km[first * self.corners.len() + last]
                    + self.corners[last].place.point.distance_km(to.point);
                return Some(Route { first, last, km });
            }
            // Ways over it are out; their lengths are still the least that others may have.
            ends.retain(|end| end.corner != last);
            for other in begun.iter_mut().filter(|other| other.last == Some(last)) {
                other.last = None;
            }
        }
    }

    /// The shortest way over the corner `start` and one of `ends`: that one, and the length.
    fn onward(&self, start: Reach, ends: &[Reach]) -> Option<(usize, f64)> {
        let onward_km = &self.km[start.corner * self.corners.len()..][..self.corners.len()];
        let mut best = None;
        let mut least_km = f64::INFINITY;
        for end in ends {
            let km = start.km + onward_km[end.corner] + end.km;
            if km < least_km {
                (best, least_km) = (Some(end.corner), km);
            }
        }
        Some((best?, least_km))
    }

    /// The places where a route bends.
    pub(super) fn bends(&self, route: Route) -> impl Iterator<Item = Point> + '_ {
        let count = self.corners.len();
        let next = move |at: &usize| (*at != route.last).then(|| self.first[*at * count + route.last]);
        std::iter::successors(Some(route.first), next).map(|corner| self.corners[corner].place.point)
    }

    /// The corners at which a shortest way from or to `place` may bend first, if it sees them.
    fn touched_from(&self, place: &Place) -> Vec<Reach> {
        let corners = self.corners.iter().enumerate();
        corners
            .filter(|(_, corner)| corner.is_tangent_from(place.at))
            .map(|(index, corner)| Reach {
                corner: index,
                km: corner.place.km_to(place),
            })
            .collect()
    }
}

/// The same, without anything that only makes it fast: what the tests compare with.
#[cfg(test)]
impl Graph {
    /// The length of the shortest way of all those over two corners that the ends see, km.
    pub(super) fn plain_km(&self, map: &Map, from: Point, to: Point) -> f64 {
        let seen = |point: Point| {
            let p = Xy::of(&map.plane, point);
            let is_seen = move |corner: &Corner| {
                !map.polygons
                    .iter()
                    .any(|polygon| polygon.blocks_plainly(p, corner.place.at))
            };
            let corners = self
                .corners
                .iter()
                .enumerate()
                .filter(move |(_, corner)| is_seen(corner));
            corners.map(move |(index, corner)| (index, point.distance_km(corner.place.point)))
        };
        let ends: Vec<(usize, f64)> = seen(to).collect();
        let mut least_km = f64::INFINITY;
        for (first, begin_km) in seen(from) {
            for (last, end_km) in &ends {
                least_km = least_km.min(begin_km + self.km[first * self.corners.len() + last] + end_km);
            }
        }
        least_km
    }
}
