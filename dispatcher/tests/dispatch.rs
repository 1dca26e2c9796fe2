//! The dispatcher's engine in a small city: whole lives of orders, crashes at every point, starvation, contradictions.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests may panic as well: that is the report"
)]

mod compare;
mod support;

use clap::ValueEnum;
use dispatcher::policy::Policy;
use domain::delivery::{DeliveryStatus, Leg, OpenEntry, REASON_OUT_OF_AREA, REASON_OUT_OF_RANGE};
use domain::drone::{Drone, DroneStatus};
use domain::geo::Point;
use domain::keys;
use proptest::prelude::{ProptestConfig, any, prop, proptest};
use serde_json::json;
use support::{CrashMode, Step, World, autoscale, rules};

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

/// The scenario of the crash tests: more orders than drones, one that nobody can fly, and one for which a drone must charge.
async fn busy_hour(
    policy: Policy,
    crash: Option<(usize, CrashMode)>,
    mut next_crash: impl FnMut() -> Option<(usize, CrashMode)>,
) -> usize {
    let mut world = World::under(policy, 4, rules());
    world.rules.autoscale = Some(autoscale(3));
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

#[tokio::test]
async fn a_cancelled_order_frees_its_drone_even_if_the_gateway_died() {
    for policy in Policy::value_variants() {
        let mut world = World::under(*policy, 1, rules());
        world.km_per_step = 0.01;
        let id = world.order(NEAR_B, NEAR_A, 1.0);
        assert!(
            world
                .until(5.0, |world| world.status(&id) == DeliveryStatus::InFlight)
                .await
        );
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
