//! Every order sent twice at once, while gateways die, a kvstore is restarted and lb is replaced: exactly one document for each.
//!
//! `ORDERS` sends more of them than the usual 5,000; `scripts/soak --orders 100000` does that with optimised programs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};
use reqwest::Client;
use serde_json::Value;

use crate::process::Process;
use crate::system::{Options, System, body, client, order, send, turn};

/// Orders when nothing else is said.
const ORDERS: u32 = 5_000;
/// Senders at once; each sends both copies of its order at the same time.
const SENDERS: u32 = 16;
/// How often a gateway is killed.
const KILL_EVERY: Duration = Duration::from_secs(5);
/// How long one order may take, through everything.
const ORDER_WITHIN: Duration = Duration::from_secs(60);
/// Pause of a client before it asks again.
const AGAIN_AFTER: Duration = Duration::from_millis(50);
/// Items of a page when documents are counted.
const PAGE: usize = 1_000;

/// What became of one copy of an order.
struct Copy {
    id: String,
    /// It was answered with 201.
    is_first: bool,
}

/// Sends an order until it is accepted, as a generator does that was told nothing, or that the outcome is not known.
async fn insist(http: &Client, url: &str, number: u32) -> Copy {
    let begun = Instant::now();
    let mut last = String::new();
    while begun.elapsed() < ORDER_WITHIN {
        let request = http.post(url).json(&order(number));
        match request
            .header("Idempotency-Key", format!("twice-{number}"))
            .send()
            .await
        {
            Ok(answer) if answer.status().is_success() => {
                let is_first = answer.status() == 201;
                // A gateway that dies may take the body along.
                if let Ok(record) = answer.json::<Value>().await
                    && let Some(id) = record["id"].as_str()
                {
                    return Copy {
                        id: id.to_owned(),
                        is_first,
                    };
                }
            }
            Ok(answer) => {
                let status = answer.status();
                assert!(
                    matches!(status.as_u16(), 502..=504),
                    "order {number}: {status} {}",
                    body(answer).await
                );
                last = status.to_string();
            }
            Err(error) => last = error.to_string(),
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
    panic!("order {number} was not accepted within {ORDER_WITHIN:?}: {last}");
}

/// Sends the orders that are left, each twice at once; gives the id of each.
async fn sender(http: Client, url: String, next: &AtomicU32, orders: u32) -> BTreeMap<u32, String> {
    let mut ids = BTreeMap::new();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= orders {
            return ids;
        }
        let (one, two) = join(insist(&http, &url, number), insist(&http, &url, number)).await;
        assert_eq!(one.id, two.id, "order {number} has two ids");
        assert!(!(one.is_first && two.is_first), "order {number} was created twice");
        ids.insert(number, one.id);
    }
}

/// Kills a gateway every [`KILL_EVERY`], restarts a kvstore and replaces lb once each, until the orders are sent.
async fn break_things(system: &mut System, next: &AtomicU32, orders: u32, sent: &AtomicBool) -> u32 {
    let part = |of: u32| next.load(Ordering::Relaxed) >= orders / 4 * of;
    let (mut killed, mut restarted, mut replaced, mut at) = (0, false, false, Instant::now());
    while !sent.load(Ordering::Relaxed) || !restarted || !replaced {
        if at.elapsed() >= KILL_EVERY {
            let victim = killed as usize % system.gateways.len();
            start_again(&mut system.gateways[victim]);
            (killed, at) = (killed + 1, Instant::now());
        }
        if !restarted && part(1) {
            system.kv.stores[1].stop();
            start_again(&mut system.kv.stores[1]);
            restarted = true;
        }
        if !replaced && part(2) {
            // It answers what is under way, and takes nothing new meanwhile.
            system.lb.stop();
            start_again(&mut system.lb);
            replaced = true;
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
    killed
}

/// Killed, if it still runs, and started again. The thread may wait: senders have others.
fn start_again(process: &mut Process) {
    tokio::task::block_in_place(|| process.start_again());
}

/// How many documents each order has, by id.
async fn documents(system: &System) -> BTreeMap<String, u32> {
    let mut found = BTreeMap::new();
    let mut after = String::new();
    loop {
        let path = format!("/kv?prefix=delivery:&limit={PAGE}&after={after}");
        let page = body(send(system.kv.http.get(system.kv.url(&path))).await).await;
        let items = page["items"].as_array().expect("a list");
        for item in items {
            let id = item["value"]["id"].as_str().expect("a delivery has an id");
            *found.entry(id.to_owned()).or_default() += 1;
        }
        match items.last() {
            Some(last) => after = last["key"].as_str().expect("a key").to_owned(),
            None => return found,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_order_sent_twice_exists_once() {
    let orders = std::env::var("ORDERS").map_or(ORDERS, |n| n.parse().expect("ORDERS is a number"));
    let _turn = turn().await;
    let mut system = System::start(Options::default()).await;
    let url = system.url("/deliveries");
    let (next, sent, begun) = (AtomicU32::new(0), AtomicBool::new(false), Instant::now());
    let sending = async {
        let senders = (0..SENDERS).map(|_| sender(client(), url.clone(), &next, orders));
        let all = join_all(senders).await;
        sent.store(true, Ordering::Relaxed);
        all
    };
    let (ids, killed) = join(sending, break_things(&mut system, &next, orders, &sent)).await;
    let took = begun.elapsed();
    let ids: BTreeMap<u32, String> = ids.into_iter().flatten().collect();
    system.kv.ready().await;
    let documents = documents(&system).await;
    let wanted: BTreeMap<String, u32> = ids.values().map(|id| (id.clone(), 1)).collect();
    assert_eq!(wanted.len(), orders as usize, "each order has an id of its own");
    let lost: Vec<_> = wanted.keys().filter(|id| !documents.contains_key(*id)).collect();
    let more: Vec<_> = documents
        .iter()
        .filter(|(id, n)| **n > 1 || !wanted.contains_key(*id))
        .collect();
    assert!(lost.is_empty() && more.is_empty(), "lost: {lost:?}, too many: {more:?}");
    println!(
        "{orders} orders sent twice by {SENDERS} senders in {took:.1?}, {killed} gateways killed: {} documents",
        documents.len()
    );
}
