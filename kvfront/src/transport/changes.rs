//! A node's feed of changes, asked by long polling over a connection of its own.
//!
//! Apart from the lanes: a poll that waits for a change is no sign that the node is away, so nothing here suspects it.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use register::message::{ChangesReply, ChangesRequest};
use tokio::time::timeout;

use super::connected;
use super::connection::Connection;
use crate::front::Front;

/// The path of the feed.
const CHANGES_PATH: &str = "/internal/changes";
/// Beyond the wait that was asked for, how long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// From where on a node's changes are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// The incarnation that `after_commit` counts in.
    pub(crate) incarnation: u64,
    /// Changes after this commit number.
    pub(crate) after_commit: u64,
    /// At most this many.
    pub(crate) limit: u32,
    /// How long the node may wait for the first.
    pub(crate) wait: Duration,
}

/// The way to one node's feed. One question at a time.
#[derive(Debug, Default)]
pub(crate) struct ChangesLine {
    slot: Option<Connection>,
}

impl ChangesLine {
    /// Asks for a stretch of the feed of the node of this number.
    ///
    /// # Errors
    /// Why there was no usable answer, for the log. The clock of an answer that was used has been merged.
    pub(crate) async fn ask(&mut self, front: &Front, node: usize, stretch: Stretch) -> Result<ChangesReply, String> {
        let result = self.ask_inner(front, node, stretch).await;
        if result.is_err() {
            self.slot = None;
        }
        result
    }

    async fn ask_inner(&mut self, front: &Front, node: usize, stretch: Stretch) -> Result<ChangesReply, String> {
        let request = ChangesRequest {
            clock: front.clocks.tick(),
            sender: front.clocks.incarnation(),
            epoch: front.ring.epoch(),
            incarnation: stretch.incarnation,
            after_commit: stretch.after_commit,
            limit: stretch.limit,
            wait_ms: u32::try_from(stretch.wait.as_millis()).unwrap_or(u32::MAX),
        };
        let body = postcard::to_stdvec(&request).map_err(|e| format!("cannot be encoded: {e}"))?;
        let authority = &front.ring.backends()[node].authority;
        let exchange = async {
            let connection = connected(&mut self.slot, authority).await?;
            connection.post(authority, CHANGES_PATH, Bytes::from(body)).await
        };
        let (status, body) = timeout(stretch.wait + ANSWER_TIMEOUT, exchange)
            .await
            .map_err(|_| format!("no answer within {:?}", stretch.wait + ANSWER_TIMEOUT))?
            .map_err(|e| e.reason)?;
        if status != StatusCode::OK {
            let detail: String = String::from_utf8_lossy(&body).chars().take(200).collect();
            return Err(format!("the node answered {status}: {detail}"));
        }
        let reply: ChangesReply = postcard::from_bytes(&body).map_err(|e| format!("the answer cannot be read: {e}"))?;
        front.clocks.observe(reply.clock).map_err(|e| e.to_string())?;
        Ok(reply)
    }
}
