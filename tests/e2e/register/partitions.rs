//! Wires cut, cut one way, severed and slowed down.

use std::time::Duration;

use super::cluster::STORES;
use super::proxy::Wire;
use super::{LONG_FAULT, SHORT_FAULT, Scene};
use crate::system::turn;

/// On a slow wire each message is late by this much, there and back: slower than a suspicion, faster than a loss.
const SLOW: Duration = Duration::from_millis(150);

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_kvstore_cut_off_from_everybody() {
    let _turn = turn().await;
    let scene = Scene::start("isolation", 4).await;
    for (n, span) in [(0, LONG_FAULT), (1, SHORT_FAULT), (2, SHORT_FAULT)] {
        scene.load.watch_gaps();
        scene.cluster.wire_store(n, Wire::CUT);
        scene.goes_on(&format!("kvstore {n} cut off"), &[0, 1], span).await;
        // What was under way arrives now, seconds late.
        scene.cluster.wire_store(n, Wire::WHOLE);
        scene.recovers().await;
    }
    scene.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_kvstore_that_hears_and_is_not_heard() {
    let _turn = turn().await;
    let scene = Scene::start("one-way", 5).await;
    for n in 0..STORES {
        scene.load.watch_gaps();
        scene.cluster.wire_store(n, Wire::NO_ANSWERS);
        scene
            .goes_on(&format!("kvstore {n} not heard"), &[0, 1], SHORT_FAULT)
            .await;
        scene.cluster.wire_store(n, Wire::WHOLE);
        scene.recovers().await;
    }
    scene.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_kvfront_misses_a_kvstore_and_each_another() {
    let _turn = turn().await;
    let scene = Scene::start("split", 6).await;
    for (first, second) in [(0, None), (1, Some(2)), (2, Some(0))] {
        let cut = |wire| {
            scene.cluster.wire(0, first, wire);
            second
                .into_iter()
                .for_each(|second| scene.cluster.wire(1, second, wire));
        };
        scene.load.watch_gaps();
        cut(Wire::CUT);
        let what = format!("kvfront 0 without kvstore {first}, 1 without {second:?}");
        scene.goes_on(&what, &[0, 1], SHORT_FAULT).await;
        cut(Wire::WHOLE);
        scene.recovers().await;
    }
    scene.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn connections_severed_and_a_slow_wire() {
    let _turn = turn().await;
    let scene = Scene::start("slow", 7).await;
    for n in 0..STORES {
        scene.load.watch_gaps();
        scene.cluster.sever_store(n);
        scene.cluster.wire_store(n, Wire::slow(SLOW));
        let what = format!("kvstore {n} slow");
        scene.goes_on(&what, &[0, 1], SHORT_FAULT).await;
        scene.cluster.sever_store(n);
        scene.cluster.wire_store(n, Wire::WHOLE);
        scene.recovers().await;
    }
    scene.ends_well().await;
}
