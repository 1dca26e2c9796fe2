//! From the bytes of `POST /deliveries` to a valid order.
//!
//! JSON knows no `NaN` and no `Infinity`, but many writers send them (Python's among them). They would make the whole
//! body "malformed"; this turns them into a value that the validation can name: the answer is 422 and says which field.

use domain::order::NewOrder;
use domain::priority::Priority;
use serde_json::Value;
use service::http::ApiError;

/// Reads and validates an order.
///
/// # Errors
/// 400 for what is no JSON, 422 naming the field for everything else.
pub(crate) fn parse_order(body: &[u8]) -> Result<NewOrder, ApiError> {
    if body.is_empty() {
        return Err(ApiError::malformed(
            "the request body is empty; a JSON object is expected",
        ));
    }
    let value = read_json(body)?;
    NewOrder::parse(&value).map_err(|error| ApiError::invalid(error.to_string()).with("field", error.field))
}

/// The order in one fixed form, whatever spelling its JSON had: `80` and `80.0`, `0` and `-0` are the same.
pub(crate) fn canonical(order: &NewOrder) -> String {
    let [a, b, c, d, weight] = [
        order.origin.lat,
        order.origin.lon,
        order.destination.lat,
        order.destination.lon,
        order.weight,
    ]
    .map(|number| number + 0.0);
    // Said or not, normal is normal; `0` as it was before priorities had names, for keys that are remembered.
    let priority = match order.priority.unwrap_or_default() {
        Priority::Normal => "0",
        other => other.name(),
    };
    let deadline = order
        .deadline
        .map(|deadline| format!(",{deadline:?}"))
        .unwrap_or_default();
    format!("{a:?},{b:?},{c:?},{d:?},{weight:?},{priority}{deadline}")
}

fn read_json(body: &[u8]) -> Result<Value, ApiError> {
    serde_json::from_slice(body).or_else(|error| {
        quote_non_finite(body)
            .and_then(|mended| serde_json::from_str(&mended).ok())
            .ok_or_else(|| ApiError::malformed(format!("the request body is not valid JSON: {error}")))
    })
}

/// The text with every number that is not finite (`NaN`, `-Infinity`, `1e999`) put in quotes; `None` when there is
/// none.
fn quote_non_finite(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let mut out = String::with_capacity(text.len() + 8);
    let mut found = false;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let len = match first {
            '"' => string_len(rest),
            c if is_word(c) => rest.find(|c: char| !is_word(c)).unwrap_or(rest.len()),
            c => c.len_utf8(),
        };
        let (token, after) = rest.split_at(len);
        // Rust reads the same spellings, and reads too large numbers as infinite.
        if is_word(first) && token.parse::<f64>().is_ok_and(|number| !number.is_finite()) {
            found = true;
            out.push('"');
            out.push_str(token);
            out.push('"');
        } else {
            out.push_str(token);
        }
        rest = after;
    }
    found.then_some(out)
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.')
}

/// Length in bytes of the string literal at the beginning of `text`, quotes included.
fn string_len(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    fn refuse(weight: &str) -> ApiError {
        let point = r#"{"lat":41.9,"lon":12.5}"#;
        let body = format!(r#"{{"note":"NaN \" 1e999","origin":{point},"destination":{point},"weight":{weight}}}"#);
        parse_order(body.as_bytes()).unwrap_err()
    }

    #[test]
    fn numbers_that_are_not_finite_are_named() {
        for weight in ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "nan"] {
            let error = refuse(weight);
            assert_eq!(error.status, 422, "{weight}");
            assert_eq!(error.body()["field"], "weight");
            assert!(error.detail.contains(weight), "{}", error.detail);
        }
    }

    #[test]
    fn what_is_no_json_is_malformed() {
        for weight in ["", "1,", "[", "NaN]", "0x10", "1 2"] {
            assert_eq!(refuse(weight).status, 400, "{weight}");
        }
        assert_eq!(parse_order(b"").unwrap_err().status, 400);
        assert_eq!(parse_order(b"\xff\xfe").unwrap_err().status, 400);
        assert_eq!(parse_order("[".repeat(10_000).as_bytes()).unwrap_err().status, 400);
        assert_eq!(parse_order(b"[1]").unwrap_err().status, 422);
    }

    #[test]
    fn spelling_does_not_matter() {
        let order = |text: &str| canonical(&parse_order(text.as_bytes()).unwrap());
        let plain = order(r#"{"origin":{"lat":0,"lon":12.5},"destination":{"lat":41.9,"lon":12.5},"weight":80}"#);
        let other = order(
            r#"{"weight":8e1,"x":1,"destination":{"lon":12.50,"lat":41.9},"origin":{"lat":-0.0,"lon":12.5},"priority":0}"#,
        );
        assert_eq!(plain, other);
        let heavier = order(r#"{"origin":{"lat":0,"lon":12.5},"destination":{"lat":41.9,"lon":12.5},"weight":80.5}"#);
        assert_ne!(plain, heavier);
        let wish = |wish: &str| {
            let places = r#""origin":{"lat":0,"lon":12.5},"destination":{"lat":41.9,"lon":12.5}"#;
            order(&format!(r#"{{{places},"weight":80,{wish}}}"#))
        };
        assert_eq!(wish(r#""priority":"normal""#), plain);
        assert_eq!(wish(r#""deadline":1.8e9"#), wish(r#""deadline":1800000000"#));
        let all = [
            r#""priority":"low""#,
            r#""priority":"high""#,
            r#""deadline":1.8e9"#,
            r#""deadline":1.9e9"#,
        ]
        .map(wish);
        for (index, one) in all.iter().enumerate() {
            assert!(*one != plain && !all[..index].contains(one), "{one}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer_not_a_panic(bytes in any::<Vec<u8>>()) {
            let _ = parse_order(&bytes);
        }

        #[test]
        fn any_text_is_an_answer_not_a_panic(text in "[\"\\\\NaInfity0-9eE+.,:{}\\[\\] ü-]*") {
            let _ = parse_order(text.as_bytes());
        }
    }
}
