//! The policies side by side as the product runs them: the dispatcher's own engine with three classes, batteries and charge points, under
//! a virtual clock.

use clap::ValueEnum;
use dispatcher::hints::Hints;
use dispatcher::policy::Policy;
use domain::delivery::DeliveryStatus;
use domain::geo::Point;
use domain::keys;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::support::{STEP_SEC, World, rules};

/// How long orders come, seconds of clock.
const ORDERS_FOR_SEC: f64 = 600.0;

/// How long after that the last one may take, seconds of clock.
const END_WITHIN_SEC: f64 = 3_000.0;

/// The demo's fleet, all of it awake.
const DRONES: u32 = 18;

/// Times from acceptance to delivery, in seconds of clock.
#[derive(Debug)]
struct Times {
    mean: f64,
    p95: f64,
    max: f64,
    to_pickup: f64,
    orders: usize,
}

/// Orders at random (Poisson), `per_sec` on the average, uniform places and weights.
fn draw(per_sec: f64, seed: u64) -> Vec<(f64, Point, Point, f64)> {
    let mut random = StdRng::seed_from_u64(seed);
    let place = |random: &mut StdRng| Point::new(random.random_range(41.80..41.98), random.random_range(12.37..12.60));
    let mut orders = Vec::new();
    let mut at = 0.0;
    loop {
        at -= (1.0 - random.random_range(0.0..1.0_f64)).ln() / per_sec;
        if at > ORDERS_FOR_SEC {
            return orders;
        }
        let (origin, destination) = (place(&mut random), place(&mut random));
        orders.push((at, origin, destination, random.random_range(0.2..10.0)));
    }
}

/// Plays the orders until the last one has arrived.
async fn play(policy: Policy, per_sec: f64, seed: u64) -> Times {
    let mut world = World::under(policy, DRONES, rules());
    // 120 km/h, 28 times as fast as the clock; 5% a tick of 0.375 s.
    world.by_class = true;
    world.km_per_step = 120.0 / 3_600.0 * 28.0 * STEP_SEC;
    world.charge_per_step = 5.0 / 0.375 * STEP_SEC;
    world.rules.pace.charge_pct_per_sec = 5.0 / 0.375;
    world.restart();
    let begin = world.now();
    let mut ids = Vec::new();
    let mut coming = draw(per_sec, seed).into_iter().peekable();
    while coming.peek().is_some() || !world.kv.keys(keys::OPEN_PREFIX).is_empty() {
        let now = world.now() - begin;
        assert!(
            now < ORDERS_FOR_SEC + END_WITHIN_SEC,
            "orders are left: {:?}",
            world.kv.keys(keys::OPEN_PREFIX)
        );
        while let Some((_, origin, destination, kg)) = coming.next_if(|(at, ..)| *at <= now) {
            ids.push(world.order(origin, destination, kg));
        }
        world.simulate();
        world.engine.round(Hints::default()).await.unwrap();
        // Many times per virtual minute; at every step it would take longer than everything else.
        if ids.len() % 10 == 0 {
            world.check();
        }
    }
    let records: Vec<_> = ids.iter().map(|id| world.delivery(id)).collect();
    assert!(records.iter().all(|record| record.status == DeliveryStatus::Delivered));
    let mut took: Vec<f64> = (records.iter())
        .map(|record| record.delivered_at.unwrap() - record.timestamp)
        .collect();
    took.sort_by(f64::total_cmp);
    let mean = |sum: f64| sum / f64::from(u32::try_from(records.len()).unwrap());
    Times {
        mean: mean(took.iter().sum()),
        p95: took[(took.len() * 95).div_ceil(100) - 1],
        max: took[took.len() - 1],
        to_pickup: mean(
            (records.iter())
                .map(|record| record.picked_up_at.unwrap() - record.timestamp)
                .sum(),
        ),
        orders: took.len(),
    }
}

#[tokio::test]
async fn optimal_delivers_sooner_than_greedy() {
    let (optimal, greedy) = (play(Policy::Optimal, 0.6, 1).await, play(Policy::Greedy, 0.6, 1).await);
    assert_eq!(optimal.orders, greedy.orders);
    assert!(optimal.mean < 0.9 * greedy.mean, "{optimal:?} {greedy:?}");
}

/// `cargo test -p dispatcher --test dispatch -- --ignored --nocapture side_by_side`
#[tokio::test]
#[ignore = "a measurement: it prints a table and takes a minute"]
async fn side_by_side() {
    println!("| orders/s | seed | policy | orders | mean s | p95 s | max s | to pick-up s |");
    println!("|---|---|---|---|---|---|---|---|");
    for per_sec in [0.3, 0.5, 0.6, 0.7, 0.8] {
        for seed in 1..=3 {
            for policy in Policy::value_variants() {
                let times = play(*policy, per_sec, seed).await;
                println!(
                    "| {per_sec} | {seed} | {policy:?} | {} | {:.1} | {:.1} | {:.1} | {:.1} |",
                    times.orders, times.mean, times.p95, times.max, times.to_pickup
                );
            }
        }
    }
}
