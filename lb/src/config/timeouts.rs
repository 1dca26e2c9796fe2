//! Settings: how long everything may take.

use clap::Args;
use service::settings::{non_negative, positive};

/// The longest `LB_GRACE_SEC`: a program that has not ended 10 s after the signal is ended.
pub(super) const GRACE_MAX_SEC: f64 = 8.0;

/// How long connections, requests and answers may take.
#[derive(Debug, Clone, Args)]
pub struct TimeoutArgs {
    /// How long connecting to a gateway may take, milliseconds, before another is tried
    #[arg(long, env = "LB_CONNECT_TIMEOUT_MS", default_value = "1000", value_parser = positive, value_name = "MS")]
    pub lb_connect_timeout_ms: f64,

    /// How long a gateway may take to begin its answer once it has the request, seconds; then 504
    #[arg(long, env = "LB_RESPONSE_TIMEOUT_SEC", default_value = "30", value_parser = positive, value_name = "SEC")]
    pub lb_response_timeout_sec: f64,

    /// Longest pause within an answer, seconds; above the 15 s between heartbeats of event streams
    #[arg(long, env = "LB_RESPONSE_IDLE_SEC", default_value = "120", value_parser = positive, value_name = "SEC")]
    pub lb_response_idle_sec: f64,

    /// From the first byte of a request to the end of its head, seconds; then 408
    #[arg(long, env = "LB_REQUEST_HEAD_SEC", default_value = "20", value_parser = positive, value_name = "SEC")]
    pub lb_request_head_sec: f64,

    /// Longest pause within a request's body, seconds; then 408
    #[arg(long, env = "LB_REQUEST_IDLE_SEC", default_value = "20", value_parser = positive, value_name = "SEC")]
    pub lb_request_idle_sec: f64,

    /// How long a client's connection may wait for its next request, seconds
    #[arg(long, env = "LB_KEEP_ALIVE_SEC", default_value = "75", value_parser = positive, value_name = "SEC")]
    pub lb_keep_alive_sec: f64,

    /// How long a client or a gateway may take nothing of what is ready for it, seconds
    #[arg(long, env = "LB_WRITE_TIMEOUT_SEC", default_value = "30", value_parser = positive, value_name = "SEC")]
    pub lb_write_timeout_sec: f64,

    /// How long nothing may come through a tunnel (an upgraded connection), seconds
    #[arg(long, env = "LB_TUNNEL_IDLE_SEC", default_value = "3600", value_parser = positive, value_name = "SEC")]
    pub lb_tunnel_idle_sec: f64,

    /// How long an idle connection to a gateway is kept, seconds; below the 75 s after which a gateway closes it
    #[arg(long, env = "LB_UPSTREAM_IDLE_SEC", default_value = "50", value_parser = positive, value_name = "SEC")]
    pub lb_upstream_idle_sec: f64,

    /// After the stop signal, how long answers that are under way may take, seconds (at most 8)
    #[arg(long, env = "LB_GRACE_SEC", default_value = "2", value_parser = non_negative, value_name = "SEC")]
    pub lb_grace_sec: f64,
}
