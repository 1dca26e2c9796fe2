//! Against brute force, and against what every way must keep.

use std::f64::consts::TAU;

use proptest::prelude::{ProptestConfig, Strategy, any, prop, prop_assert, prop_assert_eq, prop_assume, proptest};
use serde_json::json;

use super::geometry::Xy;
use super::{APART_KM, CORNERS_MAX, NO_FLY_MAX, NoFly, NoFlyError, NoFlyZone, VERTICES_MAX};
use crate::geo::Point;
use crate::zones::{ROME, ZonesConfig, ZonesError};

/// How deep inside a zone rounding may put a place, km: twice what counts as its edge.
const TOLERANCE_KM: f64 = 2e-6;

fn zone(places: &[(f64, f64)]) -> NoFlyZone {
    NoFlyZone {
        vertices: places.iter().map(|(lat, lon)| Point::new(*lat, *lon)).collect(),
    }
}

fn no_fly(zones: &[&[(f64, f64)]]) -> NoFly {
    NoFly::new(zones.iter().map(|places| zone(places)).collect()).unwrap()
}

fn square() -> NoFly {
    no_fly(&[&[(41.88, 12.47), (41.88, 12.49), (41.90, 12.49), (41.90, 12.47)]])
}

/// Open to the north.
fn cup() -> NoFly {
    no_fly(&[&[
        (41.86, 12.44),
        (41.86, 12.52),
        (41.92, 12.52),
        (41.92, 12.51),
        (41.87, 12.51),
        (41.87, 12.45),
        (41.92, 12.45),
        (41.92, 12.44),
    ]])
}

fn place() -> impl Strategy<Value = Point> {
    (41.80..41.98_f64, 12.37..12.60_f64).prop_map(|(lat, lon)| Point::new(lat, lon))
}

/// Up to nine stars with dents of any depth, each in a ninth of Rome of its own, in either direction.
fn stars() -> impl Strategy<Value = NoFly> {
    let star = prop::collection::vec((0.05..1.0_f64, 0.1..1.0_f64), 3..9);
    let zones = prop::collection::vec(prop::option::of((star, any::<bool>())), 9);
    zones.prop_filter_map("stars with parts less than a metre apart", |stars| {
        let zone = |(cell, (corners, is_turned)): (u32, (Vec<(f64, f64)>, bool))| {
            let share = |part: u32| (f64::from(part) + 0.5) / 3.0;
            let lat = ROME.lat_min + (ROME.lat_max - ROME.lat_min) * share(cell / 3);
            let lon = ROME.lon_min + (ROME.lon_max - ROME.lon_min) * share(cell % 3);
            let whole: f64 = corners.iter().map(|(turn, _)| turn).sum();
            let mut angle = 0.0;
            let mut vertices = Vec::new();
            for (turn, radius) in corners {
                angle += turn / whole * TAU;
                vertices.push(Point::new(
                    lat + 0.029 * radius * angle.sin(),
                    lon + 0.037 * radius * angle.cos(),
                ));
            }
            if is_turned {
                vertices.reverse();
            }
            NoFlyZone { vertices }
        };
        let given = (0_u32..).zip(stars).filter_map(|(cell, star)| Some((cell, star?)));
        NoFly::new(given.map(zone).collect()).ok()
    })
}

/// Even-odd rule and the distance to the edge, in degrees and not as the code has it.
fn is_deep_inside(zones: &[NoFlyZone], p: Point) -> bool {
    let edges = |zone: &NoFlyZone| -> Vec<(Point, Point)> {
        let ends = zone.vertices.iter().skip(1).chain(zone.vertices.first());
        zone.vertices.iter().copied().zip(ends.copied()).collect()
    };
    zones.iter().any(|zone| {
        let mut is_inside = false;
        for (a, b) in edges(zone) {
            if (a.lon > p.lon) != (b.lon > p.lon) {
                is_inside ^= p.lat < a.lat + (b.lat - a.lat) * (p.lon - a.lon) / (b.lon - a.lon);
            }
        }
        is_inside && edges(zone).iter().all(|(a, b)| apart_km(*a, *b, p) > TOLERANCE_KM)
    })
}

/// How far `p` is from the edge `a`–`b`, by ternary search.
fn apart_km(a: Point, b: Point, p: Point) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let (left, right) = (low + (high - low) / 3.0, high - (high - low) / 3.0);
        if a.move_fraction(b, left).distance_km(p) < a.move_fraction(b, right).distance_km(p) {
            high = right;
        } else {
            low = left;
        }
    }
    a.move_fraction(b, low).distance_km(p)
}

/// Whether the straight way is free: no edge crosses it, and neither does a zone that it runs through from corner to corner.
fn is_free(zones: &[NoFlyZone], a: Point, b: Point) -> bool {
    let side = |a: Point, b: Point, p: Point| {
        let area = (b.lon - a.lon) * (p.lat - a.lat) - (b.lat - a.lat) * (p.lon - a.lon);
        if area.abs() < 1e-14 { 0.0 } else { area.signum() }
    };
    let crosses = |zone: &NoFlyZone| {
        let ends = zone.vertices.iter().skip(1).chain(zone.vertices.first());
        zone.vertices
            .iter()
            .zip(ends)
            .any(|(c, d)| side(a, b, *c) * side(a, b, *d) < 0.0 && side(*c, *d, a) * side(*c, *d, b) < 0.0)
    };
    !zones.iter().any(crosses) && !(1..8).any(|part| is_deep_inside(zones, a.move_fraction(b, f64::from(part) / 8.0)))
}

/// The shortest way over any corners that see each other, by Bellman and Ford.
fn brute_force_km(zones: &[NoFlyZone], from: Point, to: Point) -> f64 {
    let mut places = vec![from, to];
    places.extend(zones.iter().flat_map(|zone| &zone.vertices));
    let mut edges = Vec::new();
    for (one, a) in places.iter().enumerate() {
        for (other, b) in places.iter().enumerate().take(one) {
            if is_free(zones, *a, *b) {
                edges.push((one, other, a.distance_km(*b)));
            }
        }
    }
    let mut km = vec![f64::INFINITY; places.len()];
    km[0] = 0.0;
    for _ in 0..places.len() {
        for (one, other, length_km) in &edges {
            km[*one] = km[*one].min(km[*other] + length_km);
            km[*other] = km[*other].min(km[*one] + length_km);
        }
    }
    km[1]
}

/// `side` × `side` round zones with so many corners each, as far as they are allowed, evenly over the city.
fn rounds(side: u32, corners: u32) -> NoFly {
    let round = |cell: u32| {
        let share = |part: u32| (f64::from(part) + 0.5) / f64::from(side);
        let (lat, lon) = (41.80 + 0.18 * share(cell / side), 12.37 + 0.23 * share(cell % side));
        let corner = |corner: u32| {
            let angle = f64::from(corner) / f64::from(corners) * TAU;
            let reach = 0.08 / f64::from(side);
            Point::new(lat + reach * angle.sin(), lon + 1.3 * reach * angle.cos())
        };
        NoFlyZone {
            vertices: (0..corners).map(corner).collect(),
        }
    };
    NoFly::new((0..(side * side).min(32)).map(round).collect()).unwrap()
}

/// The length of the way between two places outside, without anything that only makes it fast.
fn plain_km(zones: &NoFly, from: Point, to: Point) -> f64 {
    let Some(checked) = zones.0.as_deref() else {
        return from.distance_km(to);
    };
    let map = &checked.map;
    let (a, b) = (Xy::of(&map.plane, from), Xy::of(&map.plane, to));
    if map.polygons.iter().any(|polygon| polygon.blocks_plainly(a, b)) {
        checked.graph().plain_km(map, from, to)
    } else {
        from.distance_km(to)
    }
}

#[test]
fn who_is_on_an_edge_near_its_corner_flies_over_that() {
    // Half a millimetre deep in the zone, 110 m before the corner: the edge's other end is five millimetres beside the way to the corner.
    let zones = rounds(6, 8);
    let (from, to) = (
        Point::new(41.805_571_909_584_174, 12.554_756_517_540_566),
        Point::new(41.857_945_654_977_53, 12.541_283_286_391_003),
    );
    assert_eq!(zones.zone_of(to), None);
    let (km, plain_km) = (zones.way_km(from, to), plain_km(&zones, from, to));
    assert!((km - plain_km).abs() < 1e-9, "{km} km, {plain_km} plainly");
}

#[test]
fn without_zones_ways_are_straight() {
    let (a, b) = (Point::new(41.85, 12.48), Point::new(41.93, 12.48));
    let none = NoFly::default();
    assert!(none.is_empty() && none.way(a, b).bends().is_empty());
    assert_eq!(none.way_km(a, b).to_bits(), a.distance_km(b).to_bits());
    assert_eq!((none.zone_of(a), none.zone_near_charge(a)), (None, None));
}

#[test]
fn round_a_square_by_the_nearer_side() {
    let (a, b) = (Point::new(41.89, 12.45), Point::new(41.895, 12.51));
    let way = square().way(a, b);
    let bends = [Point::new(41.90, 12.47), Point::new(41.90, 12.49)];
    assert_eq!(way.bends(), bends);
    let km = a.distance_km(bends[0]) + bends[0].distance_km(bends[1]) + bends[1].distance_km(b);
    assert!((way.km() - km).abs() < 1e-9 && (square().way_km(a, b) - km).abs() < 1e-9);
    // Along its edge, and past its corner.
    let (south, north) = (Point::new(41.85, 12.47), Point::new(41.95, 12.47));
    assert!(square().way(south, north).bends().is_empty());
    let (west, east) = (Point::new(41.91, 12.46), Point::new(41.89, 12.48));
    assert_eq!(square().way(west, Point::new(41.89, 12.50)).bends().len(), 1);
    assert_eq!(square().zone_of(east), Some(0));
}

#[test]
fn out_of_a_cup_over_its_rim() {
    let (inside, below) = (Point::new(41.88, 12.48), Point::new(41.85, 12.48));
    let way = cup().way(inside, below);
    // Over the rim, down outside it, and round the foot.
    assert_eq!(way.bends().len(), 3, "{way:?}");
    assert!(way.km() > 3.0 * inside.distance_km(below));
    assert_eq!(cup().zone_of(inside), None);
    assert_eq!(cup().zone_of(Point::new(41.865, 12.48)), Some(0));
}

#[test]
fn who_is_inside_leaves_by_the_nearest_edge() {
    let zones = square();
    let (inside, far) = (Point::new(41.89, 12.4889), Point::new(41.89, 12.40));
    let way = zones.way(inside, far);
    let gate = way.bends()[0];
    assert!(
        (gate.lon - 12.49).abs() < 1e-9 && (gate.lat - 41.89).abs() < 1e-9,
        "{gate:?}"
    );
    assert_eq!(zones.zone_of(gate), None);
    assert_eq!((zones.nearest_outside(inside), zones.nearest_outside(far)), (gate, far));
    assert_eq!(way.bends().len(), 3, "out to the east and round: {way:?}");
    assert!((way.km() - zones.way_km(inside, far)).abs() < 1e-9);
    // In by the nearest edge to the end, where nothing turns it out again.
    assert_eq!(zones.way(far, inside).bends().last(), Some(&gate));
    let deeper = Point::new(41.885, 12.48);
    assert!(zones.way(inside, deeper).bends().is_empty(), "it is in there already");
}

#[test]
fn zones_are_checked() {
    let errors = |text: &str| text.parse::<NoFly>().unwrap_err().to_string();
    let cases = [
        (
            "41.9,12.4 41.9,12.5",
            "no_fly[0].vertices has 2 entries; expected 3 to 64",
        ),
        (
            "41.9,12.4 41.9,12.5 95,12.5",
            "no_fly[0].vertices[2] is lat 95, lon 12.5; expected a latitude in [-90, 90]",
        ),
        (
            "41.9,12.4 41.9;12.5 41.8,12.5",
            "no_fly[0].vertices[1] is \"41.9\"; expected lat,lon in degrees",
        ),
        (
            "41.9,12.4 41.9,NaN 41.8,12.5",
            "no_fly[0].vertices[1] is lat 41.9, lon NaN",
        ),
        (
            "41.9,12.4 41.9,12.5 41.8,12.5 41.9,12.4",
            "no_fly[0].vertices[3] is less than a metre from the one after it",
        ),
        (
            "41.9,12.4 41.8,12.5 41.9,12.5 41.8,12.4",
            "no_fly[0]: the edges from vertices[0] and vertices[2]",
        ),
        (
            "41.9,12.4 41.9,12.5 41.9,12.45 41.8,12.45",
            "no_fly[0]: the edges from vertices[0] and vertices[1]",
        ),
        (
            "41.8,12.4 41.8,12.5 41.9,12.5; 41.85,12.3 41.85,12.6 41.86,12.6",
            "no_fly[1] overlaps no_fly[0]",
        ),
        (
            "41.8,12.4 41.8,12.6 41.9,12.5; 41.83,12.49 41.83,12.51 41.84,12.5",
            "no_fly[1] overlaps no_fly[0]",
        ),
        (
            "41.83,12.49 41.83,12.51 41.84,12.5; 41.8,12.4 41.8,12.6 41.9,12.5",
            "no_fly[1] overlaps no_fly[0]",
        ),
        (
            "41.8,12.4 41.8,12.5 41.9,12.5; 41.8,12.5 41.8,12.6 41.9,12.5",
            "no_fly[1] overlaps no_fly[0] or is less than a metre",
        ),
    ];
    for (text, expected) in cases {
        let error = errors(text);
        assert!(error.starts_with(expected), "{text}: {error}");
    }
    assert!("".parse::<NoFly>().unwrap().is_empty() && " ; ".parse::<NoFly>().unwrap().is_empty());
    let of_text: NoFly = "41.88,12.47 41.88,12.49 41.90,12.49 41.90,12.47 ;".parse().unwrap();
    assert_eq!(of_text, square());
}

#[test]
fn zones_are_limited() {
    let triangle = |index: usize| {
        let lat = 41.0 + f64::from(u32::try_from(index).unwrap()) * 0.01;
        zone(&[(lat, 12.40), (lat, 12.41), (lat + 0.005, 12.40)])
    };
    assert!(NoFly::new((0..NO_FLY_MAX).map(triangle).collect()).is_ok());
    assert_eq!(
        NoFly::new((0..=NO_FLY_MAX).map(triangle).collect()),
        Err(NoFlyError::Count(NO_FLY_MAX + 1))
    );
    let round = |index: usize, corners: usize| NoFlyZone {
        vertices: (0..u32::try_from(corners).unwrap())
            .map(|corner| {
                let angle = f64::from(corner) / f64::from(u32::try_from(corners).unwrap()) * TAU;
                let lat = 41.0 + f64::from(u32::try_from(index).unwrap()) * 0.1;
                Point::new(lat + 0.02 * angle.sin(), 12.4 + 0.02 * angle.cos())
            })
            .collect(),
    };
    let len = VERTICES_MAX + 1;
    assert_eq!(
        NoFly::new(vec![round(0, len)]),
        Err(NoFlyError::Vertices { zone: 0, len })
    );
    let full = CORNERS_MAX / VERTICES_MAX;
    let mut zones: Vec<NoFlyZone> = (0..full).map(|index| round(index, VERTICES_MAX)).collect();
    let all = NoFly::new(zones.clone()).unwrap();
    // Up past all of them: round the first, along the others, round the last.
    let (south, north) = (Point::new(40.9, 12.4), Point::new(41.4, 12.4001));
    let way = all.way(south, north);
    assert!(
        way.bends().len() > full && way.km() < 1.05 * south.distance_km(north),
        "{way:?}"
    );
    zones.push(round(full, 3));
    assert_eq!(NoFly::new(zones), Err(NoFlyError::Corners(CORNERS_MAX + 3)));
}

#[test]
fn json_has_them_only_when_there_are_any() {
    let grid = ZonesConfig::rome(2, 2).unwrap();
    let old = serde_json::to_string(&grid).unwrap();
    assert!(!old.contains("no_fly"));
    let back: ZonesConfig = serde_json::from_str(&old).unwrap();
    assert_eq!((&back, serde_json::to_string(&back).unwrap()), (&grid, old));
    let with = grid.with_no_fly(square()).unwrap();
    let value = serde_json::to_value(&with).unwrap();
    let first = json!({"lat": 41.88, "lon": 12.47});
    assert_eq!(value["no_fly"][0]["vertices"][0], first);
    let back: ZonesConfig = serde_json::from_value(value.clone()).unwrap();
    assert_eq!((back.check(), &back), (Ok(()), &with));
    let mut broken = value;
    broken["no_fly"][0]["vertices"] = json!([first]);
    let error = serde_json::from_value::<ZonesConfig>(broken).unwrap_err().to_string();
    assert!(
        error.contains("no_fly[0].vertices has 1 entries; expected 3 to 64"),
        "{error}"
    );
}

#[test]
fn charge_points_keep_clear() {
    let grid = ZonesConfig::rome(2, 2).unwrap();
    let charge = grid.zones[3].charge;
    // A box from `from` to `to` degrees east of the charge point.
    let beside = |from: f64, to: f64, half: f64| {
        let (south, north) = (charge.lat - half, charge.lat + half);
        no_fly(&[&[
            (south, charge.lon + from),
            (south, charge.lon + to),
            (north, charge.lon + to),
            (north, charge.lon + from),
        ]])
    };
    for (from, to, half) in [
        (-0.01, 0.01, 0.01),
        (0.000_49, 0.01, 0.01),
        (-0.000_1, 0.000_1, 0.000_1),
        (0.000_3, 0.01, 0.000_02),
    ] {
        let refused = grid.clone().with_no_fly(beside(from, to, half));
        assert!(
            matches!(&refused, Err(ZonesError::Charge { no_fly: 0, zone, .. }) if zone == "zone 3"),
            "{from} {to} {half}: {refused:?}"
        );
    }
    let error = grid.clone().with_no_fly(beside(-0.01, 0.01, 0.01)).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("no_fly[0] reaches the charge point of zone 3 at lat 41.845"),
        "{error}"
    );
    assert!(grid.with_no_fly(beside(0.000_51, 0.01, 0.01)).is_ok());
}

/// What a question costs. Prints, asserts nothing about time: run it optimised, on an idle machine.
#[test]
#[ignore = "a measurement: cargo test --release -p domain no_fly::tests::speed -- --ignored --nocapture"]
fn speed() {
    let mut at = 0.0_f64;
    let mut place = || {
        // A sequence that fills the city evenly.
        at += 1.0;
        let part = |by: f64| (at * by).fract();
        Point::new(41.80 + 0.18 * part(0.754_877_666), 12.37 + 0.23 * part(0.569_840_291))
    };
    let pairs: Vec<(Point, Point)> = (0..20_000).map(|_| (place(), place())).collect();
    for (zones, name) in [
        (NoFly::default(), "none"),
        (rounds(2, 6), "4 zones, 24 corners"),
        (rounds(3, 8), "9 zones, 72 corners"),
        (rounds(6, 8), "32 zones, 256 corners"),
    ] {
        let start = std::time::Instant::now();
        let first_km = zones.way_km(Point::new(41.80, 12.37), Point::new(41.98, 12.60));
        let first_ms = start.elapsed().as_secs_f64() * 1e3;
        let start = std::time::Instant::now();
        let whole_km: f64 = pairs.iter().map(|(a, b)| zones.way_km(*a, *b)).sum();
        let each_us = start.elapsed().as_secs_f64() * 1e6 / 20_000.0;
        let straight_km: f64 = pairs.iter().map(|(a, b)| a.distance_km(*b)).sum();
        assert!(whole_km >= straight_km && first_km > 0.0);
        println!(
            "{name}: {each_us:.2} us a question, {:.3} x the straight way; the first {first_ms:.2} ms",
            whole_km / straight_km
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn ways_are_as_short_as_brute_force_finds(zones in stars(), a in place(), b in place()) {
        prop_assume!(!is_deep_inside(zones.zones(), a) && !is_deep_inside(zones.zones(), b));
        let (km, brute_km) = (zones.way_km(a, b), brute_force_km(zones.zones(), a, b));
        prop_assert!((km - brute_km).abs() <= 1e-6 * brute_km, "{km} km, {brute_km} by brute force: {:?}", zones.way(a, b));
    }

    /// Between places anywhere, on edges and corners, and from corner to corner.
    #[test]
    fn ways_are_as_long_as_without_what_makes_them_fast(
        stars in stars(), crowd in prop::sample::select(vec![(2_u32, 6_u32), (4, 12), (6, 8)]),
        a in place(), b in place(), picks in prop::array::uniform4(0..256_usize), part in 0.0..1.0_f64,
    ) {
        for zones in [stars, rounds(crowd.0, crowd.1)] {
            let corners: Vec<Point> = zones.zones().iter().flat_map(|zone| zone.vertices.iter().copied()).collect();
            let mut places = vec![a, b];
            if !corners.is_empty() {
                let [one, other, third, fourth] = picks.map(|pick| corners[pick % corners.len()]);
                places.extend([one, other, third.move_fraction(fourth, part)]);
            }
            places.retain(|place| !is_deep_inside(zones.zones(), *place) && zones.zone_of(*place).is_none());
            for from in &places {
                for to in &places {
                    let (km, plain_km) = (zones.way_km(*from, *to), plain_km(&zones, *from, *to));
                    prop_assert!((km - plain_km).abs() < 1e-9, "{km} km, {plain_km} plainly: {from:?} to {to:?}");
                }
            }
        }
    }

    #[test]
    fn ways_keep_out_and_are_never_shorter_than_the_straight_line(zones in stars(), a in place(), b in place()) {
        let way = zones.way(a, b);
        let (km, back_km, straight_km) = (zones.way_km(a, b), zones.way_km(b, a), a.distance_km(b));
        prop_assert!(km >= straight_km - 1e-9 && (km - back_km).abs() < 1e-9 && (km - way.km()).abs() < 1e-9);
        prop_assert_eq!(&zones.way(a, b), &way);
        if is_deep_inside(zones.zones(), a) || is_deep_inside(zones.zones(), b) {
            return Ok(());
        }
        for (from, to) in way.pieces() {
            for part in 0..=50 {
                let at = from.move_fraction(to, f64::from(part) / 50.0);
                prop_assert!(!is_deep_inside(zones.zones(), at), "{at:?} of {way:?}");
            }
        }
        if is_free(zones.zones(), a, b) {
            prop_assert!((km - straight_km).abs() < 1e-9);
        }
    }

    #[test]
    fn ways_over_a_third_place_are_no_shorter(zones in stars(), a in place(), b in place(), c in place()) {
        prop_assume!(![a, b, c].iter().any(|at| is_deep_inside(zones.zones(), *at)));
        prop_assert!(zones.way_km(a, c) <= zones.way_km(a, b) + zones.way_km(b, c) + 1e-6);
    }

    /// As the simulator flies: each step on the way as it is from there.
    #[test]
    fn flights_step_by_step_keep_to_the_way(zones in stars(), a in place(), b in place(), step_km in 0.05..3.0_f64) {
        let whole_km = zones.way_km(a, b);
        let (mut at, mut flown_km, mut was_outside) = (a, 0.0, false);
        for _ in 0..2_000 {
            let (next, km) = zones.way(at, b).after(step_km);
            flown_km += km;
            let is_inside = is_deep_inside(zones.zones(), next);
            // Nobody comes in but to a place that is inside.
            prop_assert!(!is_inside || !was_outside || zones.zone_of(b).is_some(), "{next:?}");
            was_outside |= !is_inside;
            at = next;
            if at == b { break; }
        }
        prop_assert_eq!(at, b);
        // Straight on within one zone; where that is bent, a flight may come out in between, and then has to enter by the nearest edge.
        let in_one_zone = zones.zone_of(a).is_some() && zones.zone_of(a) == zones.zone_of(b);
        prop_assert!(in_one_zone || (flown_km - whole_km).abs() < 1e-4, "{flown_km} of {whole_km} km");
    }

    #[test]
    fn the_nearest_charge_point_is_that_with_the_shortest_way(zones in stars(), at in place(), rows in 1..5_u32, cols in 1..5_u32) {
        let mut grid = ZonesConfig::rome(rows, cols).unwrap();
        grid.no_fly = zones;
        let (charge, km) = grid.nearest_charge(at).unwrap();
        let least_km = grid.zones.iter().map(|zone| grid.way_km(at, zone.charge)).fold(f64::INFINITY, f64::min);
        prop_assert_eq!(km.to_bits(), least_km.to_bits());
        prop_assert!((grid.way_km(at, charge) - km).abs() < 1e-12);
    }

    #[test]
    fn any_text_and_any_polygon_is_taken_or_refused(
        text in "[0-9., ;-]{0,60}", places in prop::collection::vec(place(), 0..12),
    ) {
        drop(text.parse::<NoFly>());
        if let Ok(zones) = NoFly::new(vec![NoFlyZone { vertices: places.clone() }]) {
            prop_assert!(zones.way_km(Point::new(41.8, 12.37), Point::new(41.98, 12.60)).is_finite());
            prop_assert!(places.windows(2).all(|pair| pair[0].distance_km(pair[1]) > APART_KM / 2.0));
        }
    }
}
