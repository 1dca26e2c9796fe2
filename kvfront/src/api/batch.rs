//! `POST /kv/batch`: many operations in one call, each on its own.
//!
//! Operations on one key run in their order, others in parallel. An `ordered` batch runs all of them one after the other and stops at
//! the first that fails or is refused.

use std::collections::HashMap;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, StreamExt};
use kv_api::{BatchOp, NamedBatchBody, NamedOp, write_open_item};
use serde::Serialize;
use serde_json::{Value, json};
use service::http::{ApiError, Json};

use super::Api;
use super::named::Named;
use crate::ops::{Attempt, Done, Found, OpError, Ops};

/// Keys of one batch that are worked on at a time.
pub(super) const BATCH_PARALLEL_KEYS: usize = 128;
/// Status of what an ordered batch did not run.
const NOT_RUN: u16 = 424;
/// About how many bytes an answer without a value has.
const RESULT_BYTES: usize = 128;

/// An operation, and its change's name as far as there is one.
type Op = (BatchOp, Option<Attempt>);
/// What became of an operation: none when it was not run.
type Became = Option<Result<Done, OpError>>;

pub(super) async fn batch(
    State(api): State<Api>,
    named: Named,
    Json(body): Json<NamedBatchBody>,
) -> Result<Response, ApiError> {
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
    let answer = if body.ordered {
        api.run(move |ops| async move { Ok(written(&all, run_ordered(&ops, &all).await)) })
            .await?
    } else {
        let groups = group_by_key(&all);
        let at_once = groups.len().min(BATCH_PARALLEL_KEYS);
        api.run_sized(at_once, move |ops| async move {
            Ok(written(&all, run_grouped(&ops, &all, groups).await))
        })
        .await?
    };
    Ok(([(CONTENT_TYPE, "application/json")], answer).into_response())
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

/// The places in the batch of each key's operations.
fn group_by_key(ops: &[Op]) -> Vec<Vec<usize>> {
    let mut places: HashMap<(&str, bool), usize> = HashMap::with_capacity(ops.len());
    let mut groups: Vec<Vec<usize>> = Vec::with_capacity(ops.len());
    for (index, (op, _)) in ops.iter().enumerate() {
        let place = *places.entry(op.target()).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[place].push(index);
    }
    groups
}

async fn run_grouped(all: &Ops, ops: &[Op], groups: Vec<Vec<usize>>) -> Vec<Became> {
    let mut became: Vec<Became> = std::iter::repeat_with(|| None).take(ops.len()).collect();
    // Those that are the only one of their key, which are most, are driven together.
    let (single, several): (Vec<_>, Vec<_>) = groups.into_iter().partition(|group| group.len() == 1);
    let mut asked = Vec::with_capacity(single.len());
    let mut askers = Vec::with_capacity(single.len());
    for index in single.into_iter().flatten() {
        let (op, attempt) = &ops[index];
        match all.asked_in_batch(op, *attempt) {
            Ok(one) => {
                askers.push((index, one.key.clone()));
                asked.push(one);
            }
            Err(error) => became[index] = Some(Err(error)),
        }
    }
    let single = all.front.run_all(asked, BATCH_PARALLEL_KEYS);
    let several = stream::iter(several)
        .map(|group| async move {
            let mut results = Vec::with_capacity(group.len());
            for index in group {
                let (op, attempt) = &ops[index];
                results.push((index, all.run_in_batch(op, *attempt).await));
            }
            results
        })
        .buffer_unordered(BATCH_PARALLEL_KEYS)
        .collect::<Vec<_>>();
    let (outcomes, several) = tokio::join!(single, several);
    for ((index, key), outcome) in askers.into_iter().zip(outcomes) {
        became[index] = Some(all.done_in_batch(&ops[index].0, &key, outcome));
    }
    for (index, result) in several.into_iter().flatten() {
        became[index] = Some(result);
    }
    became
}

async fn run_ordered(all: &Ops, ops: &[Op]) -> Vec<Became> {
    let mut became: Vec<Became> = Vec::with_capacity(ops.len());
    for (op, attempt) in ops {
        let result = all.run_in_batch(op, *attempt).await;
        let stops = result.as_ref().map_or(true, Done::is_refused);
        became.push(Some(result));
        if stops {
            break;
        }
    }
    became.resize_with(ops.len(), || None);
    became
}

/// The answer: for each operation the body of its own call, with the status added.
fn written(ops: &[Op], became: Vec<Became>) -> Vec<u8> {
    let values = became.iter().map(|became| match became {
        Some(Ok(Done::Found(found))) => found.value.len(),
        _ => 0,
    });
    let mut out = Vec::with_capacity(ops.len() * RESULT_BYTES + values.sum::<usize>());
    out.extend_from_slice(b"{\"results\":[");
    let mut last_run = 0;
    for (index, ((op, _), became)) in ops.iter().zip(became).enumerate() {
        if index > 0 {
            out.push(b',');
        }
        if became.is_some() {
            last_run = index;
        }
        match became {
            Some(Ok(Done::Found(Found { value, version }))) => {
                write_open_item(&mut out, op.target().0, &value, version);
                out.extend_from_slice(b",\"status\":200}");
            }
            Some(Ok(Done::Put(answer))) => write_result(&mut out, 200, answer),
            Some(Ok(Done::Cas(answer))) => write_result(&mut out, 200, answer),
            Some(Ok(Done::Lock(answer))) => write_result(&mut out, 200, answer),
            Some(Ok(Done::Ok(answer))) => write_result(&mut out, 200, answer),
            Some(Err(error)) => write_error(&mut out, error),
            None => {
                let detail = format!("not run: operation {last_run} of this ordered batch failed or was refused");
                write_result(&mut out, NOT_RUN, json!({ "detail": detail }));
            }
        }
    }
    out.extend_from_slice(b"]}");
    out
}

/// A body, and the status that its own call would be answered with.
#[derive(Serialize)]
struct WithStatus<T> {
    #[serde(flatten)]
    body: T,
    status: u16,
}

fn write_result<T: Serialize>(out: &mut Vec<u8>, status: u16, body: T) {
    let start = out.len();
    if let Err(error) = serde_json::to_writer(&mut *out, &WithStatus { body, status }) {
        out.truncate(start);
        write_error(out, OpError::Internal(format!("the answer cannot be written: {error}")));
    }
}

fn write_error(out: &mut Vec<u8>, error: OpError) {
    let error = ApiError::from(error);
    let mut body = error.body();
    body["status"] = Value::from(error.status.as_u16());
    // Texts and numbers, which can be written, and so can memory.
    let _ = serde_json::to_writer(out, &body);
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
        let ops = [get("a"), get("b"), get("a"), unlock].map(|op| (op, None));
        assert_eq!(group_by_key(&ops), [vec![0, 2], vec![1], vec![3]]);
    }
}
