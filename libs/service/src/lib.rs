//! What every program shares: settings, logs, metrics, health, limits and a graceful stop.
//!
//! Every service is a library function `run(config, listener, shutdown)`; its `main` is [`program::serve`] and nothing else, so that the
//! one-process demo, the tests and the containers start the very same code.
//!
//! - [`settings`]: each setting is an environment variable and a flag, checked at start; a bad value is named with what was expected.
//! - [`clock`]: wall-clock time, passed in where behaviour depends on it.
//! - [`files`]: how many may be open.
//! - [`logging`]: text or JSON lines on standard error.
//! - [`net`]: binding a port, with an error that helps.
//! - [`http`]: serving with limits, JSON in and out, errors as `{"detail": …}`.
//! - [`tasks`]: named background loops with a health line each; `/ready`.
//! - [`metrics`]: a Prometheus registry per service; `/metrics`.
//! - [`traces`]: spans on their way to an OpenTelemetry collector.
//! - [`shutdown`]: one signal that every loop listens to.
//! - [`program`]: the common `main`.

pub mod clock;
pub mod files;
pub mod http;
pub mod logging;
pub mod metrics;
pub mod net;
pub mod program;
pub mod settings;
pub mod shutdown;
pub mod tasks;
pub mod traces;

/// The allocator of the programs that are busy with many small and short-lived pieces of memory: JSON, above all. Each
/// names it in its `main.rs`.
pub use mimalloc::MiMalloc as Allocator;
pub use shutdown::Shutdown;
pub use tasks::{Heartbeat, Tasks};
