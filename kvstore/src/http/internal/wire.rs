//! Bodies as postcard, and what a message may contain.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use register::Key;
use serde::Serialize;
use serde::de::DeserializeOwned;
use service::http::ApiError;

use super::MAX_ENVELOPE_BYTES;

/// Longest text form of a key: the namespace's letter and the name.
const MAX_KEY_TEXT_BYTES: usize = 1 + kv_api::MAX_KEY_BYTES;

/// Room for a short message at once.
const HEAD_BYTES: usize = 128;

/// The message in a body.
pub(super) fn read<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>) -> Result<T, ApiError> {
    decode(&read_body(body)?)
}

fn read_body(body: Result<Bytes, BytesRejection>) -> Result<Bytes, ApiError> {
    body.map_err(|rejection| match rejection.status() {
        axum::http::StatusCode::PAYLOAD_TOO_LARGE => {
            ApiError::too_large(format!("the message is larger than {MAX_ENVELOPE_BYTES} bytes"))
        }
        status => ApiError::new(status, rejection.body_text()),
    })
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let malformed =
        |error: &dyn std::fmt::Display| ApiError::malformed(format!("the body is no postcard message: {error}"));
    let (message, rest) = postcard::take_from_bytes(body).map_err(|error| malformed(&error))?;
    if rest.is_empty() {
        Ok(message)
    } else {
        Err(malformed(&format!("{} bytes too many", rest.len())))
    }
}

pub(super) fn encode<T: Serialize>(message: &T) -> Result<Response, ApiError> {
    encode_before(message, &[])
}

/// The message, with what is encoded already behind it.
pub(super) fn encode_before<T: Serialize>(message: &T, rest: &[u8]) -> Result<Response, ApiError> {
    let room = Vec::with_capacity(HEAD_BYTES + rest.len());
    let mut bytes = postcard::to_extend(message, room).map_err(|error| {
        ApiError::internal(format!("the answer cannot be encoded: {error}")).with("outcome", "unknown")
    })?;
    bytes.extend_from_slice(rest);
    Ok(([(CONTENT_TYPE, "application/octet-stream")], bytes).into_response())
}

pub(super) fn check_key(key: &Key) -> Result<(), ApiError> {
    let text = key.as_text();
    // Messages are decoded without the constructors that would check.
    if Key::from_text(text).is_none() || text.len() < 2 || text.len() > MAX_KEY_TEXT_BYTES {
        let shown: String = text.chars().take(64).collect();
        let expected = "the letter d or l and 1 to 1024 bytes of name";
        return Err(ApiError::malformed(format!(
            "key {shown:?} with {} bytes: {expected} are expected",
            text.len()
        )));
    }
    Ok(())
}
