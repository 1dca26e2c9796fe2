//! Which gateway gets the next request, over real connections.

#![allow(clippy::unwrap_used, reason = "a panic here is the report")]

mod support;

use std::collections::BTreeMap;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::{any, get};
use support::{Gateway, Lb, until};

/// Answers with its name; on `/hang` never.
async fn named(name: &'static str) -> Gateway {
    let hang = get(|| async { std::future::pending::<StatusCode>().await });
    Gateway::start(
        Router::new()
            .route("/hang", hang)
            .fallback(any(move || async move { name })),
    )
    .await
}

async fn shares(lb: &Lb, requests: usize) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for _ in 0..requests {
        let answer = lb.get("/drones").await;
        *shares.entry(answer.text().await.unwrap()).or_default() += 1;
    }
    shares
}

#[tokio::test]
async fn the_least_busy_gateway_gets_the_next_request() {
    let gateways = [named("a").await, named("b").await];
    let addrs = [gateways[0].addr, gateways[1].addr];
    let lb = Lb::start(&addrs, &["--lb-policy", "least_conn"]).await;
    assert_eq!(
        shares(&lb, 10).await,
        BTreeMap::from([("a".to_owned(), 5), ("b".to_owned(), 5)])
    );
    let hanging = tokio::spawn(lb.client.get(format!("{}/hang", lb.base)).send());
    until("the other gets them all", async || shares(&lb, 10).await.len() == 1).await;
    hanging.abort();
    until("it is free again", async || lb.metric("lb_in_flight").await == 0).await;
    assert_eq!(shares(&lb, 10).await.len(), 2);
}

#[tokio::test]
async fn a_gateway_that_fails_fast_gets_little() {
    let well = named("well").await;
    let failing =
        Gateway::start(Router::new().fallback(any(|| async { (StatusCode::SERVICE_UNAVAILABLE, "failing") }))).await;
    let lb = Lb::start_with(&[well.addr, failing.addr], &["--lb-policy", "p2c_ewma"], |parts| {
        parts.seed = 1;
    })
    .await;
    let shares = shares(&lb, 40).await;
    let failures = shares.get("failing").copied().unwrap_or(0);
    // One error is enough to prefer the other for seconds.
    assert!(failures <= 10, "{shares:?}");
}
