//! Shapes of bodies.

use domain::delivery::DeliveryStatus;
use domain::drone::DroneStatus;
use domain::no_fly::{NO_FLY_MAX, VERTICES_MAX};
use domain::order::DEADLINE_RANGE_SEC;
use domain::priority::{PRIORITY_NUMBER_MAX, Priority};
use serde_json::{Value, json};

/// A reference to one of [`all`].
pub(super) fn named(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

pub(super) fn all() -> Value {
    json!({
        "Point": point(),
        "Priority": priority(),
        "Order": order(),
        "Delivery": delivery(),
        "Deliveries": list(named("Delivery"), true),
        "Drone": drone(),
        "Drones": list(named("Drone"), false),
        "Zones": zones(),
        "Stats": stats(),
        "Times": times(),
        "Bound": bound(),
        "Readiness": readiness(),
        "Error": error(),
    })
}

fn point() -> Value {
    json!({
        "type": "object",
        "required": ["lat", "lon"],
        "properties": {
            "lat": {"type": "number", "minimum": -90, "maximum": 90, "description": "Latitude, degrees"},
            "lon": {"type": "number", "minimum": -180, "maximum": 180, "description": "Longitude, degrees"},
        },
        "examples": [{"lat": 41.89, "lon": 12.49}],
    })
}

fn order() -> Value {
    json!({
        "type": "object",
        "required": ["origin", "destination", "weight"],
        "properties": {
            "origin": named("Point"),
            "destination": named("Point"),
            "weight": {"type": "number", "exclusiveMinimum": 0, "description": "Kilograms"},
            "priority": {"anyOf": [
                named("Priority"),
                {"type": "integer", "minimum": 0, "maximum": PRIORITY_NUMBER_MAX, "description": "0 to 3: normal; 4 to 6: high; 7 to 9: critical"},
                {"type": "null"},
            ]},
            "deadline": {"type": ["number", "null"], "minimum": DEADLINE_RANGE_SEC.start(), "maximum": DEADLINE_RANGE_SEC.end(),
                "description": "When it should have arrived, Unix seconds; a missed one is no failure"},
        },
        "examples": [{"origin": {"lat": 41.89, "lon": 12.49}, "destination": {"lat": 41.91, "lon": 12.46}, "weight": 1.5}],
    })
}

fn priority() -> Value {
    json!({"type": "string", "enum": Priority::ALL.map(Priority::name), "default": Priority::default().name()})
}

fn status() -> Value {
    json!({"type": "string", "enum": DeliveryStatus::ALL.map(DeliveryStatus::name)})
}

fn text_or_null(description: &str) -> Value {
    json!({"type": ["string", "null"], "description": description})
}

fn moment(description: &str) -> Value {
    json!({"type": "number", "description": format!("{description}, Unix seconds")})
}

fn delivery() -> Value {
    json!({
        "type": "object",
        "required": ["id", "status", "drone_id", "origin", "destination", "weight", "timestamp", "leg"],
        "properties": {
            "id": {"type": "string", "description": "UUID of version 7: later orders have greater ids"},
            "status": status(),
            "drone_id": text_or_null("The drone that has it, or had it last"),
            "origin": named("Point"),
            "destination": named("Point"),
            "weight": {"type": "number", "description": "Kilograms"},
            "origin_zone": text_or_null("Null outside the area"),
            "destination_zone": text_or_null("Null outside the area"),
            "leg": {"enum": ["to_origin", "to_destination", null]},
            "timestamp": moment("Ordered"),
            "assigned_at": moment("First taken by a drone; again after one was lost"),
            "swaps": {"type": "integer", "minimum": 0, "description": "How often it was taken from a drone that flew to its pick-up and given to a better one; absent means 0"},
            "picked_up_at": moment("Picked up"),
            "delivered_at": moment("Delivered"),
            "cancelled_at": moment("Cancelled"),
            "failed_at": moment("Failed"),
            "reason": {"type": "string", "description": "Why it failed"},
            "priority": named("Priority"),
            "deadline": moment("Should have arrived"),
            "pickup_eta": moment("Will probably be picked up"),
            "delivery_eta": moment("Will probably arrive"),
            "traceparent": {"type": "string", "description": "The trace that its life is part of, and the last span of that (W3C Trace Context)", "examples": ["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"]},
            "tracestate": {"type": "string", "description": "The W3C tracestate beside it"},
            "request_id": {"type": "string", "description": "The X-Request-Id of the request that ordered it, as in logs"},
            "waits_for": {"type": "string", "description": "Why it waits, while it does", "examples": ["no heavy drone free; next in 40 s"]},
            "history": {"type": "array", "items": {
                "type": "object",
                "required": ["at", "status"],
                "properties": {
                    "at": moment("Since when"),
                    "status": status(),
                    "leg": {"type": "string"},
                    "drone_id": {"type": "string"},
                },
            }},
        },
    })
}

fn drone() -> Value {
    json!({
        "type": "object",
        "required": ["id", "status", "zone"],
        "properties": {
            "id": {"type": "string", "examples": ["drone-1"]},
            "type": {"type": "string", "enum": ["light", "medium", "heavy"]},
            "status": {"type": "string", "enum": DroneStatus::ALL.map(DroneStatus::name)},
            "battery": {"type": "number", "minimum": 0, "maximum": 100, "description": "Percent"},
            "pos": named("Point"),
            "speed": {"type": "number"},
            "current_delivery": text_or_null("The delivery it flies"),
            "at_charge": {"type": "boolean", "description": "Stands at a charge point"},
            "charge_since": moment("When it came to the charge point where it charges or waits for a slot"),
            "charge_queue": {"type": "integer", "minimum": 0, "description": "0 while it charges there, else its place in the queue"},
            "top_up": {"type": "boolean", "description": "Charges only until an order needs it"},
            "feas_miss": {"type": "integer", "description": "Orders it had too little battery for"},
            "feas_miss_set": {"type": "array", "items": {"type": "string"}},
            "seen_at": moment("Last sign of life"),
            "freeze_until": moment("Left alone by the simulator until then"),
            "zone": text_or_null("Null outside the area"),
        },
    })
}

fn list(item: Value, has_next: bool) -> Value {
    let mut list = json!({
        "type": "object",
        "required": ["count", "items"],
        "properties": {
            "count": {"type": "integer", "minimum": 0, "description": "How many items there are here"},
            "items": {"type": "array"},
        },
    });
    list["properties"]["items"]["items"] = item;
    if has_next {
        list["properties"]["next"] = text_or_null("Pass as `after` for older ones; null at the end");
    }
    list
}

fn zones() -> Value {
    let bounds = json!({
        "type": "object",
        "required": ["lat_min", "lat_max", "lon_min", "lon_max"],
        "properties": {
            "lat_min": {"type": "number"}, "lat_max": {"type": "number"},
            "lon_min": {"type": "number"}, "lon_max": {"type": "number"},
        },
    });
    json!({
        "type": "object",
        "required": ["bounds", "rows", "cols", "zones", "adjacency"],
        "properties": {
            "bounds": bounds,
            "rows": {"type": "integer"},
            "cols": {"type": "integer"},
            "zones": {"type": "array", "items": {
                "type": "object",
                "required": ["name", "row", "col", "bounds", "charge", "neighbors"],
                "properties": {
                    "name": {"type": "string", "examples": ["zone 0"]},
                    "row": {"type": "integer"},
                    "col": {"type": "integer"},
                    "bounds": bounds,
                    "charge": named("Point"),
                    "neighbors": {"type": "array", "items": {"type": "string"}},
                },
            }},
            "adjacency": {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "string"}}},
            "no_fly": {
                "type": "array",
                "maxItems": NO_FLY_MAX,
                "description": "Polygons that nobody flies over; absent when there are none",
                "items": {
                    "type": "object",
                    "required": ["vertices"],
                    "properties": {"vertices": {"type": "array", "minItems": 3, "maxItems": VERTICES_MAX, "items": named("Point")}},
                },
            },
        },
    })
}

fn times() -> Value {
    let seconds =
        json!({"type": ["number", "null"], "description": "Seconds since the order; null when there was none"});
    json!({
        "type": "object",
        "required": ["count", "p50_sec", "p95_sec", "p99_sec", "max_sec"],
        "properties": {
            "count": {"type": "integer", "minimum": 0},
            "p50_sec": seconds, "p95_sec": seconds, "p99_sec": seconds, "max_sec": seconds,
        },
    })
}

fn bound() -> Value {
    let seconds = |what: &str| json!({"type": ["number", "null"], "description": what});
    json!({
        "type": "object",
        "required": ["count", "mean_sec", "lower_bound_sec", "gap"],
        "properties": {
            "count": {"type": "integer", "minimum": 0, "description": "Deliveries it is about: the newest 5,000 of the window at most"},
            "mean_sec": seconds("Seconds from order to delivery; null when there was none"),
            "lower_bound_sec": seconds("The mean that no dispatcher could beat on these orders, seconds; null when there was none"),
            "gap": {"type": ["number", "null"], "minimum": 0,
                "description": "mean_sec / lower_bound_sec - 1; null when there was none, and when drones fly faster than SPEED_BASE_KMH and TIME_SCALE say"},
        },
    })
}

fn stats() -> Value {
    let count = json!({"type": "integer", "minimum": 0});
    let mut counts = serde_json::Map::new();
    for status in DeliveryStatus::ALL {
        counts.insert(status.name().to_owned(), count.clone());
    }
    counts.insert("total".to_owned(), count.clone());
    counts.insert(
        "complete".to_owned(),
        json!({"type": "boolean", "description": "False while a gateway that has just started is still counting"}),
    );
    json!({
        "type": "object",
        "required": ["now", "deliveries", "latency", "fleet", "recent_events"],
        "properties": {
            "now": moment("The gateway's time"),
            "deliveries": {"type": "object", "required": counts.keys().collect::<Vec<_>>(), "properties": counts},
            "latency": {
                "type": "object",
                "required": ["window_sec", "assign", "pick_up", "deliver", "bound"],
                "properties": {
                    "window_sec": {"type": "number"},
                    "assign": named("Times"),
                    "pick_up": named("Times"),
                    "deliver": named("Times"),
                    "bound": named("Bound"),
                },
            },
            "fleet": {"type": "object", "additionalProperties": count, "description": "Drones by status"},
            "recent_events": {"type": "array", "items": {
                "type": "object",
                "required": ["at", "type", "delivery_id"],
                "properties": {
                    "at": moment("Heard of"),
                    "type": {"type": "string"},
                    "delivery_id": {"type": "string"},
                    "drone_id": text_or_null("The drone it is about, if any"),
                },
            }},
        },
    })
}

fn readiness() -> Value {
    json!({
        "type": "object",
        "required": ["status", "checks"],
        "properties": {
            "status": {"type": "string", "enum": ["ready", "not ready", "stopping"]},
            "checks": {"type": "object", "additionalProperties": {
                "type": "object",
                "required": ["ok", "last_success_sec_ago", "error"],
                "properties": {
                    "ok": {"type": "boolean"},
                    "last_success_sec_ago": {"type": ["number", "null"]},
                    "error": {"type": ["string", "null"]},
                },
            }},
        },
    })
}

fn error() -> Value {
    json!({
        "type": "object",
        "required": ["detail"],
        "properties": {
            "detail": {"type": "string", "description": "The field, the value, what was expected"},
            "field": {"type": "string", "description": "The path of the field", "examples": ["origin.lat"]},
            "outcome": {"type": "string", "enum": ["unknown"], "description": "Something may have been changed all the same"},
            "id": {"type": "string", "description": "The order that may exist"},
            "status": status(),
        },
    })
}
