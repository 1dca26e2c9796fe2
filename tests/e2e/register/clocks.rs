//! One clock an hour wrong.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use super::cluster::{FRONTS, STORES};
use super::wire::{self, Told};
use super::{LONG_FAULT, SHORT_FAULT, Scene};
use crate::process::wait_until;
use crate::system::{ok, turn};

/// An hour, in milliseconds.
const HOUR_MS: i64 = 3_600_000;
/// How long a node may take until it says what is wrong with its clock, or that it is well.
const SAYS_SO_WITHIN: Duration = Duration::from_secs(5);

/// Bends a kvstore's clock and waits until it says so itself, and everybody else shows it. The others go on.
async fn goes_wrong(scene: &Scene, n: usize, offset_ms: i64) {
    scene.load.watch_gaps();
    scene.cluster.set_store_clock(n, offset_ms);
    let what = format!("the clock of kvstore {n} wrong by {offset_ms} ms");
    scene.goes_on(&what, &[0, 1], SHORT_FAULT).await;
    let ready = format!("{}/ready", scene.cluster.store_url(n));
    wait_until(SAYS_SO_WITHIN, "the kvstore says that its clock is wrong", async || {
        let Ok(answer) = scene.cluster.http.get(&ready).send().await else {
            return false;
        };
        answer.status() == 503 && answer.text().await.is_ok_and(|text| text.contains("clock"))
    })
    .await;
    for front in 0..FRONTS {
        wait_until(SAYS_SO_WITHIN, "a kvfront shows how wrong the clock is", async || {
            let node = scene.cluster.node_view(front, n).await;
            let ahead_ms = node["clock_ahead_ms"].as_i64().unwrap_or(0);
            // To the minute: what is measured includes the time an answer took.
            (ahead_ms - offset_ms).abs() < 60_000
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_kvstore_whose_clock_is_an_hour_behind_and_one_an_hour_ahead() {
    let _turn = turn().await;
    let scene = Scene::start("store-clock", 11).await;
    goes_wrong(&scene, 2, -HOUR_MS).await;
    scene.cluster.set_store_clock(2, 0);
    scene.recovers().await;
    goes_wrong(&scene, 0, HOUR_MS).await;
    scene.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_kvstore_whose_clock_was_ahead_is_well_again_once_it_is_right() {
    let _turn = turn().await;
    let mut scene = Scene::start("store-clock-mended", 13).await;
    goes_wrong(&scene, 0, HOUR_MS).await;
    scene.cluster.set_store_clock(0, 0);
    scene.cluster.start_store(0);
    scene.recovers().await;
    scene.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_kvfront_whose_clock_is_an_hour_ahead() {
    let _turn = turn().await;
    let mut scene = Scene::start("front-clock", 12).await;
    scene.load.watch_gaps();
    scene.cluster.set_front_clock(0, HOUR_MS);
    scene.goes_on("the clock of kvfront 0 wrong", &[1], LONG_FAULT).await;
    let http = wire::client();
    let url = format!("{}/kv/by-a-sick-front", scene.cluster.front_url(0));
    let told = wire::call(&http, Method::PUT, url, Some(&json!({ "value": 1 }))).await;
    assert!(
        matches!(&told, Told::NotDone(why) if why.contains("clock")),
        "a kvfront in the future is refused, and says why: {told:?}"
    );
    // Its hybrid clock never goes back, so that it has to be started again when its clock is right, and says so.
    scene.cluster.set_front_clock(0, 0);
    let ready = format!("{}/ready", scene.cluster.front_url(0));
    wait_until(
        SAYS_SO_WITHIN,
        "the kvfront says that it has to be restarted",
        async || {
            let Ok(answer) = scene.cluster.http.get(&ready).send().await else {
                return false;
            };
            answer.status() == 503
                && answer
                    .text()
                    .await
                    .is_ok_and(|text| text.contains("restart this kvfront"))
        },
    )
    .await;
    scene.cluster.start_front(0);
    scene.cluster.front_is_ready(0).await;
    scene.recovers().await;
    let url = format!("{}/kv/by-a-sick-front", scene.cluster.front_url(1));
    let told = wire::call(&http, Method::GET, url, None).await;
    assert!(
        matches!(told, Told::Answer { status: 404, .. }),
        "nothing of it was taken: {told:?}"
    );
    scene.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_kvfront_whose_clock_is_wrong_makes_no_kvstore_blame_itself() {
    let _turn = turn().await;
    let scene = Scene::start("blame", 14).await;
    scene.load.watch_gaps();
    scene.cluster.set_front_clock(0, HOUR_MS);
    scene.goes_on("the clock of kvfront 0 wrong", &[1], LONG_FAULT).await;
    for n in 0..STORES {
        let ready = format!("{}/ready", scene.cluster.store_url(n));
        assert!(
            ok(scene.cluster.http.get(ready)).await,
            "kvstore {n} says that it is not well"
        );
    }
    scene.ends_well().await;
}
