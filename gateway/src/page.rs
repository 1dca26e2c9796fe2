//! The dashboard's files, built into the program so that it needs nothing beside it.

use axum::response::{IntoResponse, Response};
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use service::http::ApiError;

use crate::hash::stable_hash;

/// The page loads from its own origin only, runs no inline script, and is framed by nobody.
const POLICY: &str =
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Name below `/dashboard/`, media type, content. The empty name is the page itself.
const FILES: [(&str, &str, &[u8]); 8] = [
    ("", HTML, include_bytes!("../../dashboard/index.html")),
    ("style.css", CSS, include_bytes!("../../dashboard/style.css")),
    ("icon.svg", SVG, include_bytes!("../../dashboard/icon.svg")),
    ("app.js", SCRIPT, include_bytes!("../../dashboard/app.js")),
    ("api.js", SCRIPT, include_bytes!("../../dashboard/api.js")),
    ("fleet.js", SCRIPT, include_bytes!("../../dashboard/fleet.js")),
    ("map.js", SCRIPT, include_bytes!("../../dashboard/map.js")),
    ("tables.js", SCRIPT, include_bytes!("../../dashboard/tables.js")),
];

/// The file `name`, or 304 when the browser has it already.
pub(crate) fn file(name: &str, request: &HeaderMap) -> Response {
    let Some((_, media_type, content)) = FILES.iter().find(|(known, ..)| *known == name) else {
        return ApiError::not_found("Not Found").into_response();
    };
    let tag = format!("\"{}\"", stable_hash(content));
    let known = request.get_all(IF_NONE_MATCH).iter().any(|value| {
        let tags = value.to_str().unwrap_or_default();
        tags.split(',').any(|one| one.trim().trim_start_matches("W/") == tag)
    });
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    // Names carry no version, so browsers ask each time; the tag makes that cheap.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(
        ETAG,
        HeaderValue::from_str(&tag).expect("hexadecimal digits in quotes are a valid header"),
    );
    if known {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (headers, *content).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the page and its modules refer to is served, so no file can be forgotten here.
    #[test]
    fn every_file_that_is_referred_to_is_served() {
        for (name, _, content) in FILES {
            let text = std::str::from_utf8(content).unwrap();
            for reference in text.split('"').filter_map(|part| part.strip_prefix("/dashboard/")) {
                assert_eq!(
                    file(reference, &HeaderMap::new()).status(),
                    200,
                    "{name} refers to {reference}"
                );
            }
            assert!(!text.contains("innerHTML"), "{name}: data must not become markup");
            let foreign = text.replace("http://www.w3.org/", "");
            assert!(
                !foreign.contains("http://") && !foreign.contains("https://"),
                "{name}: own origin only"
            );
        }
    }

    #[test]
    fn a_browser_that_has_it_is_told_so() {
        let first = file("app.js", &HeaderMap::new());
        assert_eq!(first.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert!(
            first.headers()[CONTENT_SECURITY_POLICY]
                .to_str()
                .unwrap()
                .starts_with("default-src 'self'")
        );
        let mut request = HeaderMap::new();
        request.insert(IF_NONE_MATCH, first.headers()[ETAG].clone());
        assert_eq!(file("app.js", &request).status(), 304);
        assert_eq!(file("style.css", &request).status(), 200);
        assert_eq!(file("nothing.js", &request).status(), 404);
    }
}
