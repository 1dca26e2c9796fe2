//! What the KV promises, through kvfront and on the nodes.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::process::wait_until;
use crate::system::{KvCluster, body, send, turn};

/// A spare that helped out has handed over by then.
const HANDED_OVER_WITHIN: Duration = Duration::from_secs(5);
/// Rounds of two racing CAS.
const RACES: u64 = 1_000;

#[tokio::test]
async fn exactly_two_of_three_hold_a_key() {
    let _turn = turn().await;
    let kv = KvCluster::start().await;
    for n in 0..20 {
        let key = format!("two-of-three:{n}");
        let answer = body(kv.put(&key, &json!({ "n": n })).await).await;
        assert_eq!((&answer["ok"], &answer["rf"]), (&json!(true), &json!(2)), "{answer}");
        wait_until(HANDED_OVER_WITHIN, "two copies, no more, no less", async || {
            kv.holders(&key).await == 2
        })
        .await;
        for copy in kv.copies(&key).await.into_iter().flatten() {
            assert_eq!(copy, json!({ "n": n }));
        }
    }
    assert_eq!(
        body(send(kv.http.get(kv.url("/health"))).await).await,
        json!({"status": "ok", "backends": 3, "rf": 2})
    );
}

#[tokio::test]
async fn of_two_racing_cas_one_wins_every_time() {
    let _turn = turn().await;
    let kv = KvCluster::start().await;
    for round in 0..RACES {
        let old = if round == 0 { Value::Null } else { json!(round) };
        let race = |by: &'static str| {
            let request = json!({ "key": "race", "old": old, "new": { "round": round + 1, "by": by } });
            let kv = &kv;
            async move { body(kv.cas(&request).await).await }
        };
        let (a, b) = tokio::join!(race("a"), race("b"));
        let wins = [&a, &b].iter().filter(|answer| answer["ok"] == true).count();
        assert_eq!(wins, 1, "round {round}: {a} {b}");
        let (winner, loser) = if a["ok"] == true { ("a", &b) } else { ("b", &a) };
        assert_eq!(
            loser["current"],
            json!({ "round": round + 1, "by": winner }),
            "the loser is told what is there"
        );
        let reset = kv
            .cas(&json!({ "key": "race", "old": { "by": winner, "round": round + 1 }, "new": round + 1 }))
            .await;
        assert_eq!(body(reset).await["ok"], true);
    }
}

#[tokio::test]
async fn a_lock_is_held_once_frees_itself_and_only_its_holder_releases() {
    let _turn = turn().await;
    let kv = KvCluster::start().await;
    let call = async |path: &str| body(send(kv.http.post(kv.url(path))).await).await;
    let first = call("/lock/acquire/door?ttl_sec=30").await;
    assert_eq!(first["ok"], true, "{first}");
    let again = call("/lock/acquire/door?ttl_sec=30").await;
    assert_eq!(again["ok"], false);
    assert!(again["expires_at"].as_f64().is_some_and(|at| at > 1.7e9), "{again}");
    assert_eq!(call("/lock/release/door").await["ok"], true);
    let owned = call("/lock/acquire/door?ttl_sec=30&owner=me").await;
    assert_eq!(owned["ok"], true);
    assert!(
        owned["fence"].as_u64() > first["fence"].as_u64(),
        "fences grow: {first} {owned}"
    );
    assert_eq!(call("/lock/release/door").await["ok"], false, "taken with an owner");
    assert_eq!(call("/lock/release/door?token=guess").await["ok"], false);
    let token = owned["token"].as_str().expect("a token");
    assert_eq!(
        call(&format!("/lock/renew/door?token={token}&ttl_sec=30")).await["ok"],
        true
    );
    assert_eq!(call(&format!("/lock/release/door?token={token}")).await["ok"], true);
    assert_eq!(call("/lock/release/door").await["ok"], true, "nothing was held");

    assert_eq!(call("/lock/acquire/short?ttl_sec=2").await["ok"], true);
    assert_eq!(call("/lock/acquire/short?ttl_sec=2").await["ok"], false);
    let freed = wait_until(Duration::from_secs(4), "the lock frees itself", async || {
        call("/lock/acquire/short?ttl_sec=2").await["ok"] == true
    })
    .await;
    assert!(
        freed > Duration::from_millis(1_500),
        "after {freed:?}: it was not held for its time to live"
    );
    assert_eq!(kv.get("door").await, None, "locks are not reachable through /kv");
}

#[tokio::test]
async fn a_deleted_key_stays_deleted_and_scans_see_what_is_there() {
    let _turn = turn().await;
    let mut kv = KvCluster::start().await;
    let keys: Vec<_> = (0..30).map(|n| format!("scan:{n:03}")).collect();
    for key in &keys {
        kv.put(key, &json!(key)).await;
    }
    // While a home is away the spare keeps its part; a delete must win over that, too.
    kv.stores[0].kill();
    for key in keys.iter().step_by(2) {
        let answer = send(kv.http.delete(kv.url(&format!("/kv/{key}")))).await;
        assert_eq!(answer.status(), 200, "{}", body(answer).await);
    }
    kv.stores[0].start_again();
    let left: Vec<_> = keys.iter().skip(1).step_by(2).cloned().collect();
    wait_until(Duration::from_secs(10), "hints are handed over", async || {
        let mut holders = Vec::new();
        for key in &keys {
            holders.push(kv.holders(key).await);
        }
        (0..keys.len()).all(|i| holders[i] == if i % 2 == 0 { 0 } else { 2 })
    })
    .await;
    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let page = body(send(kv.http.get(kv.url(&format!("/kv?prefix=scan:&limit=4&after={after}")))).await).await;
        let items = page["items"].as_array().expect("items").clone();
        seen.extend(items.iter().map(|item| item["key"].as_str().expect("a key").to_owned()));
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, left);
    let newest = body(send(kv.http.get(kv.url("/kv?prefix=scan:&limit=1&reverse=true"))).await).await;
    assert_eq!(newest["items"][0]["key"], json!(left.last()));
}

#[tokio::test]
async fn a_killed_node_is_missed_by_nobody_and_gets_what_it_missed() {
    let _turn = turn().await;
    let mut kv = KvCluster::start().await;
    kv.put("before", &json!(1)).await;
    kv.stores[1].kill();
    let writes = (0..50).map(|n| {
        let kv = &kv;
        async move {
            let begun = std::time::Instant::now();
            let answer = kv.put(&format!("while-away:{n}"), &json!(n)).await;
            assert_eq!(answer.status(), 200, "{}", body(answer).await);
            assert!(
                begun.elapsed() < Duration::from_secs(2),
                "a write took {:?}",
                begun.elapsed()
            );
        }
    });
    join_all(writes).await;
    for n in 0..50 {
        assert_eq!(kv.get(&format!("while-away:{n}")).await, Some(json!(n)));
    }
    kv.stores[1].start_again();
    let took = wait_until(HANDED_OVER_WITHIN, "the spare has handed everything over", async || {
        let mut all = true;
        for n in 0..50 {
            all &= kv.holders(&format!("while-away:{n}")).await == 2;
        }
        all
    })
    .await;
    println!("handed over {took:?} after the start");
    // Every key is on its two homes again: with any one node gone, each is still there.
    kv.stores[0].kill();
    for n in 0..50 {
        assert_eq!(kv.get(&format!("while-away:{n}")).await, Some(json!(n)));
    }
    kv.stores[2].kill();
    let none = kv
        .http
        .get(kv.url("/kv/before"))
        .send()
        .await
        .expect("an answer, not silence");
    assert_eq!(none.status(), 503, "one of three is no quorum");
    assert!(
        body(none).await["detail"]
            .as_str()
            .is_some_and(|detail| detail.contains('3')),
        "it says how many answered"
    );
}
