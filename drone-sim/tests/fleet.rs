//! The fleet against a KV of its own: flights, merging, registration, outages, and the service as a whole.

#![expect(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself may"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bus::{Bus, InProcess, Topic};
use clap::Parser;
use domain::delivery::Delivery;
use domain::drone::{Drone, DroneStatus};
use domain::events::DroneUpdate;
use domain::geo::Point;
use domain::keys;
use domain::order::NewOrder;
use domain::zones::ZonesConfig;
use drone_sim::legs::REFRESH_SEC;
use drone_sim::motion::{Flight, Model};
use drone_sim::{Config, FleetMetrics, Now, Part, Simulator, Telemetry, TickReport, fleet};
use kv_client::testing::{Call, FakeKv, Fault};
use kv_client::{Kv, Options};
use serde_json::{Value, json};
use service::Shutdown;
use service::metrics::Metrics;
use tokio::net::TcpListener;

/// Kilometres a medium drone flies per second here.
const KM_PER_SEC: f64 = 1.0;
const TICK_SEC: f64 = 0.1;
const PER_KM: f64 = 1.5;

fn zones() -> ZonesConfig {
    ZonesConfig::rome(2, 2).unwrap()
}

fn start() -> Now {
    Now {
        steady_sec: 100.0,
        unix_sec: 1_000_000.0,
    }
}

/// A fleet whose clock the test turns.
struct World {
    kv: FakeKv,
    simulator: Simulator,
    telemetry: Arc<Telemetry>,
    metrics: FleetMetrics,
    now: Now,
}

impl World {
    async fn with(drones: &[Drone]) -> Self {
        Self::with_slots(drones, 0).await
    }

    /// The same with so many slots per charge point.
    async fn with_slots(drones: &[Drone], charger_slots: u32) -> Self {
        let kv = FakeKv::start().await;
        for drone in drones {
            kv.set(&keys::drone(&drone.id), drone);
        }
        let metrics = FleetMetrics::new(&Metrics::new("test"));
        let telemetry = Telemetry::new(10_000, metrics.clone());
        let model = Model::Cruise {
            base_km_per_sec: KM_PER_SEC,
        };
        let flight = Flight {
            model,
            tick_sec: TICK_SEC,
            battery_per_km: PER_KM,
            charge_per_tick_pct: 5.0,
            charger_slots,
        };
        let client = Kv::new(
            &kv.url,
            Options {
                read_retries: 0,
                ..Options::default()
            },
        )
        .unwrap();
        let pool = u32::try_from(drones.len()).unwrap();
        let told = Arc::clone(&telemetry);
        let simulator = Simulator::new(
            client,
            Part::whole(pool),
            flight,
            zones(),
            told,
            metrics.clone(),
            start(),
        );
        Self {
            kv,
            simulator,
            telemetry,
            metrics,
            now: start(),
        }
    }

    /// `sec` later, a tick.
    async fn tick_after(&mut self, sec: f64) -> Result<TickReport, kv_client::KvError> {
        self.now.steady_sec += sec;
        self.now.unix_sec += sec;
        self.simulator.tick(self.now).await
    }

    async fn tick(&mut self) -> TickReport {
        self.tick_after(TICK_SEC).await.unwrap()
    }

    fn drone(&self, number: u32) -> Drone {
        self.kv.record(&keys::drone(&format!("drone-{number}"))).unwrap()
    }
}

fn order(origin: Point, destination: Point) -> NewOrder {
    NewOrder::parse(&json!({"origin": origin, "destination": destination, "weight": 5.0})).unwrap()
}

fn medium(pos: Point) -> Drone {
    Drone {
        id: "drone-1".to_owned(),
        ..Drone::new(2, &zones())
    }
    .moved(pos, 100.0, false)
}

#[tokio::test]
async fn a_drone_flies_to_the_origin_and_then_to_the_destination() {
    let (from, origin, destination) = (
        Point::new(41.90, 12.45),
        Point::new(41.91, 12.47),
        Point::new(41.88, 12.52),
    );
    let delivery = Delivery::new("d".to_owned(), &order(origin, destination), &zones(), 1.0);
    let delivery = delivery.assign("drone-1", 2.0).unwrap();
    let mut world = World::with(&[medium(from).take("d").unwrap()]).await;
    world.kv.set(&keys::delivery("d"), &delivery);

    let mut before_km = from.distance_km(origin);
    while world.drone(1).pos != origin {
        assert_eq!(world.tick().await.written, 1);
        let left_km = world.drone(1).pos.distance_km(origin);
        assert!(
            left_km < before_km && before_km - left_km <= KM_PER_SEC * TICK_SEC * 1.01,
            "{before_km} {left_km}"
        );
        before_km = left_km;
    }
    for _ in 0..3 {
        assert_eq!(world.tick().await.written, 0, "it waits for the dispatcher, unwritten");
    }
    let loaded = delivery.first_movement(3.0).unwrap().at_origin(4.0).unwrap();
    world.kv.set(&keys::delivery("d"), &loaded);
    let mut ticks = 0.0;
    while world.drone(1).pos != destination {
        assert_eq!(world.tick().await.written, 1, "the turned leg is seen at once");
        ticks += 1.0;
    }
    let leg_km = origin.distance_km(destination);
    assert!(
        (leg_km / (KM_PER_SEC * TICK_SEC)).ceil() - ticks < 1e-9,
        "{ticks} ticks for {leg_km} km"
    );
    let drone = world.drone(1);
    let spent = (from.distance_km(origin) + leg_km) * PER_KM;
    assert!(
        (100.0 - drone.battery - spent).abs() < 0.01,
        "{} for {spent}",
        drone.battery
    );
    assert_eq!(
        (drone.status, drone.current_delivery.as_deref()),
        (DroneStatus::Busy, Some("d"))
    );
    assert!(!world.telemetry.is_empty());

    let before = world.telemetry.len();
    world.tick_after(1.0).await.unwrap();
    assert_eq!(
        world.telemetry.len(),
        before + 1,
        "waiting at the destination it repeats itself"
    );
    world.kv.set(&keys::delivery("d"), &loaded.arrive(5.0).unwrap());
    assert_eq!(world.tick().await.written, 0, "an ended delivery leads nowhere");
}

#[tokio::test]
async fn deliveries_are_read_seldom_and_foreign_ones_not_flown() {
    let (from, far) = (Point::new(41.81, 12.38), Point::new(41.97, 12.59));
    let delivery = Delivery::new("d".to_owned(), &order(far, from), &zones(), 1.0);
    let mut world = World::with(&[medium(from).take("d").unwrap()]).await;
    assert_eq!(world.tick().await.written, 0, "no record yet");
    world
        .kv
        .set(&keys::delivery("d"), &delivery.assign("drone-7", 2.0).unwrap());
    assert_eq!(world.tick().await.written, 0, "another's");
    world.kv.set(&keys::delivery("d"), &json!({"id": "d"}));
    assert_eq!(world.tick().await.written, 0, "unreadable");
    world
        .kv
        .set(&keys::delivery("d"), &delivery.assign("drone-1", 2.0).unwrap());
    let before = world.kv.count(Call::Batch);
    for _ in 0..9 {
        assert_eq!(world.tick().await.written, 1);
    }
    assert_eq!(world.kv.count(Call::Batch) - before, 9 + 1, "nine writes and one read");
}

#[tokio::test]
async fn who_was_taken_off_an_order_flies_to_its_pick_up_no_more() {
    let (from, far) = (Point::new(41.81, 12.38), Point::new(41.97, 12.59));
    let delivery = Delivery::new("d".to_owned(), &order(far, from), &zones(), 1.0);
    let assigned = delivery.assign("drone-1", 2.0).unwrap();
    let waiting = assigned.take_back(3.0).unwrap();
    // Its own record still says that it has the order: who takes orders back writes the order first, and may die then.
    for taken in [waiting.clone(), waiting.assign("drone-7", 4.0).unwrap()] {
        let mut world = World::with(&[medium(from).take("d").unwrap()]).await;
        world.kv.set(&keys::delivery("d"), &assigned);
        world.tick().await;
        assert_ne!(world.drone(1).pos, from);
        world.kv.set(&keys::delivery("d"), &taken);
        world.tick_after(REFRESH_SEC).await.unwrap();
        let stood = world.drone(1).pos;
        for _ in 0..5 {
            world.tick().await;
        }
        assert_eq!(world.drone(1).pos, stood);
    }
}

#[tokio::test]
async fn a_move_and_a_concurrent_change_of_status_both_survive() {
    let from = Point::new(41.90, 12.45);
    let charging = Drone {
        status: DroneStatus::Charging,
        ..medium(from)
    };
    let mut world = World::with(std::slice::from_ref(&charging)).await;
    world.kv.before_next(Call::Batch, {
        let charging = charging.clone();
        move |store| {
            let mut retiring = serde_json::to_value(charging.retire().unwrap()).unwrap();
            retiring["note"] = json!("by hand");
            store.set("drone:drone-1", &retiring);
        }
    });
    let report = world.tick().await;
    assert_eq!(
        report,
        TickReport {
            drones: 1,
            written: 1,
            conflicts: 1,
            lost: 0
        }
    );
    let drone = world.drone(1);
    assert_eq!(
        (drone.status, &drone.extra["note"]),
        (DroneStatus::Retiring, &json!("by hand"))
    );
    assert!(
        (drone.pos.distance_km(from) - KM_PER_SEC * TICK_SEC).abs() < 1e-3,
        "one tick, once"
    );
    assert!((100.0 - drone.battery - KM_PER_SEC * TICK_SEC * PER_KM).abs() < 1e-3);
}

#[tokio::test]
async fn who_is_frozen_moved_or_deleted_meanwhile_is_left_as_it_is() {
    let charging = Drone {
        status: DroneStatus::Charging,
        ..medium(Point::new(41.90, 12.45))
    };
    let frozen = Drone {
        freeze_until: Some(start().unix_sec + 60.0),
        ..charging.clone()
    };
    let mut world = World::with(std::slice::from_ref(&charging)).await;
    let by_hand = frozen.clone();
    world.kv.before_next(Call::Batch, move |store| {
        store.set("drone:drone-1", &by_hand);
    });
    assert_eq!(
        world.tick().await,
        TickReport {
            drones: 1,
            written: 0,
            conflicts: 1,
            lost: 0
        }
    );
    assert_eq!(world.drone(1), frozen);

    let elsewhere = charging.moved(Point::new(41.85, 12.55), 50.0, false);
    let by_hand = elsewhere.clone();
    world.kv.set("drone:drone-1", &charging);
    world.kv.before_next(Call::Batch, move |store| {
        store.set("drone:drone-1", &by_hand);
    });
    world.tick().await;
    let drone = world.drone(1);
    assert!(
        drone.battery < 50.0 && drone.pos.distance_km(elsewhere.pos) < 0.5,
        "it goes on from there: {drone:?}"
    );

    world.kv.before_next(Call::Batch, |store| {
        store.remove("drone:drone-1");
    });
    assert_eq!(world.tick().await.written, 0);
    assert_eq!(world.kv.value("drone:drone-1"), None);
}

#[tokio::test]
async fn idle_full_drones_are_not_written_and_tell_now_and_then() {
    let mut world = World::with(&[Drone::new(1, &zones()), Drone::new(2, &zones())]).await;
    for _ in 0..50 {
        assert_eq!(world.tick().await.written, 0);
    }
    assert_eq!(world.kv.count(Call::Batch), 0);
    assert_eq!(world.telemetry.len(), 2);
    world.tick_after(10.0).await.unwrap();
    assert_eq!(world.telemetry.len(), 4);
}

#[tokio::test]
async fn who_stands_gives_signs_of_life_and_who_is_frozen_does_not() {
    let frozen = Drone {
        freeze_until: Some(start().unix_sec + 30.0),
        ..Drone::new(2, &zones())
    };
    let mut world = World::with(&[Drone::new(1, &zones()), frozen.clone()]).await;
    world.tick().await;
    assert_eq!(world.telemetry.len(), 1, "of the other nothing is told");
    for beats in [1, 2] {
        assert_eq!(world.tick_after(10.0).await.unwrap().written, 1);
        assert_eq!(world.drone(1).seen_at, Some(world.now.unix_sec));
        assert_eq!((world.telemetry.len(), world.drone(2)), (1 + beats, frozen.clone()));
        assert_eq!(world.tick().await.written, 0);
    }
    // It may speak again, and does so at once: here, and after a start of the simulator.
    world.tick_after(10.0).await.unwrap();
    assert_eq!(world.tick_after(10.0).await.unwrap().written, 2);
    assert_eq!(world.drone(2).seen_at, Some(world.now.unix_sec));
    let known = [world.drone(1), world.drone(2)];
    let mut world = World::with(&known).await;
    world.now.unix_sec += 60.0;
    assert_eq!(world.tick().await.written, 2);
}

#[tokio::test]
async fn charging_fills_up_and_stops() {
    let zones = zones();
    let low = Drone {
        status: DroneStatus::Charging,
        ..Drone::new(1, &zones)
    };
    let mut world = World::with(&[low.moved(zones.zones[0].charge, 88.0, true)]).await;
    for expected in [93.0, 98.0, 100.0] {
        assert_eq!(world.tick().await.written, 1);
        assert!(
            (world.drone(1).battery - expected).abs() < 1e-6,
            "{} {expected}",
            world.drone(1).battery
        );
    }
    assert_eq!(world.tick().await.written, 0);
}

#[tokio::test]
async fn drones_queue_for_a_slot_in_the_order_of_their_arrival() {
    let zones = zones();
    let charge = zones.zones[0].charge;
    let sent = |number: u32, km: f64| {
        let pos = Point::new(charge.lat + km / 111.2, charge.lon);
        Drone::new(number, &zones).moved(pos, 50.0, false).charge(None).unwrap()
    };
    // drone-3 is there first, then drone-2, then drone-1.
    let mut world = World::with_slots(&[sent(1, 0.35), sent(2, 0.25), sent(3, 0.0)], 1).await;
    let mut left = Vec::new();
    for tick in 0..60 {
        world.tick().await;
        let fleet: Vec<Drone> = (1..=3).map(|number| world.drone(number)).collect();
        let charging = |drone: &&Drone| drone.charge_queue == Some(0) && drone.battery < 100.0;
        assert!(fleet.iter().filter(charging).count() <= 1, "{fleet:?}");
        if tick == 6 {
            let queue: Vec<_> = fleet.iter().map(|drone| drone.charge_queue).collect();
            assert_eq!(queue, [Some(2), Some(1), Some(0)]);
            assert!(fleet[0].charge_since > fleet[1].charge_since && fleet[1].charge_since > fleet[2].charge_since);
            assert!(fleet[0].at_charge && fleet[0].battery < 50.0, "waiting gives nothing");
            // Another simulator goes on with the same queue.
            let mut again = World::with_slots(&fleet, 1).await;
            again.now = world.now;
            world = again;
        }
        for drone in fleet.iter().filter(|drone| drone.battery >= 100.0) {
            if !left.contains(&drone.id) {
                left.push(drone.id.clone());
            }
        }
    }
    assert_eq!(left, ["drone-3", "drone-2", "drone-1"]);
    // Who is no longer to charge has no place.
    let freed = world.drone(2).charged(95.0).unwrap();
    assert_eq!((freed.charge_queue, freed.charge_since), (None, None));
    // One that a script made idle with its place in the record loses it.
    let mut by_hand = serde_json::to_value(world.drone(1)).unwrap();
    by_hand["status"] = json!("idle");
    world.kv.set("drone:drone-1", &by_hand);
    world.tick().await;
    assert_eq!(world.drone(1).charge_queue, None);
}

#[tokio::test]
async fn a_battery_that_runs_out_in_the_air_is_counted_once() {
    let zones = zones();
    let charge = zones.zones[0].charge;
    let sent = |km: f64, battery: f64| {
        let pos = Point::new(charge.lat + km / 111.2, charge.lon);
        medium(pos).moved(pos, battery, false).charge(None).unwrap()
    };
    // The battery lasts for 1 km, and for exactly the way.
    for (km, battery, ran_out) in [(1.5, PER_KM, 1), (1.0, PER_KM * 1.0005, 0), (0.0, 0.0, 0)] {
        let mut world = World::with(&[sent(km, battery)]).await;
        for _ in 0..120 {
            world.tick().await;
        }
        assert!(world.drone(1).at_charge && world.drone(1).battery > 90.0);
        assert_eq!(world.metrics.empty_in_air.get(), ran_out, "{km} km with {battery} %");
    }
}

#[tokio::test]
async fn an_outage_makes_drones_wait_but_not_jump() {
    let from = Point::new(41.90, 12.45);
    let mut world = World::with(&[Drone {
        status: DroneStatus::Charging,
        ..medium(from)
    }])
    .await;
    world.tick().await;
    world.kv.outage(Some(Fault::Unavailable));
    assert!(world.tick_after(TICK_SEC).await.unwrap_err().is_retryable());
    world.kv.outage(None);
    let before = world.drone(1).pos;
    world.tick_after(0.25).await.unwrap();
    let after = world.drone(1).pos;
    assert!(
        (before.distance_km(after) - 0.35 * KM_PER_SEC).abs() < 1e-3,
        "a short gap is made good"
    );
    world.tick_after(60.0).await.unwrap();
    let jump_km = after.distance_km(world.drone(1).pos);
    assert!(
        (jump_km - KM_PER_SEC).abs() < 2e-3,
        "a long one only up to a second: {jump_km}"
    );
}

#[tokio::test]
async fn a_write_of_unknown_outcome_is_never_flown_twice() {
    for fault in [Fault::UnknownDone, Fault::LostAnswer, Fault::UnknownNotDone] {
        let from = Point::new(41.90, 12.45);
        let mut world = World::with(&[Drone {
            status: DroneStatus::Charging,
            ..medium(from)
        }])
        .await;
        world.kv.fail_next(Call::Batch, 1, fault);
        assert!(world.tick_after(TICK_SEC).await.unwrap_err().is_outcome_unknown());
        world.tick().await;
        let flown_km = from.distance_km(world.drone(1).pos);
        assert!(
            flown_km < 2.0 * TICK_SEC * KM_PER_SEC * 1.01,
            "{fault:?}: {flown_km} km in two ticks"
        );
    }
}

#[tokio::test]
async fn registration_keeps_what_is_there_and_names_everybody() {
    let kv = FakeKv::start().await;
    let old = Drone::new(2, &zones()).moved(Point::new(41.9, 12.5), 37.0, false);
    kv.set("drone:drone-2", &old);
    kv.set("drone:drone-10", &Drone::new(10, &zones()));
    kv.set("drone:drone-3", "rubbish");
    kv.set(keys::DRONES_INDEX, &json!({"not": "a list"}));
    let client = kv.client();
    assert_eq!(fleet::register(&client, &[1, 2, 3, 4], &zones()).await.unwrap(), 2);
    assert_eq!(kv.record::<Drone>("drone:drone-2").unwrap(), old);
    assert_eq!(kv.value("drone:drone-3").unwrap(), json!("rubbish"));
    let index = json!(["drone-1", "drone-2", "drone-3", "drone-4", "drone-10"]);
    assert_eq!(kv.value(keys::DRONES_INDEX).unwrap(), index);
    let new: Drone = kv.record("drone:drone-4").unwrap();
    assert_eq!((new.status, new.at_charge), (DroneStatus::Idle, true));
    assert_eq!(fleet::register(&client, &[1, 2, 3, 4], &zones()).await.unwrap(), 0);
    kv.fail_next(Call::Batch, 1, Fault::Unavailable);
    assert!(
        fleet::register(&client, &[1, 2, 3, 4], &zones())
            .await
            .unwrap_err()
            .is_retryable()
    );
}

#[tokio::test]
async fn lost_records_are_registered_again_and_foreign_ones_left_alone() {
    let mut world = World::with(&[Drone::new(1, &zones()), Drone::new(2, &zones())]).await;
    world.kv.with(|store| store.remove("drone:drone-2"));
    world.kv.set("drone:x", &json!({"a": 1}));
    world.kv.set("drone:drone-9", &Drone::new(8, &zones()));
    assert_eq!(world.tick_after(10.0).await.unwrap().drones, 1);
    assert_eq!(world.tick().await.drones, 2);
    assert_eq!(world.kv.value("drone:x").unwrap(), json!({"a": 1}));
    assert_eq!(
        world.kv.record::<Drone>("drone:drone-9").unwrap(),
        Drone::new(8, &zones())
    );
}

#[tokio::test]
async fn the_zones_of_the_gateway_count() {
    let kv = FakeKv::start().await;
    let client = kv.client();
    assert_eq!(fleet::read_zones(&client).await.unwrap(), None);
    kv.set(keys::ZONES_CONFIG, &json!({"rows": 1}));
    assert_eq!(fleet::read_zones(&client).await.unwrap(), None);
    let grid = ZonesConfig::rome(3, 4).unwrap();
    kv.set(keys::ZONES_CONFIG, &grid);
    assert_eq!(fleet::await_zones(&client, &Shutdown::new()).await.unwrap(), grid);
    kv.with(|store| store.remove(keys::ZONES_CONFIG));
    let stopped = Shutdown::new();
    stopped.stop();
    assert_eq!(
        fleet::await_zones(&client, &stopped).await.unwrap(),
        fleet::default_zones()
    );
}

#[tokio::test]
async fn the_service_starts_flies_tells_and_stops() {
    let kv = FakeKv::start().await;
    kv.set(keys::ZONES_CONFIG, &zones());
    kv.outage(Some(Fault::Unavailable));
    let bus = InProcess::new();
    let mut updates = bus.subscribe(&Topic::work("updates"), 100).await;
    let url = kv.url.clone();
    let args = [
        "drone-sim",
        "--kv-url",
        &url,
        "--drone-pool-max",
        "5",
        "--drone-tick-sec",
        "0.01",
    ];
    let config = Config::parse_from(args.into_iter().chain(["--drone-updates-queue", "updates"]));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let shutdown = Shutdown::new();
    let service = tokio::spawn(drone_sim::run(config, listener, bus.clone(), shutdown.clone()));
    let http = reqwest::Client::new();
    let get = async |path: &str| http.get(format!("{base}{path}")).send().await.unwrap();
    assert_eq!(get("/health").await.status(), 200);
    assert_eq!(get("/ready").await.status(), 503, "without a KV nothing flies");
    kv.outage(None);

    let deadline = Instant::now() + Duration::from_secs(15);
    while get("/ready").await.status() != 200 {
        assert!(
            Instant::now() < deadline,
            "{}",
            get("/ready").await.text().await.unwrap()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut drone: Drone = kv.record("drone:drone-2").unwrap();
    drone.pos = Point::new(41.935, 12.43);
    drone.status = DroneStatus::Charging;
    drone.battery = 50.0;
    kv.set("drone:drone-2", &drone);
    while kv.record::<Drone>("drone:drone-2").unwrap().battery < 99.9 {
        assert!(Instant::now() < deadline, "{:?}", kv.value("drone:drone-2"));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut moved = false;
    while !moved {
        let delivery = tokio::time::timeout(Duration::from_secs(5), updates.next())
            .await
            .unwrap()
            .unwrap();
        let update: DroneUpdate = serde_json::from_slice(&delivery.body).unwrap();
        let shape: Value = serde_json::from_slice(&delivery.body).unwrap();
        assert_eq!(shape["type"], "drone_update");
        moved = update.drone_id == "drone-2" && update.status == DroneStatus::Charging;
        delivery.ack().await;
    }
    let metrics = get("/metrics").await.text().await.unwrap();
    for name in [
        "drone_sim_tick_seconds_count",
        "drone_sim_writes_total",
        "drone_sim_drones{status=\"idle\"} 4",
    ] {
        assert!(metrics.contains(name), "{name} in {metrics}");
    }
    shutdown.stop();
    tokio::time::timeout(Duration::from_secs(5), service)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_drone_that_stands_at_its_origin_says_so_at_once() {
    let origin = Point::new(41.90, 12.45);
    let drone = medium(origin);
    let mut world = World::with(std::slice::from_ref(&drone)).await;
    world.tick().await;
    let order = Delivery::new("d".to_owned(), &order(origin, Point::new(41.88, 12.52)), &zones(), 1.0);
    world
        .kv
        .set(&keys::delivery("d"), &order.assign("drone-1", 2.0).unwrap());
    world.kv.set("drone:drone-1", &drone.take("d").unwrap());
    assert_eq!((world.tick().await.written, world.telemetry.len()), (0, 2));
    assert_eq!(
        (world.tick().await.written, world.telemetry.len()),
        (0, 2),
        "and not every tick"
    );
}

#[tokio::test]
async fn time_spent_standing_is_not_flown_later() {
    let from = Point::new(41.90, 12.45);
    let drone = medium(from);
    let mut world = World::with(std::slice::from_ref(&drone)).await;
    for _ in 0..5 {
        world.tick().await;
    }
    world.kv.set("drone:drone-1", &drone.charge(None).unwrap());
    world.tick().await;
    let flown_km = from.distance_km(world.drone(1).pos);
    assert!(
        (flown_km - KM_PER_SEC * TICK_SEC).abs() < 1e-3,
        "{flown_km} km in the first tick"
    );
}
