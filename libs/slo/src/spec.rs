//! The objectives: which requests or orders count, what is good, how much has to be.
//!
//! Without a file [`Spec::default`] holds. A file is JSON; whatever it leaves out has its default, and what it misspells is refused:
//!
//! ```json
//! {"long_sec": 3600, "short_sec": 300, "burn_limit": 2, "risk_budget_percent": 25, "min_events": 20,
//!  "objectives": [
//!    {"name": "orders fast", "of": "requests", "method": "POST", "path": "/deliveries", "max_ms": 500, "target_percent": 99.5},
//!    {"name": "assigned", "of": "orders", "until": "assigned", "max_ms": 40000, "target_percent": 95}]}
//! ```

use serde::{Deserialize, Serialize};

/// Most objectives in a file.
pub const OBJECTIVES_MAX: usize = 64;
/// Longest of the two windows, seconds: a week.
pub const WINDOW_MAX_SEC: u64 = 7 * 86_400;

/// What is promised, and when to worry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Spec {
    /// The long window of the burn rate, seconds.
    pub long_sec: u64,
    /// The short one, seconds: tells whether it still burns.
    pub short_sec: u64,
    /// An objective is at risk while the budget burns this many times as fast as it may, in both windows.
    pub burn_limit: f64,
    /// It is at risk, too, when less of its budget is left than this.
    pub risk_budget_percent: f64,
    /// Fewer events than this say nothing.
    pub min_events: u64,
    /// The objectives.
    pub objectives: Vec<Objective>,
}

/// One promise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Objective {
    /// What people call it.
    pub name: String,
    /// What is counted.
    pub of: Of,
    /// Only requests of this method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Only requests of this path; `/deliveries*` means all that begin so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What an order has to reach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Until>,
    /// Good ones take no longer, milliseconds. Without it every answer below 500 is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_ms: Option<f64>,
    /// So many of a hundred are to be good.
    pub target_percent: f64,
}

/// What an objective counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Of {
    /// Lines of lb's access log.
    Requests,
    /// Orders, as the gateway lists them.
    Orders,
}

/// What an order has to reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// A drone takes it.
    Assigned,
    /// The parcel is on board.
    PickedUp,
    /// It arrives.
    Delivered,
}

/// An SLO file that cannot be used. The text names the field, the value and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SpecError(String);

impl Default for Spec {
    fn default() -> Self {
        let requests = |name: &str, max_ms, target_percent| Objective {
            name: name.to_owned(),
            of: Of::Requests,
            method: None,
            path: None,
            until: None,
            max_ms,
            target_percent,
        };
        let orders = |name: &str, until, max_sec: f64| Objective {
            of: Of::Orders,
            until: Some(until),
            ..requests(name, Some(max_sec * 1_000.0), 95.0)
        };
        Self {
            long_sec: 3_600,
            short_sec: 300,
            burn_limit: 2.0,
            risk_budget_percent: 25.0,
            min_events: 20,
            objectives: vec![
                requests("answered", None, 99.0),
                requests("within 300 ms", Some(300.0), 95.0),
                requests("within 1 s", Some(1_000.0), 99.0),
                orders("assigned in 40 s", Until::Assigned, 40.0),
                orders("delivered in 180 s", Until::Delivered, 180.0),
            ],
        }
    }
}

impl Spec {
    /// Reads an SLO file.
    ///
    /// # Errors
    /// [`SpecError`] with the field, what it got and what it takes.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        let mut reader = serde_json::Deserializer::from_str(text);
        let spec: Self = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
            let path = error.path().to_string();
            SpecError(format!("{path}: {}", error.into_inner()))
        })?;
        reader
            .end()
            .map_err(|error| SpecError(format!("after the object: {error}")))?;
        spec.check()?;
        Ok(spec)
    }

    fn check(&self) -> Result<(), SpecError> {
        let seconds = |field: &str, got: u64| {
            let is_good = (1..=WINDOW_MAX_SEC).contains(&got);
            expect(
                is_good,
                field,
                got,
                &format!("a whole number of seconds from 1 to {WINDOW_MAX_SEC} is expected"),
            )
        };
        seconds("long_sec", self.long_sec)?;
        seconds("short_sec", self.short_sec)?;
        expect(
            self.short_sec <= self.long_sec,
            "short_sec",
            self.short_sec,
            &format!("at most long_sec ({}) is expected", self.long_sec),
        )?;
        expect(
            self.burn_limit > 0.0 && self.burn_limit <= 1_000_000.0,
            "burn_limit",
            self.burn_limit,
            "a number above 0, at most 1000000, is expected",
        )?;
        expect(
            (0.0..=100.0).contains(&self.risk_budget_percent),
            "risk_budget_percent",
            self.risk_budget_percent,
            "a percentage from 0 to 100 is expected",
        )?;
        expect(
            self.min_events > 0,
            "min_events",
            self.min_events,
            "a whole number of at least 1 is expected",
        )?;
        let count = self.objectives.len();
        expect(
            (1..=OBJECTIVES_MAX).contains(&count),
            "objectives",
            format_args!("{count} objectives"),
            &format!("1 to {OBJECTIVES_MAX} are expected"),
        )?;
        self.objectives
            .iter()
            .enumerate()
            .try_for_each(|(at, objective)| objective.check(at))
    }
}

impl Objective {
    fn check(&self, at: usize) -> Result<(), SpecError> {
        let field = |name: &str| format!("objectives[{at}].{name}");
        expect(
            !self.name.trim().is_empty(),
            &field("name"),
            "an empty text",
            "a name is expected",
        )?;
        // In steps of a ten-thousandth of a percent: what is not good must be above zero there, too.
        let is_target = (0.0001..=99.9999).contains(&self.target_percent);
        expect(
            is_target,
            &field("target_percent"),
            self.target_percent,
            "a percentage from 0.0001 to 99.9999 is expected",
        )?;
        if let Some(max_ms) = self.max_ms {
            expect(
                max_ms > 0.0 && max_ms <= 4e8,
                &field("max_ms"),
                max_ms,
                "milliseconds above 0, at most 400000000, are expected",
            )?;
        }
        if let Some(path) = &self.path {
            expect(
                path.starts_with('/'),
                &field("path"),
                format_args!("{path:?}"),
                "a path that begins with / is expected",
            )?;
        }
        match self.of {
            Of::Requests => expect(
                self.until.is_none(),
                &field("until"),
                "a value",
                "it is for \"of\": \"orders\" only",
            ),
            Of::Orders => {
                expect(
                    self.until.is_some(),
                    &field("until"),
                    "nothing",
                    "assigned, picked_up or delivered is expected",
                )?;
                expect(
                    self.max_ms.is_some(),
                    &field("max_ms"),
                    "nothing",
                    "the time in which orders get there is expected",
                )?;
                let has_filter = self.method.is_some() || self.path.is_some();
                expect(
                    !has_filter,
                    &field("path"),
                    "a filter of requests",
                    "orders have neither method nor path",
                )
            }
        }
    }

    /// How many of a million may be bad.
    #[must_use]
    pub fn allowed_ppm(&self) -> u64 {
        per_million(100.0 - self.target_percent).max(1)
    }
}

/// A percentage as parts of a million, rounded.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked percentages are between 0 and 100"
)]
pub(crate) fn per_million(percent: f64) -> u64 {
    (percent * 10_000.0).round() as u64
}

fn expect(holds: bool, field: &str, got: impl std::fmt::Display, expected: &str) -> Result<(), SpecError> {
    if holds {
        Ok(())
    } else {
        Err(SpecError(format!("{field}: got {got}; {expected}")))
    }
}

#[cfg(test)]
mod tests {
    use super::{Of, Spec, Until};

    #[test]
    fn what_is_left_out_has_its_default() {
        assert_eq!(Spec::parse("{}").unwrap(), Spec::default());
        let text = r#"{"short_sec":60,"objectives":[{"name":"a","of":"orders","until":"picked_up","max_ms":5000,"target_percent":99.95}]}"#;
        let spec = Spec::parse(text).unwrap();
        assert_eq!((spec.short_sec, spec.long_sec, spec.objectives.len()), (60, 3_600, 1));
        let objective = &spec.objectives[0];
        assert_eq!(
            (objective.of, objective.until, objective.allowed_ppm()),
            (Of::Orders, Some(Until::PickedUp), 500)
        );
    }

    #[test]
    fn the_defaults_are_what_a_file_could_say() {
        let text = serde_json::to_string(&Spec::default()).unwrap();
        assert_eq!(Spec::parse(&text).unwrap(), Spec::default());
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let objective =
            |fields: &str| format!(r#"{{"objectives":[{{"name":"a","of":"requests","target_percent":99{fields}}}]}}"#);
        for (text, parts) in [
            ("3".to_owned(), ["invalid type", "struct Spec"]),
            ("{} x".to_owned(), ["after the object", "trailing"]),
            (r#"{"long_sec":0}"#.to_owned(), ["long_sec: got 0", "from 1"]),
            (r#"{"long":1}"#.to_owned(), ["unknown field `long`", "long_sec"]),
            (
                r#"{"short_sec":4000}"#.to_owned(),
                ["short_sec: got 4000", "at most long_sec (3600)"],
            ),
            (r#"{"burn_limit":0}"#.to_owned(), ["burn_limit: got 0", "above 0"]),
            (
                r#"{"risk_budget_percent":101}"#.to_owned(),
                ["risk_budget_percent: got 101", "0 to 100"],
            ),
            (r#"{"min_events":0}"#.to_owned(), ["min_events: got 0", "at least 1"]),
            (r#"{"objectives":[]}"#.to_owned(), ["objectives: got 0", "1 to 64"]),
            (objective(r#","max_ms":"x""#), ["objectives[0].max_ms", "invalid type"]),
            (
                objective(r#","max_ms":-1"#),
                ["objectives[0].max_ms: got -1", "above 0"],
            ),
            (
                objective(r#","path":"x""#),
                ["objectives[0].path: got \"x\"", "begins with /"],
            ),
            (objective(r#","until":"assigned""#), ["objectives[0].until", "orders"]),
            (
                objective("").replace("99", "100"),
                ["objectives[0].target_percent: got 100", "99.9999"],
            ),
            (
                objective("").replace("requests", "orders"),
                ["objectives[0].until: got nothing", "picked_up"],
            ),
            (
                objective("").replace("requests", "parcels"),
                ["objectives[0].of", "parcels"],
            ),
        ] {
            let error = Spec::parse(&text).unwrap_err().to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{text}: {error}");
        }
    }
}
