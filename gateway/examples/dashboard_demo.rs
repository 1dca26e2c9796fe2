//! The dashboard over made-up drones and orders, for working on the page without the rest of the system:
//!
//!     cargo run -p gateway --example dashboard_demo -- --listen 127.0.0.1:8000

use std::time::Duration;

use bus::InProcess;
use domain::delivery::Delivery;
use domain::drone::Drone;
use domain::geo::Point;
use domain::keys;
use domain::order::NewOrder;
use domain::zones::{ROME, ZonesConfig};
use kv_client::testing::FakeKv;
use service::{Shutdown, program, settings};
use tokio::net::TcpListener;

const DRONES: u32 = 18;
const STEP: Duration = Duration::from_millis(375);
const STEP_KM: f64 = 0.18;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut config: gateway::Config = settings::parse();
    let kv = FakeKv::start().await;
    config.kv_url.clone_from(&kv.url);
    let listener = TcpListener::bind(config.listen).await?;
    program::announce("gateway", &listener);
    let shutdown = Shutdown::new();
    shutdown.on_signals()?;
    tokio::spawn(fly(kv, shutdown.clone()));
    gateway::run(config, listener, InProcess::new(), shutdown).await
}

/// Flies busy drones from origins to destinations for ever; some others charge, retire or rest.
async fn fly(kv: FakeKv, shutdown: Shutdown) {
    let zones = ZonesConfig::rome(2, 2).expect("two by two is a grid");
    let mut now = std::time::UNIX_EPOCH.elapsed().map_or(0.0, |since| since.as_secs_f64());
    let mut seed = 7_u32;
    let mut fleet: Vec<Drone> = (1..=DRONES).map(|number| Drone::new(number, &zones)).collect();
    for (index, drone) in fleet.iter_mut().enumerate().skip(9) {
        let changed = match index {
            9 | 10 => drone
                .charge(None)
                .map(|drone| drone.moved(drone.pos, 24.0 + f64::from(seed % 30), true)),
            11 => drone.retire(),
            12..=14 => drone.retire().and_then(|drone| drone.retired(95.0)),
            _ => Ok(drone.clone()),
        };
        *drone = changed.expect("the drone is idle");
    }
    let mut flying: Vec<Option<Delivery>> = fleet.iter().map(|_| None).collect();
    loop {
        for (drone, order) in fleet.iter_mut().zip(&mut flying).take(9) {
            step(&kv, &zones, drone, order, &mut seed, now);
        }
        if seed.is_multiple_of(11) {
            let waiting = an_order(&zones, &mut seed, now);
            kv.set(&keys::delivery(&waiting.id), &waiting);
        }
        for drone in &fleet {
            kv.set(&keys::drone(&drone.id), drone);
        }
        now += STEP.as_secs_f64();
        if !shutdown.sleep(STEP).await {
            return;
        }
    }
}

fn step(kv: &FakeKv, zones: &ZonesConfig, drone: &mut Drone, order: &mut Option<Delivery>, seed: &mut u32, now: f64) {
    let current = match order.take() {
        Some(current) => current,
        None => {
            let fresh = an_order(zones, seed, now)
                .assign(&drone.id, now)
                .expect("it is pending");
            *drone = drone.take(&fresh.id).expect("it is idle");
            fresh.first_movement(now).expect("it is assigned")
        }
    };
    let target = current.target().unwrap_or(drone.pos);
    *drone = drone.moved(drone.pos.move_towards(target, STEP_KM), drone.battery - 0.15, false);
    let next = if drone.pos != target {
        current
    } else if let Ok(picked_up) = current.at_origin(now) {
        picked_up
    } else {
        let delivered = current.arrive(now).expect("it is at its destination");
        *drone = drone.release(&delivered.id).expect("it is busy with it");
        delivered
    };
    kv.set(&keys::delivery(&next.id), &next);
    *order = next.status.is_open().then_some(next);
}

fn an_order(zones: &ZonesConfig, seed: &mut u32, now: f64) -> Delivery {
    let order = NewOrder {
        origin: place(seed),
        destination: place(seed),
        weight: 0.5 + unit(seed) * 9.0,
        priority: None,
        deadline: None,
    };
    Delivery::new(uuid::Uuid::now_v7().to_string(), &order, zones, now)
}

fn place(seed: &mut u32) -> Point {
    let between = |from: f64, to: f64, part: f64| from + (to - from) * (0.05 + 0.9 * part);
    let lat = between(ROME.lat_min, ROME.lat_max, unit(seed));
    Point::new(lat, between(ROME.lon_min, ROME.lon_max, unit(seed)))
}

fn unit(seed: &mut u32) -> f64 {
    *seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    f64::from(*seed >> 8) / f64::from(1_u32 << 24)
}
