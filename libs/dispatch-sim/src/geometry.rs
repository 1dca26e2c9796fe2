//! Points of the plane, in kilometres, and how one flies between them.

/// A point of the plane. Kilometres east and north of wherever the caller's origin is.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Point {
    /// Kilometres east.
    pub x: f64,
    /// Kilometres north.
    pub y: f64,
}

impl Point {
    /// The point `x` km east and `y` km north.
    #[must_use]
    pub const fn new(x: f64, y: f64) -> Self {
        Self { x, y }
    }

    /// Straight distance, in km.
    #[must_use]
    pub fn km_to(self, other: Self) -> f64 {
        // Not `hypot`: it guards against overflow that cities do not have, and costs several times as much.
        let (dx, dy) = (self.x - other.x, self.y - other.y);
        (dx * dx + dy * dy).sqrt()
    }

    /// Where one is after `km` of the straight way to `goal`; there, if it is not farther.
    #[must_use]
    pub fn towards(self, goal: Self, km: f64) -> Self {
        let all = self.km_to(goal);
        if km >= all {
            return goal;
        }
        let share = km / all;
        Self::new(self.x + (goal.x - self.x) * share, self.y + (goal.y - self.y) * share)
    }
}

/// How one flies from place to place.
pub trait Ways {
    /// Length of the way, in km: never less than the straight line, and 0 to where one is.
    fn km(&self, from: Point, to: Point) -> f64;

    /// Where one is after `km` of it; at its end, if it is not longer.
    fn after(&self, from: Point, to: Point, km: f64) -> Point;

    /// The place nearest to `point` where a drone may wait.
    fn stay(&self, point: Point) -> Point;
}

/// Nothing is in the way anywhere.
#[derive(Debug, Clone, Copy, Default)]
pub struct Straight;

impl Ways for Straight {
    fn km(&self, from: Point, to: Point) -> f64 {
        from.km_to(to)
    }

    fn after(&self, from: Point, to: Point, km: f64) -> Point {
        from.towards(to, km)
    }

    fn stay(&self, point: Point) -> Point {
        point
    }
}
