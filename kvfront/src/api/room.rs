//! Refusing a batch before it is taken apart.
//!
//! To read the JSON of a large batch costs more than to refuse it. Clients that do not wait before they try again would otherwise keep
//! kvfront so busy with what it refuses that it does nothing else.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use tokio::time::timeout;

use super::{Api, BATCH_BODY_MAX_BYTES, errors};

/// How long the body of a refused batch is still taken in. After that its connection is closed, and the client may miss the refusal.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Lets a batch through while there is room for the largest; how large it is shows only when it has been read.
pub(super) async fn for_a_batch(State(api): State<Api>, request: Request, next: Next) -> Response {
    match api.front().room_for(super::batch::BATCH_PARALLEL_KEYS) {
        Ok(()) => next.run(request).await,
        Err(reason) => {
            // An answer in the middle of a request ends the connection, and with it the answer may be lost.
            let _ = timeout(DRAIN_TIMEOUT, drain(request.into_body())).await;
            errors::not_started(&reason).into_response()
        }
    }
}

/// Takes in what a batch may have at most, and keeps none of it.
async fn drain(mut body: Body) {
    let mut bytes = 0;
    while let Some(Ok(frame)) = body.frame().await {
        bytes += frame.data_ref().map_or(0, bytes::Bytes::len);
        if bytes > BATCH_BODY_MAX_BYTES {
            return;
        }
    }
}
