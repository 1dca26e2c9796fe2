//! Gateways that are slow, reset their connections, lie about lengths, stall half-way, or vanish from DNS.

#![allow(clippy::unwrap_used, reason = "a panic here is the report")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use support::{Lb, PATIENCE, Scripted, raw_gateway, read_head, until};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// Answers every request with these bytes, and keeps the connection.
async fn answers(wire: &'static [u8]) -> SocketAddr {
    raw_gateway(move |_, mut stream| async move {
        while !read_head(&mut stream).await.is_empty() && stream.write_all(wire).await.is_ok() {}
    })
    .await
}

/// Ends a connection so that its other end is told it was broken.
fn reset(stream: TcpStream) {
    stream.set_zero_linger().unwrap();
    drop(stream);
}

#[tokio::test]
async fn an_answer_that_comes_in_drops_arrives_whole() {
    for wire in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\norder",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nor\r\n3;x=y\r\nder\r\n0\r\nX-Sum: 5\r\n\r\n",
    ] {
        let gateway = raw_gateway(move |_, mut stream| async move {
            while !read_head(&mut stream).await.is_empty() {
                stream.set_nodelay(true).unwrap();
                for byte in wire.as_bytes() {
                    if stream.write_all(&[*byte]).await.is_err() {
                        return;
                    }
                    tokio::task::yield_now().await;
                }
            }
        })
        .await;
        let lb = Lb::start(&[gateway], &[]).await;
        for _ in 0..3 {
            assert_eq!(lb.get("/").await.text().await.unwrap(), "order");
        }
        assert_eq!(
            lb.metric("lb_upstream_connects_total").await,
            1,
            "and its connection is kept"
        );
    }
}

#[tokio::test]
async fn a_reset_before_the_answer_is_a_broken_connection() {
    let asked = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&asked);
    let resets = raw_gateway(move |_, mut stream| {
        let seen = Arc::clone(&seen);
        async move {
            if !read_head(&mut stream).await.is_empty() {
                seen.fetch_add(1, Ordering::SeqCst);
                reset(stream);
            }
        }
    })
    .await;
    let well = answers(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell").await;
    // Not left out for its errors: it is to be asked.
    let lb = Lb::start(&[resets, well], &["--lb-eject-errors", "0"]).await;
    for _ in 0..6 {
        assert_eq!(
            lb.get("/drones").await.text().await.unwrap(),
            "well",
            "asked again elsewhere"
        );
    }
    let repeated = asked.load(Ordering::SeqCst);
    assert!(repeated >= 2, "its share: {repeated}");
    // Two in turn, without a key: one of them meets the reset, and is not repeated.
    let mut statuses = Vec::new();
    for _ in 0..2 {
        let answer = lb.post("/deliveries", None, "{}").await;
        statuses.push(answer.status().as_u16());
        if statuses.ends_with(&[502]) {
            assert!(answer.text().await.unwrap().contains("\"outcome\":\"unknown\""));
        }
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 502]);
    assert_eq!(asked.load(Ordering::SeqCst), repeated + 1);
}

#[tokio::test]
async fn a_reset_within_the_answer_is_seen_by_the_client() {
    for wire in [
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "HTTP/1.1 200 OK\r\n\r\nhalf",
    ] {
        let passed_on = Arc::new(Notify::new());
        let go = Arc::clone(&passed_on);
        let gateway = raw_gateway(move |_, mut stream| {
            let go = Arc::clone(&go);
            async move {
                read_head(&mut stream).await;
                let _ = stream.write_all(wire.as_bytes()).await;
                // A reset also takes back what has not been read.
                go.notified().await;
                reset(stream);
            }
        })
        .await;
        let lb = Lb::start(&[gateway], &[]).await;
        let mut answer = lb.get("/drones").await;
        assert_eq!(answer.chunk().await.unwrap().unwrap(), "half");
        passed_on.notify_one();
        let rest = tokio::time::timeout(PATIENCE, answer.chunk()).await.unwrap();
        assert!(rest.is_err(), "{wire:?}: a part must not pass for the whole");
        until("nothing is left", async || lb.metric("lb_in_flight").await == 0).await;
    }
}

#[tokio::test]
async fn a_head_that_stalls_is_504() {
    let gateway = raw_gateway(|_, mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Le").await;
        read_head(&mut stream).await;
    })
    .await;
    let lb = Lb::start(&[gateway], &["--lb-response-timeout-sec", "0.2"]).await;
    assert_eq!(lb.get("/drones").await.status(), 504);
}

#[tokio::test]
async fn a_head_that_never_ends_is_502() {
    let gateway = raw_gateway(|_, mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
        while stream
            .write_all(b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n")
            .await
            .is_ok()
        {}
    })
    .await;
    let lb = Lb::start(&[gateway], &[]).await;
    assert_eq!(lb.get("/drones").await.status(), 502);
}

/// A body where there must be none, or more of it than was said, is no answer to whoever asks next.
#[tokio::test]
async fn bytes_too_many_never_reach_another_request() {
    let poison = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";
    for (method, head) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 61\r\n\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\nContent-Length: 46\r\n\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 46\r\n\r\n"),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ] {
        let wire: &'static [u8] = format!("{head}{poison}").leak().as_bytes();
        let lb = Lb::start(&[answers(wire).await], &[]).await;
        let request = format!("{method} / HTTP/1.1\r\nHost: x\r\n\r\n");
        let last = format!("{method} / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answers = lb.raw(&format!("{request}{request}{last}")).await;
        assert!(!answers.contains("poison"), "{head:?}: {answers}");
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 3, "{head:?}: {answers}");
        assert_eq!(
            lb.metric("lb_upstream_connects_total").await,
            3,
            "{head:?}: none is used again"
        );
    }
}

#[tokio::test]
async fn interim_answers_are_not_the_answer() {
    let wire = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let lb = Lb::start(&[answers(wire).await], &[]).await;
    for _ in 0..2 {
        assert_eq!(lb.get("/").await.text().await.unwrap(), "ok");
    }
    assert_eq!(lb.metric("lb_upstream_connects_total").await, 1);
}

#[tokio::test]
async fn one_that_vanishes_from_dns_finishes_what_it_has_and_gets_nothing_new() {
    let (go, closed) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
    let (may_go, is_closed) = (Arc::clone(&go), Arc::clone(&closed));
    let vanishing = raw_gateway(move |_, mut stream| {
        let (go, closed) = (Arc::clone(&may_go), Arc::clone(&is_closed));
        async move {
            loop {
                let head = read_head(&mut stream).await;
                if head.is_empty() {
                    closed.store(true, Ordering::SeqCst);
                    return;
                }
                if head.starts_with("GET /slow") {
                    go.notified().await;
                }
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngone";
                if stream.write_all(answer).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    let stays = answers(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstays").await;
    let names = Scripted::default();
    names.0.lock().unwrap().push(vanishing);
    let resolver = Arc::new(names.clone());
    let flags = ["--target-url", "http://gateway:8000", "--lb-resolve-ttl-sec", "0.02"];
    let lb = Lb::start_with(&[], &flags, move |parts| {
        parts.resolver = resolver;
        parts.timeouts.upstream_idle = Duration::from_secs(3600);
    })
    .await;
    until("the name is resolved", async || lb.metric("lb_backends").await == 1).await;
    assert_eq!(lb.get("/drones").await.text().await.unwrap(), "gone");
    let slow = tokio::spawn(lb.client.get(format!("{}/slow", lb.base)).send());
    until("it is under way", async || lb.metric("lb_in_flight").await == 1).await;
    *names.0.lock().unwrap() = vec![stays];
    until("new requests go elsewhere", async || {
        lb.get("/drones").await.text().await.unwrap() == "stays"
    })
    .await;
    for _ in 0..5 {
        assert_eq!(lb.get("/drones").await.text().await.unwrap(), "stays");
    }
    assert!(!slow.is_finished());
    go.notify_one();
    let answer = tokio::time::timeout(PATIENCE, slow).await.unwrap().unwrap().unwrap();
    assert_eq!(answer.text().await.unwrap(), "gone", "what was under way is finished");
    until("its idle connections are closed", async || {
        closed.load(Ordering::SeqCst)
    })
    .await;
}
