//! How long a plan of the dispatcher takes, from its records to its pairs: `cargo bench -p dispatcher --bench plan`.
//!
//! Places spread evenly over the city, three classes, full batteries; wall-clock, least and median of several plans.

#![expect(clippy::print_stdout, reason = "the result of a measurement")]

use std::collections::HashMap;
use std::time::Instant;

use dispatcher::Config;
use dispatcher::policy::{Policy, Snapshot, may_be_taken_back};
use dispatcher::rules::Rules;
use domain::delivery::Delivery;
use domain::drone::Drone;
use domain::geo::Point;
use domain::order::NewOrder;
use domain::zones::ZonesConfig;

const PLANS: usize = 7;

/// The documented defaults, of a fleet that ticks every 0.375 s and whose size nobody changes.
fn rules(looked_at: usize, swaps_max: u32) -> Rules {
    let config = service::settings::try_parse_from::<Config>(["dispatcher", "--drone-tick-sec", "0.375"]);
    let config = config.expect("every other setting has a default");
    Rules {
        swaps_max,
        pending_scan_limit: looked_at,
        autoscale: None,
        debug_charge: false,
        ..config.rules()
    }
}

/// Point number `number` of a sequence that fills the city evenly: multiples of irrational numbers.
fn place(number: usize) -> Point {
    #[expect(clippy::cast_precision_loss, reason = "some ten thousands")]
    let spread = |step: f64| (number as f64 * step).fract();
    Point::new(
        41.80 + 0.18 * spread(0.754_877_666),
        12.37 + 0.23 * spread(0.569_840_291),
    )
}

/// `waiting` orders that wait, and `fleet` drones of which `fetching` fly to the pick-up of one and `loaded` have one on board.
fn case(name: &str, waiting: usize, fleet: usize, (fetching, loaded): (usize, usize), rules: &Rules) {
    let zones = ZonesConfig::rome(2, 2).expect("a grid that there is");
    let order = |number: usize| {
        let new = NewOrder {
            origin: place(number + 20_000),
            destination: place(number + 50_000),
            weight: [2.0, 5.0, 9.0][number % 3],
            priority: None,
            deadline: None,
        };
        Delivery::new(format!("{number:06}"), &new, &zones, 0.0)
    };
    let mut drones: Vec<Drone> = (1..)
        .zip(0..fleet)
        .map(|(number, place_number)| Drone::new(number, &zones).moved(place(place_number), 90.0, false))
        .collect();
    let mut flown = Vec::new();
    for (number, drone) in drones.iter_mut().take(fetching + loaded).enumerate() {
        let mut record = order(number).assign(&drone.id, 0.0).expect("it waits");
        if number >= fetching {
            let flying = record.first_movement(0.0).and_then(|record| record.at_origin(0.0));
            record = flying.expect("it was assigned");
        }
        *drone = drone.take(&record.id).expect("it is idle");
        flown.push(record);
    }
    let orders: Vec<Delivery> = (flown.len()..flown.len() + waiting).map(order).collect();
    let pairs: Vec<(&Drone, &Delivery)> = drones.iter().zip(&flown).collect();
    let flights: HashMap<&str, &Delivery> = pairs.iter().map(|(drone, order)| (drone.id.as_str(), *order)).collect();
    let swappable = pairs
        .iter()
        .filter(|(drone, order)| may_be_taken_back(order, drone, 1.0, rules));
    let snapshot = Snapshot {
        now: 1.0,
        zones: &zones,
        pending: orders.iter().collect(),
        drones: drones.iter().collect(),
        flights,
        swappable: swappable.map(|(_, order)| *order).collect(),
    };
    let mut times_ms: Vec<f64> = (0..PLANS)
        .map(|_| {
            let began = Instant::now();
            let plan = Policy::Optimal.plan(&snapshot, rules);
            assert!(plan.assignments.len() <= rules.max_assign_per_round);
            began.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times_ms.sort_by(f64::total_cmp);
    let plan = Policy::Optimal.plan(&snapshot, rules);
    println!(
        "{name:<64}{:>8.1}{:>8.1} ms  {} assigned, {} promised, {} taken back{}",
        times_ms[0],
        times_ms[PLANS / 2],
        plan.assignments.len(),
        plan.promised.len(),
        plan.taken_back.len(),
        if plan.fell_back.is_some() {
            ", greedy decided"
        } else {
            ""
        },
    );
}

fn main() {
    let (usual, all) = (500, 10_000);
    println!("{:<64}{:>8}{:>8}", "", "least", "median");
    case(
        "18 drones, 6 on the way to a pick-up, 30 orders wait",
        30,
        18,
        (6, 9),
        &rules(usual, 3),
    );
    for (name, swaps_max) in [("", 3), (", no swaps", 0)] {
        let of = |text: &str| format!("{text}{name}");
        let flying = (400, 500);
        case(
            &of("1,000 drones, 400 on the way, nobody waits"),
            0,
            1_000,
            flying,
            &rules(usual, swaps_max),
        );
        case(
            &of("1,000 drones, 400 on the way, 20 wait"),
            20,
            1_000,
            flying,
            &rules(usual, swaps_max),
        );
    }
    case(
        "2,000 drones, 10,000 wait, as far as they are looked at",
        10_000,
        2_000,
        (0, 0),
        &rules(usual, 3),
    );
    case(
        "2,000 drones, 10,000 wait, all looked at",
        10_000,
        2_000,
        (0, 0),
        &rules(all, 3),
    );
    case(
        "10,000 drones, 10,000 wait, as far as they are looked at",
        10_000,
        10_000,
        (0, 0),
        &rules(usual, 3),
    );
    case(
        "10,000 drones, 10,000 wait, all looked at",
        10_000,
        10_000,
        (0, 0),
        &rules(all, 3),
    );
    case(
        "10,000 drones, 4,000 on the way, 6,000 wait, all looked at",
        6_000,
        10_000,
        (4_000, 4_000),
        &rules(all, 3),
    );
}
