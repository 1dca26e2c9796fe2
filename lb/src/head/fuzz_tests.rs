//! Heads that nobody would write by hand: well-formed ones, cut, doubled and sprinkled with what parsers trip over.
//!
//! What is taken is compared with a second reading, written from the grammar of RFC 9112 and for nothing but clarity.

use std::sync::LazyLock;

use proptest::prelude::{ProptestConfig, Strategy, any, prop};
use proptest::sample::{Index, select};
use proptest::{prop_assert, prop_assert_eq, proptest};

use super::answer;
use super::request::{self, Method, Origin, Request};
use super::{Framing, trailers};
use crate::access_log::Entry;
use crate::clients::{Proxies, Trust};
use crate::limits::Limits;

const REQUESTS: [&str; 6] = [
    "GET /deliveries?limit=3 HTTP/1.1\r\nHost: drones.example\r\nAccept: */*\r\n\r\n",
    "POST /deliveries HTTP/1.1\r\nHost: x\r\nContent-Length: 17\r\nIdempotency-Key: k\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n",
    "PUT http://x:80/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive, x-a\r\nX-A: 1\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: [::1]:8080\r\nConnection: close\r\n\r\n",
    "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "HEAD / HTTP/1.0\r\nConnection: keep-alive\r\nX-Request-Id: 7\r\n\r\n",
];

const ANSWERS: [&str; 5] = [
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 17\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
    "HTTP/1.0 404 Not Found\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\nETag: \"1\"\r\n\r\n",
];

/// What parsers have been seen to disagree about.
const SPICE: [&str; 36] = [
    "\r\n",
    "\n",
    "\r",
    "\r\n\r\n",
    "\n\n",
    "\r\r\n",
    " ",
    "\t",
    "\x0b",
    "\x0c",
    "\0",
    "\u{85}",
    "\u{a0}",
    ":",
    ";",
    ",",
    "\"",
    "#",
    "?",
    "//",
    "http://",
    "@",
    "*",
    "0",
    "00",
    "+",
    "-",
    "0x",
    "1_0",
    "chunked",
    "identity",
    "HTTP/1.1",
    "Host: y\r\n",
    "Content-Length: 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Connection: host, content-length, transfer-encoding\r\n",
];

static LIMITS: LazyLock<Limits> = LazyLock::new(Limits::usual);

#[derive(Debug, Clone)]
enum Edit {
    Insert(Index, &'static str),
    Flip(Index, u8),
    Remove(Index, usize),
    Double(Index, usize),
    SwapCase(Index),
}

fn edit() -> impl Strategy<Value = Edit> {
    proptest::prop_oneof![
        4 => (any::<Index>(), select(SPICE.as_slice())).prop_map(|(at, what)| Edit::Insert(at, what)),
        2 => (any::<Index>(), any::<u8>()).prop_map(|(at, bits)| Edit::Flip(at, bits)),
        2 => (any::<Index>(), 1_usize..20).prop_map(|(at, length)| Edit::Remove(at, length)),
        1 => (any::<Index>(), 1_usize..40).prop_map(|(at, length)| Edit::Double(at, length)),
        1 => any::<Index>().prop_map(Edit::SwapCase),
    ]
}

fn edited(seed: &str, edits: Vec<Edit>) -> Vec<u8> {
    let mut wire = seed.as_bytes().to_vec();
    for edit in edits {
        let at = |index: Index, wire: &[u8]| index.index(wire.len() + 1);
        match edit {
            Edit::Insert(index, what) => {
                let at = at(index, &wire);
                wire.splice(at..at, what.bytes());
            }
            Edit::Double(index, length) => {
                let at = at(index, &wire);
                let piece = wire[at..(at + length).min(wire.len())].to_vec();
                wire.splice(at..at, piece);
            }
            Edit::Remove(index, length) => {
                let at = at(index, &wire);
                wire.drain(at..(at + length).min(wire.len()));
            }
            Edit::Flip(index, bits) if !wire.is_empty() => {
                let at = index.index(wire.len());
                wire[at] ^= bits;
            }
            Edit::SwapCase(index) if !wire.is_empty() => {
                let at = index.index(wire.len());
                if wire[at].is_ascii_alphabetic() {
                    wire[at] ^= 0x20;
                }
            }
            Edit::Flip(..) | Edit::SwapCase(_) => {}
        }
    }
    wire
}

fn any_head(seeds: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let mutated = (select(seeds), prop::collection::vec(edit(), 0..6)).prop_map(|(seed, edits)| edited(seed, edits));
    let noise = prop::collection::vec(any::<u8>(), 0..200);
    proptest::prop_oneof![20 => mutated, 1 => noise]
}

/// A head's length, what is known about it, and the one that goes on.
type Taken<T> = Option<(usize, T, Vec<u8>)>;

fn read_request(wire: &[u8]) -> Result<Taken<Request>, u16> {
    let peer = [192, 0, 2, 7].into();
    let (mut out, mut entry) = (Vec::new(), Entry::new(peer));
    let origin = Origin {
        peer,
        trust: Trust::Unset,
        proxies: &Proxies::default(),
        new_id: &|| 0xab,
        tracer: &trace::Tracer::off(),
    };
    let read = request::read(wire, origin, &LIMITS, &mut out, &mut entry);
    let read = read.map_err(|error| error.status().as_u16())?;
    Ok(read.map(|(length, request)| {
        request.framing.finish(&mut out);
        (length, request, out)
    }))
}

fn read_answer(wire: &[u8], method: Method) -> Result<Taken<answer::Answer>, &'static str> {
    let asked = Request {
        method,
        framing: Framing::None,
        is_http10: false,
        keep_alive: true,
        expects_continue: false,
        upgrade: true,
        has_key: false,
    };
    let mut out = Vec::new();
    let read = answer::read(wire, &asked, false, &mut out)?;
    Ok(read.map(|(length, answer)| (length, answer, out)))
}

/// The lines of a head that ends with an empty one; none when they do not end with CRLF.
fn lines(head: &[u8]) -> Option<Vec<&[u8]>> {
    let mut lines = Vec::new();
    let mut rest = head;
    while !rest.is_empty() {
        let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
        let line = &rest[..end];
        if line.iter().any(|byte| matches!(byte, b'\r' | b'\n' | b'\0')) {
            return None;
        }
        lines.push(line);
        rest = &rest[end + 2..];
    }
    (lines.pop()? == b"").then_some(lines)
}

/// Names in lower case, and values without the blanks around them; none where a line is no header.
fn headers<'a>(lines: &[&'a [u8]]) -> Option<Vec<(String, &'a [u8])>> {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let header = |line: &&'a [u8]| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        let is_value = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
        let is_header = !name.is_empty() && name.iter().all(is_token) && value.iter().all(is_value);
        is_header.then(|| (String::from_utf8_lossy(name).to_ascii_lowercase(), value))
    };
    lines.iter().map(header).collect()
}

fn values<'a>(headers: &[(String, &'a [u8])], name: &str) -> Vec<&'a [u8]> {
    headers
        .iter()
        .filter(|(found, _)| found == name)
        .map(|(_, value)| *value)
        .collect()
}

/// Where these headers say that the body ends; none when they contradict each other.
fn framing(headers: &[(String, &[u8])]) -> Option<Framing> {
    let (lengths, codings) = (values(headers, "content-length"), values(headers, "transfer-encoding"));
    match (lengths.as_slice(), codings.as_slice()) {
        ([], []) => Some(Framing::None),
        ([length], []) => {
            let digits = std::str::from_utf8(length).ok()?;
            let is_plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            is_plain.then(|| digits.parse().ok().map(Framing::Length))?
        }
        ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") => Some(Framing::Chunked),
        _ => None,
    }
}

/// Whatever was taken, the gateway gets one head that can be read in one way only.
fn check_onward(out: &[u8], is_request: bool) -> Result<Vec<(String, &[u8])>, String> {
    let all = lines(out).ok_or("a line of it does not end with CRLF, or it has no end")?;
    let (first, rest) = all.split_first().ok_or("it is empty")?;
    let headers = headers(rest).ok_or("a line of it is no header")?;
    framing(&headers).ok_or("its lengths contradict each other")?;
    let gone = ["te", "keep-alive", "proxy-connection", "proxy-authorization"];
    if let Some(name) = gone.iter().find(|name| !values(&headers, name).is_empty()) {
        return Err(format!("{name} crossed"));
    }
    if is_request {
        let words: Vec<_> = first.split(|byte| *byte == b' ').collect();
        if words.len() != 3 || words[2] != b"HTTP/1.1" || !(words[1].starts_with(b"/") || words[1] == b"*") {
            return Err("its request line".to_owned());
        }
        for name in ["host", "x-forwarded-for", "x-request-id"] {
            if values(&headers, name).len() != 1 {
                return Err(format!("not one {name}"));
            }
        }
    }
    Ok(headers)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn a_request_is_refused_or_read_as_the_grammar_has_it(wire in any_head(&REQUESTS)) {
        let Ok(Some((length, request, out))) = read_request(&wire) else { return Ok(()) };
        // Empty lines before a request are to be ignored (RFC 9112, 2.2).
        let start = wire.iter().position(|byte| !b"\r\n".contains(byte)).unwrap_or(0);
        let head = lines(&wire[start..length]);
        prop_assert!(head.is_some(), "line ends");
        let head = head.unwrap_or_default();
        let theirs = headers(&head[1..]);
        prop_assert!(theirs.is_some(), "header lines");
        let theirs = theirs.unwrap_or_default();
        prop_assert_eq!(framing(&theirs), Some(request.framing));
        prop_assert!(values(&theirs, "host").len() <= 1);
        let ours = check_onward(&out, true);
        prop_assert!(ours.is_ok(), "{:?}: {}", ours, String::from_utf8_lossy(&out));
        prop_assert_eq!(framing(&ours.unwrap_or_default()), Some(request.framing));
    }

    #[test]
    fn what_goes_on_would_be_taken_again_and_mean_the_same(wire in any_head(&REQUESTS)) {
        let Ok(Some((_, request, out))) = read_request(&wire) else { return Ok(()) };
        let again = read_request(&out);
        prop_assert!(matches!(again, Ok(Some(_))), "{:?}: {}", again, String::from_utf8_lossy(&out));
        if let Ok(Some((length, second, _))) = again {
            prop_assert_eq!(length, out.len());
            prop_assert_eq!((second.method, second.framing), (request.method, request.framing));
            prop_assert_eq!((second.upgrade, second.has_key), (request.upgrade, request.has_key));
        }
    }

    #[test]
    fn a_request_in_pieces_is_the_same_request(wire in any_head(&REQUESTS)) {
        let whole = read_request(&wire);
        for cut in 0..wire.len() {
            match (read_request(&wire[..cut]), &whole) {
                (Ok(None), _) => {}
                (Ok(Some(early)), Ok(Some(whole))) => prop_assert_eq!(&early, whole, "cut at {}", cut),
                (Err(_), Err(_)) => {}
                (early, whole) => prop_assert!(false, "cut at {}: {:?}, but whole: {:?}", cut, early, whole),
            }
        }
    }

    #[test]
    fn an_answer_is_refused_or_read_as_the_grammar_has_it(wire in any_head(&ANSWERS)) {
        for method in [Method::Get, Method::Head] {
            let Ok(Some((length, answer, out))) = read_answer(&wire, method) else { continue };
            let start = wire.iter().position(|byte| !b"\r\n".contains(byte)).unwrap_or(0);
            let head = lines(&wire[start..length]);
            prop_assert!(head.is_some(), "line ends");
            let head = head.unwrap_or_default();
            let theirs = headers(&head[1..]);
            prop_assert!(theirs.is_some(), "header lines");
            let said = framing(&theirs.unwrap_or_default());
            prop_assert!(said.is_some(), "lengths");
            let bodiless = method == Method::Head || matches!(answer.status, 100..=199 | 204 | 304);
            let expected = match said {
                _ if bodiless => Framing::None,
                Some(Framing::None) | None => Framing::UntilClose,
                Some(framing) => framing,
            };
            prop_assert_eq!(answer.framing, expected);
            let ours = check_onward(&out, false);
            prop_assert!(ours.is_ok(), "{:?}: {}", ours, String::from_utf8_lossy(&out));
        }
    }

    #[test]
    fn an_answer_in_pieces_is_the_same_answer(wire in any_head(&ANSWERS)) {
        let whole = read_answer(&wire, Method::Get);
        for cut in 0..wire.len() {
            match (read_answer(&wire[..cut], Method::Get), &whole) {
                (Ok(None), _) | (Err(_), Err(_)) => {}
                (Ok(Some(early)), Ok(Some(whole))) => prop_assert_eq!(&early, whole, "cut at {}", cut),
                (early, whole) => prop_assert!(false, "cut at {}: {:?}, but whole: {:?}", cut, early, whole),
            }
        }
    }

    #[test]
    fn trailers_are_refused_or_are_headers(wire in any_head(&["X-Sum: 1\r\nX-Other:\t2 \r\n\r\n", "Content-Length: 3\r\nHost: x\r\n\r\n"])) {
        // As the chunked coding hands them on: whole lines, without control characters, up to the first empty one.
        let is_line_byte = |byte: &u8| matches!(byte, b'\t' | b'\r' | b'\n') || (*byte >= b' ' && *byte != 0x7f);
        let Some(lines) = lines(&wire).filter(|lines| lines.iter().all(|line| !line.is_empty())) else { return Ok(()) };
        if !wire.iter().all(is_line_byte) {
            return Ok(());
        }
        let mut out = Vec::new();
        if trailers(&mut out, &wire).is_ok() {
            prop_assert!(headers(&lines).is_some(), "taken, but no headers");
            let ours = super::fuzz_tests::lines(&out).and_then(|lines| headers(&lines));
            prop_assert!(ours.is_some(), "{}", String::from_utf8_lossy(&out));
            let ours = ours.unwrap_or_default();
            for late in ["content-length", "host", "transfer-encoding"] {
                prop_assert!(values(&ours, late).is_empty(), "{} decides too late", late);
            }
        }
    }
}
