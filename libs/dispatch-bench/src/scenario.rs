//! What is played: orders, fleet, chargers, out of the settings and a seed.

use anyhow::{anyhow, bail};
use dispatch_sim::orders::TRIES;
use dispatch_sim::world::Settings;
use dispatch_sim::{Charger, Classes as Ranks, Demand, Energy, Order, Point};
use domain::drone::DroneType;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::args::{Args, Battery, Classes, Orders};
use crate::input::{Book, Listed};
use crate::routes::{Frame, Routes};

/// Demand is told to policies as a lattice of so many points a side.
pub(crate) const LATTICE: u32 = 20;

/// Chargers per side of the area: those of the product, one in each of 2 × 2 zones.
const ZONES: u32 = 2;

/// Batteries as the dispatcher's defaults have them, percent.
const PER_KM_PCT: f64 = 2.0;
const MARGIN_PCT: f64 = 5.0;
const CRITICAL_PCT: f64 = 30.0;
const FULL_PCT: f64 = 95.0;

/// Weights at random, kg, as those of the order generator.
const WEIGHTS_KG: std::ops::Range<f64> = 0.2..10.0;

/// Weights and places that the orders do not decide are drawn with this added to the seed, so that places and times are the same without them.
const OTHER_DRAWS: u64 = 0x5EED_0F0D_DBA1_1A57;

/// A world to play in.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// The orders, by time; ids count from 0 up.
    pub orders: Vec<Order>,
    /// Where drones are in the beginning.
    pub starts: Vec<Point>,
    /// Arrival rate × mean direct flight × 1.25 ÷ drones.
    pub utilisation: f64,
    km_per_min: f64,
    /// South-west and north-east corner.
    area: (Point, Point),
    demand: Demand,
    classes: Option<Ranks>,
    energy: Option<Energy>,
    routes: Routes,
}

impl Scenario {
    /// The scenario of one seed; `listed` are the orders of a file, if they come from one.
    ///
    /// # Errors
    /// When a file has orders that nobody can fly, or no-fly zones leave no room.
    pub(crate) fn new(args: &Args, listed: Option<&Book>, seed: u64) -> anyhow::Result<Self> {
        let reference = args.reference(seed);
        let mut other = StdRng::seed_from_u64(seed.wrapping_add(OTHER_DRAWS));
        let frame = listed.map_or_else(Frame::of_rome, |book| book.frame);
        let routes = Routes::new(args.no_fly.no_fly_zones.clone(), frame);
        let is_free = |place: &Point| routes.zone_of(*place).is_none();
        let no_room = || {
            anyhow!(
                "--no-fly-zones: of {TRIES} places none is outside the zones; expected zones that leave room for orders and drones"
            )
        };
        let (orders, starts, area, weights);
        if let Some(listed) = listed {
            let listed: Vec<&Listed> = (listed.orders)
                .iter()
                .filter(|it| it.order.placed_min <= reference.until_min)
                .collect();
            orders = listed.iter().map(|it| it.order).collect::<Vec<_>>();
            weights = listed.iter().map(|it| it.class).collect::<Vec<_>>();
            area = around(&orders);
            let mut within = |low: f64, high: f64| if low < high { other.random_range(low..high) } else { low };
            let mut places =
                std::iter::repeat_with(|| Point::new(within(area.0.x, area.1.x), within(area.0.y, area.1.y)));
            starts = (0..reference.drones)
                .map(|_| places.by_ref().take(TRIES).find(is_free))
                .collect::<Option<Vec<_>>>()
                .ok_or_else(no_room)?;
        } else {
            (orders, starts) = reference.draw_where(|place| is_free(&place)).ok_or_else(no_room)?;
            weights = orders
                .iter()
                .map(|_| DroneType::for_weight(other.random_range(WEIGHTS_KG)))
                .collect();
            area = (Point::default(), Point::new(reference.square_km, reference.square_km));
        }
        if orders.is_empty() {
            bail!("--hours: no order within that time; expected more hours, or a higher --utilisation");
        }
        check_places(&orders, &routes)?;
        let per_min = if matches!(args.orders, Orders::File(_)) {
            rate(&orders)
        } else {
            reference.orders_per_min()
        };
        let classes = (args.classes == Classes::Three).then(|| ranks(starts.len(), &weights, reference.km_per_min()));
        let energy = (args.battery == Battery::On).then(|| energy(args, area));
        if let Some(energy) = &energy {
            check_chargers(energy, &routes)?;
        }
        if let Some(far) = energy
            .as_ref()
            .and_then(|energy| orders.iter().find(|order| !energy.can_ever_fly(&routes, order)))
        {
            bail!(
                "--battery on: order {} of {:.1} km is beyond any battery; expected at most about {:.0} km with the way from and to a charger \
                 (--battery off flies it)",
                far.id,
                far.direct_km(),
                (FULL_PCT - MARGIN_PCT) / PER_KM_PCT
            );
        }
        Ok(Self {
            utilisation: utilisation(
                &orders,
                &starts,
                per_min,
                reference.km_per_min(),
                listed.is_none().then_some(args.utilisation),
            ),
            demand: Demand::even(area, LATTICE, per_min),
            km_per_min: reference.km_per_min(),
            area,
            orders,
            starts,
            classes,
            energy,
            routes,
        })
    }

    /// The middle of the area.
    pub(crate) fn middle(&self) -> Point {
        let (low, high) = self.area;
        Point::new(f64::midpoint(low.x, high.x), f64::midpoint(low.y, high.y))
    }

    /// How many no-fly zones there are.
    pub(crate) fn no_fly_zones(&self) -> usize {
        self.routes.no_fly.zones().len()
    }

    /// How the world runs, for policies that let heavier drones carry lighter parcels. For others [`Scenario::own_class_only`] first.
    #[must_use]
    pub(crate) fn settings(&self) -> Settings<'_> {
        Settings {
            classes: self.classes.as_ref(),
            energy: self.energy.as_ref(),
            ways: &self.routes,
            ..Settings::plain(self.km_per_min, &self.demand)
        }
    }

    /// The same in which drones carry parcels of their own class only, as greedy does.
    pub(crate) fn own_class_only(mut self) -> Self {
        if let Some(classes) = &mut self.classes {
            classes.heavier_may = false;
        }
        self
    }
}

/// As the gateway does: no order from or to a no-fly zone.
fn check_places(orders: &[Order], routes: &Routes) -> anyhow::Result<()> {
    for (number, order) in orders.iter().enumerate() {
        for (end, place) in [("origin", order.origin), ("destination", order.destination)] {
            if let Some(zone) = routes.zone_of(place) {
                bail!(
                    "--orders: the {end} of order {number}, by time from 0, is inside no_fly[{zone}]; expected a place outside the no-fly zones"
                );
            }
        }
    }
    Ok(())
}

/// As the gateway does: no zone where drones charge.
fn check_chargers(energy: &Energy, routes: &Routes) -> anyhow::Result<()> {
    for (number, charger) in energy.chargers.iter().enumerate() {
        if let Some(zone) = routes.zone_near_charge(charger.at) {
            bail!(
                "--no-fly-zones: no_fly[{zone}] reaches charger {number}, at {:.2} km east and {:.2} km north; expected zones that keep off \
                 chargers (--battery off has none)",
                charger.at.x,
                charger.at.y
            );
        }
    }
    Ok(())
}

/// The least rectangle with all origins and destinations.
fn around(orders: &[Order]) -> (Point, Point) {
    let ends = || orders.iter().flat_map(|order| [order.origin, order.destination]);
    let low = ends().fold((f64::INFINITY, f64::INFINITY), |low, end| {
        (low.0.min(end.x), low.1.min(end.y))
    });
    let high = ends().fold((f64::NEG_INFINITY, f64::NEG_INFINITY), |high, end| {
        (high.0.max(end.x), high.1.max(end.y))
    });
    (Point::new(low.0, low.1), Point::new(high.0, high.1))
}

/// Orders per minute; 0 for orders that are all placed at once.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn rate(orders: &[Order]) -> f64 {
    let last_min = orders.last().map_or(0.0, |order| order.placed_min);
    if last_min > 0.0 {
        orders.len() as f64 / last_min
    } else {
        0.0
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn utilisation(orders: &[Order], starts: &[Point], per_min: f64, km_per_min: f64, asked: Option<f64>) -> f64 {
    asked.unwrap_or_else(|| {
        let mean_km = orders.iter().map(Order::direct_km).sum::<f64>() / orders.len().max(1) as f64;
        per_min * mean_km / km_per_min * dispatch_sim::orders::EMPTY_FLIGHT_FACTOR / starts.len().max(1) as f64
    })
}

/// The product's classes: drones in turn, and speeds as they cruise.
fn ranks(drones: usize, parcels: &[DroneType], km_per_min: f64) -> Ranks {
    let rank = |kind: DroneType| match kind {
        DroneType::Light => 0,
        DroneType::Medium => 1,
        DroneType::Heavy => 2,
    };
    Ranks {
        drones: DroneType::ALL.into_iter().cycle().take(drones).map(rank).collect(),
        orders: parcels.iter().copied().map(rank).collect(),
        km_per_min: DroneType::ALL.map(|kind| kind.cruise_scale() * km_per_min).to_vec(),
        heavier_may: true,
    }
}

fn energy(args: &Args, area: (Point, Point)) -> Energy {
    let chargers = Demand::even(area, ZONES, 0.0).points.into_iter();
    Energy {
        per_km_pct: PER_KM_PCT,
        margin_pct: MARGIN_PCT,
        critical_pct: CRITICAL_PCT,
        full_pct: FULL_PCT,
        charge_pct_per_min: args.charge_per_min,
        chargers: chargers
            .map(|(at, _)| Charger {
                at,
                slots: args.charger_slots,
            })
            .collect(),
    }
}
