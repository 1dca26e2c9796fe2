//! kvfront over nodes in this process: real kvstores on port 0 with databases in temporary folders, and stand-ins that misbehave on
//! command. One binary, every test on its own cluster.

#![expect(
    clippy::unwrap_used,
    reason = "a panic in a test, its helpers included, is the report"
)]

mod choices;
mod collecting;
mod disks;
mod faults;
mod hints;
mod kv;
mod locks;
mod many;
mod membership;
mod repairing;
mod request_ids;
mod review;
mod stand_in;
mod support;
mod watch;
