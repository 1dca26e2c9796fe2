//! `POST /kv/batch` on the node's own data: one answer per operation, each on its own.
//!
//! Operations on one key (or lock) run in their order, others side by side, so that the writer can commit them together.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::State;
use kv_api::{BatchAnswer, BatchBody, BatchOp, CasBody, PutBody};
use serde::Serialize;
use serde_json::Value;
use service::http::{ApiError, Json, detached};
use tokio::task::JoinSet;

use super::{broken_rule, ops};
use crate::node::Node;

/// Status of an operation that an ordered batch did not run: failed dependency.
const NOT_RUN: u16 = 424;

pub(super) async fn batch(
    State(node): State<Arc<Node>>,
    Json(body): Json<BatchBody>,
) -> Result<Json<BatchAnswer>, ApiError> {
    let count = body.ops.len();
    if count > kv_api::MAX_BATCH_OPS {
        let detail = format!("ops: {count} operations; at most {} are taken", kv_api::MAX_BATCH_OPS);
        return Err(ApiError::too_large(detail));
    }
    // To its end even when the client hangs up: the operations of an ordered batch belong together.
    let results = detached(async move {
        if body.ordered {
            Ok(ordered(&node, body.ops).await)
        } else {
            side_by_side(&node, body.ops).await
        }
    });
    Ok(Json(BatchAnswer {
        results: results.await?,
    }))
}

async fn ordered(node: &Node, ops: Vec<BatchOp>) -> Vec<Value> {
    let mut results = Vec::with_capacity(ops.len());
    let mut stopped = false;
    for op in ops {
        if stopped {
            let detail = "not run: an operation before it failed or was refused";
            results.push(serde_json::json!({ "status": NOT_RUN, "detail": detail }));
            continue;
        }
        let result = run(node, op).await;
        stopped = result["status"] != 200 || result["ok"] == false;
        results.push(result);
    }
    results
}

async fn side_by_side(node: &Arc<Node>, ops: Vec<BatchOp>) -> Result<Vec<Value>, ApiError> {
    let mut results = vec![Value::Null; ops.len()];
    let mut by_target: HashMap<(String, bool), Vec<(usize, BatchOp)>> = HashMap::new();
    for (place, op) in ops.into_iter().enumerate() {
        let (key, is_lock) = op.target();
        by_target
            .entry((key.to_owned(), is_lock))
            .or_default()
            .push((place, op));
    }
    let mut running = JoinSet::new();
    for ops in by_target.into_values() {
        let node = Arc::clone(node);
        running.spawn(async move {
            let mut done = Vec::with_capacity(ops.len());
            for (place, op) in ops {
                done.push((place, run(&node, op).await));
            }
            done
        });
    }
    while let Some(done) = running.join_next().await {
        let died = |_| ApiError::internal("the server failed while handling this batch").with("outcome", "unknown");
        for (place, result) in done.map_err(died)? {
            results[place] = result;
        }
    }
    Ok(results)
}

async fn run(node: &Node, op: BatchOp) -> Value {
    let (key, _) = op.target();
    if let Err(error) = kv_api::check_key(key) {
        return shown::<()>(Err(broken_rule(&error)));
    }
    match op {
        BatchOp::Get { key } => shown(ops::get(node, &key).await),
        BatchOp::Put {
            key,
            value,
            ttl_sec,
            fence,
        } => shown(ops::put(node, &key, PutBody { value, ttl_sec, fence }).await),
        BatchOp::Cas {
            key,
            old,
            version,
            new,
            fence,
        } => {
            let body = CasBody {
                key,
                old,
                version,
                new,
                fence,
            };
            shown(ops::cas(node, body).await)
        }
        BatchOp::Delete { key, version } => shown(ops::delete(node, &key, version.as_ref()).await),
        BatchOp::Lock { key, ttl_sec, owner } => shown(ops::acquire(node, &key, ttl_sec, owner.as_deref()).await),
        BatchOp::Unlock { key, token } => shown(ops::release(node, &key, token.as_deref()).await),
    }
}

/// The body the operation's own call would give, with its status.
fn shown<T: Serialize>(result: Result<T, ApiError>) -> Value {
    let (status, body) = match result {
        Ok(answer) => match serde_json::to_value(&answer) {
            Ok(body) => (200, body),
            Err(error) => (500, serde_json::json!({ "detail": error.to_string() })),
        },
        Err(error) => (error.status.as_u16(), error.body()),
    };
    let Value::Object(mut body) = body else {
        return serde_json::json!({ "status": status });
    };
    body.insert("status".to_owned(), status.into());
    Value::Object(body)
}
