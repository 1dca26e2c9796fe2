//! Writing what is expected of open orders into their records, where people look.

use std::collections::HashMap;

use domain::delivery::{Delivery, DeliveryStatus, Outlook};
use kv_client::KvError;

use super::Engine;
use super::deliveries::Transition;
use crate::limits::{OUTLOOK_AFTER_SEC, OUTLOOK_WRITES_MAX};
use crate::outlook;

impl Engine {
    /// Writes the outlooks that are news, at most [`OUTLOOK_WRITES_MAX`], those told longest ago first. They are no steps in an order's
    /// life: nothing is published, and one that loses a race is simply out of date.
    pub(super) async fn tell_outlooks(&mut self, waiting: HashMap<String, Outlook>) -> Result<(), KvError> {
        let now = self.now();
        self.outlook_due.done(now);
        let (zones, rules) = (&self.zones, &self.parts.rules);
        let flying = (self.mirror.flights())
            .map(|(seen, drone)| (&seen.record, outlook::flying(&seen.record, drone, now, zones, rules)));
        let waiting = waiting.into_iter().filter_map(|(id, outlook)| {
            let record = &self.mirror.orders.get(&id)?.seen.record;
            let is_due = record.status == DeliveryStatus::Pending && now - record.timestamp >= OUTLOOK_AFTER_SEC;
            is_due.then_some((record, outlook))
        });
        let told_at = |record: &Delivery| self.mirror.orders.get(&record.id).map_or(0.0, |order| order.told_at);
        let mut news: Vec<(f64, Delivery)> = flying
            .chain(waiting)
            .map(|(record, outlook)| (told_at(record), record, outlook))
            .filter(|(told_at, record, outlook)| outlook::is_news(record, outlook, now, now - told_at))
            .map(|(told_at, record, outlook)| (told_at, record.clone().expecting(outlook)))
            .collect();
        news.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.id.cmp(&b.1.id)));
        news.truncate(OUTLOOK_WRITES_MAX);
        let changes = news.into_iter().map(|(_, next)| Transition {
            next,
            events: Vec::new(),
        });
        let told = self.change_deliveries(changes.collect()).await?;
        for id in told {
            if let Some(order) = self.mirror.orders.get_mut(&id) {
                order.told_at = now;
            }
        }
        Ok(())
    }
}
