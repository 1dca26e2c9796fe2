//! Orders from files: JSON lines and CSV.
//!
//! Each order has a time in seconds (`time`, or `at_sec` or `timestamp` as the order generator calls it; only differences count), an origin and a
//! destination, either as latitude and longitude in degrees or as km east (`x`) and north (`y`), and a `weight` in kg or a `class`; without both it is
//! light. JSON: `{"time":0,"origin":{"lat":41.9,"lon":12.5},"destination":{"x":…` CSV: a header with
//! `time,origin_lat,origin_lon,destination_lat,destination_lon,weight`, or `…_x`, `…_y`, in any order. Other fields are passed over, and so are
//! empty lines and lines that begin with `#`.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use dispatch_sim::{Order, Point};
use domain::drone::DroneType;
use domain::geo;
use serde_json::Value;

use crate::args::ORDERS_MAX;
use crate::routes::Frame;

/// Largest file, bytes.
const FILE_MAX: u64 = 512 << 20;

/// Farthest place from the origin of km, and longest time between two orders, a thousand years in seconds: no number that computing chokes on.
const KM_MAX: f64 = 100_000.0;
const SEC_MAX: f64 = 1e11;

/// An order as it stands in a file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Listed {
    pub(crate) order: Order,
    pub(crate) class: DroneType,
}

/// The orders of a file, by time, in km and minutes after the first, and where on the globe they are.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Book {
    pub(crate) orders: Vec<Listed>,
    pub(crate) frame: Frame,
}

/// What does not fit, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, {field}: {found}; expected {expected}")]
pub(crate) struct BadLine {
    line: usize,
    field: String,
    found: String,
    expected: &'static str,
}

/// The text of a file that is not too large.
pub(crate) fn text(path: &Path) -> anyhow::Result<String> {
    let size = fs::metadata(path)
        .with_context(|| format!("--orders {}", path.display()))?
        .len();
    if size > FILE_MAX {
        bail!("--orders {}: {size} bytes; expected at most {FILE_MAX}", path.display());
    }
    fs::read_to_string(path).with_context(|| format!("--orders {}: a text file is expected", path.display()))
}

/// The orders of a file.
pub(crate) fn read(text: &str) -> Result<Book, BadLine> {
    let lines = (1..).zip(text.lines().map(str::trim));
    let mut lines = lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .peekable();
    let mut raw = Vec::new();
    let mut last = 0;
    let header = match lines.peek() {
        Some((number, line)) if !line.starts_with('{') => {
            let header = Header::read(*number, line)?;
            last = *number;
            lines.next();
            Some(header)
        }
        _ => None,
    };
    for (number, line) in lines {
        last = number;
        if raw.len() == ORDERS_MAX {
            return Err(bad(number, "order", "one more", "at most 1000000 orders"));
        }
        raw.push(match &header {
            Some(header) => header.order(number, line)?,
            None => json_order(number, line)?,
        });
    }
    let Some(first) = raw.first() else {
        return Err(bad(last + 1, "order", "the end of the file", "an order"));
    };
    if let Some(other) = raw.iter().find(|order| order.ends.is_degrees != first.ends.is_degrees) {
        let expected = "degrees in all lines or km in all lines";
        return Err(bad(other.line, "origin", "other coordinates than before", expected));
    }
    let is_degrees = first.ends.is_degrees;
    Ok(flat(raw, is_degrees))
}

fn bad(line: usize, field: &str, found: &str, expected: &'static str) -> BadLine {
    BadLine {
        line,
        field: field.to_owned(),
        found: found.chars().take(60).collect(),
        expected,
    }
}

struct Raw {
    line: usize,
    sec: f64,
    ends: Ends,
    class: DroneType,
}

/// Origin and destination: km, or degrees as longitude and latitude.
struct Ends {
    is_degrees: bool,
    origin: Point,
    destination: Point,
}

/// What a line has under a name.
type Field<'a> = &'a dyn Fn(&str) -> Option<Value>;

/// Reads an order out of named fields.
fn order(line: usize, field: Field<'_>) -> Result<Raw, BadLine> {
    let number = |name: &str, low: f64, high: f64, expected: &'static str| {
        let value = field(name);
        let number = value
            .as_ref()
            .and_then(Value::as_f64)
            .filter(|number| (low..=high).contains(number));
        number.ok_or_else(|| bad(line, name, &shown(value.as_ref()), expected))
    };
    let name = ["time", "at_sec", "timestamp"]
        .into_iter()
        .find(|name| field(name).is_some())
        .unwrap_or("time");
    let sec = number(name, -SEC_MAX, SEC_MAX, "seconds")?;
    let is_degrees = field("origin.x").is_none();
    let place = |end: &str| {
        let name = |axis: &str| format!("{end}.{axis}");
        Ok(if is_degrees {
            let lat = number(&name("lat"), -90.0, 90.0, "degrees from -90 to 90 (or x and y, in km)")?;
            Point::new(number(&name("lon"), -180.0, 180.0, "degrees from -180 to 180")?, lat)
        } else {
            let axis = |axis| number(&name(axis), -KM_MAX, KM_MAX, "km, at most 100000 either way");
            Point::new(axis("x")?, axis("y")?)
        })
    };
    let ends = Ends {
        is_degrees,
        origin: place("origin")?,
        destination: place("destination")?,
    };
    let class = match (field("class"), field("weight")) {
        (Some(class), _) => DroneType::ALL
            .into_iter()
            .find(|kind| class.as_str() == Some(kind.name()))
            .ok_or_else(|| bad(line, "class", &shown(Some(&class)), "light, medium or heavy"))?,
        (None, None) => DroneType::Light,
        (None, Some(_)) => DroneType::for_weight(number("weight", f64::MIN_POSITIVE, 1e6, "kg, above 0")?),
    };
    Ok(Raw { line, sec, ends, class })
}

fn shown(value: Option<&Value>) -> String {
    value.map_or_else(|| "nothing".to_owned(), ToString::to_string)
}

fn json_order(line: usize, text: &str) -> Result<Raw, BadLine> {
    let value: Value =
        serde_json::from_str(text).map_err(|error| bad(line, "order", &error.to_string(), "an object in JSON"))?;
    order(line, &|name| {
        let found = name.split('.').try_fold(&value, |value, part| value.get(part))?;
        (!found.is_null()).then(|| found.clone())
    })
}

/// The columns of a CSV file.
struct Header {
    names: Vec<String>,
}

impl Header {
    fn read(line: usize, text: &str) -> Result<Self, BadLine> {
        let names: Vec<String> = text
            .split(',')
            .map(|name| {
                name.trim()
                    .trim_matches('"')
                    .replacen('_', ".", usize::from(is_end(name)))
            })
            .collect();
        if !names
            .iter()
            .any(|name| ["time", "at_sec", "timestamp"].contains(&name.as_str()))
        {
            let expected = "a header: time,origin_lat,origin_lon,destination_lat,destination_lon,weight (or …_x and …_y in km, and class); \
                            or orders in JSON, one per line";
            return Err(bad(line, "header", text, expected));
        }
        Ok(Self { names })
    }

    fn order(&self, line: usize, text: &str) -> Result<Raw, BadLine> {
        let values: Vec<&str> = text.split(',').map(|value| value.trim().trim_matches('"')).collect();
        if values.len() != self.names.len() {
            return Err(bad(
                line,
                "columns",
                &values.len().to_string(),
                "as many as the header has",
            ));
        }
        order(line, &|name| {
            let value = values[self.names.iter().position(|other| other == name)?];
            let number = value.parse::<f64>().ok().and_then(serde_json::Number::from_f64);
            (!value.is_empty()).then(|| number.map_or_else(|| Value::from(value), Value::Number))
        })
    }
}

/// Whether a column is a coordinate, `origin_x` or so.
fn is_end(name: &str) -> bool {
    let name = name.trim().trim_matches('"');
    name.starts_with("origin_") || name.starts_with("destination_")
}

/// By time, on a plane.
fn flat(mut raw: Vec<Raw>, is_degrees: bool) -> Book {
    // Stable: orders of the same second stay in the order of the file.
    raw.sort_by(|a, b| a.sec.total_cmp(&b.sec));
    let first_sec = raw.first().map_or(0.0, |order| order.sec);
    let lats = || {
        raw.iter()
            .flat_map(|order| [order.ends.origin.y, order.ends.destination.y])
    };
    let middle = f64::midpoint(
        lats().fold(f64::INFINITY, f64::min),
        lats().fold(f64::NEG_INFINITY, f64::max),
    );
    let frame = if is_degrees {
        Frame::at_latitude(middle)
    } else {
        Frame::of_rome()
    };
    let place = |point: Point| {
        if is_degrees {
            frame.point(geo::Point::new(point.y, point.x))
        } else {
            point
        }
    };
    let listed = (0..).zip(&raw).map(|(id, order)| Listed {
        order: Order {
            id,
            origin: place(order.ends.origin),
            destination: place(order.ends.destination),
            placed_min: (order.sec - first_sec) / 60.0,
        },
        class: order.class,
    });
    Book {
        orders: listed.collect(),
        frame,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = r#"
# Rome
{"time": 90, "origin": {"lat": 41.9, "lon": 12.5}, "destination": {"lat": 41.8, "lon": 12.5}, "weight": 8, "id": "b"}
{"at_sec": 30.0, "origin": {"lat": 41.8, "lon": 12.4}, "destination": {"lat": 41.9, "lon": 12.4}, "class": "medium"}
"#;

    #[test]
    fn json_lines_are_read_by_time() {
        let orders = read(JSON).unwrap().orders;
        let seen: Vec<_> = orders
            .iter()
            .map(|listed| (listed.order.id, listed.order.placed_min, listed.class))
            .collect();
        assert_eq!(seen, [(0, 0.0, DroneType::Medium), (1, 1.0, DroneType::Heavy)]);
        // A tenth of a degree of latitude is 11.12 km, one of longitude there 8.28 km.
        assert!((orders[0].order.direct_km() - 11.12).abs() < 0.01, "{orders:?}");
        let km = orders[0].order.origin.km_to(orders[1].order.destination);
        assert!((km - 8.29).abs() < 0.02, "{km}");
    }

    #[test]
    fn csv_is_read_with_its_columns_in_any_order() {
        let text = "weight, time,origin_x,origin_y,destination_x,destination_y\n2.5,0,0,0,3,4\n\n,60,1,1,2,1\n";
        let orders = read(text).unwrap().orders;
        assert_eq!(orders.len(), 2);
        assert!((orders[0].order.direct_km() - 5.0).abs() < 1e-12 && (orders[1].order.placed_min - 1.0).abs() < 1e-12);
        assert!(orders.iter().all(|listed| listed.class == DroneType::Light));
        let degrees =
            read("timestamp,origin_lat,origin_lon,destination_lat,destination_lon\n1800000000,41.8,12.4,41.9,12.4")
                .unwrap()
                .orders;
        assert!((degrees[0].order.direct_km() - 11.12).abs() < 0.01);
    }

    #[test]
    fn what_cannot_be_used_is_named_with_its_line() {
        const HEADER: &str = "time,origin_x,origin_y,destination_x,destination_y,weight\n";
        let line = JSON.lines().nth(2).unwrap();
        let json = |from: &str, to: &str| format!("\n{}", line.replace(from, to));
        for (text, named) in [
            (String::new(), "line 1, order: the end"),
            (HEADER.to_owned(), "line 2, order: the end"),
            ("a,b\n1,2\n".to_owned(), "line 1, header"),
            (format!("{HEADER}1,2\n"), "line 2, columns: 2"),
            (
                format!("{HEADER}1,2,3,4,5,6\n1,2,x,4,5,6"),
                "line 3, origin.y: \"x\"; expected km",
            ),
            (
                format!("{HEADER}NaN,2,3,4,5,6"),
                "line 2, time: \"NaN\"; expected seconds",
            ),
            (format!("{HEADER}1,2,3,4,5,0"), "line 2, weight: 0.0; expected kg"),
            (format!("{HEADER}1,2,3,4,,6"), "line 2, destination.y: nothing"),
            (json("90", "\"noon\""), "line 2, time: \"noon\""),
            (json("\"time\": 90, ", ""), "line 2, time: nothing"),
            (json("41.9", "91"), "line 2, origin.lat: 91"),
            (
                json("12.5}, \"weight\"", "212.5}, \"weight\""),
                "line 2, destination.lon: 212.5",
            ),
            (json("\"weight\": 8", "\"weight\": -8"), "line 2, weight: -8"),
            (
                json("\"weight\": 8", "\"class\": \"huge\""),
                "line 2, class: \"huge\"; expected light",
            ),
            (format!("{line}\n{{"), "line 2, order"),
            (
                format!("{line}\n{}", line.replace("lat", "y").replace("lon", "x")),
                "line 2, origin: other coordinates",
            ),
        ] {
            let error = read(&text).unwrap_err().to_string();
            assert!(error.contains(named) && error.contains("expected"), "{named}: {error}");
        }
    }
}
