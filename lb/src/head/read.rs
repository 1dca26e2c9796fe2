//! What requests and answers have in common: lines, names, lengths, what `Connection` says.

use httparse::Header;

use super::header;

/// What is wrong with a head.
pub(super) type Fault = &'static str;

/// httparse takes a bare LF for the end of a line. Others do not, so it is refused, as is a CR that ends nothing.
pub(super) fn lines_end_with_crlf(head: &[u8]) -> bool {
    let count = |byte: u8| head.iter().filter(|other| **other == byte).count();
    let pairs = head.windows(2).filter(|pair| *pair == b"\r\n").count();
    count(b'\n') == pairs && count(b'\r') == pairs
}

/// A length: digits and nothing else, few enough not to overflow.
pub(super) fn length(value: &[u8]) -> Option<u64> {
    let is_plain = (1..=18).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    is_plain.then(|| value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

/// The headers that say where the body ends.
#[derive(Debug, Default)]
pub(super) struct Lengths {
    pub(super) content_length: Option<u64>,
    pub(super) chunked: bool,
}

impl Lengths {
    pub(super) fn content_length(&mut self, value: &[u8]) -> Result<(), Fault> {
        if self.content_length.is_some() {
            return Err("Content-Length is given twice");
        }
        self.content_length = Some(length(value).ok_or("Content-Length is not a number")?);
        Ok(())
    }

    pub(super) fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Fault> {
        if self.chunked {
            return Err("Transfer-Encoding is given twice");
        }
        if !value.eq_ignore_ascii_case(b"chunked") {
            return Err("no Transfer-Encoding other than chunked is taken");
        }
        self.chunked = true;
        Ok(())
    }

    pub(super) fn check(&self) -> Result<(), Fault> {
        if self.chunked && self.content_length.is_some() {
            return Err("Content-Length and Transfer-Encoding are both given");
        }
        Ok(())
    }
}

/// What `Connection` says.
#[derive(Debug, Default)]
pub(super) struct Options {
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
    /// It names headers that are not to cross.
    names_headers: bool,
}

impl Options {
    pub(super) fn of(headers: &[Header<'_>]) -> Self {
        let mut options = Self::default();
        for token in tokens(headers) {
            if token.eq_ignore_ascii_case(b"close") {
                options.close = true;
            } else if token.eq_ignore_ascii_case(b"keep-alive") {
                options.keep_alive = true;
            } else if token.eq_ignore_ascii_case(b"upgrade") {
                options.upgrade = true;
            } else if !token.is_empty() {
                options.names_headers = true;
            }
        }
        options
    }

    /// Whether this header belongs to the connection it came by. A message without `Host` or its length would no longer be the same.
    pub(super) fn names(&self, headers: &[Header<'_>], name: &str) -> bool {
        self.names_headers
            && !is(name, "host")
            && !is(name, "content-length")
            && tokens(headers).any(|token| token.eq_ignore_ascii_case(name.as_bytes()))
    }
}

fn tokens<'a>(headers: &'a [Header<'_>]) -> impl Iterator<Item = &'a [u8]> {
    headers
        .iter()
        .filter(|header| is(header.name, "connection"))
        .flat_map(|header| header.value.split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
}

/// Whether a header has this name. The length tells most apart.
pub(super) fn is(name: &str, other: &str) -> bool {
    name.len() == other.len() && name.eq_ignore_ascii_case(other)
}

/// Headers of one connection, whatever `Connection` says.
pub(super) fn is_hop_by_hop(name: &str) -> bool {
    match name.len() {
        2 => is(name, "te"),
        7 => is(name, "upgrade"),
        10 => is(name, "connection") || is(name, "keep-alive"),
        16 => is(name, "proxy-connection"),
        17 => is(name, "transfer-encoding"),
        18 => is(name, "proxy-authenticate"),
        19 => is(name, "proxy-authorization"),
        _ => false,
    }
}

/// Appends the trailers that may cross, and the empty line after them. `wire` ends with that line.
pub(crate) fn trailers(out: &mut Vec<u8>, wire: &[u8]) -> Result<(), Fault> {
    if wire != b"\r\n" {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let Ok(httparse::Status::Complete((_, headers))) = httparse::parse_headers(wire, &mut headers) else {
            return Err("the trailers are malformed");
        };
        for trailer in headers.iter() {
            // What decides about framing or routing must not come late (RFC 9110, 6.5.1).
            let late = ["content-length", "host", "trailer", "content-encoding", "content-type"];
            if !is_hop_by_hop(trailer.name) && !late.iter().any(|name| is(trailer.name, name)) {
                header(out, trailer.name, trailer.value);
            }
        }
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_digits_only() {
        assert_eq!(length(b"0"), Some(0));
        assert_eq!(length(b"999999999999999999"), Some(999_999_999_999_999_999));
        for bad in [
            "",
            "+1",
            "-1",
            "1 ",
            "0x1",
            "1,1",
            "1.0",
            "9999999999999999999",
            "\u{b2}",
        ] {
            assert_eq!(length(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn bare_line_ends_are_seen() {
        assert!(lines_end_with_crlf(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"));
        for bad in ["a\n\r\n", "a\r\nb\n\r\n", "a\rb\r\n", "a\r\r\n"] {
            assert!(!lines_end_with_crlf(bad.as_bytes()), "{bad:?}");
        }
    }

    #[test]
    fn trailers_cross_except_what_comes_too_late() {
        let mut out = Vec::new();
        trailers(
            &mut out,
            b"X-Sum: 1\r\nContent-Length: 5\r\nTransfer-Encoding: x\r\n\r\n",
        )
        .unwrap();
        assert_eq!(out, b"X-Sum: 1\r\n\r\n");
        assert!(trailers(&mut out, b" folded: 1\r\n\r\n").is_err());
    }
}
