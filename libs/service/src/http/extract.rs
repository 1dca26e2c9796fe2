//! Extractors whose refusals name the field, in the one error shape.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// A JSON object as body. Malformed JSON is 400, a wrong shape (an array in the object's place, too) 422 with the path of the field, too many bytes 413. The content type is not looked
/// at, because existing scripts do not always send one.
#[derive(Debug, Clone, Copy)]
pub struct Json<T>(pub T);

impl<T, S> FromRequest<S> for Json<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|rejection| match rejection.status() {
                StatusCode::PAYLOAD_TOO_LARGE => {
                    ApiError::too_large("the request body is larger than this server takes")
                }
                status => ApiError::new(status, rejection.body_text()),
            })?;
        parse_json(&bytes).map(Json)
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    if bytes.is_empty() {
        return Err(ApiError::malformed(
            "the request body is empty; a JSON object is expected",
        ));
    }
    // Structs would also be read from arrays, field by field; nobody means that.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(match serde_json::from_slice::<serde::de::IgnoredAny>(bytes) {
            Ok(_) => ApiError::invalid("the request body is JSON but no object; a JSON object is expected"),
            Err(error) => not_json(&error),
        });
    }
    if let Ok(value) = serde_json::from_slice(bytes) {
        return Ok(value);
    }
    // Once more, for the path of what is wrong: keeping it costs as much as reading.
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        match inner.classify() {
            serde_json::error::Category::Data if path == "." => ApiError::invalid(inner.to_string()),
            serde_json::error::Category::Data => ApiError::invalid(format!("{path}: {inner}")).with("field", path),
            _ => not_json(&inner),
        }
    })?;
    reader.end().map_err(|error| not_json(&error))?;
    Ok(value)
}

fn not_json(error: &serde_json::Error) -> ApiError {
    ApiError::malformed(format!("the request body is not valid JSON: {error}"))
}

/// Query parameters; a wrong one is 422 and named.
#[derive(Debug, Clone, Copy)]
pub struct Query<T>(pub T);

impl<T, S> FromRequestParts<S> for Query<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        axum::extract::Query::from_request_parts(parts, state)
            .await
            .map(|axum::extract::Query(value)| Self(value))
            .map_err(|rejection| {
                let text = rejection.body_text();
                let error = ApiError::invalid(text.as_str());
                match quoted(&text) {
                    Some(field) => error.with("field", field),
                    None => error,
                }
            })
    }
}

/// Parts of the path; one that cannot be read is 400.
#[derive(Debug, Clone, Copy)]
pub struct Path<T>(pub T);

impl<T, S> FromRequestParts<S> for Path<T>
where
    T: DeserializeOwned + Send,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        axum::extract::Path::from_request_parts(parts, state)
            .await
            .map(|axum::extract::Path(value)| Self(value))
            .map_err(|rejection| ApiError::malformed(format!("the path cannot be read: {}", rejection.body_text())))
    }
}

/// The name in a text like "duplicate field `limit`".
fn quoted(text: &str) -> Option<&str> {
    text.split('`').nth(1)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Order {
        #[serde(rename = "origin")]
        _origin: Point,
    }

    #[derive(Debug, Deserialize)]
    struct Point {
        #[serde(rename = "lat")]
        _lat: f64,
    }

    #[test]
    fn refusals_have_the_right_status_and_name_the_field() {
        let refuse = |text: &str| parse_json::<Order>(text.as_bytes()).unwrap_err();
        assert_eq!(refuse("").status, 400);
        assert_eq!(refuse("{\"origin\":").status, 400);
        assert_eq!(refuse("{\"origin\":{\"lat\":NaN}}").status, 400);
        assert_eq!(refuse("{\"origin\":{\"lat\":1}} x").status, 400);
        let wrong = refuse("{\"origin\":{\"lat\":\"north\"}}");
        assert_eq!(wrong.status, 422);
        assert!(
            wrong.detail.contains("origin.lat") && wrong.detail.contains("north"),
            "{}",
            wrong.detail
        );
        assert_eq!(wrong.body()["field"], "origin.lat");
        for no_object in ["[1]", " [{\"lat\":1}]", "null", "\"text\"", "7"] {
            assert_eq!(refuse(no_object).status, 422, "{no_object}");
        }
        assert_eq!(refuse("[1").status, 400);
    }
}
