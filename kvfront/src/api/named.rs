//! Changes that their clients have named, so that sending them again does not make them again.

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use kv_api::{REQUEST_ATTEMPT_HEADER, REQUEST_ID_HEADER};
use service::http::ApiError;

use crate::ops::{Attempt, OpError, Ops};

/// The headers that name a change, as they came.
#[derive(Debug)]
pub(super) struct Named {
    id: Option<String>,
    /// True for attempt 1, false for others, and when nothing is said.
    is_first: bool,
}

impl<S: Sync> FromRequestParts<S> for Named {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let id = text(&parts.headers, REQUEST_ID_HEADER);
        let is_first = match text(&parts.headers, REQUEST_ATTEMPT_HEADER) {
            None => false,
            Some(attempt) => match attempt.parse::<u32>() {
                Ok(number @ 1..) => number == 1,
                _ => {
                    let problem = format!("got {attempt:?}; a whole number from 1 is expected");
                    let field = REQUEST_ATTEMPT_HEADER;
                    return Err(OpError::Named { field, problem }.into());
                }
            },
        };
        Ok(Self { id, is_first })
    }
}

/// A header as text; what is no text is sure not to be understood.
fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?;
    Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
}

impl Named {
    /// The attempt at a single change; none when it is not named.
    pub(super) fn attempt(&self, ops: &Ops) -> Result<Option<Attempt>, OpError> {
        let name = self.id.as_deref();
        name.map(|name| ops.attempt(REQUEST_ID_HEADER, name, self.is_first))
            .transpose()
    }

    /// The attempt at one operation of a batch, which has a name of its own.
    pub(super) fn attempt_in_batch(&self, ops: &Ops, name: Option<&str>) -> Result<Option<Attempt>, OpError> {
        name.map(|name| ops.attempt("request_id", name, self.is_first))
            .transpose()
    }

    /// A batch has a name per operation, not one for all.
    pub(super) fn check_batch(&self) -> Result<(), OpError> {
        if self.id.is_some() {
            let problem = "a batch is not named as a whole; give a request_id per operation".to_owned();
            let field = REQUEST_ID_HEADER;
            return Err(OpError::Named { field, problem });
        }
        Ok(())
    }
}
