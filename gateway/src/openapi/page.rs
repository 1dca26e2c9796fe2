//! The document as a page: plain HTML, made here, so that it needs no script and nothing from elsewhere.

use std::fmt::Write;
use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use serde_json::{Map, Value};

use super::DOCUMENT;

/// Nothing but the style below, by its place; no script at all.
const POLICY: &str =
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

static PAGE: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(page(&DOCUMENT)));

/// `GET /docs`.
pub(crate) async fn docs() -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (headers, PAGE.clone()).into_response()
}

fn page(document: &Value) -> String {
    let mut out = String::new();
    let info = &document["info"];
    let title = Html(&info["title"]);
    // Writing to a `String` cannot fail; likewise below.
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title} API</title><link rel=\"stylesheet\" href=\"/dashboard/style.css\"></head><body><main>\
         <h1>{title} API {}</h1><p>{}</p><p>{}</p><p>For programs: <a href=\"/openapi.json\">openapi.json</a></p>\n",
        Html(&info["version"]),
        Html(&info["summary"]),
        Html(&info["description"]),
    );
    for tag in document["tags"].as_array().into_iter().flatten() {
        let _ = writeln!(out, "<h2>{}</h2>", Html(&tag["description"]));
        for (path, operations) in fields(&document["paths"]) {
            for (method, operation) in fields(operations) {
                if operation["tags"][0] == tag["name"] {
                    write_operation(&mut out, document, path, method, operation);
                }
            }
        }
    }
    out.push_str("<h2>Shapes</h2>\n");
    for (name, schema) in fields(&document["components"]["schemas"]) {
        let _ = writeln!(out, "<h3 id=\"{0}\">{0}</h3>", Escaped(name));
        write_schema(&mut out, schema);
    }
    out.push_str("</main></body></html>\n");
    out
}

fn write_operation(out: &mut String, document: &Value, path: &str, method: &str, operation: &Value) {
    let _ = writeln!(
        out,
        "<h3 id=\"{}\"><code>{} {}</code></h3><p>{}</p>",
        Html(&operation["operationId"]),
        Escaped(&method.to_uppercase()),
        Escaped(path),
        Html(&operation["summary"]),
    );
    out.push_str("<table><thead><tr><th>Takes</th><th></th><th></th></tr></thead><tbody>\n");
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let _ = writeln!(
            out,
            "<tr><td><code>{}</code> ({})</td><td>{}</td><td>{}</td></tr>",
            Html(&parameter["name"]),
            Html(&parameter["in"]),
            kind(&parameter["schema"]),
            Html(&parameter["description"]),
        );
    }
    let body = &operation["requestBody"]["content"]["application/json"]["schema"];
    if let Some(name) = name_of(body) {
        let example = &document["components"]["schemas"][name]["examples"][0];
        let _ = writeln!(
            out,
            "<tr><td>body</td><td>{}</td><td><code>{}</code></td></tr>",
            kind(body),
            Escaped(&example.to_string())
        );
    }
    out.push_str("</tbody><thead><tr><th>Answers</th><th></th><th></th></tr></thead><tbody>\n");
    for (status, response) in fields(&operation["responses"]) {
        let content = fields(&response["content"]).next();
        let (media_type, schema) = content.map_or(("", &Value::Null), |(name, content)| {
            (name.as_str(), &content["schema"])
        });
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td>{} {}</td><td>{}</td></tr>",
            Escaped(status),
            Escaped(if media_type == "application/json" {
                ""
            } else {
                media_type
            }),
            kind(schema),
            Html(&response["description"]),
        );
    }
    out.push_str("</tbody></table>\n");
}

fn write_schema(out: &mut String, schema: &Value) {
    out.push_str("<table><tbody>\n");
    let required = schema["required"].as_array();
    for (name, field) in fields(&schema["properties"]) {
        let must = required.is_some_and(|names| names.iter().any(|one| one == name));
        let _ = writeln!(
            out,
            "<tr><td><code>{}</code>{}</td><td>{}</td><td>{}</td></tr>",
            Escaped(name),
            if must { "" } else { " (optional)" },
            kind(field),
            Html(&field["description"]),
        );
    }
    out.push_str("</tbody></table>\n");
}

/// What a schema takes, in a few words of HTML.
fn kind(schema: &Value) -> String {
    if let Some(name) = name_of(schema) {
        return format!("<a href=\"#{0}\">{0}</a>", Escaped(name));
    }
    if let Some(allowed) = schema["enum"].as_array() {
        let names: Vec<String> = allowed
            .iter()
            .map(|one| format!("<code>{}</code>", Html(one)))
            .collect();
        return names.join(", ");
    }
    let mut text = match &schema["type"] {
        Value::Array(types) => types
            .iter()
            .map(|one| Html(one).to_string())
            .collect::<Vec<_>>()
            .join(" or "),
        one => Html(one).to_string(),
    };
    if schema["type"] == "array" {
        let _ = write!(text, " of {}", kind(&schema["items"]));
    }
    for (limit, words) in [
        ("minimum", "from"),
        ("exclusiveMinimum", "above"),
        ("maximum", "to"),
        ("maxLength", "up to"),
        ("default", "default"),
    ] {
        if let Some(value) = schema.get(limit) {
            let _ = write!(text, " {words} {}", Html(value));
        }
    }
    text
}

fn name_of(schema: &Value) -> Option<&str> {
    schema["$ref"].as_str()?.rsplit('/').next()
}

fn fields(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

/// A value as text of a page: nothing for null, texts without quotes.
struct Html<'a>(&'a Value);

/// Text that cannot become markup.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Html<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Value::Null => Ok(()),
            Value::String(text) => Escaped(text).fmt(f),
            other => Escaped(&other.to_string()).fmt(f),
        }
    }
}

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_operation_and_shape_is_on_the_page() {
        let page = std::str::from_utf8(&PAGE).unwrap();
        for (path, operations) in fields(&DOCUMENT["paths"]) {
            for (method, _) in fields(operations) {
                assert!(
                    page.contains(&format!("<code>{} {path}</code>", method.to_uppercase())),
                    "{path}"
                );
            }
        }
        for (name, _) in fields(&DOCUMENT["components"]["schemas"]) {
            assert!(page.contains(&format!("id=\"{name}\"")), "{name}");
        }
        assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("<script"));
        assert_eq!(page.matches("<table>").count(), page.matches("</table>").count());
    }

    #[test]
    fn text_does_not_become_markup() {
        assert_eq!(Html(&json!("<b>&\"")).to_string(), "&lt;b&gt;&amp;&quot;");
        assert_eq!(
            kind(&json!({"type": "integer", "minimum": 1, "maximum": 9})),
            "integer from 1 to 9"
        );
    }
}
