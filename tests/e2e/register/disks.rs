//! Disks that are full, damaged, or new.

use std::time::Duration;

use super::cluster::Cluster;
use super::{SHORT_FAULT, Scene};
use crate::process::wait_until;
use crate::system::{ok, turn};

/// How long a node may take until it says that its disk is full, or no longer is.
const SAYS_SO_WITHIN: Duration = Duration::from_secs(5);

async fn says_it_is_well(cluster: &Cluster, store: usize) -> bool {
    ok(cluster.http.get(format!("{}/ready", cluster.store_url(store)))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_full_disk_and_room_again() {
    let _turn = turn().await;
    let scene = Scene::start("full", 8).await;
    for n in 0..2 {
        scene.load.watch_gaps();
        scene.cluster.fill_disk(n, true);
        wait_until(SAYS_SO_WITHIN, "the kvstore says that it cannot write", async || {
            !says_it_is_well(&scene.cluster, n).await
        })
        .await;
        scene
            .goes_on(&format!("the disk of kvstore {n} full"), &[0, 1], SHORT_FAULT)
            .await;
        scene.cluster.fill_disk(n, false);
        wait_until(SAYS_SO_WITHIN, "the kvstore can write again", async || {
            says_it_is_well(&scene.cluster, n).await
        })
        .await;
        scene.recovers().await;
    }
    scene.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_damaged_database_is_refused_and_replaced() {
    let _turn = turn().await;
    let mut scene = Scene::start("damage", 9).await;
    scene.load.watch_gaps();
    let (ended, said) = scene.cluster.start_on_damage(1).await;
    let path = scene.cluster.database(1);
    assert!(!ended.success(), "it took a damaged database: {said}");
    assert!(
        said.contains(path.to_str().expect("UTF-8")),
        "it does not name {path:?}: {said}"
    );
    scene
        .goes_on("kvstore 1 without a usable database", &[0, 1], SHORT_FAULT)
        .await;
    scene.cluster.replace_disk(1).await;
    scene.recovers().await;
    scene.cluster.kill_store(0);
    scene.goes_on("kvstore 0 killed after that", &[0, 1], SHORT_FAULT).await;
    scene.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_new_disk_is_filled_before_it_counts() {
    let _turn = turn().await;
    let mut scene = Scene::start("replaced", 10).await;
    for (replaced, killed) in [(0, 1), (2, 0)] {
        scene.load.watch_gaps();
        scene.cluster.replace_disk(replaced).await;
        scene
            .goes_on(&format!("kvstore {replaced} on a new disk"), &[0, 1], SHORT_FAULT)
            .await;
        scene.recovers().await;
        // Now the new one is needed for every quorum: what it does not hold would be missing.
        scene.load.watch_gaps();
        scene.cluster.kill_store(killed);
        scene
            .goes_on(&format!("kvstore {killed} killed after that"), &[0, 1], SHORT_FAULT)
            .await;
        scene.cluster.start_store(killed);
        scene.recovers().await;
    }
    scene.cluster.kill_store(1);
    scene.ends_well().await;
}
