//! Every limit and timeout of the proxy in one place: constants, and those that are settings.

use std::time::Duration;

use crate::config::Config;

/// Gateways tried for a request of which nothing has been sent yet.
pub(crate) const MAX_ATTEMPTS: usize = 4;

/// A request that must not be sent twice takes no connection that idled longer than this: the shorter a connection has idled,
/// the less likely it is that the other end is just closing it.
pub(crate) const IDLE_FOR_UNREPEATABLE: Duration = Duration::from_secs(1);

/// Bytes read at once; also the most that a head may have, and that is held of a connection in each direction. An answer of 64 KiB comes with
/// its head in one piece.
pub(crate) const BUFFER_BYTES: usize = 72 * 1024;

/// The most that `LB_MAX_HEAD_BYTES` and `LB_MAX_URI_BYTES` may be together: a head that is taken has to fit into a buffer, with its separators.
pub(crate) const HEAD_AND_URI_MAX_BYTES: usize = 64 * 1024;

/// Unused buffers that a worker keeps.
pub(crate) const BUFFERS_KEPT: usize = 128;

/// How exact timeouts are. Short enough for people, long enough that looking at ten thousand connections costs nothing.
pub(crate) const TICK: Duration = Duration::from_millis(25);

/// Headers of one message; more is 431.
pub(crate) const HEADERS_MAX: usize = 100;

/// Bytes of an `X-Request-Id` that is taken over; others are replaced.
pub(crate) const REQUEST_ID_MAX_BYTES: usize = 128;

/// Bytes of the line before a chunk, its extensions included.
pub(crate) const CHUNK_LINE_MAX_BYTES: usize = 1024;

/// Bytes of the trailers of a chunked body.
pub(crate) const TRAILERS_MAX_BYTES: usize = 8 * 1024;

/// Pause after a failed accept (out of file descriptors), so that it does not spin.
pub(crate) const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// How long an answer to a request that was not read to its end is left to its reader, before the connection is closed.
pub(crate) const LINGER: Duration = Duration::from_secs(1);

/// Bytes that are read and dropped meanwhile.
pub(crate) const LINGER_MAX_BYTES: usize = 1024 * 1024;

/// How long one lookup of a name may take.
pub(crate) const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause after a failed lookup, when that is shorter than the usual one.
pub(crate) const RESOLVE_RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Addresses used at once; the rest of a longer answer is ignored.
pub(crate) const BACKENDS_MAX: usize = 256;

/// How long a gateway that refused a connection is skipped the first time; doubles with each further failure.
pub(crate) const EJECT_MIN: Duration = Duration::from_secs(1);

/// The longest a gateway is skipped before it is tried again.
pub(crate) const EJECT_MAX: Duration = Duration::from_secs(8);

/// Bytes of a status line that a health check reads.
pub(crate) const STATUS_LINE_MAX_BYTES: u64 = 1024;

/// The share of its turns that a gateway which has just come back takes.
pub(crate) const RETURN_SHARE_MIN: f32 = 0.1;

/// How long a repetition that was not needed stays in the retry budget; after it about a third (1/e) is left.
pub(crate) const RETRY_WINDOW: Duration = Duration::from_secs(10);

/// After so long, a measured latency counts about a third (1/e) of what it did. Short against the ups and downs of a day, long against requests.
pub(crate) const EWMA_DECAY: Duration = Duration::from_secs(10);

/// What a gateway's answers are taken to need before there was one.
pub(crate) const INITIAL_LATENCY: Duration = Duration::from_millis(30);

/// What a failure counts for at least, as a latency: more than any answer of a healthy system needs.
pub(crate) const ERROR_LATENCY: Duration = Duration::from_secs(1);

/// A gateway that has requests and has not begun any answer for this long is taken for frozen. Far above what a busy one needs, as it
/// answers something now and then; far below the time after which a single request is given up.
pub(crate) const SILENT_MAX: Duration = Duration::from_secs(3);

/// How often a request that may be sent again looks whether its gateway has fallen silent; also what such a gateway's trial gets.
pub(crate) const SILENCE_LOOK_EVERY: Duration = Duration::from_millis(500);

/// Clients whose token buckets are remembered; the one not seen for longest is forgotten first.
pub(crate) const CLIENTS_MAX: usize = 65_536;

/// Bytes of lines that wait for the access log's writer; further lines are dropped and counted.
pub(crate) const ACCESS_QUEUE_MAX_BYTES: usize = 4 * 1024 * 1024;

/// How long the writer gathers lines before it writes them together.
pub(crate) const ACCESS_LINGER: Duration = Duration::from_millis(20);

/// How long the last lines may take to be written at the stop.
pub(crate) const ACCESS_FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest path, referrer or user agent in the access log, bytes.
pub(crate) const ACCESS_FIELD_MAX_BYTES: usize = 1024;

/// After the grace, how long answers that were cut may take to leave.
pub(crate) const CUT_TIMEOUT: Duration = Duration::from_millis(500);

/// The timeouts that are settings. [`Timeouts::from`] a [`Config`] gives those of production; tests shorten some.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// Connecting to a gateway.
    pub connect: Duration,
    /// From the last byte of the request to the head of the answer.
    pub response_head: Duration,
    /// Silence within an answer; above the 15 s between heartbeats of event streams.
    pub response_idle: Duration,
    /// Silence within a request's body.
    pub request_idle: Duration,
    /// From the first byte of a request to the end of its head.
    pub request_head: Duration,
    /// Between a client's requests.
    pub keep_alive: Duration,
    /// How long a client or a gateway may take nothing of what is ready for it.
    pub write: Duration,
    /// Silence within a tunnel.
    pub tunnel_idle: Duration,
    /// Between two requests on a connection to a gateway.
    pub upstream_idle: Duration,
    /// After the stop signal, how long answers under way may take.
    pub grace: Duration,
}

impl From<&Config> for Timeouts {
    fn from(config: &Config) -> Self {
        let set = &config.timeouts;
        Self {
            connect: seconds(set.lb_connect_timeout_ms / 1000.0),
            response_head: seconds(set.lb_response_timeout_sec),
            response_idle: seconds(set.lb_response_idle_sec),
            request_idle: seconds(set.lb_request_idle_sec),
            request_head: seconds(set.lb_request_head_sec),
            keep_alive: seconds(set.lb_keep_alive_sec),
            write: seconds(set.lb_write_timeout_sec),
            tunnel_idle: seconds(set.lb_tunnel_idle_sec),
            upstream_idle: seconds(set.lb_upstream_idle_sec),
            grace: seconds(set.lb_grace_sec),
        }
    }
}

/// The sizes that are settings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Connections of clients at once.
    pub(crate) connections: usize,
    /// Requests forwarded at once.
    pub(crate) requests: usize,
    /// Bytes of a request's header names and values together.
    pub(crate) head_bytes: usize,
    /// Bytes of a request's path and query.
    pub(crate) uri_bytes: usize,
    /// Bytes of a request's body.
    pub(crate) body_bytes: u64,
    /// The largest body kept for a repetition.
    pub(crate) replay_body_bytes: usize,
    /// Idle connections kept per gateway and worker.
    pub(crate) idle_per_gateway: usize,
}

impl From<&Config> for Limits {
    fn from(config: &Config) -> Self {
        let set = &config.limits;
        Self {
            connections: set.lb_max_connections.min(tokio::sync::Semaphore::MAX_PERMITS),
            requests: set.lb_max_requests,
            head_bytes: set.lb_max_head_bytes,
            uri_bytes: set.lb_max_uri_bytes,
            body_bytes: match set.lb_max_body_bytes {
                0 => u64::MAX,
                bytes => bytes,
            },
            replay_body_bytes: set.lb_replay_body_bytes,
            idle_per_gateway: set.lb_idle_per_gateway,
        }
    }
}

#[cfg(test)]
impl Limits {
    /// Those of a load balancer with no settings of its own.
    pub(crate) fn usual() -> Self {
        Self::from(&service::settings::try_parse_from::<Config>(["lb"]).unwrap())
    }
}

/// A setting in seconds as a duration; absurdly long ones become a year.
pub(crate) fn seconds(sec: f64) -> Duration {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    Duration::try_from_secs_f64(sec).unwrap_or(YEAR).min(YEAR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_become_durations_and_sizes() {
        let config: Config = service::settings::try_parse_from([
            "lb",
            "--lb-connect-timeout-ms",
            "250",
            "--lb-tunnel-idle-sec",
            "1e300",
            "--lb-max-body-bytes",
            "0",
        ])
        .unwrap();
        let timeouts = Timeouts::from(&config);
        assert_eq!(timeouts.connect, Duration::from_millis(250));
        assert_eq!(timeouts.keep_alive, Duration::from_secs(75));
        assert_eq!(timeouts.tunnel_idle, Duration::from_secs(365 * 24 * 3600));
        assert_eq!(Limits::from(&config).body_bytes, u64::MAX);
        assert_eq!(Limits::usual().body_bytes, 64 * 1024 * 1024);
    }
}
