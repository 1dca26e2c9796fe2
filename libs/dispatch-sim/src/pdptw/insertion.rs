//! A solution by insertion: what a simple method that knows everything in advance reaches.
//!
//! Parallel insertion with regret (J.-Y. Potvin, J.-M. Rousseau, *A parallel route building algorithm for the vehicle routing and scheduling problem
//! with time windows*, European Journal of Operational Research 66 (1993), 331–340), for pairs: of the requests not yet on a route, the one whose best place is
//! most better than its best place on another route goes to its best place. A new route is begun when a request fits nowhere.

use super::{Instance, Solution};

/// A place for a request on a route.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Place {
    /// What it lengthens the route by.
    more: f64,
    /// Stops of the route before the pick-up, and before the delivery; the pick-up itself is not counted.
    before_pickup: usize,
    before_delivery: usize,
}

impl Place {
    /// The route with the request in its place.
    fn apply(self, route: &[usize], pickup: usize, delivery: usize) -> Vec<usize> {
        let mut longer = Vec::with_capacity(route.len() + 2);
        longer.extend(&route[..self.before_pickup]);
        longer.push(pickup);
        longer.extend(&route[self.before_pickup..self.before_delivery]);
        longer.push(delivery);
        longer.extend(&route[self.before_delivery..]);
        longer
    }
}

impl Instance {
    /// The cheapest place for the request of `pickup` on `route`, if there is one.
    fn best_place(&self, route: &[usize], pickup: usize) -> Option<Place> {
        let delivery = self.tasks[pickup].partner;
        // The stop before and the stop after a gap of the route; the depot at both ends.
        let around = |gap: usize| {
            let before = gap.checked_sub(1).map_or(0, |index| route[index]);
            (before, route.get(gap).copied().unwrap_or(0))
        };
        let detour = |task: usize, (before, after): (usize, usize)| {
            self.distance(before, task) + self.distance(task, after) - self.distance(before, after)
        };
        let mut best: Option<Place> = None;
        for before_pickup in 0..=route.len() {
            let (before, after) = around(before_pickup);
            let first = detour(pickup, (before, after));
            let both = self.distance(before, pickup) + self.distance(pickup, delivery) + self.distance(delivery, after);
            for before_delivery in before_pickup..=route.len() {
                let more = if before_delivery == before_pickup {
                    both - self.distance(before, after)
                } else {
                    first + detour(delivery, around(before_delivery))
                };
                // What is dearer need not be looked at: that is most of them, and looking takes long.
                if best.is_none_or(|best| more < best.more) {
                    let place = Place {
                        more,
                        before_pickup,
                        before_delivery,
                    };
                    if self.is_in_time(&place.apply(route, pickup, delivery)) {
                        best = Some(place);
                    }
                }
            }
        }
        best
    }
}

/// A solution in which every request is served that can be served at all, by as many vehicles as it takes: [`Instance::check`] tells whether these are too
/// many. `tell` learns how many requests are on a route.
#[must_use]
pub fn insert(instance: &Instance, mut tell: impl FnMut(usize)) -> Solution {
    let mut left: Vec<usize> = instance.pickups().collect();
    let mut routes: Vec<Vec<usize>> = Vec::new();
    // Per request left, its place on each route.
    let mut places: Vec<Vec<Option<Place>>> = vec![Vec::new(); left.len()];
    let all = left.len();
    while !left.is_empty() {
        let best = |places: &[Option<Place>]| {
            let mut costs: Vec<f64> = places.iter().flatten().map(|place| place.more).collect();
            costs.sort_unstable_by(f64::total_cmp);
            let least = costs.first().copied()?;
            // Without a second place it is now or never.
            Some((costs.get(1).map_or(f64::INFINITY, |next| next - least), least))
        };
        let next = (0..left.len())
            .filter_map(|index| Some((best(&places[index])?, index)))
            .max_by(|(a, _), (b, _)| a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1)));
        let route = if let Some(((_, least), index)) = next {
            let (row, pickup) = (places.swap_remove(index), left.swap_remove(index));
            let cheapest = row
                .iter()
                .position(|place| place.is_some_and(|place| place.more <= least));
            let Some((route, place)) = cheapest.and_then(|route| Some((route, row[route]?))) else {
                // `least` is one of the row's.
                continue;
            };
            routes[route] = place.apply(&routes[route], pickup, instance.tasks[pickup].partner);
            route
        } else {
            // Nobody fits anywhere: the one who is farthest away begins a route. Who does not even fit alone is left out.
            let far = |index: &usize| instance.distance(0, left[*index]);
            let Some(index) = (0..left.len()).max_by(|a, b| far(a).total_cmp(&far(b))) else {
                break;
            };
            let pickup = left.swap_remove(index);
            places.swap_remove(index);
            let Some(place) = instance.best_place(&[], pickup) else {
                continue;
            };
            routes.push(place.apply(&[], pickup, instance.tasks[pickup].partner));
            routes.len() - 1
        };
        tell(all - left.len());
        for (&pickup, places) in left.iter().zip(&mut places) {
            places.resize(routes.len(), None);
            places[route] = instance.best_place(&routes[route], pickup);
        }
    }
    Solution { routes }
}
