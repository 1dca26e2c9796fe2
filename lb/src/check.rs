//! Asking gateways whether they are well, before a request finds out.
//!
//! Promises: every gateway is asked once per interval, all at the same time; one that fails `fall` times in a row is left out, and is back after
//! `rise` good answers in a row, its share growing slowly; never are so many left out that fewer than half of the gateways remain. Any answer
//! below 500 is good: it is a process that is asked about, not a page.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use service::{Heartbeat, Shutdown};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::backends::Backends;
use crate::config::Config;
use crate::limits::{STATUS_LINE_MAX_BYTES, seconds};

/// When and how gateways are asked.
#[derive(Debug, Clone)]
pub(crate) struct Checks {
    /// What is asked for.
    pub(crate) path: String,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    /// Good answers in a row that bring a gateway back.
    pub(crate) rise: u32,
    /// Failures in a row that put it out.
    pub(crate) fall: u32,
}

impl Checks {
    /// None when they are turned off.
    pub(crate) fn of(config: &Config) -> Option<Self> {
        let set = &config.faults;
        (set.lb_health_interval_sec > 0.0).then(|| Self {
            path: set.lb_health_path.clone(),
            interval: seconds(set.lb_health_interval_sec),
            timeout: seconds(set.lb_health_timeout_ms / 1000.0),
            rise: set.lb_health_rise,
            fall: set.lb_health_fall,
        })
    }
}

/// What the last answers of a gateway were.
#[derive(Debug, Clone, Copy, Default)]
struct Record {
    good: u32,
    bad: u32,
}

impl Record {
    fn note(&mut self, is_good: bool) {
        *self = if is_good {
            Self {
                good: self.good.saturating_add(1),
                bad: 0,
            }
        } else {
            Self {
                good: 0,
                bad: self.bad.saturating_add(1),
            }
        };
    }
}

/// Asks until `shutdown`.
pub(crate) async fn keep_checked<F, Fut>(
    backends: Arc<Backends>,
    checks: Checks,
    ask: F,
    heartbeat: Heartbeat,
    shutdown: Shutdown,
) where
    F: Fn(SocketAddr) -> Fut + Send,
    Fut: Future<Output = io::Result<()>> + Send,
{
    let mut records: HashMap<SocketAddr, Record> = HashMap::new();
    loop {
        let list = backends.list();
        records.retain(|addr, _| list.iter().any(|backend| backend.addr == *addr));
        let answers = list.iter().map(|backend| {
            let asked = ask(backend.addr);
            async {
                tokio::time::timeout(checks.timeout, asked).await.unwrap_or_else(|_| {
                    let reason = format!("no answer within {:?}", checks.timeout);
                    Err(io::Error::new(io::ErrorKind::TimedOut, reason))
                })
            }
        });
        for (backend, answer) in list.iter().zip(join_all(answers).await) {
            let record = records.entry(backend.addr).or_default();
            record.note(answer.is_ok());
            match answer {
                // Again in every round: it may not have been allowed before, and is now.
                Err(error) if record.bad >= checks.fall => backends.put_out(backend, &error),
                Ok(()) if record.good >= checks.rise => backends.bring_back(backend, Instant::now()),
                _ => {}
            }
        }
        heartbeat.ok();
        if !shutdown.sleep(checks.interval).await {
            return;
        }
    }
}

/// Asks a gateway for `path` over a connection of its own.
///
/// # Errors
/// When it takes no connection, does not speak HTTP/1, or answers with 500 or above.
pub(crate) async fn ask(addr: SocketAddr, path: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect(addr).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {addr}\r\nuser-agent: lb-health\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut line = Vec::new();
    let mut head = stream.take(STATUS_LINE_MAX_BYTES);
    while !line.contains(&b'\n') {
        if head.read_buf(&mut line).await? == 0 {
            break;
        }
    }
    match status(&line) {
        Some(..500) => Ok(()),
        Some(status) => Err(io::Error::other(format!("it answers {status}"))),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "its answer is not HTTP/1")),
    }
}

/// The status in a status line.
fn status(line: &[u8]) -> Option<u16> {
    let rest = line
        .strip_prefix(b"HTTP/1.1 ")
        .or_else(|| line.strip_prefix(b"HTTP/1.0 "))?;
    let digits = rest.get(..3).filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
    let ends = matches!(rest.get(3), Some(b' ' | b'\r' | b'\n'));
    ends.then(|| digits.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Mutex;

    use proptest::prelude::ProptestConfig;
    use proptest::{prop_assert, proptest};
    use service::Tasks;
    use service::metrics::Metrics;

    use super::*;
    use crate::backends::Rules;
    use crate::metrics::LbMetrics;

    const INTERVAL: Duration = Duration::from_secs(2);

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    /// Gateways on ports 1 to `count`, of which some do not answer.
    struct World {
        backends: Arc<Backends>,
        bad: Arc<Mutex<BTreeSet<u16>>>,
        tasks: Tasks,
    }

    impl World {
        fn new(count: u16) -> Self {
            let rules = Rules {
                slow_start: Duration::ZERO,
                ..Rules::usual()
            };
            let metrics = Arc::new(LbMetrics::new(&Metrics::new("lb")));
            let world = Self {
                backends: Arc::new(Backends::new(rules, 1, metrics)),
                bad: Arc::default(),
                tasks: Tasks::new(Shutdown::new()),
            };
            world.backends.replace(&(1..=count).map(addr).collect::<Vec<_>>());
            let checks = Checks {
                path: "/health".to_owned(),
                interval: INTERVAL,
                timeout: Duration::from_secs(1),
                rise: 2,
                fall: 3,
            };
            let (backends, bad) = (Arc::clone(&world.backends), Arc::clone(&world.bad));
            world
                .tasks
                .spawn("health", Duration::from_secs(60), move |heartbeat, shutdown| {
                    let ask = move |addr: SocketAddr| {
                        let is_bad = bad.lock().unwrap().contains(&addr.port());
                        async move {
                            match (is_bad, addr.port()) {
                                (false, _) => Ok(()),
                                // One never answers, the others refuse.
                                (true, 1) => std::future::pending().await,
                                (true, _) => Err(io::ErrorKind::ConnectionRefused.into()),
                            }
                        }
                    };
                    keep_checked(backends, checks, ask, heartbeat, shutdown)
                });
            world
        }

        /// After so many more checks: who gets requests.
        async fn after(&self, rounds: u32, bad: &[u16]) -> Vec<u16> {
            *self.bad.lock().unwrap() = bad.iter().copied().collect();
            // A round takes the interval, and the timeout of the one that never answers.
            let hangs = Duration::from_secs(u64::from(bad.contains(&1)));
            tokio::time::sleep((INTERVAL + hangs) * rounds).await;
            let picked: BTreeSet<u16> = (0..100)
                .filter_map(|_| self.backends.pick(&[], Instant::now()))
                .map(|pick| pick.backend.addr.port())
                .collect();
            picked.into_iter().collect()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_fails_often_enough_is_left_out_until_it_is_well_often_enough() {
        let world = World::new(3);
        // Between two checks.
        tokio::time::sleep(INTERVAL / 2).await;
        assert_eq!(world.after(2, &[1]).await, [1, 2, 3], "two failures may be chance");
        assert_eq!(world.after(1, &[1]).await, [2, 3]);
        assert_eq!(world.after(1, &[]).await, [2, 3], "so may one good answer");
        assert_eq!(world.after(1, &[]).await, [1, 2, 3]);
        world.tasks.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn half_of_them_stay_whatever_the_checks_say() {
        let world = World::new(4);
        tokio::time::sleep(INTERVAL / 2).await;
        assert_eq!(world.after(4, &[2, 3, 4]).await.len(), 2);
        assert_eq!(world.after(4, &[1, 2, 3, 4]).await.len(), 2);
        // One that may be put out only later is.
        let left = world.after(4, &[4]).await;
        assert_eq!(left, [1, 2, 3]);
        // Fewer addresses: half of those that are left.
        assert_eq!(world.after(4, &[3, 4]).await, [1, 2]);
        world.backends.replace(&[addr(3), addr(4)]);
        assert_eq!(world.after(0, &[3, 4]).await.len(), 1);
        world.tasks.stop().await;
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn a_status_has_three_digits(line in "(HTTP/1[.][01] )?[0-9 x]{0,6}") {
            if let Some(status) = status(line.as_bytes()) {
                prop_assert!(line[9..].starts_with(&format!("{status:03} ")), "{}: {}", line, status);
            }
        }
    }

    #[test]
    fn statuses_are_read() {
        for (line, expected) in [
            ("HTTP/1.1 200 OK\r\n", Some(200)),
            ("HTTP/1.0 503\r\n", Some(503)),
            ("HTTP/1.1 2000 OK\r\n", None),
            ("HTTP/1.1 20", None),
            ("HTTP/2 200 OK\r\n", None),
            ("", None),
        ] {
            assert_eq!(status(line.as_bytes()), expected, "{line:?}");
        }
    }
}
