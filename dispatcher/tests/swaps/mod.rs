//! Orders that go from a drone on its way to the pick-up to a better one: crashes at every point, and everybody who may come in between.

use std::sync::Arc;

use dispatcher::policy::Policy;
use dispatcher::store::Store;
use domain::delivery::{Delivery, DeliveryStatus, Leg};
use domain::drone::{Drone, DroneStatus};
use domain::geo::Point;
use domain::keys;

use crate::support::{CrashMode, LateKv, Step, World, rules};
use crate::{NEAR_A, NEAR_B, delivered, in_flight};

/// Some 8 km south of `NEAR_A`.
const SOUTH: Point = Point::new(41.87, 12.43);

/// A world with the light drones drone-1, at `SOUTH`, and drone-4, asleep, and an order at `NEAR_A` to which drone-1 is on its way.
async fn on_its_way() -> (World, String) {
    let mut world = World::under(Policy::Optimal, 4, rules());
    world.km_per_step = 0.05;
    world.edit_drone(1, |drone| drone.pos = SOUTH);
    for number in 2..=4 {
        world.edit_drone(number, |drone| drone.status = DroneStatus::Inactive);
    }
    let id = world.order(NEAR_A, NEAR_B, 1.0);
    in_flight(&mut world, &id).await;
    assert_eq!(world.delivery(&id).drone_id.as_deref(), Some("drone-1"));
    (world, id)
}

/// drone-4 wakes up a kilometre from the pick-up.
fn a_better_one_wakes(world: &World) {
    world.edit_drone(4, |drone| {
        drone.status = DroneStatus::Idle;
        drone.pos = Point::new(NEAR_A.lat + 0.009, NEAR_A.lon);
    });
}

fn has(world: &World, drone_id: &str, id: &str) -> bool {
    let record = world.delivery(id);
    record.status.has_drone() && record.drone_id.as_deref() == Some(drone_id)
}

/// The order goes over to the better drone, with a crash on the way; the operations of the KV that it took.
async fn goes_over(crash: Option<(usize, CrashMode)>) -> usize {
    let (mut world, id) = on_its_way().await;
    a_better_one_wakes(&world);
    let (at, mode) = crash.unwrap_or((usize::MAX, CrashMode::Before));
    world.kv.crash_at(at, mode);
    let gone_over = |world: &World| has(world, "drone-4", &id) && world.drone(1).status == DroneStatus::Idle;
    assert!(world.until(8.0, gone_over).await, "{crash:?} {:?}", world.delivery(&id));
    let ops = world.kv.ops();
    if crash.is_none() {
        let (record, left) = (world.delivery(&id), world.drone(1).pos);
        assert_eq!((record.swaps, world.kv.locks_held()), (1, 0));
        let drones: Vec<_> = (record.history.iter())
            .map(|entry| (entry.status.name(), entry.drone_id.as_deref()))
            .collect();
        let (one, four) = (Some("drone-1"), Some("drone-4"));
        assert_eq!(
            drones,
            [
                ("pending", None),
                ("assigned", one),
                ("in_flight", one),
                ("pending", None),
                ("assigned", four)
            ]
        );
        assert_eq!(
            record.assigned_at,
            Some(record.history[1].at),
            "it has been provided for since"
        );
        let told = [
            "delivery_assigned",
            "delivery_in_flight",
            "delivery_pending",
            "delivery_assigned",
        ];
        assert_eq!(world.told(&id), told);
        world.until(2.0, |_| false).await;
        assert_eq!(world.drone(1).pos, left, "it flies there no more");
    }
    world.km_per_step = 1.0;
    assert!(world.until(60.0, delivered(&id)).await);
    assert!(world.delivery(&id).swaps <= 3);
    world.until(5.0, |_| false).await;
    world.check_at_rest();
    ops
}

#[tokio::test]
async fn an_order_goes_over_to_a_better_drone_whatever_crashes_on_the_way() {
    let ops = goes_over(None).await;
    assert!(ops >= 16, "{ops}");
    for at in 0..ops {
        for mode in [CrashMode::Before, CrashMode::After] {
            goes_over(Some((at, mode))).await;
        }
    }
}

/// Two drones on their ways to orders that would better be the other's.
fn crossing() -> (World, [String; 2]) {
    let mut world = World::under(Policy::Optimal, 4, rules());
    world.km_per_step = 0.05;
    let ids = [world.order(NEAR_A, NEAR_B, 1.0), world.order(SOUTH, NEAR_B, 1.0)];
    let south = Point::new(SOUTH.lat + 0.02, SOUTH.lon);
    let north = Point::new(NEAR_A.lat - 0.02, NEAR_A.lon);
    for (number, pos, id) in [(1, south, &ids[0]), (4, north, &ids[1])] {
        world.edit_drone(number, |drone| {
            *drone = Drone {
                pos,
                ..drone.take(id).unwrap()
            }
        });
        let assigned = world
            .delivery(id)
            .assign(&format!("drone-{number}"), world.now())
            .unwrap();
        world.kv.set(&keys::delivery(id), &assigned);
    }
    for number in [2, 3] {
        world.edit_drone(number, |drone| drone.status = DroneStatus::Inactive);
    }
    (world, ids)
}

async fn exchange(crash: Option<(usize, CrashMode)>) -> usize {
    let (mut world, [a, b]) = crossing();
    let (at, mode) = crash.unwrap_or((usize::MAX, CrashMode::Before));
    world.kv.crash_at(at, mode);
    let exchanged = |world: &World| has(world, "drone-4", &a) && has(world, "drone-1", &b);
    assert!(world.until(8.0, exchanged).await, "{crash:?} {:?}", world.fleet());
    let ops = world.kv.ops();
    world.km_per_step = 1.0;
    let all = |world: &World| delivered(&a)(world) && delivered(&b)(world);
    assert!(world.until(60.0, all).await);
    world.until(5.0, |_| false).await;
    world.check_at_rest();
    ops
}

#[tokio::test]
async fn two_drones_exchange_their_orders_whatever_crashes_on_the_way() {
    let ops = exchange(None).await;
    for at in 0..ops {
        for mode in [CrashMode::Before, CrashMode::After] {
            exchange(Some((at, mode))).await;
        }
    }
}

#[tokio::test]
async fn an_exchange_of_which_half_cannot_be_is_undone_and_costs_no_swap() {
    let (mut world, [a, b]) = crossing();
    world.kv.hold_lock(&keys::delivery_lock(&b), 1.0);
    world.step().await;
    assert!(
        has(&world, "drone-1", &a) && has(&world, "drone-4", &b),
        "{:?}",
        world.fleet()
    );
    let swaps = [&a, &b].map(|id| world.delivery(id).swaps);
    assert_eq!(swaps, [0, 0]);
    let exchanged = |world: &World| has(world, "drone-4", &a) && has(world, "drone-1", &b);
    assert!(world.until(5.0, exchanged).await, "as soon as it can be");
    assert_eq!([&a, &b].map(|id| world.delivery(id).swaps), [1, 1]);
}

/// What happens while a dispatcher that swaps is held up.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Meanwhile {
    /// The drone comes to the pick-up.
    Arrival,
    /// The same, and another dispatcher notes the pick-up.
    Pickup,
    /// Somebody cancels the order.
    Cancellation,
    /// The drone that was to take over is sent away.
    Retreat,
}

/// A dispatcher is held up before its call number `at`, something happens, and it goes on. `None` when there is no such call, else the order
/// before and after.
async fn race(at: usize, meanwhile: Meanwhile) -> Option<(Delivery, Delivery)> {
    let (mut world, id) = on_its_way().await;
    a_better_one_wakes(&world);
    let gate = LateKv::new(&world.kv, at);
    let mut late = world.engine_over(Arc::clone(&gate) as Arc<dyn Store>);
    let records = {
        let round = late.round(Default::default());
        tokio::pin!(round);
        tokio::select! {
            biased;
            done = &mut round => { done.unwrap(); return None; }
            () = gate.reached() => {}
        }
        let is_its_own = has(&world, "drone-1", &id);
        match meanwhile {
            Meanwhile::Arrival | Meanwhile::Pickup => world.edit_drone(1, |drone| drone.pos = NEAR_A),
            Meanwhile::Cancellation => {
                let cancelled = world.delivery(&id).cancel(world.now()).unwrap();
                world.kv.set(&keys::delivery(&id), &cancelled);
            }
            Meanwhile::Retreat => {
                if world.drone(4).status == DroneStatus::Idle {
                    world.edit_drone(4, |drone| *drone = drone.charge(None).unwrap());
                }
            }
        }
        if meanwhile == Meanwhile::Pickup && is_its_own {
            world.engine.round(Default::default()).await.unwrap();
        }
        let before = world.delivery(&id);
        gate.open();
        round.await.unwrap();
        world.check();
        (before, world.delivery(&id))
    };
    let (before, after) = &records;
    if before.leg == Some(Leg::ToDestination) {
        assert_eq!(before, after, "call {at}: the pick-up has won");
    }
    world.km_per_step = 1.0;
    let ended = |world: &World| !world.status(&id).is_open();
    assert!(world.until(60.0, ended).await, "call {at}: {:?}", world.delivery(&id));
    let cancelled = meanwhile == Meanwhile::Cancellation;
    assert_eq!(world.status(&id) == DeliveryStatus::Cancelled, cancelled);
    world.until(15.0, |_| false).await;
    world.check_at_rest();
    Some(records)
}

#[tokio::test]
async fn a_pick_up_or_a_cancellation_at_any_moment_of_a_swap_has_won() {
    for meanwhile in [Meanwhile::Pickup, Meanwhile::Cancellation, Meanwhile::Retreat] {
        let mut at = 0;
        while race(at, meanwhile).await.is_some() {
            at += 1;
        }
        assert!(at >= 8, "{meanwhile:?}: {at} calls");
    }
}

#[tokio::test]
async fn a_drone_that_arrives_at_any_moment_of_a_swap_keeps_its_order() {
    let (mut at, mut kept) = (0, 0);
    while let Some((before, after)) = race(at, Meanwhile::Arrival).await {
        if before.drone_id.as_deref() == Some("drone-1") {
            // Whatever else is written, it is drone-1 that has it, as before.
            assert_eq!(
                (after.drone_id.as_deref(), after.swaps),
                (Some("drone-1"), 0),
                "call {at}"
            );
            kept += 1;
        }
        at += 1;
    }
    assert!(kept >= 5 && at > kept, "{kept} of {at}");
}

#[tokio::test]
async fn two_dispatchers_swap_without_harm_and_never_too_often() {
    let mut world = World::under(Policy::Optimal, 9, rules());
    world.by_class = true;
    world.km_per_step = 0.2;
    let mut other = world.another_engine();
    let mut ids = Vec::new();
    for round in 0..1_500_u32 {
        // Places that are spread evenly, without chance.
        if round < 900 && round % 12 == 0 {
            let spread = |step: f64| (f64::from(round) * step).fract();
            let place = |shift: f64| {
                Point::new(
                    41.82 + 0.14 * spread(0.754_877_666 + shift),
                    12.39 + 0.19 * spread(0.569_840_291 + shift),
                )
            };
            ids.push(world.order(place(0.0), place(0.1), 0.5 + 9.0 * spread(0.382)));
        }
        world.simulate();
        let (a, b) = tokio::join!(world.engine.round(Default::default()), other.round(Default::default()));
        a.unwrap();
        b.unwrap();
        world.check();
    }
    assert!(
        world
            .until(600.0, |world| world.kv.keys(keys::OPEN_PREFIX).is_empty())
            .await
    );
    world.until(5.0, |_| false).await;
    world.check_at_rest();
    let swaps: Vec<u32> = ids.iter().map(|id| world.delivery(id).swaps).collect();
    assert!(ids.iter().all(|id| delivered(id)(&world)));
    assert!(
        swaps.iter().any(|count| *count > 0) && swaps.iter().all(|count| *count <= 3),
        "{swaps:?}"
    );
}

/// Seconds from when a dispatcher is killed at the operation `at` of a swap until the order has exactly one drone again; nothing if the
/// swap is done before.
async fn made_good(at: usize, mode: CrashMode) -> Option<f64> {
    let (mut world, id) = on_its_way().await;
    a_better_one_wakes(&world);
    world.kv.crash_at(at, mode);
    while world.step().await == Step::Done {
        if world.kv.ops() <= at && has(&world, "drone-4", &id) {
            return None;
        }
    }
    let killed_at = world.now();
    let settled = |world: &World| {
        let fleet = world.fleet().into_iter();
        let holders: Vec<String> = (fleet.filter(|drone| drone.current_delivery.as_ref() == Some(&id)))
            .map(|drone| drone.id)
            .collect();
        let record = world.delivery(&id);
        record.status.has_drone() && holders == record.drone_id.into_iter().collect::<Vec<_>>()
    };
    assert!(settled(&world) || world.until(10.0, settled).await, "{mode:?} {at}");
    Some(world.now() - killed_at)
}

#[tokio::test]
async fn a_killed_swap_is_made_good_within_three_seconds() {
    for mode in [CrashMode::Before, CrashMode::After] {
        let mut at = 0;
        while let Some(took_sec) = made_good(at, mode).await {
            assert!(took_sec <= 3.0, "{took_sec} s after {mode:?} {at}");
            at += 1;
        }
        assert!(at >= 12, "{at} operations");
    }
}
