//! Heads of requests and answers, read strictly, and which headers cross the proxy.
//!
//! Promises: a head that two servers could understand differently is refused (RFC 9112): bare LF, folded lines, both lengths, a length or
//! `Host` given twice, codings other than `chunked`, strange targets. Headers that speak about one connection only (RFC 9110, 7.6.1, and
//! whatever `Connection` names) stay on that connection, in both directions; all others cross unchanged, repeated ones repeated.
//!
//! - `read`: what requests and answers have in common.
//! - [`request`], [`answer`]: what is particular to each; both write the head that goes on, right from the one that came.

pub(crate) mod answer;
#[cfg(test)]
mod fuzz_tests;
mod read;
pub(crate) mod request;

/// Where a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is none.
    None,
    /// After so many bytes.
    Length(u64),
    /// With its last chunk.
    Chunked,
    /// With its connection; answers only.
    UntilClose,
}

impl Framing {
    /// Appends the header that says so, and the empty line after the headers.
    pub(crate) fn finish(self, out: &mut Vec<u8>) {
        match self {
            Self::None | Self::UntilClose => {}
            Self::Length(bytes) => {
                out.extend_from_slice(b"content-length: ");
                decimal(out, bytes);
                out.extend_from_slice(b"\r\n");
            }
            Self::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// Appends a number in decimal digits.
pub(crate) fn decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        // A digit is less than 10.
        digits[at] = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends one header.
pub(crate) fn header(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

pub(crate) use read::trailers;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written() {
        for number in [0, 7, 10, 65_536, u64::MAX] {
            let mut out = Vec::new();
            decimal(&mut out, number);
            assert_eq!(out, number.to_string().as_bytes());
        }
    }
}
