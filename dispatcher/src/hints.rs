//! What the bus tells between two rounds: which orders are new, and which drones have got somewhere.
//!
//! Hints only say where to look; every decision is made on what the KV holds then. So a hint that is late, repeated or wrong
//! changes nothing, and a lost one only waits for the next sweep.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use domain::events::DroneUpdate;
use domain::geo::Point;
use tokio::sync::Notify;
use trace::Context;

/// Most hints of a kind kept between two rounds; the sweep finds the rest.
const HINTS_MAX: usize = 2_000;

/// Longest id taken from a message, in bytes: ours are shorter, and keys have a limit.
const ID_MAX_BYTES: usize = 200;

/// What was hinted at since the last round.
#[derive(Debug, Default)]
pub struct Hints {
    /// Orders to look at.
    pub orders: BTreeSet<String>,
    /// Drones to look at.
    pub drones: BTreeSet<String>,
    /// On whose behalf a drone told of itself, where that is known.
    pub contexts: HashMap<String, Context>,
}

/// What would be news about a drone that flies an order.
#[derive(Debug, Clone, PartialEq)]
pub struct Watch {
    /// The order it flies.
    pub delivery_id: String,
    /// Where it flies to.
    pub target: Point,
    /// Where it stood when it took the order, while its first movement is news.
    pub from: Option<Point>,
}

/// Collects hints and wakes the rounds.
#[derive(Debug, Default)]
pub struct Inbox {
    hints: Mutex<Hints>,
    watches: Mutex<HashMap<String, Watch>>,
    notify: Notify,
}

impl Inbox {
    /// Notes a new order. Ids that cannot be ours are dropped.
    pub fn order(&self, id: &str) {
        if id.is_empty() || id.len() > ID_MAX_BYTES {
            return;
        }
        let mut hints = locked(&self.hints);
        if hints.orders.len() < HINTS_MAX && hints.orders.insert(id.to_owned()) {
            drop(hints);
            self.notify.notify_one();
        }
    }

    /// Notes a drone's movement if it is news: the first one for its order, or its arrival.
    pub fn moved(&self, update: &DroneUpdate, arrive_eps_km: f64) {
        let news = locked(&self.watches).get(&update.drone_id).is_some_and(|watch| {
            update.current_delivery.as_deref() == Some(watch.delivery_id.as_str())
                && (watch.from.is_some_and(|from| from != update.pos)
                    || update.pos.distance_km(watch.target) <= arrive_eps_km)
        });
        if !news {
            return;
        }
        let mut hints = locked(&self.hints);
        if hints.drones.len() < HINTS_MAX && hints.drones.insert(update.drone_id.clone()) {
            let context = trace::with_current(|scope| scope.context.clone());
            if let Some(context) = context.filter(|context| context.span.is_some()) {
                hints.contexts.insert(update.drone_id.clone(), context);
            }
            drop(hints);
            self.notify.notify_one();
        }
    }

    /// Takes what has come in.
    #[must_use]
    pub fn take(&self) -> Hints {
        std::mem::take(&mut *locked(&self.hints))
    }

    /// Says what would be news from now on.
    pub fn watch(&self, watches: HashMap<String, Watch>) {
        *locked(&self.watches) = watches;
    }

    /// Waits for a hint that has not been taken yet. Cancel safe.
    pub async fn notified(&self) {
        self.notify.notified().await;
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Both maps are whole at every point where a panic could happen, so a poisoned lock is still good.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use domain::events::DroneUpdate;
    use domain::geo::Point;

    use super::{Inbox, Watch};
    use crate::testing::drone;

    #[test]
    fn only_news_wakes_the_rounds() {
        let (from, target) = (Point::new(41.9, 12.5), Point::new(41.92, 12.5));
        let inbox = Inbox::default();
        let flying = drone(1, from, 90.0).take("a").unwrap();
        let tell = |pos| {
            inbox.moved(&DroneUpdate::of(&flying.moved(pos, 80.0, false)), 0.02);
            inbox.take().drones.len()
        };
        assert_eq!(tell(target), 0, "nobody waits for it");
        let watch = |from, id: &str| {
            let watch = Watch {
                delivery_id: id.to_owned(),
                target,
                from,
            };
            inbox.watch(HashMap::from([("drone-1".to_owned(), watch)]));
        };
        watch(Some(from), "a");
        assert_eq!((tell(from), tell(Point::new(41.901, 12.5))), (0, 1));
        watch(None, "a");
        assert_eq!((tell(Point::new(41.901, 12.5)), tell(target)), (0, 1));
        watch(None, "another");
        assert_eq!(tell(target), 0, "a late event of an earlier order");
    }

    #[test]
    fn hints_are_bounded() {
        let inbox = Inbox::default();
        inbox.order("");
        inbox.order(&"x".repeat(201));
        for number in 0..3_000 {
            inbox.order(&number.to_string());
        }
        assert_eq!(inbox.take().orders.len(), super::HINTS_MAX);
        assert!(inbox.take().orders.is_empty());
    }
}
