//! Answers: from the gateway's head to the one that the client gets.

use std::mem::MaybeUninit;

use httparse::{Header, Status};

use super::read::{Fault, Lengths, Options, is, is_hop_by_hop, lines_end_with_crlf};
use super::request::{Method, Request};
use super::{Framing, decimal, header};
use crate::limits::HEADERS_MAX;

/// What is known about an answer besides the head that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// How the body comes.
    pub(crate) framing: Framing,
    /// How it goes on.
    pub(crate) onward: Framing,
    /// The gateway's connection can carry another request.
    pub(crate) reusable: bool,
    /// The client's connection can.
    pub(crate) keep_alive: bool,
    pub(crate) is_event_stream: bool,
}

/// Reads an answer's head from the beginning of `input`; nothing while it is incomplete. Otherwise its length, what is known about it, and
/// in `out` the whole head for the client. `closing`: its connection is to end in any case.
pub(crate) fn read(
    input: &[u8],
    request: &Request,
    closing: bool,
    out: &mut Vec<u8>,
) -> Result<Option<(usize, Answer)>, Fault> {
    let mut room = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut head = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut head, input, &mut room);
    let length = match parsed {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return Ok(None),
        Err(_) => return Err("its head is malformed"),
    };
    if !lines_end_with_crlf(&input[..length]) {
        return Err("a line of its head does not end with CRLF");
    }
    let status = head.code.unwrap_or(0);
    let options = Options::of(head.headers);
    let is_http10 = head.version == Some(0);
    out.clear();
    out.extend_from_slice(b"HTTP/1.1 ");
    decimal(out, u64::from(status));
    out.push(b' ');
    out.extend_from_slice(head.reason.unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    let mut lengths = Lengths::default();
    let mut answer = Answer {
        status,
        framing: Framing::None,
        onward: Framing::None,
        reusable: !options.close && (!is_http10 || options.keep_alive),
        keep_alive: request.keep_alive && !closing,
        is_event_stream: false,
    };
    for &Header { name, value } in head.headers.iter() {
        match name.len() {
            12 if is(name, "content-type") => answer.is_event_stream = is_event_stream(value),
            14 if is(name, "content-length") => {
                lengths.content_length(value)?;
                continue;
            }
            17 if is(name, "transfer-encoding") => lengths.transfer_encoding(value)?,
            _ => {}
        }
        if status == 101 && is(name, "upgrade") {
            out.extend_from_slice(b"connection: upgrade\r\n");
            header(out, name, value);
        }
        if !is_hop_by_hop(name) && !options.names(head.headers, name) {
            header(out, name, value);
        }
    }
    lengths.check()?;
    if is_http10 && lengths.chunked {
        return Err("Transfer-Encoding in HTTP/1.0");
    }
    frame(&mut answer, &lengths, request, out);
    Ok(Some((length, answer)))
}

/// Where the body ends, on this side and on the other (RFC 9112, 6.3).
fn frame(answer: &mut Answer, lengths: &Lengths, request: &Request, out: &mut Vec<u8>) {
    let bodiless = request.method == Method::Head || matches!(answer.status, 100..=199 | 204 | 304);
    if bodiless {
        // It may say how long the body would have been.
        if let (Some(length), true) = (
            lengths.content_length,
            request.method == Method::Head || answer.status == 304,
        ) {
            header_number(out, length);
        }
    } else {
        (answer.framing, answer.onward) = match (lengths.chunked, lengths.content_length) {
            (true, _) if request.is_http10 => (Framing::Chunked, Framing::UntilClose),
            (true, _) => (Framing::Chunked, Framing::Chunked),
            (false, Some(length)) => (Framing::Length(length), Framing::Length(length)),
            (false, None) if request.is_http10 => (Framing::UntilClose, Framing::UntilClose),
            (false, None) => (Framing::UntilClose, Framing::Chunked),
        };
    }
    answer.reusable &= answer.framing != Framing::UntilClose;
    answer.keep_alive &= answer.onward != Framing::UntilClose;
    if answer.status != 101 {
        if !answer.keep_alive {
            out.extend_from_slice(b"connection: close\r\n");
        } else if request.is_http10 {
            out.extend_from_slice(b"connection: keep-alive\r\n");
        }
    }
    answer.onward.finish(out);
}

fn header_number(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(b"content-length: ");
    decimal(out, length);
    out.extend_from_slice(b"\r\n");
}

fn is_event_stream(kind: &[u8]) -> bool {
    kind.get(..17)
        .is_some_and(|kind| kind.eq_ignore_ascii_case(b"text/event-stream"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: Method, is_http10: bool) -> Request {
        Request {
            method,
            framing: Framing::None,
            is_http10,
            keep_alive: !is_http10,
            expects_continue: false,
            upgrade: false,
            has_key: false,
        }
    }

    fn read_all(wire: &str, request: &Request) -> Result<(Answer, String), Fault> {
        let mut out = Vec::new();
        let (length, answer) = read(wire.as_bytes(), request, false, &mut out)?.expect("complete");
        assert_eq!(length, wire.len());
        Ok((answer, String::from_utf8(out).unwrap()))
    }

    #[test]
    fn bodies_end_where_the_head_says() {
        let get = asked(Method::Get, false);
        let framing = |head: &str, request: &Request| {
            let (answer, _) = read_all(head, request).unwrap();
            (answer.framing, answer.onward, answer.reusable, answer.keep_alive)
        };
        let length = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let neither = "HTTP/1.1 200 OK\r\n\r\n";
        assert_eq!(
            framing(length, &get),
            (Framing::Length(5), Framing::Length(5), true, true)
        );
        assert_eq!(framing(chunked, &get), (Framing::Chunked, Framing::Chunked, true, true));
        assert_eq!(
            framing(neither, &get),
            (Framing::UntilClose, Framing::Chunked, false, true)
        );
        let old = asked(Method::Get, true);
        assert_eq!(
            framing(chunked, &old),
            (Framing::Chunked, Framing::UntilClose, true, false)
        );
        assert_eq!(framing(neither, &old).1, Framing::UntilClose);
        let (head, out) = read_all(length, &asked(Method::Head, false)).unwrap();
        assert_eq!(head.framing, Framing::None);
        assert!(out.contains("content-length: 5\r\n"), "{out}");
        assert_eq!(framing("HTTP/1.1 204 No Content\r\n\r\n", &get).0, Framing::None);
    }

    #[test]
    fn headers_of_the_connection_stay_on_it() {
        let wire = "HTTP/1.1 200 Fine\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nConnection: close, X-Private\r\nX-Private: 1\r\n\
                    Keep-Alive: timeout=5\r\nContent-Length: 0\r\nContent-Type: Text/Event-Stream; x\r\n\r\n";
        let (answer, out) = read_all(wire, &asked(Method::Get, false)).unwrap();
        assert!(answer.is_event_stream && !answer.reusable && answer.keep_alive);
        assert_eq!(
            out,
            "HTTP/1.1 200 Fine\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Type: Text/Event-Stream; x\r\ncontent-length: 0\r\n\r\n"
        );
    }

    #[test]
    fn what_could_be_understood_in_two_ways_is_refused() {
        for bad in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX : a\r\n\r\n",
            "HTTP/2 200 OK\r\n\r\n",
            "ok\r\n\r\n",
        ] {
            assert!(read_all(bad, &asked(Method::Get, false)).is_err(), "{bad:?}");
        }
    }
}
