//! Who flies what: dispatch policies as pure functions, and the world in which they are measured.
//!
//! A [`Policy`] maps a [`Snapshot`] (open orders, drones, the time) to a [`Plan`]. It knows nothing of networks, clocks or databases, so the same
//! function serves a dispatcher and a simulation. Three are here:
//!
//! | policy | decides by |
//! |---|---|
//! | [`Greedy`] | oldest order first, nearest idle drone |
//! | [`Matching`] | exact least-cost matching, drones that will be free soon included, open until pick-up |
//! | [`Optimal`] | the same, and thinks of orders to come ([how](policy::optimal)) |
//!
//! # The measure
//!
//! [`Reference`] is a world without the details of a product: a square, one class of drones, no batteries, Poisson orders between uniform
//! points. With N drones, arrival rate λ and mean direct flight E\[D\], its utilisation is λ · E\[D\] · 1.25 / N. [`world::run`] plays it, event
//! by event, and [`Bounds`] tell what no policy can beat. `dronedispatch simulate` prints the comparison. [`fleet`] adds weight classes, batteries
//! and chargers, and [`Ways`] what one has to fly round.
//!
//! # A policy of your own
//!
//! One function, and one test. This one gives each drone that is free the order nearest to it:
//!
//! ```
//! use dispatch_sim::{Bounds, Demand, Plan, Policy, Reference, Snapshot, world};
//!
//! struct NearestOrder;
//!
//! impl Policy for NearestOrder {
//!     fn plan(&self, snapshot: &Snapshot<'_>) -> Plan {
//!         let mut plan = Plan::default();
//!         let mut open: Vec<usize> = (0..snapshot.orders.len()).collect();
//!         for (drone, seen) in snapshot.drones.iter().enumerate().filter(|(_, drone)| drone.is_ready()) {
//!             let km = |order: usize| seen.at.km_to(snapshot.orders[order].origin);
//!             let nearest = (0..open.len()).min_by(|&a, &b| km(open[a]).total_cmp(&km(open[b])));
//!             if let Some(place) = nearest {
//!                 plan.pickups.push((open.swap_remove(place), drone));
//!             }
//!         }
//!         plan
//!     }
//! }
//!
//! let mut reference = Reference::new(18, 0.5, 1);
//! reference.orders = 500;
//! let (orders, starts) = reference.draw();
//! let demand = Demand::unknown();
//! let settings = world::Settings::plain(reference.km_per_min(), &demand);
//! let (report, _) = world::run(&NearestOrder, &orders, &starts, &settings)?;
//! assert!(report.to_deliver.mean >= Bounds::new(&orders, 18, settings.km_per_min).best_min());
//! # Ok::<(), world::Failure>(())
//! ```
//!
//! # In a dispatcher
//!
//! Latitudes and longitudes become km (`x = lon · cos(lat₀) · 111.2`, `y = lat · 111.2`), a delivery that is not picked up an [`Order`], a
//! drone a [`Drone`]: `ready_in_min` covers loaded legs and charging alike. What a class, a battery or a rule forbids is said by [`Pairs`],
//! which may also charge minutes for it. [`Plan::check`] tells whether a plan keeps the rules. `dispatcher/src/policy/optimal.rs` does this;
//! [`Optimal::plan_within`] gives it a deadline.

pub mod bounds;
pub mod fleet;
pub mod geometry;
pub mod orders;
pub mod pdptw;
pub mod policy;
pub mod report;
pub mod snapshot;
pub mod world;

pub use assignment::Stopped;
pub use bounds::{Bounds, Work};
pub use fleet::{Charger, Classes, Doors, Energy};
pub use geometry::{Point, Straight, Ways};
pub use orders::{Arrivals, Reference};
pub use policy::greedy::Greedy;
pub use policy::matching::{Matching, MatchingSettings};
pub use policy::optimal::{Optimal, OptimalSettings};
pub use report::{Charging, Report, Times};
pub use snapshot::{AllFit, BadPlan, Charge, Demand, Drone, Heading, Order, Pairs, Plan, Policy, Snapshot};
