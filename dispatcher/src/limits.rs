//! Every bound and interval of the dispatcher that is not a setting, in one place.

use std::time::Duration;

/// Open orders kept in memory; about 2 KiB each. Older ones come first, the rest waits in the KV.
pub const MIRROR_ORDERS_MAX: usize = 10_000;

/// Drones kept in memory.
pub const MIRROR_DRONES_MAX: usize = 10_000;

/// Records per page of the fleet's scan.
pub const FLEET_PAGE: usize = 1_000;

/// Operations sent in one batch.
pub const BATCH_OPS_MAX: usize = 500;

/// Shortest time between two sweeps of `open:`, and between two scans of the fleet, in seconds. Both stretch with what they
/// read ([`SWEEP_PER_RECORD_SEC`]), so that they cost a bounded share of the KV's time.
pub const SWEEP_MIN_SEC: f64 = 0.15;

/// Seconds between two sweeps per record read by the last one: a page of 500 is read every half second.
pub const SWEEP_PER_RECORD_SEC: f64 = 0.001;

/// A record that was last read longer ago than this is read again by a sweep, in seconds: somebody may have cancelled it.
pub const REREAD_AFTER_SEC: f64 = 10.0;

/// Most records read again per sweep.
pub const REREAD_MAX: usize = 50;

/// How old an open entry without a record must be before it counts as left behind, in seconds. Gateways write the entry first.
pub const ORPHAN_AFTER_SEC: f64 = 60.0;

/// Seconds between two reads of the zone configuration.
pub const ZONES_EVERY_SEC: f64 = 10.0;

/// Seconds between two looks for contradictions between drones and deliveries.
pub const RECONCILE_EVERY_SEC: f64 = 0.25;

/// How long a contradiction must last before it is repaired, in seconds: an assignment under way looks like one for an instant. One that takes
/// longer than this, with a slow KV, is finished by whoever looks, and its own second write then finds that done.
pub const RECONCILE_GRACE_SEC: f64 = 0.5;

/// Time to live of the locks of an assignment, in seconds. Short enough that others have what a killed dispatcher held long before 3 s are over,
/// [`HOLD_OFF_SEC`] and a round included. Too short does no harm: the locks only spare work that would be in vain.
pub const LOCK_TTL_SEC: f64 = 1.0;

/// How long an order or drone whose lock somebody else holds, or whose key does not answer, is left alone, in seconds.
pub const HOLD_OFF_SEC: f64 = 0.3;

/// Assignments made true at the same time.
pub const ASSIGN_CONCURRENCY: usize = 16;

/// How often a change of a drone is tried anew after losing the race against the simulator.
pub const CAS_ATTEMPTS: usize = 6;

/// Seconds between two looks for swaps per order to whose pick-up a drone flies: at once in a small fleet, every 0.4 s with 400 of them, of which a
/// look takes some 10 ms.
pub const SWAPS_PER_ORDER_SEC: f64 = 0.001;

/// How long a surplus of active drones must last before any retires, in seconds: bursts come in waves.
pub const RETIRE_AFTER_SEC: f64 = 5.0;

/// Seconds between two looks at what is expected of open orders.
pub const OUTLOOK_EVERY_SEC: f64 = 2.0;

/// Most outlooks written per look: those written longest ago come first.
pub const OUTLOOK_WRITES_MAX: usize = 50;

/// Most waiting orders that are played forward per look, in the policy's order.
pub const OUTLOOK_ORDERS_MAX: usize = 500;

/// An order that has waited for less, in seconds, gets no outlook: most are assigned before.
pub const OUTLOOK_AFTER_SEC: f64 = 1.0;

/// A time that moves by less, in seconds, or by less than [`OUTLOOK_SLACK_SHARE`] of the time until then, is no news.
pub const OUTLOOK_SLACK_SEC: f64 = 5.0;

/// See [`OUTLOOK_SLACK_SEC`].
pub const OUTLOOK_SLACK_SHARE: f64 = 0.25;

/// A reason in which only the number changed is written again after this many seconds.
pub const OUTLOOK_REWORD_SEC: f64 = 10.0;

/// How often the same complaint about the same record is logged, in seconds.
pub const COMPLAIN_EVERY_SEC: f64 = 60.0;

/// Complaints remembered.
pub const COMPLAINTS_MAX: usize = 1_000;

/// Status messages waiting to be published; beyond, they are dropped and counted.
pub const OUTBOX_MAX: usize = 5_000;

/// Unacknowledged messages per subscription.
pub const PREFETCH: u16 = 200;

/// Shortest pause between two rounds, so that a stream of events does not become a stream of rounds.
pub const ROUND_GAP: Duration = Duration::from_millis(10);

/// The pause grows to so many times what the round took: with ten thousand orders waiting a round costs tens of milliseconds, and each new
/// order is a hint. Rounds then take at most a third of a core from those who accept the orders.
pub const ROUND_REST: u32 = 2;

/// It grows no further than this, so that a slow KV does not make the dispatcher slower still.
pub const ROUND_GAP_MAX: Duration = Duration::from_millis(500);

/// `/ready` turns when no round has succeeded for this long.
pub const ROUND_MAX_SILENCE: Duration = Duration::from_secs(10);

/// How often the loops without a natural rhythm report that they are alive.
pub const BEAT_EVERY: Duration = Duration::from_secs(5);

/// Largest request body taken, in bytes: the server has no calls with a body.
pub const BODY_MAX_BYTES: usize = 16 * 1024;
