//! `optimal`: matching that also thinks of the orders to come.
//!
//! To [`matching`](super::matching) it adds
//!
//! 1. *Anticipation*: ready drones without an order fly to where they cover the orders to come ([`coverage`](super::coverage)). By far the most of
//!    the gain below overload.
//! 2. *Onward*: a pair costs w · min(flight from the order's destination to the next open origin, a few minutes) more: of orders equally
//!    near the drone takes the one that ends where others wait. It is what is left of chains of orders (the look at following loads of Yang,
//!    Jaillet and Mahmassani) when only one link is looked at.
//! 3. *Aside*: to leave an order costs w · min(flight to its origin from the nearest destination of another open order, a few minutes) more:
//!    what nobody will come by later is taken while somebody is near. The other end of the same link.
//! 4. *Ageing*: waiting makes an order dearer to leave: it is taken before others that are nearer by so many minutes. Small means, long waits:
//!    somebody far out pays for the mean of all.
//! 5. *Short ones first under a backlog*: while more orders are open than `backlog_per_drone` each, a share of the loaded leg is part of
//!    the cost, which is the rule that is best for the mean on one machine (W. Smith, *Various optimizers for single-stage production*, 1956).

use assignment::{Grid, Stopped};

use super::coverage::{Guard, relax};
use super::matching::{MatchingSettings, least_cost, plan_of};
use crate::snapshot::{Heading, Plan, Policy, Snapshot};

/// Knobs of [`Optimal`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OptimalSettings {
    /// Those of the matching.
    pub matching: MatchingSettings,
    /// Rounds of [`relax`] per plan. 0: nobody moves without an order.
    pub coverage_rounds: usize,
    /// Drones that are ready within so many minutes cover too.
    pub cover_ahead_min: f64,
    /// Which part of the time until it is ready counts against such a drone: orders come later, too.
    pub cover_delay: f64,
    /// A drone is sent elsewhere only if it is farther than that from there: no flights for metres.
    pub move_min_km: f64,
    /// Weight of the flight from an order's destination to the next open origin.
    pub onward: f64,
    /// That flight counts as at most so many minutes.
    pub onward_max_min: f64,
    /// Weight of the flight to an order's origin from the nearest destination of another open order.
    pub aside: f64,
    /// That flight counts as at most so many minutes.
    pub aside_max_min: f64,
    /// Minutes by which an order may be farther per minute that it waited.
    pub ageing: f64,
    /// Open orders per drone above which loaded legs count.
    pub backlog_per_drone: f64,
    /// Share of the loaded leg's minutes that counts then.
    pub loaded_share: f64,
}

impl Default for OptimalSettings {
    fn default() -> Self {
        Self {
            matching: MatchingSettings {
                swap_gain_min: 0.3,
                ..MatchingSettings::default()
            },
            coverage_rounds: 2,
            cover_ahead_min: 10.0,
            cover_delay: 0.5,
            move_min_km: 0.0,
            onward: 0.3,
            onward_max_min: 5.0,
            aside: 0.5,
            aside_max_min: 10.0,
            ageing: 0.03,
            backlog_per_drone: 3.0,
            loaded_share: 0.5,
        }
    }
}

/// Matching with anticipation, a look onward, ageing, and short orders first under a backlog.
#[derive(Debug, Clone, Copy, Default)]
pub struct Optimal {
    /// Its knobs.
    pub settings: OptimalSettings,
}

impl Policy for Optimal {
    fn plan(&self, snapshot: &Snapshot<'_>) -> Plan {
        match self.plan_within(snapshot, u64::MAX) {
            Ok(plan) => plan,
            // Nobody counts to 2^64 edges.
            Err(stopped) => unreachable!("{stopped}"),
        }
    }
}

impl Optimal {
    /// The plan, unless it takes more than about `limit` candidates listed and edges scanned (some nanoseconds each, and what
    /// [`Pairs::extra_min`](crate::Pairs::extra_min) takes): a deadline that does not make the plan depend on how busy the machine is.
    ///
    /// # Errors
    /// [`Stopped`] at the limit.
    pub fn plan_within(&self, snapshot: &Snapshot<'_>, limit: u64) -> Result<Plan, Stopped> {
        let settings = &self.settings;
        let orders = snapshot.orders.iter();
        let origins: Vec<(f64, f64)> = orders.clone().map(|order| (order.origin.x, order.origin.y)).collect();
        let destinations: Vec<(f64, f64)> = orders.map(|order| (order.destination.x, order.destination.y)).collect();
        let onward_km = nearest_other_km(&destinations, &origins);
        let aside_km = nearest_other_km(&origins, &destinations);
        // Who will fly there is not known: as long as it would take the fastest.
        let fastest = (snapshot.drones.iter()).fold(f64::MIN_POSITIVE, |most, drone| most.max(drone.km_per_min));
        let loaded_share = self.loaded_share(snapshot);
        let pairs = least_cost(
            snapshot,
            &settings.matching,
            limit,
            |order, drone| {
                let onward_min = (onward_km[order] / drone.km_per_min).min(settings.onward_max_min);
                let loaded_min = snapshot.pairs.loaded_km(&snapshot.orders[order]) / drone.km_per_min;
                settings.onward * onward_min + loaded_share * loaded_min
            },
            |order| {
                let waited_min = (snapshot.now_min - snapshot.orders[order].placed_min).max(0.0);
                let aside_min = (aside_km[order] / fastest).min(settings.aside_max_min);
                let wished_min = snapshot.pairs.patience_min(&snapshot.orders[order]);
                settings.ageing * waited_min + settings.aside * aside_min + wished_min
            },
        )?;
        let mut plan = plan_of(snapshot, pairs);
        plan.moves = self.moves(snapshot, &plan);
        Ok(plan)
    }
}

/// For each point of `from` the distance to the nearest of `to`, the one with the same index left out; infinite without one.
fn nearest_other_km(from: &[(f64, f64)], to: &[(f64, f64)]) -> Vec<f64> {
    // Coordinates that no grid takes: then nothing is near to anything, and the term is the same for all.
    let grid = Grid::new(to).unwrap_or_default();
    (from.iter().enumerate())
        .map(|(index, &(x, y))| {
            grid.nearest(x, y)
                .find(|near| near.index != index)
                .map_or(f64::INFINITY, |near| near.distance())
        })
        .collect()
}

impl Optimal {
    /// The share of loaded legs that counts now.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    fn loaded_share(&self, snapshot: &Snapshot<'_>) -> f64 {
        let is_backlog = snapshot.orders.len() as f64 > self.settings.backlog_per_drone * snapshot.drones.len() as f64;
        if is_backlog { self.settings.loaded_share } else { 0.0 }
    }

    /// Where the drones wait that `plan` leaves without an order.
    fn moves(&self, snapshot: &Snapshot<'_>, plan: &Plan) -> Vec<(usize, crate::geometry::Point)> {
        let settings = &self.settings;
        if settings.coverage_rounds == 0 || snapshot.demand.points.is_empty() {
            return Vec::new();
        }
        let mut has_order = vec![false; snapshot.drones.len()];
        for &(_, drone) in plan.pickups.iter().chain(&plan.promised) {
            has_order[drone] = true;
        }
        let (who, mut guards): (Vec<usize>, Vec<Guard>) = (snapshot.drones.iter().enumerate())
            .filter(|(index, drone)| !has_order[*index] && drone.ready_in_min <= settings.cover_ahead_min)
            .map(|(index, drone)| {
                let at = match drone.heading {
                    Heading::Place(place) => place,
                    Heading::Nowhere | Heading::Pickup(_) => drone.at,
                };
                let guard = Guard {
                    at,
                    delay_km: settings.cover_delay * drone.ready_in_min * drone.km_per_min,
                    is_movable: drone.is_ready(),
                };
                (index, guard)
            })
            .unzip();
        relax(&mut guards, snapshot.demand, settings.coverage_rounds);
        (who.into_iter().zip(guards))
            .filter(|(_, guard)| guard.is_movable)
            .filter(|&(index, guard)| snapshot.drones[index].at.km_to(guard.at) > settings.move_min_km)
            .map(|(index, guard)| (index, guard.at))
            .collect()
    }
}
