//! HTTP/1.1 on the wire: what clients and gateways may write, and what neither may.

#![allow(clippy::unwrap_used, reason = "a panic here is the report")]

mod support;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::{Lb, PATIENCE, raw_gateway, read_head, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Reads until these bytes have come.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        let byte = tokio::time::timeout(PATIENCE, stream.read_u8()).await.unwrap();
        text.push(byte.unwrap_or_else(|_| panic!("closed after {:?}", String::from_utf8_lossy(&text))));
    }
    String::from_utf8(text).unwrap()
}

/// Answers every request with the same bytes; counts them.
async fn answers(wire: &'static str, requests: Arc<AtomicUsize>) -> SocketAddr {
    raw_gateway(move |_, mut stream| {
        let requests = Arc::clone(&requests);
        async move {
            while !read_head(&mut stream).await.is_empty() {
                requests.fetch_add(1, Ordering::SeqCst);
                let _ = stream.write_all(wire.as_bytes()).await;
            }
        }
    })
    .await
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[tokio::test]
async fn nothing_ambiguous_reaches_a_gateway() {
    let requests = Arc::new(AtomicUsize::new(0));
    let gateway = answers(OK, Arc::clone(&requests)).await;
    let lb = Lb::start(&[gateway], &[]).await;
    // Each hides a second request that another server might see.
    for attempt in [
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 36\r\n\r\nGET /hidden HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\nHost: x\n\nGET /hidden HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nX: y\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        "GET http://u@x/ HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nx",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\n\nGET /hidden HTTP/1.1\r\nHost: x\r\n\r\n",
        "PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxyGET /hidden HTTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        let answer = lb.raw(attempt).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{attempt:?}: {answer}");
        assert_eq!(
            answer.matches("HTTP/1.1").count(),
            1,
            "one answer, then the end: {answer}"
        );
        assert!(answer.contains("connection: close"), "{answer}");
    }
    assert_eq!(requests.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn heads_may_come_in_drops_but_not_for_ever() {
    let gateway = answers(OK, Arc::default()).await;
    let lb = Lb::start_with(&[gateway], &[], |parts| {
        parts.timeouts.request_head = Duration::from_millis(300);
    })
    .await;
    let mut stream = TcpStream::connect(lb.addr).await.unwrap();
    for byte in b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" {
        stream.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert!(read_until(&mut stream, "\r\n\r\nok").await.starts_with("HTTP/1.1 200 "));
    // The next one stays incomplete, although something comes now and then.
    let (mut reads, mut writes) = stream.into_split();
    let drip = tokio::spawn(async move {
        while writes.write_all(b"G").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let mut answer = String::new();
    let read = tokio::time::timeout(PATIENCE, reads.read_to_string(&mut answer)).await;
    read.unwrap().ok();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    drip.abort();
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let gateway = raw_gateway(|_, mut stream| async move {
        loop {
            let head = read_head(&mut stream).await;
            let Some(path) = head.split(' ').nth(1) else { return };
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len());
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    })
    .await;
    let lb = Lb::start(&[gateway], &[]).await;
    let requests: String = (0..20)
        .map(|n| format!("GET /{n} HTTP/1.1\r\nHost: x\r\n\r\n"))
        .collect();
    let answers = lb
        .raw(&format!(
            "{requests}GET /end HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        ))
        .await;
    let bodies: Vec<_> = answers
        .split("\r\n\r\n")
        .skip(1)
        .map(|rest| rest.split("HTTP").next().unwrap())
        .collect();
    let expected: Vec<_> = (0..20).map(|n| format!("/{n}")).chain(["/end".to_owned()]).collect();
    assert_eq!(bodies, expected);
    assert_eq!(lb.lines(21).await.len(), 21);
}

#[tokio::test]
async fn leave_to_send_a_body_comes_from_us() {
    let gateway = raw_gateway(|_, mut stream| async move {
        let head = read_head(&mut stream).await;
        assert!(!head.to_ascii_lowercase().contains("expect"), "{head}");
        let mut body = [0; 5];
        stream.read_exact(&mut body).await.unwrap();
        assert_eq!(&body, b"order");
        let _ = stream.write_all(OK.as_bytes()).await;
    })
    .await;
    let lb = Lb::start(&[gateway], &[]).await;
    let mut stream = TcpStream::connect(lb.addr).await.unwrap();
    let head = b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    stream.write_all(head).await.unwrap();
    assert_eq!(
        read_until(&mut stream, "\r\n\r\n").await,
        "HTTP/1.1 100 Continue\r\n\r\n"
    );
    stream.write_all(b"order").await.unwrap();
    assert!(read_until(&mut stream, "ok").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn http_1_0_clients_get_what_they_understand() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n";
    let gateway = answers(chunked, Arc::default()).await;
    let lb = Lb::start(&[gateway], &[]).await;
    let answer = lb.raw("GET / HTTP/1.0\r\n\r\n").await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, "abcde");
    assert!(
        !head.contains("chunked") && head.contains("connection: close"),
        "{head}"
    );
    let sized = answers(OK, Arc::default()).await;
    let lb = Lb::start(&[sized], &[]).await;
    let mut stream = TcpStream::connect(lb.addr).await.unwrap();
    for _ in 0..2 {
        stream
            .write_all(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            .await
            .unwrap();
        let answer = read_until(&mut stream, "\r\n\r\nok").await;
        assert!(answer.contains("connection: keep-alive"), "{answer}");
    }
}

#[tokio::test]
async fn trailers_cross_in_both_directions() {
    let got = Arc::new(Mutex::new(String::new()));
    let seen = Arc::clone(&got);
    let gateway = raw_gateway(move |_, mut stream| {
        let seen = Arc::clone(&seen);
        async move {
            read_head(&mut stream).await;
            let body = read_until(&mut stream, "\r\n\r\n").await;
            *seen.lock().unwrap() = body;
            let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 2\r\n\r\n";
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    })
    .await;
    let lb = Lb::start(&[gateway], &[]).await;
    for key in ["", "Idempotency-Key: k\r\n"] {
        let request = format!(
            "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{key}Transfer-Encoding: chunked\r\n\r\n\
             3\r\nord\r\n2\r\ner\r\n0\r\nX-Sum: 5\r\nContent-Length: 9\r\n\r\n"
        );
        let answer = lb.raw(&request).await;
        assert!(answer.ends_with("2\r\nok\r\n0\r\nX-Sum: 2\r\n\r\n"), "{answer}");
        assert_eq!(*got.lock().unwrap(), "3\r\nord\r\n2\r\ner\r\n0\r\nX-Sum: 5\r\n\r\n");
    }
}

#[tokio::test]
async fn a_tunnel_passes_bytes_at_once_in_both_directions() {
    let gateway = raw_gateway(|_, mut stream| async move {
        let head = read_head(&mut stream).await.to_ascii_lowercase();
        assert!(
            head.contains("connection: upgrade\r\n") && head.contains("upgrade: websocket\r\n"),
            "{head}"
        );
        let switched = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello";
        stream.write_all(switched.as_bytes()).await.unwrap();
        let mut piece = [0; 64];
        while let Ok(read @ 1..) = stream.read(&mut piece).await {
            let _ = stream.write_all(&piece[..read].to_ascii_uppercase()).await;
        }
    })
    .await;
    let lb = Lb::start(&[gateway], &[]).await;
    let mut stream = TcpStream::connect(lb.addr).await.unwrap();
    // The client is in a hurry: its first bytes come with the request.
    let request = b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly";
    stream.write_all(request).await.unwrap();
    let head = read_until(&mut stream, "\r\n\r\n").await;
    assert!(
        head.starts_with("HTTP/1.1 101 ") && head.contains("connection: upgrade\r\n"),
        "{head}"
    );
    assert_eq!(read_until(&mut stream, "EARLY").await, "helloEARLY");
    for word in ["one", "two"] {
        stream.write_all(word.as_bytes()).await.unwrap();
        assert_eq!(read_until(&mut stream, &word.to_uppercase()).await, word.to_uppercase());
    }
    drop(stream);
    let lines = lb.lines(1).await;
    assert!(
        lines[0].starts_with("[access] GET /ws 101 ") && lines[0].ends_with(" stream"),
        "{lines:?}"
    );
}

#[tokio::test]
async fn gateways_that_answer_nonsense_are_bad_gateways() {
    for wire in [
        "nonsense\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
        "HTTP/1.1 200 OK\ncontent-length: 2\n\nok",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ] {
        let gateway = answers(wire, Arc::default()).await;
        let lb = Lb::start(&[gateway], &[]).await;
        let answer = lb.post("/", None, "x").await;
        assert_eq!(answer.status(), 502, "{wire:?}");
        assert!(answer.text().await.unwrap().contains("\"outcome\":\"unknown\""));
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_seen_to_be_cut() {
    for wire in [
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nok",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nokx\r\n0\r\n\r\n",
    ] {
        let gateway = raw_gateway(move |_, mut stream| async move {
            read_head(&mut stream).await;
            let _ = stream.write_all(wire.as_bytes()).await;
        })
        .await;
        let lb = Lb::start(&[gateway], &[]).await;
        let answer = lb.get("/").await;
        assert_eq!(answer.status(), 200);
        assert!(answer.bytes().await.is_err(), "{wire:?}");
        until("nothing is left", async || lb.metric("lb_in_flight").await == 0).await;
    }
}

#[tokio::test]
async fn what_a_gateway_says_too_much_is_no_answer_to_the_next_request() {
    let poison = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";
    let gateway = answers(poison, Arc::default()).await;
    let lb = Lb::start(&[gateway], &[]).await;
    for _ in 0..3 {
        assert_eq!(lb.get("/").await.text().await.unwrap(), "ok");
    }
    assert_eq!(lb.metric("lb_upstream_connects_total").await, 3);
}

#[tokio::test]
async fn an_early_answer_to_an_upload_arrives() {
    let gateway = raw_gateway(|_, mut stream| async move {
        read_head(&mut stream).await;
        let refused = "HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbig";
        let _ = stream.write_all(refused.as_bytes()).await;
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    })
    .await;
    let lb = Lb::start(&[gateway], &[]).await;
    let answer = lb
        .raw("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nonly the beginning")
        .await;
    assert!(
        answer.starts_with("HTTP/1.1 413 ") && answer.ends_with("big"),
        "{answer}"
    );
    assert!(answer.contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn an_answer_without_a_length_ends_with_its_connection() {
    let gateway = raw_gateway(|_, mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nas long as it is").await;
    })
    .await;
    let lb = Lb::start(&[gateway], &[]).await;
    assert_eq!(lb.get("/").await.text().await.unwrap(), "as long as it is");
}
