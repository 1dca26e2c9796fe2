//! The dispatcher's engine in a small city: whole lives of orders, crashes at every point, starvation, contradictions.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests may panic as well: that is the report"
)]

mod compare;
mod energy;
mod support;
mod swaps;

use clap::ValueEnum;
use dispatcher::policy::Policy;
use dispatcher::rules::Rules;
use domain::delivery::{
    DeliveryStatus, Leg, OpenEntry, REASON_DRONE_LOST, REASON_NO_FLY_ZONE, REASON_OUT_OF_AREA, REASON_OUT_OF_RANGE,
};
use domain::drone::{Drone, DroneStatus, DroneType};
use domain::geo::Point;
use domain::keys;
use proptest::prelude::{ProptestConfig, any, prop, proptest};
use serde_json::json;
use support::{CrashMode, LateKv, Step, World, autoscale, rules};

const NEAR_A: Point = Point::new(41.94, 12.43);
const NEAR_B: Point = Point::new(41.92, 12.45);
const NORTH_WEST: Point = Point::new(41.98, 12.37);
const SOUTH_EAST: Point = Point::new(41.80, 12.60);

fn delivered(id: &str) -> impl Fn(&World) -> bool + use<> {
    let id = id.to_owned();
    move |world| world.status(&id) == DeliveryStatus::Delivered
}

#[tokio::test]
async fn an_order_lives_to_be_delivered() {
    for policy in Policy::value_variants() {
        let mut world = World::under(*policy, 3, rules());
        let id = world.order(NEAR_A, NEAR_B, 1.0);
        world.step().await;
        let assigned = world.delivery(&id);
        assert_eq!(
            (assigned.status, assigned.drone_id.as_deref()),
            (DeliveryStatus::Assigned, Some("drone-1"))
        );
        assert_eq!(world.drone(1).current_delivery.as_ref(), Some(&id));
        assert_eq!(world.kv.locks_held(), 0);
        world.km_per_step = 0.3;
        assert!(world.until(60.0, delivered(&id)).await);
        let done = world.delivery(&id);
        let times = [done.assigned_at, done.picked_up_at, done.delivered_at].map(Option::unwrap);
        assert!(
            done.timestamp <= times[0] && times[0] < times[1] && times[1] < times[2],
            "{times:?}"
        );
        world.check_at_rest();
        assert_eq!(
            world.told(&id),
            [
                "delivery_assigned",
                "delivery_in_flight",
                "delivery_picked_up",
                "delivery_completed"
            ]
        );
    }
}

#[tokio::test]
async fn what_nobody_can_fly_fails_with_its_reason() {
    let mut world = World::new(3, rules());
    let paris = world.order(NEAR_A, Point::new(48.85, 2.35), 1.0);
    world.rules.energy.battery_per_km = 4.0;
    world.restart();
    let far = world.order(NORTH_WEST, SOUTH_EAST, 1.0);
    world.step().await;
    assert_eq!(world.delivery(&paris).reason.as_deref(), Some(REASON_OUT_OF_AREA));
    assert_eq!(world.delivery(&far).reason.as_deref(), Some(REASON_OUT_OF_RANGE));
    world.check_at_rest();
    assert_eq!(world.told(&far), ["delivery_failed"]);
}

/// Between the charge points of the west and the east, from the south of the city nearly to its north.
const WALL: &str = "41.805,12.47 41.805,12.48 41.975,12.48 41.975,12.47";

#[tokio::test]
async fn who_is_nearest_is_decided_by_the_way_round_no_fly_zones() {
    for policy in [Policy::Greedy, Policy::Optimal] {
        let mut world = World::under(policy, 4, rules());
        world.draw(WALL);
        // 2 km west of the wall, 4 km east of it: the wall is between the first and the order.
        let (west, east) = (Point::new(41.89, 12.45), Point::new(41.89, 12.53));
        world.edit_drone(1, |drone| drone.pos = west);
        world.edit_drone(4, |drone| drone.pos = east);
        let (origin, destination) = (Point::new(41.89, 12.481), Point::new(41.89, 12.465));
        let id = world.order(origin, destination, 1.0);
        world.step().await;
        let order = world.delivery(&id);
        assert_eq!(order.drone_id.as_deref(), Some("drone-4"), "{policy:?}");
        // Its loaded leg goes round the wall, too.
        let pace = world.rules.pace;
        let min = pace.minutes(order.delivery_eta.unwrap() - order.pickup_eta.unwrap());
        let km = min * pace.km_per_min(DroneType::Light);
        assert!((km - world.zones.way_km(origin, destination)).abs() < 1e-6, "{km} km");
        assert!(km > 10.0 * origin.distance_km(destination), "{km} km");
        assert!(world.until(600.0, delivered(&id)).await);
        world.check_at_rest();
    }
}

#[tokio::test]
async fn an_order_in_a_no_fly_zone_fails_also_when_the_zone_is_drawn_later() {
    let mut world = World::new(1, rules());
    world.edit_drone(1, |drone| drone.status = DroneStatus::Inactive);
    world.rules.autoscale = None;
    world.restart();
    let inside = Point::new(41.89, 12.475);
    let (from, to, beside) = (
        world.order(inside, NEAR_A, 1.0),
        world.order(NEAR_A, inside, 1.0),
        world.order(NEAR_A, NEAR_B, 1.0),
    );
    world.step().await;
    assert_eq!(world.status(&from), DeliveryStatus::Pending);
    world.draw(WALL);
    let failed = |id: String| move |world: &World| world.status(&id) == DeliveryStatus::Failed;
    assert!(world.until(60.0, failed(from.clone())).await);
    for id in [&from, &to] {
        assert_eq!(world.delivery(id).reason.as_deref(), Some(REASON_NO_FLY_ZONE));
    }
    assert_eq!(world.status(&beside), DeliveryStatus::Pending);
}

/// The scenario of the crash tests: more orders than drones, one that nobody can fly, and one for which a drone must charge.
async fn busy_hour(
    policy: Policy,
    crash: Option<(usize, CrashMode)>,
    mut next_crash: impl FnMut() -> Option<(usize, CrashMode)>,
) -> usize {
    let mut world = World::under(policy, 4, rules());
    world.rules.autoscale = Some(autoscale(3));
    world.rules.top_up_below_pct = if policy.tops_up() { 80.0 } else { 0.0 };
    world.restart();
    world.edit_drone(1, |drone| drone.battery = 45.0);
    world.edit_drone(4, |drone| drone.battery = 35.0);
    let orders = [
        world.order(NEAR_A, NEAR_B, 1.0),
        world.order(NORTH_WEST, SOUTH_EAST, 2.0),
        world.order(NEAR_B, NEAR_A, 5.0),
        world.order(NEAR_A, Point::new(41.88, 12.50), 6.0),
        world.order(NEAR_B, NEAR_A, 9.0),
    ];
    let paris = world.order(NEAR_A, Point::new(48.85, 2.35), 1.0);
    world.km_per_step = 3.0;
    world.charge_per_step = 20.0;
    if let Some((at, mode)) = crash {
        world.kv.crash_at(at, mode);
    } else {
        world.kv.crash_at(usize::MAX, CrashMode::Before);
    }
    let quiet = |world: &World| {
        orders.iter().all(|id| world.status(id) == DeliveryStatus::Delivered)
            && world.kv.keys(keys::OPEN_PREFIX).is_empty()
            && world.fleet().iter().all(|drone| drone.current_delivery.is_none())
    };
    let end = world.now() + 400.0;
    while !quiet(&world) && world.now() < end {
        if world.step().await == Step::Crashed
            && let Some((at, mode)) = next_crash()
        {
            world.kv.crash_at(at, mode);
        }
    }
    let ended = quiet(&world);
    let left: Vec<_> = orders.iter().map(|id| world.delivery(id)).collect();
    assert!(ended, "after {crash:?}: {left:?} {:?}", world.fleet());
    assert_eq!(world.status(&paris), DeliveryStatus::Failed);
    world.check_at_rest();
    world.kv.ops()
}

#[tokio::test]
async fn a_crash_at_any_operation_loses_nothing_and_doubles_nothing() {
    for policy in Policy::value_variants() {
        let ops = busy_hour(*policy, None, || None).await;
        assert!(ops > 60, "{ops}");
        for at in 0..ops {
            busy_hour(*policy, Some((at, CrashMode::Before)), || None).await;
            busy_hour(*policy, Some((at, CrashMode::After)), || None).await;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn a_dispatcher_that_keeps_crashing_gets_there_all_the_same(optimal in any::<bool>(), crashes in prop::collection::vec((0..40_usize, any::<bool>()), 1..12)) {
        let mode = |after| if after { CrashMode::After } else { CrashMode::Before };
        let mut crashes = crashes.into_iter().map(move |(at, after)| (at, mode(after)));
        let first = crashes.next();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let policy = if optimal { Policy::Optimal } else { Policy::Greedy };
        runtime.block_on(busy_hour(policy, first, move || crashes.next()));
    }
}

#[tokio::test]
async fn two_dispatchers_never_give_one_order_two_drones() {
    for policy in Policy::value_variants() {
        let mut world = World::under(*policy, 12, rules());
        let orders: Vec<String> = (0..40)
            .map(|number| {
                let shift = f64::from(number % 7) * 0.01;
                world.order(
                    Point::new(41.85 + shift, 12.45),
                    Point::new(41.86 + shift, 12.47),
                    f64::from(number % 3) * 4.0 + 1.0,
                )
            })
            .collect();
        let mut other = world.another_engine();
        let all = |world: &World| orders.iter().all(|id| world.status(id) == DeliveryStatus::Delivered);
        for _ in 0..3_000 {
            world.simulate();
            // Both at once, interleaved at every call of the KV.
            let (a, b) = tokio::join!(world.engine.round(Default::default()), other.round(Default::default()));
            a.unwrap();
            b.unwrap();
            world.check();
            if all(&world) && world.kv.keys(keys::OPEN_PREFIX).is_empty() {
                break;
            }
        }
        assert!(all(&world));
        world.until(5.0, |_| false).await;
        world.check_at_rest();
        // Each transition was told exactly once.
        assert_eq!(world.told(&orders[0]).len(), 4);
    }
}

#[tokio::test]
async fn a_single_drone_with_an_empty_battery_charges_for_the_order_and_flies_it() {
    for policy in Policy::value_variants() {
        let mut world = World::under(*policy, 1, rules());
        world.edit_drone(1, |drone| drone.battery = 40.0);
        let id = world.order(NORTH_WEST, SOUTH_EAST, 1.0);
        world.step().await;
        assert_eq!(
            world.drone(1).status,
            DroneStatus::Charging,
            "at once, not after five orders"
        );
        assert!(world.until(120.0, delivered(&id)).await);
    }
}

#[tokio::test]
async fn a_single_full_drone_at_the_wrong_charge_point_flies_there_first() {
    for policy in Policy::value_variants() {
        let mut world = World::under(*policy, 1, rules());
        let wrong = world.zones.zones[3].charge;
        world.edit_drone(1, |drone| drone.pos = wrong);
        let id = world.order(NORTH_WEST, SOUTH_EAST, 1.0);
        assert!(world.until(120.0, delivered(&id)).await, "{:?}", world.drone(1));
    }
}

#[tokio::test]
async fn an_order_that_needs_more_than_full_after_is_flown() {
    for policy in Policy::value_variants() {
        let mut world = World::under(*policy, 1, rules());
        world.rules.full_after_pct = 50.0;
        world.restart();
        world.edit_drone(1, |drone| drone.battery = 45.0);
        let id = world.order(NORTH_WEST, SOUTH_EAST, 1.0);
        assert!(world.until(120.0, delivered(&id)).await, "{:?}", world.drone(1));
    }
}

#[tokio::test]
async fn a_long_order_is_not_starved_by_a_steady_stream_of_short_ones() {
    for policy in Policy::value_variants() {
        let mut world = World::under(*policy, 4, rules());
        let (first, second) = (world.zones.zones[3].charge, world.zones.zones[2].charge);
        world.edit_drone(1, |drone| drone.pos = first);
        world.edit_drone(4, |drone| drone.pos = second);
        // Only a nearly full drone from the charge points in the north-west can fly it.
        let long = world.order(NORTH_WEST, SOUTH_EAST, 1.0);
        let mut minutes = 0;
        while world.status(&long) != DeliveryStatus::Delivered {
            minutes += 1;
            assert!(minutes < 20, "{:?} {:?}", world.drone(1), world.drone(4));
            for _ in 0..300 {
                // Always enough short ones waiting for both drones.
                while world.kv.keys(keys::OPEN_PREFIX).len() < 8 {
                    world.order(Point::new(41.83, 12.55), Point::new(41.85, 12.57), 1.0);
                }
                world.step().await;
            }
        }
    }
}

#[tokio::test]
async fn an_order_does_not_wait_beside_a_parked_drone() {
    for policy in Policy::value_variants() {
        let mut world = World::under(*policy, 18, rules());
        world.rules.autoscale = Some(autoscale(3));
        world.restart();
        for number in 4..=18 {
            world.edit_drone(number, |drone| drone.status = DroneStatus::Inactive);
        }
        world.km_per_step = 0.001;
        // `optimal` would rather wait for one that is soon free, until it sees that it is not.
        let patience_sec = if *policy == Policy::Greedy { 1.0 } else { 60.0 };
        for _ in 0..6 {
            let id = world.order(NEAR_A, NEAR_B, 1.0);
            world.step().await;
            assert!(
                world
                    .until(patience_sec, |world| world.status(&id) != DeliveryStatus::Pending)
                    .await
            );
        }
    }
}

#[tokio::test]
async fn a_sleeping_class_is_woken_for_its_order() {
    for policy in Policy::value_variants() {
        for status in [DroneStatus::Inactive, DroneStatus::Retiring] {
            let mut world = World::under(*policy, 6, rules());
            // A fleet size that the awake ones fill already.
            world.rules.autoscale = Some(autoscale(2));
            world.restart();
            for number in [1, 4] {
                world.edit_drone(number, |drone| {
                    drone.status = status;
                    drone.battery = 60.0;
                });
            }
            let id = world.order(NEAR_A, NEAR_B, 1.0);
            world.step().await;
            assert_eq!(world.status(&id), DeliveryStatus::Assigned, "{status:?}");
        }
    }
}

#[tokio::test]
async fn a_far_pick_up_is_allowed_after_the_grace() {
    for policy in Policy::value_variants() {
        let mut world = World::under(*policy, 1, rules());
        world.rules.max_pickup_km = 1.0;
        world.restart();
        let id = world.order(Point::new(41.90, 12.45), Point::new(41.89, 12.44), 1.0);
        world.until(29.0, |_| false).await;
        assert_eq!(world.status(&id), DeliveryStatus::Pending);
        assert!(
            world
                .until(3.0, |world| world.status(&id) != DeliveryStatus::Pending)
                .await
        );
        assert!(world.until(60.0, delivered(&id)).await);
    }
}

#[tokio::test]
async fn critical_drones_charge_and_come_back() {
    let mut world = World::new(3, rules());
    world.edit_drone(2, |drone| drone.battery = 20.0);
    world.step().await;
    assert_eq!(world.drone(2).status, DroneStatus::Charging);
    assert!(
        world
            .until(30.0, |world| world.drone(2).status == DroneStatus::Idle)
            .await
    );
    assert!(world.drone(2).battery >= 95.0);
}

#[tokio::test]
async fn with_one_slot_per_charge_point_drones_take_turns_and_every_order_is_flown() {
    for policy in Policy::value_variants() {
        let mut world = World::under(*policy, 9, rules());
        world.rules.charger_slots = 1;
        world.charge_per_step = 2.0;
        world.restart();
        for number in 1..=9 {
            world.edit_drone(number, |drone| {
                drone.pos = NEAR_A;
                drone.battery = 20.0 + f64::from(number);
            });
        }
        let orders: Vec<String> = (0..18)
            .map(|number| world.order(NORTH_WEST, SOUTH_EAST, f64::from(number % 3) * 4.0 + 1.0))
            .collect();
        let mut waited = false;
        let end = world.now() + 900.0;
        while !orders.iter().all(|id| world.status(id) == DeliveryStatus::Delivered) {
            assert!(world.now() < end, "{:?}", world.fleet());
            world.step().await;
            for zone in &world.zones.zones {
                let here = (world.fleet().into_iter()).filter(|drone| drone.pos.is_at_charge(zone.charge));
                let queue: Vec<u32> = here
                    .filter(|drone| drone.battery < 100.0)
                    .filter_map(|drone| drone.charge_queue)
                    .collect();
                assert!(queue.iter().filter(|place| **place == 0).count() <= 1, "{queue:?}");
                waited |= queue.iter().any(|place| *place > 0);
            }
        }
        assert!(waited, "nobody had to wait");
        // All of them were nearest to the same charge point, and did not all queue there.
        world.until(5.0, |_| false).await;
        world.check_at_rest();
    }
}

#[tokio::test]
async fn a_drone_that_no_order_needs_tops_up_and_leaves_for_the_first_that_does() {
    let mut world = World::under(Policy::Optimal, 1, rules());
    world.rules.top_up_below_pct = 80.0;
    world.rules.charger_slots = 1;
    world.charge_per_step = 1.0;
    world.restart();
    world.edit_drone(1, |drone| (drone.pos, drone.battery) = (NEAR_A, 70.0));
    world.step().await;
    let drone = world.drone(1);
    assert_eq!((drone.status, drone.top_up), (DroneStatus::Charging, true));
    assert!(world.until(20.0, |world| world.drone(1).charge_queue == Some(0)).await);
    let id = world.order(NEAR_A, NEAR_B, 1.0);
    world.step().await;
    let taken = world.drone(1);
    assert_eq!(taken.current_delivery.as_ref(), Some(&id), "at once: {taken:?}");
    assert!((taken.charge_queue, taken.top_up) == (None, false) && taken.battery < 80.0);
    // With another order waiting there is no time for it; afterwards it goes on until it is full.
    let next = world.order(NEAR_B, NEAR_A, 1.0);
    assert!(world.until(60.0, delivered(&id)).await);
    world.step().await;
    assert_eq!(world.drone(1).current_delivery.as_ref(), Some(&next));
    assert!(world.until(60.0, delivered(&next)).await);
    assert!(
        world
            .until(60.0, |world| world.drone(1).status == DroneStatus::Idle
                && world.drone(1).battery >= 95.0)
            .await
    );
    world.until(5.0, |_| false).await;
    assert_eq!(world.drone(1).status, DroneStatus::Idle, "that is enough");
}

#[tokio::test]
async fn who_tops_up_charges_for_a_long_order_that_needs_it_and_flies_it() {
    let mut world = World::under(Policy::Optimal, 1, rules());
    world.rules.top_up_below_pct = 80.0;
    world.restart();
    world.edit_drone(1, |drone| drone.battery = 60.0);
    world.step().await;
    assert!(world.drone(1).top_up);
    let long = world.order(NORTH_WEST, SOUTH_EAST, 1.0);
    world.step().await;
    assert!(!world.drone(1).top_up && world.drone(1).status == DroneStatus::Charging);
    // No short one takes it from there before it has what the long one needs.
    let short = world.order(NEAR_A, NEAR_B, 1.0);
    assert!(world.until(120.0, delivered(&long)).await);
    assert!(world.until(120.0, delivered(&short)).await);
}

#[tokio::test]
async fn drones_spread_over_charge_points_where_slots_are_scarce() {
    let goals = async |charger_slots| {
        let mut world = World::new(9, rules());
        world.rules.charger_slots = charger_slots;
        world.restart();
        for number in 1..=9 {
            world.edit_drone(number, |drone| {
                drone.pos = Point::new(41.89, 12.48);
                drone.battery = 28.0;
            });
        }
        world.step().await;
        let goals = world
            .fleet()
            .into_iter()
            .map(|drone| drone.charge_target(&world.zones).lat.to_bits());
        goals.collect::<std::collections::BTreeSet<_>>().len()
    };
    assert_eq!(goals(0).await, 1);
    assert!(goals(1).await > 1);
}

#[tokio::test]
async fn infeasible_orders_are_remembered_on_the_drone() {
    let mut world = World::new(7, rules());
    // Light ones: 1 too empty, 4 charging for it, 7 busy.
    world.edit_drone(1, |drone| drone.battery = 36.0);
    world.edit_drone(4, |drone| drone.status = DroneStatus::Inactive);
    world.edit_drone(7, |drone| drone.battery = 100.0);
    let id = world.order(NORTH_WEST, Point::new(41.90, 12.45), 1.0);
    world.step().await;
    assert_eq!(world.delivery(&id).drone_id.as_deref(), Some("drone-7"));
    let light = world.drone(1);
    assert_eq!((light.feas_miss, light.feas_miss_set), (1, vec![id]));
    assert_eq!(light.status, DroneStatus::Idle);
}

#[tokio::test]
async fn the_fleet_grows_with_the_backlog_and_shrinks_after_it() {
    let mut world = World::new(18, rules());
    world.rules.autoscale = Some(autoscale(6));
    world.restart();
    let active = |world: &World| world.fleet().iter().filter(|drone| drone.status.is_active()).count();
    assert!(
        world.until(60.0, |world| active(world) == 6).await,
        "{}",
        active(&world)
    );
    let parked = |world: &World| {
        world
            .fleet()
            .iter()
            .filter(|drone| drone.status == DroneStatus::Inactive)
            .count()
    };
    assert!(world.until(60.0, |world| parked(world) == 12).await);
    for number in 0..30 {
        world.order(NEAR_A, NEAR_B, f64::from(number % 3) * 4.0 + 1.0);
    }
    world.step().await;
    assert!(active(&world) >= 18, "{}", active(&world));
    assert!(
        world
            .until(400.0, |world| world.kv.keys(keys::OPEN_PREFIX).is_empty())
            .await
    );
    assert!(
        world.until(60.0, |world| active(world) == 6).await,
        "{}",
        active(&world)
    );
}

#[tokio::test]
async fn a_clock_that_jumps_back_does_not_keep_a_surplus_flying() {
    let mut world = World::new(18, rules());
    world.rules.autoscale = Some(autoscale(6));
    world.restart();
    world.step().await;
    world.clock.set_back(3_600);
    let active = |world: &World| world.fleet().iter().filter(|drone| drone.status.is_active()).count();
    assert!(
        world.until(60.0, |world| active(world) == 6).await,
        "{}",
        active(&world)
    );
}

#[tokio::test]
async fn what_cannot_be_flown_does_not_inflate_the_fleet() {
    let mut world = World::new(18, rules());
    world.rules.autoscale = Some(autoscale(3));
    world.restart();
    for drone in world.fleet() {
        world.kv.set(
            &keys::drone(&drone.id),
            &Drone {
                status: DroneStatus::Inactive,
                ..drone
            },
        );
    }
    for _ in 0..30 {
        world.order(NEAR_A, Point::new(48.85, 2.35), 1.0);
    }
    world.step().await;
    assert_eq!(world.fleet().iter().filter(|drone| drone.status.is_active()).count(), 3);
}

/// Goes on until the order's drone flies.
async fn in_flight(world: &mut World, id: &str) {
    let flies = |world: &World| world.status(id) == DeliveryStatus::InFlight;
    assert!(world.until(5.0, flies).await, "{:?}", world.delivery(id));
}

#[tokio::test]
async fn a_cancelled_order_frees_its_drone_even_if_the_gateway_died() {
    for policy in Policy::value_variants() {
        let mut world = World::under(*policy, 1, rules());
        world.km_per_step = 0.01;
        let id = world.order(NEAR_B, NEAR_A, 1.0);
        in_flight(&mut world, &id).await;
        let cancelled = world.delivery(&id).cancel(world.now()).unwrap();
        world.kv.set(&keys::delivery(&id), &cancelled);
        assert!(
            world
                .until(15.0, |world| world.drone(1).status == DroneStatus::Idle)
                .await,
            "{:?}",
            world.drone(1)
        );
        assert!(
            world
                .until(15.0, |world| world.kv.keys(keys::OPEN_PREFIX).is_empty())
                .await
        );
        world.check_at_rest();
    }
}

#[tokio::test]
async fn contradictions_are_repaired() {
    let mut world = World::new(7, rules());
    world.km_per_step = 0.01;
    // Busy with an order that never was.
    world.edit_drone(2, |drone| *drone = drone.take("0000-gone").unwrap());
    // Busy with nothing at all.
    world.edit_drone(3, |drone| drone.status = DroneStatus::Busy);
    // A half-made assignment: the drone is busy with an order that still waits.
    let half = world.order(NEAR_B, NEAR_A, 1.0);
    world.edit_drone(4, |drone| *drone = drone.take(&half).unwrap());
    // The order has been locked by whoever died there.
    world.kv.hold_lock(&keys::delivery_lock(&half), 1.0);
    for number in [1, 7] {
        world.edit_drone(number, |drone| drone.status = DroneStatus::Inactive);
    }
    world.until(3.0, |_| false).await;
    assert_eq!(
        (world.drone(2).status, world.drone(3).status),
        (DroneStatus::Idle, DroneStatus::Idle)
    );
    assert_eq!(world.delivery(&half).drone_id.as_deref(), Some("drone-4"));
    assert!(world.delivery(&half).status.has_drone());
    // Somebody takes the drone away before pick-up: the order waits again, and gets a drone again.
    world.edit_drone(4, |drone| {
        drone.status = DroneStatus::Inactive;
        drone.current_delivery = None;
    });
    assert!(
        world
            .until(5.0, |world| world.status(&half) == DeliveryStatus::Pending)
            .await
    );
    assert!(world.told(&half).contains(&"delivery_pending"));
    world.edit_drone(1, |drone| drone.status = DroneStatus::Idle);
    assert!(
        world
            .until(3.0, |world| world.delivery(&half).drone_id.as_deref()
                == Some("drone-1"))
            .await
    );
    // Somebody takes the drone away with the parcel on board: it is given back.
    world.km_per_step = 1.0;
    let loaded = |world: &World| world.delivery(&half).leg == Some(Leg::ToDestination);
    assert!(world.until(20.0, loaded).await);
    world.km_per_step = 0.01;
    world.edit_drone(1, |drone| {
        drone.status = DroneStatus::Idle;
        drone.current_delivery = None;
    });
    assert!(
        world
            .until(5.0, |world| world.drone(1).current_delivery.as_ref() == Some(&half))
            .await
    );
    world.km_per_step = 1.0;
    assert!(world.until(20.0, delivered(&half)).await);
}

/// A drone with a parcel on board, so far from the destination that it needs 30 %, and taken from its order by a script that also drains it to
/// `battery` percent.
async fn taken_under_way(policy: Policy, battery: f64) -> (World, String) {
    let mut world = World::under(policy, 1, rules());
    let id = world.order(NEAR_A, Point::new(41.87, 12.50), 1.0);
    let loaded = |world: &World| world.delivery(&id).leg == Some(Leg::ToDestination);
    assert!(world.until(60.0, loaded).await);
    world.edit_drone(1, |drone| {
        drone.status = DroneStatus::Idle;
        drone.current_delivery = None;
        drone.battery = battery;
    });
    (world, id)
}

#[tokio::test]
async fn a_drone_with_a_parcel_on_board_and_too_little_battery_charges_before_it_goes_on() {
    for policy in Policy::value_variants() {
        let (mut world, id) = taken_under_way(*policy, 22.0).await;
        // Others would like to have it meanwhile.
        let other = world.order(NEAR_A, NEAR_B, 1.0);
        assert!(
            world
                .until(3.0, |world| world.drone(1).status == DroneStatus::Charging)
                .await
        );
        let goes_on = |world: &World| world.drone(1).current_delivery.is_some();
        assert!(world.until(60.0, goes_on).await);
        let (drone, order) = (world.drone(1), world.delivery(&id));
        assert_eq!(drone.current_delivery.as_ref(), Some(&id), "not the other order");
        let km = domain::energy::loaded_and_home_km(drone.pos, order.destination, &world.zones);
        let (needed, battery) = (world.rules.energy.needed_pct(km), drone.battery);
        assert!(battery >= needed && battery < 95.0, "{battery} % of {needed} %");
        assert!(world.until(60.0, delivered(&id)).await && world.until(60.0, delivered(&other)).await);
        world.until(5.0, |_| false).await;
        world.check_at_rest();
    }
}

#[tokio::test]
async fn a_parcel_that_not_even_a_full_battery_takes_there_fails() {
    let (mut world, id) = taken_under_way(Policy::Optimal, 22.0).await;
    // As with a script that carries the drone away: from every charge point it is too far now.
    world.rules.energy.battery_per_km = 12.0;
    world.restart();
    world.edit_drone(1, |drone| drone.battery = 60.0);
    let ended = |world: &World| !world.status(&id).is_open();
    assert!(world.until(60.0, ended).await, "{:?}", world.drone(1));
    assert_eq!(world.delivery(&id).reason.as_deref(), Some(REASON_DRONE_LOST));
}

/// A city in which whoever was at work died half-way, in every way there is; a dispatcher that is itself killed at its operation `crash`
/// while it mends all that. Answers how many operations that took.
async fn mend_everything(policy: Policy, crash: Option<(usize, CrashMode)>) -> usize {
    let mut world = World::under(policy, 9, rules());
    world.km_per_step = 0.01;
    let given = |world: &mut World, number: u32, kg: f64| {
        let id = world.order(NEAR_B, NEAR_A, kg);
        let assigned = world
            .delivery(&id)
            .assign(&format!("drone-{number}"), world.now())
            .unwrap();
        world.kv.set(&keys::delivery(&id), &assigned);
        id
    };
    // A drone taken, its order not yet given to it.
    let half = world.order(NEAR_B, NEAR_A, 1.0);
    world.edit_drone(1, |drone| *drone = drone.take(&half).unwrap());
    // Two orders whose drone does not know: one still to be picked up, one on board.
    let unknown = given(&mut world, 2, 4.0);
    let loaded = given(&mut world, 3, 9.0);
    let flying = world.delivery(&loaded).first_movement(world.now()).unwrap();
    world
        .kv
        .set(&keys::delivery(&loaded), &flying.at_origin(world.now()).unwrap());
    // Two drones busy with one order, which only the first has.
    let doubled = given(&mut world, 4, 1.0);
    for number in [4, 7] {
        world.edit_drone(number, |drone| *drone = drone.take(&doubled).unwrap());
    }
    world.given_to_two = Some(doubled.clone());
    // Orders that ended, with their drones still busy and their entries still there.
    let cancelled = given(&mut world, 5, 4.0);
    world.kv.set(
        &keys::delivery(&cancelled),
        &world.delivery(&cancelled).cancel(world.now()).unwrap(),
    );
    let failed = given(&mut world, 6, 9.0);
    world.kv.set(
        &keys::delivery(&failed),
        &world.delivery(&failed).fail(REASON_DRONE_LOST, world.now()).unwrap(),
    );
    for (number, id) in [(5, &cancelled), (6, &failed)] {
        world.edit_drone(number, |drone| *drone = drone.take(id).unwrap());
    }
    // A drone lost, its order not yet taken from it; one busy with what never was, one with nothing.
    let orphaned = given(&mut world, 8, 4.0);
    world.edit_drone(8, |drone| {
        drone.status = DroneStatus::Lost;
        drone.current_delivery = None;
    });
    world.edit_drone(9, |drone| *drone = drone.take("0000-gone").unwrap());
    let entry = OpenEntry {
        id: "0000-old".to_owned(),
        timestamp: world.now() - 61.0,
    };
    world.kv.set(&keys::open(&entry.id), &entry);
    let (at, mode) = crash.unwrap_or((usize::MAX, CrashMode::Before));
    world.kv.crash_at(at, mode);
    // `World::check` sees to it that nothing of it lasts longer than it may.
    let has_its_drone = |world: &World, id: &str| {
        let record = world.delivery(id);
        let number = record.drone_id.as_deref().and_then(domain::drone::number_of);
        record.status.has_drone() && number.is_some_and(|n| world.drone(n).current_delivery.as_deref() == Some(id))
    };
    let open = [half, unknown, loaded, doubled, orphaned];
    let mended = |world: &World| {
        let held: usize = world
            .fleet()
            .iter()
            .filter(|drone| drone.current_delivery.is_some())
            .count();
        open.iter().all(|id| has_its_drone(world, id))
            && held == open.len()
            && world.kv.keys(keys::OPEN_PREFIX).len() == open.len()
    };
    assert!(
        world.until(15.0, mended).await,
        "{policy:?} after {crash:?}: {:#?}",
        world.fleet()
    );
    let ops = world.kv.ops();
    world.given_to_two = None;
    world.km_per_step = 1.0;
    let delivered = |world: &World| open.iter().all(|id| world.status(id) == DeliveryStatus::Delivered);
    assert!(world.until(60.0, delivered).await, "{policy:?} after {crash:?}");
    world.until(5.0, |_| false).await;
    world.check_at_rest();
    ops
}

#[tokio::test]
async fn a_crash_at_any_operation_of_mending_what_crashes_left_leaves_nothing_unmended() {
    for policy in Policy::value_variants() {
        let ops = mend_everything(*policy, None).await;
        assert!(ops > 30, "{ops}");
        for at in 0..ops {
            for mode in [CrashMode::Before, CrashMode::After] {
                mend_everything(*policy, Some((at, mode))).await;
            }
        }
    }
}

#[tokio::test]
async fn entries_left_behind_are_removed_and_young_ones_are_not() {
    let mut world = World::new(1, rules());
    let old = OpenEntry {
        id: "0000-old".to_owned(),
        timestamp: world.now() - 61.0,
    };
    let young = OpenEntry {
        id: "0000-young".to_owned(),
        timestamp: world.now() - 10.0,
    };
    world.kv.set(&keys::open(&old.id), &old);
    world.kv.set(&keys::open(&young.id), &young);
    world.kv.set(&keys::open("0000-damaged"), &json!("?"));
    world.until(2.0, |_| false).await;
    assert_eq!(
        world.kv.keys(keys::OPEN_PREFIX),
        ["open:0000-damaged", "open:0000-young"]
    );
    world.until(70.0, |_| false).await;
    assert_eq!(world.kv.keys(keys::OPEN_PREFIX), Vec::<String>::new());
}

#[tokio::test]
async fn unreadable_records_are_skipped() {
    let mut world = World::new(1, rules());
    world
        .kv
        .set(&keys::drone("drone-9"), &json!({"id": "drone-9", "type": "rocket"}));
    world.kv.set(&keys::drone("drone-8"), &Drone::new(1, &world.zones));
    world.kv.set(keys::ZONES_CONFIG, &json!([]));
    world.kv.set(
        &keys::open("0000-odd"),
        &OpenEntry {
            id: "0000-odd".to_owned(),
            timestamp: world.now(),
        },
    );
    world.kv.set(
        &keys::delivery("0000-odd"),
        &json!({"id": "0000-odd", "weight": "heavy"}),
    );
    let id = world.order(NEAR_A, NEAR_B, 1.0);
    assert!(world.until(60.0, delivered(&id)).await);
    assert!(world.kv.value("open:0000-odd").is_some());
}

#[tokio::test]
async fn a_locked_order_waits_and_a_locked_drone_is_passed_over_in_time() {
    for policy in Policy::value_variants() {
        let mut world = World::under(*policy, 4, rules());
        world.kv.hold_lock(&keys::drone_lock("drone-1"), 3.0);
        let id = world.order(NEAR_A, NEAR_B, 1.0);
        assert!(
            world
                .until(4.0, |world| world.status(&id) == DeliveryStatus::Assigned)
                .await
        );
        assert_eq!(world.kv.locks_held(), 0, "or only the other's");
    }
}

#[tokio::test]
async fn a_backlog_larger_than_a_page_is_seen_whole() {
    for policy in Policy::value_variants() {
        let mut world = World::under(*policy, 3, rules());
        world.rules.pending_scan_limit = 10;
        world.restart();
        // Heavy ones first: they fill several pages, and there is but one heavy drone.
        for _ in 0..35 {
            world.order(NEAR_A, NEAR_B, 9.0);
        }
        let light = world.order(NEAR_A, NEAR_B, 1.0);
        assert!(
            world
                .until(2.0, |world| world.status(&light) == DeliveryStatus::Assigned)
                .await
        );
        world.km_per_step = 5.0;
        world.charge_per_step = 50.0;
        assert!(
            world
                .until(300.0, |world| world.kv.keys(keys::OPEN_PREFIX).is_empty())
                .await
        );
    }
}

#[tokio::test]
async fn late_and_repeated_hints_change_nothing() {
    let mut world = World::new(3, rules());
    let id = world.order(NEAR_A, NEAR_B, 1.0);
    assert!(world.until(60.0, delivered(&id)).await);
    let before = world.delivery(&id);
    for _ in 0..5 {
        let mut hints = dispatcher::hints::Hints::default();
        hints.orders.extend([id.clone(), "unknown".to_owned()]);
        hints.drones.extend(["drone-1".to_owned(), "drone-99".to_owned()]);
        world.engine.round(hints).await.unwrap();
    }
    assert_eq!(world.delivery(&id), before);
    world.check_at_rest();
}

/// Who flies the drone does nothing with it for a while, and says nothing of it.
fn silence(world: &World, number: u32, seconds: f64) {
    let until = world.now() + seconds;
    world.edit_drone(number, |drone| drone.freeze_until = Some(until));
}

fn is_lost(world: &World, number: u32) -> bool {
    world.drone(number).status == DroneStatus::Lost
}

/// The drone of a flying order falls silent, is lost, and comes back; the dispatcher crashes in between. Answers the KV's
/// operations from just before the loss on.
async fn lost_on_the_way(policy: Policy, loaded: bool, crash: Option<(usize, CrashMode)>) -> usize {
    // With swaps the order may well go to the drone that has come back.
    let rules = Rules {
        swaps_max: 0,
        ..rules()
    };
    let mut world = World::under(policy, 4, rules);
    world.km_per_step = 0.05;
    let id = world.order(NEAR_A, NEAR_B, 1.0);
    let leg = if loaded { Leg::ToDestination } else { Leg::ToOrigin };
    let flies = |world: &World| {
        let record = world.delivery(&id);
        record.status == DeliveryStatus::InFlight && record.leg == Some(leg)
    };
    assert!(world.until(60.0, flies).await);
    let name = world.delivery(&id).drone_id.unwrap();
    let lost = domain::drone::number_of(&name).unwrap();
    silence(&world, lost, 400.0);
    world.until(29.4, |_| false).await;
    assert!(!is_lost(&world, lost), "too soon");
    let (at, mode) = crash.unwrap_or((usize::MAX, CrashMode::Before));
    world.kv.crash_at(at, mode);
    let settled = |world: &World| {
        let record = world.delivery(&id);
        let taken = record.status.has_drone() && record.drone_id.as_ref() != Some(&name);
        is_lost(world, lost) && (taken || record.status == DeliveryStatus::Failed)
    };
    assert!(world.until(120.0, settled).await, "{crash:?} {:?}", world.delivery(&id));
    let ops = world.kv.ops();
    assert_eq!(world.drone(lost).current_delivery, None);
    if loaded {
        assert_eq!(world.delivery(&id).reason.as_deref(), Some(REASON_DRONE_LOST));
    }
    // It comes back, perhaps in the middle of the other's flight, and has no part in it.
    world.edit_drone(lost, |drone| drone.freeze_until = None);
    let is_back = |world: &World| world.drone(lost).status == DroneStatus::Idle;
    assert!(world.until(15.0, is_back).await, "{:?}", world.drone(lost));
    world.km_per_step = 1.0;
    if !loaded {
        assert!(world.until(60.0, delivered(&id)).await);
        assert_ne!(world.delivery(&id).drone_id.as_ref(), Some(&name));
    }
    world.until(5.0, |_| false).await;
    world.check_at_rest();
    ops
}

#[tokio::test]
async fn the_order_of_a_lost_drone_waits_again_or_fails_and_the_drone_comes_back() {
    for policy in Policy::value_variants() {
        for loaded in [false, true] {
            let ops = lost_on_the_way(*policy, loaded, None).await;
            assert!(ops >= 2, "{ops}");
            for at in 0..ops {
                for mode in [CrashMode::Before, CrashMode::After] {
                    lost_on_the_way(*policy, loaded, Some((at, mode))).await;
                }
            }
        }
    }
}

#[tokio::test]
async fn two_dispatchers_lose_a_drone_once() {
    let mut world = World::new(4, rules());
    world.km_per_step = 0.05;
    let id = world.order(NEAR_A, NEAR_B, 1.0);
    in_flight(&mut world, &id).await;
    let lost = domain::drone::number_of(&world.delivery(&id).drone_id.unwrap()).unwrap();
    silence(&world, lost, 45.0);
    let mut other = world.another_engine();
    for _ in 0..1_000 {
        world.simulate();
        let (a, b) = tokio::join!(world.engine.round(Default::default()), other.round(Default::default()));
        a.unwrap();
        b.unwrap();
        world.check();
    }
    assert!(delivered(&id)(&world), "{:?}", world.delivery(&id));
    world.check_at_rest();
    let told = world.told(&id);
    assert_eq!(
        told.iter().filter(|kind| **kind == "delivery_pending").count(),
        1,
        "{told:?}"
    );
}

#[tokio::test]
async fn when_the_whole_fleet_is_silent_nobody_is_lost() {
    let mut world = World::new(4, rules());
    world.km_per_step = 0.05;
    let id = world.order(NEAR_A, NEAR_B, 1.0);
    in_flight(&mut world, &id).await;
    let first = world.delivery(&id).drone_id;
    // The simulator is away for five minutes, then the dispatcher for one.
    for number in 1..=4 {
        silence(&world, number, 300.0);
    }
    world.until(310.0, |_| false).await;
    for _ in 0..300 {
        world.simulate();
    }
    assert!(world.until(60.0, delivered(&id)).await);
    assert_eq!(world.delivery(&id).drone_id, first);
    assert!(world.fleet().iter().all(|drone| drone.status == DroneStatus::Idle));
}

#[tokio::test]
async fn every_open_order_says_when_and_a_waiting_one_why() {
    for policy in Policy::value_variants() {
        let mut world = World::under(*policy, 1, rules());
        world.by_class = true;
        world.km_per_step = 120.0 / 3_600.0 * 28.0 * support::STEP_SEC;
        let first = world.order(NEAR_A, NEAR_B, 1.0);
        world.step().await;
        let assigned = world.delivery(&first);
        let (pickup_eta, delivery_eta) = (assigned.pickup_eta.unwrap(), assigned.delivery_eta.unwrap());
        let second = world.order(NEAR_A, NEAR_B, 1.0);
        let heavy = world.order(NEAR_A, NEAR_B, 9.0);
        let told = |world: &World| world.delivery(&second).waits_for.is_some();
        assert!(world.until(4.0, told).await);
        let waiting = world.delivery(&second);
        let why = waiting.waits_for.unwrap();
        assert!(why.starts_with("no light drone free; next in "), "{why}");
        assert!(waiting.pickup_eta.unwrap() > delivery_eta && waiting.delivery_eta > waiting.pickup_eta);
        assert_eq!(
            world.delivery(&heavy).waits_for.as_deref(),
            Some("no heavy drone in service")
        );
        assert!(world.until(60.0, delivered(&second)).await);
        let (done, late) = (world.delivery(&first), world.delivery(&second));
        // Within a few steps: the fleet moves in steps, and rounds come in between.
        let near = |eta: f64, at: Option<f64>| (eta - at.unwrap()).abs() < 3.0;
        assert!(near(pickup_eta, done.picked_up_at) && near(delivery_eta, done.delivered_at));
        assert!(
            near(waiting.delivery_eta.unwrap(), late.delivered_at),
            "{:?} {late:?}",
            waiting.delivery_eta
        );
        assert_eq!((done.outlook(), late.outlook()), Default::default());
    }
}

#[tokio::test]
async fn outlooks_are_written_seldom() {
    let mut world = World::new(1, rules());
    world.km_per_step = 0.02;
    let ids: Vec<String> = (0..100).map(|_| world.order(NEAR_A, NEAR_B, 1.0)).collect();
    let told = |world: &World| ids.iter().filter(|id| world.delivery(id).waits_for.is_some()).count();
    let before = world.kv.writes(keys::DELIVERY_PREFIX);
    world.until(1.4, |_| false).await;
    assert!(told(&world) <= 50, "{}", told(&world));
    assert!(
        world.until(5.0, |world| told(world) == 99).await,
        "all but the one that flies"
    );
    world.until(60.0, |_| false).await;
    // The number counts down, so each is written every ten seconds at most.
    let each = (world.kv.writes(keys::DELIVERY_PREFIX) - before) / ids.len();
    assert!((1..=7).contains(&each), "{each} writes per order in 66 s");
}

/// A dispatcher stops before its call number `at`, another one does the work, and then the first goes on where it was. False when
/// there is no such call.
async fn a_late_dispatcher(policy: Policy, at: usize) -> bool {
    let mut world = World::under(policy, 9, rules());
    // Something of everything: an order about to arrive, one about to be picked up, three that wait, and an empty battery.
    world.km_per_step = 0.3;
    let arriving = world.order(NEAR_A, NEAR_B, 1.0);
    let loaded = |world: &World| world.delivery(&arriving).leg == Some(Leg::ToDestination);
    assert!(world.until(60.0, loaded).await);
    let starting = world.order(NEAR_A, NEAR_B, 4.0);
    world.step().await;
    for _ in 0..60 {
        world.simulate();
    }
    let waiting: Vec<String> = [1.0, 4.0, 9.0].map(|kg| world.order(NEAR_B, NEAR_A, kg)).into();
    world.edit_drone(9, |drone| drone.battery = 25.0);
    let gate = LateKv::new(&world.kv, at);
    let mut late = world.engine_over(std::sync::Arc::clone(&gate) as std::sync::Arc<dyn dispatcher::store::Store>);
    {
        let round = late.round(Default::default());
        tokio::pin!(round);
        let is_held = tokio::select! {
            biased;
            done = &mut round => { done.unwrap(); false }
            () = gate.reached() => true,
        };
        if !is_held {
            return false;
        }
        let orders: Vec<&String> = waiting.iter().chain([&arriving, &starting]).collect();
        let all = |world: &World| orders.iter().all(|id| world.status(id) == DeliveryStatus::Delivered);
        assert!(world.until(60.0, all).await);
        let records: Vec<_> = orders.iter().map(|id| world.delivery(id)).collect();
        gate.open();
        round.await.unwrap();
        assert_eq!(records, orders.iter().map(|id| world.delivery(id)).collect::<Vec<_>>());
    }
    world.until(5.0, |_| false).await;
    world.check_at_rest();
    let told = world.told(&waiting[0]);
    let count = |wanted: &str| told.iter().filter(|kind| **kind == wanted).count();
    let swaps = world.delivery(&waiting[0]).swaps;
    assert_eq!(count("delivery_assigned"), 1 + count("delivery_pending"), "{told:?}");
    assert_eq!(count("delivery_pending"), usize::try_from(swaps).unwrap(), "{told:?}");
    true
}

#[tokio::test]
async fn a_dispatcher_that_stops_at_any_call_and_goes_on_later_changes_nothing() {
    for policy in Policy::value_variants() {
        let mut at = 0;
        while a_late_dispatcher(*policy, at).await {
            at += 1;
        }
        assert!(at >= 8, "{at} calls");
    }
}

/// Seconds from when a dispatcher is killed at the operation `at` until its successor has found all orders their drones.
async fn take_over(policy: Policy, at: usize, mode: CrashMode) -> Option<f64> {
    let mut world = World::under(policy, 9, rules());
    world.km_per_step = 0.001;
    let orders: Vec<String> = (0..3).map(|_| world.order(NEAR_A, NEAR_B, 1.0)).collect();
    world.kv.crash_at(at, mode);
    let assigned = |world: &World| orders.iter().all(|id| world.status(id).has_drone());
    while world.step().await == Step::Done {
        if assigned(&world) {
            return None;
        }
    }
    let killed_at = world.now();
    assert!(world.until(10.0, assigned).await);
    Some(world.now() - killed_at)
}

#[tokio::test]
async fn what_a_killed_dispatcher_was_at_is_taken_over_within_two_seconds() {
    for policy in Policy::value_variants() {
        for mode in [CrashMode::Before, CrashMode::After] {
            let mut at = 0;
            while let Some(took_sec) = take_over(*policy, at, mode).await {
                // Promised are 3 s. The KV answers at once here.
                assert!(took_sec <= 2.0, "{took_sec} s after {mode:?} {at}");
                at += 1;
            }
            assert!(at >= 10, "{at} operations");
        }
    }
}
