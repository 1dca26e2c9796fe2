//! One HTTP/1.1 connection to a node, owned by one task, and nothing sent twice.
//!
//! A pooling client may quietly send a request again on another connection. Here that would be wrong: whether a change was *sent*
//! decides whether it may be started over (`register::proposer`). So the connection is ours, and each failure says whether the request
//! can have reached the node.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A TCP connection that is not there by then counts as refused.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_millis(300);
/// The largest reply that is read. A node whose reply would be larger is sent smaller envelopes.
pub(super) const MAX_REPLY_BYTES: usize = 64 << 20;

/// An open connection.
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PostError {
    /// False when the request certainly never reached the node.
    pub(super) delivered: bool,
    /// True when the reply was larger than [`MAX_REPLY_BYTES`].
    pub(super) too_large: bool,
    /// True when the node answered, and will not do it.
    pub(super) refused: bool,
    /// For logs, metrics and the 503.
    pub(super) reason: String,
}

impl PostError {
    /// Nothing was sent.
    pub(super) fn unsent(reason: impl Into<String>) -> Self {
        Self {
            delivered: false,
            too_large: false,
            refused: false,
            reason: reason.into(),
        }
    }

    /// The node said no before it looked at anything: as if nothing was sent.
    pub(super) fn refused(reason: impl Into<String>) -> Self {
        Self {
            refused: true,
            ..Self::unsent(reason)
        }
    }

    /// Something may have been sent.
    pub(super) fn sent(reason: impl Into<String>) -> Self {
        Self {
            delivered: true,
            too_large: false,
            refused: false,
            reason: reason.into(),
        }
    }
}

impl Connection {
    /// Connects, within [`CONNECT_TIMEOUT`]. Fails only before anything was sent.
    pub(super) async fn open(authority: &str) -> Result<Self, PostError> {
        let connect = async {
            let stream = TcpStream::connect(authority)
                .await
                .map_err(|e| PostError::unsent(format!("cannot connect: {e}")))?;
            // Envelopes are whole messages: waiting for more to send would only add delay.
            stream
                .set_nodelay(true)
                .map_err(|e| PostError::unsent(format!("cannot set TCP_NODELAY: {e}")))?;
            handshake(TokioIo::new(stream))
                .await
                .map_err(|e| PostError::unsent(format!("cannot connect: {e}")))
        };
        let (sender, connection) = timeout(CONNECT_TIMEOUT, connect)
            .await
            .map_err(|_| PostError::unsent(format!("no connection within {} ms", CONNECT_TIMEOUT.as_millis())))??;
        // Ends when the sender is dropped or the peer closes; its error reaches the request that was under way.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to a node ended");
            }
        });
        Ok(Self { sender })
    }

    /// True when the peer has closed the connection.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Sends one request and reads the whole answer. The caller sets the time limit, and drops the connection after any error.
    pub(super) async fn post(
        &mut self,
        authority: &str,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), PostError> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(header::HOST, authority)
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .body(Full::new(body))
            .map_err(|e| PostError::unsent(format!("no valid request: {e}")))?;
        self.sender
            .ready()
            .await
            .map_err(|e| PostError::unsent(format!("connection closed: {e}")))?;
        let response = self.sender.try_send_request(request).await.map_err(|mut e| {
            // hyper hands the message back exactly when none of it was written.
            let delivered = e.take_message().is_none();
            PostError {
                delivered,
                ..PostError::sent(describe(e.error()))
            }
        })?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_REPLY_BYTES)
            .collect()
            .await
            .map_err(|e| PostError {
                too_large: e.is::<LengthLimitError>(),
                ..PostError::sent(format!("the answer broke off: {e}"))
            })?;
        Ok((status, body.to_bytes()))
    }
}

/// An error with its causes, which hyper keeps apart.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
