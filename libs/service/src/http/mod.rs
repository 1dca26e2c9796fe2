//! HTTP as every server here speaks it: JSON in and out, errors as `{"detail": …}`, limits, and a graceful stop.

mod error;
mod extract;
mod routes;
mod serve;
mod write_timeout;

pub use error::ApiError;
pub use extract::{Json, Query};
pub use routes::{detached, with_common_routes};
pub use serve::{Limits, serve, serve_router};
