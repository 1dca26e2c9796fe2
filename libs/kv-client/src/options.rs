//! The client's limits.

use std::time::Duration;

/// Limits of a client. The defaults fit the services of this repository.
#[derive(Debug, Clone)]
pub struct Options {
    /// Longest time from sending a request to the end of its answer. Default 3 s: longer than kvfront's own deadline, so that
    /// its precise answer (nothing changed, or unknown) arrives before this guess does.
    pub request_timeout: Duration,
    /// Longest time to make a connection. Default 500 ms.
    pub connect_timeout: Duration,
    /// How often a read is sent again after [`crate::KvError::is_retryable`] errors. Default 2.
    /// No repetition starts later than [`Self::request_timeout`] after the first attempt.
    pub read_retries: u32,
    /// How often a change is sent again when it was not carried out for now, or when it is not known whether it was. Default 0: each is
    /// sent once. With more, each change carries a name (`Request-Id`) under which it takes effect once, however often it is sent; that
    /// costs a put or delete a second round trip between kvfront and the nodes, and asks this machine's clock to be within
    /// `MAX_CLOCK_SKEW_MS` of kvfront's. No repetition starts later than [`Self::request_timeout`] after the first attempt.
    pub write_retries: u32,
    /// Middle of the wait before the first repetition; doubles each time, with ±50 % of jitter. Default 50 ms.
    pub retry_backoff: Duration,
    /// Largest answer read, in bytes. Default 64 MiB: a page of a scan may hold many values of up to 1 MiB.
    pub max_answer_bytes: usize,
    /// Idle connections kept per kvfront. Default 32.
    pub max_idle_connections: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(3),
            connect_timeout: Duration::from_millis(500),
            read_retries: 2,
            write_retries: 0,
            retry_backoff: Duration::from_millis(50),
            max_answer_bytes: 64 << 20,
            max_idle_connections: 32,
        }
    }
}
