//! Deleted keys stay deleted, whoever slept meanwhile.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use reqwest::{Client, Method};
use serde_json::{Value, json};

use super::cluster::{Cluster, STORES};
use super::wire::{self, Told};
use crate::system::turn;

/// Keys that are deleted while a node sleeps.
const DELETED: usize = 10_000;
/// Keys beside them that stay, one in so many.
const KEPT_EVERY: usize = 100;
/// Operations of one batch.
const BATCH: usize = 500;
/// Records of one page of a scan.
const PAGE: usize = 1_000;
/// A batch or page is answered, once somebody is well, within this time.
const ANSWERED_WITHIN: Duration = Duration::from_secs(20);

/// Asks until the answer is a good one; fails with the last one.
async fn until(what: &str, mut ask: impl AsyncFnMut() -> Told, mut good: impl FnMut(&Value) -> bool) -> Value {
    let deadline = Instant::now() + ANSWERED_WITHIN;
    loop {
        match ask().await {
            Told::Answer { status: 200, body } if good(&body) => return body,
            told => assert!(
                Instant::now() < deadline,
                "{what}: not within {ANSWERED_WITHIN:?}: {}",
                shortened(&told)
            ),
        }
    }
}

/// What was told, without the many records that there may be.
fn shortened(told: &Told) -> String {
    format!("{told:?}").chars().take(500).collect()
}

/// Posts one batch until every operation of it is answered as wanted: repeating these does no harm.
async fn batch(http: &Client, front: &str, ops: &[Value], wanted: &[u16]) -> Vec<Value> {
    let url = format!("{front}/kv/batch");
    let body = json!({ "ops": ops });
    let is_wanted = |result: &Value| wanted.iter().any(|status| result["status"] == *status);
    let ask = async || wire::call(http, Method::POST, url.clone(), Some(&body)).await;
    let good = |body: &Value| {
        body["results"]
            .as_array()
            .is_some_and(|results| results.iter().all(is_wanted))
    };
    let answer = until("every operation of a batch is done", ask, good).await;
    answer["results"].as_array().cloned().unwrap_or_default()
}

/// The keys that a scan of everything under a prefix finds.
async fn scan(http: &Client, front: &str, prefix: &str) -> BTreeSet<String> {
    let (mut found, mut after) = (BTreeSet::new(), String::new());
    loop {
        let url = format!("{front}/kv?prefix={prefix}&limit={PAGE}&after={after}");
        let ask = async || wire::call(http, Method::GET, url.clone(), None).await;
        let page = until("a page is answered completely", ask, |page| page["incomplete"] != true).await;
        let items = page["items"].as_array().expect("items");
        found.extend(items.iter().map(|item| item["key"].as_str().expect("a key").to_owned()));
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut after),
            None => return found,
        }
    }
}

/// The keys of these that a get finds.
async fn gets(http: &Client, front: &str, keys: &[String]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for chunk in keys.chunks(BATCH) {
        let ops: Vec<_> = chunk.iter().map(|key| json!({ "op": "get", "key": key })).collect();
        let results = batch(http, front, &ops, &[200, 404]).await;
        let there = chunk.iter().zip(&results).filter(|(_, result)| result["status"] == 200);
        found.extend(there.map(|(key, _)| key.clone()));
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn ten_thousand_deletes_and_a_node_that_slept_through_them() {
    let _turn = turn().await;
    let mut cluster = Cluster::start().await;
    // A scan over nothing but tombstones looks at all of them before it answers.
    let http = wire::patient_client(ANSWERED_WITHIN);
    let keys: Vec<_> = (0..DELETED).map(|n| format!("gone:{n:05}")).collect();
    let kept: BTreeSet<_> = (0..DELETED)
        .step_by(KEPT_EVERY)
        .map(|n| format!("gone:{n:05}:kept"))
        .collect();
    let put = |key: &String| json!({ "op": "put", "key": key, "value": key });
    let puts: Vec<_> = keys.iter().chain(&kept).map(put).collect();
    for puts in puts.chunks(BATCH) {
        batch(&http, &cluster.front_url(0), puts, &[200]).await;
    }
    cluster.whole().await;

    let sleeper = 0;
    cluster.kill_store(sleeper);
    let deletes: Vec<_> = keys.iter().map(|key| json!({ "op": "delete", "key": key })).collect();
    for deletes in deletes.chunks(BATCH) {
        batch(&http, &cluster.front_url(1), deletes, &[200]).await;
    }
    cluster.start_store(sleeper);
    cluster.whole().await;

    // Each of the others gone in turn, so that the one that slept is part of every quorum; and nobody gone.
    for gone in (0..STORES).map(Some).chain([None]) {
        if let Some(gone) = gone {
            cluster.kill_store(gone);
        }
        for front in 0..2 {
            let front = cluster.front_url(front);
            assert_eq!(
                scan(&http, &front, "gone:").await,
                kept,
                "a scan without kvstore {gone:?}"
            );
        }
        let back = gets(&http, &cluster.front_url(0), &keys).await;
        assert!(
            back.is_empty(),
            "deleted keys are back without kvstore {gone:?}: {back:?}"
        );
        if let Some(gone) = gone {
            cluster.start_store(gone);
            cluster.whole().await;
        }
    }
}
