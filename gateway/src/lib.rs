//! The public REST API and the dashboard.
//!
//! Promises:
//! - An order answered with 201 is in the KV: its record *is* the outbox. Everything after that (the hint on the bus, the
//!   index) happens in the background, is bounded, and may be lost without losing the order.
//! - With an `Idempotency-Key`, exactly one answer is 201, whatever races or dies half-way; see `submit`.
//! - Many viewers cost no more KV reads than one; see `coalesce`.
//! - A client that hangs up never cancels a half-done write.
//!
//! Where to look: `routes` (what is served), `submit` (an order's way into the KV), `cancel`, `listing` (reads), `index`,
//! `hints` and `status` (background loops), `traces`, `feed` (`GET /events`), `cluster` (`GET /cluster`), `stats` (counts), `page` (the dashboard's
//! files), `openapi` (the API described).

mod app;
mod cancel;
mod cluster;
mod coalesce;
mod config;
mod error;
mod feed;
mod hash;
mod hints;
mod index;
mod keep;
mod listing;
mod openapi;
mod order_body;
mod page;
mod retry;
mod routes;
mod run;
mod stats;
mod status;
mod submit;
mod tiles;
mod traces;
mod zones;

pub use config::Config;
pub use run::{run, run_with_rabbit};
