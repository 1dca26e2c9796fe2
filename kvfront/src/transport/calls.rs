//! Calls to a node besides envelopes: pages, hashes, changes, and questions about the node itself. One at a time per connection, and
//! each of them harmless when it is made twice.

use std::time::Duration;

use bytes::Bytes;
use register::HlcTime;
use register::membership::NodeRequest;
use register::message::{HashReply, HashRequest, List, NodeEnvelope, NodeEnvelopeReply, PageReply, PageRequest};
use register::scan::{ScanHead, ScanRange, ScanRecord, ScanRequest};
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

#[cfg(doc)]
use super::REQUEST_TIMEOUT;
use super::Transport;
use super::connection::PostError;
use super::health::Sign;
use super::lane::{Node, Patience, SUSPECT_AFTER, encode, unreadable};
use super::queue::lock;

/// Pages of keys under way from one node at a time; more wait.
pub(super) const CALLS_PER_NODE: usize = 4;
/// Other short calls, all of them upkeep's: they do not wait behind the scans of clients.
pub(super) const UPKEEP_CALLS_PER_NODE: usize = 4;
/// Long ones.
pub(super) const LONG_CALLS_PER_NODE: usize = 2;
/// A list for which the node may have to look at all its records is not answered by then: it counts as lost.
const LONG_CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Times a page is asked again for an eighth of the records, because it was too large to be read.
const SMALLER_PAGES_MAX: usize = 3;

/// Bytes that a record of a scan with something accepted has at least: two texts, a ballot and a digest.
const SCAN_RECORD_MIN_BYTES: usize = 20;

/// Why a call has no usable answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{node}: {reason}")]
pub struct CallError {
    /// Number of the node.
    pub node: usize,
    /// What happened.
    pub reason: String,
}

/// An answer that carries the node's clock.
trait Answer: Sized {
    fn read(body: Bytes) -> Result<Self, postcard::Error>;
    fn clock(&self) -> HlcTime;
}

impl Answer for PageReply {
    fn read(body: Bytes) -> Result<Self, postcard::Error> {
        postcard::from_bytes(&body)
    }

    fn clock(&self) -> HlcTime {
        self.clock
    }
}

impl Answer for NodeEnvelopeReply {
    fn read(body: Bytes) -> Result<Self, postcard::Error> {
        postcard::from_bytes(&body)
    }

    fn clock(&self) -> HlcTime {
        self.clock
    }
}

impl Answer for HashReply {
    fn read(body: Bytes) -> Result<Self, postcard::Error> {
        postcard::from_bytes(&body)
    }

    fn clock(&self) -> HlcTime {
        self.clock
    }
}

/// A page of a scan.
#[derive(Debug, Clone)]
pub(crate) struct ScanPage {
    pub(crate) head: ScanHead,
    /// Its records, as they were sent.
    records: Bytes,
}

impl Answer for ScanPage {
    fn read(body: Bytes) -> Result<Self, postcard::Error> {
        let (head, records) = postcard::take_from_bytes(&body)?;
        let records = body.slice_ref(records);
        Ok(Self { head, records })
    }

    fn clock(&self) -> HlcTime {
        self.head.clock
    }
}

impl ScanPage {
    /// Its records, where they lie.
    ///
    /// # Errors
    /// They cannot be read, are others than were announced, or do not stand in the order of the scan.
    pub(crate) fn records(&self, reverse: bool) -> Result<Vec<ScanRecord<'_>>, String> {
        let count = self.head.records as usize;
        let room = count.min(self.records.len() / SCAN_RECORD_MIN_BYTES);
        let mut records: Vec<ScanRecord<'_>> = Vec::with_capacity(room);
        let mut rest = self.records.as_ref();
        while !rest.is_empty() {
            let (record, behind): (ScanRecord<'_>, _) =
                postcard::take_from_bytes(rest).map_err(|e| format!("a record cannot be read: {e}"))?;
            let in_order = records
                .last()
                .is_none_or(|last| (last.key < record.key) != reverse && last.key != record.key);
            if !in_order {
                return Err(format!("{:?} is out of order", record.key));
            }
            records.push(record);
            rest = behind;
        }
        if records.len() == count {
            Ok(records)
        } else {
            Err(format!("{} records, {count} were announced", records.len()))
        }
    }

    /// A page as a node sends it.
    #[cfg(test)]
    pub(crate) fn of(end: bool, records: &[ScanRecord<'_>]) -> Self {
        let head = ScanHead {
            clock: HlcTime::ZERO,
            floor: register::Ballot::ZERO,
            incarnation: 0,
            standing: register::Standing::Voting,
            end,
            records: u32::try_from(records.len()).unwrap(),
        };
        let mut bytes = Vec::new();
        for record in records {
            bytes = postcard::to_extend(record, bytes).unwrap();
        }
        Self {
            head,
            records: bytes.into(),
        }
    }
}

impl Transport {
    /// Asks a node for one page of at most `limit` records; for fewer, when that many are too large to be read.
    ///
    /// # Errors
    /// There was no usable answer within [`REQUEST_TIMEOUT`], or much longer for a list that may take long.
    pub async fn page(&self, node: usize, list: List, mut limit: u32) -> Result<PageReply, CallError> {
        let place = &self.nodes[node];
        let (places, patience) = match &list {
            List::Keys { .. } => (&place.calls, Patience::SHORT),
            List::Hints { .. } => (&place.upkeep_calls, Patience::SHORT),
            // Looked for among all records.
            List::Ended { .. } | List::Leaves { .. } => (&place.long_calls, Patience::long(LONG_CALL_TIMEOUT)),
        };
        let mut smaller = 0;
        loop {
            let request = PageRequest {
                clock: self.clocks.tick(),
                sender: self.clocks.incarnation(),
                epoch: self.epoch,
                list: list.clone(),
                limit,
            };
            let page = place.call::<_, PageReply>(places, "page", "/internal/page", &request, patience);
            match page.await {
                Err(error) if error.too_large && smaller < SMALLER_PAGES_MAX => {
                    smaller += 1;
                    limit = (limit / 8).max(1);
                }
                // Records that are not at the end but none of them here: nobody would ever get anywhere.
                Ok(page) if page.records.is_empty() && !page.end => {
                    return Err(CallError {
                        node,
                        reason: "the node sent an empty page".to_owned(),
                    });
                }
                answer => return answer.map_err(|e| CallError { node, reason: e.reason }),
            }
        }
    }

    /// Asks a node for one page of a scan, of at most `limit` records.
    ///
    /// # Errors
    /// There was no usable answer within [`REQUEST_TIMEOUT`].
    pub(crate) async fn scan(&self, node: usize, range: ScanRange, limit: u32) -> Result<ScanPage, CallError> {
        let request = ScanRequest {
            clock: self.clocks.tick(),
            sender: self.clocks.incarnation(),
            epoch: self.epoch,
            range,
            limit,
        };
        let place = &self.nodes[node];
        let page = place.call::<_, ScanPage>(&place.calls, "scan", "/internal/scan", &request, Patience::SHORT);
        match page.await {
            // As of other pages.
            Ok(page) if page.head.records == 0 && !page.head.end => Err(CallError {
                node,
                reason: "the node sent an empty page".to_owned(),
            }),
            answer => answer.map_err(|e| CallError { node, reason: e.reason }),
        }
    }

    /// Asks or tells a node something about itself.
    ///
    /// # Errors
    /// There was no usable answer within [`REQUEST_TIMEOUT`]; the node may have done what it was told.
    pub async fn ask_node(&self, node: usize, request: NodeRequest) -> Result<NodeEnvelopeReply, CallError> {
        let envelope = NodeEnvelope {
            clock: self.clocks.tick(),
            sender: self.clocks.incarnation(),
            epoch: self.epoch,
            request,
        };
        let place = &self.nodes[node];
        let answer: NodeEnvelopeReply = place
            .call(
                &place.upkeep_calls,
                "node",
                "/internal/node",
                &envelope,
                Patience::SHORT,
            )
            .await
            .map_err(|e| CallError { node, reason: e.reason })?;
        let status = &answer.status;
        place.told(Sign {
            clock: answer.clock,
            incarnation: status.incarnation,
            commit: status.commit,
            floor: status.floor,
            standing: status.standing,
        });
        Ok(answer)
    }

    /// Asks a node for hashes of its tree: the leaves of these partitions, or the root of each.
    ///
    /// # Errors
    /// There was no usable answer within [`REQUEST_TIMEOUT`].
    pub async fn hashes(&self, node: usize, partitions: Option<Vec<u16>>) -> Result<HashReply, CallError> {
        let request = HashRequest {
            clock: self.clocks.tick(),
            sender: self.clocks.incarnation(),
            epoch: self.epoch,
            partitions,
        };
        let place = &self.nodes[node];
        let answer = place.call(
            &place.upkeep_calls,
            "hashes",
            "/internal/hashes",
            &request,
            Patience::SHORT,
        );
        answer.await.map_err(|e| CallError { node, reason: e.reason })
    }
}

impl Node {
    /// One call in its turn, answered within the patience in all. A turn that does not come in time says nothing about the node, which was
    /// not asked.
    async fn call<Q: Serialize, R: Answer>(
        &self,
        places: &Semaphore,
        name: &'static str,
        path: &str,
        request: &Q,
        patience: Patience,
    ) -> Result<R, PostError> {
        let wait_ms = patience.total.as_millis();
        let deadline = Instant::now() + patience.total;
        let Ok(turn) = timeout_at(deadline, places.acquire()).await else {
            let reason = format!("too many calls wait for this node: no turn within {wait_ms} ms");
            self.noted_refusal(name, &reason);
            return Err(PostError::unsent(reason));
        };
        let _turn = turn.map_err(|_| PostError::unsent("kvfront is stopping"))?;
        let asked = Instant::now();
        let answer = timeout_at(deadline, self.call_now(name, path, request, patience)).await;
        answer.unwrap_or_else(|_| {
            let reason = format!("no answer within {wait_ms} ms");
            if patience.is_long() || asked.elapsed() < SUSPECT_AFTER {
                self.noted_refusal(name, &reason);
            } else {
                self.failed(name, &reason);
            }
            Err(PostError::sent(reason))
        })
    }

    async fn call_now<Q: Serialize, R: Answer>(
        &self,
        name: &'static str,
        path: &str,
        request: &Q,
        patience: Patience,
    ) -> Result<R, PostError> {
        let mut slot = lock(&self.idle_connections).pop();
        let result: Result<R, PostError> = async {
            let (status, body) = self.post(&mut slot, path, encode(request)?, patience).await?;
            self.check_status(status, &body)?;
            let reply = R::read(body).map_err(unreadable)?;
            self.observe(reply.clock())?;
            Ok(reply)
        }
        .await;
        match &result {
            Ok(_) => {
                if let Some(connection) = slot {
                    lock(&self.idle_connections).push(connection);
                }
            }
            // The node is well: it was asked for too much, or for something it will not do.
            Err(error) if error.too_large => {}
            Err(error) if error.refused || patience.is_long() => self.noted_refusal(name, &error.reason),
            Err(error) => self.failed(name, &error.reason),
        }
        result
    }
}
