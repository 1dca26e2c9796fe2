//! Stand-ins for kvstores: the real acceptor in memory, misbehaving on command.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use register::acceptor::{Change, decide_as, held};
use register::ballot::SkewError;
use register::hashing::{Digest, partition_of_text};
use register::membership::{self, NodeStatus};
use register::message::{List, NodeEnvelope, NodeEnvelopeReply, PageRecord, PageReply, PageRequest};
use register::scan::{BallotBytes, ScanHead, ScanRecord, ScanRequest, Told};
use register::state::Record;
use register::{Envelope, EnvelopeReply, HlcTime, Key};
use serde_json::json;

use crate::support::{any_port, listen};

/// How a stand-in misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Not at all.
    Well,
    /// Takes requests and never answers; nothing is done.
    Silent,
    /// Does what it is asked, and never answers.
    Mute,
    /// Refuses every envelope as skewed.
    Skewed,
    /// Refuses every envelope, as it is about to stop.
    Stopping,
    /// Fails.
    Broken,
    /// Its clock is a minute ahead.
    Ahead,
}

/// A node in memory, around the real acceptor.
#[derive(Clone)]
pub(crate) struct StandIn {
    pub(crate) addr: SocketAddr,
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    records: BTreeMap<String, (Key, Record, u64)>,
    status: NodeStatus,
    mood: Mood,
    envelopes: Vec<usize>,
}

impl StandIn {
    pub(crate) async fn start() -> Self {
        let inner = Inner {
            records: BTreeMap::new(),
            status: NodeStatus {
                incarnation: rand::random(),
                ..NodeStatus::default()
            },
            mood: Mood::Well,
            envelopes: Vec::new(),
        };
        let listener = listen(any_port()).await;
        let node = Self {
            addr: listener.local_addr().unwrap(),
            inner: Arc::new(Mutex::new(inner)),
        };
        let router = Router::new()
            .route("/internal/exchange", post(exchange))
            .route("/internal/page", post(page))
            .route("/internal/scan", post(scan))
            .route("/internal/node", post(node_itself))
            .with_state(node.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        node
    }

    pub(crate) async fn three() -> (Vec<Self>, Vec<SocketAddr>) {
        let nodes = vec![Self::start().await, Self::start().await, Self::start().await];
        let addrs = nodes.iter().map(|node| node.addr).collect();
        (nodes, addrs)
    }

    pub(crate) fn set(&self, mood: Mood) {
        self.inner.lock().unwrap().mood = mood;
    }

    /// Sizes of the envelopes received, probes left out.
    pub(crate) fn envelopes(&self) -> Vec<usize> {
        self.inner.lock().unwrap().envelopes.clone()
    }

    fn mood(&self) -> Mood {
        self.inner.lock().unwrap().mood
    }

    fn clock(&self) -> HlcTime {
        let now = (service::clock::system_clock())();
        HlcTime::from_unix_ms(if self.mood() == Mood::Ahead { now + 60_000 } else { now })
    }
}

/// What a mood answers before anything is done.
async fn moody(node: &StandIn) -> Option<Response> {
    match node.mood() {
        Mood::Silent => std::future::pending().await,
        Mood::Skewed => {
            let skew = SkewError {
                ahead_ms: 60_000,
                max_ms: 500,
            };
            let refusal = json!({ "detail": skew.to_string(), "refused": "clock" });
            Some((StatusCode::CONFLICT, axum::Json(refusal)).into_response())
        }
        Mood::Stopping => {
            let refusal = json!({ "detail": "the node is stopping", "refused": "stopping" });
            Some((StatusCode::SERVICE_UNAVAILABLE, axum::Json(refusal)).into_response())
        }
        Mood::Broken => Some((StatusCode::INTERNAL_SERVER_ERROR, "no JSON").into_response()),
        Mood::Well | Mood::Mute | Mood::Ahead => None,
    }
}

async fn node_itself(State(node): State<StandIn>, body: Bytes) -> Response {
    let envelope: NodeEnvelope = postcard::from_bytes(&body).unwrap();
    if let Some(refusal) = moody(&node).await {
        return refusal;
    }
    let clock = node.clock();
    let reply = {
        let mut inner = node.inner.lock().unwrap();
        let decision = membership::decide(&inner.status, &envelope.request, rand::random(), envelope.epoch);
        if let Some(status) = decision.status {
            inner.status = status;
        }
        inner
            .records
            .retain(|_, (_, record, _)| !decision.drop.drops(record.accepted, record.promised));
        NodeEnvelopeReply {
            clock,
            done: decision.done,
            status: inner.status.clone(),
        }
    };
    if node.mood() == Mood::Mute {
        std::future::pending::<()>().await;
    }
    postcard::to_stdvec(&reply).unwrap().into_response()
}

async fn exchange(State(node): State<StandIn>, body: Bytes) -> Response {
    let envelope: Envelope = postcard::from_bytes(&body).unwrap();
    if let Some(refusal) = moody(&node).await {
        return refusal;
    }
    let clock = node.clock();
    let reply = {
        let mut inner = node.inner.lock().unwrap();
        if !envelope.requests.is_empty() {
            inner.envelopes.push(envelope.requests.len());
        }
        let replies = envelope
            .requests
            .into_iter()
            .map(|(key, request)| {
                let text = key.as_text().to_owned();
                let decision = decide_as(
                    inner.status.standing,
                    inner.records.get(&text).map(|(_, record, _)| record),
                    inner.status.floor,
                    &request,
                );
                inner.status.commit += 1;
                match decision.change {
                    Change::Nothing => {}
                    Change::Put(record) => {
                        let commit = inner.status.commit;
                        inner.records.insert(text, (key, record, commit));
                    }
                    Change::Remove { floor } => {
                        inner.records.remove(&text);
                        inner.status.floor = floor;
                    }
                }
                decision.reply
            })
            .collect();
        EnvelopeReply {
            clock,
            incarnation: inner.status.incarnation,
            commit: inner.status.commit,
            floor: inner.status.floor,
            standing: inner.status.standing,
            replies,
        }
    };
    if node.mood() == Mood::Mute {
        std::future::pending::<()>().await;
    }
    postcard::to_stdvec(&reply).unwrap().into_response()
}

async fn page(State(node): State<StandIn>, body: Bytes) -> Response {
    let request: PageRequest = postcard::from_bytes(&body).unwrap();
    if let Some(refusal) = moody(&node).await {
        return refusal;
    }
    if node.mood() == Mood::Mute {
        std::future::pending::<()>().await;
    }
    let clock = node.clock();
    let inner = node.inner.lock().unwrap();
    let show = |(key, record, commit): &(Key, Record, u64)| PageRecord {
        key: key.clone(),
        commit: *commit,
        held: held(Some(record), inner.status.floor),
        hint_for: record.hint_for.clone(),
    };
    let mut records: Vec<PageRecord> = match &request.list {
        List::Keys { prefix, after, reverse } => {
            let mut all: Vec<_> = inner
                .records
                .iter()
                .filter(|(text, _)| text.starts_with(prefix.as_str()))
                .collect();
            if *reverse {
                all.reverse();
            }
            let behind = |text: &String| match after {
                Some(after) if *reverse => text < after,
                Some(after) => text > after,
                None => true,
            };
            all.into_iter()
                .filter(|(text, _)| behind(text))
                .map(|(_, record)| show(record))
                .collect()
        }
        List::Hints { after_commit } => {
            let mut hints: Vec<_> = inner
                .records
                .values()
                .filter(|(_, r, c)| r.hint_for.is_some() && c > after_commit)
                .collect();
            hints.sort_by_key(|(_, _, commit)| *commit);
            hints.into_iter().map(show).collect()
        }
        List::Ended { .. } | List::Leaves { .. } => return StatusCode::NOT_FOUND.into_response(),
    };
    let limit = usize::try_from(request.limit).unwrap();
    let end = records.len() <= limit;
    records.truncate(limit);
    let reply = PageReply {
        clock,
        floor: inner.status.floor,
        incarnation: inner.status.incarnation,
        standing: inner.status.standing,
        records,
        end,
    };
    postcard::to_stdvec(&reply).unwrap().into_response()
}

async fn scan(State(node): State<StandIn>, body: Bytes) -> Response {
    let request: ScanRequest = postcard::from_bytes(&body).unwrap();
    if let Some(refusal) = moody(&node).await {
        return refusal;
    }
    if node.mood() == Mood::Mute {
        std::future::pending::<()>().await;
    }
    let (clock, range) = (node.clock(), &request.range);
    assert!(!range.reverse, "nobody asks for this");
    let inner = node.inner.lock().unwrap();
    let wanted = inner.records.iter().filter(|(text, _)| {
        text.starts_with(range.prefix.as_str()) && range.after.as_ref().is_none_or(|after| *text > after)
    });
    let limit = usize::try_from(request.limit).unwrap();
    let end = wanted.clone().count() <= limit;
    let (mut records, mut count) = (Vec::new(), 0);
    for (text, (_, record, _)) in wanted.take(limit) {
        let (accepted, state) = (record.accepted.to_bytes(), record.state.as_ref());
        let version = state.map(|state| state.version.to_bytes()).unwrap_or_default();
        let told = state.map(|state| Told {
            value: state.value.as_deref(),
            version: BallotBytes::new(&version).unwrap(),
            expires_at_ms: state.expires_at_ms,
        });
        let shown = ScanRecord {
            key: text,
            accepted: match state {
                Some(_) => BallotBytes::new(&accepted).unwrap(),
                None => BallotBytes::ZERO,
            },
            digest: Digest::default().bytes(&postcard::to_stdvec(&state).unwrap()).finish(),
            told: told.filter(|_| range.tell.contains(partition_of_text(text))),
        };
        records = postcard::to_extend(&shown, records).unwrap();
        count += 1;
    }
    let head = ScanHead {
        clock,
        floor: inner.status.floor,
        incarnation: inner.status.incarnation,
        standing: inner.status.standing,
        end,
        records: count,
    };
    let mut reply = postcard::to_stdvec(&head).unwrap();
    reply.extend(records);
    reply.into_response()
}
