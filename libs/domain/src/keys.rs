//! The name of every key, lock and queue, each written down here and nowhere else.

use crate::geo::Point;

/// Key of the zone configuration ([`crate::zones::ZonesConfig`]).
pub const ZONES_CONFIG: &str = "zones_config";

/// Key of the list of all drone ids: the whole fleet, a JSON array of strings.
pub const DRONES_INDEX: &str = "drones_index";

/// Key of the list of the newest delivery ids, a JSON array of strings, oldest first, each at most once.
pub const DELIVERIES_INDEX: &str = "deliveries_index";

/// Most ids that [`DELIVERIES_INDEX`] keeps: it must never become an ever-growing hot document.
pub const DELIVERIES_INDEX_MAX: usize = 1_000;

/// Prefix of the delivery records; ids are UUIDv7, so key order is age order.
pub const DELIVERY_PREFIX: &str = "delivery:";

/// Prefix of the entries of open deliveries ([`crate::delivery::OpenEntry`]).
pub const OPEN_PREFIX: &str = "open:";

/// Prefix of the drone records.
pub const DRONE_PREFIX: &str = "drone:";

/// Prefix of the lists of who has a slot at a charge point, when several processes fly the fleet.
pub const CHARGER_PREFIX: &str = "charger:";

/// Prefix of what is remembered per idempotency key.
pub const IDEM_PREFIX: &str = "idem:";

/// Default of `DELIVERY_REQ_QUEUE`: gateway → dispatcher, work queue.
pub const DELIVERY_REQ_QUEUE: &str = "delivery_requests";

/// Default of `DRONE_UPDATES_QUEUE`: drone-sim → dispatcher, work queue.
pub const DRONE_UPDATES_QUEUE: &str = "drone_updates";

/// Default of `DELIVERY_STATUS_QUEUE`: dispatcher → every gateway, broadcast.
pub const DELIVERY_STATUS_QUEUE: &str = "delivery_status";

/// Key of the record of the delivery `id` ([`crate::delivery::Delivery`]).
#[must_use]
pub fn delivery(id: &str) -> String {
    format!("{DELIVERY_PREFIX}{id}")
}

/// Key of the entry that exists while the delivery `id` is open: written before the record, removed after its end.
#[must_use]
pub fn open(id: &str) -> String {
    format!("{OPEN_PREFIX}{id}")
}

/// Key of the record of the drone `id` ([`crate::drone::Drone`]).
#[must_use]
pub fn drone(id: &str) -> String {
    format!("{DRONE_PREFIX}{id}")
}

/// Key of the list of who has a slot at the charge point `at`.
#[must_use]
pub fn charger(at: Point) -> String {
    format!("{CHARGER_PREFIX}{},{}", at.lat, at.lon)
}

/// Key of what is remembered for the idempotency key `key`.
#[must_use]
pub fn idem(key: &str) -> String {
    format!("{IDEM_PREFIX}{key}")
}

/// Name of the lock taken while a delivery is being assigned or cancelled.
#[must_use]
pub fn delivery_lock(id: &str) -> String {
    delivery(id)
}

/// Name of the lock taken while a drone is being given a delivery.
#[must_use]
pub fn drone_lock(id: &str) -> String {
    drone(id)
}

/// The id in the key of a delivery record, `None` for any other key.
#[must_use]
pub fn delivery_id(key: &str) -> Option<&str> {
    key.strip_prefix(DELIVERY_PREFIX)
}

/// The id in the key of an open entry, `None` for any other key.
#[must_use]
pub fn open_id(key: &str) -> Option<&str> {
    key.strip_prefix(OPEN_PREFIX)
}

/// The id in the key of a drone record, `None` for any other key.
#[must_use]
pub fn drone_id(key: &str) -> Option<&str> {
    key.strip_prefix(DRONE_PREFIX)
}

#[cfg(test)]
mod tests {
    use super::Point;

    #[test]
    fn keys_are_what_scripts_read() {
        assert_eq!(super::delivery("x"), "delivery:x");
        assert_eq!(super::open("x"), "open:x");
        assert_eq!(super::drone("drone-1"), "drone:drone-1");
        assert_eq!(super::idem("k"), "idem:k");
        assert_eq!(super::charger(Point::new(41.935, 12.4275)), "charger:41.935,12.4275");
        assert_eq!(super::open_id("open:x"), Some("x"));
        assert_eq!(super::delivery_id("drone:x"), None);
        assert_eq!(super::drone_id("drone:drone-1"), Some("drone-1"));
    }
}
