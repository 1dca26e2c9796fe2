//! No drone ever gets empty in the air: whole cities of random drones, orders, settings and mishaps.
//!
//! What is asserted at every step is stronger: each drone's battery takes it to the charge point nearest to where it is. So whatever happens
//! next, there is a way home; and orders are only taken with the way home in the battery. Cities with no-fly zones are among them: there nobody
//! is ever inside of one.

use dispatcher::hints::Hints;
use dispatcher::policy::Policy;
use domain::energy::mission_km;
use domain::geo::Point;
use domain::keys;
use proptest::prelude::{ProptestConfig, any, prop, prop_assert, proptest};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::support::{STEP_SEC, World, rules};

/// What a city is made of.
#[derive(Debug, Clone, Copy)]
struct City {
    policy: Policy,
    drones: u32,
    charger_slots: usize,
    battery_per_km: f64,
    safety_margin_pct: f64,
    critical_battery_pct: f64,
    top_up_below_pct: f64,
    orders_per_sec: f64,
    charge_per_step: f64,
    /// Whether orders are cancelled and drones fall silent.
    mishaps: bool,
    /// Whether there are no-fly zones.
    walls: bool,
    seed: u64,
}

/// How long orders come, seconds.
const ORDERS_FOR_SEC: f64 = 40.0;

/// How long the last one may take after that, seconds.
const END_WITHIN_SEC: f64 = 4_000.0;

/// A wall between the charge points of the west and the east, a court around one of them, and a spike.
const WALLS: &str = "41.82,12.47 41.82,12.50 41.96,12.50 41.96,12.47; \
                     41.86,12.52 41.81,12.52 41.81,12.58 41.88,12.58 41.88,12.53 41.87,12.53 41.87,12.57 41.82,12.57 41.82,12.53 41.86,12.53; \
                     41.89,12.39 41.88,12.46 41.90,12.40";

/// Anywhere but in a no-fly zone.
fn place(world: &World, random: &mut StdRng) -> Point {
    loop {
        let place = Point::new(random.random_range(41.80..41.98), random.random_range(12.37..12.60));
        if world.zones.no_fly.zone_of(place).is_none() {
            return place;
        }
    }
}

/// Plays a city to its end; how many missions were flown, and the least battery that anybody had in the air.
async fn play(city: City) -> (usize, f64) {
    let mut random = StdRng::seed_from_u64(city.seed);
    let mut world = World::under(city.policy, city.drones, rules());
    world.rules.charger_slots = city.charger_slots;
    world.rules.energy.battery_per_km = city.battery_per_km;
    world.rules.energy.safety_margin_pct = city.safety_margin_pct;
    world.rules.critical_battery_pct = city.critical_battery_pct;
    world.rules.top_up_below_pct = if city.policy.tops_up() {
        city.top_up_below_pct
    } else {
        0.0
    };
    world.by_class = true;
    world.charge_per_step = city.charge_per_step;
    world.rules.pace.charge_pct_per_sec = city.charge_per_step / STEP_SEC;
    if city.walls {
        world.draw(WALLS);
    }
    world.restart();
    for number in 1..=city.drones {
        let (pos, zones) = (place(&world, &mut random), world.zones.clone());
        let (_, km) = zones.nearest_charge(pos).unwrap();
        let least = (km * city.battery_per_km + 1.0).min(100.0);
        let battery = random.random_range(least..=100.0);
        world.edit_drone(number, |drone| (drone.pos, drone.battery) = (pos, battery));
    }
    let begin = world.now();
    let (mut missions, mut least_pct) = (0, 100.0_f64);
    let mut ids: Vec<String> = Vec::new();
    loop {
        let now = world.now() - begin;
        let is_over = now > ORDERS_FOR_SEC && world.kv.keys(keys::OPEN_PREFIX).is_empty();
        if is_over {
            break;
        }
        assert!(
            now < ORDERS_FOR_SEC + END_WITHIN_SEC,
            "orders are left: {city:?} {:?}",
            world.fleet()
        );
        if now < ORDERS_FOR_SEC && random.random_bool((city.orders_per_sec * STEP_SEC).min(1.0)) {
            let (origin, destination) = (place(&world, &mut random), place(&world, &mut random));
            ids.push(world.order(origin, destination, random.random_range(0.2..10.0)));
        }
        if city.mishaps && now < ORDERS_FOR_SEC {
            mishap(&world, &ids, &mut random);
        }
        let before = world.fleet();
        world.simulate();
        world.engine.round(Hints::default()).await.unwrap();
        for drone in world.fleet() {
            assert_eq!(world.zones.no_fly.zone_of(drone.pos), None, "{drone:?}, {city:?}");
            let (_, home_km) = world.zones.nearest_charge(drone.pos).unwrap();
            let home_pct = home_km * city.battery_per_km;
            assert!(drone.battery >= home_pct - 1e-6, "no way home: {drone:?}, {city:?}");
            if !drone.at_charge {
                least_pct = least_pct.min(drone.battery);
            }
            let had_it = before
                .iter()
                .any(|other| other.id == drone.id && other.current_delivery == drone.current_delivery);
            if let (Some(id), false) = (&drone.current_delivery, had_it) {
                let order = world.delivery(id);
                let km = mission_km(drone.pos, order.origin, order.destination, &world.zones);
                let needed = world.rules.energy.needed_pct(km);
                assert!(drone.battery >= needed, "{needed} % are needed: {drone:?}, {city:?}");
                missions += 1;
            }
        }
    }
    world.check();
    (missions, least_pct)
}

/// Now and then somebody cancels an order before its pick-up, or a drone is not heard of for a while.
fn mishap(world: &World, ids: &[String], random: &mut StdRng) {
    if random.random_bool(0.02)
        && let Some(id) = ids.get(random.random_range(0..ids.len().max(1)))
        && let Ok(cancelled) = world.delivery(id).cancel(world.now())
    {
        world.kv.set(&keys::delivery(id), &cancelled);
    }
    if random.random_bool(0.01) {
        let fleet = u32::try_from(world.fleet().len()).unwrap();
        let until = world.now() + random.random_range(1.0..60.0);
        world.edit_drone(random.random_range(1..=fleet), |drone| drone.freeze_until = Some(until));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn no_drone_gets_empty_in_the_air(
        optimal in any::<bool>(),
        drones in 3..14_u32,
        charger_slots in 0..4_usize,
        energy in (0.2..3.2_f64, 0.5..10.0_f64, prop::sample::select(vec![0.0, 10.0, 30.0, 50.0])),
        orders_per_sec in 0.05..1.5_f64,
        charge_per_step in 0.3..6.0_f64,
        top_up_below_pct in 0.0..=95.0_f64,
        mishaps in any::<bool>(),
        walls in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let (battery_per_km, safety_margin_pct, critical_battery_pct) = energy;
        let policy = if optimal { Policy::Optimal } else { Policy::Greedy };
        let city = City {
            policy, drones, charger_slots, battery_per_km, safety_margin_pct, critical_battery_pct, top_up_below_pct, orders_per_sec, charge_per_step, mishaps, walls, seed,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (_, least_pct) = runtime.block_on(play(city));
        prop_assert!(least_pct > 0.0);
    }
}

#[tokio::test]
async fn tight_batteries_and_single_slots_fly_every_order_and_nobody_gets_empty() {
    for (seed, policy, walls) in [
        (1, Policy::Optimal, false),
        (2, Policy::Greedy, false),
        (3, Policy::Optimal, false),
        (4, Policy::Optimal, true),
        (5, Policy::Greedy, true),
    ] {
        let city = City {
            policy,
            drones: 9,
            charger_slots: 1,
            // Round walls fewer orders are within range.
            battery_per_km: if walls { 1.7 } else { 2.2 },
            safety_margin_pct: 5.0,
            critical_battery_pct: 30.0,
            top_up_below_pct: 80.0,
            orders_per_sec: 0.8,
            charge_per_step: 2.0,
            mishaps: false,
            walls,
            seed,
        };
        let (missions, least_pct) = play(city).await;
        // Some begin with no more than 1 % beyond the way home.
        assert!(
            missions > 20 && least_pct > 0.9,
            "{missions} missions, least {least_pct} %"
        );
    }
}

/// Two orders called the only heavy drone back and forth between two charge points for ever: whichever was not promised it where it was.
#[tokio::test]
async fn two_orders_do_not_call_a_charging_drone_back_and_forth() {
    let city = City {
        policy: Policy::Optimal,
        drones: 4,
        charger_slots: 2,
        battery_per_km: 2.786_774_625_418_644_7,
        safety_margin_pct: 9.737_758_567_308,
        critical_battery_pct: 10.0,
        top_up_below_pct: 38.745_734_277_815_565,
        orders_per_sec: 0.232_924_682_222_016_18,
        charge_per_step: 4.061_300_839_379_301,
        mishaps: false,
        walls: false,
        seed: 5_544_750_269_312_862_545,
    };
    let (missions, _) = play(city).await;
    assert!(missions > 5, "{missions}");
}
