//! Who orders, through lb and the gateways: one order after the other, of every urgency, some outside the area, some cancelled.

use std::time::{Duration, Instant};

use domain::delivery::{Delivery, DeliveryStatus, REASON_DRONE_LOST, REASON_OUT_OF_AREA};
use domain::priority::Priority;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::watcher::Watcher;
use super::{now_unix_sec, report};
use crate::process::Patience;
use crate::system::client;

/// Time between two orders: what the fleet carries with something to spare.
const ORDER_EVERY: Duration = Duration::from_secs(1);
/// How long a customer tries, through everything.
const INSISTS_FOR: Duration = Duration::from_secs(90);
/// Pause before trying again.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// One of so many orders is cancelled.
const CANCELS: u32 = 6;
/// When, after it was accepted, milliseconds.
const CANCEL_AFTER_MS: std::ops::Range<u64> = 0..5_000;
/// One of so many orders goes to Paris.
const STRAYS: u32 = 15;

/// What became of the wish to cancel an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cancelled {
    NotAsked,
    Yes,
    /// It was on board, or had ended.
    TooLate,
}

/// An order that was accepted.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) id: String,
    is_inside: bool,
    cancelled: Cancelled,
}

/// What a customer will want.
#[derive(Debug)]
struct Wish {
    number: u32,
    order: Value,
    is_inside: bool,
    cancel_after: Option<Duration>,
}

pub(super) struct Customers {
    http: Client,
    url: String,
    seed: u64,
    begun: Instant,
}

impl Customers {
    /// Customers who order at `url`.
    pub(super) fn new(url: String, seed: u64, begun: Instant) -> Self {
        let http = client();
        Self { http, url, seed, begun }
    }

    /// Orders for a while, then waits until everybody was answered.
    ///
    /// # Errors
    /// An answer that must not be, or none.
    pub(super) async fn order_for(&self, span: Duration) -> Result<Vec<Order>, String> {
        let mut rng = StdRng::seed_from_u64(self.seed);
        let (mut tasks, mut orders) = (JoinSet::new(), Vec::new());
        let mut ticks = tokio::time::interval(ORDER_EVERY);
        let end = self.begun + span;
        for number in 0.. {
            ticks.tick().await;
            if Instant::now() >= end {
                break;
            }
            let wish = Wish::new(number, &mut rng);
            tasks.spawn(fulfilled(self.http.clone(), self.url.clone(), self.seed, wish));
            while let Some(ended) = tasks.try_join_next() {
                orders.push(ended.map_err(|error| error.to_string())??);
            }
        }
        while let Some(ended) = tasks.join_next().await {
            orders.push(ended.map_err(|error| error.to_string())??);
        }
        let at = self.begun.elapsed().as_secs_f64();
        report(&format!("{at:7.1} s  {} orders are accepted", orders.len()));
        Ok(orders)
    }

    /// Whether each order ended as its customer may expect, and whether what customers are told is what was seen.
    ///
    /// # Errors
    /// The first that did not.
    pub(super) async fn judge(&self, orders: &[Order], watcher: &Watcher) -> Result<(), String> {
        for order in orders {
            let request = || self.http.get(format!("{}/{}", self.url, order.id));
            let answer = insist(request, &[200]).await?;
            let record: Delivery = answer.json().await.map_err(|error| format!("{}: {error}", order.id))?;
            let wrong = |what: &str| Err(format!("order {order:?} {what}\n{}", watcher.story(&order.id)));
            if record.status.is_open() {
                return wrong(&format!("has ended and is told to be {}", record.status.name()));
            }
            let reason = record.reason.as_deref();
            let is_expected = match record.status {
                DeliveryStatus::Cancelled => order.cancelled == Cancelled::Yes,
                // Somebody may have cancelled it first.
                _ if order.cancelled == Cancelled::Yes => false,
                DeliveryStatus::Failed if !order.is_inside => reason == Some(REASON_OUT_OF_AREA),
                DeliveryStatus::Failed => reason == Some(REASON_DRONE_LOST) && record.picked_up_at.is_some(),
                status => status == DeliveryStatus::Delivered && order.is_inside,
            };
            if !is_expected {
                return wrong(&format!("ended as {} ({reason:?})", record.status.name()));
            }
            if watcher.fate(&order.id).split(' ').next() != Some(record.status.name()) {
                return wrong(&format!("is told to be {}, which was not seen", record.status.name()));
            }
        }
        Ok(())
    }
}

impl Wish {
    fn new(number: u32, rng: &mut StdRng) -> Self {
        let mut point = || json!({ "lat": rng.random_range(41.81..41.97), "lon": rng.random_range(12.38..12.59) });
        let mut order = json!({ "origin": point(), "destination": point() });
        order["weight"] = json!(rng.random_range(0.2..10.0));
        if rng.random_bool(0.5) {
            order["priority"] = json!(Priority::ALL[rng.random_range(0..Priority::ALL.len())].name());
        }
        if rng.random_bool(0.25) {
            // Seconds that are over, or still to come.
            order["deadline"] = json!(now_unix_sec() + rng.random_range(-60.0..600.0));
        }
        let is_inside = !rng.random_ratio(1, STRAYS);
        if !is_inside {
            order["destination"] = json!({ "lat": 48.85, "lon": 2.35 });
        }
        let is_cancelled = is_inside && rng.random_ratio(1, CANCELS);
        let cancel_after = Duration::from_millis(rng.random_range(CANCEL_AFTER_MS));
        Self {
            number,
            order,
            is_inside,
            cancel_after: is_cancelled.then_some(cancel_after),
        }
    }
}

async fn fulfilled(http: Client, url: String, seed: u64, wish: Wish) -> Result<Order, String> {
    let key = format!("fleet-{seed}-{}", wish.number);
    let mut patience = Patience::new(INSISTS_FOR);
    let id = loop {
        let request = || http.post(&url).header("Idempotency-Key", &key).json(&wish.order);
        let answer = insist(request, &[200, 201]).await?;
        // Who answers may die while doing so.
        match answer.json::<Value>().await {
            Ok(record) => break record["id"].as_str().ok_or("an order without an id")?.to_owned(),
            Err(error) if patience.is_over() => return Err(error.to_string()),
            Err(_) => tokio::time::sleep(AGAIN_AFTER).await,
        }
    };
    let mut cancelled = Cancelled::NotAsked;
    if let Some(after) = wish.cancel_after {
        tokio::time::sleep(after).await;
        let request = || http.request(Method::DELETE, format!("{url}/{id}"));
        let answer = insist(request, &[200, 409]).await?;
        cancelled = if answer.status() == 200 {
            Cancelled::Yes
        } else {
            Cancelled::TooLate
        };
    }
    Ok(Order {
        id,
        is_inside: wish.is_inside,
        cancelled,
    })
}

/// Asks until the answer is one of `statuses`. That nobody answers, or that the system is not able to now, is no answer.
async fn insist(request: impl Fn() -> RequestBuilder, statuses: &[u16]) -> Result<Response, String> {
    let mut patience = Patience::new(INSISTS_FOR);
    loop {
        let last = match request().send().await {
            Ok(answer) if statuses.contains(&answer.status().as_u16()) => return Ok(answer),
            Ok(answer) => {
                let status = answer.status();
                let text = answer.text().await.unwrap_or_default();
                if !matches!(status.as_u16(), 502..=504) {
                    return Err(format!("answered {status}: {text}"));
                }
                format!("{status}: {text}")
            }
            Err(error) => error.to_string(),
        };
        if patience.is_over() {
            return Err(format!("no answer within {INSISTS_FOR:?}; the last was {last}"));
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}
