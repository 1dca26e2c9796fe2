//! One client: asks, is told, and asks the next.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::MissedTickBehavior;

use super::cluster::FRONTS;
use super::record::Record;
use super::shared::Shared;
use super::what::What;
use super::wire::{self, Told};

/// A client asks no more often than this: two cores carry the programs, the proxies and the checker too.
const ASK_EVERY: Duration = Duration::from_millis(8);
/// Of a hundred calls, those that are batches.
const BATCH_PERCENT: u32 = 8;
/// Operations of a batch.
const BATCH_OPS: Range<usize> = 2..6;

/// One client, until all are to stop.
pub(crate) async fn work(shared: Arc<Shared>, retire: UnboundedSender<Arc<Record>>, client: u32, mut rng: StdRng) {
    let http = wire::client();
    let front = client as usize % FRONTS;
    let mut ticks = tokio::time::interval(ASK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !shared.is_stopped() {
        ticks.tick().await;
        let ops = if rng.random_range(0..100) < BATCH_PERCENT {
            rng.random_range(BATCH_OPS)
        } else {
            1
        };
        let some = |_| {
            let record = shared.some_key(&mut rng, &retire);
            let what = shared.choose(&record, &mut rng);
            (record, what)
        };
        let mut asked: Vec<_> = (0..ops).map(some).collect();
        // A batch cannot do everything. What is left of it may be a single operation, or none.
        asked.retain(|(_, what)| ops == 1 || what.as_batch_op("").is_some());
        if asked.is_empty() {
            continue;
        }
        let called = shared.clock.now_us();
        for ((record, what), told) in asked.iter().zip(ask(&shared, &http, front, &asked).await) {
            shared.note(record, client, called, what, &told);
        }
    }
}

/// Asks one thing, or several in a batch, and gives what was told of each.
async fn ask(shared: &Shared, http: &Client, front: usize, asked: &[(Arc<Record>, What)]) -> Vec<Told> {
    if let [(record, what)] = asked {
        let (method, path, body) = what.as_call(&record.name);
        return vec![wire::call(http, method, shared.url(front, &path), body.as_ref()).await];
    }
    let ops: Vec<_> = asked
        .iter()
        .filter_map(|(record, what)| what.as_batch_op(&record.name))
        .collect();
    let told = wire::call(
        http,
        Method::POST,
        shared.url(front, "/kv/batch"),
        Some(&json!({ "ops": ops })),
    )
    .await;
    let Told::Answer { status, body } = told else {
        return vec![told; asked.len()];
    };
    let results = body["results"].as_array().map_or(&[][..], Vec::as_slice);
    if results.len() != asked.len() {
        let wrong = format!("a batch of {} was answered with {status} {body}", asked.len());
        return vec![Told::Wrong(wrong); asked.len()];
    }
    let of_one = |result: &Value| {
        let status = result["status"].as_u64().and_then(|status| u16::try_from(status).ok());
        wire::told(status.unwrap_or_default(), result.clone())
    };
    results.iter().map(of_one).collect()
}
