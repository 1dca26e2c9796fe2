//! Buses to try promises on, and waiting with a deadline.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bus::testing::Broker;
use bus::{Bus, Delivery, InProcess, Rabbit, Subscription, Topic};
use bytes::Bytes;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// Longest wait for something that must happen; generous, as it only costs time when a test fails.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// How long to look for something that must not happen.
pub(crate) const QUIET: Duration = Duration::from_millis(300);

/// A bus, and topics that no other test uses.
pub(crate) struct Fixture {
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) shutdown: CancellationToken,
    name: &'static str,
}

impl Fixture {
    pub(crate) fn in_process(name: &'static str) -> Self {
        let shutdown = CancellationToken::new();
        Self {
            bus: InProcess::with_shutdown(shutdown.clone()),
            shutdown,
            name,
        }
    }

    /// A bus over the broker that all tests of this binary share; none if RabbitMQ is not installed.
    pub(crate) async fn rabbit(name: &'static str) -> Option<Self> {
        let shutdown = CancellationToken::new();
        let bus = Rabbit::connect(shared_broker().await?, shutdown.clone()).expect("the URL is right");
        until("the bus is connected", || bus.connected()).await;
        Some(Self { bus, shutdown, name })
    }

    pub(crate) fn work(&self) -> Topic {
        Topic::work(self.name)
    }

    pub(crate) fn broadcast(&self) -> Topic {
        Topic::broadcast(format!("{}_news", self.name))
    }
}

/// The URL of the broker that all tests of this binary share, started by the first; none if RabbitMQ is not installed.
pub(crate) async fn shared_broker() -> Option<&'static str> {
    // Never dropped, being static: the broker ends with its standard input, when this process does.
    static SHARED: OnceLock<Option<Broker>> = OnceLock::new();
    let shared = tokio::task::spawn_blocking(|| SHARED.get_or_init(start_broker))
        .await
        .expect("starting a broker");
    shared.as_ref().map(|broker| broker.url.as_str())
}

/// A broker for a test that stops it; none if RabbitMQ is not installed.
pub(crate) async fn own_broker() -> Option<Broker> {
    tokio::task::spawn_blocking(start_broker)
        .await
        .expect("starting a broker")
}

fn start_broker() -> Option<Broker> {
    // Every test with a broker comes through here. The first one sets it for all; the others fail to, which is fine.
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "bus=debug".into());
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_test_writer()
        .try_init();
    if !Broker::installed() {
        assert!(
            std::env::var_os("CI").is_none_or(|value| value != "true"),
            "RabbitMQ is missing, and CI must not skip its tests: install the Debian package rabbitmq-server"
        );
        eprintln!("SKIPPED: RabbitMQ is not installed (Debian package rabbitmq-server), so its tests did not run");
        return None;
    }
    Some(Broker::start().expect("RabbitMQ starts"))
}

/// Waits until `condition` holds.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The next message, which must come.
pub(crate) async fn next(subscription: &mut Box<dyn Subscription>) -> Delivery {
    timeout(SOON, subscription.next())
        .await
        .expect("a message arrives")
        .expect("the bus is running")
}

/// Looks for a while, and nothing must come.
pub(crate) async fn nothing(subscription: &mut Box<dyn Subscription>) {
    if let Ok(Some(delivery)) = timeout(QUIET, subscription.next()).await {
        panic!("unexpected message {:?}", delivery.body);
    }
}

pub(crate) fn body(number: usize) -> Bytes {
    Bytes::from(format!("{{\"number\":{number}}}"))
}

/// The inverse of [`body`].
pub(crate) fn number(body: &Bytes) -> usize {
    let text = std::str::from_utf8(body).expect("text");
    let digits = text.trim_start_matches("{\"number\":").trim_end_matches('}');
    digits.parse().expect("a number")
}
