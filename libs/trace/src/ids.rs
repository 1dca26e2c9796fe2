//! Trace ids, span ids, and the header that carries them (W3C Trace Context, section 3.2).

use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};

/// Bytes of a `traceparent` of version 00: `00-<32 hex>-<16 hex>-<2 hex>`.
pub const TRACEPARENT_BYTES: usize = 55;

/// The only flag that level 1 knows.
const SAMPLED: u8 = 1;

/// Names a trace; never zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TraceId(NonZeroU128);

/// Names a span within its trace; never zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpanId(NonZeroU64);

impl TraceId {
    /// `None` for zero.
    #[must_use]
    pub fn new(id: u128) -> Option<Self> {
        NonZeroU128::new(id).map(Self)
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u128 {
        self.0.get()
    }
}

impl SpanId {
    /// `None` for zero.
    #[must_use]
    pub fn new(id: u64) -> Option<Self> {
        NonZeroU64::new(id).map(Self)
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Which span of which trace something belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanContext {
    /// The trace.
    pub trace_id: TraceId,
    /// The span.
    pub span_id: SpanId,
    /// Whether the trace is recorded. Who takes part later does as who began it.
    pub sampled: bool,
}

/// Why a text is no `traceparent`. The trace is then begun anew, and a `tracestate` beside it is not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Version 00 has [`TRACEPARENT_BYTES`]; later ones have at least as many, and a dash before whatever they add.
    #[error("traceparent: {0} bytes; 55 are expected (more only in a version above 00)")]
    Length(usize),
    /// Something other than lower-case hexadecimal digits, or than a dash between them.
    #[error("traceparent: byte {0} is neither a lower-case hexadecimal digit nor a dash in its place")]
    Digit(usize),
    /// Version `ff` is forbidden.
    #[error("traceparent: version ff is not allowed")]
    Version,
    /// An id is all zeroes.
    #[error("traceparent: the {0} is all zeroes")]
    Zero(&'static str),
}

impl SpanContext {
    /// Reads the value of a `traceparent` header. Of a later version than 00, the beginning is read as version 00 has it (section 3.2.4); of its
    /// flags, only the one that is known counts.
    ///
    /// # Errors
    /// [`ParseError`].
    pub fn parse(text: &[u8]) -> Result<Self, ParseError> {
        if text.len() < TRACEPARENT_BYTES {
            return Err(ParseError::Length(text.len()));
        }
        let version = hex(text, 0, 2)?;
        match (version, text.len(), text.get(TRACEPARENT_BYTES)) {
            (0xff, ..) => return Err(ParseError::Version),
            (_, TRACEPARENT_BYTES, _) => {}
            (0, length, _) => return Err(ParseError::Length(length)),
            (_, _, Some(b'-')) => {}
            (..) => return Err(ParseError::Digit(TRACEPARENT_BYTES)),
        }
        if let Some(at) = [2, 35, 52].into_iter().find(|at| text[*at] != b'-') {
            return Err(ParseError::Digit(at));
        }
        let (trace_id, span_id, flags) = (hex(text, 3, 32)?, hex(text, 36, 16)?, hex(text, 53, 2)?);
        let span_id = u64::try_from(span_id).ok().and_then(SpanId::new);
        Ok(Self {
            trace_id: TraceId::new(trace_id).ok_or(ParseError::Zero("trace id"))?,
            span_id: span_id.ok_or(ParseError::Zero("parent id"))?,
            sampled: flags & u128::from(SAMPLED) != 0,
        })
    }

    /// The header's value, in version 00.
    #[must_use]
    pub fn traceparent(&self) -> Traceparent {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        put_hex(&mut text[3..35], self.trace_id.get());
        put_hex(&mut text[36..52], u128::from(self.span_id.get()));
        put_hex(&mut text[53..55], u128::from(if self.sampled { SAMPLED } else { 0 }));
        Traceparent(text)
    }
}

/// The value of a `traceparent` header, on the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traceparent([u8; TRACEPARENT_BYTES]);

impl Traceparent {
    /// As bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Digits and dashes are UTF-8.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// `count` digits from `start` on.
fn hex(text: &[u8], start: usize, count: usize) -> Result<u128, ParseError> {
    let mut number = 0;
    for (at, byte) in text.iter().enumerate().skip(start).take(count) {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return Err(ParseError::Digit(at)),
        };
        number = number << 4 | u128::from(digit);
    }
    Ok(number)
}

fn put_hex(out: &mut [u8], mut number: u128) {
    for byte in out.iter_mut().rev() {
        *byte = b"0123456789abcdef"[(number & 0xf) as usize];
        number >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{ProptestConfig, any, prop};
    use proptest::{prop_assert, prop_assert_eq, proptest};

    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn parse(text: &str) -> Result<SpanContext, ParseError> {
        SpanContext::parse(text.as_bytes())
    }

    #[test]
    fn what_the_recommendation_allows_is_read() {
        let context = parse(GOOD).unwrap();
        assert_eq!(context.trace_id.to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(context.span_id.to_string(), "b7ad6b7169203331");
        assert!(context.sampled && context.traceparent().as_str() == GOOD);
        assert!(!parse(&GOOD.replace("-01", "-00")).unwrap().sampled);
        // Flags that are not known say nothing, and are not passed on.
        let flags = parse(&GOOD.replace("-01", "-ff")).unwrap();
        assert!(flags.sampled && flags.traceparent().as_str() == GOOD);
        assert!(!parse(&GOOD.replace("-01", "-fe")).unwrap().sampled);
        // Versions to come: the same beginning, whatever follows behind a dash.
        for later in [
            GOOD.replace("00-0a", "01-0a"),
            GOOD.replace("00-0a", "cc-0a") + "-what.the/future holds",
        ] {
            assert_eq!(parse(&later).unwrap().traceparent().as_str(), GOOD, "{later}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        let zeroes = "0".repeat(32);
        for (bad, why) in [
            (String::new(), ParseError::Length(0)),
            (GOOD[..54].to_owned(), ParseError::Length(54)),
            (format!("{GOOD}-"), ParseError::Length(56)),
            (format!("{GOOD} "), ParseError::Length(56)),
            (GOOD.replace("00-0a", "01-0a") + "0", ParseError::Digit(55)),
            (GOOD.replace("00-0a", "ff-0a"), ParseError::Version),
            (GOOD.replace("00-0a", "0x-0a"), ParseError::Digit(1)),
            (GOOD.replace("0af7", "0Af7"), ParseError::Digit(4)),
            (GOOD.replace("b7ad", "B7ad"), ParseError::Digit(36)),
            (GOOD.replace("-01", "-0A"), ParseError::Digit(54)),
            (GOOD.replace("-b7", "_b7"), ParseError::Digit(35)),
            (GOOD.replace("-01", "_01"), ParseError::Digit(52)),
            (GOOD.replace("00-0a", "00_0a"), ParseError::Digit(2)),
            (
                GOOD.replace("0af7651916cd43dd8448eb211c80319c", &zeroes),
                ParseError::Zero("trace id"),
            ),
            (
                GOOD.replace("b7ad6b7169203331", &zeroes[..16]),
                ParseError::Zero("parent id"),
            ),
        ] {
            assert_eq!(parse(&bad), Err(why), "{bad:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn what_is_written_is_read(trace_id in 1_u128.., span_id in 1_u64.., sampled in any::<bool>()) {
            let context = SpanContext {
                trace_id: TraceId::new(trace_id).unwrap(),
                span_id: SpanId::new(span_id).unwrap(),
                sampled,
            };
            let text = context.traceparent();
            prop_assert_eq!(text.as_str().len(), TRACEPARENT_BYTES);
            prop_assert_eq!(SpanContext::parse(text.as_bytes()), Ok(context));
        }

        #[test]
        fn no_text_is_read_as_another(at in 0_usize..55, byte in any::<u8>(), more in prop::collection::vec(any::<u8>(), 0..3)) {
            let mut text = GOOD.as_bytes().to_vec();
            text[at] = byte;
            text.extend(more);
            if let Ok(context) = SpanContext::parse(&text) {
                let written = context.traceparent();
                // Version and flags apart, the same digits.
                prop_assert!(written.as_bytes()[2..53] == text[2..53]);
            }
        }
    }
}
