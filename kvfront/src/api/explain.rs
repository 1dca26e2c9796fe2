//! `GET /explain/{key}`: the journey of a key. Where it lives, which version each of its nodes holds, and which hint waits where.
//!
//! It is a look at what the nodes hold, not a read: a version that fewer than a quorum hold may still come to nothing.

use axum::extract::State;
use futures_util::future::join_all;
use kv_api::Version;
use register::hashing::partition_of;
use register::message::{List, PageRecord};
use register::{Ballot, Key};
use serde::Serialize;
use service::http::{ApiError, Json};

use super::Api;
use super::admin::state_of;
use super::errors::{not_started, rule_error};
use super::kv::PathKey;
use crate::front::Front;

/// What is known of a key.
#[derive(Debug, Serialize)]
pub(super) struct Explained {
    key: String,
    partition: usize,
    epoch: String,
    /// How many of the first nodes are homes; the others are spares.
    homes: usize,
    quorum: usize,
    /// The newest version that was found.
    version: Option<Version>,
    /// How many nodes hold it.
    copies: usize,
    /// In the order of the preference list.
    nodes: Vec<Copy>,
}

/// What one node of the list holds.
#[derive(Debug, Serialize)]
struct Copy {
    name: String,
    url: String,
    /// `home`, or `spare`: keeps what a home misses.
    role: &'static str,
    /// As in `/cluster`.
    state: &'static str,
    /// `newest`, `older`, `absent`, or `unknown` when it did not answer.
    has: &'static str,
    version: Option<Version>,
    /// When that version was made, Unix seconds.
    written_at: Option<f64>,
    /// It is a tombstone: the key was deleted.
    deleted: bool,
    /// Bytes of the value as JSON.
    value_bytes: Option<usize>,
    /// The home for which this node keeps it as a hint.
    hint_for: Option<String>,
    /// Why it did not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// For comparing.
    #[serde(skip)]
    ballot: Option<Ballot>,
}

pub(super) async fn explain(State(api): State<Api>, PathKey(name): PathKey) -> Result<Json<Explained>, ApiError> {
    kv_api::check_key(&name).map_err(|e| rule_error(&e))?;
    let front = api.front();
    let _permit = front.admit(1).map_err(|e| not_started(&e))?;
    let key = Key::data(&name);
    let preference = front.ring.preference(&key);
    let asked = preference.nodes.iter().enumerate().map(|(rank, &node)| {
        let role = if rank < preference.homes { "home" } else { "spare" };
        copy_of(front, &key, node, role)
    });
    let mut nodes = join_all(asked).await;
    let newest = nodes.iter().filter_map(|copy| copy.ballot).max();
    for copy in &mut nodes {
        if copy.ballot.is_some() {
            copy.has = if copy.ballot == newest { "newest" } else { "older" };
        }
    }
    Ok(Json(Explained {
        partition: partition_of(&key),
        epoch: format!("{:016x}", front.ring.epoch().0),
        homes: preference.homes,
        quorum: preference.quorum(),
        version: newest.map(Version::from),
        copies: nodes.iter().filter(|copy| copy.has == "newest").count(),
        key: name,
        nodes,
    }))
}

/// Asks one node.
async fn copy_of(front: &Front, key: &Key, node: usize, role: &'static str) -> Copy {
    let backend = &front.ring.backends()[node];
    let mut copy = Copy {
        name: backend.name.to_string(),
        url: backend.url.to_string(),
        role,
        state: "down",
        has: "absent",
        version: None,
        written_at: None,
        deleted: false,
        value_bytes: None,
        hint_for: None,
        error: None,
        ballot: None,
    };
    match held(front, key, node).await {
        Ok(Some(record)) => copy.take(record),
        Ok(None) => {}
        Err(reason) => {
            copy.has = "unknown";
            copy.error = Some(reason);
        }
    }
    // After the question, which tells something of its health, too.
    copy.state = state_of(&front.transport.status(node).0);
    copy
}

/// The record of exactly this key, as the node holds it.
async fn held(front: &Front, key: &Key, node: usize) -> Result<Option<PageRecord>, String> {
    // In key order, the key itself comes before all that begin with it. A page also says for whom a hint is kept.
    let list = List::Keys {
        prefix: key.as_text().to_owned(),
        after: None,
        reverse: false,
    };
    let page = front.transport.page(node, list, 1).await.map_err(|e| e.reason)?;
    Ok(page.records.into_iter().find(|record| record.key == *key))
}

impl Copy {
    fn take(&mut self, record: PageRecord) {
        self.hint_for = record.hint_for.map(|home| home.to_string());
        // Without a state there is a mere promise.
        let Some(state) = record.held.state else { return };
        self.ballot = Some(state.version);
        self.version = Some(state.version.into());
        self.written_at = Some(state.version.time.unix_sec());
        self.deleted = state.value.is_none();
        self.value_bytes = state.value.map(|value| value.len());
    }
}
