//! `CHAOS=1`: the demo can be broken on purpose, and mended, while it runs.
//!
//! Only then does each service that can be broken get a [`switch`] around it and a [`gate`] in front of its listener, the bus one around it
//! ([`bus`]), and the control port ([`control`]) opens, on 127.0.0.1 alone. Without `CHAOS=1` none of this exists.
//!
//! What is real about it: *stop* ends the service as `docker stop` would, its port refuses connections, and *start* makes it anew from what is
//! on disk. *Wipe* deletes its files while it is stopped. *Pause* holds every byte to and from it, as with a frozen process; *slow* holds each
//! for [`gate::SLOW_BY`]; *isolate* ends its connections and lets none through, as without a network, while it runs on. What services ask of
//! others goes through a gate as well, and through a bus of their own. What this cannot show is a machine that dies: processes share one here.

pub mod bus;
pub mod control;
pub mod drone;
pub mod gate;
pub mod switch;

use switch::Action::{self, Isolate, Pause, Slow, Start, Stop, Wipe};

/// What can be done to a kvstore.
pub const STORE_ACTIONS: &[Action] = &[Stop, Start, Pause, Isolate, Slow, Wipe];
/// What can be done to gateways, the bus, the dispatcher and the fleet.
pub const SERVICE_ACTIONS: &[Action] = &[Stop, Start, Pause, Isolate, Slow];
/// What can be done to a single drone.
pub const DRONE_ACTIONS: &[Action] = &[Pause, Start];
