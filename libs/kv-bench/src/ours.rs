//! Our KV: HTTP/1.1 on one keep-alive connection, written and read by hand so that the client costs little beside the servers.

use std::fmt::Write as _;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::client::{Client, Connect, OpError, Swap, clip, number_in};
use crate::wire::Wire;
use crate::work::KEY_PREFIX;

/// Most header lines in an answer.
const MAX_HEADERS: usize = 32;
/// Largest body of an answer, bytes: a page of the largest size is far below.
const MAX_BODY_BYTES: usize = 16 << 20;

/// A kvfront.
#[derive(Debug, Clone)]
pub(crate) struct Ours {
    /// `host:port`.
    pub(crate) authority: String,
}

impl Ours {
    /// The kvfront at `http://host:port`.
    pub(crate) fn at(url: &str) -> anyhow::Result<Self> {
        match url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/')) {
            Some(authority) if authority.contains(':') && !authority.contains('/') => Ok(Self {
                authority: authority.to_owned(),
            }),
            _ => anyhow::bail!("--url {url}: http://host:port is expected"),
        }
    }

    /// Whether it says that it can do its work.
    pub(crate) async fn is_ready(&self) -> Result<(), OpError> {
        let mut client = self.connect(0).await?;
        client.call("GET", "/ready", "").await.map(drop)
    }
}

impl Connect for Ours {
    type Client = OursClient;

    async fn connect(&self, _client: usize) -> Result<OursClient, OpError> {
        Ok(OursClient {
            wire: Wire::connect(&self.authority).await?,
            authority: self.authority.clone(),
            request: String::new(),
        })
    }
}

/// A connection to a kvfront.
#[derive(Debug)]
pub(crate) struct OursClient {
    wire: Wire,
    authority: String,
    /// The request being made; kept for its memory.
    request: String,
}

#[derive(Deserialize)]
struct Found<'a> {
    key: &'a str,
    #[serde(borrow)]
    value: &'a RawValue,
    version: &'a str,
}

#[derive(Deserialize)]
struct Changed<'a> {
    ok: bool,
    version: Option<&'a str>,
    #[serde(borrow)]
    current: Option<&'a RawValue>,
    token: Option<&'a str>,
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    items: Vec<Found<'a>>,
}

#[derive(Deserialize)]
struct Results {
    results: Vec<OneResult>,
}

#[derive(Deserialize)]
struct OneResult {
    status: u16,
    ok: Option<bool>,
    detail: Option<String>,
}

impl OursClient {
    /// Sends a request and gives the body of its answer, which must be a 200.
    async fn call(&mut self, method: &str, path: &str, body: &str) -> Result<Bytes, OpError> {
        self.request.clear();
        // Writing to a String cannot fail.
        let _ = write!(
            self.request,
            "{method} {path} HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n\r\n{body}",
            self.authority,
            body.len()
        );
        self.wire.send(self.request.as_bytes()).await?;
        let (status, length) = self.head().await?;
        let answer = self.wire.take(length).await?;
        if status == 200 {
            return Ok(answer);
        }
        Err(OpError::Refused(clip(&format!(
            "{status} {}",
            String::from_utf8_lossy(&answer)
        ))))
    }

    /// Reads an answer's head: its status and the length of its body.
    async fn head(&mut self) -> Result<(u16, usize), OpError> {
        loop {
            if let Some((status, length, head)) = parse_head(&self.wire.buffer)? {
                let _ = self.wire.take(head).await?;
                return Ok((status, length));
            }
            self.wire.fill().await?;
        }
    }

    /// Makes a change that cannot be refused.
    async fn change(&mut self, method: &str, path: &str, body: &str) -> Result<(), OpError> {
        let answer = self.call(method, path, body).await?;
        match parse::<Changed<'_>>(&answer)?.ok {
            true => Ok(()),
            false => Err(unexpected(&answer)),
        }
    }
}

/// Status, length of the body, length of the head; nothing while the head is not complete.
fn parse_head(bytes: &[u8]) -> Result<Option<(u16, usize, usize)>, OpError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut answer = httparse::Response::new(&mut headers);
    let head = match answer.parse(bytes).map_err(OpError::wrong)? {
        httparse::Status::Partial => return Ok(None),
        httparse::Status::Complete(head) => head,
    };
    let length = answer
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok())
        .filter(|length| *length <= MAX_BODY_BYTES);
    match (answer.code, length) {
        (Some(status), Some(length)) => Ok(Some((status, length, head))),
        _ => Err(OpError::wrong("an answer without a usable Content-Length")),
    }
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, OpError> {
    serde_json::from_slice(body).map_err(|error| OpError::wrong(format!("{error}: {}", String::from_utf8_lossy(body))))
}

fn unexpected(body: &[u8]) -> OpError {
    OpError::wrong(String::from_utf8_lossy(body))
}

impl Client for OursClient {
    type Version = String;

    async fn get(&mut self, key: &str) -> Result<(), OpError> {
        self.current(key).await.map(drop)
    }

    async fn put(&mut self, key: &str, value: &str) -> Result<(), OpError> {
        let body = format!("{{\"value\":{value}}}");
        self.change("PUT", &format!("/kv/{key}"), &body).await
    }

    async fn create(&mut self, key: &str, value: &str) -> Result<(), OpError> {
        let body = format!("{{\"key\":\"{key}\",\"version\":null,\"new\":{value}}}");
        self.change("POST", "/kv/cas", &body).await
    }

    async fn current(&mut self, key: &str) -> Result<(u64, String), OpError> {
        let answer = self.call("GET", &format!("/kv/{key}"), "").await?;
        let found: Found<'_> = parse(&answer)?;
        if found.key != key {
            return Err(unexpected(&answer));
        }
        Ok((number_in(found.value.get().as_bytes())?, found.version.to_owned()))
    }

    async fn swap(&mut self, key: &str, version: &String, value: &str) -> Result<Swap<String>, OpError> {
        let body = format!("{{\"key\":\"{key}\",\"version\":\"{version}\",\"new\":{value}}}");
        let answer = self.call("POST", "/kv/cas", &body).await?;
        let changed: Changed<'_> = parse(&answer)?;
        match (changed.ok, changed.version, changed.current) {
            (true, Some(version), _) => Ok(Swap::Won(version.to_owned())),
            (false, Some(version), Some(current)) => {
                Ok(Swap::Lost(number_in(current.get().as_bytes())?, version.to_owned()))
            }
            _ => Err(unexpected(&answer)),
        }
    }

    async fn put_all(&mut self, keys: &[String], value: &str) -> Result<(), OpError> {
        let mut body = String::with_capacity(keys.len() * (value.len() + 64));
        for key in keys {
            let opening = if body.is_empty() { "{\"ops\":[" } else { "," };
            let _ = write!(body, "{opening}{{\"op\":\"put\",\"key\":\"{key}\",\"value\":{value}}}");
        }
        body.push_str("]}");
        let answer = self.call("POST", "/kv/batch", &body).await?;
        let results = parse::<Results>(&answer)?.results;
        if results.len() != keys.len() {
            return Err(unexpected(&answer));
        }
        match results.iter().find(|one| one.status != 200 || one.ok != Some(true)) {
            None => Ok(()),
            Some(OneResult { status, detail, .. }) => {
                let detail = detail.as_deref().unwrap_or_default();
                Err(OpError::Refused(clip(&format!("in a batch: {status} {detail}"))))
            }
        }
    }

    async fn scan(&mut self, after: &str, limit: usize) -> Result<(), OpError> {
        let path = format!("/kv?prefix={KEY_PREFIX}&limit={limit}&after={after}");
        let answer = self.call("GET", &path, "").await?;
        let page: Page<'_> = parse(&answer)?;
        if page.items.len() != limit {
            return Err(OpError::wrong(format!("a page of {}, not {limit}", page.items.len())));
        }
        page.items
            .iter()
            .try_for_each(|item| number_in(item.value.get().as_bytes()).map(drop))
    }

    async fn lock_unlock(&mut self, key: &str) -> Result<(), OpError> {
        let answer = self.call("POST", &format!("/lock/acquire/{key}"), "").await?;
        let taken: Changed<'_> = parse(&answer)?;
        match (taken.ok, taken.token) {
            (true, Some(token)) => {
                self.change("POST", &format!("/lock/release/{key}?token={token}"), "")
                    .await
            }
            _ => Err(unexpected(&answer)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_when_it_is_complete() {
        let head = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 12\r\n\r\n";
        assert_eq!(parse_head(head).unwrap(), Some((503, 12, head.len())));
        assert_eq!(parse_head(&head[..30]).unwrap(), None);
        assert!(parse_head(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
        assert!(parse_head(b"nonsense\r\n\r\n").is_err());
    }

    #[test]
    fn urls_name_host_and_port() {
        assert_eq!(Ours::at("http://127.0.0.1:9000/").unwrap().authority, "127.0.0.1:9000");
        assert!(Ours::at("https://127.0.0.1:9000").is_err());
        assert!(Ours::at("127.0.0.1:9000").is_err());
    }
}
