//! How a line of the access log looks, in each format. Paths are shown without their query, which may hold what is nobody's business.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use serde_json::json;

use crate::access_log::{Ended, Visitor};
use crate::config::AccessFormat;
use crate::limits::ACCESS_FIELD_MAX_BYTES;

/// Appends one line, without its end.
pub(crate) fn format(out: &mut Vec<u8>, format: AccessFormat, ended: &Ended) {
    // Writing into memory cannot fail.
    let _ = match format {
        AccessFormat::Text => text(out, ended),
        AccessFormat::Json => json_line(out, ended),
        AccessFormat::Combined => combined(out, ended),
        AccessFormat::Off => Ok(()),
    };
}

fn text(out: &mut Vec<u8>, ended: &Ended) -> std::io::Result<()> {
    let entry = &ended.entry;
    out.extend_from_slice(b"[access] ");
    clean(out, entry.method.as_str().as_bytes());
    out.push(b' ');
    clean(out, entry.uri.path().as_bytes());
    let ms = ended.took.as_secs_f64() * 1000.0;
    write!(out, " {} {ms:.1}ms", entry.status)?;
    if entry.stream {
        out.extend_from_slice(b" stream");
    }
    Ok(())
}

fn json_line(out: &mut Vec<u8>, ended: &Ended) -> std::io::Result<()> {
    let entry = &ended.entry;
    let line = json!({
        "time": since_epoch(ended.at).as_secs_f64(),
        "client": entry.client.to_canonical(),
        "method": cleaned(entry.method.as_str().as_bytes()),
        "path": cleaned(entry.uri.path().as_bytes()),
        "status": entry.status,
        "bytes": entry.bytes,
        "ms": (ended.took.as_secs_f64() * 10_000.0).round() / 10.0,
        "stream": entry.stream,
    });
    write!(out, "{line}")
}

fn combined(out: &mut Vec<u8>, ended: &Ended) -> std::io::Result<()> {
    let entry = &ended.entry;
    write!(out, "{} - - [", entry.client.to_canonical())?;
    timestamp(out, ended.at)?;
    out.extend_from_slice(b"] \"");
    clean(out, entry.method.as_str().as_bytes());
    out.push(b' ');
    clean(out, entry.uri.path().as_bytes());
    write!(out, " {:?}\" {} {} \"", entry.version, entry.status, entry.bytes)?;
    let (referer, user_agent) = match &entry.visitor {
        Some(Visitor { referer, user_agent }) => (referer.as_ref(), user_agent.as_ref()),
        None => (None, None),
    };
    let header = |value: Option<&HeaderValue>| value.map_or_else(|| b"-".to_vec(), |value| value.as_bytes().to_vec());
    clean_words(out, &header(referer));
    out.extend_from_slice(b"\" \"");
    clean_words(out, &header(user_agent));
    out.push(b'"');
    Ok(())
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
    use std::time::{Duration, Instant};

    use http::{Method, Uri, Version};
    use proptest::prelude::{ProptestConfig, any, prop};
    use proptest::{prop_assert, proptest};

    use super::*;
    use crate::access_log::Entry;

    fn ended(uri: &str, stream: bool) -> Ended {
        Ended {
            entry: Box::new(Entry {
                method: Method::POST,
                uri: uri.parse::<Uri>().unwrap(),
                version: Version::HTTP_11,
                client: IpAddr::from([192, 0, 2, 1]),
                started: Instant::now(),
                status: 201,
                bytes: 17,
                stream,
                visitor: Some(Visitor {
                    referer: None,
                    user_agent: Some(HeaderValue::from_static("curl/8 \"x\"")),
                }),
            }),
            took: Duration::from_micros(12_340),
            at: UNIX_EPOCH + Duration::from_secs(1_763_704_765),
        }
    }

    fn line(kind: AccessFormat, ended: &Ended) -> String {
        let mut out = Vec::new();
        format(&mut out, kind, ended);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_format_is_the_documented_one() {
        let order = ended("/deliveries?secret=1", false);
        assert_eq!(line(AccessFormat::Text, &order), "[access] POST /deliveries 201 12.3ms");
        assert_eq!(
            line(AccessFormat::Text, &ended("/events", true)),
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
        let line = line(AccessFormat::Text, &ended(&format!("/{}", "x".repeat(5000)), false));
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
    }
}
