//! Gateways that stop, stall, lie and come back: what fails, what is repeated, and what must not be.

#![allow(clippy::unwrap_used, reason = "a panic here is the report")]

mod support;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::any;
use futures_util::{StreamExt, stream};
use support::{Gateway, Lb, Scripted, nobody, raw_gateway, read_head, until};
use tokio::io::AsyncWriteExt;

/// Answers every request with its name.
async fn named(name: &'static str) -> Gateway {
    Gateway::start(Router::new().fallback(any(move || async move { name }))).await
}

async fn three() -> [Gateway; 3] {
    [named("a").await, named("b").await, named("c").await]
}

fn addrs(gateways: &[Gateway]) -> Vec<SocketAddr> {
    gateways.iter().map(|gateway| gateway.addr).collect()
}

/// Reads a request on each connection and hangs up; counts them.
async fn hangs_up(requests: Arc<AtomicUsize>) -> SocketAddr {
    raw_gateway(move |_, mut stream| {
        let requests = Arc::clone(&requests);
        async move {
            if !read_head(&mut stream).await.is_empty() {
                requests.fetch_add(1, Ordering::SeqCst);
            }
        }
    })
    .await
}

async fn shares(lb: &Lb, requests: usize) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for _ in 0..requests {
        let answer = lb.get("/deliveries").await;
        assert_eq!(answer.status(), 200);
        *shares.entry(answer.text().await.unwrap()).or_default() += 1;
    }
    shares
}

#[tokio::test]
async fn each_gateway_gets_its_share() {
    let gateways = three().await;
    let lb = Lb::start(&addrs(&gateways), &[]).await;
    let expected = ["a", "b", "c"].map(|name| (name.to_owned(), 10));
    assert_eq!(shares(&lb, 30).await, BTreeMap::from(expected));
    assert_eq!(lb.metric("lb_backends").await, 3);
    assert_eq!(
        lb.metric("lb_upstream_connects_total").await,
        3,
        "connections are used again"
    );
}

#[tokio::test]
async fn when_one_stops_under_load_nothing_fails() {
    let [a, b, c] = three().await;
    let lb = Lb::start(&[a.addr, b.addr, c.addr], &[]).await;
    // Eight clients, with keys and without bodies, while one gateway stops in the middle.
    let load = stream::iter(0..600).map(|n: u32| {
        let lb = &lb;
        async move {
            let key = n.to_string();
            match n % 3 {
                0 => lb.get("/drones").await.status(),
                1 => lb.post("/deliveries", Some(&key), "{}").await.status(),
                _ => lb
                    .client
                    .put(format!("{}/x", lb.base))
                    .body("1")
                    .send()
                    .await
                    .unwrap()
                    .status(),
            }
        }
    });
    let mut answers = load.buffer_unordered(8);
    let (half_way, is_half_way) = tokio::sync::oneshot::channel();
    let mut half_way = Some(half_way);
    let work = async {
        let mut done = 0;
        while let Some(status) = answers.next().await {
            assert_eq!(status, 200);
            done += 1;
            if done == 300 {
                half_way.take().unwrap().send(()).unwrap();
            }
        }
        assert_eq!(done, 600);
    };
    let stop = async {
        is_half_way.await.unwrap();
        c.stop().await
    };
    let ((), _nobody) = tokio::join!(work, stop);
    // A gateway without connections to lose is noticed at the next attempt to connect, which the load may or may not have made.
    until("it is skipped", async || {
        assert_eq!(lb.get("/drones").await.status(), 200);
        lb.metric("lb_ejections_total").await >= 1
    })
    .await;
}

#[tokio::test]
async fn any_request_goes_on_when_nothing_was_sent() {
    let dead = [nobody(), nobody()];
    let alive = named("alive").await;
    let lb = Lb::start(&[dead[0].addr, dead[1].addr, alive.addr], &[]).await;
    for _ in 0..12 {
        let answer = lb.post("/deliveries", None, "{}").await;
        assert_eq!(
            (answer.status().as_u16(), answer.text().await.unwrap().as_str()),
            (200, "alive")
        );
    }
    assert_eq!(lb.metric("lb_retries_total").await, 0);
}

#[tokio::test]
async fn only_what_may_arrive_twice_is_repeated_and_only_once() {
    let requests = Arc::new(AtomicUsize::new(0));
    let bad = [
        hangs_up(Arc::clone(&requests)).await,
        hangs_up(Arc::clone(&requests)).await,
    ];
    let lb = Lb::start(&bad, &[]).await;
    let without_key = lb.post("/deliveries", None, "{}").await;
    assert_eq!(without_key.status(), 502);
    let body: serde_json::Value = serde_json::from_str(&without_key.text().await.unwrap()).unwrap();
    assert_eq!(body["outcome"], "unknown");
    assert!(body["detail"].as_str().unwrap().contains("broke off"), "{body}");
    assert_eq!(requests.swap(0, Ordering::SeqCst), 1, "never sent again");
    let with_key = lb.post("/deliveries", Some("k"), "{}").await;
    assert_eq!(with_key.status(), 502);
    assert_eq!(requests.swap(0, Ordering::SeqCst), 2, "sent again once, to the other");
    let get = lb.get("/drones").await;
    assert_eq!(get.status(), 502);
    assert!(
        !get.text().await.unwrap().contains("outcome"),
        "reading changes nothing"
    );
    assert_eq!(requests.swap(0, Ordering::SeqCst), 2);
    let piece = vec![0_u8; 300_000];
    let big = stream::iter((0..5).map(move |_| Ok::<_, Infallible>(piece.clone())));
    let answer = lb.post("/deliveries", Some("k"), reqwest::Body::wrap_stream(big)).await;
    assert_eq!(answer.status(), 502);
    assert_eq!(
        requests.load(Ordering::SeqCst),
        1,
        "too big to be kept for a repetition"
    );
    assert_eq!(lb.metric("lb_retries_total").await, 2);
}

#[tokio::test]
async fn a_gateway_that_alone_answers_errors_is_left_out() {
    let unavailable = (axum::http::StatusCode::SERVICE_UNAVAILABLE, "bad");
    let bad = Gateway::start(Router::new().fallback(any(move || async move { unavailable }))).await;
    let well = named("well").await;
    let lb = Lb::start(&[bad.addr, well.addr], &["--lb-eject-errors", "3"]).await;
    let mut answers = BTreeMap::new();
    for _ in 0..100 {
        *answers
            .entry(lb.get("/drones").await.text().await.unwrap())
            .or_insert(0) += 1;
    }
    assert!(answers["bad"] < 40 && answers["bad"] >= 3, "{answers:?}");
    assert!(lb.metric("lb_ejections_total").await >= 1);
    // The only one stays, whatever it answers.
    let lb = Lb::start(&[bad.addr], &["--lb-eject-errors", "3"]).await;
    for _ in 0..10 {
        assert_eq!(lb.get("/drones").await.text().await.unwrap(), "bad");
    }
    assert_eq!(lb.metric("lb_ejections_total").await, 0);
}

#[tokio::test]
async fn a_gateway_that_fails_its_health_checks_gets_no_requests_until_it_passes_them() {
    let is_well = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let said = Arc::clone(&is_well);
    let health = axum::routing::get(move || {
        let is_well = said.load(Ordering::SeqCst);
        async move {
            if is_well {
                axum::http::StatusCode::OK
            } else {
                axum::http::StatusCode::SERVICE_UNAVAILABLE
            }
        }
    });
    let sick = Gateway::start(Router::new().route("/alive", health).fallback(any(|| async { "sick" }))).await;
    // It knows nothing of the path that it is asked for, which will do.
    let well = named("well").await;
    let flags = [
        "--lb-health-path",
        "/alive",
        "--lb-health-interval-sec",
        "0.02",
        "--lb-health-timeout-ms",
        "5000",
        "--lb-slow-start-sec",
        "0",
    ];
    let lb = Lb::start(&[sick.addr, well.addr], &flags).await;
    assert_eq!(shares(&lb, 20).await.len(), 2);
    is_well.store(false, Ordering::SeqCst);
    until("the sick one is left out", async || {
        !shares(&lb, 4).await.contains_key("sick")
    })
    .await;
    assert_eq!(shares(&lb, 20).await, BTreeMap::from([("well".to_owned(), 20)]));
    is_well.store(true, Ordering::SeqCst);
    until("it is back", async || shares(&lb, 4).await.len() == 2).await;
    let ready: serde_json::Value = serde_json::from_str(&lb.get("/ready").await.text().await.unwrap()).unwrap();
    assert_eq!(ready["checks"]["health checks"]["ok"], true);
}

#[tokio::test]
async fn repetitions_have_a_budget() {
    let requests = Arc::new(AtomicUsize::new(0));
    let bad = [
        hangs_up(Arc::clone(&requests)).await,
        hangs_up(Arc::clone(&requests)).await,
    ];
    let flags = ["--lb-retry-budget-pct", "0", "--lb-retry-min-per-sec", "0.3"];
    let lb = Lb::start(&bad, &flags).await;
    // Three are saved at the start, and one comes every few seconds.
    for _ in 0..20 {
        assert_eq!(lb.get("/drones").await.status(), 502);
    }
    let (repeated, refused) = (
        lb.metric("lb_retries_total").await,
        lb.metric("lb_retries_refused_total").await,
    );
    assert!((2..=10).contains(&repeated), "{repeated}");
    assert_eq!(repeated + refused, 20);
    assert_eq!(requests.load(Ordering::SeqCst) as u64, 20 + repeated);
}

#[tokio::test]
async fn a_repetition_carries_the_whole_body() {
    let bad = hangs_up(Arc::default()).await;
    let good = Gateway::start(Router::new().fallback(any(|body: String| async move { body }))).await;
    let lb = Lb::start(&[bad, good.addr], &[]).await;
    for n in 0..6 {
        let order = format!("order {n} {}", "x".repeat(10_000));
        let answer = lb.post("/deliveries", Some("k"), order.clone()).await;
        assert_eq!(answer.text().await.unwrap(), order);
    }
    assert!(lb.metric("lb_retries_total").await >= 2);
}

#[tokio::test]
async fn the_only_gateway_may_close_idle_connections() {
    // Says nothing of closing, answers once, and closes when the next request arrives: the worst moment.
    let gateway = raw_gateway(|_, mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            .await;
        read_head(&mut stream).await;
    })
    .await;
    let lb = Lb::start(&[gateway], &[]).await;
    for _ in 0..5 {
        assert_eq!(lb.get("/drones").await.text().await.unwrap(), "ok");
    }
}

#[tokio::test]
async fn a_gateway_that_does_not_answer_is_504_and_not_repeated() {
    let requests = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&requests);
    let silent = raw_gateway(move |_, mut stream| {
        seen.fetch_add(1, Ordering::SeqCst);
        async move {
            read_head(&mut stream).await;
            read_head(&mut stream).await;
        }
    })
    .await;
    let lb = Lb::start(&[silent], &["--lb-response-timeout-sec", "0.2"]).await;
    let answer = lb.get("/drones").await;
    assert_eq!(answer.status(), 504);
    assert!(answer.text().await.unwrap().contains("within 0.2 s"));
    let order = lb.post("/deliveries", Some("k"), "{}").await;
    assert_eq!(order.status(), 504);
    assert!(order.text().await.unwrap().contains("\"outcome\":\"unknown\""));
    assert_eq!(requests.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn an_answer_that_stalls_is_broken_off() {
    let gateway = raw_gateway(|_, mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
            .await;
        read_head(&mut stream).await;
    })
    .await;
    let idle = Duration::from_millis(100);
    let lb = Lb::start_with(&[gateway], &[], |parts| parts.timeouts.response_idle = idle).await;
    assert!(lb.get("/drones").await.bytes().await.is_err());
    until("nothing is left", async || lb.metric("lb_in_flight").await == 0).await;
}

#[tokio::test]
async fn a_client_that_stalls_within_its_body_is_given_up() {
    let gateway = Gateway::start(Router::new().fallback(any(|body: String| async move { body }))).await;
    let idle = Duration::from_millis(100);
    let lb = Lb::start_with(&[gateway.addr], &[], |parts| parts.timeouts.request_idle = idle).await;
    for method in ["PUT", "POST"] {
        let answer = lb
            .raw(&format!(
                "{method} /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 9\r\n\r\nhalf"
            ))
            .await;
        assert!(answer.starts_with("HTTP/1.1 408"), "{method}: {answer}");
    }
}

#[tokio::test]
async fn nobody_there_is_502_and_no_address_is_503() {
    let nobody = nobody();
    let lb = Lb::start(&[nobody.addr], &[]).await;
    let answer = lb.get("/drones").await;
    assert_eq!(answer.status(), 502);
    assert!(answer.text().await.unwrap().contains("no gateway could be reached"));

    let script = Scripted::default();
    let resolver = Arc::new(script.clone());
    let lb = Lb::start_with(
        &[],
        &["--target-url", "http://gateway:8000", "--lb-resolve-ttl-sec", "0.02"],
        move |parts| {
            parts.resolver = resolver;
        },
    )
    .await;
    let answer = lb.get("/drones").await;
    assert_eq!(answer.status(), 503);
    assert!(
        answer
            .text()
            .await
            .unwrap()
            .contains("no address of http://gateway:8000")
    );
    assert_eq!(lb.get("/ready").await.status(), 503);

    // A name that grows and shrinks, as `--scale gateway=N` does.
    let gateways = three().await;
    for count in [1, 3, 2] {
        script.0.lock().unwrap().clone_from(&addrs(&gateways[..count]));
        until("the new addresses are known", async || {
            lb.metric("lb_backends").await == count as u64
        })
        .await;
        assert_eq!(shares(&lb, count * 4).await.len(), count);
    }
    script.0.lock().unwrap().clear();
    let [_, _, c] = gateways;
    let _nobody = c.stop().await;
    assert_eq!(shares(&lb, 8).await.len(), 2, "the last good answer stays");
}

/// Takes connections and requests, and answers nothing: a frozen process, of which the kernel still does its part.
async fn frozen(requests: Arc<AtomicUsize>) -> SocketAddr {
    raw_gateway(move |_, mut stream| {
        let requests = Arc::clone(&requests);
        async move {
            if !read_head(&mut stream).await.is_empty() {
                requests.fetch_add(1, Ordering::SeqCst);
            }
            std::future::pending::<()>().await;
        }
    })
    .await
}

#[tokio::test]
async fn what_may_be_repeated_leaves_a_frozen_gateway() {
    let requests = Arc::new(AtomicUsize::new(0));
    let (well, frozen) = (named("a").await, frozen(Arc::clone(&requests)).await);
    let lb = Lb::start_with(&[well.addr, frozen], &[], |parts| {
        // Were it not for the repetition, this test would end with 504.
        parts.timeouts.response_head = support::PATIENCE;
    })
    .await;
    let answers = futures_util::future::join_all((0..6).map(|_| lb.get("/deliveries"))).await;
    assert!(answers.iter().all(|answer| answer.status() == 200));
    assert_eq!(requests.load(Ordering::SeqCst), 3, "its share, each sent there once");
    assert_eq!(lb.metric("lb_retries_total").await, 3);
}
