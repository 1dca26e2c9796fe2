//! Li & Lim's files: read, written, solved, checked.

use dispatch_sim::pdptw::{Fault, Instance, Online, Solution, insert};
use dispatch_sim::world::{self, Settings};
use dispatch_sim::{Demand, Greedy, Matching, Optimal, Point, Policy, Reference};

/// Two requests from task 1 to 3 and from 2 to 4, on a line through the depot.
const SMALL: &str = "\
2 10 1
0  0 0   0  0 200 0 0 0
1 10 0   6  0 100 1 0 3
2 20 0   5 30 100 1 0 4
3 30 0  -6 20 100 1 1 0
4 40 0  -5  0 100 1 2 0
";

fn small() -> Instance {
    Instance::read(SMALL).expect("an instance")
}

fn faults(instance: &Instance, routes: &[&[usize]]) -> Vec<Fault> {
    let routes = routes.iter().map(|route| route.to_vec()).collect();
    instance.check(&Solution { routes }).1
}

#[test]
fn files_are_read_and_written() {
    let instance = small();
    assert_eq!((instance.vehicles, instance.tasks.len()), (2, 5));
    assert_eq!(instance.pickups().collect::<Vec<_>>(), [1, 2]);
    assert_eq!((instance.tasks[2].partner, instance.tasks[4].partner), (4, 2));
    assert!(instance.tasks[3].at == Point::new(30.0, 0.0) && !instance.tasks[3].is_pickup);
    assert_eq!(Instance::read(&instance.write()).unwrap(), instance);
    assert!(Instance::is_one(SMALL) && !Instance::is_one("time,origin_x") && !Instance::is_one(""));
}

#[test]
fn what_is_wrong_with_a_file_is_named() {
    for (from, to, named) in [
        ("2 10 1", "0 10 1", "line 1, vehicles"),
        ("2 10 1", "2 ten 1", "line 1, capacity: \"ten\""),
        ("2 10 1", "2 10 0", "line 1, speed"),
        ("2 10 1", "2 4 1", "line 3, demand"),
        ("1 10 0   6", "1 10 zero 6", "line 3, y: \"zero\""),
        ("1 10 0   6", "7 10 0   6", "line 3, task: \"7\""),
        ("1 10 0   6", "1 10 0  -6", "line 3, demand"),
        ("0 100 1 0 3", "0 100 1 0 4", "line 3, delivery: \"4\""),
        ("0 100 1 0 3", "101 100 1 0 3", "line 3, due"),
        ("0 100 1 0 3", "0 100 1 0", "line 3, columns"),
        ("0 100 1 0 3", "0 100 1 2 3", "line 3, pick-up"),
        ("-6 20 100", "-5 20 100", "line 3, demand"),
        ("20 100 1 1 0", "20 100 1 9 0", "line 3, delivery"),
    ] {
        let error = Instance::read(&SMALL.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(error.contains(named) && error.contains("expected"), "{to}: {error}");
    }
    assert!(Instance::read("2 10 1\n").unwrap_err().to_string().contains("depot"));
    assert!(Instance::read("").unwrap_err().to_string().contains("line 1, vehicles"));
}

#[test]
fn solutions_are_read_and_written() {
    let text = "Instance name : x\nAuthors: who\nSolution\nRoute 1 : 1 3\nRoute  2 : 0 2 4 0\n";
    let solution = Solution::read(text).unwrap();
    assert_eq!(solution.routes, [[1, 3], [2, 4]]);
    let written = solution.write("x", "who", "a test");
    assert!(
        written.starts_with("Instance name : x\n") && written.ends_with("Route 2 : 2 4\n"),
        "{written}"
    );
    assert_eq!(Solution::read(&written).unwrap(), solution);
    assert!(
        Solution::read("Route 1 : 1 x")
            .unwrap_err()
            .to_string()
            .contains("line 1, route: \"x\"")
    );
    assert!(Solution::read("nothing").is_err());
}

#[test]
fn the_checker_finds_each_fault() {
    let instance = small();
    let (cost, faults_of_good) = instance.check(&Solution {
        routes: vec![vec![1, 3], vec![2, 4]],
    });
    assert!(faults_of_good.is_empty(), "{faults_of_good:?}");
    assert!(cost.vehicles == 2 && (cost.distance - 140.0).abs() < 1e-9, "{cost:?}");
    // One after the other on a single vehicle: at 30 it turns back for the second.
    assert_eq!(faults(&instance, &[&[1, 3, 2, 4]]), []);
    assert!(matches!(
        faults(&instance, &[&[1, 2, 3, 4]])[..],
        [Fault::Capacity { route: 1, task: 2, .. }]
    ));
    assert_eq!(
        faults(&instance, &[&[1, 3]]),
        [Fault::Missing { task: 2 }, Fault::Missing { task: 4 }]
    );
    assert_eq!(
        faults(&instance, &[&[3, 1], &[2, 4]]),
        [Fault::NotPickedUp {
            route: 1,
            task: 3,
            pickup: 1
        }]
    );
    assert_eq!(
        faults(&instance, &[&[1, 2, 4], &[3]])[1..],
        [Fault::NotPickedUp {
            route: 2,
            task: 3,
            pickup: 1
        }]
    );
    assert_eq!(
        faults(&instance, &[&[1, 3], &[2, 4, 9]]),
        [Fault::NoSuchTask { route: 2, task: 9 }]
    );
    assert_eq!(
        faults(&instance, &[&[1, 3, 3], &[2, 4]]),
        [Fault::Twice { route: 1, task: 3 }]
    );
    let late = Instance::read(&SMALL.replace("20 100 1 1 0", "20 25 1 1 0")).unwrap();
    assert!(matches!(
        faults(&late, &[&[1, 3], &[2, 4]])[..],
        [Fault::Late { route: 1, task: 3, .. }]
    ));
    let shut = Instance::read(&SMALL.replace("0 200 0", "0 100 0")).unwrap();
    assert!(matches!(
        faults(&shut, &[&[1, 3, 2, 4]])[..],
        [Fault::Late { route: 1, task: 0, .. }]
    ));
    let alone = Instance::read(&SMALL.replacen("2 10 1", "1 10 1", 1)).unwrap();
    assert_eq!(
        faults(&alone, &[&[1, 3], &[2, 4]]),
        [Fault::Vehicles { used: 2, allowed: 1 }]
    );
}

/// Requests of our own, drawn by chance; windows that a vehicle of its own can keep.
fn drawn(seed: u64, requests: usize) -> Instance {
    let reference = Reference {
        orders: requests,
        ..Reference::new(1, 0.7, seed)
    };
    let (orders, starts) = reference.draw();
    let mut instance = Instance::of_orders(&orders, requests, 1.0, starts[0]);
    instance.capacity = 3.0;
    for task in instance.tasks.iter_mut().skip(1) {
        task.service = 50.0;
        let window = if task.is_pickup { 6_000.0 } else { 12_000.0 };
        let from = if task.is_pickup { task.ready } else { 0.0 };
        if task.is_pickup {
            task.due = from + window;
        }
    }
    instance
}

#[test]
fn insertion_keeps_all_the_rules_and_saves_vehicles() {
    for seed in 1..=5 {
        let instance = drawn(seed, 60);
        let mut told = Vec::new();
        let solution = insert(&instance, |done| told.push(done));
        let (cost, faults) = instance.check(&solution);
        assert_eq!(faults, [], "seed {seed}");
        assert!(cost.vehicles < 30, "{cost:?}");
        assert!(told.is_sorted() && told.last() == Some(&60));
        let each_alone = Solution {
            routes: instance
                .pickups()
                .map(|pickup| vec![pickup, instance.tasks[pickup].partner])
                .collect(),
        };
        let (alone, faults) = instance.check(&each_alone);
        assert!(
            faults.is_empty() && cost.distance < 0.8 * alone.distance,
            "{cost:?} {alone:?}"
        );
    }
}

#[test]
fn requests_can_be_played_as_orders_and_read_back_as_routes() {
    let policies: [&dyn Policy; 3] = [&Greedy, &Matching::default(), &Optimal::default()];
    for seed in 1..=3 {
        let mut instance = drawn(seed, 40);
        instance.vehicles = 12;
        let online = Online::new(&instance);
        assert!(online.orders.is_sorted_by(|a, b| a.placed_min <= b.placed_min));
        let starts = vec![instance.tasks[0].at; 12];
        let demand = Demand::unknown();
        let settings = Settings {
            doors: &online.doors,
            ..Settings::plain(instance.speed, &demand)
        };
        for policy in policies {
            let (_, trips) = world::run(policy, &online.orders, &starts, &settings).unwrap();
            let solution = online.routes(&instance, &trips);
            let (cost, faults) = instance.check(&solution);
            // Windows may be missed; nothing else.
            assert!(
                faults.iter().all(|fault| matches!(fault, Fault::Late { .. })),
                "{faults:?}"
            );
            assert!(cost.vehicles <= 12 && cost.distance > 0.0);
        }
    }
}

/// What is written of the reference world can be solved: one after the other by one vehicle, if need be.
#[test]
fn our_orders_make_an_instance_that_can_be_solved() {
    let (orders, _) = Reference {
        orders: 50,
        ..Reference::new(3, 0.7, 4)
    }
    .draw();
    let instance = Instance::of_orders(&orders, 3, 1.0, Point::new(10.0, 10.0));
    let again = Instance::read(&instance.write()).unwrap();
    assert_eq!(again, instance);
    assert_eq!((again.vehicles, again.tasks.len()), (3, 101));
    let route: Vec<usize> = (1..=100).collect();
    let (cost, faults) = again.check(&Solution { routes: vec![route] });
    assert_eq!(faults, []);
    // Distances in 10 m.
    let loaded_km: f64 = orders.iter().map(dispatch_sim::Order::direct_km).sum();
    assert!(cost.distance / 100.0 > loaded_km);
}
