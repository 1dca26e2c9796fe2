//! The city cut into a grid of zones, each with a charge point.
//!
//! Promises: the JSON shape of the key [`crate::keys::ZONES_CONFIG`]; zones are named `zone 0`, `zone 1`, … row by row from
//! the north-west; every point inside the bounds belongs to exactly one zone (a point on an inner edge to the one south or
//! east of it), and a point outside to none.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::geo::{AT_CHARGE_DEG, Bounds, Point};
use crate::no_fly::NoFly;
use crate::way::Way;

/// The served area: a rectangle over Rome.
pub const ROME: Bounds = Bounds {
    lat_min: 41.80,
    lat_max: 41.98,
    lon_min: 12.37,
    lon_max: 12.60,
};

/// Default of `GRID_ROWS`.
pub const DEFAULT_GRID_ROWS: u32 = 2;

/// Default of `GRID_COLS`.
pub const DEFAULT_GRID_COLS: u32 = 2;

/// Most rows, and most columns, of a grid: keeps the configuration well below the KV's value limit.
pub const MAX_GRID_SIDE: u32 = 32;

/// One cell of the grid.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Zone {
    /// `zone N`, N counted row by row from the north-west.
    pub name: String,
    /// Row, 0 = northernmost.
    pub row: u32,
    /// Column, 0 = westernmost.
    pub col: u32,
    /// The cell.
    pub bounds: Bounds,
    /// The charge point: the centre of the cell.
    pub charge: Point,
    /// Names of the cells above, below, left and right, as far as they exist.
    pub neighbors: Vec<String>,
}

/// The whole grid, as kept under [`crate::keys::ZONES_CONFIG`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ZonesConfig {
    /// The served area.
    pub bounds: Bounds,
    /// Number of rows.
    pub rows: u32,
    /// Number of columns.
    pub cols: u32,
    /// All zones, row by row from the north-west.
    pub zones: Vec<Zone>,
    /// Neighbours by zone name: the same fact as [`Zone::neighbors`], as existing scripts read it.
    pub adjacency: BTreeMap<String, Vec<String>>,
    /// Zones that nobody flies over; absent in JSON when there are none.
    #[serde(default, skip_serializing_if = "NoFly::is_empty")]
    pub no_fly: NoFly,
}

/// How near a zone is to another: the second criterion of the greedy choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ZoneRank {
    /// Rank 0: the same zone.
    Same,
    /// Rank 1: a neighbour.
    Neighbor,
    /// Rank 2: any other, or outside the grid.
    Other,
}

/// Why a grid cannot be built or used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ZonesError {
    /// Too few or too many rows or columns.
    #[error("{field} is {value}; a grid takes 1 to {MAX_GRID_SIDE}")]
    Side {
        /// `rows` or `cols`.
        field: &'static str,
        /// What was given.
        value: u32,
    },
    /// The area has no extent, or an edge that is not a finite number.
    #[error("bounds are {0:?}; expected finite edges with lat_min < lat_max and lon_min < lon_max")]
    Bounds(Bounds),
    /// The list of zones does not fit the number of rows and columns.
    #[error("zones has {len} entries; {rows} rows and {cols} columns make {expected}")]
    Count {
        /// Entries found.
        len: usize,
        /// Rows stated.
        rows: u32,
        /// Columns stated.
        cols: u32,
        /// Entries expected.
        expected: usize,
    },
    /// A zone is not at its place in the list.
    #[error("zones[{index}] is row {row}, col {col}; the list runs row by row from the north-west")]
    Order {
        /// Index in the list.
        index: usize,
        /// Row stated.
        row: u32,
        /// Column stated.
        col: u32,
    },
    /// A no-fly zone where drones charge.
    #[error(
        "no_fly[{no_fly}] reaches the charge point of {zone} at lat {}, lon {}; expected it to keep {AT_CHARGE_DEG}° off on both axes",
        charge.lat, charge.lon
    )]
    Charge {
        /// Index of the no-fly zone.
        no_fly: usize,
        /// Whose charge point.
        zone: String,
        /// Where that is.
        charge: Point,
    },
}

impl ZonesConfig {
    /// The grid of `rows` × `cols` equal cells over [`ROME`].
    ///
    /// # Errors
    /// [`ZonesError::Side`] when a side is 0 or above [`MAX_GRID_SIDE`].
    pub fn rome(rows: u32, cols: u32) -> Result<Self, ZonesError> {
        Self::build(ROME, rows, cols)
    }

    /// The grid of `rows` × `cols` equal cells over `bounds`.
    ///
    /// # Errors
    /// [`ZonesError::Side`] or [`ZonesError::Bounds`] when the numbers make no grid.
    pub fn build(bounds: Bounds, rows: u32, cols: u32) -> Result<Self, ZonesError> {
        check_side("rows", rows)?;
        check_side("cols", cols)?;
        if !bounds.is_sound() {
            return Err(ZonesError::Bounds(bounds));
        }
        let name = |row: u32, col: u32| format!("zone {}", row * cols + col);
        let edge = |from: f64, to: f64, part: u32, parts: u32| from + (to - from) * f64::from(part) / f64::from(parts);
        let mut zones = Vec::new();
        for row in 0..rows {
            for col in 0..cols {
                let cell = Bounds {
                    // Row 0 is the north, so rows count down from lat_max.
                    lat_min: edge(bounds.lat_max, bounds.lat_min, row + 1, rows),
                    lat_max: edge(bounds.lat_max, bounds.lat_min, row, rows),
                    lon_min: edge(bounds.lon_min, bounds.lon_max, col, cols),
                    lon_max: edge(bounds.lon_min, bounds.lon_max, col + 1, cols),
                };
                let mut neighbors = Vec::new();
                if row > 0 {
                    neighbors.push(name(row - 1, col));
                }
                if row + 1 < rows {
                    neighbors.push(name(row + 1, col));
                }
                if col > 0 {
                    neighbors.push(name(row, col - 1));
                }
                if col + 1 < cols {
                    neighbors.push(name(row, col + 1));
                }
                zones.push(Zone {
                    name: name(row, col),
                    row,
                    col,
                    bounds: cell,
                    charge: cell.center(),
                    neighbors,
                });
            }
        }
        let adjacency = zones
            .iter()
            .map(|zone| (zone.name.clone(), zone.neighbors.clone()))
            .collect();
        Ok(Self {
            bounds,
            rows,
            cols,
            zones,
            adjacency,
            no_fly: NoFly::default(),
        })
    }

    /// The same grid with these no-fly zones.
    ///
    /// # Errors
    /// [`ZonesError::Charge`] when one of them reaches a charge point.
    pub fn with_no_fly(self, no_fly: NoFly) -> Result<Self, ZonesError> {
        let zones = Self { no_fly, ..self };
        zones.check_chargers()?;
        Ok(zones)
    }

    /// Checks a configuration that was read rather than built: the other functions here rely on it.
    ///
    /// # Errors
    /// Says which part does not fit; the caller then builds a fresh grid instead.
    pub fn check(&self) -> Result<(), ZonesError> {
        check_side("rows", self.rows)?;
        check_side("cols", self.cols)?;
        if !self.bounds.is_sound() {
            return Err(ZonesError::Bounds(self.bounds));
        }
        let (rows, cols) = (self.rows, self.cols);
        let expected = (rows as usize) * (cols as usize);
        if self.zones.len() != expected {
            return Err(ZonesError::Count {
                len: self.zones.len(),
                rows,
                cols,
                expected,
            });
        }
        for (index, zone) in self.zones.iter().enumerate() {
            if (zone.row as usize) * (cols as usize) + zone.col as usize != index || zone.col >= cols {
                return Err(ZonesError::Order {
                    index,
                    row: zone.row,
                    col: zone.col,
                });
            }
        }
        self.check_chargers()
    }

    /// Whether drones can be where they charge, and come from there in any direction.
    fn check_chargers(&self) -> Result<(), ZonesError> {
        for zone in &self.zones {
            if let Some(no_fly) = self.no_fly.zone_near_charge(zone.charge) {
                return Err(ZonesError::Charge {
                    no_fly,
                    zone: zone.name.clone(),
                    charge: zone.charge,
                });
            }
        }
        Ok(())
    }

    /// The shortest way from `from` to `to` that keeps out of the no-fly zones: see [`crate::no_fly`].
    #[must_use]
    pub fn way(&self, from: Point, to: Point) -> Way {
        self.no_fly.way(from, to)
    }

    /// The length of that way, kilometres: the distance by which everything is decided. Without no-fly zones it is the straight one.
    #[must_use]
    pub fn way_km(&self, from: Point, to: Point) -> f64 {
        self.no_fly.way_km(from, to)
    }

    /// The zone that holds `point`, or `None` outside the bounds.
    #[must_use]
    pub fn zone_of(&self, point: Point) -> Option<&Zone> {
        if !self.bounds.contains(point) {
            return None;
        }
        let row = cell_index(
            self.bounds.lat_max - point.lat,
            self.bounds.lat_max - self.bounds.lat_min,
            self.rows,
        );
        let col = cell_index(
            point.lon - self.bounds.lon_min,
            self.bounds.lon_max - self.bounds.lon_min,
            self.cols,
        );
        self.zones.get(row * self.cols as usize + col)
    }

    /// The name of the zone that holds `point`, or `None` outside.
    #[must_use]
    pub fn zone_name_of(&self, point: Point) -> Option<String> {
        self.zone_of(point).map(|zone| zone.name.clone())
    }

    /// Names of the neighbours of the zone called `name`; empty when there is no such zone.
    #[must_use]
    pub fn neighbors(&self, name: &str) -> &[String] {
        self.adjacency.get(name).map_or(&[], Vec::as_slice)
    }

    /// How near the zone of `from` is to the zone of `to`.
    #[must_use]
    pub fn rank(&self, from: Point, to: Point) -> ZoneRank {
        match (self.zone_of(from), self.zone_of(to)) {
            (Some(a), Some(b)) if a.name == b.name => ZoneRank::Same,
            (Some(a), Some(b)) if a.neighbors.contains(&b.name) => ZoneRank::Neighbor,
            _ => ZoneRank::Other,
        }
    }

    /// The charge point nearest to `point` by the way there, and the length of that in kilometres. `None` only for a grid without zones.
    #[must_use]
    pub fn nearest_charge(&self, point: Point) -> Option<(Point, f64)> {
        let (index, km) = self.nearest_zone(point)?;
        Some((self.zones.get(index)?.charge, km))
    }

    /// The zone whose charge point is nearest to `point` by the way there, as an index, and the length of that in kilometres; the first of
    /// equally near ones. `None` only for a grid without zones.
    #[must_use]
    pub fn nearest_zone(&self, point: Point) -> Option<(usize, f64)> {
        let straight_km = |zone: &Zone| point.distance_km(zone.charge);
        let straight = self.zones.iter().map(straight_km).enumerate();
        let nearest = straight.min_by(|a, b| a.1.total_cmp(&b.1))?;
        if self.no_fly.is_empty() {
            return Some(nearest);
        }
        let way_km = |index: usize| self.way_km(point, self.zones[index].charge);
        let mut best = (nearest.0, way_km(nearest.0));
        for (index, zone) in self.zones.iter().enumerate() {
            // No way is shorter than the straight one.
            if index == nearest.0 || straight_km(zone) > best.1 {
                continue;
            }
            let km = way_km(index);
            if km < best.1 || (km <= best.1 && index < best.0) {
                best = (index, km);
            }
        }
        Some(best)
    }
}

fn check_side(field: &'static str, value: u32) -> Result<(), ZonesError> {
    if (1..=MAX_GRID_SIDE).contains(&value) {
        Ok(())
    } else {
        Err(ZonesError::Side { field, value })
    }
}

/// Which of `parts` equal parts of `whole` the offset falls into; the far edge belongs to the last part.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the value is clamped to [0, parts), at most 32"
)]
fn cell_index(offset: f64, whole: f64, parts: u32) -> usize {
    (offset / whole * f64::from(parts))
        .floor()
        .clamp(0.0, f64::from(parts - 1)) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};
    use serde_json::json;

    use super::{ROME, ZoneRank, ZonesConfig, ZonesError};
    use crate::geo::Point;

    #[test]
    fn two_by_two_as_documented() {
        let grid = ZonesConfig::rome(2, 2).unwrap();
        grid.check().unwrap();
        let json = serde_json::to_value(&grid).unwrap();
        assert_eq!(
            json["bounds"],
            json!({"lat_min": 41.80, "lat_max": 41.98, "lon_min": 12.37, "lon_max": 12.60})
        );
        assert_eq!((&json["rows"], &json["cols"]), (&json!(2), &json!(2)));
        assert_eq!(json["zones"][0]["name"], "zone 0");
        assert_eq!(json["zones"][0]["neighbors"], json!(["zone 2", "zone 1"]));
        assert_eq!(json["adjacency"]["zone 3"], json!(["zone 1", "zone 2"]));
        assert_eq!(json["zones"][3]["row"], 1);
        let keys: Vec<_> = json["zones"][0].as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys, ["bounds", "charge", "col", "name", "neighbors", "row"]);
        // zone 0 is the north-west.
        assert_eq!(grid.zone_of(Point::new(41.97, 12.38)).unwrap().name, "zone 0");
        assert_eq!(grid.zone_of(Point::new(41.81, 12.59)).unwrap().name, "zone 3");
        assert!((grid.zones[0].charge.lat - 41.935).abs() < 1e-9);
        let back: ZonesConfig = serde_json::from_value(json).unwrap();
        assert_eq!(back, grid);
    }

    #[test]
    fn corners_belong_to_a_zone_and_paris_does_not() {
        let grid = ZonesConfig::rome(3, 5).unwrap();
        assert_eq!(grid.zone_of(Point::new(41.98, 12.37)).unwrap().name, "zone 0");
        assert_eq!(grid.zone_of(Point::new(41.80, 12.60)).unwrap().name, "zone 14");
        assert!(grid.zone_of(Point::new(48.85, 2.35)).is_none());
        assert!(grid.zone_of(Point::new(f64::NAN, 12.5)).is_none());
        assert_eq!(
            grid.rank(Point::new(48.85, 2.35), Point::new(41.9, 12.5)),
            ZoneRank::Other
        );
    }

    #[test]
    fn wrong_grids_are_named() {
        assert_eq!(
            ZonesConfig::rome(0, 2),
            Err(ZonesError::Side {
                field: "rows",
                value: 0
            })
        );
        assert_eq!(
            ZonesConfig::rome(2, 33),
            Err(ZonesError::Side {
                field: "cols",
                value: 33
            })
        );
        let mut grid = ZonesConfig::rome(2, 2).unwrap();
        grid.zones.swap(0, 1);
        assert!(matches!(grid.check(), Err(ZonesError::Order { index: 0, .. })));
        grid.zones.pop();
        assert!(matches!(
            grid.check(),
            Err(ZonesError::Count {
                len: 3,
                expected: 4,
                ..
            })
        ));
    }

    proptest! {
        #[test]
        fn every_inner_point_has_the_zone_that_contains_it(
            lat in 41.80..=41.98_f64, lon in 12.37..=12.60_f64, rows in 1..8_u32, cols in 1..8_u32,
        ) {
            let grid = ZonesConfig::rome(rows, cols).unwrap();
            let point = Point::new(lat, lon);
            prop_assert!(ROME.contains(point));
            let zone = grid.zone_of(point).unwrap();
            prop_assert!(zone.bounds.lat_min - 1e-9 <= lat && lat <= zone.bounds.lat_max + 1e-9);
            prop_assert!(zone.bounds.lon_min - 1e-9 <= lon && lon <= zone.bounds.lon_max + 1e-9);
            prop_assert_eq!(grid.rank(point, zone.charge), ZoneRank::Same);
            let (_, km) = grid.nearest_charge(point).unwrap();
            prop_assert!(km <= point.distance_km(zone.charge) + 1e-9);
        }

        #[test]
        fn neighbours_are_mutual(rows in 1..8_u32, cols in 1..8_u32) {
            let grid = ZonesConfig::rome(rows, cols).unwrap();
            for zone in &grid.zones {
                prop_assert_eq!(grid.neighbors(&zone.name), zone.neighbors.as_slice());
                for other in &zone.neighbors {
                    prop_assert!(grid.neighbors(other).contains(&zone.name));
                }
            }
        }
    }
}
