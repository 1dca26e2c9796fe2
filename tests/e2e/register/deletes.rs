//! Deleted keys stay deleted, whoever slept meanwhile.

use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::{Client, Method};
use serde_json::{Value, json};

use super::cluster::{Cluster, STORES};
use super::wire::{self, Told};
use crate::process::wait_until;
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
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

/// Posts batches until each operation is answered with 200: repeating these does no harm.
async fn all(http: &Client, front: &str, ops: &[Value]) {
    for chunk in ops.chunks(BATCH) {
        let mut left = chunk.to_vec();
        wait_until(ANSWERED_WITHIN, "every operation of a batch is done", async || {
            let told = wire::call(
                http,
                Method::POST,
                format!("{front}/kv/batch"),
                Some(&json!({ "ops": left })),
            )
            .await;
            if let Told::Answer { status: 200, body } = told {
                let results = body["results"].as_array().cloned().unwrap_or_default();
                let open = left.iter().zip(&results).filter(|(_, result)| result["status"] != 200);
                left = open.map(|(op, _)| op.clone()).collect();
            }
            left.is_empty()
        })
        .await;
    }
}

/// The keys that a scan of everything under a prefix finds.
async fn scan(http: &Client, front: &str, prefix: &str) -> BTreeSet<String> {
    let (mut found, mut after) = (BTreeSet::new(), String::new());
    loop {
        let mut page = Value::Null;
        wait_until(ANSWERED_WITHIN, "a page is answered completely", async || {
            let url = format!("{front}/kv?prefix={prefix}&limit={PAGE}&after={after}");
            if let Told::Answer { status: 200, body } = wire::call(http, Method::GET, url, None).await {
                page = body;
            }
            page.is_object() && page["incomplete"] != true
        })
        .await;
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
        let mut results = Vec::new();
        wait_until(ANSWERED_WITHIN, "every get of a batch is answered", async || {
            let told = wire::call(
                http,
                Method::POST,
                format!("{front}/kv/batch"),
                Some(&json!({ "ops": ops })),
            )
            .await;
            if let Told::Answer { status: 200, body } = told {
                results = body["results"].as_array().cloned().unwrap_or_default();
            }
            results.len() == ops.len()
                && results
                    .iter()
                    .all(|result| result["status"] == 200 || result["status"] == 404)
        })
        .await;
        let there = chunk.iter().zip(&results).filter(|(_, result)| result["status"] == 200);
        found.extend(there.map(|(key, _)| key.clone()));
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn ten_thousand_deletes_and_a_node_that_slept_through_them() {
    let _turn = turn().await;
    let mut cluster = Cluster::start().await;
    let http = wire::client();
    let keys: Vec<_> = (0..DELETED).map(|n| format!("gone:{n:05}")).collect();
    let kept: BTreeSet<_> = (0..DELETED)
        .step_by(KEPT_EVERY)
        .map(|n| format!("gone:{n:05}:kept"))
        .collect();
    let put = |key: &String| json!({ "op": "put", "key": key, "value": key });
    let puts: Vec<_> = keys.iter().chain(&kept).map(put).collect();
    all(&http, &cluster.front_url(0), &puts).await;
    cluster.whole().await;

    let sleeper = 0;
    cluster.kill_store(sleeper);
    let deletes: Vec<_> = keys.iter().map(|key| json!({ "op": "delete", "key": key })).collect();
    all(&http, &cluster.front_url(1), &deletes).await;
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
