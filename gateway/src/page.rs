//! The dashboard's files, built into the program so that it needs nothing beside it.
//!
//! At start they are compressed, and references to them get a version, the hash of all of them, into their path. So browsers keep
//! what they have for a year and never mix two releases; there is no build step.

use std::collections::HashMap;
use std::io::Write;
use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::InvalidHeaderValue;
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH,
    REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use service::http::ApiError;

use crate::hash::stable_hash;
use crate::tiles::Tiles;

/// The page loads from its own origin only, runs no inline script or style, turns no text into markup, and is framed by nobody.
const POLICY: &str = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

/// Where the page looks for what `TILE_URL` and `TILE_ATTRIBUTION` say.
const NO_TILES: &str = "<meta name=\"tiles\" content=\"\" data-by=\"\">";

/// What a name with this version holds never changes.
const FOR_EVER: &str = "public, max-age=31536000, immutable";
/// Browsers ask each time; the entity tag makes that cheap.
const ASK: &str = "no-cache";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Name below `/dashboard/`, media type, content. The empty name is the page itself.
const FILES: &[(&str, &str, &[u8])] = &[
    ("", HTML, include_bytes!("../../dashboard/index.html")),
    ("style.css", CSS, include_bytes!("../../dashboard/style.css")),
    ("icon.svg", SVG, include_bytes!("../../dashboard/icon.svg")),
    ("app.js", SCRIPT, include_bytes!("../../dashboard/app.js")),
    ("basemap.js", SCRIPT, include_bytes!("../../dashboard/basemap.js")),
    ("camera.js", SCRIPT, include_bytes!("../../dashboard/camera.js")),
    ("filters.js", SCRIPT, include_bytes!("../../dashboard/filters.js")),
    ("history.js", SCRIPT, include_bytes!("../../dashboard/history.js")),
    ("i18n.js", SCRIPT, include_bytes!("../../dashboard/i18n.js")),
    ("map.js", SCRIPT, include_bytes!("../../dashboard/map.js")),
    ("map-drones.js", SCRIPT, include_bytes!("../../dashboard/map-drones.js")),
    ("map-orders.js", SCRIPT, include_bytes!("../../dashboard/map-orders.js")),
    ("panel.js", SCRIPT, include_bytes!("../../dashboard/panel.js")),
    ("playback.js", SCRIPT, include_bytes!("../../dashboard/playback.js")),
    ("plot.js", SCRIPT, include_bytes!("../../dashboard/plot.js")),
    ("promises.js", SCRIPT, include_bytes!("../../dashboard/promises.js")),
    ("rome.js", SCRIPT, include_bytes!("../../dashboard/rome.js")),
    ("slo.js", SCRIPT, include_bytes!("../../dashboard/slo.js")),
    ("sprites.js", SCRIPT, include_bytes!("../../dashboard/sprites.js")),
    ("store.js", SCRIPT, include_bytes!("../../dashboard/store.js")),
    ("stream.js", SCRIPT, include_bytes!("../../dashboard/stream.js")),
    ("swarm.js", SCRIPT, include_bytes!("../../dashboard/swarm.js")),
    ("swarm-gl.js", SCRIPT, include_bytes!("../../dashboard/swarm-gl.js")),
    (
        "swarm-pixels.js",
        SCRIPT,
        include_bytes!("../../dashboard/swarm-pixels.js"),
    ),
    ("tiles.js", SCRIPT, include_bytes!("../../dashboard/tiles.js")),
    ("tables.js", SCRIPT, include_bytes!("../../dashboard/tables.js")),
    ("dom.js", SCRIPT, include_bytes!("../../dashboard/dom.js")),
    ("cluster.css", CSS, include_bytes!("../../dashboard/cluster.css")),
    ("cluster.js", SCRIPT, include_bytes!("../../dashboard/cluster.js")),
    (
        "cluster-ring.js",
        SCRIPT,
        include_bytes!("../../dashboard/cluster-ring.js"),
    ),
    (
        "cluster-nodes.js",
        SCRIPT,
        include_bytes!("../../dashboard/cluster-nodes.js"),
    ),
    (
        "cluster-journey.js",
        SCRIPT,
        include_bytes!("../../dashboard/cluster-journey.js"),
    ),
    (
        "cluster-words.js",
        SCRIPT,
        include_bytes!("../../dashboard/cluster-words.js"),
    ),
    ("chaos.js", SCRIPT, include_bytes!("../../dashboard/chaos.js")),
    (
        "experiments.js",
        SCRIPT,
        include_bytes!("../../dashboard/experiments.js"),
    ),
    ("tracks.js", SCRIPT, include_bytes!("../../dashboard/tracks.js")),
];

/// A file as it is sent.
struct Asset {
    media_type: &'static str,
    plain: Bytes,
    zipped: Bytes,
    /// Hash of the plain text.
    tag: String,
}

/// All files, and the version in the paths by which they refer to each other.
struct Assets {
    version: String,
    files: HashMap<&'static str, Asset>,
}

static ASSETS: LazyLock<Assets> = LazyLock::new(Assets::prepare);

impl Assets {
    fn prepare() -> Self {
        let all: Vec<u8> = FILES.iter().flat_map(|(.., content)| content.iter().copied()).collect();
        let version = stable_hash(&all);
        let own = format!("\"/dashboard/{version}/");
        let files = FILES.iter().map(|(name, media_type, content)| {
            let text = String::from_utf8_lossy(content).replace("\"/dashboard/", &own);
            (*name, Asset::new(media_type, text))
        });
        Self {
            files: files.collect(),
            version,
        }
    }
}

impl Asset {
    fn new(media_type: &'static str, text: String) -> Self {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        // Writing to memory cannot fail.
        let _ = encoder.write_all(text.as_bytes());
        Self {
            media_type,
            tag: stable_hash(text.as_bytes()),
            zipped: encoder.finish().map(Bytes::from).unwrap_or_default(),
            plain: Bytes::from(text),
        }
    }
}

/// The page itself, as this gateway serves it.
pub(crate) struct Home {
    asset: Asset,
    /// Content-Security-Policy.
    policy: HeaderValue,
}

impl Home {
    /// With tiles the page is told of them, and may load pictures from their server; from no other, and nothing else.
    ///
    /// # Errors
    /// When the policy is no header; [`Tiles`] are checked so that it is one.
    pub(crate) fn new(tiles: Option<Tiles>, attribution: &str) -> Result<Self, InvalidHeaderValue> {
        let text = String::from_utf8_lossy(&ASSETS.files[""].plain);
        let Some(Tiles { template, origin }) = tiles else {
            let asset = Asset::new(HTML, text.into_owned());
            let policy = HeaderValue::from_static(POLICY);
            return Ok(Self { asset, policy });
        };
        let told = NO_TILES
            .replace("content=\"\"", &format!("content=\"{}\"", escaped(&template)))
            .replace("data-by=\"\"", &format!("data-by=\"{}\"", escaped(attribution)));
        Ok(Self {
            asset: Asset::new(HTML, text.replace(NO_TILES, &told)),
            policy: HeaderValue::try_from(format!("{POLICY}; img-src 'self' {origin}"))?,
        })
    }

    /// The page, or 304 when the browser has it already.
    pub(crate) fn answer(&self, request: &HeaderMap) -> Response {
        respond(&self.asset, request, ASK, self.policy.clone())
    }
}

/// Text as it stands within an attribute in double quotes.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;")
}

/// The file `name` of this version, or 304 when the browser has it already. A path with another version, from a page that another
/// release of the gateway sent, gets the present file, and is not to be kept.
pub(crate) fn versioned(version: &str, name: &str, request: &HeaderMap) -> Response {
    answer(name, request, if version == ASSETS.version { FOR_EVER } else { ASK })
}

/// The file `name`, or 304 when the browser has it already.
pub(crate) fn file(name: &str, request: &HeaderMap) -> Response {
    answer(name, request, ASK)
}

fn answer(name: &str, request: &HeaderMap, keep: &'static str) -> Response {
    let Some(asset) = ASSETS.files.get(name) else {
        return ApiError::not_found("Not Found").into_response();
    };
    respond(asset, request, keep, HeaderValue::from_static(POLICY))
}

fn respond(asset: &Asset, request: &HeaderMap, keep: &'static str, policy: HeaderValue) -> Response {
    let zip = accepts_gzip(request) && !asset.zipped.is_empty();
    let tag = format!("\"{}{}\"", asset.tag, if zip { "-gzip" } else { "" });
    let known = request.get_all(IF_NONE_MATCH).iter().any(|value| {
        let tags = value.to_str().unwrap_or_default();
        tags.split(',').any(|one| one.trim().trim_start_matches("W/") == tag)
    });
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(asset.media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(keep));
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    headers.insert(CONTENT_SECURITY_POLICY, policy);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(
        ETAG,
        HeaderValue::from_str(&tag).expect("hexadecimal digits in quotes are a valid header"),
    );
    if known {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    if zip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    let body = if zip { &asset.zipped } else { &asset.plain };
    (headers, body.clone()).into_response()
}

/// Whether the client takes gzip (RFC 9110, §12.5.3), as far as browsers ask: by name, and not with weight 0.
fn accepts_gzip(request: &HeaderMap) -> bool {
    let values = request
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|one| {
        let mut parts = one.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let weight = parts.find_map(|part| part.strip_prefix("q="));
        is_gzip && weight.is_none_or(|weight| weight.parse().is_ok_and(|weight: f32| weight > 0.0))
    })
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

    #[test]
    fn tiles_are_told_and_their_server_is_allowed() {
        let request = HeaderMap::new();
        let plain = Home::new(None, "nobody").unwrap();
        assert_eq!(plain.answer(&request).headers()[CONTENT_SECURITY_POLICY], POLICY);
        assert!(String::from_utf8_lossy(&plain.asset.plain).contains(NO_TILES));
        let tiles = Tiles::parse("https://tiles.example/{z}/{x}/{y}.png?a=1&b=2").unwrap();
        let home = Home::new(tiles, "© \"A\" & <B>").unwrap();
        let policy = home.answer(&request).headers()[CONTENT_SECURITY_POLICY].clone();
        let policy = policy.to_str().unwrap();
        assert_eq!(
            policy.strip_prefix(POLICY),
            Some("; img-src 'self' https://tiles.example")
        );
        let text = String::from_utf8_lossy(&home.asset.plain).into_owned();
        assert!(
            text.contains("content=\"https://tiles.example/{z}/{x}/{y}.png?a=1&amp;b=2\""),
            "{text}"
        );
        assert!(text.contains("data-by=\"© &quot;A&quot; &amp; &lt;B>\""), "{text}");
        assert_ne!(home.asset.tag, plain.asset.tag);
        assert_eq!(file("app.js", &request).headers()[CONTENT_SECURITY_POLICY], POLICY);
    }

    /// Largest sum of all files as browsers get them, bytes.
    const ZIPPED_MAX: usize = 150 * 1024;

    #[test]
    fn the_page_refers_to_files_that_may_be_kept_for_ever() {
        let page = String::from_utf8_lossy(&ASSETS.files[""].plain).into_owned();
        let own = format!("/dashboard/{}/", ASSETS.version);
        assert!(page.contains(&format!("{own}app.js")), "{page}");
        let mut request = HeaderMap::new();
        let plain = versioned(&ASSETS.version, "app.js", &request);
        assert_eq!(plain.headers()[CACHE_CONTROL], FOR_EVER);
        assert!(!plain.headers().contains_key(CONTENT_ENCODING));
        assert_eq!(versioned("0123", "app.js", &request).headers()[CACHE_CONTROL], ASK);
        assert_eq!(file("", &request).headers()[CACHE_CONTROL], ASK);
        request.insert(ACCEPT_ENCODING, HeaderValue::from_static("br, gzip;q=0.5"));
        let zipped = versioned(&ASSETS.version, "app.js", &request);
        assert_eq!(zipped.headers()[CONTENT_ENCODING], "gzip");
        assert_ne!(zipped.headers()[ETAG], plain.headers()[ETAG]);
        request.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip;q=0"));
        assert!(!file("app.js", &request).headers().contains_key(CONTENT_ENCODING));
    }

    #[test]
    fn it_is_small() {
        let zipped: usize = ASSETS.files.values().map(|asset| asset.zipped.len()).sum();
        assert!(zipped > 0 && zipped < ZIPPED_MAX, "{zipped} bytes");
    }
}
