//! What crosses the proxy, and how: headers, bodies, streams, refusals, the access log.

#![allow(clippy::unwrap_used, reason = "a panic here is the report")]

mod support;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{any, get, post};
use futures_util::{StreamExt, stream};
use support::{Gateway, Lb, PATIENCE, raw_gateway, read_head, until};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

/// Answers with the head it got, as text.
async fn echo_head(headers: HeaderMap) -> String {
    headers
        .iter()
        .map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap()))
        .collect()
}

async fn gateway() -> Gateway {
    let cookies = || async {
        let mut response = "cookies".into_response();
        response
            .headers_mut()
            .append("set-cookie", HeaderValue::from_static("a=1"));
        response
            .headers_mut()
            .append("set-cookie", HeaderValue::from_static("b=2"));
        response
            .headers_mut()
            .insert("connection", HeaderValue::from_static("x-private"));
        response
            .headers_mut()
            .insert("x-private", HeaderValue::from_static("1"));
        response.headers_mut().insert("x-public", HeaderValue::from_static("1"));
        response
    };
    Gateway::start(
        Router::new()
            .route(
                "/health",
                get(|| async { axum::Json(serde_json::json!({"status": "ok"})) }),
            )
            .route("/zones", get(|| async { "zones" }))
            .route("/head", any(echo_head))
            .route("/cookies", get(cookies))
            .route("/teapot", get(|| async { StatusCode::IM_A_TEAPOT }))
            .route("/length", post(|body: Bytes| async move { body.len().to_string() }))
            .route(
                "/echo",
                post(|body: Body| async move { body }).layer(axum::extract::DefaultBodyLimit::disable()),
            )
            .layer(axum::extract::DefaultBodyLimit::disable()),
    )
    .await
}

#[tokio::test]
async fn health_is_the_gateways_and_ready_and_metrics_are_our_own() {
    let gateway = gateway().await;
    let lb = Lb::start(&[gateway.addr], &[]).await;
    assert_eq!(lb.get("/health").await.text().await.unwrap(), "{\"status\":\"ok\"}");
    let ready: serde_json::Value = serde_json::from_str(&lb.get("/ready").await.text().await.unwrap()).unwrap();
    assert_eq!(
        (&ready["status"], &ready["checks"]["resolve"]["ok"]),
        (&"ready".into(), &true.into())
    );
    assert_eq!(lb.metric("lb_requests_total{class=\"2xx\"}").await, 1);
    assert_eq!(
        lb.metric(&format!("lb_backend_picks_total{{backend=\"{}\"}}", gateway.addr))
            .await,
        1
    );
    assert_eq!(
        lb.metric(&format!("lb_backend_answers_total{{backend=\"{}\"}}", gateway.addr))
            .await,
        1
    );
    let text = lb.get("/metrics").await.text().await.unwrap();
    let seconds = format!("lb_backend_answer_seconds_total{{backend=\"{}\"}} ", gateway.addr);
    let took = text.lines().find_map(|line| line.strip_prefix(&seconds)).unwrap();
    assert!(took.parse::<f64>().unwrap() > 0.0, "{took}");
    assert_eq!(lb.metric("lb_in_flight").await, 0);
    let refused = lb.post("/ready", None, "").await;
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["allow"]),
        (405, &"GET, HEAD".parse().unwrap())
    );
    assert_eq!(lb.stop().await.len(), 1, "our own answers are not logged");
}

#[tokio::test]
async fn headers_cross_as_they_should() {
    let gateway = gateway().await;
    let lb = Lb::start(&[gateway.addr], &[]).await;
    let answer = lb
        .raw(
            "GET /head?x=1 HTTP/1.1\r\nHost: drones.example\r\nConnection: close, X-Secret\r\nX-Secret: 1\r\nX-Kept: 1\r\n\
             X-Forwarded-For: 203.0.113.9\r\nTE: trailers\r\nKeep-Alive: timeout=5\r\n\r\n",
        )
        .await;
    for expected in [
        "host: drones.example\n",
        "x-kept: 1\n",
        "x-forwarded-for: 203.0.113.9, 127.0.0.1\n",
        "x-forwarded-proto: http\n",
        "x-forwarded-host: drones.example\n",
    ] {
        assert!(answer.contains(expected), "{expected:?} is missing in {answer}");
    }
    for gone in ["x-secret", "trailers", "keep-alive"] {
        assert!(!answer.contains(gone), "{gone:?} should not cross: {answer}");
    }
    let cookies = lb.get("/cookies").await;
    let all: Vec<_> = cookies.headers().get_all("set-cookie").iter().collect();
    assert_eq!(all, ["a=1", "b=2"]);
    assert!(cookies.headers().contains_key("x-public") && !cookies.headers().contains_key("x-private"));
    assert_eq!(lb.get("/teapot").await.status(), 418, "a gateway's status is passed on");
}

#[tokio::test]
async fn what_is_not_supported_is_refused_clearly() {
    let gateway = gateway().await;
    let lb = Lb::start(&[gateway.addr], &[]).await;
    let refused = async |text: &str| {
        let answer = lb.raw(text).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        (
            head.split(' ').nth(1).unwrap().to_owned(),
            body["detail"].as_str().unwrap().to_owned(),
        )
    };
    let (status, detail) =
        refused("GET /events HTTP/1.1\r\nHost: x\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\n\r\n").await;
    assert_eq!(status, "501");
    assert!(detail.contains("Upgrade"), "{detail}");
    assert_eq!(
        refused("CONNECT example:443 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .await
            .0,
        "501"
    );
    assert_eq!(refused("GET / HTTP/1.1\r\nConnection: close\r\n\r\n").await.0, "400");
    let huge = format!(
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: {}\r\n\r\n",
        "y".repeat(40_000)
    );
    assert_eq!(refused(&huge).await.0, "431");
    let offer = "GET /zones HTTP/1.1\r\nHost: x\r\nConnection: upgrade, close\r\nUpgrade: h2c\r\n\r\n";
    assert!(
        lb.raw(offer).await.starts_with("HTTP/1.1 200"),
        "an offer of HTTP/2 may be ignored"
    );
}

#[tokio::test]
async fn big_bodies_stream_both_ways() {
    let gateway = gateway().await;
    let lb = Lb::start(&[gateway.addr], &[]).await;
    let piece = Bytes::from(vec![7_u8; 64 * 1024]);
    let pieces = 160;
    let sent = stream::iter((0..pieces).map({
        let piece = piece.clone();
        move |_| Ok::<_, Infallible>(piece.clone())
    }));
    let answer = lb.post("/echo", Some("big"), reqwest::Body::wrap_stream(sent)).await;
    assert_eq!(answer.bytes().await.unwrap().len(), pieces * piece.len());
    // Small ones are kept, of known and of unknown length.
    assert_eq!(lb.post("/length", Some("k"), "order").await.text().await.unwrap(), "5");
    let chunked = stream::iter(["or", "der"].map(Ok::<_, Infallible>));
    let answer = lb.post("/length", Some("k"), reqwest::Body::wrap_stream(chunked)).await;
    assert_eq!(answer.text().await.unwrap(), "5");
}

/// An event stream that sends what the test says.
fn events(receiver: mpsc::Receiver<&'static str>) -> impl IntoResponse {
    let body = stream::unfold(receiver, |mut receiver| async {
        let event = receiver.recv().await?;
        Some((Ok::<_, Infallible>(event), receiver))
    });
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(body))
}

#[tokio::test]
async fn events_pass_at_once_and_end_with_the_stop_signal() {
    let (sender, receiver) = mpsc::channel(1);
    let receiver = Arc::new(std::sync::Mutex::new(Some(receiver)));
    let route = get(move || async move { events(receiver.lock().unwrap().take().unwrap()) });
    let gateway = Gateway::start(Router::new().route("/events", route)).await;
    let grace = PATIENCE * 2;
    let lb = Lb::start_with(&[gateway.addr], &[], |parts| parts.timeouts.grace = grace).await;
    let answer = lb.get("/events?last=1").await;
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut body = answer.bytes_stream();
    for event in ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"] {
        // The next is sent only after this one has arrived: nothing is held back.
        sender.send(event).await.unwrap();
        let got = tokio::time::timeout(PATIENCE, body.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert_eq!(got, event);
    }
    // Streams do not hold the stop up: this has less patience than the grace.
    let lines = lb.stop().await;
    assert!(body.next().await.is_none(), "a proper end");
    assert_eq!(lines.len(), 1);
    assert!(
        lines[0].starts_with("[access] GET /events 200 ") && lines[0].ends_with("ms stream"),
        "{lines:?}"
    );
}

#[tokio::test]
async fn a_viewer_that_leaves_ends_its_stream_at_the_gateway_too() {
    let (sender, receiver) = mpsc::channel(1);
    let receiver = Arc::new(std::sync::Mutex::new(Some(receiver)));
    let route = get(move || async move { events(receiver.lock().unwrap().take().unwrap()) });
    let gateway = Gateway::start(Router::new().route("/events", route)).await;
    let lb = Lb::start(&[gateway.addr], &[]).await;
    let mut body = lb.get("/events").await.bytes_stream();
    sender.send("data: 1\n\n").await.unwrap();
    body.next().await.unwrap().unwrap();
    drop(body);
    // No further event is needed to notice.
    tokio::time::timeout(PATIENCE, sender.closed()).await.unwrap();
    let lines = lb.lines(1).await;
    assert!(lines[0].ends_with("ms stream"), "{lines:?}");
}

#[tokio::test]
async fn connections_are_used_again_after_uploads_too() {
    let gateway = gateway().await;
    let lb = Lb::start(&[gateway.addr], &[]).await;
    for key in [None, Some("k"), None, None] {
        assert_eq!(lb.post("/length", key, "order").await.text().await.unwrap(), "5");
        let pieces = stream::iter(["or", "der"].map(Ok::<_, Infallible>));
        let answer = lb.post("/length", key, reqwest::Body::wrap_stream(pieces)).await;
        assert_eq!(answer.text().await.unwrap(), "5");
    }
    assert_eq!(lb.metric("lb_upstream_connects_total").await, 1);
}

#[tokio::test]
async fn a_client_that_hangs_up_stops_the_gateways_work() {
    let stopped = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&stopped);
    let gateway = raw_gateway(move |_, mut stream| {
        let seen = Arc::clone(&seen);
        async move {
            read_head(&mut stream).await;
            // Never answers; the read ends when the load balancer closes.
            read_head(&mut stream).await;
            seen.store(true, Ordering::SeqCst);
        }
    })
    .await;
    let lb = Lb::start(&[gateway], &[]).await;
    let hanging = tokio::spawn(lb.client.get(format!("{}/slow", lb.base)).send());
    until("the request is under way", async || {
        lb.metric("lb_in_flight").await == 1
    })
    .await;
    hanging.abort();
    until("the gateway is left alone", async || stopped.load(Ordering::SeqCst)).await;
    let lines = lb.lines(1).await;
    assert!(lines[0].starts_with("[access] GET /slow 499 "), "{lines:?}");
}

#[tokio::test]
async fn a_cut_answer_is_seen_to_be_cut() {
    let gateway = raw_gateway(|_, mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this")
            .await;
        read_head(&mut stream).await;
    })
    .await;
    let lb = Lb::start_with(&[gateway], &[], |parts| {
        parts.timeouts.grace = Duration::from_millis(100)
    })
    .await;
    let answer = lb.get("/half").await;
    assert_eq!(answer.status(), 200);
    let body = tokio::spawn(answer.bytes());
    let lines = lb.stop().await;
    assert!(body.await.unwrap().is_err(), "a part must not pass for the whole");
    assert!(lines[0].starts_with("[access] GET /half 200 "), "{lines:?}");
}

#[tokio::test]
async fn over_the_limit_is_429_but_never_for_health_and_zones() {
    let gateway = gateway().await;
    let limits = [
        "--rl-global-rate",
        "0.01",
        "--rl-global-burst",
        "3",
        "--rl-client-rate",
        "0.01",
        "--rl-client-burst",
        "2",
    ];
    let lb = Lb::start(&[gateway.addr], &limits).await;
    assert_eq!(lb.get("/head").await.status(), 200);
    assert_eq!(lb.get("/head").await.status(), 200);
    let refused = lb.get("/head").await;
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["retry-after"], "100");
    assert_eq!(refused.headers()["ratelimit-limit"], "2");
    assert_eq!(refused.headers()["ratelimit-remaining"], "0");
    assert_eq!(refused.headers()["ratelimit-reset"], "200");
    assert_eq!(refused.text().await.unwrap(), "{\"detail\":\"rate limit (client)\"}");
    for path in ["/health", "/zones", "/health"] {
        assert_eq!(lb.get(path).await.status(), 200);
    }
    assert_eq!(lb.metric("lb_rate_limited_total{scope=\"client\"}").await, 1);
    let global = Lb::start(&[gateway.addr], &["--rl-global-rate", "0.02"]).await;
    assert_eq!(global.get("/head").await.status(), 200);
    let refused = global.get("/head").await;
    assert_eq!(refused.headers()["retry-after"], "50");
    assert_eq!(refused.text().await.unwrap(), "{\"detail\":\"rate limit (global)\"}");
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_limit_and_the_log_are_about_its_clients() {
    let gateway = gateway().await;
    let flags = [
        "--trusted-proxies",
        "127.0.0.0/8",
        "--rl-client-rate",
        "0.01",
        "--rl-client-burst",
        "1",
        "--access-log",
        "json",
    ];
    let lb = Lb::start(&[gateway.addr], &flags).await;
    let asked = async |client: &str| {
        let request = lb.client.get(format!("{}/head", lb.base));
        request.header("x-forwarded-for", client).send().await.unwrap().status()
    };
    for (client, status) in [
        ("203.0.113.1", 200),
        ("203.0.113.2", 200),
        ("203.0.113.1", 429),
        // Whatever a client writes itself stands before its address.
        ("203.0.113.9, 203.0.113.2", 429),
    ] {
        assert_eq!(asked(client).await, status, "{client}");
    }
    let clients: Vec<_> = lb
        .lines(4)
        .await
        .iter()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["client"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(clients, ["203.0.113.1", "203.0.113.2", "203.0.113.1", "203.0.113.2"]);
    // Nobody is trusted: all that come over this connection are one client.
    let lb = Lb::start(
        &[gateway.addr],
        &["--trusted-proxies", "192.0.2.1", "--rl-client-rate", "0.01"],
    )
    .await;
    let text = lb
        .raw("GET /head HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Forwarded-For: 203.0.113.1\r\n\r\n")
        .await;
    assert!(text.contains("x-forwarded-for: 127.0.0.1\n"), "{text}");
    assert_eq!(lb.get("/head").await.status(), 429);
}

#[tokio::test]
async fn the_access_log_has_one_line_per_request() {
    let gateway = gateway().await;
    let lb = Lb::start(&[gateway.addr], &[]).await;
    lb.get("/zones?token=secret").await.text().await.unwrap();
    let line = lb.lines(1).await.remove(0);
    let (start, time) = line.rsplit_once(' ').unwrap();
    assert_eq!(start, "[access] GET /zones 200");
    let (whole, tenth) = time.strip_suffix("ms").unwrap().split_once('.').unwrap();
    assert!(whole.parse::<u64>().is_ok() && tenth.len() == 1, "{line}");
    lb.get("/head/%0A[access]\u{85}x").await.text().await.unwrap();
    let line = lb.lines(2).await.remove(1);
    assert!(line.starts_with("[access] GET /head/%0A[access]%C2%85x 404 "), "{line}");
    let json = Lb::start(&[gateway.addr], &["--access-log", "json"]).await;
    json.get("/zones").await.text().await.unwrap();
    let line: serde_json::Value = serde_json::from_str(&json.lines(1).await[0]).unwrap();
    assert_eq!((&line["path"], &line["bytes"]), (&"/zones".into(), &5.into()));
    let off = Lb::start(&[gateway.addr], &["--access-log", "off"]).await;
    off.get("/zones").await.text().await.unwrap();
    assert!(off.stop().await.is_empty());
}

#[tokio::test]
async fn too_many_at_once_are_refused() {
    let gateway = raw_gateway(|_, mut stream| async move {
        read_head(&mut stream).await;
        read_head(&mut stream).await;
    })
    .await;
    let lb = Lb::start(&[gateway], &["--lb-max-requests", "1"]).await;
    let hanging = tokio::spawn(lb.client.get(format!("{}/slow", lb.base)).send());
    until("the request is under way", async || {
        lb.metric("lb_in_flight").await == 1
    })
    .await;
    let refused = lb.get("/other").await;
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()["retry-after"], "1");
    assert!(refused.text().await.unwrap().contains("more than 1 requests"));
    hanging.abort();
    until("the place is free again", async || lb.metric("lb_in_flight").await == 0).await;
}
