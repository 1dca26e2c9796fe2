//! What the tools ask a gateway, through lb: orders, counts.

use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::{Client, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use slo::Order;

/// How long one answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Orders per page: the most that a gateway gives.
const PAGE: usize = 1_000;
/// Pages of orders that are looked through, newest first.
pub const PAGES_MAX: usize = 50;

/// A gateway, or the lb in front of several.
#[derive(Debug, Clone)]
pub struct Gateway {
    client: Client,
    base: String,
}

/// Orders, newest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Orders {
    /// All that were placed since the asked-for time, and all open ones that were met on the way.
    pub orders: Vec<Order>,
    /// There are older open ones that were not met.
    pub truncated: bool,
    /// The gateway's clock, Unix seconds.
    pub now_sec: f64,
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Order>,
    next: Option<String>,
}

impl Gateway {
    /// Asks at this URL. Nothing is connected yet.
    ///
    /// # Errors
    /// When it is no `http://host:port`.
    pub fn new(url: &str) -> anyhow::Result<Self> {
        let parsed = reqwest::Url::parse(url).with_context(|| format!("URL {url:?}: http://host:port is expected"))?;
        if parsed.scheme() != "http" {
            bail!("URL {url:?}: http://host:port is expected");
        }
        Ok(Self {
            client: client()?,
            base: parsed.as_str().trim_end_matches('/').to_owned(),
        })
    }

    /// `GET /stats`.
    ///
    /// # Errors
    /// When there is no such answer in time.
    pub async fn stats(&self) -> anyhow::Result<Value> {
        self.get("/stats").await
    }

    /// The orders placed after `since_sec`, and, as far as [`PAGES_MAX`] pages go, all open ones.
    ///
    /// # Errors
    /// When the gateway does not answer.
    pub async fn orders(&self, since: impl Fn(f64) -> f64) -> anyhow::Result<Orders> {
        let stats = self.stats().await?;
        let now_sec = stats["now"].as_f64().context("/stats has no `now`")?;
        let (since_sec, counts) = (since(now_sec), &stats["deliveries"]);
        let open_all: u64 = ["pending", "assigned", "in_flight"]
            .iter()
            .filter_map(|name| counts[*name].as_u64())
            .sum();
        let (mut orders, mut open, mut after) = (Vec::new(), 0_u64, String::new());
        for _ in 0..PAGES_MAX {
            let page: Page = self.get(&format!("/deliveries?limit={PAGE}{after}")).await?;
            let is_past = page.items.last().is_some_and(|order| order.timestamp < since_sec);
            open += page.items.iter().filter(|order| order.is_open()).count() as u64;
            orders.extend(
                page.items
                    .into_iter()
                    .filter(|order| order.is_open() || order.timestamp >= since_sec),
            );
            let Some(next) = page.next else {
                return Ok(Orders {
                    orders,
                    truncated: false,
                    now_sec,
                });
            };
            if is_past && open >= open_all {
                return Ok(Orders {
                    orders,
                    truncated: false,
                    now_sec,
                });
            }
            after = format!("&after={next}");
        }
        Ok(Orders {
            orders,
            truncated: true,
            now_sec,
        })
    }

    /// `GET` of a path.
    ///
    /// # Errors
    /// When there is no answer in time, or not the expected one.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let body = self.body(path).await?;
        serde_json::from_slice(&body).with_context(|| format!("the answer to GET {}{path} cannot be read", self.base))
    }

    /// `GET` of a path that is answered with text.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub async fn text(&self, path: &str) -> anyhow::Result<String> {
        Ok(String::from_utf8_lossy(&self.body(path).await?).into_owned())
    }

    async fn body(&self, path: &str) -> anyhow::Result<Vec<u8>> {
        let url = format!("{}{path}", self.base);
        let answer = self
            .client
            .get(&url)
            .send()
            .await
            .with_context(|| format!("no answer from {}", self.base))?;
        let status = answer.status();
        let body = answer
            .bytes()
            .await
            .with_context(|| format!("the answer to GET {url} broke off"))?;
        if status != StatusCode::OK {
            let text: String = String::from_utf8_lossy(&body).chars().take(300).collect();
            bail!("GET {url} was answered with {status}: {text}");
        }
        Ok(body.into())
    }
}

/// A client for short questions.
///
/// # Errors
/// When the system gives none.
pub fn client() -> anyhow::Result<Client> {
    let builder = Client::builder()
        .no_proxy()
        .timeout(ANSWER_TIMEOUT)
        .connect_timeout(CONNECT_TIMEOUT);
    builder.build().context("no HTTP client can be made")
}
