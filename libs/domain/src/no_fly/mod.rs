//! Zones that nobody flies over, and the shortest ways round them.
//!
//! Promises:
//! - A way between two places outside the zones never crosses the inside of one, is never shorter than the straight line, the same in both
//!   directions but for rounding, and the straight line itself where nothing is in it. The same question has the same answer.
//! - Without zones nothing is computed: the way is the straight line.
//! - The edge of a zone may be flown along. Who wants drones to keep a distance draws the zone larger.
//! - A drone inside a zone (it was drawn over it) leaves by the nearest edge first; one whose way ends inside comes in by the edge nearest to
//!   that end. Within one zone it flies straight.
//!
//! Zones are simple polygons, at least a metre apart from one another, of which `zones_config` holds at most [`NO_FLY_MAX`] with
//! [`CORNERS_MAX`] corners in all. Meant for a city: straight lines are those between latitudes and longitudes, as drones fly them, and no zone
//! crosses the meridian of 180°. How the ways are found is told in `visibility`.

#[cfg(feature = "args")]
mod args;
mod geometry;
mod visibility;

use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use crate::geo::{AT_CHARGE_DEG, Plane, Point};
use crate::way::Way;
#[cfg(feature = "args")]
pub use args::NoFlyArgs;
use geometry::{Polygon, Xy, apart_km};
use visibility::{Graph, Map};

/// Most zones.
pub const NO_FLY_MAX: usize = 32;

/// Most vertices of one zone.
pub const VERTICES_MAX: usize = 64;

/// Most vertices of all zones together.
pub const CORNERS_MAX: usize = 256;

/// Least length of an edge, least distance between zones, and between parts of one that do not meet: a metre, in km.
pub const APART_KM: f64 = 0.001;

/// A zone that nobody flies over, as JSON has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NoFlyZone {
    /// Its corners in order, in either direction, the first one not repeated at the end.
    pub vertices: Vec<Point>,
}

/// Checked zones. Cheap to clone; equal when the zones are.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<NoFlyZone>", into = "Vec<NoFlyZone>")]
pub struct NoFly(Option<Arc<Checked>>);

#[derive(Debug)]
struct Checked {
    zones: Vec<NoFlyZone>,
    map: Map,
    /// Computed when something is in the way for the first time.
    graph: OnceLock<Graph>,
}

/// Why zones cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum NoFlyError {
    /// More than [`NO_FLY_MAX`] zones.
    #[error("no_fly has {0} zones; expected at most {NO_FLY_MAX}")]
    Count(usize),
    /// Too few or too many vertices.
    #[error("no_fly[{zone}].vertices has {len} entries; expected 3 to {VERTICES_MAX}")]
    Vertices {
        /// Index of the zone.
        zone: usize,
        /// Its vertices.
        len: usize,
    },
    /// More than [`CORNERS_MAX`] vertices in all.
    #[error("no_fly has {0} vertices in all; expected at most {CORNERS_MAX}")]
    Corners(usize),
    /// A vertex that is no place.
    #[error(
        "no_fly[{zone}].vertices[{vertex}] is lat {}, lon {}; expected a latitude in [-90, 90] and a longitude in [-180, 180]",
        at.lat, at.lon
    )]
    Place {
        /// Index of the zone.
        zone: usize,
        /// Index of the vertex.
        vertex: usize,
        /// What was given.
        at: Point,
    },
    /// An edge of nearly no length.
    #[error(
        "no_fly[{zone}].vertices[{vertex}] is less than a metre from the one after it; expected edges of a metre and more, the first vertex not \
         repeated at the end"
    )]
    Short {
        /// Index of the zone.
        zone: usize,
        /// Index of the vertex.
        vertex: usize,
    },
    /// A polygon whose edge meets itself.
    #[error(
        "no_fly[{zone}]: the edges from vertices[{edge}] and vertices[{other}] cross, or come within a metre of each other; expected a polygon \
         whose edges meet at its corners only"
    )]
    Crossing {
        /// Index of the zone.
        zone: usize,
        /// Index of the vertex at which one edge begins.
        edge: usize,
        /// Index of the vertex at which the other one begins.
        other: usize,
    },
    /// Two zones that meet.
    #[error("no_fly[{zone}] overlaps no_fly[{other}] or is less than a metre from it; expected one polygon round both")]
    Meeting {
        /// Index of one zone.
        zone: usize,
        /// Index of the other one.
        other: usize,
    },
    /// Not as [`NoFly::from_str`] takes it.
    #[error(
        "no_fly[{zone}].vertices[{vertex}] is {got:?}; expected lat,lon in degrees, vertices separated by spaces and zones by semicolons"
    )]
    Text {
        /// Index of the zone.
        zone: usize,
        /// Index of the vertex.
        vertex: usize,
        /// What was given.
        got: String,
    },
}

impl NoFly {
    /// Checks zones.
    ///
    /// # Errors
    /// [`NoFlyError`], the first thing that does not fit.
    pub fn new(zones: Vec<NoFlyZone>) -> Result<Self, NoFlyError> {
        if zones.is_empty() {
            return Ok(Self(None));
        }
        check_sizes(&zones)?;
        let latitudes = zones.iter().flat_map(|zone| &zone.vertices).map(|at| at.lat);
        let (low, high) = latitudes.fold((90.0, -90.0), |(low, high): (f64, f64), lat| {
            (low.min(lat), high.max(lat))
        });
        let plane = Plane::at_latitude(f64::midpoint(low, high));
        let mut map = Map {
            plane,
            polygons: Vec::with_capacity(zones.len()),
        };
        for (index, zone) in zones.iter().enumerate() {
            let corners: Vec<Xy> = zone.vertices.iter().map(|at| Xy::of(&plane, *at)).collect();
            check_shape(index, &corners)?;
            let polygon = Polygon::new(&plane, &zone.vertices);
            let meets = |other: &Polygon| {
                let near = |edge| {
                    other
                        .edges()
                        .any(|edge_of_other| apart_km(edge, edge_of_other) < APART_KM)
                };
                polygon.edges().any(near) || polygon.contains(other.corners[0]) || other.contains(polygon.corners[0])
            };
            if let Some(other) = map.polygons.iter().position(meets) {
                return Err(NoFlyError::Meeting { zone: index, other });
            }
            map.polygons.push(polygon);
        }
        Ok(Self(Some(Arc::new(Checked {
            zones,
            map,
            graph: OnceLock::new(),
        }))))
    }

    /// True when there are no zones.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The zones as they were given.
    #[must_use]
    pub fn zones(&self) -> &[NoFlyZone] {
        self.0.as_deref().map_or(&[], |checked| &checked.zones)
    }

    /// The index of the zone that `point` is inside of, if there is one. On its edge, or less than a millimetre behind it, is not inside.
    #[must_use]
    pub fn zone_of(&self, point: Point) -> Option<usize> {
        let map = &self.0.as_deref()?.map;
        map.zone_of(Xy::of(&map.plane, point))
    }

    /// The place nearest to `point` that no zone holds: itself, or one on the edge of the zone that it is in.
    #[must_use]
    pub fn nearest_outside(&self, point: Point) -> Point {
        let Some(checked) = self.0.as_deref() else {
            return point;
        };
        let at = Xy::of(&checked.map.plane, point);
        checked.map.zone_of(at).map_or(point, |zone| checked.gate(zone, at))
    }

    /// The index of a zone that reaches into the square of [`AT_CHARGE_DEG`] around `charge`, where drones stand that charge there.
    #[must_use]
    pub fn zone_near_charge(&self, charge: Point) -> Option<usize> {
        let map = &self.0.as_deref()?.map;
        let corner =
            |lat: f64, lon: f64| Point::new(charge.lat + lat * AT_CHARGE_DEG, charge.lon + lon * AT_CHARGE_DEG);
        let square = [
            corner(-1.0, -1.0),
            corner(-1.0, 1.0),
            corner(1.0, 1.0),
            corner(1.0, -1.0),
        ];
        let square = Polygon::new(&map.plane, &square);
        map.polygons.iter().position(|polygon| {
            square.edges().any(|(a, b)| polygon.blocks(a, b)) || polygon.corners.iter().any(|at| square.contains(*at))
        })
    }

    /// The shortest way from `from` to `to` round the zones.
    #[must_use]
    pub fn way(&self, from: Point, to: Point) -> Way {
        let Some(checked) = self.0.as_deref() else {
            return Way::straight(from, to);
        };
        let (leave, enter) = checked.gates(from, to);
        let (begin, end) = (leave.unwrap_or(from), enter.unwrap_or(to));
        let mut bends: Vec<Point> = leave.into_iter().collect();
        if let Some(route) = checked.route(begin, end) {
            bends.extend(checked.graph().bends(route));
        }
        bends.extend(enter);
        Way::through(from, bends, to)
    }

    /// The length of that way, kilometres.
    #[must_use]
    pub fn way_km(&self, from: Point, to: Point) -> f64 {
        let Some(checked) = self.0.as_deref() else {
            return from.distance_km(to);
        };
        let (leave, enter) = checked.gates(from, to);
        let (begin, end) = (leave.unwrap_or(from), enter.unwrap_or(to));
        let between_km = (checked.route(begin, end)).map_or_else(|| begin.distance_km(end), |route| route.km);
        let leave_km = leave.map_or(0.0, |gate| from.distance_km(gate));
        let enter_km = enter.map_or(0.0, |gate| gate.distance_km(to));
        leave_km + between_km + enter_km
    }
}

impl Checked {
    /// Where a way from `from` to `to` leaves the zone that `from` is in, and enters the one that `to` is in.
    fn gates(&self, from: Point, to: Point) -> (Option<Point>, Option<Point>) {
        let plane = &self.map.plane;
        let (a, b) = (Xy::of(plane, from), Xy::of(plane, to));
        let (zone_a, zone_b) = (self.map.zone_of(a), self.map.zone_of(b));
        // It is in there already; and out of it would only be a detour.
        if zone_a == zone_b {
            return (None, None);
        }
        (
            zone_a.map(|zone| self.gate(zone, a)),
            zone_b.map(|zone| self.gate(zone, b)),
        )
    }

    /// The place on the edge of a zone that is nearest to `at`.
    fn gate(&self, zone: usize, at: Xy) -> Point {
        self.map.polygons[zone].nearest_edge(at).point(&self.map.plane)
    }

    /// The way round, when something is in the straight way between two places outside, or both in one zone.
    fn route(&self, from: Point, to: Point) -> Option<visibility::Route> {
        let plane = &self.map.plane;
        let (a, b) = (Xy::of(plane, from), Xy::of(plane, to));
        if !self.map.blocks(a, b) || self.map.zone_of(a).is_some() {
            return None;
        }
        self.graph().route(&self.map, from, to)
    }

    fn graph(&self) -> &Graph {
        self.graph.get_or_init(|| Graph::new(&self.map))
    }
}

fn check_sizes(zones: &[NoFlyZone]) -> Result<(), NoFlyError> {
    if zones.len() > NO_FLY_MAX {
        return Err(NoFlyError::Count(zones.len()));
    }
    for (index, zone) in zones.iter().enumerate() {
        let len = zone.vertices.len();
        if !(3..=VERTICES_MAX).contains(&len) {
            return Err(NoFlyError::Vertices { zone: index, len });
        }
        if let Some(vertex) = zone.vertices.iter().position(|at| !at.is_on_globe()) {
            let at = zone.vertices[vertex];
            return Err(NoFlyError::Place {
                zone: index,
                vertex,
                at,
            });
        }
    }
    let corners = zones.iter().map(|zone| zone.vertices.len()).sum();
    if corners > CORNERS_MAX {
        return Err(NoFlyError::Corners(corners));
    }
    Ok(())
}

fn check_shape(zone: usize, corners: &[Xy]) -> Result<(), NoFlyError> {
    let count = corners.len();
    let edge = |index: usize| (corners[index], corners[(index + 1) % count]);
    let is_short = |&index: &usize| {
        let (a, b) = edge(index);
        (b - a).length() < APART_KM
    };
    if let Some(vertex) = (0..count).find(is_short) {
        return Err(NoFlyError::Short { zone, vertex });
    }
    for one in 0..count {
        for other in 0..one {
            let (a, b) = (edge(one), edge(other));
            // Neighbours meet at their corner; their other ends must keep off.
            let meets = if (other + 1) % count == one || (one + 1) % count == other {
                let (first, second) = if (other + 1) % count == one { (b, a) } else { (a, b) };
                apart_km((first.0, first.0), second) < APART_KM || apart_km((second.1, second.1), first) < APART_KM
            } else {
                apart_km(a, b) < APART_KM
            };
            if meets {
                return Err(NoFlyError::Crossing {
                    zone,
                    edge: other,
                    other: one,
                });
            }
        }
    }
    Ok(())
}

impl PartialEq for NoFly {
    fn eq(&self, other: &Self) -> bool {
        self.zones() == other.zones()
    }
}

impl std::fmt::Debug for NoFly {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.zones().fmt(f)
    }
}

impl TryFrom<Vec<NoFlyZone>> for NoFly {
    type Error = NoFlyError;

    fn try_from(zones: Vec<NoFlyZone>) -> Result<Self, NoFlyError> {
        Self::new(zones)
    }
}

impl From<NoFly> for Vec<NoFlyZone> {
    fn from(no_fly: NoFly) -> Self {
        no_fly.zones().to_vec()
    }
}

impl FromStr for NoFly {
    type Err = NoFlyError;

    /// `lat,lon lat,lon lat,lon; lat,lon …`: vertices separated by spaces, zones by semicolons, as settings have them. Nothing is no zones.
    fn from_str(text: &str) -> Result<Self, NoFlyError> {
        let texts = text.split(';').map(str::trim).filter(|text| !text.is_empty());
        let zones = texts.enumerate().map(|(zone, text)| {
            let vertices = text.split_whitespace().enumerate().map(|(vertex, text)| {
                let place = text
                    .split_once(',')
                    .and_then(|(lat, lon)| Some(Point::new(lat.parse().ok()?, lon.parse().ok()?)));
                place.ok_or_else(|| NoFlyError::Text {
                    zone,
                    vertex,
                    got: text.chars().take(40).collect(),
                })
            });
            Ok(NoFlyZone {
                vertices: vertices.collect::<Result<_, _>>()?,
            })
        });
        Self::new(zones.collect::<Result<_, _>>()?)
    }
}

#[cfg(test)]
mod tests;
