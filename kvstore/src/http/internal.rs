//! What coordinators ask: postcard in, postcard out.
//!
//! The sender's clock, and every ballot in the message, is merged into the node's clock or the whole message is refused with 409: a ballot
//! far in the future would otherwise lock its key until that future has come.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use register::message::{PageReply, PageRequest};
use register::{Envelope, EnvelopeReply, HlcTime, Key, Reply, Request};
use serde::Serialize;
use serde::de::DeserializeOwned;
use service::http::ApiError;

use super::not_served;
use crate::node::Node;

/// Largest message, in bytes.
pub const MAX_ENVELOPE_BYTES: usize = 16 * 1024 * 1024;
/// Most requests in one message.
pub const MAX_ENVELOPE_REQUESTS: usize = 4_096;
/// Most records in one page.
pub const MAX_PAGE_RECORDS: usize = 4_096;
/// Bytes of states in one answer, after which further ones are left out as [`Reply::Failed`] (safe: a promise that is not counted harms
/// nothing).
pub const MAX_REPLY_BYTES: usize = 64 * 1024 * 1024;
/// Longest text form of a key: the namespace's letter and the name.
const MAX_KEY_TEXT_BYTES: usize = 1 + kv_api::MAX_KEY_BYTES;

/// `POST /internal/exchange`
pub(super) async fn exchange(
    State(node): State<Arc<Node>>,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Result<Response, ApiError> {
    let envelope: Envelope = decode(&read_body(body)?)?;
    let count = envelope.requests.len();
    if count > MAX_ENVELOPE_REQUESTS {
        let detail = format!("requests: {count} in one message; at most {MAX_ENVELOPE_REQUESTS} are taken");
        return Err(ApiError::too_large(detail));
    }
    for (key, _) in &envelope.requests {
        check_key(key)?;
    }
    let latest = envelope
        .requests
        .iter()
        .map(|(_, request)| newest(request))
        .fold(envelope.clock, HlcTime::max);
    let store = node.store();
    node.observe(latest)
        .map_err(|error| ApiError::conflict(error.to_string()))?;

    // Reads do not wait for the writer; where each answer belongs is kept aside.
    let is_read: Vec<bool> = envelope
        .requests
        .iter()
        .map(|(_, request)| matches!(request, Request::Read))
        .collect();
    let (reads, writes): (Vec<_>, Vec<_>) = envelope
        .requests
        .into_iter()
        .partition(|(_, request)| matches!(request, Request::Read));
    let keys: Vec<Key> = reads.into_iter().map(|(key, _)| key).collect();
    let read = async {
        if keys.is_empty() {
            Vec::new()
        } else {
            store.read(&keys).await
        }
    };
    let write = async {
        if writes.is_empty() {
            Ok(Vec::new())
        } else {
            store.decide(writes).await
        }
    };
    let (held, decided) = tokio::join!(read, write);
    let mut decided = decided.map_err(|error| not_served(&error))?.into_iter();
    let mut held = held.into_iter().map(|held| match held {
        Ok(held) => Reply::Holds(held),
        Err(error) => Reply::Failed {
            reason: error.to_string(),
        },
    });
    let replies = is_read
        .iter()
        .map_while(|is_read| if *is_read { held.next() } else { decided.next() });
    let replies: Vec<Reply> = bound(replies).collect();
    debug_assert_eq!(replies.len(), count, "one reply per request");
    let progress = store.progress();
    encode(&EnvelopeReply {
        clock: store.clock().read(),
        incarnation: store.incarnation(),
        commit: progress.commit,
        floor: progress.floor,
        standing: register::Standing::Voting,
        replies,
    })
}

/// `POST /internal/page`
pub(super) async fn page(
    State(node): State<Arc<Node>>,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Result<Response, ApiError> {
    let request: PageRequest = decode(&read_body(body)?)?;
    let store = node.store();
    node.observe(request.clock)
        .map_err(|error| ApiError::conflict(error.to_string()))?;
    let limit = usize::try_from(request.limit)
        .unwrap_or(usize::MAX)
        .clamp(1, MAX_PAGE_RECORDS);
    let page = store
        .page(request.list, limit)
        .await
        .map_err(|error| not_served(&error))?;
    encode(&PageReply {
        clock: store.clock().read(),
        floor: page.floor,
        incarnation: store.incarnation(),
        standing: register::Standing::Voting,
        records: page.records,
        end: page.end,
    })
}

fn read_body(body: Result<Bytes, axum::extract::rejection::BytesRejection>) -> Result<Bytes, ApiError> {
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

fn encode<T: Serialize>(message: &T) -> Result<Response, ApiError> {
    let bytes = postcard::to_stdvec(message).map_err(|error| {
        ApiError::internal(format!("the answer cannot be encoded: {error}")).with("outcome", "unknown")
    })?;
    Ok(([(CONTENT_TYPE, "application/octet-stream")], bytes).into_response())
}

fn check_key(key: &Key) -> Result<(), ApiError> {
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

/// The newest reading a request carries.
fn newest(request: &Request) -> HlcTime {
    match request {
        Request::Read => HlcTime::ZERO,
        Request::Prepare { ballot }
        | Request::Install { ballot, .. }
        | Request::Forget { ballot }
        | Request::Retire { ballot }
        | Request::Collect { ballot } => ballot.time,
        Request::Accept { ballot, reserve, .. } => ballot.time.max(reserve.unwrap_or_default().time),
    }
}

/// Leaves states out once an answer has grown to [`MAX_REPLY_BYTES`].
fn bound(replies: impl Iterator<Item = Reply>) -> impl Iterator<Item = Reply> {
    let mut bytes = 0;
    replies.map(move |reply| {
        let (Reply::Holds(held) | Reply::Promised(held)) = &reply else {
            return reply;
        };
        let size = held.state.as_ref().map_or(0, register::State::size_bytes);
        if bytes + size > MAX_REPLY_BYTES {
            return Reply::Failed {
                reason: format!("the answer would be larger than {MAX_REPLY_BYTES} bytes; ask for less at once"),
            };
        }
        bytes += size;
        reply
    })
}

#[cfg(test)]
mod tests {
    use register::message::Held;
    use register::{Ballot, State as RegisterState};

    use super::*;

    #[test]
    fn answers_are_bounded_and_small_replies_still_pass() {
        let state = RegisterState {
            value: Some("x".repeat(MAX_REPLY_BYTES / 2 - 1_024).into()),
            version: Ballot::ZERO,
            fence: 0,
            expires_at_ms: None,
            lineage: register::Lineage::default(),
        };
        let held = Held {
            accepted: Ballot::ZERO,
            state: Some(state),
            promised: Ballot::ZERO,
            floor: Ballot::ZERO,
        };
        let replies = vec![
            Reply::Holds(held.clone()),
            Reply::Promised(held.clone()),
            Reply::Holds(held),
            Reply::Accepted { reserved: true },
        ];
        let bounded: Vec<Reply> = bound(replies.into_iter()).collect();
        assert!(matches!(
            bounded[..],
            [
                Reply::Holds(_),
                Reply::Promised(_),
                Reply::Failed { .. },
                Reply::Accepted { reserved: true }
            ]
        ));
    }
}
