//! The end of a run, for people and for programs.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::figures::Percentiles;
use crate::report::Summary;
use crate::survey::{Tracked, Verified};

/// All that a run found out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// What became of the orders.
    pub summary: Summary,
    /// From the moment an order was due to the answer that accepted it.
    pub response: Percentiles,
    /// From the first attempt's sending to the answer that accepted it: without the time an order waited because `--concurrency` others
    /// were under way.
    pub service: Percentiles,
    /// From the first order to the last answer.
    pub took: Duration,
    /// What tracking found, if it was asked for.
    pub tracked: Option<Tracked>,
    /// What verifying found, if it was asked for.
    pub verified: Option<Verified>,
}

impl Report {
    /// Orders that were given up, or accepted and not there exactly once.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.summary.failed + self.not_once()
    }

    /// Accepted orders that do not exist, and records that exist beside them.
    #[must_use]
    pub fn not_once(&self) -> u64 {
        self.verified.as_ref().map_or(0, |found| found.missing + found.doubled)
    }

    /// Accepted orders a second.
    #[must_use]
    pub fn per_sec(&self) -> f64 {
        let sec = self.took.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 orders")]
        let accepted = self.summary.accepted as f64;
        if sec > 0.0 { accepted / sec } else { 0.0 }
    }

    /// For programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let summary = &self.summary;
        json!({
            "sent": summary.sent(),
            "created": summary.created(),
            "duplicates": summary.repeated,
            "refused": summary.limited,
            "failed": summary.failed,
            "unfinished": summary.unfinished,
            "skipped": summary.skipped,
            "retries": summary.retries,
            "lost": self.lost(),
            "took_sec": self.took.as_secs_f64(),
            "accepted_per_sec": self.per_sec(),
            "response": self.response,
            "service": self.service,
            "tracked": self.tracked,
            "verified": self.verified,
        })
    }

    /// For people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut out = String::new();
        let summary = &self.summary;
        for (name, count) in [
            ("sent", summary.sent()),
            ("created", summary.created()),
            ("duplicates", summary.repeated),
            ("refused (429)", summary.limited),
            ("failed", summary.failed),
            ("unfinished", summary.unfinished),
            ("skipped", summary.skipped),
        ] {
            // Writing to a `String` cannot fail; likewise below.
            let _ = writeln!(out, "{name:<14} {count:>9}");
        }
        let (took_sec, per_sec) = (self.took.as_secs_f64(), self.per_sec());
        let _ = writeln!(out, "in {took_sec:.1} s, {per_sec:.1} accepted a second\n");
        let _ = writeln!(
            out,
            "{:<14} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "", "count", "p50", "p95", "p99", "max"
        );
        let _ = row(&mut out, "response, ms", &self.response, 1_000.0);
        let _ = row(&mut out, "service, ms", &self.service, 1_000.0);
        if let Some(tracked) = &self.tracked {
            let _ = row(&mut out, "assigned, s", &tracked.assigned, 1.0);
            let _ = row(&mut out, "delivered, s", &tracked.delivered, 1.0);
            let (open, otherwise) = (tracked.open, tracked.ended_otherwise);
            let _ = writeln!(out, "{open} still open, {otherwise} cancelled or failed");
        }
        if let Some(found) = &self.verified {
            let Verified {
                accepted,
                missing,
                doubled,
                examples,
            } = found;
            let _ = match (missing, doubled) {
                (0, 0) => writeln!(out, "verified: each of {accepted} accepted orders exists exactly once"),
                _ => writeln!(
                    out,
                    "NOT verified: of {accepted} accepted orders {missing} are missing, and {doubled} records are doubles: {}",
                    examples.join(", ")
                ),
            };
        }
        out
    }
}

fn row(out: &mut String, name: &str, times: &Percentiles, unit: f64) -> std::fmt::Result {
    write!(out, "{name:<14} {:>9}", times.count)?;
    for sec in [times.p50_sec, times.p95_sec, times.p99_sec, times.max_sec] {
        match sec {
            Some(sec) => write!(out, " {:>9.1}", sec * unit)?,
            None => write!(out, " {:>9}", "-")?,
        }
    }
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_is_what_was_given_up_or_is_not_there_once() {
        let mut report = Report {
            summary: Summary {
                accepted: 98,
                repeated: 3,
                failed: 2,
                limited: 7,
                ..Summary::default()
            },
            took: Duration::from_secs(49),
            ..Report::default()
        };
        assert_eq!((report.lost(), report.per_sec().to_string().as_str()), (2, "2"));
        report.verified = Some(Verified {
            accepted: 98,
            missing: 1,
            doubled: 4,
            examples: vec!["id-1".to_owned()],
        });
        let json = report.to_json();
        let count = |name: &str| json[name].as_u64().unwrap();
        assert_eq!(
            ["sent", "created", "duplicates", "refused", "failed", "lost"].map(count),
            [100, 95, 3, 7, 2, 7]
        );
        assert_eq!(
            (&json["tracked"], &json["verified"]["missing"]),
            (&Value::Null, &json!(1))
        );
        let table = report.table();
        assert!(table.contains("NOT verified") && table.contains("id-1"), "{table}");
        assert!(table.contains("response, ms           0         -"), "{table}");
        assert!(table.contains("service, ms            0         -"), "{table}");
    }
}
