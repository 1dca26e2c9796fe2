//! One line of lb's access log, in each of its formats, with or without what Compose and Docker put in front.
//!
//! ```text
//! [access] POST /deliveries 201 12.3ms                                          text; streams end in " stream"
//! {"bytes":17,"ms":12.3,"path":"/deliveries","status":201,"time":1763704765.0,…}    json
//! 192.0.2.1 - - [21/Nov/2025:05:59:25 +0000] "POST /deliveries HTTP/1.1" 201 17 "-" "curl/8"    combined
//! lb-1  | 2025-11-21T05:59:25.123456789Z [access] POST /deliveries 201 12.3ms   behind Compose's prefix and Docker's time
//! ```
//!
//! It is read by hand because a watcher should take a small part of what it watches: about a tenth of a microsecond per line.

use memchr::{memchr, memchr2, memmem, memrchr};

use crate::time;

/// Tenths of a millisecond: what lb logs in.
pub type Tenths = u32;

/// What a line turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line<'a> {
    /// An answered request.
    Request(Request<'a>),
    /// An event stream or a tunnel that ended. Its length is no latency.
    Stream,
    /// Nothing of ours.
    Other,
}

/// An answered request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// When the answer ended, Unix milliseconds, if the line says so.
    pub at_ms: Option<u64>,
    /// Its method.
    pub method: &'a [u8],
    /// Its path, without query.
    pub path: &'a [u8],
    /// Status of the answer.
    pub status: u16,
    /// How long it took; the format `combined` does not say.
    pub took: Option<Tenths>,
}

/// Paths of event streams, which the format `combined` does not mark.
const STREAM_PATHS: [&[u8]; 2] = [b"/events", b"/watch"];

/// Reads a line (without its line feed).
#[must_use]
pub fn read(line: &[u8]) -> Line<'_> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let body = after_prefix(line);
    // Docker's time (`docker compose logs -t`) stands between prefix and line.
    let (at_ms, body) = match time::rfc3339(body) {
        Some((ms, end)) if body.get(end) == Some(&b' ') => (Some(ms), &body[end + 1..]),
        _ => (None, body),
    };
    let found = match body.first() {
        Some(b'[') => text(body, at_ms),
        Some(b'{') => json(body, at_ms),
        _ => combined(body),
    };
    // Prefixes that we do not know (colours, another collector) may stand before the default format.
    found.or_else(|| text_anywhere(line)).unwrap_or(Line::Other)
}

/// Takes off `lb_1        | ` and its like: a name, spaces, a bar, a space.
fn after_prefix(line: &[u8]) -> &[u8] {
    let name = line
        .iter()
        .take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        .count();
    let spaces = line[name..].iter().take_while(|byte| **byte == b' ').count();
    match line[name + spaces..].strip_prefix(b"| ") {
        Some(rest) if name > 0 => rest,
        _ => line,
    }
}

fn text_anywhere(line: &[u8]) -> Option<Line<'_>> {
    let at = memmem::rfind(line, b"[access] ")?;
    text(&line[at..], None)
}

fn text(body: &[u8], at_ms: Option<u64>) -> Option<Line<'_>> {
    let rest = body.strip_prefix(b"[access] ")?;
    let (rest, is_stream) = match rest.strip_suffix(b" stream") {
        Some(rest) => (rest, true),
        None => (rest, false),
    };
    let rest = rest.strip_suffix(b"ms")?;
    let took_from = memrchr(b' ', rest)?;
    let took = tenths(&rest[took_from + 1..])?;
    let rest = &rest[..took_from];
    let status_from = memrchr(b' ', rest)?;
    let status = status_of(&rest[status_from + 1..])?;
    let rest = &rest[..status_from];
    let path_from = memchr(b' ', rest)?;
    let (method, path) = (&rest[..path_from], &rest[path_from + 1..]);
    if method.is_empty() || path.is_empty() || memchr(b' ', path).is_some() {
        return None;
    }
    let request = Request {
        at_ms,
        method,
        path,
        status,
        took: Some(took),
    };
    Some(if is_stream {
        Line::Stream
    } else {
        Line::Request(request)
    })
}

fn combined(body: &[u8]) -> Option<Line<'_>> {
    const TIME_LEN: usize = 26;
    let client_end = memchr(b' ', body)?;
    let rest = body[client_end..].strip_prefix(b" - - [")?;
    let at_ms = time::common_log(rest.get(..TIME_LEN)?)?;
    let rest = rest[TIME_LEN..].strip_prefix(b"] \"")?;
    let request_end = memchr(b'"', rest)?;
    let (request, rest) = (&rest[..request_end], rest[request_end + 1..].strip_prefix(b" ")?);
    let status = status_of(&rest[..memchr(b' ', rest)?])?;
    let path_from = memchr(b' ', request)?;
    let path_end = memrchr(b' ', request).filter(|end| *end > path_from)?;
    let (method, path) = (&request[..path_from], &request[path_from + 1..path_end]);
    if STREAM_PATHS.contains(&path) {
        return Some(Line::Stream);
    }
    Some(Line::Request(Request {
        at_ms: Some(at_ms),
        method,
        path,
        status,
        took: None,
    }))
}

/// Members of a JSON line that are looked at.
#[derive(Default)]
struct Members<'a> {
    time: Option<&'a [u8]>,
    method: Option<&'a [u8]>,
    path: Option<&'a [u8]>,
    status: Option<&'a [u8]>,
    ms: Option<&'a [u8]>,
    stream: Option<&'a [u8]>,
}

impl Members<'_> {
    fn is_complete(&self) -> bool {
        let Self {
            time,
            method,
            path,
            status,
            ms,
            stream,
        } = self;
        [time, method, path, status, ms, stream]
            .iter()
            .all(|member| member.is_some())
    }
}

fn json(body: &[u8], docker_ms: Option<u64>) -> Option<Line<'_>> {
    let members = members(body)?;
    let status = status_of(members.status?)?;
    let took = tenths(members.ms?)?;
    if members.stream == Some(b"true") {
        return Some(Line::Stream);
    }
    let at_ms = members.time.and_then(unix_ms).or(docker_ms);
    let (method, path) = (members.method?, members.path?);
    Some(Line::Request(Request {
        at_ms,
        method,
        path,
        status,
        took: Some(took),
    }))
}

/// The members of a flat object: strings, numbers, `true`, `false`, `null`. lb writes nothing else.
fn members(body: &[u8]) -> Option<Members<'_>> {
    let mut found = Members::default();
    let mut rest = spaces_off(body.strip_prefix(b"{")?);
    loop {
        let (name, after) = string(rest)?;
        rest = spaces_off(spaces_off(after).strip_prefix(b":")?);
        let value;
        if rest.first() == Some(&b'"') {
            (value, rest) = string(rest)?;
        } else {
            let end = memchr2(b',', b'}', rest)?;
            value = rest[..end].trim_ascii_end();
            rest = &rest[end..];
        }
        match name {
            b"time" => found.time = Some(value),
            b"method" => found.method = Some(value),
            b"path" => found.path = Some(value),
            b"status" => found.status = Some(value),
            b"ms" => found.ms = Some(value),
            b"stream" => found.stream = Some(value),
            _ => {}
        }
        if found.is_complete() {
            return Some(found); // the rest does not matter, and is a fifth of a line
        }
        rest = spaces_off(rest);
        match rest.split_first()? {
            (b',', more) => rest = spaces_off(more),
            (b'}', _) => return Some(found),
            _ => return None,
        }
    }
}

/// A JSON string at the beginning of `text`: what is between the quotes, escapes as they are, and what follows. Byte by byte: most are short.
fn string(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let inside = text.strip_prefix(b"\"")?;
    let mut at = 0;
    loop {
        match inside.get(at)? {
            b'"' => return Some((&inside[..at], &inside[at + 1..])),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

fn spaces_off(text: &[u8]) -> &[u8] {
    text.trim_ascii_start()
}

/// A status: three digits.
fn status_of(text: &[u8]) -> Option<u16> {
    match text {
        [a, b, c] if text.iter().all(u8::is_ascii_digit) => {
            Some(u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0'))
        }
        _ => None,
    }
}

/// Milliseconds with decimals, as tenths, rounded half up; the largest number stands for all that are larger.
fn tenths(text: &[u8]) -> Option<Tenths> {
    let (whole, decimals) = decimal(text)?;
    let digit = |at: usize| u64::from(decimals.get(at).map_or(0, |byte| byte - b'0'));
    let tenths = whole
        .saturating_mul(10)
        .saturating_add(digit(0) + u64::from(digit(1) >= 5));
    Some(Tenths::try_from(tenths).unwrap_or(Tenths::MAX))
}

/// Seconds with decimals, as whole milliseconds.
fn unix_ms(text: &[u8]) -> Option<u64> {
    let (whole, decimals) = decimal(text)?;
    let mut ms = whole.checked_mul(1_000)?;
    for (byte, unit) in decimals.iter().zip([100, 10, 1]) {
        ms = ms.checked_add(u64::from(byte - b'0') * unit)?;
    }
    Some(ms)
}

/// The whole part of a decimal number and its decimals. `1.`, `.5` and exponents are no such numbers.
fn decimal(text: &[u8]) -> Option<(u64, &[u8])> {
    let (whole, decimals) = match memchr(b'.', text) {
        Some(dot) => (&text[..dot], Some(&text[dot + 1..])),
        None => (text, None),
    };
    let is_number = |digits: &[u8]| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    if !is_number(whole) || !decimals.is_none_or(is_number) {
        return None;
    }
    let whole = whole.iter().fold(0_u64, |number, byte| {
        number.saturating_mul(10).saturating_add(u64::from(byte - b'0'))
    });
    Some((whole, decimals.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{ProptestConfig, any, prop};
    use proptest::proptest;

    use super::{Line, Request, read};

    fn request(at_ms: Option<u64>, took: Option<u32>) -> Line<'static> {
        Line::Request(Request {
            at_ms,
            method: b"POST",
            path: b"/deliveries",
            status: 201,
            took,
        })
    }

    /// Lines as lb's own tests pin them (`lb/src/access_format.rs`).
    const JSON: &str = r#"{"bytes":17,"client":"192.0.2.1","method":"POST","ms":12.3,"path":"/deliveries","request_id":"7f","status":201,"stream":false,"time":1763704765.25,"upstream":"127.0.0.1:8000","upstream_ms":10.0}"#;
    const COMBINED: &str = r#"192.0.2.1 - - [21/Nov/2025:05:59:25 +0000] "POST /deliveries HTTP/1.1" 201 17 "-" "curl/8 %22x%22 | [access]""#;
    const TEXT: &str = "[access] POST /deliveries 201 12.3ms";

    #[test]
    fn each_format_with_and_without_what_stands_in_front() {
        for prefix in ["", "lb-1  | ", "lb_1         | ", "demo_lb_1 | "] {
            for end in ["", "\r"] {
                let line = |body: &str| format!("{prefix}{body}{end}");
                assert_eq!(read(line(TEXT).as_bytes()), request(None, Some(123)));
                assert_eq!(read(line(JSON).as_bytes()), request(Some(1_763_704_765_250), Some(123)));
                assert_eq!(read(line(COMBINED).as_bytes()), request(Some(1_763_704_765_000), None));
                let with_time = line(&format!("2025-11-21T05:59:25.5Z {TEXT}"));
                assert_eq!(read(with_time.as_bytes()), request(Some(1_763_704_765_500), Some(123)));
            }
        }
        let coloured = format!("\x1b[36mlb_1  |\x1b[0m {TEXT}");
        assert_eq!(read(coloured.as_bytes()), request(None, Some(123)));
        let ipv6 = COMBINED.replace("192.0.2.1", "2001:db8::1");
        assert_eq!(read(ipv6.as_bytes()), request(Some(1_763_704_765_000), None));
    }

    #[test]
    fn streams_are_no_samples() {
        for line in [
            "[access] GET /events 200 51234.1ms stream",
            "lb-1 | [access] GET /events 200 51234.1ms stream",
            &JSON.replace("\"stream\":false", "\"stream\":true"),
            &COMBINED.replace("/deliveries", "/events"),
        ] {
            assert_eq!(read(line.as_bytes()), Line::Stream, "{line}");
        }
        assert!(matches!(read(b"[access] GET /x/stream 200 1.0ms"), Line::Request(_)));
    }

    #[test]
    fn everything_else_is_other() {
        for line in [
            "",
            "lb_1  | starting",
            "[access] GET /x 200",
            "[access] GET /x 20 1.0ms",
            "[access] GET /x 2000 1.0ms",
            "[access] GET /x y 200 1.0ms",
            "[access]  /x 200 1.0ms",
            "[access] GET /x 200 1.0.0ms",
            "[access] GET /x 200 .ms",
            "[access] GET /x 200 -1ms",
            "{}",
            "{\"status\":200}",
            "{\"status\":200,\"ms\":1.0,\"path\":\"/x\",\"method\":\"GET\"",
            "{\"level\":\"INFO\",\"message\":\"listening\"}",
            "192.0.2.1 - - [21/Nov/2025] \"GET / HTTP/1.1\" 200 1",
        ] {
            assert_eq!(read(line.as_bytes()), Line::Other, "{line}");
        }
    }

    #[test]
    fn numbers() {
        let took = |text: &str| match read(format!("[access] GET /x 200 {text}ms").as_bytes()) {
            Line::Request(request) => request.took,
            _ => None,
        };
        assert_eq!((took("0.0"), took("7"), took("7.25")), (Some(0), Some(70), Some(73)));
        assert_eq!(took("99999999999999999999.9"), Some(u32::MAX));
        let spaced = JSON
            .replace(":201", " : 201 ")
            .replace("{", "{ ")
            .replace("\"7f\"", "\"a\\\"b\\\\\"");
        assert_eq!(read(spaced.as_bytes()), request(Some(1_763_704_765_250), Some(123)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn nothing_makes_it_panic(line in prop::collection::vec(any::<u8>(), 0..120), cut in 0..200_usize, kind in 0..3_usize) {
            let _ = read(&line);
            let whole = [TEXT, JSON, COMBINED][kind].as_bytes();
            let mut mixed = whole[..cut.min(whole.len())].to_vec();
            mixed.extend(line);
            let _ = read(&mixed);
        }
    }
}
