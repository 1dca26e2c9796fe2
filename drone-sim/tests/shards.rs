//! Several simulators that fly one fleet: everybody by exactly one of them, slots of charge points never given twice, an index that is whole.

#![expect(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself may"
)]

use std::collections::BTreeMap;

use domain::chargers;
use domain::drone::{Drone, DroneStatus};
use domain::geo::Point;
use domain::keys;
use domain::zones::ZonesConfig;
use drone_sim::motion::{Flight, Model};
use drone_sim::{FleetMetrics, Now, Part, Simulator, Telemetry, fleet};
use futures_util::future::join_all;
use kv_client::testing::{Call, FakeKv, Fault};
use kv_client::{Kv, Options};
use serde_json::{Value, json};
use service::metrics::Metrics;

const KM_PER_SEC: f64 = 1.0;
const TICK_SEC: f64 = 0.1;

fn zones() -> ZonesConfig {
    ZonesConfig::rome(2, 2).unwrap()
}

fn part(index: u32, count: u32, pool: u32) -> Part {
    Part::of(format!("{index}/{count}").parse().unwrap(), pool)
}

/// A fleet flown by several, whose clock the test turns.
struct World {
    kv: FakeKv,
    pool: u32,
    slots: u32,
    /// `None` while killed.
    simulators: Vec<Option<Simulator>>,
    now: Now,
}

impl World {
    async fn start(drones: &[Drone], shards: u32, slots: u32) -> Self {
        let kv = FakeKv::start().await;
        for drone in drones {
            kv.set(&keys::drone(&drone.id), drone);
        }
        let mut world = Self {
            kv,
            pool: u32::try_from(drones.len()).unwrap(),
            slots,
            simulators: (0..shards).map(|_| None).collect(),
            now: Now {
                steady_sec: 100.0,
                unix_sec: 1_000_000.0,
            },
        };
        (0..world.simulators.len()).for_each(|index| world.launch(index));
        world
    }

    /// Starts a simulator, for the first time or again.
    fn launch(&mut self, index: usize) {
        let options = Options {
            read_retries: 0,
            ..Options::default()
        };
        let client = Kv::new(&self.kv.url, options).unwrap();
        let metrics = FleetMetrics::new(&Metrics::new("test"));
        let flight = Flight {
            model: Model::Cruise {
                base_km_per_sec: KM_PER_SEC,
            },
            tick_sec: TICK_SEC,
            battery_per_km: 1.5,
            charge_per_tick_pct: 10.0,
            charger_slots: self.slots,
        };
        let number = u32::try_from(index + 1).unwrap();
        let part = part(number, u32::try_from(self.simulators.len()).unwrap(), self.pool);
        let telemetry = Telemetry::new(10_000, metrics.clone());
        let simulator = Simulator::new(client, part, flight, zones(), telemetry, metrics, self.now);
        self.simulators[index] = Some(simulator);
    }

    /// A tick of all simulators at the same time, as far as they are alive; tells how many drones each saw.
    async fn tick(&mut self) -> Vec<usize> {
        self.now.steady_sec += TICK_SEC;
        self.now.unix_sec += TICK_SEC;
        let now = self.now;
        let alive = self.simulators.iter_mut().flatten();
        let reports = join_all(alive.map(|simulator| simulator.tick(now))).await;
        reports.into_iter().map(|report| report.unwrap().drones).collect()
    }

    /// The same one after the other, beginning with another one each time; before each, `check`.
    async fn tick_in_turn(&mut self, first: usize, check: impl Fn(&Self)) {
        self.now.steady_sec += TICK_SEC;
        self.now.unix_sec += TICK_SEC;
        for index in 0..self.simulators.len() {
            check(self);
            let index = (index + first) % self.simulators.len();
            let now = self.now;
            if let Some(simulator) = &mut self.simulators[index] {
                simulator.tick(now).await.unwrap();
            }
        }
        check(self);
    }

    fn drone(&self, number: u32) -> Drone {
        self.kv.record(&keys::drone(&format!("drone-{number}"))).unwrap()
    }

    fn fleet(&self) -> Vec<Drone> {
        (1..=self.pool).map(|number| self.drone(number)).collect()
    }

    /// Those who charge at the charge point of a zone.
    fn charging(&self, zone: usize) -> Vec<String> {
        let at = zones().zones[zone].charge;
        let charges = |drone: &Drone| {
            let stands = chargers::stands_at_charger(drone, &zones()) && drone.pos.is_at_charge(at);
            stands && drone.charge_queue == Some(0) && drone.battery < 100.0
        };
        self.fleet().into_iter().filter(charges).map(|drone| drone.id).collect()
    }

    fn assert_slots_are_enough(&self) {
        for zone in 0..4 {
            let charging = self.charging(zone);
            assert!(charging.len() <= self.slots as usize, "zone {zone}: {charging:?}");
        }
    }
}

/// Drone `number` on its way to the first zone's charge point, `km` before it.
fn sent(number: u32, km: f64) -> Drone {
    let charge = zones().zones[0].charge;
    let pos = Point::new(charge.lat + km / 111.2, charge.lon);
    Drone::new(number, &zones())
        .moved(pos, 50.0, false)
        .charge(None)
        .unwrap()
}

#[tokio::test]
async fn everybody_is_flown_by_exactly_one() {
    // Medium ones, so that all are equally fast.
    let fleet: Vec<Drone> = (1..=14)
        .map(|number| Drone {
            id: format!("drone-{number}"),
            ..sent(2, 5.0)
        })
        .collect();
    let mut world = World::start(&fleet, 3, 0).await;
    // Beyond the pool, and what is no drone.
    for number in [99, 200] {
        let id = format!("drone-{number}");
        world.kv.set(&keys::drone(&id), &Drone { id, ..sent(2, 5.0) });
    }
    for (key, value) in [
        ("drone:", json!(1)),
        ("drone:a", json!({"id": "a"})),
        ("drone:x", json!("x")),
    ] {
        world.kv.set(key, &value);
    }
    world.tick().await;
    let scans = world.kv.count(Call::Scan);
    let seen = world.tick().await;
    assert_eq!((seen.iter().sum::<usize>(), seen.len()), (16, 3), "{seen:?}");
    assert_eq!(world.kv.count(Call::Scan) - scans, 3, "each reads its own in one call");
    for number in (1..=14).chain([99, 200]) {
        let flown_km = 5.0 - world.drone(number).pos.distance_km(zones().zones[0].charge);
        assert!(
            (flown_km - 2.0 * TICK_SEC * KM_PER_SEC).abs() < 1e-2,
            "drone-{number}: {flown_km} km in two ticks"
        );
    }
    assert_eq!(world.kv.value("drone:x"), Some(json!("x")));

    // Whose process is gone stands still, while the others fly on; started again it carries on.
    let before = world.fleet();
    world.simulators[1] = None;
    world.tick().await;
    let middle = part(2, 3, 14);
    for (drone, after) in before.iter().zip(world.fleet()) {
        assert_eq!(drone.pos == after.pos, middle.holds(&drone.id), "{}", drone.id);
    }
    world.launch(1);
    let before = world.fleet();
    world.tick().await;
    assert!(
        before
            .iter()
            .zip(world.fleet())
            .all(|(drone, after)| drone.pos != after.pos)
    );
}

#[tokio::test]
async fn a_missing_drone_is_registered_again_by_its_own_shard() {
    let fleet: Vec<Drone> = (1..=6).map(|number| Drone::new(number, &zones())).collect();
    let mut world = World::start(&fleet, 2, 0).await;
    world.tick().await;
    world.kv.with(|store| {
        store.remove("drone:drone-2");
        store.remove("drone:drone-6");
    });
    world.now.steady_sec += 10.0;
    world.now.unix_sec += 10.0;
    assert_eq!(world.tick().await, [2, 2]);
    assert_eq!(world.tick().await, [3, 3]);
}

#[tokio::test]
async fn who_arrives_at_the_same_time_in_different_shards_shares_the_slots() {
    for (shards, slots) in [(2, 1), (3, 1), (3, 2)] {
        // All at the very same tick, then one by one; drone-1 to -3 fly with the first shard, -4 to -6 with others.
        for apart_km in [0.0, 0.05] {
            let fleet: Vec<Drone> = (1..=6)
                .map(|number| sent(number, apart_km * f64::from(number)))
                .collect();
            let mut world = World::start(&fleet, shards, slots).await;
            let mut left: Vec<String> = Vec::new();
            let mut charged: BTreeMap<String, f64> = BTreeMap::new();
            for turn in 0..400 {
                if turn % 2 == 0 {
                    world.tick().await;
                    world.assert_slots_are_enough();
                } else {
                    world.tick_in_turn(turn, World::assert_slots_are_enough).await;
                }
                let fleet = world.fleet();
                let gained = |drone: &&Drone| charged.get(&drone.id).is_some_and(|before| drone.battery > *before);
                assert!(fleet.iter().filter(gained).count() <= slots as usize, "{fleet:?}");
                charged = fleet.iter().map(|drone| (drone.id.clone(), drone.battery)).collect();
                for drone in fleet.into_iter().filter(|drone| drone.battery >= 100.0) {
                    if !left.contains(&drone.id) {
                        left.push(drone.id);
                    }
                }
                if left.len() == 6 {
                    break;
                }
            }
            let since = |id: &String| {
                world
                    .fleet()
                    .into_iter()
                    .find(|drone| drone.id == *id)
                    .unwrap()
                    .charge_since
            };
            let came: Vec<_> = left.iter().map(since).collect();
            assert_eq!(left.len(), 6, "{shards} shards, {slots} slots, {apart_km} km");
            if slots == 1 {
                assert!(came.is_sorted(), "by their arrival: {left:?} {came:?}");
            }
        }
    }
}

#[tokio::test]
async fn who_needs_the_charge_gets_the_slot_of_another_shard_that_only_tops_up() {
    let topping = Drone::new(1, &zones());
    let topping = topping.moved(topping.pos, 5.0, true).top_up().unwrap();
    let far = Drone::new(2, &zones());
    let mut world = World::start(&[topping, far], 2, 1).await;
    for _ in 0..3 {
        world.tick().await;
    }
    assert_eq!(world.charging(0), ["drone-1"]);
    world.kv.set("drone:drone-2", &sent(2, 0.0));
    let mut ticks = 0;
    while world.charging(0) != ["drone-2"] {
        world.tick_in_turn(ticks, World::assert_slots_are_enough).await;
        ticks += 1;
        assert!(
            ticks < 8,
            "{:?} {:?}",
            world.fleet(),
            world.kv.value("charger:41.935,12.4275")
        );
    }
    assert_eq!(world.drone(1).charge_queue, Some(1));
}

#[tokio::test]
async fn the_slot_of_a_dead_shards_drone_is_taken_over_when_it_is_lost() {
    let mut world = World::start(&[sent(1, 0.0), sent(2, 0.0)], 2, 1).await;
    while world.charging(0).is_empty() {
        world.tick_in_turn(0, World::assert_slots_are_enough).await;
    }
    let (holder, waiting) = if world.charging(0) == ["drone-1"] {
        (1, 2)
    } else {
        (2, 1)
    };
    let dead = holder as usize - 1;
    world.simulators[dead] = None;
    for _ in 0..20 {
        world.tick().await;
        assert_ne!(world.drone(waiting).charge_queue, Some(0), "the slot is still taken");
    }
    let silent = world.drone(holder);
    world
        .kv
        .set(&keys::drone(&silent.id), &silent.lose(&silent.sign()).unwrap());
    while world.drone(waiting).charge_queue != Some(0) {
        world.tick().await;
        assert!(
            world.now.steady_sec < 120.0,
            "{:?}",
            world.kv.value("charger:41.935,12.4275")
        );
    }
    // It is back, and waits for its turn like anybody.
    world.launch(dead);
    let back = world.drone(holder).found().unwrap().charge(None).unwrap();
    world.kv.set(&keys::drone(&back.id), &back);
    for turn in 0..3 {
        world.tick_in_turn(turn, World::assert_slots_are_enough).await;
    }
    assert_eq!(world.drone(holder).status, DroneStatus::Charging);
    assert_eq!(world.drone(holder).charge_queue, Some(1));
}

#[tokio::test]
async fn a_slot_of_unknown_outcome_is_not_relied_upon() {
    for fault in [Fault::UnknownDone, Fault::LostAnswer, Fault::UnknownNotDone] {
        let mut world = World::start(&[sent(1, 0.0), sent(2, 0.0)], 2, 1).await;
        world.tick().await;
        let first = world.simulators[0].as_mut().unwrap();
        world.kv.fail_next(Call::Batch, 1, fault);
        world.now.steady_sec += TICK_SEC;
        world.now.unix_sec += TICK_SEC;
        assert!(
            first.tick(world.now).await.unwrap_err().is_outcome_unknown(),
            "{fault:?}"
        );
        for turn in 0..40 {
            world.tick_in_turn(turn, World::assert_slots_are_enough).await;
        }
        assert!(
            world.fleet().iter().all(|drone| drone.battery >= 100.0),
            "{fault:?}: {:?}",
            world.fleet()
        );
    }
}

#[tokio::test]
async fn who_comes_anew_while_its_tick_is_written_does_not_keep_its_old_place() {
    let far = Drone::new(2, &zones());
    let mut world = World::start(&[sent(1, 0.0), far], 2, 1).await;
    while world.charging(0).is_empty() {
        world.tick().await;
    }
    let before = world.drone(1);
    world.kv.before_next(Call::Batch, {
        let anew = before.charged(0.0).unwrap().charge(None).unwrap();
        move |store| {
            store.set("drone:drone-1", &anew);
        }
    });
    world.tick().await;
    let anew = world.drone(1);
    assert_ne!(
        anew.charge_since, before.charge_since,
        "anybody may have taken its slot as gone"
    );
    assert_ne!(anew.charge_queue, Some(0));
    while world.charging(0).is_empty() {
        world.tick().await;
    }
    assert!(world.drone(1).charge_since > before.charge_since);
}

#[tokio::test]
async fn lists_of_slots_are_kept_only_where_slots_are_shared() {
    for (shards, slots, are_kept) in [(1, 1, false), (2, 0, false), (2, 1, true)] {
        let mut world = World::start(&[sent(1, 0.0), sent(2, 0.0)], shards, slots).await;
        for _ in 0..4 {
            world.tick().await;
        }
        let boards = world
            .kv
            .client()
            .scan_all::<Value>(keys::CHARGER_PREFIX, 10)
            .await
            .unwrap();
        assert_eq!(!boards.items.is_empty(), are_kept, "{shards} shards, {slots} slots");
        if !are_kept {
            continue;
        }
        // When all are full nobody is on a list, and the lists are not read any more.
        for _ in 0..30 {
            world.tick().await;
        }
        let board = world.kv.value(&keys::charger(zones().zones[0].charge)).unwrap();
        assert_eq!(board["standing"], json!([]));
        let scans = world.kv.count(Call::Scan);
        world.tick().await;
        assert_eq!(world.kv.count(Call::Scan) - scans, 2, "of drones");
        // What somebody wrote there by hand is replaced.
        world.kv.set(&keys::charger(zones().zones[0].charge), "rubbish");
        world.kv.set("drone:drone-1", &sent(1, 0.0));
        for _ in 0..5 {
            world.tick().await;
        }
        assert_eq!(world.charging(0), ["drone-1"]);
    }
}

#[tokio::test]
async fn the_index_is_whole_in_whatever_order_shards_register() {
    let whole: Vec<String> = (1..=9).map(|number| format!("drone-{number}")).collect();
    let parts: Vec<Part> = (1..=3).map(|index| part(index, 3, 9)).collect();
    for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
        let kv = FakeKv::start().await;
        let client = kv.client();
        for index in order {
            assert_eq!(
                fleet::register(&client, parts[index].numbers(), &zones())
                    .await
                    .unwrap(),
                3
            );
        }
        assert_eq!(kv.record::<Vec<String>>(keys::DRONES_INDEX), Some(whole.clone()));
    }
    // At the same time.
    let kv = FakeKv::start().await;
    let client = kv.client();
    let grid = zones();
    let made = join_all(parts.iter().map(|part| fleet::register(&client, part.numbers(), &grid))).await;
    assert!(made.into_iter().all(|made| made.unwrap() == 3));
    assert_eq!(kv.record::<Vec<String>>(keys::DRONES_INDEX), Some(whole.clone()));
    // Another one is all done between any two steps of this one.
    for between in [Call::Batch, Call::Get, Call::Scan, Call::Cas] {
        let kv = FakeKv::start().await;
        let (first, second) = (part(1, 2, 9), part(2, 2, 9));
        let others: Vec<Drone> = second
            .numbers()
            .iter()
            .map(|number| Drone::new(*number, &grid))
            .collect();
        kv.before_next(between, move |store| {
            for drone in &others {
                store.set(&keys::drone(&drone.id), drone);
            }
            let ids: Vec<&String> = others.iter().map(|drone| &drone.id).collect();
            store.set(keys::DRONES_INDEX, &ids);
        });
        fleet::register(&kv.client(), first.numbers(), &grid).await.unwrap();
        assert_eq!(
            kv.record::<Vec<String>>(keys::DRONES_INDEX),
            Some(whole.clone()),
            "{between:?}"
        );
    }
}
