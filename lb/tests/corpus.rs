//! The corpus: requests on the wire that two servers could understand differently, and odd ones that are legal. None of the first reaches a gateway; of
//! the others, it gets exactly one reading.

#![allow(clippy::unwrap_used, reason = "a panic here is the report")]

mod support;

use std::sync::{Arc, Mutex};

use support::{Lb, raw_gateway};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Everything that a gateway is sent, as it is; each request is answered, by what is said about its length.
async fn recorder() -> (std::net::SocketAddr, Arc<Mutex<Vec<String>>>) {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let record = Arc::clone(&seen);
    let addr = raw_gateway(move |_, mut stream| {
        let record = Arc::clone(&record);
        async move {
            let mut held = Vec::new();
            loop {
                let end = loop {
                    if let Some(end) = end(&held) {
                        break end;
                    }
                    if stream.read_buf(&mut held).await.unwrap_or(0) == 0 {
                        return;
                    }
                };
                let request: Vec<u8> = held.drain(..end).collect();
                record
                    .lock()
                    .unwrap()
                    .push(String::from_utf8_lossy(&request).into_owned());
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                if stream.write_all(answer).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    (addr, seen)
}

/// Where the first request ends.
fn end(held: &[u8]) -> Option<usize> {
    let find =
        |what: &[u8], from: usize| Some(from + held[from..].windows(what.len()).position(|found| found == what)?);
    let head = find(b"\r\n\r\n", 0)? + 4;
    let text = String::from_utf8_lossy(&held[..head]).to_ascii_lowercase();
    if text.contains("transfer-encoding: chunked\r\n") {
        // No chunk in this corpus looks like the end.
        return Some(find(b"0\r\n\r\n", head)? + 5);
    }
    let length = text
        .split("content-length: ")
        .nth(1)
        .map_or(0, |rest| rest.split("\r\n").next().unwrap_or_default().parse().unwrap());
    (held.len() >= head + length).then_some(head + length)
}

/// A request with these headers, followed by what a second reading might take for the next one.
fn post(headers: &str, body: &str) -> String {
    format!("POST /seen HTTP/1.1\r\nHost: x\r\n{headers}\r\n{body}GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n")
}

#[tokio::test]
async fn nothing_that_can_be_read_in_two_ways_reaches_a_gateway() {
    let (gateway, seen) = recorder().await;
    let lb = Lb::start(&[gateway], &[]).await;
    let mut corpus = Vec::new();
    // Lengths: both, twice, lists, signs, other notations, beyond any number.
    for headers in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Transfer-Encoding: identity\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5\r\ncontent-length: 5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: 5,\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5.0\r\n",
        "Content-Length: 5e0\r\n",
        "Content-Length: 5_0\r\n",
        "Content-Length: 5 0\r\n",
        "Content-Length: \"5\"\r\n",
        "Content-Length: \r\n",
        "Content-Length: five\r\n",
        "Content-Length: 18446744073709551621\r\n",
        "Content-Length: 99999999999999999999999\r\n",
        "Content-Length : 5\r\n",
        "Content-Length\t: 5\r\n",
        "Content-Length:\u{a0}5\r\n",
        "Content-Length: 5\0\r\n",
        "Content-Length: 5\x0b\r\n",
        "Content\0-Length: 5\r\n",
        " Content-Length: 5\r\n",
        "Content-Length:\r\n 5\r\n",
    ] {
        corpus.push(post(headers, "order"));
    }
    // Codings: others, twice, disguised.
    for headers in [
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: identity, chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: x\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunkedx\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: 'chunked'\r\n",
        "Transfer-Encoding: ,chunked\r\n",
        "Transfer-Encoding: chunked,\r\n",
        "Transfer-Encoding: \r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding\t: chunked\r\n",
        "Transfer-Encoding:\x0bchunked\r\n",
        "Transfer-Encoding:\x0cchunked\r\n",
        "Transfer-Encoding:\u{a0}chunked\r\n",
        "Transfer-Encoding: chunked\0\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "Transfer-Encoding: \r\n\tchunked\r\n",
        "X: y\rTransfer-Encoding: chunked\r\n",
        "X: y\nTransfer-Encoding: chunked\r\n",
        "X: y\r\n Transfer-Encoding: chunked\r\n",
        "X: y\r\n\r Transfer-Encoding: chunked\r\n",
        " Transfer-Encoding: chunked\r\n",
        "\tTransfer-Encoding: chunked\r\n",
        "Transfer Encoding: chunked\r\n",
        "Transfer-Encoding\u{ff}: chunked\r\n",
    ] {
        corpus.push(post(headers, "5\r\norder\r\n0\r\n\r\n"));
    }
    // Chunks: sizes that overflow, wear signs or blanks, lines that end otherwise, data that is longer than said.
    for body in [
        "\r\n5\r\norder\r\n0\r\n\r\n",
        "10000000000000005\r\norder\r\n0\r\n\r\n",
        "ffffffffffffffff\r\norder\r\n0\r\n\r\n",
        "0000000000000005\r\norder\r\n0\r\n\r\n",
        "0x5\r\norder\r\n0\r\n\r\n",
        "+5\r\norder\r\n0\r\n\r\n",
        "-5\r\norder\r\n0\r\n\r\n",
        "5_\r\norder\r\n0\r\n\r\n",
        " 5\r\norder\r\n0\r\n\r\n",
        "5 \r\norder\r\n0\r\n\r\n",
        "5\t\r\norder\r\n0\r\n\r\n",
        "5\norder\r\n0\r\n\r\n",
        "5\rorder\r\n0\r\n\r\n",
        "5\r\norder\n0\r\n\r\n",
        "5\r\norder0\r\n\r\n",
        "5\r\norders\r\n0\r\n\r\n",
        "5;a\nb\r\norder\r\n0\r\n\r\n",
        "5;a=\"\n\"\r\norder\r\n0\r\n\r\n",
        "5;\0\r\norder\r\n0\r\n\r\n",
        "order\r\n0\r\n\r\n",
        ";a\r\n0\r\n\r\n",
        "0\n\n",
        "0\r\n\n",
        "0\r\nX: y\n\r\n",
        "0\r\n folded: y\r\n\r\n",
        "0\r\nX: y\r\n folded\r\n\r\n",
        "0\r\nno trailer\r\n\r\n",
        "0\r\nX : y\r\n\r\n",
    ] {
        // Read to its end before it is sent on, as it may be repeated.
        corpus.push(post("Idempotency-Key: k\r\nTransfer-Encoding: chunked\r\n", body));
    }
    // Lines, names, and everything about the request line and `Host`.
    for request in [
        "GET /seen HTTP/1.1\nHost: x\n\n",
        "GET /seen HTTP/1.1\r\nHost: x\n\r\n",
        "GET /seen HTTP/1.1\r\nHost: x\r\r\n\r\n",
        "GET /seen HTTP/1.1\r\nHost: x\r\nX: y\r\n folded\r\n\r\n",
        "GET /seen HTTP/1.1\r\nHost: x\r\nX\r\n\r\n",
        "GET /seen HTTP/1.1\r\nHost: x\r\nX : y\r\n\r\n",
        "GET /seen HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n",
        "GET /seen HTTP/1.1\r\nHost: x\r\nX: y\0z\r\n\r\n",
        "GET /seen HTTP/1.1\r\nHost: x\r\nX(: y\r\n\r\n",
        "GET /seen HTTP/1.1\r\n Host: x\r\n\r\n",
        "GET /seen HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
        "GET /seen HTTP/1.1\r\nHost: x\r\nhOST: y\r\n\r\n",
        "GET /seen HTTP/1.1\r\n\r\n",
        "GET /seen HTTP/1.1\r\nHost: x y\r\n\r\n",
        "GET /seen HTTP/1.1\r\nHost: x,y\r\n\r\n",
        "GET /seen HTTP/1.1\r\nHost: x/seen\r\n\r\n",
        "GET /seen HTTP/1.1\r\nHost: u@x\r\n\r\n",
        "GET /seen HTTP/1.1\r\nHost: x:80:80\r\n\r\n",
        "GET http://x/seen HTTP/1.1\r\n\r\n",
        "GET http://x/seen HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        "GET http://x@y/seen HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET http://x:y/seen HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET https://x/seen HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET ftp://x/seen HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET seen HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET \\seen HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /seen#part HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /se en HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET  /seen HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET\t/seen HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /seen HTTP/1.1 \r\nHost: x\r\n\r\n",
        "GET /seen  HTTP/1.1\r\nHost: x\r\n\r\n",
        " GET /seen HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /seen\0 HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /seen HTTP/1.2\r\nHost: x\r\n\r\n",
        "GET /seen HTTP/01.1\r\nHost: x\r\n\r\n",
        "GET /seen HTTP/2\r\nHost: x\r\n\r\n",
        "GET /seen http/1.1\r\nHost: x\r\n\r\n",
        "GET /seen HTTP/1.1x\r\nHost: x\r\n\r\n",
        "GET /seen\r\n\r\n",
        "GE\u{df}T /seen HTTP/1.1\r\nHost: x\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "POST /seen HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        corpus.push(request.to_owned());
    }
    for attempt in &corpus {
        let answer = lb.raw(attempt).await;
        // A first request that is well-formed would be answered 200 before the second is refused.
        let refused = answer.starts_with("HTTP/1.1 400 ") && answer.matches("\ncontent-length: ").count() == 1;
        assert!(refused, "{attempt:?}: {answer}");
        assert!(answer.contains("connection: close\r\n"), "{attempt:?}: {answer}");
        assert_eq!(*seen.lock().unwrap(), Vec::<String>::new(), "{attempt:?}");
    }
    assert!(corpus.len() > 120);
}

#[tokio::test]
async fn what_is_odd_but_legal_has_one_reading() {
    let (gateway, seen) = recorder().await;
    let lb = Lb::start(&[gateway], &[]).await;
    // The request, and what the gateway gets of it: begin, middle, end.
    for (request, begin, middle, end) in [
        // Empty lines before a request are ignored.
        (
            "\r\n\r\nGET /seen HTTP/1.1\r\nHost: x\r\n",
            "GET /seen HTTP/1.1\r\n",
            "host: x\r\n",
            "\r\n\r\n",
        ),
        // Blanks around a value are no part of it, and names have no case.
        (
            "POST /seen HTTP/1.1\r\nhOsT:x\r\nX: \t y \t\r\ncOnTeNt-LeNgTh:\t5 \r\n",
            "POST",
            "X: y\r\n",
            "\r\n\r\norder",
        ),
        (
            "POST /seen HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\tCHUNKED \r\n",
            "POST",
            "transfer-encoding: chunked\r\n",
            "5\r\norder\r\n0\r\n\r\n",
        ),
        // A length with zeros in front is a number still.
        (
            "POST /seen HTTP/1.1\r\nHost: x\r\nContent-Length: 005\r\n",
            "POST",
            "content-length: 5\r\n",
            "\r\n\r\norder",
        ),
        // What Connection names does not cross, but the message stays the same message.
        (
            "POST /seen HTTP/1.1\r\nHost: x\r\nConnection: content-length, host, close, transfer-encoding\r\nContent-Length: 5\r\n",
            "POST",
            "content-length: 5\r\n",
            "\r\n\r\norder",
        ),
        // A body belongs to its request, whatever the method.
        (
            "GET /seen HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n",
            "GET",
            "content-length: 5\r\n",
            "\r\n\r\norder",
        ),
        (
            "DELETE /seen HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n",
            "DELETE",
            "content-length: 5\r\n",
            "order",
        ),
        // The authority of an absolute target outranks Host.
        (
            "GET HTTP://y:81/seen?a HTTP/1.1\r\nHost: x\r\n",
            "GET /seen?a HTTP/1.1\r\n",
            "\r\nhost: y:81\r\n",
            "\r\n\r\n",
        ),
        (
            "GET http://y HTTP/1.1\r\nHost: x\r\n",
            "GET / HTTP/1.1\r\n",
            "\r\nhost: y\r\n",
            "\r\n\r\n",
        ),
        (
            "OPTIONS * HTTP/1.1\r\nHost: x\r\n",
            "OPTIONS * HTTP/1.1\r\n",
            "host: x\r\n",
            "\r\n\r\n",
        ),
        // Nobody is asked what `..`, `//` and escapes mean.
        (
            "GET //a/../b/%2e%2E/%00?q=/../ HTTP/1.1\r\nHost: x\r\n",
            "GET //a/../b/%2e%2E/%00?q=/../ HTTP/1.1\r\n",
            "host: x\r\n",
            "\r\n\r\n",
        ),
        // Names that some servers take for others are left as they are.
        (
            "POST /seen HTTP/1.1\r\nHost: x\r\nContent_Length: 9\r\nContent-Length: 5\r\n",
            "POST",
            "Content_Length: 9\r\n",
            "\r\n\r\norder",
        ),
        // Methods that are not known are for the gateway to judge.
        (
            "BREW /seen HTTP/1.1\r\nHost: x\r\n",
            "BREW /seen HTTP/1.1\r\n",
            "host: x\r\n",
            "\r\n\r\n",
        ),
        (
            "GET /seen HTTP/1.0\r\n",
            "GET /seen HTTP/1.1\r\n",
            "host: localhost\r\n",
            "\r\n\r\n",
        ),
    ] {
        let body = match end {
            "\r\n\r\norder" | "order" => "order",
            "5\r\norder\r\n0\r\n\r\n" => "2;x=y\r\nor\r\n03\r\nder\r\n000\r\n\r\n",
            _ => "",
        };
        let answer = lb.raw(&format!("{request}Connection: close\r\n\r\n{body}")).await;
        assert!(
            answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nok"),
            "{request:?}: {answer}"
        );
        let got = std::mem::take(&mut *seen.lock().unwrap());
        let [got] = got.as_slice() else {
            panic!("{request:?}: {got:?}")
        };
        assert!(got.starts_with(begin) && got.contains(middle), "{request:?}: {got}");
        let data: String = got
            .split("\r\n\r\n")
            .nth(1)
            .unwrap_or_default()
            .chars()
            .filter(|c| c.is_alphabetic())
            .collect();
        assert_eq!(data, if body.is_empty() { "" } else { "order" }, "{request:?}: {got}");
        assert_eq!(
            got.to_ascii_lowercase().matches("\r\nhost: ").count(),
            1,
            "{request:?}: {got}"
        );
    }
}

/// Two requests on one connection: the second begins where the first ends, however the first is framed.
#[tokio::test]
async fn the_next_request_begins_where_the_body_ends() {
    let (gateway, seen) = recorder().await;
    let lb = Lb::start(&[gateway], &[]).await;
    let inner = "GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n";
    for key in ["", "Idempotency-Key: k\r\n"] {
        let sized = format!(
            "POST /1 HTTP/1.1\r\nHost: x\r\n{key}Content-Length: {}\r\n\r\n{inner}",
            inner.len()
        );
        let chunked = format!(
            "POST /2 HTTP/1.1\r\nHost: x\r\n{key}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{inner}\r\n0\r\n\r\n",
            inner.len()
        );
        let last = "GET /3 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let answers = lb.raw(&format!("{sized}{chunked}{last}")).await;
        assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 3, "{answers}");
        let got = std::mem::take(&mut *seen.lock().unwrap());
        let lines: Vec<_> = got.iter().map(|request| request.lines().next().unwrap()).collect();
        assert_eq!(lines, ["POST /1 HTTP/1.1", "POST /2 HTTP/1.1", "GET /3 HTTP/1.1"]);
    }
}
