//! Every limit and timeout of the proxy in one place.

use std::time::Duration;

use crate::config::Config;

/// The largest request body kept in memory so that it can be sent a second time. Larger ones stream and are not repeated.
pub(crate) const REPLAY_BODY_MAX_BYTES: usize = 1024 * 1024;

/// Memory for such bodies in all. A request that finds it used up streams and is not repeated.
pub(crate) const REPLAY_TOTAL_MAX_BYTES: usize = 64 * 1024 * 1024;

/// Gateways tried for a request of which nothing has been sent yet.
pub(crate) const MAX_ATTEMPTS: usize = 4;

/// Bytes of a request's header names and values together; more is 431.
pub(crate) const HEADERS_MAX_BYTES: usize = 32 * 1024;

/// Bytes of a request's path and query; more is 414.
pub(crate) const URI_MAX_BYTES: usize = 8 * 1024;

/// Idle connections kept per gateway.
pub(crate) const IDLE_MAX_PER_BACKEND: usize = 512;

/// How long an idle connection is kept: below the 75 s after which our servers close it themselves.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(50);

/// A request that must not be sent twice takes no connection that idled longer than this: the shorter a connection has idled,
/// the less likely it is that the other end is just closing it.
pub(crate) const IDLE_FOR_UNREPEATABLE: Duration = Duration::from_secs(1);

/// Bytes read at once; also the most that a head may have, and that is held of a connection in each direction. An answer of 64 KiB comes with
/// its head in one piece.
pub(crate) const BUFFER_BYTES: usize = 72 * 1024;

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

/// Connections of clients at once; further ones wait in the listener's backlog.
pub(crate) const CONNECTIONS_MAX: usize = 16_384;

/// Pause after a failed accept (out of file descriptors), so that it does not spin.
pub(crate) const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// How long an answer to a request that was not read to its end is left to its reader, before the connection is closed.
pub(crate) const LINGER: Duration = Duration::from_secs(1);

/// Bytes that are read and dropped meanwhile.
pub(crate) const LINGER_MAX_BYTES: usize = 1024 * 1024;

/// A tunnel through which nothing comes for so long is closed.
pub(crate) const TUNNEL_IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

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

/// The timeouts that tests shorten. [`Timeouts::from`] a [`Config`] gives those of production.
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
    /// After the stop signal, how long answers under way may take.
    pub grace: Duration,
}

impl From<&Config> for Timeouts {
    fn from(config: &Config) -> Self {
        Self {
            connect: seconds(config.lb_connect_timeout_ms / 1000.0),
            response_head: seconds(config.lb_response_timeout_sec),
            response_idle: Duration::from_secs(120),
            request_idle: Duration::from_secs(20),
            request_head: Duration::from_secs(20),
            keep_alive: Duration::from_secs(75),
            write: Duration::from_secs(30),
            grace: Duration::from_secs(2),
        }
    }
}

/// A setting in seconds as a duration; absurdly long ones become a year.
pub(crate) fn seconds(sec: f64) -> Duration {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    Duration::try_from_secs_f64(sec).unwrap_or(YEAR).min(YEAR)
}
