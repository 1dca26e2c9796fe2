//! Orders that become due at a steady rate, whatever becomes of those before.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::Client;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

/// Most orders under way at once: beyond, what is due counts as refused.
const UNDER_WAY_MAX: u64 = 1_000;

/// Weights of the three classes, kg: a third of the orders each, as of the drones.
const WEIGHTS: [(f64, f64); 3] = [(0.2, 3.0), (3.1, 7.0), (7.1, 10.0)];

/// What became of the orders so far.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) accepted: AtomicU64,
    pub(crate) refused: AtomicU64,
    under_way: AtomicU64,
}

/// Places orders at `url`, `rate` a second, until dropped.
pub(crate) async fn place(http: Client, url: String, rate: f64, seed: u64, counts: Arc<Counts>) {
    let mut rng = StdRng::seed_from_u64(seed);
    let (begun, every) = (Instant::now(), Duration::from_secs_f64(1.0 / rate));
    for number in 0_u32.. {
        sleep_until(begun + every * number).await;
        if counts.under_way.load(Ordering::Relaxed) >= UNDER_WAY_MAX {
            counts.refused.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let order = order(&mut rng);
        let (request, counts) = (http.post(&url).json(&order), Arc::clone(&counts));
        counts.under_way.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            let is_accepted = request.send().await.is_ok_and(|answer| answer.status() == 201);
            let count = if is_accepted { &counts.accepted } else { &counts.refused };
            count.fetch_add(1, Ordering::Relaxed);
            counts.under_way.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// An order between any two places of the area.
fn order(rng: &mut StdRng) -> Value {
    let mut point = || json!({ "lat": rng.random_range(41.80..41.98), "lon": rng.random_range(12.37..12.60) });
    let (origin, destination) = (point(), point());
    let (least, most) = WEIGHTS[rng.random_range(0..WEIGHTS.len())];
    json!({ "origin": origin, "destination": destination, "weight": rng.random_range(least..most) })
}
