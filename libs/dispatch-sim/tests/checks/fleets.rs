//! Runs with weight classes, batteries, chargers, and times at the doors.

use dispatch_sim::world::{self, Failure, Settings, Trip};
use dispatch_sim::{
    Bounds, Charger, Classes, Demand, Doors, Energy, Greedy, Matching, Optimal, Order, Point, Policy, Reference,
    Report, Straight,
};

fn policies() -> [(&'static str, Box<dyn Policy>); 3] {
    [
        ("greedy", Box::new(Greedy)),
        ("matching", Box::<Matching>::default()),
        ("optimal", Box::<Optimal>::default()),
    ]
}

/// Four chargers in a square of 20 km.
fn energy(slots: usize, per_km_pct: f64) -> Energy {
    let places = [(5.0, 5.0), (15.0, 5.0), (5.0, 15.0), (15.0, 15.0)];
    Energy {
        per_km_pct,
        margin_pct: 5.0,
        critical_pct: 30.0,
        full_pct: 95.0,
        charge_pct_per_min: 5.0,
        chargers: places
            .map(|(x, y)| Charger {
                at: Point::new(x, y),
                slots,
            })
            .to_vec(),
    }
}

fn classes(drones: usize, orders: usize, heavier_may: bool) -> Classes {
    let ranks = |count: usize| (0..3_u8).cycle().take(count).collect();
    Classes {
        drones: ranks(drones),
        orders: ranks(orders),
        km_per_min: vec![1.2, 1.0, 0.8],
        heavier_may,
    }
}

fn with_classes(policy: &dyn Policy, reference: &Reference, classes: &Classes) -> (Report, Vec<Trip>) {
    let (orders, starts) = reference.draw();
    let demand = Demand::uniform(reference.square_km, 20, reference.orders_per_min());
    let settings = Settings {
        classes: Some(classes),
        ..Settings::plain(reference.km_per_min(), &demand)
    };
    let (report, trips) = world::run(policy, &orders, &starts, &settings).unwrap_or_else(|failure| panic!("{failure}"));
    let bounds = Bounds::of_world(&orders, starts.len(), &settings);
    assert!(report.to_deliver.mean >= bounds.best_min(), "{report:?} {bounds:?}");
    (report, trips)
}

fn with_energy(policy: &dyn Policy, reference: &Reference, energy: &Energy) -> (Report, Vec<Trip>) {
    let (orders, starts) = reference.draw();
    let demand = Demand::uniform(reference.square_km, 20, reference.orders_per_min());
    let settings = Settings {
        energy: Some(energy),
        ..Settings::plain(reference.km_per_min(), &demand)
    };
    world::run(policy, &orders, &starts, &settings).unwrap_or_else(|failure| panic!("{failure}"))
}

fn few(drones: usize, utilisation: f64, orders: usize) -> Reference {
    Reference {
        orders,
        ..Reference::new(drones, utilisation, 7)
    }
}

/// Nobody falls from the sky, with any policy, slots enough or few, light load or heavy; and every order arrives all the same.
#[test]
fn batteries_never_run_out_in_the_air() {
    for (slots, per_km_pct, utilisation) in [(4, 2.0, 0.5), (1, 2.0, 0.6), (2, 1.2, 0.9), (1, 2.0, 2.0)] {
        for (name, policy) in policies() {
            let (report, trips) = with_energy(policy.as_ref(), &few(9, utilisation, 600), &energy(slots, per_km_pct));
            let charging = report.charging;
            // The margin is left even on arrival at the charger.
            assert!(
                charging.least_battery_pct >= 5.0 - 1e-6,
                "{name} with {slots} slots: {charging:?}"
            );
            assert!(charging.stays > 100, "{name}: {charging:?}");
            assert!(trips.iter().all(|trip| trip.delivered_min.is_finite()));
            assert!(report.flown.to_chargers_km > 0.0);
        }
    }
}

#[test]
fn few_slots_make_drones_wait_for_them() {
    let waits = |slots| {
        with_energy(&Optimal::default(), &few(18, 0.6, 800), &energy(slots, 2.0))
            .0
            .charging
    };
    let (one, many) = (waits(1), waits(18));
    assert!(
        one.queued > 20 && one.waits.mean > 0.0 && one.waits.max >= one.waits.p95,
        "{one:?}"
    );
    assert_eq!(many.queued, 0, "{many:?}");
    assert!(many.waits.max <= 0.0);
}

/// By hand: 100 % and 2 % per km. 4 km to the first order and 26 with it leave 40; the charger is 1 km on. The second order needs
/// 1 + 20 + 5 km and 5 %, so the drone charges first: 26 - 1 km at the charger it has 38 %, and 57 % at 5 % a minute take 11.4 minutes.
#[test]
fn an_order_that_nobody_has_battery_for_gets_a_helper() {
    let energy = Energy {
        chargers: vec![Charger {
            at: Point::new(31.0, 0.0),
            slots: 1,
        }],
        ..energy(1, 2.0)
    };
    let order = |id, from, to, placed_min| Order {
        id,
        origin: Point::new(from, 0.0),
        destination: Point::new(to, 0.0),
        placed_min,
    };
    let orders = [order(0, 4.0, 30.0, 0.0), order(1, 31.0, 51.0, 40.0)];
    let demand = Demand::unknown();
    let settings = Settings {
        energy: Some(&energy),
        ..Settings::plain(1.0, &demand)
    };
    for (name, policy) in policies() {
        let (report, trips) = world::run(policy.as_ref(), &orders, &[Point::default()], &settings).unwrap();
        assert!((trips[0].delivered_min - 30.0).abs() < 1e-9, "{name}: {trips:?}");
        // Sent at 40, at the charger at 41, charged at 41 + 57 / 5, and 20 minutes to deliver.
        assert!(
            (trips[1].delivered_min - (41.0 + 11.4 + 20.0)).abs() < 1e-9,
            "{name}: {trips:?}"
        );
        assert_eq!((report.charging.stays, report.charging.queued), (1, 0), "{name}");
        assert!(
            (report.charging.least_battery_pct - 38.0).abs() < 1e-9,
            "{name}: {report:?}"
        );
        assert!((report.flown.empty_km() - 5.0).abs() < 1e-9 && (report.flown.loaded_km - 46.0).abs() < 1e-9);
    }
}

#[test]
fn an_order_beyond_every_battery_stalls_and_can_be_told_before() {
    let energy = energy(4, 8.0);
    let order = Order {
        id: 0,
        origin: Point::new(0.0, 0.0),
        destination: Point::new(20.0, 20.0),
        placed_min: 0.0,
    };
    assert!(!energy.can_ever_fly(&Straight, &order));
    let demand = Demand::unknown();
    let settings = Settings {
        energy: Some(&energy),
        ..Settings::plain(1.0, &demand)
    };
    let failure = world::run(&Greedy, &[order], &[Point::new(10.0, 10.0)], &settings).unwrap_err();
    assert_eq!(failure, Failure::Stalled { left: 1 });
}

#[test]
fn heavy_parcels_need_heavy_drones() {
    let reference = few(18, 0.6, 900);
    let (orders, _) = reference.draw();
    for heavier_may in [false, true] {
        let classes = classes(18, 900, heavier_may);
        for (name, policy) in policies() {
            let (_, trips) = with_classes(policy.as_ref(), &reference, &classes);
            let mut lifted = 0;
            for (order, trip) in orders.iter().zip(&trips) {
                let (has, needs) = (
                    classes.drones[trip.drone],
                    classes.orders[usize::try_from(order.id).unwrap()],
                );
                assert!(has >= needs, "{name}: {has} carries {needs}");
                lifted += usize::from(has > needs);
                let loaded_min = trip.delivered_min - trip.picked_up_min;
                assert!((loaded_min - order.direct_km() / classes.km_per_min[usize::from(has)]).abs() < 1e-6);
            }
            assert_eq!(lifted > 0, heavier_may, "{name}: {lifted}");
        }
    }
    // Sharing is worth it.
    let mean = |heavier_may| {
        let classes = classes(18, 900, heavier_may);
        with_classes(&Optimal::default(), &reference, &classes)
            .0
            .to_deliver
            .mean
    };
    assert!(mean(true) < mean(false));
}

#[test]
fn doors_take_their_time() {
    let order = Order {
        id: 0,
        origin: Point::new(3.0, 0.0),
        destination: Point::new(5.0, 0.0),
        placed_min: 1.0,
    };
    let demand = Demand::unknown();
    let delivered = |doors: Doors| {
        let doors = [doors];
        let settings = Settings {
            doors: &doors,
            ..Settings::plain(1.0, &demand)
        };
        let (_, trips) = world::run(&Greedy, &[order], &[Point::default()], &settings).unwrap();
        let bound = Bounds::of_world(&[order], 1, &settings).direct_min;
        assert!(trips[0].delivered_min - 1.0 >= bound);
        assert!((trips[0].picked_up_min - 4.0).abs() < 1e-9);
        trips[0].delivered_min
    };
    assert!((delivered(Doors::default()) - 6.0).abs() < 1e-9);
    let doors = Doors {
        pickup_service_min: 2.0,
        open_from_min: 0.0,
        delivery_service_min: 0.5,
    };
    assert!((delivered(doors) - 8.5).abs() < 1e-9);
    assert!(
        (delivered(Doors {
            open_from_min: 20.0,
            ..doors
        }) - 20.5)
            .abs()
            < 1e-9
    );
}
