//! `/health`, `/cluster` and `/ring`: what people and dashboards look at.

use axum::extract::State;
use register::Standing;
use serde::Serialize;
use serde_json::{Value, json};
use service::http::Json;

use super::Api;
use crate::refill::Progress;
use crate::ring::{PARTITIONS, VNODES_PER_NODE};
use crate::transport::NodeStatus;

/// A suspected node that has not answered for so long is called down.
const DOWN_AFTER_MS: u64 = 3_000;

/// One node in `/cluster`.
#[derive(Debug, Serialize)]
struct NodeReport {
    /// What `BACKENDS` calls it; its URL when it has no name of its own.
    name: String,
    url: String,
    /// Answers; false while it is suspected.
    up: bool,
    /// `up`, `suspected` (failed or is silent), or `down` (has been silent for [`DOWN_AFTER_MS`], or always).
    state: &'static str,
    /// `voting`, `filling` (its disk was lost), `blank` or `returned` (not admitted yet).
    standing: Option<&'static str>,
    /// How often it began anew; 1 at first, one more for each lost disk.
    generation: Option<u64>,
    /// How far this kvfront has come with filling it.
    #[serde(skip_serializing_if = "Option::is_none")]
    filling: Option<Progress>,
    /// Why it is suspected, or does not vote.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    last_answer_ms_ago: Option<u64>,
    /// How far its clock was ahead of this kvfront's at its last answer.
    clock_ahead_ms: Option<i64>,
    /// Messages refused, by it or by this kvfront, because the clocks were too far apart.
    clock_refusals: u64,
    /// Changes when its database is new.
    incarnation: Option<String>,
    commit: Option<u64>,
    floor: Option<String>,
    /// Hints it held for other nodes when last listed.
    hints_waiting: Option<usize>,
    /// Messages of this kvfront waiting to be sent to it.
    queued: usize,
    /// Partitions it is a home of.
    home_partitions: usize,
}

pub(super) async fn health(State(api): State<Api>) -> Json<Value> {
    let ring = &api.front().ring;
    Json(json!({ "status": "ok", "backends": ring.backends().len(), "rf": ring.rf() }))
}

/// `up`, `suspected` or `down`.
pub(super) fn state_of(status: &NodeStatus) -> &'static str {
    match status {
        NodeStatus { suspected: false, .. } => "up",
        NodeStatus {
            last_answer_ms_ago: Some(ms),
            ..
        } if *ms < DOWN_AFTER_MS => "suspected",
        _ => "down",
    }
}

fn named(standing: Standing) -> &'static str {
    match standing {
        Standing::Blank => "blank",
        Standing::Filling { .. } => "filling",
        Standing::Returned => "returned",
        Standing::Voting => "voting",
    }
}

pub(super) async fn cluster(State(api): State<Api>) -> Json<Value> {
    let front = api.front();
    let (ring, hints, roster) = (&front.ring, api.upkeep.hints.snapshot(), api.upkeep.roster.snapshot());
    let (home_partitions, fills) = (ring.home_partitions(), api.upkeep.fills.snapshot());
    let nodes: Vec<_> = ring
        .backends()
        .iter()
        .enumerate()
        .map(|(node, backend)| {
            let (status, queued) = front.transport.status(node);
            NodeReport {
                name: backend.name.to_string(),
                url: backend.url.to_string(),
                up: !status.suspected,
                state: state_of(&status),
                standing: status.standing.map(named),
                filling: fills[node],
                generation: roster[node].as_ref().map(|status| status.generation),
                error: status.error,
                last_answer_ms_ago: status.last_answer_ms_ago,
                clock_ahead_ms: status.clock_ahead_ms,
                clock_refusals: status.clock_refusals,
                incarnation: status.incarnation.map(|i| format!("{i:016x}")),
                commit: status.commit,
                floor: status.floor.map(|f| f.to_string()),
                hints_waiting: hints[node],
                queued,
                home_partitions: home_partitions[node],
            }
        })
        .collect();
    let up = nodes.iter().filter(|node| node.up).count();
    let waiting: usize = hints.iter().flatten().sum();
    Json(json!({
        "status": if front.is_learnt() { "serving" } else { "starting" },
        "backends": nodes.len(),
        "up": up,
        "rf": ring.rf(),
        "quorum": ring.quorum(),
        "incarnation": format!("{:016x}", front.clocks.incarnation()),
        "hints_waiting": waiting,
        "collection": api.upkeep.collected.snapshot(),
        "repair": api.upkeep.repaired.snapshot(),
        "epoch": format!("{:016x}", ring.epoch().0),
        "ring": { "partitions": PARTITIONS, "vnodes_per_node": VNODES_PER_NODE, "list": ring.list_len() },
        "counters": front.metrics.totals(),
        "nodes": nodes,
    }))
}

/// `GET /ring`: which nodes the keys of which partitions live on. Changes only with `BACKENDS` and `RF`, which `epoch` tells.
pub(super) async fn ring(State(api): State<Api>) -> Json<Value> {
    let ring = &api.front().ring;
    let names: Vec<_> = ring.backends().iter().map(|backend| &*backend.name).collect();
    let ranges: Vec<_> = ring
        .ranges()
        .into_iter()
        .map(|(from, list)| json!({ "from": from, "nodes": list.nodes }))
        .collect();
    Json(json!({
        "epoch": format!("{:016x}", ring.epoch().0),
        "partitions": PARTITIONS,
        "vnodes_per_node": VNODES_PER_NODE,
        "rf": ring.rf(),
        "nodes": names,
        "ranges": ranges,
    }))
}
