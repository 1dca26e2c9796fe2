//! What a valid order is, and how a bad one is told what is wrong with it.
//!
//! [`NewOrder::parse`] takes the JSON body as it came and answers either an order whose numbers are finite and in range, or an
//! error that names the first bad field by its path, the value found there and what was expected.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::geo::Point;
use crate::no_fly::NoFly;
use crate::priority::Priority;

/// Earliest and latest `deadline`, Unix seconds: what lies outside is no time in seconds (but in milliseconds, say).
pub const DEADLINE_RANGE_SEC: std::ops::RangeInclusive<f64> = 1e9..=1e11;

/// Longest rendering, in characters, of an offending value in an error message.
const SHOWN_VALUE_MAX: usize = 60;

/// A valid order: what a customer asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewOrder {
    /// Where the parcel is picked up.
    pub origin: Point,
    /// Where it goes.
    pub destination: Point,
    /// Its weight in kilograms, above 0.
    pub weight: f64,
    /// How urgent it is; absent means normal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// When it should have arrived, Unix seconds: a wish that raises its urgency, not a promise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<f64>,
}

/// What is wrong with an order's body: the first field that does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}; expected {expected}")]
pub struct OrderError {
    /// Path of the field, as `origin.lat`; `body` for the whole.
    pub field: &'static str,
    /// What was found there.
    pub problem: Problem,
    /// What the field takes, with its unit.
    pub expected: &'static str,
}

/// What was found where something else was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// The field is not there.
    Missing,
    /// The value, as JSON (shortened when long).
    Got(String),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("missing"),
            Self::Got(value) => write!(f, "got {value}"),
        }
    }
}

impl Problem {
    fn got(value: &Value) -> Self {
        Self::shorten(&value.to_string())
    }

    fn shorten(text: &str) -> Self {
        if text.chars().count() > SHOWN_VALUE_MAX {
            let head: String = text.chars().take(SHOWN_VALUE_MAX).collect();
            Self::Got(format!("{head}…"))
        } else {
            Self::Got(text.to_owned())
        }
    }
}

const EXPECT_LAT: &str = "a latitude in degrees, a number in [-90, 90]";
const EXPECT_LON: &str = "a longitude in degrees, a number in [-180, 180]";
const EXPECT_WEIGHT: &str = "a weight in kg, a finite number above 0";
const EXPECT_POINT: &str = "an object {\"lat\", \"lon\"}";
const EXPECT_BODY: &str = "an object {\"origin\", \"destination\", \"weight\"}";
const EXPECT_PRIORITY: &str = "\"low\", \"normal\", \"high\", \"critical\" or a whole number in [0, 9]";
const EXPECT_OUTSIDE: &str = "a place outside the no-fly zones";
const EXPECT_DEADLINE: &str = "a time in Unix seconds, a number in [1e9, 1e11]";

impl NewOrder {
    /// Reads an order from the JSON body of a request. Fields it does not know are ignored.
    ///
    /// # Errors
    /// [`OrderError`] for the first field that is missing, of the wrong type or out of range.
    pub fn parse(body: &Value) -> Result<Self, OrderError> {
        if !body.is_object() {
            return Err(OrderError {
                field: "body",
                problem: Problem::got(body),
                expected: EXPECT_BODY,
            });
        }
        let priority = match body.get("priority") {
            None | Some(Value::Null) => None,
            Some(value) => Some(Priority::try_from(value.clone()).map_err(|_| OrderError {
                field: "priority",
                problem: Problem::got(value),
                expected: EXPECT_PRIORITY,
            })?),
        };
        let deadline = match body.get("deadline") {
            None | Some(Value::Null) => None,
            Some(_) => Some(number(body, "deadline", "deadline", EXPECT_DEADLINE)?),
        };
        let order = Self {
            origin: point(body, "origin", ["origin", "origin.lat", "origin.lon"])?,
            destination: point(
                body,
                "destination",
                ["destination", "destination.lat", "destination.lon"],
            )?,
            weight: number(body, "weight", "weight", EXPECT_WEIGHT)?,
            priority,
            deadline,
        };
        order.check()?;
        Ok(order)
    }

    /// Checks that both ends are where a drone may fly.
    ///
    /// # Errors
    /// [`OrderError`] for the first one inside a no-fly zone.
    pub fn check_no_fly(&self, no_fly: &NoFly) -> Result<(), OrderError> {
        for (field, end) in [("origin", self.origin), ("destination", self.destination)] {
            if let Some(zone) = no_fly.zone_of(end) {
                return Err(OrderError {
                    field,
                    problem: Problem::Got(format!("lat {}, lon {}, inside no_fly[{zone}]", end.lat, end.lon)),
                    expected: EXPECT_OUTSIDE,
                });
            }
        }
        Ok(())
    }

    /// Checks an order built in code.
    ///
    /// # Errors
    /// [`OrderError`] for the first field that is not finite or out of range.
    pub fn check(&self) -> Result<(), OrderError> {
        let lat_ok = |lat: f64| (-90.0..=90.0).contains(&lat);
        let lon_ok = |lon: f64| (-180.0..=180.0).contains(&lon);
        let rules = [
            ("origin.lat", self.origin.lat, lat_ok(self.origin.lat), EXPECT_LAT),
            ("origin.lon", self.origin.lon, lon_ok(self.origin.lon), EXPECT_LON),
            (
                "destination.lat",
                self.destination.lat,
                lat_ok(self.destination.lat),
                EXPECT_LAT,
            ),
            (
                "destination.lon",
                self.destination.lon,
                lon_ok(self.destination.lon),
                EXPECT_LON,
            ),
            (
                "weight",
                self.weight,
                self.weight.is_finite() && self.weight > 0.0,
                EXPECT_WEIGHT,
            ),
        ];
        for (field, value, fits, expected) in rules {
            if !fits {
                return Err(OrderError {
                    field,
                    problem: Problem::shorten(&format!("{value}")),
                    expected,
                });
            }
        }
        match self.deadline {
            Some(deadline) if !DEADLINE_RANGE_SEC.contains(&deadline) => Err(OrderError {
                field: "deadline",
                problem: Problem::shorten(&format!("{deadline}")),
                expected: EXPECT_DEADLINE,
            }),
            _ => Ok(()),
        }
    }
}

fn point(body: &Value, name: &str, [field, lat_field, lon_field]: [&'static str; 3]) -> Result<Point, OrderError> {
    let value = body.get(name).ok_or(OrderError {
        field,
        problem: Problem::Missing,
        expected: EXPECT_POINT,
    })?;
    if !value.is_object() {
        return Err(OrderError {
            field,
            problem: Problem::got(value),
            expected: EXPECT_POINT,
        });
    }
    Ok(Point {
        lat: number(value, "lat", lat_field, EXPECT_LAT)?,
        lon: number(value, "lon", lon_field, EXPECT_LON)?,
    })
}

fn number(object: &Value, name: &str, field: &'static str, expected: &'static str) -> Result<f64, OrderError> {
    let value = object.get(name).ok_or(OrderError {
        field,
        problem: Problem::Missing,
        expected,
    })?;
    value.as_f64().ok_or_else(|| OrderError {
        field,
        problem: Problem::got(value),
        expected,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
    use serde_json::{Value, json};

    use super::NewOrder;
    use crate::geo::Point;
    use crate::priority::Priority;

    fn body() -> Value {
        json!({"origin": {"lat": 41.9, "lon": 12.5}, "destination": {"lat": 41.91, "lon": 12.51}, "weight": 2})
    }

    fn wrong(change: impl FnOnce(&mut Value)) -> String {
        let mut body = body();
        change(&mut body);
        NewOrder::parse(&body).unwrap_err().to_string()
    }

    #[test]
    fn a_good_order() {
        let order = NewOrder::parse(&body()).unwrap();
        assert_eq!(order.origin, Point::new(41.9, 12.5));
        assert!((order.weight - 2.0).abs() < 1e-12);
        assert_eq!(order.priority, None);
        let mut more = body();
        more["colour"] = json!("red");
        more["priority"] = json!(3);
        more["deadline"] = json!(1_800_000_000);
        let order = NewOrder::parse(&more).unwrap();
        assert_eq!((order.priority, order.deadline), (Some(Priority::Normal), Some(1.8e9)));
        more["priority"] = json!("critical");
        assert_eq!(NewOrder::parse(&more).unwrap().priority, Some(Priority::Critical));
    }

    #[test]
    fn a_bad_order_names_field_value_and_expectation() {
        assert_eq!(
            wrong(|b| b["origin"]["lat"] = json!(91)),
            "origin.lat: got 91; expected a latitude in degrees, a number in [-90, 90]"
        );
        assert!(wrong(|b| b["destination"]["lon"] = json!(-180.5)).starts_with("destination.lon: got -180.5;"));
        assert!(wrong(|b| b["weight"] = json!(0)).starts_with("weight: got 0;"));
        assert!(wrong(|b| b["weight"] = json!("2")).starts_with("weight: got \"2\";"));
        assert!(wrong(|b| b["weight"] = json!(true)).starts_with("weight: got true;"));
        assert!(wrong(|b| b["origin"] = json!([1, 2])).starts_with("origin: got [1,2];"));
        assert!(wrong(|b| b["priority"] = json!(10)).starts_with("priority: got 10;"));
        assert!(wrong(|b| b["priority"] = json!(1.5)).starts_with("priority: got 1.5;"));
        assert!(wrong(|b| b["priority"] = json!("urgent")).contains("\"critical\""));
        for (deadline, shown) in [
            (json!("soon"), "\"soon\""),
            (json!(1_700_000_000_000_i64), "1700000000000"),
        ] {
            let expected = format!("deadline: got {shown};");
            assert!(
                wrong(|b| b["deadline"] = deadline.clone()).starts_with(&expected),
                "{expected}"
            );
        }
        assert!(wrong(|b| drop(b.as_object_mut().unwrap().remove("weight"))).starts_with("weight: missing;"));
        assert!(wrong(|b| *b = json!("x".repeat(500))).len() < 200);
        let nan = NewOrder {
            weight: f64::NAN,
            ..NewOrder::parse(&body()).unwrap()
        };
        assert!(nan.check().unwrap_err().to_string().starts_with("weight: got NaN;"));
    }

    #[test]
    fn an_end_in_a_no_fly_zone_is_named() {
        let no_fly = "41.905,12.505 41.905,12.515 41.915,12.515 41.915,12.505"
            .parse()
            .unwrap();
        let order = NewOrder::parse(&body()).unwrap();
        assert_eq!(
            order.check_no_fly(&no_fly).unwrap_err().to_string(),
            "destination: got lat 41.91, lon 12.51, inside no_fly[0]; expected a place outside the no-fly zones"
        );
        let back = NewOrder {
            origin: order.destination,
            destination: order.origin,
            ..order
        };
        assert_eq!(back.check_no_fly(&no_fly).unwrap_err().field, "origin");
        assert_eq!(order.check_no_fly(&"".parse().unwrap()), Ok(()));
    }

    proptest! {
        #[test]
        fn parse_accepts_exactly_the_ranges(lat in -120.0..120.0_f64, lon in -240.0..240.0_f64, weight in -5.0..50.0_f64) {
            let body = json!({
                "origin": {"lat": lat, "lon": lon}, "destination": {"lat": 0, "lon": 0}, "weight": weight,
            });
            let fits = (-90.0..=90.0).contains(&lat) && (-180.0..=180.0).contains(&lon) && weight > 0.0;
            prop_assert_eq!(NewOrder::parse(&body).is_ok(), fits);
        }

        #[test]
        fn any_text_is_an_error_not_a_panic(text in any::<String>()) {
            let body = json!({"origin": text, "destination": 1});
            prop_assert!(NewOrder::parse(&body).is_err());
        }
    }
}
