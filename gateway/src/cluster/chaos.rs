//! Breaking things on purpose: forwarded to the demo's control port when `CHAOS_URL` is set, unknown otherwise.

use axum::extract::{Path, State};
use axum::response::Response;
use http::HeaderMap;
use service::http::ApiError;

use super::{Shared, json_answer};

/// Has to be there on what breaks things. Pages of other origins cannot send it without being asked for permission, which they are not
/// given.
const HEADER: &str = "x-chaos";

/// `GET /chaos`: what can be broken, and how it is.
pub(super) async fn list(State(Shared { view, .. }): State<Shared>) -> Result<Response, ApiError> {
    let url = view.chaos_url.as_ref().ok_or_else(off)?;
    let got = view.fetcher.get(&format!("{url}/chaos")).await;
    got.map(|got| json_answer(got.status, got.body))
        .map_err(ApiError::unavailable)
}

/// `POST /chaos/{service}/{action}`
pub(super) async fn act(
    State(Shared { view, .. }): State<Shared>,
    Path((service, action)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let url = view.chaos_url.as_ref().ok_or_else(off)?;
    if !headers.contains_key(HEADER) {
        return Err(ApiError::malformed("the header X-Chaos is missing: any value will do"));
    }
    let is_name =
        |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    if !is_name(&service) || !is_name(&action) {
        return Err(ApiError::malformed(
            "names of services and actions consist of letters, digits, `_` and `-`",
        ));
    }
    let got = view.fetcher.post(&format!("{url}/chaos/{service}/{action}")).await;
    got.map(|got| json_answer(got.status, got.body))
        .map_err(ApiError::unavailable)
}

fn off() -> ApiError {
    ApiError::not_found("Not Found")
}
