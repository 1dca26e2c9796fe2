//! One call over HTTP, and what it tells the client by the contract of docs/api.md.
//!
//! No client library in between: what is judged is what goes over the wire.

use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;

/// A client that waits longer than this takes the outcome for unknown. Beyond kvfront's own deadline (2 s and a margin of 1 s).
const CALL_TIMEOUT: Duration = Duration::from_secs(4);
/// A kvfront that takes no connection within this time is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// What a client knows after a call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Told {
    /// It was answered.
    Answer { status: u16, body: Value },
    /// Nothing was changed, for this reason.
    NotDone(String),
    /// A change may or may not take effect, for this reason.
    Unknown(String),
    /// An answer that no well-formed call should get.
    Wrong(String),
}

/// A client with connections of its own.
pub(crate) fn client() -> Client {
    patient_client(CALL_TIMEOUT)
}

/// The same, for calls that may take longer than an operation's deadline.
pub(crate) fn patient_client(call_timeout: Duration) -> Client {
    Client::builder()
        .no_proxy()
        .timeout(call_timeout)
        .connect_timeout(CONNECT_TIMEOUT)
        // A call that is quietly sent twice would not be the one that is judged.
        .retry(reqwest::retry::never())
        .build()
        .expect("no TLS, nothing to fail")
}

/// Makes one call.
pub(crate) async fn call(http: &Client, method: Method, url: String, body: Option<&Value>) -> Told {
    send(http.request(method, url), body).await
}

/// Makes one attempt (the first is 1) at a change that has a name of its own.
pub(crate) async fn attempt(
    http: &Client,
    (method, url, body): (Method, String, Option<&Value>),
    name: &str,
    attempt: u32,
) -> Told {
    let request = http
        .request(method, url)
        .header("Request-Id", name)
        .header("Request-Attempt", attempt);
    send(request, body).await
}

async fn send(mut request: RequestBuilder, body: Option<&Value>) -> Told {
    if let Some(body) = body {
        request = request.json(body);
    }
    let answer = match request.send().await {
        Ok(answer) => answer,
        // No connection, no call.
        Err(error) if error.is_connect() => return Told::NotDone(error.to_string()),
        Err(error) => return Told::Unknown(error.to_string()),
    };
    let status = answer.status().as_u16();
    match answer.bytes().await {
        Ok(bytes) => match serde_json::from_slice(&bytes) {
            Ok(body) => told(status, body),
            Err(error) => Told::Wrong(format!("{status} without JSON ({error})")),
        },
        Err(error) => Told::Unknown(error.to_string()),
    }
}

/// What an answer means; also one of a batch.
pub(crate) fn told(status: u16, body: Value) -> Told {
    match status {
        200 | 404 => Told::Answer { status, body },
        503 if body["outcome"] == "unknown" => Told::Unknown(body.to_string()),
        503 => Told::NotDone(body.to_string()),
        _ => Told::Wrong(format!("{status} {body}")),
    }
}
