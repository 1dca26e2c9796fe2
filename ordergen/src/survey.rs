//! Looking at the orders from outside, through the list of deliveries: is each there once, and how long did it take?

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use anyhow::{Context, bail};
use domain::delivery::DeliveryStatus;
use domain::order::NewOrder;
use rand::RngExt;
use reqwest::{Client, StatusCode, Url};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use service::Shutdown;
use tokio::time::Instant;

use crate::deliver::{ATTEMPTS_MAX, Pauses};
use crate::figures::{Percentiles, Times};

/// Records per page of the list.
const PAGE: usize = 1_000;
/// The list is read down to ids that were made this long before the first of ours.
const BEFORE_MS: u64 = 60_000;
/// Shortest pause between two looks at all orders.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Looking takes at most this share of the time.
const LOOK_SHARE: u32 = 10;
/// Ids that are named when something is wrong with them.
const NAMED_MAX: usize = 10;

/// The orders of a run that the system says it has, or may have.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Id and content.
    accepted: HashMap<String, u64>,
    /// Contents of orders whose last answer never came: each may exist once, or not.
    uncertain: HashMap<u64, u64>,
}

/// What [`Survey::verify`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Accepted orders.
    pub accepted: u64,
    /// Of these, orders that do not exist.
    pub missing: u64,
    /// Records that exist beside those of the accepted orders, with the same content.
    pub doubled: u64,
    /// Ids of some that are missing or doubled.
    pub examples: Vec<String>,
}

/// What [`Survey::track`] found.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Tracked {
    /// From the order to the drone that takes it.
    pub assigned: Percentiles,
    /// From the order to its delivery.
    pub delivered: Percentiles,
    /// Orders that ended as cancelled or failed.
    pub ended_otherwise: u64,
    /// Orders still open when waiting ended.
    pub open: u64,
}

/// The part of a record that is looked at.
#[derive(Debug, Deserialize)]
struct Record {
    id: String,
    status: DeliveryStatus,
    #[serde(default)]
    timestamp: Option<f64>,
    #[serde(default)]
    assigned_at: Option<f64>,
    #[serde(default)]
    delivered_at: Option<f64>,
    #[serde(flatten)]
    order: NewOrder,
}

#[derive(Debug, Deserialize)]
struct Page {
    /// Records; what others may have stored in their place is passed over.
    items: Vec<Value>,
    next: Option<String>,
}

/// Reads the list.
#[derive(Debug)]
pub(crate) struct Survey<'a> {
    pub(crate) client: &'a Client,
    /// `…/deliveries`
    pub(crate) url: &'a Url,
    pub(crate) pauses: Pauses,
    pub(crate) shutdown: &'a Shutdown,
}

impl Ledger {
    pub(crate) fn accepted(&mut self, id: String, content: u64) {
        self.accepted.insert(id, content);
    }

    pub(crate) fn uncertain(&mut self, content: u64) {
        *self.uncertain.entry(content).or_default() += 1;
    }

    /// The time in the oldest id, less [`BEFORE_MS`]; `None` without any.
    fn since_ms(&self) -> Option<u64> {
        let oldest = self.accepted.keys().filter_map(|id| ms_of(id)).min()?;
        Some(oldest.saturating_sub(BEFORE_MS))
    }
}

/// What tells one order from another: the same numbers are the same content.
pub(crate) fn content_of(order: &NewOrder) -> u64 {
    let numbers = [
        order.origin.lat,
        order.origin.lon,
        order.destination.lat,
        order.destination.lon,
        order.weight,
    ];
    let mut hasher = DefaultHasher::new();
    // Adding zero makes one zero of both.
    numbers.map(|number| (number + 0.0).to_bits()).hash(&mut hasher);
    order.priority.unwrap_or_default().hash(&mut hasher);
    order.deadline.map(f64::to_bits).hash(&mut hasher);
    hasher.finish()
}

/// The time in an id (UUIDv7), Unix milliseconds.
fn ms_of(id: &str) -> Option<u64> {
    let hex: String = id.chars().filter(|c| *c != '-').take(12).collect();
    u64::from_str_radix(&hex, 16).ok()
}

impl Survey<'_> {
    /// Checks that each accepted order exists exactly once.
    ///
    /// # Errors
    /// When the list cannot be read.
    pub(crate) async fn verify(&self, ledger: &Ledger) -> anyhow::Result<Verified> {
        let mut verified = Verified {
            accepted: ledger.accepted.len() as u64,
            ..Verified::default()
        };
        let Some(since_ms) = ledger.since_ms() else {
            return Ok(verified);
        };
        let ours: HashSet<u64> = ledger.accepted.values().copied().collect();
        let mut missing: HashSet<&str> = ledger.accepted.keys().map(String::as_str).collect();
        let mut may_exist = ledger.uncertain.clone();
        let mut seen = HashSet::new();
        self.each(since_ms, |record| {
            let is_accepted = ledger.accepted.contains_key(&record.id);
            missing.remove(record.id.as_str());
            let content = content_of(&record.order);
            // Paging while records are added shows none twice; should it, it is still one record.
            if !seen.insert(record.id.clone()) || is_accepted || !ours.contains(&content) {
                return;
            }
            match may_exist.get_mut(&content) {
                Some(left) if *left > 0 => *left -= 1,
                _ => {
                    verified.doubled += 1;
                    note(&mut verified.examples, &record.id);
                }
            }
        })
        .await?;
        verified.missing = missing.len() as u64;
        for id in missing {
            note(&mut verified.examples, id);
        }
        Ok(verified)
    }

    /// Waits until all accepted orders have ended, at most until `deadline`, and sums up how long they took by the times in their
    /// records. `show` is told how many are open.
    ///
    /// # Errors
    /// When the list cannot be read.
    pub(crate) async fn track(
        &self,
        ledger: &Ledger,
        deadline: Instant,
        mut show: impl FnMut(u64),
    ) -> anyhow::Result<Tracked> {
        let (mut assigned, mut delivered) = (Times::new(), Times::new());
        let mut open: HashSet<&str> = ledger.accepted.keys().map(String::as_str).collect();
        let mut unassigned = open.clone();
        let mut ended_otherwise = 0;
        while !open.is_empty() {
            let began = Instant::now();
            // What is older than the oldest open one need not be looked at again.
            let since_ms = open.iter().filter_map(|id| ms_of(id)).min().unwrap_or_default();
            self.each(since_ms, |record| {
                let since_order = |at: Option<f64>| {
                    let sec = at? - record.timestamp?;
                    Duration::try_from_secs_f64(sec.max(0.0)).ok()
                };
                if let Some(took) = since_order(record.assigned_at)
                    && unassigned.remove(record.id.as_str())
                {
                    assigned.record(took);
                }
                if record.status.is_open() || !open.remove(record.id.as_str()) {
                    return;
                }
                match since_order(record.delivered_at) {
                    Some(took) if record.status == DeliveryStatus::Delivered => delivered.record(took),
                    _ => ended_otherwise += 1,
                }
            })
            .await?;
            show(open.len() as u64);
            let pause = LOOK_EVERY.max(began.elapsed() * LOOK_SHARE);
            if open.is_empty() || Instant::now() + pause > deadline || !self.shutdown.sleep(pause).await {
                break;
            }
        }
        Ok(Tracked {
            assigned: assigned.percentiles(),
            delivered: delivered.percentiles(),
            ended_otherwise,
            open: open.len() as u64,
        })
    }

    /// Shows every record whose id was made since then, newest first.
    async fn each(&self, since_ms: u64, mut show: impl FnMut(&Record)) -> anyhow::Result<()> {
        let mut after: Option<String> = None;
        loop {
            let mut url = self.url.clone();
            url.query_pairs_mut().append_pair("limit", &PAGE.to_string());
            if let Some(after) = &after {
                url.query_pairs_mut().append_pair("after", after);
            }
            let page = self.page(url).await?;
            let mut reached = None;
            for record in page
                .items
                .into_iter()
                .filter_map(|item| serde_json::from_value(item).ok())
            {
                let record: Record = record;
                show(&record);
                reached = ms_of(&record.id);
            }
            if page.next.is_none() || reached.is_some_and(|ms| ms < since_ms) {
                return Ok(());
            }
            after = page.next;
        }
    }

    async fn page(&self, url: Url) -> anyhow::Result<Page> {
        let mut attempt = 0;
        loop {
            let trouble = match self.client.get(url.clone()).send().await {
                Ok(answer) if answer.status() == StatusCode::OK => match answer.bytes().await {
                    Ok(body) => return serde_json::from_slice(&body).with_context(|| format!("the answer of {url}")),
                    Err(error) => error.to_string(),
                },
                Ok(answer) => format!("status {}", answer.status()),
                Err(error) => error.to_string(),
            };
            attempt += 1;
            let pause = self.pauses.after(attempt, None, rand::rng().random());
            if attempt == ATTEMPTS_MAX || !self.shutdown.sleep(pause).await {
                bail!("{url} was not answered in {attempt} attempts: {trouble}");
            }
        }
    }
}

fn note(examples: &mut Vec<String>, id: &str) {
    if examples.len() < NAMED_MAX {
        examples.push(id.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use domain::geo::Point;
    use domain::priority::Priority;

    use super::*;

    #[test]
    fn content_and_time_are_told_from_orders_and_ids() {
        let order = |weight, priority| NewOrder {
            origin: Point::new(0.0, 12.0),
            destination: Point::new(41.0, 12.0),
            weight,
            priority,
            deadline: None,
        };
        assert_eq!(
            content_of(&order(1.0, None)),
            content_of(&order(1.0, Some(Priority::Normal)))
        );
        assert_ne!(content_of(&order(1.0, None)), content_of(&order(1.5, None)));
        assert_eq!(ms_of("01a1fcdb-cf0a-747f-8ff7-325d53dafb5d"), Some(0x01a1_fcdb_cf0a));
        assert_eq!(ms_of("none"), None);
    }
}
