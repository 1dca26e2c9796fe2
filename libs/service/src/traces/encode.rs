//! Spans as JSON: OTLP's `ExportTraceServiceRequest` in protobuf's JSON mapping, with the exceptions that OTLP makes to it: ids are
//! hexadecimal, and enumerations are numbers. Integers of 64 bits are texts, as that mapping has them.

use bytes::Bytes;
use serde_json::{Map, Value as Json, json};
use trace::{Kind, SpanData, Value};

/// Longest text of an attribute or an error, in characters; what is longer is cut.
const TEXT_MAX_CHARS: usize = 1_024;
/// `STATUS_CODE_ERROR`.
const STATUS_ERROR: u8 = 2;
/// The flags say whether the parent is in another process; which we do not (bits 8 and 9 stay 0).
const FLAG_SAMPLED: u32 = 1;

/// Who sends: the service's name, and the program it is.
pub(super) fn resource(name: &str, program: &str) -> Json {
    let attributes = [
        ("service.name", name.to_owned()),
        ("service.namespace", "dronedispatch".to_owned()),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("process.executable.name", program.to_owned()),
        ("process.pid", std::process::id().to_string()),
    ];
    let attributes: Vec<Json> = attributes
        .into_iter()
        .map(|(key, value)| match key {
            "process.pid" => json!({"key": key, "value": {"intValue": value}}),
            _ => json!({"key": key, "value": {"stringValue": value}}),
        })
        .collect();
    json!({ "attributes": attributes })
}

/// The body of a request.
pub(super) fn request(resource: &Json, spans: &[SpanData]) -> Bytes {
    let spans: Vec<Json> = spans.iter().map(span).collect();
    let scope = json!({"name": "dronedispatch", "version": env!("CARGO_PKG_VERSION")});
    let body = json!({"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": scope, "spans": spans}]}]});
    Bytes::from(body.to_string())
}

/// Of an answer with success: how many spans were not taken all the same, and why.
pub(super) fn refused(answer: &[u8]) -> Option<(u64, String)> {
    let answer: Json = serde_json::from_slice(answer).ok()?;
    let partial = answer.get("partialSuccess")?;
    // A text by the mapping; some send a number.
    let count = match partial.get("rejectedSpans")? {
        Json::String(text) => text.parse().ok()?,
        number => number.as_u64()?,
    };
    let why = partial.get("errorMessage").and_then(Json::as_str).unwrap_or_default();
    (count > 0).then(|| (count, format!("refused {count} spans: {}", cut(why))))
}

fn span(data: &SpanData) -> Json {
    let mut span = Map::new();
    let mut put = |name: &str, value: Json| drop(span.insert(name.to_owned(), value));
    put("traceId", data.context.trace_id.to_string().into());
    put("spanId", data.context.span_id.to_string().into());
    if let Some(parent) = data.parent {
        put("parentSpanId", parent.to_string().into());
    }
    if let Some(state) = &data.state {
        put("traceState", state.as_ref().into());
    }
    put("flags", FLAG_SAMPLED.into());
    put("name", data.name.as_ref().into());
    put("kind", kind(data.kind).into());
    put("startTimeUnixNano", data.started_ns.to_string().into());
    put("endTimeUnixNano", data.ended_ns.to_string().into());
    if !data.attributes.is_empty() {
        let attributes = data.attributes.iter();
        let attributes = attributes.map(|(key, value)| json!({"key": key, "value": any(value)}));
        put("attributes", attributes.collect());
    }
    if let Some(error) = &data.error {
        put("status", json!({"code": STATUS_ERROR, "message": cut(error)}));
    }
    Json::Object(span)
}

fn kind(kind: Kind) -> u8 {
    match kind {
        Kind::Internal => 1,
        Kind::Server => 2,
        Kind::Client => 3,
        Kind::Producer => 4,
        Kind::Consumer => 5,
    }
}

fn any(value: &Value) -> Json {
    match value {
        Value::Text(text) => json!({"stringValue": cut(text)}),
        Value::Int(number) => json!({"intValue": number.to_string()}),
        // JSON has no infinity; the mapping writes such numbers as texts.
        Value::Float(number) if !number.is_finite() => json!({"doubleValue": number.to_string()}),
        Value::Float(number) => json!({ "doubleValue": number }),
    }
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_MAX_CHARS).collect()
}
