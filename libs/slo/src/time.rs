//! The times that stand in logs, read by hand: they come in fixed shapes, once per line.

/// Milliseconds in a day.
const MS_PER_DAY: i64 = 86_400_000;

/// Reads `2026-11-21T21:49:14.123456789Z` (any number of decimals, or none; `Z` or `+01:00`), as Docker puts it in front of lines: the
/// Unix milliseconds, and how many bytes it took.
#[must_use]
pub fn rfc3339(text: &[u8]) -> Option<(u64, usize)> {
    let day = days(number(text, 0, 4)?, number(text, 5, 2)?, number(text, 8, 2)?)?;
    if text.get(4) != Some(&b'-') || text.get(7) != Some(&b'-') || text.get(10) != Some(&b'T') {
        return None;
    }
    let mut ms = clock(text, 11)?;
    let mut end = 19;
    if text.get(end) == Some(&b'.') {
        let mut unit_ms = 100;
        end += 1;
        while let Some(digit) = text.get(end).filter(|byte| byte.is_ascii_digit()) {
            ms += i64::from(digit - b'0') * unit_ms;
            unit_ms /= 10;
            end += 1;
        }
    }
    if text.get(end) == Some(&b'Z') {
        end += 1;
    } else {
        ms -= offset_ms(text, end, true)?;
        end += 6;
    }
    Some((u64::try_from(day * MS_PER_DAY + ms).ok()?, end))
}

/// Reads `21/Nov/2025:05:59:25 +0000`, the whole of `text`, as Unix milliseconds.
#[must_use]
pub fn common_log(text: &[u8]) -> Option<u64> {
    const MONTHS: [&[u8]; 12] = [
        b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
    ];
    if text.len() != 26 || text[2] != b'/' || text[6] != b'/' || text[11] != b':' || text[20] != b' ' {
        return None;
    }
    let month = (1..).zip(MONTHS).find(|(_, name)| *name == &text[3..6])?.0;
    let day = days(number(text, 7, 4)?, month, number(text, 0, 2)?)?;
    let ms = clock(text, 12)? - offset_ms(text, 21, false)?;
    u64::try_from(day * MS_PER_DAY + ms).ok()
}

/// Shows Unix milliseconds as `2026-11-21T21:49:14Z`.
#[must_use]
pub fn show(unix_ms: u64) -> String {
    let sec = unix_ms / 1_000;
    let (year, month, day) = civil(sec / 86_400);
    let (hour, minute, second) = (sec / 3_600 % 24, sec / 60 % 60, sec % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// `05:59:25` from `at` on, in milliseconds of the day.
fn clock(text: &[u8], at: usize) -> Option<i64> {
    if text.get(at + 2) != Some(&b':') || text.get(at + 5) != Some(&b':') {
        return None;
    }
    let (hour, minute, second) = (number(text, at, 2)?, number(text, at + 3, 2)?, number(text, at + 6, 2)?);
    // 60 is a leap second.
    (hour < 24 && minute < 60 && second <= 60).then(|| ((hour * 60 + minute) * 60 + second) * 1_000)
}

/// `+0130`, or `+01:30` with a colon, in milliseconds.
fn offset_ms(text: &[u8], at: usize, has_colon: bool) -> Option<i64> {
    let sign = match text.get(at)? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    if has_colon && text.get(at + 3) != Some(&b':') {
        return None;
    }
    let minutes = number(text, at + 1, 2)? * 60 + number(text, at + 3 + usize::from(has_colon), 2)?;
    Some(sign * minutes * 60_000)
}

/// The number that `len` digits from `at` on make.
fn number(text: &[u8], at: usize, len: usize) -> Option<i64> {
    text.get(at..at + len)?.iter().try_fold(0, |number, byte| {
        byte.is_ascii_digit().then(|| number * 10 + i64::from(byte - b'0'))
    })
}

/// Days from 1970-01-01 to a date. Years begin in March here, so that the leap day comes last.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let from_march = (month + 9) % 12;
    let year = if month < 3 { year - 1 } else { year };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // From March the months' lengths repeat: 31 30 31 30 31, 153 days. 719,468 days lie between March of year 0 and 1970.
    Some(365 * year + leap_days + (153 * from_march + 2) / 5 + day - 1 - 719_468)
}

/// Year, month and day of a number of days since 1970-01-01: the other way round.
fn civil(days: u64) -> (u64, u64, u64) {
    let mut year = 1970 + days / 366;
    let first_of = |year: u64, month: u64| {
        let (year, month) = (
            i64::try_from(year).unwrap_or(i64::MAX),
            i64::try_from(month).unwrap_or(1),
        );
        self::days(year, month, 1)
            .and_then(|day| u64::try_from(day).ok())
            .unwrap_or(u64::MAX)
    };
    while first_of(year + 1, 1) <= days {
        year += 1;
    }
    let month = (2..=12)
        .take_while(|&month| first_of(year, month) <= days)
        .last()
        .unwrap_or(1);
    (year, month, days - first_of(year, month) + 1)
}

#[cfg(test)]
mod tests {
    use super::{common_log, rfc3339, show};

    #[test]
    fn known_times() {
        assert_eq!(rfc3339(b"2025-11-21T05:59:25.250Z x"), Some((1_763_704_765_250, 24)));
        assert_eq!(
            rfc3339(b"2025-11-21T06:59:25.123456789+01:00"),
            Some((1_763_704_765_123, 35))
        );
        assert_eq!(rfc3339(b"1970-01-01T00:00:00Z"), Some((0, 20)));
        assert_eq!(common_log(b"21/Nov/2025:05:59:25 +0000"), Some(1_763_704_765_000));
        assert_eq!(common_log(b"21/Nov/2025:04:29:25 -0130"), Some(1_763_704_765_000));
        assert_eq!(common_log(b"29/Feb/2000:00:00:00 +0000"), Some(11_016 * 86_400_000));
        assert_eq!(common_log(b"01/Mar/2100:00:00:00 +0000"), Some(47_541 * 86_400_000));
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "",
            "2025-11-21",
            "2025-11-21 05:59:25Z",
            "2025-13-21T05:59:25Z",
            "2025-11-21T25:59:25Z",
            "2025-11-21T05:59:25",
        ] {
            assert_eq!(rfc3339(text.as_bytes()), None, "{text}");
        }
        for text in [
            "",
            "21/Nov/2025:05:59:25",
            "21/Nox/2025:05:59:25 +0000",
            "21/Nov/2025:05:59:25 *0000",
        ] {
            assert_eq!(common_log(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn what_is_shown_is_what_was_read() {
        for day in (0..60_000).step_by(13) {
            let ms = day * 86_400_000 + 12_345_000;
            let text = show(ms);
            assert_eq!(rfc3339(text.as_bytes()), Some((ms, 20)), "{text}");
        }
        assert_eq!(show(1_763_704_765_999), "2025-11-21T05:59:25Z");
    }
}
