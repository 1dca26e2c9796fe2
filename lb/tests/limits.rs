//! Limits and timeouts as settings: what is refused when, and how it is said.

#![allow(clippy::unwrap_used, reason = "a panic here is the report")]

mod support;

use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::routing::any;
use support::{Gateway, Lb, PATIENCE, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Answers with the length of the body.
async fn gateway() -> Gateway {
    let length = any(|body: Bytes| async move { body.len().to_string() });
    Gateway::start(Router::new().fallback(length).layer(DefaultBodyLimit::disable())).await
}

fn request(headers: &str, body: &str) -> String {
    format!("POST /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n{body}")
}

#[tokio::test]
async fn a_body_larger_than_allowed_is_413_however_it_comes() {
    let gateway = gateway().await;
    let lb = Lb::start(&[gateway.addr], &["--lb-max-body-bytes", "10"]).await;
    let fits = "Content-Length: 10\r\n";
    assert!(lb.raw(&request(fits, "0123456789")).await.ends_with("\r\n\r\n10"));
    let chunks = "Transfer-Encoding: chunked\r\n";
    assert!(
        lb.raw(&request(chunks, "a\r\n0123456789\r\n0\r\n\r\n"))
            .await
            .ends_with("\r\n\r\n10")
    );
    for key in ["", "Idempotency-Key: k\r\n"] {
        for (headers, body) in [
            ("Content-Length: 11\r\n", "01234567890"),
            ("Content-Length: 11\r\nExpect: 100-continue\r\n", ""),
            (chunks, "b\r\n01234567890\r\n0\r\n\r\n"),
            (chunks, "6\r\n012345\r\n6\r\n012345\r\n0\r\n\r\n"),
        ] {
            let answer = lb.raw(&request(&format!("{key}{headers}"), body)).await;
            assert!(answer.starts_with("HTTP/1.1 413 "), "{headers:?}: {answer}");
            assert!(answer.contains("larger than 10 bytes"), "{answer}");
        }
    }
}

#[tokio::test]
async fn a_body_that_grows_too_large_on_its_way_is_413_too() {
    let gateway = gateway().await;
    let lb = Lb::start(&[gateway.addr], &["--lb-max-body-bytes", "10"]).await;
    let mut stream = TcpStream::connect(lb.addr).await.unwrap();
    let head = request("Transfer-Encoding: chunked\r\n", "6\r\n012345\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    until("the gateway has been given its beginning", async || {
        lb.metric(&format!("lb_backend_picks_total{{backend=\"{}\"}}", gateway.addr))
            .await
            == 1
    })
    .await;
    stream.write_all(b"6\r\n012345\r\n0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await;
    read.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn heads_are_as_large_as_the_settings_say() {
    let gateway = gateway().await;
    let flags = ["--lb-max-head-bytes", "100", "--lb-max-uri-bytes", "50"];
    let lb = Lb::start(&[gateway.addr], &flags).await;
    let answer = lb.raw(&request(&format!("X: {}\r\n", "y".repeat(100)), "")).await;
    assert!(
        answer.starts_with("HTTP/1.1 431 ") && answer.contains("at most 100"),
        "{answer}"
    );
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "y".repeat(50));
    let answer = lb.raw(&long).await;
    assert!(
        answer.starts_with("HTTP/1.1 414 ") && answer.contains("longer than 50"),
        "{answer}"
    );
}

#[tokio::test]
async fn an_idle_connection_and_a_slow_head_end_when_the_settings_say() {
    let gateway = gateway().await;
    let flags = ["--lb-keep-alive-sec", "0.1", "--lb-request-head-sec", "0.1"];
    let lb = Lb::start(&[gateway.addr], &flags).await;
    assert_eq!(lb.raw("").await, "", "closed without a word");
    assert!(lb.raw("GET / HTTP/1.1\r\nHost:").await.starts_with("HTTP/1.1 408 "));
}

#[tokio::test]
async fn a_body_too_large_to_be_kept_is_sent_once() {
    let gateway = gateway().await;
    let refused = support::raw_gateway(|_, mut stream| async move {
        support::read_head(&mut stream).await;
    })
    .await;
    let flags = ["--lb-replay-body-bytes", "10"];
    let lb = Lb::start(&[refused, gateway.addr], &flags).await;
    let mut seen = [false; 2];
    for _ in 0..4 {
        let small = lb.post("/x", Some("k"), "0123456789").await;
        assert_eq!(small.status(), 200, "kept, and sent again when it must be");
    }
    // One after the other: each gateway has its turn.
    for _ in 0..2 {
        let large = lb.post("/x", Some("k"), "0".repeat(1_000_000)).await;
        seen[usize::from(large.status() == 502)] = true;
    }
    assert_eq!(seen, [true; 2], "one gateway answers, the other breaks off");
}

#[tokio::test]
async fn a_client_has_so_many_connections_and_no_more() {
    let gateway = gateway().await;
    // One is the test's own client's.
    let lb = Lb::start(&[gateway.addr], &["--lb-max-connections-per-client", "3"]).await;
    let held = [
        TcpStream::connect(lb.addr).await.unwrap(),
        TcpStream::connect(lb.addr).await.unwrap(),
    ];
    until("all places are taken", async || {
        let answer = lb.raw("").await;
        answer.starts_with("HTTP/1.1 429 ") && answer.contains("more than 3 connections")
    })
    .await;
    assert!(lb.metric("lb_connections_refused_total").await >= 1);
    drop(held);
    until("a place is free again", async || {
        lb.raw(&request("", "")).await.starts_with("HTTP/1.1 200 ")
    })
    .await;
}
