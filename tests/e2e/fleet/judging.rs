//! Whether the judges find what is wrong. Were it not for this, their silence would prove nothing.

use std::time::Duration;

use domain::delivery::Delivery;
use domain::drone::Drone;
use domain::keys;
use domain::order::NewOrder;
use domain::zones::{DEFAULT_GRID_COLS, DEFAULT_GRID_ROWS, ZonesConfig};
use kv_client::Version;
use serde::Serialize;
use serde_json::{Value, json};

use super::bonds::loose;
use super::picture::Picture;

/// A picture that is told one change after the other.
struct Told {
    picture: Picture,
    version: u32,
}

impl Told {
    /// One that knows two idle drones.
    fn new() -> Self {
        let mut told = Self {
            picture: Picture::default(),
            version: 0,
        };
        for number in [1, 2] {
            told.drone(&drone(number)).expect("an idle drone");
        }
        told
    }

    fn tell(&mut self, key: &str, value: Option<&Value>) -> Result<(), String> {
        self.version += 1;
        let version = Version(format!("{:09}", self.version));
        self.picture.note(Duration::ZERO, key, &version, value)
    }

    fn order(&mut self, record: &Delivery) -> Result<(), String> {
        self.tell(&keys::delivery(&record.id), Some(&json!(record)))
    }

    fn drone(&mut self, record: &Drone) -> Result<(), String> {
        self.tell(&keys::drone(&record.id), Some(&json!(record)))
    }

    fn open(&mut self, id: &str, value: impl Serialize) {
        let value = json!(value);
        self.tell(&keys::open(id), (!value.is_null()).then_some(&value))
            .expect("any entry is allowed");
    }

    fn half_done(&self) -> Vec<&'static str> {
        loose(&self.picture).iter().map(super::bonds::Loose::kind).collect()
    }
}

fn zones() -> ZonesConfig {
    ZonesConfig::rome(DEFAULT_GRID_ROWS, DEFAULT_GRID_COLS).expect("the default grid")
}

fn drone(number: u32) -> Drone {
    Drone::new(number, &zones())
}

fn pending(id: &str) -> Delivery {
    let body =
        json!({ "origin": { "lat": 41.9, "lon": 12.5 }, "destination": { "lat": 41.92, "lon": 12.5 }, "weight": 1 });
    let order = NewOrder::parse(&body).expect("a good order");
    Delivery::new(id.to_owned(), &order, &zones(), 1.0)
}

#[test]
fn a_whole_life_is_allowed_and_nothing_of_it_is_half_done_but_for_an_instant() {
    let mut told = Told::new();
    told.open("a", "a");
    let waits = pending("a");
    told.order(&waits).unwrap();
    assert_eq!(told.half_done(), [""; 0]);
    told.drone(&drone(1).take("a").unwrap()).unwrap();
    assert_eq!(told.half_done(), ["waiting with a drone busy for it"]);
    let assigned = waits.assign("drone-1", 2.0).unwrap();
    told.order(&assigned).unwrap();
    assert_eq!(told.half_done(), [""; 0]);
    let loaded = assigned.first_movement(3.0).unwrap().at_origin(4.0).unwrap();
    told.order(&loaded).unwrap();
    // The same again is no news.
    told.version -= 1;
    told.order(&loaded).unwrap();
    told.order(&loaded.arrive(5.0).unwrap()).unwrap();
    assert_eq!(
        told.half_done(),
        ["held by a drone that it does not have", "ended and still listed"]
    );
    told.drone(&drone(1)).unwrap();
    told.open("a", Value::Null);
    assert_eq!(told.half_done(), [""; 0]);
}

#[test]
fn what_must_not_be_is_found_at_once() {
    let waits = pending("a");
    let assigned = waits.assign("drone-1", 2.0).unwrap();
    let loaded = assigned.first_movement(3.0).unwrap().at_origin(4.0).unwrap();
    let delivered = loaded.arrive(5.0).unwrap();
    let mut twice = delivered.clone();
    twice.history.push(delivered.history.last().unwrap().clone());
    let mut exchanged = assigned.clone();
    exchanged.drone_id = Some("drone-2".to_owned());
    exchanged.history.push(domain::delivery::HistoryEntry {
        drone_id: exchanged.drone_id.clone(),
        ..assigned.history.last().unwrap().clone()
    });
    let mut unloaded = waits.clone();
    unloaded.history = loaded.history.clone();
    unloaded.history.push(waits.history[0].clone());
    let cases = [
        (&delivered, &waits, "changed after"),
        (&delivered, &loaded, "changed after"),
        (&delivered, &twice, "went from"),
        (&assigned, &exchanged, "went from"),
        (&loaded, &unloaded, "went from"),
        (&loaded, &waits, "has another past"),
        (&assigned, &waits.assign("drone-2", 9.0).unwrap(), "has another past"),
    ];
    for (before, after, what) in cases {
        let mut told = Told::new();
        told.order(before).unwrap();
        let wrong = told.order(after).unwrap_err();
        assert!(
            wrong.contains(what) && wrong.contains("its record: "),
            "{what}: {wrong}"
        );
    }
    let mut told = Told::new();
    told.order(&waits).unwrap();
    assert!(
        told.tell(&keys::delivery("a"), None)
            .unwrap_err()
            .contains("was deleted")
    );
    let mut empty = drone(1).take("a").unwrap();
    empty.current_delivery = None;
    assert!(told.drone(&empty).unwrap_err().contains("is busy and holds None"));
}

#[test]
fn what_nobody_may_leave_like_that_is_seen_as_half_done() {
    let mut told = Told::new();
    let assigned = pending("a").assign("drone-1", 2.0).unwrap();
    told.order(&assigned).unwrap();
    assert_eq!(
        told.half_done(),
        ["open and not listed", "given to a drone that does not hold it"]
    );
    told.open("a", "a");
    for number in [1, 2] {
        told.drone(&drone(number).take("a").unwrap()).unwrap();
    }
    assert_eq!(
        told.half_done(),
        ["held by a drone that it does not have", "held by two drones"]
    );
    told.drone(&drone(2)).unwrap();
    told.open("b", "b");
    told.order(&pending("b").assign("drone-1", 3.0).unwrap()).unwrap();
    assert_eq!(
        told.half_done(),
        [
            "given to a drone that does not hold it",
            "given to a drone that has another"
        ]
    );
}
