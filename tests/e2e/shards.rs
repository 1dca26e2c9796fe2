//! A fleet that two drone-sims fly, each its part.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::process::{Process, wait_until};
use crate::system::{Options, System, body, id_of, order, send, turn};

/// Drones of the fleet.
const DRONES: usize = 18;
/// Orders at a time: so many that all drones are wanted.
const ORDERS: u32 = 24;
/// Flights and the charging before them.
const DELIVERED_WITHIN: Duration = Duration::from_secs(150);
/// A drone that is silent for this long is lost, seconds.
const DRONE_LOST_SEC: &str = "4";

/// Whether the second drone-sim flies this drone: the fleet is cut in the middle of its keys, in their order.
fn is_of_the_second(id: &str) -> bool {
    let mut ids: Vec<String> = (1..=DRONES).map(|number| format!("drone-{number}")).collect();
    ids.sort();
    id > ids[DRONES / 2 - 1].as_str()
}

/// How many drones a drone-sim sees.
async fn seen(system: &System, process: &Process) -> f64 {
    let url = format!("{}/metrics", process.url());
    let Ok(answer) = system.http.get(url).send().await else {
        return 0.0;
    };
    let text = answer.text().await.unwrap_or_default();
    let values = text.lines().filter(|line| line.starts_with("drone_sim_drones{"));
    values
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// All drones, by id, as the KV has them.
async fn fleet(system: &System) -> BTreeMap<String, Value> {
    let mut records = Vec::new();
    wait_until(Duration::from_secs(30), "the KV answers", async || {
        let answer = send(system.http.get(system.kv.url("/kv?prefix=drone:"))).await;
        records = body(answer).await["items"].as_array().cloned().unwrap_or_default();
        records.len() == DRONES
    })
    .await;
    let drone = |mut record: Value| {
        let drone = record["value"].take();
        (drone["id"].as_str().unwrap_or_default().to_owned(), drone)
    };
    records.into_iter().map(drone).collect()
}

/// The drones of the second part that are so.
async fn seconds(system: &System, is_so: impl Fn(&Value) -> bool) -> Vec<String> {
    let fleet = fleet(system).await.into_iter();
    let some = fleet.filter(|(id, drone)| is_of_the_second(id) && is_so(drone));
    some.map(|(id, _)| id).collect()
}

/// Whether drones of the first and of the second part fly: looked at from one time to when the first have moved, having orders to fly.
async fn parts_that_move(system: &System, ids: &mut Vec<String>) -> [bool; 2] {
    let before = fleet(system).await;
    let mut moved = [false, false];
    wait_until(Duration::from_secs(60), "drones of the first part fly", async || {
        keep_flying(system, ids).await;
        for (id, drone) in fleet(system).await {
            moved[usize::from(is_of_the_second(&id))] |= drone["pos"] != before[&id]["pos"];
        }
        moved[0]
    })
    .await;
    moved
}

/// An order more, when the first part has few to fly.
async fn keep_flying(system: &System, ids: &mut Vec<String>) {
    let fleet = fleet(system).await;
    let busy = fleet
        .iter()
        .filter(|(id, drone)| !is_of_the_second(id) && drone["status"] == "busy");
    if busy.count() < 4 {
        ids.extend(place(system, 1).await);
    }
}

/// Orders, each once, however often a busy machine has to be asked.
async fn place(system: &System, orders: u32) -> Vec<String> {
    static PLACED: AtomicU32 = AtomicU32::new(0);
    let mut ids = Vec::new();
    for _ in 0..orders {
        let number = PLACED.fetch_add(1, Ordering::Relaxed);
        let (order, key) = (order(number), format!("shards-{number}"));
        wait_until(Duration::from_secs(30), "an order is accepted", async || {
            let answer = system.order(&order, Some(&key)).await;
            let is_accepted = answer.status().is_success();
            if is_accepted {
                ids.push(id_of(answer).await);
            }
            is_accepted
        })
        .await;
    }
    ids
}

/// Waits until every order has ended; tells which drones have delivered. One whose drone was lost with the parcel on board fails.
async fn delivered_by(system: &System, ids: &[String]) -> Vec<String> {
    let mut drones = Vec::new();
    for id in ids {
        let mut record = Value::Null;
        wait_until(DELIVERED_WITHIN, &format!("{id} ends"), async || {
            record = system.delivery(id).await;
            record["status"] == "delivered" || record["status"] == "failed"
        })
        .await;
        if record["status"] == "delivered" {
            drones.push(record["drone_id"].as_str().expect("who delivered it").to_owned());
        } else {
            assert_eq!(record["reason"], "drone_lost", "{record}");
        }
    }
    drones
}

#[tokio::test]
async fn two_parts_of_a_fleet_fly_and_one_is_killed_and_flies_again() {
    let _turn = turn().await;
    let options = Options {
        settings: vec![("DRONE_LOST_SEC", DRONE_LOST_SEC), ("CHARGER_SLOTS", "2")],
        shards: 2,
        ..Options::default()
    };
    let mut system = System::start(options).await;
    let all: Vec<String> = (1..=DRONES).map(|number| format!("drone-{number}")).collect();
    wait_until(Duration::from_secs(10), "the index names all", async || {
        system.kv.get("drones_index").await == Some(json!(all))
    })
    .await;
    wait_until(Duration::from_secs(10), "each flies half of the fleet", async || {
        let [first, second] = &system.drones[..] else {
            return false;
        };
        (seen(&system, first).await, seen(&system, second).await) == (9.0, 9.0)
    })
    .await;

    let ids = place(&system, ORDERS).await;
    let drones = delivered_by(&system, &ids).await;
    assert_eq!(drones.len(), ids.len(), "nobody was lost");
    let of_the_second = drones.iter().filter(|id| is_of_the_second(id)).count();
    assert!(
        (1..drones.len()).contains(&of_the_second),
        "by drones of both: {drones:?}"
    );

    // One half dies in mid-flight.
    let mut ids = place(&system, ORDERS).await;
    wait_until(Duration::from_secs(30), "its drones have orders", async || {
        seconds(&system, |drone| drone["status"] == "busy").await.len() > 1
    })
    .await;
    system.drones[1].kill();
    wait_until(Duration::from_secs(60), "its drones are lost", async || {
        keep_flying(&system, &mut ids).await;
        !seconds(&system, |drone| drone["status"] == "lost").await.is_empty()
    })
    .await;
    assert_eq!(
        parts_that_move(&system, &mut ids).await,
        [true, false],
        "the others fly, its drones stand still"
    );

    // It carries on.
    system.drones[1].start_again();
    wait_until(Duration::from_secs(30), "its drones are back", async || {
        seconds(&system, |drone| drone["status"] == "lost").await.is_empty()
    })
    .await;
    ids.extend(place(&system, ORDERS).await);
    wait_until(Duration::from_secs(60), "its drones fly again", async || {
        parts_that_move(&system, &mut ids).await == [true, true]
    })
    .await;
    let drones = delivered_by(&system, &ids).await;
    assert!(drones.iter().any(|id| is_of_the_second(id)), "{drones:?}");
}
