//! A bus with a switch: it can behave as if its broker were away, frozen or slow.

use std::sync::Arc;

use ::bus::limits::CONFIRM_TIMEOUT;
use ::bus::{Bus, Delivery, PublishError, Subscription, Topic};
use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::gate::{Passage, SLOW_BY};

/// The bus, and how messages pass.
pub struct SwitchedBus {
    inner: Arc<dyn Bus>,
    passage: watch::Receiver<Passage>,
}

impl SwitchedBus {
    /// Messages pass as `passage` says. [`Passage::Cut`] is a broker that is away.
    #[must_use]
    pub fn new(inner: Arc<dyn Bus>, passage: watch::Receiver<Passage>) -> Arc<Self> {
        Arc::new(Self { inner, passage })
    }
}

#[async_trait]
impl Bus for SwitchedBus {
    async fn publish(&self, topic: &Topic, body: Bytes) -> Result<(), PublishError> {
        let mut passage = self.passage.clone();
        let goes_on = async {
            // An error says that nobody is left to switch it: it is as it is for good.
            let _ = passage.wait_for(|passage| *passage != Passage::Held).await;
        };
        // What is held for too long is held still.
        let _ = timeout(CONFIRM_TIMEOUT, goes_on).await;
        let now = *self.passage.borrow();
        match now {
            Passage::Open => {}
            Passage::Slow => sleep(SLOW_BY).await,
            Passage::Held | Passage::Cut => {
                return Err(PublishError::Unavailable("it was taken away on purpose".to_owned()));
            }
        }
        self.inner.publish(topic, body).await
    }

    async fn subscribe(&self, topic: &Topic, prefetch: u16) -> Box<dyn Subscription> {
        Box::new(Switched {
            inner: self.inner.subscribe(topic, prefetch).await,
            passage: self.passage.clone(),
            late: None,
        })
    }

    fn connected(&self) -> bool {
        *self.passage.borrow() != Passage::Cut && self.inner.connected()
    }
}

struct Switched {
    inner: Box<dyn Subscription>,
    passage: watch::Receiver<Passage>,
    /// A message that has come, and when it is told.
    late: Option<(Delivery, Instant)>,
}

#[async_trait]
impl Subscription for Switched {
    async fn next(&mut self) -> Option<Delivery> {
        loop {
            let passes = |passage: &Passage| matches!(passage, Passage::Open | Passage::Slow);
            let Ok(now) = self.passage.wait_for(passes).await.map(|now| *now) else {
                // It stays as it is, and nobody is left to switch it. Only a stop of the bus itself ends a subscription.
                return std::future::pending().await;
            };
            if let Some((_, due)) = &self.late {
                // Whoever stops listening meanwhile finds it here the next time.
                sleep_until(*due).await;
                return self.late.take().map(|(delivery, _)| delivery);
            }
            tokio::select! {
                // The next message is not taken when the switch is first.
                biased;
                Ok(()) = self.passage.changed() => {}
                delivery = self.inner.next() => match (delivery, now) {
                    (Some(delivery), Passage::Slow) => self.late = Some((delivery, Instant::now() + SLOW_BY)),
                    (delivery, _) => return delivery,
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ::bus::InProcess;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    async fn heard(orders: &mut Box<dyn Subscription>) -> Bytes {
        let delivery = timeout(SOON, orders.next()).await.unwrap().unwrap();
        let body = delivery.body.clone();
        delivery.ack().await;
        body
    }

    #[tokio::test]
    async fn cut_is_as_if_the_broker_were_away_and_nothing_it_holds_is_lost() {
        let (switch, passage) = watch::channel(Passage::Open);
        let bus = SwitchedBus::new(InProcess::new(), passage);
        let topic = Topic::work("orders");
        let mut orders = bus.subscribe(&topic, 4).await;
        bus.publish(&topic, Bytes::from_static(b"1")).await.unwrap();
        switch.send_replace(Passage::Cut);
        assert!(!bus.connected());
        let refused = bus.publish(&topic, Bytes::from_static(b"2")).await.unwrap_err();
        assert!(matches!(refused, PublishError::Unavailable(_)), "{refused}");
        assert!(timeout(Duration::from_millis(50), orders.next()).await.is_err(), "cut");
        switch.send_replace(Passage::Open);
        assert!(bus.connected());
        assert_eq!(heard(&mut orders).await, "1");
        bus.publish(&topic, Bytes::from_static(b"3")).await.unwrap();
        assert_eq!(heard(&mut orders).await, "3");
    }

    #[tokio::test]
    async fn held_waits_and_slow_is_late_and_whoever_stops_listening_loses_nothing() {
        let (switch, passage) = watch::channel(Passage::Held);
        let bus = SwitchedBus::new(InProcess::new(), passage);
        let topic = Topic::work("orders");
        let mut orders = bus.subscribe(&topic, 4).await;
        let begun = Instant::now();
        let publishing = {
            let (bus, topic) = (Arc::clone(&bus), topic.clone());
            tokio::spawn(async move { bus.publish(&topic, Bytes::from_static(b"1")).await })
        };
        assert!(timeout(Duration::from_millis(50), orders.next()).await.is_err(), "held");
        assert!(!publishing.is_finished());
        switch.send_replace(Passage::Slow);
        publishing.await.unwrap().unwrap();
        // Listened to in short turns: what was taken from the bus is told in one of them.
        let deadline = Instant::now() + SOON;
        let delivery = loop {
            assert!(Instant::now() < deadline, "it was lost");
            if let Ok(delivery) = timeout(SLOW_BY / 5, orders.next()).await {
                break delivery.unwrap();
            }
        };
        assert_eq!(&delivery.body[..], b"1");
        assert!(begun.elapsed() >= 2 * SLOW_BY, "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_held_for_too_long_is_refused() {
        let (_switch, passage) = watch::channel(Passage::Held);
        let bus = SwitchedBus::new(InProcess::new(), passage);
        let refused = bus.publish(&Topic::work("orders"), Bytes::from_static(b"1")).await;
        assert!(matches!(refused, Err(PublishError::Unavailable(_))), "{refused:?}");
    }
}
