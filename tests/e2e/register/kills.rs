//! Programs killed and paused.

use super::cluster::{FRONTS, STORES};
use super::{LONG_FAULT, SHORT_FAULT, Scene};
use crate::system::turn;

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn each_kvstore_killed_in_turn() {
    let _turn = turn().await;
    let mut scene = Scene::start("kill", 1).await;
    for n in 0..STORES {
        scene.load.watch_gaps();
        scene.cluster.kill_store(n);
        scene
            .goes_on(&format!("kvstore {n} killed"), &[0, 1], SHORT_FAULT)
            .await;
        scene.cluster.start_store(n);
        scene.recovers().await;
    }
    scene.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn each_kvstore_paused_in_turn_for_longer_than_every_timeout() {
    let _turn = turn().await;
    let scene = Scene::start("pause", 2).await;
    for n in 0..STORES {
        scene.load.watch_gaps();
        scene.cluster.pause_store(n);
        scene.goes_on(&format!("kvstore {n} paused"), &[0, 1], LONG_FAULT).await;
        scene.cluster.resume_store(n);
        scene.recovers().await;
    }
    scene.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_kvfront_killed_and_one_paused() {
    let _turn = turn().await;
    let mut scene = Scene::start("front", 3).await;
    for n in 0..FRONTS {
        let other = 1 - n;
        scene.load.watch_gaps();
        scene.cluster.kill_front(n);
        scene
            .goes_on(&format!("kvfront {n} killed"), &[other], SHORT_FAULT)
            .await;
        scene.cluster.start_front(n);
        scene.cluster.front_is_ready(n).await;
        scene.recovers().await;
    }
    // A coordinator that was paused in the middle of its operations goes on with them as if nothing had been.
    scene.load.watch_gaps();
    scene.cluster.pause_front(0);
    scene.goes_on("kvfront 0 paused", &[1], LONG_FAULT).await;
    scene.cluster.resume_front(0);
    scene.recovers().await;
    scene.ends_well().await;
}
