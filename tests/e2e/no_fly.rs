//! No-fly zones as users set them: nobody is seen over one, and orders whose straight way crosses one arrive all the same.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::drone::Drone;
use domain::geo::Point;
use domain::keys;
use domain::no_fly::NoFly;
use kv_client::{Kv, WatchEvent};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::process::wait_until;
use crate::system::{Options, System, body, id_of, turn};

/// A wall from north to south between the charge points, and to the east of it a cup that is open to the north.
const ZONES: &str = "41.83,12.475 41.83,12.495 41.95,12.495 41.95,12.475; \
    41.88,12.505 41.88,12.535 41.92,12.535 41.92,12.53 41.89,12.53 41.89,12.51 41.92,12.51 41.92,12.505";
/// From where to where: across the wall, out of the cup through its foot, and into it across the wall.
const CROSSING: [[(f64, f64); 2]; 3] = [
    [(41.89, 12.46), (41.89, 12.50)],
    [(41.90, 12.52), (41.87, 12.52)],
    [(41.90, 12.46), (41.90, 12.52)],
];
/// How long the orders may take.
const DELIVERED_WITHIN: Duration = Duration::from_secs(90);

/// Where drones were seen.
#[derive(Debug, Default)]
struct Sightings {
    /// The drones that moved with an order, by the order.
    orders: BTreeSet<String>,
    count: usize,
    /// Who was seen over a zone.
    inside: Vec<String>,
}

/// Looks at every place that the KV is told of, until dropped.
struct Lookout {
    seen: Arc<Mutex<Sightings>>,
    looking: JoinHandle<()>,
}

impl Lookout {
    fn start(kv: &Kv, no_fly: &NoFly) -> Self {
        let seen: Arc<Mutex<Sightings>> = Arc::default();
        let (kv, no_fly, shared) = (kv.clone(), no_fly.clone(), Arc::clone(&seen));
        let looking = tokio::spawn(async move {
            let mut watch = kv.watch(keys::DRONE_PREFIX);
            loop {
                // After an error it goes on where it was.
                let Ok(WatchEvent::Change(change)) = watch.next().await else {
                    continue;
                };
                let Some(value) = &change.value else { continue };
                let drone: Drone = serde_json::from_str(value.get()).expect("a drone");
                let mut seen = lock(&shared);
                seen.count += 1;
                seen.orders.extend(drone.current_delivery.clone());
                if no_fly.zone_of(drone.pos).is_some() {
                    seen.inside.push(format!("{} at {:?}", drone.id, drone.pos));
                }
            }
        });
        Self { seen, looking }
    }

    fn seen(&self) -> MutexGuard<'_, Sightings> {
        lock(&self.seen)
    }
}

impl Drop for Lookout {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

fn lock(seen: &Mutex<Sightings>) -> MutexGuard<'_, Sightings> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn order([origin, destination]: [(f64, f64); 2]) -> Value {
    let place = |(lat, lon): (f64, f64)| json!({"lat": lat, "lon": lon});
    json!({"origin": place(origin), "destination": place(destination), "weight": 1.0})
}

#[tokio::test]
async fn nobody_flies_over_a_zone_and_orders_across_it_arrive() {
    let _turn = turn().await;
    let no_fly: NoFly = ZONES.parse().expect("zones");
    for [from, to] in CROSSING.map(|ends| ends.map(|(lat, lon)| Point::new(lat, lon))) {
        // In steps as long as those in which drones fly here: whoever took the straight way would be seen inside.
        let is_inside = |step: u32| no_fly.zone_of(from.move_fraction(to, f64::from(step) / 10.0)).is_some();
        assert!(
            (1..10).filter(|step| is_inside(*step)).count() >= 2,
            "{from:?} to {to:?}"
        );
    }
    let system = System::start(Options {
        settings: vec![("NO_FLY_ZONES", ZONES), ("DRONE_TICK_SEC", "0.1")],
        ..Options::default()
    })
    .await;
    let zones = system.kv.get(keys::ZONES_CONFIG).await.expect("zones are stored");
    assert_eq!(zones["no_fly"].as_array().map(Vec::len), Some(2), "{zones}");
    let kv = Kv::new(&system.kv.front.url(), kv_client::Options::default()).expect("a URL");
    let lookout = Lookout::start(&kv, &no_fly);
    // The watch tells what comes after it has begun.
    wait_until(Duration::from_secs(20), "drones are seen", async || {
        lookout.seen().count > 0
    })
    .await;

    let inside = (41.89, 12.48);
    let outside = (41.85, 12.45);
    for (ends, field) in [([inside, outside], "origin"), ([outside, inside], "destination")] {
        let answer = system.order(&order(ends), None).await;
        assert_eq!(answer.status(), 422);
        let expected =
            format!("{field}: got lat 41.89, lon 12.48, inside no_fly[0]; expected a place outside the no-fly zones");
        assert_eq!(body(answer).await, json!({"detail": expected, "field": field}));
    }

    let mut ids = Vec::new();
    for ends in CROSSING {
        let answer = system.order(&order(ends), None).await;
        assert_eq!(answer.status(), 201);
        ids.push(id_of(answer).await);
    }
    system.all_delivered(&ids, DELIVERED_WITHIN).await;
    let seen = lookout.seen();
    assert!(seen.inside.is_empty(), "over a zone: {:?}", seen.inside);
    let watched = ids.iter().filter(|id| seen.orders.contains(*id)).count();
    assert_eq!(watched, ids.len(), "each flight was seen: {} sightings", seen.count);
}
