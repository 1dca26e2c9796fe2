//! Typed client of the KV API: get, put, cas, batch, scan, watch and lock guard.
//!
//! Promises:
//! - Every error says what became of the operation: nothing changed ([`KvError::Unavailable`], [`KvError::Unreachable`],
//!   [`KvError::Rejected`], [`KvError::Invalid`]) or nobody knows ([`KvError::Unknown`]).
//! - A write is sent once, and when the connection to a kvfront could not be made, and so nothing was sent, to the next one of the list.
//!   With [`Options::write_retries`] it is named and sent again, and takes effect once all the same. Reads (get, scan, health) are
//!   repeated a little. All repetitions are with backoff and jitter.
//! - Every call ends within a bounded time: [`Options::request_timeout`], about twice that when it is repeated.
//! - One record that cannot be read never hides its neighbours: scans answer item by item.
//!
//! Feature `testing` adds [`testing::FakeKv`], an in-memory server of the same API for the tests of whoever uses this client.

mod batch;
mod client;
mod error;
mod lock;
pub mod op;
mod options;
mod range;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod transport;
mod watch;

/// Where programs look for kvfront when nothing is said.
pub const DEFAULT_URL: &str = "http://127.0.0.1:9000";

pub use batch::OpResult;
pub use client::{BadItem, Kv, Page, Put, PutOptions, Swap, Versioned, key_of};
pub use error::KvError;
pub use kv_api::{BatchOp, RawValue, Version};
pub use lock::{Acquired, Held, LockGuard};
pub use options::Options;
pub use range::KeyRange;
pub use watch::{Change, Watch, WatchEvent};

/// Checks a `KV_URL` without connecting.
///
/// # Errors
/// What is wrong with it.
pub fn check_url(url: &str) -> Result<(), KvError> {
    Kv::new(url, Options::default()).map(drop)
}
