//! Settings: how much is taken.

use clap::Args;
use service::settings::at_least_one;

/// How many connections and requests, and how large.
#[derive(Debug, Clone, Args)]
pub struct LimitArgs {
    /// Connections of clients at once; further ones wait until one ends
    #[arg(long, env = "LB_MAX_CONNECTIONS", default_value = "16384", value_parser = at_least_one, value_name = "N")]
    pub lb_max_connections: usize,

    /// Connections that one client may have at once (an IPv4 address, or an IPv6 /64), trusted proxies aside; further ones are answered 429;
    /// 0 = no limit
    #[arg(long, env = "LB_MAX_CONNECTIONS_PER_CLIENT", default_value = "0", value_name = "N")]
    pub lb_max_connections_per_client: usize,

    /// Requests forwarded at once, open event streams included; further ones are answered 503
    #[arg(long, env = "LB_MAX_REQUESTS", default_value = "4096", value_parser = at_least_one, value_name = "N")]
    pub lb_max_requests: usize,

    /// Bytes of a request's header names and values together; more is 431. With LB_MAX_URI_BYTES at most 65536
    #[arg(long, env = "LB_MAX_HEAD_BYTES", default_value = "32768", value_parser = at_least_one, value_name = "BYTES")]
    pub lb_max_head_bytes: usize,

    /// Bytes of a request's path and query; more is 414
    #[arg(long, env = "LB_MAX_URI_BYTES", default_value = "8192", value_parser = at_least_one, value_name = "BYTES")]
    pub lb_max_uri_bytes: usize,

    /// Bytes of a request's body; more is 413; 0 = no limit
    #[arg(long, env = "LB_MAX_BODY_BYTES", default_value = "67108864", value_name = "BYTES")]
    pub lb_max_body_bytes: u64,

    /// The largest body kept in memory so that it can be sent a second time, bytes; larger ones stream and are sent once; 0 = none is kept
    #[arg(long, env = "LB_REPLAY_BODY_BYTES", default_value = "1048576", value_name = "BYTES")]
    pub lb_replay_body_bytes: usize,

    /// Memory for such bodies in all, bytes; a request that finds it used up streams
    #[arg(
        long,
        env = "LB_REPLAY_MEMORY_BYTES",
        default_value = "67108864",
        value_name = "BYTES"
    )]
    pub lb_replay_memory_bytes: usize,

    /// Idle connections that each worker keeps to each gateway
    #[arg(long, env = "LB_IDLE_PER_GATEWAY", default_value = "512", value_parser = at_least_one, value_name = "N")]
    pub lb_idle_per_gateway: usize,
}
