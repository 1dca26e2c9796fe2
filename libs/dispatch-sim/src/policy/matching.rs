//! `matching`: everybody at once, at the least total cost, over drones that are ready and drones that soon will be.
//!
//! Rows are open orders, columns are drones. With a the minutes until drone d can be at order o's origin, free of what it does now,
//!
//! > cost(o, d) = a(o, d) + extra(o, d) − gain · \[d is on its way to o already\] + terms(o, d)
//!
//! and an order that gets nobody costs U + ageing · waited. The sum is made least by [`assignment::Solver`], exactly, in milliseconds.
//! `terms` are 0 here; [`Optimal`](crate::Optimal) adds some.
//!
//! - *Look-ahead*: a drone that delivers next door in two minutes is better than an idle one ten minutes away. An order matched with
//!   a drone that is not ready waits; the next plan may decide otherwise.
//! - *Swaps*: until the parcel is picked up everything is open. The gain that a swap must bring keeps drones from turning around for
//!   seconds.
//! - U is so large that as many orders as possible are matched: which of them wait is decided by cost.
//!
//! Matching of all idle with all waiting, again and again, is the policy MYOPT of J. Yang, P. Jaillet, H. Mahmassani, *Real-time multivehicle
//! truckload pickup and delivery problems*, Transportation Science 38 (2004), 135–148, without its look at following loads.

use assignment::{COST_MAX, ColumnId, Grid, RowId, Solver, Stopped};

use crate::snapshot::{Drone, Heading, Plan, Policy, Snapshot};

/// Most drones that are all candidates of every order; above, each order lists its nearest ones.
const DENSE_MAX: usize = 256;

/// Once an order has as many candidates as it lists, at most so many more are looked at that are nearer by the straight line than the last of them
/// is by the way.
const DETOURS_MAX: usize = 256;

/// Knobs of [`Matching`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MatchingSettings {
    /// Drones that are ready within so many minutes take part.
    pub look_ahead_min: f64,
    /// Minutes that a swap must save.
    pub swap_gain_min: f64,
    /// Drones listed per order in fleets of more than 256: so many of the nearest that are ready, and so many of those
    /// that will be, by the way to the pick-up.
    pub candidates: usize,
    /// What an order costs that nobody takes, in minutes: more than any cost that should be accepted to serve it.
    pub unserved_min: f64,
}

impl Default for MatchingSettings {
    fn default() -> Self {
        Self {
            look_ahead_min: 60.0,
            swap_gain_min: 0.1,
            candidates: 32,
            unserved_min: 10_000.0,
        }
    }
}

/// Exact minimum-cost matching with look-ahead and swaps.
#[derive(Debug, Clone, Copy, Default)]
pub struct Matching {
    /// Its knobs.
    pub settings: MatchingSettings,
}

impl Policy for Matching {
    fn plan(&self, snapshot: &Snapshot<'_>) -> Plan {
        match least_cost(snapshot, &self.settings, u64::MAX, |_, _| 0.0, |_| 0.0) {
            Ok(pairs) => plan_of(snapshot, pairs),
            // Nobody counts to 2^64 edges.
            Err(stopped) => unreachable!("{stopped}"),
        }
    }
}

/// Minutes as the solver's integers: milliseconds, within its range.
pub(super) fn milliseconds(minutes: f64) -> i64 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "`as` saturates; what is out of range is cut off there"
    )]
    let rounded = (minutes * 60_000.0).round() as i64;
    rounded.clamp(-COST_MAX, COST_MAX)
}

/// A drone that an order may have, by its place in the list of those taking part.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    place: usize,
    /// The way to the pick-up beyond the straight line.
    detour_km: f64,
    /// The cost of the pair without further terms.
    minutes: f64,
}

/// The drone at `place` as a candidate for an order, if the pair may be.
fn candidate(
    snapshot: &Snapshot<'_>,
    order: usize,
    (place, drone): (usize, usize),
    swap_gain_min: f64,
) -> Option<Candidate> {
    let (o, d) = (&snapshot.orders[order], &snapshot.drones[drone]);
    let charge = snapshot.pairs.charge(o, d)?;
    let kept = if d.heading == Heading::Pickup(order) {
        swap_gain_min
    } else {
        0.0
    };
    Some(Candidate {
        place,
        detour_km: charge.detour_km,
        minutes: d.minutes_to(o.origin) + charge.extra_min - kept,
    })
}

/// What is ready flies, what is not is promised.
pub(super) fn plan_of(snapshot: &Snapshot<'_>, pairs: Vec<(usize, usize)>) -> Plan {
    let (pickups, promised) = pairs
        .into_iter()
        .partition(|&(_, drone)| snapshot.drones[drone].is_ready());
    Plan {
        pickups,
        promised,
        moves: Vec::new(),
    }
}

/// The pairs (order, drone) of least total cost. `terms` are added to a pair's cost, `patience` to what an order costs that nobody takes.
///
/// # Errors
/// [`Stopped`] after about `limit` candidates listed and edges scanned.
///
/// # Panics
/// With more than 2²² orders or drones, the solver's limit.
pub(super) fn least_cost(
    snapshot: &Snapshot<'_>,
    settings: &MatchingSettings,
    limit: u64,
    terms: impl Fn(usize, &Drone) -> f64,
    patience: impl Fn(usize) -> f64,
) -> Result<Vec<(usize, usize)>, Stopped> {
    let mut solver = Solver::new();
    let taking: Vec<usize> = (0..snapshot.drones.len())
        .filter(|&drone| snapshot.drones[drone].ready_in_min <= settings.look_ahead_min)
        .collect();
    let columns: Vec<ColumnId> = taking
        .iter()
        .map(|_| solver.add_column().expect("fleets are below 2^22 drones"))
        .collect();
    let near = Nearest::new(snapshot, &taking, settings.candidates);
    let mut listed = Vec::new();
    let mut costs = Vec::new();
    let mut left = limit;
    let rows = (0..snapshot.orders.len())
        .map(|index| {
            let one = |place: usize| candidate(snapshot, index, (place, taking[place]), settings.swap_gain_min);
            let looked_at = near.list(snapshot, index, one, &mut listed);
            left = left.checked_sub(looked_at as u64).ok_or(Stopped {
                work: limit,
                left: snapshot.orders.len() - index,
            })?;
            costs.clear();
            costs.extend(listed.iter().map(|listed| {
                let cost = listed.minutes + terms(index, &snapshot.drones[taking[listed.place]]);
                (columns[listed.place], milliseconds(cost))
            }));
            let unserved = milliseconds(settings.unserved_min + patience(index));
            // The columns were just added and costs are cut to the range.
            Ok(solver
                .add_row(unserved, &costs)
                .expect("backlogs are below 2^22 orders"))
        })
        .collect::<Result<Vec<RowId>, Stopped>>()?;
    solver.solve_within(left)?;
    let place_of = |row: RowId| solver.column_of(row).map(ColumnId::slot);
    // In a solver that is new, the slots of columns are 0, 1, 2, … as they were added.
    let pairs = (rows.iter().enumerate()).filter_map(|(order, &row)| Some((order, taking[place_of(row)?])));
    Ok(pairs.collect())
}

/// Which drones an order's row lists.
struct Nearest {
    /// Ready drones and others: where they are, and their places in the list of those taking part. Nothing for small fleets.
    grids: Option<[(Grid, Vec<usize>); 2]>,
    /// Per order, the place of the drone that is on its way to it.
    coming: Vec<Option<usize>>,
    /// How many take part.
    taking: usize,
    count: usize,
}

impl Nearest {
    fn new(snapshot: &Snapshot<'_>, taking: &[usize], count: usize) -> Self {
        let mut coming = vec![None; snapshot.orders.len()];
        for (place, &drone) in taking.iter().enumerate() {
            if let Heading::Pickup(order) = snapshot.drones[drone].heading {
                coming[order] = Some(place);
            }
        }
        let grid = |is_ready: bool| {
            let places: Vec<usize> = (0..taking.len())
                .filter(|&place| snapshot.drones[taking[place]].is_ready() == is_ready)
                .collect();
            let points: Vec<(f64, f64)> = places
                .iter()
                .map(|&place| snapshot.drones[taking[place]].at)
                .map(|at| (at.x, at.y))
                .collect();
            Grid::new(&points).ok().map(|grid| (grid, places))
        };
        let is_small = taking.len() <= DENSE_MAX;
        // Coordinates that no grid takes (not finite) leave all drones to every order, as in a small fleet.
        let grids = (!is_small).then(|| Some([grid(true)?, grid(false)?])).flatten();
        Self {
            grids,
            coming,
            taking: taking.len(),
            count,
        }
    }

    /// Puts an order's candidates into `listed`, which `one` makes of places. Gives how many were looked at.
    fn list(
        &self,
        snapshot: &Snapshot<'_>,
        order: usize,
        one: impl Fn(usize) -> Option<Candidate>,
        listed: &mut Vec<Candidate>,
    ) -> usize {
        listed.clear();
        let Some(grids) = &self.grids else {
            listed.extend((0..self.taking).filter_map(one));
            return self.taking;
        };
        let origin = snapshot.orders[order].origin;
        let mut looked_at = 0;
        for (grid, places) in grids {
            let near = grid.nearest(origin.x, origin.y);
            let fit = near.filter_map(|near| Some((near.distance(), one(places[near.index])?)));
            looked_at += nearest_by_way(fit, self.count, listed);
        }
        // Who is coming stays a candidate, however far: else a swap could cost minutes.
        if let Some(place) = self.coming[order].filter(|place| listed.iter().all(|listed| listed.place != *place)) {
            listed.extend(one(place));
        }
        looked_at
    }
}

/// Adds the `count` candidates with the shortest ways to `listed`, of those that come with their straight distances, the nearest first. Gives how
/// many were looked at.
fn nearest_by_way(fit: impl Iterator<Item = (f64, Candidate)>, count: usize, listed: &mut Vec<Candidate>) -> usize {
    let mut near: Vec<(f64, Candidate)> = Vec::with_capacity(count);
    let mut looked_at = 0;
    for (straight_km, candidate) in fit {
        looked_at += 1;
        let km = straight_km + candidate.detour_km;
        let place = near.partition_point(|(other_km, _)| *other_km <= km);
        if place < count {
            near.truncate(count - 1);
            near.insert(place, (km, candidate));
        }
        // Whoever is farther by the straight line is no nearer by the way.
        let is_full = near.len() == count && near.last().is_none_or(|(last_km, _)| *last_km <= straight_km);
        if is_full || looked_at >= count + DETOURS_MAX {
            break;
        }
    }
    listed.extend(near.into_iter().map(|(_, candidate)| candidate));
    looked_at
}
