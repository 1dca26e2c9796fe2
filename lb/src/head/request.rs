//! Requests: from the client's head to the one that the gateway gets.
//!
//! A request gains the client's address at the end of `X-Forwarded-For`, `X-Forwarded-Proto` and `-Host` unless a proxy before us has set
//! them, and an `X-Request-Id` unless it has one. Where traces are exported it becomes part of one (`traces`); elsewhere `traceparent` crosses
//! like any other header. `Host` is kept. Once it is said which proxies are trusted, what others say in the
//! forwarding headers is dropped.

use std::io::Write as _;
use std::mem::MaybeUninit;
use std::net::IpAddr;

use httparse::{Header, Status};
use trace::Tracer;

use super::read::{Lengths, Options, is, is_hop_by_hop, lines_end_with_crlf};
use super::{Framing, header};
use crate::access_log::Entry;
use crate::clients::{Proxies, Trust};
use crate::error::ProxyError;
use crate::limits::{HEADERS_MAX, Limits, REQUEST_ID_MAX_BYTES};
use crate::traces::Incoming;

/// Methods that are treated in a way of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Head,
    Options,
    Put,
    Delete,
    Post,
    Other,
}

/// What is known about a request besides the head that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) framing: Framing,
    pub(crate) is_http10: bool,
    /// The client means to send further requests.
    pub(crate) keep_alive: bool,
    /// The client waits for leave to send its body.
    pub(crate) expects_continue: bool,
    /// The connection is to speak another protocol from here on.
    pub(crate) upgrade: bool,
    /// It has an `Idempotency-Key` that the gateway sees too.
    pub(crate) has_key: bool,
}

impl Request {
    /// True when it may reach a gateway twice without harm: idempotent by method, or by its `Idempotency-Key`.
    pub(crate) fn is_repeatable(&self) -> bool {
        match self.method {
            Method::Get | Method::Head | Method::Options | Method::Put | Method::Delete => !self.upgrade,
            Method::Post => self.has_key,
            Method::Other => false,
        }
    }

    /// True when it changes nothing.
    pub(crate) fn is_harmless(&self) -> bool {
        matches!(self.method, Method::Get | Method::Head | Method::Options)
    }
}

/// Who asks, for the headers that say so.
#[derive(Clone, Copy)]
pub(crate) struct Origin<'a> {
    /// The address of the connection.
    pub(crate) peer: IpAddr,
    /// What it says about others.
    pub(crate) trust: Trust,
    pub(crate) proxies: &'a Proxies,
    /// For requests that come without an id.
    pub(crate) new_id: &'a dyn Fn() -> u128,
    /// Who makes it part of a trace.
    pub(crate) tracer: &'a Tracer,
}

/// Reads a request's head from the beginning of `input`; nothing while it is incomplete. Otherwise its length, what is known about it, and
/// in `out` the head for the gateway, up to but without the framing ([`Framing::finish`]). Notes in `entry` what is logged, in any case.
pub(crate) fn read(
    input: &[u8],
    origin: Origin<'_>,
    limits: &Limits,
    out: &mut Vec<u8>,
    entry: &mut Entry,
) -> Result<Option<(usize, Request)>, ProxyError> {
    let mut room = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut []);
    let length = match head.parse_with_uninit_headers(input, &mut room) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return Ok(None),
        Err(error) => return Err(refused(error)),
    };
    let method = head.method.unwrap_or_default();
    let target = head.path.unwrap_or_default();
    entry.client = origin.peer;
    entry.method.extend_from_slice(method.as_bytes());
    entry.path.extend_from_slice(path(target).as_bytes());
    entry.is_http10 = head.version == Some(0);
    if !lines_end_with_crlf(&input[..length]) {
        return Err(ProxyError::Malformed("a line does not end with CRLF"));
    }
    out.clear();
    let mut writer = Writer {
        out,
        entry,
        limits,
        options: Options::of(head.headers),
        is_http10: head.version == Some(0),
        host: None,
    };
    writer.target(method, target)?;
    let request = writer.headers(method, head.headers, origin)?;
    Ok(Some((length, request)))
}

fn refused(error: httparse::Error) -> ProxyError {
    match error {
        httparse::Error::TooManyHeaders => ProxyError::TooManyHeaders,
        httparse::Error::HeaderName => ProxyError::Malformed("a header's name, or a folded line"),
        httparse::Error::HeaderValue => ProxyError::Malformed("a header's value"),
        httparse::Error::NewLine => ProxyError::Malformed("the end of a line"),
        httparse::Error::Version => ProxyError::Malformed("the version; HTTP/1.1 and HTTP/1.0 are spoken here"),
        _ => ProxyError::Malformed("the request line"),
    }
}

/// The path of a target, without the query, which may hold what is nobody's business.
fn path(target: &str) -> &str {
    let origin_form = absolute(target).map_or(target, |(_, rest)| rest);
    let path = origin_form.split('?').next().unwrap_or_default();
    if path.is_empty() { "/" } else { path }
}

/// Authority and the rest of a target in absolute form.
fn absolute(target: &str) -> Option<(&str, &str)> {
    let scheme = target.get(..7)?;
    if !scheme.eq_ignore_ascii_case("http://") {
        return None;
    }
    let rest = &target[7..];
    Some(rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len())))
}

/// A name or an address, with or without a port.
fn is_authority(text: &[u8]) -> bool {
    let (host, port) = match text {
        [b'[', rest @ ..] => match rest.iter().position(|byte| *byte == b']') {
            Some(end)
                if rest[..end]
                    .iter()
                    .all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.')) =>
            {
                (&rest[..end], &rest[end + 1..])
            }
            _ => return false,
        },
        _ => text.split_at(text.iter().position(|byte| *byte == b':').unwrap_or(text.len())),
    };
    let is_port = match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:".contains(byte) || !byte.is_ascii();
    is_port && !host.is_empty() && host.iter().all(is_name)
}

/// Writes the head that goes on.
struct Writer<'a, 'b> {
    out: &'a mut Vec<u8>,
    entry: &'a mut Entry,
    limits: &'a Limits,
    options: Options,
    is_http10: bool,
    /// The authority of a target in absolute form: it outranks `Host` (RFC 9112, 3.2.2).
    host: Option<&'b [u8]>,
}

impl<'b> Writer<'_, 'b> {
    /// The request line, in origin form.
    fn target(&mut self, method: &str, target: &'b str) -> Result<(), ProxyError> {
        if method == "CONNECT" {
            return Err(ProxyError::Unsupported("CONNECT"));
        }
        if target.len() > self.limits.uri_bytes {
            return Err(ProxyError::UriTooLong(self.limits.uri_bytes));
        }
        if target.contains('#') {
            return Err(ProxyError::Malformed("the target has a fragment"));
        }
        let origin_form = match absolute(target) {
            Some((authority, rest)) => {
                if !is_authority(authority.as_bytes()) {
                    return Err(ProxyError::Malformed("the target's host"));
                }
                self.host = Some(authority.as_bytes());
                rest
            }
            None if target.starts_with('/') || (target == "*" && method == "OPTIONS") => target,
            None => return Err(ProxyError::Malformed("the target is neither a path nor an http:// URL")),
        };
        self.out.extend_from_slice(method.as_bytes());
        self.out.extend_from_slice(b" ");
        if self.host.is_some() && !origin_form.starts_with('/') {
            self.out.extend_from_slice(b"/");
        }
        self.out.extend_from_slice(origin_form.as_bytes());
        self.out.extend_from_slice(b" HTTP/1.1\r\n");
        Ok(())
    }

    fn headers(&mut self, method: &str, headers: &[Header<'b>], origin: Origin<'_>) -> Result<Request, ProxyError> {
        let mut lengths = Lengths::default();
        let mut request = Request {
            method: match method {
                "GET" => Method::Get,
                "HEAD" => Method::Head,
                "OPTIONS" => Method::Options,
                "PUT" => Method::Put,
                "DELETE" => Method::Delete,
                "POST" => Method::Post,
                _ => Method::Other,
            },
            framing: Framing::None,
            is_http10: self.is_http10,
            keep_alive: !self.options.close && (!self.is_http10 || self.options.keep_alive),
            expects_continue: false,
            upgrade: false,
            has_key: false,
        };
        let (mut hosts, mut bytes) = (0, 0);
        let (mut host, mut upgrade) = (None, None);
        let mut incoming = origin.tracer.is_on().then(Incoming::default);
        let (mut has_proto, mut has_forwarded_host, mut has_id, mut has_chain) = (false, false, false, false);
        for &Header { name, value } in headers {
            bytes += name.len() + value.len();
            // The length of a name tells which it may be.
            match name.len() {
                4 if is(name, "host") => {
                    hosts += 1;
                    host = Some(value);
                    continue;
                }
                6 if is(name, "expect") => {
                    if !value.eq_ignore_ascii_case(b"100-continue") {
                        return Err(ProxyError::Expectation);
                    }
                    request.expects_continue = !self.is_http10;
                    continue;
                }
                7 if is(name, "upgrade") => upgrade = upgrade.or(Some(value)),
                14 if is(name, "content-length") => {
                    lengths.content_length(value).map_err(ProxyError::Malformed)?;
                    continue;
                }
                15 if is(name, "x-forwarded-for") => {
                    has_chain = true;
                    continue;
                }
                17 if is(name, "transfer-encoding") => {
                    lengths.transfer_encoding(value).map_err(ProxyError::Malformed)?
                }
                _ => {}
            }
            if is_hop_by_hop(name) || self.options.names(headers, name) {
                continue;
            }
            match name.len() {
                10 | 11 if incoming.as_mut().is_some_and(|incoming| incoming.takes(name, value)) => continue,
                7 if is(name, "referer") => self.entry.referer.extend_from_slice(value),
                10 if is(name, "user-agent") => self.entry.user_agent.extend_from_slice(value),
                12 if is(name, "x-request-id") => {
                    if has_id || !is_id(value) {
                        continue;
                    }
                    has_id = true;
                    self.entry.request_id.extend_from_slice(value);
                }
                15 if is(name, "idempotency-key") => request.has_key |= !value.trim_ascii().is_empty(),
                16 | 17 if is_forwarding(name) && origin.trust == Trust::Stranger => continue,
                16 if is(name, "x-forwarded-host") => has_forwarded_host = true,
                17 if is(name, "x-forwarded-proto") => has_proto = true,
                _ => {}
            }
            header(self.out, name, value);
        }
        let max_bytes = self.limits.head_bytes;
        if bytes > max_bytes {
            return Err(ProxyError::HeadersTooLarge { bytes, max_bytes });
        }
        lengths.check().map_err(ProxyError::Malformed)?;
        request.framing = match lengths {
            Lengths { chunked: true, .. } if self.is_http10 => {
                return Err(ProxyError::Malformed("Transfer-Encoding in HTTP/1.0"));
            }
            Lengths { chunked: true, .. } => Framing::Chunked,
            Lengths {
                content_length: Some(length),
                ..
            } => Framing::Length(length),
            Lengths { .. } => Framing::None,
        };
        self.host(hosts, host, has_forwarded_host)?;
        if !has_proto {
            self.out.extend_from_slice(b"x-forwarded-proto: http\r\n");
        }
        self.forwarded_for(headers, has_chain, origin);
        if !has_id {
            // Writing into memory cannot fail.
            let _ = write!(self.entry.request_id, "{:032x}", (origin.new_id)());
            header(self.out, "x-request-id", &self.entry.request_id);
        }
        if let Some(incoming) = incoming {
            self.entry.span = incoming.begin(origin.tracer, method, &self.entry.path);
            for (name, value) in self.entry.span.iter().flat_map(|span| span.context().headers()) {
                header(self.out, name, value.as_bytes());
            }
        }
        self.upgrade(upgrade, &mut request)?;
        Ok(request)
    }

    fn host(&mut self, hosts: usize, host: Option<&'b [u8]>, has_forwarded_host: bool) -> Result<(), ProxyError> {
        // Also with a target that names the host (RFC 9112, 3.2).
        if hosts > 1 || (hosts == 0 && !self.is_http10) {
            return Err(ProxyError::BadHost(hosts));
        }
        if host.is_some_and(|host| !host.is_empty() && !is_authority(host)) {
            return Err(ProxyError::Malformed("Host"));
        }
        let host = self.host.or(host).unwrap_or(b"localhost");
        header(self.out, "host", host);
        if !has_forwarded_host {
            header(self.out, "x-forwarded-host", host);
        }
        Ok(())
    }

    fn forwarded_for(&mut self, headers: &[Header<'_>], has_chain: bool, origin: Origin<'_>) {
        self.out.extend_from_slice(b"x-forwarded-for: ");
        if has_chain && origin.trust == Trust::Proxy {
            let chain = headers.iter().rev().filter(|header| is(header.name, "x-forwarded-for"));
            let client = origin.proxies.client(origin.peer, chain.map(|header| header.value));
            self.entry.client = client;
        }
        if has_chain && origin.trust != Trust::Stranger {
            for earlier in headers.iter().filter(|header| is(header.name, "x-forwarded-for")) {
                self.out.extend_from_slice(earlier.value);
                self.out.extend_from_slice(b", ");
            }
        }
        let _ = write!(self.out, "{}\r\n", origin.peer.to_canonical());
    }

    /// An offer of HTTP/2 may be ignored, and some clients always make it; so may one that is not announced in `Connection`.
    fn upgrade(&mut self, protocol: Option<&[u8]>, request: &mut Request) -> Result<(), ProxyError> {
        let Some(protocol) = protocol.filter(|protocol| !protocol.eq_ignore_ascii_case(b"h2c")) else {
            return Ok(());
        };
        if !self.options.upgrade || self.is_http10 {
            return Ok(());
        }
        if self.options.close || request.framing != Framing::None {
            return Err(ProxyError::Unsupported(
                "Upgrade together with Connection: close or a body",
            ));
        }
        request.upgrade = true;
        self.out.extend_from_slice(b"connection: upgrade\r\n");
        header(self.out, "upgrade", protocol);
        Ok(())
    }
}

/// What only a proxy can know.
fn is_forwarding(name: &str) -> bool {
    is(name, "x-forwarded-host") || is(name, "x-forwarded-proto")
}

fn is_id(value: &[u8]) -> bool {
    (1..=REQUEST_ID_MAX_BYTES).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
