//! HTTP as every server here speaks it: JSON in and out, errors as `{"detail": …}`, limits, and a graceful stop.

mod error;
mod extract;
mod measured;
mod routes;
mod serve;
mod short_cut;
mod traced;
mod write_timeout;

pub use error::ApiError;
pub use extract::{Json, Path, Query};
pub use measured::RequestMetrics;
pub use routes::{detached, with_common_routes, with_measured_routes};
pub use serve::{Limits, serve, serve_router};
pub use short_cut::{Answer, ShortCut, ShortCuts};
pub use traced::Traced;
