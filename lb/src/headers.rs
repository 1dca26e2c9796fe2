//! Which headers cross the proxy.
//!
//! Promises: headers that speak about one connection only (RFC 9110, 7.6.1, and whatever `Connection` names) stay on that connection,
//! in both directions; all others cross unchanged, repeated ones repeated. A request gains the client's address at the end of
//! `X-Forwarded-For`, and `X-Forwarded-Proto` and `-Host` unless a proxy before us has set them. `Host` is kept.

use std::net::IpAddr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, Entry, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::{Method, Uri, Version, request};

use crate::error::ProxyError;
use crate::limits::{HEADERS_MAX_BYTES, URI_MAX_BYTES};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Headers of one connection, besides `Connection` itself.
const HOP_BY_HOP: [HeaderName; 7] = [
    KEEP_ALIVE,
    PROXY_CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Makes a request's head fit for the gateway, or says why it cannot be forwarded.
pub(crate) fn prepare_request(head: &mut request::Parts, client: IpAddr) -> Result<(), ProxyError> {
    check(head)?;
    // Chunked wins over a length (RFC 9112, 6.3); forwarding both would let two servers see two different requests.
    if head.headers.contains_key(TRANSFER_ENCODING) {
        head.headers.remove(CONTENT_LENGTH);
    }
    drop_hop_by_hop(&mut head.headers);
    // Whoever waits for "100 Continue" gets it from us.
    head.headers.remove(EXPECT);

    if let Some(authority) = head.uri.authority() {
        // A request in absolute form: its authority outranks `Host` (RFC 9112, 3.2.2).
        if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
            head.headers.insert(HOST, host);
        }
        head.uri = head
            .uri
            .path_and_query()
            .map_or_else(|| Uri::from_static("/"), |path| Uri::from(path.clone()));
    } else if !head.headers.contains_key(HOST) {
        head.headers.insert(HOST, HeaderValue::from_static("localhost"));
    }
    head.version = Version::HTTP_11;

    append_forwarded_for(&mut head.headers, client);
    if let Entry::Vacant(entry) = head.headers.entry(X_FORWARDED_PROTO) {
        entry.insert(HeaderValue::from_static("http"));
    }
    if !head.headers.contains_key(X_FORWARDED_HOST)
        && let Some(host) = head.headers.get(HOST).cloned()
    {
        head.headers.insert(X_FORWARDED_HOST, host);
    }
    Ok(())
}

fn check(head: &request::Parts) -> Result<(), ProxyError> {
    if head.method == Method::CONNECT {
        return Err(ProxyError::Unsupported("CONNECT"));
    }
    // An offer of HTTP/2 may be ignored, and some clients always make it; anything else would wait for an upgrade that never comes.
    if head
        .headers
        .get_all(UPGRADE)
        .iter()
        .any(|protocol| !protocol.as_bytes().eq_ignore_ascii_case(b"h2c"))
    {
        return Err(ProxyError::Unsupported("Upgrade (WebSocket and the like)"));
    }
    let hosts = head.headers.get_all(HOST).iter().count();
    if hosts > 1 || (hosts == 0 && head.version == Version::HTTP_11 && head.uri.authority().is_none()) {
        return Err(ProxyError::BadHost(hosts));
    }
    if head.uri.path_and_query().map_or(0, |path| path.as_str().len()) > URI_MAX_BYTES {
        return Err(ProxyError::UriTooLong);
    }
    let header_bytes: usize = head
        .headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    if header_bytes > HEADERS_MAX_BYTES {
        return Err(ProxyError::HeadersTooLarge(header_bytes));
    }
    Ok(())
}

/// Drops what speaks about one connection only.
pub(crate) fn drop_hop_by_hop(headers: &mut HeaderMap) {
    // Most messages carry no `Connection` at all.
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok())
            // A message without these would no longer be the same message.
            .filter(|name| name != HOST && name != CONTENT_LENGTH)
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

fn append_forwarded_for(headers: &mut HeaderMap, client: IpAddr) {
    let client = client.to_canonical().to_string();
    let mut chain = Vec::new();
    for earlier in headers.get_all(X_FORWARDED_FOR) {
        chain.extend_from_slice(earlier.as_bytes());
        chain.extend_from_slice(b", ");
    }
    chain.extend_from_slice(client.as_bytes());
    if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(chain)) {
        headers.insert(X_FORWARDED_FOR, value);
    }
}

/// True when a request may reach a gateway twice without harm: idempotent by method, or by its `Idempotency-Key`.
pub(crate) fn is_repeatable(head: &request::Parts) -> bool {
    match head.method {
        Method::GET | Method::HEAD | Method::PUT | Method::DELETE | Method::OPTIONS => true,
        Method::POST => head
            .headers
            .get(IDEMPOTENCY_KEY)
            .is_some_and(|key| !key.as_bytes().trim_ascii().is_empty()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use proptest::prelude::{ProptestConfig, prop};
    use proptest::{prop_assert, prop_assert_eq, proptest};

    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

    fn head(build: impl FnOnce(http::request::Builder) -> http::request::Builder) -> request::Parts {
        build(
            Request::builder()
                .uri("/deliveries?limit=3")
                .header("host", "drones.example"),
        )
        .body(())
        .unwrap()
        .into_parts()
        .0
    }

    fn prepared(build: impl FnOnce(http::request::Builder) -> http::request::Builder) -> request::Parts {
        let mut head = head(build);
        prepare_request(&mut head, CLIENT).unwrap();
        head
    }

    fn refused(build: impl FnOnce(http::request::Builder) -> http::request::Builder) -> u16 {
        prepare_request(&mut head(build), CLIENT).unwrap_err().status().as_u16()
    }

    #[test]
    fn forwarding_headers_are_added_or_extended() {
        let plain = prepared(|request| request);
        assert_eq!(plain.headers["x-forwarded-for"], "192.0.2.7");
        assert_eq!(plain.headers["x-forwarded-proto"], "http");
        assert_eq!(plain.headers["x-forwarded-host"], "drones.example");
        assert_eq!(plain.headers["host"], "drones.example");
        let chained = prepared(|request| {
            request
                .header("x-forwarded-for", "203.0.113.1, 203.0.113.2")
                .header("x-forwarded-for", "203.0.113.3")
                .header("x-forwarded-proto", "https")
        });
        assert_eq!(
            chained.headers["x-forwarded-for"],
            "203.0.113.1, 203.0.113.2, 203.0.113.3, 192.0.2.7"
        );
        assert_eq!(chained.headers["x-forwarded-proto"], "https");
    }

    #[test]
    fn what_connection_names_stays_behind_but_not_the_framing() {
        let head = prepared(|request| {
            request
                .method(Method::POST)
                .header("connection", "keep-alive, X-Secret ,, idempotency-key")
                .header("connection", "host,content-length")
                .header("x-secret", "1")
                .header("idempotency-key", "k")
                .header("content-length", "3")
                .header("te", "trailers")
                .header("keep-alive", "timeout=5")
        });
        for gone in ["connection", "x-secret", "te", "keep-alive", "idempotency-key"] {
            assert!(!head.headers.contains_key(gone), "{gone}");
        }
        assert_eq!(head.headers["content-length"], "3");
        assert_eq!(head.headers["host"], "drones.example");
        assert!(
            !is_repeatable(&head),
            "the gateway will not see the key, so it must not count"
        );
    }

    #[test]
    fn a_request_has_one_length() {
        let head = prepared(|request| {
            request
                .header("transfer-encoding", "chunked")
                .header("content-length", "3")
        });
        assert!(!head.headers.contains_key("content-length") && !head.headers.contains_key("transfer-encoding"));
    }

    #[test]
    fn absolute_form_becomes_origin_form() {
        let head = prepared(|request| request.uri("http://other.example:81/zones?x=1"));
        assert_eq!(head.uri, "/zones?x=1");
        assert_eq!(head.headers["host"], "other.example:81");
    }

    #[test]
    fn what_cannot_be_forwarded_is_refused() {
        assert_eq!(refused(|request| request.header("upgrade", "websocket")), 501);
        assert_eq!(refused(|request| request.method(Method::CONNECT)), 501);
        assert_eq!(refused(|request| request.header("host", "second")), 400);
        assert_eq!(
            refused(|request| request.header("x", "y".repeat(HEADERS_MAX_BYTES))),
            431
        );
        assert_eq!(
            refused(|request| request.uri(format!("/{}", "y".repeat(URI_MAX_BYTES)))),
            414
        );
        assert!(
            !prepared(|request| request.header("upgrade", "h2c"))
                .headers
                .contains_key("upgrade")
        );
    }

    #[test]
    fn only_harmless_requests_are_repeatable() {
        let repeatable =
            |method: Method, key: &str| is_repeatable(&head(|r| r.method(method).header("idempotency-key", key)));
        for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE] {
            assert!(repeatable(method, ""));
        }
        assert!(repeatable(Method::POST, "k"));
        assert!(!repeatable(Method::POST, " ") && !repeatable(Method::PATCH, "k"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// Whatever headers come, in whatever order: those of the connection go, all others stay with all their values in order.
        #[test]
        fn hygiene(
            sent in prop::collection::vec(("[a-d]|x-[a-c]|set-cookie|keep-alive|te|upgrade|transfer-encoding", "[a-z]{0,6}"), 0..20),
            named in prop::collection::vec("[a-d]|x-[a-c]|Set-Cookie|TE| |;", 0..6),
        ) {
            let mut headers = HeaderMap::new();
            for (name, value) in &sent {
                headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
            }
            for part in named.chunks(2) {
                headers.append(CONNECTION, HeaderValue::from_str(&part.join(", ")).unwrap());
            }
            drop_hop_by_hop(&mut headers);
            let is_hop = |name: &str| {
                HOP_BY_HOP.iter().any(|hop| hop == name) || named.iter().any(|other| other.eq_ignore_ascii_case(name))
            };
            prop_assert!(!headers.contains_key(CONNECTION));
            for (name, _) in &sent {
                let before: Vec<&str> = sent.iter().filter(|(other, _)| other == name).map(|(_, value)| value.as_str()).collect();
                let after: Vec<&str> = headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect();
                prop_assert_eq!(after, if is_hop(name) { Vec::new() } else { before });
            }
        }

        /// The client's own address always comes last, behind everything it claimed, and hygiene done twice is hygiene done once.
        #[test]
        fn forwarded_for_ends_with_the_peer(claims in prop::collection::vec("[ -~]{0,20}", 0..4)) {
            let mut head = head(|mut request| {
                for claim in &claims {
                    request = request.header("x-forwarded-for", claim);
                }
                request
            });
            prepare_request(&mut head, CLIENT).unwrap();
            let value = head.headers["x-forwarded-for"].to_str().unwrap().to_owned();
            prop_assert!(value.ends_with("192.0.2.7"));
            prop_assert_eq!(head.headers.get_all("x-forwarded-for").iter().count(), 1);
            for claim in &claims {
                prop_assert!(value.contains(claim.trim()));
            }
            let once = head.headers.clone();
            drop_hop_by_hop(&mut head.headers);
            prop_assert_eq!(once, head.headers);
        }
    }
}
