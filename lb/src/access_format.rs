//! How a line of the access log looks, in each format. Paths are shown without their query, which may hold what is nobody's business.

use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::access_log::{Ended, Entry};
use crate::config::AccessFormat;
use crate::head::decimal;
use crate::limits::ACCESS_FIELD_MAX_BYTES;

/// Appends one line, without its end.
pub(crate) fn format(out: &mut Vec<u8>, format: AccessFormat, entry: &Entry, ended: Ended) {
    // Writing into memory cannot fail.
    let _ = match format {
        AccessFormat::Text => text(out, entry, ended),
        AccessFormat::Json => json_line(out, entry, ended),
        AccessFormat::Combined => combined(out, entry, ended),
        AccessFormat::Off => Ok(()),
    };
}

fn text(out: &mut Vec<u8>, entry: &Entry, ended: Ended) -> std::io::Result<()> {
    out.extend_from_slice(b"[access] ");
    clean(out, &entry.method);
    out.push(b' ');
    clean(out, &entry.path);
    let tenths = tenths_of_ms(ended.took);
    out.push(b' ');
    decimal(out, u64::from(entry.status));
    out.push(b' ');
    decimal(out, tenths / 10);
    out.push(b'.');
    decimal(out, tenths % 10);
    out.extend_from_slice(b"ms");
    if entry.stream {
        out.extend_from_slice(b" stream");
    }
    Ok(())
}

fn json_line(out: &mut Vec<u8>, entry: &Entry, ended: Ended) -> std::io::Result<()> {
    let mut line = json!({
        "time": since_epoch(ended.at).as_secs_f64(),
        "client": entry.client.to_canonical(),
        "method": cleaned(&entry.method),
        "path": cleaned(&entry.path),
        "status": entry.status,
        "bytes": entry.bytes,
        "ms": tenths_of_ms(ended.took) as f64 / 10.0,
        "stream": entry.stream,
        "request_id": cleaned(&entry.request_id),
        "upstream": entry.upstream.map(|(addr, _)| addr),
        "upstream_ms": entry.upstream.map(|(_, took)| tenths_of_ms(took) as f64 / 10.0),
    });
    if let Some(span) = entry.span.as_ref().and_then(|span| span.context().span) {
        line["trace_id"] = json!(span.trace_id.to_string());
    }
    write!(out, "{line}")
}

fn combined(out: &mut Vec<u8>, entry: &Entry, ended: Ended) -> std::io::Result<()> {
    write!(out, "{} - - [", entry.client.to_canonical())?;
    timestamp(out, ended.at)?;
    out.extend_from_slice(b"] \"");
    clean(out, &entry.method);
    out.push(b' ');
    clean(out, &entry.path);
    let version = if entry.is_http10 { "1.0" } else { "1.1" };
    write!(out, " HTTP/{version}\" {} {} \"", entry.status, entry.bytes)?;
    clean_words(out, or_dash(&entry.referer));
    out.extend_from_slice(b"\" \"");
    clean_words(out, or_dash(&entry.user_agent));
    out.push(b'"');
    Ok(())
}

fn or_dash(text: &[u8]) -> &[u8] {
    if text.is_empty() { b"-" } else { text }
}

/// Rounded to the nearest.
fn tenths_of_ms(duration: Duration) -> u64 {
    u64::try_from((duration.as_micros() + 50) / 100).unwrap_or(u64::MAX)
}

/// Appends a word so that it stays one word on one line: whatever is not printable ASCII, and quotes and backslashes, percent-encoded.
fn clean(out: &mut Vec<u8>, raw: &[u8]) {
    escape(out, raw, |byte| {
        byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\')
    });
}

/// As [`clean`], with spaces allowed.
fn clean_words(out: &mut Vec<u8>, raw: &[u8]) {
    escape(out, raw, |byte| {
        (byte.is_ascii_graphic() || byte == b' ') && !matches!(byte, b'"' | b'\\')
    });
}

fn escape(out: &mut Vec<u8>, raw: &[u8], is_plain: impl Fn(u8) -> bool) {
    let shown = &raw[..raw.len().min(ACCESS_FIELD_MAX_BYTES)];
    for &byte in shown {
        if is_plain(byte) {
            out.push(byte);
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    if shown.len() < raw.len() {
        out.extend_from_slice(b"...");
    }
}

fn cleaned(raw: &[u8]) -> String {
    let mut out = Vec::with_capacity(raw.len());
    clean(&mut out, raw);
    out.into_iter().map(char::from).collect()
}

fn since_epoch(at: SystemTime) -> std::time::Duration {
    at.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// `21/Nov/2025:05:59:25 +0000`
fn timestamp(out: &mut Vec<u8>, at: SystemTime) -> std::io::Result<()> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let seconds = since_epoch(at).as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let month = usize::try_from(month - 1)
        .ok()
        .and_then(|month| MONTHS.get(month))
        .unwrap_or(&"???");
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    write!(out, "{day:02}/{month}/{year}:{hour:02}:{minute:02}:{second:02} +0000")
}

/// Year, month (1 to 12) and day of a number of days since 1970-01-01. Counts years from March, so that the leap day comes last.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_TO_1970_FROM_MARCH_0: u64 = 719_468;
    const DAYS_PER_400_YEARS: u64 = 146_097;
    let days = days + DAYS_TO_1970_FROM_MARCH_0;
    let (era, day_of_era) = (days / DAYS_PER_400_YEARS, days % DAYS_PER_400_YEARS);
    // Takes out the leap days that have passed: one in 4 years, but none in 100, but one in 400.
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // From March the months' lengths repeat: 31 30 31 30 31, 153 days.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::{ProptestConfig, any, prop};
    use proptest::{prop_assert, proptest};

    use super::*;

    fn entry(path: &str, stream: bool) -> Entry {
        let mut entry = Entry::new(IpAddr::from([192, 0, 2, 1]));
        entry.method.extend_from_slice(b"POST");
        entry.path.extend_from_slice(path.as_bytes());
        entry.user_agent.extend_from_slice(b"curl/8 \"x\"");
        entry.request_id.extend_from_slice(b"7f");
        entry.status = 201;
        entry.bytes = 17;
        entry.stream = stream;
        entry.upstream = Some(("127.0.0.1:8000".parse().unwrap(), Duration::from_micros(9_960)));
        entry
    }

    fn line(kind: AccessFormat, entry: &Entry) -> String {
        let mut out = Vec::new();
        let ended = Ended {
            took: Duration::from_micros(12_340),
            at: UNIX_EPOCH + Duration::from_secs(1_763_704_765),
        };
        format(&mut out, kind, entry, ended);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_format_is_the_documented_one() {
        let order = entry("/deliveries", false);
        assert_eq!(line(AccessFormat::Text, &order), "[access] POST /deliveries 201 12.3ms");
        assert_eq!(
            line(AccessFormat::Text, &entry("/events", true)),
            "[access] POST /events 201 12.3ms stream"
        );
        assert_eq!(
            line(AccessFormat::Combined, &order),
            "192.0.2.1 - - [21/Nov/2025:05:59:25 +0000] \"POST /deliveries HTTP/1.1\" 201 17 \"-\" \"curl/8 %22x%22\""
        );
        let json: serde_json::Value = serde_json::from_str(&line(AccessFormat::Json, &order)).unwrap();
        assert_eq!(json["path"], "/deliveries");
        assert_eq!((&json["status"], &json["ms"]), (&json!(201), &json!(12.3)));
        assert_eq!(json["time"], 1_763_704_765.0);
        assert_eq!(
            (&json["request_id"], &json["upstream"], &json["upstream_ms"]),
            (&json!("7f"), &json!("127.0.0.1:8000"), &json!(10.0))
        );
    }

    /// What the watchers of the service level make of it.
    #[test]
    fn watchers_read_each_format() {
        use slo::line::{Line, Request, read};
        let order = entry("/deliveries", false);
        for (kind, at_ms, took) in [
            (AccessFormat::Text, None, Some(123)),
            (AccessFormat::Json, Some(1_763_704_765_000), Some(123)),
            (AccessFormat::Combined, Some(1_763_704_765_000), None),
        ] {
            let expected = Request {
                at_ms,
                method: b"POST",
                path: b"/deliveries",
                status: 201,
                took,
            };
            assert_eq!(read(line(kind, &order).as_bytes()), Line::Request(expected), "{kind:?}");
            let events = line(kind, &entry("/events", true));
            assert_eq!(read(events.as_bytes()), Line::Stream, "{kind:?}");
        }
    }

    #[test]
    fn dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(11_017), (2000, 3, 1));
        assert_eq!(civil(19_782), (2024, 2, 29));
        assert_eq!(civil(47_540), (2100, 2, 28));
        assert_eq!(civil(47_541), (2100, 3, 1));
    }

    #[test]
    fn long_paths_are_shortened() {
        let line = line(AccessFormat::Text, &entry(&"x".repeat(5000), false));
        assert!(
            line.len() < ACCESS_FIELD_MAX_BYTES + 60 && line.contains("x... 201"),
            "{line}"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn a_word_stays_one_word_of_printable_ascii(raw in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut out = Vec::new();
            clean(&mut out, &raw);
            prop_assert!(out.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'"' && *byte != b'\\'));
        }

        #[test]
        fn watchers_read_whatever_a_client_sends(path in prop::collection::vec(any::<u8>(), 1..60)) {
            let mut order = entry("", false);
            order.path = path;
            for kind in [AccessFormat::Text, AccessFormat::Json, AccessFormat::Combined] {
                let line = line(kind, &order);
                prop_assert!(matches!(slo::line::read(line.as_bytes()), slo::line::Line::Request(_)), "{line}");
            }
        }
    }
}
