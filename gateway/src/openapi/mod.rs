//! What the API is, for programs (`/openapi.json`, OpenAPI 3.1) and for people (`/docs`).
//!
//! The document is made from the constants that the code uses, and checked in as `docs/openapi.json`: a test compares the two, so no
//! change of the API goes unnoticed. `UPDATE_GOLDEN=1 cargo test -p gateway openapi` writes the file anew.

mod operations;
mod page;
mod schemas;

use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use serde_json::{Value, json};

pub(crate) use page::docs;

/// Made once.
static DOCUMENT: LazyLock<Value> = LazyLock::new(document);
static TEXT: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(pretty(&DOCUMENT)));

/// `GET /openapi.json`.
pub(crate) async fn openapi() -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, TEXT.clone()).into_response()
}

fn document() -> Value {
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "DroneDispatch",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Order a parcel's flight across Rome, and see it fly.",
            "description": "Bodies are JSON. Unknown fields are ignored, times are Unix seconds, `_sec` are seconds. \
                An order that was answered with 201 is stored; with an `Idempotency-Key` it may be sent again safely.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": "deliveries", "description": "Orders and what becomes of them"},
            {"name": "fleet", "description": "Drones and zones"},
            {"name": "watching", "description": "Figures and events"},
            {"name": "service", "description": "Health, metrics, and this document"},
        ],
        "paths": operations::paths(),
        "components": {"schemas": schemas::all()},
    })
}

fn pretty(document: &Value) -> String {
    // Texts and finite numbers can always be written.
    let mut text = serde_json::to_string_pretty(document).unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn the_checked_in_document_is_the_served_one() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
        let served = pretty(&DOCUMENT);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &served).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            golden == served,
            "docs/openapi.json is not what is served; look at the difference, and write it anew with UPDATE_GOLDEN=1"
        );
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_operation_has_its_name() {
        fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
            match value {
                Value::Object(fields) => {
                    found.extend(fields.get("$ref").and_then(Value::as_str));
                    fields.values().for_each(|value| references(value, found));
                }
                Value::Array(items) => items.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let mut found = BTreeSet::new();
        references(&DOCUMENT, &mut found);
        assert!(found.len() > 5);
        for reference in found {
            let pointer = reference.strip_prefix('#').expect("all are within the document");
            assert!(DOCUMENT.pointer(pointer).is_some(), "{reference}");
        }
        let paths = DOCUMENT["paths"].as_object().unwrap();
        let operations: Vec<_> = paths
            .values()
            .flat_map(|path| path.as_object().unwrap().values())
            .collect();
        let names: BTreeSet<_> = operations
            .iter()
            .map(|operation| operation["operationId"].as_str().unwrap())
            .collect();
        assert_eq!(names.len(), operations.len());
    }
}
