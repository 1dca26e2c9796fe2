//! What can be asked for, and what comes back.

use domain::delivery::DeliveryStatus;
use serde_json::{Map, Value, json};

use super::schemas::named;
use crate::listing::{AFTER_MAX, LIMIT_DEFAULT, LIMIT_MAX};
use crate::submit::{IDEMPOTENCY_KEY_MAX_BYTES, IDEMPOTENCY_KEY_NAME};

/// Errors that any answer may be, mostly by the load balancer.
const ANY: [u16; 5] = [429, 500, 502, 503, 504];

/// An operation as it is put together.
struct Operation(Value);

pub(super) fn paths() -> Value {
    json!({
        "/deliveries": {"get": list_deliveries(), "post": create_delivery()},
        "/deliveries/{id}": {"get": get_delivery(), "delete": cancel_delivery()},
        "/drones": {"get": get("listDrones", "fleet", "All drones").json(200, "The fleet", named("Drones")).done(&[])},
        "/drones/{id}": {"get": get("getDrone", "fleet", "One drone")
            .with(id("drone-1"))
            .json(200, "The drone", named("Drone"))
            .done(&[400, 404, 422])},
        "/zones": {"get": get("getZones", "fleet", "The grid over Rome").json(200, "The grid", named("Zones")).done(&[])},
        "/stats": {"get": get("getStats", "watching", "Counts, times, and the newest events")
            .json(200, "The figures", named("Stats"))
            .done(&[])},
        "/events": {"get": events()},
        "/health": {"get": get("getHealth", "service", "Whether the process answers")
            .json(200, "It does", json!({"type": "object", "required": ["status"], "properties": {"status": {"const": "ok"}}}))
            .done(&[])},
        "/ready": {"get": get("getReady", "service", "Whether it can do its work")
            .json(200, "It can", named("Readiness"))
            .json(503, "It cannot", named("Readiness"))
            .done(&[])},
        "/metrics": {"get": get("getMetrics", "service", "Metrics for Prometheus")
            .body(200, "The metrics", "application/openmetrics-text", json!({"type": "string"}))
            .done(&[])},
        "/openapi.json": {"get": get("getOpenapi", "service", "This document")
            .json(200, "OpenAPI 3.1", json!({"type": "object"}))
            .done(&[])},
        "/docs": {"get": get("getDocs", "service", "This document, for people")
            .body(200, "A page", "text/html", json!({"type": "string"}))
            .done(&[])},
    })
}

fn create_delivery() -> Value {
    let location = json!({"location": {"description": "The delivery", "schema": {"type": "string"}}});
    let key = json!({
        "name": IDEMPOTENCY_KEY_NAME,
        "in": "header",
        "description": "The first order with a key is answered with 201, every repetition within a day with 200 and the same id; another order under \
            the same key with 422",
        "schema": {"type": "string", "minLength": 1, "maxLength": IDEMPOTENCY_KEY_MAX_BYTES, "pattern": "^[!-~]+$"},
    });
    let mut operation = operation("createDelivery", "deliveries", "Order a delivery")
        .with(key)
        .json(201, "Stored on two nodes; it will be delivered", named("Delivery"))
        .json(
            200,
            "Had been ordered before under this key; its record as it is now",
            named("Delivery"),
        );
    operation.0["requestBody"] = json!({"required": true, "content": {"application/json": {"schema": named("Order")}}});
    operation.0["responses"]["201"]["headers"] = location.clone();
    operation.0["responses"]["200"]["headers"] = location;
    operation.done(&[400, 408, 413, 422])
}

fn list_deliveries() -> Value {
    let limit = json!({
        "name": "limit",
        "in": "query",
        "schema": {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT},
    });
    let status = json!({
        "name": "status",
        "in": "query",
        "description": "Only deliveries in this state. Such a list may be short, even empty, and still have a `next`",
        "schema": {"type": "string", "enum": DeliveryStatus::ALL.map(DeliveryStatus::name)},
    });
    let after = json!({
        "name": "after",
        "in": "query",
        "description": "The `next` of the list before",
        "schema": {"type": "string", "maxLength": AFTER_MAX},
    });
    get("listDeliveries", "deliveries", "Deliveries, newest first")
        .with(limit)
        .with(status)
        .with(after)
        .json(200, "Some of them", named("Deliveries"))
        .done(&[400, 422])
}

fn get_delivery() -> Value {
    get("getDelivery", "deliveries", "One delivery")
        .with(id("01a1fcdb-cf0a-747f-8ff7-325d53dafb5d"))
        .json(200, "Its record", named("Delivery"))
        .done(&[400, 404, 422])
}

fn cancel_delivery() -> Value {
    operation("cancelDelivery", "deliveries", "Cancel what is not yet picked up")
        .with(id("01a1fcdb-cf0a-747f-8ff7-325d53dafb5d"))
        .json(
            200,
            "It is cancelled, now or before, and its drone free",
            named("Delivery"),
        )
        .done(&[400, 404, 409, 422])
}

fn events() -> Value {
    let last = json!({
        "name": "Last-Event-ID",
        "in": "header",
        "description": "The id of the last event that was got: what was missed follows, or a snapshot",
        "schema": {"type": "string"},
    });
    let after =
        json!({"name": "after", "in": "query", "description": "As `Last-Event-ID`", "schema": {"type": "string"}});
    get("getEvents", "watching", "What happens, as it happens")
        .with(last)
        .with(after)
        .body(
            200,
            "Server-Sent Events: `snapshot` (`at`, `drones`, `deliveries`, `cluster`), then `drones` and `deliveries` (`at`, `items`) and `cluster`",
            "text/event-stream",
            json!({"type": "string"}),
        )
        .done(&[422])
}

fn id(example: &str) -> Value {
    json!({"name": "id", "in": "path", "required": true, "schema": {"type": "string", "minLength": 1, "maxLength": 200}, "example": example})
}

fn get(id: &str, tag: &str, summary: &str) -> Operation {
    operation(id, tag, summary)
}

fn operation(id: &str, tag: &str, summary: &str) -> Operation {
    Operation(json!({"operationId": id, "tags": [tag], "summary": summary, "responses": Map::new()}))
}

impl Operation {
    fn with(mut self, parameter: Value) -> Self {
        match self.0["parameters"].as_array_mut() {
            Some(parameters) => parameters.push(parameter),
            None => self.0["parameters"] = json!([parameter]),
        }
        self
    }

    fn json(self, status: u16, description: &str, schema: Value) -> Self {
        self.body(status, description, "application/json", schema)
    }

    fn body(mut self, status: u16, description: &str, media_type: &str, schema: Value) -> Self {
        let mut response = json!({"description": description, "content": {media_type: {}}});
        response["content"][media_type]["schema"] = schema;
        self.0["responses"][status.to_string()] = response;
        self
    }

    /// With these errors, and those that any operation has.
    fn done(mut self, errors: &[u16]) -> Value {
        for status in errors.iter().copied().chain(ANY) {
            if self.0["responses"].get(status.to_string()).is_none() {
                self = self.json(status, meaning(status), named("Error"));
            }
        }
        self.0
    }
}

fn meaning(status: u16) -> &'static str {
    match status {
        400 => "Cannot be read",
        404 => "There is no such thing",
        408 => "The body did not come in time",
        409 => "Does not fit the present state",
        413 => "Too large",
        422 => "Of the wrong shape, or out of range",
        429 => "Over the rate limit; see `Retry-After`",
        500 => "Our fault",
        502 => "No gateway could be reached, or it broke off",
        503 => "Not now; with `outcome` it may have taken effect all the same",
        504 => "No gateway answered in time",
        _ => "Refused",
    }
}
