//! How a drone moves, spends battery and charges: pure functions of its record and the time that has passed.
//!
//! Promises: a drone never overshoots its target and never gets farther from it; every kilometre flown costs
//! `BATTERY_PER_KM`; battery stays in [0, 100]; a frozen drone stays as it is; nothing but `pos`, `battery` and `at_charge`
//! changes. Flights go round no-fly zones ([`ZonesConfig::way`]), so "farther" is meant by the way. Who has a slot at a charge point and who waits for one is settled before ([`domain::chargers`]).
//!
//! **Empty batteries.** A drone flies as far as its battery reaches. From then on (below [`EMPTY_PCT`]) it goes on towards
//! the same target on a reserve, [`RESERVE_SPEED`] times as fast and at no cost. Otherwise it would stay where it is for ever,
//! and with it the order on board or the drone's place in the fleet; nobody else can move it.

use domain::drone::{Drone, DroneStatus};
use domain::energy::FULL_PCT;
use domain::geo::Point;
use domain::zones::ZonesConfig;

/// Below this many percent a battery counts as empty.
pub const EMPTY_PCT: f64 = 0.01;

/// Share of its speed at which a drone with an empty battery creeps on.
pub const RESERVE_SPEED: f64 = 0.1;

/// Under [`Model::Fraction`], a way left shorter than this is covered at once: fractions of the way never end it. Kilometres.
pub const SNAP_KM: f64 = 0.001;

/// How the way of a tick is found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Model {
    /// Constant speed, kilometres per second of clock for a medium drone.
    Cruise {
        /// Speed of a medium drone, km per second of clock.
        base_km_per_sec: f64,
    },
    /// The fraction `speed` of the remaining way per tick.
    Fraction,
}

/// How drones fly and charge.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Flight {
    /// How the way of a tick is found.
    pub model: Model,
    /// Length of a tick, seconds of clock.
    pub tick_sec: f64,
    /// Percent of battery per kilometre.
    pub battery_per_km: f64,
    /// Percent gained per tick at a charge point.
    pub charge_per_tick_pct: f64,
    /// How many drones charge at a charge point at once; 0 is as many as are needed.
    pub charger_slots: u32,
}

/// Where `drone` wants to go: its `mission` target when busy, its charge point when charging or retiring, else nowhere.
#[must_use]
pub fn target(drone: &Drone, mission: Option<Point>, zones: &ZonesConfig) -> Option<Point> {
    match drone.status {
        DroneStatus::Busy => mission,
        DroneStatus::Charging | DroneStatus::Retiring => {
            // Anywhere within reach of the plug will do.
            Some(drone.charge_target(zones)).filter(|charge| !drone.pos.is_at_charge(*charge))
        }
        DroneStatus::Idle | DroneStatus::Inactive | DroneStatus::Lost => None,
    }
}

/// Whether the battery ran out in the air on the way from one record of a drone to the next.
#[must_use]
pub fn ran_out(from: &Drone, to: &Drone) -> bool {
    from.battery >= EMPTY_PCT && to.battery < EMPTY_PCT && !to.at_charge
}

impl Flight {
    /// The record after `ticks` (not necessarily whole) ticks on the way to `target`; `None` when nothing changes.
    /// `now` is in Unix seconds.
    #[must_use]
    pub fn step(
        &self,
        drone: &Drone,
        target: Option<Point>,
        zones: &ZonesConfig,
        ticks: f64,
        now: f64,
    ) -> Option<Drone> {
        if drone.is_frozen(now) || ticks.is_nan() || ticks <= 0.0 {
            return None;
        }
        let next = match target.filter(|target| *target != drone.pos) {
            Some(target) => self.fly(drone, target, zones, ticks),
            None => self.stand(drone, zones, ticks),
        };
        (next != *drone).then_some(next)
    }

    fn fly(&self, drone: &Drone, target: Point, zones: &ZonesConfig, ticks: f64) -> Drone {
        let way = zones.way(drone.pos, target);
        let empty = drone.battery < EMPTY_PCT;
        let mut step_km = self.step_km(drone, way.km(), if empty { ticks * RESERVE_SPEED } else { ticks });
        if !empty && self.battery_per_km > 0.0 {
            step_km = step_km.min(drone.battery / self.battery_per_km);
        }
        let (pos, flown_km) = way.after(step_km);
        let cost_pct = if empty { 0.0 } else { flown_km * self.battery_per_km };
        drone.moved(pos, drone.battery - cost_pct, at_charge(drone, pos, zones))
    }

    fn stand(&self, drone: &Drone, zones: &ZonesConfig, ticks: f64) -> Drone {
        let at_charge = at_charge(drone, drone.pos, zones);
        let gain_pct = if at_charge && self.is_plugged(drone) {
            self.charge_per_tick_pct * ticks
        } else {
            0.0
        };
        drone.moved(drone.pos, (drone.battery + gain_pct).min(FULL_PCT), at_charge)
    }

    /// Whether a drone that stands at a charge point charges there.
    fn is_plugged(&self, drone: &Drone) -> bool {
        match drone.status {
            // It waits at its origin or destination, in the air.
            DroneStatus::Busy => false,
            // Where slots are scarce, only those who were told to charge take one, each when its turn comes.
            _ if self.charger_slots > 0 => drone.charge_queue == Some(0),
            _ => true,
        }
    }

    /// Kilometres covered in `ticks`, of `way_km` left.
    fn step_km(&self, drone: &Drone, way_km: f64, ticks: f64) -> f64 {
        match self.model {
            Model::Cruise { base_km_per_sec } => base_km_per_sec * drone.kind.cruise_scale() * self.tick_sec * ticks,
            Model::Fraction if way_km <= SNAP_KM => way_km,
            Model::Fraction => {
                // A record with a senseless speed flies like its class.
                let sound = drone.speed > 0.0 && drone.speed <= 1.0;
                let fraction = if sound { drone.speed } else { drone.kind.fraction() };
                way_km * (1.0 - (1.0 - fraction).powf(ticks))
            }
        }
    }
}

/// Whether a drone at `pos` stands at a charge point: any of the zones, or the one this drone was sent to.
fn at_charge(drone: &Drone, pos: Point, zones: &ZonesConfig) -> bool {
    let sent_to = drone.charge_at.into_iter();
    sent_to
        .chain(zones.zones.iter().map(|zone| zone.charge))
        .any(|charge| pos.is_at_charge(charge))
}

#[cfg(test)]
mod tests {
    use domain::no_fly::NoFly;
    use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_assume, prop_oneof, proptest};

    use super::*;

    fn zones() -> ZonesConfig {
        ZonesConfig::rome(2, 2).unwrap()
    }

    fn place() -> impl Strategy<Value = Point> {
        (41.80..=41.98_f64, 12.37..=12.60_f64).prop_map(|(lat, lon)| Point::new(lat, lon))
    }

    fn flights() -> impl Strategy<Value = Flight> {
        let model = prop_oneof![
            Just(Model::Fraction),
            (0.000_1..5.0_f64).prop_map(|base_km_per_sec| Model::Cruise { base_km_per_sec }),
        ];
        (model, 0.01..1.0_f64, 0.0..5.0_f64, 0.0..=100.0_f64).prop_map(
            |(model, tick_sec, battery_per_km, charge_per_tick_pct)| Flight {
                model,
                tick_sec,
                battery_per_km,
                charge_per_tick_pct,
                charger_slots: 0,
            },
        )
    }

    fn drones() -> impl Strategy<Value = Drone> {
        let battery = prop_oneof![Just(0.0), Just(100.0), 0.0..0.1_f64, 0.0..=100.0_f64];
        (1..=3_u32, place(), battery, 0..6_usize, -0.5..1.5_f64).prop_map(|(number, pos, battery, status, speed)| {
            Drone {
                status: DroneStatus::ALL[status],
                speed,
                ..Drone::new(number, &zones()).moved(pos, battery, false)
            }
        })
    }

    /// Two blocks of houses that nobody flies over.
    fn no_fly() -> NoFly {
        let text = "41.83,12.45 41.83,12.47 41.95,12.47 41.95,12.45; 41.87,12.50 41.91,12.52 41.87,12.58 41.88,12.52";
        text.parse().unwrap()
    }

    fn cruise() -> Flight {
        let model = Model::Cruise { base_km_per_sec: 1.0 };
        Flight {
            model,
            tick_sec: 0.5,
            battery_per_km: 2.0,
            charge_per_tick_pct: 5.0,
            charger_slots: 0,
        }
    }

    fn busy(pos: Point, battery: f64) -> Drone {
        Drone::new(2, &zones()).take("d").unwrap().moved(pos, battery, false)
    }

    proptest! {
            #[test]
            fn a_step_never_overshoots_and_pays_for_its_way(
                flight in flights(), drone in drones(), to in place(), ticks in 0.01..5.0_f64,
            ) {
                let next = flight.step(&drone, Some(to), &zones(), ticks, 0.0);
                let next = next.unwrap_or_else(|| drone.clone());
                let (before_km, after_km) = (drone.pos.distance_km(to), next.pos.distance_km(to));
                prop_assert!(after_km <= before_km + 1e-9, "{before_km} km became {after_km} km");
                let flown_km = drone.pos.distance_km(next.pos);
                prop_assert!(flown_km <= before_km + 1e-9);
                prop_assert!((0.0..=100.0).contains(&next.battery));
                let spent = drone.battery - next.battery;
                if drone.battery >= EMPTY_PCT && drone.pos != to {
                    let cost = flown_km * flight.battery_per_km;
                    // The last of a battery may be overdrawn by what straight lines on a globe are inexact.
                    let overdrawn = next.battery <= 0.0 && (0.0..cost * 2e-3).contains(&(cost - spent));
                    prop_assert!((spent - cost).abs() < 1e-6 || overdrawn, "{flown_km} km cost {spent} %, not {cost} %");
                    let stopped_short = next.pos != to && flight.battery_per_km > 0.0;
                    if let (Model::Cruise { base_km_per_sec }, true) = (flight.model, stopped_short) {
                        let speed_km = base_km_per_sec * drone.kind.cruise_scale() * flight.tick_sec * ticks;
                        let range_km = drone.battery / flight.battery_per_km;
    let step_km = speed_km.min(range_km);
                        prop_assert!((flown_km - step_km).abs() < step_km * 2e-3 + 1e-6, "{flown_km} of {step_km} km");
                    }
                }
                // Nothing but its own fields.
                prop_assert_eq!(next.moved(drone.pos, drone.battery, drone.at_charge), drone);
            }

            #[test]
            fn flights_go_round_no_fly_zones_at_the_same_speed_and_cost(
                fraction in any::<bool>(), from in place(), to in place(), step_km in 0.2..3.0_f64,
            ) {
                let zones = zones().with_no_fly(no_fly()).unwrap();
                prop_assume!(zones.no_fly.zone_of(from).is_none() && zones.no_fly.zone_of(to).is_none());
                let model = if fraction { Model::Fraction } else { Model::Cruise { base_km_per_sec: step_km } };
                let flight = Flight { model, tick_sec: 1.0, battery_per_km: 1.0, ..cruise() };
                let mut drone = busy(from, 100.0);
                let whole_km = zones.way_km(from, to);
                while drone.pos != to {
                    let left_km = zones.way_km(drone.pos, to);
                    let next = flight.step(&drone, Some(to), &zones, 1.0, 0.0).unwrap();
                    prop_assert_eq!(zones.no_fly.zone_of(next.pos), None);
                    let flown_km = drone.battery - next.battery;
                    prop_assert!((left_km - flown_km - zones.way_km(next.pos, to)).abs() < 1e-4, "{drone:?} {next:?}");
                    if let (Model::Cruise { .. }, true) = (model, next.pos != to) {
                        prop_assert!((flown_km - step_km).abs() < step_km * 2e-3, "{flown_km} of {step_km} km");
                    }
                    drone = next;
                }
                prop_assert!((100.0 - drone.battery - whole_km).abs() < 1e-3, "{whole_km} km cost {} %", 100.0 - drone.battery);
            }

            #[test]
            fn every_flight_ends(flight in flights(), from in place(), to in place(), battery in 0.0..=100.0_f64) {
                let mut drone = busy(from, battery);
                // Few enough steps for a test: at least a fifteenth of the way per step where speed decides.
                let flight = match flight.model {
                    Model::Cruise { .. } => Flight { model: Model::Cruise { base_km_per_sec: 2.0 }, tick_sec: 1.0, ..flight },
                    Model::Fraction => flight,
                };
                for _ in 0..1_000 {
                    match flight.step(&drone, Some(to), &zones(), 1.0, 0.0) {
                        Some(next) => drone = next,
                        None => break,
                    }
                }
                prop_assert_eq!(drone.pos, to);
            }

            #[test]
            fn standing_charges_at_a_charge_point_only(
                flight in flights(), drone in drones(), ticks in 0.01..50.0_f64, zone in any::<proptest::sample::Index>(),
                plugged in any::<bool>(),
            ) {
                let grid = zones();
                let pos = if plugged { zone.get(&grid.zones).charge } else { drone.pos };
                let drone = drone.moved(pos, drone.battery, drone.at_charge);
                let next = flight.step(&drone, None, &grid, ticks, 0.0).unwrap_or_else(|| drone.clone());
                prop_assert_eq!(next.pos, drone.pos);
                prop_assert!((0.0..=100.0).contains(&next.battery));
                let plugged = grid.zones.iter().any(|zone| pos.is_at_charge(zone.charge));
            if plugged && drone.status != DroneStatus::Busy {
                    let full = (drone.battery + flight.charge_per_tick_pct * ticks).min(100.0);
                    prop_assert!(next.at_charge && (next.battery - full).abs() < 1e-9);
                } else {
                    prop_assert!((next.battery - drone.battery).abs() < 1e-12);
                }
            }

            #[test]
            fn two_half_ticks_are_one_tick(from in place(), to in place(), fraction in any::<bool>()) {
                let model = if fraction { Model::Fraction } else { cruise().model };
                let flight = Flight { model, ..cruise() };
                let step = |drone: &Drone, ticks| flight.step(drone, Some(to), &zones(), ticks, 0.0).unwrap_or_else(|| drone.clone());
                let drone = busy(from, 100.0);
                let halves = step(&step(&drone, 0.5), 0.5);
                let whole = step(&drone, 1.0);
                prop_assert!(halves.pos.distance_km(whole.pos) < 0.002, "{:?} {:?}", halves.pos, whole.pos);
            }
        }

    #[test]
    fn frozen_drones_and_stopped_clocks_change_nothing() {
        let drone = busy(Point::new(41.9, 12.5), 50.0);
        let to = Some(Point::new(41.95, 12.4));
        let frozen = Drone {
            freeze_until: Some(100.0),
            ..drone.clone()
        };
        assert_eq!(cruise().step(&frozen, to, &zones(), 1.0, 99.9), None);
        assert!(cruise().step(&frozen, to, &zones(), 1.0, 100.0).is_some());
        for ticks in [0.0, -1.0, f64::NAN] {
            assert_eq!(cruise().step(&drone, to, &zones(), ticks, 0.0), None);
        }
    }

    #[test]
    fn charging_drones_go_where_they_were_sent() {
        let grid = zones();
        let drone = Drone::new(1, &grid).moved(Point::new(41.93, 12.43), 20.0, false);
        let nearest = Drone {
            status: DroneStatus::Charging,
            ..drone.clone()
        };
        assert_eq!(target(&nearest, None, &grid), Some(grid.zones[0].charge));
        let sent = Drone {
            charge_at: Some(grid.zones[3].charge),
            ..nearest
        };
        assert_eq!(target(&sent, None, &grid), Some(grid.zones[3].charge));
        let there = sent.moved(grid.zones[3].charge, 20.0, false);
        assert_eq!(target(&there, None, &grid), None);
        assert_eq!(
            target(&drone, Some(grid.zones[3].charge), &grid),
            None,
            "an idle drone has nowhere to go"
        );
        // The grid was changed since: the drone still gets its charge.
        let moved_away = ZonesConfig::rome(1, 1).unwrap();
        assert!(cruise().step(&there, None, &moved_away, 1.0, 0.0).unwrap().battery > 20.0);
    }

    #[test]
    fn where_slots_are_scarce_only_who_has_one_charges() {
        let grid = zones();
        let flight = Flight {
            charger_slots: 1,
            ..cruise()
        };
        let idle = Drone::new(1, &grid).moved(grid.zones[0].charge, 40.0, true);
        let in_place = |queue| Drone {
            charge_queue: queue,
            ..idle.charge(None).unwrap()
        };
        let gain = |drone: &Drone| {
            let next = flight.step(drone, None, &grid, 1.0, 0.0);
            next.map_or(0.0, |next| next.battery - drone.battery)
        };
        assert!((gain(&in_place(Some(0))) - 5.0).abs() < 1e-9);
        for waiting in [in_place(Some(1)), in_place(None), idle] {
            assert!(gain(&waiting).abs() < 1e-9, "{waiting:?}");
        }
    }

    #[test]
    fn an_idle_full_drone_is_not_written() {
        let grid = zones();
        let drone = Drone::new(1, &grid);
        assert_eq!(cruise().step(&drone, None, &grid, 1.0, 0.0), None);
    }

    #[test]
    fn an_empty_drone_creeps_on_its_reserve() {
        let (from, to) = (Point::new(41.90, 12.50), Point::new(41.95, 12.50));
        let nearly = busy(from, 0.5);
        let stranded = cruise().step(&nearly, Some(to), &zones(), 1.0, 0.0).unwrap();
        assert!((stranded.pos.distance_km(from) - 0.25).abs() < 1e-6, "0.5 % last 250 m");
        assert!(stranded.battery < EMPTY_PCT);
        let creeping = cruise().step(&stranded, Some(to), &zones(), 1.0, 0.0).unwrap();
        assert!((creeping.pos.distance_km(stranded.pos) - 0.05).abs() < 1e-6);
        assert!((creeping.battery - stranded.battery).abs() < 1e-12);
    }
}
