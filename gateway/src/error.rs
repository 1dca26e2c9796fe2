//! What the KV's errors mean to a client of the API.

use kv_client::KvError;
use service::http::ApiError;

/// Seconds after which a client should try again while the KV has no quorum.
const RETRY_AFTER_SEC: u64 = 1;

/// The answer for a failed KV call that has no better story to tell.
pub(crate) fn api_error(error: &KvError) -> ApiError {
    match error {
        KvError::Unavailable { detail } | KvError::Unreachable { detail } => {
            ApiError::unavailable(detail.clone()).retry_after_sec(RETRY_AFTER_SEC)
        }
        KvError::Unknown { detail } => ApiError::outcome_unknown(detail.clone()),
        KvError::Rejected { .. } | KvError::Decode { .. } => ApiError::internal(error.to_string()),
        KvError::Invalid { detail } => ApiError::invalid(detail.clone()),
    }
}
