//! What orders say about themselves: the part of the promises that no access log shows.
//!
//! An order counts for an objective from the moment on at which it is decided: it got there, or its time was up. So one that waits for ever
//! is bad as soon as it is late, and one that was placed a moment ago is neither. Orders that were cancelled before, or that nobody could
//! have flown, do not count.

use serde::Deserialize;

use crate::line::Tenths;
use crate::spec::{Objective, Until};
use crate::tracker::Event;

/// `reason`s of orders that could not have been delivered by anybody.
const IMPOSSIBLE: [&str; 3] = ["out_of_area", "out_of_range", "no_fly_zone"];

/// An order, as `GET /deliveries` lists it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Order {
    /// Its id.
    pub id: String,
    /// Where it is in its life: `pending`, `assigned`, `in_flight`, `delivered`, `cancelled` or `failed`.
    pub status: String,
    /// When it was accepted; this and the others are Unix seconds.
    pub timestamp: f64,
    /// When the present drone took it.
    pub assigned_at: Option<f64>,
    /// When the parcel came on board.
    pub picked_up_at: Option<f64>,
    /// When it arrived.
    pub delivered_at: Option<f64>,
    /// When it was cancelled.
    pub cancelled_at: Option<f64>,
    /// When it failed.
    pub failed_at: Option<f64>,
    /// Why it failed.
    pub reason: Option<String>,
}

impl Order {
    /// Whether it has not ended.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.status.as_str(), "pending" | "assigned" | "in_flight")
    }

    fn reached_at(&self, until: Until) -> Option<f64> {
        match until {
            Until::Assigned => self.assigned_at.or(self.picked_up_at).or(self.delivered_at),
            Until::PickedUp => self.picked_up_at.or(self.delivered_at),
            Until::Delivered => self.delivered_at,
        }
    }
}

/// What an order means for an objective about orders; `None` while it is not decided, or when it does not count.
pub(crate) fn judge(objective: &Objective, order: &Order, now_sec: f64) -> Option<Event> {
    let (until, max_ms) = (objective.until?, objective.max_ms?);
    let due_sec = order.timestamp + max_ms / 1_000.0;
    let impossible = order
        .reason
        .as_deref()
        .is_some_and(|reason| IMPOSSIBLE.contains(&reason));
    let (decided_sec, took, good) = match (order.reached_at(until), order.cancelled_at.or(order.failed_at)) {
        (Some(at), _) => (at, tenths(at - order.timestamp), at <= due_sec),
        (None, _) if impossible => return None,
        (None, Some(end)) if end <= due_sec && order.failed_at.is_none() => return None,
        (None, end) => {
            let decided = order.failed_at.map_or(due_sec, |failed| failed.min(due_sec));
            if end.is_none() && decided > now_sec {
                return None;
            }
            (decided, None, false)
        }
    };
    Some(Event {
        at_ms: unix_ms(decided_sec),
        took,
        good,
    })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to what fits"
)]
fn tenths(sec: f64) -> Option<Tenths> {
    sec.is_finite()
        .then(|| (sec * 10_000.0).round().clamp(0.0, f64::from(Tenths::MAX)) as Tenths)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to what fits"
)]
pub(crate) fn unix_ms(sec: f64) -> Option<u64> {
    const MAX_MS: f64 = 1e15;
    sec.is_finite().then(|| (sec * 1_000.0).clamp(0.0, MAX_MS) as u64)
}

#[cfg(test)]
mod tests {
    use super::{Order, judge};
    use crate::spec::{Objective, Spec};
    use crate::tracker::Event;

    const PLACED: f64 = 1_000_000.0;

    /// Delivered within 180 s.
    fn objective() -> Objective {
        Spec::default().objectives.pop().unwrap()
    }

    fn judged(order: &str, now_sec: f64) -> Option<Event> {
        let mut order: Order = serde_json::from_str(order).unwrap();
        order.timestamp = PLACED;
        judge(&objective(), &order, PLACED + now_sec)
    }

    fn event(at_sec: u64, took: Option<u32>, good: bool) -> Option<Event> {
        Some(Event {
            at_ms: Some((1_000_000 + at_sec) * 1_000),
            took,
            good,
        })
    }

    #[test]
    fn an_order_counts_once_it_is_decided() {
        let pending = r#"{"status":"pending","drone_id":null}"#;
        assert_eq!((judged(pending, 0.0), judged(pending, 179.9)), (None, None));
        assert_eq!(judged(pending, 180.0), event(180, None, false));
        assert_eq!(judged(pending, 9_999.0), event(180, None, false));
        let delivered = |at: f64| format!(r#"{{"status":"delivered","delivered_at":{}}}"#, PLACED + at);
        assert_eq!(judged(&delivered(180.0), 300.0), event(180, Some(1_800_000), true));
        assert_eq!(judged(&delivered(181.0), 300.0), event(181, Some(1_810_000), false));
    }

    #[test]
    fn what_ended_otherwise() {
        let failed = |reason: &str| {
            format!(
                r#"{{"status":"failed","failed_at":{},"reason":"{reason}"}}"#,
                PLACED + 9.0
            )
        };
        assert_eq!(judged(&failed("out_of_range"), 300.0), None);
        assert_eq!(judged(&failed("drone_lost"), 10.0), event(9, None, false));
        let cancelled = |at: f64| format!(r#"{{"status":"cancelled","cancelled_at":{}}}"#, PLACED + at);
        assert_eq!(judged(&cancelled(9.0), 300.0), None);
        assert_eq!(judged(&cancelled(200.0), 300.0), event(180, None, false));
    }

    #[test]
    fn a_later_state_means_that_the_earlier_was_reached() {
        let mut spec = Spec::default();
        let assigned = spec.objectives.remove(3);
        let order = Order {
            timestamp: PLACED,
            delivered_at: Some(PLACED + 30.0),
            ..Order::default()
        };
        assert_eq!(judge(&assigned, &order, PLACED + 31.0), event(30, Some(300_000), true));
    }
}
