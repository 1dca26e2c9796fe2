//! The policies side by side as the product runs them: the dispatcher's own engine with three classes, batteries and charge points, under
//! a virtual clock.

use clap::ValueEnum;
use dispatcher::hints::Hints;
use dispatcher::policy::Policy;
use dispatcher::rules::Rules;
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
    /// Swaps per order, and the most of one.
    swaps: (f64, u32),
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

/// How batteries are charged.
#[derive(Debug, Clone, Copy)]
struct Charging {
    /// `CHARGE_PER_TICK`, with ticks of 0.375 s.
    per_tick_pct: f64,
    /// `CHARGER_SLOTS`.
    slots: usize,
    /// `TOP_UP_BELOW`.
    top_up_below_pct: f64,
}

/// As the demo has it.
const USUAL: Charging = Charging {
    per_tick_pct: 5.0,
    slots: 0,
    top_up_below_pct: 80.0,
};

/// Plays the orders until the last one has arrived.
async fn play(policy: Policy, per_sec: f64, seed: u64, charging: Charging) -> Times {
    play_by(rules(), policy, per_sec, seed, charging).await
}

async fn play_by(rules: Rules, policy: Policy, per_sec: f64, seed: u64, charging: Charging) -> Times {
    let mut world = World::under(policy, DRONES, rules);
    // 120 km/h, 28 times as fast as the clock; 5% a tick of 0.375 s.
    world.by_class = true;
    world.km_per_step = 120.0 / 3_600.0 * 28.0 * STEP_SEC;
    world.charge_per_step = charging.per_tick_pct / 0.375 * STEP_SEC;
    world.rules.pace.charge_pct_per_sec = charging.per_tick_pct / 0.375;
    world.rules.charger_slots = charging.slots;
    world.rules.top_up_below_pct = if policy.tops_up() {
        charging.top_up_below_pct
    } else {
        0.0
    };
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
        swaps: (
            mean(records.iter().map(|record| f64::from(record.swaps)).sum()),
            records.iter().map(|record| record.swaps).max().unwrap_or(0),
        ),
    }
}

/// `cargo test -p dispatcher --test dispatch -- --ignored --nocapture what_swaps_bring`
#[tokio::test]
#[ignore = "a measurement: it prints a table and takes some minutes"]
async fn what_swaps_bring() {
    println!(
        "| orders/s | swaps at most | gain, min | mean s | spread | p95 s | max s | to pick-up s | swaps per order | most |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for per_sec in [0.3, 0.5, 0.6, 0.7] {
        for (swaps_max, swap_gain_min) in [(0, 0.0), (10, 0.0), (3, 0.5), (10, 0.5), (3, 1.0), (3, 2.0)] {
            let mut runs = Vec::new();
            for seed in 1..=5 {
                let rules = Rules {
                    swaps_max,
                    swap_gain_min,
                    ..rules()
                };
                runs.push(play_by(rules, Policy::Optimal, per_sec, seed, USUAL).await);
            }
            let mean = |of: fn(&Times) -> f64| {
                runs.iter().map(of).sum::<f64>() / f64::from(u32::try_from(runs.len()).unwrap())
            };
            let most = |of: fn(&Times) -> f64| runs.iter().map(of).fold(f64::MIN, f64::max);
            let spread = (most(|run| run.mean) + most(|run| -run.mean)) / 2.0;
            println!(
                "| {per_sec} | {swaps_max} | {swap_gain_min} | {:.2} | {spread:.2} | {:.1} | {:.1} | {:.2} | {:.3} | {} |",
                mean(|run| run.mean),
                mean(|run| run.p95),
                most(|run| run.max),
                mean(|run| run.to_pickup),
                mean(|run| run.swaps.0),
                most(|run| f64::from(run.swaps.1)),
            );
        }
    }
}

#[tokio::test]
async fn optimal_delivers_sooner_than_greedy() {
    let (optimal, greedy) = (
        play(Policy::Optimal, 0.6, 1, USUAL).await,
        play(Policy::Greedy, 0.6, 1, USUAL).await,
    );
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
                let times = play(*policy, per_sec, seed, USUAL).await;
                println!(
                    "| {per_sec} | {seed} | {policy:?} | {} | {:.1} | {:.1} | {:.1} | {:.1} |",
                    times.orders, times.mean, times.p95, times.max, times.to_pickup
                );
            }
        }
    }
}

/// `cargo test -p dispatcher --test dispatch -- --ignored --nocapture topping_up`
#[tokio::test]
#[ignore = "a measurement: it prints a table and takes some minutes"]
async fn topping_up() {
    println!("| charge per tick | slots | orders/s | seed | top up below | mean s | p95 s | max s | to pick-up s |");
    println!("|---|---|---|---|---|---|---|---|---|");
    for (per_tick_pct, slots) in [(5.0, 0), (1.0, 0), (1.0, 2)] {
        for per_sec in [0.2, 0.4, 0.6] {
            for seed in 1..=2 {
                for top_up_below_pct in [0.0, 60.0, 80.0, 95.0] {
                    let charging = Charging {
                        per_tick_pct,
                        slots,
                        top_up_below_pct,
                    };
                    let times = play(Policy::Optimal, per_sec, seed, charging).await;
                    println!(
                        "| {per_tick_pct} | {slots} | {per_sec} | {seed} | {top_up_below_pct} | {:.1} | {:.1} | {:.1} | {:.1} |",
                        times.mean, times.p95, times.max, times.to_pickup
                    );
                }
            }
        }
    }
}
