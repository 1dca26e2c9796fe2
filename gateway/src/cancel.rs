//! `DELETE /deliveries/{id}`: cancels what is not yet picked up, and frees its drone.
//!
//! The record's compare-and-swap decides; it needs no lock, because an assignment that races with it either comes first
//! (then this cancels the assigned order) or finds the order no longer pending and undoes itself. What follows (the
//! `open:` entry, the drone) is tidying up that the dispatcher's reconciliation does too, should it fail here.

use domain::delivery::{Delivery, DeliveryStatus};
use domain::drone::Drone;
use domain::keys;
use kv_client::{KvError, Swap};
use service::http::ApiError;

use crate::app::App;
use crate::error::api_error;
use crate::retry::Budget;
use crate::traces::context_of;

/// How often a lost race for a drone's record is tried again: its simulator writes it several times a second.
const DRONE_ATTEMPTS_MAX: u32 = 5;

/// Cancels the delivery and gives its record. Cancelling twice is answered like once.
///
/// # Errors
/// 404, 409 when it is picked up or has ended otherwise, 503.
pub(crate) async fn cancel(app: &App, id: &str) -> Result<Delivery, ApiError> {
    let budget = Budget::start();
    let outcome = budget.run(|| cancel_record(app, id)).await;
    let cancelled = match outcome {
        Ok(outcome) => outcome?,
        Err(gave_up) if gave_up.outcome_unknown => {
            let detail = format!(
                "it is not known whether delivery {id} was cancelled ({}); ask again",
                gave_up.error
            );
            return Err(ApiError::outcome_unknown(detail).with("id", id).retry_after_sec(1));
        }
        Err(gave_up) => return Err(api_error(&gave_up.error)),
    };
    app.counters.cancelled.inc();
    let order = context_of(&cancelled);
    let order_trace = order.span.map(|span| tracing::field::display(span.trace_id));
    // On behalf of who cancels; the order's own trace beside it.
    tracing::info!(
        delivery = id,
        drone = cancelled.drone_id,
        order_request_id = order.request_id.as_deref(),
        order_trace_id = order_trace,
        "cancelled"
    );
    if let Err(error) = app.kv.delete(&keys::open(id)).await {
        tracing::debug!(%error, id, "the open entry of a cancelled delivery stays until the dispatcher's sweep");
    }
    if let Some(drone_id) = &cancelled.drone_id
        && let Err(error) = free_drone(app, drone_id, id).await
    {
        tracing::debug!(%error, drone_id, "the drone of a cancelled delivery stays busy until the dispatcher frees it");
    }
    Ok(cancelled)
}

/// The inner error is final, the outer one may pass. A lost race counts as the latter.
async fn cancel_record(app: &App, id: &str) -> Result<Result<Delivery, ApiError>, KvError> {
    let key = keys::delivery(id);
    let Some(found) = app.kv.get::<Delivery>(&key).await? else {
        return Ok(Err(ApiError::not_found("Delivery not found")));
    };
    if found.value.status == DeliveryStatus::Cancelled {
        return Ok(Ok(found.value));
    }
    let cancelled = match found.value.cancel(app.now()) {
        Ok(cancelled) => cancelled,
        Err(error) => {
            let status = found.value.status.name();
            return Ok(Err(ApiError::conflict(error.to_string()).with("status", status)));
        }
    };
    match app.kv.cas_version(&key, Some(&found.version), &cancelled, None).await? {
        Swap::Done(_) => Ok(Ok(cancelled)),
        _ => Err(KvError::Unavailable {
            detail: format!("delivery {id} keeps changing while it is being cancelled"),
        }),
    }
}

async fn free_drone(app: &App, drone_id: &str, delivery_id: &str) -> Result<(), KvError> {
    let key = keys::drone(drone_id);
    for _ in 0..DRONE_ATTEMPTS_MAX {
        let Some(found) = app.kv.get::<Drone>(&key).await? else {
            return Ok(());
        };
        // Not busy with it (any more): nothing to free.
        let Ok(idle) = found.value.release(delivery_id) else {
            return Ok(());
        };
        if app
            .kv
            .cas_version(&key, Some(&found.version), &idle, None)
            .await?
            .is_done()
        {
            return Ok(());
        }
    }
    Err(KvError::Unavailable {
        detail: format!("drone {drone_id} keeps changing"),
    })
}
