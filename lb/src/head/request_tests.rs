use super::*;

const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

fn read_head(wire: &str) -> Result<Option<(usize, Request, String)>, ProxyError> {
    let (mut out, mut entry) = (Vec::new(), Entry::new(PEER));
    let origin = Origin {
        peer: PEER,
        trust: Trust::Unset,
        proxies: &Proxies::default(),
        new_id: &|| 0xab,
        tracer: &Tracer::off(),
    };
    let read = read(wire.as_bytes(), origin, &Limits::usual(), &mut out, &mut entry)?;
    Ok(read.map(|(length, request)| (length, request, String::from_utf8(out).unwrap())))
}

fn accepted(wire: &str) -> (Request, String) {
    let (length, request, out) = read_head(wire).unwrap().unwrap();
    assert_eq!(length, wire.len());
    (request, out)
}

#[test]
fn forwarding_headers_are_added_or_extended() {
    let (_, plain) = accepted("GET /x?limit=3 HTTP/1.1\r\nHost: drones.example\r\n\r\n");
    assert_eq!(
        plain,
        "GET /x?limit=3 HTTP/1.1\r\nhost: drones.example\r\nx-forwarded-host: drones.example\r\nx-forwarded-proto: http\r\n\
         x-forwarded-for: 192.0.2.7\r\nx-request-id: 000000000000000000000000000000ab\r\n"
    );
    let (_, chained) = accepted(
        "GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.113.1, 203.0.113.2\r\nX-Forwarded-For: 203.0.113.3\r\n\
         X-Forwarded-Proto: https\r\nX-Request-Id: mine\r\n\r\n",
    );
    assert!(
        chained.contains("x-forwarded-for: 203.0.113.1, 203.0.113.2, 203.0.113.3, 192.0.2.7\r\n"),
        "{chained}"
    );
    assert!(
        chained.contains("X-Forwarded-Proto: https\r\n") && !chained.contains("http\r\n"),
        "{chained}"
    );
    assert!(
        chained.contains("X-Request-Id: mine\r\n") && !chained.contains("00ab"),
        "{chained}"
    );
}

#[test]
fn forwarding_headers_count_for_what_their_sender_is_trusted() {
    let wire = "GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 1.1.1.1, 203.0.113.9\r\nX-Forwarded-Proto: https\r\n\
                X-Forwarded-Host: outside\r\nX-Forwarded-For: 10.0.0.2\r\n\r\n";
    let proxies = Proxies::new(vec!["10.0.0.0/8".parse().unwrap()]);
    let read = |peer: &str| {
        let peer = peer.parse().unwrap();
        let (mut out, mut entry) = (Vec::new(), Entry::new(PEER));
        let origin = Origin {
            peer,
            trust: proxies.trust(peer),
            proxies: &proxies,
            new_id: &|| 0xab,
            tracer: &Tracer::off(),
        };
        super::read(wire.as_bytes(), origin, &Limits::usual(), &mut out, &mut entry)
            .unwrap()
            .unwrap();
        (entry.client.to_string(), String::from_utf8(out).unwrap())
    };
    let (client, out) = read("10.0.0.1");
    assert_eq!(client, "203.0.113.9");
    for kept in [
        "x-forwarded-for: 1.1.1.1, 203.0.113.9, 10.0.0.2, 10.0.0.1\r\n",
        "X-Forwarded-Proto: https\r\n",
        "X-Forwarded-Host: outside\r\n",
    ] {
        assert!(out.contains(kept), "{kept}: {out}");
    }
    let (client, out) = read("192.0.2.7");
    assert_eq!(client, "192.0.2.7");
    for ours in [
        "x-forwarded-for: 192.0.2.7\r\n",
        "x-forwarded-proto: http\r\n",
        "x-forwarded-host: x\r\n",
    ] {
        assert!(out.contains(ours), "{ours}: {out}");
    }
    assert!(
        !out.contains("https") && !out.contains("outside") && !out.contains("1.1.1.1"),
        "{out}"
    );
}

#[test]
fn what_connection_names_stays_behind_but_not_the_framing() {
    let (request, out) = accepted(
        "POST / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, X-Secret ,, idempotency-key\r\nConnection: host,content-length\r\n\
         X-Secret: 1\r\nIdempotency-Key: k\r\nContent-Length: 3\r\nTE: trailers\r\nKeep-Alive: timeout=5\r\nProxy-Authorization: y\r\n\r\n",
    );
    for gone in ["onnection", "X-Secret", "TE", "Keep-Alive", "Idempotency", "Proxy-"] {
        assert!(!out.contains(gone), "{gone}: {out}");
    }
    assert_eq!(request.framing, Framing::Length(3));
    assert!(
        !request.is_repeatable(),
        "the gateway will not see the key, so it must not count"
    );
}

#[test]
fn only_harmless_requests_are_repeatable() {
    let repeatable = |method: &str, key: &str| {
        accepted(&format!(
            "{method} / HTTP/1.1\r\nHost: x\r\nIdempotency-Key: {key}\r\n\r\n"
        ))
        .0
        .is_repeatable()
    };
    for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"] {
        assert!(repeatable(method, ""));
    }
    assert!(repeatable("POST", "k"));
    assert!(!repeatable("POST", " ") && !repeatable("PATCH", "k"));
}

#[test]
fn absolute_form_becomes_origin_form_and_outranks_host() {
    for (target, line) in [
        ("http://other.example:81/zones?x=1", "GET /zones?x=1 HTTP/1.1"),
        ("HTTP://other.example:81", "GET / HTTP/1.1"),
        ("http://other.example:81?x", "GET /?x HTTP/1.1"),
    ] {
        let (_, out) = accepted(&format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert!(
            out.starts_with(line) && out.contains("\r\nhost: other.example:81\r\n"),
            "{out}"
        );
    }
}

#[test]
fn connections_persist_as_each_version_has_it() {
    let keeps = |version: &str, connection: &str| {
        accepted(&format!(
            "GET / HTTP/{version}\r\nHost: x\r\nConnection: {connection}\r\n\r\n"
        ))
        .0
        .keep_alive
    };
    assert!(keeps("1.1", "x") && keeps("1.0", "Keep-Alive"));
    assert!(!keeps("1.0", "x") && !keeps("1.1", "Close") && !keeps("1.0", "keep-alive, close"));
}

#[test]
fn upgrades_are_passed_when_they_are_meant() {
    let upgrades = |headers: &str| {
        accepted(&format!("GET / HTTP/1.1\r\nHost: x\r\n{headers}\r\n"))
            .0
            .upgrade
    };
    assert!(upgrades("Connection: Upgrade\r\nUpgrade: websocket\r\n"));
    assert!(!upgrades("Upgrade: websocket\r\n"));
    assert!(!upgrades("Connection: upgrade\r\nUpgrade: h2c\r\n"));
}

/// Smuggling and other attempts, each with the status it gets. None reaches a gateway.
#[test]
fn the_corpus_of_bad_heads() {
    let long_target = format!(
        "GET /{} HTTP/1.1\r\nHost: x\r\n\r\n",
        "y".repeat(Limits::usual().uri_bytes)
    );
    let long_headers = format!(
        "GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n",
        "y".repeat(Limits::usual().head_bytes)
    );
    let many_headers = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(HEADERS_MAX));
    let corpus: &[(u16, &str)] = &[
        // Both lengths, in either order.
        (
            400,
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
        ),
        // Lengths given twice, even when they agree, or as lists.
        (
            400,
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
        ),
        (400, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3, 3\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +3\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -3\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0x3\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3 0\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: \r\n\r\n"),
        (
            400,
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
        ),
        // Codings that are not understood everywhere.
        (
            400,
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
        ),
        (400, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n"),
        (
            400,
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \"chunked\"\r\n\r\n",
        ),
        (400, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n"),
        (
            400,
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\x0bchunked\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding\r\n : chunked\r\n\r\n",
        ),
        (400, "POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"),
        // Line ends that others read differently.
        (400, "GET / HTTP/1.1\nHost: x\n\n"),
        (400, "GET / HTTP/1.1\r\nHost: x\nX: y\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: x\r\n\n"),
        (
            400,
            "GET / HTTP/1.1\r\nHost: x\r\nX: y\rTransfer-Encoding: chunked\r\n\r\n",
        ),
        (400, "GET / HTTP/1.1\r\nHost: x\r\nX: y\0\r\n\r\n"),
        // Folded lines and odd names.
        (400, "GET / HTTP/1.1\r\nHost: x\r\nX: y\r\n folded\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: x\r\nX: y\r\n\tfolded\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\n Host: x\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost : x\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: x\r\nX y: z\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n"),
        // Host: exactly one, and one that is a host.
        (400, "GET / HTTP/1.1\r\n\r\n"),
        (400, "GET http://x/ HTTP/1.1\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n"),
        (400, "GET http://x/ HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: x, y\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: x/y\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: u@x\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: x:port\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n"),
        // Targets.
        (400, "GET x HTTP/1.1\r\nHost: x\r\n\r\n"),
        (400, "GET * HTTP/1.1\r\nHost: x\r\n\r\n"),
        (400, "GET http:// HTTP/1.1\r\nHost: x\r\n\r\n"),
        (400, "GET http:///path HTTP/1.1\r\nHost: x\r\n\r\n"),
        (400, "GET http://u@y/ HTTP/1.1\r\nHost: x\r\n\r\n"),
        (400, "GET http://y:port/ HTTP/1.1\r\nHost: x\r\n\r\n"),
        (400, "GET https://y/ HTTP/1.1\r\nHost: x\r\n\r\n"),
        (400, "GET /#fragment HTTP/1.1\r\nHost: x\r\n\r\n"),
        (400, "GET /a b HTTP/1.1\r\nHost: x\r\n\r\n"),
        (400, "GET  / HTTP/1.1\r\nHost: x\r\n\r\n"),
        (400, "GET / HTTP/1.1 \r\nHost: x\r\n\r\n"),
        (400, "GET / HTTP/2.0\r\nHost: x\r\n\r\n"),
        (400, "GET / HTTP/1.2\r\nHost: x\r\n\r\n"),
        (400, "GET / http/1.1\r\nHost: x\r\n\r\n"),
        (400, "GET /\r\n\r\n"),
        (400, "\x16\x03\x01\x02\0\x01\0\x01\r\n\r\n"),
        (501, "CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n"),
        // More than is taken, or expected.
        (
            417,
            "POST / HTTP/1.1\r\nHost: x\r\nExpect: 200-ok\r\nContent-Length: 1\r\n\r\n",
        ),
        (414, &long_target),
        (431, &long_headers),
        (431, &many_headers),
        (
            501,
            "GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\n\r\n",
        ),
        (
            501,
            "POST / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\n",
        ),
    ];
    for (status, wire) in corpus {
        match read_head(wire) {
            Err(error) => assert_eq!(error.status().as_u16(), *status, "{wire:?}: {error}"),
            Ok(read) => panic!("{wire:?} should be refused, but is {read:?}"),
        }
    }
}
