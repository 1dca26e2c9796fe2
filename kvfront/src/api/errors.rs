//! Errors as HTTP answers: the one place where a status is chosen.

use kv_api::ApiRuleError;
use service::http::ApiError;

use crate::front::NotStarted;
use crate::ops::OpError;

/// Seconds after which a 503 suggests to try again.
const RETRY_AFTER_SEC: u64 = 1;

impl From<OpError> for ApiError {
    fn from(error: OpError) -> Self {
        let detail = error.to_string();
        match error {
            OpError::NotFound => Self::not_found(detail),
            OpError::Rule(rule) => rule_error(&rule),
            OpError::Invalid(_) => Self::invalid(detail),
            OpError::Named { field, .. } => Self::invalid(detail).with("field", field),
            OpError::TooLarge { .. } => Self::too_large(detail),
            OpError::NotStarted(reason) => not_started(&reason),
            OpError::Unavailable {
                answered,
                needed,
                of,
                silent,
                ..
            } => Self::unavailable(detail)
                .with("answered", answered)
                .with("needed", needed)
                .with("replicas", of)
                .with("silent", silent)
                .retry_after_sec(RETRY_AFTER_SEC),
            OpError::Unknown(_) => Self::outcome_unknown(detail),
            OpError::Corrupt(_) | OpError::Internal(_) => Self::internal(detail),
        }
    }
}

/// A broken rule of the API: 400 when it cannot be read, 422 when it is readable but not allowed.
pub(super) fn rule_error(rule: &ApiRuleError) -> ApiError {
    if rule.is_malformed() {
        ApiError::malformed(rule.to_string())
    } else {
        ApiError::invalid(rule.to_string())
    }
}

/// 503: nothing was started.
pub(super) fn not_started(reason: &NotStarted) -> ApiError {
    ApiError::unavailable(reason.to_string()).retry_after_sec(RETRY_AFTER_SEC)
}
