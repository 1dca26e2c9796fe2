//! What coordinators ask: postcard in, postcard out.
//!
//! A message from another ring is refused with 409 before anything of it is looked at. Then the sender's clock, and every ballot in the
//! message, is merged into the node's clock, or the whole message is refused with 409: a ballot far in the future would otherwise lock its
//! key until that future has come. The field `refused` says which it was, `ring` or `clock`; with 503 it is `stopping`. Whatever carries
//! that field was refused as a whole, with nothing of it done.

mod wire;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::Response;
use register::hashing::{LEAVES, PARTITIONS};
use register::membership::NodeRequest;
use register::message::{
    ChangesReply, ChangesRequest, HashReply, HashRequest, List, NodeEnvelope, NodeEnvelopeReply, PageReply, PageRequest,
};
use register::scan::{ScanHead, ScanRequest};
use register::{Envelope, EnvelopeReply, Epoch, HlcTime, Key, Reply, Request};
use service::http::ApiError;

use super::not_served;
use crate::node::Node;
use crate::storage::{MAX_PEERS, StoreError};
use wire::{check_key, encode, encode_before, read};

/// Largest message, in bytes.
pub const MAX_ENVELOPE_BYTES: usize = 16 * 1024 * 1024;
/// Largest message of the other calls, in bytes: every leaf of the hash tree, or every node remembered, fits.
pub const MAX_QUESTION_BYTES: usize = 1024 * 1024;
/// Most requests in one message.
pub const MAX_ENVELOPE_REQUESTS: usize = 4_096;
/// Most records in one page.
pub const MAX_PAGE_RECORDS: usize = 4_096;
/// Most changes in one answer.
pub const MAX_CHANGES: usize = 4_096;
/// Longest wait for a change.
pub const MAX_CHANGES_WAIT: Duration = Duration::from_secs(10);
/// Longest name of a node, in bytes.
pub const MAX_PEER_NAME_BYTES: usize = 1_024;
/// Bytes of states in one answer, after which further ones are left out as [`Reply::Failed`] (safe: a promise that is not counted harms
/// nothing).
pub const MAX_REPLY_BYTES: usize = 64 * 1024 * 1024;
/// How far beyond the sender's clock a floor may lie, in skew bounds. A floor is meant to be above every ballot that may have been drawn,
/// so it lies in the future, but never far.
const MAX_FLOOR_SKEWS: u64 = 4;

type Body = Result<Bytes, BytesRejection>;
type SharedNode = State<Arc<Node>>;

/// `POST /internal/exchange`
pub(super) async fn exchange(State(node): SharedNode, body: Body) -> Result<Response, ApiError> {
    let envelope: Envelope = read(body)?;
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
        .map(|(_, request)| request.newest())
        .fold(envelope.clock, HlcTime::max);
    take(&node, envelope.sender, envelope.epoch, envelope.clock, latest).await?;
    let store = node.store();

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
    let mut decided = decided.map_err(|error| not_taken(&error))?.into_iter();
    let mut held = held.into_iter();
    let replies = is_read
        .iter()
        .map_while(|is_read| if *is_read { held.next() } else { decided.next() });
    let replies: Vec<Reply> = bound(replies).collect();
    debug_assert_eq!(replies.len(), count, "one reply per request");
    let progress = store.progress();
    encode(&EnvelopeReply {
        clock: store.clock().read(),
        incarnation: progress.incarnation,
        commit: progress.commit,
        floor: progress.floor,
        standing: progress.standing,
        replies,
    })
}

/// `POST /internal/page`
pub(super) async fn page(State(node): SharedNode, body: Body) -> Result<Response, ApiError> {
    let request: PageRequest = read(body)?;
    if let List::Leaves { leaves, .. } = &request.list {
        let known = |leaf: &u32| usize::try_from(*leaf).is_ok_and(|leaf| leaf < LEAVES);
        if leaves.len() > LEAVES || !leaves.iter().all(known) {
            let detail = format!("leaves: at most {LEAVES}, each below {LEAVES}, are expected");
            return Err(ApiError::malformed(detail));
        }
    }
    take(&node, request.sender, request.epoch, request.clock, request.clock).await?;
    let store = node.store();
    let page = store
        .page(request.list, page_limit(request.limit))
        .await
        .map_err(|error| not_served(&error))?;
    encode(&PageReply {
        clock: store.clock().read(),
        floor: page.floor,
        incarnation: page.incarnation,
        standing: page.standing,
        records: page.records,
        end: page.end,
    })
}

/// How many records a page has that was asked for with this limit.
fn page_limit(asked: u32) -> usize {
    usize::try_from(asked).unwrap_or(usize::MAX).clamp(1, MAX_PAGE_RECORDS)
}

/// `POST /internal/scan`
pub(super) async fn scan(State(node): SharedNode, body: Body) -> Result<Response, ApiError> {
    let request: ScanRequest = read(body)?;
    take(&node, request.sender, request.epoch, request.clock, request.clock).await?;
    let store = node.store();
    let page = store
        .scan(request.range, page_limit(request.limit))
        .await
        .map_err(|error| not_served(&error))?;
    let head = ScanHead {
        clock: store.clock().read(),
        floor: page.floor,
        incarnation: page.incarnation,
        standing: page.standing,
        end: page.end,
        records: page.count,
    };
    encode_before(&head, &page.records)
}

/// `POST /internal/node`
pub(super) async fn node(State(node): SharedNode, body: Body) -> Result<Response, ApiError> {
    let NodeEnvelope {
        clock,
        sender,
        epoch,
        request,
    } = read(body)?;
    check_node_request(&node, clock, &request)?;
    take(&node, sender, epoch, clock, clock).await?;
    let (done, status) = node
        .store()
        .node(request, epoch)
        .await
        .map_err(|error| refused(&node, &error))?;
    encode(&NodeEnvelopeReply {
        clock: node.store().clock().read(),
        done,
        status,
    })
}

/// `POST /internal/hashes`
pub(super) async fn hashes(State(node): SharedNode, body: Body) -> Result<Response, ApiError> {
    let request: HashRequest = read(body)?;
    if let Some(partitions) = &request.partitions
        && (partitions.len() > PARTITIONS || partitions.iter().any(|partition| usize::from(*partition) >= PARTITIONS))
    {
        let detail = format!("partitions: at most {PARTITIONS}, each below {PARTITIONS}, are expected");
        return Err(ApiError::malformed(detail));
    }
    take(&node, request.sender, request.epoch, request.clock, request.clock).await?;
    let store = node.store();
    encode(&HashReply {
        clock: store.clock().read(),
        standing: store.progress().standing,
        hashes: store.hashes(request.partitions.as_deref()),
    })
}

/// `POST /internal/changes`
pub(super) async fn changes(State(node): SharedNode, body: Body) -> Result<Response, ApiError> {
    let request: ChangesRequest = read(body)?;
    take(&node, request.sender, request.epoch, request.clock, request.clock).await?;
    let limit = usize::try_from(request.limit)
        .unwrap_or(usize::MAX)
        .clamp(1, MAX_CHANGES);
    let wait = Duration::from_millis(request.wait_ms.into()).min(MAX_CHANGES_WAIT);
    let store = node.store();
    let stretch = store
        .changes(request.incarnation, request.after_commit, limit, wait)
        .await;
    encode(&ChangesReply {
        clock: store.clock().read(),
        incarnation: stretch.incarnation,
        standing: store.progress().standing,
        commit: stretch.commit,
        lost: stretch.lost,
        changes: stretch.changes,
    })
}

/// Takes a message in: refuses it, with nothing changed, when it is from another ring or its clock or a ballot in it (`latest`) is too far
/// ahead; else merges the clocks.
async fn take(node: &Node, sender: u64, epoch: Epoch, clock: HlcTime, latest: HlcTime) -> Result<(), ApiError> {
    node.hear_clock(sender, clock);
    let store = node.store();
    store
        .compare_ring(epoch)
        .map_err(|error| refused(node, &error.into()))?;
    node.observe(latest)
        .map_err(|error| ApiError::conflict(error.to_string()).with("refused", "clock"))?;
    store.take_ring(epoch).await.map_err(|error| refused(node, &error))
}

/// The answer to a message whose changes the store did not decide.
fn not_taken(error: &StoreError) -> ApiError {
    match error {
        // It never came to the writer.
        StoreError::Closed => not_served(error).with("refused", "stopping"),
        _ => not_served(error),
    }
}

/// The answer to a message that was not taken, counted.
fn refused(node: &Node, error: &StoreError) -> ApiError {
    if matches!(error, StoreError::Ring(_)) {
        node.count_ring_refusal();
    }
    not_served(error)
}

/// Refuses what no coordinator would send: too many or too long names, and a floor far in the future, which would stop all writing.
fn check_node_request(node: &Node, clock: HlcTime, request: &NodeRequest) -> Result<(), ApiError> {
    let floor = match request {
        NodeRequest::Status | NodeRequest::Admit { .. } => return Ok(()),
        NodeRequest::Remember { peers } => {
            let too_long = |name: &str| name.len() > MAX_PEER_NAME_BYTES;
            if peers.len() > MAX_PEERS || peers.iter().any(|peer| too_long(&peer.name)) {
                let detail = format!(
                    "peers: at most {MAX_PEERS}, with names of at most {MAX_PEER_NAME_BYTES} bytes, are expected"
                );
                return Err(ApiError::too_large(detail));
            }
            return Ok(());
        }
        NodeRequest::Refill { above, .. } | NodeRequest::Vote { above, .. } => above,
        NodeRequest::Raise { floor } => floor,
    };
    let max_ms = MAX_FLOOR_SKEWS * node.store().clock().max_skew_ms();
    let ahead_ms = floor.time.unix_ms().saturating_sub(clock.unix_ms());
    if ahead_ms > max_ms {
        let detail = format!("floor: {ahead_ms} ms ahead of the sender's own clock; at most {max_ms} ms are accepted");
        return Err(ApiError::conflict(detail).with("refused", "clock"));
    }
    Ok(())
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
