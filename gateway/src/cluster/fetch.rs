//! One bounded HTTP question.

use std::time::Duration;

use anyhow::Context;
use axum::body::Bytes;
use http::StatusCode;
use reqwest::{Client, RequestBuilder};

/// Longest wait for an answer, its body included.
const FETCH_TIMEOUT: Duration = Duration::from_millis(2_500);
/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Largest answer, in bytes: the metrics of a load balancer with hundreds of gateways.
const ANSWER_MAX_BYTES: usize = 4 << 20;

/// Asks.
#[derive(Debug)]
pub(super) struct Fetcher(Client);

/// What was answered, whatever the status.
#[derive(Debug)]
pub(super) struct Got {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
    /// Whom it is from.
    from: String,
}

impl Got {
    /// The body of a success; an error that says who refused, and how.
    pub(super) fn success(self) -> Result<Bytes, String> {
        if self.status.is_success() {
            Ok(self.body)
        } else {
            Err(format!("{} answered {}", self.from, self.status))
        }
    }
}

impl Fetcher {
    pub(super) fn new() -> anyhow::Result<Self> {
        let client = Client::builder()
            // What is asked is inside: a proxy named in the environment has no business with it.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(FETCH_TIMEOUT)
            .build()
            .context("the HTTP client of the cluster view cannot be built")?;
        Ok(Self(client))
    }

    /// # Errors
    /// Nobody answered in time, or too much; in words, without the URL's user and password.
    pub(super) async fn get(&self, url: &str) -> Result<Got, String> {
        self.send(url, self.0.get(url)).await
    }

    /// As [`Self::get`], with an empty POST.
    pub(super) async fn post(&self, url: &str) -> Result<Got, String> {
        self.send(url, self.0.post(url)).await
    }

    async fn send(&self, url: &str, request: RequestBuilder) -> Result<Got, String> {
        let from = host_of(url);
        let failed = |error: &reqwest::Error| {
            let what = match error {
                error if error.is_timeout() => "did not answer in time",
                error if error.is_connect() => "cannot be reached",
                _ => "broke off",
            };
            format!("{from} {what}")
        };
        let mut answer = request.send().await.map_err(|error| failed(&error))?;
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| failed(&error))? {
            if body.len() + chunk.len() > ANSWER_MAX_BYTES {
                return Err(format!("{from} answered more than {ANSWER_MAX_BYTES} bytes"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Got {
            status: answer.status(),
            body: body.into(),
            from,
        })
    }
}

/// `host:port` of a URL: for people, without a password.
fn host_of(url: &str) -> String {
    let behind = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = behind.split('/').next().unwrap_or_default();
    authority.rsplit('@').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::host_of;

    #[test]
    fn errors_name_no_password() {
        assert_eq!(
            host_of("http://drone:secret@rabbitmq:15672/api/queues"),
            "rabbitmq:15672"
        );
        assert_eq!(host_of("http://lb:8080"), "lb:8080");
    }
}
