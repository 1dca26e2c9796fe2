//! `POST /kv/batch`: many operations in one call, each on its own.
//!
//! Operations on one key run in their order, others in parallel. An `ordered` batch runs all of them one after the other and stops at
//! the first that fails or is refused.

use std::collections::HashMap;

use axum::extract::State;
use futures_util::stream::{self, StreamExt};
use kv_api::{BatchAnswer, BatchOp, NamedBatchBody, NamedOp, OkAnswer};
use serde::Serialize;
use serde_json::{Value, json};
use service::http::{ApiError, Json};

use super::Api;
use super::named::Named;
use crate::ops::{Attempt, OpError, Ops};

/// Keys of one batch that are worked on at a time.
pub(super) const BATCH_PARALLEL_KEYS: usize = 128;
/// Status of what an ordered batch did not run.
const NOT_RUN: u16 = 424;

/// An operation, and its change's name as far as there is one.
type Op = (BatchOp, Option<Attempt>);

pub(super) async fn batch(
    State(api): State<Api>,
    named: Named,
    Json(body): Json<NamedBatchBody>,
) -> Result<Json<BatchAnswer>, ApiError> {
    named.check_batch()?;
    let ops = body.ops.len();
    if ops > kv_api::MAX_BATCH_OPS {
        let detail = format!(
            "ops: got {ops} operations; at most {} are allowed",
            kv_api::MAX_BATCH_OPS
        );
        return Err(ApiError::too_large(detail).with("field", "ops"));
    }
    let all = named_ops(&api.ops, &named, body.ops)?;
    let results = if body.ordered {
        api.run(move |ops| async move { Ok(run_ordered(&ops, all).await) })
            .await?
    } else {
        let groups = group_by_key(all);
        let at_once = groups.len().min(BATCH_PARALLEL_KEYS);
        api.run_sized(
            at_once,
            move |all| async move { Ok(run_grouped(&all, groups, ops).await) },
        )
        .await?
    };
    Ok(Json(BatchAnswer { results }))
}

/// A name that cannot be used refuses the whole batch, before anything of it was done.
fn named_ops(all: &Ops, named: &Named, ops: Vec<NamedOp>) -> Result<Vec<Op>, OpError> {
    ops.into_iter()
        .map(|NamedOp { op, request_id }| {
            let attempt = named.attempt_in_batch(all, request_id.as_deref())?;
            Ok((op, attempt))
        })
        .collect()
}

/// The operations of each key, each with its place in the batch.
fn group_by_key(ops: Vec<Op>) -> Vec<Vec<(usize, Op)>> {
    let mut places: HashMap<(String, bool), usize> = HashMap::new();
    let mut groups: Vec<Vec<(usize, Op)>> = Vec::new();
    for (index, op) in ops.into_iter().enumerate() {
        let (key, is_lock) = op.0.target();
        let place = *places.entry((key.to_owned(), is_lock)).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[place].push((index, op));
    }
    groups
}

async fn run_grouped(all: &Ops, groups: Vec<Vec<(usize, Op)>>, ops: usize) -> Vec<Value> {
    let mut results = vec![Value::Null; ops];
    let mut running = stream::iter(groups)
        .map(|group| async move {
            let mut answers = Vec::with_capacity(group.len());
            for (index, op) in group {
                answers.push((index, run_one(all, op).await));
            }
            answers
        })
        .buffer_unordered(BATCH_PARALLEL_KEYS);
    while let Some(answers) = running.next().await {
        for (index, answer) in answers {
            results[index] = answer;
        }
    }
    results
}

async fn run_ordered(all: &Ops, ops: Vec<Op>) -> Vec<Value> {
    let mut results = Vec::with_capacity(ops.len());
    let mut stopped_at = None;
    for (index, op) in ops.into_iter().enumerate() {
        match stopped_at {
            Some(first) => {
                let detail = format!("not run: operation {first} of this ordered batch failed or was refused");
                results.push(json!({ "status": NOT_RUN, "detail": detail }));
            }
            None => {
                let answer = run_one(all, op).await;
                if answer["status"] != 200 || answer["ok"] == false {
                    stopped_at = Some(index);
                }
                results.push(answer);
            }
        }
    }
    results
}

/// Runs one operation: the body of its own call, with the status added.
async fn run_one(all: &Ops, (op, attempt): Op) -> Value {
    match op {
        BatchOp::Get { key } => answer(all.get(&key, None).await),
        BatchOp::Put {
            key,
            value,
            ttl_sec,
            fence,
        } => answer(all.put(&key, &value.to_string(), ttl_sec, fence, None, attempt).await),
        BatchOp::Cas {
            key,
            old,
            version,
            new,
            fence,
        } => answer(all.cas(&key, old, version, &new.to_string(), fence, attempt).await),
        BatchOp::Delete { key, version } => answer(all.delete(&key, version.as_ref(), None, attempt).await),
        BatchOp::Lock { key, ttl_sec, owner } => answer(all.acquire(&key, ttl_sec, owner.as_deref(), attempt).await),
        BatchOp::Unlock { key, token } => answer(
            all.release(&key, token.as_deref(), attempt)
                .await
                .map(|ok| OkAnswer { ok }),
        ),
    }
}

fn answer<T: Serialize>(result: Result<T, OpError>) -> Value {
    let (status, mut body) = match result {
        Ok(body) => match serde_json::to_value(body) {
            Ok(body) => (200, body),
            Err(error) => {
                let error = ApiError::from(OpError::Internal(format!("the answer cannot be written: {error}")));
                (error.status.as_u16(), error.body())
            }
        },
        Err(error) => {
            let error = ApiError::from(error);
            (error.status.as_u16(), error.body())
        }
    };
    body["status"] = status.into();
    body
}

#[cfg(test)]
mod tests {
    use kv_api::BatchOp;

    use super::group_by_key;

    #[test]
    fn one_keys_operations_stay_in_order_and_locks_are_not_keys() {
        let get = |key: &str| BatchOp::Get { key: key.to_owned() };
        let unlock = BatchOp::Unlock {
            key: "a".to_owned(),
            token: None,
        };
        let groups = group_by_key([get("a"), get("b"), get("a"), unlock].map(|op| (op, None)).into());
        let places: Vec<Vec<usize>> = groups
            .iter()
            .map(|group| group.iter().map(|(index, _)| *index).collect())
            .collect();
        assert_eq!(places, [vec![0, 2], vec![1], vec![3]]);
    }
}
