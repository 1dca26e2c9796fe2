//! No drone ever gets empty in the air: fleets that fly feasible missions, tick by tick, as this simulator moves them.
//!
//! With no-fly zones or without; where there are some, nobody is ever inside of one.
//!
//! The test decides as a dispatcher may decide at its worst: any order for which [`EnergyModel::feasible`] holds, any moment to take a drone from
//! its order, from its way to a charge point or from its slot, any charge point within reach.

#![expect(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself may"
)]

use domain::chargers;
use domain::drone::{Drone, DroneStatus};
use domain::energy::{EnergyModel, mission_km};
use domain::geo::Point;
use domain::no_fly::NoFly;
use domain::zones::ZonesConfig;
use drone_sim::motion::{self, EMPTY_PCT, Flight, Model};
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_assert, prop_oneof, proptest};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Ticks of a run.
const TICKS: u32 = 1_500;

/// An order that a drone flies, and whether it has the parcel.
#[derive(Debug, Clone, Copy)]
struct Mission {
    origin: Point,
    destination: Point,
    is_loaded: bool,
}

/// What a run came to.
#[derive(Debug, Default)]
struct Run {
    ran_out: u32,
    /// Records inside a no-fly zone.
    inside: u32,
    delivered: u32,
    waited: u32,
    least_pct: f64,
}

struct Fleet {
    /// What the drones fly by.
    zones: ZonesConfig,
    /// What the dispatcher reckons with, and nobody should be inside of: the same, but in a test of the test.
    known: ZonesConfig,
    flight: Flight,
    energy: EnergyModel,
    drones: Vec<(Drone, Option<Mission>)>,
    random: StdRng,
}

impl Fleet {
    fn new(drones: u32, zones: ZonesConfig, flight: Flight, energy: EnergyModel, seed: u64) -> Self {
        Self {
            drones: (1..=drones).map(|number| (Drone::new(number, &zones), None)).collect(),
            known: zones.clone(),
            zones,
            flight,
            energy,
            random: StdRng::seed_from_u64(seed),
        }
    }

    /// Anywhere but in a no-fly zone.
    fn place(&mut self) -> Point {
        loop {
            let place = Point::new(
                self.random.random_range(41.80..41.98),
                self.random.random_range(12.37..12.60),
            );
            if self.known.no_fly.zone_of(place).is_none() {
                return place;
            }
        }
    }

    fn run(&mut self) -> Run {
        let mut run = Run {
            least_pct: 100.0,
            ..Run::default()
        };
        for tick in 0..TICKS {
            let now = f64::from(tick) * self.flight.tick_sec;
            let records = self.drones.iter().map(|(drone, _)| drone);
            let places = chargers::places(records, &self.zones, self.flight.charger_slots, now);
            for index in 0..self.drones.len() {
                let (drone, mission) = self.drones[index].clone();
                let (drone, mission) = self.decide(drone, mission, &mut run);
                let place = places.get(&drone.id).copied();
                let placed = drone.placed(place.filter(|_| chargers::stands_at_charger(&drone, &self.zones)));
                let goal = mission.map(|mission| {
                    if mission.is_loaded {
                        mission.destination
                    } else {
                        mission.origin
                    }
                });
                let target = motion::target(&placed, goal, &self.zones);
                // Ticks are late now and then.
                let ticks = self.random.random_range(0.5..2.5);
                let next = self.flight.step(&placed, target, &self.zones, ticks, now);
                let next = next.unwrap_or_else(|| placed.clone());
                run.ran_out += u32::from(motion::ran_out(&placed, &next));
                run.inside += u32::from(self.known.no_fly.zone_of(next.pos).is_some());
                run.waited += u32::from(next.charge_queue.is_some_and(|queue| queue > 0));
                if !next.at_charge {
                    run.least_pct = run.least_pct.min(next.battery);
                }
                self.drones[index] = (next, mission);
            }
        }
        run
    }

    /// What becomes of a drone before its tick.
    fn decide(&mut self, drone: Drone, mission: Option<Mission>, run: &mut Run) -> (Drone, Option<Mission>) {
        let chance = self.random.random_range(0.0..1.0);
        match (drone.status, mission) {
            (DroneStatus::Busy, Some(mission)) if drone.pos == mission.destination && mission.is_loaded => {
                run.delivered += 1;
                (drone.release("d").unwrap(), None)
            }
            (DroneStatus::Busy, Some(mission)) if drone.pos == mission.origin => {
                let loaded = Mission {
                    is_loaded: true,
                    ..mission
                };
                (drone, Some(loaded))
            }
            // Cancelled anywhere, with the parcel on board too: it is somebody else's business what becomes of that.
            (DroneStatus::Busy, Some(_)) if chance < 0.01 => (drone.release("d").unwrap(), None),
            (DroneStatus::Idle, _) => self.employ(drone, chance),
            (DroneStatus::Charging, _) if drone.is_charged(95.0) => (drone.charged(95.0).unwrap(), None),
            (DroneStatus::Charging, _) if chance < 0.01 => {
                let at = self.random.random_range(0..self.zones.zones.len());
                let at = self.zones.zones[at].charge;
                let reaches = self.energy.feasible(drone.battery, self.known.way_km(drone.pos, at));
                (if reaches { drone.divert(at).unwrap() } else { drone }, None)
            }
            // Taken from the way or from the slot.
            (DroneStatus::Charging, _) if chance < 0.03 => {
                let idle = Drone {
                    status: DroneStatus::Idle,
                    charge_at: None,
                    ..drone
                };
                (idle.placed(None), None)
            }
            _ => (drone, mission),
        }
    }

    fn employ(&mut self, drone: Drone, chance: f64) -> (Drone, Option<Mission>) {
        let (origin, destination) = (self.place(), self.place());
        let km = mission_km(drone.pos, origin, destination, &self.known);
        if chance < 0.5 && self.energy.feasible(drone.battery, km) {
            let mission = Mission {
                origin,
                destination,
                is_loaded: false,
            };
            return (drone.take("d").unwrap(), Some(mission));
        }
        if chance > 0.7 {
            return (drone.charge(None).unwrap(), None);
        }
        (drone, None)
    }
}

/// A city whose charge points lie between walls and in a court.
fn walled() -> ZonesConfig {
    let text = "41.82,12.47 41.82,12.50 41.96,12.50 41.96,12.47; \
                41.86,12.52 41.81,12.52 41.81,12.58 41.88,12.58 41.88,12.53 41.87,12.53 41.87,12.57 41.82,12.57 41.82,12.53 41.86,12.53; \
                41.89,12.39 41.88,12.46 41.90,12.40";
    let no_fly: NoFly = text.parse().unwrap();
    ZonesConfig::rome(2, 2).unwrap().with_no_fly(no_fly).unwrap()
}

fn cities() -> impl Strategy<Value = ZonesConfig> {
    prop_oneof![
        (1..4_u32).prop_map(|side| ZonesConfig::rome(side, side).unwrap()),
        Just(walled()),
    ]
}

fn models() -> impl Strategy<Value = Model> {
    prop_oneof![
        Just(Model::Fraction),
        (0.2..2.0_f64).prop_map(|base_km_per_sec| Model::Cruise { base_km_per_sec }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_drone_gets_empty_in_the_air(
        model in models(), tick_sec in 0.05..0.5_f64, battery_per_km in 0.1..4.0_f64, safety_margin_pct in 0.5..10.0_f64,
        charge_per_tick_pct in 0.2..10.0_f64, charger_slots in 0..4_u32, drones in 1..16_u32, zones in cities(), seed in any::<u64>(),
    ) {
        let flight = Flight { model, tick_sec, battery_per_km, charge_per_tick_pct, charger_slots };
        let energy = EnergyModel { battery_per_km, safety_margin_pct };
        let run = Fleet::new(drones, zones, flight, energy, seed).run();
        prop_assert!(run.ran_out == 0 && run.inside == 0 && run.least_pct >= EMPTY_PCT, "{run:?}");
    }
}

#[test]
fn the_runs_are_hard() {
    let flight = |battery_per_km| Flight {
        model: Model::Cruise { base_km_per_sec: 1.0 },
        tick_sec: 0.375,
        battery_per_km,
        charge_per_tick_pct: 1.0,
        charger_slots: 1,
    };
    let energy = EnergyModel {
        battery_per_km: 2.0,
        safety_margin_pct: 1.0,
    };
    for zones in [ZonesConfig::rome(2, 2).unwrap(), walled()] {
        let run = Fleet::new(12, zones.clone(), flight(2.0), energy, 7).run();
        assert!(
            run.ran_out == 0 && run.inside == 0 && run.delivered > 50 && run.waited > 100,
            "{run:?}"
        );
        assert!(run.least_pct < 5.0, "somebody was near the limit: {run:?}");
        // A fleet that spends more than the dispatcher reckons with does run out, and this test would see it.
        let run = Fleet::new(12, zones, flight(2.6), energy, 7).run();
        assert!(run.ran_out > 0, "{run:?}");
    }
    // So it does one whose dispatcher reckons with straight lines, and one that flies them.
    let flown = |zones, known| {
        let fleet = Fleet::new(12, zones, flight(2.0), energy, 7);
        Fleet { known, ..fleet }.run()
    };
    let (open, walled) = (ZonesConfig::rome(2, 2).unwrap(), walled());
    let run = flown(walled.clone(), open.clone());
    assert!(run.ran_out > 0, "{run:?}");
    let run = flown(open, walled);
    assert!(run.inside > 0, "{run:?}");
}
