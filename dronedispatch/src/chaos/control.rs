//! The control port: what can be broken, and breaking it. On 127.0.0.1 only, whatever `--bind` says; the gateways forward to it.

use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::{get, post};
use serde_json::{Value, json};
use service::Shutdown;
use service::http::{ApiError, Json, Limits, serve_router};
use tokio::net::TcpListener;

use super::switch::{Action, Refused, Switch};

/// The switches of one system.
pub type Switches = Arc<Vec<Arc<Switch>>>;

/// Opens the control port.
///
/// # Errors
/// There is no free port.
pub async fn open() -> std::io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await
}

/// Serves it until `stop`.
///
/// # Errors
/// None: as services are run.
pub async fn serve(listener: TcpListener, switches: Switches, stop: Shutdown) -> anyhow::Result<()> {
    let router = Router::new()
        .route("/chaos", get(list))
        .route("/chaos/{service}/{action}", post(act))
        .with_state(switches);
    serve_router(listener, router, Limits::default(), stop).await;
    Ok(())
}

fn row(switch: &Switch) -> Value {
    json!({
        "name": switch.name,
        "kind": switch.kind,
        "address": switch.addr.map(|addr| addr.to_string()),
        "mode": switch.now(),
        "wanted": switch.wanted(),
        "actions": switch.actions,
    })
}

async fn list(State(switches): State<Switches>) -> Json<Value> {
    let rows: Vec<_> = switches.iter().map(|switch| row(switch)).collect();
    Json(json!({ "services": rows }))
}

async fn act(
    State(switches): State<Switches>,
    Path((service, action)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let switch = switches.iter().find(|switch| switch.name == service).ok_or_else(|| {
        let names: Vec<_> = switches.iter().map(|switch| switch.name.as_str()).collect();
        ApiError::not_found(format!(
            "service: got {service:?}; one of {} is expected",
            names.join(", ")
        ))
    })?;
    let action = Action::named(&action).ok_or_else(|| {
        let names: Vec<_> = switch.actions.iter().map(|action| action.name()).collect();
        ApiError::invalid(format!(
            "action: got {action:?}; one of {} is expected",
            names.join(", ")
        ))
    })?;
    switch.tell(action).map_err(|refused| match refused {
        Refused::NotPossible { .. } => ApiError::invalid(refused.to_string()),
        Refused::Runs(_) => ApiError::conflict(refused.to_string()),
        Refused::Failed(_) => ApiError::unavailable(refused.to_string()),
    })?;
    Ok(Json(row(switch)))
}
