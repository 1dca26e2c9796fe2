//! No-fly zones on the plane that is played on.

use std::cell::RefCell;
use std::collections::HashMap;

use dispatch_sim::{Point, Ways};
use domain::geo::{self, Plane};
use domain::no_fly::NoFly;
use domain::zones::ROME;

/// Lengths that are remembered, of those that were asked for last: drones that stand are asked about again and again.
const KNOWN_MAX: usize = 1 << 18;

/// Where on the globe the plane is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Frame {
    plane: Plane,
    /// Where its point 0 is on that map, km east and north.
    corner: (f64, f64),
}

impl Frame {
    /// That of orders at random, and of files in km: its point 0 is the south-west corner of the product's area.
    pub(crate) fn of_rome() -> Self {
        let plane = Plane::at_latitude(ROME.center().lat);
        let corner = plane.km(geo::Point::new(ROME.lat_min, ROME.lon_min));
        Self { plane, corner }
    }

    /// That of places in degrees around a latitude.
    pub(crate) fn at_latitude(lat_deg: f64) -> Self {
        Self {
            plane: Plane::at_latitude(lat_deg),
            corner: (0.0, 0.0),
        }
    }

    /// A point of the plane.
    pub(crate) fn point(&self, place: geo::Point) -> Point {
        let (east_km, north_km) = self.plane.km(place);
        Point::new(east_km - self.corner.0, north_km - self.corner.1)
    }

    /// The place that it is.
    pub(crate) fn place(&self, point: Point) -> geo::Point {
        self.plane.point((point.x + self.corner.0, point.y + self.corner.1))
    }
}

/// The shortest ways round no-fly zones, as the product flies them; lengths are those on the plane.
#[derive(Debug, Clone)]
pub(crate) struct Routes {
    pub(crate) no_fly: NoFly,
    frame: Frame,
    known: RefCell<HashMap<[u64; 4], f64>>,
}

impl PartialEq for Routes {
    fn eq(&self, other: &Self) -> bool {
        (&self.no_fly, self.frame) == (&other.no_fly, other.frame)
    }
}

impl Routes {
    pub(crate) fn new(no_fly: NoFly, frame: Frame) -> Self {
        Self {
            no_fly,
            frame,
            known: RefCell::default(),
        }
    }

    /// The zone that a point is inside of.
    pub(crate) fn zone_of(&self, point: Point) -> Option<usize> {
        self.no_fly.zone_of(self.frame.place(point))
    }

    /// The zone that is in the way of charging at a point.
    pub(crate) fn zone_near_charge(&self, point: Point) -> Option<usize> {
        self.no_fly.zone_near_charge(self.frame.place(point))
    }

    /// Where the way bends, and its end.
    fn stations(&self, from: Point, to: Point) -> Vec<Point> {
        let way = self.no_fly.way(self.frame.place(from), self.frame.place(to));
        let bends = way.bends().iter().map(|bend| self.frame.point(*bend));
        bends.chain([to]).collect()
    }
}

impl Ways for Routes {
    fn km(&self, from: Point, to: Point) -> f64 {
        if self.no_fly.is_empty() {
            return from.km_to(to);
        }
        let key = [from.x, from.y, to.x, to.y].map(f64::to_bits);
        if let Some(km) = self.known.borrow().get(&key) {
            return *km;
        }
        let mut at = from;
        let pieces = self.stations(from, to).into_iter();
        let km = pieces.map(|next| std::mem::replace(&mut at, next).km_to(next)).sum();
        let mut known = self.known.borrow_mut();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(key, km);
        km
    }

    fn after(&self, from: Point, to: Point, km: f64) -> Point {
        if self.no_fly.is_empty() {
            return from.towards(to, km);
        }
        let (mut at, mut left_km) = (from, km);
        for next in self.stations(from, to) {
            let piece_km = at.km_to(next);
            if left_km < piece_km {
                return at.towards(next, left_km);
            }
            (at, left_km) = (next, left_km - piece_km);
        }
        at
    }

    fn stay(&self, point: Point) -> Point {
        if self.zone_of(point).is_none() {
            return point;
        }
        self.frame.point(self.no_fly.nearest_outside(self.frame.place(point)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A wall through the middle of the area from its southern edge to nearly its northern one.
    fn wall() -> Routes {
        let no_fly = "41.79,12.48 41.79,12.49 41.96,12.49 41.96,12.48".parse().unwrap();
        Routes::new(no_fly, Frame::of_rome())
    }

    #[test]
    fn places_are_on_the_globe_where_the_product_is() {
        for frame in [Frame::of_rome(), Frame::at_latitude(41.9)] {
            let point = Point::new(3.0, 4.0);
            assert!(frame.point(frame.place(point)).km_to(point) < 1e-9);
        }
        let corner = Frame::of_rome().place(Point::default());
        assert!((corner.lat - ROME.lat_min).abs() < 1e-9 && (corner.lon - ROME.lon_min).abs() < 1e-9);
        // As far as 41.9° is north of 41.8°, and 12.5° east of 12.37° there.
        let place = Frame::of_rome().place(Point::new(10.76, 11.12));
        assert!(
            (place.lat - 41.9).abs() < 1e-3 && (place.lon - 12.5).abs() < 1e-3,
            "{place:?}"
        );
    }

    #[test]
    fn ways_lead_round_the_zones_and_are_no_shorter_than_straight() {
        let (wall, none) = (wall(), Routes::new(NoFly::default(), Frame::of_rome()));
        // Points that fill the area evenly: multiples of irrational numbers.
        let at = |number: u32, step: f64| (f64::from(number) * step).fract();
        let point = |number: u32| Point::new(19.0 * at(number, 0.754_877_666), 20.0 * at(number, 0.569_840_291));
        let mut longer = 0;
        for number in 0..500 {
            let (from, to) = (wall.stay(point(number)), wall.stay(point(number + 7_919)));
            assert_eq!((wall.zone_of(from), wall.zone_of(to)), (None, None));
            assert!((none.km(from, to) - from.km_to(to)).abs() < 1e-12 && none.stay(from) == from);
            let km = wall.km(from, to);
            assert!(km >= from.km_to(to) - 1e-9 && (km - wall.km(to, from)).abs() < 1e-6);
            longer += u32::from(km > 1.05 * from.km_to(to));
            for part in 0..=20 {
                let flown_km = km * f64::from(part) / 20.0;
                let here = wall.after(from, to, flown_km);
                assert_eq!(
                    wall.zone_of(here),
                    None,
                    "{from:?} to {to:?} after {flown_km} km: {here:?}"
                );
                assert!((wall.km(from, here) - flown_km).abs() < 1e-5);
            }
            assert_eq!(wall.after(from, to, km + 1.0), to);
        }
        assert!((100..400).contains(&longer), "{longer}");
    }
}
