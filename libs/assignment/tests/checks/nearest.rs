//! The grid against sorting all points.

use assignment::Grid;
use assignment::grid::{BadPoint, COORDINATE_MAX};
use proptest::prelude::{Just, ProptestConfig, Strategy, prop, prop_assert_eq, prop_oneof, proptest};

fn sorted(points: &[(f64, f64)], x: f64, y: f64) -> Vec<usize> {
    let squared = |index: usize| {
        let (dx, dy) = (points[index].0 - x, points[index].1 - y);
        dx * dx + dy * dy
    };
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by(|&a, &b| squared(a).total_cmp(&squared(b)).then(a.cmp(&b)));
    order
}

fn coordinate() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => -10.0..10.0_f64,
        2 => (-3..3_i8).prop_map(f64::from),
        1 => 9.99..10.0_f64,
        1 => Just(-0.0),
    ]
}

fn points() -> impl Strategy<Value = Vec<(f64, f64)>> {
    prop::collection::vec((coordinate(), coordinate()), 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn the_order_is_exact(
        points in points(), x in prop_oneof![coordinate(), -1e3..1e3_f64], y in prop_oneof![coordinate(), -1e3..1e3_f64],
        scale in prop_oneof![Just(1.0), Just(1e-200), Just(1e140), Just(1e-9)], shift in prop_oneof![Just(0.0), Just(1e9)],
    ) {
        let placed: Vec<(f64, f64)> = points.iter().map(|point| (point.0 * scale + shift, point.1 * scale)).collect();
        let (x, y) = (x * scale + shift, y * scale);
        let grid = Grid::new(&placed).unwrap();
        let found: Vec<usize> = grid.nearest(x, y).map(|near| near.index).collect();
        prop_assert_eq!(found, sorted(&placed, x, y));
    }

    #[test]
    fn on_a_line_too(line in prop::collection::vec(-1e6..1e6_f64, 1..200), at in -2e6..2e6_f64) {
        for points in [line.iter().map(|&x| (x, 3.0)).collect::<Vec<_>>(), line.iter().map(|&y| (3.0, y)).collect()] {
            let grid = Grid::new(&points).unwrap();
            for (x, y) in [(at, 3.0), (3.0, at)] {
                let found: Vec<usize> = grid.nearest(x, y).take(7).map(|near| near.index).collect();
                prop_assert_eq!(&found[..], &sorted(&points, x, y)[..points.len().min(7)]);
            }
        }
    }
}

#[test]
fn distances_are_told() {
    let grid = Grid::new(&[(0.0, 0.0), (3.0, 4.0)]).unwrap();
    let told: Vec<(usize, String)> = grid
        .nearest(0.0, 0.0)
        .map(|near| (near.index, format!("{:.3}", near.distance())))
        .collect();
    assert_eq!(told, [(0, "0.000".to_owned()), (1, "5.000".to_owned())]);
    assert_eq!((grid.len(), grid.is_empty()), (2, false));
}

#[test]
fn unusable_points_are_refused() {
    for bad in [f64::NAN, f64::INFINITY, -COORDINATE_MAX * 2.0] {
        assert_eq!(Grid::new(&[(0.0, 0.0), (1.0, bad)]).err(), Some(BadPoint { index: 1 }));
        let grid = Grid::new(&[(0.0, 0.0)]).unwrap();
        assert_eq!(grid.nearest(bad, 0.0).count(), 0);
    }
    let none = Grid::new(&[]).unwrap();
    assert!(none.is_empty() && none.nearest(1.0, 1.0).next().is_none());
    let limit = Grid::new(&[(COORDINATE_MAX, -COORDINATE_MAX), (-COORDINATE_MAX, COORDINATE_MAX)]).unwrap();
    assert_eq!(
        limit.nearest(COORDINATE_MAX, 0.0).next().map(|near| near.index),
        Some(0)
    );
}

#[test]
fn a_few_of_many_are_found_without_looking_at_all() {
    let points: Vec<(f64, f64)> = (0..10_000).map(|n| (f64::from(n % 100), f64::from(n / 100))).collect();
    let grid = Grid::new(&points).unwrap();
    let mut nearest = grid.nearest(50.2, 50.1);
    let found: Vec<usize> = nearest.by_ref().take(9).map(|near| near.index).collect();
    assert_eq!(found, sorted(&points, 50.2, 50.1)[..9]);
    assert!(nearest.looked_at() < 200, "looked at {}", nearest.looked_at());
    assert_eq!(grid.nearest(0.0, 0.0).count(), grid.len());
}
