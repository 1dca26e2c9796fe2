//! Orders of a file: one in JSON per line, as somebody recorded or wrote them. Lines of `GET /deliveries` (its items) will do.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use domain::order::NewOrder;
use serde_json::Value;

/// Most orders of a file: all are held in memory.
const ORDERS_MAX: usize = 1_000_000;

/// An order of the file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Recorded {
    /// When it is due, since the first.
    pub(crate) at: Duration,
    pub(crate) order: NewOrder,
    /// Its idempotency key, when the file names one.
    pub(crate) key: Option<String>,
}

/// Reads all orders, and sorts them by their times when these are `needed`.
///
/// # Errors
/// Names the file, the line, and what was expected there.
pub(crate) fn read(path: &Path, needed: bool) -> anyhow::Result<Vec<Recorded>> {
    let at_line = |number: usize| format!("REPLAY (--replay): {} line {number}", path.display());
    let file = File::open(path).with_context(|| format!("REPLAY (--replay): {} cannot be read", path.display()))?;
    let mut timed = Vec::new();
    for (number, line) in (1..).zip(BufReader::new(file).lines()) {
        let line = line.with_context(|| at_line(number))?;
        if line.trim().is_empty() {
            continue;
        }
        timed.push(parse(&line, needed).with_context(|| at_line(number))?);
        ensure!(
            timed.len() <= ORDERS_MAX,
            "{}: at most {ORDERS_MAX} orders are taken",
            at_line(number)
        );
    }
    ensure!(!timed.is_empty(), "REPLAY (--replay): {} has no orders", path.display());
    if needed {
        timed.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    let first_sec = timed[0].0;
    let recorded = |(sec, order, key): (f64, NewOrder, Option<String>)| Recorded {
        at: Duration::try_from_secs_f64(sec - first_sec).unwrap_or_default(),
        order,
        key,
    };
    Ok(timed.into_iter().map(recorded).collect())
}

fn parse(line: &str, needed: bool) -> anyhow::Result<(f64, NewOrder, Option<String>)> {
    let value: Value = serde_json::from_str(line).context("no JSON")?;
    let order = NewOrder::parse(&value)?;
    let given = value.get("at_sec").or_else(|| value.get("timestamp"));
    let sec = match given.and_then(Value::as_f64) {
        Some(sec) => sec,
        None if !needed => 0.0,
        None => bail!("at_sec: seconds since the first order are expected, or timestamp, or --rate"),
    };
    let key = match value.get("idempotency_key") {
        None | Some(Value::Null) => None,
        Some(Value::String(key)) if !key.is_empty() => Some(key.clone()),
        Some(other) => bail!("idempotency_key: got {other}; a text is expected"),
    };
    Ok((sec, order, key))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(lines: &[&str]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        for line in lines {
            let line = line.replace(
                "ORDER",
                r#""origin":{"lat":41.9,"lon":12.5},"destination":{"lat":41.8,"lon":12.4},"weight":1"#,
            );
            writeln!(file, "{line}").unwrap();
        }
        file
    }

    #[test]
    fn orders_come_by_their_time() {
        let lines = [
            r#"{"timestamp":1800000002.5,ORDER}"#,
            "",
            r#"{"timestamp":1800000000.0,ORDER,"idempotency_key":"k"}"#,
        ];
        let orders = read(file(&lines).path(), true).unwrap();
        let seen: Vec<_> = orders
            .iter()
            .map(|order| (order.at.as_secs_f64(), order.key.as_deref()))
            .collect();
        assert_eq!(seen, [(0.0, Some("k")), (2.5, None)]);
        assert_eq!(read(file(&["{ORDER}", "{ORDER}"]).path(), false).unwrap().len(), 2);
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (lines, named) in [
            (vec![], "no orders"),
            (vec!["{ORDER}"], "line 1"),
            (vec![r#"{"at_sec":0,ORDER}"#, "{"], "line 2"),
            (vec![r#"{"at_sec":0,"weight":1}"#], "origin"),
            (vec![r#"{"at_sec":0,ORDER,"idempotency_key":7}"#], "idempotency_key"),
        ] {
            let error = format!("{:#}", read(file(&lines).path(), true).unwrap_err());
            assert!(error.contains("REPLAY") && error.contains(named), "{error}");
        }
        assert!(format!("{:#}", read(Path::new("/nowhere"), true).unwrap_err()).contains("/nowhere"));
    }
}
